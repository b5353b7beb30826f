use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use hb::journal::{Journal, StateDir};
use hb_wire::id::BootId;
use serde_json::Value;

use super::server::{Reply, Server};
use super::system::SYSTEM;
use super::world::{Run, World};

/// The result and message of every check by its name.
fn checks(run: &Run) -> BTreeMap<String, (String, String)> {
    let document: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"));
    assert_eq!(document["ok"].as_bool().unwrap(), run.code == 0);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    document["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| {
            assert!(check["result"] == "ok" || check["hint"].is_string(), "what to do: {check}");
            (text(&check["name"]), (text(&check["result"]), text(&check["message"])))
        })
        .collect()
}

/// A server whose time is right.
fn server() -> Server {
    let server = Server::plain();
    server.books.lock().unwrap().now = jiff::Timestamp::now().to_string();
    server
}

#[test]
fn a_host_that_is_well_gets_a_clean_bill_and_no_beat_is_sent() {
    let server = server();
    let world = World::enrolled(&server);
    world.run(&["beat"]).says(0, &[]);
    let run = world.run(&["doctor", "--json"]);
    assert_eq!(run.code, 0, "{run:?}");
    let checks = checks(&run);
    for name in ["config", "enrolment", "key", "state", "journal", "proxy", "tls", "clock", "server", "accepted"] {
        assert_eq!(checks[name].0, "ok", "{name}: {checks:?}");
    }
    assert_eq!(checks["agent"].0, "warn");
    assert_eq!(server.stored().len(), 1);
    server.behave();
    world.run(&["beat"]).says(0, &[]);
    assert_eq!(server.seen().len(), 1, "the doctor spent no nonce");
    let text = world.run(&["doctor"]);
    assert!(text.stdout.lines().any(|line| line.starts_with("ok    accepted")), "{text:?}");
}

#[test]
fn a_proxy_that_gives_no_connection_is_told_once() {
    let server = server();
    let world = World::enrolled(&server).env("HB_PROXY", "http://127.0.0.1:1");
    world.run(&["beat"]).says(69, &["127.0.0.1:1"]);
    let text = world.run(&["doctor"]).stdout;
    let proxies: Vec<&str> = text.lines().filter(|line| line.contains(" proxy  ")).collect();
    assert!(proxies.len() == 1 && proxies[0].starts_with("FAIL"), "{text}");
    assert!(text.contains("1 attempt failed since"), "{text}");
}

#[test]
fn each_trouble_is_found_by_its_own_check() {
    let server = server();
    let world = World::enrolled(&server);
    let failing = |name: &str, says: &str| {
        let run = world.run(&["doctor", "--json"]);
        let checks = checks(&run);
        let (result, message) = &checks[name];
        assert!(result != "ok" && message.contains(says), "{name}: {checks:?}");
        run.code
    };
    fs::write(world.state().join("journal"), "half").unwrap();
    assert_eq!(failing("journal", "damaged"), 0, "a lost journal is a warning");
    fs::remove_file(world.state().join("journal")).unwrap();

    world.run(&["beat"]).says(0, &[]);
    let says = |what: &str| {
        let run = world.run(&["doctor"]);
        assert!(run.stdout.contains(what), "{run:?}");
    };
    says("beat 1 by hb beat, accepted ");
    let state = StateDir::new(world.state());
    let journal = state.read().unwrap().unwrap();
    state.pen().write(&Journal { boot: BootId::mint(1, [1; 10]), ..journal }).unwrap();
    says("beat 1 by hb beat, before this host booted");

    fs::write(world.state().join("agent.toml"), "x = 1\n").unwrap();
    assert_eq!(failing("config", "unknown key"), 1);
    fs::remove_file(world.state().join("agent.toml")).unwrap();

    let key = world.state().join("host.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(failing("key", "can be used by others"), 1);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();

    server.books.lock().unwrap().now = "2024-01-01T00:00:00Z".to_owned();
    assert_eq!(failing("clock", "days ahead of"), 0);
    server.books.lock().unwrap().now = jiff::Timestamp::now().to_string();

    server.play(|_, seen| (seen.path == "/v1/beat").then(|| Reply::problem(401, "bad_signature")));
    assert_eq!(failing("accepted", "refuses this host"), 1);

    server.play(|_, _| Some(Reply::Http(200, Vec::new(), "<html>".to_owned())));
    assert_eq!(failing("server", "not as an hb server does"), 1);

    server.play(|_, seen| {
        (seen.path == "/v1/status").then(|| {
            let now = jiff::Timestamp::now().to_string();
            Reply::json(
                503,
                &serde_json::json!({ "status": "blind", "observing": false, "version": "0.1.0", "now": now }),
            )
        })
    });
    assert_eq!(failing("server", "blind"), 0);
    server.behave();

    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let record = world.state().join("enrolment.toml");
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replace(&server.url(), &format!("http://{closed}"))).unwrap();
    assert_eq!(failing("server", "no connection"), 1);
    fs::write(&record, text.replace(&server.url(), "https://no-such-host.invalid")).unwrap();
    assert_eq!(failing("dns", "could not resolve"), 1);
    fs::write(&record, "version = 1\n").unwrap();
    assert_eq!(failing("enrolment", "damaged"), 1);
}

#[test]
fn a_state_directory_that_cannot_be_written_fails() {
    let server = server();
    let world = World::enrolled(&server);
    let run = world.in_own_mounts(
        "cp -a \"$HB_STATE_DIR\" copy
         mount -t tmpfs tmpfs \"$HB_STATE_DIR\"
         cp -a copy/. \"$HB_STATE_DIR\"
         mount -o remount,ro \"$HB_STATE_DIR\"
         exec \"$HB\" doctor --json",
    );
    assert_eq!(run.code, 1, "{run:?}");
    assert_eq!(checks(&run)["state"].0, "fail");
}

#[test]
fn who_may_not_look_is_not_told_that_no_agent_runs() {
    let server = Server::plain();
    let world = World::new();
    let run = world.as_root_in_own_mounts(&format!(
        "{SYSTEM}
        \"$HB\" register --server {} --token-file token --name web1
        \"$HB\" beat
        cp \"$HB\" /var/lib/a-copy
        chmod 755 /var/lib/a-copy
        cd /
        setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=/ /var/lib/a-copy doctor || true",
        server.url()
    ));
    run.says(0, &[]);
    assert!(run.stdout.contains("this account may not see whether it runs"), "{run:?}");
    assert!(!run.stdout.contains("no agent runs"), "{run:?}");
}
