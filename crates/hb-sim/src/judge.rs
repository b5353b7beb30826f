//! The checkers: what TRUST.md promises, judged from the outside.
//!
//! They know what the server cannot: which host was alive, what the network lost, when hb was really blind. Of the server they
//! look at what anybody can see: committed events, answers, messages that arrived; and at rows only to compare them with those.

use core::sync::atomic::Ordering;
use std::collections::BTreeMap;

use hb_core::event::{Audience, Event, Kind};
use hb_core::host::Holder;
use hb_wire::id::{EventId, HostId};
use hb_wire::problem::Code;

use crate::computer::Computer;
use crate::oracle::{Seen, Terms, Truth};
use crate::report::{Tally, Violation};
use crate::server::EPOCH_MS;
use crate::world::network::{Letter, Origin};
use crate::world::{HOUR, MINUTE};

mod blindness;
mod messages;

use blindness::Blindness;
use messages::Messages;

/// From its deadline to its DOWN a death takes no longer than this and the time between two sweeps, in milliseconds (D of
/// TRUST.md).
const DETECTION_MS: u64 = 1_500;
/// The same where store calls are made to wait: each of a sweep's calls may.
const DETECTION_SLOW_MS: u64 = 20_000;
/// A host whose link was good for interval plus grace and this long is blameless (I4).
const BLAMELESS_MS: u64 = 90_000;
/// Beyond its two intervals (I11), a clone is found at the latest after this long.
const CLONE_SLACK_MS: u64 = 60_000;
/// A live host is up this long after everything works again, a message delivered (I8).
pub(crate) const SETTLED_MS: u64 = 20 * MINUTE;

/// What is known of one host beside the truth that alarms follow from.
#[derive(Debug, Clone)]
struct Record {
    truth: Truth,
    site: usize,
    /// The computer that was enrolled.
    computer: usize,
    /// When the network or the attacker last kept one of its messages back.
    lossy_at: u64,
    /// A backup brought back an interval that its agent does not know, until the answer to its next beat tells it.
    out_of_step: bool,
    clone: Clones,
    retired_at: Option<u64>,
}

/// What is known of a host's clones.
#[derive(Debug, Clone, Default)]
struct Clones {
    /// Since when one is alive.
    since: Option<u64>,
    /// When the last one was switched off.
    gone_at: Option<u64>,
    /// Holders that an event declared clones.
    quarantined: Vec<(Holder, u64)>,
    /// A clone that was not found is told once.
    missed: bool,
}

impl Clones {
    /// True while a clone, or what it left, may disturb the host.
    fn disturb(&self, now: u64) -> bool {
        self.since.is_some() || self.gone_at.is_some_and(|at| now < at + HOUR) || !self.quarantined.is_empty()
    }
}

/// The judge of one world.
#[derive(Debug)]
pub struct Judge {
    /// What broke.
    pub violations: Vec<Violation>,
    /// Store calls wait: detection is slower, and grouping may race.
    slow: bool,
    detection: u64,
    hosts: Vec<Record>,
    index: BTreeMap<HostId, usize>,
    blindness: Blindness,
    messages: Messages,
    /// Every event ever committed, even if a backup undid it: when it was decided.
    ids: BTreeMap<EventId, u64>,
    restored_at: Option<u64>,
}

/// What a backup takes back.
#[derive(Debug, Clone)]
pub struct Rewind {
    hosts: Vec<Record>,
    messages: Messages,
}

/// A letter that the server accepted, and when it was in its hands.
#[derive(Debug, Clone, Copy)]
pub struct Accepted<'a> {
    /// The letter.
    pub letter: &'a Letter,
    /// It came in.
    pub started: u64,
    /// It was answered.
    pub now: u64,
}

impl Judge {
    /// A judge of a world that has not begun. `slow`: its store calls wait. `sweep_every`: milliseconds between two sweeps.
    #[must_use]
    pub fn new(slow: bool, sweep_every: u64) -> Self {
        Self {
            violations: Vec::new(),
            slow,
            detection: sweep_every + if slow { DETECTION_SLOW_MS } else { DETECTION_MS },
            hosts: Vec::new(),
            index: BTreeMap::new(),
            blindness: Blindness::default(),
            messages: Messages::default(),
            ids: BTreeMap::new(),
            restored_at: None,
        }
    }

    pub(crate) fn broken(&mut self, at: u64, invariant: &'static str, what: impl Into<String>) {
        self.violations.push(Violation { at, invariant, what: what.into() });
    }

