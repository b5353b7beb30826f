//! Backups: copied while the server runs, checked before they are trusted, never over anything.

use std::fs::{File, OpenOptions, hard_link, remove_file, rename};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use crate::open::{Lock, OpenError, is_there, make_dir};
use crate::{access, check, schema};

/// Page cache of the connections that copy, in KiB.
const CACHE_KIB: u32 = 2048;
/// How many replaced databases are kept before it is asked to tidy up.
const REPLACED_MAX: u32 = 1000;

/// Copies a database, which may be in use, into a new file.
pub(crate) fn backup(path: &Path, to: &Path) -> Result<(), OpenError> {
    if !is_there(path)? {
        return Err(OpenError::Missing { path: path.to_owned() });
    }
    if to.symlink_metadata().is_ok() {
        return Err(OpenError::Exists { path: to.to_owned() });
    }
    let from = schema::open_reader(path, CACHE_KIB).map_err(|error| OpenError::of(path, error))?;
    schema::recognise(&from, path)?;
    let half = beside(to, "partial");
    let written = copy(&from, path, &half).and_then(|()| whole(&half, path)).and_then(|()| publish(&half, to));
    if written.is_err() {
        let _ = remove_file(&half);
    }
    written
}

/// What a restore would refuse is no backup, and is told now, while there is still a server to look at.
fn whole(half: &Path, path: &Path) -> Result<(), OpenError> {
    let copied = schema::open_reader(half, CACHE_KIB).map_err(|error| OpenError::of(half, error))?;
    match check::check(&copied).first() {
        None => Ok(()),
        Some(problem) => Err(OpenError::Damaged { path: path.to_owned(), what: problem.to_string() }),
    }
}

/// Copies everything in one step: in smaller ones, a copy of a database that beats change would begin anew for ever. Writers
/// do not wait for it.
fn copy(from: &Connection, path: &Path, to: &Path) -> Result<(), OpenError> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(to)
        .map_err(|source| OpenError::io("create", to, source))?;
    let mut target = Connection::open(to).map_err(|error| OpenError::of(to, error))?;
    let step =
        Backup::new(from, &mut target).and_then(|copy| copy.step(-1)).map_err(|error| OpenError::of(to, error))?;
    if step != StepResult::Done {
        return Err(OpenError::Damaged { path: path.to_owned(), what: "it could not be copied as a whole".into() });
    }
    // A backup is one file: without this it would want a log beside it.
    target.pragma_update(None, "journal_mode", "DELETE").map_err(|error| OpenError::of(to, error))?;
    drop(target);
    sync(to)
}

fn sync(file: &Path) -> Result<(), OpenError> {
    File::open(file).and_then(|file| file.sync_all()).map_err(|source| OpenError::io("sync", file, source))
}

fn sync_dir_of(file: &Path) -> Result<(), OpenError> {
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync(dir)
}

/// Gives a finished file its name, unless something has it.
fn publish(half: &Path, to: &Path) -> Result<(), OpenError> {
    match hard_link(half, to) {
        Ok(()) => remove_file(half).map_err(|source| OpenError::io("remove", half, source))?,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(OpenError::Exists { path: to.to_owned() });
        }
        // A file system without hard links.
        Err(_) => rename(half, to).map_err(|source| OpenError::io("create", to, source))?,
    }
    sync_dir_of(to)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(suffix);
    path.with_file_name(name)
}

/// Puts a backup in the place of a database. What is replaced is kept under the name that is returned.
pub(crate) fn restore(dir: &Path, from: &Path) -> Result<Option<PathBuf>, OpenError> {
    if !is_there(from)? {
        return Err(OpenError::Missing { path: from.to_owned() });
    }
    make_dir(dir)?;
    let _lock = Lock::take(dir)?;
    let backup = schema::open_reader(from, CACHE_KIB).map_err(|error| OpenError::of(from, error))?;
    if schema::recognise(&backup, from)? == 0 {
        return Err(OpenError::Foreign { path: from.to_owned() });
    }
    if let Some(problem) = check::check(&backup).first() {
        return Err(OpenError::BadBackup { path: from.to_owned(), what: problem.to_string() });
    }
    let path = crate::database(dir);
    let fresh = beside(&path, "restoring");
    let done = copy(&backup, from, &fresh)
        .and_then(|()| raise_epoch(&fresh, epoch_of(&path)))
        .and_then(|()| swap(&fresh, &path));
    if done.is_err() {
        let _ = remove_file(&fresh);
    }
    done
}

/// The epoch of the database that is replaced, if it can still be read.
fn epoch_of(path: &Path) -> u32 {
    let held = schema::open_reader(path, CACHE_KIB).ok().and_then(|db| access::observation(&db).ok()).flatten();
    held.map_or(0, |held| held.value.epoch)
}

/// Ids of events follow from what they were decided from, and the epoch is part of it: what is decided from now on must not
/// get the ids of what was decided after the backup was made. And beats that were acknowledged since are forgotten: no host
/// may be called silent because of that.
fn raise_epoch(path: &Path, replaced: u32) -> Result<(), OpenError> {
    let failed = |error| OpenError::of(path, error);
    let mut db = Connection::open(path).map_err(failed)?;
    schema::migrate(&mut db, path)?;
    let damaged = |what: String| OpenError::Damaged { path: path.to_owned(), what };
    let held = access::observation(&db).map_err(|failure| damaged(failure.to_string()))?;
    if let Some(mut held) = held {
        held.value.restore(replaced);
        let written = access::observe(&db, &held, &[]).map_err(|failure| damaged(failure.to_string()))?;
        debug_assert_eq!(written, hb_store::Committed::Done, "nobody else has the file");
    }
    drop(db);
    sync(path)
}

/// Moves the old database aside, with its log, and the new one into its place.
fn swap(fresh: &Path, path: &Path) -> Result<Option<PathBuf>, OpenError> {
    let mut kept = None;
    if is_there(path)? {
        let aside = (1..=REPLACED_MAX)
            .map(|n| beside(path, &format!("replaced-{n}")))
            .find(|aside| aside.symlink_metadata().is_err())
            .ok_or_else(|| OpenError::Exists { path: beside(path, &format!("replaced-{REPLACED_MAX}")) })?;
        // The log may hold what the file does not yet: it goes along, under the name that SQLite will look for.
        for suffix in ["-wal", "-shm"] {
            let log = with_suffix(path, suffix);
            if is_there(&log)? {
                rename(&log, with_suffix(&aside, suffix)).map_err(|source| OpenError::io("rename", &log, source))?;
            }
        }
        rename(path, &aside).map_err(|source| OpenError::io("rename", path, source))?;
        kept = Some(aside);
    }
    rename(fresh, path).map_err(|source| OpenError::io("rename", fresh, source))?;
    sync_dir_of(path)?;
    Ok(kept)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
