//! Two regions. Over one table: as if replication took no time. Over two: what is replicated, and when, is up to the test.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use hb_core::delivery::{Delivery, Status};
use hb_core::event::{Audience, Event};
use hb_core::host::{Host, Outage, State};
use hb_core::incident::{Group, Incident};
use hb_core::ledger::Ledger;
use hb_core::observer::Observation;
use hb_core::policy::Policy;
use hb_core::time::Time;
use hb_store::{Beat, Beaten, Change, Committed, EventQuery, Store, StoreError, Versioned};
use hb_store_dynamodb::image::Image;
use hb_store_dynamodb::{Absence, DynamoStore, Outlook, Sight, TAKEOVER_AFTER_MS, Usage, Witness, keys, table};
use hb_wire::id::{ChannelId, HostId};
use uuid::Uuid;

use crate::emulator::{Emulator, TABLE, fresh};
use crate::world::{START, beat, enrol, event, host, id, incident_id, nonce, read};

pub(crate) const HERE: &str = "eu-central-1";
pub(crate) const THERE: &str = "eu-west-1";
/// The other region's replica.
pub(crate) const REPLICA: &str = "hb-contract-replica";

async fn open(emulator: &Emulator, table: &str, own: &str, peer: &str) -> DynamoStore {
    let usage = Usage { shards: 2, region: own.into() };
    DynamoStore::open(emulator.client(), table, usage).await.unwrap().beside(peer).unwrap()
}

/// Two regions that see everything at once.
async fn over_one_table() -> (DynamoStore, DynamoStore, Emulator) {
    let (_, emulator) = fresh(Usage { shards: 2, region: HERE.into() }).await;
    let here = open(&emulator, TABLE, HERE, THERE).await;
    let there = open(&emulator, TABLE, THERE, HERE).await;
    (here, there, emulator)
}

/// Two regions that see of one another what [`World::send`] sends.
pub(crate) struct World {
    pub(crate) here: DynamoStore,
    pub(crate) there: DynamoStore,
    pub(crate) emulator: Emulator,
}

pub(crate) async fn over_two_tables() -> World {
    let (_, emulator) = fresh(Usage { shards: 2, region: HERE.into() }).await;
    table::create(&emulator.client(), REPLICA).await.unwrap();
    let here = open(&emulator, TABLE, HERE, THERE).await;
    let there = open(&emulator, REPLICA, THERE, HERE).await;
    World { here, there, emulator }
}

pub(crate) async fn items(client: &Client, table: &str) -> Vec<Image> {
    let mut items = Vec::new();
    let mut start = None;
    loop {
        let page = client.scan().table_name(table).set_exclusive_start_key(start).send().await.unwrap();
        items.extend(page.items().iter().cloned());
        start = page.last_evaluated_key;
        if start.is_none() {
            return items;
        }
    }
}

pub(crate) fn text<'a>(item: &'a Image, name: &str) -> &'a str {
    item[name].as_s().unwrap()
}

fn other_of(table: &str) -> &'static str {
    if table == TABLE { REPLICA } else { TABLE }
}

impl World {
    /// Replicates what begins with one of these, or all there is: what is in one table to the other one, over whatever is
    /// there. What was deleted stays.
    pub(crate) async fn send(&self, from: &str, prefixes: &[&str]) {
        let client = self.emulator.client();
        for item in items(&client, from).await {
            if prefixes.is_empty() || prefixes.iter().any(|prefix| text(&item, table::PK).starts_with(prefix)) {
                client.put_item().table_name(other_of(from)).set_item(Some(item)).send().await.unwrap();
            }
        }
    }

    /// Takes away in one table what is no more in the other.
    pub(crate) async fn send_deletions(&self, from: &str, prefix: &str) {
        let client = self.emulator.client();
        let key = |item: &Image| (text(item, table::PK).to_owned(), text(item, table::SK).to_owned());
        let there: BTreeSet<_> = items(&client, from).await.iter().map(key).collect();
        for item in items(&client, other_of(from)).await {
            if text(&item, table::PK).starts_with(prefix) && !there.contains(&key(&item)) {
                let delete = client.delete_item().table_name(other_of(from));
                let delete = delete.key(table::PK, item[table::PK].clone()).key(table::SK, item[table::SK].clone());
                delete.send().await.unwrap();
            }
        }
    }

