//! The store on SQLite: the contract, and what only a store on a disk can get wrong.

#![expect(clippy::unwrap_used, reason = "a test says no by panicking")]

mod crash;
mod directory;
mod full;
mod recovery;

use std::path::Path;

use hb_core::host::{Holder, Host, State, Wish};
use hb_core::time::Time;
use hb_store::{Beat, Credential, Enrolled, Store as _};
use hb_store_sqlite::{Options, SqliteStore};
use hb_wire::id::{BootId, HostId};
use hb_wire::key::PublicKey;
use hb_wire::name::{HostName, Tags};
use hb_wire::nonce::Nonce;
use hb_wire::view::Class;
use tempfile::TempDir;

#[expect(clippy::unused_async, reason = "the contract waits for a store to be made")]
async fn on_disk() -> (SqliteStore, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path(), &Options::creating()).unwrap();
    (store, dir)
}

/// One connection that reads, and queues that just hold what the contract asks at once.
#[expect(clippy::unused_async, reason = "the contract waits for a store to be made")]
async fn narrow() -> (SqliteStore, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { readers: 1, queue: 2048, cache_kib: 64, ..Options::creating() };
    (SqliteStore::open(dir.path(), &options).unwrap(), dir)
}

mod contract {
    hb_store::contract!(super::on_disk);
}

mod contract_when_narrow {
    hb_store::contract!(super::narrow);
}

fn open(dir: &Path) -> SqliteStore {
    SqliteStore::open(dir, &Options::creating()).unwrap()
}

fn nonce(n: u64) -> Nonce {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&n.to_be_bytes());
    Nonce(bytes)
}

const HOLDER: Holder = Holder { run: None, boot: BootId(uuid::Uuid::from_u128(7)) };
const START: Time = Time(1_800_000_000_000);

/// A host that is up, with an interval of an hour.
fn host(n: u8) -> Host {
    let wish = Wish {
        name: HostName::parse(&format!("host-{n}")).unwrap(),
        tags: Tags::default(),
        class: Class::Server,
        interval_s: 3600,
        grace_s: 3600,
        max_away_s: None,
    };
    let mut host = wish.enrol(HostId::mint(START.0, [n; 10]), PublicKey([n; 32]), nonce(0), START);
    host.state = State::Up { since: START };
    host.life.heard_at = Some(START);
    host.life.holder = Some(HOLDER);
    host
}

async fn enrol(store: &SqliteStore, host: &Host) {
    let moment = hb_core::machine::Moment {
        now: START,
        ledger: &hb_core::ledger::Ledger::default(),
        policy: &hb_core::policy::Policy::STANDARD,
        fresh: nonce(0),
    };
    let first = hb_core::machine::registered(host, &moment);
    assert_eq!(store.enrol(host, &first, &Credential::Trusted, START).await.unwrap(), Enrolled::Done);
}

/// The `n`-th beat of a host, counted from 1.
fn beat(host: &Host, n: u64) -> Beat {
    Beat {
        host: host.id,
        spent: nonce(n - 1),
        next: nonce(n),
        now: START.plus(n),
        interval_ms: host.interval_ms,
        holder: HOLDER,
        seq: n,
        up_s: n,
        skew_ms: None,
        agent: "0.1.0".into(),
        faults: Vec::new(),
        vitals: None,
    }
}
