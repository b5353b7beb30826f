//! Bad input, and what it gets: a problem document with a stable code, and no change in the store.

use hb_wire::problem::Problem;
use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Call, World};

const NOWHERE: &str = "0199c2a4-5d1e-7b3a-9f00-1234567890ab";

async fn refused(world: &World, call: &Call, code: &str) -> Problem {
    let before = world.digest();
    let answer = world.send(call).await;
    let shown = String::from_utf8_lossy(&call.body[..call.body.len().min(200)]).into_owned();
    assert_eq!(answer.code(), code, "{} {} {shown}: {answer}", call.method, call.uri);
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    assert!(world.digest() == before, "{} {} {shown}: refused, but the store changed", call.method, call.uri);
    let problem = answer.problem();
    assert_eq!(problem.kind, format!("urn:hb:problem:{code}"));
    assert!(!problem.detail.is_empty() && !problem.detail.contains(char::is_control), "{problem:?}");
    assert!(problem.detail.chars().count() <= 600, "{problem:?}");
    problem
}

#[tokio::test]
async fn a_signed_body_that_is_no_beat_is_refused() {
    let world = World::new().await;
    let mut web1 = world.enrol("web1").await;
    world.beat(&mut web1).await;
    let good = json!({"boot": web1.boot, "run": web1.run, "seq": 9, "up": 9, "v": "0.1.0"});
    let text = good.to_string();
    let with = |field: &str, value: Value| {
        let mut body = good.clone();
        body[field] = value;
        body.to_string().into_bytes()
    };
    let mut cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("not JSON", b"<beat/>".to_vec()),
        ("not UTF-8", vec![0xff, 0xfe, 0x00]),
        ("an array", b"[]".to_vec()),
        ("a null", b"null".to_vec()),
        ("no fields", b"{}".to_vec()),
        ("truncated", text.as_bytes()[..text.len() - 1].to_vec()),
        ("two documents", format!("{text}{text}").into_bytes()),
        ("a field twice", format!("{{\"seq\":1,{}", &text[1..]).into_bytes()),
        ("deeply nested", format!("{{\"x\":{}{},{}", "[".repeat(2000), "]".repeat(2000), &text[1..]).into_bytes()),
        ("boot: no UUID", with("boot", json!("web1"))),
        ("boot: a number", with("boot", json!(1))),
        ("run: no UUID", with("run", json!("../../etc/passwd"))),
        ("seq: negative", with("seq", json!(-1))),
        ("seq: a text", with("seq", json!("1"))),
        ("seq: a fraction", with("seq", json!(1.5))),
        ("seq: beyond all counting", with("seq", json!(u64::MAX))),
        ("up: negative", with("up", json!(-1))),
        ("up: longer than any machine", with("up", json!(u64::MAX))),
        ("v: too long", with("v", json!("9".repeat(33)))),
        ("v: two lines", with("v", json!("0.1\n0.2"))),
        ("v: turned around", with("v", json!("0.1\u{202e}"))),
        ("sent_at: the year 10000", with("sent_at", json!("10000-01-01T00:00:00Z"))),
        ("sent_at: a number", with("sent_at", json!(1_795_444_000))),
        ("intent: absurd", with("intent", json!({"kind": "goodbye", "reason": "reboot", "back_in_s": -5}))),
        ("intent: a text", with("intent", json!("goodbye"))),
        ("a note of two lines", with("intent", json!({"kind": "maintenance", "for_s": 60, "note": "a\nb"}))),
        (
            "a note that is too long",
            with("intent", json!({"kind": "maintenance", "for_s": 60, "note": "x".repeat(201)})),
        ),
        ("gap: negative", with("gap", json!({"failed": -1, "since_s": 1}))),
        ("degraded: a text", with("degraded", json!("disk_full"))),
        ("vitals: a list", with("vitals", json!([1, 2, 3]))),
    ];
    for (what, body) in cases.drain(..) {
        let problem = refused(&world, &web1.sign(&body), "malformed").await;
        assert!(!problem.detail.is_empty(), "{what}");
    }
    refused(&world, &web1.sign(format!("{text}{}", " ".repeat(16 * 1024)).as_bytes()), "too_large").await;
    let query = Call { uri: "/v1/beat?x=1".into(), ..web1.call() };
    refused(&world, &query, "malformed").await;
    assert_eq!(world.send(&web1.sign(text.as_bytes())).await.status, StatusCode::OK, "the good one still is");
}

