//! Events: written once, read in the order of storing, let go of when they are many.

use hb_core::event::{Audience, Event};
use hb_store::{EVENTS_PER_HOST_MAX, EVENTS_SLACK, EventQuery, Listed, PAGE_MAX};
use hb_wire::id::EventId;
use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension as _};

use crate::failure::Outcome;
use crate::number::{int, json, number, size, to_json};

/// Stores events that are not stored yet.
pub(crate) fn put(db: &Connection, events: &[Event]) -> Outcome<()> {
    for event in events {
        let host = event.subject.as_ref().map(|subject| subject.id.0.as_bytes());
        let untold = event.audience != Audience::Nobody;
        let written = db
            .prepare_cached(
                "INSERT INTO events (id, host, at, untold, doc) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (id) DO NOTHING",
            )?
            .execute((event.id.0.as_bytes(), host, int(event.at.0), untold, to_json(event)?))?;
        if written == 1 {
            prune(db, host)?;
        }
    }
    Ok(())
}

/// Lets the oldest events of a host (or of the server) go once they are too many by [`EVENTS_SLACK`]. What is still to be
/// told, or may be told again, stays.
fn prune(db: &Connection, host: Option<&[u8; 16]>) -> Outcome<()> {
    let too_many = size(EVENTS_PER_HOST_MAX.saturating_add(EVENTS_SLACK));
    let exceeded = db
        .prepare_cached("SELECT 1 FROM events WHERE host IS ?1 ORDER BY position DESC LIMIT 1 OFFSET ?2")?
        .exists((host, too_many))?;
    if !exceeded {
        return Ok(());
    }
    db.prepare_cached(
        "DELETE FROM events WHERE host IS ?1 AND untold = 0 AND position <= \
           (SELECT position FROM events WHERE host IS ?1 ORDER BY position DESC LIMIT 1 OFFSET ?2) \
         AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.event = events.id AND d.status IN ('pending', 'dead'))",
    )?
    .execute((host, size(EVENTS_PER_HOST_MAX)))?;
    Ok(())
}

/// One event.
pub(crate) fn get(db: &Connection, id: EventId) -> Outcome<Option<Event>> {
    let mut statement = db.prepare_cached("SELECT doc FROM events WHERE id = ?1")?;
    let mut rows = statement.query([id.0.as_bytes()])?;
    rows.next()?.map(|row| json(row, "doc")).transpose()
}

/// A page of events.
pub(crate) fn list(db: &Connection, query: &EventQuery) -> Outcome<Vec<Listed<Event>>> {
    let mut sql = String::from("SELECT position, doc FROM events WHERE 1");
    let mut values: Vec<Box<dyn ToSql>> = Vec::new();
    if let Some(host) = query.host {
        sql.push_str(" AND host = ?");
        values.push(Box::new(host.0.into_bytes()));
    }
    if let Some(since) = query.since {
        sql.push_str(" AND at >= ?");
        values.push(Box::new(int(since.0)));
    }
    if let Some(after) = query.after {
        sql.push_str(if query.ascending { " AND position > ?" } else { " AND position < ?" });
        values.push(Box::new(int(after)));
    }
    sql.push_str(if query.ascending { " ORDER BY position ASC LIMIT ?" } else { " ORDER BY position DESC LIMIT ?" });
    values.push(Box::new(size(query.limit.min(PAGE_MAX))));
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query(rusqlite::params_from_iter(values))?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        events.push(Listed { position: number(row, "position")?, value: json(row, "doc")? });
    }
    Ok(events)
}

/// Events whose deliveries are not made yet.
pub(crate) fn untold(db: &Connection, limit: usize) -> Outcome<Vec<Event>> {
    let mut statement = db.prepare_cached("SELECT doc FROM events WHERE untold = 1 ORDER BY position LIMIT ?1")?;
    let mut rows = statement.query([size(limit.min(PAGE_MAX))])?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        events.push(json(row, "doc")?);
    }
    Ok(events)
}

/// Marks an event as fanned out. `false`: it was already, or it is not there.
pub(crate) fn mark_told(db: &Connection, id: EventId) -> Outcome<bool> {
    let sql = "UPDATE events SET untold = 0 WHERE id = ?1 AND untold = 1";
    Ok(db.prepare_cached(sql)?.execute([id.0.as_bytes()])? == 1)
}

/// How many events wait for their deliveries.
pub(crate) fn count_untold(db: &Connection) -> Outcome<i64> {
    let sql = "SELECT count(*) FROM events WHERE untold = 1";
    Ok(db.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?.unwrap_or(0))
}
