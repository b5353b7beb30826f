//! Two addresses to beat to.

use std::fs;
use std::time::{Duration, Instant};

use super::lab::{Lab, NAME, SERVER_V4, URL};
use crate::machine::{events, host, until};

/// The agent asks for its first address again a minute after it left it.
const PROBE: Duration = Duration::from_mins(1);

#[test]
fn when_the_first_address_is_dead_beats_flow_by_the_second_and_return_to_the_first() {
    // The server accepts beats for its public name and for that of its machine.
    let second = rustix::system::uname().nodename().to_str().unwrap().to_ascii_lowercase();
    assert_ne!(second, NAME);
    let other = "10.99.0.3";
    let lab = Lab::new(&format!("{SERVER_V4} {NAME}\n{other} {second}\n"));
    let data = Lab::data();
    let server = lab.serve(&data, "0.0.0.0:8600");
    let machine = lab.enrolled(&data, "web1");
    let record = machine.dir.path().join("enrolment.toml");
    let enrolled = fs::read_to_string(&record).unwrap();
    let first = format!("\"{URL}/v1/beat\"");
    let both = enrolled.replace(&first, &format!("{first}, \"https://{second}:8600/v1/beat\""));
    assert_ne!(both, enrolled, "{enrolled}");
    fs::write(&record, both).unwrap();
    let by = format!("ip daddr {SERVER_V4} tcp dport 8600 counter");
    let count = format!("{by}; ip daddr {other} tcp dport 8600 counter");
    lab.filter(&count);
    let agent = machine.agent();
    until("it beats", || host(&data, &server, "web1")["state"] == "up");
    assert_eq!(lab.counted()[1], 0, "the first address works");

    lab.filter(&format!("{by} drop; ip daddr {other} tcp dport 8600 counter"));
    let begun = Instant::now();
    until("beats by the second address", || lab.counted()[1] >= 10);
    assert!(begun.elapsed() < Duration::from_secs(8), "it took {:?}", begun.elapsed());
    until("it says so", || agent.log().contains(&format!("beats are stored by https://{second}:8600 again")));
    lab.filter(&count);
    std::thread::sleep(Duration::from_secs(3));
    let (by_first, by_second) = (lab.counted()[0], lab.counted()[1]);
    assert!(by_second > 0 && by_first < by_second, "it stays there for a while: {by_first}, {by_second}");

    std::thread::sleep(PROBE.saturating_sub(begun.elapsed()));
    lab.filter(&count);
    until("it returns to the first address", || lab.counted()[0] >= 10);
    lab.filter(&count);
    std::thread::sleep(Duration::from_secs(2));
    let counted = lab.counted();
    assert!(counted[0] > 0 && counted[1] == 0, "and stays there: {counted:?}");
    let happened = events(&data, &server, "web1");
    assert!(happened.iter().all(|event| event["event"] != "down"), "{happened:?}");
    server.stop();
}