    /// A host was enrolled.
    pub fn enrolled(&mut self, id: HostId, site: usize, terms: Terms, now: u64, computer: usize) {
        self.index.insert(id, self.hosts.len());
        self.hosts.push(Record {
            truth: Truth::new(terms, now),
            site,
            computer,
            lossy_at: 0,
            out_of_step: false,
            clone: Clones::default(),
            retired_at: None,
        });
    }

    /// A channel was opened.
    pub fn channel(&mut self, id: hb_wire::id::ChannelId, admin: bool) {
        self.messages.channel(id, admin);
    }

    /// One of the host's messages, or an answer to it, was lost or kept back.
    pub fn lossy(&mut self, host: usize, now: u64) {
        self.hosts[host].lossy_at = now;
    }

    /// An edit was asked for (`None`: given up).
    pub fn asked(&mut self, host: usize, terms: Option<Terms>, now: u64) {
        self.hosts[host].truth.asked = terms;
        self.hosts[host].truth.asked_at = now;
    }

    /// An edit was granted.
    pub fn edited(&mut self, host: usize, terms: Terms, now: u64) {
        self.hosts[host].truth.edit(terms, now);
    }

    /// True for a host out of service.
    #[must_use]
    pub fn is_retired(&self, host: usize) -> bool {
        self.hosts[host].truth.seen == Seen::Retired
    }

    /// Somebody started a copy of the host.
    pub fn cloned(&mut self, host: usize, now: u64) {
        let clone = &mut self.hosts[host].clone;
        clone.since = Some(now);
        clone.missed = false;
    }

    /// The copy is gone.
    pub fn clone_gone(&mut self, host: usize, now: u64) {
        let clone = &mut self.hosts[host].clone;
        clone.since = None;
        clone.gone_at = Some(now);
    }

    /// A beat may have been stored: its answer was lost with the process, or said that nobody knows.
    pub fn maybe(&mut self, host: usize, now: u64) {
        let truth = &mut self.hosts[host].truth;
        truth.from = truth.from.max(now);
    }

    /// A beat was answered with 200.
    pub fn accepted(&mut self, accepted: Accepted<'_>) {
        let Accepted { letter, started, now } = accepted;
        let first = letter.accepted.swap(now + 1, Ordering::Relaxed);
        let record = &self.hosts[letter.host];
        let truth = &record.truth;
        let undone = |at: u64| self.restored_at.is_some_and(|restored| restored >= at);
        let mut broken = Vec::new();
        if letter.origin == Origin::Forged {
            broken.push(("I5", "a forged beat was accepted".to_owned()));
        }
        if first > 0 && !undone(first - 1) {
            broken.push(("I5", format!("a beat was accepted a second time, first at {} ms", first - 1)));
        }
        let need = truth.terms.need().max(truth.asked.map_or(0, |terms| terms.need()));
        if started - letter.signed_at > need {
            let age = started - letter.signed_at;
            broken.push(("I5b", format!("a beat signed {age} ms ago was accepted, its nonce lives for {need} ms")));
        }
        if truth.down_at.is_some_and(|down| letter.signed_at < down && down < started) {
            broken.push(("I5b", "a beat signed before the DOWN was accepted after it".to_owned()));
        }
        let holder = Holder { run: letter.beat.run, boot: letter.beat.boot };
        if record.clone.quarantined.iter().any(|(clone, since)| *clone == holder && *since < started) {
            broken.push(("I11", "a beat of a clone in quarantine was accepted".to_owned()));
        }
        if record.retired_at.is_some_and(|at| at < started) {
            broken.push(("I12", "a beat of a retired host was accepted".to_owned()));
        }
        for (invariant, what) in broken {
            self.broken(now, invariant, format!("host {}: {what}", letter.host));
        }
        self.hosts[letter.host].out_of_step = false;
        let truth = &mut self.hosts[letter.host].truth;
        truth.from = truth.from.max(now);
        truth.sure_from = Some(truth.sure_from.unwrap_or(0).max(started));
        truth.accepted_at = Some(now);
    }

    /// A beat was refused, and not for want of the server's strength.
    pub fn refused(&mut self, letter: &Letter, code: Code, now: u64) {
        if letter.origin != Origin::Host {
            return;
        }
        let record = &self.hosts[letter.host];
        let fair = match code {
            Code::StaleNonce | Code::TooManyRequests => true,
            Code::Retired => record.truth.seen == Seen::Retired,
            Code::Cloned => record.clone.disturb(now),
            _ => false,
        };
        if !fair {
            self.broken(now, "I5c", format!("host {}: its good beat was refused: {code}", letter.host));
        }
    }

