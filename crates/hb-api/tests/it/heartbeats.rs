//! Heartbeats as hosts sent them to hb-api: the same request, and a host like any other behind it.

use std::sync::Arc;

use hb_store::faulty::{Fate, Faults};
use hb_wire::view::{Enrolment, EventPage, HostPage, HostState, HostView, Notice, Scope};
use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Agent, Answer, Call, World};

/// A server with a channel and a key that may do nothing but ping.
pub struct Site {
    pub world: World,
    pub key: String,
}

impl Site {
    pub async fn new() -> Self {
        Self::on(World::new().await).await
    }

    pub async fn on(world: World) -> Self {
        let hook = json!({"kind": "webhook", "name": "ops", "settings": {"url": "https://hooks.example.com/x"}});
        assert_eq!(world.post("POST", "/v1/channels", &hook).await.status, StatusCode::CREATED);
        let key = world.api_key(&[Scope::Ping]).await;
        Self { world, key }
    }

    /// The request of hb-api's documentation: `curl -H "x-api-key: …" -d …` says that the body is a form.
    pub fn call(&self, body: &str) -> Call {
        Call::new("POST", "/v1/hearbeat")
            .raw(body.as_bytes())
            .with("content-type", "application/x-www-form-urlencoded")
            .header("x-api-key", &self.key)
    }

    pub async fn send(&self, host_id: &str, interval_ms: u64) -> Answer {
        let body = json!({"hostId": host_id, "intervalMs": interval_ms});
        self.world.send(&self.call(&body.to_string())).await
    }

    /// A heartbeat that is taken.
    pub async fn beat(&self, host_id: &str, interval_ms: u64) {
        let answer = self.send(host_id, interval_ms).await;
        assert_eq!(answer.status, StatusCode::OK, "{host_id}: {answer}");
    }

    pub async fn hosts(&self) -> Vec<HostView> {
        self.world.ask("GET", "/v1/hosts?limit=1000").await.read::<HostPage>().hosts
    }

    pub async fn host(&self, name: &str) -> HostView {
        self.hosts().await.into_iter().find(|host| host.name == name).unwrap_or_else(|| panic!("no host {name}"))
    }

    /// What people were told, in order.
    pub fn told(&self) -> Vec<Notice> {
        self.world.courier.sent().into_iter().map(|(_, _, notice)| notice).collect()
    }

    pub fn words(&self) -> Vec<String> {
        let name = |notice: &Notice| notice.host.as_ref().map(|host| host.name.clone()).unwrap_or_default();
        self.told().iter().map(|notice| format!("{} {}", name(notice), notice.event)).collect()
    }

    /// The request is refused with this code and a reason that holds `part`, and nothing was written.
    async fn refused(&self, call: &Call, code: &str, part: &str) {
        let before = self.world.digest();
        let answer = self.world.send(call).await;
        assert_eq!(answer.code(), code, "{call:?}: {answer}");
        assert!(answer.problem().detail.contains(part), "{call:?}: {answer}");
        assert!(self.world.digest() == before, "refused, but the store changed: {call:?}");
    }
}

