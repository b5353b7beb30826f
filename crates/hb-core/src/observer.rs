//! The watcher watches itself: how hb finds out that it could not have heard anybody.
//!
//! Three signs: it was not running (the last stored tick is old), it was stopped or starved (a tick comes late), or it was
//! deaf (the canary, hb's own beat through the public path, failed, or nothing at all got through for a while). Each becomes a gap in the
//! [`Ledger`], and no silence counts while it lasts.

use std::collections::BTreeMap;

use hb_wire::id::BootId;
use serde::{Deserialize, Serialize};

use crate::event::{Audience, Event, Kind, derive_id};
use crate::ledger::Ledger;
use crate::mutant::{Mutant, active};
use crate::time::{Time, seconds};

/// The numbers of self-observation, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// A tick later than this after the one before means that hb did not run in between.
    pub tick_late_ms: u64,
    /// Without any proof of hearing for this long, hb is deaf: three periods of the canary.
    pub deaf_after_ms: u64,
    /// Blind for this long, people are told at once.
    pub notice_after_ms: u64,
}

impl Rules {
    /// For `hb-server`: ticks each second, a canary every 10 s.
    pub const STANDARD: Self =
        Self { tick_late_ms: seconds(3), deaf_after_ms: seconds(30), notice_after_ms: seconds(300) };

    /// For functions: a tick and a canary each minute, either of which may be late or missed once.
    pub const SCHEDULED: Self =
        Self { tick_late_ms: seconds(150), deaf_after_ms: seconds(180), notice_after_ms: seconds(300) };
}

/// After this long without turning a beat away, an overload is over.
pub const CALM_AFTER_MS: u64 = seconds(2);

/// The signs that a tick is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signs {
    /// The last proof of hearing: an accepted beat, or the canary.
    pub proof_at: Time,
    /// When a good beat was last turned away, because of overload or because it could not be stored.
    pub shed_at: Option<Time>,
    /// When a canary was last sent that did not get through.
    pub missed_at: Option<Time>,
}

/// What `hb-server`'s clock is anchored to: its offset from `CLOCK_BOOTTIME` holds for one boot of the server's machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// The boot.
    pub boot: BootId,
    /// Server time minus `CLOCK_BOOTTIME`, in milliseconds.
    pub offset_ms: u64,
}

/// What hb knows of its own observing. Stored, so that a restart forgets nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// Until when hb is known to have observed.
    pub observed_until: Time,
    /// The last proof that a message gets through: an accepted beat, or the canary.
    pub proof_at: Time,
    /// Since when hb has been deaf.
    pub deaf_since: Option<Time>,
    /// The last time a beat was turned away, as far as it was entered here.
    #[serde(default)]
    pub shed_at: Time,
    /// The server's clock; none on platforms that bring their own.
    #[serde(default)]
    pub anchor: Option<Anchor>,
    /// True once people were told that it is blind.
    pub told: bool,
    /// All gaps.
    pub ledger: Ledger,
    /// Raised by each restore of a backup.
    pub epoch: u32,
    /// A backup was restored since the last start.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub restored: bool,
}

impl Observation {
    /// The first start.
    #[must_use]
    pub fn begin(now: Time) -> Self {
        Self {
            observed_until: now,
            proof_at: now,
            deaf_since: None,
            shed_at: Time::ZERO,
            anchor: None,
            told: false,
            ledger: Ledger::default(),
            epoch: 0,
            restored: false,
        }
    }

    /// Takes the place of what was known until now, of which the epoch was `replaced`.
    pub fn restore(&mut self, replaced: u32) {
        self.epoch = self.epoch.max(replaced).saturating_add(1);
        self.restored = true;
        // A notice that was open when the backup was taken has been closed since: this blindness is told by its own.
        self.told = false;
    }

    /// A later start: everything since the last stored tick went unobserved.
    ///
    /// `shortest_need_ms` is the smallest interval plus grace of the fleet: a gap that long could have hidden a death, so
    /// people are told, once.
    #[must_use]
    pub fn restart(mut self, now: Time, shortest_need_ms: Option<u64>, rules: &Rules) -> (Self, Vec<Event>) {
        let from = self.deaf_since.unwrap_or(self.observed_until);
        let mut events = Vec::new();
        let worth_telling = shortest_need_ms.unwrap_or(u64::MAX).min(rules.notice_after_ms);
        if self.told {
            events.push(self.event(Kind::Observing, Audience::Told, from, Some(now), now));
        } else if now.since(from) > worth_telling {
            events.push(self.event(Kind::Blind, Audience::Admins, from, Some(now), now));
            events.push(self.event(Kind::Observing, Audience::Nobody, from, Some(now), now));
        }
        if core::mem::take(&mut self.restored) {
            self.ledger.forget(from, now);
        }
        self.resume(from, now);
        (self, events)
    }

