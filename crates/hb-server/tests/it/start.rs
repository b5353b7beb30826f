//! Init, serve, beats, and a clean stop.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::client::{Client, Host};
use crate::receiver::Receiver;
use crate::server::{Data, Server, file, program, run, text};

#[test]
fn init_prints_the_key_alone_on_stdout_and_keeps_everything_but_the_certificate_for_its_owner() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("new");
    let output = run(&["init", "--data", dir.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let key = text(&output.stdout);
    assert!(hb_wire::api_key::Secret::parse(key.strip_suffix('\n').unwrap()).is_ok(), "{key:?}");
    assert!(!text(&output.stderr).contains("hbk_"), "the key is only on stdout");
    let mode = |name: &str| std::fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode(""), mode("cert.pem"), mode("key.pem"), mode("hb.db")], [0o700, 0o644, 0o600, 0o600]);
}

#[test]
fn init_again_refuses_and_changes_nothing() {
    let data = Data::init();
    let database = std::fs::read(data.path().join("hb.db")).unwrap();
    let again = run(&["init", "--data", data.path().to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(text(&again.stdout), "");
    let stderr = text(&again.stderr);
    assert!(stderr.contains("is initialised already") && stderr.contains("hint: "), "{stderr}");
    assert_eq!(std::fs::read(data.path().join("hb.db")).unwrap(), database);
}

#[test]
fn a_lost_admin_key_can_be_made_anew_on_the_servers_own_machine() {
    let data = Data::init();
    let output = run(&["admin-key", "--data", data.path().to_str().unwrap(), "--name", "second"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let server = data.serve();
    let listed = server.client().api(text(&output.stdout).trim(), "GET", "/v1/keys", &Value::Null).unwrap();
    assert_eq!(listed.status, 200);
    assert_eq!(listed.json()["keys"].as_array().unwrap().len(), 2);
    server.stop();
}

#[test]
fn a_host_enrols_and_beats_and_the_server_stops_cleanly() {
    let data = Data::init();
    let server = data.serve();
    assert_eq!(server.scheme, "http");
    let mut client = server.client();
    let mut host = Host::enrol(&mut client, &data.key, "web1", 60, 120);
    for _ in 0..3 {
        assert_eq!(host.beat(&mut client).unwrap(), 200);
    }
    let shown = client.api(&data.key, "GET", "/v1/hosts", &Value::Null).unwrap().json();
    assert_eq!(shown["hosts"][0]["state"], "up", "{shown}");
    let status = client.request("GET", "/v1/status", &[], b"").unwrap();
    assert_eq!((status.status, status.json()["observing"].as_bool()), (200, Some(true)));
    let log = server.stop();
    assert!(!log.iter().any(|line| line.contains(data.key.as_str())), "a secret is in the log: {log:?}");
    assert!(!log.iter().any(|line| line.contains("ERROR") || line.contains("WARN")), "{log:?}");
}

#[test]
fn every_spelling_of_loopback_may_be_signed_for() {
    let data = Data::init();
    let server = data.serve();
    let mut host = Host::enrol(&mut server.client(), &data.key, "web1", 60, 120);
    let port = server.address.port();
    for name in ["127.0.0.1", "localhost", "[::1]", "LOCALHOST"] {
        let mut client = server.client().called(&format!("{name}:{port}"));
        // The authority is signed in lower case, whatever the Host header says (RFC 9421, section 2.2.3).
        if name != "LOCALHOST" {
            assert_eq!(host.beat(&mut client).unwrap(), 200, "{name}");
        }
    }
    assert_eq!(host.beat(&mut server.client().called("elsewhere.example.com")).unwrap(), 401);
}

#[test]
fn with_a_public_url_its_name_is_signed_and_hosts_are_told_to_call_it() {
    let data = Data::init();
    let server = data.serve_with(&["--listen", "127.0.0.1:0"], &[("HB_SERVER_PUBLIC_URL", "https://hb.example.com")]);
    let mut client = server.client().called("hb.example.com");
    let mut host = Host::enrol(&mut client, &data.key, "web1", 60, 120);
    assert_eq!(host.beat(&mut client).unwrap(), 200);
    server.stop();
}

#[test]
fn what_is_in_flight_is_finished_before_the_server_stops() {
    let data = Data::init();
    let server = data.serve();
    let mut client = server.client();
    let mut host = Host::enrol(&mut client, &data.key, "web1", 60, 120);
    // A request whose head is there and whose body is not: it must still be answered.
    let mut stream = std::net::TcpStream::connect(server.address).unwrap();
    stream.write_all(b"POST /v1/keys HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    server.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(300));
    stream.write_all(b"}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert!(host.beat(&mut client).is_err(), "no new work is taken");
    let mut server = server;
    assert!(server.wait().success());
}

#[test]
fn an_idle_connection_does_not_hold_up_a_stop() {
    let data = Data::init();
    let server = data.serve();
    let mut client = server.client();
    client.request("GET", "/v1/status", &[], b"").unwrap();
    let asked = Instant::now();
    server.stop();
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
}

#[test]
fn a_test_server_refuses_a_share_of_good_nonces_and_hosts_get_through_all_the_same() {
    let data = Data::init();
    let server = data.serve_with(&["--listen", "127.0.0.1:0"], &[("HB_SERVER_REFUSE_NONCES_PERCENT", "50")]);
    let mut client = server.client();
    let mut host = Host::enrol(&mut client, &data.key, "web1", 60, 120);
    let stored = (0..9).filter(|_| host.beat(&mut client).unwrap() == 200).count();
    assert!(stored >= 4, "{stored} of 9 beats within three tries each");
    let metrics = text(&client.request("GET", "/metrics", &[], b"").unwrap().body);
    let stale = metrics.lines().find(|line| line.contains("stale") && !line.starts_with('#')).unwrap_or_default();
    assert!(!stale.ends_with(" 0"), "no nonce was refused: {metrics}");
}

#[test]
fn hangup_reads_the_configuration_again_and_a_bad_one_changes_nothing() {
    let data = Data::init();
    let config = file(data.path(), "server.toml", "log = \"info\"\n");
    let receiver = Receiver::start();
    let mut command = program();
    command.args(["serve", "--listen", "127.0.0.1:0", "--data", data.path().to_str().unwrap()]);
    command.args(["--config", config.to_str().unwrap()]);
    let mut server = Server::spawn(&mut command);
    let add = |client: &mut Client, name: &str| {
        let channel = serde_json::json!({ "kind": "webhook", "name": name, "settings": { "url": receiver.url() } });
        client.api(&data.key, "POST", "/v1/channels", &channel).unwrap().status
    };
    let mut client = server.client();
    assert!(add(&mut client, "one") >= 400, "loopback is refused by default");
    file(data.path(), "server.toml", "allow_networks = [\"127.0.0.0/8\"]\nbeats_per_interval = 20\n");
    server.signal(Signal::HUP);
    server.wait_for_line("the configuration was read again");
    server.wait_for_line("beats_per_interval was changed in the configuration: that takes effect with the next start");
    assert_eq!(add(&mut client, "two"), 201);
    file(data.path(), "server.toml", "allow_network = []\n");
    server.signal(Signal::HUP);
    let line = server.wait_for_line("the configuration stays as it was");
    assert!(line.contains("line 1: unknown key") && line.contains("did you mean allow_networks?"), "{line}");
    assert_eq!(add(&mut client, "three"), 201, "the old configuration still holds");
    server.stop();
}

#[test]
fn systemd_is_told_when_the_server_is_ready_alive_and_stopping() {
    let data = Data::init();
    let path = data.path().join("notify.sock");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let env = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "2000000")];
    let server = data.serve_with(&["--listen", "127.0.0.1:0"], &env);
    let mut said = String::new();
    let mut hear = |part: &str| {
        let started = Instant::now();
        while !said.contains(part) {
            assert!(started.elapsed() < Duration::from_secs(10), "{part} was not said: {said}");
            let mut buffer = [0; 512];
            let read = socket.recv(&mut buffer).unwrap();
            said.push_str(core::str::from_utf8(&buffer[..read]).unwrap());
        }
    };
    hear("READY=1");
    hear("WATCHDOG=1");
    server.signal(Signal::TERM);
    hear("STOPPING=1");
    let mut server = server;
    assert!(server.wait().success());
}
