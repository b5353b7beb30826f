//! What an agent remembers, and the beats it makes from it: pure, so that the simulator uses this very code.
//!
//! Nothing here is needed for a beat to be accepted but the key: a lost memory costs an explanation and one round trip
//! for a fresh nonce.

use hb_wire::beat::{Beat, BeatAnswer, Ending, Fault, Gap, Intent, PASS_CHARS_MAX, StopReason, Vitals};
use hb_wire::id::{BootId, RunId};
use hb_wire::nonce::Nonce;
use jiff::Timestamp;

use crate::http::resolve::Addresses;
use crate::journal::{Journal, Keeper, Misses, ServerTime};

/// A suspension shorter than this, in milliseconds, is not worth telling.
const SUSPENDED_MS_MIN: u64 = 1_000;
/// Longest word for a failure, in characters.
const WORD_CHARS_MAX: usize = 32;

/// A moment of the host's own clocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Moment {
    /// `CLOCK_BOOTTIME`, in milliseconds since boot.
    pub boottime_ms: u64,
    /// How much of that the host was suspended (`CLOCK_BOOTTIME` minus `CLOCK_MONOTONIC`), in milliseconds.
    pub suspended_ms: u64,
}

/// What is true at the moment of an attempt.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The wall clock.
    pub sent_at: Option<Timestamp>,
    /// What the host is about to do.
    pub intent: Option<Intent>,
    /// What keeps it from working.
    pub degraded: Vec<Fault>,
    /// Readings.
    pub vitals: Option<Vitals>,
}

/// The memory of one run.
#[derive(Debug, Clone)]
pub struct Memory {
    keeper: Keeper,
    boot: BootId,
    run: RunId,
    seq: u64,
    nonce: Option<Nonce>,
    pass: Option<String>,
    before: Option<Ending>,
    misses: Option<Misses>,
    heard: Option<Moment>,
    server: Option<ServerTime>,
    addresses: Addresses,
}

impl Memory {
    /// Starts a run in `boot`, from what the run before it left behind.
    ///
    /// `run` is the id of the new run; a one-shot beat in the same boot continues the run of the one before it.
    /// `first` is the nonce that enrolment gave.
    pub fn start(journal: Option<Journal>, keeper: Keeper, boot: BootId, run: RunId, first: Option<Nonce>) -> Self {
        let Some(journal) = journal else {
            let (before, misses, heard, server) = (None, None, None, None);
            let addresses = Addresses::new();
            return Self {
                keeper,
                boot,
                run,
                seq: 0,
                nonce: first,
                pass: None,
                before,
                misses,
                heard,
                server,
                addresses,
            };
        };
        let same_boot = journal.boot == boot;
        let continues = same_boot && keeper == Keeper::Once && journal.keeper == Keeper::Once;
        // An ending that no beat has told yet explains more than the ending of the run that failed to tell it.
        let before = match (journal.before, journal.keeper) {
            (Some(untold), _) => Some(untold),
            (None, Keeper::Daemon) => {
                Some(Ending { boot: journal.boot, clean: journal.stopped.is_some(), reason: journal.stopped })
            }
            // A one-shot beat has ended well by the time that an agent takes over from it.
            (None, Keeper::Once) if same_boot && !continues => {
                Some(Ending { boot, clean: true, reason: Some(StopReason::Service) })
            }
            // Nobody watches between two one-shot beats: how the host stopped is not known.
            (None, Keeper::Once) => None,
        };
        Self {
            keeper,
            boot,
            run: if continues { journal.run } else { run },
            seq: journal.seq,
            nonce: journal.nonce.or(first),
            pass: journal.pass,
            before,
            misses: journal.misses.filter(|_| same_boot),
            heard: journal.heard.filter(|_| same_boot),
            server: journal.server,
            addresses: journal.addresses,
        }
    }

    /// Begins a new beat.
    pub fn begin(&mut self) {
        self.seq = self.seq.saturating_add(1);
    }

