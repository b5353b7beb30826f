//! The DynamoDB of a world: a process of its own, with one table for each region.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use hb_store_dynamodb::{Client, Connection, table};
use serde_json::Value;

use crate::Outcome;

/// The tables of the two regions.
pub const TABLES: [&str; 2] = ["hb-region-one", "hb-region-two"];

/// The process, and what it is told.
#[derive(Debug)]
pub struct Tables {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    address: String,
}

impl Drop for Tables {
    fn drop(&mut self) {
        // It also ends by itself, when its input does.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Tables {
    /// Starts the process, and makes both tables.
    ///
    /// # Errors
    /// When it was not built, or does not do what it is told.
    pub async fn start() -> Outcome<Self> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/dynamodb/hb-dynamodb");
        let mut process = Command::new(&program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}; run tools/dynamodb/setup.sh first", program.display()))?;
        let orders = process.stdin.take().ok_or("the process has no input")?;
        let mut answers = BufReader::new(process.stdout.take().ok_or("the process has no output")?);
        let mut address = String::new();
        answers.read_line(&mut address)?;
        let tables = Self { process, orders, answers, address: address.trim().to_owned() };
        let client = tables.client();
        for name in TABLES {
            table::create(&client, name).await?;
        }
        Ok(tables)
    }

    /// A client for both.
    #[must_use]
    pub fn client(&self) -> Client {
        Connection {
            region: "eu-central-1".to_owned(),
            endpoint: Some(self.address.clone()),
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: "secret-of-the-simulation".to_owned(),
            session_token: None,
        }
        .client()
    }

    fn tell(&mut self, what: &str) -> Outcome<String> {
        writeln!(self.orders, "{what}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        if answer.is_empty() || answer.starts_with("error") {
            return Err(format!("DynamoDB said {answer:?} to {what:.200}").into());
        }
        Ok(answer)
    }

    /// What is new in a table's stream.
    ///
    /// # Errors
    /// When the process does not answer.
    pub fn fresh(&mut self, table: &str) -> Outcome<Vec<Value>> {
        Ok(serde_json::from_str(&self.tell(&format!("fresh {table}"))?)?)
    }

    /// Writes items as replication does: whole, whatever is there.
    ///
    /// # Errors
    /// When the process does not answer.
    pub fn write(&mut self, table: &str, changes: &[Value]) -> Outcome<()> {
        self.tell(&format!("write {table} {}", serde_json::to_string(changes)?)).map(|_| ())
    }
}
