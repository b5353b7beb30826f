//! Keys, tokens, channels, and what the server knows of itself.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use hb_core::access::{ApiKey, Channel, Token};
use hb_core::event::Audience;
use hb_core::observer::Observation;
use hb_core::time::Time;
use hb_wire::view::Scope;

use super::Subject;
use super::world::{at, channel, channel_id, event, key, tags};
use crate::{Committed, TOKEN_MEMORY_MS, Versioned};

/// Everything that a text may hold and that a careless store would lose.
const TEXTS: [&str; 6] = [
    "Zürich 東京 🚀 é",
    "o'Brien \"quoted\" \\ back; DROP TABLE hosts;--",
    "",
    " spaces ",
    "\u{202e}\u{0}\n\t",
    "%_*?",
];

fn api_key(id: &str) -> ApiKey {
    ApiKey {
        id: id.into(),
        hash: core::array::from_fn(|i| u8::try_from(i * 8).unwrap()),
        name: "ops – Zürich".into(),
        scopes: BTreeSet::from([Scope::Admin, Scope::Metrics]),
        created_at: at(0),
        expires_at: Some(Time::MAX),
        revoked_at: None,
        last_used_at: None,
    }
}

pub async fn keys_are_added_once_used_and_revoked(store: Subject) {
    assert!(store.add_key(&api_key("bbb")).await.unwrap());
    assert!(store.add_key(&ApiKey { expires_at: None, ..api_key("aaa") }).await.unwrap());
    assert!(!store.add_key(&ApiKey { name: "other".into(), ..api_key("bbb") }).await.unwrap());
    assert_eq!(store.key("bbb").await.unwrap(), Some(api_key("bbb")));
    let ids: Vec<String> = store.keys().await.unwrap().into_iter().map(|key| key.id).collect();
    assert_eq!(ids, ["bbb", "aaa"], "oldest first");
    store.touch_key("bbb", at(5)).await.unwrap();
    store.touch_key("unknown", at(5)).await.unwrap();
    assert_eq!(store.key("bbb").await.unwrap().unwrap().last_used_at, Some(at(5)));
    assert!(store.revoke_key("bbb", at(6)).await.unwrap());
    assert!(!store.revoke_key("bbb", at(7)).await.unwrap());
    assert!(!store.revoke_key("unknown", at(7)).await.unwrap());
    let revoked = ApiKey { revoked_at: Some(at(6)), last_used_at: Some(at(5)), ..api_key("bbb") };
    assert_eq!(store.key("bbb").await.unwrap(), Some(revoked));
    assert_eq!(store.key("aaa").await.unwrap().unwrap().revoked_at, None);
    assert_eq!(store.key("AAA").await.unwrap(), None, "ids are compared exactly");
    assert_eq!(store.keys().await.unwrap().len(), 2, "revoked ones are listed too");
}

fn token(id: &str, expires_at: Time) -> Token {
    Token {
        id: id.into(),
        hash: [200; 32],
        uses_left: u32::MAX,
        tags: tags(&[("site", "東京")]),
        created_at: at(0),
        expires_at,
        revoked_at: None,
        redeemed: vec![key(9), key(8)],
    }
}

pub async fn tokens_are_added_once_and_forgotten_after_their_end(store: Subject) {
    let short = token("short", at(100));
    assert!(store.add_token(&short).await.unwrap());
    assert!(store.add_token(&token("a-long-one", at(1_000_000_000))).await.unwrap());
    assert!(!store.add_token(&token("short", at(5))).await.unwrap());
    assert_eq!(store.token("short").await.unwrap(), Some(short));
    let listed = async |now| store.tokens(now).await.unwrap().into_iter().map(|token| token.id).collect::<Vec<_>>();
    assert_eq!(listed(at(100 + TOKEN_MEMORY_MS - 1)).await, ["short", "a-long-one"], "ended, but not long ago");
    assert_eq!(listed(at(200 + TOKEN_MEMORY_MS)).await, ["a-long-one"]);
    assert!(store.revoke_token("a-long-one", at(50)).await.unwrap());
    assert!(!store.revoke_token("a-long-one", at(51)).await.unwrap());
    assert!(!store.revoke_token("unknown", at(51)).await.unwrap());
    let revoked = Token { revoked_at: Some(at(50)), ..token("a-long-one", at(1_000_000_000)) };
    assert_eq!(store.token("a-long-one").await.unwrap(), Some(revoked));
}

