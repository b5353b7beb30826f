//! Is the database what it should be?

use core::fmt;
use std::path::Path;

use hb_core::access::{ApiKey, Channel, Token};
use hb_core::delivery::Delivery;
use hb_core::event::Event;
use hb_core::incident::Incident;
use hb_core::ledger::Ledger;
use hb_core::observer::Observation;
use hb_core::policy::Policy;
use rusqlite::Connection;
use serde::de::DeserializeOwned;

use crate::access;
use crate::failure::Outcome;
use crate::number::{int, json};
use crate::open::{OpenError, is_there};
use crate::row::{self, COLUMNS};
use crate::schema;

/// Most problems that are listed of one kind.
const PROBLEMS_MAX: usize = 100;

/// Something that is wrong with a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem(String);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks a database file.
pub(crate) fn check_file(path: &Path) -> Result<Vec<Problem>, OpenError> {
    if !is_there(path)? {
        return Err(OpenError::Missing { path: path.to_owned() });
    }
    let db = schema::open_reader(path, 2048).map_err(|error| OpenError::of(path, error))?;
    if schema::recognise(&db, path)? == 0 {
        return Err(OpenError::Empty { path: path.to_owned() });
    }
    Ok(check(&db))
}

/// Looks at one side of a database, and says in sentences what is wrong.
type Check = fn(&Connection) -> Outcome<Vec<String>>;

/// Checks what is open, all of it as it is at one instant.
pub(crate) fn check(db: &Connection) -> Vec<Problem> {
    let checks: [Check; 5] = [structure, references, rows, hosts, outbox];
    let mut problems = Vec::new();
    let began = db.execute_batch("BEGIN");
    for look in checks {
        match look(db) {
            Ok(found) => problems.extend(found.into_iter().map(Problem)),
            Err(failure) => problems.push(Problem(format!("the check could not be finished: {failure}"))),
        }
    }
    if began.is_ok() {
        // Only a read transaction: there is nothing that could fail to be undone.
        let _ = db.execute_batch("ROLLBACK");
    }
    problems
}

fn texts(db: &Connection, sql: &str) -> Outcome<Vec<String>> {
    let mut statement = db.prepare(sql)?;
    let texts = statement.query_map([], |row| row.get(0))?.take(PROBLEMS_MAX).collect::<Result<_, _>>()?;
    Ok(texts)
}

fn structure(db: &Connection) -> Outcome<Vec<String>> {
    let found = texts(db, "PRAGMA integrity_check(100)")?;
    Ok(found.into_iter().filter(|line| line != "ok").collect())
}

fn references(db: &Connection) -> Outcome<Vec<String>> {
    texts(
        db,
        "SELECT 'row ' || rowid || ' of ' || \"table\" || ' refers to nothing in ' || parent FROM pragma_foreign_key_check",
    )
}

/// Every document can be read.
fn rows(db: &Connection) -> Outcome<Vec<String>> {
    let mut problems = Vec::new();
    parse::<Event>(db, "events", "position", &mut problems)?;
    parse::<Delivery>(db, "deliveries", "position", &mut problems)?;
    parse::<Incident>(db, "incidents", "hex(id)", &mut problems)?;
    parse::<ApiKey>(db, "api_keys", "position", &mut problems)?;
    parse::<Token>(db, "tokens", "position", &mut problems)?;
    parse::<Channel>(db, "channels", "position", &mut problems)?;
    parse::<Observation>(db, "observation", "one", &mut problems)?;
    Ok(problems)
}

fn parse<T: DeserializeOwned>(db: &Connection, table: &str, key: &str, problems: &mut Vec<String>) -> Outcome<()> {
    let mut statement = db.prepare(&format!("SELECT CAST({key} AS TEXT) AS place, doc FROM {table}"))?;
    let mut rows = statement.query([])?;
    let mut bad = 0;
    while let Some(row) = rows.next()? {
        if let Err(failure) = json::<T>(row, "doc") {
            let place: String = row.get("place")?;
            problems.push(format!("row {place} of {table} cannot be read: {failure}"));
            bad += 1;
            if bad == PROBLEMS_MAX {
                break;
            }
        }
    }
    Ok(())
}

/// Every host can be read, its columns say what its document says, and no alarm can be missed.
fn hosts(db: &Connection) -> Outcome<Vec<String>> {
    let mut problems = Vec::new();
    // Bounds may have followed the credit for what was not observed.
    let ledger = access::observation(db)?.map_or_else(Ledger::default, |held| held.value.ledger);
    let sql = format!("SELECT {COLUMNS}, h.no, h.state, h.is_open, h.need_ms FROM hosts h");
    let mut statement = db.prepare(&sql)?;
    let mut rows = statement.query([])?;
    while let Some(found) = rows.next()? {
        let no: i64 = found.get("no")?;
        let host = match row::read(found) {
            Ok(held) => held.value,
            Err(failure) => {
                problems.push(format!("row {no} of hosts cannot be read: {failure}"));
                continue;
            }
        };
        let name = &host.name;
        if found.get::<_, String>("state")? != host.state.word() {
            problems.push(format!("host {name}: the column and the document name different states"));
        }
        if found.get::<_, bool>("is_open")? != hb_store::fast::is_open(&host) {
            problems.push(format!("host {name}: the fast path of its beats is open or closed wrongly"));
        }
        if found.get::<_, i64>("need_ms")? != int(host.need_ms()) {
            problems.push(format!("host {name}: interval plus grace is not what its column says"));
        }
        let bound: Option<i64> = found.get("check_at")?;
        let alarm = host.alarm_at(&ledger, &Policy::STANDARD).map(|alarm| int(alarm.0));
        if alarm.is_some_and(|alarm| bound.is_none_or(|bound| bound > alarm)) {
            problems.push(format!("host {name}: its alarm would be missed"));
        }
        if problems.len() >= PROBLEMS_MAX {
            break;
        }
    }
    Ok(problems)
}

/// What waits to be told can be told.
fn outbox(db: &Connection) -> Outcome<Vec<String>> {
    let mut problems = texts(
        db,
        "SELECT 'delivery ' || d.position || ' waits, but its event is gone' FROM deliveries d \
         WHERE d.status = 'pending' AND NOT EXISTS (SELECT 1 FROM events e WHERE e.id = d.event)",
    )?;
    problems.extend(texts(
        db,
        "SELECT 'delivery ' || d.position || ' waits for a channel that is gone' FROM deliveries d \
         WHERE d.status = 'pending' AND NOT EXISTS (SELECT 1 FROM channels c WHERE c.id = d.channel)",
    )?);
    problems.extend(texts(
        db,
        "SELECT 'event ' || e.position || ' is of a host that is gone' FROM events e \
         WHERE e.host IS NOT NULL AND NOT EXISTS (SELECT 1 FROM hosts h WHERE h.id = e.host)",
    )?);
    Ok(problems)
}
