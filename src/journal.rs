//! The agent's journal: one small file that explains an outage after the fact, and the lock beside it.
//!
//! Written whole at every beat (write, fsync, rename, fsync of the directory), read once at a start. It is never needed
//! for a beat: whatever is wrong with it costs an explanation and one round trip.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use hb_wire::beat::{Ending, StopReason};
use hb_wire::id::{BootId, RunId};
use hb_wire::nonce::Nonce;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::agent::memory::Moment;
use crate::http::resolve::Addresses;

/// Largest journal that is read, in bytes; a real one has some 700.
pub const JOURNAL_BYTES_MAX: u64 = 16 * 1024;

const FILE: &str = "journal";
const LOCK: &str = "lock";
/// Begins the first line; another number means another layout.
const MAGIC: &str = "hb-journal 1 ";
/// Hex digits of the checksum in the first line.
const SUM_CHARS: usize = 16;

/// Who keeps the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keeper {
    /// `hb agent`, which knows when it stops.
    Daemon,
    /// `hb beat`, which is not there between two beats.
    Once,
}

/// Attempts that failed since the last accepted beat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Misses {
    /// How many.
    pub failed: u64,
    /// When the first of them failed.
    pub since: Moment,
    /// The last failure in a word.
    pub error: String,
}

/// The server's time when it was last heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerTime {
    /// In seconds since 1970.
    pub unix_s: u64,
    /// The boot in which it was heard.
    pub boot: BootId,
    /// The `CLOCK_BOOTTIME` at which it was heard, in milliseconds.
    pub boottime_ms: u64,
}

/// What one run leaves to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// Who wrote it.
    pub keeper: Keeper,
    /// In which boot.
    pub boot: BootId,
    /// In which run.
    pub run: RunId,
    /// Beats begun.
    pub seq: u64,
    /// The nonce that the next beat spends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<Nonce>,
    /// Set by a clean stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<StopReason>,
    /// How an earlier run ended, when no accepted beat has told it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Ending>,
    /// Failures not yet told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub misses: Option<Misses>,
    /// When a beat was last accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard: Option<Moment>,
    /// The server's time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerTime>,
    /// The last good addresses of the server, for when the resolver is away.
    #[serde(default, skip_serializing_if = "Addresses::is_empty")]
    pub addresses: Addresses,
}

/// Why there is no journal to read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be read.
    #[error("it could not be read: {0}")]
    Unreadable(#[source] io::Error),
    /// It is cut off or damaged, or of another layout.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
}

/// A state directory, with the journal and the lock in it.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
}

/// Held while this process is the one that beats for this host; released when dropped.
#[derive(Debug)]
pub struct Lock {
    _file: Option<File>,
}

impl StateDir {
    /// The directory at `path`; nothing is read or made yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the directory (0700) if it is not there.
    ///
    /// # Errors
    /// As the file system says.
    pub fn create(&self) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt as _;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path)
    }

    /// Reads the journal; none when there is none yet.
    ///
    /// # Errors
    /// [`JournalError`]: go on without it, and say so.
    pub fn read(&self) -> Result<Option<Journal>, JournalError> {
        let file = match File::open(self.path.join(FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(JournalError::Unreadable(error)),
        };
        let mut text = String::new();
        file.take(JOURNAL_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| {
            if error.kind() == io::ErrorKind::InvalidData {
                JournalError::Damaged("it is not text")
            } else {
                JournalError::Unreadable(error)
            }
        })?;
        parse(&text).map(Some)
    }

    /// Replaces the journal, durably: after a crash there is the old one or the new one, whole.
    ///
    /// # Errors
    /// As the file system says: the state directory cannot be written and synced.
    pub fn write(&self, journal: &Journal) -> io::Result<()> {
        replace(&self.path, FILE, render(journal).as_bytes(), 0o600)
    }

    /// Becomes the one that beats; none when another process is.
    ///
    /// Where no lock file can be made (a full or read-only disk) the lock is void: a beat matters more.
    pub fn lock(&self) -> Option<Lock> {
        let path = self.path.join(LOCK);
        let open = || OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        // An old lock file can be locked even when no new one can be made.
        let Ok(file) = open().or_else(|_| File::open(&path)) else { return Some(Lock { _file: None }) };
        match file.try_lock() {
            Ok(()) => Some(Lock { _file: Some(file) }),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Error(_)) => Some(Lock { _file: None }),
        }
    }
}

