//! A host: who it is, what was last heard of it, and the state that follows.

use std::collections::BTreeSet;

use hb_wire::beat::{Fault, StopReason, Vitals};
use hb_wire::id::{BootId, EventId, HostId, IncidentId, RunId};
use hb_wire::key::PublicKey;
use hb_wire::name::{HostName, Tags};
use hb_wire::nonce::Nonce;
use hb_wire::view::Class;
use serde::{Deserialize, Serialize};

use crate::ledger::Ledger;
use crate::policy::Policy;
use crate::time::{Time, seconds};

/// A host that is enrolled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Given by the server at registration; never changes.
    pub id: HostId,
    /// A label, unique among hosts that are not retired.
    pub name: HostName,
    /// Labels.
    pub tags: Tags,
    /// What it is.
    pub class: Class,
    /// Its key is its identity.
    pub key: PublicKey,
    /// The key that takes over at its first beat; until then both are good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_key: Option<PublicKey>,
    /// When it was enrolled.
    pub enrolled_at: Time,
    /// Time between beats.
    pub interval_ms: u64,
    /// Time past the interval after which silence is an alarm.
    pub grace_ms: u64,
    /// For intermittent hosts: the longest absence that raises no alarm. None: absence never does.
    pub max_away_ms: Option<u64>,
    /// Announced silence, see [`hb_wire::beat::Intent::Maintenance`].
    pub maintenance: Option<Maintenance>,
    /// The incident of a host that is alive but not fit for work.
    pub trouble: Option<IncidentId>,
    /// What was decided.
    pub state: State,
    /// What was heard. The part that every beat changes.
    pub life: Life,
    /// Runs and boots that turned out to be clones of this host; refused until an operator resumes the host.
    pub quarantine: Vec<Holder>,
    /// Runs that another one followed, newest last, at most [`FORMER_MAX`].
    pub former: Vec<Holder>,
    /// Transitions so far; part of the ids of events that operators cause.
    pub transitions: u64,
}

/// How many former runs are remembered to recognise a clone.
pub const FORMER_MAX: usize = 8;
/// How many clones are kept in quarantine; the oldest is forgotten, and found again when it returns.
pub const QUARANTINE_MAX: usize = 8;

/// One holder of a host's key: a run of an agent in a boot of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The agent's run; agents that send none are known by their boot alone.
    pub run: Option<RunId>,
    /// The machine's boot.
    pub boot: BootId,
}

/// What every accepted beat changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Life {
    /// The nonce that the next beat must spend.
    pub nonce: Nonce,
    /// When that nonce was issued; it expires by elapsed time, observed or not.
    pub nonce_at: Time,
    /// When the last accepted beat was stored.
    pub heard_at: Option<Time>,
    /// From when silence counts: the last accepted beat, or the enrolment, a resume or an edit after it.
    pub silent_from: Time,
    /// Who sent the last accepted beat.
    pub holder: Option<Holder>,
    /// The agent's counter.
    pub seq: u64,
    /// Seconds since boot.
    pub up_s: u64,
    /// The host's clock minus the server's, in milliseconds.
    pub skew_ms: Option<i64>,
    /// The agent's version.
    pub agent: String,
    /// What keeps it from working.
    pub faults: BTreeSet<Fault>,
    /// Readings.
    pub vitals: Option<Vitals>,
}

/// Announced maintenance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    /// Silence before this is no alarm.
    pub until: Time,
    /// Why.
    pub note: String,
}

/// An outage that people were, or are being, told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// When it was decided.
    pub since: Time,
    /// The event that says so.
    pub event: EventId,
    /// What it belongs to.
    pub incident: IncidentId,
    /// True when the incident speaks for it: no message of its own.
    pub grouped: bool,
}

/// What a host said when it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goodbye {
    /// When.
    pub since: Time,
    /// When it should be back.
    pub back_by: Time,
    /// Why.
    pub reason: StopReason,
}

/// What was decided about a host. Each state carries only what it needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum State {
    /// Enrolled, never heard.
    New,
    /// Heard in time.
    Up {
        /// Since when.
        since: Time,
    },
    /// Silent past its deadline.
    Down(Outage),
    /// Said goodbye.
    Stopped {
        /// Since when.
        since: Time,
        /// When it should be back.
        back_by: Time,
        /// Why it went.
        reason: StopReason,
    },
    /// Paused by an operator: silence is no alarm.
    Paused {
        /// Since when.
        since: Time,
        /// Until when; none means until resumed.
        until: Option<Time>,
        /// Why.
        reason: String,
        /// The outage that had been told before the pause and has not ended.
        outage: Option<Outage>,
        /// What the host said when it went, if it was not heard since.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        goodbye: Option<Goodbye>,
    },
    /// Out of service; kept for its history.
    Retired {
        /// Since when.
        since: Time,
    },
}

impl State {
    /// The state in a word, as stored and as shown.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Up { .. } => "up",
            Self::Down(_) => "down",
            Self::Stopped { .. } => "stopped",
            Self::Paused { .. } => "paused",
            Self::Retired { .. } => "retired",
        }
    }

    /// What the host said when it went, if it was not heard since.
    #[must_use]
    pub fn goodbye(&self) -> Option<Goodbye> {
        match *self {
            Self::Stopped { since, back_by, reason } => Some(Goodbye { since, back_by, reason }),
            Self::Paused { goodbye, .. } => goodbye,
            Self::New | Self::Up { .. } | Self::Down(_) | Self::Retired { .. } => None,
        }
    }

    /// The outage that is open in this state.
    #[must_use]
    pub fn outage(&self) -> Option<&Outage> {
        match self {
            Self::Down(outage) => Some(outage),
            Self::Paused { outage, .. } => outage.as_ref(),
            Self::New | Self::Up { .. } | Self::Stopped { .. } | Self::Retired { .. } => None,
        }
    }
}

