//! What the notifier is woken by: the table's stream, and a schedule for what has to be tried again.
//!
//! Four kinds of records concern it; the filters of the event source let no others through, and what comes all the same is
//! passed over. An event that waits to be told: the outbox is emptied. A slim item that DynamoDB removed, because its time
//! to live had ended: nobody has swept for an hour, so it is put back and its host is judged here.
//!
//! The other two come from the other region, where there are two. Its decision about a host: if it replaced one of this region
//! without knowing of it, or only a part of it is left, then the host is put together again ([`mend`](hb_store_dynamodb::DynamoStore::mend)). Its event
//! in the place of the same one of this region: one of the two is taken away ([`unite`](hb_store_dynamodb::DynamoStore::unite)).

use core::time::Duration;
use std::time::Instant;

use hb_api::app::App;
use hb_core::mutant::{Mutant, active};
use hb_store::Store as _;
use hb_store_dynamodb::image::{self, Image};
use hb_store_dynamodb::{keys, table};
use hb_wire::id::HostId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;
use crate::sweeper::Sweeper;

/// Who removes an item whose time to live has ended.
const TTL_PRINCIPAL: &str = "dynamodb.amazonaws.com";
/// How long hosts that were put back are waited for to be judged, in one run: the gap is credited to them, and a hold-off.
const JUDGE_MAX: Duration = Duration::from_mins(8);
/// Pause between two looks at it.
const JUDGE_PAUSE: Duration = Duration::from_secs(5);
/// Rounds of delivery in one run: more is left to the next one.
const ROUNDS_MAX: usize = 200;

/// What the notifier is invoked with.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Event {
    /// Records of the stream.
    Stream {
        /// In their order.
        #[serde(rename = "Records")]
        records: Vec<Value>,
    },
    /// By the schedule.
    Command(Command),
}

/// What the schedule asks for, as `{"hb": "deliver"}`.
#[derive(Debug, Deserialize)]
#[serde(tag = "hb", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Deliver what is due.
    Deliver {},
}

/// The answer to a stream: where it has to begin again. Empty: nowhere.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    batch_item_failures: Vec<Failed>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Failed {
    item_identifier: String,
}

/// A record, as far as it concerns the notifier.
#[derive(Debug, PartialEq)]
enum Record {
    /// An event waits to be told.
    Untold,
    /// A slim item was removed by its time to live; its old image.
    Expired(Value),
    /// A host's document was replaced; its old image and its new one.
    Replaced(Value, Value),
    /// The pointer to an event was replaced; its old image and its new one.
    Doubled(Value, Value),
    /// Nothing of the notifier's.
    Other,
}

impl Record {
    fn read(record: &Value) -> Result<Self, Error> {
        let name = record["eventName"].as_str().ok_or("a record has no eventName")?;
        let pk = record["dynamodb"]["Keys"][table::PK]["S"].as_str().ok_or("a record has no key of the table")?;
        let by = &record["userIdentity"];
        let is_expiry = by["type"] == "Service" && by["principalId"] == TTL_PRINCIPAL;
        let image = |which: &str| record["dynamodb"][which].clone();
        Ok(match name {
            "INSERT" if pk.starts_with(keys::UNTOLD) => Self::Untold,
            "REMOVE" if pk.starts_with(keys::LIVE) && is_expiry => Self::Expired(image("OldImage")),
            "MODIFY" if pk.starts_with(keys::HOST) => Self::Replaced(image("OldImage"), image("NewImage")),
            "MODIFY" if pk.starts_with(keys::EVENT) => Self::Doubled(image("OldImage"), image("NewImage")),
            "INSERT" | "MODIFY" | "REMOVE" => Self::Other,
            _ => return Err(format!("a record's eventName is {name:?}").into()),
        })
    }
}

/// Does what an event asks for.
///
/// # Errors
/// What Lambda is to try again as a whole, and to put aside when that does not help: an event of another shape, or a
/// delivery by the schedule that the store did not allow.
pub async fn run(sweeper: &Sweeper, event: Value) -> Result<Answer, Error> {
    let event: Event =
        serde_json::from_value(event).map_err(|_| "this is neither a batch of the stream nor a command of hb's")?;
    match event {
        Event::Command(Command::Deliver {}) => {
            // Each minute, and mostly there is nothing: what is new was in the stream.
            if sweeper.store.may_have_work().await? {
                heed(sweeper).await?;
                deliver(&sweeper.app).await?;
            }
            Ok(Answer::default())
        }
        Event::Stream { records } => take_all(sweeper, &records).await,
    }
}

/// Takes the records in their order; those that a moment may settle are looked at again after the others.
async fn take_all(sweeper: &Sweeper, records: &[Value]) -> Result<Answer, Error> {
    let latest = Instant::now() + JUDGE_MAX;
    let mut torn = Vec::new();
    for record in records {
        match take(sweeper, record, latest).await {
            Ok(Taken::Done) => {}
            Ok(Taken::Torn(old, new)) => torn.push((record, old, new)),
            Err(error) => return failed(record, error),
        }
    }
    if torn.is_empty() {
        return Ok(Answer::default());
    }
    tokio::time::sleep(sweeper.settle).await;
    for (record, old, new) in torn {
        if let Err(error) = mend(sweeper, &old, &new).await {
            return failed(record, error);
        }
    }
    Ok(Answer::default())
}

/// The records before this one are done, or do no harm when they are done again: Lambda begins again here.
fn failed(record: &Value, error: Error) -> Result<Answer, Error> {
    let Some(number) = record["dynamodb"]["SequenceNumber"].as_str() else { return Err(error) };
    tracing::error!(sequence_number = number, "a record could not be dealt with: {error}");
    Ok(Answer { batch_item_failures: vec![Failed { item_identifier: number.to_owned() }] })
}

