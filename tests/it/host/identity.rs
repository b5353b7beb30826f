//! What a host says of itself, and what becomes of its key.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use hb_wire::beat::Intent;
use hb_wire::key::HostKey;
use serde_json::Value;

use super::server::{Reply, Server};
use super::world::{Run, World, until};

fn read(world: &World, name: &str) -> String {
    fs::read_to_string(world.state().join(name)).unwrap()
}

fn key(world: &World) -> String {
    HostKey::from_pem(&read(world, "host.key")).unwrap().public().to_string()
}

fn json(run: &Run) -> Value {
    assert_eq!(run.code, 0, "{run:?}");
    serde_json::from_str(&run.stdout).unwrap()
}

fn intent(server: &Server) -> Option<Intent> {
    server.stored().last()?.intent.clone()
}

#[test]
fn a_maintenance_is_announced_by_the_host_itself() {
    let server = Server::plain();
    let world = World::enrolled(&server);
    world.run(&["maint", "20m", "kernel"]).says(0, &["no alarm for 20m (kernel)"]);
    assert_eq!(intent(&server), Some(Intent::Maintenance { for_s: 1200, note: "kernel".to_owned() }));
    let answer = json(&world.run(&["maint", "90s", "--json"]));
    assert_eq!((answer["for_s"].as_u64(), answer["stored"].as_bool()), (Some(90), Some(true)));
    world.run(&["maint", "end"]).says(0, &["over"]);
    assert_eq!(intent(&server), Some(Intent::Maintenance { for_s: 0, note: String::new() }));
    let before = server.seen().len();
    for (args, says) in [
        (["maint", "25h"].as_slice(), "hb pause HOST --for 25h"),
        (&["maint", "0s"], "hb maint end"),
        (&["maint", "soon"], "soon"),
        (&["maint", "end", "why"], "no note"),
        (&["maint", "1m", "a\u{1b}[31mb"], "visible characters"),
        (&["maint"], "TIME"),
    ] {
        world.run(args).says(2, &[says]);
    }
    assert_eq!(server.seen().len(), before, "misuse reaches nobody");
    server.play(|_, _| Some(Reply::problem(503, "unavailable")));
    world.run(&["maint", "20m"]).says(69, &["did not take the beat: 503", "hint: "]);
}

#[test]
fn the_running_agent_announces_it_and_remains_the_one_that_beats() {
    let server = Server::plain();
    server.set_interval(60);
    let world = World::enrolled(&server);
    let agent = world.agent();
    until("the first beat is stored", || !server.stored().is_empty());
    world.run(&["maint", "20m", "kernel"]).says(0, &["no alarm for 20m (kernel)"]);
    let stored = server.stored();
    assert_eq!(intent(&server), Some(Intent::Maintenance { for_s: 1200, note: "kernel".to_owned() }));
    assert_eq!(stored.last().unwrap().run, stored[0].run, "not a second process that looks like a clone");
    server.play(|_, _| Some(Reply::problem(503, "unavailable")));
    world.run(&["maint", "20m"]).says(69, &["did not take the beat: 503", "hint: "]);
    server.behave();
    let mode = fs::metadata(world.state()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o700, "whoever may not enter cannot knock");
    agent.stop().says(0, &["knows"]);
    assert!(!world.state().join("agent.sock").exists());
    world.run(&["maint", "end"]).says(0, &["over"]);
}

#[test]
fn an_agent_that_was_killed_leaves_no_door_that_anybody_waits_at() {
    let server = Server::plain();
    let world = World::enrolled(&server);
    let agent = world.agent();
    until("the first beat is stored", || !server.stored().is_empty());
    agent.kill();
    assert!(world.state().join("agent.sock").exists());
    world.run(&["maint", "5m"]).says(0, &["no alarm for 5m"]);
    let agent = world.agent();
    until("another run beats", || server.stored().len() >= 3);
    world.run(&["maint", "5m"]).says(0, &[]);
    agent.stop().says(0, &[]);
}