    pub(crate) async fn one(&self, table: &str, prefix: &str) -> Image {
        let mut found = items(&self.emulator.client(), table).await;
        found.retain(|item| text(item, table::PK).starts_with(prefix));
        assert_eq!(found.len(), 1, "{prefix} in {table}: {found:?}");
        found.remove(0)
    }
}

pub(crate) async fn due(store: &DynamoStore, ms: u64) -> usize {
    store.due(START.plus(ms), &Ledger::default(), &Policy::STANDARD, 9).await.unwrap().len()
}

pub(crate) fn change(host: Host, rev: u64, events: Vec<Event>) -> Change {
    Change { host: Some(Versioned { value: host, rev }), incident: None, events }
}

/// Accepts a beat that the fast path left to a decision, as the application does.
pub(crate) async fn take(store: &DynamoStore, sent: Beat) {
    let Beaten::Decide(held) = store.beat(sent.clone()).await.unwrap() else { panic!("it is taken at once") };
    let mut host = held.value;
    host.state = State::Up { since: sent.now };
    hb_store::fast::apply(&mut host, sent);
    assert_eq!(store.commit(change(host, held.rev, vec![])).await.unwrap(), Committed::Done);
}

/// Declares a host down, and has it told.
pub(crate) async fn declare_down(store: &DynamoStore, n: u64, event_n: u128) -> Event {
    let held = read(store, id(n)).await;
    let told = event(event_n, Some(&held.value), Audience::Everyone);
    let incident = incident_id(event_n);
    let outage = Outage { since: START.plus(300_000), event: told.id, incident, grouped: false };
    let told = Event { incident: Some(incident), ..told };
    let down = Host { state: State::Down(outage), ..held.value };
    assert_eq!(store.commit(change(down, held.rev, vec![told.clone()])).await.unwrap(), Committed::Done);
    told
}

#[tokio::test]
async fn a_host_belongs_to_the_region_that_hears_it_and_a_beat_there_is_one_unit() {
    let (here, there, _emulator) = over_one_table().await;
    enrol(&here, &host(1)).await;
    let sent = |n: u64, known: &Host| beat(known, START.plus(n * 1000), nonce(n));
    assert_eq!(here.beat(sent(1, &host(1))).await.unwrap(), Beaten::Stored);
    let known = read(&there, id(1)).await.value;
    // The other region decides about it, once.
    take(&there, sent(2, &known)).await;
    let known = read(&there, id(1)).await.value;
    let before = there.spent();
    assert_eq!(there.beat(sent(3, &known)).await.unwrap(), Beaten::Stored);
    let after = there.spent();
    let cost = (after.requests - before.requests, after.read - before.read, after.written - before.written);
    assert_eq!(cost, (1, 0.0, 1.0));
    let known = read(&here, id(1)).await.value;
    assert!(matches!(here.beat(sent(4, &known)).await.unwrap(), Beaten::Decide(_)), "it moved");
}

#[tokio::test]
async fn only_a_region_that_stands_in_looks_after_the_hosts_of_the_other_one() {
    let (here, there, emulator) = over_one_table().await;
    enrol(&here, &host(1)).await;
    let at = 180_000;
    assert_eq!((due(&here, at).await, due(&there, at).await), (1, 0));
    assert_eq!(due(&there, at + TAKEOVER_AFTER_MS).await, 0, "that nobody did it is no reason");
    there.stand_in(Some(gone_at(START)));
    assert!(there.stands_in());
    assert_eq!(due(&there, at + TAKEOVER_AFTER_MS - 1).await, 0);
    assert_eq!(due(&there, at + TAKEOVER_AFTER_MS).await, 1, "nobody did it");
    // It was there, and may have heard the host, until long after the last that arrived of it.
    there.stand_in(Some(Absence { now: START, alive_at: START.plus(60_000) }));
    assert_eq!(due(&there, at + 60_000 + TAKEOVER_AFTER_MS - 1).await, 0);
    assert_eq!(due(&there, at + 60_000 + TAKEOVER_AFTER_MS).await, 1);
    there.stand_in(None);
    assert_eq!(due(&there, at + TAKEOVER_AFTER_MS).await, 0);
    let usage = Usage { shards: 2, region: THERE.into() };
    let alone = DynamoStore::open(emulator.client(), TABLE, usage).await.unwrap();
    assert_eq!(due(&alone, at).await, 1, "whose region has no other looks after all");
}

