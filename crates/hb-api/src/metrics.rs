//! Counters, for `/metrics`. Plain atomics: the hot path must not pay for being counted.

use core::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows, or that is set.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Sets it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Its value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything that is counted.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Beats stored on the fast path.
    pub beats_fast: Counter,
    /// Beats stored with a transition.
    pub beats_slow: Counter,
    /// Beats answered 409.
    pub beats_stale: Counter,
    /// Beats answered 400, 401, 410 or 413.
    pub beats_refused: Counter,
    /// Beats answered 429.
    pub beats_limited: Counter,
    /// Beats answered 503.
    pub beats_shed: Counter,
    /// Sweeps.
    pub sweeps: Counter,
    /// Decisions of sweeps.
    pub decisions: Counter,
    /// Decisions that somebody else was faster with.
    pub conflicts: Counter,
    /// Server time, in milliseconds, when the last sweep ended.
    pub swept_at_ms: Counter,
    /// Messages that arrived.
    pub delivered: Counter,
    /// Attempts that failed.
    pub delivery_failures: Counter,
}
