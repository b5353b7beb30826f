//! The outbox: nothing is told twice, nothing out of order, nothing forgotten.

use futures_util::future::join_all;
use hb_core::delivery::{Delivery, Status};
use hb_core::event::{Audience, Event, Kind};
use hb_core::time::Time;
use hb_wire::id::{ChannelId, DeliveryId, EventId};

use super::Subject;
use super::world::{at, channel, channel_id, event, host, host_id, incident_id, tell, uuid};
use crate::{Backlog, Change, Committed, EventQuery};

fn ids(deliveries: &[Delivery]) -> Vec<DeliveryId> {
    deliveries.iter().map(|delivery| delivery.id).collect()
}

async fn put(store: &Subject, events: &[Event]) {
    let change = Change { events: events.to_vec(), ..Change::default() };
    assert_eq!(store.commit(change).await.unwrap(), Committed::Done);
}

/// Claims everything that is due at `now`, for one minute.
async fn claim(store: &Subject, now: Time) -> Vec<Delivery> {
    store.claim(now, now.plus(60_000), 100).await.unwrap()
}

async fn deliver(store: &Subject, claimed: &Delivery, now: Time) {
    let lease = claimed.leased_until.expect("what is claimed is leased");
    assert!(store.settle(&claimed.clone().delivered(now), lease).await.unwrap());
}

pub async fn events_wait_to_be_told_in_the_order_of_storing(store: Subject) {
    let audiences = [Audience::Everyone, Audience::Nobody, Audience::Told, Audience::Admins];
    // Ids grow the other way round: the order is that of storing.
    let events: Vec<Event> =
        audiences.into_iter().zip(1..).map(|(audience, n)| event(100 - n, None, audience)).collect();
    put(&store, &events).await;
    let wanted = [events[0].clone(), events[2].clone(), events[3].clone()];
    assert_eq!(store.untold(10).await.unwrap(), wanted);
    assert_eq!(store.untold(2).await.unwrap(), wanted[..2]);
    store.tell(wanted[1].id, &[]).await.unwrap();
    assert_eq!(ids_of(&store.untold(10).await.unwrap()), [wanted[0].id, wanted[2].id]);
}

fn ids_of(events: &[Event]) -> Vec<EventId> {
    events.iter().map(|event| event.id).collect()
}

pub async fn telling_twice_changes_nothing(store: Subject) {
    let told = event(1, None, Audience::Everyone);
    let made = tell(&store, &told, &[1, 2]).await;
    let claimed = claim(&store, at(10)).await;
    deliver(&store, &claimed[0], at(11)).await;
    let before = store.deliveries(None, None, 100).await.unwrap();
    store.tell(told.id, &made).await.unwrap();
    store.tell(told.id, &[Delivery::new(&told, channel_id(3), at(20))]).await.unwrap();
    assert_eq!(store.deliveries(None, None, 100).await.unwrap(), before);
    let unknown = event(2, None, Audience::Everyone);
    store.tell(unknown.id, &[Delivery::new(&unknown, channel_id(1), at(20))]).await.unwrap();
    assert_eq!(store.deliveries(None, None, 100).await.unwrap(), before, "of an event that is not stored");
    let both = join_all((0..8).map(|_| store.tell(told.id, &made))).await;
    assert!(both.into_iter().all(|outcome| outcome.is_ok()));
    assert_eq!(store.deliveries(None, None, 100).await.unwrap(), before);
}

pub async fn deliveries_about_one_host_arrive_in_order_on_each_channel(store: Subject) {
    let (one, two) = (host(1), host(2));
    let first = tell(&store, &event(9, Some(&one), Audience::Everyone), &[1, 2]).await;
    let second = tell(&store, &event(8, Some(&one), Audience::Everyone), &[1, 2]).await;
    let other = tell(&store, &event(7, Some(&two), Audience::Everyone), &[1]).await;
    let claimed = claim(&store, at(10)).await;
    assert_eq!(ids(&claimed), [first[0].id, first[1].id, other[0].id], "the oldest of each host and channel");
    assert!(claim(&store, at(20)).await.is_empty(), "the second waits for the first");
    deliver(&store, &claimed[0], at(21)).await;
    let next = claim(&store, at(22)).await;
    assert_eq!(ids(&next), [second[0].id], "on the other channel the first is still under way");
    assert_eq!(next[0].leased_until, Some(at(60_022)));
    deliver(&store, &next[0], at(23)).await;
    deliver(&store, &claimed[1], at(24)).await;
    assert_eq!(ids(&claim(&store, at(25)).await), [second[1].id]);
    let limited = store.claim(at(100_000), at(200_000), 1).await.unwrap();
    assert_eq!(ids(&limited), [second[1].id], "oldest first");
}

