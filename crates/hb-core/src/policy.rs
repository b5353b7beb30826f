//! The numbers that decisions depend on, each with its reason.

use crate::time::seconds;

/// Bounds and defaults of the state machine. Durations in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Longest hold-off after a gap: agents retry at most every 30 s, so three rounds of them must have had their chance.
    pub hold_max_ms: u64,
    /// A gap shorter than this needs no hold-off: no agent's retry falls silent that long.
    pub hold_gap_min_ms: u64,
    /// How many whole hold-offs of observed time may be added to one silence: a crash loop must not mute for ever.
    pub holds_max: u64,
    /// Longest time that a goodbye may announce.
    pub goodbye_max_ms: u64,
    /// How long an ephemeral host may be down before it retires itself.
    pub ephemeral_down_ms: u64,
    /// Fewest hosts that make a mass silence.
    pub mass_min: u64,
    /// Smallest share, in percent, of the expected hosts of a group that makes a mass silence.
    pub mass_percent: u64,
    /// Recoveries of a mass silence are told when all are back, or this long after the first.
    pub digest_after_ms: u64,
    /// Raised by each restore of a backup, so that ids of events are never used again.
    pub epoch: u32,
}

impl Policy {
    /// What DESIGN's rules ask for.
    pub const STANDARD: Self = Self {
        hold_max_ms: seconds(90),
        hold_gap_min_ms: seconds(15),
        holds_max: 3,
        goodbye_max_ms: seconds(24 * 3600),
        ephemeral_down_ms: seconds(24 * 3600),
        mass_min: 3,
        mass_percent: 60,
        digest_after_ms: seconds(300),
        epoch: 0,
    };

    /// The hold-off of one host after a gap: 1.5 intervals, at most [`Policy::hold_max_ms`].
    #[must_use]
    pub fn hold_ms(&self, interval_ms: u64) -> u64 {
        interval_ms.saturating_add(interval_ms / 2).min(self.hold_max_ms)
    }
}

/// Shortest and longest interval and grace that a host may ask for, in seconds.
pub const INTERVAL_S: core::ops::RangeInclusive<u64> = 1..=31 * 86_400;
/// Shortest and longest grace, in seconds. A grace of 0 would turn every network hiccup into an alarm.
pub const GRACE_S: core::ops::RangeInclusive<u64> = 1..=31 * 86_400;
/// The interval of a host that asks for none, in seconds.
pub const INTERVAL_DEFAULT_S: u64 = 60;