/// hb-api reads 25 rows, and leaves out then what is not its own.
#[tokio::test]
async fn a_sweep_reaches_all_of_its_region_however_many_of_the_other_one_are_silent() {
    let (here, there, _emulator) = over_one_table().await;
    for n in 0..60 {
        enrol(if n % 10 == 0 { &here } else { &there }, &host(n)).await;
    }
    // Nine at a time.
    assert_eq!((due(&here, 180_000).await, due(&there, 180_000).await), (6, 9));
}

#[tokio::test]
async fn of_hosts_that_the_other_region_looks_after_it_is_not_known_whether_they_are_silent() {
    let (here, there, _emulator) = over_one_table().await;
    for n in 0..3 {
        enrol(&here, &host(n)).await;
    }
    enrol(&there, &host(9)).await;
    let now = START.plus(70_000);
    let silent = async |store: &DynamoStore| {
        let groups = store.silence(now, &host(1).tags).await.unwrap();
        let counted: Vec<(u64, u64)> = groups.iter().map(|group| (group.expected, group.silent)).collect();
        (counted, store.silent(now, None, 9).await.unwrap().len())
    };
    assert_eq!(silent(&here).await, (vec![(3, 3); 3], 3));
    assert_eq!(silent(&there).await, (vec![(1, 1); 3], 1));
    there.stand_in(Some(gone_at(now)));
    assert_eq!(silent(&there).await, (vec![(4, 4); 3], 4));
    here.leave_to_peer([id(0), id(1)]);
    assert_eq!(silent(&here).await, (vec![(1, 1); 3], 1), "the others were heard there");
    assert_eq!(due(&here, 180_000).await, 1);
}

#[tokio::test]
async fn no_position_is_given_twice_and_what_was_seen_comes_before() {
    let world = over_two_tables().await;
    for n in 0..5 {
        enrol(&world.here, &host(n)).await;
    }
    enrol(&world.there, &host(10)).await;
    let positions = async |store: &DynamoStore| {
        let all = EventQuery { limit: 99, ascending: true, ..EventQuery::default() };
        let listed = store.events(&all).await.unwrap();
        listed.iter().map(|listed| listed.position).collect::<Vec<_>>()
    };
    let (one, other) = (positions(&world.here).await, positions(&world.there).await);
    assert!(one.iter().all(|position| !other.contains(position)), "{one:?} {other:?}");
    assert!(other[0] < one[4], "it has not seen what is there");
    world.send(TABLE, &[]).await;
    enrol(&world.there, &host(11)).await;
    let all = positions(&world.there).await;
    assert_eq!(all.len(), 7);
    assert!(all[6] > *one.last().unwrap(), "it has seen it");
    assert!(all[6] < 1 << 53, "as a number of JSON");
}

#[tokio::test]
async fn counting_goes_on_where_it_was_before_there_were_regions() {
    let (store, emulator) = fresh(Usage::default()).await;
    enrol(&store, &host(1)).await;
    let client = emulator.client();
    // Much was counted.
    let update = client.update_item().table_name(TABLE).key(table::PK, AttributeValue::S("S#all".into()));
    let update = update.key(table::SK, AttributeValue::S("position".into()));
    let many = AttributeValue::N("1000000".into());
    update.update_expression("SET n = :n").expression_attribute_values(":n", many).send().await.unwrap();
    let later = DynamoStore::open(client, TABLE, Usage { shards: 16, region: HERE.into() }).await.unwrap();
    enrol(&later, &host(2)).await;
    let newest = later.events(&EventQuery { limit: 1, ..EventQuery::default() }).await.unwrap();
    assert!(newest[0].position > 1_000_000, "{newest:?}");
}

