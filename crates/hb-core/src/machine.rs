//! The state machine: `(host, input, moment) -> (host', [event])`.
//!
//! Inputs are beats ([`beat`]), the passing of a deadline ([`sweep`]) and what operators do ([`pause`], [`resume`],
//! [`edit`], [`retire`], [`enrol_again`]). A store applies what comes out only if the host is still exactly the one that
//! went in (compare-and-set), together with the events, or not at all.

use std::collections::BTreeMap;

use hb_wire::beat::{Beat, Intent, StopReason};
use hb_wire::id::{EventId, HostId, IncidentId};
use hb_wire::key::PublicKey;
use hb_wire::nonce::Nonce;
use hb_wire::view::Class;
use serde_json::Value;

use crate::event::{Audience, Cause, Event, Kind, Subject, derive_id, id_of_end};
use crate::host::{FORMER_MAX, Goodbye, Holder, Host, Maintenance, Outage, QUARANTINE_MAX, State, Wish};
use crate::ledger::Ledger;
use crate::mutant::{Mutant, active};
use crate::policy::Policy;
use crate::time::{Time, seconds};

/// When, and by which rules, something is decided.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    /// Server time.
    pub now: Time,
    /// What was not observed.
    pub ledger: &'a Ledger,
    /// The rules' numbers.
    pub policy: &'a Policy,
    /// A nonce nobody knows yet: 128 random bits.
    pub fresh: Nonce,
}

/// What follows from an input.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// The host afterwards.
    pub host: Host,
    /// What happened, in order.
    pub events: Vec<Event>,
}

/// What becomes of a beat whose signature was good.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It counts.
    Accepted(Transition),
    /// Its nonce was spent or is too old: answer 409 with the host's nonce. `Some`: the nonce was renewed, and the host has
    /// to be stored first.
    Stale(Option<Host>),
    /// It comes from a clone of the host: refuse it, change nothing.
    Cloned,
    /// It is signed by a key that is this host's no more: as if the signature were wrong.
    Foreign,
    /// The host is out of service.
    Retired,
}

/// A beat whose signature was good.
#[derive(Debug, Clone, Copy)]
pub struct Heard<'a> {
    /// The key that signed it.
    pub key: PublicKey,
    /// What it says.
    pub beat: &'a Beat,
    /// The nonce that it spends.
    pub spent: Nonce,
    /// The `created` parameter of its signature, in seconds; informational.
    pub created: i64,
}

impl Heard<'_> {
    fn holder(&self) -> Holder {
        Holder { run: self.beat.run, boot: self.beat.boot }
    }
}

/// Decides about a beat.
#[must_use]
pub fn beat(host: &Host, heard: &Heard<'_>, at: &Moment<'_>) -> Verdict {
    if matches!(host.state, State::Retired { .. }) {
        return Verdict::Retired;
    }
    if heard.key != host.key && Some(heard.key) != host.next_key {
        return Verdict::Foreign;
    }
    // Before the nonce: a clone is told what it is, and given none.
    let holder = heard.holder();
    if is_quarantined(host, &holder) {
        return Verdict::Cloned;
    }
    if !is_fresh(host, heard, at) {
        return Verdict::Stale(renew_nonce(host, at));
    }
    Verdict::Accepted(accept(host, heard, holder, at))
}

fn is_fresh(host: &Host, heard: &Heard<'_>, at: &Moment<'_>) -> bool {
    if active(Mutant::CreatedWindow) {
        return heard.created.unsigned_abs().abs_diff(at.now.0 / 1000) <= 300;
    }
    if active(Mutant::SeqNoResync) {
        return heard.beat.seq > host.life.seq || host.life.heard_at.is_none();
    }
    heard.spent == host.life.nonce && host.nonce_alive(at.now, at.ledger)
}

/// A nonce past half its life is replaced when somebody with the host's key comes with a stale one, so that what it gets
/// lives long enough to be used. Not sooner: replayed messages could otherwise keep the host from ever catching up.
fn renew_nonce(host: &Host, at: &Moment<'_>) -> Option<Host> {
    if at.now.since(host.life.nonce_at) <= host.need_ms() / 2 {
        return None;
    }
    let mut host = host.clone();
    host.life.nonce = at.fresh;
    host.life.nonce_at = at.now;
    Some(host)
}

