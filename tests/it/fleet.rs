//! A small fleet, as a server would describe it at noon (UTC) on 2026-11-23.

use hb_wire::problem::Code;
use serde_json::{Value, json};

use crate::support::{Answer, Seen, Server, key};

pub(crate) const WEB1: &str = "019aaf00-0000-7000-8000-000000000001";
pub(crate) const DB1: &str = "019aaf00-0000-7000-8000-000000000002";
pub(crate) const EVENT: &str = "019ab000-0000-7000-8000-00000000000e";
pub(crate) const CHANNEL: &str = "019ab000-0000-7000-8000-00000000000c";
pub(crate) const DELIVERY: &str = "019ab000-0000-7000-8000-00000000000d";

/// One host; `over` replaces what differs.
pub(crate) fn host(number: u8, name: &str, state: &str, over: Value) -> Value {
    let mut host = json!({
        "id": format!("019aaf00-0000-7000-8000-{number:012}"),
        "name": name,
        "state": state,
        "since": "2026-11-20T06:00:00Z",
        "marks": [],
        "last_seen": "2026-11-23T11:59:30Z",
        "deadline": "2026-11-23T12:02:30Z",
        "interval_s": 60,
        "grace_s": 120,
        "tags": {},
        "class": "server",
        "agent": "0.1.0",
        "uptime_s": 1_051_200,
        "enrolled_at": "2026-11-01T00:00:00Z",
    });
    for (name, value) in over.as_object().unwrap() {
        host[name] = value.clone();
    }
    host
}

/// Five hosts that live, and one that was retired.
pub(crate) fn hosts() -> Vec<Value> {
    vec![
        host(5, "batch", "up", json!({ "marks": ["degraded"], "reason": "disk_full" })),
        host(
            2,
            "db1",
            "down",
            json!({ "since": "2026-11-23T08:48:00Z", "last_seen": "2026-11-23T08:45:00Z", "deadline": null, "tags": { "role": "db" } }),
        ),
        host(
            4,
            "lab",
            "paused",
            json!({ "since": "2026-11-22T10:00:00Z", "last_seen": "2026-11-22T09:59:00Z", "deadline": null, "reason": "new disk", "uptime_s": null }),
        ),
        host(6, "old", "retired", json!({ "deadline": null })),
        host(
            1,
            "web1",
            "up",
            json!({
                "tags": { "role": "web", "site": "eu" },
                "vitals": { "load1": 0.42, "cpus": 4, "mem_used_bytes": 2_147_483_648_u64, "mem_total_bytes": 8_589_934_592_u64 },
            }),
        ),
        host(
            3,
            "web2",
            "late",
            json!({ "last_seen": "2026-11-23T11:58:40Z", "deadline": "2026-11-23T12:01:40Z", "tags": { "role": "web" } }),
        ),
    ]
}

/// A page of hosts, with a channel that works.
pub(crate) fn page(hosts: Vec<Value>) -> Value {
    json!({
        "observed_at": "2026-11-23T12:00:00Z",
        "observing": true,
        "summary": { "up": 2, "late": 1, "down": 1, "paused": 1, "retired": 1 },
        "channels": { "configured": 1, "proven": 1, "undelivered": 0 },
        "hosts": hosts,
    })
}

/// One event of one host.
pub(crate) fn event(kind: &str, at: &str, message: &str, over: Value) -> Value {
    let mut event = json!({
        "id": EVENT,
        "event": kind,
        "host": { "id": DB1, "name": "db1", "tags": {} },
        "at": at,
        "message": message,
        "inputs": {},
    });
    for (name, value) in over.as_object().unwrap() {
        event[name] = value.clone();
    }
    event
}

/// Two events, the newest first, as the server sends them.
pub(crate) fn events() -> Value {
    json!({ "events": [
        event("down", "2026-11-23T08:48:00Z", "db1 is down: silent for 3m", json!({ "since": "2026-11-23T08:45:00Z", "deadline": "2026-11-23T08:48:00Z" })),
        event("up", "2026-11-22T03:10:00Z", "db1 is up again", json!({ "since": "2026-11-22T03:00:00Z", "cause": "rebooted" })),
    ] })
}

