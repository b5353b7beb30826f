//! The faulty store fails as planned, the mutants break what they say, and the store in memory can be compared and reset.

#![expect(clippy::unwrap_used, reason = "a test says no by panicking")]

use std::sync::{Arc, Mutex};

use hb_core::access::Channel;
use hb_core::delivery::{Delivery, Status};
use hb_core::event::{Audience, Event, Kind, Subject};
use hb_core::host::{Host, State, Wish};
use hb_core::mutant::{Mutant, with};
use hb_core::time::Time;
use hb_store::faulty::{Call, Fate, Faults, FaultyStore, When};
use hb_store::{Change, Committed, Credential, Enrolled, MemoryStore, Result, Store, StoreError};
use hb_wire::id::{ChannelId, EventId, HostId};
use hb_wire::key::PublicKey;
use hb_wire::name::{HostName, Tags};
use hb_wire::nonce::Nonce;
use hb_wire::view::Class;

const NOW: Time = Time(1_800_000_000_000);

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

fn host(n: u8) -> Host {
    let name = HostName::parse(&format!("host-{n}")).unwrap();
    let (tags, class) = (Tags::default(), Class::Server);
    let wish = Wish { name, tags, class, interval_s: 60, grace_s: 120, max_away_s: None };
    wish.enrol(HostId::mint(NOW.0, [n; 10]), PublicKey([n; 32]), Nonce([n; 16]), NOW)
}

fn event(n: u8, audience: Audience) -> Event {
    Event {
        id: EventId::mint(NOW.0, [n; 10]),
        kind: Kind::Down,
        subject: Some(Subject::of(&host(1))),
        at: NOW,
        since: None,
        cause: None,
        deadline: None,
        incident: None,
        audience,
        members: Vec::new(),
        inputs: std::collections::BTreeMap::new(),
    }
}

async fn enrol(store: &dyn Store, n: u8) -> Result<Enrolled> {
    store.enrol(&host(n), &event(n, Audience::Nobody), &Credential::Trusted, NOW).await
}

/// What the next commit of host 1 would be.
async fn decision(store: &dyn Store) -> Change {
    let mut held = store.host(host(1).id).await.unwrap().unwrap();
    held.value.transitions += 1;
    Change { host: Some(held), incident: None, events: vec![event(9, Audience::Everyone)] }
}

#[test]
fn a_call_fails_as_planned_before_or_after_it_is_done() {
    run(async {
        for (fate, is_done) in [(Fate::Overloaded, false), (Fate::Lost, false), (Fate::Ambiguous, true)] {
            let store = FaultyStore::new(MemoryStore::new(), Faults::at("enrol", 2, fate));
            assert_eq!(enrol(&store, 1).await.unwrap(), Enrolled::Done);
            let error = enrol(&store, 2).await.unwrap_err();
            assert_eq!(matches!(error, StoreError::Overloaded), fate == Fate::Overloaded, "{error}");
            assert_eq!(store.host(host(2).id).await.unwrap().is_some(), is_done, "{fate:?}");
            assert_eq!(enrol(&store, 3).await.unwrap(), Enrolled::Done, "only the second");
            assert_eq!((store.calls("enrol"), store.calls("host")), (3, 1));
        }
    });
}

#[test]
fn hooks_run_before_and_after_each_call() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let faults = Faults::at("host", 1, Fate::Lost).hook(move |point| {
        let noted = Arc::clone(&noted);
        Box::pin(async move { noted.lock().unwrap().push((point.call.method, point.call.nth, point.when)) })
    });
    run(async {
        let store = FaultyStore::new(MemoryStore::new(), faults);
        assert_eq!(enrol(&store, 1).await.unwrap(), Enrolled::Done);
        store.host(host(1).id).await.unwrap_err();
        store.plan(
            Faults::none()
                .fate(|call| if call == (Call { method: "host", nth: 2 }) { Fate::Overloaded } else { Fate::Pass }),
        );
        assert!(matches!(store.host(host(1).id).await, Err(StoreError::Overloaded)), "another plan, the same count");
    });
    let wanted = [("enrol", 1, When::Before), ("enrol", 1, When::After), ("host", 1, When::Before)];
    assert_eq!(*seen.lock().unwrap(), wanted);
}

