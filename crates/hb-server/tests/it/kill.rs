//! kill -9 under load, again and again: nothing that was acknowledged is lost, and every transition is told.
//!
//! `HB_KILL_ROUNDS=200 make test-heavy` for the figure of the issue.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hb_core::delivery::Status;
use hb_store::{PAGE_MAX, Store as _};
use hb_store_sqlite::{Options, SqliteStore};
use serde_json::Value;

use crate::client::{Client, Host};
use crate::fleet::{Fleet, Plan};
use crate::receiver::Receiver;
use crate::server::{Data, Server};

/// Hosts that beat as fast as they can.
const BUSY: usize = 24;
/// Hosts that die and come back, so that there is always something to tell.
const RESTLESS: usize = 4;

fn rounds() -> u32 {
    std::env::var("HB_KILL_ROUNDS").ok().map_or(10, |text| text.parse().expect("HB_KILL_ROUNDS is a number"))
}

fn serve(data: &Data, address: Option<SocketAddr>) -> Server {
    let listen = address.map_or("127.0.0.1:0".to_owned(), |address| address.to_string());
    data.serve_with(&["--listen", &listen], &[("HB_SERVER_BEATS_PER_INTERVAL", "1000")])
}

fn plan(n: usize) -> Plan {
    if n < BUSY {
        return Plan { every: Some(Duration::from_millis(20)), ..Plan::default() };
    }
    // Silent for longer than the 2 s that it takes to be called down, then back.
    let dies_at = Duration::from_millis(100 * (n - BUSY) as u64);
    Plan {
        every: Some(Duration::from_millis(300)),
        dies_at: Some(dies_at),
        returns_at: Some(dies_at + Duration::from_millis(2700)),
    }
}

/// A message that was on its way at a kill is leased for a minute, and sent again after that.
fn wait_until_all_told(client: &mut Client, key: &str) {
    let begun = Instant::now();
    loop {
        let pending = client.api(key, "GET", "/v1/deliveries?status=pending", &Value::Null).unwrap().json();
        if pending["deliveries"].as_array().unwrap().is_empty() {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(90), "{pending:#}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[tokio::main(flavor = "current_thread")]
async fn check_nothing_lost(data: &Data, hosts: &[Host]) {
    let store = SqliteStore::open(data.path(), &Options::default()).unwrap();
    for host in hosts {
        let stored = store.host(host.id).await.unwrap().unwrap().value;
        let Some((seq, nonce)) = host.acked else { continue };
        assert!(stored.life.seq >= seq, "{}: beat {seq} was acknowledged, {} is stored", host.name, stored.life.seq);
        // A host that is called down gets another nonce with the same last beat, and so does one whose nonce grew old: the
        // 409 that carried it may have been on its way at the kill. Either is later than the beat; a nonce that is as old
        // as the beat is the one that the beat was answered with.
        if stored.life.seq == seq && stored.life.heard_at == Some(stored.life.nonce_at) {
            assert_eq!(stored.life.nonce, nonce, "{}: the nonce that came with beat {seq} is lost", host.name);
        }
    }
}

#[test]
fn heavy_kill_nine_under_load_loses_nothing_acknowledged_and_tells_every_transition_once() {
    let rounds = rounds();
    let data = Data::init();
    let receiver = Receiver::start();
    let mut server = serve(&data, None);
    let address = server.address;
    let mut client = server.client();
    client.add_webhook(&data.key, &receiver.url());
    let mut hosts: Vec<Host> =
        (0..BUSY + RESTLESS).map(|n| Host::enrol(&mut client, &data.key, &format!("web{n}"), 1, 1)).collect();
    let mut acknowledged = 0;
    for round in 0..rounds {
        // The threads mix the order of the hosts: what each is to do stands in its name.
        let planned = hosts.into_iter().map(|host| (plan(host.name[3..].parse().unwrap()), host));
        let fleet = Fleet::start(address, planned.map(|(plan, host)| (host, plan)).collect(), 4);
        // Long enough for deaths and returns, and never at the same point.
        std::thread::sleep(Duration::from_millis(2000 + u64::from(round % 9) * 270));
        server.kill();
        acknowledged += fleet.counts().acknowledged.load(std::sync::atomic::Ordering::Relaxed);
        let refused = fleet.counts().refused.lock().unwrap().clone();
        hosts = fleet.stop();
        assert!(refused.is_empty(), "beats were refused: {refused:?}");
        check_nothing_lost(&data, &hosts);
        server = serve(&data, Some(address));
    }
    // Everybody comes back, and everything is told.
    let quiet = hosts.into_iter().map(|host| (host, Plan::default())).collect();
    let fleet = Fleet::start(address, quiet, 4);
    std::thread::sleep(Duration::from_secs(6));
    wait_until_all_told(&mut client, &data.key);
    hosts = fleet.stop();
    server.stop();
    check_nothing_lost(&data, &hosts);
    let repeats = check_all_told(&data, &receiver);
    println!("{rounds} kills, {acknowledged} beats acknowledged, {repeats} messages repeated");
    assert!(repeats <= u64::from(rounds), "more than one repeat per kill: {repeats}");
    assert!(acknowledged > u64::from(rounds) * 500, "that was no load: {acknowledged}");
}

/// Every delivery in the outbox arrived, each under one key, and nothing arrived that is not there. How many did twice.
#[tokio::main(flavor = "current_thread")]
async fn check_all_told(data: &Data, receiver: &Receiver) -> u64 {
    let store = SqliteStore::open(data.path(), &Options::default()).unwrap();
    let mut deliveries = BTreeMap::new();
    let mut after = None;
    loop {
        let page = store.deliveries(None, after, PAGE_MAX).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.position);
        deliveries.extend(page.into_iter().map(|listed| (listed.value.id.to_string(), listed.value)));
    }
    let arrivals = receiver.arrivals();
    let mut events_by_key: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for arrival in &arrivals {
        assert!(deliveries.contains_key(&arrival.key), "{arrival:?} is not in the outbox");
        events_by_key.entry(&arrival.key).or_default().insert(arrival.body["id"].as_str().unwrap());
    }
    assert!(events_by_key.values().all(|events| events.len() == 1), "two events under one key: {events_by_key:?}");
    let events: BTreeSet<_> = events_by_key.values().flatten().collect();
    assert_eq!(events.len(), events_by_key.len(), "one event under two keys");
    let mut downs = 0;
    for (key, delivery) in &deliveries {
        downs += u64::from(delivery.kind == hb_core::event::Kind::Down);
        match delivery.status {
            Status::Delivered => assert!(events_by_key.contains_key(key.as_str()), "{delivery:?} never arrived"),
            // The later message told it too.
            Status::Merged => {}
            Status::Pending | Status::Dead => panic!("{delivery:?} was not told"),
        }
    }
    println!("{} messages, {downs} of them down", deliveries.len());
    assert!(downs >= 3, "nobody was called down: nothing was proven");
    u64::try_from(arrivals.len() - events_by_key.len()).unwrap()
}