    /// Time passes. To be called at least every second, and before each decision about silence.
    ///
    /// A beat that was turned away counts like deafness: whoever could not be taken in must not be called silent. So does a
    /// canary that failed, unless something got through since it was sent: three periods without any sign are longer than
    /// the patience with some hosts.
    #[must_use]
    pub fn tick(mut self, now: Time, signs: Signs, rules: &Rules) -> (Self, Vec<Event>) {
        self.proof_at = self.proof_at.max(signs.proof_at);
        let mut events = Vec::new();
        if let Some(shed_at) = signs.shed_at.filter(|shed_at| *shed_at > self.shed_at) {
            self.shed_at = shed_at;
            self.deaf_since = self.deaf_since.or(Some(shed_at.min(self.observed_until)));
        }
        if let Some(since) = self.deaf_since {
            let calm = now.since(self.shed_at) >= CALM_AFTER_MS;
            if self.proof_at > since.max(self.shed_at) && calm {
                if self.told {
                    events.push(self.event(Kind::Observing, Audience::Told, since, Some(now), now));
                } else if now.since(since) >= rules.notice_after_ms {
                    // Nobody ticked meanwhile, or nothing could be stored: it is over before it could be told.
                    events.push(self.event(Kind::Blind, Audience::Admins, since, Some(now), now));
                    events.push(self.event(Kind::Observing, Audience::Nobody, since, Some(now), now));
                }
                self.resume(since, now);
            } else if !self.told && now.since(since) >= rules.notice_after_ms {
                self.told = true;
                events.push(self.event(Kind::Blind, Audience::Admins, since, None, now));
            }
            return (self, events);
        }
        if now.since(self.observed_until) > rules.tick_late_ms {
            let from = self.observed_until;
            if now.since(from) >= rules.notice_after_ms {
                events.push(self.event(Kind::Blind, Audience::Admins, from, Some(now), now));
                events.push(self.event(Kind::Observing, Audience::Nobody, from, Some(now), now));
            }
            self.resume(from, now);
        } else if self.is_deaf(now, signs.missed_at, rules) {
            self.deaf_since = Some(self.proof_at);
        } else {
            self.observed_until = now;
        }
        (self, events)
    }

    /// True while silence may be judged.
    #[must_use]
    pub fn observing(&self) -> bool {
        self.deaf_since.is_none()
    }

    fn is_deaf(&self, now: Time, missed_at: Option<Time>, rules: &Rules) -> bool {
        let missed = missed_at.is_some_and(|missed_at| missed_at > self.proof_at);
        (missed || now.since(self.proof_at) > rules.deaf_after_ms) && !active(Mutant::NoCanary)
    }

    fn resume(&mut self, from: Time, now: Time) {
        self.ledger.enter(from, now);
        self.observed_until = now;
        // The canary gets its full time from here.
        self.proof_at = now;
        self.deaf_since = None;
        self.told = false;
    }