/// Replaces `dir/name` by a file of these bytes and this mode: temporary file, fsync, rename, fsync of the directory.
///
/// # Errors
/// As the file system says; then the old file is untouched and no temporary file is left.
pub fn replace(dir: &Path, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = dir.join(format!(".{name}.new"));
    let written = (|| {
        // A temporary file that a crash left behind may have another mode or owner.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, dir.join(name))?;
        File::open(dir)?.sync_all()
    })();
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn render(journal: &Journal) -> String {
    let body = serde_json::to_string(journal).expect("a journal has only text keys and finite numbers");
    format!("{MAGIC}{}\n{body}\n", checksum(&body))
}

fn parse(text: &str) -> Result<Journal, JournalError> {
    if u64::try_from(text.len()).is_ok_and(|length| length > JOURNAL_BYTES_MAX) {
        return Err(JournalError::Damaged("it is too long"));
    }
    let rest =
        text.strip_prefix(MAGIC).ok_or(JournalError::Damaged("it does not begin as a journal of this version"))?;
    let (sum, body) = rest.split_once('\n').ok_or(JournalError::Damaged("it is cut off"))?;
    let body = body.strip_suffix('\n').ok_or(JournalError::Damaged("it is cut off"))?;
    if sum != checksum(body) {
        return Err(JournalError::Damaged("its checksum does not match"));
    }
    serde_json::from_str(body).map_err(|_| JournalError::Damaged("it holds something else"))
}

fn checksum(body: &str) -> String {
    use core::fmt::Write as _;
    let mut hex = String::with_capacity(SUM_CHARS);
    for byte in Sha256::digest(body.as_bytes()).iter().take(SUM_CHARS / 2) {
        write!(hex, "{byte:02x}").expect("writing to a string cannot fail");
    }
    hex
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn sample() -> Journal {
        let moment = Moment { boottime_ms: 86_400_123, suspended_ms: 17 };
        Journal {
            keeper: Keeper::Daemon,
            boot: BootId::mint(1, [1; 10]),
            run: RunId::mint(2, [2; 10]),
            seq: 4711,
            nonce: Some(Nonce([7; 16])),
            stopped: Some(StopReason::Reboot),
            before: Some(Ending { boot: BootId::mint(3, [3; 10]), clean: true, reason: Some(StopReason::Service) }),
            misses: Some(Misses { failed: 3, since: moment, error: "http_503".to_owned() }),
            heard: Some(moment),
            server: Some(ServerTime { unix_s: 1_795_444_000, boot: BootId::mint(1, [1; 10]), boottime_ms: 5 }),
            addresses: [("hb.example.com".to_owned(), vec!["192.0.2.7".parse().unwrap()])].into(),
        }
    }

    #[test]
    fn a_journal_reads_back_as_it_was_written_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().join("deep/state"));
        assert!(state.read().unwrap().is_none());
        state.create().unwrap();
        state.write(&sample()).unwrap();
        state.write(&sample()).unwrap();
        assert_eq!(state.read().unwrap(), Some(sample()));
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(state.path().join(FILE)), 0o600);
        assert_eq!(mode(state.path().to_owned()), 0o700);
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_journal_cut_at_any_length_or_with_any_byte_changed_is_damaged_and_never_misread() {
        let whole = render(&sample());
        for length in 0..whole.len() {
            assert!(parse(&whole[..length]).is_err(), "cut to {length} bytes");
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone().into_bytes();
            bytes[at] ^= 1;
            if let Ok(text) = String::from_utf8(bytes) {
                assert!(parse(&text).is_err(), "byte {at} changed");
            }
        }
        assert!(parse(&whole.repeat(100)).is_err());
    }

    #[test]
    fn a_journal_is_small() {
        assert!(render(&sample()).len() < 1024, "{}", render(&sample()).len());
    }

    #[test]
    fn only_one_process_beats_and_the_lock_ends_with_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        let held = state.lock();
        assert!(held.is_some());
        assert!(state.lock().is_none());
        drop(held);
        assert!(state.lock().is_some());
    }

    #[test]
    fn a_directory_that_is_not_there_gives_an_error_to_write_and_a_void_lock() {
        let state = StateDir::new("/nonexistent/hb");
        assert!(state.write(&sample()).is_err());
        assert!(state.lock().is_some());
    }

    #[test]
    fn a_leftover_of_a_crash_does_not_stop_the_next_write() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".journal.new"), "half").unwrap();
        let state = StateDir::new(dir.path());
        state.write(&sample()).unwrap();
        assert_eq!(state.read().unwrap(), Some(sample()));
    }
}
