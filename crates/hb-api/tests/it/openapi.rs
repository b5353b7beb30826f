//! The description: committed, complete, and true to what handlers answer.

use std::path::PathBuf;

use hb_api::courier::Failure;
use serde_json::{Value, json};

use crate::schema::complaints;
use crate::support::{Answer, Call, World};

/// The description as it is served.
pub fn document() -> Value {
    serde_json::to_value(hb_api::http::openapi()).unwrap()
}

fn committed() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/api/openapi.json")
}

/// Every operation: method and path as in the description.
pub fn operations() -> Vec<(String, String, Value)> {
    let document = document();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            operations.push((method.to_uppercase(), path.clone(), operation.clone()));
        }
    }
    operations
}

#[test]
fn the_committed_description_is_the_one_that_is_served() {
    let served = serde_json::to_string_pretty(&document()).unwrap() + "\n";
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(committed().parent().unwrap()).unwrap();
        std::fs::write(committed(), &served).unwrap();
    }
    let found = std::fs::read_to_string(committed()).unwrap_or_default();
    assert!(found == served, "docs/api/openapi.json is out of date: UPDATE=1 cargo nextest run -p hb-api committed");
}

/// Every operation with a request that succeeds, in an order in which they do.
async fn examples(world: &World) -> Vec<(&'static str, &'static str, Answer)> {
    let mut web1 = world
        .enrol_as(&json!({"name": "web1", "tags": {"site": "ams1"}, "class": "intermittent", "max_away_s": 86400}))
        .await;
    let host = format!("/v1/hosts/{}", web1.id);
    let enrol = world.send(&World::enrolment(&world.host_key(), &json!({"name": "web2"})).key(&world.admin)).await;
    web1.seq = 1;
    let beat = json!({"boot": web1.boot, "run": web1.run, "seq": 2, "up": 5, "v": "0.1.0", "sent_at": "2026-11-23T10:00:01Z",
        "degraded": ["disk_full"], "vitals": {"load1": 0.5, "cpus": 2, "mem_used_bytes": 5, "swap": 1.5}});
    let beat = world.send(&web1.sign(beat.to_string().as_bytes())).await;
    let hook = json!({"kind": "webhook", "name": "ops", "settings": {"url": "https://hooks.example.com/x"}});
    let channel = world.post("POST", "/v1/channels", &hook).await;
    let channel_uri = format!("/v1/channels/{}", channel.read::<Value>()["id"].as_str().unwrap());
    *world.courier.broken.lock().unwrap() =
        Some(Failure { reason: "503".to_owned(), permanent: true, retry_after_ms: None });
    let test = world.ask("POST", &format!("{channel_uri}/test")).await;
    let delivery = format!("/v1/deliveries/{}/retry", test.read::<Value>()["delivery"].as_str().unwrap());
    world.pass(200).await;
    let key = world.post("POST", "/v1/keys", &json!({"name": "ci", "scopes": ["read"], "expires_in_s": 3600})).await;
    let key_uri = format!("/v1/keys/{}", key.read::<Value>()["id"].as_str().unwrap());
    let token = world.post("POST", "/v1/tokens", &json!({"uses": 3, "tags": {"site": "ams1"}})).await;
    let token_uri = format!("/v1/tokens/{}", token.read::<Value>()["id"].as_str().unwrap());
    vec![
        ("POST", "/v1/hosts", enrol),
        ("POST", "/v1/beat", beat),
        (
            "POST",
            "/v1/heartbeat",
            world.post("POST", "/v1/heartbeat", &json!({"hostId": "db1", "intervalMs": 60000})).await,
        ),
        ("POST", "/v1/hearbeat", world.post("POST", "/v1/hearbeat", &json!({"hostId": "db2"})).await),
        ("POST", "/v1/channels", channel),
        ("POST", "/v1/channels/{id}/test", test),
        ("GET", "/v1/channels", world.ask("GET", "/v1/channels").await),
        ("GET", "/v1/deliveries", world.ask("GET", "/v1/deliveries").await),
        ("GET", "/v1/hosts", world.ask("GET", "/v1/hosts?limit=1").await),
        ("GET", "/v1/hosts/{id}", world.ask("GET", &host).await),
        ("GET", "/v1/hosts/{id}/why", world.ask("GET", &format!("{host}/why")).await),
        ("GET", "/v1/hosts/{id}/events", world.ask("GET", &format!("{host}/events")).await),
        ("GET", "/v1/events", world.ask("GET", "/v1/events?limit=2").await),
        (
            "POST",
            "/v1/hosts/{id}/pause",
            world.post("POST", &format!("{host}/pause"), &json!({"for_s": 60, "reason": "x"})).await,
        ),
        ("POST", "/v1/hosts/{id}/resume", world.ask("POST", &format!("{host}/resume")).await),
        ("PATCH", "/v1/hosts/{id}", world.post("PATCH", &host, &json!({"grace_s": 60, "tags": {"site": null}})).await),
        ("POST", "/v1/deliveries/{id}/retry", world.ask("POST", &delivery).await),
        ("POST", "/v1/keys", key),
        ("GET", "/v1/keys", world.ask("GET", "/v1/keys").await),
        ("DELETE", "/v1/keys/{id}", world.ask("DELETE", &key_uri).await),
        ("POST", "/v1/tokens", token),
        ("GET", "/v1/tokens", world.ask("GET", "/v1/tokens").await),
        ("DELETE", "/v1/tokens/{id}", world.ask("DELETE", &token_uri).await),
        ("DELETE", "/v1/channels/{id}", world.ask("DELETE", &channel_uri).await),
        ("DELETE", "/v1/hosts/{id}", world.ask("DELETE", &host).await),
        ("GET", "/v1/status", world.send(&Call::new("GET", "/v1/status")).await),
        ("GET", "/v1/openapi.json", world.send(&Call::new("GET", "/v1/openapi.json")).await),
        ("GET", "/metrics", world.ask("GET", "/metrics").await),
    ]
}