/// Rule R9: a clone is refused by its run, and by its boot unless the live holder shares it.
fn is_quarantined(host: &Host, holder: &Holder) -> bool {
    let live_boot = host.life.holder.map(|live| live.boot);
    !active(Mutant::CloneObeyed)
        && host.quarantine.iter().any(|clone| {
            clone == holder
                || (clone.run.is_some() && clone.run == holder.run)
                || (clone.boot == holder.boot && live_boot != Some(clone.boot))
        })
}

fn accept(host: &Host, heard: &Heard<'_>, holder: Holder, at: &Moment<'_>) -> Transition {
    let mut next = host.clone();
    let mut events = Vec::new();
    let scribe = Scribe { before: host, salt: heard.spent, at };

    note_holder(&mut next, holder, &scribe, &mut events);
    note_return(&mut next, heard, holder, &scribe, &mut events);
    note_fitness(&mut next, heard, &scribe, &mut events);
    note_key(&mut next, heard.key, &scribe, &mut events);

    let beat = heard.beat;
    next.life.nonce = at.fresh;
    next.life.nonce_at = at.now;
    next.life.heard_at = Some(at.now);
    // Strictly later than what a DOWN was decided from, which is past, so that two outages never share an id. An instant ahead,
    // where an edit put it, is over: the answer tells the host what it had not heard.
    let is_same = host.life.silent_from == at.now && !matches!(host.state, State::New | State::Up { .. });
    next.life.silent_from = if is_same { at.now.plus(1) } else { at.now };
    next.life.holder = Some(holder);
    next.life.seq = beat.seq;
    next.life.up_s = beat.up;
    next.life.skew_ms = beat.sent_at.map(|sent| skew_ms(sent.as_millisecond(), at.now));
    next.life.agent.clone_from(&beat.v);
    next.life.faults = beat.degraded.iter().copied().collect();
    next.life.vitals.clone_from(&beat.vitals);

    if let Some(intent) = &beat.intent {
        note_intent(&mut next, intent, &scribe, &mut events);
    }
    next.transitions = next.transitions.saturating_add(u64::try_from(events.len()).unwrap_or(u64::MAX));
    Transition { host: next, events }
}

fn skew_ms(sent_ms: i64, now: Time) -> i64 {
    sent_ms.saturating_sub(i64::try_from(now.0).unwrap_or(i64::MAX))
}

/// Keeps track of who holds the key. A run that had been followed by another one, and returns, proves that two machines
/// are alive with one key: the newcomer goes into quarantine.
fn note_holder(next: &mut Host, holder: Holder, scribe: &Scribe<'_>, events: &mut Vec<Event>) {
    let Some(live) = next.life.holder else { return };
    if live == holder {
        return;
    }
    if !next.former.contains(&holder) {
        next.former.push(live);
        keep_newest(&mut next.former, FORMER_MAX);
        return;
    }
    next.former.retain(|former| *former != holder);
    let news = next.quarantine.is_empty();
    next.quarantine.push(live);
    keep_newest(&mut next.quarantine, QUARANTINE_MAX);
    if news {
        let mut event = scribe.event(Kind::Cloned, Audience::Admins);
        event.inputs.insert("clone_boot".into(), live.boot.to_string().into());
        event.inputs.insert("clone_run".into(), live.run.map(|run| run.to_string()).into());
        event.inputs.insert("holder_boot".into(), holder.boot.to_string().into());
        events.push(event);
    }
}

fn keep_newest<T>(list: &mut Vec<T>, most: usize) {
    let surplus = list.len().saturating_sub(most);
    list.drain(..surplus);
}

/// The first beat that the next key signs makes it the host's key, and the old one nobody's.
fn note_key(next: &mut Host, key: PublicKey, scribe: &Scribe<'_>, events: &mut Vec<Event>) {
    if key == next.key {
        return;
    }
    let mut event = scribe.event(Kind::KeyRotated, Audience::Nobody);
    event.inputs.insert("old_key".into(), next.key.fingerprint().into());
    event.inputs.insert("new_key".into(), key.fingerprint().into());
    events.push(event);
    next.key = key;
    next.next_key = None;
}