impl Host {
    /// Interval plus grace.
    #[must_use]
    pub fn need_ms(&self) -> u64 {
        self.interval_ms.saturating_add(self.grace_ms)
    }

    /// How long the host may be silent before it is an alarm; none: silence never is.
    #[must_use]
    pub fn patience_ms(&self) -> Option<u64> {
        match self.class {
            Class::Server | Class::Ephemeral => Some(self.need_ms()),
            Class::Intermittent => self.max_away_ms.map(|away| away.max(self.need_ms())),
        }
    }

    /// When the sweep has something to decide about this host, gaps and hold-offs credited; none: never.
    ///
    /// This is the only definition of a deadline. Stores may keep anything earlier as an index, never anything later.
    #[must_use]
    pub fn alarm_at(&self, ledger: &Ledger, policy: &Policy) -> Option<Time> {
        let hold = policy.hold_ms(self.interval_ms);
        let silence = |need_ms| ledger.due_at(self.life.silent_from, need_ms, hold, policy);
        match &self.state {
            State::New => Some(silence(self.need_ms())),
            State::Up { .. } => {
                let due = silence(self.patience_ms()?);
                // Where hb was blind at its end, the host gets its hold-off as after any gap.
                let over = |until| ledger.due_at(until, 0, hold, policy);
                Some(self.maintenance.as_ref().map_or(due, |maintenance| due.max(over(maintenance.until))))
            }
            State::Stopped { since, back_by, .. } => {
                Some(ledger.back_at(*since, back_by.since(*since), self.need_ms(), hold, policy))
            }
            State::Paused { until, .. } => *until,
            State::Down(outage) => match self.class {
                Class::Ephemeral => Some(outage.since.plus(policy.ephemeral_down_ms)),
                Class::Server | Class::Intermittent => None,
            },
            State::Retired { .. } => None,
        }
    }

    /// The deadline before any credit: never later than [`Host::alarm_at`], so that a store may index it.
    #[must_use]
    pub fn alarm_floor(&self, policy: &Policy) -> Option<Time> {
        self.alarm_at(&Ledger::default(), policy)
    }

    /// True when the host has missed a beat: it is past its interval, by observed time, while it should be beating.
    #[must_use]
    pub fn is_late(&self, now: Time, ledger: &Ledger) -> bool {
        let observed =
            now.since(self.life.silent_from).saturating_sub(ledger.unobserved_ms(self.life.silent_from, now));
        matches!(self.state, State::Up { .. }) && observed > self.interval_ms
    }

    /// True while a beat is expected and its absence would say something about others, too: the host is up, in no announced
    /// maintenance, and not one that may be away for longer than interval plus grace.
    #[must_use]
    pub fn is_expected(&self, now: Time) -> bool {
        matches!(self.state, State::Up { .. }) && self.is_always_on() && !self.in_maintenance(now)
    }

    /// True when silence is an alarm after interval plus grace.
    #[must_use]
    pub fn is_always_on(&self) -> bool {
        self.patience_ms() == Some(self.need_ms())
    }

    /// True while an announced maintenance lasts.
    #[must_use]
    pub fn in_maintenance(&self, now: Time) -> bool {
        self.maintenance.as_ref().is_some_and(|maintenance| now < maintenance.until)
    }

    /// True when the nonce may still be spent: it lives for interval plus grace of *elapsed* time.
    #[must_use]
    pub fn nonce_alive(&self, now: Time, ledger: &Ledger) -> bool {
        let mut age = now.since(self.life.nonce_at);
        if crate::mutant::active(crate::mutant::Mutant::OneClock) {
            age = age.saturating_sub(ledger.unobserved_ms(self.life.nonce_at, now));
        }
        age <= self.need_ms()
    }
}

/// What a host asks for when it is enrolled; parsed and bounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Its label.
    pub name: HostName,
    /// Labels.
    pub tags: Tags,
    /// What it is.
    pub class: Class,
    /// Seconds between beats.
    pub interval_s: u64,
    /// Seconds of grace.
    pub grace_s: u64,
    /// For intermittent hosts, in seconds.
    pub max_away_s: Option<u64>,
}

impl Wish {
    /// The newly enrolled host.
    #[must_use]
    pub fn enrol(self, id: HostId, key: PublicKey, nonce: Nonce, now: Time) -> Host {
        Host {
            id,
            name: self.name,
            tags: self.tags,
            class: self.class,
            key,
            next_key: None,
            enrolled_at: now,
            interval_ms: seconds(self.interval_s),
            grace_ms: seconds(self.grace_s),
            max_away_ms: self.max_away_s.map(seconds),
            maintenance: None,
            trouble: None,
            state: State::New,
            life: Life {
                nonce,
                nonce_at: now,
                heard_at: None,
                silent_from: now,
                holder: None,
                seq: 0,
                up_s: 0,
                skew_ms: None,
                agent: String::new(),
                faults: BTreeSet::new(),
                vitals: None,
            },
            quarantine: Vec::new(),
            former: Vec::new(),
            transitions: 0,
        }
    }
}
