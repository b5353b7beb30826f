//! Beats, enrolments, decisions, and lists of hosts.

use std::collections::BTreeSet;

use hb_core::event::Event;
use hb_core::host::{Host, State};
use hb_core::incident::Incident;
use hb_core::time::Time;
use hb_store::{Beat, Beaten, Change, Committed, Credential, Enrolled, HostQuery, PAGE_MAX, Versioned};
use hb_wire::id::HostId;
use hb_wire::key::PublicKey;
use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension as _, named_params};

use crate::failure::Outcome;
use crate::number::{id, int, size, to_json};
use crate::row::{self, COLUMNS};
use crate::{access, events};

/// The conditions are those of `hb_store::fast::takes`.
const BEAT: &str = "UPDATE hosts SET rev = rev + 1, nonce = :next, nonce_at = :now, heard_at = :now, silent_from = :now, \
     seq = :seq, up_s = :up_s, skew_ms = :skew_ms, agent = :agent, vitals = :vitals \
     WHERE id = :id AND is_open = 1 AND nonce = :spent AND interval_ms = :interval_ms AND :now - nonce_at <= need_ms \
     AND (:now - silent_from <= patience_ms OR :now <= quiet_until) \
     AND boot = :boot AND run IS :run AND seq < :seq AND faults = :faults";

/// One conditional write; a read only when it does not apply.
pub(crate) fn beat(db: &Connection, beat: &Beat) -> Outcome<Beaten> {
    let faults = if beat.faults.is_empty() {
        "[]".into()
    } else {
        row::faults(&beat.faults.iter().copied().collect::<BTreeSet<_>>())?
    };
    let written = db.prepare_cached(BEAT)?.execute(named_params! {
        ":id": beat.host.0.as_bytes(),
        ":spent": beat.spent.0,
        ":next": beat.next.0,
        ":now": int(beat.now.0),
        ":interval_ms": int(beat.interval_ms),
        ":seq": int(beat.seq),
        ":up_s": int(beat.up_s),
        ":skew_ms": beat.skew_ms,
        ":agent": beat.agent,
        ":vitals": beat.vitals.as_ref().map(to_json).transpose()?,
        ":boot": beat.holder.boot.0.as_bytes(),
        ":run": beat.holder.run.as_ref().map(|run| run.0.as_bytes()),
        ":faults": faults,
    })?;
    if written == 1 {
        return Ok(Beaten::Stored);
    }
    Ok(get(db, beat.host)?.map_or(Beaten::Unknown, |host| Beaten::Decide(Box::new(host))))
}

/// One host.
pub(crate) fn get(db: &Connection, host: HostId) -> Outcome<Option<Versioned<Host>>> {
    first(db, &format!("SELECT {COLUMNS} FROM hosts h WHERE h.id = ?1"), host.0.as_bytes())
}

/// The host with this key.
pub(crate) fn by_key(db: &Connection, key: &PublicKey) -> Outcome<Option<Versioned<Host>>> {
    first(db, &format!("SELECT {COLUMNS} FROM hosts h WHERE h.key = ?1"), &key.0)
}

fn first(db: &Connection, sql: &str, wanted: &dyn ToSql) -> Outcome<Option<Versioned<Host>>> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([wanted])?;
    rows.next()?.map(row::read).transpose()
}

/// A page of hosts. Each filter that is not asked for is not in the text, so that the index on the name serves.
pub(crate) fn list(db: &Connection, query: &HostQuery) -> Outcome<Vec<Versioned<Host>>> {
    let mut sql = format!("SELECT {COLUMNS} FROM hosts h WHERE 1");
    let mut values: Vec<Box<dyn ToSql>> = Vec::new();
    if !query.retired {
        sql.push_str(" AND h.state <> 'retired'");
    }
    if let Some(name) = &query.name {
        sql.push_str(" AND h.name = ?");
        values.push(Box::new(name.as_str().to_owned()));
    }
    if let Some((name, id)) = &query.after {
        sql.push_str(" AND (h.name, h.id) > (?, ?)");
        values.push(Box::new(name.clone()));
        values.push(Box::new(id.0.into_bytes()));
    }
    for (key, value) in &query.tags {
        sql.push_str(" AND EXISTS (SELECT 1 FROM tags t WHERE t.host = h.no AND t.key = ? AND t.value = ?)");
        values.push(Box::new(key.clone()));
        values.push(Box::new(value.clone()));
    }
    sql.push_str(" ORDER BY h.name, h.id LIMIT ?");
    values.push(Box::new(size(query.limit.min(PAGE_MAX))));
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query(rusqlite::params_from_iter(values))?;
    let mut hosts = Vec::new();
    while let Some(found) = rows.next()? {
        hosts.push(row::read(found)?);
    }
    Ok(hosts)
}

