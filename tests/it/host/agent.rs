//! The daemon.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use hb_wire::beat::{Intent, StopReason};
use rustix::process::Signal;

use super::server::{Reply, Server};
use super::world::{World, hb, until};

/// A host whose interval is one second.
fn quick(server: &Server) -> World {
    server.set_interval(1);
    World::enrolled(server)
}

/// Why the last beat said goodbye, and in how many seconds the host is expected back.
fn goodbye(server: &Server) -> Option<(StopReason, u64)> {
    match server.stored().last()?.intent {
        Some(Intent::Goodbye { reason, back_in_s }) => Some((reason, back_in_s)),
        _ => None,
    }
}

#[test]
fn it_beats_on_one_connection_and_says_goodbye_when_it_is_stopped() {
    let server = Server::plain();
    let world = quick(&server);
    let agent = world.agent();
    until("four beats are stored", || server.stored().len() >= 4);
    // Stored is not answered yet: a beat that is cut off leaves the goodbye a nonce that is spent.
    std::thread::sleep(Duration::from_millis(300));
    let run = agent.stop();
    run.says(0, &["beating for web1", "every 1s", "the first beat is stored", "stopped", "knows"]);
    assert!(run.took < Duration::from_secs(2), "{:?}", run.took);
    assert_eq!(goodbye(&server), Some((StopReason::Service, 3_600)));
    let seen = server.seen();
    // The goodbye may leave before the connection of the beat that was just answered is free again.
    let beats = &seen[..seen.len() - 1];
    assert!(beats.iter().all(|request| request.connection == seen[0].connection), "one connection");
    let gaps: Vec<Duration> = seen.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    assert!(gaps[1..gaps.len() - 1].iter().all(|gap| *gap < Duration::from_millis(1_050)), "{gaps:?}");
    let journal = fs::read_to_string(world.state().join("journal")).unwrap();
    assert!(journal.contains(r#""stopped":"service""#), "{journal}");
    assert_eq!(seen.len(), server.stored().len(), "no round trip was wasted");
}

#[test]
fn an_agent_whose_program_was_replaced_says_that_it_is_upgraded() {
    let server = Server::plain();
    let world = quick(&server);
    let (program, new) = (world.state().with_file_name("hb"), world.state().with_file_name("hb.dpkg-new"));
    fs::copy(hb(), &program).unwrap();
    let agent = world.agent_at(&program);
    until("two beats are stored", || server.stored().len() >= 2);
    // As dpkg does it.
    fs::copy(hb(), &new).unwrap();
    fs::rename(&new, &program).unwrap();
    agent.stop().says(0, &["stopped", "knows (upgrade)"]);
    assert_eq!(goodbye(&server), Some((StopReason::Upgrade, 900)));
    let before = server.stored().len();
    let agent = world.agent_at(&program);
    until("a beat is stored", || server.stored().len() > before);
    agent.stop().says(0, &["knows (service)"]);
    let first = &server.stored()[before];
    let ending = first.before.as_ref().map(|ending| (ending.clean, ending.reason));
    assert_eq!(ending, Some((true, Some(StopReason::Upgrade))));
}

#[test]
fn the_next_run_tells_how_the_one_before_ended() {
    let server = Server::plain();
    let world = quick(&server);
    for (stop, clean) in [(Signal::TERM, true), (Signal::INT, true), (Signal::HUP, true), (Signal::KILL, false)] {
        let before = server.stored().len();
        let agent = world.agent();
        until("two beats are stored", || server.stored().len() >= before + 2);
        agent.signal(stop);
        agent.finish();
        let at = server.stored().len();
        let agent = world.agent();
        until("two more are stored", || server.stored().len() >= at + 2);
        agent.kill();
        let stored = server.stored();
        let ending = stored[at].before.clone().expect("the first beat of a run tells");
        assert_eq!((ending.clean, ending.reason), (clean, clean.then_some(StopReason::Service)), "{stop:?}");
        assert_eq!(stored[at + 1].before, None, "once it was stored it is not told again");
        assert_ne!(stored[at].run, stored[at - 1].run);
    }
}

#[test]
fn a_run_that_is_cut_off_after_its_first_beat_is_not_explained_by_what_that_beat_told() {
    let server = Server::plain();
    let world = quick(&server);
    let stored = |more: usize| until("a beat is stored", || server.stored().len() >= more);
    let agent = world.agent();
    stored(1);
    agent.stop();
    let before = server.stored().len();
    let agent = world.agent();
    stored(before + 1);
    assert!(server.stored()[before].before.as_ref().unwrap().clean);
    std::thread::sleep(Duration::from_millis(100));
    agent.kill();
    let before = server.stored().len();
    let agent = world.agent();
    stored(before + 1);
    agent.kill();
    assert!(!server.stored()[before].before.as_ref().unwrap().clean, "it was killed");
}

#[test]
fn a_host_that_goes_down_says_which_way() {
    let server = Server::plain();
    let ways = [("reboot.target", StopReason::Reboot, 900), ("poweroff.target", StopReason::Poweroff, 86_400)];
    for (target, reason, back_in_s) in ways {
        let world = quick(&server);
        let bin = world.path("bin");
        fs::create_dir(&bin).unwrap();
        fs::write(bin.join("systemctl"), format!("#!/bin/sh\necho '12 {target} start waiting'\n")).unwrap();
        fs::set_permissions(bin.join("systemctl"), fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let world = world.env("PATH", &path);
        let before = server.stored().len();
        let agent = world.agent();
        until("a beat is stored", || server.stored().len() > before);
        agent.stop().says(0, &["knows"]);
        assert_eq!(goodbye(&server), Some((reason, back_in_s)));
    }
}

#[test]
fn a_systemctl_that_hangs_does_not_keep_it_from_stopping() {
    let server = Server::plain();
    let world = quick(&server);
    let bin = world.path("bin");
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("systemctl"), "#!/bin/sh\nexec sleep 60\n").unwrap();
    fs::set_permissions(bin.join("systemctl"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let world = world.env("PATH", &path);
    let agent = world.agent();
    until("a beat is stored", || !server.stored().is_empty());
    let run = agent.stop();
    run.says(0, &["knows"]);
    assert!(run.took < Duration::from_secs(3), "{:?}", run.took);
}

#[test]
fn a_server_that_is_away_is_waited_for_and_the_silence_is_explained() {
    let server = Server::plain();
    let world = quick(&server);
    let agent = world.agent();
    until("a beat is stored", || !server.stored().is_empty());
    let stored = server.stored().len();
    server.play(|_, _| Some(Reply::Raw(Vec::new())));
    until("it tried for a while", || server.seen().len() >= 6);
    server.behave();
    until("it is back", || server.stored().len() > stored + 1);
    let run = agent.stop();
    run.says(0, &["could not be sent", "stored by", "again, after"]);
    assert_eq!(run.stderr.matches("could not be sent").count(), 1, "a failure that lasts is said once: {run:?}");
    let stored = &server.stored()[stored..];
    let gap = stored[0].gap.as_ref().expect("the first beat explains the gap");
    assert!(gap.failed >= 5 && gap.error == "connect", "{gap:?}");
    assert!(gap.since_s <= 10, "{gap:?}");
    assert_eq!(stored[1].gap, None);
}

#[test]
fn a_server_that_refuses_it_does_not_end_it_and_is_asked_ever_less_often() {
    let server = Server::plain();
    let world = quick(&server);
    server.play(|_, _| Some(Reply::problem(401, "bad_signature")));
    let mut agent = world.agent();
    std::thread::sleep(Duration::from_secs(8));
    assert!(agent.is_running());
    let asked = server.seen().len();
    assert!((3..=7).contains(&asked), "asked {asked} times in 8 s, with an interval of one");
    server.behave();
    until("it is taken back", || !server.stored().is_empty());
    let run = agent.stop();
    run.says(0, &["refuses this host: 401 (bad_signature)", "hb register --server URL --force"]);
    assert_eq!(run.stderr.matches("refuses this host").count(), 1);
}

#[test]
fn it_says_as_much_as_the_command_line_asks_for() {
    let said = |options: &[&str]| {
        let server = Server::plain();
        let world = quick(&server);
        let agent = world.agent_with(options);
        until("the beat is stored", || !server.stored().is_empty());
        agent.stop().stderr
    };
    let (usual, quiet, verbose) = (said(&[]), said(&["-q"]), said(&["-v"]));
    assert!(usual.contains("beating for") && !usual.contains(" debug "), "{usual}");
    assert_eq!(quiet, "");
    assert!(verbose.contains("beating for") && verbose.contains(" debug beat "), "{verbose}");
}

#[test]
fn patience_that_the_server_asks_for_is_kept() {
    let server = Server::plain();
    let world = quick(&server);
    server.play(|number, _| (number == 0).then(|| Reply::Http(503, vec!["Retry-After: 3".to_owned()], String::new())));
    let agent = world.agent();
    until("the beat is stored", || !server.stored().is_empty());
    agent.stop().says(0, &["did not take the beat: 503"]);
    let seen = server.seen();
    let waited = seen[1].at - seen[0].at;
    assert!(waited >= Duration::from_secs(3) && waited < Duration::from_secs(6), "{waited:?}");
}

#[test]
fn nonces_that_are_never_good_do_not_make_it_hammer() {
    let server = Server::plain();
    let world = quick(&server);
    server.play(|number, _| {
        let next = hb_wire::nonce::Nonce([u8::try_from(number % 250).unwrap() + 1; 16]).to_string();
        Some(Reply::json(409, &serde_json::json!({ "code": "stale_nonce", "next": next })))
    });
    let agent = world.agent();
    std::thread::sleep(Duration::from_secs(5));
    let asked = server.seen().len();
    agent.kill();
    assert!((4..100).contains(&asked), "asked {asked} times in 5 s");
}

#[test]
fn a_server_that_hangs_costs_one_time_out_at_a_time() {
    let server = Server::plain();
    let world = quick(&server);
    server.play(|number, _| (number < 2).then_some(Reply::Hang(Duration::from_secs(30))));
    let agent = world.agent();
    until("a beat is stored", || !server.stored().is_empty());
    agent.stop();
    let seen = server.seen();
    assert!(seen[2].at - seen[0].at < Duration::from_secs(5));
    assert_eq!(server.stored()[0].gap.as_ref().unwrap().error, "timeout");
}

#[test]
fn it_fails_over_to_the_second_address_and_stays_there() {
    let server = Server::plain();
    let world = quick(&server);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let record = fs::read_to_string(world.state().join("enrolment.toml")).unwrap();
    let both = record.replace("beat_urls = [", &format!("beat_urls = [\"http://{closed}/v1/beat\", "));
    fs::write(world.state().join("enrolment.toml"), both).unwrap();
    let started = Instant::now();
    let agent = world.agent();
    until("beats are stored", || server.stored().len() >= 3);
    assert!(started.elapsed() < Duration::from_secs(8));
    let run = agent.stop();
    run.says(0, &["could not be sent"]);
    assert_eq!(server.stored()[1].gap, None, "the second beat went straight to the second address");
}

#[test]
fn it_beats_when_the_server_wishes_and_at_its_own_pace_when_that_wishes_no_more() {
    let server = Server::plain();
    server.set_interval(60);
    let world = World::enrolled(&server);
    server.wish(Some(1));
    let agent = world.agent();
    until("beats come each second instead of each minute", || server.stored().len() >= 4);
    server.wish(None);
    let wished = server.stored().len();
    std::thread::sleep(Duration::from_secs(4));
    agent.stop();
    // One that was wished for before, and the goodbye.
    assert!(server.stored().len() <= wished + 2, "{} after {wished}", server.stored().len());
}

#[test]
fn only_one_of_them_beats_for_a_host() {
    let server = Server::plain();
    let world = quick(&server);
    let agent = world.agent();
    until("a beat is stored", || !server.stored().is_empty());
    world.run(&["agent"]).says(1, &["another hb beats for this host", "hint: "]);
    let before = server.stored().len();
    world.run(&["beat"]).says(0, &[]);
    let stored = server.stored();
    assert!(stored.len() > before, "{stored:?}");
    assert!(
        stored.iter().all(|beat| beat.run == stored[0].run),
        "the agent beats, not a process that looks like its clone"
    );
    agent.kill();
    world.run(&["beat"]).says(0, &[]);
    assert_ne!(server.stored().last().unwrap().run, stored[0].run);
}

#[test]
fn before_the_host_sleeps_the_agent_says_goodbye_and_then_nothing() {
    let server = Server::plain();
    let world = quick(&server);
    let agent = world.agent();
    until("a beat is stored", || !server.stored().is_empty());
    world.run(&["beat", "--before-sleep"]).says(0, &[]);
    assert_eq!(goodbye(&server), Some((StopReason::Sleep, 86_400)));
    let stored = server.stored().len();
    std::thread::sleep(Duration::from_millis(2_500));
    assert_eq!(server.stored().len(), stored, "a beat would say that it is back");
    // Whoever asks for one gets it.
    world.run(&["beat"]).says(0, &[]);
    assert_eq!(server.stored().len(), stored + 1);
    agent.stop().says(0, &["knows"]);
}

#[test]
fn the_service_manager_hears_when_it_is_up_while_it_lives_and_when_it_stops() {
    let server = Server::plain();
    let world = quick(&server);
    let socket = UnixDatagram::bind(world.path("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let notify = world.path("notify").display().to_string();
    let world = world.env("NOTIFY_SOCKET", &notify).env("WATCHDOG_USEC", "400000");
    // A server that hangs must not make the watchdog bite.
    server.play(|_, _| Some(Reply::Hang(Duration::from_secs(30))));
    let agent = world.agent();
    let mut buffer = [0; 4096];
    let mut hear = || {
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let first = hear();
    assert!(first.contains("READY=1") && first.contains("STATUS=beating for web1"), "{first}");
    let mut fed = Vec::new();
    while fed.len() < 10 {
        if hear().contains("WATCHDOG=1") {
            fed.push(Instant::now());
        }
    }
    assert!(fed.windows(2).all(|pair| pair[1] - pair[0] < Duration::from_millis(390)), "{fed:?}");
    agent.signal(Signal::TERM);
    while !hear().contains("STOPPING=1") {}
    let run = agent.finish();
    run.says(0, &["does not know"]);
    assert!(run.took < Duration::from_secs(3));
}

#[test]
fn it_starts_without_a_server_and_beats_when_there_is_one() {
    let server = Server::plain();
    let world = quick(&server);
    server.play(|_, _| Some(Reply::Http(502, Vec::new(), "bad gateway".to_owned())));
    let mut agent = world.agent();
    until("it asked", || server.seen().len() >= 2);
    assert!(agent.is_running());
    server.behave();
    until("a beat is stored", || !server.stored().is_empty());
    agent.stop().says(0, &["could not be sent (http_502"]);
}
