//! The agent's journal: one small file that explains an outage after the fact, and the lock beside it.
//!
//! Two slots in one file of a fixed size, written in turn: a beat overwrites the older one in place and syncs its bytes
//! (fdatasync), so a crash leaves the other one whole, and a beat costs no new file, no name and no block. Read once at a
//! start. It is never needed for a beat: whatever is wrong with it costs an explanation and one round trip.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use hb_wire::beat::{Ending, StopReason};
use hb_wire::id::{BootId, RunId};
use hb_wire::nonce::Nonce;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::agent::memory::Moment;
use crate::http::resolve::Addresses;

/// Size of a slot, in bytes: a page, so that writing one dirties no other. What a real run writes takes some 800.
const SLOT_BYTES: usize = 4096;
/// Size of the file, in bytes.
const FILE_BYTES: usize = 2 * SLOT_BYTES;

const FILE: &str = "journal";
const LOCK: &str = "lock";
/// Begins the first line; another number means another layout.
const MAGIC: &str = "hb-journal 2 ";
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
    /// What the server wants to be sent with each beat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass: Option<String>,
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
        let slots = Slots::read(&file).map_err(JournalError::Unreadable)?;
        let newest = slots.newest().ok_or(JournalError::Damaged(slots.damage()))?;
        serde_json::from_str(newest.body).map(Some).map_err(|_| JournalError::Damaged("it holds something else"))
    }

    /// What writes the journal in this directory; nothing is opened yet.
    pub fn pen(&self) -> Pen {
        Pen { path: self.path.clone(), page: None }
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

/// Writes the journal, beat after beat: keeps the file open and knows whose turn it is, so that a beat reads nothing.
#[derive(Debug)]
pub struct Pen {
    path: PathBuf,
    page: Option<Page>,
}

/// The open file, and where the next write goes.
#[derive(Debug)]
struct Page {
    file: File,
    /// Device and number of the file.
    inode: (u64, u64),
    /// The older slot.
    at: usize,
    /// Of the next write.
    generation: u64,
}

impl Pen {
    /// The state directory that it writes in.
    pub fn dir(&self) -> &Path {
        &self.path
    }

    /// Writes the journal, durably: after a crash there is the old one or the new one, whole.
    ///
    /// # Errors
    /// As the file system says: the state directory cannot be written and synced.
    pub fn write(&mut self, journal: &Journal) -> io::Result<()> {
        let path = self.path.join(FILE);
        let held = self.page.take().filter(|page| page.is_at(&path));
        // A journal that is missing, damaged or somebody else's is replaced by a new one.
        let page = held.map_or_else(|| Page::open(&path), Ok).and_then(|page| page.write(journal)).or_else(|_| {
            let mut bytes = render(journal, 1).into_bytes();
            bytes.resize(FILE_BYTES, b' ');
            replace(&self.path, FILE, &bytes, 0o600)?;
            Page::open(&path)
        })?;
        self.page = Some(page);
        Ok(())
    }
}

impl Page {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let found = file.metadata()?;
        let slots = Slots::read(&file)?;
        let newest = slots.newest().ok_or(io::ErrorKind::InvalidData)?;
        let (at, generation) = (SLOT_BYTES - newest.at, newest.generation.wrapping_add(1));
        Ok(Self { file, inode: (found.dev(), found.ino()), at, generation })
    }

    /// Whether this is still the file of that name: it may have been removed, replaced or cut, or its disk unmounted.
    fn is_at(&self, path: &Path) -> bool {
        fs::symlink_metadata(path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.inode && found.len() == FILE_BYTES as u64)
    }

    /// Writes the older slot, which is then the newer one.
    fn write(self, journal: &Journal) -> io::Result<Self> {
        self.file.write_all_at(render(journal, self.generation).as_bytes(), self.at as u64)?;
        self.file.sync_data()?;
        Ok(Self { at: SLOT_BYTES - self.at, generation: self.generation.wrapping_add(1), ..self })
    }
}

/// Replaces `dir/name` by a file of these bytes and this mode: temporary file, fsync, rename, fsync of the directory.
///
/// # Errors
/// As the file system says; then the old file is untouched and no temporary file is left.
pub fn replace(dir: &Path, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
    // Whatever the umask is: root's may be 077, and the agent's account is another one.
    replace_by(dir, name, bytes, mode, |file| file.set_permissions(Permissions::from_mode(mode)))
}

/// As [`replace`], by a file that this group may read, and nobody else.
///
/// # Errors
/// As [`replace`].
pub fn replace_for(dir: &Path, name: &str, bytes: &[u8], gid: u32) -> io::Result<()> {
    replace_by(dir, name, bytes, 0o600, |file| {
        fchown(file, None, Some(gid))?;
        file.set_permissions(Permissions::from_mode(0o640))
    })
}

