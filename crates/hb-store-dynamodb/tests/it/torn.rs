//! Hosts that two regions decided about at the same time.

use std::sync::Arc;

use hb_core::delivery::Delivery;
use hb_core::event::{Event, Kind};
use hb_core::host::{Host, State};
use hb_store::{Beaten, Committed, HostQuery, Store as _};
use hb_store_dynamodb::image::Image;
use hb_store_dynamodb::{DynamoStore, keys};
use hb_wire::name::HostName;

use crate::emulator::TABLE;
use crate::regions::{REPLICA, Told, World, change, channel, declare_down, due, gone_at, over_two_tables, take};
use crate::world::{START, beat, enrol, host, id, nonce, read};

/// A host whose slim item says that it was heard here, and whose document that it was declared down there.
async fn torn() -> (World, Event) {
    let world = over_two_tables().await;
    enrol(&world.here, &host(1)).await;
    world.send(TABLE, &[]).await;
    world.there.stand_in(Some(gone_at(START)));
    let told = declare_down(&world.there, 1, 7).await;
    world.there.tell(told.id, &[Delivery::new(&told, channel(1), START)]).await.unwrap();
    let sent = beat(&host(1), START.plus(170_000), nonce(1));
    assert_eq!(world.here.beat(sent).await.unwrap(), Beaten::Stored);
    // The later write of each item is kept: the document is from there, the slim item from here.
    let all: Vec<&str> = keys::ALL.into_iter().filter(|prefix| *prefix != keys::LIVE).collect();
    world.send(REPLICA, &all).await;
    world.send(TABLE, &[keys::LIVE]).await;
    (world, told)
}

#[tokio::test]
async fn a_host_that_is_not_of_one_piece_is_read_and_beats_and_its_outage_is_ended() {
    let (world, told) = torn().await;
    for store in [&world.here, &world.there] {
        let held = read(store, id(1)).await;
        assert!(matches!(held.value.state, State::Up { .. }), "it was heard since");
        assert_eq!(held.value.life.heard_at, Some(START.plus(170_000)));
        let listed = store.hosts(&HostQuery { limit: 9, ..HostQuery::default() }).await.unwrap();
        assert_eq!(listed, [held]);
    }
    // Something is decided about it: with that its pieces are one again, and what was told is ended.
    let held = read(&world.here, id(1)).await;
    let edited = Host { grace_ms: 90_000, ..held.value.clone() };
    assert_eq!(world.here.commit(change(edited, held.rev, vec![])).await.unwrap(), Committed::Done);
    let ended = world.here.untold(9).await.unwrap();
    assert_eq!(ended.iter().map(|event| (event.kind, event.incident)).collect::<Vec<_>>(), [(Kind::Up, told.incident)]);
    assert_eq!(world.here.down_in(told.incident.unwrap(), 9).await.unwrap(), []);
    let known = read(&world.here, id(1)).await.value;
    let sent = beat(&known, START.plus(180_000), nonce(2));
    assert_eq!(world.here.beat(sent).await.unwrap(), Beaten::Stored);
}

#[tokio::test]
async fn the_end_of_an_outage_is_left_to_the_region_that_began_it_and_has_heard_the_host_since() {
    let world = over_two_tables().await;
    enrol(&world.here, &host(1)).await;
    declare_down(&world.here, 1, 7).await;
    world.send(TABLE, &[]).await;
    // It comes back here, which tells so. There the slim item says it, and the document does not yet.
    let known = read(&world.here, id(1)).await.value;
    take(&world.here, beat(&known, START.plus(400_000), nonce(1))).await;
    world.send(TABLE, &[keys::LIVE]).await;
    let held = read(&world.there, id(1)).await;
    assert!(matches!(held.value.state, State::Up { .. }), "what has arrived says so");
    let edited = Host { grace_ms: 90_000, ..held.value.clone() };
    assert_eq!(world.there.commit(change(edited, held.rev, vec![])).await.unwrap(), Committed::Done);
    assert_eq!(world.there.untold(9).await.unwrap(), [], "and nothing is told again");
    // Unless that region is lost, and with it what it told.
    world.there.stand_in(Some(gone_at(START.plus(10_000_000))));
    let told = world.there.untold(9).await.unwrap();
    assert_eq!(told.iter().map(|event| event.kind).collect::<Vec<_>>(), [Kind::Down, Kind::Up]);
}