#[tokio::test]
async fn a_beat_is_measured_while_it_arrives_not_by_what_it_says_of_itself() {
    let world = World::new().await;
    let mut web1 = world.enrol("web1").await;
    let good = web1.call();
    refused(&world, &good.clone().header("content-length", "10000000"), "too_large").await;
    let chunks = (0..40).map(|_| Ok::<_, std::io::Error>(bytes::Bytes::from(vec![b' '; 1000])));
    let body = axum::body::Body::from_stream(futures_util::stream::iter(chunks));
    let mut request = good.request().unwrap();
    *request.body_mut() = body;
    assert_eq!(world.send_request(request).await.code(), "too_large");
    let halves: Vec<_> =
        good.body.chunks(7).map(|part| Ok::<_, std::io::Error>(bytes::Bytes::copy_from_slice(part))).collect();
    let mut request = good.request().unwrap();
    *request.body_mut() = axum::body::Body::from_stream(futures_util::stream::iter(halves));
    assert_eq!(world.send_request(request).await.status, StatusCode::OK, "a body in small parts is whole in the end");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_given_up_after_ten_seconds() {
    let world = World::new().await;
    let mut web1 = world.enrol("web1").await;
    for call in [web1.call(), Call::new("POST", "/v1/keys").key(&world.admin).json(&json!({}))] {
        let begun = tokio::time::Instant::now();
        let mut request = call.request().unwrap();
        let first = futures_util::stream::iter([Ok::<_, std::io::Error>(bytes::Bytes::from_static(b"{"))]);
        let body = futures_util::StreamExt::chain(first, futures_util::stream::pending());
        *request.body_mut() = axum::body::Body::from_stream(body);
        let answer = world.send_request(request).await;
        assert_eq!(answer.code(), "timeout");
        assert_eq!(begun.elapsed().as_secs(), 10);
    }
}

#[tokio::test]
async fn management_requests_with_bad_values_are_refused() {
    let world = World::new().await;
    let web1 = world.enrol("web1").await;
    let host = format!("/v1/hosts/{}", web1.id);
    let pause = format!("{host}/pause");
    let tags: serde_json::Map<String, Value> = (0..17).map(|n| (format!("k{n}"), json!("v"))).collect();
    let cases: Vec<(&str, &str, Value, &str)> = vec![
        ("PATCH", &host, json!({"interval_s": 0}), "invalid"),
        ("PATCH", &host, json!({"interval_s": 99_999_999_999_u64}), "invalid"),
        ("PATCH", &host, json!({"interval_s": -1}), "malformed"),
        ("PATCH", &host, json!({"interval_s": 1e300}), "malformed"),
        ("PATCH", &host, json!({"interval_s": "60"}), "malformed"),
        ("PATCH", &host, json!({"grace_s": 0}), "invalid"),
        ("PATCH", &host, json!({"max_away_s": 0}), "invalid"),
        ("PATCH", &host, json!({"name": ""}), "invalid"),
        ("PATCH", &host, json!({"name": "web\u{200f}1"}), "invalid"),
        ("PATCH", &host, json!({"name": "web1\r\nX: y"}), "invalid"),
        ("PATCH", &host, json!({"name": "<script>"}), "invalid"),
        ("PATCH", &host, json!({"name": "x".repeat(60_000)}), "invalid"),
        ("PATCH", &host, json!({"tags": {"Site": "x"}}), "invalid"),
        ("PATCH", &host, json!({"tags": {"site": "a\u{202e}b"}}), "invalid"),
        ("PATCH", &host, json!({"tags": tags}), "invalid"),
        ("PATCH", &host, json!({"class": "toaster"}), "malformed"),
        ("PATCH", &host, json!({"owner": "me"}), "malformed"),
        ("PATCH", &host, json!([]), "malformed"),
        ("PATCH", &host, json!([null, 5]), "malformed"),
        ("PATCH", &host, json!("interval_s"), "malformed"),
        ("PATCH", &host, Value::Null, "malformed"),
        ("POST", &pause, json!({"for_s": 0}), "invalid"),
        ("POST", &pause, json!({"for_s": u64::MAX}), "invalid"),
        ("POST", &pause, json!({"reason": "x".repeat(201)}), "invalid"),
        ("POST", &pause, json!({"reason": "a\nb"}), "invalid"),
        ("POST", &pause, json!({"until": "tomorrow"}), "malformed"),
        ("POST", &pause, json!([]), "malformed"),
        ("POST", "/v1/keys", json!({"name": "", "scopes": ["read"]}), "invalid"),
        ("POST", "/v1/keys", json!({"name": "a\u{0}b", "scopes": ["read"]}), "invalid"),
        ("POST", "/v1/keys", json!({"name": "a", "scopes": []}), "invalid"),
        ("POST", "/v1/keys", json!({"name": "a", "scopes": ["root"]}), "malformed"),
        ("POST", "/v1/keys", json!({"name": "a", "scopes": ["read"], "expires_in_s": 0}), "invalid"),
        ("POST", "/v1/keys", json!({"name": "a", "scopes": ["read"], "expires_in_s": u64::MAX}), "invalid"),
        ("POST", "/v1/keys", json!({"name": "a", "scopes": ["read"], "secret": "mine"}), "malformed"),
        ("POST", "/v1/keys", json!({"name": "a"}), "malformed"),
        ("POST", "/v1/tokens", json!({"uses": 0}), "invalid"),
        ("POST", "/v1/tokens", json!({"uses": 4_000_000_000_u64}), "invalid"),
        ("POST", "/v1/tokens", json!({"uses": 5_000_000_000_u64}), "malformed"),
        ("POST", "/v1/tokens", json!({"expires_in_s": 0}), "invalid"),
        ("POST", "/v1/tokens", json!({"tags": {"": "x"}}), "invalid"),
        ("POST", "/v1/tokens", json!({"tag": {}}), "malformed"),
    ];
    for (method, uri, body, code) in &cases {
        let call = Call::new(method, uri).key(&world.admin).json(body);
        let problem = refused(&world, &call, code).await;
        if let (Some(field), "invalid") =
            (body.as_object().and_then(|fields| fields.keys().find(|f| *f != "name" && *f != "scopes")), *code)
        {
            assert!(problem.detail.starts_with(field.as_str()), "{problem:?} names {field}");
        }
    }
    let twice = Call::new("PATCH", &host).key(&world.admin).raw(br#"{"grace_s":5,"grace_s":6}"#);
    refused(&world, &twice, "malformed").await;
    let trailing = Call::new("PATCH", &host).key(&world.admin).raw(br#"{"grace_s":5} x"#);
    refused(&world, &trailing, "malformed").await;
    let unknown = Call::new("PATCH", &host).key(&world.admin).json(&json!({"tags": {}, "gracee_s": 5}));
    assert!(refused(&world, &unknown, "malformed").await.detail.contains("gracee_s"));
}

#[tokio::test]
async fn bodies_of_the_wrong_kind_or_size_are_refused() {
    let world = World::new().await;
    let web1 = world.enrol("web1").await;
    let uri = format!("/v1/hosts/{}", web1.id);
    let patch = Call::new("PATCH", &uri).key(&world.admin).json(&json!({"grace_s": 5}));
    for media_type in ["text/plain", "application/jsonx", "application/x-www-form-urlencoded", ""] {
        refused(&world, &patch.clone().with("content-type", media_type), "unsupported_media_type").await;
    }
    refused(&world, &patch.clone().without("content-type"), "unsupported_media_type").await;
    refused(&world, &patch.clone().header("content-type", "application/json"), "unsupported_media_type").await;
    let large = json!({"name": "x".repeat(64 * 1024)}).to_string();
    refused(&world, &Call::new("PATCH", &uri).key(&world.admin).raw(large.as_bytes()), "too_large").await;
    let huge = vec![b'x'; 10_000_000];
    refused(&world, &Call::new("PATCH", &uri).key(&world.admin).raw(&huge), "too_large").await;
    refused(&world, &Call::new("POST", &format!("{uri}/resume")).key(&world.admin).json(&json!({"x": 1})), "malformed")
        .await;
    refused(&world, &Call::new("DELETE", &uri).key(&world.admin).raw(&huge), "malformed").await;
    let charset = patch.with("content-type", "Application/JSON; charset=utf-8");
    assert_eq!(world.send(&charset).await.status, StatusCode::OK);
}

#[tokio::test]
async fn queries_and_paths_that_are_not_understood_are_refused() {
    let world = World::new().await;
    let web1 = world.enrol("web1").await;
    let host = format!("/v1/hosts/{}", web1.id);
    for query in [
        "/v1/hosts?limit=0",
        "/v1/hosts?limit=1001",
        "/v1/hosts?limit=-1",
        "/v1/hosts?limit=ten",
        "/v1/hosts?limit=99999999999999999999999",
        "/v1/hosts?limit=1&limit=2",
        "/v1/hosts?state=asleep",
        "/v1/hosts?state=",
        "/v1/hosts?tag=site",
        "/v1/hosts?cursor=",
        "/v1/hosts?cursor=AAAA",
        "/v1/hosts?cursor=%00",
        "/v1/hosts?page=2",
        "/v1/events?since=yesterday",
        "/v1/events?since=1795444000",
        "/v1/events?order=up",
        "/v1/events?cursor=1",
        "/v1/events?host=web1",
        "/v1/deliveries?status=lost",
        "/v1/deliveries?cursor=x",
        "/v1/keys?limit=5",
        "/v1/status?verbose=1",
        "/metrics?name=x",
    ] {
        refused(&world, &Call::new("GET", query).key(&world.admin), "malformed").await;
    }
    refused(&world, &Call::new("GET", "/v1/hosts?name=%0a").key(&world.admin), "invalid").await;
    refused(&world, &Call::new("GET", &format!("{host}?x=1")).key(&world.admin), "malformed").await;
    refused(&world, &Call::new("DELETE", &format!("{host}?force=1")).key(&world.admin), "malformed").await;
    let long = format!("/v1/hosts?{}", "tag=a=b&".repeat(70));
    refused(&world, &Call::new("GET", &long).key(&world.admin), "malformed").await;
    for path in
        ["/v1/hosts/web1", "/v1/hosts/0199", "/v1/hosts/%ff", "/v1/hosts/1%0a2/why", "/v1/hosts/..%2f..%2fetc/events"]
    {
        refused(&world, &Call::new("GET", path).key(&world.admin), "malformed").await;
    }
    for (method, path) in [
        ("GET", format!("/v1/hosts/{NOWHERE}")),
        ("DELETE", format!("/v1/hosts/{NOWHERE}")),
        ("POST", format!("/v1/hosts/{NOWHERE}/pause")),
        ("POST", format!("/v1/hosts/{NOWHERE}/resume")),
        ("GET", format!("/v1/hosts/{NOWHERE}/why")),
        ("GET", format!("/v1/hosts/{NOWHERE}/events")),
        ("DELETE", format!("/v1/channels/{NOWHERE}")),
        ("DELETE", "/v1/keys/nobody".to_owned()),
        ("DELETE", "/v1/tokens/nobody".to_owned()),
    ] {
        refused(&world, &Call::new(method, &path).key(&world.admin), "not_found").await;
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_answered_in_kind() {
    let world = World::new().await;
    for path in
        ["/", "/v1", "/v1/", "/v1/hosts/", "/v2/hosts", "/v1/hosts/x/y/z", "/favicon.ico", "/V1/hosts", "//v1/hosts"]
    {
        refused(&world, &Call::new("GET", path), "not_found").await;
    }
    for (method, path, allowed) in [
        ("GET", "/v1/beat", "POST"),
        ("PUT", "/v1/hosts", "GET,HEAD,POST"),
        ("DELETE", "/v1/hosts", "GET,HEAD,POST"),
        ("POST", "/v1/status", "GET,HEAD"),
        ("GET", "/v1/hosts/x/pause", "POST"),
        ("OPTIONS", "/v1/keys", "GET,HEAD,POST"),
        ("TRACE", "/v1/keys/x", "DELETE"),
        ("BREW", "/v1/events", "GET,HEAD"),
    ] {
        let call = Call::new(method, path);
        refused(&world, &call, "method_not_allowed").await;
        let answer = world.send(&call).await;
        let mut found: Vec<&str> = answer.headers["allow"].to_str().unwrap().split(',').collect();
        found.sort_unstable();
        assert_eq!(found.join(","), allowed, "{method} {path}");
    }
}