#[tokio::test]
async fn an_event_is_told_by_the_region_that_made_it_unless_the_other_one_stands_in() {
    let (here, there, _emulator) = over_one_table().await;
    let made = event(1, None, Audience::Everyone);
    let change = Change { events: vec![made.clone()], ..Change::default() };
    assert_eq!(here.commit(change).await.unwrap(), Committed::Done);
    assert_eq!(there.untold(9).await.unwrap(), []);
    assert_eq!(there.next_claim().await.unwrap(), None);
    there.stand_in(Some(gone_at(made.at.plus(TAKEOVER_AFTER_MS - 1))));
    assert_eq!(there.untold(9).await.unwrap(), []);
    there.stand_in(Some(gone_at(made.at.plus(TAKEOVER_AFTER_MS))));
    assert_eq!(there.untold(9).await.unwrap(), std::slice::from_ref(&made));
    assert_eq!(here.untold(9).await.unwrap(), std::slice::from_ref(&made));
    there.tell(made.id, &[]).await.unwrap();
    assert_eq!((here.untold(9).await.unwrap(), there.untold(9).await.unwrap()), (vec![], vec![]));
}

pub(crate) fn channel(n: u128) -> ChannelId {
    ChannelId(Uuid::from_u128(n))
}

#[tokio::test]
async fn a_delivery_is_carried_by_the_region_that_made_it_unless_the_other_one_stands_in() {
    let (here, there, _emulator) = over_one_table().await;
    let (made, later) = (event(1, Some(&host(1)), Audience::Everyone), event(2, Some(&host(1)), Audience::Everyone));
    let first = Delivery::new(&made, channel(1), START);
    let second = Delivery::new(&later, channel(1), START);
    for (store, event, delivery) in [(&here, &made, &first), (&there, &later, &second)] {
        let change = Change { events: vec![event.clone()], ..Change::default() };
        assert_eq!(store.commit(change).await.unwrap(), Committed::Done);
        store.tell(event.id, std::slice::from_ref(delivery)).await.unwrap();
    }
    let claim = async |store: &DynamoStore, now: Time| -> Vec<_> {
        let claimed = store.claim(now, now.plus(1000), 9).await.unwrap();
        claimed.into_iter().map(|delivery| delivery.id).collect()
    };
    assert_eq!(claim(&there, START).await, [], "what is said of a host arrives in order, whoever says it");
    assert_eq!(claim(&here, START).await, [first.id]);
    // The other region is not heard of any more.
    let left = START.plus(1000 + TAKEOVER_AFTER_MS);
    assert_eq!(claim(&there, left.minus(1)).await, []);
    assert_eq!(claim(&there, left).await, [second.id], "what is left lying holds nothing up");
    there.stand_in(Some(gone_at(left)));
    let again = left.plus(1000);
    assert_eq!(claim(&there, again).await, [first.id], "and who stands in carries it");
    let done = Delivery { leased_until: Some(again.plus(1000)), ..first }.delivered(again);
    assert!(there.settle(&done, again.plus(1000)).await.unwrap());
    assert_eq!(there.delivery(done.id).await.unwrap().unwrap().status, Status::Delivered);
}

