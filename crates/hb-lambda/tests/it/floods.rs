//! What strangers and replays cost.

use hb_wire::beat::BeatAnswer;
use hb_wire::key::HostKey;
use hb_wire::nonce::Nonce;
use hb_wire::signature::{self, Message, Params};
use hb_wire::view::Enrolment;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cloud::Cloud;
use crate::cost::{KEY_UNITS, REPLAY_UNITS};

const AUTHORITY: &str = "hb.example.org";
/// How often each is sent.
const FLOOD: u32 = 50;

fn units(cloud: &mut Cloud, function: &str) -> Value {
    cloud.order(&json!({"do": "units"}))["units"][function].clone()
}

/// Units that `ingest` has read and written so far.
fn spent(cloud: &mut Cloud) -> (f64, f64) {
    let (mut read, mut written) = (0.0, 0.0);
    for (operation, units) in units(cloud, "ingest").as_object().unwrap() {
        let is_read = ["GetItem", "BatchGetItem", "Query"].contains(&operation.as_str());
        *if is_read { &mut read } else { &mut written } += units.as_f64().unwrap();
    }
    (read, written)
}

/// A request to a function: the status and the body of the answer.
fn call(cloud: &mut Cloud, function: &str, path: &str, headers: &Value, body: &str) -> (u64, String) {
    let event = json!({
        "version": "2.0", "rawPath": path, "rawQueryString": "", "headers": headers,
        "requestContext": {"domainName": AUTHORITY, "http": {"method": "POST"}}, "body": body, "isBase64Encoded": false,
    });
    let answer = cloud.order(&json!({"do": "invoke", "function": function, "event": event}));
    let status = answer["answer"]["statusCode"].as_u64().unwrap_or_else(|| panic!("{answer}"));
    (status, answer["answer"]["body"].as_str().unwrap_or_default().to_owned())
}

fn beat(cloud: &mut Cloud, headers: &Value, body: &str) -> u64 {
    call(cloud, "ingest", "/v1/beat", headers, body).0
}

fn read<T: DeserializeOwned>((status, body): &(u64, String)) -> T {
    assert!((200..300).contains(status), "{status} {body}");
    serde_json::from_str(body).unwrap()
}

fn signed(key: &HostKey, keyid: &str, nonce: Nonce, path: &str, body: &str) -> Value {
    let message = Message { method: "POST", authority: AUTHORITY, path, body: body.as_bytes() };
    let signed = signature::sign(key, &message, &Params { created: 1_795_444_000, nonce, keyid: keyid.to_owned() });
    json!({
        "content-type": "application/json", "content-digest": signed.content_digest,
        "signature-input": signed.signature_input, "signature": signed.signature,
    })
}

fn body(seq: u64) -> String {
    let boot = "01a209b5-2a41-7000-8000-000000000000";
    json!({"boot": boot, "run": boot, "seq": seq, "up": seq, "v": "1"}).to_string()
}

