//! What a sweep has to look at.
//!
//! `check_at` is a lower bound of each host's alarm. A beat leaves it alone, so that beats write to no index; whoever finds a
//! bound that has passed before the alarm has, moves it. The bound is never later than the alarm: a commit computes it anew,
//! a beat only makes the alarm later, and a move applies only to the very revision that it was computed from.

use hb_core::host::Host;
use hb_core::ledger::Ledger;
use hb_core::policy::Policy;
use hb_core::time::Time;
use hb_store::{PAGE_MAX, Versioned};
use hb_wire::id::HostId;
use rusqlite::Connection;

use crate::failure::Outcome;
use crate::number::{int, size, uint};
use crate::row::{self, COLUMNS};

/// Beyond this, sums of columns might leave SQLite's integers: such rows are left to the code that saturates.
const SUMMABLE: i64 = i64::MAX / 4;

/// The deadline of a host that is up, before credit, from its columns.
const FLOOR: &str = "max(silent_from + patience_ms, quiet_until)";

/// A bound that is too early, and what it should be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Move {
    host: HostId,
    rev: u64,
    to: Option<Time>,
}

/// What a look at the bounds that have passed gave.
#[derive(Debug)]
pub(crate) enum Look {
    /// Hosts whose alarm has come, in the order of their alarms; nothing was skipped before the last of them.
    Due(Vec<Versioned<Host>>),
    /// These bounds have to be moved first.
    Early(Vec<Move>),
}

/// When the first bound passes.
pub(crate) fn next(db: &Connection) -> Outcome<Option<Time>> {
    let sql = "SELECT min(check_at) FROM hosts WHERE check_at IS NOT NULL";
    let at: Option<i64> = db.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    Ok(at.map(|at| Time(uint(at))))
}

/// True when a bound has passed.
pub(crate) fn any(db: &Connection, now: Time) -> Outcome<bool> {
    Ok(next(db)?.is_some_and(|first| first <= now))
}

/// Moves the bounds of hosts that have been heard since, [`PAGE_MAX`] at most, without reading them. The number of them.
pub(crate) fn advance(db: &Connection, now: Time) -> Outcome<usize> {
    let sql = format!(
        "UPDATE hosts SET check_at = {FLOOR} WHERE no IN (SELECT no FROM hosts WHERE check_at <= ?1 AND state = 'up' \
         AND silent_from < ?2 AND patience_ms < ?2 AND {FLOOR} > ?1 ORDER BY check_at LIMIT ?3)"
    );
    Ok(db.prepare_cached(&sql)?.execute((int(now.0), SUMMABLE, size(PAGE_MAX)))?)
}

/// Looks at the first hosts whose bounds have passed.
pub(crate) fn look(db: &Connection, now: Time, ledger: &Ledger, policy: &Policy, limit: usize) -> Outcome<Look> {
    let sql = format!("SELECT {COLUMNS} FROM hosts h WHERE h.check_at <= ?1 ORDER BY h.check_at, h.id LIMIT ?2");
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query((int(now.0), size(PAGE_MAX)))?;
    let (mut due, mut early) = (Vec::new(), Vec::new());
    while let Some(found) = rows.next()? {
        let bound: i64 = found.get("check_at")?;
        let held = row::read(found)?;
        match held.value.alarm_at(ledger, policy) {
            // Compared as stored: a time too large for a column must not look early for ever.
            Some(alarm) if int(alarm.0) <= bound => due.push(held),
            to => early.push(Move { host: held.value.id, rev: held.rev, to }),
        }
        if early.is_empty() && due.len() >= limit {
            break;
        }
    }
    if early.is_empty() {
        due.truncate(limit);
        return Ok(Look::Due(due));
    }
    Ok(Look::Early(early))
}

/// Moves bounds, unless the host has changed since.
pub(crate) fn shift(db: &Connection, moves: &[Move]) -> Outcome<()> {
    let mut statement = db.prepare_cached("UPDATE hosts SET check_at = ?3 WHERE id = ?1 AND rev = ?2")?;
    for early in moves {
        statement.execute((early.host.0.as_bytes(), int(early.rev), early.to.map(|at| int(at.0))))?;
    }
    Ok(())
}
