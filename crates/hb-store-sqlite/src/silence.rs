//! Who is silent, and with whom; how the fleet stands.

use hb_core::event::Subject;
use hb_core::incident::Group;
use hb_core::time::Time;
use hb_store::{Fleet, PAGE_MAX};
use hb_wire::id::IncidentId;
use hb_wire::name::Tags;
use rusqlite::types::ToSql;
use rusqlite::{Connection, Row};

use crate::failure::Outcome;
use crate::number::{int, size, uint};
use crate::row::{self, COLUMNS};

/// Up, and past its interval.
const LATE: &str = "(h.state = 'up' AND h.silent_from + h.interval_ms < ?1)";
/// Up, always on, and in no maintenance: `Host::is_expected`.
const EXPECTED: &str = "(h.state = 'up' AND h.patience_ms = h.need_ms AND h.quiet_until <= ?1)";
/// Declared down on its own, no longer than an interval ago.
const FELL: &str = "(h.state = 'down' AND h.grouped = 0 AND ?1 - h.down_since <= h.interval_ms)";

/// How the fleet stands.
pub(crate) fn fleet(db: &Connection, now: Time) -> Outcome<Fleet> {
    let sql = format!(
        "SELECT h.state, count(*), count(*) FILTER (WHERE {LATE}), min(h.need_ms) FROM hosts h GROUP BY h.state"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query([int(now.0)])?;
    let mut fleet = Fleet::default();
    while let Some(row) = rows.next()? {
        let state: String = row.get(0)?;
        let hosts = uint(row.get(1)?);
        if state != "retired" {
            fleet.hosts = fleet.hosts.saturating_add(hosts);
            fleet.late = fleet.late.saturating_add(uint(row.get(2)?));
            let shortest = uint(row.get(3)?);
            fleet.shortest_need_ms = Some(fleet.shortest_need_ms.map_or(shortest, |other| other.min(shortest)));
        }
        fleet.states.insert(state, hosts);
    }
    Ok(fleet)
}

/// Who is silent in the fleet, and in the group of each tag.
pub(crate) fn groups(db: &Connection, now: Time, tags: &Tags) -> Outcome<Vec<Group>> {
    let counts = format!(
        "count(*) FILTER (WHERE {EXPECTED} OR {FELL}), count(*) FILTER (WHERE {EXPECTED} AND {LATE} OR {FELL}), \
         count(*) FILTER (WHERE {FELL})"
    );
    let whole = format!("SELECT {counts} FROM hosts h WHERE h.state IN ('up', 'down')");
    let mut groups = vec![db.prepare_cached(&whole)?.query_row([int(now.0)], |row| group(None, row))?];
    let tagged = format!(
        "SELECT {counts} FROM tags t JOIN hosts h ON h.no = t.host \
         WHERE t.key = ?2 AND t.value = ?3 AND h.state IN ('up', 'down')"
    );
    let mut tagged = db.prepare_cached(&tagged)?;
    for (key, value) in tags.iter() {
        let tag = Some((key.to_owned(), value.to_owned()));
        groups.push(tagged.query_row((int(now.0), key, value), |row| group(tag, row))?);
    }
    Ok(groups)
}

fn group(tag: Option<(String, String)>, row: &Row<'_>) -> rusqlite::Result<Group> {
    Ok(Group { tag, expected: uint(row.get(0)?), silent: uint(row.get(1)?), down: uint(row.get(2)?) })
}

/// Who of a group is expected, and past its interval.
pub(crate) fn silent(
    db: &Connection,
    now: Time,
    tag: Option<&(String, String)>,
    limit: usize,
) -> Outcome<Vec<Subject>> {
    let mut sql = format!("SELECT {COLUMNS} FROM hosts h WHERE {EXPECTED} AND {LATE}");
    let (now, limit) = (int(now.0), size(limit.min(PAGE_MAX)));
    let mut values: Vec<&dyn ToSql> = vec![&now, &limit];
    if let Some((key, value)) = tag {
        sql.push_str(" AND EXISTS (SELECT 1 FROM tags t WHERE t.host = h.no AND t.key = ?3 AND t.value = ?4)");
        values.push(key);
        values.push(value);
    }
    sql.push_str(" ORDER BY h.name, h.id LIMIT ?2");
    subjects(db, &sql, &values)
}

/// Whose open outage belongs to the incident.
pub(crate) fn down_in(db: &Connection, incident: IncidentId, limit: usize) -> Outcome<Vec<Subject>> {
    let sql = format!("SELECT {COLUMNS} FROM hosts h WHERE h.incident = ?1 ORDER BY h.name, h.id LIMIT ?2");
    subjects(db, &sql, &[incident.0.as_bytes(), &size(limit.min(PAGE_MAX))])
}

fn subjects(db: &Connection, sql: &str, values: &[&dyn ToSql]) -> Outcome<Vec<Subject>> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(values)?;
    let mut subjects = Vec::new();
    while let Some(found) = rows.next()? {
        subjects.push(Subject::of(&row::read(found)?.value));
    }
    Ok(subjects)
}
