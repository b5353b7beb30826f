//! Beats: what is accepted, and that nothing else changes anything.

use hb_wire::beat::BeatAnswer;
use hb_wire::key::HostKey;
use hb_wire::nonce::Nonce;
use hb_wire::rotation;
use hb_wire::view::{HostState, HostView};
use http::StatusCode;
use serde_json::json;

use crate::support::{AUTHORITY, Agent, Call, World, sign};

async fn host(world: &World, agent: &Agent) -> HostView {
    world.ask("GET", &format!("/v1/hosts/{}", agent.id)).await.read()
}

/// The request is refused with this code, and the store is what it was.
async fn refused(world: &World, call: &Call, code: &str) {
    let before = world.digest();
    let answer = world.send(call).await;
    assert_eq!(answer.code(), code, "{answer}");
    assert!(world.digest() == before, "refused with {code}, but the store changed");
}

#[tokio::test]
async fn every_beat_spends_the_nonce_that_the_last_answer_gave() {
    let world = World::new().await;
    let mut web1 = world.enrol("web1").await;
    for _ in 0..5 {
        let spent = web1.nonce;
        let answer = world.beat(&mut web1).await;
        assert!(web1.nonce != spent);
        assert_eq!(answer.interval_s, 60);
        world.pass(60).await;
    }
    assert_eq!(host(&world, &web1).await.state, HostState::Up);
    assert_eq!(world.app.metrics.beats_slow.get(), 1, "only the first needs a decision");
    assert_eq!(world.app.metrics.beats_fast.get(), 4);
}

#[tokio::test]
async fn a_replayed_or_reordered_beat_changes_nothing_and_gets_the_nonce_that_works() {
    let world = World::new().await;
    let mut web1 = world.enrol("web1").await;
    let first = web1.call();
    assert_eq!(world.send(&first).await.status, StatusCode::OK);
    refused(&world, &first, "stale_nonce").await;
    let answer = world.send(&first).await;
    web1.nonce = answer.problem().next.unwrap().parse().unwrap();
    let second = web1.call();
    assert_eq!(world.send(&second).await.status, StatusCode::OK, "the nonce of a 409 is usable at once");
    refused(&world, &first, "stale_nonce").await;
    refused(&world, &second, "stale_nonce").await;
}

