//! Channels and deliveries.

use hb_api::courier::Failure;
use hb_wire::problem::Problem;
use hb_wire::view::{ChannelList, ChannelView, DeliveryPage, DeliveryView, HostPage, TestResult, WhyView};
use http::StatusCode;
use serde_json::{Value, json};

use crate::support::World;

const NOWHERE: &str = "0199c2a4-5d1e-7b3a-9f00-1234567890ab";

async fn webhook(world: &World, name: &str) -> ChannelView {
    let body = json!({"kind": "webhook", "name": name, "settings": {"url": "https://hooks.example.com/x"}});
    let answer = world.post("POST", "/v1/channels", &body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer}");
    answer.read()
}

#[tokio::test]
async fn a_channel_shows_its_secret_once_and_its_settings_never() {
    let world = World::new().await;
    let made = webhook(&world, "ops").await;
    assert!(made.secret.is_some() && made.admin);
    let answer = world.ask("GET", "/v1/channels").await;
    assert!(!String::from_utf8_lossy(&answer.body).contains("secret"), "{answer}");
    let listed: ChannelList = answer.read();
    assert_eq!((listed.channels.len(), listed.channels[0].target.as_str()), (1, "https://hooks.example.com/x"));
    let again = json!({"kind": "webhook", "name": "ops", "settings": {"url": "https://other.example.com/"}});
    assert_eq!(world.post("POST", "/v1/channels", &again).await.code(), "name_taken");
    assert_eq!(world.ask("DELETE", &format!("/v1/channels/{}", made.id)).await.status, StatusCode::NO_CONTENT);
    assert_eq!(world.ask("DELETE", &format!("/v1/channels/{}", made.id)).await.code(), "not_found");
}

#[tokio::test]
async fn a_test_goes_the_real_way_and_says_what_became_of_it() {
    let world = World::new().await;
    let channel = webhook(&world, "ops").await;
    webhook(&world, "others").await;
    let uri = format!("/v1/channels/{}/test", channel.id);
    let result: TestResult = world.ask("POST", &uri).await.read();
    assert!(result.delivered && result.error.is_none());
    let sent = world.courier.sent();
    assert_eq!(
        (sent.len(), sent[0].0.as_str(), sent[0].1, sent[0].2.event.as_str()),
        (1, "ops", result.delivery, "test")
    );
    *world.courier.broken.lock().unwrap() =
        Some(Failure { reason: "connection refused".to_owned(), permanent: false, retry_after_ms: None });
    let result: TestResult = world.ask("POST", &uri).await.read();
    assert_eq!((result.delivered, result.error.as_deref()), (false, Some("connection refused")));
    assert_eq!(sent[0].2.details["channel"], "ops", "history names the channel");
    assert_eq!(undelivered(&world).await, 0, "a test that failed is nobody's loss");
    assert_eq!(world.ask("POST", &format!("/v1/channels/{NOWHERE}/test")).await.code(), "not_found");
}

async fn undelivered(world: &World) -> u64 {
    world.pass(6).await;
    world.ask("GET", "/v1/hosts").await.read::<HostPage>().channels.undelivered
}

#[tokio::test]
async fn what_was_for_a_channel_that_is_gone_is_not_counted_and_says_that_nothing_is_left_to_do() {
    let world = World::new().await;
    let channel = webhook(&world, "ops").await;
    let mut web1 = world.enrol("web1").await;
    world.beat(&mut web1).await;
    *world.courier.broken.lock().unwrap() =
        Some(Failure { reason: "410 Gone".to_owned(), permanent: true, retry_after_ms: None });
    world.pass(181).await;
    assert!(undelivered(&world).await >= 1);
    let dead: DeliveryPage = world.ask("GET", "/v1/deliveries?status=dead").await.read();
    world.ask("DELETE", &format!("/v1/channels/{}", channel.id)).await;
    assert_eq!(undelivered(&world).await, 0);
    let answer = world.ask("POST", &format!("/v1/deliveries/{}/retry", dead.deliveries[0].id)).await;
    let problem: Problem = answer.read();
    assert!(problem.hint.unwrap().starts_with("nothing is left to do"));
}