#[test]
fn forged_and_repeated_beats_of_a_real_host_cost_what_is_said_and_mute_nobody() {
    let mut cloud = Cloud::start(3600.0, &[]);
    let key = HostKey::from_seed([8; 32]);
    let public = key.public().to_string();
    let wish = json!({"name": "web-01", "public_key": public, "interval_s": 60, "grace_s": 60}).to_string();
    let mut headers = signed(&key, &public, Nonce::NONE, "/v1/hosts", &wish);
    headers["authorization"] = format!("Bearer {}", cloud.part("key")).into();
    let enrolled: Enrolment = read(&call(&mut cloud, "api", "/v1/hosts", &headers, &wish));
    let (id, mut nonce) = (enrolled.id.to_string(), enrolled.next.parse::<Nonce>().unwrap());
    let (mut last, mut pass) = (json!({}), None);
    for seq in 1..=2 {
        last = signed(&key, &id, nonce, "/v1/beat", &body(seq));
        let answer: BeatAnswer = read(&call(&mut cloud, "ingest", "/v1/beat", &last, &body(seq)));
        nonce = answer.next.parse().unwrap();
        pass = answer.pass.or(pass);
    }

    let forged = signed(&HostKey::from_seed([9; 32]), &id, nonce, "/v1/beat", &body(3));
    assert_eq!(beat(&mut cloud, &forged, &body(3)), 401);
    let before = spent(&mut cloud);
    for _ in 0..FLOOD {
        assert_eq!(beat(&mut cloud, &forged, &body(3)), 401);
    }
    assert_eq!(spent(&mut cloud), before, "the key is in memory");

    for _ in 0..FLOOD {
        assert_eq!(beat(&mut cloud, &last, &body(2)), 409);
    }
    let after = spent(&mut cloud);
    let (reads, writes) = ((after.0 - before.0) / f64::from(FLOOD), (after.1 - before.1) / f64::from(FLOOD));
    println!("a repeated beat: {reads} read units, {writes} write units");
    // The write's own condition refuses it; what that costs, one unit, only AWS counts.
    assert!(writes < 0.01 && reads <= REPLAY_UNITS, "{reads} read units, {writes} write units");

    // The host itself has lost nothing: neither its nonce nor its share of beats.
    let mut status = 200;
    let mut seq = 3;
    while status == 200 && seq < 100 {
        let honest = signed(&key, &id, nonce, "/v1/beat", &body(seq));
        let before = spent(&mut cloud);
        let answer = call(&mut cloud, "ingest", "/v1/beat", &honest, &body(seq));
        status = answer.0;
        let after = spent(&mut cloud);
        if status == 200 {
            nonce = read::<BeatAnswer>(&answer).next.parse().unwrap();
            assert!((after.1 - before.1 - 1.0).abs() < 0.01, "beat {seq}: {before:?} {after:?}");
            seq += 1;
        } else {
            assert_eq!(status, 429, "{}", answer.1);
            assert!((after.1 - before.1).abs() < 0.01, "a beat too many writes nothing: {before:?} {after:?}");
        }
    }
    assert!((6..20).contains(&seq), "its share: {seq} beats");

    // Wherever else it beats, too: what it brings along saves an environment that has never met it the read of its key.
    for (with_pass, reads) in [(true, 0.0), (false, KEY_UNITS)] {
        cloud.order(&json!({"do": "renew", "function": "ingest"}));
        // What the function reads as it starts is no part of it.
        assert_eq!(beat(&mut cloud, &json!({}), &body(seq)), 401);
        let mut text: Value = serde_json::from_str(&body(seq)).unwrap();
        if with_pass {
            text["pass"] = json!(pass);
        }
        let text = text.to_string();
        let before = spent(&mut cloud);
        let answer = call(&mut cloud, "ingest", "/v1/beat", &signed(&key, &id, nonce, "/v1/beat", &text), &text);
        let answer: BeatAnswer = read(&answer);
        let after = spent(&mut cloud);
        assert!((after.0 - before.0 - reads).abs() < 0.01, "with a pass: {with_pass}: {before:?} {after:?}");
        assert!((after.1 - before.1 - 1.0).abs() < 0.01, "{before:?} {after:?}");
        assert_eq!(answer.pass.is_some(), !with_pass);
        nonce = answer.next.parse().unwrap();
        seq += 1;
    }
    cloud.nothing_went_wrong();
}

#[test]
fn forged_beats_of_made_up_hosts_reach_no_table() {
    let mut cloud = Cloud::start(3600.0, &[]);
    let body = &body(1);
    // All of it is as it should be: only the id was made up.
    let key = HostKey::from_seed([7; 32]);
    // What the function reads as it starts is no part of it; it answers once that is done.
    assert_eq!(beat(&mut cloud, &json!({}), body), 401);
    let before = units(&mut cloud, "ingest");
    for n in 0..50 {
        let keyid = format!("01a209b5-2a41-7000-8000-0000000000{n:02}");
        let headers = signed(&key, &keyid, Nonce([n; 16]), "/v1/beat", body);
        assert_eq!(beat(&mut cloud, &headers, body), 401);
    }
    for (headers, body) in [(json!({}), body.as_str()), (json!({"content-digest": "x"}), "{}"), (json!({}), "")] {
        let status = beat(&mut cloud, &headers, body);
        assert!((400..500).contains(&status), "{status}");
    }
    assert_eq!(units(&mut cloud, "ingest"), before, "no unit was consumed");
    cloud.nothing_went_wrong();
}
