//! When the server was away, nobody is accused (rule R3): one message says that hb was blind.

use std::time::Duration;

use rustix::process::Signal;

use crate::client::Host;
use crate::fleet::{Fleet, Plan};
use crate::receiver::Receiver;
use crate::server::Data;

/// Hosts that need no more than `interval_s + grace_s` seconds of silence to be called down.
fn enrol(data: &Data, client: &mut crate::client::Client, count: usize, interval_s: u64, grace_s: u64) -> Vec<Host> {
    (0..count).map(|n| Host::enrol(client, &data.key, &format!("web{n}"), interval_s, grace_s)).collect()
}

fn plans(hosts: Vec<Host>) -> Vec<(Host, Plan)> {
    hosts.into_iter().map(|host| (host, Plan::default())).collect()
}

#[test]
fn a_server_that_was_stopped_longer_than_every_deadline_accuses_nobody_and_says_once_that_it_was_blind() {
    let data = Data::init();
    let receiver = Receiver::start();
    let server = data.serve();
    let address = server.address;
    let mut client = server.client();
    client.add_webhook(&data.key, &receiver.url());
    let mut hosts = enrol(&data, &mut client, 30, 1, 2);
    let mut mortal = hosts.pop().unwrap();
    let fleet = Fleet::start(address, plans(hosts), 4);
    assert_eq!(mortal.beat(&mut client).unwrap(), 200);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(mortal.beat(&mut client).unwrap(), 200);
    server.stop();
    std::thread::sleep(Duration::from_secs(9));
    let server = data.serve_with(&["--listen", &address.to_string()], &[]);
    // Whoever died meanwhile is still found out: he alone, after what he needs of observed time.
    receiver.wait_for("the down of the one that died", Duration::from_secs(20), |all| {
        all.iter().any(|arrival| arrival.event() == "down")
    });
    std::thread::sleep(Duration::from_secs(5));
    let downs: Vec<String> =
        receiver.arrivals().iter().filter(|a| a.event() == "down").map(|a| a.host().to_owned()).collect();
    assert_eq!(downs, [mortal.name.clone()], "a false down, or a silent grouping");
    assert_eq!(receiver.count("blind"), 1, "{:#?}", receiver.arrivals());
    assert_eq!(receiver.count("up"), 0, "nobody who was not called down is called up");
    fleet.stop();
    server.stop();
}

#[test]
fn a_server_that_was_frozen_for_ten_seconds_accuses_nobody() {
    let data = Data::init();
    let receiver = Receiver::start();
    let server = data.serve();
    let mut client = server.client();
    client.add_webhook(&data.key, &receiver.url());
    let hosts = enrol(&data, &mut client, 20, 2, 2);
    let fleet = Fleet::start(server.address, plans(hosts), 4);
    std::thread::sleep(Duration::from_secs(3));
    server.signal(Signal::STOP);
    std::thread::sleep(Duration::from_secs(10));
    server.signal(Signal::CONT);
    std::thread::sleep(Duration::from_secs(7));
    assert_eq!(receiver.count("down"), 0, "{:#?}", receiver.arrivals());
    assert_eq!(receiver.count("blind"), 0, "ten seconds are credited, and worth no message");
    // The watch goes on: a death now is found out.
    let mut mortal = Host::enrol(&mut client, &data.key, "mortal", 2, 2);
    assert_eq!(mortal.beat(&mut client).unwrap(), 200);
    receiver.wait_for("the down of the one that died", Duration::from_secs(15), |all| {
        all.iter().any(|arrival| arrival.event() == "down" && arrival.host() == mortal.name)
    });
    assert_eq!(receiver.count("down"), 1);
    fleet.stop();
    server.stop();
}
