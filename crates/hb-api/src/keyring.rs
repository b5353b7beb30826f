//! Keys of hosts, parsed once: saves the read and a seventh of the verification of every beat.
//!
//! A cache of the store, never the truth: whoever writes a host holds [`Keyring::forgetting`] meanwhile, and the conditional
//! write of the beat decides in the end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use hb_core::time::Time;
use hb_store::Signer;
use hb_wire::id::HostId;
use hb_wire::key::Verifier;

/// Most hosts that are remembered: about 25 MB. Beyond that the ring starts anew; a read then costs what it costs.
pub const HOSTS_MAX: usize = 200_000;

/// What the hot path knows of a host.
#[derive(Debug)]
pub struct Known {
    /// Its key.
    pub verifier: Verifier,
    /// The key that takes over at its first beat: while there is one, the state machine decides about each beat.
    pub next: Option<Verifier>,
    /// Milliseconds between beats, for the answer.
    pub interval_ms: u64,
    /// When it was read.
    pub read_at: Time,
    /// False for what may have been a moment old when it was read ([`hb_store::Store::signer`]).
    pub is_certain: bool,
    bucket: Arc<Bucket>,
}

/// A token bucket per host, filled over the interval. Only accepted beats drain it.
#[derive(Debug)]
pub struct Bucket(Mutex<Level>);

#[derive(Debug)]
struct Level {
    permille: u64,
    at: Time,
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub fn full(burst: u32, now: Time) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Level { permille: u64::from(burst) * 1000, at: now })))
    }

    fn level(&self) -> MutexGuard<'_, Level> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// A host as it was read for certain.
    #[must_use]
    pub fn new(
        verifier: Verifier,
        next: Option<Verifier>,
        interval_ms: u64,
        bucket: Arc<Bucket>,
        read_at: Time,
    ) -> Self {
        Self { verifier, next, interval_ms, read_at, is_certain: true, bucket }
    }

    /// What it was made from.
    #[must_use]
    pub fn signer(&self) -> Signer {
        let next_key = self.next.as_ref().map(Verifier::public);
        Signer { key: self.verifier.public(), next_key, interval_ms: self.interval_ms }
    }

    /// Milliseconds until the next beat is welcome; 0: it is now. `burst` beats per interval are.
    #[must_use]
    pub fn wait_ms(&self, burst: u32, now: Time) -> u64 {
        let level = self.refill(burst, now);
        if level >= 1000 {
            0
        } else {
            (1000 - level).saturating_mul(self.interval_ms) / (u64::from(burst.max(1)) * 1000) + 1
        }
    }

    /// A beat was accepted.
    pub fn drain(&self) {
        let mut level = self.bucket.level();
        level.permille = level.permille.saturating_sub(1000);
    }

    fn refill(&self, burst: u32, now: Time) -> u64 {
        let mut level = self.bucket.level();
        let full = u64::from(burst) * 1000;
        let gained = now.since(level.at).saturating_mul(full) / self.interval_ms.max(1);
        level.permille = level.permille.saturating_add(gained).min(full);
        level.at = level.at.max(now);
        level.permille
    }
}

/// The keyring.
#[derive(Debug, Default)]
pub struct Keyring {
    ring: RwLock<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    hosts: HashMap<HostId, Arc<Known>>,
    /// Of hosts that were forgotten: whoever has himself forgotten gets no more beats by it.
    buckets: HashMap<HostId, Arc<Bucket>>,
    /// Raised whenever a host is forgotten: what was read from the store before that may be out of date.
    age: u64,
}

/// Forgets a host when it is dropped: after a write, whatever came of it. A write whose answer was lost may have been done.
#[derive(Debug)]
#[must_use = "it forgets as soon as it is dropped"]
pub struct Forgetting<'a> {
    keyring: &'a Keyring,
    id: HostId,
}

impl Drop for Forgetting<'_> {
    fn drop(&mut self) {
        self.keyring.forget(self.id);
    }
}

impl Keyring {
    /// What is known of a host.
    #[must_use]
    pub fn get(&self, id: HostId) -> Option<Arc<Known>> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).hosts.get(&id).map(Arc::clone)
    }

    /// To be noted before a host is read from the store, for [`Keyring::put`].
    #[must_use]
    pub fn age(&self) -> u64 {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).age
    }

    /// Remembers a host that was read at that age, unless some host was forgotten since: it may have been this one.
    pub fn put(&self, id: HostId, known: Arc<Known>, age: u64) {
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        if ring.age != age {
            return;
        }
        if ring.hosts.len() >= HOSTS_MAX {
            ring.hosts.clear();
        }
        ring.buckets.remove(&id);
        ring.hosts.insert(id, known);
    }

    /// The bucket that a host has already, whether it is known or was forgotten.
    #[must_use]
    pub fn bucket(&self, id: HostId) -> Option<Arc<Bucket>> {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        ring.hosts.get(&id).map(|known| &known.bucket).or_else(|| ring.buckets.get(&id)).map(Arc::clone)
    }

    /// Forgets a host: it was changed, retired, or has a new key.
    pub fn forget(&self, id: HostId) {
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        ring.age = ring.age.wrapping_add(1);
        if ring.buckets.len() >= HOSTS_MAX {
            ring.buckets.clear();
        }
        if let Some(known) = ring.hosts.remove(&id) {
            ring.buckets.insert(id, Arc::clone(&known.bucket));
        }
    }

    /// Forgets a host at the end of the scope in which it is written.
    pub fn forgetting(&self, id: HostId) -> Forgetting<'_> {
        Forgetting { keyring: self, id }
    }
}

#[cfg(test)]
mod tests {
    use hb_wire::key::HostKey;

    use super::*;

    fn known(interval_ms: u64) -> Arc<Known> {
        let verifier = HostKey::from_seed([7; 32]).public().verifying().unwrap();
        Arc::new(Known::new(verifier, None, interval_ms, Bucket::full(6, Time(0)), Time(0)))
    }

    #[test]
    fn what_was_read_before_a_change_is_not_remembered_after_it() {
        let (ring, id) = (Keyring::default(), HostId::mint(1, [0; 10]));
        let age = ring.age();
        drop(ring.forgetting(id));
        ring.put(id, known(60_000), age);
        assert!(ring.get(id).is_none());
        ring.put(id, known(15_000), ring.age());
        assert_eq!(ring.get(id).map(|known| known.interval_ms), Some(15_000));
        drop(ring.forgetting(id));
        assert!(ring.get(id).is_none());
    }
}