/// One delivery.
pub(crate) fn delivery(status: &str, over: Value) -> Value {
    let mut delivery = json!({
        "id": DELIVERY,
        "event": EVENT,
        "kind": "down",
        "host": { "id": WEB1, "name": "web1" },
        "channel": CHANNEL,
        "channel_name": "oncall",
        "status": status,
        "attempts": 1,
        "created_at": "2026-11-23T08:48:00Z",
    });
    for (name, value) in over.as_object().unwrap() {
        delivery[name] = value.clone();
    }
    delivery
}

/// The channel of the fleet.
pub(crate) fn channel() -> Value {
    json!({
        "id": CHANNEL,
        "name": "oncall",
        "kind": "email",
        "target": "o…@example.org",
        "admin": true,
        "created_at": "2026-11-01T00:00:00Z",
        "last_delivered_at": "2026-11-23T08:48:01Z",
    })
}

/// The keys of the fleet: the one in use, and one that nothing ever used.
pub(crate) fn keys() -> Value {
    json!({ "keys": [
        { "id": own_key_id(), "name": "alice", "scopes": ["admin"], "created_at": "2026-11-01T00:00:00Z", "last_used_at": "2026-11-23T11:58:30Z" },
        { "id": "AbCd1234", "name": "grafana", "scopes": ["read", "metrics"], "created_at": "2026-11-01T00:00:00Z", "expires_at": "2026-12-01T00:00:00Z" },
    ] })
}

/// The id of the key that tests log in with.
pub(crate) fn own_key_id() -> String {
    key(1)[4..12].to_owned()
}

/// A server with this fleet.
pub(crate) fn serve() -> Server {
    Server::start(answer)
}

/// What a server with this fleet answers: enough for every command.
pub(crate) fn answer(seen: &Seen) -> Answer {
    if seen.headers.get("authorization") != Some(&format!("Bearer {}", key(1))) {
        return Answer::problem(Code::Unauthorized, "");
    }
    let host_path =
        seen.route().split_once("/v1/hosts/").map(|(method, rest)| (method.trim().to_owned(), rest.to_owned()));
    if let Some((method, rest)) = host_path {
        return host_answer(seen, &method, &rest);
    }
    match seen.route().as_str() {
        "GET /v1/hosts" => Answer::json(page(hosts().into_iter().filter(|host| fits(seen, host)).collect())),
        "GET /v1/events" => Answer::json(events()),
        "GET /v1/keys" => Answer::json(keys()),
        "POST /v1/keys" => {
            let asked = seen.json();
            Answer::status(
                201,
                json!({
                    "id": &key(2)[4..12], "name": asked["name"], "scopes": asked["scopes"], "created_at": "2026-11-23T12:00:00Z",
                    "expires_at": asked["expires_in_s"].as_u64().map(|_| "2026-12-01T00:00:00Z"), "secret": key(2),
                }),
            )
        }
        "GET /v1/tokens" => {
            let ended = |name: &str, value: Value| {
                let mut token = token();
                token["id"] = "deadbeef".into();
                token[name] = value;
                token
            };
            let over = ended("expires_at", "2026-11-23T12:00:00Z".into());
            let tokens = [token(), ended("revoked", true.into()), ended("uses_left", 0.into()), over];
            Answer::json(json!({ "tokens": tokens }))
        }
        "POST /v1/tokens" => {
            let mut token = token();
            token["tags"] = seen.json().get("tags").cloned().unwrap_or(json!({}));
            token["secret"] = json!("hbe_shown_once");
            Answer::status(201, token)
        }
        "GET /v1/channels" => Answer::json(json!({ "channels": [channel()] })),
        "POST /v1/channels" => {
            let asked = seen.json();
            let mut made = channel();
            made["kind"] = asked["kind"].clone();
            made["name"] = if asked["name"].is_null() { asked["kind"].clone() } else { asked["name"].clone() };
            if asked["kind"] == "webhook" {
                made["secret"] = json!("whsec_shown_once");
            }
            Answer::status(201, made)
        }
        "GET /v1/deliveries" => Answer::json(json!({ "deliveries": [
            delivery("pending", json!({ "attempts": 3, "next_attempt_at": "2026-11-23T12:05:00Z", "last_error": "timed out" })),
            delivery("delivered", json!({ "delivered_at": "2026-11-23T08:48:01Z" })),
        ] })),
        route if route == format!("POST /v1/channels/{CHANNEL}/test") => {
            Answer::json(json!({ "delivered": true, "took_s": 0.25, "delivery": DELIVERY }))
        }
        route if route.starts_with("DELETE ") || route.ends_with("/retry") => Answer::nothing(),
        _ => Answer::problem(Code::NotFound, "no such route"),
    }
}

