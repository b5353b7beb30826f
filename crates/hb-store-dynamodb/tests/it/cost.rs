//! What it costs, as DynamoDB itself counts it. `--no-capture` shows the figures.

use hb_core::delivery::Delivery;
use hb_core::event::Audience;
use hb_core::host::Outage;
use hb_core::host::State;
use hb_core::ledger::Ledger;
use hb_core::policy::Policy;
use hb_store::{Beaten, Change, Committed, Signer, Store as _, Versioned};
use hb_store_dynamodb::{DynamoStore, Spent, Usage};

use crate::emulator::{TABLE, fresh};
use crate::regions::channel;
use crate::world::{START, beat, enrol, event, host, id, incident_id, nonce, read};

fn usage(shards: u16) -> Usage {
    Usage { shards, region: "eu-central-1".into() }
}

/// What was consumed meanwhile.
async fn cost<T>(store: &DynamoStore, work: impl Future<Output = T>) -> (T, Spent) {
    let before = store.spent();
    let done = work.await;
    let after = store.spent();
    let spent = Spent {
        requests: after.requests - before.requests,
        read: after.read - before.read,
        written: after.written - before.written,
        by_indexes: after.by_indexes - before.by_indexes,
    };
    (done, spent)
}

#[tokio::test]
async fn a_beat_is_one_request_and_one_unit_and_no_index() {
    let (store, emulator) = fresh(usage(16)).await;
    enrol(&store, &host(1)).await;
    for n in 1..=3 {
        let known = read(&store, id(1)).await.value;
        let message = beat(&known, START.plus(60_000 * n), nonce(n));
        let (outcome, spent) = cost(&store, store.beat(message)).await;
        println!("a beat: {spent:?}");
        assert_eq!(outcome.unwrap(), Beaten::Stored);
        assert_eq!(spent, Spent { requests: 1, read: 0.0, written: 1.0, by_indexes: 0.0 });
    }
    let described = emulator.client().describe_table().table_name(TABLE).send().await.unwrap();
    let described = described.table().unwrap();
    assert!(described.global_secondary_indexes().is_empty() && described.local_secondary_indexes().is_empty());
}

#[tokio::test]
async fn a_beat_with_all_that_an_agent_may_say_is_still_one_unit() {
    let (store, _emulator) = fresh(usage(16)).await;
    enrol(&store, &host(1)).await;
    let mut message = beat(&host(1), START.plus(60_000), nonce(1));
    message.agent = "9".repeat(32);
    let more = (0..16).map(|n| (format!("reading_number_{n:02}_of_many"), serde_json::json!(1234.5)));
    message.vitals.as_mut().unwrap().more.extend(more);
    let (outcome, spent) = cost(&store, store.beat(message)).await;
    assert_eq!(outcome.unwrap(), Beaten::Stored);
    assert_eq!((spent.requests, spent.written), (1, 1.0));
}

/// 25 units for 1,000 hosts, in each number of shards. What is read are the slim items as agents leave them.
#[expect(clippy::print_stdout, reason = "the figures are for people to read")]
async fn sweep(shards: u16) {
    let (store, _emulator) = fresh(usage(shards)).await;
    let hosts: Vec<_> = (0..1000).map(host).collect();
    for some in hosts.chunks(50) {
        futures_util::future::join_all(some.iter().map(|host| enrol(&store, host))).await;
    }
    let no_gaps = Ledger::default();
    let now = START.plus(180_000);
    let (due, spent) = cost(&store, store.due(now.minus(1), &no_gaps, &Policy::STANDARD, 500)).await;
    assert!(due.unwrap().is_empty());
    println!("a sweep of 1,000 hosts in {shards} shards, nobody due: {spent:?}");
    assert!(spent.read > 15.0 && spent.read <= 25.0, "{spent:?}");
    assert_eq!((spent.requests, spent.written), (u64::from(shards), 0.0));
    let (due, spent) = cost(&store, store.due(now, &no_gaps, &Policy::STANDARD, 10)).await;
    assert_eq!(due.unwrap().len(), 10);
    println!("a sweep of 1,000 hosts in {shards} shards, 10 of those that are due read: {spent:?}");
    assert!(spent.read <= 30.0, "{spent:?}");
}

