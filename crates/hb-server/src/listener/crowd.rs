//! Everybody who is connected: how many may be, and how long each may take for what it is doing.
//!
//! A connection is *half-open* until its first request is answered. Half-open ones have a limit of their own, and when
//! there is no room the oldest of them goes first, if it has had its chance: whoever opens thousands of connections to say
//! nothing crowds out himself and not the hosts. There is no limit by address: a site behind one NAT is one address.
//!
//! Patience is kept as one deadline per connection and enforced twice a second by one task: a timer of its own per request
//! would cost more than the request.

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use core::time::Duration;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// A TLS handshake may take this long.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// From its first byte (for the first request: from the start) to its last, a request's head may take this long.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// From the end of its head to its answer, a request may take this long; testing a channel takes up to 45 s.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(90);
/// A connection may be idle for this long: two intervals of the usual 60 s, and time for a retry.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(150);
/// A half-open connection younger than this is never turned out for a newcomer: after a cut, a whole fleet comes back at
/// once, and turning out those who are halfway through would help nobody.
pub const HALF_OPEN_AGE_MIN: Duration = Duration::from_secs(1);
/// How often deadlines are looked at.
const REAP_EVERY: Duration = Duration::from_millis(500);

/// How many may be connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Altogether.
    pub connections_max: usize,
    /// Of them, those whose first request is not answered.
    pub half_open_max: usize,
}

/// Up to this many may be half-open whatever the share: as many hosts may sit behind one NAT.
const HALF_OPEN_FLOOR: usize = 10_000;

impl Limits {
    /// So many altogether; a quarter of them half-open, and 10,000 if there are as many.
    #[must_use]
    pub fn new(connections_max: usize) -> Self {
        Self { connections_max, half_open_max: (connections_max / 4).max(HALF_OPEN_FLOOR).min(connections_max) }
    }

    /// With so many connections the rest is short: each answer ends its connection.
    fn is_crowded(&self, connections: usize) -> bool {
        connections > self.connections_max / 4 * 3
    }
}

/// What a connection is doing.
mod phase {
    /// A head is awaited, and its time runs.
    pub(super) const HEAD: u8 = 0;
    /// A request is being answered.
    pub(super) const BUSY: u8 = 1;
    /// Nothing.
    pub(super) const IDLE: u8 = 2;
}

#[derive(Debug)]
pub(super) struct Crowd {
    limits: Limits,
    started: Instant,
    members: Mutex<Members>,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Members {
    next_id: u64,
    all: HashMap<u64, Member>,
    /// By id, and so by age: when each was accepted, in milliseconds.
    half_open: BTreeMap<u64, u64>,
}

#[derive(Debug)]
struct Member {
    deadline_ms: Arc<AtomicU64>,
    task: AbortHandle,
}

impl Crowd {
    pub(super) fn new(limits: Limits) -> Self {
        let members = Mutex::new(Members::default());
        Self { limits, started: Instant::now(), members, emptied: Notify::new() }
    }

    /// Lets a connection in and starts what `attend` makes of it; gives it back when there is no room.
    pub(super) fn admit<F>(
        self: &Arc<Self>,
        stream: TcpStream,
        attend: impl FnOnce(TcpStream, Arc<Place>) -> F,
    ) -> Result<(), TcpStream>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let now = self.now_ms();
        // Held while the task is started: one that ends at once must find itself in the list.
        let mut members = self.members();
        if !members.makes_room(&self.limits, now) {
            return Err(stream);
        }
        let id = members.next_id;
        members.next_id += 1;
        let deadline_ms = Arc::new(AtomicU64::new(now.saturating_add(milliseconds(HEAD_TIMEOUT))));
        let place = Arc::new(Place {
            id,
            crowd: Arc::clone(self),
            deadline_ms: Arc::clone(&deadline_ms),
            phase: AtomicU8::new(phase::HEAD),
            is_open: AtomicBool::new(false),
        });
        let task = tokio::spawn(attend(stream, place)).abort_handle();
        members.all.insert(id, Member { deadline_ms, task });
        members.half_open.insert(id, now);
        Ok(())
    }