#[tokio::test]
async fn every_answer_is_what_the_description_says_field_by_field() {
    let world = World::new().await;
    let document = document();
    let examples = examples(&world).await;
    for (method, path, operation) in operations() {
        let (.., answer) = examples
            .iter()
            .find(|(found, route, _)| (*found, *route) == (method.as_str(), path.as_str()))
            .unwrap_or_else(|| panic!("{method} {path} has no example in this test"));
        assert!(answer.status.is_success(), "{method} {path}: {answer}");
        let described = &operation["responses"][answer.status.as_str()];
        assert!(described.is_object(), "{method} {path} answers {}, which is not described", answer.status);
        let Some(content) = described["content"].as_object() else {
            assert!(answer.body.is_empty(), "{method} {path}: {answer}");
            continue;
        };
        let (media_type, body) = content.iter().next().unwrap();
        assert!(answer.headers["content-type"].to_str().unwrap().starts_with(media_type.as_str()), "{method} {path}");
        if media_type == "application/json" {
            let wrong = complaints(&document, &body["schema"], &answer.read(), "answer");
            assert!(wrong.is_empty(), "{method} {path}: {wrong:#?}");
        }
    }
    let refusal: Value = world.ask("GET", "/v1/hosts/nonsense").await.read();
    let wrong = complaints(&document, &json!({"$ref": "#/components/schemas/Problem"}), &refusal, "problem");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_judge_of_answers_does_judge() {
    let document = document();
    let schema = json!({"$ref": "#/components/schemas/ChannelHealth"});
    let judge = |value: Value| complaints(&document, &schema, &value, "x").len();
    assert_eq!(judge(json!({"configured": 1, "proven": 0, "undelivered": 0})), 0);
    assert_eq!(judge(json!({"configured": 1, "proven": 0})), 1);
    assert_eq!(judge(json!({"configured": "1", "proven": 0, "undelivered": 0})), 1);
    assert_eq!(judge(json!({"configured": 1, "proven": 0, "undelivered": 0, "more": 1})), 1);
    assert_eq!(judge(json!([])), 1);
}

#[test]
fn every_operation_has_an_id_of_its_own_and_describes_its_refusals() {
    let mut ids = std::collections::BTreeSet::new();
    for (method, path, operation) in operations() {
        assert!(ids.insert(operation["operationId"].to_string()), "{method} {path}: {}", operation["operationId"]);
        assert!(operation["summary"].is_string(), "{method} {path}");
        let open = ["/v1/status", "/v1/openapi.json"].contains(&path.as_str());
        assert!(open || operation["responses"]["default"].is_object(), "{method} {path}");
    }
}