    fn event(&self, kind: Kind, audience: Audience, since: Time, until: Option<Time>, now: Time) -> Event {
        let incident = derive_id(since, Kind::Blind, &[&since.0.to_be_bytes(), &self.epoch.to_be_bytes()]);
        let mut inputs = BTreeMap::new();
        inputs.insert("until_ms".into(), until.map(|until| until.0).into());
        inputs.insert("blind_ms".into(), until.unwrap_or(now).since(since).into());
        Event {
            id: derive_id(since, kind, &[&since.0.to_be_bytes(), &self.epoch.to_be_bytes()]),
            kind,
            subject: None,
            at: now,
            since: Some(since),
            cause: None,
            deadline: None,
            incident: Some(hb_wire::id::IncidentId(incident.0)),
            audience,
            members: Vec::new(),
            inputs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules::STANDARD;

    fn at(s: u64) -> Time {
        Time(s * 1000)
    }

    fn heard(s: u64) -> Signs {
        Signs { proof_at: at(s), shed_at: None, missed_at: None }
    }

    fn kinds(events: &[Event]) -> Vec<(Kind, Audience)> {
        events.iter().map(|event| (event.kind, event.audience)).collect()
    }

    #[test]
    fn ticks_in_time_with_proofs_observe_everything() {
        let mut observation = Observation::begin(at(100));
        for s in 101..400 {
            let (next, events) = observation.tick(at(s), heard(s), &RULES);
            assert!(events.is_empty());
            observation = next;
        }
        assert_eq!(observation.observed_until, at(399));
        assert!(observation.ledger.gaps().is_empty());
    }

    #[test]
    fn a_late_tick_is_a_gap() {
        let (observation, events) = Observation::begin(at(100)).tick(at(160), heard(100), &RULES);
        assert!(events.is_empty(), "a minute is not worth a message");
        assert_eq!(observation.ledger.unobserved_ms(at(0), at(200)), 60_000);
        let (_, events) = Observation::begin(at(100)).tick(at(500), heard(100), &RULES);
        assert_eq!(kinds(&events), [(Kind::Blind, Audience::Admins), (Kind::Observing, Audience::Nobody)]);
    }

    #[test]
    fn without_proof_of_hearing_hb_is_deaf_and_says_so_once() {
        let mut observation = Observation::begin(at(100));
        let mut told = Vec::new();
        for s in 101..1000 {
            let (next, events) = observation.tick(at(s), heard(100), &RULES);
            told.extend(kinds(&events));
            observation = next;
            assert_eq!(observation.observing(), s <= 130, "{s}");
        }
        assert_eq!(told, [(Kind::Blind, Audience::Admins)]);
        let (observation, events) = observation.tick(at(1000), heard(1000), &RULES);
        assert_eq!(kinds(&events), [(Kind::Observing, Audience::Told)]);
        assert_eq!(observation.ledger.unobserved_ms(at(0), at(2000)), 900_000);
        assert!(observation.observing());
    }

    #[test]
    fn a_deafness_that_was_over_before_it_could_be_told_is_told_afterwards() {
        let ticked = |observation: Observation, s| observation.tick(at(s), heard(100), &RULES).0;
        let observation = (101..=131).fold(Observation::begin(at(100)), ticked);
        assert!(!observation.observing());
        // Stopped since, or without a store: the next tick is the first one after it all.
        let (short, events) = observation.clone().tick(at(399), heard(399), &RULES);
        assert!(events.is_empty() && short.observing(), "less than five minutes");
        let (long, events) = observation.tick(at(700), heard(700), &RULES);
        assert_eq!(kinds(&events), [(Kind::Blind, Audience::Admins), (Kind::Observing, Audience::Nobody)]);
        assert!(long.observing());
        assert_eq!(long.ledger.unobserved_ms(at(0), at(1000)), 600_000);
    }

    #[test]
    fn a_canary_that_fails_is_deafness_from_the_last_proof_to_the_next() {
        let missed = |proof, missed| Signs { missed_at: Some(at(missed)), ..heard(proof) };
        let (observation, _) = Observation::begin(at(100)).tick(at(103), missed(101, 100), &RULES);
        assert!(observation.observing(), "something got through since it was sent");
        let (observation, _) = observation.tick(at(106), missed(101, 103), &RULES);
        assert!(!observation.observing());
        let (observation, _) = observation.tick(at(108), missed(108, 103), &RULES);
        assert!(observation.observing());
        assert_eq!(observation.ledger.unobserved_ms(at(0), at(200)), 7000);
        let (observation, _) = observation.tick(at(109), missed(108, 103), &RULES);
        assert!(observation.observing(), "an old failure counts once");
    }

    #[test]
    fn turning_beats_away_is_unobserved_time() {
        let shed = |s, shed| Signs { proof_at: at(s), shed_at: Some(at(shed)), missed_at: None };
        let (observation, _) = Observation::begin(at(100)).tick(at(101), heard(101), &RULES);
        let (observation, _) = observation.tick(at(102), shed(102, 101), &RULES);
        assert!(!observation.observing());
        let (observation, _) = observation.tick(at(103), shed(103, 103), &RULES);
        assert!(!observation.observing(), "one second of calm is not enough");
        let (observation, _) =
            observation.tick(at(105), Signs { proof_at: at(105), shed_at: Some(at(102)), missed_at: None }, &RULES);
        assert!(observation.observing());
        assert_eq!(observation.ledger.unobserved_ms(at(0), at(200)), 4000);
    }

    #[test]
    fn a_restored_backup_raises_the_epoch_and_forgets_what_was_acknowledged_since() {
        let mut observation = Observation::begin(at(100));
        observation.told = true;
        observation.restore(3);
        assert_eq!(observation.epoch, 4);
        let (_, events) = observation.clone().restart(at(1000), Some(180_000), &RULES);
        assert_eq!(kinds(&events), [(Kind::Blind, Audience::Admins), (Kind::Observing, Audience::Nobody)]);
        let (observation, _) = observation.restart(at(110), None, &RULES);
        assert_eq!(observation.ledger.gaps().last().map(|gap| gap.forgot), Some(true));
        let (observation, _) = observation.restart(at(120), None, &RULES);
        assert_eq!(observation.ledger.gaps().iter().filter(|gap| gap.forgot).count(), 1);
    }

    #[test]
    fn a_restart_tells_of_a_gap_that_could_have_hidden_a_death() {
        let observation = Observation::begin(at(100));
        let (_, events) = observation.clone().restart(at(103), Some(4000), &RULES);
        assert!(events.is_empty());
        let (after, events) = observation.clone().restart(at(110), Some(4000), &RULES);
        assert_eq!(kinds(&events), [(Kind::Blind, Audience::Admins), (Kind::Observing, Audience::Nobody)]);
        assert_eq!(after.ledger.unobserved_ms(at(0), at(200)), 10_000);
        let (_, events) = observation.restart(at(110), Some(180_000), &RULES);
        assert!(events.is_empty());
    }
}
