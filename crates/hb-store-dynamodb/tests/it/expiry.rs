//! The time to live: what DynamoDB removes when nobody swept, and what is done about it.

use std::collections::HashMap;
use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::future::join;
use hb_core::host::{Maintenance, State};
use hb_core::ledger::Ledger;
use hb_core::policy::Policy;
use hb_store::{Beaten, Change, Committed, Store as _};
use hb_store_dynamodb::image::{self, Image};
use hb_store_dynamodb::{DynamoStore, TTL_SLACK_S, Usage, keys, table};
use serde_json::Value;

use crate::desk::{self, Gate, Ruling};
use crate::emulator::{Emulator, TABLE, connection, with_stream};
use crate::world::{START, beat, enrol, host, id, nonce, read};

/// The old images of what was removed by its time to live.
fn expired(emulator: &Emulator) -> Vec<Image> {
    let records: Vec<Value> = serde_json::from_str(&emulator.tell(&format!("records {TABLE}"))).unwrap();
    let by_time = |record: &&Value| {
        record["eventName"] == "REMOVE" && record["userIdentity"]["principalId"] == "dynamodb.amazonaws.com"
    };
    let image = |record: &Value| image::from_json(&record["dynamodb"]["OldImage"]).unwrap();
    records.iter().filter(by_time).map(image).collect()
}

/// Lets that many seconds pass since the beginning, and has DynamoDB remove what it may; how many items that were.
fn pass(emulator: &Emulator, seconds: u64) -> String {
    emulator.tell(&format!("clock {}", START.0 / 1000 + seconds));
    emulator.tell("expire")
}

/// When a silent host with an interval of 60 s and a grace of 120 s may be removed.
const END_S: u64 = 180 + TTL_SLACK_S;

#[tokio::test]
async fn a_silent_host_that_nobody_swept_is_removed_an_hour_after_its_deadline_and_put_back() {
    let (store, emulator) = with_stream(Usage::default()).await;
    enrol(&store, &host(1)).await;
    let sent = beat(&host(1), START.plus(60_000), nonce(1));
    assert_eq!(store.beat(sent).await.unwrap(), Beaten::Stored);
    let before = read(&store, id(1)).await;
    assert_eq!(pass(&emulator, 60 + END_S - 1), "0", "not before");
    assert_eq!(pass(&emulator, 60 + END_S + 1), "1", "the slim item, and nothing else");
    let images = expired(&emulator);
    let [image] = images.as_slice() else { panic!("{images:?}") };
    assert!(image[table::PK].as_s().unwrap().starts_with(keys::LIVE));

    let gone = read(&store, id(1)).await;
    assert!(gone.rev > before.rev && gone.value.name == before.value.name, "the host itself is still known");
    let later = beat(&before.value, START.plus(4_000_000), nonce(2));
    assert_eq!(store.beat(later).await.unwrap(), Beaten::Decide(Box::new(gone)), "and its beats are decided about");

    assert!(store.put_back(image.clone()).await.unwrap());
    assert_eq!(read(&store, id(1)).await, before, "as if nothing had been");
    let due = store.due(START.plus(4_000_000), &Ledger::default(), &Policy::STANDARD, 10).await.unwrap();
    assert_eq!(due, [before], "and it is judged");
    assert!(!store.put_back(image.clone()).await.unwrap(), "it is there");
}

#[tokio::test]
async fn what_was_decided_about_since_is_not_put_back() {
    let (store, emulator) = with_stream(Usage::default()).await;
    enrol(&store, &host(1)).await;
    let before = read(&store, id(1)).await;
    assert_eq!(pass(&emulator, END_S + 1), "1");
    let mut gone = read(&store, id(1)).await;
    gone.value.transitions = 9;
    let change = |host| Change { host: Some(host), ..Change::default() };
    assert_eq!(store.commit(change(gone.clone())).await.unwrap(), Committed::Done, "absence can be decided from");
    assert_eq!(store.commit(change(gone.clone())).await.unwrap(), Committed::Conflict, "once");
    assert_eq!(store.commit(change(before)).await.unwrap(), Committed::Conflict);
    let now = read(&store, id(1)).await;
    assert!(now.rev > gone.rev && now.value.transitions == 9);
    for image in expired(&emulator) {
        assert!(!store.put_back(image).await.unwrap());
    }
    assert_eq!(read(&store, id(1)).await, now);
}

