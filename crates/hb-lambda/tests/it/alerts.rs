//! From the beat to the alert, and back.

use std::io::BufReader;
use std::net::TcpListener;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cloud::Cloud;
use crate::http;

/// A receiver of webhooks on loopback: its URL, and what arrives: the `Idempotency-Key` and the body.
fn webhook() -> (String, Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut headers, body) = http::request(&mut BufReader::new(stream.try_clone().unwrap())).unwrap();
            http::answer(&mut stream, "");
            let key = headers.remove("idempotency-key").unwrap_or_default();
            if sender.send((key, serde_json::from_slice(&body).unwrap())).is_err() {
                return;
            }
        }
    });
    (url, receiver)
}

#[test]
fn a_host_beats_dies_is_reported_once_and_comes_back_over_the_real_functions() {
    let mut cloud = Cloud::start(2.0, &[]);
    let host = cloud.machine();
    let added = host.json(&["channels", "add", "email", "--to", "ops@example.org"]);
    assert_eq!(added["target"], "ops@example.org");
    host.enrol("web-01", "1s", "5s");
    let agent = host.agent();
    host.await_state("web-01", "up");
    // The canary is a host, and beats.
    host.await_state("hb-sweeper-eu-central-1", "up");
    // What the sweeper saw is read again after five seconds.
    let begun = Instant::now();
    while cloud.get("api", "/v1/status")["status"] != "ok" {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", cloud.get("api", "/v1/status"));
        std::thread::sleep(Duration::from_millis(500));
    }

    drop(agent);
    let told = cloud.await_alert("web-01");
    let down: Vec<_> = told.iter().filter(|text| text.contains("web-01")).collect();
    assert_eq!(down.len(), 1, "{told:?}");
    assert!(down[0].to_lowercase().contains("down"), "{told:?}");
    host.await_state("web-01", "down");

    let _agent = host.agent();
    let told = cloud.await_alert("web-01");
    assert!(
        told.iter().all(|text| !text.contains("web-01") || text.contains("up") || text.contains("back")),
        "{told:?}"
    );
    host.await_state("web-01", "up");
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(cloud.alerts(), Vec::<String>::new(), "told once");
    cloud.nothing_went_wrong();
}

#[test]
fn an_outage_that_sns_did_not_take_is_told_with_its_end_when_sns_works_again() {
    let mut cloud = Cloud::start(2.0, &[]);
    let host = cloud.machine();
    host.run(&["channels", "add", "email", "--to", "ops@example.org"]);
    host.enrol("web-03", "1s", "5s");
    let agent = host.agent();
    host.await_state("web-03", "up");
    cloud.order(&json!({"do": "sns", "on": false}));
    drop(agent);
    host.await_state("web-03", "down");
    // At least once it is tried in vain.
    let begun = Instant::now();
    let tried = |delivery: &Value| delivery["attempts"].as_u64().is_some_and(|attempts| attempts > 0);
    while !host.json(&["deliveries"])["deliveries"].as_array().unwrap().iter().any(tried) {
        assert!(begun.elapsed() < Duration::from_secs(30), "{}", host.json(&["deliveries"]));
        std::thread::sleep(Duration::from_millis(500));
    }
    let _agent = host.agent();
    host.await_state("web-03", "up");
    assert_eq!(cloud.alerts(), [""; 0]);
    cloud.order(&json!({"do": "sns", "on": true}));
    // In one message: what began and ended untold is told at once.
    let told = cloud.await_alert("web-03");
    let about: Vec<_> = told.iter().filter(|text| text.contains("web-03")).collect();
    assert_eq!(about.len(), 1, "{told:?}");
    assert!(about[0].starts_with("web-03 is back: down for "), "{told:?}");
    let unsettled = |delivery: &Value| delivery["status"] == "pending";
    assert!(!host.json(&["deliveries"])["deliveries"].as_array().unwrap().iter().any(unsettled));
    cloud.nothing_went_wrong();
}

