//! Hosts: from enrolment to retirement.

use hb_wire::view::{HostPage, HostState, HostView, WhyView};
use http::StatusCode;
use serde_json::json;

use crate::support::{Agent, World};

async fn show(world: &World, agent: &Agent) -> HostView {
    world.ask("GET", &format!("/v1/hosts/{}", agent.id)).await.read()
}

async fn list(world: &World, query: &str) -> HostPage {
    let answer = world.ask("GET", &format!("/v1/hosts{query}")).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer}");
    answer.read()
}

fn names(page: &HostPage) -> Vec<&str> {
    page.hosts.iter().map(|host| host.name.as_str()).collect()
}

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

#[tokio::test]
async fn hosts_are_filtered_by_state_tag_and_name() {
    let world = World::new().await;
    let mut web1 = world.enrol_as(&json!({"name": "web1", "tags": {"site": "ams1", "role": "web"}})).await;
    let _web2 = world.enrol_as(&json!({"name": "web2", "tags": {"site": "ams1"}})).await;
    let web3 = world.enrol_as(&json!({"name": "web3", "tags": {"site": "fra1"}})).await;
    world.beat(&mut web1).await;
    world.post("POST", &format!("/v1/hosts/{}/pause", web3.id), &json!({})).await;
    let retired = world.enrol("old").await;
    world.ask("DELETE", &format!("/v1/hosts/{}", retired.id)).await;
    for (query, expected) in [
        ("", vec!["web1", "web2", "web3"]),
        ("?state=up", vec!["web1"]),
        ("?state=up&state=new", vec!["web1", "web2"]),
        ("?state=up,paused", vec!["web1", "web3"]),
        ("?state=down", vec![]),
        ("?state=retired", vec!["old"]),
        ("?tag=site%3Dams1", vec!["web1", "web2"]),
        ("?tag=site=ams1&tag=role=web", vec!["web1"]),
        ("?tag=site=ams1&state=new", vec!["web2"]),
        ("?name=web2", vec!["web2"]),
        ("?name=WEB2", vec!["web2"]),
        ("?name=old", vec!["old"]),
        ("?name=old&state=up", vec![]),
        ("?name=none", vec![]),
    ] {
        assert_eq!(names(&list(&world, query).await), expected, "{query}");
    }
    let summary = list(&world, "?name=none").await.summary;
    let counted: Vec<(&str, u64)> = summary.iter().map(|(word, count)| (word.as_str(), *count)).collect();
    assert_eq!(
        counted,
        [("down", 0), ("late", 0), ("new", 1), ("paused", 1), ("stopped", 0), ("unknown", 0), ("up", 1)],
        "over the whole fleet, whatever is filtered"
    );
}

