//! The outbox: deliveries, their order and their leases.

use hb_core::access::Channel;
use hb_core::delivery::{Delivery, Status};
use hb_core::time::Time;
use hb_store::{Backlog, DELIVERIES_MAX, DELIVERIES_SLACK, Listed, PAGE_MAX, Topic};
use hb_wire::id::{DeliveryId, EventId, IncidentId};
use rusqlite::{Connection, Row, named_params};

use crate::events;
use crate::failure::Outcome;
use crate::number::{int, json, number, size, to_json, uint};

/// Deliveries are counted for pruning when the last byte of an id is below this: once in 64 times, since it is part of a hash.
const PRUNE_BELOW: u8 = 4;

/// Makes an event's deliveries.
pub(crate) fn tell(db: &Connection, event: EventId, deliveries: &[Delivery]) -> Outcome<()> {
    if !events::mark_told(db, event)? {
        return Ok(());
    }
    for delivery in deliveries {
        let sql = "INSERT INTO deliveries \
                   (id, event, channel, topic, incident, status, attempts, ready_at, leased_until, doc) VALUES \
                   (:id, :event, :channel, :topic, :incident, :status, :attempts, :ready_at, :leased_until, :doc) \
                   ON CONFLICT (id) DO NOTHING";
        write(db, sql, delivery)?;
    }
    prune(db, deliveries)
}

fn write(db: &Connection, sql: &str, delivery: &Delivery) -> Outcome<usize> {
    Ok(db.prepare_cached(sql)?.execute(named_params! {
        ":id": delivery.id.0.as_bytes(),
        ":event": delivery.event.0.as_bytes(),
        ":channel": delivery.channel.0.as_bytes(),
        ":topic": topic(delivery),
        ":incident": delivery.incident.as_ref().map(|incident| incident.0.as_bytes()),
        ":status": delivery.status.word(),
        ":attempts": delivery.attempts,
        ":ready_at": int(ready_at(delivery).0),
        ":leased_until": delivery.leased_until.map(|until| int(until.0)),
        ":doc": to_json(delivery)?,
    })?)
}

/// A letter for the kind of topic, and its id.
fn topic(delivery: &Delivery) -> [u8; 17] {
    let (letter, id) = match Topic::of(delivery) {
        Topic::Host(host) => (b'h', host.0),
        Topic::Incident(incident) => (b'i', incident.0),
        Topic::Alone(delivery) => (b'd', delivery.0),
    };
    let mut topic = [letter; 17];
    for (to, from) in topic.iter_mut().skip(1).zip(id.as_bytes()) {
        *to = *from;
    }
    topic
}

/// When a pending delivery may be claimed: due, and not leased.
fn ready_at(delivery: &Delivery) -> Time {
    delivery.next_attempt_at.max(delivery.leased_until.unwrap_or(Time::ZERO))
}

const REPLACE: &str = "UPDATE deliveries SET event = :event, channel = :channel, topic = :topic, incident = :incident, \
     status = :status, attempts = :attempts, ready_at = :ready_at, leased_until = :leased_until, doc = :doc WHERE id = :id";

/// True for a pending delivery before which no other one of its queue is pending.
const IS_HEAD: &str = "NOT EXISTS (SELECT 1 FROM deliveries e WHERE e.status = 'pending' AND e.channel = d.channel \
     AND e.topic = d.topic AND e.position < d.position)";