#[tokio::test]
async fn whoever_reads_the_stream_puts_the_pieces_together() {
    let (world, told) = torn().await;
    let old = world.one(TABLE, keys::HOST).await;
    assert!(world.here.is_torn(&old, &old).await.unwrap());
    assert!(world.here.mend(&old, &old).await.unwrap());
    assert!(!world.here.is_torn(&old, &old).await.unwrap());
    assert!(!world.here.mend(&old, &old).await.unwrap(), "once");
    let held = read(&world.here, id(1)).await;
    assert!(matches!(held.value.state, State::Up { .. }));
    let ended = world.here.untold(9).await.unwrap();
    assert_eq!(ended.iter().map(|event| (event.kind, event.incident)).collect::<Vec<_>>(), [(Kind::Up, told.incident)]);
    // The other region heard nothing new, and leaves it to the one that did.
    assert!(!world.there.is_torn(&old, &old).await.unwrap());
    assert!(!world.there.mend(&old, &old).await.unwrap());
    assert_eq!(world.there.untold(9).await.unwrap(), []);
}

#[tokio::test]
async fn what_merely_has_not_arrived_is_left_alone() {
    let world = over_two_tables().await;
    enrol(&world.here, &host(1)).await;
    world.send(TABLE, &[]).await;
    world.there.stand_in(Some(gone_at(START)));
    declare_down(&world.there, 1, 7).await;
    // Its document is here, its slim item is not yet.
    let all: Vec<&str> = keys::ALL.into_iter().filter(|prefix| *prefix != keys::LIVE).collect();
    let old = world.one(TABLE, keys::HOST).await;
    world.send(REPLICA, &all).await;
    let new = world.one(TABLE, keys::HOST).await;
    assert!(!world.here.is_torn(&old, &new).await.unwrap());
    assert!(!world.here.mend(&old, &new).await.unwrap());
    assert_eq!(world.one(TABLE, keys::HOST).await, new, "nothing was written");
}

/// A host that was declared down here, and beat there, where nobody knew of it; the image of its document here.
async fn down_here() -> (World, Event, Image) {
    let world = over_two_tables().await;
    enrol(&world.here, &host(1)).await;
    world.send(TABLE, &[]).await;
    let told = declare_down(&world.here, 1, 7).await;
    world.here.tell(told.id, &[Delivery::new(&told, channel(1), START)]).await.unwrap();
    let lost = world.one(TABLE, keys::HOST).await;
    take(&world.there, beat(&host(1), START.plus(170_000), nonce(1))).await;
    (world, told, lost)
}

/// The same, once what was written there has arrived; and the image of the document that took the place of the other one.
async fn overwritten() -> (World, Event, Image, Image) {
    let (world, told, lost) = Box::pin(down_here()).await;
    world.send(REPLICA, &[]).await;
    let new = world.one(TABLE, keys::HOST).await;
    (world, told, lost, new)
}

#[tokio::test]
async fn an_end_is_told_without_a_word_about_what_the_other_region_hears_meanwhile() {
    let (world, told, lost, new) = overwritten().await;
    let slim = world.one(TABLE, keys::LIVE).await;
    assert!(world.here.mend(&lost, &new).await.unwrap());
    let ended = world.here.untold(9).await.unwrap();
    assert_eq!(ended.iter().map(|event| (event.kind, event.incident)).collect::<Vec<_>>(), [(Kind::Up, told.incident)]);
    assert_eq!((world.one(TABLE, keys::HOST).await, world.one(TABLE, keys::LIVE).await), (new, slim));
    assert_eq!(world.here.down_in(told.incident.unwrap(), 9).await.unwrap(), []);
}

/// A host that was renamed here, and beat there, where nobody knew of that; the image of the document that was overwritten.
async fn renamed_in_vain() -> (World, Image) {
    let world = over_two_tables().await;
    enrol(&world.here, &host(1)).await;
    world.send(TABLE, &[]).await;
    let held = read(&world.here, id(1)).await;
    let renamed = Host { name: HostName::parse("db-1").unwrap(), ..held.value };
    assert_eq!(world.here.commit(change(renamed, held.rev, vec![])).await.unwrap(), Committed::Done);
    let lost = world.one(TABLE, keys::HOST).await;
    take(&world.there, beat(&host(1), START.plus(170_000), nonce(1))).await;
    world.send(REPLICA, &[]).await;
    (world, lost)
}

