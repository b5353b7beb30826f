use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use super::server::{HOST_ID, Reply, Server};
use super::world::World;

fn names(world: &World) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(world.state()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn enrolling_stores_the_key_and_the_record_and_a_second_run_changes_nothing() {
    let server = Server::plain();
    let world = World::new();
    let args = ["register", "--server", &server.url(), "--token-file", &world.token_file(), "--name", "Web1.Example"];
    let first = world.run(&args);
    first.says(0, &["a beat every 1m"]);
    assert_eq!(first.stdout, format!("enrolled as web1.example ({HOST_ID}) at {}/\n", server.url()));
    assert_eq!(names(&world), ["enrolment.toml", "host.key"]);
    let mode = |name: &str| fs::metadata(world.state().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("host.key"), mode("enrolment.toml")), (0o600, 0o644));
    let before =
        (fs::read(world.state().join("host.key")).unwrap(), fs::read(world.state().join("enrolment.toml")).unwrap());
    let asked = server.seen().len();

    let again = world.run(&args);
    again.says(0, &["already enrolled as web1.example", "nothing changed"]);
    assert_eq!(server.seen().len(), asked, "the server is not asked");
    let after =
        (fs::read(world.state().join("host.key")).unwrap(), fs::read(world.state().join("enrolment.toml")).unwrap());
    assert_eq!(before, after);

    // Without its key it is enrolled no more, and whatever runs this on every host hears of it.
    fs::remove_file(world.state().join("host.key")).unwrap();
    let lost = world.run(&args);
    lost.says(78, &["host.key is gone", "hb hosts retire NAME", "hb register --server URL --force"]);
    assert_eq!(names(&world), ["enrolment.toml"]);
}

#[test]
fn the_answer_is_one_json_document_that_says_whether_anything_changed() {
    let server = Server::plain();
    let world = World::new();
    let args = ["register", "--server", &server.url(), "--token-file", &world.token_file(), "--json"];
    let first: Value = serde_json::from_str(&world.run(&args).stdout).unwrap();
    assert_eq!((first["changed"].as_bool(), first["id"].as_str()), (Some(true), Some(HOST_ID)));
    let again: Value = serde_json::from_str(&world.run(&args).stdout).unwrap();
    assert_eq!((again["changed"].as_bool(), again["id"].as_str()), (Some(false), Some(HOST_ID)));
}

#[test]
fn everything_that_was_asked_for_reaches_the_server() {
    let server = Server::plain();
    let world = World::new();
    let url = server.url();
    let args = [
        "register",
        "--server",
        &url,
        "--token-file",
        &world.token_file(),
        "--name",
        "lap",
        "--interval",
        "5m",
        "--grace",
        "10m",
        "--tag",
        "site=ams",
        "--tag",
        "role=db",
        "--class",
        "intermittent",
        "--max-away",
        "14d",
    ];
    world.run(&args).says(0, &[]);
    let asked: Value = serde_json::from_slice(&server.seen()[0].body).unwrap();
    assert_eq!(asked["interval_s"], 300);
    assert_eq!(asked["grace_s"], 600);
    assert_eq!(asked["tags"]["site"], "ams");
    assert_eq!(asked["class"], "intermittent");
    assert_eq!(asked["max_away_s"], 1_209_600);
    assert!(server.seen()[0].headers["authorization"].starts_with("Bearer hbe_"));
}

#[test]
fn a_lost_answer_is_harmless_the_same_key_asks_again() {
    let server = Server::plain();
    server.play(|number, _| (number == 0).then_some(Reply::LoseAnswer));
    let world = World::new();
    let args = ["register", "--server", &server.url(), "--token-file", &world.token_file()];
    world.run(&args).says(69, &["error: ", "hint: "]);
    assert_eq!(names(&world), ["host.key.pending"]);
    world.run(&args).says(0, &[]);
    let keys: Vec<Value> = server
        .seen()
        .iter()
        .map(|seen| serde_json::from_slice::<Value>(&seen.body).unwrap()["public_key"].clone())
        .collect();
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0], keys[1]);
    assert_eq!(names(&world), ["enrolment.toml", "host.key"]);
}

