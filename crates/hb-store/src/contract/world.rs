//! What clauses are made of: hosts, events, deliveries, and dice that fall the same way each time.

use std::collections::BTreeMap;

use hb_core::access::Channel;
use hb_core::delivery::Delivery;
use hb_core::event::{Audience, Event, Kind, Subject as About};
use hb_core::host::{Goodbye, Holder, Host, Maintenance, Outage, State, Wish};
use hb_core::ledger::Ledger;
use hb_core::time::Time;
use hb_wire::beat::{Fault, StopReason, Vitals};
use hb_wire::id::{BootId, ChannelId, EventId, HostId, IncidentId, RunId};
use hb_wire::key::PublicKey;
use hb_wire::name::{HostName, Tags};
use hb_wire::nonce::Nonce;
use hb_wire::view::Class;
use uuid::Uuid;

use super::Subject;
use crate::{Beat, Change, Committed, Credential, Enrolled, Versioned};

/// The moment at which most clauses begin, in milliseconds.
pub(super) const START: u64 = 1_800_000_000_000;

/// `ms` after the beginning.
pub(super) fn at(ms: u64) -> Time {
    Time(START + ms)
}

/// A different id for each number.
pub(super) fn uuid(kind: u8, n: u64) -> Uuid {
    let mut random = [kind; 10];
    random[2..].copy_from_slice(&n.to_be_bytes());
    HostId::mint(START, random).0
}

pub(super) fn host_id(n: u64) -> HostId {
    HostId(uuid(1, n))
}

pub(super) fn incident_id(n: u64) -> IncidentId {
    IncidentId(uuid(2, n))
}

pub(super) fn channel_id(n: u64) -> ChannelId {
    ChannelId(uuid(3, n))
}

pub(super) fn nonce(n: u64) -> Nonce {
    let mut bytes = [7; 16];
    bytes[8..].copy_from_slice(&n.to_be_bytes());
    Nonce(bytes)
}

pub(super) fn key(n: u64) -> PublicKey {
    let mut bytes = [9; 32];
    bytes[24..].copy_from_slice(&n.to_be_bytes());
    PublicKey(bytes)
}

pub(super) fn name(text: &str) -> HostName {
    HostName::parse(text).unwrap()
}

pub(super) fn tags(pairs: &[(&str, &str)]) -> Tags {
    let pairs: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Tags::parse(pairs).unwrap()
}

pub(super) fn holder(n: u64) -> Holder {
    Holder { run: Some(RunId(uuid(4, n))), boot: BootId(uuid(5, n)) }
}

/// A host that was just enrolled: interval 60 s, grace 120 s.
pub(super) fn host(n: u64) -> Host {
    let wish = Wish {
        name: name(&format!("host-{n:05}")),
        tags: Tags::default(),
        class: Class::Server,
        interval_s: 60,
        grace_s: 120,
        max_away_s: None,
    };
    wish.enrol(host_id(n), key(n), nonce(0), at(0))
}

/// A host that is up since the beginning.
pub(super) fn up(n: u64) -> Host {
    let mut host = host(n);
    host.state = State::Up { since: at(0) };
    host.life.heard_at = Some(at(0));
    host.life.holder = Some(holder(n));
    host.life.seq = 1;
    host
}

/// An event about a host, or about none.
pub(super) fn event(n: u64, about: Option<&Host>, audience: Audience) -> Event {
    Event {
        id: EventId(uuid(6, n)),
        kind: Kind::Down,
        subject: about.map(About::of),
        at: at(n),
        since: Some(at(0)),
        cause: None,
        deadline: None,
        incident: None,
        audience,
        members: Vec::new(),
        inputs: BTreeMap::new(),
    }
}

pub(super) fn channel(n: u64) -> Channel {
    Channel {
        id: channel_id(n),
        name: format!("channel-{n}"),
        kind: "webhook".into(),
        settings: serde_json::json!({"url": "https://example.org/"}),
        target: "https://example.org/".into(),
        admin: false,
        created_at: at(n),
        last_delivered_at: None,
        last_error: None,
    }
}

/// The event of a host's enrolment.
pub(super) fn first_event(host: &Host) -> Event {
    Event { id: EventId(host.id.0), kind: Kind::Registered, ..event(0, Some(host), Audience::Nobody) }
}

pub(super) async fn enrol(store: &Subject, host: &Host) {
    let first = first_event(host);
    assert_eq!(store.enrol(host, &first, &Credential::Trusted, at(0)).await.unwrap(), Enrolled::Done);
}

pub(super) async fn enrol_all(store: &Subject, hosts: &[Host]) {
    futures_util::future::join_all(hosts.iter().map(|host| enrol(store, host))).await;
}

pub(super) async fn read(store: &Subject, id: HostId) -> Versioned<Host> {
    store.host(id).await.unwrap().expect("the host was enrolled")
}

/// A change of one host.
pub(super) fn to(host: Versioned<Host>, events: Vec<Event>) -> Change {
    Change { host: Some(host), incident: None, events }
}

/// Reads a host, changes it, writes it.
pub(super) async fn edit(store: &Subject, id: HostId, change: impl FnOnce(&mut Host)) {
    let mut held = read(store, id).await;
    change(&mut held.value);
    assert_eq!(store.commit(to(held, vec![])).await.unwrap(), Committed::Done);
}

/// Stores an event and makes its deliveries to these channels.
pub(super) async fn tell(store: &Subject, event: &Event, channels: &[u64]) -> Vec<Delivery> {
    let change = Change { events: vec![event.clone()], ..Change::default() };
    assert_eq!(store.commit(change).await.unwrap(), Committed::Done);
    let made: Vec<_> = channels.iter().map(|n| Delivery::new(event, channel_id(*n), event.at)).collect();
    store.tell(event.id, &made).await.unwrap();
    made
}

