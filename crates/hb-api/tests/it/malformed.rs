//! Ten thousand requests that no client would send, from a seeded grammar: each is refused, and none changes anything.

use hb_wire::problem::Code;
use serde_json::{Value, json};

use crate::support::{Agent, Call, Seeded, World};

const REQUESTS: usize = 10_000;
const IDS: [&str; 6] = ["%00", "web1", "0199c2a4-5d1e-7b3a-9f00-1234567890ab", "..%2f..", "%F0%9F%A6%80", "0199C2A4"];
/// Values that are wrong for every field that takes them.
const WRONG: [&str; 10] = [
    "-1",
    "1.5",
    "1e999",
    "true",
    "[[[[]]]]",
    "{\"a\":{\"b\":null}}",
    "\"\\u0000\"",
    "[null]",
    "-9223372036854775809",
    "{\"x\":1",
];

/// A request that is wrong in at least one way.
fn request(random: &Seeded, agent: &mut Agent, admin: &str) -> Call {
    match random.below(6) {
        0 => broken_beat(random, agent),
        1 => wrong_field(random, agent, admin),
        2 => wrong_query(random, admin),
        3 => wrong_path(random),
        4 => wrong_key(random, admin),
        _ => noise(random, agent, admin),
    }
}

/// A good beat in which one byte of the body or of a signed header is another one.
fn broken_beat(random: &Seeded, agent: &mut Agent) -> Call {
    let mut call = agent.call();
    let place = random.below(4);
    if place == 3 {
        let at = random.below(call.body.len());
        call.body[at] ^= 1 << random.below(8);
        return call;
    }
    let name = ["content-digest", "signature-input", "signature"][place];
    let header = call.headers.iter_mut().find(|(found, _)| found == name).unwrap();
    let mut bytes = header.1.clone().into_bytes();
    let at = random.below(bytes.len());
    let other = b"!\"'(),-./0:;=ABCXYZ_abcxyz~"[random.below(27)];
    bytes[at] = if bytes[at] == other { b'#' } else { other };
    header.1 = String::from_utf8(bytes).unwrap();
    call
}

fn wrong_field(random: &Seeded, agent: &Agent, admin: &str) -> Call {
    let host = format!("/v1/hosts/{}", agent.id);
    let pause = format!("{host}/pause");
    let routes: [(&str, &str, &[&str]); 6] = [
        ("PATCH", &host, &["name", "interval_s", "grace_s", "class", "max_away_s", "colour"]),
        ("POST", &pause, &["for_s", "reason", "until"]),
        ("POST", "/v1/keys", &["name", "scopes", "expires_in_s", "id"]),
        ("POST", "/v1/heartbeat", &["hostId", "intervalMs", "colour"]),
        ("POST", "/v1/tokens", &["uses", "expires_in_s", "secret"]),
        ("POST", "/v1/channels", &["name", "kind", "admin", "colour"]),
    ];
    let (method, uri, fields) = routes[random.below(routes.len())];
    let field = fields[random.below(fields.len())];
    let value = WRONG[random.below(WRONG.len())];
    Call::new(method, uri).key(admin).raw(format!("{{\"{field}\":{value}}}").as_bytes())
}

fn wrong_query(random: &Seeded, admin: &str) -> Call {
    let route = ["/v1/hosts", "/v1/events", "/v1/deliveries"][random.below(3)];
    let value = IDS[random.below(IDS.len())];
    let wrong = ["limit", "cursor", "since ", "LIMIT", "offset", "%ff"][random.below(6)];
    Call::new("GET", &format!("{route}?{}={value}", wrong.trim())).key(admin)
}

fn wrong_path(random: &Seeded) -> Call {
    let method = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD2", "OPTIONS"][random.below(7)];
    if random.below(3) == 0 {
        let known = [
            "/v1/beat",
            "/v1/hearbeat",
            "/v1/keys/x",
            "/v1/hosts/x/pause",
            "/v1/channels/x/test",
            "/v1/deliveries/x/retry",
        ];
        return Call::new(["PUT", "PATCH", "GET2", "OPTIONS"][random.below(4)], known[random.below(known.len())]);
    }
    let mut path = String::new();
    for _ in 0..=random.below(5) {
        path.push('/');
        path.push_str(["v1", "hosts", "beat", "v2", "keys", "%2e%2e", "why", "retry"][random.below(8)]);
    }
    Call::new(method, &format!("{path}/{}", IDS[random.below(IDS.len())])).raw(b"{}")
}

fn wrong_key(random: &Seeded, admin: &str) -> Call {
    let mut key = admin.to_owned().into_bytes();
    let at = random.below(key.len());
    key[at] = if key[at] == b'x' { b'y' } else { b'x' };
    let key = String::from_utf8(key).unwrap();
    let route = ["/v1/hosts", "/v1/keys", "/v1/events", "/metrics", "/v1/channels"][random.below(5)];
    match random.below(3) {
        0 => Call::new("GET", route).key(&key),
        1 => Call::new("GET", route).header("x-api-key", &key),
        _ => Call::new("GET", route).key(&key).header("x-api-key", admin),
    }
}

/// Bytes that are no JSON object, wherever a body is taken.
fn noise(random: &Seeded, agent: &Agent, admin: &str) -> Call {
    let mut body: Vec<u8> = (0..random.below(300)).map(|_| u8::try_from(random.below(256)).unwrap()).collect();
    body.insert(0, b'\\');
    match random.below(4) {
        0 => agent.sign(&body),
        1 => Call::new("POST", "/v1/beat").raw(&body),
        2 => Call::new("POST", "/v1/hosts").key(admin).raw(&body),
        _ => Call::new("PATCH", &format!("/v1/hosts/{}", agent.id)).key(admin).raw(&body),
    }
}

#[tokio::test]
async fn ten_thousand_malformed_requests_are_refused_and_change_nothing() {
    let world = World::new().await;
    let mut web1 = world.enrol("web1").await;
    world.beat(&mut web1).await;
    let random = Seeded::new(4711);
    let before = world.digest();
    let mut codes = std::collections::BTreeMap::<String, usize>::new();
    let mut sent = 0;
    while sent < REQUESTS {
        let call = request(&random, &mut web1, &world.admin);
        // What no HTTP library would let out of the door is no request.
        let Some(request) = call.request() else { continue };
        sent += 1;
        let answer = world.send_request(request).await;
        assert!(answer.status.is_client_error(), "{call:?}: {answer}");
        if call.method != http::Method::HEAD {
            let problem = answer.problem();
            assert!(problem.code != Code::Unknown && problem.code != Code::Internal, "{call:?}: {answer}");
            *codes.entry(problem.code.to_string()).or_default() += 1;
        }
    }
    assert!(world.digest() == before, "the store changed");
    for code in ["malformed", "bad_signature", "unauthorized", "not_found", "method_not_allowed"] {
        assert!(codes.get(code).is_some_and(|count| *count > 50), "the grammar misses {code}: {codes:?}");
    }
    world.beat(&mut web1).await;
    let page: Value = world.ask("GET", "/v1/hosts").await.read();
    assert_eq!(page["summary"]["up"], json!(1));
}
