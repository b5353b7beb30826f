//! hb's store on one machine: SQLite.
//!
//! A data directory holds `hb.db` (with its write-ahead log beside it) and `hb.lock`. One thread writes, and commits in
//! groups ([`writer`](self)); a few threads read beside it. A commit is on the disk when its caller is answered
//! (`synchronous=FULL`). Nothing is kept in memory per host.
//!
//! Numbers above 2^63-1 (in milliseconds: the year 292 million) are kept as 2^63-1 where they are columns: SQLite knows no
//! larger integers. Nothing wraps, nothing panics.

mod access;
mod backup;
mod check;
mod due;
mod events;
mod failure;
mod hosts;
mod number;
mod open;
mod outbox;
mod readers;
mod row;
mod schema;
mod silence;
mod store;
mod writer;

use std::path::{Path, PathBuf};

pub use check::Problem;
pub use open::{OpenError, Options};
pub use store::SqliteStore;

/// The database of a data directory.
#[must_use]
pub fn database(dir: &Path) -> PathBuf {
    dir.join(schema::FILE)
}