pub async fn channels_have_names_of_their_own(store: Subject) {
    assert!(store.add_channel(&channel(2)).await.unwrap());
    assert!(store.add_channel(&channel(1)).await.unwrap());
    assert!(!store.add_channel(&Channel { id: channel_id(3), ..channel(1) }).await.unwrap(), "the name is taken");
    assert!(!store.add_channel(&Channel { name: "free".into(), ..channel(1) }).await.unwrap(), "the id is taken");
    assert_eq!(store.channels().await.unwrap(), [channel(2), channel(1)], "oldest first");
    let tries = (0..16).map(|n| {
        let (store, channel) = (&store, Channel { name: "same".into(), ..channel(100 + n) });
        async move { store.add_channel(&channel).await.unwrap() }
    });
    assert_eq!(join_all(tries).await.into_iter().filter(|added| *added).count(), 1);
}

pub async fn names_notes_and_settings_keep_every_character(store: Subject) {
    for (text, n) in TEXTS.into_iter().zip(1..) {
        let settings = serde_json::json!({"headers": {text: text}, "n": [0.1, -1, u64::MAX, null]});
        let channel = Channel {
            name: format!("{n}{text}"),
            settings,
            target: text.into(),
            last_error: Some(text.into()),
            ..channel(n)
        };
        assert!(store.add_channel(&channel).await.unwrap());
        assert_eq!(store.channels().await.unwrap().last(), Some(&channel));
        let key = ApiKey { name: text.into(), ..api_key(&format!("{n}{text}")) };
        assert!(store.add_key(&key).await.unwrap());
        assert_eq!(store.key(&key.id).await.unwrap(), Some(key));
        let mut noted = event(n, None, Audience::Nobody);
        noted.inputs.insert(text.into(), serde_json::json!([text, i64::MIN, u64::MAX, 1e308, 0.3]));
        let change = crate::Change { events: vec![noted.clone()], ..crate::Change::default() };
        assert_eq!(store.commit(change).await.unwrap(), Committed::Done);
        assert_eq!(store.event(noted.id).await.unwrap(), Some(noted));
    }
}

pub async fn the_observation_is_replaced_only_by_who_read_it(store: Subject) {
    let first = Observation::begin(at(0));
    let put = |value: &Observation, rev| Versioned { value: value.clone(), rev };
    assert_eq!(store.observe(put(&first, 3), vec![]).await.unwrap(), Committed::Conflict, "there is none yet");
    assert_eq!(store.observation().await.unwrap(), None);
    let blind = event(1, None, Audience::Admins);
    let begun = join_all((0..16).map(|_| store.observe(put(&first, 0), vec![blind.clone()]))).await;
    assert_eq!(begun.into_iter().filter(|outcome| matches!(outcome, Ok(Committed::Done))).count(), 1);
    let held = store.observation().await.unwrap().unwrap();
    assert_eq!(held.value, first);
    assert_eq!(store.untold(10).await.unwrap(), [blind], "with its events");
    let mut next = first.clone();
    next.ledger.enter(at(5), at(500));
    next.observed_until = at(500);
    assert_eq!(store.observe(put(&next, held.rev), vec![]).await.unwrap(), Committed::Done);
    let late = event(2, None, Audience::Admins);
    let stale = store.observe(put(&first, held.rev), vec![late.clone()]).await.unwrap();
    assert_eq!(stale, Committed::Conflict);
    assert_eq!(store.event(late.id).await.unwrap(), None, "nor are its events stored");
    let now = store.observation().await.unwrap().unwrap();
    assert_eq!(now.value, next);
    assert!(now.rev > held.rev);
}