#[tokio::test]
async fn no_name_for_people_holds_markup() {
    let world = World::new().await;
    let webhook =
        |name: &str| json!({"kind": "webhook", "name": name, "settings": {"url": "https://hooks.example.com/x"}});
    for name in ["<b>x</b>", "a&b", "say \"x\"", "`x`"] {
        let key = json!({"name": name, "scopes": ["read"]});
        assert_eq!(world.post("POST", "/v1/keys", &key).await.code(), "invalid", "{name}");
        assert_eq!(world.post("POST", "/v1/channels", &webhook(name)).await.code(), "invalid", "{name}");
    }
    let key = json!({"name": "anna's, after the move (Zürich)", "scopes": ["read"]});
    assert_eq!(world.post("POST", "/v1/keys", &key).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn an_alarm_is_delivered_explained_and_tried_again_when_an_operator_says_so() {
    let world = World::new().await;
    webhook(&world, "ops").await;
    let mut web1 = world.enrol("web1").await;
    world.beat(&mut web1).await;
    *world.courier.broken.lock().unwrap() =
        Some(Failure { reason: "410 Gone".to_owned(), permanent: true, retry_after_ms: None });
    world.pass(181).await;
    let dead: DeliveryPage = world.ask("GET", "/v1/deliveries?status=dead").await.read();
    // The notice that it could not be delivered could not be delivered either, and came after it.
    let [_notice, down] = dead.deliveries.as_slice() else { panic!("{dead:#?}") };
    assert_eq!(down.last_error.as_deref(), Some("410 Gone"));
    assert_eq!((down.channel_name.as_str(), down.attempts), ("ops", 1));
    let about = down.host.as_ref().map(|host| host.name.as_str());
    assert_eq!((down.kind.as_str(), about), ("down", Some("web1")));
    let page: HostPage = world.ask("GET", "/v1/hosts").await.read();
    assert_eq!((page.channels.configured, page.channels.proven), (1, 0));
    assert!(page.channels.undelivered >= 1);
    *world.courier.broken.lock().unwrap() = None;
    let retried: DeliveryView = world.ask("POST", &format!("/v1/deliveries/{}/retry", down.id)).await.read();
    assert_eq!(retried.status, "pending");
    world.pass(1).await;
    let sent = world.courier.sent();
    assert!(sent.iter().any(|(_, key, notice)| *key == down.id && notice.event == "down"), "{sent:?}");
    let why: WhyView = world.ask("GET", &format!("/v1/hosts/{}/why", web1.id)).await.read();
    let told: Vec<&str> = why.deliveries.iter().map(|delivery| delivery.status.as_str()).collect();
    assert_eq!(told, ["delivered"]);
    assert_eq!(world.ask("POST", &format!("/v1/deliveries/{}/retry", down.id)).await.code(), "conflict");
    assert_eq!(world.ask("POST", &format!("/v1/deliveries/{NOWHERE}/retry")).await.code(), "not_found");
}

#[tokio::test]
async fn deliveries_are_paged() {
    let world = World::new().await;
    let channel = webhook(&world, "ops").await;
    for _ in 0..7 {
        world.ask("POST", &format!("/v1/channels/{}/test", channel.id)).await;
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page: DeliveryPage = world.ask("GET", &format!("/v1/deliveries?limit=3{cursor}")).await.read();
        seen.extend(page.deliveries.into_iter().map(|delivery| delivery.id));
        match page.next_cursor {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let mut distinct = seen.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!((seen.len(), distinct.len()), (7, 7));
}

#[tokio::test]
async fn a_channel_is_refused_without_its_settings_being_repeated() {
    let world = World::new().await;
    let before = world.digest();
    for (body, code) in [
        (json!({"kind": "pigeon", "settings": {}}), "invalid"),
        (json!({"kind": "webhook", "settings": {"url": "ftp://hunter2"}}), "invalid"),
        (json!({"kind": "webhook", "name": "a\nb", "settings": {"url": "https://x.example/"}}), "invalid"),
        (json!({"kind": "webhook", "name": " ", "settings": {"url": "https://x.example/"}}), "invalid"),
        (json!({"kind": "webhook", "name": "x".repeat(101), "settings": {"url": "https://x.example/"}}), "invalid"),
        (json!({"kind": "webhook", "settings": {"url": "https://x.example/"}, "secret": "hunter2"}), "malformed"),
        (json!({"kind": "webhook", "admin": "hunter2", "settings": {"url": "https://x.example/"}}), "malformed"),
        (json!({"kind": "webhook"}), "malformed"),
        (Value::Null, "malformed"),
    ] {
        let answer = world.post("POST", "/v1/channels", &body).await;
        assert_eq!(answer.code(), code, "{body}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("hunter2"), "{answer}");
    }
    assert!(world.digest() == before);
}