#[tokio::test]
async fn settings_that_come_back_do_not_take_away_what_the_other_region_heard() {
    let (world, lost) = renamed_in_vain().await;
    let new = world.one(TABLE, keys::HOST).await;
    // It is still to arrive that the host was heard there again.
    let told = Arc::new(Told::default());
    *told.heard.lock().unwrap() = vec![(id(1), START.plus(900_000))];
    let here = world.here.asking(told);
    assert!(here.mend(&lost, &new).await.unwrap());
    let held = read(&here, id(1)).await.value;
    assert_eq!((held.name.as_str(), held.life.heard_at), ("db-1", Some(START.plus(900_000))));
}

#[tokio::test]
async fn who_is_on_the_list_of_an_incident_and_not_down_in_it_is_not_counted() {
    let (world, told, ..) = overwritten().await;
    let incident = told.incident.unwrap();
    // Whatever became of the host, the place that it had there came from the other region after all.
    assert_eq!(world.here.down_in(incident, 9).await.unwrap(), []);
    world.one(TABLE, keys::OUTAGE).await;
}

#[tokio::test]
async fn an_outage_that_the_other_region_knew_of_is_ended_by_it_alone() {
    let world = over_two_tables().await;
    enrol(&world.here, &host(1)).await;
    let told = declare_down(&world.here, 1, 7).await;
    world.here.tell(told.id, &[Delivery::new(&told, channel(1), START)]).await.unwrap();
    world.send(TABLE, &[]).await;
    // Something else is decided about the host here; there, where that is not known yet, it is back.
    let held = read(&world.here, id(1)).await;
    let more = Host { transitions: 9, ..held.value };
    assert_eq!(world.here.commit(change(more, held.rev, vec![])).await.unwrap(), Committed::Done);
    let lost = world.one(TABLE, keys::HOST).await;
    take(&world.there, beat(&host(1), START.plus(170_000), nonce(1))).await;
    world.send(REPLICA, &[]).await;
    let new = world.one(TABLE, keys::HOST).await;
    assert!(world.here.is_torn(&lost, &new).await.unwrap(), "the other one did not know of everything");
    assert!(!world.here.mend(&lost, &new).await.unwrap());
    assert_eq!(world.here.untold(9).await.unwrap(), [], "but of the outage");
}

#[tokio::test]
async fn an_end_is_not_forgotten_because_something_was_decided_here_before_the_host_was_mended() {
    let (world, told, lost) = down_here().await;
    world.send(REPLICA, &[]).await;
    let new = world.one(TABLE, keys::HOST).await;
    // Its number is higher than that of the outage, of which it knew nothing.
    let held = read(&world.here, id(1)).await;
    let edited = Host { grace_ms: 90_000, ..held.value };
    assert_eq!(world.here.commit(change(edited, held.rev, vec![])).await.unwrap(), Committed::Done);
    assert!(world.here.mend(&lost, &new).await.unwrap());
    let ended = world.here.untold(9).await.unwrap();
    assert_eq!(ended.iter().map(|event| (event.kind, event.incident)).collect::<Vec<_>>(), [(Kind::Up, told.incident)]);
}

#[tokio::test]
async fn a_decision_that_was_overwritten_is_found_and_what_it_announced_is_ended() {
    // There it is renamed by an operator besides.
    let (world, told, lost) = down_here().await;
    let held = read(&world.there, id(1)).await;
    let renamed = Host { name: HostName::parse("db-1").unwrap(), ..held.value };
    assert_eq!(world.there.commit(change(renamed, held.rev, vec![])).await.unwrap(), Committed::Done);
    world.send(REPLICA, &[]).await;

    // Its number is the higher one, and yet it did not know.
    let new = world.one(TABLE, keys::HOST).await;
    assert!(world.here.is_torn(&lost, &new).await.unwrap());
    assert!(world.here.mend(&lost, &new).await.unwrap());
    let held = read(&world.here, id(1)).await;
    assert!(matches!(held.value.state, State::Up { .. }));
    assert_eq!((held.value.name.as_str(), held.value.life.nonce), ("db-1", nonce(1)));
    let ended = world.here.untold(9).await.unwrap();
    assert_eq!(ended.iter().map(|event| (event.kind, event.incident)).collect::<Vec<_>>(), [(Kind::Up, told.incident)]);
    assert_eq!(world.here.down_in(told.incident.unwrap(), 9).await.unwrap(), [], "nobody is down in it");
    let named = |name: &str| HostQuery { name: Some(HostName::parse(name).unwrap()), limit: 9, ..HostQuery::default() };
    assert_eq!(world.here.hosts(&named("db-1")).await.unwrap(), std::slice::from_ref(&held));
    assert_eq!(world.here.hosts(&named(host(1).name.as_str())).await.unwrap(), [], "it has one name");

    // Whoever reads the record again tells nothing else.
    assert!(world.here.mend(&lost, &new).await.unwrap());
    assert_eq!(world.here.untold(9).await.unwrap(), ended);
}

