//! The ledger of unobserved spans: time in which hb could not have heard anybody.
//!
//! Rule R3: unobserved time is not silence. A deadline has passed only when *observed* time since the last accepted beat
//! reaches interval plus grace, and after a gap every host gets a hold-off in which its agent's retry can arrive.

use serde::{Deserialize, Serialize};

use crate::mutant::{Mutant, active};
use crate::policy::Policy;
use crate::time::Time;

/// Most gaps that are kept apart; beyond that the two oldest are joined, which can only postpone an alarm, never hasten it.
pub const GAPS_MAX: usize = 256;

/// A span in which the server did not observe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The last instant known to be observed.
    pub from: Time,
    /// The first instant observed again.
    pub to: Time,
    /// A backup was restored in it: beats that were acknowledged are forgotten, and their hosts see no reason to try again
    /// before their next beat. Every silence begins anew after it.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub forgot: bool,
}

impl Gap {
    /// Its length in milliseconds.
    #[must_use]
    pub fn length_ms(&self) -> u64 {
        self.to.since(self.from)
    }
}

/// All gaps, in order and apart from each other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ledger {
    gaps: Vec<Gap>,
}

impl Ledger {
    /// Enters a gap. It must not begin before the end of the last one; an overlap is cut off.
    pub fn enter(&mut self, from: Time, to: Time) {
        let from = self.gaps.last().map_or(from, |last| from.max(last.to));
        if to <= from {
            return;
        }
        match self.gaps.last_mut() {
            Some(last) if last.to == from => last.to = to,
            Some(_) | None => self.gaps.push(Gap { from, to, forgot: false }),
        }
        if self.gaps.len() > GAPS_MAX {
            let second = self.gaps.remove(1);
            if let Some(first) = self.gaps.first_mut() {
                first.to = second.to;
                first.forgot |= second.forgot;
            }
        }
    }

    /// Enters a gap in which a backup was restored.
    pub fn forget(&mut self, from: Time, to: Time) {
        self.enter(from, to);
        if let Some(last) = self.gaps.last_mut() {
            last.forgot = true;
        }
    }

    /// Every gap, oldest first.
    #[must_use]
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// Milliseconds between `from` and `to` that were not observed.
    #[must_use]
    pub fn unobserved_ms(&self, from: Time, to: Time) -> u64 {
        self.gaps
            .iter()
            .rev()
            .take_while(|gap| gap.to > from)
            .map(|gap| gap.to.min(to).since(gap.from.max(from)))
            .fold(0, u64::saturating_add)
    }

    /// The instant at which observed time since `from` reaches `need_ms`, and every hold-off that `from` is entitled to
    /// has passed. A gap that begins after that instant credits nothing any more, but is followed by a hold-off all the
    /// same: whoever asks has not decided before it, and the host may have come back in it.
    ///
    /// Hold-offs add at most [`Policy::holds_max`] whole ones of observed time, however many gaps there are: one that
    /// another gap cuts short is granted again for what it lost, and a crash loop cannot mute for ever.
    #[must_use]
    pub fn due_at(&self, from: Time, need_ms: u64, hold_ms: u64, policy: &Policy) -> Time {
        self.back_at(from, need_ms, need_ms, hold_ms, policy)
    }

