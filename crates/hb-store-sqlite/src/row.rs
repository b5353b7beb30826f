//! A host as a row, and back.

use std::borrow::Cow;
use std::collections::BTreeSet;

use hb_core::host::{Holder, Host, Life, Maintenance, State};
use hb_core::time::Time;
use hb_store::{Versioned, check_at, fast};
use hb_wire::beat::Fault;
use hb_wire::id::{BootId, HostId, IncidentId, RunId};
use hb_wire::key::PublicKey;
use hb_wire::name::{HostName, Tags};
use hb_wire::nonce::Nonce;
use hb_wire::view::Class;
use rusqlite::{Connection, Row, named_params};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Outcome};
use crate::number::{bytes, id, int, json, maybe_id, number, time, to_json};

/// Every column that [`read`] needs.
pub(crate) const COLUMNS: &str = "h.id, h.rev, h.nonce, h.nonce_at, h.silent_from, h.interval_ms, h.boot, h.run, h.seq, \
     h.faults, h.heard_at, h.up_s, h.skew_ms, h.agent, h.vitals, h.check_at, h.name, h.key, h.doc";

/// What no beat changes and no condition asks for.
#[derive(Serialize, Deserialize)]
struct Rest<'a> {
    tags: Cow<'a, Tags>,
    class: Class,
    enrolled_at: Time,
    grace_ms: u64,
    max_away_ms: Option<u64>,
    maintenance: Cow<'a, Option<Maintenance>>,
    trouble: Option<IncidentId>,
    state: Cow<'a, State>,
    quarantine: Cow<'a, [Holder]>,
    former: Cow<'a, [Holder]>,
    transitions: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next_key: Option<PublicKey>,
}

/// Reads a host from a row with [`COLUMNS`].
pub(crate) fn read(row: &Row<'_>) -> Outcome<Versioned<Host>> {
    let rest: Rest<'static> = json(row, "doc")?;
    let boot = maybe_id(row, "boot")?.map(BootId);
    let run = maybe_id(row, "run")?.map(RunId);
    let name: String = row.get("name")?;
    let vitals = row.get_ref("vitals")?.as_str_or_null().map_err(rusqlite::Error::from)?;
    let host = Host {
        id: HostId(id(row, "id")?),
        name: HostName::parse(&name).map_err(|error| Failure::Corrupt(error.to_string()))?,
        tags: rest.tags.into_owned(),
        class: rest.class,
        key: PublicKey(bytes(row, "key")?),
        next_key: rest.next_key,
        enrolled_at: rest.enrolled_at,
        interval_ms: number(row, "interval_ms")?,
        grace_ms: rest.grace_ms,
        max_away_ms: rest.max_away_ms,
        maintenance: rest.maintenance.into_owned(),
        trouble: rest.trouble,
        state: rest.state.into_owned(),
        life: Life {
            nonce: Nonce(bytes(row, "nonce")?),
            nonce_at: time(row, "nonce_at")?,
            heard_at: row.get::<_, Option<i64>>("heard_at")?.map(|at| Time(crate::number::uint(at))),
            silent_from: time(row, "silent_from")?,
            holder: boot.map(|boot| Holder { run, boot }),
            seq: number(row, "seq")?,
            up_s: number(row, "up_s")?,
            skew_ms: row.get("skew_ms")?,
            agent: row.get("agent")?,
            faults: json(row, "faults")?,
            vitals: vitals.map(serde_json::from_str).transpose()?,
        },
        quarantine: rest.quarantine.into_owned(),
        former: rest.former.into_owned(),
        transitions: rest.transitions,
    };
    Ok(Versioned { value: host, rev: number(row, "rev")? })
}

/// The faults as the column holds them: equal sets are equal texts.
pub(crate) fn faults(faults: &BTreeSet<Fault>) -> Outcome<String> {
    if faults.is_empty() { Ok("[]".into()) } else { to_json(faults) }
}

/// The longest silence that is no alarm, as the column holds it.
fn patience(host: &Host) -> i64 {
    host.patience_ms().map_or(i64::MAX, int)
}

const INSERT: &str = "INSERT INTO hosts (id, rev, state, is_open, nonce, nonce_at, need_ms, silent_from, patience_ms, \
     quiet_until, interval_ms, boot, run, seq, faults, heard_at, up_s, skew_ms, agent, vitals, check_at, name, key, \
     incident, down_since, grouped, doc) \
     VALUES (:id, :rev, :state, :is_open, :nonce, :nonce_at, :need_ms, :silent_from, :patience_ms, :quiet_until, \
     :interval_ms, :boot, :run, :seq, :faults, :heard_at, :up_s, :skew_ms, :agent, :vitals, :check_at, :name, :key, \
     :incident, :down_since, :grouped, :doc)";

