//! Server time on Lambda: the platform's clock, which the platform keeps right.

use core::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use hb_api::app::{Clock, Entropy};
use hb_core::time::Time;

/// The wall clock, held so that it never goes back within a process.
#[derive(Debug, Default)]
pub struct WallClock {
    latest: AtomicU64,
}

impl Clock for WallClock {
    fn now(&self) -> Time {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let wall = u64::try_from(wall).unwrap_or(u64::MAX);
        Time(self.latest.fetch_max(wall, Ordering::Relaxed).max(wall))
    }
}

/// The operating system's generator.
#[derive(Debug, Clone, Copy)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        getrandom::fill(buffer)
            .expect("the kernel that runs functions has getrandom, and it does not fail once seeded");
    }
}
