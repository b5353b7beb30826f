//! The one writer: a thread that takes pieces of work from a bounded queue and commits them in groups.
//!
//! While one group is being synced to the disk the next one gathers, so that a busy server pays for one sync per hundreds of
//! beats and an idle one answers at once. No answer leaves before the commit. After an I/O error nobody knows what is on the
//! disk: a sync is never tried again (the kernel may have dropped what it could not write); the connection is given up, and
//! work is refused until a new one could be opened.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hb_store::StoreError;
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::failure::{Failure, Outcome};

/// Most pieces of work that one commit takes.
pub(crate) const GROUP_MAX: usize = 1000;

/// How often a failure that lasts is said again.
const SAID_AGAIN: Duration = Duration::from_hours(1);

/// Opens the writer's connection; called again after an I/O error.
pub(crate) type Opener = Box<dyn Fn() -> Outcome<Connection> + Send>;

/// A piece of work that waits for the commit of its group.
trait Job: Send {
    /// Does the work. False: it failed, and what it wrote has to be undone.
    fn run(&mut self, db: &Connection) -> Ran;
    /// True when it writes more than once, and half of it would be wrong.
    fn has_parts(&self) -> bool;
    /// Tells the caller: what came out if the group was committed, else why it was not.
    fn answer(self: Box<Self>, committed: Result<(), &str>);
}

/// How a piece of work went.
enum Ran {
    Well,
    /// It alone failed.
    Badly,
    /// The database failed.
    Gravely {
        reason: String,
        io: bool,
    },
}

struct Task<T, F> {
    work: F,
    has_parts: bool,
    result: Option<Result<T, StoreError>>,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

impl<T: Send, F: FnMut(&Connection) -> Outcome<T> + Send> Job for Task<T, F> {
    fn run(&mut self, db: &Connection) -> Ran {
        match (self.work)(db) {
            Ok(value) => {
                self.result = Some(Ok(value));
                Ran::Well
            }
            Err(failure) => {
                let (grave, io) = (failure.is_grave(), failure.is_io());
                let error = StoreError::from(failure);
                let reason = error.to_string();
                self.result = Some(Err(error));
                if grave { Ran::Gravely { reason, io } } else { Ran::Badly }
            }
        }
    }

    fn has_parts(&self) -> bool {
        self.has_parts
    }

    fn answer(self: Box<Self>, committed: Result<(), &str>) {
        let result = match committed {
            Ok(()) => self.result.unwrap_or_else(|| Err(StoreError::Unavailable("the work was not done".into()))),
            Err(reason) => Err(StoreError::Unavailable(reason.to_owned())),
        };
        // A caller that went away does not need to know.
        let _ = self.answer.send(result);
    }
}

/// The queue to the writer's thread.
#[derive(Debug)]
pub(crate) struct Writer {
    queue: Option<SyncSender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
    failed: Arc<AtomicBool>,
}

impl Writer {
    /// Starts the thread on an open connection.
    pub(crate) fn start(db: Connection, opener: Opener, queue: usize) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(queue);
        let failed = Arc::new(AtomicBool::new(false));
        let mut desk = Desk { db: Some(db), opener, failed: Arc::clone(&failed), trouble: Trouble::default() };
        let thread = std::thread::Builder::new().name("hb-writer".into()).spawn(move || desk.serve(&receiver))?;
        Ok(Self { queue: Some(sender), thread: Some(thread), failed })
    }

    /// True after an I/O error, until the database could be opened anew.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// One statement that writes all or nothing by itself.
    pub(crate) async fn once<T: Send + 'static>(
        &self,
        work: impl FnMut(&Connection) -> Outcome<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.send(work, false)?.await.map_err(|_| gone())?
    }

    /// Several statements that belong together.
    pub(crate) async fn whole<T: Send + 'static>(
        &self,
        work: impl FnMut(&Connection) -> Outcome<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.send(work, true)?.await.map_err(|_| gone())?
    }

    /// Puts work into the queue, and does not wait for it.
    pub(crate) fn send<T: Send + 'static>(
        &self,
        work: impl FnMut(&Connection) -> Outcome<T> + Send + 'static,
        has_parts: bool,
    ) -> Result<oneshot::Receiver<Result<T, StoreError>>, StoreError> {
        let (answer, receiver) = oneshot::channel();
        let task = Task { work, has_parts, result: None, answer };
        match self.queue.as_ref().ok_or_else(gone)?.try_send(Box::new(task)) {
            Ok(()) => Ok(receiver),
            Err(TrySendError::Full(_)) => Err(StoreError::Overloaded),
            Err(TrySendError::Disconnected(_)) => Err(gone()),
        }
    }
}

