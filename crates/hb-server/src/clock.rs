//! The server's clock: `CLOCK_BOOTTIME`, anchored once to the wall clock.
//!
//! Deadlines, nonces and tokens are judged by this clock alone. A step of the wall clock (an administrator, NTP, a leap
//! second) does not move it; a suspended machine's sleep counts; a restart of the program in the same boot goes on with the
//! same offset. Only a new boot asks the wall clock again, and never goes back behind what was stored before.

use core::fmt;
use std::path::Path;

use hb_api::app::Clock;
use hb_core::observer::{Anchor, Observation};
use hb_core::time::{Time, seconds};
use hb_wire::id::BootId;
use rustix::time::{ClockId, clock_gettime};

/// Server time that is this far from the wall clock is worth a warning.
pub const DRIFT_WARN_MS: u64 = seconds(60);
/// A wall clock that is behind what was stored cannot be believed: server time then begins this much after it, so that every
/// nonce and token of before has expired.
pub const BEHIND_JUMP_MS: u64 = seconds(3600);

/// Where the kernel tells which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What the operating system's clocks say at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readings {
    /// This boot.
    pub boot: BootId,
    /// Milliseconds since boot, suspended time included.
    pub boottime_ms: u64,
    /// The wall clock, in milliseconds since 1970.
    pub wall_ms: u64,
}

impl Readings {
    /// Reads them. Where there is no boot id (a container without `/proc`), `fallback` stands for it: an id that no other
    /// boot has, so that the anchor is made anew.
    #[must_use]
    pub fn take(fallback: BootId) -> Self {
        let boot = std::fs::read_to_string(Path::new(BOOT_ID)).ok().and_then(|text| text.trim().parse().ok());
        Self { boot: boot.unwrap_or(fallback), boottime_ms: boottime_ms(), wall_ms: wall_ms() }
    }
}

/// How the anchor was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The first start: from the wall clock.
    First,
    /// The same boot as before: the same offset.
    SameBoot,
    /// Another boot: from the wall clock.
    NewBoot,
    /// Another boot, and the wall clock is behind what was stored, by this many milliseconds.
    WallBehind(u64),
}

/// The anchor of the server's clock, from what was stored and what the clocks say.
#[must_use]
pub fn anchor(readings: &Readings, stored: Option<&Observation>) -> (Anchor, Found) {
    let at = |now_ms: u64| Anchor { boot: readings.boot, offset_ms: now_ms.saturating_sub(readings.boottime_ms) };
    let Some(stored) = stored else { return (at(readings.wall_ms), Found::First) };
    if let Some(anchor) = stored.anchor.filter(|anchor| anchor.boot == readings.boot) {
        let now = Time(readings.boottime_ms).plus(anchor.offset_ms);
        // In a time namespace of its own the same boot can have another CLOCK_BOOTTIME: then the anchor means nothing.
        if now >= stored.observed_until {
            return (anchor, Found::SameBoot);
        }
    }
    let behind_ms = stored.observed_until.since(Time(readings.wall_ms));
    if behind_ms == 0 {
        let now = readings.wall_ms.max(stored.observed_until.plus(1).0);
        return (at(now), Found::NewBoot);
    }
    (at(stored.observed_until.plus(BEHIND_JUMP_MS).0), Found::WallBehind(behind_ms))
}

/// The clock of a running server.
#[derive(Clone, Copy)]
pub struct ServerClock {
    offset_ms: u64,
}

impl ServerClock {
    /// A clock with this anchor, in the boot that the anchor was made in.
    #[must_use]
    pub fn new(anchor: Anchor) -> Self {
        Self { offset_ms: anchor.offset_ms }
    }

    /// How far the wall clock is from server time, in milliseconds: positive when the wall clock is ahead.
    #[must_use]
    pub fn drift_ms(&self) -> i64 {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        signed(wall_ms()).saturating_sub(signed(self.now().0))
    }
}

impl Clock for ServerClock {
    fn now(&self) -> Time {
        Time(boottime_ms()).plus(self.offset_ms)
    }
}

impl fmt::Debug for ServerClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerClock({:?})", self.now())
    }
}

fn boottime_ms() -> u64 {
    milliseconds(ClockId::Boottime)
}

fn wall_ms() -> u64 {
    milliseconds(ClockId::Realtime)
}

fn milliseconds(clock: ClockId) -> u64 {
    let read = clock_gettime(clock);
    // Before 1970 is 1970: nothing that is decided depends on how long before.
    let s = u64::try_from(read.tv_sec).unwrap_or(0);
    seconds(s).saturating_add(u64::try_from(read.tv_nsec).unwrap_or(0) / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = seconds(3600);

    fn boot(n: u8) -> BootId {
        BootId::mint(u64::from(n), [n; 10])
    }

    fn readings(n: u8, boottime_ms: u64, wall_ms: u64) -> Readings {
        Readings { boot: boot(n), boottime_ms, wall_ms }
    }

    fn stored(until: u64, anchor: Option<(u8, u64)>) -> Observation {
        let anchor = anchor.map(|(n, offset_ms)| Anchor { boot: boot(n), offset_ms });
        Observation { anchor, ..Observation::begin(Time(until)) }
    }

    fn now(readings: &Readings, stored: Option<&Observation>) -> (u64, Found) {
        let (anchor, found) = anchor(readings, stored);
        assert_eq!(anchor.boot, readings.boot);
        (readings.boottime_ms + anchor.offset_ms, found)
    }

    #[test]
    fn the_first_start_takes_the_wall_clock() {
        assert_eq!(now(&readings(1, 5_000, 100 * HOUR), None), (100 * HOUR, Found::First));
    }

    #[test]
    fn in_the_same_boot_a_step_of_the_wall_clock_moves_nothing() {
        let stored = stored(100 * HOUR, Some((1, 99 * HOUR)));
        for wall in [0, 50 * HOUR, 102 * HOUR, 9_000 * HOUR] {
            assert_eq!(now(&readings(1, 2 * HOUR, wall), Some(&stored)), (101 * HOUR, Found::SameBoot), "{wall}");
        }
    }

    #[test]
    fn a_new_boot_takes_the_wall_clock_when_it_is_not_behind() {
        let stored = stored(100 * HOUR, Some((1, 99 * HOUR)));
        assert_eq!(now(&readings(2, 10, 101 * HOUR), Some(&stored)), (101 * HOUR, Found::NewBoot));
        assert_eq!(now(&readings(2, 10, 100 * HOUR), Some(&stored)), (100 * HOUR + 1, Found::NewBoot));
    }

    #[test]
    fn a_wall_clock_behind_the_stored_time_is_passed_by_an_hour() {
        let stored = stored(100 * HOUR, Some((1, 99 * HOUR)));
        let behind = now(&readings(2, 10, 40 * HOUR), Some(&stored));
        assert_eq!(behind, (101 * HOUR, Found::WallBehind(60 * HOUR)));
    }

    #[test]
    fn the_same_boot_with_another_boottime_is_taken_for_a_new_one() {
        let stored = stored(100 * HOUR, Some((1, 99 * HOUR)));
        assert_eq!(now(&readings(1, 10, 103 * HOUR), Some(&stored)), (103 * HOUR, Found::NewBoot));
    }

    #[test]
    fn the_clock_runs_and_never_goes_back() {
        let clock = ServerClock::new(Anchor { boot: boot(1), offset_ms: 7 });
        let mut last = clock.now();
        assert!(last > Time(7));
        for _ in 0..10_000 {
            let next = clock.now();
            assert!(next >= last);
            last = next;
        }
    }
}
