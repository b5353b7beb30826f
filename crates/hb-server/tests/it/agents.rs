//! The real agent against the real server: what only the two together can show.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::machine::{Machine, ask, event, events, host, kinds, until};
use crate::receiver::Receiver;
use crate::server::{Data, Server, text};

#[test]
fn a_copied_machine_is_quarantined_and_says_so_and_the_original_is_never_displaced() {
    let data = Data::init();
    let server = data.serve();
    let receiver = Receiver::start();
    server.client().add_webhook(&data.key, &receiver.url());
    let original = Machine::enrolled(&data, &server, "web1");
    let first = original.agent();
    until("the original beats", || host(&data, &server, "web1")["state"] == "up");
    let copied = original.copy();
    let second = copied.agent();
    until("the operator is told", || kinds(&data, &server).iter().any(|kind| kind == "cloned"));
    receiver.wait_for("the message about it", Duration::from_secs(20), |all| {
        all.iter().any(|told| told.event() == "cloned")
    });
    until("the copy says so in its log", || second.log().contains("another machine is alive with this host's key"));
    assert!(second.log().contains("hb identity reset"), "and what to do: {}", second.log());
    let doctor = copied.run(&["doctor"]);
    let said = text(&doctor.stdout) + &text(&doctor.stderr);
    assert!(!doctor.status.success() && said.contains("quarantine"), "{said}");

    // From here on the original goes on as if there were no other.
    let seen = host(&data, &server, "web1");
    assert_eq!(seen["marks"], serde_json::json!(["cloned"]), "{seen}");
    let ours = first.log().lines().count();
    let last = |host: &Value| host["last_seen"].as_str().unwrap().to_owned();
    until("the original still beats", || last(&host(&data, &server, "web1")) > last(&seen));
    std::thread::sleep(Duration::from_secs(4));
    let events = kinds(&data, &server);
    assert_eq!(events.iter().filter(|kind| *kind == "cloned").count(), 1, "told once: {events:?}");
    assert!(!events.iter().any(|kind| kind == "down"), "{events:?}");
    assert_eq!((receiver.count("cloned"), receiver.count("down")), (1, 0));
    assert!(first.log().lines().count() <= ours + 1, "{}", first.log());

    // Whoever of the two enrols again with that key would confirm it for both.
    let url = format!("http://{}", server.address);
    let forced = copied.run(&["register", "--server", &url, "--force", "--name", "web1-copy"]);
    let said = text(&forced.stderr);
    assert!(!forced.status.success() && said.contains("hb identity reset"), "{said}");
    assert_eq!(host(&data, &server, "web1")["id"], seen["id"], "and keeps its name");

    // The copy becomes a host of its own.
    drop(second);
    assert!(copied.run(&["identity", "reset", "--yes"]).status.success());
    let anew = ["register", "--server", &url, "--name", "web2", "--interval", "1s"];
    assert!(copied.command(&anew).env("HB_API_KEY", &data.key).output().unwrap().status.success());
    let _third = copied.agent();
    until("the copy is another host", || host(&data, &server, "web2")["state"] == "up");
    assert_eq!(host(&data, &server, "web1")["state"], "up");
    server.stop();
}

