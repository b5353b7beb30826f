//! Events: paged both ways, and followed.

use std::collections::BTreeSet;

use hb_wire::view::EventPage;
use http::StatusCode;
use serde_json::json;

use crate::support::World;

async fn page(world: &World, uri: &str) -> EventPage {
    let answer = world.ask("GET", uri).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer}");
    answer.read()
}

#[tokio::test]
async fn events_are_paged_in_both_orders_without_a_gap_or_a_repetition() {
    let world = World::new().await;
    for number in 0..25 {
        world.enrol(&format!("web{number}")).await;
    }
    for order in ["desc", "asc"] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = page(&world, &format!("/v1/events?limit=10&order={order}{cursor}")).await;
            if page.events.is_empty() {
                break;
            }
            seen.extend(page.events.iter().map(|event| (event.at, event.id)));
            match page.next_cursor {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(seen.len(), 25, "{order}");
        assert_eq!(seen.iter().map(|(_, id)| *id).collect::<BTreeSet<_>>().len(), 25);
    }
}

#[tokio::test]
async fn a_follower_gets_what_happens_after_its_cursor_and_nothing_twice() {
    let world = World::new().await;
    let web1 = world.enrol("web1").await;
    let first = page(&world, "/v1/events?order=asc").await;
    assert_eq!(first.events.len(), 1);
    let cursor = first.next_cursor.unwrap();
    let idle = page(&world, &format!("/v1/events?order=asc&cursor={cursor}")).await;
    assert!(idle.events.is_empty());
    assert_eq!(idle.next_cursor.as_deref(), Some(cursor.as_str()), "a follower keeps its place");
    world.post("POST", &format!("/v1/hosts/{}/pause", web1.id), &json!({"reason": "kernel"})).await;
    let next = page(&world, &format!("/v1/events?order=asc&cursor={cursor}")).await;
    assert_eq!(next.events.len(), 1);
    assert_eq!((next.events[0].event.as_str(), next.events[0].message.as_str()), ("paused", "web1: paused"));
    assert_eq!(next.events[0].inputs["reason"], "kernel");
}

#[tokio::test]
async fn events_of_one_host_and_since_a_time() {
    let world = World::new().await;
    let web1 = world.enrol("web1").await;
    let mut web2 = world.enrol("web2").await;
    world.jump(10);
    world.beat(&mut web2).await;
    let since = "2026-11-23T10:00:05Z";
    let own = page(&world, &format!("/v1/hosts/{}/events", web2.id)).await;
    let kinds: Vec<&str> = own.events.iter().map(|event| event.event.as_str()).collect();
    assert_eq!(kinds, ["up", "registered"], "newest first");
    let recent = page(&world, &format!("/v1/events?since={since}")).await;
    assert_eq!(recent.events.len(), 1, "{recent:?}");
    assert!(page(&world, &format!("/v1/hosts/{}/events?since={since}", web1.id)).await.events.is_empty());
    let cursor = page(&world, "/v1/events?limit=1").await.next_cursor.unwrap();
    let answer = world.ask("GET", &format!("/v1/hosts/{}/events?cursor={cursor}", web1.id)).await;
    assert_eq!(answer.code(), "malformed", "a cursor of another list");
    let answer = world.ask("GET", &format!("/v1/events?order=asc&cursor={cursor}")).await;
    assert_eq!(answer.code(), "malformed", "a cursor of the other order");
}