    /// An event was committed.
    pub fn event(&mut self, event: &Event, now: u64, computers: &[Computer], tally: &mut Tally) {
        tally.events += 1;
        if let Some(before) = self.ids.insert(event.id, event.at.0)
            && before != event.at.0
        {
            self.broken(now, "I18", format!("event id {} was used for another decision before", event.id));
        }
        self.messages.event(event, now);
        match (event.kind, &event.subject) {
            (Kind::Blind, _) => {
                if let Err(what) = self.blindness.told(event.since.map_or(now, |since| virtual_ms(since.0)), now) {
                    self.broken(now, "I4b", what);
                }
            }
            (Kind::Observing, _) => self.blindness.observes(),
            (Kind::Down, None) => tally.incidents += 1,
            (_, Some(subject)) => {
                if let Some(host) = self.index.get(&subject.id).copied() {
                    self.host_event(host, event, now, computers, tally);
                }
            }
            (_, None) => {}
        }
    }

    fn host_event(&mut self, host: usize, event: &Event, now: u64, computers: &[Computer], tally: &mut Tally) {
        let decided = virtual_ms(event.at.0);
        let restored_at = self.restored_at;
        let before = self.hosts[host].truth.seen;
        if event.kind == Kind::Down {
            tally.downs += 1;
            tally.downs_grouped += u64::from(event.audience == Audience::Nobody);
            self.down(host, event, now, computers);
        }
        if let Some(what) = illegal(before, event.kind) {
            self.broken(now, "I3a", format!("host {host}: {} while {}: {what}", event.kind, before.word()));
        }
        let record = &mut self.hosts[host];
        let truth = &mut record.truth;
        if matches!(event.kind, Kind::Up | Kind::ReturnedLate | Kind::Rebooted | Kind::Restarted) {
            // A beat was stored, even if its answer is still on the way.
            truth.from = truth.from.max(now);
        }
        match event.kind {
            Kind::Up => {
                truth.seen = match before {
                    Seen::Paused { until, .. } => Seen::Paused { outage: false, until },
                    _ => Seen::Up,
                };
                truth.away_for = None;
            }
            Kind::Down => {
                truth.seen = Seen::Down;
                truth.down_at = Some(now);
                truth.fell_singly = event.audience == Audience::Everyone;
                truth.away_for = None;
            }
            Kind::Stopped => {
                tally.goodbyes += 1;
                truth.seen = Seen::Stopped;
                truth.away_for = event.deadline.map(|back_by| back_by.since(event.at));
            }
            Kind::Paused => {
                let outage = matches!(before, Seen::Down | Seen::Paused { outage: true, .. });
                truth.seen = Seen::Paused { outage, until: event.deadline.map(|until| virtual_ms(until.0)) };
            }
            Kind::Resumed => {
                record.clone.quarantined.clear();
                if let Seen::Paused { outage, .. } = before {
                    truth.seen = match (outage, event.deadline, truth.accepted_at) {
                        (true, _, _) => Seen::Down,
                        // It had said goodbye.
                        (false, Some(_), _) => Seen::Stopped,
                        (false, None, Some(_)) => Seen::Up,
                        (false, None, None) => Seen::New,
                    };
                    truth.from = truth.from.max(now);
                    truth.sure_from = Some(truth.sure_from.unwrap_or(0).max(decided));
                    if let (Seen::Stopped, Some(since), Some(back_by)) = (truth.seen, event.since, event.deadline) {
                        // Its time counts from the goodbye, and so does what nobody could observe of it.
                        truth.sure_from = Some(virtual_ms(since.0));
                        // A restored backup leaves open what was observed since it was made: that may all be credited.
                        truth.from = virtual_ms(since.0).max(restored_at.unwrap_or(0));
                        truth.away_for = Some(back_by.since(since));
                    }
                }
            }
            Kind::Retired => {
                truth.seen = Seen::Retired;
                record.retired_at = Some(now);
            }
            Kind::Maintenance => {
                tally.maintenances += 1;
                truth.maintenance = event.deadline.map_or(0, |until| virtual_ms(until.0));
            }
            Kind::Cloned => {
                truth.cloned_at = Some(now);
                if let Some(holder) = declared(event) {
                    record.clone.quarantined.push((holder, now));
                }
                if record.clone.since.is_none() && record.clone.gone_at.is_none() {
                    self.broken(now, "I11", format!("host {host}: a clone was found where there never was one"));
                }
            }
            _ => {}
        }
    }

