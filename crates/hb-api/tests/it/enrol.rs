//! Enrolment: who may, once, and what a repeated request gets.

use std::sync::Arc;

use hb_core::time::Time;
use hb_wire::key::HostKey;
use hb_wire::nonce::Nonce;
use hb_wire::view::{Class, Enrolment, HostPage, HostView, Scope, TokenList, TokenView};
use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{AUTHORITY, Answer, Call, World, sign};

async fn token(world: &World, body: &Value) -> TokenView {
    let answer = world.post("POST", "/v1/tokens", body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer}");
    answer.read()
}

async fn enrol(world: &World, key: &HostKey, body: &Value, credential: Option<&str>) -> Answer {
    let call = World::enrolment(key, body);
    world.send(&credential.map_or_else(|| call.clone(), |secret| call.clone().key(secret))).await
}

async fn hosts(world: &World) -> Vec<HostView> {
    world.ask("GET", "/v1/hosts").await.read::<HostPage>().hosts
}

#[tokio::test]
async fn defaults_and_wishes_are_taken_within_bounds() {
    let world = World::new().await;
    let plain = world.enrol("plain").await;
    let wished = world
        .enrol_as(&json!({"name": "Wished.Example", "interval_s": 10, "grace_s": 5, "tags": {"site": "ams1"},
            "class": "intermittent", "max_away_s": 86400}))
        .await;
    let found = hosts(&world).await;
    let plain = found.iter().find(|host| host.id.to_string() == plain.id).unwrap();
    assert_eq!((plain.interval_s, plain.grace_s, plain.class), (60, 120, Class::Server));
    let wished = found.iter().find(|host| host.id.to_string() == wished.id).unwrap();
    assert_eq!((wished.interval_s, wished.grace_s, wished.class), (10, 5, Class::Intermittent));
    assert_eq!((wished.name.as_str(), wished.tags["site"].as_str()), ("wished.example", "ams1"));
    let short = world.enrol_as(&json!({"name": "short", "interval_s": 1})).await;
    let short: HostView = world.ask("GET", &format!("/v1/hosts/{}", short.id)).await.read();
    assert_eq!(short.grace_s, 2, "grace is twice the interval by default");
}

#[tokio::test]
async fn a_token_enrols_as_often_as_it_says_and_gives_its_labels() {
    let world = World::new().await;
    let token = token(&world, &json!({"uses": 2, "tags": {"site": "ams1", "role": "web"}})).await;
    let secret = token.secret.unwrap();
    for name in ["web1", "web2"] {
        let answer = enrol(
            &world,
            &world.host_key(),
            &json!({"name": name, "tags": {"role": "db", "rack": "7"}}),
            Some(&secret),
        )
        .await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer}");
    }
    for host in hosts(&world).await {
        let tags: Vec<(&str, &str)> = host.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(tags, [("rack", "7"), ("role", "web"), ("site", "ams1")], "the token's labels win");
    }
    let before = world.digest();
    let third = enrol(&world, &world.host_key(), &json!({"name": "web3"}), Some(&secret)).await;
    assert_eq!(third.code(), "unauthorized");
    assert!(world.digest() == before);
    assert!(world.ask("GET", "/v1/tokens").await.read::<TokenList>().tokens.is_empty(), "a spent token is not listed");
}

#[tokio::test]
async fn a_lost_answer_costs_nothing_the_same_request_gets_it_again() {
    let world = World::new().await;
    let secret = token(&world, &json!({"tags": {"site": "ams1"}})).await.secret.unwrap();
    let key = world.host_key();
    let call = World::enrolment(&key, &json!({"name": "web1"})).key(&secret);
    let first = world.send(&call).await;
    let before = world.digest();
    let again = world.send(&call).await;
    assert_eq!((first.status, again.status), (StatusCode::CREATED, StatusCode::OK));
    assert_eq!(first.read::<Enrolment>(), again.read::<Enrolment>());
    assert!(world.digest() == before, "nothing is written when nothing differs");
    let anonymous = enrol(&world, &key, &json!({"name": "web1"}), None).await;
    assert_eq!(anonymous.read::<Enrolment>(), first.read::<Enrolment>(), "the proof of the key is enough");
    assert_eq!(hosts(&world).await[0].tags["site"], "ams1", "and takes no label away");
}