#[test]
fn a_host_announces_its_maintenance_and_changes_its_key_while_its_agent_runs() {
    let data = Data::init();
    let server = data.serve();
    let machine = Machine::enrolled(&data, &server, "web1");
    let agent = machine.agent();
    until("it beats", || host(&data, &server, "web1")["state"] == "up");

    let output = machine.run(&["maint", "20m", "kernel"]);
    assert!(output.status.success(), "{output:?}");
    let seen = host(&data, &server, "web1");
    assert_eq!((&seen["marks"], &seen["reason"]), (&serde_json::json!(["maintenance"]), &"kernel".into()), "{seen}");
    assert!(machine.run(&["maint", "end"]).status.success());
    assert_eq!(host(&data, &server, "web1")["marks"], serde_json::json!([]));

    let old = fs::read(machine.dir.path().join("host.key")).unwrap();
    let output = machine.run(&["identity", "rotate"]);
    assert!(output.status.success(), "{output:?}");
    drop(agent);
    let agent = machine.agent();
    until("the new key is the host's", || kinds(&data, &server).iter().any(|kind| kind == "key_rotated"));
    drop(agent);
    assert!(machine.run(&["beat"]).status.success());
    let new = fs::read(machine.dir.path().join("host.key")).unwrap();
    assert!(old != new);

    // Whoever kept the old key has nothing.
    let thief = machine.copy();
    let record = fs::read_to_string(thief.dir.path().join("enrolment.toml")).unwrap();
    let public =
        |pem: &[u8]| hb_wire::key::HostKey::from_pem(core::str::from_utf8(pem).unwrap()).unwrap().public().to_string();
    fs::write(thief.dir.path().join("enrolment.toml"), record.replace(&public(&new), &public(&old))).unwrap();
    fs::write(thief.dir.path().join("host.key"), &old).unwrap();
    let output = thief.run(&["beat"]);
    assert_eq!(output.status.code(), Some(77), "{output:?}");
    assert!(machine.run(&["beat"]).status.success());
    assert!(!kinds(&data, &server).iter().any(|kind| kind == "cloned" || kind == "down"));
    server.stop();
}

/// A host that is called down after three seconds of silence.
fn mortal(data: &Data, server: &Server) -> Machine {
    let machine = Machine::new();
    machine.enrol(data, &format!("http://{}", server.address), "web1", &["--grace", "2s"]);
    machine
}

#[test]
fn a_shorter_interval_holds_from_the_next_beat_on_for_the_agent_and_for_the_alarm() {
    let data = Data::init();
    let server = data.serve();
    let url = format!("http://{}", server.address);
    let machine = Machine::new();
    let register = ["register", "--server", &url, "--name", "web1", "--interval", "1h", "--grace", "2h"];
    assert!(machine.command(&register).env("HB_API_KEY", &data.key).output().unwrap().status.success());
    let agent = machine.agent();
    until("it beats", || host(&data, &server, "web1")["state"] == "up");
    let set = ["hosts", "set", "web1", "--interval", "1s", "--grace", "2s"];
    let output = machine.command(&set).env("HB_SERVER", &url).env("HB_API_KEY", &data.key).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    // Well within interval and grace of its last beat: nothing else has to be decided.
    assert!(machine.run(&["beat"]).status.success());
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(host(&data, &server, "web1")["state"], "up", "its agent keeps the new interval");
    drop(agent);
    event(&data, &server, "web1", "down");
    assert_eq!(kinds(&data, &server).iter().filter(|kind| *kind == "down").count(), 1);
    server.stop();
}

#[test]
fn an_agent_that_was_killed_and_one_that_was_stopped_are_told_apart_when_they_are_back() {
    let data = Data::init();
    let server = data.serve();
    let machine = mortal(&data, &server);
    let agent = machine.agent();
    until("it beats", || host(&data, &server, "web1")["state"] == "up");
    drop(agent);
    event(&data, &server, "web1", "down");
    let agent = machine.agent();
    let up = event(&data, &server, "web1", "up");
    assert_eq!(up["cause"], "agent_killed", "{up}");

    agent.stop();
    until("it said goodbye", || host(&data, &server, "web1")["state"] == "stopped");
    let _agent = machine.agent();
    until("it is back", || host(&data, &server, "web1")["state"] == "up");
    let back = events(&data, &server, "web1").remove(0);
    assert_eq!(back["cause"], "agent_stopped", "{back}");
    let downs = kinds(&data, &server).iter().filter(|kind| *kind == "down").count();
    assert_eq!(downs, 1, "a goodbye is no death");
    server.stop();
}

