//! Keys of hosts, parsed once: saves the read and a seventh of the verification of every beat.
//!
//! A cache of the store, never the truth: whoever changes or retires a host calls [`Keyring::forget`], and the conditional
//! write of the beat decides in the end.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use hb_core::time::Time;
use hb_wire::id::HostId;
use hb_wire::key::Verifier;

/// Most hosts that are remembered: about 25 MB. Beyond that the ring starts anew; a read then costs what it costs.
pub const HOSTS_MAX: usize = 200_000;

/// What the hot path knows of a host.
#[derive(Debug)]
pub struct Known {
    /// Its key.
    pub verifier: Verifier,
    /// Seconds between beats, for the answer.
    pub interval_ms: u64,
    bucket: std::sync::Mutex<Bucket>,
}

/// A token bucket per host, filled over the interval. Only accepted beats drain it.
#[derive(Debug)]
struct Bucket {
    level_permille: u64,
    at: Time,
}

impl Known {
    /// A host with a full bucket of `burst` beats.
    #[must_use]
    pub fn new(verifier: Verifier, interval_ms: u64, burst: u32, now: Time) -> Self {
        let bucket = Bucket { level_permille: u64::from(burst) * 1000, at: now };
        Self { verifier, interval_ms, bucket: std::sync::Mutex::new(bucket) }
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
        let mut bucket = self.bucket.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        bucket.level_permille = bucket.level_permille.saturating_sub(1000);
    }

    fn refill(&self, burst: u32, now: Time) -> u64 {
        let mut bucket = self.bucket.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let full = u64::from(burst) * 1000;
        let gained = now.since(bucket.at).saturating_mul(full) / self.interval_ms.max(1);
        bucket.level_permille = bucket.level_permille.saturating_add(gained).min(full);
        bucket.at = bucket.at.max(now);
        bucket.level_permille
    }
}

/// The keyring.
#[derive(Debug, Default)]
pub struct Keyring {
    hosts: RwLock<HashMap<HostId, Arc<Known>>>,
}

impl Keyring {
    /// What is known of a host.
    #[must_use]
    pub fn get(&self, id: HostId) -> Option<Arc<Known>> {
        self.hosts.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(&id).map(Arc::clone)
    }

    /// Remembers a host.
    pub fn put(&self, id: HostId, known: Arc<Known>) {
        let mut hosts = self.hosts.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if hosts.len() >= HOSTS_MAX {
            hosts.clear();
        }
        hosts.insert(id, known);
    }

    /// Forgets a host: it was changed, retired, or has a new key.
    pub fn forget(&self, id: HostId) {
        self.hosts.write().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&id);
    }
}