    /// A host was declared down: was it right, in time, and is it explained?
    fn down(&mut self, host: usize, event: &Event, now: u64, computers: &[Computer]) {
        let record = &self.hosts[host];
        let truth = &record.truth;
        let mut broken = Vec::new();
        if let Some((plain, observed)) = truth.earliest_alarm(self.blindness.dead(), now) {
            if now < plain {
                broken.push(("I2", format!("DOWN {} ms before its deadline", plain - now)));
            } else if now < observed {
                broken.push(("I2", format!("DOWN {} ms of observed time too early", observed - now)));
            }
        }
        if now < truth.maintenance && truth.seen == Seen::Up {
            broken.push(("I13", "DOWN in an announced maintenance".to_owned()));
        }
        if let Some(latest) = truth.latest_alarm(self.blindness.spans(), now, self.detection)
            && now > latest
            && !truth.missed
        {
            broken.push(("I1", format!("DOWN {} ms late", now - latest)));
        }
        let need = truth.terms.need().max(truth.asked.map_or(0, |terms| terms.need()));
        // A server that is stopped between its decision and the commit is judged by when it decided.
        let decided = virtual_ms(event.at.0).min(now);
        let long = |since: u64| since + need + BLAMELESS_MS <= decided;
        let computer = &computers[record.computer];
        let well = computer.good_since.is_some_and(long) && long(record.lossy_at);
        if well && !record.out_of_step && !record.clone.disturb(now) {
            broken.push(("I4", format!("a blameless host (clock off by {} ms) is DOWN", computer.clock_off)));
        }
        if let Err(what) = explained(event) {
            broken.push(("I19", what));
        }
        if event.audience == Audience::Everyone && truth.seen == Seen::Up && !self.slow {
            broken.extend(self.alone(host, now).map(|what| ("I4c", what)));
        }
        for (invariant, what) in broken {
            self.broken(now, invariant, format!("host {host}: {what}"));
        }
    }

    /// I4c: of a site that falls silent together, two go singly at most; `host` goes singly now.
    fn alone(&self, host: usize, now: u64) -> Option<String> {
        let site = self.hosts[host].site;
        let fell = |record: &&Record| {
            record.truth.seen == Seen::Down
                && record.truth.fell_singly
                && record.truth.down_at.is_some_and(|at| now - at <= record.truth.terms.interval)
        };
        let neighbours = || self.hosts.iter().filter(|record| record.site == site);
        let fallen = neighbours().filter(fell).count() + 1;
        let up = neighbours().filter(|record| record.truth.seen == Seen::Up).count();
        let expected = fallen - 1 + up;
        (fallen >= 3 && fallen * 100 >= expected * 60)
            .then(|| format!("{fallen} of {expected} hosts of its site were told one by one"))
    }

    /// A message arrived.
    pub fn receipt(&mut self, receipt: &crate::courier::Receipt, tally: &mut Tally) {
        let blindness = &self.blindness;
        let broken = self.messages.receipt(receipt, |then| blindness.troubled_since(then), tally);
        for (invariant, what) in broken {
            self.broken(receipt.at, invariant, what);
        }
    }

