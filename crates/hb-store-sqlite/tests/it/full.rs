//! A disk that is full: refused, never torn, and well again when there is space.

use hb_store::{Beaten, Store as _, StoreError};
use hb_store_sqlite::{Options, SqliteStore};

use crate::{beat, enrol, host, nonce};

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
