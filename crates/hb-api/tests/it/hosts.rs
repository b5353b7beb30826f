//! Hosts: from enrolment to retirement.

use hb_wire::view::{HostPage, HostState, HostView, WhyView};
use http::StatusCode;
use serde_json::json;

use crate::support::World;

#[tokio::test]
async fn a_host_is_enrolled_beats_falls_silent_and_is_explained() {
    let world = World::new().await;
    let mut web1 = world.enrol("Web1").await;
    let shown: HostView = world.ask("GET", &format!("/v1/hosts/{}", web1.id)).await.read();
    assert_eq!((shown.state, shown.name.as_str()), (HostState::New, "web1"));
    assert_eq!((shown.interval_s, shown.grace_s), (60, 120));
    world.beat(&mut web1).await;
    let page: HostPage = world.ask("GET", "/v1/hosts").await.read();
    assert_eq!(page.hosts.len(), 1);
    assert_eq!(page.hosts[0].state, HostState::Up);
    assert_eq!(page.summary["up"], 1);
    world.pass(61).await;
    let page: HostPage = world.ask("GET", "/v1/hosts?state=late").await.read();
    assert_eq!(page.hosts.len(), 1, "{page:?}");
    assert_eq!((page.summary["up"], page.summary["late"]), (0, 1));
    world.pass(120).await;
    let why: WhyView = world.ask("GET", &format!("/v1/hosts/{}/why", web1.id)).await.read();
    assert_eq!(why.host.state, HostState::Down, "{why:#?}");
    assert_eq!(why.event.as_ref().unwrap().event, "down");
    assert!(why.because.contains("web1 is down since"), "{}", why.because);
    world.beat(&mut web1).await;
    let answer =
        world.post("POST", &format!("/v1/hosts/{}/pause", web1.id), &json!({"for_s": 60, "reason": "kernel"})).await;
    assert_eq!(answer.read::<HostView>().state, HostState::Paused);
    let answer = world.ask("DELETE", &format!("/v1/hosts/{}", web1.id)).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(world.send(&web1.call()).await.code(), "retired");
}