/// What the beat means for the state: an outage ends, a host is heard for the first time, a boot went by.
fn note_return(next: &mut Host, heard: &Heard<'_>, holder: Holder, scribe: &Scribe<'_>, events: &mut Vec<Event>) {
    let host = scribe.before;
    let now = scribe.at.now;
    let cause = cause_of_return(host, heard, holder, scribe.at);
    let up = |audience, incident: Option<IncidentId>| Event {
        since: Some(host.life.heard_at.unwrap_or(host.enrolled_at)),
        cause,
        incident,
        inputs: scribe.evidence(heard),
        ..scribe.event(Kind::Up, audience)
    };
    let ended = |outage: &Outage| Event {
        id: id_of_end(outage.event, Kind::Up, scribe.at.policy.epoch),
        ..up(told_of(outage), Some(outage.incident))
    };
    match &mut next.state {
        State::New | State::Stopped { .. } => {
            next.state = State::Up { since: now };
            events.push(up(Audience::Nobody, None));
        }
        State::Down(outage) => {
            events.push(ended(outage));
            next.state = State::Up { since: now };
        }
        State::Paused { outage, goodbye, .. } => {
            *goodbye = None;
            if let Some(outage) = outage.take() {
                events.push(ended(&outage));
            }
        }
        State::Up { .. } => {
            let late = host.alarm_at(scribe.at.ledger, scribe.at.policy).is_some_and(|deadline| deadline < now);
            let kind = match host.life.holder {
                Some(_) if late => Kind::ReturnedLate,
                Some(live) if live.boot != holder.boot => Kind::Rebooted,
                Some(live) if live.run != holder.run => Kind::Restarted,
                Some(_) | None => return,
            };
            events.push(Event { kind, id: scribe.id(kind), ..up(Audience::Nobody, None) });
        }
        State::Retired { .. } => {}
    }
}

fn told_of(outage: &Outage) -> Audience {
    if outage.grouped { Audience::Nobody } else { Audience::Told }
}

/// Rule R8: the boot id and the agent's journal decide.
fn cause_of_return(host: &Host, heard: &Heard<'_>, holder: Holder, at: &Moment<'_>) -> Option<Cause> {
    let live = host.life.holder?;
    let goodbye = if let State::Stopped { reason, .. } = host.state { Some(reason) } else { None };
    let before = heard.beat.before.as_ref();
    let clean = before.map_or(goodbye.is_some(), |ending| ending.clean);
    if live.boot != holder.boot {
        return Some(match before {
            _ if clean => Cause::Rebooted,
            Some(_) => Cause::Crashed,
            None => Cause::Booted,
        });
    }
    if live.run != holder.run {
        return Some(match before.and_then(|ending| ending.reason).or(goodbye) {
            Some(StopReason::Upgrade) if clean => Cause::AgentUpgraded,
            Some(_) | None if clean => Cause::AgentStopped,
            Some(_) | None => Cause::AgentKilled,
        });
    }
    if let Some(reason) = goodbye {
        return Some(if reason == StopReason::Sleep { Cause::Suspended } else { Cause::AgentStopped });
    }
    let silence_ms = at.now.since(host.life.silent_from);
    let suspended_s = heard.beat.gap.as_ref().map_or(0, |gap| gap.suspended_s);
    if suspended_s > 0 && seconds(suspended_s) >= silence_ms / 2 {
        return Some(Cause::Suspended);
    }
    let unobserved_ms = at.ledger.unobserved_ms(host.life.silent_from, at.now);
    if unobserved_ms > 0 && unobserved_ms >= silence_ms / 2 {
        return Some(Cause::Unobserved);
    }
    match &heard.beat.gap {
        Some(gap) if gap.failed > 0 && failed_for_most(host, seconds(gap.since_s), silence_ms) => {
            Some(Cause::Unreachable)
        }
        Some(_) | None => Some(Cause::Unexplained),
    }
}

/// Longest time from the start of an attempt until its failure is noted: its timeout of ten seconds, and one for rounding.
const FAILING_MS: u64 = seconds(11);

/// True when attempts that failed explain a silence: they began when the next beat was due, or fill half of it. Whoever did
/// not try before (a cron job that did not run) was not merely unreachable.
fn failed_for_most(host: &Host, failed_for_ms: u64, silence_ms: u64) -> bool {
    let untried_ms = silence_ms.saturating_sub(failed_for_ms);
    let due_ms = host.interval_ms.saturating_mul(3) / 2;
    untried_ms <= due_ms.saturating_add(FAILING_MS) || failed_for_ms >= silence_ms / 2
}

