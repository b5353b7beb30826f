//! A single-threaded executor and a clock for it: futures run only when the world lets them, in a fixed order.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicU64, Ordering};
use core::task::{Context, Poll, Waker};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Wake;

/// Locks, whatever happened to whoever held the lock before.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;
type Ready = Arc<Mutex<VecDeque<usize>>>;

struct Bell {
    task: usize,
    ready: Ready,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        lock(&self.ready).push_back(self.task);
    }
}

/// The tasks of one life of a process. Dropping it is a `kill -9`.
#[derive(Default)]
pub struct Executor {
    tasks: Vec<Option<Task>>,
    bells: Vec<Waker>,
    free: Vec<usize>,
    ready: Ready,
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor").field("tasks", &(self.tasks.len() - self.free.len())).finish_non_exhaustive()
    }
}

impl Executor {
    /// Adds a task; it runs at the next [`Executor::run`].
    pub fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        let place = self.free.pop().unwrap_or_else(|| {
            let task = self.tasks.len();
            self.tasks.push(None);
            self.bells.push(Waker::from(Arc::new(Bell { task, ready: Arc::clone(&self.ready) })));
            task
        });
        self.tasks[place] = Some(Box::pin(task));
        lock(&self.ready).push_back(place);
    }

    /// Runs every task that can run, until none can.
    pub fn run(&mut self) {
        loop {
            let Some(place) = lock(&self.ready).pop_front() else { return };
            let Some(mut task) = self.tasks[place].take() else { continue };
            match task.as_mut().poll(&mut Context::from_waker(&self.bells[place])) {
                Poll::Ready(()) => self.free.push(place),
                Poll::Pending => self.tasks[place] = Some(task),
            }
        }
    }
}

/// Virtual time, in milliseconds since the world began.
#[derive(Debug, Clone, Default)]
pub struct Timeline(Arc<Hands>);

#[derive(Debug, Default)]
struct Hands {
    now: AtomicU64,
    asked: Mutex<Vec<(u64, Waker)>>,
}

impl Timeline {
    /// Now.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.0.now.load(Ordering::Relaxed)
    }

    /// Moves on.
    pub fn set(&self, now: u64) {
        self.0.now.store(now, Ordering::Relaxed);
    }

    /// Waits.
    #[must_use]
    pub fn sleep(&self, ms: u64) -> Sleep {
        Sleep { timeline: self.clone(), until: self.now().saturating_add(ms), waker: None }
    }

    /// Who wants to be woken when; each is told once.
    #[must_use]
    pub fn asked(&self) -> Vec<(u64, Waker)> {
        core::mem::take(&mut *lock(&self.0.asked))
    }
}

/// See [`Timeline::sleep`].
#[derive(Debug)]
pub struct Sleep {
    timeline: Timeline,
    until: u64,
    waker: Option<Waker>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.timeline.now() >= self.until {
            return Poll::Ready(());
        }
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            self.waker = Some(context.waker().clone());
            lock(&self.timeline.0.asked).push((self.until, context.waker().clone()));
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_run_in_the_order_of_their_timers() {
        let timeline = Timeline::default();
        let said = Arc::new(Mutex::new(Vec::new()));
        let mut executor = Executor::default();
        for (name, ms) in [("late", 20), ("early", 10), ("never", 1_000)] {
            let (timeline, said) = (timeline.clone(), Arc::clone(&said));
            executor.spawn(async move {
                timeline.sleep(ms).await;
                lock(&said).push(name);
            });
        }
        executor.run();
        let asked = timeline.asked();
        assert_eq!(asked.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [20, 10, 1_000]);
        for now in [10, 20] {
            timeline.set(now);
            asked.iter().filter(|(at, _)| *at == now).for_each(|(_, waker)| waker.wake_by_ref());
            executor.run();
        }
        assert_eq!(*lock(&said), ["early", "late"]);
    }
}
