//! The database file: how it is opened, what marks it as hb's, and how it grows from version to version.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::open::OpenError;

/// The database's name in the data directory.
pub(crate) const FILE: &str = "hb.db";
/// `hbdb` in ASCII: marks a database as hb's (`PRAGMA application_id`).
pub(crate) const APPLICATION_ID: i32 = 0x6862_6462;
/// Each step is applied once, in its own transaction; `PRAGMA user_version` counts them. Steps are never changed, only added.
const MIGRATIONS: [&str; 1] = [include_str!("../migrations/0001_base.sql")];

/// Pages (of 4 KiB) after which the write-ahead log is copied into the database. Larger than SQLite's 1000: a page that many
/// beats changed is then copied once.
const CHECKPOINT_PAGES: i64 = 4000;
/// How long to wait for a lock of somebody outside (a backup that opens, a shell).
const BUSY_MS: u64 = 5000;
/// Statements kept ready; there are about fifty.
const STATEMENTS: usize = 96;

/// The version that this program writes.
pub(crate) fn version() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// Opens for writing. `cache_kib` bounds the page cache.
pub(crate) fn open_writer(path: &Path, cache_kib: u32) -> rusqlite::Result<Connection> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(Duration::from_millis(BUSY_MS))?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "foreign_keys", true)?;
    db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    tune(&db, cache_kib)?;
    Ok(db)
}

/// Opens for reading only.
pub(crate) fn open_reader(path: &Path, cache_kib: u32) -> rusqlite::Result<Connection> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(Duration::from_millis(BUSY_MS))?;
    db.pragma_update(None, "query_only", true)?;
    tune(&db, cache_kib)?;
    Ok(db)
}

fn tune(db: &Connection, cache_kib: u32) -> rusqlite::Result<()> {
    // Negative: in KiB instead of pages.
    db.pragma_update(None, "cache_size", -i64::from(cache_kib))?;
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(())
}

/// Creates the file, readable by its owner alone. SQLite gives the same mode to the log beside it.
pub(crate) fn create(path: &Path) -> Result<(), OpenError> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(OpenError::Io { what: "create", path: path.to_owned(), source }),
    }
}

/// Makes sure that it is hb's and not from a newer program; answers its version (0: it is empty).
pub(crate) fn recognise(db: &Connection, path: &Path) -> Result<i64, OpenError> {
    let number = |pragma: &str| db.pragma_query_value::<i64, _>(None, pragma, |row| row.get(0));
    let read = || Ok::<_, rusqlite::Error>((number("application_id")?, number("user_version")?, number("page_count")?));
    let (application, found, pages) = match read() {
        Ok(numbers) => numbers,
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {
            return Err(OpenError::Foreign { path: path.to_owned() });
        }
        Err(error) => return Err(OpenError::of(path, error)),
    };
    let is_empty = application == 0 && found == 0 && pages <= 1 && is_without_tables(db, path)?;
    if application != i64::from(APPLICATION_ID) && !is_empty {
        return Err(OpenError::Foreign { path: path.to_owned() });
    }
    if found > version() {
        return Err(OpenError::Newer { path: path.to_owned(), found, known: version() });
    }
    Ok(found)
}

fn is_without_tables(db: &Connection, path: &Path) -> Result<bool, OpenError> {
    let tables = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0));
    Ok(tables.map_err(|error| OpenError::of(path, error))? == 0)
}

/// Applies the steps that are missing.
pub(crate) fn migrate(db: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let found = recognise(db, path)?;
    let done = usize::try_from(found).unwrap_or(0);
    for (sql, number) in MIGRATIONS.iter().zip(1_i64..).skip(done) {
        apply(db, sql, number).map_err(|error| OpenError::of(path, error))?;
    }
    Ok(())
}

fn apply(db: &mut Connection, sql: &str, number: i64) -> rusqlite::Result<()> {
    let step = db.transaction_with_behavior(rusqlite::TransactionBehavior::Exclusive)?;
    step.execute_batch(sql)?;
    step.pragma_update(None, "application_id", APPLICATION_ID)?;
    step.pragma_update(None, "user_version", number)?;
    step.commit()
}
