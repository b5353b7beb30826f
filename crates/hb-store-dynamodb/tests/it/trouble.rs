//! What a network and a busy DynamoDB do to a store.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::join;
use hb_core::access::{ApiKey, Channel};
use hb_core::event::Audience;
use hb_core::ledger::Ledger;
use hb_core::policy::Policy;
use hb_store::{Beaten, Change, Committed, Credential, EventQuery, HostQuery, Store, StoreError};
use hb_store_dynamodb::{DynamoStore, Usage};
use hb_wire::id::ChannelId;

use crate::desk::{self, Gate, Ruling, cancelled, error};
use crate::emulator::{Emulator, TABLE, connection, fresh};
use crate::world::{START, beat, enrol, event, everything, host, id, nonce, read};

/// A store whose requests pass a desk, a store beside it, and their DynamoDB.
async fn through(rule: impl Fn(&str, &str) -> Ruling + Send + Sync + 'static) -> (DynamoStore, DynamoStore, Emulator) {
    let (beside, emulator) = fresh(Usage { shards: 1, ..Usage::default() }).await;
    let desk = desk::open(emulator.address(), rule).await;
    let store = DynamoStore::open(connection(&desk).client(), TABLE, Usage { shards: 1, ..Usage::default() }).await;
    (store.unwrap(), beside, emulator)
}

/// Passes what the opening of a store needs, and answers all else like this.
fn always(ruling: Ruling) -> impl Fn(&str, &str) -> Ruling + Send + Sync + 'static {
    move |_, body: &str| if body.contains("shards") { Ruling::Pass } else { ruling.clone() }
}

#[tokio::test]
async fn throttling_is_overload_whatever_it_is_called() {
    for code in ["ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded"] {
        let (store, _beside, _emulator) = through(always(error(code, "slow down"))).await;
        let refused = store.beat(beat(&host(1), START, nonce(1))).await;
        assert!(matches!(refused, Err(StoreError::Overloaded)), "{code}: {refused:?}");
        let refused = store.host(id(1)).await;
        assert!(matches!(refused, Err(StoreError::Overloaded)), "{code}: {refused:?}");
    }
}

#[tokio::test]
async fn who_keeps_meeting_others_is_told_of_overload_or_that_somebody_was_faster() {
    let only = |wanted: &'static str, ruling: Ruling| {
        move |operation: &str, body: &str| {
            if operation == wanted && !body.contains("shards") { ruling.clone() } else { Ruling::Pass }
        }
    };
    let (store, _beside, _emulator) = through(only("UpdateItem", error("TransactionConflictException", ""))).await;
    let refused = store.beat(beat(&host(1), START, nonce(1))).await;
    assert!(matches!(refused, Err(StoreError::Overloaded)), "a beat: {refused:?}");

    let conflict = cancelled(&["None", "TransactionConflict"]);
    let (store, beside, emulator) = through(only("TransactWriteItems", conflict)).await;
    enrol(&beside, &host(1)).await;
    let before = everything(&emulator.client()).await;
    let change = Change { host: Some(read(&store, id(1)).await), ..Change::default() };
    assert_eq!(store.commit(change).await.unwrap(), Committed::Conflict, "a decision is made anew");
    let first = event(9, Some(&host(2)), Audience::Nobody);
    let refused = store.enrol(&host(2), &first, &Credential::Trusted, START).await;
    assert!(matches!(refused, Err(StoreError::Overloaded)), "an enrolment: {refused:?}");
    let after = everything(&emulator.client()).await;
    let changed: Vec<_> = after.iter().filter(|item| !before.contains(item)).collect();
    assert!(changed.iter().all(|item| item.contains("position")), "only the counter moved on: {changed:?}");

    let (store, _beside, _emulator) =
        through(only("TransactWriteItems", cancelled(&["None", "ThrottlingError"]))).await;
    let refused = store.enrol(&host(2), &first, &Credential::Trusted, START).await;
    assert!(matches!(refused, Err(StoreError::Overloaded)), "{refused:?}");
}

#[tokio::test]
async fn an_error_is_told_by_its_code_and_never_by_its_message() {
    let forged = error("ValidationException", "the value https://hooks.example.org/token-hunter2 is wrong");
    let (store, _beside, _emulator) = through(always(forged)).await;
    let channel = Channel {
        id: ChannelId(uuid::Uuid::from_u128(1)),
        name: "ops".into(),
        kind: "webhook".into(),
        settings: serde_json::json!({"url": "https://hooks.example.org/token-hunter2"}),
        target: "https://hooks.example.org/…".into(),
        admin: false,
        created_at: START,
        last_delivered_at: None,
        last_error: None,
    };
    let told = store.add_channel(&channel).await.unwrap_err();
    let shown = format!("{told} {told:?} {store:?}");
    assert!(told.to_string().contains("ValidationException"), "{told}");
    assert!(!shown.contains("hunter2") && !shown.contains("secret-of-the-test"), "{shown}");

    let (store, _beside, _emulator) = through(always(error("Zzz hunter\n2\u{1b}[31m", "x"))).await;
    let told = store.host(id(1)).await.unwrap_err().to_string();
    assert!(!told.contains('\n') && !told.contains('\u{1b}'), "{told}");
}