#[tokio::test]
async fn a_hundred_at_once_with_a_single_use_token_enrol_one_host() {
    let world = Arc::new(World::new().await);
    let secret = token(&world, &json!({})).await.secret.unwrap();
    let racers: Vec<_> = (0..100)
        .map(|number| {
            let call = World::enrolment(&world.host_key(), &json!({"name": format!("web{number}")})).key(&secret);
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.send(&call).await })
        })
        .collect();
    let mut created = 0;
    for racer in racers {
        let answer = racer.await.unwrap();
        match answer.status {
            StatusCode::CREATED => created += 1,
            _ => assert_eq!(answer.code(), "unauthorized"),
        }
    }
    assert_eq!((created, hosts(&world).await.len()), (1, 1));
}

#[tokio::test]
async fn one_key_at_once_a_hundred_times_is_one_host_with_one_answer() {
    let world = Arc::new(World::new().await);
    let secret = token(&world, &json!({})).await.secret.unwrap();
    let call = World::enrolment(&world.host_key(), &json!({"name": "web1"})).key(&secret);
    let racers: Vec<_> = (0..100)
        .map(|_| {
            let (world, call) = (Arc::clone(&world), call.clone());
            tokio::spawn(async move { world.send(&call).await.read::<Enrolment>() })
        })
        .collect();
    let mut answers = Vec::new();
    for racer in racers {
        answers.push(racer.await.unwrap());
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(hosts(&world).await.len(), 1);
}

#[tokio::test]
async fn a_host_that_enrols_again_keeps_its_id_and_gets_what_it_wishes_now() {
    let world = World::new().await;
    let mut web1 = world.enrol_as(&json!({"name": "web1", "interval_s": 30, "tags": {"site": "ams1"}})).await;
    world.beat(&mut web1).await;
    let body = json!({"name": "web01", "tags": {"role": "web"}});
    let answer = enrol(&world, &web1.key, &body, None).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer}");
    let enrolment: Enrolment = answer.read();
    assert_eq!((enrolment.id.to_string(), enrolment.name.as_str()), (web1.id.clone(), "web01"));
    assert_eq!((enrolment.interval_s, enrolment.grace_s), (30, 60), "what is not asked for stays");
    web1.nonce = enrolment.next.parse().unwrap();
    assert_eq!(world.send(&web1.call()).await.status, StatusCode::OK, "the nonce is fresh");
    let host: HostView = world.ask("GET", &format!("/v1/hosts/{}", web1.id)).await.read();
    assert_eq!((host.tags["site"].as_str(), host.tags["role"].as_str()), ("ams1", "web"));
}

#[tokio::test]
async fn a_laptop_that_enrols_again_does_not_become_a_server() {
    let world = World::new().await;
    let laptop = world.enrol_as(&json!({"name": "laptop", "class": "intermittent", "max_away_s": 86_400})).await;
    enrol(&world, &laptop.key, &json!({"name": "laptop"}), None).await.read::<Enrolment>();
    assert_eq!(hosts(&world).await[0].class, Class::Intermittent);
    enrol(&world, &laptop.key, &json!({"name": "laptop", "class": "server"}), None).await.read::<Enrolment>();
    assert_eq!(hosts(&world).await[0].class, Class::Server, "unless it is asked for");
}

#[tokio::test]
async fn an_old_nonce_is_renewed_by_enrolling_again() {
    let world = World::new().await;
    let mut web1 = world.enrol("web1").await;
    world.jump(91);
    let enrolment: Enrolment = enrol(&world, &web1.key, &json!({"name": "web1"}), None).await.read();
    assert!(enrolment.next != web1.nonce.to_string());
    web1.nonce = enrolment.next.parse().unwrap();
    world.beat(&mut web1).await;
}

