//! Hosts, beats and events for the tests of this crate.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use hb_core::event::{Audience, Event, Kind, Subject};
use hb_core::host::{Holder, Host, State, Wish};
use hb_core::time::Time;
use hb_store::{Beat, Credential, Enrolled, Store, Versioned};
use hb_store_dynamodb::table::{PK, SK};
use hb_wire::beat::Vitals;
use hb_wire::id::{BootId, EventId, HostId, IncidentId, RunId};
use hb_wire::key::PublicKey;
use hb_wire::name::{HostName, Tags};
use hb_wire::nonce::Nonce;
use hb_wire::view::Class;
use uuid::Uuid;

use crate::emulator::TABLE;

pub(crate) const START: Time = Time(1_800_000_000_000);

pub(crate) fn id(n: u64) -> HostId {
    let mut random = [3; 10];
    random[2..].copy_from_slice(&n.to_be_bytes());
    // The hash of an id decides about its shard.
    HostId::mint(START.0, random)
}

pub(crate) fn nonce(n: u64) -> Nonce {
    let mut bytes = [5; 16];
    bytes[8..].copy_from_slice(&n.to_be_bytes());
    Nonce(bytes)
}

pub(crate) fn incident_id(n: u128) -> IncidentId {
    IncidentId(Uuid::from_u128(n))
}

/// What the agent of a usual server says.
pub(crate) fn vitals() -> Vitals {
    Vitals {
        load1: Some(0.42),
        cpus: Some(8),
        mem_used_bytes: Some(5_368_709_120),
        mem_total_bytes: Some(16_777_216_000),
        disk_free_bytes: Some(123_456_789_012),
        disk_total_bytes: Some(512_110_190_592),
        ..Vitals::default()
    }
}

/// A host that is up, and beats each minute, as an agent has them.
pub(crate) fn host(n: u64) -> Host {
    let tags = BTreeMap::from([("site".to_owned(), "ams1".to_owned()), ("env".to_owned(), "prod".to_owned())]);
    let wish = Wish {
        name: HostName::parse(&format!("web-{n:05}.example.org")).unwrap(),
        tags: Tags::parse(tags).unwrap(),
        class: Class::Server,
        interval_s: 60,
        grace_s: 120,
        max_away_s: None,
    };
    let mut key = [8; 32];
    key[24..].copy_from_slice(&n.to_be_bytes());
    let mut host = wish.enrol(id(n), PublicKey(key), nonce(0), START);
    let holder = |n| Uuid::from_u128(0x0190_1234_5678_7abc_8def_0000_0000_0000 + u128::from(n));
    host.state = State::Up { since: START };
    host.life.holder = Some(Holder { run: Some(RunId(holder(n))), boot: BootId(holder(n + 1)) });
    host.life.heard_at = Some(START);
    host.life.seq = 4711;
    host.life.up_s = 1_234_567;
    host.life.skew_ms = Some(-12);
    host.life.agent = "0.1.0".into();
    host.life.vitals = Some(vitals());
    host
}

pub(crate) fn event(n: u128, about: Option<&Host>, audience: Audience) -> Event {
    Event {
        id: EventId(Uuid::from_u128(0x0190_0000_0000_7000_9000_0000_0000_0000 + n)),
        kind: Kind::Down,
        subject: about.map(Subject::of),
        at: START.plus(1),
        since: Some(START),
        cause: None,
        deadline: None,
        incident: None,
        audience,
        members: Vec::new(),
        inputs: BTreeMap::new(),
    }
}

pub(crate) async fn enrol(store: &impl Store, host: &Host) {
    let first = Event { id: EventId(host.id.0), kind: Kind::Registered, ..event(0, Some(host), Audience::Nobody) };
    assert_eq!(store.enrol(host, &first, &Credential::Trusted, START).await.unwrap(), Enrolled::Done);
}

pub(crate) async fn read(store: &impl Store, id: HostId) -> Versioned<Host> {
    store.host(id).await.unwrap().unwrap()
}

/// A beat that the fast path takes.
pub(crate) fn beat(host: &Host, now: Time, next: Nonce) -> Beat {
    Beat {
        host: host.id,
        spent: host.life.nonce,
        next,
        now,
        interval_ms: host.interval_ms,
        holder: host.life.holder.unwrap(),
        seq: host.life.seq + 1,
        up_s: host.life.up_s + 60,
        skew_ms: Some(7),
        agent: "0.1.0".into(),
        faults: host.life.faults.iter().copied().collect(),
        vitals: Some(vitals()),
    }
}

/// Everything that is in the table, in order. Only tests look at it like that.
pub(crate) async fn everything(client: &Client) -> Vec<String> {
    let mut items = Vec::new();
    let mut start = None;
    loop {
        let page = client.scan().table_name(TABLE).set_exclusive_start_key(start).send().await.unwrap();
        items.extend(page.items().iter().map(|item| {
            let sorted: BTreeMap<&String, &AttributeValue> = item.iter().collect();
            format!("{:?} {:?} {sorted:?}", item[PK], item[SK])
        }));
        start = page.last_evaluated_key;
        if start.is_none() {
            items.sort();
            return items;
        }
    }
}