fn note_fitness(next: &mut Host, heard: &Heard<'_>, scribe: &Scribe<'_>, events: &mut Vec<Event>) {
    let was_fit = next.life.faults.is_empty();
    let is_fit = heard.beat.degraded.is_empty();
    if was_fit && !is_fit {
        let mut event = scribe.event(Kind::Degraded, Audience::Everyone);
        let incident = IncidentId(event.id.0);
        event.incident = Some(incident);
        event.inputs.insert("faults".into(), serde_json::to_value(&heard.beat.degraded).unwrap_or(Value::Null));
        next.trouble = Some(incident);
        events.push(event);
    } else if !was_fit && is_fit {
        let incident = next.trouble.take();
        let mut event = Event { incident, ..scribe.event(Kind::Restored, Audience::Told) };
        if let Some(trouble) = incident {
            event.id = id_of_end(EventId(trouble.0), Kind::Restored, scribe.at.policy.epoch);
        }
        events.push(event);
    }
}

/// Rule R10: who says goodbye is no alarm; who does not come back by the time it gave is.
fn note_intent(next: &mut Host, intent: &Intent, scribe: &Scribe<'_>, events: &mut Vec<Event>) {
    let now = scribe.at.now;
    match intent {
        Intent::Goodbye { reason, back_in_s } => {
            let back_by = now.plus(seconds(*back_in_s).min(scribe.at.policy.goodbye_max_ms));
            if let State::Paused { goodbye, .. } = &mut next.state {
                *goodbye = Some(Goodbye { since: now, back_by, reason: *reason });
                return;
            }
            next.state = State::Stopped { since: now, back_by, reason: *reason };
            let mut event = scribe.event(Kind::Stopped, Audience::Nobody);
            event.deadline = Some(back_by);
            event.inputs.insert("reason".into(), serde_json::to_value(reason).unwrap_or(Value::Null));
            events.push(event);
        }
        Intent::Maintenance { for_s, note } => {
            let until = now.plus(seconds(*for_s).min(scribe.at.policy.goodbye_max_ms));
            next.maintenance = (*for_s > 0).then(|| Maintenance { until, note: note.clone() });
            if *for_s == 0 && scribe.before.maintenance.is_none() {
                return;
            }
            let mut event = scribe.event(Kind::Maintenance, Audience::Nobody);
            event.deadline = (*for_s > 0).then_some(until);
            event.inputs.insert("note".into(), note.clone().into());
            events.push(event);
        }
        // Asked for once more after it was done (an answer was lost): there is nothing left to do.
        Intent::Rotate { public_key, proof: _ } => {
            next.next_key = (*public_key != next.key).then_some(*public_key);
        }
    }
}

/// How a host that fell silent is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grouping {
    /// On its own.
    Single,
    /// An incident of many hosts speaks for it.
    Member(IncidentId),
}

/// Decides about the passing of time. None: there is nothing to decide yet.
///
/// Rule R1: this is total; it does not matter when, how often or by whom it is called.
#[must_use]
pub fn sweep(host: &Host, grouping: Grouping, at: &Moment<'_>) -> Option<Transition> {
    let deadline = host.alarm_at(at.ledger, at.policy)?;
    if at.now < deadline {
        return None;
    }
    match &host.state {
        State::New => Some(declare_down(host, Cause::NeverSeen, deadline, grouping, at)),
        State::Up { .. } => Some(declare_down(host, Cause::Silent, deadline, grouping, at)),
        State::Stopped { .. } => match host.class {
            Class::Ephemeral => Some(retire(host, at)),
            Class::Server | Class::Intermittent => Some(declare_down(host, Cause::NotBack, deadline, grouping, at)),
        },
        State::Paused { .. } => Some(resume(host, at)),
        State::Down(_) => Some(retire(host, at)),
        State::Retired { .. } => None,
    }
}

