//! DynamoDB on a loopback port, in memory, for tests: `hb-dynamodb [PORT]`.
//!
//! It prints its address, and then does what it is told on its standard input, line by line, with one line of answer for each:
//!
//! - `clock SECONDS`: it is that late now (seconds since the epoch). Until then it is the time of its start.
//! - `expire`: what has passed its time to live is removed now; answers how many items that were.
//! - `records TABLE`: everything in the table's stream, as JSON, spelled as a Lambda function is given it.
//! - `fresh TABLE`: of these, what has come since the last such line about that table.
//! - `write TABLE [CHANGE, …]`: puts and removes items as a replica does: whole, in this order, whatever is there. A change is
//!   `{"PutRequest": {"Item": …}}` or `{"DeleteRequest": {"Key": …}}`.
//!
//! It ends when its standard input does: a test that dies leaves nothing behind.

use std::collections::HashMap;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use dynoxide::Database;
use dynoxide::storage_backend::ManualClock;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let port = std::env::args().nth(1).map_or(Ok(0), |port| port.parse::<u16>())?;
    let clock = ManualClock::new(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs());
    let database = Database::memory_with_clock(Arc::new(clock.clone()))?;
    index_the_streams(&database)?;
    // What it accepts inherits this: else the end of an answer waits for the acknowledgement of its beginning, for 40 ms.
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_nodelay(true)?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], port)))?;
    let listener = socket.listen(1024)?;
    let mut out = tokio::io::stdout();
    out.write_all(format!("http://{}\n", listener.local_addr()?).as_bytes()).await?;
    out.flush().await?;
    tokio::spawn(dynoxide::server::serve_on(listener, database.clone()));
    let mut desk = Desk { clock, database, places: HashMap::new() };
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let answer = match desk.obey(&line) {
            Ok(answer) => answer,
            Err(error) => format!("error: {error}").replace('\n', " "),
        };
        out.write_all(format!("{answer}\n").as_bytes()).await?;
        out.flush().await?;
    }
    Ok(())
}

/// What is told to it.
struct Desk {
    clock: ManualClock,
    database: Database,
    /// By table, where each shard of its stream was read up to.
    places: HashMap<String, Vec<String>>,
}

impl Desk {
    fn obey(&mut self, line: &str) -> Outcome<String> {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("clock", seconds) => {
                self.clock.set(seconds.trim().parse()?);
                Ok("ok".to_owned())
            }
            ("expire", "") => Ok(self.database.sweep_ttl()?.to_string()),
            ("records", table) => {
                let mut begin = begin(&self.database, table.trim())?;
                Ok(read_on(&self.database, &mut begin)?)
            }
            ("fresh", table) => {
                let table = table.trim();
                if !self.places.contains_key(table) {
                    self.places.insert(table.to_owned(), begin(&self.database, table)?);
                }
                let places = self.places.get_mut(table).ok_or("no place in the stream")?;
                Ok(read_on(&self.database, places)?)
            }
            ("write", told) => {
                let (table, changes) = told.split_once(' ').ok_or("say `write TABLE [CHANGE, …]`")?;
                write(&self.database, table, serde_json::from_str(changes)?)?;
                Ok("ok".to_owned())
            }
            _ => Err("say `clock SECONDS`, `expire`, `records TABLE`, `fresh TABLE` or `write TABLE [CHANGE, …]`".into()),
        }
    }
}

/// Where the table's stream begins, in each of its shards.
fn begin(database: &Database, table: &str) -> Outcome<Vec<String>> {
    let streams = database.list_streams(serde_json::from_value(json!({"TableName": table}))?)?;
    let mut places = Vec::new();
    for stream in streams.streams {
        let described = database.describe_stream(serde_json::from_value(json!({"StreamArn": stream.stream_arn}))?)?;
        let described = serde_json::to_value(described)?;
        let shards = described["StreamDescription"]["Shards"].as_array().cloned().unwrap_or_default();
        for shard in shards {
            let begin = json!({
                "StreamArn": stream.stream_arn,
                "ShardId": shard["ShardId"],
                "ShardIteratorType": "TRIM_HORIZON",
            });
            places.extend(database.get_shard_iterator(serde_json::from_value(begin)?)?.shard_iterator);
        }
    }
    Ok(places)
}

/// Everything after these places, as JSON in one line; they move on.
fn read_on(database: &Database, places: &mut [String]) -> Outcome<String> {
    let mut records = Vec::new();
    for place in places {
        loop {
            let page = database.get_records(serde_json::from_value(json!({"ShardIterator": &*place}))?)?;
            if page.records.is_empty() {
                break;
            }
            records.extend(page.records);
            match page.next_shard_iterator {
                Some(next) => *place = next,
                None => break,
            }
        }
    }
    Ok(serde_json::to_string(&records)?)
}

fn write(database: &Database, table: &str, changes: Vec<Value>) -> Outcome<()> {
    for mut change in changes {
        if let Some(put) = change.get_mut("PutRequest") {
            put["TableName"] = table.into();
            database.put_item(serde_json::from_value(put.take())?)?;
        } else if let Some(delete) = change.get_mut("DeleteRequest") {
            delete["TableName"] = table.into();
            database.delete_item(serde_json::from_value(delete.take())?)?;
        } else {
            return Err("a change is a PutRequest or a DeleteRequest".into());
        }
    }
    Ok(())
}

/// Each write to a table with a stream looks for the last record, and each look at the stream for the first new one. Without an
/// index both read the whole stream, and a long run takes longer the longer it is.
fn index_the_streams(database: &Database) -> Outcome<()> {
    let name = format!("hb-dynamodb-{}-{:?}.sqlite", std::process::id(), SystemTime::now().duration_since(UNIX_EPOCH)?);
    let path = std::env::temp_dir().join(name);
    let shown = path.to_str().ok_or("the path of the temporary directory is no text")?;
    database.vacuum_into(shown)?;
    let indexed = rusqlite::Connection::open(&path).and_then(|copy| {
        copy.execute_batch(
            "CREATE INDEX hb_last ON _stream_records (table_name, CAST(sequence_number AS INTEGER));
             CREATE INDEX hb_next ON _stream_records (table_name, shard_id, CAST(sequence_number AS INTEGER));",
        )
    });
    let restored = indexed.map_err(Box::<dyn Error>::from).and_then(|()| Ok(database.restore_from(shown)?));
    std::fs::remove_file(&path)?;
    restored
}