pub async fn deliveries_without_a_host_keep_order_by_incident(store: Subject) {
    let of = |n, incident| Event { incident, ..event(n, None, Audience::Everyone) };
    let first = tell(&store, &of(1, Some(incident_id(1))), &[1]).await;
    let second = tell(&store, &of(2, Some(incident_id(1))), &[1]).await;
    let other = tell(&store, &of(3, Some(incident_id(2))), &[1]).await;
    let alone = tell(&store, &of(4, None), &[1]).await;
    let too = tell(&store, &of(5, None), &[1]).await;
    let claimed = claim(&store, at(10)).await;
    assert_eq!(ids(&claimed), [first[0].id, other[0].id, alone[0].id, too[0].id]);
    deliver(&store, &claimed[0], at(11)).await;
    assert_eq!(ids(&claim(&store, at(12)).await), [second[0].id]);
}

pub async fn a_lease_keeps_others_away_until_it_expires(store: Subject) {
    tell(&store, &event(1, Some(&host(1)), Audience::Everyone), &[1]).await;
    let first = store.claim(at(10), at(100), 10).await.unwrap();
    assert_eq!(first[0].leased_until, Some(at(100)));
    assert_eq!(store.delivery(first[0].id).await.unwrap().as_ref(), Some(&first[0]));
    assert!(store.claim(at(99), at(200), 10).await.unwrap().is_empty());
    let second = store.claim(at(100), at(200), 10).await.unwrap();
    assert_eq!(ids(&second), ids(&first));
    assert_eq!(second[0].attempts, 0, "a lease that ran out is no attempt");
}

pub async fn who_lost_the_lease_settles_nothing(store: Subject) {
    assert!(store.add_channel(&channel(1)).await.unwrap());
    tell(&store, &event(1, Some(&host(1)), Audience::Everyone), &[1]).await;
    let first = store.claim(at(10), at(100), 10).await.unwrap().remove(0);
    let second = store.claim(at(100), at(200), 10).await.unwrap().remove(0);
    assert!(!store.settle(&first.clone().delivered(at(101)), at(100)).await.unwrap());
    assert_eq!(store.delivery(second.id).await.unwrap().as_ref(), Some(&second));
    assert_eq!(store.channels().await.unwrap(), [channel(1)], "nor is it noted on the channel");
    assert!(store.settle(&second.clone().delivered(at(102)), at(200)).await.unwrap());
    assert!(
        !store.settle(&second.clone().failed("no".into(), false, None, at(103), 1), at(200)).await.unwrap(),
        "twice"
    );
    let held = store.delivery(second.id).await.unwrap().unwrap();
    assert_eq!((held.status, held.delivered_at), (Status::Delivered, Some(at(102))));
    let unknown = Delivery::new(&event(2, None, Audience::Everyone), channel_id(1), at(0));
    assert!(!store.settle(&unknown, at(200)).await.unwrap());
}

pub async fn of_many_claims_at_once_each_delivery_goes_to_one(store: Subject) {
    for n in 0..40 {
        tell(&store, &event(n, Some(&host(n)), Audience::Everyone), &[1]).await;
    }
    let claims = join_all((0..16).map(|_| store.claim(at(100), at(200), 5))).await;
    let mut claimed: Vec<DeliveryId> = claims.into_iter().flat_map(|claim| ids(&claim.unwrap())).collect();
    assert_eq!(claimed.len(), 40);
    claimed.sort_unstable();
    claimed.dedup();
    assert_eq!(claimed.len(), 40);
}

