//! Two stores, each with its own connections, at one table: as two functions have it.

use futures_util::future::{join, join_all};
use hb_core::event::{Audience, Subject};
use hb_core::host::{Holder, Host, Outage, State};
use hb_core::incident::{Group, Incident};
use hb_core::ledger::Ledger;
use hb_core::policy::Policy;
use hb_store::{Beat, Beaten, Change, Committed, HostQuery, Store, Versioned};
use hb_store_dynamodb::{DynamoStore, Usage};
use hb_wire::beat::Fault;
use hb_wire::id::BootId;

use crate::emulator::{Emulator, TABLE, fresh};
use crate::world::{START, beat, enrol, event, everything, host, id, incident_id, nonce, read};

async fn two() -> (DynamoStore, DynamoStore, Emulator) {
    let (one, emulator) = fresh(Usage::default()).await;
    let other = DynamoStore::open(emulator.client(), TABLE, Usage::default()).await.unwrap();
    (one, other, emulator)
}

#[tokio::test]
async fn of_two_beats_that_spend_one_nonce_exactly_one_is_stored() {
    let (one, other, _emulator) = two().await;
    for n in 0..20 {
        enrol(&one, &host(n)).await;
        let with = |next| beat(&host(n), START.plus(1000), nonce(next));
        let outcomes = join(one.beat(with(1)), other.beat(with(2))).await;
        let stored = [outcomes.0.unwrap(), outcomes.1.unwrap()].map(|outcome| outcome == Beaten::Stored);
        assert_ne!(stored[0], stored[1], "host {n}");
        let spent = if stored[0] { nonce(1) } else { nonce(2) };
        assert_eq!(read(&one, id(n)).await.value.life.nonce, spent);
    }
}

#[tokio::test]
async fn of_a_beat_and_a_decision_the_faster_one_counts_and_nothing_is_half_done() {
    let (one, other, _emulator) = two().await;
    for n in 0..20 {
        enrol(&one, &host(n)).await;
        let held = read(&one, id(n)).await;
        let told = event(u128::from(n), Some(&held.value), Audience::Everyone);
        let outage = Outage { since: START, event: told.id, incident: incident_id(n.into()), grouped: false };
        let down = Host { state: State::Down(outage), ..held.value.clone() };
        let change =
            Change { host: Some(Versioned { value: down, rev: held.rev }), incident: None, events: vec![told.clone()] };
        let sent = beat(&held.value, START.plus(1000), nonce(1));
        let (committed, beaten) = join(one.commit(change), other.beat(sent)).await;
        let is_down = committed.unwrap() == Committed::Done;
        assert_eq!(beaten.unwrap() == Beaten::Stored, !is_down);
        let now = read(&other, id(n)).await.value;
        assert_eq!(matches!(now.state, State::Down(_)), is_down);
        assert_eq!(other.event(told.id).await.unwrap().is_some(), is_down);
        assert_eq!(other.down_in(incident_id(n.into()), 9).await.unwrap().len(), usize::from(is_down));
    }
}

#[tokio::test]
async fn refused_beats_leave_the_table_as_it_is() {
    let (one, _other, emulator) = two().await;
    enrol(&one, &host(1)).await;
    let before = everything(&emulator.client()).await;
    let good = beat(&host(1), START.plus(60_000), nonce(1));
    let stranger = Holder { boot: BootId(uuid::Uuid::from_u128(99)), ..good.holder };
    let bad = [
        Beat { spent: nonce(7), ..good.clone() },
        Beat { holder: stranger, ..good.clone() },
        Beat { seq: 1, ..good.clone() },
        Beat { now: START.plus(180_001), ..good.clone() },
        Beat { faults: vec![Fault::DiskFull], ..good.clone() },
        Beat { host: id(2), ..good.clone() },
    ];
    for sent in bad {
        assert_ne!(one.beat(sent).await.unwrap(), Beaten::Stored);
        assert_eq!(everything(&emulator.client()).await, before);
    }
    assert_eq!(one.beat(good).await.unwrap(), Beaten::Stored);
    assert_ne!(everything(&emulator.client()).await, before);
}

fn subject(n: u64) -> Subject {
    Subject::of(&host(n))
}