    /// [`Ledger::due_at`] for a host that gave `need_ms` itself, a day at the most: where what was acknowledged is forgotten, it is
    /// not given all of that anew, but `anew_ms`, in which it is heard if it came back meanwhile.
    #[must_use]
    pub fn back_at(&self, from: Time, need_ms: u64, anew_ms: u64, hold_ms: u64, policy: &Policy) -> Time {
        let mut due = from.plus(need_ms);
        if active(Mutant::NoHold) {
            return due;
        }
        let mut latest = due.plus(hold_ms.saturating_mul(policy.holds_max));
        let first = self.gaps.partition_point(|gap| gap.to <= from);
        for gap in self.gaps.iter().skip(first) {
            if gap.from >= latest {
                break;
            }
            let credit = gap.to.since(gap.from.max(from));
            latest = latest.plus(credit);
            if gap.from < due {
                due = due.plus(credit);
            }
            // For a short interval even a short gap swallows a beat whole, and its retry needs time: the hold-off is 1.5
            // intervals, so two thirds of it are one.
            if gap.length_ms() >= policy.hold_gap_min_ms.min(hold_ms / 3 * 2) {
                due = due.max(gap.to.plus(hold_ms));
            }
            if gap.forgot {
                due = due.max(gap.to.plus(anew_ms));
                latest = latest.max(due);
            }
        }
        due.min(latest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(gaps: &[(u64, u64)]) -> Ledger {
        let mut ledger = Ledger::default();
        for &(from, to) in gaps {
            ledger.enter(Time(from * 1000), Time(to * 1000));
        }
        ledger
    }

    fn due(gaps: &[(u64, u64)], from: u64, need: u64, hold: u64) -> u64 {
        ledger(gaps).due_at(Time(from * 1000), need * 1000, hold * 1000, &Policy::STANDARD).0 / 1000
    }

    #[test]
    fn without_gaps_the_deadline_is_interval_plus_grace() {
        assert_eq!(due(&[], 100, 180, 90), 280);
    }

    #[test]
    fn a_gap_before_the_last_beat_counts_nothing() {
        assert_eq!(due(&[(10, 90)], 100, 180, 90), 280);
        assert_eq!(due(&[(10, 100)], 100, 180, 90), 280);
    }

    #[test]
    fn a_gap_is_credited_and_followed_by_a_hold_off() {
        assert_eq!(due(&[(110, 120)], 100, 180, 90), 290, "ten seconds: credit, no hold-off");
        assert_eq!(due(&[(200, 500)], 100, 180, 90), 590, "80 s of need are left, the hold-off of 90 s is longer");
        assert_eq!(due(&[(50, 130)], 100, 180, 90), 310, "only what follows the beat is credited");
    }

    #[test]
    fn a_gap_after_a_deadline_that_nobody_decided_is_followed_by_a_hold_off() {
        assert_eq!(due(&[(280, 400)], 100, 180, 90), 490);
        assert_eq!(due(&[(279, 400)], 100, 180, 90), 490);
        assert_eq!(due(&[(550, 600)], 100, 180, 90), 280, "it was decided long before");
    }

    #[test]
    fn after_a_restore_every_silence_begins_anew() {
        let mut ledger = ledger(&[(110, 120)]);
        ledger.forget(Time(270_000), Time(300_000));
        let due = |from: u64| ledger.due_at(Time(from * 1000), 180_000, 90_000, &Policy::STANDARD);
        assert_eq!(due(100), Time(480_000), "only ten seconds of need were left");
        assert_eq!(due(300), Time(480_000));
        assert_eq!(due(310), Time(490_000));
    }

    #[test]
    fn a_gap_after_a_restore_is_followed_by_a_hold_off_like_any_other() {
        let mut ledger = Ledger::default();
        // The backup was old: without the restore its silence would have been over long ago.
        ledger.forget(Time(100_000), Time(10_000_000));
        ledger.enter(Time(10_280_000), Time(10_340_000));
        let due = ledger.due_at(Time(95_000), 310_000, 450_000, &Policy::STANDARD);
        assert_eq!(due, Time(10_790_000), "a whole hold-off after the second gap");
    }

    #[test]
    fn a_restored_backup_does_not_give_a_day_anew_to_whoever_said_when_it_would_be_back() {
        let back = |from: u64, to: u64| {
            let mut ledger = Ledger::default();
            ledger.forget(Time(from * 1000), Time(to * 1000));
            ledger.back_at(Time(0), 86_400_000, 180_000, 90_000, &Policy::STANDARD)
        };
        assert_eq!(back(40_000, 50_000), Time(96_400_000), "what it gave, and what is not known to have been observed");
        assert_eq!(back(86_390, 86_500), Time(86_680_000), "and at least interval and grace from the restore on");
    }

    #[test]
    fn a_hold_off_that_is_cut_short_is_granted_again() {
        // Four gaps, each a few seconds after the last: after the fourth, the host's retry still has its whole chance.
        assert_eq!(due(&[(250, 270), (275, 295), (300, 320), (325, 345)], 100, 180, 90), 435);
    }

    #[test]
    fn a_crash_loop_does_not_mute_for_ever() {
        // 20 s blind of every 30 s: a hold-off after each would never end.
        let gaps: Vec<(u64, u64)> = (0..200).map(|i| (100 + 30 * i, 120 + 30 * i)).collect();
        let due = due(&gaps, 100, 180, 90);
        assert_eq!(due, 100 + 3 * (180 + 3 * 90), "of 30 s ten are observed: need and three hold-offs of them");
    }

    #[test]
    fn entering_keeps_gaps_apart_and_bounded() {
        let mut ledger = ledger(&[(10, 20), (15, 30), (30, 40), (35, 36)]);
        assert_eq!(ledger.gaps(), [Gap { from: Time(10_000), to: Time(40_000), forgot: false }]);
        for i in 0..1000 {
            ledger.enter(Time(100_000 + 10 * i), Time(100_001 + 10 * i));
        }
        assert_eq!(ledger.gaps().len(), GAPS_MAX);
        assert_eq!(ledger.gaps().first().map(|gap| gap.from), Some(Time(10_000)));
    }

    #[test]
    fn unobserved_time_is_clipped_to_the_span_asked_for() {
        let ledger = ledger(&[(10, 20), (30, 40)]);
        assert_eq!(ledger.unobserved_ms(Time(15_000), Time(35_000)), 10_000);
        assert_eq!(ledger.unobserved_ms(Time(0), Time(5_000)), 0);
        assert_eq!(ledger.unobserved_ms(Time(50_000), Time(60_000)), 0);
    }
}