fn replace_by(
    dir: &Path,
    name: &str,
    bytes: &[u8],
    mode: u32,
    give: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = dir.join(format!(".{name}.new"));
    let written = (|| {
        // A temporary file that a crash left behind may have another mode or owner.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        give(&file)?;
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

/// The bytes of a journal file.
struct Slots {
    bytes: Vec<u8>,
}

/// One of the two, with a good checksum.
struct Slot<'a> {
    /// Where it begins in the file.
    at: usize,
    /// Counts the writes: the higher one is the newer.
    generation: u64,
    body: &'a str,
}

impl Slots {
    fn read(file: &File) -> io::Result<Self> {
        let mut bytes = Vec::with_capacity(FILE_BYTES + 1);
        file.take(FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        Ok(Self { bytes })
    }

    fn slot(&self, at: usize) -> Result<Slot<'_>, &'static str> {
        if self.bytes.len() != FILE_BYTES {
            return Err("its length is wrong");
        }
        let slot = self.bytes.get(at..at + SLOT_BYTES).ok_or("its length is wrong")?;
        let (generation, body) = parse(slot)?;
        Ok(Slot { at, generation, body })
    }

    fn newest(&self) -> Option<Slot<'_>> {
        let slots = [0, SLOT_BYTES].into_iter().filter_map(|at| self.slot(at).ok());
        slots.max_by_key(|slot| slot.generation)
    }

    fn damage(&self) -> &'static str {
        self.slot(0).err().unwrap_or("no part of it is whole")
    }
}

/// What fills a slot, up to its end: `hb-journal 2 GENERATION CHECKSUM`, the journal as one line of JSON.
fn render(journal: &Journal, generation: u64) -> String {
    let text = |journal: &Journal| {
        let body = serde_json::to_string(journal).expect("a journal has only text keys and finite numbers");
        format!("{MAGIC}{generation} {}\n{body}\n", checksum(generation, &body))
    };
    let whole = text(journal);
    if whole.len() <= SLOT_BYTES {
        return whole;
    }
    // Only names and addresses have no small bound, and they can be resolved again.
    text(&Journal { addresses: Addresses::new(), ..journal.clone() })
}

fn parse(slot: &[u8]) -> Result<(u64, &str), &'static str> {
    let mut lines = slot.split_inclusive(|byte| *byte == b'\n');
    let mut line = || {
        let line = lines.next().and_then(|line| line.strip_suffix(b"\n")).ok_or("it is cut off")?;
        core::str::from_utf8(line).map_err(|_| "it is not text")
    };
    let head = line()?.strip_prefix(MAGIC).ok_or("it does not begin as a journal of this version")?;
    let body = line()?;
    let (generation, sum) = head.split_once(' ').ok_or("it is cut off")?;
    let generation = generation.parse().map_err(|_| "its count is no number")?;
    if sum != checksum(generation, body) {
        return Err("its checksum does not match");
    }
    Ok((generation, body))
}