#[test]
fn a_new_key_takes_over_and_the_old_one_is_gone() {
    let server = Server::plain();
    let world = World::enrolled(&server);
    world.run(&["beat"]).says(0, &[]);
    let old = key(&world);
    let run = world.run(&["identity", "rotate"]);
    run.says(0, &["the next beat is signed with it"]);
    let new = key(&world);
    assert_ne!(new, old);
    assert_eq!(server.books.lock().unwrap().key.unwrap().to_string(), old, "until the new one is used");
    world.run(&["beat"]).says(0, &[]);
    assert_eq!(server.books.lock().unwrap().key.unwrap().to_string(), new);
    assert!(!world.state().join("host.key.next").exists() && !read(&world, "enrolment.toml").contains("next_key"));
    let mode = fs::metadata(world.state().join("host.key")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let shown = json(&world.run(&["identity", "show", "--json"]));
    assert_eq!((shown["public_key"].as_str(), shown["trouble"].as_str()), (Some(new.as_str()), None));
    let rotated = json(&world.run(&["identity", "rotate", "--json"]));
    assert_eq!(rotated["service"], "by_hand");
    world.run(&["beat"]).says(0, &[]);
}

#[test]
fn a_rotation_is_announced_by_the_running_agent_which_then_wants_a_restart() {
    let server = Server::plain();
    let world = World::enrolled(&server);
    let agent = world.agent();
    until("the first beat is stored", || !server.stored().is_empty());
    world.run(&["identity", "rotate"]).says(0, &["restart the agent"]);
    let new = key(&world);
    agent.stop().says(0, &["knows"]);
    let agent = world.agent();
    until("it beats with the new key", || server.books.lock().unwrap().key.unwrap().to_string() == new);
    agent.stop().says(0, &["knows"]);
}

#[test]
fn a_rotation_that_is_cut_off_anywhere_is_finished_by_the_next_one() {
    let server = Server::plain();
    let world = World::enrolled(&server);
    let old = key(&world);
    // The server is away: the new key is kept for later, and the old one goes on.
    server.play(|_, _| Some(Reply::problem(503, "unavailable")));
    world.run(&["identity", "rotate"]).says(69, &["did not take the beat: 503"]);
    server.behave();
    assert_eq!(key(&world), old);
    let next = read(&world, "host.key.next");
    world.run(&["beat"]).says(0, &[]);
    let shown = json(&world.run(&["identity", "show", "--json"]));
    assert!(shown["trouble"].as_str().unwrap().contains("hb identity rotate"), "{shown}");
    // It was told, but the answer was lost.
    server.play(|_, _| Some(Reply::LoseAnswer));
    assert_ne!(world.run(&["identity", "rotate"]).code, 0);
    server.behave();
    assert_eq!(read(&world, "host.key.next"), next, "one key, however often it is tried");
    world.run(&["identity", "rotate"]).says(0, &[]);
    assert_eq!(read(&world, "host.key"), next);
    world.run(&["beat"]).says(0, &[]);

    // Cut off after the key took its place, before the record followed.
    let record = read(&world, "enrolment.toml");
    let new = key(&world);
    let halfway = record.replace(&new, &old) + &format!("next_key = \"{new}\"\n");
    // The pin's table, if there were one, would have to stay last; there is none on plain http.
    fs::write(world.state().join("enrolment.toml"), halfway).unwrap();
    world.run(&["beat"]).says(0, &[]);
    world.run(&["identity", "rotate"]).says(0, &[]);
    assert_eq!(key(&world), new, "finished, not begun again");
    assert!(!read(&world, "enrolment.toml").contains("next_key"));
    world.run(&["beat"]).says(0, &[]);
}

#[test]
fn a_server_that_does_not_know_of_it_is_not_taken_for_one_that_agreed() {
    let server = Server::plain();
    let world = World::enrolled(&server);
    let old = key(&world);
    server.books.lock().unwrap().is_old = true;
    world.run(&["identity", "rotate"]).says(1, &["did not confirm", "older than this hb"]);
    assert_eq!(key(&world), old);
    world.run(&["maint", "5m"]).says(1, &["not the maintenance", "hb pause"]);
    world.run(&["beat"]).says(0, &[]);
    server.books.lock().unwrap().is_old = false;
    world.run(&["identity", "rotate"]).says(0, &[]);
    world.run(&["beat"]).says(0, &[]);
    assert_ne!(key(&world), old);
}

#[test]
fn a_reset_host_has_no_identity_and_may_become_another_one() {
    let server = Server::plain();
    let world = World::enrolled(&server);
    world.run(&["beat"]).says(0, &[]);
    let old = key(&world);
    world.run(&["identity", "reset"]).says(2, &["--yes"]);
    assert_eq!(key(&world), old, "nobody was asked, so nothing was done");
    let agent = world.agent();
    until("the agent beats", || server.stored().len() >= 2);
    world.run(&["identity", "reset", "--yes"]).says(1, &["another hb beats"]);
    assert_eq!(key(&world), old);
    agent.stop().says(0, &[]);
    world
        .run(&["identity", "reset", "--yes"])
        .says(0, &["host.key", "enrolment.toml", "journal", "hb hosts retire web1"]);
    let left: Vec<_> = fs::read_dir(world.state()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"]);
    world.run(&["beat"]).says(78, &["not enrolled"]);
    world.run(&["identity", "reset", "--yes"]).says(0, &["nothing to forget"]);
    world.enrol(&server, &[]);
    assert_ne!(key(&world), old);
}

#[test]
fn an_image_is_prepared_by_removing_what_must_not_be_copied() {
    let server = Server::plain();
    let world = World::enrolled(&server);
    fs::write(world.state().join("agent.toml"), "log = \"debug\"\n").unwrap();
    world.run(&["beat"]).says(0, &[]);
    world.run(&["image-prep"]).says(2, &["--yes"]);
    let answer = json(&world.run(&["image-prep", "--yes", "--json"]));
    assert_eq!(answer["removed"].as_array().unwrap().len(), 3, "{answer}");
    assert!(world.state().join("agent.toml").exists(), "the configuration is for the copies too");
    world.run(&["image-prep", "--yes"]).says(0, &["nothing to remove"]);
}
