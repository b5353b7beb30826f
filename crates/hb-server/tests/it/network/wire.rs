//! What a beat costs on the wire.

use std::time::Duration;

use super::lab::{Lab, NAME, SERVER_V4, SERVER_V6};
use crate::machine::{ask, host, until};

/// Beats that are measured.
const BEATS: u64 = 20;
/// What one may cost: bytes of IP in both directions, over TLS, on a connection that is kept.
const BYTES_MAX: u64 = 1_200;
/// By how much the name of the README is longer than that of the lab; a beat says it once.
const LONGER_NAME: u64 = ("hb.example.org".len() - NAME.len()) as u64;
/// By how much a header of IPv6 is longer than one of IPv4.
const LONGER_HEADER: u64 = 20;

#[test]
fn a_beat_on_a_kept_connection_takes_at_most_1200_bytes() {
    let (bytes, _) = beats_by(SERVER_V4);
    assert!(bytes + LONGER_NAME <= BYTES_MAX, "a beat takes {bytes} bytes");
}

#[test]
fn a_beat_by_ipv6_takes_the_longer_headers_and_no_more() {
    let (bytes, packets) = beats_by(SERVER_V6);
    assert!(bytes + LONGER_NAME <= BYTES_MAX + packets * LONGER_HEADER, "a beat takes {bytes} bytes");
}

/// Bytes of IP and packets that a beat takes, to a server at this address.
fn beats_by(address: &str) -> (u64, u64) {
    let lab = Lab::new(&format!("{address} {NAME}\n"));
    let data = Lab::data();
    let server = lab.serve(&data, "[::]:8600");
    let machine = lab.enrolled(&data, "web1");
    let _agent = machine.agent();
    until("it beats", || host(&data, &server, "web1")["state"] == "up");
    let id = host(&data, &server, "web1")["id"].as_str().unwrap().to_owned();
    // Asked over loopback: none of this goes over the cable.
    let seq = || -> u64 {
        let why = ask(&data, &server, &format!("/v1/hosts/{id}/why"));
        let mut steps = why["steps"].as_array().unwrap().iter().filter_map(|step| step.as_str());
        let (_, rest) = steps.find_map(|step| step.split_once("(seq ")).unwrap();
        rest.split(',').next().unwrap().parse().unwrap()
    };
    // Both readings a moment after a beat, when its last acknowledgement is through.
    let after = |least: u64| {
        until("beats", || seq() >= least);
        std::thread::sleep(Duration::from_millis(300));
        (seq(), lab.traffic())
    };
    let (first, before) = after(4);
    let (last, behind) = after(first + BEATS);
    let beats = last - first;
    let (bytes, packets) = ((behind.0 - before.0) / beats, (behind.1 - before.1).div_ceil(beats));
    println!("{beats} beats to {address}: {bytes} bytes of IP each in both directions, in {packets} packets");
    assert!(beats >= BEATS && bytes > 500, "the measurement is off: {beats} beats, {bytes} bytes");
    server.stop();
    (bytes, packets)
}
