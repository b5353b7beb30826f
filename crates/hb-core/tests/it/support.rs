//! A host, a ledger and a clock, and one line per thing that happens to them.

use hb_core::event::{Event, Kind};
use hb_core::host::{Host, State, Wish};
use hb_core::ledger::Ledger;
use hb_core::machine::{self, Grouping, Heard, Moment, Transition, Verdict};
use hb_core::policy::Policy;
use hb_core::time::Time;
use hb_wire::beat::{Beat, Ending, Gap, Intent, StopReason};
use hb_wire::id::{BootId, HostId, RunId};
use hb_wire::key::{HostKey, PublicKey};
use hb_wire::name::{HostName, Tags};
use hb_wire::nonce::Nonce;
use hb_wire::view::Class;

/// Interval and grace of the host under test, in seconds.
pub const INTERVAL: u64 = 60;
pub const GRACE: u64 = 120;

#[derive(Debug, Clone)]
pub struct World {
    pub host: Host,
    pub ledger: Ledger,
    pub policy: Policy,
    pub now: Time,
    pub events: Vec<Event>,
    randoms: u128,
    seq: u64,
}

/// What a beat says beyond "I am alive".
#[derive(Debug, Clone, Default)]
pub struct Says {
    pub boot: u8,
    pub run: u8,
    pub intent: Option<Intent>,
    pub before: Option<Ending>,
    pub gap: Option<Gap>,
    pub degraded: Vec<hb_wire::beat::Fault>,
    /// Signed by this key instead of the host's.
    pub key: Option<PublicKey>,
}

pub fn boot(n: u8) -> BootId {
    BootId(uuid::Uuid::from_bytes([n; 16]))
}

pub fn run(n: u8) -> RunId {
    RunId(uuid::Uuid::from_bytes([0x80 | n; 16]))
}

pub fn goodbye(reason: StopReason, back_in_s: u64) -> Says {
    Says { intent: Some(Intent::Goodbye { reason, back_in_s }), ..Says::default() }
}

pub fn wish(class: Class) -> Wish {
    Wish {
        name: HostName::parse("web1").unwrap(),
        tags: Tags::default(),
        class,
        interval_s: INTERVAL,
        grace_s: GRACE,
        max_away_s: None,
    }
}

impl World {
    pub fn new() -> Self {
        Self::of(Class::Server)
    }

    pub fn of(class: Class) -> Self {
        let now = Time(1_000_000_000);
        let id = HostId::mint(now.0, [1; 10]);
        let host = wish(class).enrol(id, HostKey::from_seed([1; 32]).public(), Nonce([1; 16]), now);
        Self { host, ledger: Ledger::default(), policy: Policy::STANDARD, now, events: Vec::new(), randoms: 7, seq: 0 }
    }

    /// A host that was heard once, just now.
    pub fn up() -> Self {
        let mut world = Self::new();
        world.beat();
        world.events.clear();
        world
    }

    pub fn wait(&mut self, s: u64) -> &mut Self {
        self.now = self.now.plus(s * 1000);
        self
    }

    /// hb does not observe for so many seconds.
    pub fn blind(&mut self, s: u64) -> &mut Self {
        let from = self.now;
        self.wait(s);
        self.ledger.enter(from, self.now);
        self
    }

    pub fn at<T>(&mut self, decide: impl FnOnce(&Host, &Moment<'_>) -> T) -> T {
        self.randoms += 1;
        let fresh = Nonce(self.randoms.to_be_bytes());
        decide(&self.host, &Moment { now: self.now, ledger: &self.ledger, policy: &self.policy, fresh })
    }

    pub fn verdict(&mut self, says: &Says, spent: Nonce) -> Verdict {
        self.seq += 1;
        let beat = Beat {
            boot: boot(says.boot),
            run: Some(run(says.run)),
            seq: self.seq,
            up: 1,
            v: "0.1.0".into(),
            sent_at: None,
            intent: says.intent.clone(),
            before: says.before.clone(),
            gap: says.gap.clone(),
            degraded: says.degraded.clone(),
            vitals: None,
            pass: None,
        };
        let created = i64::try_from(self.now.0 / 1000).unwrap();
        let key = says.key.unwrap_or(self.host.key);
        self.at(|host, moment| machine::beat(host, &Heard { key, beat: &beat, spent, created }, moment))
    }

    /// The host beats, getting a fresh nonce first if it needs one; what kinds of events that made.
    pub fn says(&mut self, says: &Says) -> Vec<Kind> {
        self.try_says(says).expect("not refused as a clone")
    }

    /// None: refused as a clone.
    pub fn try_says(&mut self, says: &Says) -> Option<Vec<Kind>> {
        let nonce = self.host.life.nonce;
        let mut verdict = self.verdict(says, nonce);
        if let Verdict::Stale(renewed) = verdict {
            if let Some(host) = renewed {
                self.host = host;
            }
            let nonce = self.host.life.nonce;
            verdict = self.verdict(says, nonce);
        }
        match verdict {
            Verdict::Accepted(transition) => Some(self.take(transition)),
            Verdict::Cloned => None,
            other => panic!("not accepted: {other:?}"),
        }
    }

    pub fn beat(&mut self) -> Vec<Kind> {
        self.says(&Says::default())
    }

    pub fn sweep(&mut self) -> Vec<Kind> {
        match self.at(|host, moment| machine::sweep(host, Grouping::Single, moment)) {
            Some(transition) => self.take(transition),
            None => Vec::new(),
        }
    }

    pub fn take(&mut self, transition: Transition) -> Vec<Kind> {
        self.host = transition.host;
        let kinds = transition.events.iter().map(|event| event.kind).collect();
        self.events.extend(transition.events);
        kinds
    }

    pub fn last(&self) -> &Event {
        self.events.last().expect("an event happened")
    }

    pub fn is_down(&self) -> bool {
        matches!(self.host.state, State::Down(_))
    }
}
