//! The network goes away, and comes back: who was up and could not be heard says so, from when to when.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::lab::{Cut, Lab};
use crate::machine::{ask, event, events, host, until};
use crate::receiver::Receiver;
use crate::server::text;

/// Cuts the cable for longer than a host may be silent, and checks what is said when it is whole again. The word for why the
/// beats did not get through.
fn outage(cut: Cut) -> String {
    let lab = Lab::simple();
    let data = Lab::data();
    let receiver = Receiver::start();
    let server = lab.serve(&data, "0.0.0.0:8600");
    server.client_of(&data).add_webhook(&data.key, &receiver.url());
    let agent = lab.enrolled(&data, "web1");
    let running = agent.agent();
    until("it beats", || host(&data, &server, "web1")["state"] == "up");

    let cut_at = Timestamp::now();
    lab.cut(cut);
    let down = event(&data, &server, "web1", "down");
    assert_eq!(down["cause"], "silent", "nobody can know more yet: {down}");
    std::thread::sleep(Duration::from_secs(1));
    let healed_at = Timestamp::now();
    lab.heal();
    let up = event(&data, &server, "web1", "up");
    assert_eq!(up["cause"], "unreachable", "{up}");
    let gap = &up["inputs"]["gap"];
    assert!(gap["failed"].as_u64().unwrap() >= 2, "{gap}");

    // From the first beat that failed to the first that did not, in the message, in the history, and in hb why.
    let message = up["message"].as_str().unwrap().to_owned();
    let (from, to) = span(&message);
    let (cut_s, healed_s) = (second_of_day(cut_at), second_of_day(healed_at));
    assert!((cut_s..=cut_s + 3).contains(&from), "cut at {cut_at}: {message}");
    assert!((healed_s..=healed_s + 3).contains(&to), "healed at {healed_at}: {message}");
    let told = receiver.wait_for("the end of the outage", Duration::from_secs(10), |all| {
        all.iter().any(|arrival| arrival.event() == "up")
    });
    let told = &told.iter().find(|arrival| arrival.event() == "up").unwrap().body;
    assert_eq!((&told["cause"], &told["message"]), (&"unreachable".into(), &Value::from(message.as_str())), "{told}");
    let operator = lab.operator(&data);
    for command in ["history", "why"] {
        let said = operator.run(&[command, "web1"]);
        // A table wraps what is too wide.
        let said = text(&said.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains("unreachable"), "hb {command}: {said}");
        assert!(said.contains("its beats did not get through from"), "hb {command}: {said}");
    }
    let why = ask(&data, &server, &format!("/v1/hosts/{}/why", up["host"]["id"].as_str().unwrap()));
    assert_eq!(why["event"]["cause"], "unreachable", "{why}");

    let kinds: Vec<String> =
        events(&data, &server, "web1").iter().map(|event| event["event"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds[..2], ["up", "down"], "one outage: {kinds:?}");
    assert!(running.log().contains("beats are stored by https://hb.test:8600 again"), "{}", running.log());
    server.stop();
    gap["error"].as_str().unwrap().to_owned()
}

/// The two times of `from 03:14:39 UTC to 03:24:39 UTC`, in seconds of the day.
fn span(message: &str) -> (i64, i64) {
    let (_, rest) = message.split_once("it was up, its beats did not get through from ").unwrap();
    let second = |text: &str| {
        let parts: Vec<i64> = text[..8].split(':').map(|part| part.parse().unwrap()).collect();
        parts[0] * 3600 + parts[1] * 60 + parts[2]
    };
    (second(rest), second(rest.split_once(" to ").unwrap().1))
}

fn second_of_day(at: Timestamp) -> i64 {
    at.as_second().rem_euclid(86_400)
}

#[test]
fn a_host_whose_packets_are_dropped_was_up_and_unreachable() {
    assert_eq!(outage(Cut::Dropped), "timeout");
}

#[test]
fn a_host_whose_connections_are_refused_was_up_and_unreachable() {
    assert_eq!(outage(Cut::Refused), "connect");
}

#[test]
fn a_host_whose_interface_was_down_was_up_and_unreachable() {
    assert_eq!(outage(Cut::Unplugged), "connect");
}