    /// The beat as it stands `now`; another attempt at the same beat tells what has happened since.
    pub fn beat(&self, now: Moment, report: Report) -> Beat {
        Beat {
            boot: self.boot,
            run: Some(self.run),
            seq: self.seq,
            up: now.boottime_ms / 1000,
            v: env!("CARGO_PKG_VERSION").to_owned(),
            sent_at: report.sent_at,
            intent: report.intent,
            before: self.before.clone(),
            gap: self.gap(now),
            degraded: report.degraded,
            vitals: report.vitals,
            pass: self.pass.clone(),
        }
    }

    /// The nonce to spend.
    pub fn nonce(&self) -> Nonce {
        self.nonce.unwrap_or(Nonce::NONE)
    }

    /// True while beats explain something: how the run before this one ended, or why nothing was heard.
    pub fn explains(&self) -> bool {
        self.before.is_some() || self.misses.is_some()
    }

    /// Learns that the beat was stored. An answer that came by a clock which may be wrong gives its nonce and nothing
    /// else (`trusted` false).
    pub fn accepted(&mut self, answer: &BeatAnswer, trusted: bool, now: Moment) {
        self.nonce = Nonce::parse(&answer.next).ok();
        if let Some(pass) = answer.pass.as_ref().filter(|pass| pass.len() <= PASS_CHARS_MAX) {
            self.pass = Some(pass.clone());
        }
        self.before = None;
        self.misses = None;
        self.heard = Some(now);
        if trusted {
            self.hear_time(answer.now, now);
        }
    }

    /// Learns that the nonce was stale, and the fresh one.
    pub fn stale(&mut self, next: Nonce, server_now: Option<Timestamp>, now: Moment) {
        self.nonce = Some(next);
        if let Some(time) = server_now {
            self.hear_time(time, now);
        }
    }

    /// Learns that an attempt failed, and why in a word.
    pub fn failed(&mut self, word: &str, now: Moment) {
        let misses = self.misses.get_or_insert_with(|| Misses { failed: 0, since: now, error: String::new() });
        misses.failed = misses.failed.saturating_add(1);
        misses.error.clear();
        misses.error.extend(word.chars().take(WORD_CHARS_MAX));
    }

    /// Attempts that failed since the last accepted beat.
    pub fn misses(&self) -> Option<&Misses> {
        self.misses.as_ref()
    }

    /// Learns the addresses by which the server was reached.
    pub fn learn_addresses(&mut self, addresses: Addresses) {
        self.addresses = addresses;
    }

    /// The addresses by which the server was last reached.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The count of beats begun.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The server's last known time and what has passed since, in seconds; the latter is 0 after a reboot.
    pub fn server_time(&self, now: Moment) -> Option<(u64, u64)> {
        let server = self.server?;
        let since_ms = if server.boot == self.boot { now.boottime_ms.saturating_sub(server.boottime_ms) } else { 0 };
        Some((server.unix_s, since_ms / 1000))
    }

    /// What to write down: as a run that goes on, or (`stopped`) as one that stops cleanly.
    pub fn journal(&self, stopped: Option<StopReason>) -> Journal {
        Journal {
            keeper: self.keeper,
            boot: self.boot,
            run: self.run,
            seq: self.seq,
            nonce: self.nonce,
            pass: self.pass.clone(),
            stopped,
            before: self.before.clone(),
            misses: self.misses.clone(),
            heard: self.heard,
            server: self.server,
            addresses: self.addresses.clone(),
        }
    }

    fn gap(&self, now: Moment) -> Option<Gap> {
        let suspended_since = |then: Moment| now.suspended_ms.saturating_sub(then.suspended_ms);
        if let Some(misses) = &self.misses {
            // A suspension before the first failure is part of the silence, too.
            let from = self.heard.unwrap_or(misses.since);
            return Some(Gap {
                failed: misses.failed,
                since_s: now.boottime_ms.saturating_sub(misses.since.boottime_ms) / 1000,
                suspended_s: suspended_since(from) / 1000,
                error: misses.error.clone(),
            });
        }
        let heard = self.heard.filter(|heard| suspended_since(*heard) >= SUSPENDED_MS_MIN)?;
        Some(Gap {
            failed: 0,
            since_s: now.boottime_ms.saturating_sub(heard.boottime_ms) / 1000,
            suspended_s: suspended_since(heard) / 1000,
            error: String::new(),
        })
    }

