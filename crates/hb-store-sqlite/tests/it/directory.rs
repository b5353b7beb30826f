//! Data directories that cannot be used, each with a clear word.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use hb_store::Store as _;
use hb_store_sqlite::{OpenError, Options, SqliteStore, database};
use rusqlite::Connection;

use crate::{enrol, host, open};

fn refused(dir: &std::path::Path, options: &Options) -> OpenError {
    SqliteStore::open(dir, options).expect_err("it must not open")
}

#[tokio::test]
async fn the_database_is_its_owners_alone() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("a/data");
    let store = open(&dir);
    enrol(&store, &host(1)).await;
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(&database(&dir)), 0o600);
    assert_eq!(mode(&dir.join("hb.db-wal")), 0o600);
}

#[test]
fn a_missing_database_is_not_made_by_accident() {
    let dir = tempfile::tempdir().unwrap();
    let error = refused(dir.path(), &Options::default());
    assert!(matches!(error, OpenError::Missing { .. }), "{error}");
    assert!(error.to_string().contains("hb-server init"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was made");
    let error = refused(&dir.path().join("nowhere"), &Options::default());
    assert!(matches!(error, OpenError::Missing { .. }), "{error}");
}

#[test]
fn an_empty_file_is_not_taken_for_a_new_start() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(database(dir.path()), b"").unwrap();
    let error = refused(dir.path(), &Options::default());
    assert!(matches!(error, OpenError::Empty { .. }), "{error}");
    assert_eq!(fs::read(database(dir.path())).unwrap(), b"", "nothing was written");
    drop(SqliteStore::open(dir.path(), &Options::creating()).unwrap());
    drop(SqliteStore::open(dir.path(), &Options::default()).unwrap());
}

#[tokio::test]
async fn a_second_server_is_kept_out_and_told_who_is_in() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let error = refused(dir.path(), &Options::creating());
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    enrol(&store, &host(1)).await;
    drop(store);
    assert!(!dir.path().join("hb.db-wal").exists(), "a server that stops leaves one file");
    assert!(open(dir.path()).host(host(1).id).await.unwrap().is_some(), "free again, with what was written");
}

#[test]
fn a_newer_database_is_left_alone_and_both_versions_are_named() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let db = Connection::open(database(dir.path())).unwrap();
    let known: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    db.pragma_update(None, "user_version", known + 41).unwrap();
    drop(db);
    let before = fs::read(database(dir.path())).unwrap();
    let error = refused(dir.path(), &Options::creating());
    assert!(matches!(error, OpenError::Newer { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&format!("version {}", known + 41)) && text.contains(&format!("up to {known}")), "{text}");
    assert_eq!(fs::read(database(dir.path())).unwrap(), before);
}

#[test]
fn what_is_not_a_database_of_hb_is_left_alone() {
    for content in [
        "plain text, longer than the header of a database would ever be, by quite a bit: 100 bytes and more ..",
        "sqlite",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = database(dir.path());
        if content == "sqlite" {
            Connection::open(&path)
                .unwrap()
                .execute_batch("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)")
                .unwrap();
        } else {
            fs::write(&path, content).unwrap();
        }
        let before = fs::read(&path).unwrap();
        let error = refused(dir.path(), &Options::creating());
        assert!(matches!(error, OpenError::Foreign { .. }), "{content}: {error}");
        assert_eq!(fs::read(&path).unwrap(), before);
        assert!(matches!(SqliteStore::check(dir.path()), Err(OpenError::Foreign { .. })));
    }
}

#[test]
fn a_path_that_is_a_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let error = refused(&file, &Options::creating());
    assert!(error.to_string().contains(&file.display().to_string()), "{error}");
}
