//! Backups, restores, and finding what is broken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hb_core::observer::Observation;
use hb_store::{Beaten, Committed, Store as _, Versioned};
use hb_store_sqlite::{OpenError, SqliteStore, database};
use rusqlite::Connection;

use crate::{START, beat, enrol, host, open};

async fn begin(store: &SqliteStore) {
    let first = Versioned { value: Observation::begin(START), rev: 0 };
    assert_eq!(store.observe(first, vec![]).await.unwrap(), Committed::Done);
}

async fn epoch(store: &SqliteStore) -> u32 {
    store.observation().await.unwrap().unwrap().value.epoch
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_made_while_beats_go_on_is_whole_and_can_be_restored() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()));
    begin(&store).await;
    enrol(&store, &host(1)).await;
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writing = {
        let (store, stop, count) = (Arc::clone(&store), Arc::clone(&stop), Arc::clone(&count));
        tokio::spawn(async move {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                assert_eq!(store.beat(beat(&host(1), n)).await.unwrap(), Beaten::Stored);
                count.store(n, Ordering::Relaxed);
            }
        })
    };
    while count.load(Ordering::Relaxed) < 20 {
        assert!(!writing.is_finished(), "the beats have stopped");
        tokio::task::yield_now().await;
    }
    let to = dir.path().join("backup.db");
    let before = count.load(Ordering::Relaxed);
    tokio::task::block_in_place(|| store.backup(&to)).unwrap();
    let error = tokio::task::block_in_place(|| SqliteStore::backup_dir(dir.path(), &to)).unwrap_err();
    assert!(matches!(error, OpenError::Exists { .. }), "{error}");
    stop.store(true, Ordering::Relaxed);
    writing.await.unwrap();
    let last = count.load(Ordering::Relaxed);
    let locked = SqliteStore::restore(dir.path(), &to).unwrap_err();
    assert!(matches!(locked, OpenError::Locked { .. }), "{locked}");
    drop(store);

    let kept = SqliteStore::restore(dir.path(), &to).unwrap().expect("there was a database");
    assert!(kept.exists());
    let store = open(dir.path());
    let seq = store.host(host(1).id).await.unwrap().unwrap().value.life.seq;
    assert!((before..=last).contains(&seq), "{before} <= {seq} <= {last}");
    assert_eq!(epoch(&store).await, 1);
    assert_eq!(store.integrity().await.unwrap(), []);
    drop(store);
    SqliteStore::restore(dir.path(), &to).unwrap();
    assert_eq!(epoch(&open(dir.path())).await, 2, "ids of events are not used again after a second restore either");
}

#[tokio::test]
async fn a_backup_can_be_restored_where_there_was_nothing() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(dir.path());
    enrol(&store, &host(1)).await;
    let to = dir.path().join("backup.db");
    store.backup(&to).unwrap();
    let fresh = other.path().join("data");
    assert_eq!(SqliteStore::restore(&fresh, &to).unwrap(), None);
    assert!(open(&fresh).host(host(1).id).await.unwrap().is_some());
}

#[tokio::test]
async fn a_bad_backup_is_not_restored_and_the_database_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    enrol(&store, &host(1)).await;
    let to = dir.path().join("backup.db");
    store.backup(&to).unwrap();
    drop(store);
    let good = std::fs::read(&to).unwrap();
    let truncated = &good[..good.len() / 2];
    for (bad, content) in
        [("truncated", truncated), ("text", b"not a database at all, but long enough to look at. ".as_slice())]
    {
        std::fs::write(&to, content).unwrap();
        assert!(SqliteStore::restore(dir.path(), &to).is_err(), "{bad}");
        assert!(open(dir.path()).host(host(1).id).await.unwrap().is_some(), "{bad}");
    }
    let missing = SqliteStore::restore(dir.path(), &dir.path().join("nothing")).unwrap_err();
    assert!(matches!(missing, OpenError::Missing { .. }), "{missing}");
}

#[tokio::test]
async fn check_finds_what_is_broken() {
    for (damage, word) in [
        ("UPDATE hosts SET doc = '{}'", "cannot be read"),
        ("UPDATE hosts SET check_at = check_at + 1", "would be missed"),
        ("UPDATE hosts SET check_at = NULL", "would be missed"),
        ("UPDATE hosts SET state = 'down'", "different states"),
        ("UPDATE hosts SET is_open = 0", "fast path"),
        ("UPDATE hosts SET need_ms = 5", "interval plus grace"),
        ("UPDATE events SET doc = '{\"id\": 5}'", "row 1 of events"),
        ("PRAGMA foreign_keys = OFF; INSERT INTO tags VALUES (99, 'a', 'b')", "refers to nothing"),
        ("PRAGMA foreign_keys = OFF; DELETE FROM hosts", "of a host that is gone"),
        (
            "INSERT INTO deliveries (id, event, channel, topic, status, attempts, ready_at, doc) \
             VALUES (x'00', x'01', x'02', x'03', 'pending', 0, 0, '{}')",
            "its event is gone",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        enrol(&store, &host(1)).await;
        drop(store);
        assert_eq!(SqliteStore::check(dir.path()).unwrap(), [], "before: {damage}");
        Connection::open(database(dir.path())).unwrap().execute_batch(damage).unwrap();
        let problems = SqliteStore::check(dir.path()).unwrap();
        assert!(problems.iter().any(|problem| problem.to_string().contains(word)), "{damage}: {problems:?}");
        let to = dir.path().join("backup.db");
        let refused = SqliteStore::backup_dir(dir.path(), &to).unwrap_err();
        assert!(matches!(refused, OpenError::Damaged { .. }), "{damage}: {refused}");
        assert!(!to.exists() && !dir.path().join("backup.db.partial").exists(), "{damage}");
    }
}

/// The bound is on the disk what the contract can only see from outside: never later than the alarm, whatever was swept.
#[tokio::test]
async fn no_sweep_moves_a_bound_past_its_alarm() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    begin(&store).await;
    for n in 0..40 {
        enrol(&store, &host(n)).await;
    }
    let mut seq = [0_u64; 40];
    for round in 0..60_u64 {
        let now = START.plus(round * 450_000);
        for n in (0..40_u8).filter(|n| (round + u64::from(*n)) % 7 < 3) {
            let seq = &mut seq[usize::from(n)];
            let next = hb_store::Beat { now, ..beat(&host(n), *seq + 1) };
            *seq += u64::from(store.beat(next).await.unwrap() == Beaten::Stored);
        }
        let mut held = store.observation().await.unwrap().unwrap();
        if round % 5 == 0 {
            held.value.ledger.enter(now.minus(100_000), now);
        }
        let ledger = held.value.ledger.clone();
        assert_eq!(store.observe(held, vec![]).await.unwrap(), Committed::Done);
        store.due(now, &ledger, &hb_core::policy::Policy::STANDARD, 10).await.unwrap();
        assert_eq!(store.integrity().await.unwrap(), [], "round {round}");
    }
    assert!(seq.iter().sum::<u64>() > 500, "too few beats to prove anything: {seq:?}");
}

#[tokio::test]
async fn check_finds_a_damaged_page() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for n in 0..100 {
        enrol(&store, &host(n)).await;
    }
    drop(store);
    let mut content = std::fs::read(database(dir.path())).unwrap();
    let middle = content.len() / 2 / 4096 * 4096;
    content[middle..middle + 4096].fill(0x5a);
    std::fs::write(database(dir.path()), content).unwrap();
    assert_ne!(SqliteStore::check(dir.path()).unwrap(), []);
}
