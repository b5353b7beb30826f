//! What strangers and replays cost.

use hb_wire::key::HostKey;
use hb_wire::nonce::Nonce;
use hb_wire::signature::{self, Message, Params};
use serde_json::{Value, json};

use crate::cloud::Cloud;

fn units(cloud: &mut Cloud, function: &str) -> Value {
    cloud.order(&json!({"do": "units"}))["units"][function].clone()
}

fn beat(cloud: &mut Cloud, headers: &Value, body: &str) -> u64 {
    let event = json!({
        "version": "2.0", "rawPath": "/v1/beat", "rawQueryString": "", "headers": headers,
        "requestContext": {"domainName": "hb.example.org", "http": {"method": "POST"}}, "body": body, "isBase64Encoded": false,
    });
    let answer = cloud.order(&json!({"do": "invoke", "function": "ingest", "event": event}));
    answer["answer"]["statusCode"].as_u64().unwrap_or_else(|| panic!("{answer}"))
}

#[test]
fn forged_beats_of_made_up_hosts_reach_no_table() {
    let mut cloud = Cloud::start(3600.0, &[]);
    let body = r#"{"boot":"01a209b5-2a41-7000-8000-000000000000","seq":1,"up":1,"v":"1"}"#;
    // All of it is as it should be: only the id was made up.
    let key = HostKey::from_seed([7; 32]);
    let message = Message { method: "POST", authority: "hb.example.org", path: "/v1/beat", body: body.as_bytes() };
    // What the function reads as it starts is no part of it; it answers once that is done.
    assert_eq!(beat(&mut cloud, &json!({}), body), 401);
    let before = units(&mut cloud, "ingest");
    for n in 0..50 {
        let keyid = format!("01a209b5-2a41-7000-8000-0000000000{n:02}");
        let signed = signature::sign(&key, &message, &Params { created: 1_795_444_000, nonce: Nonce([n; 16]), keyid });
        let headers = json!({
            "content-type": "application/json", "content-digest": signed.content_digest,
            "signature-input": signed.signature_input, "signature": signed.signature,
        });
        assert_eq!(beat(&mut cloud, &headers, body), 401);
    }
    for (headers, body) in [(json!({}), body), (json!({"content-digest": "x"}), "{}"), (json!({}), "")] {
        let status = beat(&mut cloud, &headers, body);
        assert!((400..500).contains(&status), "{status}");
    }
    assert_eq!(units(&mut cloud, "ingest"), before, "no unit was consumed");
    cloud.nothing_went_wrong();
}