#[test]
fn without_a_sweeper_the_time_to_live_brings_the_alert() {
    let mut cloud = Cloud::start(1.0, &[]);
    let host = cloud.machine();
    host.run(&["channels", "add", "email", "--to", "ops@example.org"]);
    let (url, hooks) = webhook();
    host.run(&["channels", "add", "webhook", "--url", &url]);
    host.enrol("web-02", "1s", "5s");
    let agent = host.agent();
    host.await_state("hb-sweeper-eu-central-1", "up");
    host.await_state("web-02", "up");
    cloud.order(&json!({"do": "schedule", "on": false}));
    drop(agent);
    // Its deadline passes, and nobody sweeps.
    std::thread::sleep(Duration::from_secs(8));
    let begun = Instant::now();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    // Only DynamoDB's clock runs ahead: an hour after the deadline it removes the slim item.
    let removed = cloud.order(&json!({"do": "clock", "s": now + 3700}));
    assert!(removed["removed"].as_u64().unwrap() >= 1, "{removed}");
    let told = cloud.await_alert("web-02");
    println!("alert {:.1} s after the removal", begun.elapsed().as_secs_f64());
    assert_eq!(told.iter().filter(|text| text.contains("web-02")).count(), 1, "{told:?}");
    host.await_state("web-02", "down");
    let (key, notice) = hooks.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!((notice["event"].as_str(), notice["host"]["name"].as_str()), (Some("down"), Some("web-02")), "{notice}");
    let deliveries = host.json(&["deliveries"]);
    let known = |delivery: &Value| delivery["id"] == key && delivery["status"] == "delivered";
    assert!(deliveries["deliveries"].as_array().unwrap().iter().any(known), "{key}: {deliveries}");
    // The sweeper is back: it has nothing to add.
    cloud.order(&json!({"do": "minute"}));
    cloud.order(&json!({"do": "minute"}));
    let more = cloud.alerts();
    assert!(more.iter().all(|text| !text.contains("web-02")), "{more:?}");
    let again: Vec<(String, Value)> =
        hooks.try_iter().filter(|(_, notice)| notice["host"]["name"] == "web-02").collect();
    assert_eq!(again, [], "and under one key");
    cloud.nothing_went_wrong();
}

#[test]
fn the_heartbeats_of_hb_api_are_taken_by_the_api_function() {
    let mut cloud = Cloud::start(2.0, &[]);
    let operator = cloud.machine();
    operator.run(&["channels", "add", "email", "--to", "ops@example.org"]);
    let key = operator.json(&["keys", "create", "--name", "cron", "--scope", "ping"]);
    let event = json!({
        "rawPath": "/v1/hearbeat", "headers": {"x-api-key": key["secret"]},
        "requestContext": {"domainName": "api.example.org", "http": {"method": "POST"}},
        "body": "{\"hostId\": \"WEB1\", \"intervalMs\": 2000}",
    });
    let beat = |cloud: &mut Cloud| {
        let answer = cloud.order(&json!({"do": "invoke", "function": "api", "event": event}));
        assert_eq!(answer["answer"]["statusCode"], 200, "{answer}");
    };
    beat(&mut cloud);
    std::thread::sleep(Duration::from_secs(1));
    beat(&mut cloud);
    assert_eq!(cloud.await_alert("web1").len(), 1, "silent since");
    beat(&mut cloud);
    cloud.await_alert("web1");
    // Of DynamoDB's operations only those that read, however often it is asked.
    let units = |cloud: &mut Cloud| cloud.order(&json!({"do": "units"}))["units"]["api"].clone();
    let before = units(&mut cloud);
    for _ in 0..3 {
        cloud.get("api", "/v1/status");
    }
    let after = units(&mut cloud);
    for (operation, sum) in after.as_object().unwrap() {
        assert!(
            ["GetItem", "Query", "BatchGetItem"].contains(&operation.as_str()) || before[operation] == *sum,
            "{operation}"
        );
    }
    cloud.nothing_went_wrong();
}

#[test]
fn an_event_of_another_shape_is_reported_and_put_aside_and_holds_nothing_up() {
    let mut cloud = Cloud::start(3600.0, &[]);
    for (function, event) in [
        ("notifier", json!({"hb": "delete"})),
        ("notifier", json!({"Records": [{"eventName": "INSERT"}]})),
        ("ingest", json!({"Records": []})),
        ("api", json!({"hb": "create-admin-key"})),
        ("api", json!({"rawPath": "/v1/status"})),
    ] {
        let answer = cloud.order(&json!({"do": "invoke", "function": function, "event": event}));
        assert!(answer["error"].as_str().is_some_and(|error| error.contains(function)), "{function}: {answer}");
    }
    // A record that can be named is one that Lambda begins again at, and gives up in the end.
    let poison = json!({"eventName": "TRUNCATE", "dynamodb": {"SequenceNumber": "42", "Keys": {"p": {"S": "U#all"}}}});
    let event = json!({"Records": [poison]});
    let answer = cloud.order(&json!({"do": "invoke", "function": "notifier", "event": event}));
    assert_eq!(answer["answer"], json!({"batchItemFailures": [{"itemIdentifier": "42"}]}));
    let host = cloud.machine();
    assert_eq!(host.json(&["channels", "list"])["channels"], json!([]), "the functions go on");
}
