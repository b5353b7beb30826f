//! When to beat, and where to: pure. No clock, no randomness, no I/O; the simulator drives this very code.
//!
//! ```text
//! loop { match cadence.next(now) {
//!     Wait { until_ms } => sleep until then,
//!     Send { .. }       => send it, then cadence.on_result(outcome, now, rand),
//! } }
//! ```
//!
//! Beats stand on a grid of [`PERIOD_PERCENT`] of the interval, so that one round trip and the jitter do not make a
//! healthy host late; where on the grid is decided by the host's id, so that a fleet never beats in step. A failure is
//! retried with full jitter (any time between now and a bound that doubles) that never exceeds half the interval. What
//! could not be sent is never queued: the next attempt sends the newest beat.

use hb_wire::id::HostId;

/// Beats are sent every this many hundredths of the interval.
pub const PERIOD_PERCENT: u64 = 95;
/// A beat is sent up to this many hundredths of the interval before or after its place on the grid.
pub const JITTER_PERCENT: u64 = 2;
/// Longest wait between two attempts while the server cannot be reached; half the interval if that is shorter.
pub const RETRY_MS_MAX: u64 = 30_000;
/// Longest wait between two attempts while the server refuses this host, or asks for patience.
pub const PATIENCE_MS_MAX: u64 = 300_000;
/// How often in a row a fresh nonce is tried at once; a server that gives stale ones for ever must not be hammered.
pub const STALE_MAX: u32 = 3;
/// Longest interval that is believed, in seconds.
pub const INTERVAL_S_MAX: u64 = 7 * 86_400;

const FIRST_BEAT_MS_MAX: u64 = 2_000;
const RETRY_MS_FIRST: u64 = 1_000;
const RETRY_MS_MIN: u64 = 100;
const TIMEOUT_MS_MIN: u64 = 500;
const TIMEOUT_MS_MAX: u64 = 10_000;
const PROBE_MS_FIRST: u64 = 60_000;
const PROBE_MS_MAX: u64 = 3_600_000;

/// What to do now. All times are milliseconds on one clock that never goes back (`CLOCK_BOOTTIME`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing, until then.
    Wait {
        /// When to ask again.
        until_ms: u64,
    },
    /// Send a beat.
    Send {
        /// To which of the endpoints, counted from 0.
        endpoint: usize,
        /// True for a new beat, false for another attempt at the last one.
        fresh: bool,
        /// How long the whole exchange may take.
        timeout_ms: u64,
    },
}

/// What came of a [`Action::Send`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The server stored the beat.
    Accepted {
        /// The interval that the server expects; none when its answer is not to be trusted that far.
        interval_s: Option<u64>,
        /// When the server would like the next one, in seconds.
        next_in_s: Option<u64>,
    },
    /// 409 with a fresh nonce.
    Stale,
    /// The server does not want this host: 401, 403, 404, 410, or quarantine.
    Refused,
    /// 429 or 503.
    Busy {
        /// `Retry-After`, in seconds.
        retry_after_s: Option<u64>,
    },
    /// Anything else: no answer, or not one of ours.
    Failed,
}

/// Tries the first endpoint again from time to time while another one is in use.
#[derive(Debug, Clone, Copy)]
struct Probe {
    at_ms: u64,
    wait_ms: u64,
}

/// The state machine. See the module's documentation.
#[derive(Debug, Clone)]
pub struct Cadence {
    interval_ms: u64,
    /// The grid's offset; modulo the period where it is used.
    phase: u64,
    endpoints: usize,
    /// The endpoint that worked last.
    current: usize,
    probe: Option<Probe>,
    probing: bool,
    /// When the next attempt is due.
    due_ms: u64,
    /// From when on an attempt is a new beat.
    fresh_ms: u64,
    failures: u32,
    refusals: u32,
    stales: u32,
}

impl Cadence {
    /// A cadence that starts now: the first beat follows within two seconds (or a tenth of the interval), by the
    /// host's id. `endpoints` is how many there are, at least one.
    pub fn new(host: HostId, interval_s: u64, endpoints: usize, now_ms: u64) -> Self {
        let hash = scramble(host);
        let every_ms = bounded(interval_s);
        let first = now_ms.saturating_add(hash.rotate_left(32) % (every_ms / 10).clamp(1, FIRST_BEAT_MS_MAX));
        Self {
            interval_ms: every_ms,
            phase: hash,
            endpoints: endpoints.max(1),
            current: 0,
            probe: None,
            probing: false,
            due_ms: first,
            fresh_ms: first,
            failures: 0,
            refusals: 0,
            stales: 0,
        }
    }

    /// What to do now. After [`Action::Send`], tell the result with [`Cadence::on_result`] before asking again.
    pub fn next(&mut self, now_ms: u64) -> Action {
        if now_ms < self.due_ms {
            return Action::Wait { until_ms: self.due_ms };
        }
        let fresh = now_ms >= self.fresh_ms;
        if fresh {
            self.fresh_ms = self.grid_after(now_ms.saturating_add(self.clearance_ms()));
            let probe_is_due = self.probe.is_some_and(|probe| now_ms >= probe.at_ms);
            self.probing = probe_is_due && self.failures == 0 && self.refusals == 0;
        }
        let endpoint = if self.probing { 0 } else { self.current };
        Action::Send { endpoint, fresh, timeout_ms: self.timeout_ms() }
    }

