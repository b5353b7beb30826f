//! Readers beside the writer: a few threads, each with a connection that cannot write.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use hb_store::StoreError;
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::failure::Outcome;

type Job = Box<dyn FnOnce(&Connection) + Send>;

/// The queue to the readers' threads.
#[derive(Debug)]
pub(crate) struct Readers {
    queue: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    /// Starts a thread on each connection.
    pub(crate) fn start(connections: Vec<Connection>, queue: usize) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel::<Job>(queue);
        let receiver = Arc::new(Mutex::new(receiver));
        let mut threads = Vec::new();
        for db in connections {
            let receiver = Arc::clone(&receiver);
            threads.push(std::thread::Builder::new().name("hb-reader".into()).spawn(move || serve(&db, &receiver))?);
        }
        Ok(Self { queue: Some(sender), threads })
    }

    /// Reads.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Outcome<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let gone = || StoreError::Unavailable("the database's readers have ended".into());
        let (answer, receiver) = oneshot::channel();
        let job: Job = Box::new(move |db| {
            // A caller that went away does not need to know.
            let _ = answer.send(work(db).map_err(StoreError::from));
        });
        match self.queue.as_ref().ok_or_else(gone)?.try_send(job) {
            Ok(()) => receiver.await.map_err(|_| gone())?,
            Err(TrySendError::Full(_)) => Err(StoreError::Overloaded),
            Err(TrySendError::Disconnected(_)) => Err(gone()),
        }
    }
}

fn serve(db: &Connection, queue: &Mutex<Receiver<Job>>) {
    loop {
        // The lock is held while waiting for work, not while doing it.
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        job(db);
    }
}

/// Finishes what is queued, then ends the threads.
impl Drop for Readers {
    fn drop(&mut self) {
        drop(self.queue.take());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