#[test]
fn the_mutant_nonatomic_can_be_stopped_between_host_and_event() {
    with(Some(Mutant::Nonatomic), || {
        let inner = MemoryStore::new();
        let faults = Faults::none().hook(|point| match point.when {
            When::Between => Box::pin(std::future::pending()),
            When::Before | When::After => Box::pin(std::future::ready(())),
        });
        let store = FaultyStore::new(inner.clone(), faults);
        run(async {
            assert_eq!(enrol(&store, 1).await.unwrap(), Enrolled::Done);
            let change = decision(&store).await;
            tokio::select! {
                biased;
                _ = store.commit(change) => panic!("it waits between the halves"),
                () = tokio::task::yield_now() => {}
            }
            assert_eq!(inner.host(host(1).id).await.unwrap().unwrap().value.transitions, 1, "the host is written");
            assert!(inner.untold(9).await.unwrap().is_empty(), "and nobody will be told");
        });
    });
}

#[test]
fn the_mutant_cas_state_only_overlooks_what_came_between() {
    for (mutant, wanted) in [(None, Committed::Conflict), (Some(Mutant::CasStateOnly), Committed::Done)] {
        with(mutant, || {
            run(async {
                let store = MemoryStore::new();
                assert_eq!(enrol(&store, 1).await.unwrap(), Enrolled::Done);
                let stale = decision(&store).await;
                assert_eq!(store.commit(decision(&store).await).await.unwrap(), Committed::Done);
                assert_eq!(store.commit(stale.clone()).await.unwrap(), wanted, "{mutant:?}");
                let mut paused = store.host(host(1).id).await.unwrap().unwrap();
                paused.value.state = State::Retired { since: NOW };
                let change = Change { host: Some(paused), ..Change::default() };
                assert_eq!(store.commit(change).await.unwrap(), Committed::Done);
                assert_eq!(store.commit(stale).await.unwrap(), Committed::Conflict, "the word has changed");
            });
        });
    }
}

#[test]
fn the_mutant_claim_first_forgets_what_was_claimed_and_not_sent() {
    for (mutant, found_again) in [(None, 1), (Some(Mutant::ClaimFirst), 0)] {
        with(mutant, || {
            run(async {
                let store = MemoryStore::new();
                let told = event(9, Audience::Everyone);
                let change = Change { events: vec![told.clone()], ..Change::default() };
                assert_eq!(store.commit(change).await.unwrap(), Committed::Done);
                let channel = ChannelId::mint(NOW.0, [1; 10]);
                store.tell(told.id, &[Delivery::new(&told, channel, NOW)]).await.unwrap();
                let claimed = store.claim(NOW, NOW.plus(10), 9).await.unwrap();
                assert_eq!(claimed.iter().map(|delivery| delivery.status).collect::<Vec<_>>(), [Status::Pending]);
                let later = NOW.plus(10);
                assert_eq!(store.claim(later, later.plus(10), 9).await.unwrap().len(), found_again, "{mutant:?}");
            });
        });
    }
}

#[test]
fn a_digest_changes_with_every_write_and_a_snapshot_brings_it_back() {
    run(async {
        let store = MemoryStore::new();
        let mut digests = vec![store.digest()];
        assert_eq!(enrol(&store, 1).await.unwrap(), Enrolled::Done);
        digests.push(store.digest());
        let snapshot = store.snapshot();
        let change = decision(&store).await;
        assert_eq!(store.commit(change).await.unwrap(), Committed::Done);
        digests.push(store.digest());
        store.tell(event(9, Audience::Everyone).id, &[]).await.unwrap();
        digests.push(store.digest());
        let channel = Channel {
            id: ChannelId::mint(NOW.0, [1; 10]),
            name: "ops".into(),
            kind: "exec".into(),
            settings: serde_json::Value::Null,
            target: String::new(),
            admin: true,
            created_at: NOW,
            last_delivered_at: None,
            last_error: None,
        };
        assert!(store.add_channel(&channel).await.unwrap());
        digests.push(store.digest());
        let different: std::collections::BTreeSet<_> = digests.iter().collect();
        assert_eq!(different.len(), digests.len());
        let ledger = hb_core::ledger::Ledger::default();
        store.due(NOW.plus(1 << 30), &ledger, &hb_core::policy::Policy::STANDARD, 9).await.unwrap();
        assert_eq!(Some(&store.digest()), digests.last(), "to ask is not to write");
        store.restore(&snapshot);
        assert_eq!(store.digest(), digests[1]);
        assert!(store.channels().await.unwrap().is_empty());
    });
}
