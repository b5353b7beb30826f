//! SQLite's integers are 64 bits with a sign: what is larger is kept as the largest, and never wraps.

use hb_core::time::Time;
use rusqlite::Row;
use uuid::Uuid;

use crate::failure::{Failure, Outcome};

/// As stored.
pub(crate) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A count or an index as stored.
pub(crate) fn size(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// As read.
pub(crate) fn uint(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A column that holds a number.
pub(crate) fn number(row: &Row<'_>, column: &str) -> Outcome<u64> {
    Ok(uint(row.get::<_, i64>(column)?))
}

/// A column that holds an instant.
pub(crate) fn time(row: &Row<'_>, column: &str) -> Outcome<Time> {
    Ok(Time(number(row, column)?))
}

/// A column that holds an id.
pub(crate) fn id(row: &Row<'_>, column: &str) -> Outcome<Uuid> {
    uuid_of(row.get_ref(column)?.as_blob().map_err(rusqlite::Error::from)?, column)
}

/// A column that holds an id or nothing.
pub(crate) fn maybe_id(row: &Row<'_>, column: &str) -> Outcome<Option<Uuid>> {
    match row.get_ref(column)?.as_blob_or_null().map_err(rusqlite::Error::from)? {
        Some(bytes) => uuid_of(bytes, column).map(Some),
        None => Ok(None),
    }
}

fn uuid_of(bytes: &[u8], column: &str) -> Outcome<Uuid> {
    Uuid::from_slice(bytes)
        .map_err(|_| Failure::Corrupt(format!("column {column} holds {} bytes, not 16", bytes.len())))
}

/// A column that holds exactly this many bytes.
pub(crate) fn bytes<const N: usize>(row: &Row<'_>, column: &str) -> Outcome<[u8; N]> {
    let stored = row.get_ref(column)?.as_blob().map_err(rusqlite::Error::from)?;
    stored.try_into().map_err(|_| Failure::Corrupt(format!("column {column} holds {} bytes, not {N}", stored.len())))
}

/// A column that holds JSON.
pub(crate) fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: &str) -> Outcome<T> {
    let text = row.get_ref(column)?.as_str().map_err(rusqlite::Error::from)?;
    Ok(serde_json::from_str(text)?)
}

/// A record as JSON.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Outcome<String> {
    serde_json::to_string(value)
        .map_err(|error| Failure::Corrupt(format!("a record cannot be written as JSON: {error}")))
}