/// 5,000 hosts die; a thousand are named at once, the others join one after the other, from two functions.
#[tokio::test]
async fn an_incident_of_thousands_is_never_written_whole() {
    let (one, other, emulator) = two().await;
    let group = Group { tag: None, expected: 5000, silent: 1000, down: 0 };
    let members = (0..1000).map(subject).collect();
    let (opened, told) = Incident::open(&host(0), &group, members, START, &Policy::STANDARD);
    let change =
        Change { host: None, incident: Some(Versioned { value: opened.clone(), rev: 0 }), events: vec![told.clone()] };
    assert_eq!(one.commit(change).await.unwrap(), Committed::Done);
    assert_eq!(other.event(told.id).await.unwrap(), Some(told));

    let mut joined = 0;
    let mut n = 1000;
    while joined < 300 {
        let held = one.open_incidents().await.unwrap().remove(0);
        assert_eq!(other.open_incidents().await.unwrap(), std::slice::from_ref(&held));
        let joins = [n, n + 1].map(|n| Change {
            incident: Some(Versioned { value: held.value.join(&host(n)), rev: held.rev }),
            ..Change::default()
        });
        let before = one.spent();
        let [first, second] = joins;
        let outcomes = join(one.commit(first), other.commit(second)).await;
        let done = [outcomes.0.unwrap(), outcomes.1.unwrap()].map(|outcome| outcome == Committed::Done);
        assert_ne!(done[0], done[1], "one is faster");
        assert!(one.spent().written - before.written <= 8.0, "what is written is the head, and who joined");
        joined += 1;
        n += 2;
    }
    // A store that has not seen it before.
    let fresh = DynamoStore::open(emulator.client(), TABLE, Usage::default()).await.unwrap();
    let held = fresh.open_incidents().await.unwrap().remove(0);
    assert_eq!((held.value.members.len(), held.value.untold.len(), held.value.silent), (1000, 300, 1300));
    assert_eq!(one.open_incidents().await.unwrap(), std::slice::from_ref(&held));

    // The others die in one sweep: their names are more than an item holds.
    let mut value = held.value.clone();
    for n in 10_000..13_700 {
        value = Incident { silent: value.silent + 1, ..value };
        value.untold.push(subject(n));
    }
    let change = |value, rev, events| Change { host: None, incident: Some(Versioned { value, rev }), events };
    assert_eq!(one.commit(change(value.clone(), held.rev, vec![])).await.unwrap(), Committed::Done);
    let held = other.open_incidents().await.unwrap().remove(0);
    assert_eq!(held.value, value);
    let late: Vec<Subject> = (20_000..25_000).map(subject).collect();
    let (reviewed, events) = held.value.review(&[], &late, START.plus(60_000), &Policy::STANDARD).unwrap();
    assert_eq!(events[0].members.len(), 4000);
    assert_eq!(other.commit(change(reviewed.clone(), held.rev, events.clone())).await.unwrap(), Committed::Done);
    let held = one.open_incidents().await.unwrap().remove(0);
    assert_eq!(held.value, reviewed);
    assert_eq!(one.untold(9).await.unwrap().last(), events.first());
    let joined = held.value.join(&host(99_999));
    assert_eq!(one.commit(change(joined.clone(), held.rev, vec![])).await.unwrap(), Committed::Done);
    let again = DynamoStore::open(emulator.client(), TABLE, Usage::default()).await.unwrap();
    assert_eq!(again.open_incidents().await.unwrap()[0].value, joined);
}

#[tokio::test]
async fn hosts_are_found_and_move_when_there_are_more_shards() {
    let (few, emulator) = fresh(Usage { shards: 1, ..Usage::default() }).await;
    let hosts: Vec<Host> = (0..20).map(host).collect();
    join_all(hosts.iter().map(|host| enrol(&few, host))).await;
    let many = DynamoStore::open(emulator.client(), TABLE, Usage { shards: 16, ..Usage::default() }).await.unwrap();
    let all = HostQuery { limit: 100, ..HostQuery::default() };
    assert_eq!(many.hosts(&all).await.unwrap(), few.hosts(&all).await.unwrap());
    let no_gaps = Ledger::default();
    let due = |store: DynamoStore| async move {
        (store.due(START.plus(180_000), &no_gaps, &Policy::STANDARD, 100).await.unwrap().len(), store)
    };
    let (found, many) = due(many).await;
    assert_eq!(found, 20);
    for host in &hosts {
        let held = read(&many, host.id).await;
        let sent = beat(&held.value, START.plus(1000), nonce(1));
        // Where it is not looked for: it is decided about, and moves.
        if let Beaten::Decide(held) = many.beat(sent.clone()).await.unwrap() {
            let change = Change { host: Some(*held), ..Change::default() };
            assert_eq!(many.commit(change).await.unwrap(), Committed::Done);
            assert_eq!(many.beat(sent).await.unwrap(), Beaten::Stored);
        }
        assert_eq!(read(&many, host.id).await.value.life.nonce, nonce(1));
    }
    assert_eq!(many.fleet(START).await.unwrap().hosts, 20);
    // Fewer shards than ever before: the others are still looked at.
    let fewer = DynamoStore::open(emulator.client(), TABLE, Usage { shards: 2, ..Usage::default() }).await.unwrap();
    assert_eq!(fewer.fleet(START).await.unwrap().hosts, 20);
}