/// A beat that this host's fast path takes at `now`.
pub(super) fn beat_of(host: &Host, now: Time, next: Nonce) -> Beat {
    Beat {
        host: host.id,
        spent: host.life.nonce,
        next,
        now,
        interval_ms: host.interval_ms,
        holder: host.life.holder.unwrap_or(holder(0)),
        seq: host.life.seq.saturating_add(1),
        up_s: 77,
        skew_ms: Some(-12),
        agent: "0.1.0".into(),
        faults: host.life.faults.iter().copied().collect(),
        vitals: None,
    }
}

/// Dice that fall the same way for the same seed (`SplitMix64`).
#[derive(Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to below `n`.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// True once in `n` times.
    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(super) fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        let n = u64::try_from(of.len()).unwrap();
        of[usize::try_from(self.below(n)).unwrap()].clone()
    }

    fn maybe<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.one_in(2) { Some(value(self)) } else { None }
    }

    /// A time within five minutes around `now`, on a coarse grid so that times meet.
    pub(super) fn around(&mut self, now: Time) -> Time {
        now.minus(300_000).plus(self.below(21) * 30_000)
    }

    pub(super) fn vitals(&mut self) -> Vitals {
        #[expect(clippy::cast_precision_loss, reason = "any number will do")]
        let load = self.below(10_000) as f64 / 97.0;
        let mut vitals =
            Vitals { load1: Some(load), cpus: Some(64), mem_used_bytes: Some(self.next() >> 1), ..Vitals::default() };
        vitals.more.insert("température".into(), serde_json::json!(load / 3.0));
        vitals
    }

    fn holder(&mut self) -> Holder {
        Holder { run: self.maybe(|dice| RunId(uuid(4, dice.below(3)))), boot: BootId(uuid(5, self.below(3))) }
    }

    fn state(&mut self, now: Time) -> State {
        let outage = |dice: &mut Self| Outage {
            since: dice.around(now),
            event: EventId(uuid(6, dice.next())),
            incident: incident_id(dice.below(4)),
            grouped: dice.one_in(2),
        };
        let since = self.around(now);
        match self.below(8) {
            0 => State::New,
            1 => State::Down(outage(self)),
            2 => State::Stopped { since, back_by: self.around(now), reason: StopReason::Reboot },
            3 => {
                let until = self.maybe(|dice| dice.around(now));
                let goodbye = Goodbye { since, back_by: since.plus(60_000), reason: StopReason::Poweroff };
                let (outage, goodbye) = (self.maybe(outage), self.maybe(|_| goodbye));
                State::Paused { since, until, reason: "Umzug – 引越し".into(), outage, goodbye }
            }
            4 => State::Retired { since },
            _ => State::Up { since },
        }
    }

    /// Any host at all, as of about `now`.
    pub(super) fn host(&mut self, n: u64, now: Time) -> Host {
        let mut host = host(n);
        host.tags = self.pick(&[
            Tags::default(),
            tags(&[("site", "ams1")]),
            tags(&[("site", "zrh"), ("env", "prod")]),
            tags(&[("site", "ams1"), ("env", "prod"), ("note", "Zürich 東京 🚀")]),
        ]);
        host.class = self.pick(&[Class::Server, Class::Server, Class::Intermittent, Class::Ephemeral]);
        host.interval_ms = self.pick(&[1000, 30_000, 60_000, 120_000]);
        host.grace_ms = self.pick(&[1000, 60_000, 120_000]);
        host.max_away_ms = self.maybe(|dice| dice.below(10) * 30_000);
        let until = self.around(now);
        host.maintenance = self.maybe(|_| Maintenance { until, note: "kernel \"6.12\"\u{7f}".into() });
        host.trouble = self.maybe(|dice| incident_id(dice.next()));
        host.next_key = self.maybe(|_| key(n + 1_000_000));
        host.state = self.state(now);
        host.life.nonce = nonce(self.below(2));
        host.life.nonce_at = self.around(now).min(now);
        // It may lie ahead: an operator moved it on.
        host.life.silent_from = self.around(now);
        host.life.heard_at = match self.below(8) {
            0 => None,
            1 => Some(self.around(now)),
            _ => Some(host.life.silent_from.min(now)),
        };
        host.life.holder = if self.one_in(8) { None } else { Some(self.holder()) };
        host.life.seq = self.below(4);
        host.life.up_s = self.below(1 << 40);
        host.life.skew_ms = self.maybe(|dice| i64::try_from(dice.below(1 << 50)).unwrap() - (1 << 49));
        host.life.agent = self.pick(&["0.1.0".to_owned(), String::new(), "9.9-β".to_owned()]);
        host.life.faults = self.faults().into_iter().collect();
        host.life.vitals = self.maybe(Self::vitals);
        let others = self.below(3);
        host.quarantine = (0..others).map(|_| self.holder()).collect();
        host.former = (0..others).map(|_| self.holder()).collect();
        host.transitions = self.below(1000);
        host
    }

    pub(super) fn faults(&mut self) -> Vec<Fault> {
        self.pick(&[vec![], vec![], vec![Fault::DiskFull], vec![Fault::RootReadOnly, Fault::StateUnwritable]])
    }

    /// Some gaps before `now`.
    pub(super) fn ledger(&mut self, now: Time) -> Ledger {
        let mut ledger = Ledger::default();
        let mut from = now.minus(600_000);
        for _ in 0..self.below(4) {
            from = from.plus(self.below(10) * 10_000);
            let to = from.plus(self.pick(&[1000, 10_000, 20_000, 100_000]));
            ledger.enter(from, to.min(now));
            from = to;
        }
        ledger
    }
}