    /// How many are connected.
    pub(super) fn len(&self) -> usize {
        self.members().all.len()
    }

    /// Waits until nobody is connected.
    pub(super) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.len() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Ends every connection.
    pub(super) fn clear(&self) {
        for member in self.members().all.values() {
            member.task.abort();
        }
    }

    /// Ends whoever is over his time, for ever.
    pub(super) async fn reap(self: Arc<Self>) {
        let mut every = tokio::time::interval(REAP_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            let now = self.now_ms();
            for member in self.members().all.values() {
                if member.deadline_ms.load(Ordering::Relaxed) <= now {
                    member.task.abort();
                }
            }
        }
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        milliseconds(self.started.elapsed())
    }
}

impl Members {
    /// True when one more may come in, perhaps because the oldest half-open one was turned out.
    fn makes_room(&mut self, limits: &Limits, now_ms: u64) -> bool {
        if self.all.len() < limits.connections_max && self.half_open.len() < limits.half_open_max {
            return true;
        }
        let age_min = milliseconds(HALF_OPEN_AGE_MIN);
        let Some((id, _)) = self.half_open.first_key_value().filter(|(_, at)| now_ms.saturating_sub(**at) >= age_min)
        else {
            return false;
        };
        let id = *id;
        self.half_open.remove(&id);
        if let Some(member) = self.all.remove(&id) {
            member.task.abort();
        }
        true
    }
}

/// One connection's place in the crowd. Leaves it when dropped.
#[derive(Debug)]
pub(super) struct Place {
    id: u64,
    crowd: Arc<Crowd>,
    deadline_ms: Arc<AtomicU64>,
    phase: AtomicU8,
    /// The first request was answered.
    is_open: AtomicBool,
}

impl Place {
    pub(super) fn shakes_hands(&self) {
        self.enter(phase::HEAD, HANDSHAKE_TIMEOUT);
    }

    pub(super) fn waits_for_head(&self) {
        self.enter(phase::HEAD, HEAD_TIMEOUT);
    }

    /// Bytes came in: after a rest they begin a head.
    pub(super) fn has_read(&self) {
        if self.phase.load(Ordering::Relaxed) == phase::IDLE {
            self.enter(phase::HEAD, HEAD_TIMEOUT);
        }
    }

    pub(super) fn is_busy(&self) {
        self.enter(phase::BUSY, REQUEST_TIMEOUT);
    }

    /// The request is answered. True when the connection should end with it, for want of room: only a newcomer is asked to,
    /// so that those who stay are those who were there first.
    pub(super) fn rests(&self) -> bool {
        self.enter(phase::IDLE, IDLE_TIMEOUT);
        if self.is_open.swap(true, Ordering::Relaxed) {
            return false;
        }
        let mut members = self.crowd.members();
        members.half_open.remove(&self.id);
        self.crowd.limits.is_crowded(members.all.len())
    }

    fn enter(&self, phase: u8, patience: Duration) {
        self.phase.store(phase, Ordering::Relaxed);
        self.deadline_ms.store(self.crowd.now_ms().saturating_add(milliseconds(patience)), Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut members = self.crowd.members();
        members.half_open.remove(&self.id);
        members.all.remove(&self.id);
        if members.all.is_empty() {
            self.crowd.emptied.notify_waiters();
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_open_ones_are_a_quarter_but_never_less_than_a_large_site() {
        let half_open = |all| Limits::new(all).half_open_max;
        assert_eq!((half_open(100_000), half_open(20_000), half_open(50)), (25_000, 10_000, 50));
        assert!(Limits::new(100).is_crowded(76) && !Limits::new(100).is_crowded(75));
    }
}