pub async fn a_failed_delivery_waits_and_so_do_those_behind_it(store: Subject) {
    let first = tell(&store, &event(1, Some(&host(1)), Audience::Everyone), &[1]).await;
    let second = tell(&store, &event(2, Some(&host(1)), Audience::Everyone), &[1]).await;
    let claimed = claim(&store, at(10)).await.remove(0);
    let failed = claimed.clone().failed("connection refused".into(), false, Some(500), at(20), 0);
    assert!(store.settle(&failed, claimed.leased_until.unwrap()).await.unwrap());
    assert_eq!(store.delivery(first[0].id).await.unwrap(), Some(failed));
    assert!(claim(&store, at(519)).await.is_empty());
    assert_eq!(store.next_claim().await.unwrap(), Some(at(520)));
    let again = claim(&store, at(520)).await.remove(0);
    assert_eq!((again.id, again.attempts), (first[0].id, 1));
    let dead = again.clone().failed("gone".into(), true, None, at(530), 0);
    assert!(store.settle(&dead, again.leased_until.unwrap()).await.unwrap());
    assert_eq!(ids(&claim(&store, at(531)).await), ids(&second), "what is given up holds nobody back");
}

pub async fn settling_is_noted_on_the_channel(store: Subject) {
    assert!(store.add_channel(&channel(1)).await.unwrap());
    assert!(store.add_channel(&channel(2)).await.unwrap());
    for n in 1..=3 {
        tell(&store, &event(n, Some(&host(n)), Audience::Everyone), &[1]).await;
    }
    let noted = async || {
        let held = store.channels().await.unwrap();
        assert_eq!(held[1], channel(2), "another channel");
        (held[0].last_delivered_at, held[0].last_error.clone())
    };
    let claimed = claim(&store, at(10)).await;
    let lease = claimed[0].leased_until.unwrap();
    let failed = claimed[0].clone().failed("timeout".into(), false, None, at(20), 0);
    assert!(store.settle(&failed, lease).await.unwrap());
    assert_eq!(noted().await, (None, Some("timeout".into())));
    assert!(store.settle(&claimed[1].clone().delivered(at(30)), lease).await.unwrap());
    assert_eq!(noted().await, (Some(at(30)), None));
    assert!(store.settle(&claimed[2].clone().merged(at(40)), lease).await.unwrap());
    assert_eq!(noted().await, (Some(at(30)), None), "nothing was sent");
}

pub async fn a_dead_delivery_can_be_revived_and_a_leased_one_cannot(store: Subject) {
    let made = tell(&store, &event(1, Some(&host(1)), Audience::Everyone), &[1]).await.remove(0);
    let sooner = made.clone().revived(at(5));
    assert!(store.revive(&sooner).await.unwrap(), "pending, not leased");
    let claimed = claim(&store, at(10)).await.remove(0);
    assert!(!store.revive(&claimed.clone().revived(at(11))).await.unwrap(), "leased");
    let dead = claimed.clone().failed("no such user".into(), true, None, at(20), 0);
    assert!(store.settle(&dead, claimed.leased_until.unwrap()).await.unwrap());
    assert!(claim(&store, at(1_000_000_000)).await.is_empty());
    assert!(store.revive(&dead.revived(at(30))).await.unwrap());
    let again = claim(&store, at(31)).await.remove(0);
    assert_eq!((again.id, again.attempts), (made.id, 1));
    deliver(&store, &again, at(32)).await;
    assert!(!store.revive(&again.revived(at(33))).await.unwrap(), "delivered");
    let unknown = Delivery::new(&event(2, None, Audience::Everyone), channel_id(1), at(0));
    assert!(!store.revive(&unknown).await.unwrap());
}

