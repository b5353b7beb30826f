//! Names and address families: IPv4 only, IPv6 only, both with one of them dead, and name servers that do not answer.

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::lab::{Lab, NAME, SERVER_V4, SERVER_V4_NEARER, SERVER_V6};
use crate::machine::{events, host, until};

#[test]
fn a_server_of_one_family_only_is_reached_by_its_name() {
    for (listen, address) in [("0.0.0.0:8600", SERVER_V4), ("[::]:8600", SERVER_V6)] {
        let lab = Lab::new(&format!("{address} {NAME}\n"));
        // The other family ends at the server's door, whatever the socket there takes.
        let other = if address == SERVER_V4 { "ipv6" } else { "ipv4" };
        lab.filter(&format!(r#"iifname "wire" meta nfproto {other} drop"#));
        let data = Lab::data();
        let server = lab.serve(&data, listen);
        let machine = lab.enrolled(&data, "web1");
        let _agent = machine.agent();
        until(&format!("a beat by {address}"), || host(&data, &server, "web1")["state"] == "up");
        server.stop();
    }
}

#[test]
fn a_host_without_any_address_of_one_family_beats_by_the_other() {
    // The name has both addresses; the one that the host cannot use stands first.
    for (missing, first, second) in [("-4", SERVER_V4, SERVER_V6), ("-6", SERVER_V6, SERVER_V4)] {
        let lab = Lab::new(&format!("{first} {NAME}\n{second} {NAME}\n"));
        lab.strip(missing);
        let data = Lab::data();
        let server = lab.serve(&data, "[::]:8600");
        let machine = lab.enrolled(&data, "web1");
        let _agent = machine.agent();
        until(&format!("a beat without ip {missing}"), || host(&data, &server, "web1")["state"] == "up");
        server.stop();
    }
}

#[test]
fn a_family_that_leads_nowhere_costs_no_beat_while_the_other_one_works() {
    // Which family the C library puts first is its configuration; each is tried with itself first and dead.
    let prefer_v4 = "precedence ::ffff:0:0/96 100\n";
    // The one of a static agent has none: one of the two is the first for it.
    let has_order = std::env::var_os("HB_TEST_AGENT").is_none();
    let mut met = 0;
    for (dead, gai) in [("ipv6", "\n"), ("ipv4", prefer_v4)] {
        let lab = Lab::new(&format!("{SERVER_V6} {NAME}\n{SERVER_V4} {NAME}\n"));
        lab.etc("gai.conf", gai);
        lab.filter(&format!(r#"iifname "wire" meta nfproto {dead} tcp dport 8600 counter drop"#));
        let data = Lab::data();
        let server = lab.serve(&data, "[::]:8600");
        let machine = lab.enrolled(&data, "web1");
        let begun = Instant::now();
        let _agent = machine.agent();
        until("a beat by the other family", || host(&data, &server, "web1")["state"] == "up");
        assert!(begun.elapsed() < Duration::from_secs(5), "{dead} dead: {:?}", begun.elapsed());
        let dropped = lab.counted()[0];
        assert!(dropped > 0 || !has_order, "{dead} was tried first, and dropped");
        met += dropped.min(1);
        std::thread::sleep(Duration::from_secs(4));
        let kinds = events(&data, &server, "web1");
        assert!(kinds.iter().all(|event| event["event"] != "down"), "{kinds:?}");
        server.stop();
    }
    assert!(met > 0, "no dead family was ever tried first");
}

#[test]
fn an_address_that_swallows_everything_leaves_time_for_the_next() {
    // Of the same family: nothing is tried beside it. The system tries the nearer one first.
    let lab = Lab::new(&format!("{SERVER_V4_NEARER} {NAME}\n{SERVER_V4} {NAME}\n"));
    lab.filter(&format!(r#"iifname "wire" ip daddr {SERVER_V4_NEARER} tcp dport 8600 counter drop"#));
    let data = Lab::data();
    let server = lab.serve(&data, "0.0.0.0:8600");
    let machine = lab.enrolled(&data, "web1");
    let _agent = machine.agent();
    until("a beat to the second address", || host(&data, &server, "web1")["state"] == "up");
    assert!(lab.counted()[0] > 0, "the first address was tried");
    server.stop();
}

#[test]
fn an_agent_that_starts_before_its_name_server_recovers_by_itself_and_says_dns() {
    let lab = Lab::new("");
    let data = Lab::data();
    let server = lab.serve(&data, "0.0.0.0:8600");
    let names = NameServer::start(SERVER_V4, &[SERVER_V4.parse().unwrap()]);
    let machine = lab.enrolled(&data, "web1");
    for answers in [Some(NOT_NOW), None] {
        names.fail_with(answers);
        let agent = machine.agent();
        until("it says what is wrong", || agent.log().contains("(dns"));
        assert!(agent.log().contains("could not resolve hb.test"), "{}", agent.log());
        std::thread::sleep(Duration::from_secs(3));
        names.answer();
        until("it beats", || agent.log().contains("beats are stored by https://hb.test:8600 again"));
        assert!(!agent.log().contains("(timeout"), "{}", agent.log());
        let first = events(&data, &server, "web1").into_iter().find(|event| event["inputs"]["gap"]["failed"].is_u64());
        assert_eq!(first.map(|event| event["inputs"]["gap"]["error"].clone()), Some("dns".into()));
        drop(agent);
        // What an agent learnt it keeps for the next one, and this one shall know nothing.
        std::fs::remove_file(machine.dir.path().join("journal")).unwrap();
    }
    server.stop();
}

#[test]
fn a_name_server_that_the_host_learns_of_long_after_its_boot_is_asked_by_the_agent_that_runs() {
    let lab = Lab::new("");
    let data = Lab::data();
    let server = lab.serve(&data, "0.0.0.0:8600");
    let _names = NameServer::start(SERVER_V4, &[SERVER_V4.parse().unwrap()]);
    let machine = lab.enrolled(&data, "web1");
    // As before DHCP has answered: none, which stands for one of the host's own.
    lab.etc("resolv.conf", "");
    let agent = machine.agent();
    until("it says what is wrong", || agent.log().contains("(dns"));
    std::thread::sleep(Duration::from_secs(12));
    assert!(!agent.log().contains("stored"), "{}", agent.log());
    lab.etc("resolv.conf", &format!("nameserver {SERVER_V4}\n"));
    let begun = Instant::now();
    until("it beats", || agent.log().contains("beats are stored by https://hb.test:8600 again"));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    server.stop();
}

#[test]
fn a_name_server_that_falls_silent_costs_no_beat_once_the_address_is_known() {
    let lab = Lab::new("");
    // As slow as the C library is by itself: five seconds, twice.
    lab.etc("resolv.conf", &format!("nameserver {SERVER_V4}\n"));
    let data = Lab::data();
    let server = lab.serve(&data, "0.0.0.0:8600");
    let names = NameServer::start(SERVER_V4, &[SERVER_V4.parse().unwrap()]);
    let machine = lab.enrolled(&data, "web1");
    let agent = machine.agent();
    until("it beats", || host(&data, &server, "web1")["state"] == "up");
    names.fail_with(None);
    agent.stop();
    // A new run has no connection that it could go on using, and only its journal knows where the server is.
    let agent = machine.agent();
    until("it beats again", || host(&data, &server, "web1")["state"] == "up");
    assert!(!agent.log().contains("could not be sent"), "{}", agent.log());
    // Its end does not wait for an answer that nobody wants any more.
    let begun = Instant::now();
    agent.stop();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    server.stop();
}

#[test]
fn a_first_name_server_that_is_dead_delays_the_first_beat_and_no_more() {
    let lab = Lab::new(&format!("{SERVER_V4} {NAME}\n"));
    let data = Lab::data();
    let server = lab.serve(&data, "0.0.0.0:8600");
    let names = NameServer::start("10.99.0.3", &[SERVER_V4.parse().unwrap()]);
    let machine = lab.enrolled(&data, "web1");
    lab.etc("hosts", "");
    lab.etc("resolv.conf", &format!("nameserver {SERVER_V4}\nnameserver 10.99.0.3\n"));
    lab.filter(&format!("ip daddr {SERVER_V4} udp dport 53 counter drop"));
    let begun = Instant::now();
    let agent = machine.agent();
    until("it beats", || host(&data, &server, "web1")["state"] == "up");
    // The C library waits five seconds for a name server that is silent.
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    assert!(lab.counted()[0] > 0, "the first name server was asked");
    std::thread::sleep(Duration::from_secs(6));
    // Its first beat may have been due before that; none after it is late.
    let newest = events(&data, &server, "web1").remove(0);
    assert_eq!(newest["event"], "up", "{newest}");
    drop(agent);
    drop(names);
    server.stop();
}

/// A name server that knows one name, or answers with an error, or not at all.
struct NameServer {
    answers: Arc<AtomicBool>,
    fails: Arc<AtomicBool>,
}

/// SERVFAIL.
const NOT_NOW: u8 = 2;

impl NameServer {
    /// In the namespace of the calling thread.
    fn start(listen: &str, addresses: &[IpAddr]) -> Self {
        let socket = UdpSocket::bind((listen, 53)).unwrap();
        let (answers, fails) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        let (answering, failing, addresses) = (Arc::clone(&answers), Arc::clone(&fails), addresses.to_vec());
        std::thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((length, asker)) = socket.recv_from(&mut question) {
                let answer = if answering.load(Ordering::Relaxed) {
                    reply(&question[..length], 0, &addresses)
                } else if failing.load(Ordering::Relaxed) {
                    reply(&question[..length], NOT_NOW, &[])
                } else {
                    continue;
                };
                let _ = socket.send_to(&answer, asker);
            }
        });
        Self { answers, fails }
    }

    fn answer(&self) {
        self.answers.store(true, Ordering::Relaxed);
    }

    /// Answers with this error from now on, or not at all.
    fn fail_with(&self, code: Option<u8>) {
        self.fails.store(code.is_some(), Ordering::Relaxed);
        self.answers.store(false, Ordering::Relaxed);
    }
}

/// The answer to a question (RFC 1035): the same question, and the addresses that are of the type it asks for.
fn reply(question: &[u8], code: u8, addresses: &[IpAddr]) -> Vec<u8> {
    // The header, then the name as labels up to an empty one, then type and class.
    let name_end = 12 + question[12..].iter().position(|&byte| byte == 0).unwrap() + 1;
    let asked = u16::from_be_bytes([question[name_end], question[name_end + 1]]);
    let records: Vec<Vec<u8>> = addresses
        .iter()
        .filter_map(|address| match (address, asked) {
            (IpAddr::V4(v4), 1) => Some(v4.octets().to_vec()),
            (IpAddr::V6(v6), 28) => Some(v6.octets().to_vec()),
            _ => None,
        })
        .collect();
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, 0x80 | code, 0, 1, 0, u8::try_from(records.len()).unwrap(), 0, 0, 0, 0]);
    answer.extend(&question[12..name_end + 4]);
    for record in records {
        // The name by a pointer to the question's, the type, IN, for no time at all, and the address.
        answer.extend([0xc0, 12]);
        answer.extend(asked.to_be_bytes());
        answer.extend([0, 1, 0, 0, 0, 0, 0, u8::try_from(record.len()).unwrap()]);
        answer.extend(record);
    }
    answer
}