/// What became of a record.
#[derive(Debug)]
enum Taken {
    Done,
    /// A host is not of one piece. The images of its document.
    Torn(Image, Image),
}

async fn take(sweeper: &Sweeper, record: &Value, latest: Instant) -> Result<Taken, Error> {
    let (app, store) = (&sweeper.app, &sweeper.store);
    match Record::read(record)? {
        Record::Other => {}
        Record::Untold => deliver(app).await?,
        Record::Expired(old) => {
            let image = image::from_json(&old)?;
            let id = store.id_of(&image)?;
            if store.put_back(image.clone()).await? {
                tracing::error!(host.id = %id, "nobody has swept for an hour: the host is judged by the notifier");
            }
            judge(sweeper, &image, id, latest).await?;
        }
        Record::Replaced(old, new) => {
            let (old, new) = (image::from_json(&old)?, image::from_json(&new)?);
            if !active(Mutant::Unmended) && store.is_torn(&old, &new).await? {
                return Ok(Taken::Torn(old, new));
            }
        }
        Record::Doubled(old, new) => {
            store.unite(&image::from_json(&old)?, &image::from_json(&new)?).await?;
        }
    }
    Ok(Taken::Done)
}

/// Takes over what the sweeper found out about the other region.
async fn heed(sweeper: &Sweeper) -> Result<(), Error> {
    if sweeper.neighbour.is_some() {
        let now = sweeper.app.clock.now();
        sweeper.store.stand_in(sweeper.store.outlook().await?.and_then(|outlook| outlook.absence(now)));
    }
    Ok(())
}

async fn mend(sweeper: &Sweeper, old: &Image, new: &Image) -> Result<(), Error> {
    if sweeper.store.mend(old, new).await? {
        tracing::warn!("two regions decided about a host at the same time: what they decided is put together");
        deliver(&sweeper.app).await?;
    }
    Ok(())
}

/// Empties the outbox of what is due.
async fn deliver(app: &App) -> Result<(), Error> {
    for _ in 0..ROUNDS_MAX {
        if app.deliver().await? == 0 {
            break;
        }
    }
    Ok(())
}

/// Sweeps until the host is decided about, or is heard, or waits for nothing; and tells what the sweeps found meanwhile.
async fn judge(sweeper: &Sweeper, image: &Image, id: HostId, latest: Instant) -> Result<(), Error> {
    let (app, store) = (&sweeper.app, &sweeper.store);
    loop {
        sweeper.run().await?;
        deliver(app).await?;
        // Whoever removed it, it is the other region's, and that one sweeps.
        if !store.deals_with(image) {
            return Ok(());
        }
        let Some(host) = store.host(id).await? else { return Ok(()) };
        let host = host.value;
        let observation = app.watch.shown();
        // Not armed any more: down, paused, retired.
        if host.alarm_at(&observation.ledger, &app.settings.policy).is_none() {
            return Ok(());
        }
        // It beats.
        if app.clock.now().since(host.life.silent_from) < host.need_ms() {
            return Ok(());
        }
        if Instant::now() >= latest {
            return Err(format!("host {id} could not be judged within {JUDGE_MAX:?}").into());
        }
        tokio::time::sleep(JUDGE_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(name: &str, pk: &str, by: &Value) -> Value {
        json!({"eventName": name, "userIdentity": by,
            "dynamodb": {"SequenceNumber": "7", "Keys": {"p": {"S": pk}, "s": {"S": "x"}}, "OldImage": {"p": {"S": pk}}}})
    }

    #[test]
    fn four_kinds_of_records_concern_the_notifier() {
        let ttl = json!({"type": "Service", "principalId": "dynamodb.amazonaws.com"});
        let read = |name, pk, by: &Value| Record::read(&record(name, pk, by)).unwrap();
        assert_eq!(read("INSERT", "U#all", &Value::Null), Record::Untold);
        assert_eq!(read("REMOVE", "L#03", &ttl), Record::Expired(json!({"p": {"S": "L#03"}})));
        assert_eq!(read("MODIFY", "H#1", &Value::Null), Record::Replaced(json!({"p": {"S": "H#1"}}), Value::Null));
        assert_eq!(read("MODIFY", "V#1", &Value::Null), Record::Doubled(json!({"p": {"S": "V#1"}}), Value::Null));
        // A host that was retired, and a replica's own removal: nobody says that time ended there.
        assert_eq!(read("REMOVE", "L#03", &Value::Null), Record::Other);
        for (name, pk) in
            [("MODIFY", "L#03"), ("INSERT", "L#03"), ("REMOVE", "U#all"), ("REMOVE", "C#all"), ("MODIFY", "U#all")]
        {
            assert_eq!(read(name, pk, &ttl), Record::Other, "{name} {pk}");
        }
    }

    #[test]
    fn a_record_of_another_shape_is_an_error() {
        for bad in [json!({}), json!({"eventName": "INSERT"}), record("TRUNCATE", "U#all", &Value::Null), json!(null)] {
            assert!(Record::read(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_a_stream_and_hbs_commands_are_events() {
        let read = serde_json::from_value::<Event>;
        assert!(matches!(read(json!({"Records": []})), Ok(Event::Stream { .. })));
        assert!(matches!(read(json!({"hb": "deliver"})), Ok(Event::Command(Command::Deliver {}))));
        for bad in [json!({}), json!({"hb": "delete"}), json!({"hb": "deliver", "x": 1}), json!([]), json!("deliver")] {
            assert!(read(bad).is_err());
        }
    }
}
