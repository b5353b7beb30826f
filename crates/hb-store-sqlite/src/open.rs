//! Opening a data directory: one server at a time, and a clear word when it cannot be.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode};
use rustix::fs::{Access, access};

use crate::schema;

/// The lock's name in the data directory.
const LOCK: &str = "hb.lock";

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// Make the directory and the database when they are not there.
    pub create: bool,
    /// Connections that read, each with a thread.
    pub readers: usize,
    /// Pieces of work that may wait for the writer, and as many for the readers; more are refused as overload.
    pub queue: usize,
    /// The writer's page cache in KiB; each reader has a quarter.
    pub cache_kib: u32,
    /// Most pages of 4 KiB that the database may have; none: as many as the disk takes.
    pub pages_max: Option<u32>,
}

impl Default for Options {
    /// Two readers, a queue of 8192, 8 MiB of cache; does not create.
    fn default() -> Self {
        Self { create: false, readers: 2, queue: 8192, cache_kib: 8 * 1024, pages_max: None }
    }
}

impl Options {
    /// As the default, but makes what is not there.
    #[must_use]
    pub fn creating() -> Self {
        Self { create: true, ..Self::default() }
    }
}

/// Why a data directory, a database or a backup could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no database.
    #[error("there is no database at {}\nhint: make one with `hb-server init`", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// There is a file, with nothing in it: a crash or a full disk may have left it. Its hosts and keys are not to be forgotten
    /// in silence.
    #[error("{} is empty: no hosts, no keys, nothing\nhint: restore a backup with `hb-server restore`; for a new start remove the file and run `hb-server init`", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// What is to be restored is damaged.
    #[error("the backup {} is damaged: {what}\nhint: take another one; nothing was changed", path.display())]
    BadBackup {
        /// The backup.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// This user may not look at it.
    #[error("{} cannot be read by this user\nhint: run it as root or as _hb-server, or check the owner and mode of the file and of the directories above it", path.display())]
    Denied {
        /// The database or backup.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Another process has it.
    #[error("{} is in use by another hb-server ({holder})\nhint: stop that one first, or give this one a directory of its own", dir.display())]
    Locked {
        /// The data directory.
        dir: PathBuf,
        /// Which process, as far as it is known.
        holder: String,
    },
    /// Written by a newer hb.
    #[error(
        "{} is of version {found}, this program knows versions up to {known}\nhint: install the newer hb-server again, or restore a backup made before the upgrade",
        path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version that is understood.
        known: i64,
    },
    /// Something else.
    #[error("{} is not a database of hb-server\nhint: check the path; nothing was changed", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It, or its directory, cannot be written.
    #[error("{} cannot be written: it, its directory or its file system is read-only for this user\nhint: check owner and mode of the file and its directory, and how it is mounted", path.display())]
    ReadOnly {
        /// The database.
        path: PathBuf,
    },
    /// No space is left.
    #[error("there is no space left for {}\nhint: free some space on its file system and try again", path.display())]
    Full {
        /// The database.
        path: PathBuf,
    },
    /// Damaged.
    #[error("{} is damaged: {what}\nhint: restore a backup with `hb-server restore`; the damaged file is kept", path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// What would be written is there already.
    #[error("{} exists already\nhint: choose another name; nothing was overwritten", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// SQLite refused.
    #[error("cannot open {}: {source}\nhint: look for errors of the disk in the kernel's log; `hb-server check` tests the database", path.display())]
    Sql {
        /// The database.
        path: PathBuf,
        /// Why not.
        source: rusqlite::Error,
    },
}