pub async fn deliveries_are_found_by_id_incident_and_status(store: Subject) {
    let of =
        |n, incident| Event { incident: Some(incident_id(incident)), ..event(n, Some(&host(n)), Audience::Everyone) };
    let a = tell(&store, &of(1, 1), &[1, 2]).await;
    let b = tell(&store, &of(2, 2), &[1]).await;
    let c = tell(&store, &of(3, 1), &[2]).await;
    let of_one = store.deliveries_of(incident_id(1)).await.unwrap();
    assert_eq!(ids(&of_one), [a[0].id, a[1].id, c[0].id]);
    assert_eq!(store.delivery(b[0].id).await.unwrap().as_ref(), Some(&b[0]));
    let claimed = claim(&store, at(10)).await;
    deliver(&store, &claimed[1], at(11)).await;
    let list = async |status, after, limit| {
        let page = store.deliveries(status, after, limit).await.unwrap();
        let ids: Vec<DeliveryId> = page.iter().map(|listed| listed.value.id).collect();
        (ids, page.last().map(|listed| listed.position))
    };
    let (newest, place) = list(None, None, 2).await;
    assert_eq!(newest, [c[0].id, b[0].id]);
    assert_eq!(list(None, place, 9).await.0, [a[1].id, a[0].id]);
    assert_eq!(list(Some(Status::Delivered), None, 9).await.0, [a[1].id]);
    assert_eq!(list(Some(Status::Pending), None, 9).await.0, [c[0].id, b[0].id, a[0].id]);
    assert!(list(Some(Status::Dead), None, 9).await.0.is_empty());
}

pub async fn the_backlog_counts_what_waits_fails_and_is_dead(store: Subject) {
    assert_eq!(store.backlog().await.unwrap(), Backlog::default());
    for n in [1, 2] {
        assert!(store.add_channel(&channel(n)).await.unwrap());
    }
    put(&store, &[event(90, None, Audience::Everyone), event(91, None, Audience::Nobody)]).await;
    for n in 1..=4 {
        tell(&store, &event(n, Some(&host(n)), Audience::Everyone), &[1]).await;
    }
    assert_eq!(store.backlog().await.unwrap(), Backlog { failing: 0, pending: 5, dead: 0 });
    let claimed = claim(&store, at(10)).await;
    let lease = claimed[0].leased_until.unwrap();
    assert_eq!(store.backlog().await.unwrap().pending, 5, "what is under way still waits");
    let failed = claimed[0].clone().failed("no".into(), false, None, at(11), 0);
    assert!(store.settle(&failed, lease).await.unwrap());
    let dead = claimed[1].clone().failed("never".into(), true, None, at(11), 0);
    assert!(store.settle(&dead, lease).await.unwrap());
    deliver(&store, &claimed[2], at(12)).await;
    assert_eq!(store.backlog().await.unwrap(), Backlog { failing: 1, pending: 3, dead: 1 });
}

pub async fn what_was_given_up_counts_while_its_channel_is_there_and_a_test_never(store: Subject) {
    for n in [1, 2] {
        assert!(store.add_channel(&channel(n)).await.unwrap());
    }
    tell(&store, &event(1, Some(&host(1)), Audience::Everyone), &[1, 2]).await;
    tell(&store, &Event { kind: Kind::Test, ..event(2, None, Audience::Everyone) }, &[1]).await;
    let claimed = claim(&store, at(10)).await;
    assert_eq!(claimed.len(), 3);
    for delivery in claimed {
        let lease = delivery.leased_until.expect("what is claimed is leased");
        assert!(store.settle(&delivery.failed("no".into(), true, None, at(11), 1), lease).await.unwrap());
    }
    assert_eq!(
        store.backlog().await.unwrap(),
        Backlog { failing: 0, pending: 0, dead: 2 },
        "the test is nobody's loss"
    );
    assert!(store.remove_channel(channel_id(1)).await.unwrap());
    assert_eq!(store.backlog().await.unwrap().dead, 1, "nobody can try the other one again");
}