fn token() -> Value {
    json!({ "id": "7bKq0xPa", "uses_left": 1, "created_at": "2026-11-23T12:00:00Z", "expires_at": "2026-11-23T13:00:00Z", "tags": {} })
}

fn fits(seen: &Seen, host: &Value) -> bool {
    let word = |name: &str| host[name].as_str().unwrap_or_default().to_owned();
    let tag = seen.query("tag").is_none_or(|tag| {
        let (name, value) = tag.split_once("%3D").unwrap_or_default();
        host["tags"][name] == value
    });
    let retired = host["state"] == "retired";
    let is_named = seen.query("name").is_some();
    let state = seen.query("state").map_or(is_named || !retired, |state| state == word("state"));
    seen.query("name").is_none_or(|name| name == word("name")) && state && tag
}

fn host_answer(seen: &Seen, method: &str, rest: &str) -> Answer {
    let (id, what) = rest.split_once('/').unwrap_or((rest, ""));
    let Some(mut host) = hosts().into_iter().find(|host| host["id"] == id) else {
        return Answer::problem(Code::NotFound, "there is no such host");
    };
    match (method, what) {
        ("GET", "") | ("POST", "resume") => Answer::json(host),
        ("PATCH", "") => {
            let asked = seen.json();
            for name in ["name", "interval_s", "grace_s", "class"] {
                if let Some(value) = asked.get(name) {
                    host[name] = value.clone();
                }
            }
            for (name, value) in asked.get("tags").and_then(Value::as_object).into_iter().flatten() {
                host["tags"][name] = value.clone();
            }
            host["tags"].as_object_mut().unwrap().retain(|_, value| !value.is_null());
            Answer::json(host)
        }
        ("DELETE", "") => Answer::nothing(),
        ("POST", "pause") => {
            let asked = seen.json();
            host["state"] = json!("paused");
            host["reason"] = asked.get("reason").cloned().unwrap_or(Value::Null);
            host["until"] = asked.get("for_s").map_or(Value::Null, |_| json!("2026-11-23T14:00:00Z"));
            Answer::json(host)
        }
        ("GET", "events") => Answer::json(events()),
        ("GET", "why") => Answer::json(json!({
            "host": host,
            "because": "no beat came for 180 s after the last one",
            "steps": ["the last beat was stored at 08:45:00", "interval 60 s and grace 120 s passed"],
            "event": event("down", "2026-11-23T08:48:00Z", "db1 is down: silent for 3m", json!({ "inputs": { "seq": 17, "credit_s": 0 } })),
            "deliveries": [
                delivery("delivered", json!({ "delivered_at": "2026-11-23T08:48:01Z" })),
                delivery("pending", json!({ "attempts": 3, "next_attempt_at": "2026-11-23T12:05:00Z", "last_error": "timed out", "channel_name": "chat" })),
            ],
        })),
        _ => Answer::problem(Code::MethodNotAllowed, ""),
    }
}
