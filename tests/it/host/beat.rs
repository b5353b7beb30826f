use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::Value;

use super::server::{Reply, Server};
use super::world::World;

#[test]
fn a_stored_beat_is_quiet_and_the_next_one_needs_no_second_round_trip() {
    let server = Server::plain();
    let world = World::enrolled(&server);
    for _ in 0..3 {
        let run = world.run(&["beat"]);
        assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (0, "", ""), "{run:?}");
    }
    assert_eq!(server.seen().len(), 3, "a nonce that is kept is spent at once");
    let stored = server.stored();
    assert_eq!(stored.iter().map(|beat| beat.seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(stored[0].run, stored[2].run, "one-shot beats of one boot are one run");
    assert!(stored[0].vitals.as_ref().unwrap().mem_total_bytes.is_some());
    assert!(stored[0].degraded.is_empty());
    let answer: Value = serde_json::from_str(&world.run(&["beat", "--json"]).stdout).unwrap();
    assert_eq!((answer["stored"].as_bool(), answer["seq"].as_u64()), (Some(true), Some(4)));
}

#[test]
fn a_stale_nonce_is_replaced_at_once() {
    let server = Server::plain();
    let world = World::enrolled(&server);
    fs::remove_file(world.state().join("journal")).unwrap_or_default();
    world.run(&["beat"]).says(0, &[]);
    fs::remove_file(world.state().join("journal")).unwrap();
    server.behave();
    world.run(&["beat"]).says(0, &[]);
    assert_eq!(server.seen().len(), 2, "the enrolment's nonce is spent: one 409, then stored");
}

#[test]
fn nonces_that_are_never_good_end_after_four_requests() {
    let server = Server::plain();
    let world = World::enrolled(&server);
    server.play(|number, _| {
        let next = hb_wire::nonce::Nonce([u8::try_from(number).unwrap() + 100; 16]).to_string();
        Some(Reply::json(409, &serde_json::json!({ "code": "stale_nonce", "next": next })))
    });
    world.run(&["beat"]).says(69, &["gave 4 nonces and took none"]);
    assert_eq!(server.seen().len(), 4);
    // The same one again and again is no progress at all.
    let next = hb_wire::nonce::Nonce([77; 16]).to_string();
    server.play(move |_, _| Some(Reply::json(409, &serde_json::json!({ "code": "stale_nonce", "next": next }))));
    world.run(&["beat"]).says(69, &["refuses the nonce that it gave"]);
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn what_no_hb_server_says_is_no_stored_beat() {
    let server = Server::plain();
    let world = World::enrolled(&server);
    let ours = r#"{"next":"AAAAAAAAAAAAAAAAAAAAAQ","now":"2026-11-23T00:00:00Z","interval_s":60}"#;
    for (reply, says) in [
        (Reply::Http(200, Vec::new(), "<html>Welcome to the airport</html>".to_owned()), "not as an hb server does"),
        (Reply::Http(200, Vec::new(), "{}".to_owned()), "not as an hb server does"),
        (Reply::Http(204, Vec::new(), String::new()), "204"),
        (Reply::Http(301, vec!["Location: /v1/beat".to_owned()], ours.to_owned()), "301"),
        (Reply::Http(200, Vec::new(), "x".repeat(100_000)), "longer than 16384 bytes"),
        (Reply::Http(500, Vec::new(), "oops".to_owned()), "500"),
        (Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"next\"".to_vec()), "error: "),
        (Reply::Raw(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), "error: "),
        (Reply::Raw(Vec::new()), "error: "),
    ] {
        let shown = format!("{reply:?}");
        server.play(move |_, _| Some(reply.clone()));
        let run = world.run(&["beat"]);
        assert_eq!(run.code, 69, "{shown}: {run:?}");
        assert!(run.stderr.contains(says) && run.stderr.contains("hint: "), "{shown}: {run:?}");
        assert_eq!(server.seen().len(), 1, "{shown}");
    }
    assert!(server.stored().is_empty());
    server.behave();
    world.run(&["beat"]).says(0, &[]);
    let gap = server.stored()[0].gap.clone().unwrap();
    assert_eq!(gap.failed, 9, "what failed is told in the next beat");
}

#[test]
fn a_refusal_and_an_overload_have_their_own_exit_codes() {
    let server = Server::plain();
    let world = World::enrolled(&server);
    for (status, code, exit) in [
        (401, "bad_signature", 77),
        (404, "not_found", 77),
        (410, "retired", 77),
        (409, "cloned", 77),
        (429, "too_many_requests", 69),
        (503, "unavailable", 69),
    ] {
        server.play(move |_, _| Some(Reply::problem(status, code)));
        let run = world.run(&["beat"]);
        assert_eq!(run.code, exit, "{run:?}");
        assert!(run.stderr.contains(&status.to_string()) && run.stderr.contains("hint: "), "{run:?}");
    }
}

#[test]
fn a_failure_is_one_line_for_the_mail_of_cron() {
    let server = Server::plain();
    let world = World::enrolled(&server);
    server.play(|_, _| Some(Reply::problem(503, "unavailable")));
    let run = world.run(&["beat"]);
    assert_eq!((run.code, run.stderr.lines().count()), (69, 1), "{run:?}");
    assert!(run.stderr.starts_with("error: the server did not take the beat: 503 (unavailable); hint: "), "{run:?}");
}

#[test]
fn the_boot_id_that_systemd_hands_over_goes_before_that_of_proc() {
    let server = Server::plain();
    let world = World::enrolled(&server);
    let credentials = world.state().join("credentials");
    fs::create_dir(&credentials).unwrap();
    fs::write(credentials.join("bootid"), "11111111-2222-4333-8444-555555555555\n").unwrap();
    let world = world.env("CREDENTIALS_DIRECTORY", credentials.to_str().unwrap());
    world.run(&["beat"]).says(0, &[]);
    fs::write(credentials.join("bootid"), "nonsense").unwrap();
    world.run(&["beat"]).says(0, &[]);
    let boots: Vec<_> = server.stored().iter().map(|beat| beat.boot.to_string()).collect();
    let kernel = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().replace('-', "");
    assert_eq!(boots[0].replace('-', ""), "11111111222243338444555555555555");
    assert_eq!(boots[1].replace('-', ""), kernel);
}

#[test]
fn a_server_that_does_not_answer_costs_its_time_out_and_no_more() {
    let server = Server::plain();
    let world = World::enrolled(&server).env("HB_TIMEOUT", "1s");
    server.play(|_, _| Some(Reply::Hang(Duration::from_secs(20))));
    let run = world.run(&["beat"]);
    run.says(69, &["did not answer within 1 s"]);
    assert!(run.took < Duration::from_secs(4), "{:?}", run.took);
}

#[test]
fn an_address_that_is_closed_or_has_no_name_is_named() {
    let server = Server::plain();
    let world = World::enrolled(&server);
    let record = fs::read_to_string(world.state().join("enrolment.toml")).unwrap();
    let beat_to = |url: &str| {
        let old = format!("{}/v1/beat", server.url());
        fs::write(world.state().join("enrolment.toml"), record.replace(&old, url)).unwrap();
    };
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    beat_to(&format!("http://{closed}/v1/beat"));
    world.run(&["beat"]).says(69, &["no connection to", &closed.to_string(), "refused", "firewall"]);
    beat_to("https://no-such-host.invalid/v1/beat");
    world.run(&["beat"]).says(69, &["could not resolve no-such-host.invalid", "DNS"]);
    let journal = fs::read_to_string(world.state().join("journal")).unwrap();
    assert!(journal.contains(r#""error":"dns""#), "{journal}");
    beat_to("http://192.0.2.1/v1/beat");
    world.run(&["beat"]).says(78, &["plain http"]);
}

#[test]
fn a_proxy_that_is_gone_or_refuses_is_the_proxys_fault_and_no_proxy_excepts() {
    let server = Server::plain();
    let world = World::enrolled(&server);
    let record = fs::read_to_string(world.state().join("enrolment.toml")).unwrap();
    let old = format!("{}/v1/beat", server.url());
    let https = record.replace(&old, "https://hb.example.com/v1/beat");
    fs::write(world.state().join("enrolment.toml"), https).unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let world = world.env("HTTPS_PROXY", &format!("http://{closed}"));
    world.run(&["beat"]).says(69, &["the proxy", &closed.to_string(), "NO_PROXY"]);
    let refusing = Server::plain();
    refusing.play(|_, _| Some(Reply::Raw(b"HTTP/1.1 403 Forbidden\r\n\r\n".to_vec())));
    let world = world.env("HTTPS_PROXY", &format!("http://{}", refusing.address));
    world.run(&["beat"]).says(69, &["the proxy", "gave no connection to https://hb.example.com"]);
    assert_eq!(refusing.seen()[0].path, "hb.example.com:443", "the proxy resolves the name");
    // As a configuration, which is what a service has.
    let world = world.env("HTTPS_PROXY", "");
    fs::write(world.state().join("agent.toml"), format!("proxy = \"http://{closed}\"\n")).unwrap();
    world.run(&["beat"]).says(69, &["the proxy", &closed.to_string()]);
    let journal = fs::read_to_string(world.state().join("journal")).unwrap();
    assert!(journal.contains(r#""error":"proxy""#), "{journal}");
    fs::write(world.state().join("enrolment.toml"), record).unwrap();
    let world = world.env("NO_PROXY", "127.0.0.1");
    world.run(&["beat"]).says(0, &[]);
}

#[test]
fn the_second_address_takes_the_beat_when_the_first_is_away() {
    let server = Server::plain();
    let world = World::enrolled(&server);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let record = fs::read_to_string(world.state().join("enrolment.toml")).unwrap();
    let both = record.replace("beat_urls = [", &format!("beat_urls = [\"http://{closed}/v1/beat\", "));
    assert_ne!(both, record);
    fs::write(world.state().join("enrolment.toml"), both).unwrap();
    world.run(&["beat"]).says(0, &[]);
    assert_eq!(server.stored().len(), 1);
}

#[test]
fn a_key_that_others_can_read_stops_everything_and_says_how_to_mend_it() {
    let server = Server::plain();
    let world = World::enrolled(&server);
    let key = world.state().join("host.key");
    for mode in [0o640, 0o604, 0o644, 0o660, 0o601] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        for command in ["beat", "agent"] {
            world.run(&[command]).says(78, &["can be used by others", "chmod 600"]);
        }
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
    world.run(&["beat"]).says(0, &[]);
    fs::remove_file(&key).unwrap();
    fs::write(&key, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    world.run(&["beat"]).says(78, &["is not a host key", "hint: "]);
    assert_eq!(server.stored().len(), 1);
}

#[test]
fn a_wrong_configuration_stops_everything_and_names_the_line() {
    let server = Server::plain();
    let world = World::enrolled(&server);
    for (text, says) in [
        ("timeot = \"10s\"\n", &["agent.toml line 1", "unknown key \"timeot\"", "did you mean timeout?"]),
        ("\ntimeout = 10\n", &["agent.toml line 2", "has no unit", "timeout = \"10s\""]),
    ] {
        fs::write(world.state().join("agent.toml"), text).unwrap();
        for command in ["beat", "agent", "register"] {
            world.run(&[command]).says(78, says);
        }
    }
    assert!(server.stored().is_empty());
}

#[test]
fn a_host_that_is_not_enrolled_is_told_how_to() {
    let world = World::new();
    for command in [&["beat"][..], &["agent"], &["identity", "show"]] {
        world.run(command).says(78, &["not enrolled", "hint: hb register --server URL"]);
    }
    world.run(&["doctor"]).says(1, &[]);
}

#[test]
fn the_identity_is_shown_without_the_secret() {
    let server = Server::plain();
    let world = World::enrolled(&server);
    let pem = fs::read_to_string(world.state().join("host.key")).unwrap();
    let secret = pem.lines().nth(1).unwrap();
    let shown = world.run(&["identity", "show"]);
    let beats_to = format!("beats to  {}", server.url());
    assert!(["web1", "SHA256:", &beats_to].iter().all(|part| shown.stdout.contains(part)), "{shown:?}");
    let json = world.run(&["identity", "show", "--json"]);
    let document: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(document["id"], super::server::HOST_ID);
    for run in [&shown, &json] {
        assert!(!run.stdout.contains(secret) && !run.stderr.contains(secret));
    }
}