pub async fn next_claim_says_when_there_is_work(store: Subject) {
    let first = event(1, Some(&host(1)), Audience::Everyone);
    put(&store, std::slice::from_ref(&first)).await;
    assert_eq!(store.next_claim().await.unwrap(), Some(Time::ZERO), "an event waits for its deliveries");
    store.tell(first.id, &[Delivery::new(&first, channel_id(1), at(50))]).await.unwrap();
    assert_eq!(store.next_claim().await.unwrap(), Some(at(50)));
    let claimed = store.claim(at(50), at(80), 9).await.unwrap().remove(0);
    assert_eq!(store.next_claim().await.unwrap(), Some(at(80)), "when the lease ends");
    tell(&store, &event(2, Some(&host(1)), Audience::Everyone), &[1]).await;
    assert_eq!(store.next_claim().await.unwrap(), Some(at(80)), "the one behind it waits");
    deliver(&store, &claimed, at(60)).await;
    assert_eq!(store.next_claim().await.unwrap(), Some(at(2)));
    let claimed = claim(&store, at(70)).await.remove(0);
    deliver(&store, &claimed, at(71)).await;
    assert_eq!(store.next_claim().await.unwrap(), None);
}

pub async fn removing_a_channel_removes_what_waits_for_it(store: Subject) {
    assert!(store.add_channel(&channel(1)).await.unwrap());
    assert!(store.add_channel(&channel(2)).await.unwrap());
    let first = tell(&store, &event(1, Some(&host(1)), Audience::Everyone), &[1, 2]).await;
    let claimed = claim(&store, at(10)).await;
    deliver(&store, &claimed[0], at(11)).await;
    let second = tell(&store, &event(2, Some(&host(1)), Audience::Everyone), &[1, 2]).await;
    let under_way = claim(&store, at(12)).await.remove(0);
    assert_eq!(under_way.id, second[0].id);
    assert!(store.remove_channel(channel_id(1)).await.unwrap());
    assert!(!store.remove_channel(channel_id(1)).await.unwrap());
    assert_eq!(store.channels().await.unwrap(), [channel(2)]);
    assert_eq!(store.delivery(second[0].id).await.unwrap(), None);
    assert!(!store.settle(&under_way.clone().delivered(at(13)), under_way.leased_until.unwrap()).await.unwrap());
    let kept = store.delivery(first[0].id).await.unwrap().unwrap();
    assert_eq!(kept.status, Status::Delivered, "what was delivered is history");
    assert_eq!(store.backlog().await.unwrap().pending, 2, "the other channel's wait");
    assert!(store.add_channel(&hb_core::access::Channel { id: ChannelId(uuid(3, 9)), ..channel(1) }).await.unwrap());
}

pub async fn events_are_listed_in_both_directions_by_host_and_time(store: Subject) {
    let (one, two) = (host(1), host(2));
    let events: Vec<Event> = (1..=9)
        .map(|n| event(n, [None, Some(&one), Some(&two)][usize::try_from(n % 3).unwrap()], Audience::Nobody))
        .collect();
    put(&store, &events).await;
    let list = async |query: EventQuery| {
        let page = store.events(&query).await.unwrap();
        (
            ids_of(&page.iter().map(|listed| listed.value.clone()).collect::<Vec<_>>()),
            page.last().map(|last| last.position),
        )
    };
    let all = EventQuery { limit: 100, ..EventQuery::default() };
    let mut newest_first = ids_of(&events);
    newest_first.reverse();
    assert_eq!(list(all.clone()).await.0, newest_first);
    let ascending = EventQuery { ascending: true, ..all.clone() };
    assert_eq!(list(ascending.clone()).await.0, ids_of(&events));
    let of_one = EventQuery { host: Some(host_id(1)), ..ascending.clone() };
    assert_eq!(list(of_one.clone()).await.0, [events[0].id, events[3].id, events[6].id]);
    let since = EventQuery { since: Some(at(4)), ..of_one.clone() };
    assert_eq!(list(since).await.0, [events[3].id, events[6].id]);
    for query in [all, ascending] {
        let (whole, _) = list(query.clone()).await;
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let (page, place) = list(EventQuery { limit: 4, after, ..query.clone() }).await;
            seen.extend(page);
            after = place;
            if place.is_none() {
                break;
            }
        }
        assert_eq!(seen, whole);
    }
    assert!(list(EventQuery { host: Some(host_id(3)), ..of_one }).await.0.is_empty());
}
