//! What a beat costs on the wire.

use std::time::Duration;

use super::lab::Lab;
use crate::machine::{ask, host, until};

/// Beats that are measured.
const BEATS: u64 = 20;
/// What one may cost: bytes of IP in both directions, over TLS, on a connection that is kept.
const BYTES_MAX: u64 = 1_200;

#[test]
fn a_beat_on_a_kept_connection_takes_at_most_1200_bytes() {
    let lab = Lab::simple();
    let data = Lab::data();
    let server = lab.serve(&data, "0.0.0.0:8600");
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
    println!("{beats} beats: {bytes} bytes of IP each in both directions, in {packets} packets");
    assert!(beats >= BEATS && bytes > 500, "the measurement is off: {beats} beats, {bytes} bytes");
    assert!(bytes <= BYTES_MAX, "a beat takes {bytes} bytes");
    server.stop();
}