    fn hear_time(&mut self, server_now: Timestamp, now: Moment) {
        if let Ok(unix_s) = u64::try_from(server_now.as_second()) {
            self.server = Some(ServerTime { unix_s, boot: self.boot, boottime_ms: now.boottime_ms });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(n: u8) -> BootId {
        BootId::mint(1, [n; 10])
    }

    fn run(n: u8) -> RunId {
        RunId::mint(1, [n; 10])
    }

    fn at(s: u64) -> Moment {
        Moment { boottime_ms: s * 1000, suspended_ms: 0 }
    }

    fn answer(nonce: u8) -> BeatAnswer {
        BeatAnswer {
            next: Nonce([nonce; 16]).to_string(),
            now: Timestamp::from_second(1_795_444_000).unwrap(),
            interval_s: 60,
            next_in_s: None,
            marks: Vec::new(),
            pass: None,
        }
    }

    fn fresh() -> Memory {
        Memory::start(None, Keeper::Daemon, boot(1), run(1), Some(Nonce([9; 16])))
    }

    #[test]
    fn the_first_beat_spends_the_nonce_of_the_enrolment_and_says_nothing_of_the_past() {
        let mut memory = fresh();
        memory.begin();
        let beat = memory.beat(at(100), Report::default());
        assert_eq!((beat.seq, beat.up, beat.before, beat.gap), (1, 100, None, None));
        assert_eq!(memory.nonce(), Nonce([9; 16]));
    }

    #[test]
    fn a_lost_memory_sends_the_nonce_that_is_always_answered_with_a_fresh_one() {
        let memory = Memory::start(None, Keeper::Daemon, boot(1), run(1), None);
        assert!(memory.nonce().is_none());
    }

    #[test]
    fn a_gap_is_told_until_a_beat_is_accepted() {
        let mut memory = fresh();
        memory.begin();
        memory.accepted(&answer(1), true, at(10));
        for s in [70, 72, 75] {
            memory.failed("timeout", at(s));
        }
        let gap = memory.beat(at(190), Report::default()).gap.unwrap();
        assert_eq!((gap.failed, gap.since_s, gap.suspended_s, gap.error.as_str()), (3, 120, 0, "timeout"));
        memory.accepted(&answer(2), true, at(190));
        assert_eq!(memory.beat(at(250), Report::default()).gap, None);
    }

    #[test]
    fn a_suspension_is_measured_by_the_clocks_and_told_even_when_nothing_failed() {
        let mut memory = fresh();
        memory.accepted(&answer(1), true, at(10));
        let woken = Moment { boottime_ms: 3_610_000, suspended_ms: 3_540_000 };
        let gap = memory.beat(woken, Report::default()).gap.unwrap();
        assert_eq!((gap.failed, gap.since_s, gap.suspended_s), (0, 3600, 3540));
        memory.failed("dns", woken);
        let gap = memory.beat(woken, Report::default()).gap.unwrap();
        assert_eq!((gap.failed, gap.suspended_s, gap.error.as_str()), (1, 3540, "dns"));
    }

    #[test]
    fn the_end_of_the_run_before_is_told_until_a_beat_is_accepted() {
        let mut first = fresh();
        first.begin();
        first.accepted(&answer(1), true, at(10));
        for (stopped, clean) in [(None, false), (Some(StopReason::Reboot), true)] {
            let mut second = Memory::start(Some(first.journal(stopped)), Keeper::Daemon, boot(2), run(2), None);
            let ending = Ending { boot: boot(1), clean, reason: stopped };
            assert_eq!(second.beat(at(5), Report::default()).before, Some(ending.clone()));
            // A run that dies before it could tell does not hide the ending that matters.
            let third = Memory::start(Some(second.journal(None)), Keeper::Daemon, boot(2), run(3), None);
            assert_eq!(third.beat(at(6), Report::default()).before, Some(ending));
            second.accepted(&answer(2), true, at(7));
            assert_eq!(second.beat(at(60), Report::default()).before, None);
        }
    }

    #[test]
    fn a_new_run_goes_on_counting_and_spends_the_nonce_that_was_kept() {
        let mut first = fresh();
        first.begin();
        first.accepted(&answer(4), true, at(10));
        let second = Memory::start(Some(first.journal(None)), Keeper::Daemon, boot(1), run(2), Some(Nonce([9; 16])));
        assert_eq!((second.seq(), second.nonce()), (1, Nonce([4; 16])));
    }

    #[test]
    fn one_shot_beats_of_one_boot_are_one_run_and_blame_no_crash_on_a_reboot() {
        let mut first = Memory::start(None, Keeper::Once, boot(1), run(1), None);
        first.begin();
        first.accepted(&answer(1), true, at(10));
        let second = Memory::start(Some(first.journal(None)), Keeper::Once, boot(1), run(2), None);
        assert_eq!(second.beat(at(70), Report::default()).run, Some(run(1)));
        assert_eq!(second.beat(at(70), Report::default()).before, None);
        let third = Memory::start(Some(second.journal(None)), Keeper::Once, boot(2), run(3), None);
        let beat = third.beat(at(5), Report::default());
        assert_eq!((beat.run, beat.before), (Some(run(3)), None));
        let daemon = Memory::start(Some(second.journal(None)), Keeper::Daemon, boot(1), run(4), None);
        assert!(
            daemon.beat(at(80), Report::default()).before.unwrap().clean,
            "an agent takes over: nothing was killed"
        );
    }

    #[test]
    fn failures_of_another_boot_are_not_measured_with_this_boots_clock() {
        let mut first = fresh();
        first.failed("dns", at(4000));
        let second = Memory::start(Some(first.journal(None)), Keeper::Daemon, boot(2), run(2), None);
        assert_eq!(second.beat(at(5), Report::default()).gap, None);
        let same = Memory::start(Some(first.journal(None)), Keeper::Daemon, boot(1), run(2), None);
        assert_eq!(same.beat(at(4060), Report::default()).gap.unwrap().since_s, 60);
    }

    #[test]
    fn the_servers_time_runs_on_by_the_boot_clock_and_stands_after_a_reboot() {
        let mut memory = fresh();
        assert_eq!(memory.server_time(at(5)), None);
        memory.accepted(&answer(1), true, at(10));
        assert_eq!(memory.server_time(at(110)), Some((1_795_444_000, 100)));
        let rebooted = Memory::start(Some(memory.journal(None)), Keeper::Daemon, boot(2), run(2), None);
        assert_eq!(rebooted.server_time(at(5000)), Some((1_795_444_000, 0)));
    }

    #[test]
    fn a_pass_is_sent_until_there_is_another_and_outlives_the_run() {
        let mut first = fresh();
        assert_eq!(first.beat(at(5), Report::default()).pass, None);
        let given = |pass: &str| BeatAnswer { pass: Some(pass.to_owned()), ..answer(1) };
        first.accepted(&given("one"), true, at(10));
        first.accepted(&answer(2), true, at(70));
        first.accepted(&given(&"x".repeat(PASS_CHARS_MAX + 1)), true, at(130));
        let mut second = Memory::start(Some(first.journal(None)), Keeper::Once, boot(2), run(2), None);
        assert_eq!(second.beat(at(5), Report::default()).pass.as_deref(), Some("one"));
        second.accepted(&given("two"), true, at(10));
        assert_eq!(second.beat(at(70), Report::default()).pass.as_deref(), Some("two"));
    }

    #[test]
    fn an_answer_that_is_not_trusted_gives_its_nonce_and_no_time() {
        let mut memory = fresh();
        memory.accepted(&answer(3), false, at(10));
        assert_eq!((memory.nonce(), memory.server_time(at(10))), (Nonce([3; 16]), None));
    }

    #[test]
    fn a_word_for_a_failure_is_bounded() {
        let mut memory = fresh();
        memory.failed(&"x".repeat(1000), at(1));
        assert_eq!(memory.misses().unwrap().error.len(), WORD_CHARS_MAX);
    }
}