/// Leases what is due.
pub(crate) fn claim(db: &Connection, now: Time, until: Time, limit: usize) -> Outcome<Vec<Delivery>> {
    let sql = format!(
        "SELECT d.doc FROM deliveries d WHERE d.status = 'pending' AND d.ready_at <= ?1 AND {IS_HEAD} \
         ORDER BY d.position LIMIT ?2"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query((int(now.0), size(limit.min(PAGE_MAX))))?;
    let mut claimed: Vec<Delivery> = Vec::new();
    while let Some(row) = rows.next()? {
        claimed.push(json(row, "doc")?);
    }
    drop(rows);
    for delivery in &mut claimed {
        delivery.leased_until = Some(until);
        write(db, REPLACE, delivery)?;
    }
    Ok(claimed)
}

/// When there is something to claim or to tell.
pub(crate) fn next_claim(db: &Connection) -> Outcome<Option<Time>> {
    if events::count_untold(db)? > 0 {
        return Ok(Some(Time::ZERO));
    }
    let sql = format!("SELECT min(d.ready_at) FROM deliveries d WHERE d.status = 'pending' AND {IS_HEAD}");
    let at: Option<i64> = db.prepare_cached(&sql)?.query_row([], |row| row.get(0))?;
    Ok(at.map(|at| Time(uint(at))))
}

/// Stores what became of a delivery, if the lease is still held.
pub(crate) fn settle(db: &Connection, delivery: &Delivery, lease: Time) -> Outcome<bool> {
    let held = db
        .prepare_cached("SELECT 1 FROM deliveries WHERE id = ?1 AND status = 'pending' AND leased_until = ?2")?
        .exists((delivery.id.0.as_bytes(), int(lease.0)))?;
    if !held {
        return Ok(false);
    }
    write(db, REPLACE, delivery)?;
    note_on_channel(db, delivery)?;
    prune(db, core::slice::from_ref(delivery))?;
    Ok(true)
}

fn note_on_channel(db: &Connection, delivery: &Delivery) -> Outcome<()> {
    if delivery.status == Status::Merged {
        return Ok(());
    }
    let mut statement = db.prepare_cached("SELECT doc FROM channels WHERE id = ?1")?;
    let mut rows = statement.query([delivery.channel.0.as_bytes()])?;
    let Some(row) = rows.next()? else { return Ok(()) };
    let mut channel: Channel = json(row, "doc")?;
    if delivery.status == Status::Delivered {
        channel.last_delivered_at = delivery.delivered_at;
        channel.last_error = None;
    } else {
        channel.last_error.clone_from(&delivery.last_error);
    }
    db.prepare_cached("UPDATE channels SET doc = ?2 WHERE id = ?1")?
        .execute((delivery.channel.0.as_bytes(), to_json(&channel)?))?;
    Ok(())
}

/// Lets the oldest finished deliveries go. Counting them is a walk over an index, so not every time.
fn prune(db: &Connection, written: &[Delivery]) -> Outcome<()> {
    if !written.iter().any(|delivery| delivery.id.0.as_bytes().last().is_some_and(|byte| *byte < PRUNE_BELOW)) {
        return Ok(());
    }
    let edge = "SELECT position FROM deliveries WHERE status <> 'pending' ORDER BY position DESC LIMIT 1 OFFSET ?1";
    // Half of the slack is left for what comes until the next count.
    if !db.prepare_cached(edge)?.exists([size(DELIVERIES_MAX.saturating_add(DELIVERIES_SLACK / 2))])? {
        return Ok(());
    }
    db.prepare_cached(&format!("DELETE FROM deliveries WHERE status <> 'pending' AND position <= ({edge})"))?
        .execute([size(DELIVERIES_MAX)])?;
    Ok(())
}

/// Deliveries of an incident.
pub(crate) fn of_incident(db: &Connection, incident: IncidentId) -> Outcome<Vec<Delivery>> {
    let mut statement = db.prepare_cached("SELECT doc FROM deliveries WHERE incident = ?1 ORDER BY position")?;
    let mut rows = statement.query([incident.0.as_bytes()])?;
    let mut deliveries = Vec::new();
    while let Some(row) = rows.next()? {
        deliveries.push(json(row, "doc")?);
    }
    Ok(deliveries)
}

/// One delivery.
pub(crate) fn get(db: &Connection, id: DeliveryId) -> Outcome<Option<Delivery>> {
    let mut statement = db.prepare_cached("SELECT doc FROM deliveries WHERE id = ?1")?;
    let mut rows = statement.query([id.0.as_bytes()])?;
    rows.next()?.map(|row| json(row, "doc")).transpose()
}

/// Replaces a delivery that is dead, or waits without a lease.
pub(crate) fn revive(db: &Connection, revived: &Delivery) -> Outcome<bool> {
    let sql = "SELECT 1 FROM deliveries WHERE id = ?1 \
               AND (status = 'dead' OR (status = 'pending' AND leased_until IS NULL))";
    if !db.prepare_cached(sql)?.exists([revived.id.0.as_bytes()])? {
        return Ok(false);
    }
    write(db, REPLACE, revived)?;
    Ok(true)
}

/// A page of deliveries, newest first.
pub(crate) fn list(
    db: &Connection,
    status: Option<Status>,
    after: Option<u64>,
    limit: usize,
) -> Outcome<Vec<Listed<Delivery>>> {
    let mut statement = db.prepare_cached(
        "SELECT position, doc FROM deliveries WHERE (?1 IS NULL OR status = ?1) AND position < ?2 \
         ORDER BY position DESC LIMIT ?3",
    )?;
    let after = after.map_or(i64::MAX, int);
    let mut rows = statement.query((status.map(Status::word), after, size(limit.min(PAGE_MAX))))?;
    let mut deliveries = Vec::new();
    while let Some(row) = rows.next()? {
        deliveries.push(Listed { position: number(row, "position")?, value: json(row, "doc")? });
    }
    Ok(deliveries)
}

/// What waits, and what was given up.
pub(crate) fn backlog(db: &Connection) -> Outcome<Backlog> {
    let untold = events::count_untold(db)?;
    let count = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
    let (pending, failing) = db
        .prepare_cached(
            "SELECT count(*), count(*) FILTER (WHERE attempts > 0) FROM deliveries WHERE status = 'pending'",
        )?
        .query_row([], count)?;
    let lost = "SELECT count(*) FROM deliveries d WHERE d.status = 'dead' AND json_extract(d.doc, '$.kind') <> 'test' \
         AND EXISTS (SELECT 1 FROM channels c WHERE c.id = d.channel)";
    let dead: i64 = db.prepare_cached(lost)?.query_row([], |row| row.get(0))?;
    Ok(Backlog { failing: uint(failing), pending: uint(pending.saturating_add(untold)), dead: uint(dead) })
}
