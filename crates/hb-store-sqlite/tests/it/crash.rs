//! What was acknowledged is there after any kill.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use hb_store::{Beaten, Store as _};
use hb_store_sqlite::SqliteStore;

use crate::{beat, enrol, host, open};

/// Tells the child that it is one, and where to write.
const CHILD: &str = "HB_TEST_CRASH_DIR";
const HOSTS: u8 = 8;
const ROUNDS: u64 = 10;

async fn last_seq(store: &SqliteStore, n: u8) -> u64 {
    store.host(host(n).id).await.unwrap().expect("it was enrolled").value.life.seq
}

/// Not a test of its own: the child that is killed. Writes beats of every host side by side, and says on stdout what was
/// acknowledged, after it was.
#[tokio::test]
async fn the_child_that_is_killed() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let store = std::sync::Arc::new(open(dir.as_ref()));
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..HOSTS {
        let store = std::sync::Arc::clone(&store);
        writers.spawn(async move {
            let mut seq = last_seq(&store, n).await;
            loop {
                seq += 1;
                assert_eq!(store.beat(beat(&host(n), seq)).await.unwrap(), Beaten::Stored);
                let mut out = std::io::stdout().lock();
                writeln!(out, "\nacknowledged {n} {seq}").and_then(|()| out.flush()).unwrap();
            }
        });
    }
    writers.join_next().await;
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_server_is_killed_again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for n in 0..HOSTS {
        enrol(&store, &host(n)).await;
    }
    drop(store);
    let mut acknowledged = [0_u64; HOSTS as usize];
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::the_child_that_is_killed", "--nocapture", "--test-threads=1"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let reader = std::thread::spawn(move || {
            let mut seen = Vec::new();
            for line in lines.map_while(Result::ok) {
                let words: Vec<&str> = line.split(' ').collect();
                if let ["acknowledged", n, seq] = words.as_slice()
                    && let (Ok(n), Ok(seq)) = (n.parse::<usize>(), seq.parse::<u64>())
                {
                    seen.push((n, seq));
                }
            }
            seen
        });
        tokio::time::sleep(Duration::from_millis(150 + 37 * round)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        let before = acknowledged;
        for (n, seq) in reader.join().unwrap() {
            acknowledged[n] = acknowledged[n].max(seq);
        }
        assert!(acknowledged.iter().zip(before).any(|(now, before)| *now > before), "round {round} wrote nothing");
        let store = open(dir.path());
        for n in 0..HOSTS {
            let (stored, said) = (last_seq(&store, n).await, acknowledged[usize::from(n)]);
            assert!(stored >= said, "round {round}: {said} was acknowledged to host {n}, {stored} is stored");
            // At most the one that was under way when it was killed.
            assert!(stored <= said + 1, "round {round}: {stored} is stored, only {said} was ever acknowledged");
        }
        assert_eq!(store.integrity().await.unwrap(), []);
    }
}
