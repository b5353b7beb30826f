//! Who may do what: the same answer to every stranger, and every route with exactly the scope that it says.

use hb_wire::view::{KeyList, KeyView, Scope};
use http::StatusCode;
use serde_json::{Value, json};

use crate::openapi::operations;
use crate::support::{Call, World};

const SCOPES: [Scope; 6] = [Scope::Admin, Scope::Operate, Scope::Read, Scope::Register, Scope::Ping, Scope::Metrics];

/// What each route needs; a route that is not here fails the test below.
fn needed(method: &str, path: &str) -> Option<Scope> {
    Some(match (method, path) {
        ("GET", "/v1/hosts" | "/v1/hosts/{id}" | "/v1/hosts/{id}/events" | "/v1/hosts/{id}/why" | "/v1/events") => {
            Scope::Read
        }
        ("PATCH" | "DELETE", "/v1/hosts/{id}")
        | (
            "POST",
            "/v1/hosts/{id}/pause" | "/v1/hosts/{id}/resume" | "/v1/channels/{id}/test" | "/v1/deliveries/{id}/retry",
        )
        | ("GET" | "POST", "/v1/channels")
        | ("DELETE", "/v1/channels/{id}")
        | ("GET", "/v1/deliveries") => Scope::Operate,
        ("GET" | "POST", "/v1/keys" | "/v1/tokens") | ("DELETE", "/v1/keys/{id}" | "/v1/tokens/{id}") => Scope::Admin,
        ("POST", "/v1/hosts") => Scope::Register,
        ("POST", "/v1/heartbeat" | "/v1/hearbeat") => Scope::Ping,
        ("GET", "/metrics") => Scope::Metrics,
        _ => return None,
    })
}

const OPEN: [(&str, &str); 3] = [("POST", "/v1/beat"), ("GET", "/v1/status"), ("GET", "/v1/openapi.json")];

/// Whether somebody with one scope gets past the check of a route.
fn carries(has: Scope, needs: Scope) -> bool {
    has == Scope::Admin || has == needs || (has == Scope::Operate && needs == Scope::Read)
}

fn call(method: &str, path: &str) -> Call {
    let call = Call::new(method, &path.replace("{id}", "0199c2a4-5d1e-7b3a-9f00-1234567890ab"));
    if method == "POST" || method == "PATCH" { call.raw(b"nonsense") } else { call }
}

#[tokio::test]
async fn every_route_needs_exactly_the_scope_that_its_description_says() {
    let world = World::new().await;
    let mut keys = Vec::new();
    for scope in SCOPES {
        keys.push((scope, world.api_key(&[scope]).await));
    }
    let mut cells = 0;
    for (method, path, operation) in operations() {
        let described =
            operation["security"].as_array().and_then(|ways| ways[0].get("api_key")).map(|scopes| scopes[0].clone());
        if OPEN.contains(&(method.as_str(), path.as_str())) {
            assert!(described.is_none(), "{method} {path}");
            continue;
        }
        let needs = needed(&method, &path).unwrap_or_else(|| panic!("{method} {path} has no entry in this test"));
        assert_eq!(described, Some(serde_json::to_value(needs).unwrap()), "{method} {path} is described otherwise");
        for (has, secret) in &keys {
            let answer = world.send(&call(&method, &path).key(secret)).await;
            let refused = answer.status == StatusCode::FORBIDDEN;
            assert_eq!(refused, !carries(*has, needs), "{method} {path} with {has:?}: {answer}");
            assert!(
                answer.status != StatusCode::UNAUTHORIZED || path == "/v1/hosts",
                "{method} {path} with {has:?}: {answer}"
            );
            cells += 1;
        }
    }
    assert_eq!(cells, 25 * SCOPES.len(), "as many routes as the contract has");
}