#[tokio::test]
async fn who_was_retired_since_is_not_put_back_among_the_living() {
    let (store, emulator) = with_stream(Usage::default()).await;
    enrol(&store, &host(1)).await;
    assert_eq!(pass(&emulator, END_S + 1), "1");
    let mut gone = read(&store, id(1)).await;
    gone.value.state = State::Retired { since: START };
    let change = Change { host: Some(gone), ..Change::default() };
    assert_eq!(store.commit(change).await.unwrap(), Committed::Done);
    let now = read(&store, id(1)).await;
    for image in expired(&emulator) {
        assert!(!store.put_back(image).await.unwrap());
    }
    assert_eq!(read(&store, id(1)).await, now);
    assert_eq!(store.fleet(START).await.unwrap().hosts, 0);
}

/// The two put the slim item into different shards: only the document can say that somebody was faster.
#[tokio::test]
async fn of_two_decisions_from_absence_one_is_done_even_with_different_shards() {
    let (one, emulator) = with_stream(Usage { shards: 1, ..Usage::default() }).await;
    enrol(&one, &host(1)).await;
    assert_eq!(pass(&emulator, END_S + 1), "1");
    let gate = Gate::closed();
    let held = Arc::clone(&gate);
    let rule = move |operation: &str, _: &str| {
        if operation == "TransactWriteItems" { Ruling::Hold(Arc::clone(&held)) } else { Ruling::Pass }
    };
    let desk = connection(&desk::open(emulator.address(), rule).await).client();
    let slow = DynamoStore::open(desk, TABLE, Usage { shards: 64, ..Usage::default() }).await.unwrap();
    let gone = read(&one, id(1)).await;
    let change = |transitions| {
        let mut decided = gone.clone();
        decided.value.transitions = transitions;
        Change { host: Some(decided), ..Change::default() }
    };
    let meanwhile = async {
        gate.arrived().await;
        let outcome = one.commit(change(1)).await;
        gate.open();
        outcome
    };
    let (late, early) = join(slow.commit(change(2)), meanwhile).await;
    assert_eq!((early.unwrap(), late.unwrap()), (Committed::Done, Committed::Conflict));
    assert_eq!(read(&one, id(1)).await.value.transitions, 1);
    assert_eq!(slow.fleet(START).await.unwrap().hosts, 1, "there is one slim item");
}

#[tokio::test]
async fn only_slim_items_are_put_back() {
    let (store, emulator) = with_stream(Usage::default()).await;
    enrol(&store, &host(1)).await;
    let key = HashMap::from([
        (table::PK.to_owned(), AttributeValue::S(format!("{}{}", keys::HOST, id(1).0))),
        (table::SK.to_owned(), AttributeValue::S("H".into())),
    ]);
    let found = emulator.client().get_item().table_name(TABLE).set_key(Some(key.clone())).send().await.unwrap();
    let document = found.item.unwrap();
    emulator.client().delete_item().table_name(TABLE).set_key(Some(key)).send().await.unwrap();
    assert!(!store.put_back(document).await.unwrap());
    assert!(!store.put_back(HashMap::new()).await.unwrap());
    assert_eq!(store.host(id(1)).await.unwrap(), None);
}

#[tokio::test]
async fn what_waits_for_nothing_is_kept() {
    let (store, emulator) = with_stream(Usage::default()).await;
    let mut paused = host(1);
    paused.state = State::Paused { since: START, until: None, reason: String::new(), outage: None, goodbye: None };
    let mut retired = host(2);
    retired.state = State::Retired { since: START };
    let mut away = host(3);
    away.class = hb_wire::view::Class::Intermittent;
    let mut maintained = host(4);
    let until = START.plus(48 * 3_600_000);
    maintained.maintenance = Some(Maintenance { until, note: String::new() });
    for host in [&paused, &retired, &away, &maintained] {
        enrol(&store, host).await;
    }
    // A beat moves the end on by what the host is waited for.
    let sent = beat(&maintained, START.plus(60_000), nonce(1));
    assert_eq!(store.beat(sent).await.unwrap(), Beaten::Stored);
    assert_eq!(pass(&emulator, 48 * 3600), "0");
    assert_eq!(pass(&emulator, 50 * 3600), "1", "the maintenance is over");
    assert_eq!(pass(&emulator, 5 * 365 * 24 * 3600), "0", "an absence that is no alarm lasts for years");
}