    /// Takes the result of the last send and plans the next one; `rand` is 64 random bits.
    pub fn on_result(&mut self, outcome: Outcome, now_ms: u64, rand: u64) {
        match outcome {
            Outcome::Accepted { interval_s, next_in_s } => self.accepted(interval_s, next_in_s, now_ms, rand),
            Outcome::Stale if self.stales < STALE_MAX => {
                self.stales += 1;
                self.due_ms = now_ms;
            }
            Outcome::Stale | Outcome::Failed => self.failed(0, now_ms, rand),
            Outcome::Busy { retry_after_s } => {
                let patience = retry_after_s.unwrap_or(0).saturating_mul(1000).min(PATIENCE_MS_MAX);
                self.failed(patience, now_ms, rand);
            }
            Outcome::Refused => self.refused(now_ms, rand),
        }
    }

    /// Puts the next beat off: nothing is said for `wait_ms`.
    pub fn hold(&mut self, wait_ms: u64, now_ms: u64) {
        let until_ms = now_ms.saturating_add(wait_ms);
        self.due_ms = self.due_ms.max(until_ms);
        self.fresh_ms = self.fresh_ms.max(until_ms);
    }

    /// When the next attempt is due.
    pub fn due_ms(&self) -> u64 {
        self.due_ms
    }

    /// The interval between beats.
    pub fn interval_ms(&self) -> u64 {
        self.interval_ms
    }

    /// The endpoint that worked last, or is tried next.
    pub fn endpoint(&self) -> usize {
        self.current
    }

    /// How long one exchange may take: well inside the interval.
    pub fn timeout_ms(&self) -> u64 {
        (self.interval_ms / 3).clamp(TIMEOUT_MS_MIN, TIMEOUT_MS_MAX)
    }

    /// Longest wait between two attempts while the server cannot be reached.
    pub fn retry_ms_max(&self) -> u64 {
        RETRY_MS_MAX.min(self.interval_ms / 2)
    }

    fn accepted(&mut self, interval_s: Option<u64>, next_in_s: Option<u64>, now_ms: u64, rand: u64) {
        (self.failures, self.refusals, self.stales) = (0, 0, 0);
        if self.probing {
            self.probing = false;
            self.current = 0;
        }
        self.probe = match (self.current, self.probe) {
            (0, _) => None,
            (_, None) => Some(Probe { at_ms: now_ms.saturating_add(PROBE_MS_FIRST), wait_ms: PROBE_MS_FIRST }),
            (_, probe) => probe,
        };
        if let Some(interval_s) = interval_s {
            self.interval_ms = bounded(interval_s);
        }
        if let Some(wish) = next_in_s {
            let wish_ms = wish.saturating_mul(1000).clamp(1000.min(self.interval_ms), self.interval_ms);
            let place = now_ms.saturating_add(wish_ms);
            self.phase = place % self.period_ms();
            self.fresh_ms = place;
        } else {
            let place = self.grid_after(now_ms.saturating_add(self.clearance_ms()));
            let jitter = self.jitter_ms();
            self.fresh_ms = place.saturating_sub(jitter).saturating_add(rand % (2 * jitter + 1));
        }
        self.due_ms = self.fresh_ms;
    }

    fn failed(&mut self, patience_ms: u64, now_ms: u64, rand: u64) {
        self.stales = 0;
        if self.probing {
            // The primary is still away: fall back at once, and ask it again later than last time.
            self.probing = false;
            let wait_ms = self.probe.map_or(PROBE_MS_FIRST, |probe| (probe.wait_ms * 2).min(PROBE_MS_MAX));
            self.probe = Some(Probe { at_ms: now_ms.saturating_add(wait_ms), wait_ms });
            self.due_ms = now_ms;
            return;
        }
        self.failures = self.failures.saturating_add(1);
        self.rotate();
        let bound = doubled(self.failures).min(self.retry_ms_max());
        let wait = RETRY_MS_MIN.saturating_add(rand % (bound + 1));
        // Another endpoint owes nothing to the patience that this one asked for, until all were tried.
        let all_tried = usize::try_from(self.failures).is_ok_and(|failures| failures >= self.endpoints);
        let patience = if all_tried { patience_ms + (rand >> 32) % (patience_ms / 4 + 1) } else { 0 };
        self.due_ms = now_ms.saturating_add(wait.max(patience));
    }

    fn refused(&mut self, now_ms: u64, rand: u64) {
        self.stales = 0;
        self.probing = false;
        self.refusals = self.refusals.saturating_add(1);
        self.rotate();
        let bound = doubled(self.refusals).min(PATIENCE_MS_MAX);
        self.due_ms = now_ms.saturating_add(bound / 2 + rand % (bound / 2 + 1));
    }

    fn rotate(&mut self) {
        self.current = (self.current + 1) % self.endpoints;
        if self.current == 0 {
            self.probe = None;
        }
    }

    fn period_ms(&self) -> u64 {
        self.interval_ms * PERIOD_PERCENT / 100
    }

    fn jitter_ms(&self) -> u64 {
        self.interval_ms * JITTER_PERCENT / 100
    }

    /// A beat sent a little before its place on the grid must not be followed by one at that place.
    fn clearance_ms(&self) -> u64 {
        2 * self.jitter_ms()
    }

    /// The first place on the grid after `now_ms`.
    fn grid_after(&self, now_ms: u64) -> u64 {
        let period = self.period_ms();
        let into = (now_ms % period + period - self.phase % period) % period;
        now_ms.saturating_add(period - into)
    }
}

fn bounded(interval_s: u64) -> u64 {
    interval_s.clamp(1, INTERVAL_S_MAX) * 1000
}

/// 1 s, 2 s, 4 s, … for the 1st, 2nd, 3rd failure in a row.
fn doubled(failures: u32) -> u64 {
    RETRY_MS_FIRST << failures.saturating_sub(1).min(20)
}

/// `SplitMix64` over both halves of the id: neighbours in time land far apart.
fn scramble(host: HostId) -> u64 {
    let (high, low) = host.0.as_u64_pair();
    let mut z = high ^ low.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
#[path = "cadence_tests.rs"]
mod tests;