#[tokio::test]
async fn every_route_answers_every_stranger_with_the_same_words() {
    let world = World::new().await;
    let revoked = world.api_key(&[Scope::Admin]).await;
    world.ask("DELETE", &format!("/v1/keys/{}", &revoked[4..12])).await;
    let token =
        world.post("POST", "/v1/tokens", &json!({})).await.read::<Value>()["secret"].as_str().unwrap().to_owned();
    let mut guessed = hb_wire::api_key::Secret::mint(hb_wire::api_key::SecretKind::ApiKey, [9; 48]).expose().to_owned();
    // The right id with a wrong secret: what a thief of a listing has.
    let known_id = hb_wire::api_key::Secret::mint(hb_wire::api_key::SecretKind::ApiKey, [8; 48]);
    let mut typo = world.admin.clone();
    typo.pop();
    typo.push(if world.admin.ends_with('a') { 'b' } else { 'a' });
    guessed.truncate(49);
    let strangers: Vec<(&str, Option<String>)> = vec![
        ("nobody", None),
        ("a typo", Some(typo)),
        ("a guess", Some(guessed)),
        ("another guess", Some(known_id.expose().to_owned())),
        ("a revoked key", Some(revoked)),
        ("a token", Some(token)),
        ("empty", Some(String::new())),
    ];
    let before = world.digest();
    let mut first = None;
    for (method, path, _) in operations() {
        if OPEN.contains(&(method.as_str(), path.as_str())) {
            continue;
        }
        for (who, secret) in &strangers {
            if path == "/v1/hosts" && method == "POST" && *who == "a token" {
                continue; // A token is no stranger there.
            }
            let call = call(&method, &path);
            let call = secret.as_ref().map_or(call.clone(), |secret| call.clone().key(secret));
            let answer = world.send(&call).await;
            assert_eq!(answer.code(), "unauthorized", "{method} {path}, {who}: {answer}");
            assert_eq!(answer.headers["www-authenticate"], "Bearer realm=\"hb\"");
            let whole = answer.whole();
            assert_eq!(first.get_or_insert(whole.clone()), &whole, "{method} {path}, {who}");
        }
    }
    assert!(world.digest() == before);
}

#[tokio::test]
async fn a_wrong_secret_with_a_known_id_opens_nothing() {
    let world = World::new().await;
    // Two secrets with one id: as close as a forger can come who has seen a listing.
    let mut stored = [3; 48];
    let (first, second) = loop {
        let a = hb_wire::api_key::Secret::mint(hb_wire::api_key::SecretKind::ApiKey, stored);
        let forged = format!("{}{}", &a.expose()[..13], "0".repeat(30));
        let forged = format!("{forged}{}", checksum(&forged));
        if let Ok(b) = hb_wire::api_key::Secret::parse(&forged) {
            break (a, b);
        }
        stored[0] += 1;
    };
    assert_eq!(first.id(), second.id());
    let key = hb_core::access::ApiKey {
        id: first.id().to_owned(),
        hash: first.hash(),
        name: "real".to_owned(),
        scopes: [Scope::Admin].into(),
        created_at: world.now(),
        expires_at: None,
        revoked_at: None,
        last_used_at: Some(world.now()),
    };
    assert!(hb_store::Store::add_key(&world.store, &key).await.unwrap());
    for _ in 0..2 {
        let answer = world.send(&Call::new("GET", "/v1/hosts").key(second.expose())).await;
        assert_eq!(answer.code(), "unauthorized", "also once the true key is remembered");
        assert_eq!(world.send(&Call::new("GET", "/v1/hosts").key(first.expose())).await.status, StatusCode::OK);
    }
}

