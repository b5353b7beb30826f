//! Server time: one clock that steps of the wall clock do not move.

use core::fmt;

use serde::{Deserialize, Serialize};

/// An instant of server time, in milliseconds since the Unix epoch.
///
/// On `hb-server` it is `CLOCK_BOOTTIME` anchored once to the wall clock; on AWS the platform's clock. It never goes back.
/// All arithmetic saturates: no value of any field of any message can make it wrap or panic.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(pub u64);

impl Time {
    /// The beginning: earlier than everything.
    pub const ZERO: Self = Self(0);
    /// Never.
    pub const MAX: Self = Self(u64::MAX);

    /// Later by `ms` milliseconds.
    #[must_use]
    pub const fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Earlier by `ms` milliseconds.
    #[must_use]
    pub const fn minus(self, ms: u64) -> Self {
        Self(self.0.saturating_sub(ms))
    }

    /// Milliseconds since `earlier`; 0 when that is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// Seconds as milliseconds, saturating.
#[must_use]
pub const fn seconds(s: u64) -> u64 {
    s.saturating_mul(1000)
}