#[tokio::test]
async fn a_table_that_is_not_there_is_said_to_be_missing() {
    let (_store, emulator) = fresh(Usage::default()).await;
    let missing = DynamoStore::open(emulator.client(), "no-such-table-here", Usage::default()).await;
    let told = missing.unwrap_err().to_string();
    assert!(told.contains("ResourceNotFoundException") && told.contains("is there such a table?"), "{told}");
}

#[tokio::test]
async fn a_beat_whose_answer_was_lost_is_stored_once_and_said_to_be_stored() {
    let lost = AtomicU32::new(0);
    let rule = move |operation: &str, body: &str| {
        let is_beat = operation == "UpdateItem" && !body.contains("shards") && !body.contains("ADD");
        if is_beat && lost.fetch_add(1, Ordering::Relaxed) == 0 { Ruling::LoseAnswer } else { Ruling::Pass }
    };
    let (store, beside, _emulator) = through(rule).await;
    enrol(&beside, &host(1)).await;
    let before = read(&beside, id(1)).await;
    let sent = beat(&before.value, START.plus(60_000), nonce(1));
    assert_eq!(store.beat(sent).await.unwrap(), Beaten::Stored);
    let after = read(&beside, id(1)).await;
    assert_eq!((after.rev, after.value.life.nonce), (before.rev + 1, nonce(1)));
}

#[tokio::test]
async fn what_was_added_although_the_answer_was_lost_is_said_to_be_added() {
    let lost = AtomicU32::new(0);
    let rule = move |operation: &str, _: &str| {
        let is_first = operation == "PutItem" && lost.fetch_add(1, Ordering::Relaxed) == 0;
        if is_first { Ruling::LoseAnswer } else { Ruling::Pass }
    };
    let (store, beside, _emulator) = through(rule).await;
    let key = ApiKey {
        id: "k1".into(),
        hash: [7; 32],
        name: "ops".into(),
        scopes: [].into(),
        created_at: START,
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
    };
    assert!(store.add_key(&key).await.unwrap());
    assert!(!store.add_key(&key).await.unwrap(), "once");
    assert_eq!(beside.keys().await.unwrap(), [key]);
}

/// By what is sent, not by what the code says of itself.
#[tokio::test]
async fn a_beat_is_one_conditional_update_that_asks_for_the_reason_and_nothing_is_ever_scanned() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&asked);
    let rule = move |operation: &str, body: &str| {
        heard.lock().unwrap().push((operation.to_owned(), body.to_owned()));
        Ruling::Pass
    };
    let (store, _beside, _emulator) = through(rule).await;
    enrol(&store, &host(1)).await;
    let known = read(&store, id(1)).await;
    asked.lock().unwrap().clear();
    assert_eq!(store.beat(beat(&known.value, START.plus(60_000), nonce(1))).await.unwrap(), Beaten::Stored);
    let sent = core::mem::take(&mut *asked.lock().unwrap());
    let [(operation, body)] = sent.as_slice() else { panic!("{sent:?}") };
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(operation, "UpdateItem");
    assert!(body["ConditionExpression"].is_string(), "{body}");
    assert_eq!(body["ReturnValuesOnConditionCheckFailure"], "ALL_OLD");

    store.fleet(START).await.unwrap();
    store.silence(START.plus(90_000), &host(1).tags).await.unwrap();
    store.silent(START.plus(900_000), None, 9).await.unwrap();
    store.due(START.plus(900_000), &Ledger::default(), &Policy::STANDARD, 9).await.unwrap();
    store.next_due().await.unwrap();
    store.hosts(&HostQuery { retired: true, limit: 9, ..HostQuery::default() }).await.unwrap();
    store.events(&EventQuery { limit: 9, ..EventQuery::default() }).await.unwrap();
    store.deliveries(None, None, 9).await.unwrap();
    store.backlog().await.unwrap();
    store.open_incidents().await.unwrap();
    let sent = asked.lock().unwrap();
    assert!(sent.len() > 20);
    for (operation, body) in sent.iter() {
        assert!(operation != "Scan" && !body.contains("IndexName"), "{operation}: {body}");
    }
}

