//! The bare limit: axum, parse, digest, verification, one SQLite writer with group commit, the answer after the commit; and
//! nothing else. No nonce is checked, nothing is decided, nothing limited.

use std::path::Path;
use std::sync::{Arc, mpsc};

use anyhow::Result;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use hb_wire::id::HostId;
use hb_wire::key::Verifier;
use hb_wire::signature::{self, Message};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::fleet;
use crate::measure::say;

/// Most beats in one transaction.
const GROUP_MAX: usize = 1000;

struct Write {
    id: HostId,
    body: Bytes,
    done: oneshot::Sender<()>,
}

struct Bare {
    verifiers: std::collections::HashMap<HostId, Verifier>,
    authority: String,
    writer: mpsc::Sender<Write>,
}

/// Serves on a port of its own, printed on standard output.
pub(crate) async fn serve(hosts: usize, data: &Path) -> Result<()> {
    let (writer, queue) = mpsc::channel();
    let database = data.join("bare.db");
    let (ready, opened) = mpsc::channel();
    std::thread::spawn(move || match open(&database, hosts) {
        Ok(connection) => {
            let _ = ready.send(Ok(()));
            write(&connection, &queue)
        }
        Err(error) => {
            let _ = ready.send(Err(error));
            Ok(())
        }
    });
    opened.recv()??;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let authority = listener.local_addr()?.to_string();
    let verifiers =
        (0..hosts).filter_map(|n| Some((fleet::bare_id(n), fleet::key(n).public().verifying().ok()?))).collect();
    say(&format!("listening on http://{authority}"));
    let state = Arc::new(Bare { verifiers, authority, writer });
    axum::serve(listener, Router::new().route("/v1/beat", post(beat)).with_state(state)).await?;
    Ok(())
}

async fn beat(State(bare): State<Arc<Bare>>, headers: HeaderMap, body: Bytes) -> (StatusCode, String) {
    match take(&bare, &headers, body).await {
        Some(next) => (StatusCode::OK, next),
        None => (StatusCode::UNAUTHORIZED, String::new()),
    }
}

async fn take(bare: &Bare, headers: &HeaderMap, body: Bytes) -> Option<String> {
    let header = |name: &str| headers.get(name)?.to_str().ok();
    let signed = signature::parse(header("content-digest")?, header("signature-input")?, header("signature")?).ok()?;
    let id: HostId = signed.params.keyid.parse().ok()?;
    let message = Message { method: "POST", authority: &bare.authority, path: "/v1/beat", body: &body };
    signed.verify(bare.verifiers.get(&id)?, &message).ok()?;
    serde_json::from_slice::<Value>(&body).ok()?;
    let (done, stored) = oneshot::channel();
    bare.writer.send(Write { id, body, done }).ok()?;
    stored.await.ok()?;
    Some(format!(r#"{{"next":"{}","now":"2026-11-23T00:00:00Z","interval_s":60}}"#, signed.params.nonce))
}

fn open(path: &Path, hosts: usize) -> Result<rusqlite::Connection> {
    let mut connection = rusqlite::Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute("CREATE TABLE h (id BLOB PRIMARY KEY, at INTEGER, seq INTEGER, body TEXT) WITHOUT ROWID", [])?;
    let transaction = connection.transaction()?;
    for n in 0..hosts {
        transaction.execute("INSERT INTO h VALUES (?1, 0, 0, '')", [fleet::bare_id(n).0.as_bytes().as_slice()])?;
    }
    transaction.commit()?;
    Ok(connection)
}

fn write(connection: &rusqlite::Connection, queue: &mpsc::Receiver<Write>) -> Result<()> {
    let mut seq = 0_i64;
    while let Ok(first) = queue.recv() {
        let mut group = vec![first];
        while let Ok(next) = queue.try_recv() {
            group.push(next);
            if group.len() >= GROUP_MAX {
                break;
            }
        }
        connection.execute_batch("BEGIN IMMEDIATE")?;
        {
            let mut update = connection.prepare_cached("UPDATE h SET at = ?2, seq = ?2, body = ?3 WHERE id = ?1")?;
            for write in &group {
                seq += 1;
                update.execute((write.id.0.as_bytes().as_slice(), seq, std::str::from_utf8(&write.body)?))?;
            }
        }
        connection.execute_batch("COMMIT")?;
        for write in group {
            let _ = write.done.send(());
        }
    }
    Ok(())
}