#[test]
fn a_refusal_stores_nothing_but_the_key_that_waits() {
    let server = Server::plain();
    for (status, code, exit) in
        [(401, "unauthorized", 77), (403, "forbidden", 77), (409, "name_taken", 1), (503, "unavailable", 69)]
    {
        server.play(move |_, _| Some(Reply::problem(status, code)));
        let world = World::new();
        let run = world.run(&["register", "--server", &server.url(), "--token-file", &world.token_file()]);
        run.says(exit, &[code, "hint: "]);
        assert_eq!(names(&world), ["host.key.pending"]);
        world.run(&["beat"]).says(78, &["not enrolled", "hint: hb register --server URL"]);
    }
}

#[test]
fn a_refusal_says_what_to_do_about_the_token_that_was_given() {
    let server = Server::plain();
    let body = r#"{"type":"about:blank","status":401,"code":"unauthorized","detail":"x","hint":"check the key with hb login"}"#;
    server.play(move |_, _| Some(Reply::Http(401, Vec::new(), body.to_owned())));
    let world = World::new();
    let run = world.run(&["register", "--server", &server.url(), "--token-file", &world.token_file()]);
    run.says(77, &["hint: the token may be expired, used up or revoked: make another with `hb tokens create`"]);
    let body = r#"{"type":"about:blank","status":400,"code":"invalid","detail":"interval_s: 0 is not between 1 and 9 seconds"}"#;
    server.play(move |_, _| Some(Reply::Http(400, Vec::new(), body.to_owned())));
    let run = world.run(&["register", "--server", &server.url(), "--token-file", &world.token_file()]);
    run.says(2, &["--interval: 0 is not between", "hint: "]);
}

#[test]
fn a_pin_for_plain_http_and_a_tag_given_twice_are_refused_before_a_key_is_made() {
    let server = Server::plain();
    let world = World::new();
    let (token, url, pin) = (world.token_file(), server.url(), format!("sha256:{}", "0".repeat(64)));
    let plain = ["register", "--server", &url, "--token-file", &token];
    for (more, said) in [
        (["--pin", &pin, "--name", "web1"], "a pin has no meaning for http://"),
        (["--tag", "site=eu", "--tag", "site=us"], "tag site is given twice: eu and us"),
    ] {
        let args: Vec<&str> = plain.into_iter().chain(more).collect();
        world.run(&args).says(2, &[said, "hint: "]);
    }
    assert!(server.seen().is_empty() && !world.state().join("host.key.pending").exists());
}

#[test]
fn a_longest_absence_is_for_hosts_that_come_and_go() {
    let world = World::new();
    let (token, url) = (world.token_file(), "https://127.0.0.1:1");
    for class in [&["--max-away", "14d"][..], &["--max-away", "14d", "--class", "server"]] {
        let args: Vec<&str> =
            ["register", "--server", url, "--token-file", &token].into_iter().chain(class.to_vec()).collect();
        world.run(&args).says(2, &["--class", "hint: "]);
    }
}

#[test]
fn force_enrols_again_with_the_same_key_and_needs_no_token() {
    let server = Server::plain();
    let world = World::enrolled(&server);
    let key = fs::read(world.state().join("host.key")).unwrap();
    world.run(&["register", "--server", &server.url(), "--force"]).says(0, &[]);
    assert_eq!(fs::read(world.state().join("host.key")).unwrap(), key);
    // Even when the record is damaged.
    fs::write(world.state().join("enrolment.toml"), "version = 1\n").unwrap();
    world.run(&["beat"]).says(78, &["damaged", "--force"]);
    world.run(&["register", "--server", &server.url(), "--force"]).says(0, &[]);
    world.run(&["beat"]).says(0, &[]);
    assert_eq!(fs::read(world.state().join("host.key")).unwrap(), key);
}

#[test]
fn another_server_is_not_taken_for_the_same_one() {
    let (first, second) = (Server::plain(), Server::plain());
    let world = World::enrolled(&first);
    let run = world.run(&["register", "--server", &second.url(), "--token-file", &world.token_file()]);
    run.says(1, &["not at", "--force"]);
    assert!(second.seen().is_empty());
}

