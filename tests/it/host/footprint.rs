//! What an agent takes from its machine: it has one thread, does not grow, and writes nothing but its journal. How much memory and
//! processor that is stands in BENCHMARKS.md, of a release build.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use super::server::Server;
use super::tls::{DAY, now, site, trusting};
use super::world::{World, until};

/// What memory may wander by: less than fifty bytes a beat.
const WANDER_KIB: u64 = 32;
/// The journal, in bytes: what the disk is given for a beat, at most. A beat changes half of it, and the kernel may write both.
const JOURNAL_BYTES: u64 = 8192;

/// Asks the agent for beats.
fn beats(world: &World, count: usize) {
    for _ in 0..count {
        let mut stream = UnixStream::connect(world.state().join("agent.sock")).unwrap();
        stream.write_all(b"null\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("stored"), "{answer}");
    }
}

/// A number behind a word in a file of `/proc`.
fn figure(pid: u32, file: &str, word: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let line = text.lines().find(|line| line.starts_with(word)).unwrap();
    line[word.len()..].split_ascii_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn an_agent_is_one_thread_that_does_not_grow_and_writes_nothing_but_its_journal() {
    let site = site("localhost", now() - DAY, now() + DAY);
    let server = Server::tls(Arc::clone(&site.config));
    let world = trusting(&site);
    world.enrol(&server, &[]);
    let agent = world.agent();
    until("it beats", || !server.stored().is_empty());
    beats(&world, 200);
    let pid = agent.id();
    let (anonymous, written) = (figure(pid, "smaps_rollup", "Anonymous:"), figure(pid, "io", "write_bytes:"));
    let stored = server.stored().len();
    beats(&world, 800);
    let (more, wrote) = (figure(pid, "smaps_rollup", "Anonymous:"), figure(pid, "io", "write_bytes:"));
    let stored = (server.stored().len() - stored) as u64;
    assert!(stored >= 800);
    assert!(more <= anonymous + WANDER_KIB, "{anonymous} KiB have become {more} KiB");
    assert!(wrote - written <= stored * JOURNAL_BYTES, "{} bytes for {stored} beats", wrote - written);
    assert!(wrote > written, "{} counts no bytes: set TMPDIR to a disk", world.state().display());
    // The one that resolves names goes when nobody has asked it for some seconds.
    until("it has one thread", || figure(pid, "status", "Threads:") == 1);
    // What it wrote went into the one file.
    let files = fs::read_dir(world.state()).unwrap().count();
    beats(&world, 10);
    assert_eq!(fs::read_dir(world.state()).unwrap().count(), files);
}