#[tokio::test]
async fn a_sweep_of_a_thousand_hosts_in_1_shard() {
    sweep(1).await;
}

#[tokio::test]
async fn a_sweep_of_a_thousand_hosts_in_4_shards() {
    sweep(4).await;
}

#[tokio::test]
async fn a_sweep_of_a_thousand_hosts_in_16_shards() {
    sweep(16).await;
}

#[tokio::test]
async fn what_is_done_rarely_has_its_price_too() {
    let (store, _emulator) = fresh(usage(16)).await;
    let one = host(1);
    let ((), spent) = cost(&store, enrol(&store, &one)).await;
    println!("an enrolment with two tags: {spent:?}");
    assert!(spent.written <= 25.0, "{spent:?}");

    let (held, spent) = cost(&store, read(&store, one.id)).await;
    println!("reading a host: {spent:?}");
    assert_eq!((spent.requests, spent.written), (1, 0.0));
    assert!(spent.read <= 2.0, "{spent:?}");

    let (signer, spent) = cost(&store, store.signer(one.id)).await;
    println!("what a host's beats are checked by: {spent:?}");
    assert_eq!(signer.unwrap(), Some(Signer::from(&one)));
    assert_eq!((spent.requests, spent.written), (1, 0.0));
    assert!(spent.read <= 0.5, "{spent:?}");
    assert_eq!(store.signer(id(9)).await.unwrap(), None);

    let told = event(1, Some(&one), Audience::Everyone);
    let mut down = Versioned { rev: held.rev, value: held.value };
    let outage = Outage { since: START.plus(180_000), event: told.id, incident: incident_id(1), grouped: false };
    down.value.state = State::Down(outage);
    let change = Change { host: Some(down), incident: None, events: vec![told] };
    let (outcome, spent) = cost(&store, store.commit(change)).await;
    assert_eq!(outcome.unwrap(), Committed::Done);
    println!("declaring a host down: {spent:?}");
    assert!(spent.written <= 16.0 && spent.read <= 4.0, "{spent:?}");

    let late = beat(&one, START.plus(200_000), nonce(1));
    let (outcome, spent) = cost(&store, store.beat(late)).await;
    assert!(matches!(outcome.unwrap(), Beaten::Decide(_)));
    println!("a beat that has to be decided about (besides the unit of the refused write): {spent:?}");
    assert!(spent.requests <= 2 && spent.read <= 2.0, "{spent:?}");
}

#[tokio::test]
async fn a_look_for_work_is_cheap_and_sees_what_waits_until_it_is_done() {
    let (store, _emulator) = fresh(usage(16)).await;
    let one = host(1);
    enrol(&store, &one).await;
    let (waits, spent) = Box::pin(cost(&store, store.may_have_work())).await;
    println!("a look for work: {spent:?}");
    assert!(!waits.unwrap(), "an enrolment is told to nobody");
    assert!(spent.read <= 1.5 && spent.written < 0.1, "{spent:?}");

    let told = event(1, Some(&one), Audience::Everyone);
    let id = told.id;
    let change = Change { events: vec![told.clone()], ..Change::default() };
    assert_eq!(store.commit(change).await.unwrap(), Committed::Done);
    assert!(store.may_have_work().await.unwrap(), "an event that is not told yet");
    store.tell(id, &[Delivery::new(&told, channel(1), START)]).await.unwrap();
    assert!(store.may_have_work().await.unwrap(), "a delivery that is pending");
    let until = START.plus(60_000);
    let claimed = store.claim(START, until, 9).await.unwrap();
    assert!(store.may_have_work().await.unwrap(), "whoever has claimed it may die");
    assert!(store.settle(&claimed[0].clone().delivered(START), until).await.unwrap());
    assert!(!store.may_have_work().await.unwrap());
}