    /// Looks at every host: is anything overdue, and does each row say what the events say? `words` are the stored states.
    pub fn audit(&mut self, now: u64, words: &[&'static str], computers: &[Computer]) {
        let mut broken: Vec<(&'static str, String)> = Vec::new();
        let detection = self.detection;
        for (host, record) in self.hosts.iter_mut().enumerate() {
            let truth = &mut record.truth;
            if truth.seen.word() != words[host] {
                broken.push((
                    "I3a",
                    format!("host {host} is {} by its row, {} by its events", words[host], truth.seen.word()),
                ));
            }
            let overdue = truth.latest_alarm(self.blindness.spans(), now, detection).is_some_and(|alarm| now > alarm);
            if overdue && !truth.missed {
                truth.missed = true;
                let word = truth.seen.word();
                broken
                    .push(("I1", format!("host {host} should be DOWN, and is {word}; silent since {} ms", truth.from)));
            }
            let clone = &mut record.clone;
            if let Some(since) = clone.since.filter(|_| !clone.missed && clone.quarantined.is_empty()) {
                let wait = 2 * truth.terms.interval + CLONE_SLACK_MS;
                let found = truth.cloned_at.is_some_and(|at| at >= since);
                // From outside, an original that falls silent before its next beat has become its clone by a reboot.
                let both = computers[record.computer].good_since.is_some_and(|good| good < since);
                let fair =
                    both && record.lossy_at < since && !self.blindness.troubled_since(since) && truth.asked.is_none();
                if now > since + wait && !found && fair && truth.seen == Seen::Up {
                    clone.missed = true;
                    broken.push(("I11", format!("host {host} has a clone since {since} ms, and nobody was told")));
                }
            }
        }
        if let Err(what) = self.blindness.audit(now) {
            broken.push(("I4b", what));
        }
        for (invariant, what) in broken {
            self.broken(now, invariant, what);
        }
    }

    /// I8, I3b: after an hour of calm everything is as it should be.
    pub fn end(&mut self, now: u64, computers: &[Computer]) {
        let mut broken = Vec::new();
        for (host, record) in self.hosts.iter().enumerate() {
            let computer = &computers[record.computer];
            let lives = computer.good_since.is_some_and(|since| since + SETTLED_MS <= now);
            // A backup of a time at which one of two machines was in quarantine puts it back there, until an operator resumes
            // the host once more.
            if self.restored_at.is_some() && !record.clone.quarantined.is_empty() {
                continue;
            }
            let is_up = matches!(record.truth.seen, Seen::Up | Seen::Paused { .. } | Seen::Retired);
            let recent = record.truth.accepted_at.is_some_and(|at| at + record.truth.terms.need() >= now);
            if lives && !(is_up && (recent || record.truth.seen == Seen::Retired)) {
                broken.push(("I8", format!("host {host} is alive and {}", record.truth.seen.word())));
            }
        }
        broken.extend(self.messages.undelivered(now).into_iter().map(|what| ("I3b", what)));
        for (invariant, what) in broken {
            self.broken(now, invariant, what);
        }
    }

    /// What a backup will take back.
    #[must_use]
    pub fn remember(&self) -> Rewind {
        Rewind { hosts: self.hosts.clone(), messages: self.messages.clone() }
    }

    /// A backup takes the place of everything since.
    pub fn restored(&mut self, rewind: Rewind, now: u64) {
        self.restored_at = Some(now);
        for (record, before) in self.hosts.iter_mut().zip(rewind.hosts) {
            let (asked, asked_at) = (record.truth.asked, record.truth.asked_at);
            let clone = Clones { quarantined: before.clone.quarantined, ..record.clone.clone() };
            record.out_of_step |= record.truth.terms != before.truth.terms;
            record.truth = Truth { from: now, sure_from: None, down_at: None, asked, asked_at, ..before.truth };
            record.clone = clone;
            record.retired_at = before.retired_at;
        }
        self.messages.restored(rewind.messages);
    }

    /// See [`Blindness`].
    pub(crate) fn blindness(&mut self) -> &mut Blindness {
        &mut self.blindness
    }
}

/// Server time as virtual time.
fn virtual_ms(server_ms: u64) -> u64 {
    server_ms.saturating_sub(EPOCH_MS)
}

/// I3a: what may not follow on what.
fn illegal(seen: Seen, kind: Kind) -> Option<&'static str> {
    let paused = matches!(seen, Seen::Paused { .. });
    match kind {
        Kind::Down if seen == Seen::Down => Some("it is down already"),
        Kind::Down if paused => Some("silence is no alarm then"),
        Kind::Up if seen == Seen::Up => Some("it is up already"),
        Kind::Up if paused && seen != (Seen::Paused { outage: true, until: None }) => {
            let Seen::Paused { outage, .. } = seen else { return None };
            (!outage).then_some("there was no outage to end")
        }
        _ if seen == Seen::Retired => Some("it is out of service"),
        _ => None,
    }
}

/// The holder that a `cloned` event puts in quarantine.
fn declared(event: &Event) -> Option<Holder> {
    let text = |key: &str| event.inputs.get(key).and_then(serde_json::Value::as_str);
    let boot = text("clone_boot")?.parse().ok()?;
    Some(Holder { boot, run: text("clone_run").and_then(|run| run.parse().ok()) })
}

/// I19: a DOWN carries the numbers that it was decided from, and they agree with it.
fn explained(event: &Event) -> Result<(), String> {
    let number = |key: &str| event.inputs.get(key).and_then(serde_json::Value::as_u64);
    let deadline = event.deadline.ok_or("a DOWN without the deadline that passed")?;
    let from = number("silent_from_ms").ok_or("a DOWN that does not say from when silence counted")?;
    let (interval, grace) = number("interval_ms").zip(number("grace_ms")).ok_or("a DOWN without interval and grace")?;
    if event.at < deadline {
        return Err("a DOWN decided before its own deadline".to_owned());
    }
    let said_goodbye = event.inputs.get("state").and_then(serde_json::Value::as_str) == Some("stopped");
    if !said_goodbye && deadline.0 < from.saturating_add(interval).saturating_add(grace) {
        return Err("a DOWN whose deadline is earlier than its own numbers allow".to_owned());
    }
    Ok(())
}
