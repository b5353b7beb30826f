//! A disk that is full: refused, never torn, and well again when there is space.

use hb_store::{Beaten, Store as _, StoreError};
use hb_store_sqlite::{OpenError, Options, SqliteStore};

use crate::{beat, enrol, host, nonce};

/// Tells the child that it is one, and in which of the file systems it mounted it works.
const CHILD: &str = "HB_TEST_MOUNT_DIR";

/// Runs one of the tests below in a mount namespace of its own, on a file system made with these options.
fn in_a_mount(test: &str, prepare: &str) {
    let dir = tempfile::tempdir().unwrap();
    let script = format!("set -e; cd \"${CHILD}\"; {prepare}; exec \"$0\" --exact full::{test} --nocapture");
    let done = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD, dir.path())
        .output()
        .expect("unshare (util-linux) is installed");
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "needs user namespaces (sysctl kernel.unprivileged_userns_clone):\n{out}\n{err}");
    assert!(out.contains("1 passed"), "{out}\n{err}");
}

fn mounted() -> Option<std::path::PathBuf> {
    std::env::var_os(CHILD).map(|dir| std::path::Path::new(&dir).join("fs"))
}

#[test]
fn on_a_real_full_disk_nothing_is_torn_and_writing_goes_on_when_there_is_space() {
    in_a_mount("the_child_on_a_full_disk", "mkdir fs; mount -t tmpfs -o size=3m none fs");
}

/// Not a test of its own: fills a disk of 3 MiB from beside the database.
#[tokio::test]
async fn the_child_on_a_full_disk() {
    let Some(fs) = mounted() else { return };
    let store = SqliteStore::open(&fs.join("data"), &Options::creating()).unwrap();
    enrol(&store, &host(0)).await;
    let ballast = fs.join("ballast");
    let filled = std::fs::write(&ballast, vec![1_u8; 8 << 20]);
    assert_eq!(filled.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    let mut acknowledged = 0;
    let error = loop {
        match store.beat(beat(&host(0), acknowledged + 1)).await {
            Ok(outcome) => assert_eq!(outcome, Beaten::Stored),
            Err(error) => break error,
        }
        acknowledged += 1;
        assert!(acknowledged < 10_000, "the disk is not full");
    };
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    assert_eq!(error.to_string(), "the store is unavailable: the disk is full");
    let held = store.host(host(0).id).await.unwrap().unwrap();
    assert_eq!(held.value.life.seq, acknowledged, "reading goes on, and shows what was acknowledged");
    std::fs::remove_file(&ballast).unwrap();
    assert_eq!(store.beat(beat(&host(0), acknowledged + 1)).await.unwrap(), Beaten::Stored, "there is space again");
    assert!(!store.has_failed());
    assert_eq!(store.integrity().await.unwrap(), []);
}

#[test]
fn a_read_only_file_system_is_called_so() {
    let prepare = "mkdir fs; mount -t tmpfs none fs; mkdir -m 700 fs/data; touch fs/data/hb.db; mount -o remount,ro fs";
    in_a_mount("the_child_on_a_read_only_file_system", prepare);
}

/// Not a test of its own: opens a directory that cannot be written.
#[test]
fn the_child_on_a_read_only_file_system() {
    let Some(fs) = mounted() else { return };
    let error = SqliteStore::open(&fs.join("data"), &Options::creating()).unwrap_err();
    assert!(matches!(error, OpenError::ReadOnly { .. }), "{error}");
    assert!(error.to_string().contains("read-only"), "{error}");
}

#[test]
fn a_database_that_is_read_only_is_refused_and_left_alone() {
    in_a_mount("the_child_on_a_read_only_database", "mkdir fs; mount -t tmpfs none fs");
}

/// Not a test of its own: in its directory everything can be written, but for the database.
#[test]
fn the_child_on_a_read_only_database() {
    let Some(fs) = mounted() else { return };
    let data = fs.join("data");
    drop(SqliteStore::open(&data, &Options::creating()).unwrap());
    let db = data.join("hb.db");
    let mount = |args: &[&str]| {
        assert!(std::process::Command::new("mount").args(args).arg(&db).status().unwrap().success(), "{args:?}");
    };
    mount(&["--bind", db.to_str().unwrap()]);
    mount(&["-o", "remount,bind,ro"]);
    let error = SqliteStore::open(&data, &Options::default()).unwrap_err();
    assert!(matches!(error, OpenError::ReadOnly { .. }), "{error}");
    assert!(!data.join("hb.db-shm").exists(), "nothing that stands in the way later");
}

/// A database that may not grow is what a full disk looks like to every layer above the file system.
#[tokio::test]
async fn a_full_disk_refuses_writes_tears_nothing_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let small = Options { pages_max: Some(64), ..Options::creating() };
    let store = SqliteStore::open(dir.path(), &small).unwrap();
    enrol(&store, &host(0)).await;
    let mut stored = Vec::new();
    let mut refused = None;
    for n in 1..200 {
        let mut big = host(n);
        big.former = vec![crate::HOLDER; 30];
        let first = hb_core::machine::registered(
            &big,
            &hb_core::machine::Moment {
                now: crate::START,
                ledger: &hb_core::ledger::Ledger::default(),
                policy: &hb_core::policy::Policy::STANDARD,
                fresh: nonce(0),
            },
        );
        match store.enrol(&big, &first, &hb_store::Credential::Trusted, crate::START).await {
            Ok(_) => stored.push((big, first.id)),
            Err(error) => {
                refused = Some((error, big, first.id));
                break;
            }
        }
    }
    let (error, last, event) = refused.expect("64 pages are soon full");
    assert!(matches!(&error, StoreError::Unavailable(why) if why.contains("full")), "{error}");
    assert!(!store.has_failed(), "a full disk is no I/O error");
    assert_eq!(store.host(last.id).await.unwrap(), None, "not half of it");
    assert_eq!(store.event(event).await.unwrap(), None, "not half of it");
    assert_eq!(store.beat(beat(&host(0), 1)).await.unwrap(), Beaten::Stored, "what needs no space goes on");
    assert_eq!(store.integrity().await.unwrap(), []);
    drop(store);
    let store = SqliteStore::open(dir.path(), &Options::default()).unwrap();
    for (host, event) in &stored {
        assert_eq!(store.host(host.id).await.unwrap().map(|held| held.value).as_ref(), Some(host));
        assert!(store.event(*event).await.unwrap().is_some());
    }
    enrol(&store, &last).await;
    assert_eq!(store.integrity().await.unwrap(), []);
}

#[test]
fn a_check_on_a_read_only_file_system_says_what_stands_in_its_way() {
    in_a_mount("the_child_that_checks_on_a_read_only_file_system", "mkdir fs; mount -t tmpfs none fs");
}

/// Not a test of its own: its file system can be written until the database is there.
#[test]
fn the_child_that_checks_on_a_read_only_file_system() {
    let Some(fs) = mounted() else { return };
    let data = fs.join("data");
    drop(SqliteStore::open(&data, &Options::creating()).unwrap());
    let done = std::process::Command::new("mount").args(["-o", "remount,ro"]).arg(&fs).status().unwrap();
    assert!(done.success());
    let error = SqliteStore::check(&data).unwrap_err();
    assert!(matches!(error, OpenError::ReadOnly { .. }), "{error}");
    assert!(error.to_string().contains("read-only"), "{error}");
}