#[tokio::test]
async fn settings_that_were_overwritten_by_a_decision_that_changed_none_come_back() {
    let (world, lost) = renamed_in_vain().await;
    assert_eq!(read(&world.here, id(1)).await.value.name, host(1).name, "they are lost");
    let new = world.one(TABLE, keys::HOST).await;
    // Something was decided about it before anybody saw that: it does not count as known.
    let held = read(&world.here, id(1)).await;
    let more = Host { transitions: 9, ..held.value };
    assert_eq!(world.here.commit(change(more, held.rev, vec![])).await.unwrap(), Committed::Done);
    assert!(world.here.mend(&lost, &new).await.unwrap());
    let held = read(&world.here, id(1)).await.value;
    assert_eq!((held.name.as_str(), held.life.nonce), ("db-1", nonce(1)));
    world.send(TABLE, &[]).await;
    world.send_deletions(TABLE, keys::NAME).await;
    let named = HostQuery { name: Some(held.name), limit: 9, ..HostQuery::default() };
    assert_eq!(world.there.hosts(&named).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_host_that_was_retired_there_and_beats_on_here_is_out_of_service() {
    let world = over_two_tables().await;
    enrol(&world.here, &host(1)).await;
    world.send(TABLE, &[]).await;
    let old = world.one(TABLE, keys::HOST).await;
    let held = read(&world.there, id(1)).await;
    let retired = Host { state: State::Retired { since: START }, ..held.value };
    assert_eq!(world.there.commit(change(retired, held.rev, vec![])).await.unwrap(), Committed::Done);
    let sent = beat(&host(1), START.plus(170_000), nonce(1));
    assert_eq!(world.here.beat(sent).await.unwrap(), Beaten::Stored);
    world.send(REPLICA, &[]).await;
    // Its slim item among the living was written after it was taken away.
    let new = world.one(TABLE, keys::HOST).await;
    assert!(world.here.mend(&old, &new).await.unwrap());
    assert_eq!(due(&world.here, 900_000).await, 0, "no sweep meets it");
    let held = read(&world.here, id(1)).await.value;
    assert!(matches!(held.state, State::Retired { .. }));
    let again = beat(&held, START.plus(180_000), nonce(2));
    assert!(matches!(world.here.beat(again).await.unwrap(), Beaten::Decide(_)));
}

#[tokio::test]
async fn a_name_that_two_hosts_got_in_two_regions_is_one_hosts() {
    let world = over_two_tables().await;
    enrol(&world.here, &host(1)).await;
    enrol(&world.here, &host(2)).await;
    world.send(TABLE, &[]).await;
    let rename = async |store: &DynamoStore, n: u64| {
        let held = read(store, id(n)).await;
        let renamed = Host { name: HostName::parse("db").unwrap(), ..held.value };
        assert_eq!(store.commit(change(renamed, held.rev, vec![])).await.unwrap(), Committed::Done);
    };
    rename(&world.here, 1).await;
    rename(&world.there, 2).await;
    let document = format!("{}{}", keys::HOST, id(1).0);
    let lost = world.one(TABLE, &document).await;
    take(&world.there, beat(&host(1), START.plus(170_000), nonce(1))).await;
    world.send(REPLICA, &[]).await;
    let new = world.one(TABLE, &document).await;
    assert!(world.here.mend(&lost, &new).await.unwrap());
    let named = read(&world.here, id(1)).await.value.name;
    assert!(named.as_str().starts_with("db-") && named.as_str().len() > 8, "{named}");
    assert_eq!(read(&world.here, id(2)).await.value.name.as_str(), "db");
}