fn declare_down(host: &Host, cause: Cause, deadline: Time, grouping: Grouping, at: &Moment<'_>) -> Transition {
    let from = host.life.silent_from;
    // Not from the nonce or a counter: whoever else decides the same from the same last beat must get the same id.
    let id =
        derive_id(from, Kind::Down, &[host.id.0.as_bytes(), &from.0.to_be_bytes(), &at.policy.epoch.to_be_bytes()]);
    let (incident, grouped) = match grouping {
        Grouping::Single => (IncidentId(id.0), false),
        Grouping::Member(incident) => (incident, true),
    };
    let scribe = Scribe { before: host, salt: at.fresh, at };
    let mut inputs = scribe.inputs();
    inputs.insert("need_ms".into(), deadline.since(from).min(host.patience_ms().unwrap_or(host.need_ms())).into());
    inputs.insert("credit_ms".into(), at.ledger.unobserved_ms(from, at.now).into());
    let event = Event {
        id,
        since: host.life.heard_at.or(Some(host.enrolled_at)),
        cause: Some(cause),
        deadline: Some(deadline),
        incident: Some(incident),
        inputs,
        ..scribe.event(Kind::Down, if grouped { Audience::Nobody } else { Audience::Everyone })
    };
    let mut next = host.clone();
    next.state = State::Down(Outage { since: at.now, event: id, incident, grouped });
    if !active(Mutant::NoRotate) {
        // A message that was signed before this decision must not undo it.
        next.life.nonce = at.fresh;
        next.life.nonce_at = at.now;
    }
    next.transitions = next.transitions.saturating_add(1);
    Transition { host: next, events: vec![event] }
}

/// An operator pauses a host: silence is no alarm until `until`, or until resumed. A paused host may be paused anew.
#[must_use]
pub fn pause(host: &Host, until: Option<Time>, reason: &str, at: &Moment<'_>) -> Transition {
    let scribe = Scribe { before: host, salt: at.fresh, at };
    let mut event = scribe.event(Kind::Paused, Audience::Nobody);
    event.deadline = until;
    event.inputs.insert("reason".into(), reason.into());
    let (outage, goodbye) = (host.state.outage().copied(), host.state.goodbye());
    let mut next = host.clone();
    next.state = State::Paused { since: at.now, until, reason: reason.to_owned(), outage, goodbye };
    scribe.done(next, vec![event])
}

/// A pause ends, by an operator or by its own end: the host gets a full interval plus grace, or, if it had said goodbye, the
/// rest of the time that it gave. For a host that is not paused this releases clones from quarantine.
#[must_use]
pub fn resume(host: &Host, at: &Moment<'_>) -> Transition {
    let scribe = Scribe { before: host, salt: at.fresh, at };
    let mut event = scribe.event(Kind::Resumed, Audience::Nobody);
    let mut next = host.clone();
    next.quarantine.clear();
    if let State::Paused { outage, goodbye, .. } = &host.state {
        // It may lie ahead: the host has not heard yet of a shorter interval ([`edit`]).
        next.life.silent_from = host.life.silent_from.max(at.now);
        next.state = match (outage, goodbye, host.life.heard_at) {
            (Some(outage), _, _) => State::Down(*outage),
            (None, Some(Goodbye { since, back_by, reason }), _) => {
                let back_by = (*back_by).max(at.now.plus(host.need_ms()));
                (event.since, event.deadline) = (Some(*since), Some(back_by));
                State::Stopped { since: *since, back_by, reason: *reason }
            }
            (None, None, Some(_)) => State::Up { since: at.now },
            (None, None, None) => State::New,
        };
    }
    scribe.done(next, vec![event])
}

/// A host is taken out of service.
#[must_use]
pub fn retire(host: &Host, at: &Moment<'_>) -> Transition {
    let scribe = Scribe { before: host, salt: at.fresh, at };
    let outage = host.state.outage().copied();
    let mut event = scribe.event(Kind::Retired, outage.as_ref().map_or(Audience::Nobody, told_of));
    event.incident = outage.map(|outage| outage.incident);
    let mut next = host.clone();
    next.state = State::Retired { since: at.now };
    next.life.nonce = at.fresh;
    scribe.done(next, vec![event])
}

/// An operator, or the host itself with the proof of its key, changes what was wished at enrolment.
///
/// A shorter patience never turns silence that has already passed into an alarm: the host gets a hold-off first. Nor does a
/// shorter interval: the host beats by the old one until the answer to its next beat tells it.
#[must_use]
pub fn edit(host: &Host, wish: Wish, at: &Moment<'_>) -> Host {
    let mut next = host.clone();
    next.name = wish.name;
    next.tags = wish.tags;
    next.class = wish.class;
    next.interval_ms = seconds(wish.interval_s);
    next.grace_ms = seconds(wish.grace_s);
    next.max_away_ms = wish.max_away_s.map(seconds);
    let patience_ms = next.patience_ms().unwrap_or(next.need_ms());
    let held = at.now.plus(at.policy.hold_ms(next.interval_ms)).minus(patience_ms);
    let told = host.life.silent_from.plus(host.interval_ms.saturating_sub(next.interval_ms));
    let earliest = held.max(told);
    if matches!(next.state, State::New | State::Up { .. } | State::Paused { .. })
        && next.patience_ms() != host.patience_ms()
    {
        next.life.silent_from = next.life.silent_from.max(earliest);
    }
    next
}