const UPDATE: &str = "UPDATE hosts SET rev = :rev, state = :state, is_open = :is_open, nonce = :nonce, \
     nonce_at = :nonce_at, need_ms = :need_ms, silent_from = :silent_from, patience_ms = :patience_ms, \
     quiet_until = :quiet_until, interval_ms = :interval_ms, boot = :boot, run = :run, seq = :seq, faults = :faults, \
     heard_at = :heard_at, up_s = :up_s, skew_ms = :skew_ms, agent = :agent, vitals = :vitals, check_at = :check_at, \
     name = :name, key = :key, incident = :incident, down_since = :down_since, grouped = :grouped, doc = :doc \
     WHERE id = :id";

/// Stores a new host with its tags.
pub(crate) fn insert(db: &Connection, host: &Host) -> Outcome<()> {
    write(db, INSERT, host, 1)
}

/// Replaces a host and its tags. The caller has made sure that it is there.
pub(crate) fn update(db: &Connection, host: &Host, rev: u64) -> Outcome<()> {
    write(db, UPDATE, host, rev)
}

fn write(db: &Connection, sql: &str, host: &Host, rev: u64) -> Outcome<()> {
    let life = &host.life;
    let rest = Rest {
        tags: Cow::Borrowed(&host.tags),
        class: host.class,
        enrolled_at: host.enrolled_at,
        grace_ms: host.grace_ms,
        max_away_ms: host.max_away_ms,
        maintenance: Cow::Borrowed(&host.maintenance),
        trouble: host.trouble,
        state: Cow::Borrowed(&host.state),
        quarantine: Cow::Borrowed(&host.quarantine),
        former: Cow::Borrowed(&host.former),
        transitions: host.transitions,
        next_key: host.next_key,
    };
    let outage = host.state.outage();
    let fell = if let State::Down(outage) = &host.state { Some(outage) } else { None };
    db.prepare_cached(sql)?.execute(named_params! {
        ":id": host.id.0.as_bytes(),
        ":rev": int(rev),
        ":state": host.state.word(),
        ":is_open": fast::is_open(host),
        ":nonce": life.nonce.0,
        ":nonce_at": int(life.nonce_at.0),
        ":need_ms": int(host.need_ms()),
        ":silent_from": int(life.silent_from.0),
        ":patience_ms": patience(host),
        ":quiet_until": host.maintenance.as_ref().map_or(0, |maintenance| int(maintenance.until.0)),
        ":interval_ms": int(host.interval_ms),
        ":boot": life.holder.as_ref().map(|holder| holder.boot.0.as_bytes()),
        ":run": life.holder.as_ref().and_then(|holder| holder.run.as_ref()).map(|run| run.0.as_bytes()),
        ":seq": int(life.seq),
        ":faults": faults(&life.faults)?,
        ":heard_at": life.heard_at.map(|at| int(at.0)),
        ":up_s": int(life.up_s),
        ":skew_ms": life.skew_ms,
        ":agent": life.agent,
        ":vitals": life.vitals.as_ref().map(to_json).transpose()?,
        ":check_at": check_at(host).map(|at| int(at.0)),
        ":name": host.name.as_str(),
        ":key": host.key.0,
        ":incident": outage.map(|outage| outage.incident.0.as_bytes()),
        ":down_since": fell.map(|outage| int(outage.since.0)),
        ":grouped": outage.is_some_and(|outage| outage.grouped),
        ":doc": to_json(&rest)?,
    })?;
    write_tags(db, host)
}

fn write_tags(db: &Connection, host: &Host) -> Outcome<()> {
    let no: i64 =
        db.prepare_cached("SELECT no FROM hosts WHERE id = ?1")?.query_row([host.id.0.as_bytes()], |row| row.get(0))?;
    let mut held = db.prepare_cached("SELECT key, value FROM tags WHERE host = ?1 ORDER BY key")?;
    let held: Vec<(String, String)> =
        held.query_map([no], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    if held.iter().map(|(key, value)| (key.as_str(), value.as_str())).eq(host.tags.iter()) {
        return Ok(());
    }
    db.prepare_cached("DELETE FROM tags WHERE host = ?1")?.execute([no])?;
    let mut insert = db.prepare_cached("INSERT INTO tags (host, key, value) VALUES (?1, ?2, ?3)")?;
    for (key, value) in host.tags.iter() {
        insert.execute((no, key, value))?;
    }
    Ok(())
}
