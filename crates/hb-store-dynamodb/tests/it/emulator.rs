//! A DynamoDB of its own for each test: a process on a loopback port, which ends with the test.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::StreamSpecification;
use hb_store_dynamodb::{Connection, DynamoStore, Usage, table};

/// The table of every test. Shorter names are refused by some SDKs.
pub(crate) const TABLE: &str = "hb-contract-table";

/// The process, and what it is told.
#[derive(Debug)]
pub(crate) struct Emulator {
    process: Child,
    told: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    address: String,
}

impl Emulator {
    pub(crate) fn start() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let program = root.join(".cache/dynamodb/hb-dynamodb");
        let spawned = Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = spawned.unwrap_or_else(|error| {
            panic!("{} cannot be run ({error}): run tools/dynamodb/setup.sh first", program.display())
        });
        let mut out = BufReader::new(process.stdout.take().unwrap());
        let mut address = String::new();
        out.read_line(&mut address).unwrap();
        assert!(address.starts_with("http://127.0.0.1:"), "it said {address:?}");
        let told = Mutex::new((process.stdin.take().unwrap(), out));
        Self { process, told, address: address.trim().to_owned() }
    }

    /// Tells it something, and gives its answer.
    pub(crate) fn tell(&self, what: &str) -> String {
        let mut told = self.told.lock().unwrap();
        writeln!(told.0, "{what}").unwrap();
        let mut answer = String::new();
        told.1.read_line(&mut answer).unwrap();
        assert!(!answer.starts_with("error"), "{what}: {answer}");
        answer.trim().to_owned()
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn client(&self) -> Client {
        connection(&self.address).client()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // It also ends by itself, when its input does.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn connection(endpoint: &str) -> Connection {
    Connection {
        region: "eu-central-1".into(),
        endpoint: Some(endpoint.to_owned()),
        access_key_id: "AKIDEXAMPLE".into(),
        secret_access_key: "secret-of-the-test".into(),
        session_token: None,
    }
}

/// An empty table in a DynamoDB of its own.
///
/// Without a stream: in this DynamoDB each write then takes longer, the more was written before.
pub(crate) async fn fresh(usage: Usage) -> (DynamoStore, Emulator) {
    let emulator = Emulator::start();
    let client = emulator.client();
    table::create(&client, TABLE).await.unwrap();
    let none = StreamSpecification::builder().stream_enabled(false).build().unwrap();
    client.update_table().table_name(TABLE).stream_specification(none).send().await.unwrap();
    (DynamoStore::open(client, TABLE, usage).await.unwrap(), emulator)
}

/// As [`fresh`], with the stream.
pub(crate) async fn with_stream(usage: Usage) -> (DynamoStore, Emulator) {
    let emulator = Emulator::start();
    let client = emulator.client();
    table::create(&client, TABLE).await.unwrap();
    (DynamoStore::open(client, TABLE, usage).await.unwrap(), emulator)
}