/// The host enrols again with the proof of the key that it had: its wishes are taken over, its nonce is renewed.
#[must_use]
pub fn enrol_again(host: &Host, wish: Wish, at: &Moment<'_>) -> Transition {
    let mut next = edit(host, wish, at);
    next.life.nonce = at.fresh;
    next.life.nonce_at = at.now;
    // Told under the name that it has from now on.
    let event = Scribe { before: &next, salt: at.fresh, at }.event(Kind::Registered, Audience::Nobody);
    Scribe { before: host, salt: at.fresh, at }.done(next, vec![event])
}

/// The event that records an enrolment.
#[must_use]
pub fn registered(host: &Host, at: &Moment<'_>) -> Event {
    Scribe { before: host, salt: host.life.nonce, at }.event(Kind::Registered, Audience::Nobody)
}

/// Writes events about one host at one moment.
struct Scribe<'a> {
    before: &'a Host,
    /// Makes ids of different decisions differ: the nonce that was spent, or a fresh one.
    salt: Nonce,
    at: &'a Moment<'a>,
}

impl Scribe<'_> {
    fn id(&self, kind: Kind) -> EventId {
        let host: HostId = self.before.id;
        derive_id(self.at.now, kind, &[host.0.as_bytes(), &self.salt.0, &self.before.transitions.to_be_bytes()])
    }

    fn event(&self, kind: Kind, audience: Audience) -> Event {
        Event {
            id: self.id(kind),
            kind,
            subject: Some(Subject::of(self.before)),
            at: self.at.now,
            since: None,
            cause: None,
            deadline: None,
            incident: None,
            audience,
            members: Vec::new(),
            inputs: self.inputs(),
        }
    }

    /// What was known of the host before.
    fn inputs(&self) -> BTreeMap<String, Value> {
        let life = &self.before.life;
        let mut inputs = BTreeMap::new();
        inputs.insert("state".into(), self.before.state.word().into());
        inputs.insert("last_seq".into(), life.seq.into());
        inputs.insert("heard_at_ms".into(), life.heard_at.map(|at| at.0).into());
        inputs.insert("silent_from_ms".into(), life.silent_from.0.into());
        inputs.insert("interval_ms".into(), self.before.interval_ms.into());
        inputs.insert("grace_ms".into(), self.before.grace_ms.into());
        if let Some(holder) = life.holder {
            inputs.insert("boot".into(), holder.boot.to_string().into());
            inputs.insert("run".into(), holder.run.map(|run| run.to_string()).into());
        }
        if let Some(maintenance) = &self.before.maintenance {
            inputs.insert("maintenance_until_ms".into(), maintenance.until.0.into());
        }
        inputs
    }

    /// What a returning host says of its absence.
    fn evidence(&self, heard: &Heard<'_>) -> BTreeMap<String, Value> {
        let beat = heard.beat;
        let life = &self.before.life;
        let mut inputs = self.inputs();
        inputs.insert("new_boot".into(), life.holder.is_some_and(|live| live.boot != beat.boot).into());
        inputs.insert("new_run".into(), life.holder.is_some_and(|live| live.run != beat.run).into());
        inputs.insert("uptime_s".into(), beat.up.into());
        inputs.insert("unobserved_ms".into(), self.at.ledger.unobserved_ms(life.silent_from, self.at.now).into());
        if let Some(ending) = &beat.before {
            inputs.insert("before".into(), serde_json::to_value(ending).unwrap_or(Value::Null));
        }
        if let Some(gap) = &beat.gap {
            inputs.insert("gap".into(), serde_json::to_value(gap).unwrap_or(Value::Null));
        }
        inputs
    }

    fn done(&self, mut host: Host, events: Vec<Event>) -> Transition {
        host.transitions = self.before.transitions.saturating_add(u64::try_from(events.len()).unwrap_or(u64::MAX));
        Transition { host, events }
    }
}
