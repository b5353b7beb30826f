//! kill -9 of the agent, at any moment: `HB_AGENT_KILLS=1000 cargo nextest run --workspace -E 'test(killed_at_any_moment)'`.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use hb::journal::StateDir;

use super::server::Server;
use super::world::World;

/// A few kills show that the test works; the figure is that of a thousand.
const KILLS: u64 = 25;

/// Asks the agent for beats, one right after the other, until it is gone.
fn keep_busy(world: &World, until: Instant) {
    while Instant::now() < until {
        let Ok(mut stream) = UnixStream::connect(world.state().join("agent.sock")) else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        let _ = stream.set_read_timeout(Some(Duration::from_millis(50)));
        let _ = stream.write_all(b"null\n").and_then(|()| stream.read_to_end(&mut Vec::new()));
    }
}

#[test]
fn an_agent_killed_at_any_moment_loses_neither_its_journal_nor_its_place() {
    let kills: u64 = std::env::var("HB_AGENT_KILLS").ok().map_or(KILLS, |text| text.parse().unwrap());
    let server = Server::plain();
    server.set_interval(1);
    let world = World::enrolled(&server);
    let state = StateDir::new(world.state());
    let (mut seq, mut written) = (0, 0_u64);
    for kill in 0..kills {
        let agent = world.agent();
        // From before its first write to some dozens of beats on, by a step that comes by every place.
        let moment = Duration::from_micros(1_000 + kill * 7_919 % 150_000);
        keep_busy(&world, Instant::now() + moment);
        agent.kill();
        let journal =
            state.read().unwrap_or_else(|error| panic!("after kill {kill}, {moment:?} after the start: {error}"));
        let now = journal.map_or(0, |journal| journal.seq);
        assert!(now >= seq, "kill {kill}: {now} after {seq}");
        written += u64::from(now > seq);
        seq = now;
    }
    let stored = server.stored();
    for pair in stored.windows(2) {
        assert!(pair[0].seq < pair[1].seq, "{:?} after {:?}", pair[1], pair[0]);
    }
    let runs: BTreeSet<_> = stored.iter().map(|beat| beat.run).collect();
    // Whoever dies before it has read an answer does not know the next nonce, and is told it: one more round trip for a kill.
    let asked_again = server.seen().len() - stored.len();
    assert!(asked_again as u64 <= kills, "{asked_again} beats asked for a nonce after {kills} kills");
    assert_eq!(server.books.lock().unwrap().refused, 0, "beats were refused for another reason");
    println!(
        "{kills} kills, {written} of them after a write: {} beats of {} runs stored, {asked_again} asked again",
        stored.len(),
        runs.len()
    );
    assert!(written * 2 > kills && stored.len() as u64 > kills, "it was killed too early to tell");
    // And it goes on as if nothing had been.
    world.run(&["beat"]).says(0, &[]);
}