#[tokio::test]
async fn a_beat_without_a_nonce_is_answered_with_one() {
    let world = World::new().await;
    let mut web1 = world.enrol("web1").await;
    web1.nonce = Nonce::NONE;
    let answer = world.send(&web1.call()).await;
    assert_eq!(answer.code(), "stale_nonce");
    assert!(answer.problem().now.is_some());
    web1.nonce = answer.problem().next.unwrap().parse().unwrap();
    assert_eq!(world.send(&web1.call()).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_expired_nonce_is_refused_and_nothing_but_the_nonce_changes() {
    let world = World::new().await;
    let mut web1 = world.enrol("web1").await;
    world.beat(&mut web1).await;
    let before = host(&world, &web1).await;
    world.jump(181);
    let answer = world.send(&web1.call()).await;
    assert_eq!(answer.code(), "stale_nonce");
    let after = host(&world, &web1).await;
    assert_eq!((after.last_seen, after.deadline), (before.last_seen, before.deadline), "a refusal extends no deadline");
    web1.nonce = answer.problem().next.unwrap().parse().unwrap();
    world.beat(&mut web1).await;
}

#[tokio::test]
async fn a_message_held_back_until_after_the_alarm_does_not_undo_it() {
    let world = World::new().await;
    let mut web1 = world.enrol("web1").await;
    world.beat(&mut web1).await;
    let held_back = web1.call();
    world.pass(181).await;
    assert_eq!(host(&world, &web1).await.state, HostState::Down);
    refused(&world, &held_back, "stale_nonce").await;
    assert_eq!(host(&world, &web1).await.state, HostState::Down);
}

#[tokio::test]
async fn what_is_signed_for_another_host_key_path_or_server_is_refused_alike() {
    let world = World::new().await;
    let mut web1 = world.enrol("web1").await;
    let web2 = world.enrol("web2").await;
    world.beat(&mut web1).await;
    let body = web1.call().body;
    let stranger = world.host_key();
    let wrong: Vec<(&str, Call)> = vec![
        ("another host's key", sign(&web2.key, &web1.id, web1.nonce, AUTHORITY, "/v1/beat", &body)),
        ("a stranger's key", sign(&stranger, &web1.id, web1.nonce, AUTHORITY, "/v1/beat", &body)),
        (
            "another path",
            Call { uri: "/v1/beat".into(), ..sign(&web1.key, &web1.id, web1.nonce, AUTHORITY, "/v1/hosts", &body) },
        ),
        ("another server", sign(&web1.key, &web1.id, web1.nonce, "evil.example.com", "/v1/beat", &body)),
        (
            "an unknown host",
            sign(&web1.key, "0199c2a4-5d1e-7b3a-9f00-1234567890ab", web1.nonce, AUTHORITY, "/v1/beat", &body),
        ),
        ("no id at all", sign(&web1.key, "web1", web1.nonce, AUTHORITY, "/v1/beat", &body)),
        (
            "another body",
            Call { body: body.iter().map(|b| if *b == b'1' { b'2' } else { *b }).collect(), ..web1.call() },
        ),
    ];
    let mut answers = Vec::new();
    for (what, call) in &wrong {
        refused(&world, call, "bad_signature").await;
        answers.push((what, world.send(call).await.whole()));
    }
    for (what, answer) in &answers {
        assert_eq!(answer, &answers[0].1, "{what} tells a stranger something");
    }
    assert_eq!(world.send(&web1.call()).await.status, StatusCode::OK, "the host itself is not hindered");
}

#[tokio::test]
async fn a_proxy_may_rewrite_the_host_header_but_not_what_was_signed() {
    let world = World::with(|settings| settings.authorities.push("hb.internal:8080".into())).await;
    let mut web1 = world.enrol("web1").await;
    let call = web1.call().with("host", "10.0.0.1:3000");
    assert_eq!(world.send(&call).await.status, StatusCode::OK);
    let answer = world.send(&web1.call()).await;
    web1.nonce = answer.problem().next.unwrap().parse().unwrap();
    let body = web1.call().body;
    let internal = sign(&web1.key, &web1.id, web1.nonce, "hb.internal:8080", "/v1/beat", &body);
    assert_eq!(world.send(&internal.with("host", "HB.Internal:8080")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_header_that_is_missing_or_stands_twice_is_refused() {
    let world = World::new().await;
    let mut web1 = world.enrol("web1").await;
    let good = web1.call();
    for name in ["content-digest", "signature-input", "signature"] {
        refused(&world, &good.clone().without(name), "bad_signature").await;
        let value = good.headers.iter().find(|(found, _)| found == name).unwrap().1.clone();
        refused(&world, &good.clone().header(name, &value), "bad_signature").await;
        refused(&world, &good.clone().with(name, "nonsense"), "malformed").await;
    }
    assert_eq!(world.send(&good).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_retired_host_is_told_so_at_its_next_beat() {
    let world = World::new().await;
    let mut web1 = world.enrol("web1").await;
    world.beat(&mut web1).await;
    assert_eq!(world.ask("DELETE", &format!("/v1/hosts/{}", web1.id)).await.status, StatusCode::NO_CONTENT);
    refused(&world, &web1.call(), "retired").await;
}

#[tokio::test]
async fn a_host_that_beats_too_often_waits_and_a_stranger_cannot_use_up_its_turns() {
    let world = World::new().await;
    let mut web1 = world.enrol("web1").await;
    world.beat(&mut web1).await;
    let stranger = world.host_key();
    for _ in 0..50 {
        let body = web1.call().body;
        let forged = sign(&stranger, &web1.id, web1.nonce, AUTHORITY, "/v1/beat", &body);
        assert_eq!(world.send(&forged).await.code(), "bad_signature");
    }
    for _ in 0..5 {
        world.beat(&mut web1).await;
    }
    let before = world.digest();
    let answer = world.send(&web1.call()).await;
    assert_eq!(answer.code(), "too_many_requests");
    assert!(world.digest() == before);
    let wait: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=11).contains(&wait), "{wait}");
    world.jump(wait);
    world.beat(&mut web1).await;
}

#[tokio::test]
async fn a_flood_of_forgeries_changes_nothing_and_hinders_nobody() {
    let world = World::new().await;
    let mut web1 = world.enrol("web1").await;
    world.beat(&mut web1).await;
    let before = world.digest();
    let stranger = world.host_key();
    for round in 0..2000_u64 {
        let body = json!({"boot": web1.boot, "run": web1.run, "seq": round, "up": round, "v": "0.1.0"}).to_string();
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&world.random.next().to_le_bytes());
        let forged = sign(&stranger, &web1.id, Nonce(nonce), AUTHORITY, "/v1/beat", body.as_bytes());
        assert_eq!(world.send(&forged).await.status, StatusCode::UNAUTHORIZED);
    }
    assert!(world.digest() == before);
    assert_eq!(world.app.metrics.beats_refused.get(), 2000);
    assert_eq!(world.send(&web1.call()).await.status, StatusCode::OK, "its nonce was neither burnt nor learnt");
}

#[tokio::test]
async fn a_changed_interval_reaches_the_host_with_its_next_answer() {
    let world = World::new().await;
    let mut web1 = world.enrol("web1").await;
    world.beat(&mut web1).await;
    let changed = world.post("PATCH", &format!("/v1/hosts/{}", web1.id), &json!({"interval_s": 30})).await;
    assert_eq!(changed.status, StatusCode::OK, "{changed}");
    let answer: BeatAnswer = world.beat(&mut web1).await;
    assert_eq!(answer.interval_s, 30);
}

/// The beat by which a host announces the key `next`, with this proof.
fn announce(agent: &mut Agent, next: &HostKey, proof: &str) -> Call {
    agent.seq += 1;
    let intent = json!({"kind": "rotate", "public_key": next.public().to_string(), "proof": proof});
    let beat =
        json!({"boot": agent.boot, "run": agent.run, "seq": agent.seq, "up": 2000, "v": "0.1.0", "intent": intent});
    agent.sign(beat.to_string().as_bytes())
}

#[tokio::test]
async fn a_host_changes_its_key_without_missing_a_beat_and_the_old_one_is_over() {
    let world = World::new().await;
    let mut web1 = world.enrol("web1").await;
    world.beat(&mut web1).await;
    let next = world.host_key();
    let proof = rotation::prove(&next, web1.id.parse().unwrap());
    let call = announce(&mut web1, &next, &proof);
    web1.nonce = world.send(&call).await.read::<BeatAnswer>().next.parse().unwrap();
    world.beat(&mut web1).await;
    let old = core::mem::replace(&mut web1.key, next);
    world.beat(&mut web1).await;
    world.beat(&mut web1).await;
    let body = web1.call().body;
    refused(&world, &sign(&old, &web1.id, web1.nonce, AUTHORITY, "/v1/beat", &body), "bad_signature").await;
    world.beat(&mut web1).await;
    let events = world.ask("GET", &format!("/v1/hosts/{}/events", web1.id)).await;
    assert!(events.to_string().contains("key_rotated"), "{events}");
}

#[tokio::test]
async fn a_new_key_is_proven_and_nobody_elses() {
    let world = World::new().await;
    let (mut web1, web2) = (world.enrol("web1").await, world.enrol("web2").await);
    world.beat(&mut web1).await;
    let (next, id) = (world.host_key(), web1.id.parse().unwrap());
    let proof = rotation::prove(&next, id);
    for bad in [rotation::prove(&next, web2.id.parse().unwrap()), rotation::prove(&web1.key, id), "A".repeat(86)] {
        let call = announce(&mut web1, &next, &bad);
        refused(&world, &call, "invalid").await;
    }
    let call = announce(&mut web1, &next, &proof[1..]);
    refused(&world, &call, "malformed").await;
    let call = announce(&mut web1, &web2.key, &rotation::prove(&web2.key, id));
    refused(&world, &call, "conflict").await;
    // Neither key of a rotation signs for anybody before it is announced.
    let body = web1.call().body;
    refused(&world, &sign(&next, &web1.id, web1.nonce, AUTHORITY, "/v1/beat", &body), "bad_signature").await;
}

#[tokio::test]
async fn old_and_new_key_in_any_order_never_let_the_old_one_back_in() {
    let world = World::with(|settings| settings.beats_per_interval = 1_000_000).await;
    let mut web1 = world.enrol("web1").await;
    world.beat(&mut web1).await;
    for round in 0..200 {
        let next = world.host_key();
        let proof = rotation::prove(&next, web1.id.parse().unwrap());
        let call = announce(&mut web1, &next, &proof);
        web1.nonce = world.send(&call).await.read::<BeatAnswer>().next.parse().unwrap();
        // One nonce, two keys, several requests at once, in an order that differs from round to round.
        let body = web1.call().body;
        let by = |key: &HostKey| sign(key, &web1.id, web1.nonce, AUTHORITY, "/v1/beat", &body);
        let (old, new) = (by(&web1.key), by(&next));
        let calls = if round % 2 == 0 { [&old, &new, &old, &new] } else { [&new, &old, &new, &old] };
        let answers = futures_util::future::join_all(calls.map(|call| world.send(call))).await;
        assert_eq!(answers.iter().filter(|answer| answer.status == StatusCode::OK).count(), 1, "one nonce, one beat");
        let old = core::mem::replace(&mut web1.key, next);
        web1.nonce = world.send(&web1.call()).await.problem().next.unwrap().parse().unwrap();
        world.beat(&mut web1).await;
        let body = web1.call().body;
        let call = sign(&old, &web1.id, web1.nonce, AUTHORITY, "/v1/beat", &body);
        assert_eq!(world.send(&call).await.code(), "bad_signature", "round {round}");
    }
}