#[tokio::test]
async fn a_taken_name_is_refused_with_a_hint_and_free_again_after_retirement() {
    let world = World::new().await;
    let web1 = world.enrol("web1").await;
    let mut web2 = world.enrol("web2").await;
    let before = world.digest();
    let answer = enrol(&world, &world.host_key(), &json!({"name": "WEB1"}), Some(&world.admin)).await;
    assert_eq!(answer.code(), "name_taken");
    assert!(answer.problem().hint.is_some());
    let answer = enrol(&world, &web2.key, &json!({"name": "web1"}), None).await;
    assert_eq!(answer.code(), "name_taken", "nor by enrolling again");
    let answer = world.post("PATCH", &format!("/v1/hosts/{}", web2.id), &json!({"name": "web1"})).await;
    assert_eq!(answer.code(), "name_taken", "nor by renaming");
    assert!(world.digest() == before);
    assert_eq!(world.ask("DELETE", &format!("/v1/hosts/{}", web1.id)).await.status, StatusCode::NO_CONTENT);
    world.enrol("web1").await;
    world.beat(&mut web2).await;
}

#[tokio::test]
async fn a_retired_key_is_gone_for_good() {
    let world = World::new().await;
    let web1 = world.enrol("web1").await;
    world.ask("DELETE", &format!("/v1/hosts/{}", web1.id)).await;
    let before = world.digest();
    for credential in [None, Some(world.admin.as_str())] {
        let answer = enrol(&world, &web1.key, &json!({"name": "web1"}), credential).await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::GONE, "retired"));
    }
    assert!(world.digest() == before);
}