/// Stores a new host with its first event, and takes a use off the token.
pub(crate) fn enrol(
    db: &Connection,
    host: &Host,
    event: &Event,
    credential: &Credential,
    now: Time,
) -> Outcome<Enrolled> {
    if let Some(known) = owner_of_key(db, &host.key)? {
        return Ok(Enrolled::KeyKnown(known));
    }
    let token = match credential {
        Credential::Trusted => None,
        Credential::Token { id } => match access::live_token(db, id, now)? {
            Some(token) => Some(token),
            None => return Ok(Enrolled::TokenRefused),
        },
    };
    if is_name_taken(db, host)? || get(db, host.id)?.is_some() {
        return Ok(Enrolled::NameTaken);
    }
    if let Some(token) = token {
        access::redeem(db, token, &host.key)?;
    }
    row::insert(db, host)?;
    events::put(db, core::slice::from_ref(event))?;
    Ok(Enrolled::Done)
}

/// Applies a decision. Everything is looked at before anything is written.
pub(crate) fn commit(db: &Connection, change: &Change) -> Outcome<Committed> {
    if let Some(Versioned { value: host, rev }) = &change.host {
        let held: Option<i64> = db
            .prepare_cached("SELECT rev FROM hosts WHERE id = ?1")?
            .query_row([host.id.0.as_bytes()], |row| row.get(0))
            .optional()?;
        let is_current = held == Some(int(*rev));
        let key_is_free = owner_of_key(db, &host.key)?.is_none_or(|owner| owner == host.id);
        if !is_current || !key_is_free || is_name_taken(db, host)? {
            return Ok(Committed::Conflict);
        }
    }
    if let Some(incident) = &change.incident {
        let held: Option<i64> = db
            .prepare_cached("SELECT rev FROM incidents WHERE id = ?1")?
            .query_row([incident.value.id.0.as_bytes()], |row| row.get(0))
            .optional()?;
        if held.unwrap_or(0) != int(incident.rev) {
            return Ok(Committed::Conflict);
        }
    }
    if let Some(Versioned { value: host, rev }) = &change.host {
        row::update(db, host, rev.saturating_add(1))?;
    }
    if let Some(Versioned { value: incident, rev }) = &change.incident {
        put_incident(db, incident, rev.saturating_add(1))?;
    }
    events::put(db, &change.events)?;
    Ok(Committed::Done)
}

fn put_incident(db: &Connection, incident: &Incident, rev: u64) -> Outcome<()> {
    db.prepare_cached(
        "INSERT INTO incidents (id, rev, is_open, doc) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (id) DO UPDATE SET rev = ?2, is_open = ?3, doc = ?4",
    )?
    .execute((incident.id.0.as_bytes(), int(rev), incident.closed_at.is_none(), to_json(incident)?))?;
    Ok(())
}

fn owner_of_key(db: &Connection, key: &PublicKey) -> Outcome<Option<HostId>> {
    let mut statement = db.prepare_cached("SELECT id FROM hosts WHERE key = ?1")?;
    let mut rows = statement.query([key.0])?;
    rows.next()?.map(|row| id(row, "id").map(HostId)).transpose()
}

fn is_name_taken(db: &Connection, host: &Host) -> Outcome<bool> {
    if matches!(host.state, State::Retired { .. }) {
        return Ok(false);
    }
    let sql = "SELECT 1 FROM hosts WHERE name = ?1 AND state <> 'retired' AND id <> ?2";
    Ok(db.prepare_cached(sql)?.exists((host.name.as_str(), host.id.0.as_bytes()))?)
}