#[tokio::test]
async fn what_both_regions_stored_is_shown_once_told_once_and_settled_twice_under_one_key() {
    let world = over_two_tables().await;
    enrol(&world.here, &host(1)).await;
    world.send(TABLE, &[]).await;
    let one = declare_down(&world.here, 1, 7).await;
    let other = Event { at: one.at.plus(5000), ..declare_down(&world.there, 1, 7).await };
    assert_eq!(one.id, other.id, "what follows from one silence is one event");
    let delivery = |event: &Event, now| Delivery::new(event, channel(1), now);
    assert_eq!(
        delivery(&one, START).id,
        delivery(&other, START.plus(9)).id,
        "and one message, whenever it was decided"
    );
    let old = pointer(&world, TABLE, &one).await;

    // The other region's write of the same event arrives last.
    world.send(REPLICA, &[]).await;
    let new = pointer(&world, TABLE, &one).await;
    assert_ne!(old["o"], new["o"]);
    let listed = async |host| {
        let query = EventQuery { host, limit: 99, ..EventQuery::default() };
        let listed = world.here.events(&query).await.unwrap();
        listed.iter().filter(|listed| listed.value.id == one.id).count()
    };
    assert_eq!((listed(None).await, listed(Some(id(1))).await), (1, 1));
    assert_eq!(world.here.untold(9).await.unwrap().len(), 1);

    // Both are told of, and neither is told for ever.
    let deliveries = [delivery(&one, START)];
    world.here.tell(one.id, &deliveries).await.unwrap();
    world.there.tell(one.id, &deliveries).await.unwrap();
    assert_eq!(world.here.untold(9).await.unwrap(), []);
    assert_eq!(world.there.untold(9).await.unwrap(), []);
    world.send(REPLICA, &[keys::PENDING, keys::DELIVERY]).await;
    let now = START.plus(1000);
    for store in [&world.here, &world.there] {
        let [claimed] = &store.claim(now, now.plus(1000), 9).await.unwrap()[..] else { panic!("one is its own") };
        assert_eq!(claimed.id, deliveries[0].id);
        assert!(store.settle(&claimed.clone().delivered(now), now.plus(1000)).await.unwrap());
        assert_eq!(store.claim(now.plus(5000), now.plus(6000), 9).await.unwrap(), [], "and is not carried again");
    }

    assert!(world.here.unite(&old, &new).await.unwrap());
    assert!(!world.here.unite(&old, &new).await.unwrap(), "it is done");
    assert_eq!(world.here.event(one.id).await.unwrap().unwrap().id, one.id);
    let kept: Vec<Image> = items(&world.emulator.client(), TABLE).await;
    let of_event = |item: &&Image| {
        text(item, table::PK).starts_with(keys::HISTORY) && item["f"] == AttributeValue::S(one.id.0.to_string())
    };
    assert_eq!(kept.iter().filter(of_event).count(), 1);
}

async fn pointer(world: &World, table: &str, event: &Event) -> Image {
    world.one(table, &format!("{}{}", keys::EVENT, event.id.0)).await
}

#[tokio::test]
async fn an_incident_is_gone_on_with_by_the_region_that_opened_it_or_that_takes_it_over() {
    let (here, there, _emulator) = over_one_table().await;
    enrol(&here, &host(1)).await;
    let group = Group { tag: None, expected: 4, silent: 4, down: 0 };
    let (opened, told) = Incident::open(&host(1), &group, vec![], START, &Policy::STANDARD);
    let change = |value, rev, events| Change { incident: Some(Versioned { value, rev }), events, host: None };
    assert_eq!(here.commit(change(opened, 0, vec![told])).await.unwrap(), Committed::Done);
    assert_eq!(there.open_incidents().await.unwrap(), []);
    there.stand_in(Some(gone_at(START)));
    let held = there.open_incidents().await.unwrap().remove(0);
    assert_eq!(here.open_incidents().await.unwrap(), std::slice::from_ref(&held));
    let joined = held.value.join(&host(2));
    assert_eq!(there.commit(change(joined, held.rev, vec![])).await.unwrap(), Committed::Done);
    there.stand_in(None);
    assert_eq!(here.open_incidents().await.unwrap(), [], "it is the other one's now");
    assert_eq!(there.open_incidents().await.unwrap().len(), 1);
}

#[tokio::test]
async fn both_regions_have_the_secrets_of_one_and_no_third_has() {
    let (here, there, emulator) = over_one_table().await;
    let refused = there.secrets([2; 64]).await;
    assert!(matches!(&refused, Err(StoreError::Unavailable(why)) if why.contains(HERE)), "one makes them: {refused:?}");
    assert_eq!(here.secrets([1; 64]).await.unwrap(), [1; 64]);
    assert_eq!(there.secrets([2; 64]).await.unwrap(), [1; 64]);
    let third = open(&emulator, TABLE, "us-east-1", "us-east-2").await;
    assert!(third.secrets([3; 64]).await.is_err());
}

#[tokio::test]
async fn a_region_does_not_stand_beside_itself_nor_beside_none() {
    let (_, emulator) = fresh(Usage { shards: 2, region: HERE.into() }).await;
    for (own, peer) in [(HERE, HERE), ("", THERE), (HERE, "")] {
        let usage = Usage { shards: 2, region: own.into() };
        let store = DynamoStore::open(emulator.client(), TABLE, usage).await.unwrap();
        assert!(store.beside(peer).is_err(), "{own:?} beside {peer:?}");
    }
}

