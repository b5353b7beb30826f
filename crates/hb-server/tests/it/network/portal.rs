//! Somebody else answers: a captive portal, and a machine in the middle with a certificate of its own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hb_server::tls::{Files, Loaded, make};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::lab::{Lab, NAME, URL};
use crate::machine::{Agent, Machine, event, host, until};
use crate::server::{Data, Server, path_text, text};

/// Over TLS it answers everything with a page.
struct Portal {
    port: u16,
    answered: Arc<AtomicUsize>,
}

const PAGE: &str = "<!doctype html><title>Welcome</title><p>Accept our terms to go on.";

impl Portal {
    fn start(config: &Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let answered = Arc::new(AtomicUsize::new(0));
        let (config, count) = (Arc::clone(config), Arc::clone(&answered));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, count) = (Arc::clone(&config), Arc::clone(&count));
                std::thread::spawn(move || greet(stream, config, &count));
            }
        });
        Self { port, answered }
    }

    fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }
}

/// Until the other side has enough of it.
fn greet(stream: TcpStream, config: Arc<ServerConfig>, count: &AtomicUsize) {
    let mut stream = BufReader::new(StreamOwned::new(ServerConnection::new(config).unwrap(), stream));
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if !stream.read_line(&mut line).is_ok_and(|read| read > 0) {
                return;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        if stream.read_exact(&mut vec![0; length]).is_err() {
            return;
        }
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\r\n", PAGE.len());
        if stream.get_mut().write_all((head + PAGE).as_bytes()).is_err() {
            return;
        }
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// A host that was up until `portal` took the server's place.
fn taken_over(lab: &Lab, data: &Data, server: &Server, portal: &Portal) -> (Machine, Agent) {
    let machine = lab.enrolled(data, "web1").env("HB_LOG", "debug");
    let agent = machine.agent();
    until("it beats", || host(data, server, "web1")["state"] == "up");
    lab.divert(portal.port);
    let down = event(data, server, "web1", "down");
    assert_eq!(down["cause"], "silent", "{down}");
    (machine, agent)
}

/// What `hb doctor` says, which must be that something fails.
#[track_caller]
fn doctor(machine: &Machine) -> String {
    let output = machine.run(&["doctor"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    text(&output.stdout)
}

#[test]
fn the_page_of_a_captive_portal_is_no_stored_beat() {
    let lab = Lab::simple();
    let data = Lab::data();
    let server = lab.serve(&data, "0.0.0.0:8600");
    // With the server's own key, so that only what it says gives it away.
    let portal = Portal::start(&Loaded::read(&Files::own(data.path())).unwrap().config);
    let (machine, agent) = taken_over(&lab, &data, &server, &portal);
    assert!(portal.answered() >= 2, "it answered {} times", portal.answered());
    until("the agent says so", || agent.log().contains("answered 200, but not as an hb server does"));
    let said = doctor(&machine);
    assert!(said.contains("FAIL  server"), "{said}");
    assert!(said.contains("/v1/status answered 200, but not as an hb server does"), "{said}");
    assert!(said.contains("something else answers there"), "{said}");

    assert!(said.contains("attempts failed since the last accepted beat (not_ours)"), "{said}");
    // Who logs in at a portal has the network back, but the connections that stand still end at the portal.
    lab.heal();
    let up = event(&data, &server, "web1", "up");
    assert_eq!(
        (&up["cause"], &up["inputs"]["gap"]["error"]),
        (&"unreachable".into(), &"not_ours".into()),
        "{up}\n{}",
        agent.log()
    );
    drop(agent);
    lab.divert(portal.port);
    let beat = machine.run(&["beat"]);
    assert_eq!(beat.status.code(), Some(69), "{beat:?}");
    server.stop();
}

#[test]
fn whoever_shows_another_certificate_gets_no_beat_and_is_explained() {
    let lab = Lab::simple();
    let data = Lab::data();
    let server = lab.serve(&data, "0.0.0.0:8600");
    let dir = tempfile::tempdir().unwrap();
    let files = Files::own(dir.path());
    let shown = make(&files, &[NAME.to_owned()]).unwrap();
    let portal = Portal::start(&Loaded::read(&files).unwrap().config);
    // One host knows the server by its authority, the other by its fingerprint.
    let ca_file = path_text(&data.path().join("cert.pem"));
    let trusting = lab.machine().env("HB_CA_FILE", &ca_file);
    trusting.enrol(&data, URL, "web2", &["--grace", "1h"]);
    let well = trusting.run(&["beat"]);
    assert!(well.status.success(), "{well:?}");
    let (machine, agent) = taken_over(&lab, &data, &server, &portal);

    assert_eq!(portal.answered(), 0, "nothing is said to a stranger");
    until("the agent says so", || agent.log().contains("a beat could not be sent (tls"));
    assert!(agent.log().contains(&shown) && agent.log().contains(&data.fingerprint), "{}", agent.log());
    let said = doctor(&machine);
    assert!(said.contains("FAIL  tls"), "{said}");
    assert!(said.contains(&shown) && said.contains(&data.fingerprint), "both are named: {said}");
    assert!(said.contains("somebody is in between"), "{said}");
    assert!(!said.contains("--pin"), "nothing to copy that would let them in: {said}");
    let said = doctor(&trusting);
    assert!(said.contains("FAIL  tls") && said.contains(&shown), "{said}");
    assert!(said.contains("if the server's own output shows"), "{said}");
    for machine in [&trusting, &machine] {
        let status = machine.command(&["status"]).env("HB_SERVER", URL).env("HB_API_KEY", &data.key).output().unwrap();
        assert_eq!(status.status.code(), Some(69), "the key of the operator is not shown either: {status:?}");
    }
    assert_eq!(portal.answered(), 0);

    lab.heal();
    let up = event(&data, &server, "web1", "up");
    let gap = &up["inputs"]["gap"];
    assert_eq!((&up["cause"], &gap["error"]), (&"unreachable".into(), &"tls".into()), "{up}");
    drop(agent);
    lab.divert(portal.port);
    let beat = machine.run(&["beat"]);
    assert_eq!(beat.status.code(), Some(69), "{beat:?}");
    server.stop();
}