#[test]
fn a_token_comes_from_a_file_the_environment_or_stdin_and_a_typo_is_found_at_once() {
    let server = Server::plain();
    let world = World::new();
    world.run(&["register", "--server", &server.url()]).says(78, &["no token or API key", "--token-file"]);
    fs::write(world.path("bad"), "hbe_typo\n").unwrap();
    let bad = world.path("bad").display().to_string();
    world.run(&["register", "--server", &server.url(), "--token-file", &bad]).says(78, &["no enrolment token", "hbe_"]);
    assert!(server.seen().is_empty());
    let world = World::new();
    let file = world.token_file();
    let world = world.env("HB_TOKEN_FILE", &file);
    world.run(&["register", "--server", &server.url()]).says(0, &[]);
}

#[test]
fn plain_http_off_loopback_is_refused_before_a_key_is_made() {
    let world = World::new();
    let run = world.run(&["register", "--server", "http://192.0.2.1", "--token-file", &world.token_file()]);
    run.says(78, &["plain http", "--insecure-http"]);
    assert!(!world.state().exists());
}

#[test]
fn what_is_not_an_hb_server_enrols_nobody() {
    let server = Server::plain();
    for reply in [
        Reply::Http(200, Vec::new(), "<html>Log in to the hotel</html>".to_owned()),
        Reply::Http(302, vec!["Location: http://portal.example/".to_owned()], String::new()),
        Reply::Http(404, Vec::new(), "nginx".to_owned()),
        Reply::Raw(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
    ] {
        server.play(move |_, _| Some(reply.clone()));
        let world = World::new();
        world.run(&["register", "--server", &server.url(), "--token-file", &world.token_file()]).says(69, &["hint: "]);
        assert_eq!(names(&world), ["host.key.pending"]);
    }
}

#[test]
fn bad_values_are_refused_here_with_what_is_allowed() {
    let world = World::new();
    let token = world.token_file();
    for (flag, value, says) in [
        ("--name", "a b", "host name"),
        ("--name", "x-", "host name"),
        ("--interval", "60", "unit"),
        ("--interval", "60x", "60x"),
        ("--tag", "site", "KEY=VALUE"),
        ("--tag", "Site=x", "tag"),
        ("--pin", "sha256:zz", "64 hex digits"),
        ("--class", "pet", "intermittent"),
        ("--server", "ftp://x", "ftp"),
    ] {
        let mut args = vec!["register", "--token-file", &token, flag, value];
        if flag != "--server" {
            args.extend(["--server", "https://127.0.0.1:1"]);
        }
        let run = world.run(&args);
        assert_eq!(run.code, 2, "{flag} {value}: {run:?}");
        assert!(run.stderr.contains(says), "{flag} {value}: {run:?}");
    }
    assert!(!world.state().exists(), "nothing is left behind");
}

#[test]
fn a_folder_that_cannot_be_written_is_named_and_nothing_is_half_done() {
    let server = Server::plain();
    let world = World::new();
    let script = format!(
        "mkdir -p \"$HB_STATE_DIR\"; mount -t tmpfs -o ro tmpfs \"$HB_STATE_DIR\"; exec \"$HB\" register --server {} --token-file token",
        server.url()
    );
    let run = world.in_own_mounts(&script);
    run.says(1, &["could not write", "enrolment.toml", "hint: "]);
    assert!(server.seen().is_empty(), "no key is enrolled that could not be kept");
}

#[test]
fn a_record_that_could_not_follow_is_found_out_before_the_server_is_told_anything() {
    let server = Server::plain();
    let world = World::enrolled(&server);
    let before = server.seen().len();
    let script = format!(
        "cp -a \"$HB_STATE_DIR\" copy
         mount -t tmpfs tmpfs \"$HB_STATE_DIR\"
         cp -a copy/. \"$HB_STATE_DIR\"
         mount -o remount,ro \"$HB_STATE_DIR\"
         exec \"$HB\" register --server {} --force --name other --interval 10s",
        server.url()
    );
    world.in_own_mounts(&script).says(1, &["enrolment.toml", "Read-only file system", "hint: "]);
    assert_eq!(server.seen().len(), before, "the server knows nothing that this host does not");
}