fn checksum(generation: u64, body: &str) -> String {
    use core::fmt::Write as _;
    let mut hex = String::with_capacity(SUM_CHARS);
    let digest = Sha256::new().chain_update(generation.to_be_bytes()).chain_update(body).finalize();
    for byte in digest.iter().take(SUM_CHARS / 2) {
        write!(hex, "{byte:02x}").expect("writing to a string cannot fail");
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Journal {
        let moment = Moment { boottime_ms: 86_400_123, suspended_ms: 17 };
        Journal {
            keeper: Keeper::Daemon,
            boot: BootId::mint(1, [1; 10]),
            run: RunId::mint(2, [2; 10]),
            seq: 4711,
            nonce: Some(Nonce([7; 16])),
            pass: Some("x".repeat(86)),
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
        state.pen().write(&sample()).unwrap();
        state.pen().write(&sample()).unwrap();
        assert_eq!(state.read().unwrap(), Some(sample()));
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(state.path().join(FILE)), 0o600);
        assert_eq!(mode(state.path().to_owned()), 0o700);
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_journal_cut_at_any_length_or_with_any_byte_changed_is_damaged_and_never_misread() {
        let whole = render(&sample(), 7).into_bytes();
        assert_eq!(parse(&whole).unwrap().0, 7);
        for length in 0..whole.len() {
            assert!(parse(&whole[..length]).is_err(), "cut to {length} bytes");
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            assert!(parse(&bytes).is_err(), "byte {at} changed");
        }
    }

    #[test]
    fn a_write_that_a_crash_cuts_at_any_byte_leaves_the_journal_before_it_and_the_next_write_mends_it() {
        let dir = tempfile::tempdir().unwrap();
        let (state, path) = (StateDir::new(dir.path()), dir.path().join(FILE));
        let numbered = |seq| Journal { seq, ..sample() };
        let mut pen = state.pen();
        for seq in 1..=3 {
            pen.write(&numbered(seq)).unwrap();
        }
        let before = fs::read(&path).unwrap();
        pen.write(&numbered(4)).unwrap();
        let after = fs::read(&path).unwrap();
        let changed: Vec<usize> = (0..FILE_BYTES).filter(|at| before[*at] != after[*at]).collect();
        assert!(changed.iter().all(|at| *at >= SLOT_BYTES), "the slot of the write before is not touched");
        for cut in SLOT_BYTES..=changed.last().unwrap() + 1 {
            fs::write(&path, [&after[..cut], &before[cut..]].concat()).unwrap();
            let read = state.read().unwrap().unwrap().seq;
            assert!(read == 3 || cut > *changed.last().unwrap(), "cut at {cut}: {read}");
        }
        fs::write(&path, [&after[..SLOT_BYTES + 100], &before[SLOT_BYTES + 100..]].concat()).unwrap();
        for seq in 5..=7 {
            state.pen().write(&numbered(seq)).unwrap();
            assert_eq!(state.read().unwrap().unwrap().seq, seq);
        }
    }

    #[test]
    fn a_write_takes_no_new_file_and_no_more_room() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        state.pen().write(&sample()).unwrap();
        let first = fs::metadata(dir.path().join(FILE)).unwrap();
        let mut pen = state.pen();
        for _ in 0..5 {
            pen.write(&sample()).unwrap();
        }
        let last = fs::metadata(dir.path().join(FILE)).unwrap();
        assert_eq!((last.ino(), last.len(), last.blocks()), (first.ino(), first.len(), first.blocks()));
    }

    #[test]
    fn a_journal_of_another_length_is_damaged_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (state, path) = (StateDir::new(dir.path()), dir.path().join(FILE));
        state.pen().write(&sample()).unwrap();
        let whole = fs::read(&path).unwrap();
        for odd in [&whole[..FILE_BYTES - 1], &[&whole[..], b" "].concat(), b"", &[0xff; FILE_BYTES]] {
            fs::write(&path, odd).unwrap();
            assert!(state.read().is_err());
            state.pen().write(&sample()).unwrap();
            assert_eq!(state.read().unwrap(), Some(sample()));
        }
    }

    #[test]
    fn a_journal_that_is_taken_away_between_two_beats_is_there_again_after_the_second() {
        let dir = tempfile::tempdir().unwrap();
        let (state, path) = (StateDir::new(dir.path()), dir.path().join(FILE));
        let other = dir.path().join("other");
        let mut pen = state.pen();
        let meddle: [&dyn Fn(); 5] = [
            &|| fs::remove_file(&path).unwrap(),
            &|| fs::write(&path, "").unwrap(),
            &|| fs::rename(&path, &other).unwrap(),
            &|| fs::write(&path, [b'x'; FILE_BYTES]).unwrap(),
            &|| {
                fs::copy(&path, &other).unwrap();
                fs::rename(&other, &path).unwrap();
            },
        ];
        for (seq, meddle) in (1..).step_by(2).zip(meddle) {
            pen.write(&Journal { seq, ..sample() }).unwrap();
            meddle();
            pen.write(&Journal { seq: seq + 1, ..sample() }).unwrap();
            assert_eq!(state.read().unwrap().unwrap().seq, seq + 1);
        }
        fs::remove_dir_all(dir.path()).unwrap();
        assert!(pen.write(&sample()).is_err(), "a file that has no name any more is no journal");
    }

    #[test]
    fn a_journal_is_small_and_more_addresses_than_it_can_hold_are_left_out() {
        assert!(render(&sample(), u64::MAX).len() < 1024, "{}", render(&sample(), u64::MAX).len());
        let addresses = vec!["2001:db8:1111:2222:3333:4444:5555:6666".parse().unwrap(); 8];
        let names = (0..8).map(|n| (format!("{n}{}", "x".repeat(252)), addresses.clone())).collect();
        let text = render(&Journal { addresses: names, ..sample() }, 1);
        assert!(text.len() < 1024);
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
        assert!(state.pen().write(&sample()).is_err());
        assert!(state.lock().is_some());
    }

    #[test]
    fn a_file_has_the_mode_that_was_asked_for_whatever_the_umask_is() {
        let dir = tempfile::tempdir().unwrap();
        let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        replace(dir.path(), "record", b"x", 0o644).unwrap();
        rustix::process::umask(before);
        let mode = fs::metadata(dir.path().join("record")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
    }

    #[test]
    fn a_leftover_of_a_crash_does_not_stop_the_next_write() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".journal.new"), "half").unwrap();
        let state = StateDir::new(dir.path());
        state.pen().write(&sample()).unwrap();
        assert_eq!(state.read().unwrap(), Some(sample()));
    }
}