#[test]
fn a_silence_that_the_server_mostly_did_not_watch_is_unobserved() {
    let data = Data::init();
    let server = data.serve();
    let address = server.address.to_string();
    let machine = mortal(&data, &server);
    let agent = machine.agent();
    until("it beats", || host(&data, &server, "web1")["state"] == "up");
    agent.signal(Signal::STOP);
    event(&data, &server, "web1", "down");
    server.stop();
    std::thread::sleep(Duration::from_secs(7));
    let server = data.serve_with(&["--listen", &address], &[]);
    agent.signal(Signal::CONT);
    let up = event(&data, &server, "web1", "up");
    assert_eq!(up["cause"], "unobserved", "{up}");
    let why = ask(&data, &server, &format!("/v1/hosts/{}/why", up["host"]["id"].as_str().unwrap()));
    assert_eq!(why["event"]["cause"], "unobserved", "{why}");
    server.stop();
}

#[test]
fn a_host_that_was_suspended_tells_it_by_the_clocks_of_its_kernel() {
    let data = Data::init();
    let server = data.serve();
    let machine = mortal(&data, &server);
    assert!(machine.run(&["beat"]).status.success());
    event(&data, &server, "web1", "down");
    // The kernel shows what it shows after an hour of sleep: CLOCK_BOOTTIME went on, CLOCK_MONOTONIC did not.
    let slept = ["/usr/bin/unshare", "--time", "--fork", "--boottime", "3600"];
    let output = machine.command_by(&slept, &["beat"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let up = event(&data, &server, "web1", "up");
    assert_eq!((&up["cause"], &up["inputs"]["gap"]["suspended_s"]), (&"suspended".into(), &3600.into()), "{up}");
    server.stop();
}

/// A few show that the test works; `HB_AGENT_KILLS=1000` gives the figure.
const KILLS: u64 = 25;

#[test]
fn an_agent_killed_at_any_moment_is_refused_nothing_and_taken_for_no_copy() {
    let kills: u64 = std::env::var("HB_AGENT_KILLS").ok().map_or(KILLS, |text| text.parse().unwrap());
    let data = Data::init();
    // It beats faster than a host may, and than the server can be told to allow, if it is not held up.
    let server = data.serve_with(&["--listen", "127.0.0.1:0"], &[("HB_SERVER_BEATS_PER_INTERVAL", "1000")]);
    let machine = Machine::enrolled(&data, &server, "web1");
    let (door, log) = (machine.dir.path().join("agent.sock"), machine.dir.path().join("log"));
    let (mut starts, mut stored) = (0, 0);
    for kill in 0..kills {
        let agent = machine.agent();
        let end = Instant::now() + Duration::from_micros(1_000 + kill * 7_919 % 150_000);
        while Instant::now() < end {
            let mut answer = String::new();
            if let Ok(mut stream) = UnixStream::connect(&door) {
                let _ = stream.set_read_timeout(Some(Duration::from_millis(50)));
                let _ = stream.write_all(b"null\n").and_then(|()| stream.read_to_string(&mut answer));
            }
            stored += u64::from(answer.contains("\"stored\""));
            std::thread::sleep(Duration::from_millis(2));
        }
        drop(agent);
        let said = fs::read_to_string(&log).unwrap();
        starts += u64::from(said.contains("the first beat is stored"));
        // A nonce that the killed one spent without hearing of it is asked for anew, which is no refusal; nothing else may be said.
        for line in said.lines() {
            let fine = ["beating for web1", "the first beat is stored"].iter().any(|part| line.contains(part));
            assert!(fine, "after kill {kill}: {said}");
        }
    }
    println!("{kills} kills: {starts} runs stored their first beat, {stored} beats were asked for and stored");
    assert!(starts * 2 > kills && stored > kills, "it was killed too early to tell: {starts}, {stored}");
    assert!(machine.run(&["beat"]).status.success());
    let seen = host(&data, &server, "web1");
    assert_eq!((&seen["state"], &seen["marks"]), (&"up".into(), &serde_json::json!([])), "{seen}");
    let kinds = kinds(&data, &server);
    assert!(!kinds.iter().any(|kind| kind == "cloned" || kind == "down"), "{kinds:?}");
    server.stop();
}