#[tokio::test]
async fn twenty_five_hundred_hosts_are_paged_by_name_without_a_gap_or_a_repetition() {
    let world = World::new().await;
    for number in 0..2500 {
        let name = format!("web{number}");
        let wish = hb_core::host::Wish {
            name: name.parse().unwrap(),
            tags: hb_wire::name::Tags::default(),
            class: hb_wire::view::Class::Server,
            interval_s: 60,
            grace_s: 120,
            max_away_s: None,
        };
        let mut random = [0; 10];
        hb_api::app::Entropy::fill(world.random.as_ref(), &mut random);
        let id = hb_wire::id::HostId::mint(world.now().0, random);
        let (host, event) = world.app.decide(|moment| {
            let host = wish.enrol(id, world.host_key().public(), moment.fresh, moment.now);
            let event = hb_core::machine::registered(&host, moment);
            (host, event)
        });
        let enrolled = hb_store::Store::enrol(&world.store, &host, &event, &hb_store::Credential::Trusted, world.now())
            .await
            .unwrap();
        assert_eq!(enrolled, hb_store::Enrolled::Done);
    }
    for (limit, pages) in [(1000, 3), (100, 25), (617, 5), (1, 0)] {
        if pages == 0 {
            assert_eq!(list(&world, "?limit=1").await.hosts.len(), 1);
            continue;
        }
        for state in ["", "&state=new"] {
            let (mut seen, mut cursor, mut turned) = (Vec::new(), String::new(), 0);
            loop {
                let page = list(&world, &format!("?limit={limit}{state}{cursor}")).await;
                assert!(page.hosts.len() <= limit);
                assert_eq!(page.summary["new"], 2500);
                seen.extend(page.hosts.into_iter().map(|host| host.name));
                turned += 1;
                match page.next_cursor {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => break,
                }
            }
            let mut sorted: Vec<String> = (0..2500).map(|number| format!("web{number}")).collect();
            sorted.sort();
            assert!(seen == sorted, "limit {limit}{state}");
            assert_eq!(turned, pages, "limit {limit}{state}");
        }
    }
    assert!(list(&world, "?state=up").await.hosts.is_empty());
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_nothing_else() {
    let world = World::new().await;
    let mut web1 = world.enrol_as(&json!({"name": "web1", "tags": {"site": "ams1", "rack": "7"}})).await;
    world.beat(&mut web1).await;
    let uri = format!("/v1/hosts/{}", web1.id);
    let before = world.digest();
    assert_eq!(world.post("PATCH", &uri, &json!({})).await.status, StatusCode::OK);
    assert!(world.digest() == before, "nothing to change: nothing is written");
    let patch = json!({"name": "Web01", "grace_s": 300, "tags": {"rack": null, "role": "web"}, "class": "ephemeral"});
    let host: HostView = world.post("PATCH", &uri, &patch).await.read();
    assert_eq!((host.name.as_str(), host.interval_s, host.grace_s), ("web01", 60, 300));
    assert_eq!(serde_json::to_value(&host.tags).unwrap(), json!({"site": "ams1", "role": "web"}));
    assert_eq!(host.class, hb_wire::view::Class::Ephemeral);
    assert_eq!(show(&world, &web1).await, host);
    let seen = host.last_seen.unwrap().as_second();
    assert_eq!(host.deadline.unwrap().as_second() - seen, 360);
}

#[tokio::test]
async fn pause_and_resume_give_silence_and_a_full_term_after_it() {
    let world = World::new().await;
    let mut web1 = world.enrol("web1").await;
    world.beat(&mut web1).await;
    let pause = format!("/v1/hosts/{}/pause", web1.id);
    let host: HostView = world.post("POST", &pause, &json!({"for_s": 600, "reason": "kernel"})).await.read();
    assert_eq!((host.state, host.reason.as_deref(), host.deadline), (HostState::Paused, Some("kernel"), None));
    world.pass(599).await;
    assert_eq!(show(&world, &web1).await.state, HostState::Paused);
    world.pass(2).await;
    assert_eq!(show(&world, &web1).await.state, HostState::Up, "it ends by itself, with a full term");
    world.ask("POST", &pause).await;
    assert_eq!(show(&world, &web1).await.until, None);
    let resumed: HostView = world.ask("POST", &format!("/v1/hosts/{}/resume", web1.id)).await.read();
    assert_eq!(resumed.state, HostState::Up);
    let before = world.digest();
    assert_eq!(world.ask("POST", &format!("/v1/hosts/{}/resume", web1.id)).await.status, StatusCode::OK);
    assert!(world.digest() == before, "nothing to resume: nothing is written");
}

#[tokio::test]
async fn a_retired_host_is_changed_no_more_and_retiring_twice_is_retiring_once() {
    let world = World::new().await;
    let web1 = world.enrol("web1").await;
    let uri = format!("/v1/hosts/{}", web1.id);
    assert_eq!(world.ask("DELETE", &uri).await.status, StatusCode::NO_CONTENT);
    let before = world.digest();
    assert_eq!(world.ask("DELETE", &uri).await.status, StatusCode::NO_CONTENT);
    assert_eq!(world.post("PATCH", &uri, &json!({"grace_s": 5})).await.code(), "retired");
    assert_eq!(world.ask("POST", &format!("{uri}/pause")).await.code(), "retired");
    assert_eq!(world.ask("POST", &format!("{uri}/resume")).await.code(), "retired");
    assert!(world.digest() == before);
    assert_eq!(show(&world, &web1).await.state, HostState::Retired);
    assert!(world.ask("GET", &format!("{uri}/why")).await.read::<WhyView>().because.contains("was retired at"));
}

#[tokio::test]
async fn what_was_not_observed_is_shown_as_unknown_and_explained_and_judged_later() {
    let world = World::new().await;
    let mut web1 = world.enrol("web1").await;
    let mut web2 = world.enrol("web2").await;
    world.beat(&mut web1).await;
    world.beat(&mut web2).await;
    world.jump(600);
    world.pass(1).await;
    let page = list(&world, "").await;
    assert!(page.observing);
    assert_eq!((page.summary["unknown"], page.summary["down"], page.summary["up"]), (2, 0, 0), "{page:#?}");
    assert!(page.hosts.iter().all(|host| host.state == HostState::Unknown));
    let why: WhyView = world.ask("GET", &format!("/v1/hosts/{}/why", web1.id)).await.read();
    assert!(why.because.contains("was not observing"), "{}", why.because);
    assert!(why.steps.iter().any(|step| step.starts_with("credit: 10m1s")), "{:#?}", why.steps);
    world.beat(&mut web1).await;
    world.pass(3).await;
    let page = list(&world, "").await;
    assert_eq!((page.summary["unknown"], page.summary["up"]), (1, 1));
    world.pass(176).await;
    assert_eq!(
        show(&world, &web2).await.state,
        HostState::Unknown,
        "judged after a full term of observed silence only"
    );
    world.pass(3).await;
    assert_eq!(show(&world, &web2).await.state, HostState::Down);
}

#[tokio::test]
async fn a_short_hold_off_is_named_with_its_number() {
    let world = World::new().await;
    let mut web1 = world.enrol("web1").await;
    world.beat(&mut web1).await;
    world.pass(170).await;
    world.jump(100);
    world.pass(1).await;
    let why: WhyView = world.ask("GET", &format!("/v1/hosts/{}/why", web1.id)).await.read();
    // 10 s of need are left after the gap, and the hold-off lasts 90 s.
    assert!(why.steps.iter().any(|step| step.starts_with("hold-off: 1m20s more")), "{:#?}", why.steps);
    assert_eq!(why.host.state, HostState::Unknown);
}

#[tokio::test]
async fn while_the_server_is_deaf_silence_is_unknown() {
    let world = World::new().await;
    let mut web1 = world.enrol("web1").await;
    world.beat(&mut web1).await;
    world.path.cut.store(true, std::sync::atomic::Ordering::SeqCst);
    world.pass(100).await;
    let page = list(&world, "").await;
    assert!(!page.observing);
    assert_eq!((page.summary["unknown"], page.hosts[0].state), (1, HostState::Unknown));
    world.pass(600).await;
    assert_eq!(show(&world, &web1).await.state, HostState::Unknown);
}
