//! DynamoDB on a loopback port, in memory, for tests: `hb-dynamodb [PORT]`.
//!
//! It prints its address, and then does what it is told on its standard input, line by line, with one line of answer for each:
//!
//! - `clock SECONDS`: it is that late now (seconds since the epoch). Until then it is the time of its start.
//! - `expire`: what has passed its time to live is removed now; answers how many items that were.
//! - `records TABLE`: everything in the table's stream, as JSON, spelled as a Lambda function is given it.
//!
//! It ends when its standard input does: a test that dies leaves nothing behind.

use std::error::Error;
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
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let mut out = tokio::io::stdout();
    out.write_all(format!("http://{}\n", listener.local_addr()?).as_bytes()).await?;
    out.flush().await?;
    tokio::spawn(dynoxide::server::serve_on(listener, database.clone()));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let answer = match obey(&line, &clock, &database) {
            Ok(answer) => answer,
            Err(error) => format!("error: {error}").replace('\n', " "),
        };
        out.write_all(format!("{answer}\n").as_bytes()).await?;
        out.flush().await?;
    }
    Ok(())
}

fn obey(line: &str, clock: &ManualClock, database: &Database) -> Outcome<String> {
    match line.split_once(' ').unwrap_or((line, "")) {
        ("clock", seconds) => {
            clock.set(seconds.trim().parse()?);
            Ok("ok".to_owned())
        }
        ("expire", "") => Ok(database.sweep_ttl()?.to_string()),
        ("records", table) => Ok(Value::Array(records(database, table.trim())?).to_string()),
        _ => Err("say `clock SECONDS`, `expire` or `records TABLE`".into()),
    }
}

fn records(database: &Database, table: &str) -> Outcome<Vec<Value>> {
    let streams = database.list_streams(serde_json::from_value(json!({"TableName": table}))?)?;
    let mut records = Vec::new();
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
            let mut next = database.get_shard_iterator(serde_json::from_value(begin)?)?.shard_iterator;
            while let Some(iterator) = next {
                let page = database.get_records(serde_json::from_value(json!({"ShardIterator": iterator}))?)?;
                if page.records.is_empty() {
                    break;
                }
                for record in page.records {
                    records.push(serde_json::to_value(record)?);
                }
                next = page.next_shard_iterator;
            }
        }
    }
    Ok(records)
}