#[tokio::test]
async fn the_documented_request_makes_a_host_and_keeps_it_alive() {
    let site = Site::new().await;
    let answer = site.world.send(&site.call(r#"{"hostId": "testHost1"}"#)).await;
    assert_eq!((answer.status, answer.read::<Value>()), (StatusCode::OK, json!({"message": "OK"})));
    assert_eq!(answer.headers["content-type"], "application/json");
    let made = site.hosts().await;
    let [host] = made.as_slice() else { panic!("{made:?}") };
    assert_eq!((host.state, host.interval_s, host.grace_s), (HostState::Up, 600, 60), "ten minutes, as there");
    assert_eq!((host.tags["via"].as_str(), host.tags["host-id"].as_str()), ("hb-api", "testHost1"));
    assert_eq!((host.agent.as_deref(), host.uptime_s), (Some("hb-api"), None), "nobody said how long it has been up");
    for _ in 0..12 {
        site.world.pass(300).await;
        assert_eq!(site.world.send(&site.call(r#"{"hostId": "testHost1"}"#)).await.status, StatusCode::OK);
    }
    assert_eq!(site.hosts().await.len(), 1);
    assert_eq!(site.host(&host.name).await.state, HostState::Up);
    assert!(site.told().is_empty(), "{:?}", site.words());
    assert_eq!(site.world.app.metrics.beats_fast.get(), 12, "one read more than a signed beat, and no other write");
}

#[tokio::test]
async fn both_spellings_both_headers_and_any_media_type_are_taken() {
    let site = Site::new().await;
    for (number, path) in ["/v1/hearbeat", "/v1/heartbeat"].into_iter().enumerate() {
        let body = json!({"hostId": format!("web{number}"), "intervalMs": 60_000});
        let call = Call::new("POST", path).json(&body);
        for call in [
            call.clone().header("x-api-key", &site.key),
            call.clone().without("content-type").header("x-api-key", &site.key),
            call.clone().key(&site.key),
        ] {
            assert_eq!(site.world.send(&call).await.status, StatusCode::OK, "{call:?}");
        }
        assert_eq!(site.world.send(&Call::new("GET", path)).await.status, StatusCode::METHOD_NOT_ALLOWED);
    }
    assert_eq!(site.hosts().await.len(), 2);
}

#[tokio::test]
async fn a_dying_and_a_returning_host_are_told_once_each() {
    let site = Site::new().await;
    site.beat("web-01", 60_000).await;
    site.world.pass(119).await;
    assert!(site.told().is_empty());
    site.world.pass(2).await;
    assert_eq!(site.words(), ["web-01 down"]);
    site.world.pass(4_000).await;
    assert_eq!(site.words(), ["web-01 down"], "and not again");
    site.beat("web-01", 60_000).await;
    site.world.pass(2).await;
    assert_eq!(site.words(), ["web-01 down", "web-01 up"]);
    site.beat("web-01", 60_000).await;
    site.world.pass(2).await;
    assert_eq!(site.words().len(), 2);
}

#[tokio::test]
async fn a_paused_host_stays_paused_and_a_resumed_one_alarms_again() {
    let site = Site::new().await;
    site.beat("web1", 60_000).await;
    let path = format!("/v1/hosts/{}", site.host("web1").await.id);
    site.world.post("POST", &format!("{path}/pause"), &json!({"reason": "move"})).await;
    site.world.pass(600).await;
    site.beat("web1", 60_000).await;
    site.beat("web1", 30_000).await;
    assert_eq!(site.host("web1").await.state, HostState::Paused);
    site.world.pass(600).await;
    assert!(site.told().is_empty(), "{:?}", site.words());
    site.world.ask("POST", &format!("{path}/resume")).await;
    site.world.pass(62).await;
    assert_eq!(site.words(), ["web1 down"]);
}

#[tokio::test]
async fn another_interval_is_taken_over_and_what_an_operator_set_stays() {
    let site = Site::new().await;
    site.beat("web1", 60_000).await;
    let path = format!("/v1/hosts/{}", site.host("web1").await.id);
    let wanted =
        json!({"name": "front", "grace_s": 300, "tags": {"via": null, "site": "ams1"}, "class": "intermittent"});
    assert_eq!(site.world.post("PATCH", &path, &wanted).await.status, StatusCode::OK);
    site.beat("web1", 60_000).await;
    let host = site.host("front").await;
    assert_eq!((host.interval_s, host.grace_s, host.class), (60, 300, hb_wire::view::Class::Intermittent));
    site.beat("web1", 20_500).await;
    let host = site.host("front").await;
    assert_eq!((host.interval_s, host.grace_s), (21, 21), "a new interval comes with its grace");
    assert_eq!(host.class, hb_wire::view::Class::Intermittent);
    assert_eq!(host.tags.into_iter().collect::<Vec<_>>(), [("site".to_owned(), "ams1".to_owned())]);
    assert_eq!(site.hosts().await.len(), 1, "a renamed host is still the one");
}

#[tokio::test]
async fn bad_bodies_are_refused_with_400_and_the_reason() {
    let site = Site::new().await;
    site.beat("web1", 60_000).await;
    for (body, part) in [
        ("", "not a JSON object"),
        ("nonsense", "not a JSON object"),
        (r#"["web1", 60000]"#, "not a JSON object"),
        ("{}", "hostId"),
        (r#"{"hostId": null}"#, "invalid type: null"),
        (r#"{"hostId": 42}"#, "expected a string"),
        (r#"{"hostId": ["web1"]}"#, "expected a string"),
        (r#"{"hostId": "web2", "intervalMs": "60000"}"#, "expected u64"),
        (r#"{"hostId": "web2", "intervalMs": 60000.5}"#, "expected u64"),
        (r#"{"hostId": "web2", "intervalMs": -1}"#, "expected u64"),
        (r#"{"hostId": "web2", "intervalMS": 60000}"#, "intervalMS is not known"),
        (r#"{"hostId": "web2"} {}"#, "trailing"),
    ] {
        site.refused(&site.call(body), "malformed", part).await;
    }
    for (body, part) in [
        (r#"{"hostId": ""}"#, "hostId: a host name is empty"),
        (r#"{"hostId": "web 2"}"#, "hostId: a host name must not hold ' '"),
        (r#"{"hostId": "../web2"}"#, "hostId: a host name must not hold '/'"),
        (r#"{"hostId": "\u202eweb2"}"#, "hostId: a host name must not hold"),
        (r#"{"hostId": "web2", "intervalMs": 999}"#, "intervalMs: 999"),
        (r#"{"hostId": "web2", "intervalMs": 2678400001}"#, "intervalMs: 2678400001"),
    ] {
        site.refused(&site.call(body), "invalid", part).await;
    }
    let long = json!({"hostId": "a".repeat(20_000)}).to_string();
    site.refused(&site.call(&long), "too_large", "16384").await;
    let query = Call { uri: "/v1/hearbeat?hostId=web2".to_owned(), ..site.call(r#"{"hostId": "web2"}"#) };
    site.refused(&query, "malformed", "query").await;
}

#[tokio::test]
async fn only_a_live_key_with_the_scope_ping_is_taken() {
    let site = Site::new().await;
    let body = r#"{"hostId": "web1"}"#;
    let with = |secret: &str| site.call(body).with("x-api-key", secret);
    let mut unknown = site.key.clone();
    unknown.replace_range(20..21, if &unknown[20..21] == "x" { "y" } else { "x" });
    site.refused(&with(&unknown), "unauthorized", "API key").await;
    site.refused(&with("SUPER_SECRET_KEY"), "unauthorized", "API key").await;
    site.refused(&site.call(body).without("x-api-key"), "unauthorized", "API key").await;
    site.refused(&site.call("nonsense").without("x-api-key"), "unauthorized", "API key").await;
    for scope in [Scope::Operate, Scope::Read, Scope::Register, Scope::Metrics] {
        let other = site.world.api_key(&[scope]).await;
        site.refused(&with(&other), "forbidden", "may not").await;
    }
    // And with the scope, nothing else can be done.
    for (method, uri) in [("GET", "/v1/hosts"), ("GET", "/v1/events"), ("GET", "/v1/keys"), ("POST", "/v1/tokens")] {
        let call = Call::new(method, uri).key(&site.key);
        assert_eq!(site.world.send(&call).await.code(), "forbidden", "{method} {uri}");
    }
    let enrolment = World::enrolment(&site.world.host_key(), &json!({"name": "web1"})).key(&site.key);
    assert_eq!(site.world.send(&enrolment).await.code(), "forbidden", "enrolment needs `register`");
    site.world.send(&with(&site.key)).await;
    site.world.ask("DELETE", &format!("/v1/keys/{}", &site.key[4..12])).await;
    site.refused(&with(&site.key), "unauthorized", "API key").await;
}

#[tokio::test]
async fn a_heartbeat_never_counts_for_the_host_of_an_agent() {
    let site = Site::new().await;
    let mut web1 = site.world.enrol("web1").await;
    site.world.beat(&mut web1).await;
    let call = site.call(r#"{"hostId": "web1", "intervalMs": 60000}"#);
    site.refused(&call, "name_taken", "nothing was changed").await;
    let by_id = json!({"hostId": web1.id, "intervalMs": 60_000}).to_string();
    assert_eq!(site.world.send(&site.call(&by_id)).await.status, StatusCode::OK);
    assert_eq!(site.hosts().await.len(), 2, "an id is a name like any other");
    for _ in 0..19 {
        site.world.pass(10).await;
        let _ = site.world.send(&call).await;
    }
    assert_eq!(site.host("web1").await.state, HostState::Down, "its agent was silent");
    site.world.beat(&mut web1).await;
    assert_eq!(site.host("web1").await.state, HostState::Up);
}

#[tokio::test]
async fn nobody_can_sign_for_a_host_that_was_made_by_its_heartbeat() {
    let site = Site::new().await;
    site.beat("web1", 60_000).await;
    let host = site.host("web1").await;
    let stored = hb_store::Store::host(&site.world.store, host.id).await.unwrap().unwrap().value;
    assert!(stored.key.vetted().is_err(), "a key that enrolment refuses");
    let mut forger = Agent {
        key: site.world.host_key(),
        id: host.id.to_string(),
        nonce: stored.life.nonce,
        boot: host.boot.unwrap(),
        run: hb_wire::id::RunId::mint(1, [1; 10]),
        seq: 10,
        pass: None,
    };
    let before = site.world.digest();
    assert_eq!(site.world.send(&forger.call()).await.code(), "bad_signature");
    let body = json!({"name": "web1", "public_key": stored.key});
    let enrolment = crate::support::sign(
        &forger.key,
        &stored.key.to_string(),
        hb_wire::nonce::Nonce::NONE,
        crate::support::AUTHORITY,
        "/v1/hosts",
        body.to_string().as_bytes(),
    );
    assert_eq!(site.world.send(&enrolment.key(&site.world.admin)).await.code(), "invalid");
    assert!(site.world.digest() == before);
}

#[tokio::test]
async fn host_ids_that_differ_are_hosts_that_differ() {
    let site = Site::new().await;
    let ids = ["web1", "Web1", "WEB1", "web-1", "größe", "GRÖßE", "日本", "東京", "db1.example.com", "1"];
    for id in ids {
        site.beat(id, 60_000).await;
    }
    let hosts = site.hosts().await;
    assert_eq!(hosts.len(), ids.len(), "{hosts:#?}");
    for id in ids {
        let told = |host: &&HostView| host.tags.get("host-id").map_or(host.name.as_str(), String::as_str) == id;
        assert_eq!(hosts.iter().filter(told).count(), 1, "{id} can be told from the rest");
    }
    let spelt = hosts.iter().find(|host| host.tags.get("host-id").is_some_and(|id| id == "WEB1")).unwrap();
    let call = site.call(&json!({"hostId": spelt.name}).to_string());
    site.refused(&call, "name_taken", &spelt.name).await;
}

#[tokio::test]
async fn a_retired_host_stays_retired_and_its_name_is_free_for_an_agent() {
    let site = Site::new().await;
    site.beat("web1", 60_000).await;
    let old = site.host("web1").await;
    assert_eq!(site.world.ask("DELETE", &format!("/v1/hosts/{}", old.id)).await.status, StatusCode::NO_CONTENT);
    let call = site.call(r#"{"hostId": "web1", "intervalMs": 60000}"#);
    site.refused(&call, "retired", "web1").await;
    let mut agent = site.world.enrol("web1").await;
    site.world.beat(&mut agent).await;
    site.refused(&call, "retired", "web1").await;
    let host = site.host("web1").await;
    assert_eq!((host.id.to_string(), host.state), (agent.id, HostState::Up));
    site.world.pass(1_000).await;
    assert_eq!(site.words(), ["web1 down"], "of the agent's host, once; the retired one is no outage");
}

#[tokio::test]
async fn more_heartbeats_than_the_interval_asks_for_are_refused_for_this_host_alone() {
    let site = Site::new().await;
    for _ in 0..6 {
        site.beat("web1", 60_000).await;
    }
    let call = site.call(r#"{"hostId": "web1", "intervalMs": 30000}"#);
    let before = site.world.digest();
    let answer = site.world.send(&call).await;
    assert_eq!((answer.code().as_str(), answer.problem().retry_after_s), ("too_many_requests", Some(11)), "{answer}");
    assert!(site.world.digest() == before, "nor is the interval taken over");
    site.beat("web2", 60_000).await;
    site.world.jump(11);
    assert_eq!(site.world.send(&call).await.status, StatusCode::OK);
    assert_eq!(site.host("web1").await.interval_s, 30);
}

#[tokio::test]
async fn a_hundred_first_heartbeats_at_once_make_one_host() {
    let site = Arc::new(Site::new().await);
    let racers: Vec<_> = (0..100)
        .map(|_| {
            let site = Arc::clone(&site);
            tokio::spawn(async move { site.send("web1", 60_000).await })
        })
        .collect();
    let mut taken = 0;
    for racer in racers {
        let answer = racer.await.unwrap();
        match answer.status {
            StatusCode::OK => taken += 1,
            _ => assert_eq!(answer.code(), "too_many_requests", "{answer}"),
        }
    }
    assert_eq!(taken, 6);
    let host = site.host("web1").await;
    assert_eq!(host.state, HostState::Up);
    let events: EventPage = site.world.ask("GET", &format!("/v1/hosts/{}/events", host.id)).await.read();
    let mut kinds: Vec<&str> = events.events.iter().map(|event| event.event.as_str()).collect();
    kinds.reverse();
    assert_eq!(kinds, ["registered", "up"]);
}

#[tokio::test]
async fn what_a_failing_store_left_undone_the_next_heartbeat_does() {
    for fate in [Fate::Overloaded, Fate::Lost, Fate::Ambiguous] {
        for (method, nth) in
            [("host_by_key", 1), ("enrol", 1), ("host_by_key", 2), ("host", 1), ("beat", 1), ("commit", 1)]
        {
            let site = Site::on(World::failing(Faults::at(method, nth, fate)).await).await;
            let answer = site.send("web1", 60_000).await;
            assert_eq!(answer.code(), "unavailable", "{method} {fate:?}: {answer}");
            assert!(answer.headers.contains_key("retry-after"));
            site.beat("web1", 60_000).await;
            let hosts = site.hosts().await;
            assert_eq!((hosts.len(), hosts[0].state), (1, HostState::Up), "{method} {fate:?}");
            site.world.pass(100).await;
            assert!(site.told().is_empty(), "{method} {fate:?}: {:?}", site.words());
        }
    }
}

#[tokio::test]
async fn what_the_server_could_not_take_accuses_nobody() {
    let site = Site::on(World::with(|settings| settings.requests_in_flight_max = 1).await).await;
    site.beat("web1", 60_000).await;
    site.world.pass(100).await;
    let place = site.world.app.in_flight.enter().unwrap();
    let answer = site.send("web1", 60_000).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "unavailable"));
    drop(place);
    assert_eq!(site.world.app.metrics.beats_shed.get(), 1);
}

#[tokio::test]
async fn a_host_that_moves_to_an_agent_is_watched_all_the_way() {
    let site = Site::new().await;
    site.beat("web1", 60_000).await;
    let old = site.host("web1").await;
    // As the migration page says: the agent first, under a name of its own; then the old one is retired, and the new one
    // takes its name.
    let mut agent = site.world.enrol("web1.agent").await;
    site.world.beat(&mut agent).await;
    site.world.ask("DELETE", &format!("/v1/hosts/{}", old.id)).await;
    let renamed = site.world.post("PATCH", &format!("/v1/hosts/{}", agent.id), &json!({"name": "web1"})).await;
    assert_eq!(renamed.status, StatusCode::OK, "{renamed}");
    let again = site.world.send(&World::enrolment(&agent.key, &json!({"name": "web1"}))).await;
    assert_eq!(again.read::<Enrolment>().id.to_string(), agent.id);
    site.world.pass(3_000).await;
    assert_eq!(site.words(), ["web1 down"]);
}