fn gone() -> StoreError {
    StoreError::Unavailable("the database's writer has ended".into())
}

/// Finishes what is queued, then ends the thread.
impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the writer's thread has.
struct Desk {
    db: Option<Connection>,
    opener: Opener,
    failed: Arc<AtomicBool>,
    trouble: Trouble,
}

/// A failure that lasts is said once, then once an hour, and its end.
#[derive(Debug, Default)]
struct Trouble {
    said_at: Option<Instant>,
}

impl Trouble {
    fn failed(&mut self, reason: &str) {
        if self.said_at.is_none_or(|at| at.elapsed() >= SAID_AGAIN) {
            tracing::error!(
                "the database could not be written: {reason}; beats are turned away until it can be (free some space, or \
                 check the disk that the data directory is on)"
            );
            self.said_at = Some(Instant::now());
        }
    }

    fn over(&mut self) {
        if self.said_at.take().is_some() {
            tracing::info!("the database can be written again");
        }
    }
}

impl Desk {
    fn serve(&mut self, queue: &Receiver<Box<dyn Job>>) {
        while let Ok(first) = queue.recv() {
            let mut group = Vec::with_capacity(GROUP_MAX.min(64));
            let committed = match self.connection() {
                Ok(()) => self.commit(first, queue, &mut group),
                Err(reason) => {
                    group.push(first);
                    Err(reason)
                }
            };
            for job in group {
                job.answer(committed.as_ref().copied().map_err(String::as_str));
            }
        }
    }

    /// Makes sure that there is a connection, after an I/O error a new one.
    fn connection(&mut self) -> Result<(), String> {
        if self.db.is_none() {
            let db = (self.opener)().map_err(|failure| format!("the database cannot be opened again: {failure}"))?;
            tracing::info!("the database could be opened again");
            self.db = Some(db);
            self.failed.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Runs one group, and commits it.
    fn commit(
        &mut self,
        first: Box<dyn Job>,
        queue: &Receiver<Box<dyn Job>>,
        group: &mut Vec<Box<dyn Job>>,
    ) -> Result<(), String> {
        let Some(db) = &self.db else { return Err("the database is closed".into()) };
        let result = run_group(db, first, queue, group);
        let Err((reason, io)) = result else {
            self.trouble.over();
            return Ok(());
        };
        self.trouble.failed(&reason);
        let clean = db.is_autocommit() || db.execute_batch("ROLLBACK").is_ok();
        if io || !clean {
            self.failed.store(true, Ordering::Relaxed);
            self.db = None;
        }
        Err(reason)
    }
}

/// Why a group could not be committed, and whether that was an I/O error.
type Failed = (String, bool);

fn run_group(
    db: &Connection,
    first: Box<dyn Job>,
    queue: &Receiver<Box<dyn Job>>,
    group: &mut Vec<Box<dyn Job>>,
) -> Result<(), Failed> {
    let begun = execute(db, "BEGIN IMMEDIATE");
    group.push(first);
    begun?;
    let mut next = 0;
    while let Some(job) = group.get_mut(next) {
        run(db, job.as_mut())?;
        next += 1;
        if next < GROUP_MAX
            && let Ok(job) = queue.try_recv()
        {
            group.push(job);
        }
    }
    execute(db, "COMMIT")
}

fn run(db: &Connection, job: &mut dyn Job) -> Result<(), Failed> {
    if job.has_parts() {
        execute(db, "SAVEPOINT job")?;
    }
    match job.run(db) {
        Ran::Gravely { reason, io } => return Err((reason, io)),
        Ran::Badly if job.has_parts() => execute(db, "ROLLBACK TO job")?,
        Ran::Badly | Ran::Well => {}
    }
    if job.has_parts() {
        execute(db, "RELEASE job")?;
    }
    Ok(())
}

fn execute(db: &Connection, sql: &str) -> Result<(), Failed> {
    let done = db.prepare_cached(sql).and_then(|mut statement| statement.execute([]));
    done.map(|_| ()).map_err(|error| {
        let failure = Failure::from(error);
        let io = failure.is_io();
        (StoreError::from(failure).to_string(), io)
    })
}