impl OpenError {
    /// What SQLite's error means for an operator.
    pub(crate) fn of(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::Foreign { path },
            Some(ErrorCode::DatabaseCorrupt) => Self::Damaged { path, what: source.to_string() },
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Self::ReadOnly { path },
            Some(ErrorCode::DiskFull) => Self::Full { path },
            Some(ErrorCode::CannotOpen) => Self::unopened(path, source),
            _ => Self::Sql { path, source },
        }
    }

    /// SQLite does not say why it could not open a file: the file itself, or the files that it has to make beside it.
    fn unopened(path: PathBuf, source: rusqlite::Error) -> Self {
        use rustix::io::Errno;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if access(&path, Access::READ_OK) == Err(Errno::ACCESS) {
            return Self::Denied { path };
        }
        if matches!(access(dir, Access::WRITE_OK), Err(Errno::ACCESS | Errno::ROFS)) {
            return Self::ReadOnly { path };
        }
        Self::Sql { path, source }
    }

    /// What the file system's error means for an operator.
    pub(crate) fn io(what: &'static str, path: &Path, source: std::io::Error) -> Self {
        use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        let (path, kind) = (path.to_owned(), source.kind());
        if kind == ReadOnlyFilesystem {
            return Self::ReadOnly { path };
        }
        if matches!(kind, StorageFull | QuotaExceeded) {
            return Self::Full { path };
        }
        Self::Io { what, path, source }
    }
}

/// Keeps other servers out of a data directory for as long as it lives. The kernel lets go of it with the process.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the directory, and notes this process's id in it for the next one that tries.
    pub(crate) fn take(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join(LOCK);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|source| OpenError::io("open", &path, source))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::Locked { dir: dir.to_owned(), holder: holder(&mut file) });
            }
            Err(TryLockError::Error(source)) => return Err(OpenError::io("lock", &path, source)),
        }
        // The note helps people; the lock does not depend on it, so a full disk must not stop it.
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let _ = file.take(32).read_to_string(&mut text);
    match text.trim().parse::<u32>() {
        Ok(pid) => format!("process {pid}"),
        Err(_) => "process unknown".into(),
    }
}

/// Makes the data directory, for its owner alone.
pub(crate) fn make_dir(dir: &Path) -> Result<(), OpenError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|source| OpenError::io("create", dir, source))
}

/// True when there is such a file. That this user may not look is another answer than that there is none.
///
/// It must not be opened to find out: closing it would drop the locks that SQLite holds on it in this process.
pub(crate) fn is_there(path: &Path) -> Result<bool, OpenError> {
    path.try_exists().map_err(|source| {
        if source.kind() == std::io::ErrorKind::PermissionDenied {
            return OpenError::Denied { path: path.to_owned() };
        }
        OpenError::io("look for", path, source)
    })
}

/// Opens (and makes, if asked to) the database in a directory that is locked.
pub(crate) fn open(path: &Path, options: &Options) -> Result<Connection, OpenError> {
    if options.create {
        schema::create(path)?;
    } else if !is_there(path)? {
        return Err(OpenError::Missing { path: path.to_owned() });
    }
    let look = Connection::open(path).map_err(|error| OpenError::of(path, error))?;
    // SQLite opens for reading what it may not write, and would say so at the first beat. Before anything is read: that makes a
    // file beside it which this user could not write later, either.
    if look.is_readonly("main").map_err(|error| OpenError::of(path, error))? {
        return Err(OpenError::ReadOnly { path: path.to_owned() });
    }
    // Before the journal mode is changed, which would write to a file that may not be ours.
    if schema::recognise(&look, path)? == 0 && !options.create {
        return Err(OpenError::Empty { path: path.to_owned() });
    }
    drop(look);
    let mut db = writer(path, options).map_err(|error| OpenError::of(path, error))?;
    schema::migrate(&mut db, path)?;
    Ok(db)
}

/// Opens the writer's connection.
pub(crate) fn writer(path: &Path, options: &Options) -> rusqlite::Result<Connection> {
    let db = schema::open_writer(path, options.cache_kib)?;
    if let Some(pages) = options.pages_max {
        db.pragma_update(None, "max_page_count", i64::from(pages))?;
    }
    Ok(db)
}