/// The checksum of a secret, as anybody can compute it: CRC-32 in six digits of base 62.
fn checksum(text: &str) -> String {
    const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut crc = !0_u32;
    for byte in text.bytes() {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    let mut rest = !crc;
    let mut digits = Vec::new();
    for _ in 0..6 {
        digits.push(BASE62[usize::try_from(rest % 62).unwrap()]);
        rest /= 62;
    }
    digits.reverse();
    String::from_utf8(digits).unwrap()
}

#[tokio::test]
async fn a_key_is_shown_once_listed_without_its_secret_and_ends_at_once_when_revoked() {
    let world = World::new().await;
    let request = json!({"name": "deploy", "scopes": ["read", "register"], "expires_in_s": 3600});
    let answer = world.post("POST", "/v1/keys", &request).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer}");
    let made: KeyView = answer.read();
    let secret = made.secret.unwrap();
    let listed = world.ask("GET", "/v1/keys").await;
    assert!(!String::from_utf8_lossy(&listed.body).contains(&secret[13..]), "{listed}");
    let read = Call::new("GET", "/v1/hosts").key(&secret);
    assert_eq!(world.send(&read).await.status, StatusCode::OK);
    let used = world.ask("GET", "/v1/keys").await.read::<KeyList>();
    assert!(used.keys.iter().find(|key| key.id == made.id).unwrap().last_used_at.is_some());
    assert_eq!(world.ask("DELETE", &format!("/v1/keys/{}", made.id)).await.status, StatusCode::NO_CONTENT);
    assert_eq!(world.send(&read).await.code(), "unauthorized", "effective at the next request");
    assert_eq!(
        world.ask("DELETE", &format!("/v1/keys/{}", made.id)).await.status,
        StatusCode::NO_CONTENT,
        "again: the same"
    );
    assert_eq!(world.ask("DELETE", "/v1/keys/00000000").await.code(), "not_found");
    let listed: KeyList = world.ask("GET", "/v1/keys").await.read();
    assert!(listed.keys.iter().find(|key| key.id == made.id).unwrap().revoked);
}

#[tokio::test]
async fn the_last_key_that_can_make_others_stays() {
    let world = World::new().await;
    let own = world.admin[4..12].to_owned();
    let revoke = async |id: &str| world.ask("DELETE", &format!("/v1/keys/{id}")).await;
    let admin = json!({"name": "spare", "scopes": ["admin"], "expires_in_s": 120});
    world.post("POST", "/v1/keys", &json!({"name": "no help", "scopes": ["read", "operate", "register"]})).await;
    let before = world.digest();
    assert_eq!(revoke(&own).await.code(), "conflict");
    assert!(world.digest() == before);
    let spare: KeyView = world.post("POST", "/v1/keys", &admin).await.read();
    assert_eq!(revoke(&spare.id).await.status, StatusCode::NO_CONTENT);
    assert_eq!(revoke(&own).await.code(), "conflict", "a revoked one does not count");
    world.post("POST", "/v1/keys", &admin).await;
    world.jump(121);
    assert_eq!(revoke(&own).await.code(), "conflict", "nor does one that has ended");
    world.post("POST", "/v1/keys", &admin).await;
    assert_eq!(revoke(&own).await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_key_ends_when_it_said_and_its_use_is_noted_once_a_minute() {
    let world = World::new().await;
    let made: KeyView =
        world.post("POST", "/v1/keys", &json!({"name": "short", "scopes": ["read"], "expires_in_s": 120})).await.read();
    let secret = made.secret.unwrap();
    let read = Call::new("GET", "/v1/hosts").key(&secret);
    assert_eq!(world.send(&read).await.status, StatusCode::OK);
    let noted = world.digest();
    world.jump(59);
    assert_eq!(world.send(&read).await.status, StatusCode::OK);
    assert!(world.digest() == noted, "not more than once a minute");
    world.jump(1);
    assert_eq!(world.send(&read).await.status, StatusCode::OK);
    assert!(world.digest() != noted);
    world.jump(60);
    assert_eq!(world.send(&read).await.code(), "unauthorized");
}

#[tokio::test]
async fn another_process_s_revocation_is_noticed_within_seconds() {
    let world = World::new().await;
    let secret = world.api_key(&[Scope::Read]).await;
    let read = Call::new("GET", "/v1/hosts").key(&secret);
    assert_eq!(world.send(&read).await.status, StatusCode::OK);
    assert!(hb_store::Store::revoke_key(&world.store, &secret[4..12], world.now()).await.unwrap());
    world.jump(hb_api::auth::REMEMBERED_MS / 1000);
    assert_eq!(world.send(&read).await.code(), "unauthorized");
}