/// A large change is one transaction and then its events, one after the other; whoever does it dies in between.
#[tokio::test]
async fn a_large_change_that_was_cut_off_is_finished_by_whoever_comes_next() {
    let transactions = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&transactions);
    let rule = move |operation: &str, _: &str| {
        if operation != "TransactWriteItems" || counted.fetch_add(1, Ordering::Relaxed) < 3 {
            Ruling::Pass
        } else {
            Ruling::Lose
        }
    };
    let (store, beside, _emulator) = through(rule).await;
    enrol(&beside, &host(1)).await;
    let mut decided = read(&store, id(1)).await;
    decided.value.transitions = 77;
    let events: Vec<_> = (0..300).map(|n| event(1000 + n, Some(&host(1)), Audience::Everyone)).collect();
    let change = Change { host: Some(decided.clone()), incident: None, events: events.clone() };
    assert!(store.commit(change.clone()).await.is_err(), "its writer was cut off");
    assert_eq!(read(&beside, id(1)).await.value.transitions, 77, "but it was decided");
    let known = beside.events(&EventQuery { limit: 1000, ..EventQuery::default() }).await.unwrap().len();
    assert!(known > 1 && known < 301, "{known} events are there");
    assert_eq!(beside.untold(1000).await.unwrap(), events, "all are told, in order");
    assert_eq!(beside.commit(change).await.unwrap(), Committed::Conflict, "and it is not decided twice");
    assert_eq!(beside.untold(1000).await.unwrap().len(), 300);
}

/// Who was held up while others finished its change, and let go of its events since, does not bring them back.
#[tokio::test]
async fn a_large_change_is_not_finished_twice() {
    let gate = Gate::closed();
    let held = Arc::clone(&gate);
    let count = AtomicU32::new(0);
    let rule = move |operation: &str, _: &str| {
        let is_second = operation == "TransactWriteItems" && count.fetch_add(1, Ordering::Relaxed) == 1;
        if is_second { Ruling::Hold(Arc::clone(&held)) } else { Ruling::Pass }
    };
    let (slow, beside, emulator) = through(rule).await;
    // Too many for a transaction, too few for another count of them.
    let many = |from: u128, count| {
        let events = (from..from + count).map(|n| event(n, Some(&host(1)), Audience::Nobody)).collect::<Vec<_>>();
        Change { events, ..Change::default() }
    };
    let meanwhile = async {
        gate.arrived().await;
        assert!(beside.untold(9).await.unwrap().is_empty());
        for n in 0..12 {
            assert_eq!(beside.commit(many(10_000 + n * 50, 50)).await.unwrap(), Committed::Done);
        }
        assert_eq!(beside.event(many(0, 1).events[0].id).await.unwrap(), None, "it is let go of");
        let before = everything(&emulator.client()).await;
        gate.open();
        before
    };
    let (late, before) = join(slow.commit(many(0, 45)), meanwhile).await;
    assert_eq!(late.unwrap(), Committed::Done, "it was done, by another one");
    assert_eq!(everything(&emulator.client()).await, before);
}

#[tokio::test]
async fn a_large_change_that_conflicts_writes_nothing() {
    let (store, emulator) = fresh(Usage::default()).await;
    enrol(&store, &host(1)).await;
    let mut stale = read(&store, id(1)).await;
    let sent = beat(&stale.value, START.plus(1000), nonce(1));
    assert_eq!(store.beat(sent).await.unwrap(), Beaten::Stored);
    stale.value.transitions = 5;
    // Larger than its item, too.
    let mut large = event(5000, Some(&host(1)), Audience::Everyone);
    large.inputs.insert("note".into(), "x".repeat(300_000).into());
    let mut events: Vec<_> = (0..200).map(|n| event(2000 + n, None, Audience::Everyone)).collect();
    events.push(large.clone());
    let before = everything(&emulator.client()).await;
    let change = Change { host: Some(stale), incident: None, events: events.clone() };
    assert_eq!(store.commit(change.clone()).await.unwrap(), Committed::Conflict);
    let is_same = |item: &&String| !item.contains("position") && !before.contains(item);
    let after = everything(&emulator.client()).await;
    assert!(after.iter().find(is_same).is_none(), "nothing but the counter has changed");

    let fresh = read(&store, id(1)).await;
    let change = Change { host: Some(fresh), ..change };
    assert_eq!(store.commit(change).await.unwrap(), Committed::Done);
    assert_eq!(store.untold(1000).await.unwrap(), events);
    assert_eq!(store.event(large.id).await.unwrap(), Some(large));
}