#[tokio::test]
async fn without_a_good_credential_nothing_is_told_whatever_else_is_wrong() {
    let world = World::new().await;
    let reader = world.api_key(&[Scope::Read]).await;
    let revoked = token(&world, &json!({})).await;
    world.ask("DELETE", &format!("/v1/tokens/{}", revoked.id)).await;
    let expired = token(&world, &json!({"expires_in_s": 60})).await.secret.unwrap();
    let spent = token(&world, &json!({})).await.secret.unwrap();
    assert_eq!(
        enrol(&world, &world.host_key(), &json!({"name": "web0"}), Some(&spent)).await.status,
        StatusCode::CREATED
    );
    world.jump(60);
    // The reader's key is noted as used once a minute; that is no part of what is compared.
    assert_eq!(world.send(&Call::new("GET", "/v1/hosts").key(&reader)).await.status, StatusCode::OK);
    let before = world.digest();
    let good = |key: &HostKey| World::enrolment(key, &json!({"name": "web1"}));
    let key = world.host_key();
    let unsigned = Call::new("POST", "/v1/hosts").json(&json!({"name": "web1"}));
    let mut typo = spent.clone();
    typo.replace_range(20..21, if &spent[20..21] == "a" { "b" } else { "a" });
    let mut answers = Vec::new();
    for call in [
        good(&key),
        unsigned.clone(),
        Call::new("POST", "/v1/hosts"),
        Call::new("POST", "/v1/hosts?x=1").raw(b"{"),
        unsigned.clone().key(&spent[..30]),
        good(&key).key(&typo),
        good(&key).key(&spent),
        good(&key).key(&expired),
        good(&key).key(revoked.secret.as_deref().unwrap()),
        good(&key).key("hbk_nonsense"),
    ] {
        let answer = world.send(&call).await;
        assert_eq!(answer.code(), "unauthorized", "{call:?}");
        answers.push(answer.whole());
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(world.send(&good(&key).key(&reader)).await.code(), "forbidden");
    assert!(world.digest() == before);
}

#[tokio::test]
async fn a_proof_that_is_not_one_enrols_nobody_and_spends_no_token() {
    let world = World::new().await;
    let secret = token(&world, &json!({})).await.secret.unwrap();
    let before = world.digest();
    let (key, other) = (world.host_key(), world.host_key());
    let (public, foreign) = (String::from(key.public()), String::from(other.public()));
    let body = json!({"name": "web1", "public_key": public}).to_string();
    let body = body.as_bytes();
    let none = Nonce::NONE;
    let cases: Vec<(&str, Call, &str)> = vec![
        ("signed by another key", sign(&other, &public, none, AUTHORITY, "/v1/hosts", body), "bad_signature"),
        ("in another's name", sign(&other, &foreign, none, AUTHORITY, "/v1/hosts", body), "bad_signature"),
        ("with a nonce", sign(&key, &public, Nonce([1; 16]), AUTHORITY, "/v1/hosts", body), "bad_signature"),
        ("for another server", sign(&key, &public, none, "evil.example.com", "/v1/hosts", body), "bad_signature"),
        (
            "for another path",
            Call { uri: "/v1/hosts".into(), ..sign(&key, &public, none, AUTHORITY, "/v1/beat", body) },
            "bad_signature",
        ),
        (
            "with a query",
            Call { uri: "/v1/hosts?a=b".into(), ..sign(&key, &public, none, AUTHORITY, "/v1/hosts", body) },
            "malformed",
        ),
        (
            "changed on the way",
            Call {
                body: String::from_utf8_lossy(body).replace("web1", "web2").into(),
                ..World::enrolment(&key, &json!({"name": "web1"}))
            },
            "bad_signature",
        ),
        ("unsigned", Call::new("POST", "/v1/hosts").raw(body), "bad_signature"),
        (
            "as text",
            World::enrolment(&key, &json!({"name": "web1"})).with("content-type", "text/plain"),
            "unsupported_media_type",
        ),
    ];
    for (what, call, code) in cases {
        assert_eq!(world.send(&call.key(&secret)).await.code(), code, "{what}");
    }
    assert!(world.digest() == before);
    assert_eq!(enrol(&world, &key, &json!({"name": "web1"}), Some(&secret)).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn weak_keys_and_unacceptable_wishes_are_refused() {
    let world = World::new().await;
    let before = world.digest();
    let weak = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let key = world.host_key();
    let body = json!({"name": "web1", "public_key": weak}).to_string();
    let call = sign(&key, weak, Nonce::NONE, AUTHORITY, "/v1/hosts", body.as_bytes()).key(&world.admin);
    let answer = world.send(&call).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::BAD_REQUEST, "invalid"), "{answer}");
    for (field, value, code) in [
        ("interval_s", json!(0), "invalid"),
        ("interval_s", json!(31 * 86_400 + 1), "invalid"),
        ("interval_s", json!(u64::MAX), "invalid"),
        ("interval_s", json!(-1), "malformed"),
        ("interval_s", json!(1.5), "malformed"),
        ("interval_s", json!("60s"), "malformed"),
        ("grace_s", json!(0), "invalid"),
        ("grace_s", json!(31 * 86_400 + 1), "invalid"),
        ("max_away_s", json!(0), "invalid"),
        ("max_away_s", json!(86_400), "invalid"),
        ("name", json!(""), "invalid"),
        ("name", json!("web 1"), "invalid"),
        ("name", json!("web\n1"), "invalid"),
        ("name", json!("web\u{202e}1"), "invalid"),
        ("name", json!("<b>web1</b>"), "invalid"),
        ("name", json!("a".repeat(254)), "invalid"),
        ("name", json!(7), "malformed"),
        ("tags", json!({"Site": "ams1"}), "invalid"),
        ("tags", json!({"site": "ams\n1"}), "invalid"),
        ("tags", json!({"site": "x".repeat(129)}), "invalid"),
        (
            "tags",
            json!((0..17).map(|n| (format!("k{n}"), "v")).collect::<std::collections::BTreeMap<_, _>>()),
            "invalid",
        ),
        ("tags", json!(["site"]), "malformed"),
        ("class", json!("toaster"), "malformed"),
        ("colour", json!("red"), "malformed"),
    ] {
        let mut body = json!({"name": "web1"});
        body[field] = value.clone();
        let answer = enrol(&world, &key, &body, Some(&world.admin)).await;
        assert_eq!(answer.code(), code, "{field}: {value}");
        assert!(answer.problem().detail.contains(field) || code == "malformed", "{answer}");
    }
    assert!(world.digest() == before);
}

#[tokio::test]
async fn a_host_that_never_beats_is_told_of() {
    let world = World::new().await;
    let web1 = world.enrol("web1").await;
    world.pass(181).await;
    let host: HostView = world.ask("GET", &format!("/v1/hosts/{}", web1.id)).await.read();
    assert_eq!(host.state, hb_wire::view::HostState::Down);
    assert!(world.now() > Time::ZERO);
}