#[tokio::test]
async fn each_region_observes_for_itself_and_sees_what_the_other_one_does() {
    let (here, there, emulator) = over_one_table().await;
    assert_eq!(there.observation_of_peer().await.unwrap(), None);
    let seen = Versioned { value: Observation::begin(START), rev: 0 };
    assert_eq!(here.observe(seen.clone(), vec![]).await.unwrap(), Committed::Done);
    assert_eq!(there.observation().await.unwrap(), None);
    assert_eq!(there.observation_of_peer().await.unwrap(), Some(seen.value));

    let gone = Outlook { sight: Sight::Gone, since: START, at: START, alive_at: START, cut_since: None };
    let told = event(1, None, Audience::Admins);
    assert_eq!(there.set_outlook(None, &gone, vec![told.clone()]).await.unwrap(), Committed::Done);
    assert_eq!(there.set_outlook(None, &gone, vec![]).await.unwrap(), Committed::Conflict, "somebody was faster");
    assert_eq!((there.outlook().await.unwrap(), here.outlook().await.unwrap()), (Some(gone), None));
    assert_eq!(there.untold(9).await.unwrap(), [told]);
    let another = open(&emulator, TABLE, THERE, "us-east-1").await;
    assert_eq!(another.outlook().await.unwrap(), None, "of a new second region nothing is known yet");
    let seen = Outlook { sight: Sight::Seen, ..gone };
    assert_eq!(there.set_outlook(Some(&gone), &seen, vec![]).await.unwrap(), Committed::Done);
}

/// The other region is gone, and gave its last sign of life when the world began.
pub(crate) fn gone_at(now: Time) -> Absence {
    Absence { now, alive_at: START }
}

/// What the other region says when it is asked.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) heard: Mutex<Vec<(HostId, Time)>>,
    asked: Mutex<Vec<Vec<HostId>>>,
}

#[async_trait]
impl Witness for Told {
    async fn heard(&self, silent: &[(HostId, Time)]) -> Vec<(HostId, Time)> {
        let mut ids: Vec<HostId> = silent.iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        self.asked.lock().unwrap().push(ids);
        self.heard.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn before_a_host_is_accused_the_other_region_is_asked_and_what_it_heard_counts() {
    let world = over_two_tables().await;
    let told = Arc::new(Told::default());
    let here = world.here.asking(Arc::<Told>::clone(&told));
    for n in 1..=2 {
        enrol(&here, &host(n)).await;
    }
    let later = beat(&host(2), START.plus(60_000), nonce(1));
    assert_eq!(here.beat(later).await.unwrap(), Beaten::Stored);
    let asked = || std::mem::take(&mut *told.asked.lock().unwrap());
    assert_eq!(due(&here, 100_000).await, 0);
    assert_eq!(asked(), Vec::<Vec<_>>::new(), "nobody is accused");
    // Who is late as well is asked about, for it counts whether many are silent.
    *told.heard.lock().unwrap() = vec![(id(1), START), (id(2), START)];
    assert_eq!(due(&here, 180_000).await, 0);
    assert_eq!(asked(), [[id(1), id(2)]]);
    assert_eq!(here.silent(START.plus(180_000), None, 9).await.unwrap(), []);
    *told.heard.lock().unwrap() = vec![];
    assert_eq!(due(&here, 180_000).await, 1, "and what was said before counts no more");
    assert_eq!(asked().len(), 1);
    assert_eq!(here.silent(START.plus(180_000), None, 9).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_region_says_when_it_heard_hosts_that_are_its_own() {
    let world = over_two_tables().await;
    for n in 1..=2 {
        enrol(&world.here, &host(n)).await;
    }
    world.send(TABLE, &[]).await;
    take(&world.there, beat(&host(1), START.plus(60_000), nonce(1))).await;
    let asked = [id(1), id(2), id(3)];
    assert_eq!(world.there.heard_here(&asked).await.unwrap(), [(id(1), START.plus(60_000))]);
    declare_down(&world.there, 1, 7).await;
    assert_eq!(world.there.heard_here(&asked).await.unwrap(), [(id(1), START.plus(60_000))], "and has it judged");
}
