//! Nothing grows without end, and nothing is let go of too early.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use hb_core::delivery::{Delivery, Status};
use hb_core::event::{Audience, Event};
use hb_core::host::Host;
use hb_core::ledger::Ledger;
use hb_core::policy::Policy;

use super::Subject;
use super::world::{at, channel_id, enrol_all, event, host, host_id, tell};
use crate::{
    Change, Committed, DELIVERIES_MAX, DELIVERIES_SLACK, EVENTS_PER_HOST_MAX, EVENTS_SLACK, EventQuery, HostQuery,
    PAGE_MAX,
};

async fn put(store: &Subject, events: Vec<Event>) {
    let change = Change { events, ..Change::default() };
    assert_eq!(store.commit(change).await.unwrap(), Committed::Done);
}

fn most(limit: usize) -> u64 {
    u64::try_from(limit).unwrap()
}

pub async fn history_is_bounded_but_keeps_what_is_still_to_be_told(store: Subject) {
    let (one, two) = (host(1), host(2));
    let untold = event(1, Some(&one), Audience::Everyone);
    put(&store, vec![untold.clone()]).await;
    let waiting = event(2, Some(&one), Audience::Everyone);
    tell(&store, &waiting, &[1]).await;
    let other = event(3, Some(&two), Audience::Nobody);
    put(&store, vec![other.clone()]).await;
    let last = 10 + 2 * most(EVENTS_PER_HOST_MAX);
    let many: Vec<u64> = (10..=last).collect();
    for some in many.chunks(100) {
        put(&store, some.iter().map(|n| event(*n, Some(&one), Audience::Nobody)).collect()).await;
        put(&store, some.iter().map(|n| event(100_000 + n, None, Audience::Nobody)).collect()).await;
    }
    let held = async |host| {
        let query = EventQuery { host, limit: PAGE_MAX, ..EventQuery::default() };
        store.events(&query).await.unwrap().into_iter().map(|listed| listed.value).collect::<Vec<_>>()
    };
    let of_one = held(Some(host_id(1))).await;
    assert!(of_one.len() >= EVENTS_PER_HOST_MAX, "{} events were kept", of_one.len());
    assert!(of_one.len() <= EVENTS_PER_HOST_MAX + EVENTS_SLACK + 2, "{} events were kept", of_one.len());
    let kept: BTreeSet<_> = of_one.iter().map(|event| event.id).collect();
    let newest = (last - most(EVENTS_PER_HOST_MAX) + 3..=last).map(|n| event(n, None, Audience::Nobody).id);
    assert!(newest.into_iter().all(|id| kept.contains(&id)), "the newest are kept");
    assert_eq!(held(Some(host_id(2))).await, [other], "another host's history is its own");
    let all = held(None).await;
    assert!(all.len() <= PAGE_MAX);
    assert_eq!(
        store.event(event(100_010, None, Audience::Nobody).id).await.unwrap(),
        None,
        "the server's is bounded too"
    );
    assert_eq!(store.event(event(10, None, Audience::Nobody).id).await.unwrap(), None);
    assert_eq!(store.untold(10).await.unwrap(), [untold], "still to be told");
    assert_eq!(store.event(waiting.id).await.unwrap(), Some(waiting), "its delivery waits");
}

pub async fn finished_deliveries_are_bounded_and_pending_ones_stay(store: Subject) {
    let waiting = tell(&store, &event(1, Some(&host(1)), Audience::Everyone), &[1]).await.remove(0);
    let page = 500;
    for n in 0..u64::try_from((DELIVERIES_MAX + 2 * DELIVERIES_SLACK) / page).unwrap() {
        let told = event(10 + n, Some(&host(2)), Audience::Everyone);
        put(&store, vec![told.clone()]).await;
        let finished: Vec<Delivery> = (0..page)
            .map(|c| Delivery::new(&told, channel_id(u64::try_from(c).unwrap()), at(n)).merged(at(n)))
            .collect();
        store.tell(told.id, &finished).await.unwrap();
    }
    let mut after = None;
    let mut finished = 0;
    loop {
        let listed = store.deliveries(Some(Status::Merged), after, PAGE_MAX).await.unwrap();
        let Some(last) = listed.last() else { break };
        after = Some(last.position);
        finished += listed.len();
    }
    assert!((DELIVERIES_MAX..=DELIVERIES_MAX + DELIVERIES_SLACK).contains(&finished), "{finished} were kept");
    assert_eq!(store.delivery(waiting.id).await.unwrap(), Some(waiting));
}

pub async fn no_list_is_longer_than_its_page(store: Subject) {
    let n = most(PAGE_MAX) + 5;
    let hosts: Vec<Host> = (0..n).map(host).collect();
    enrol_all(&store, &hosts).await;
    let told = join_all(hosts.iter().zip(n..).map(|(host, n)| {
        let (store, event) = (&store, event(n, Some(host), Audience::Everyone));
        async move {
            put(store, vec![event.clone()]).await;
            event
        }
    }))
    .await;
    let everything = usize::MAX;
    assert_eq!(store.hosts(&HostQuery { limit: everything, ..HostQuery::default() }).await.unwrap().len(), PAGE_MAX);
    assert_eq!(store.events(&EventQuery { limit: everything, ..EventQuery::default() }).await.unwrap().len(), PAGE_MAX);
    assert_eq!(store.untold(everything).await.unwrap().len(), PAGE_MAX);
    let due = store.due(at(1_000_000), &Ledger::default(), &Policy::STANDARD, everything).await.unwrap();
    assert_eq!(due.len(), PAGE_MAX);
    join_all(told.iter().map(|event| async {
        store.tell(event.id, &[Delivery::new(event, channel_id(1), event.at)]).await.unwrap();
    }))
    .await;
    assert_eq!(store.deliveries(None, None, everything).await.unwrap().len(), PAGE_MAX);
    assert_eq!(store.claim(at(n + n), at(1_000_000), everything).await.unwrap().len(), PAGE_MAX);
    assert!(store.claim(at(n + n), at(1_000_000), 0).await.unwrap().is_empty());
}
