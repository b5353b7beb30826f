//! Lists, and what comes from outside into them.

use std::collections::BTreeMap;

use hb_core::access::{ApiKey, Channel};
use hb_core::event::{Audience, Event};
use hb_core::host::{Host, State};
use hb_store::{Change, Committed, Credential, Enrolled, EventQuery, HostQuery, Store as _};
use hb_store_dynamodb::{Usage, table};
use hb_wire::id::ChannelId;

use crate::emulator::{TABLE, fresh, with_stream};
use crate::world::{START, enrol, event, host, id, read};

#[tokio::test]
async fn the_table_is_what_its_definition_says() {
    let (_store, emulator) = with_stream(Usage::default()).await;
    let client = emulator.client();
    let wanted = table::definition();
    let described = client.describe_table().table_name(TABLE).send().await.unwrap();
    let described = described.table().unwrap();
    let keys: Vec<_> =
        described.key_schema().iter().map(|key| (key.attribute_name(), key.key_type().as_str())).collect();
    assert_eq!(keys, wanted.keys);
    let named: BTreeMap<_, _> = described
        .attribute_definitions()
        .iter()
        .map(|attribute| (attribute.attribute_name(), attribute.attribute_type().as_str()))
        .collect();
    assert_eq!(named, wanted.attributes.into_iter().collect());
    assert_eq!(described.billing_mode_summary().unwrap().billing_mode().unwrap().as_str(), wanted.billing);
    assert_eq!(described.stream_specification().unwrap().stream_view_type().unwrap().as_str(), wanted.stream);
    assert_eq!(described.global_secondary_indexes().len() + described.local_secondary_indexes().len(), wanted.indexes);
    let expiry = client.describe_time_to_live().table_name(TABLE).send().await.unwrap();
    assert_eq!(expiry.time_to_live_description().unwrap().attribute_name(), Some(table::time_to_live()));
    assert!(table::create(&client, TABLE).await.is_err(), "there is one already");
}

#[tokio::test]
async fn hosts_of_one_name_are_listed_in_pages() {
    let (store, _emulator) = fresh(Usage::default()).await;
    let mut namesakes = Vec::new();
    for n in 0..7 {
        let one = Host { name: host(0).name, state: State::Retired { since: START }, ..host(n) };
        enrol(&store, &one).await;
        enrol(&store, &host(100 + n)).await;
        namesakes.push(one.id);
    }
    let mut query = HostQuery { name: Some(host(0).name), retired: true, limit: 3, ..HostQuery::default() };
    let mut seen = Vec::new();
    loop {
        let page = store.hosts(&query).await.unwrap();
        let Some(last) = page.last() else { break };
        query.after = Some((last.value.name.to_string(), last.value.id));
        seen.extend(page.iter().map(|held| held.value.id));
    }
    assert_eq!(seen, namesakes);
    for after in ["", "a", "zzz", &"web".repeat(2000), "web-00103.example.org\u{10ffff}", "\u{10ffff}"] {
        let query = HostQuery { after: Some((after.to_owned(), id(0))), limit: 100, ..HostQuery::default() };
        let found = store.hosts(&query).await.unwrap().len();
        let wanted = (0..7).filter(|n| host(100 + n).name.as_str() > after).count();
        assert_eq!(found, wanted, "{after:?}");
    }
}

#[tokio::test]
async fn events_since_an_instant_are_found_in_both_directions() {
    const HOUR: u64 = 3_600_000;
    let (store, _emulator) = fresh(Usage::default()).await;
    let events: Vec<Event> = (0..90_u64)
        .map(|n| Event { at: START.plus(n * HOUR), ..event(n.into(), Some(&host(n % 3)), Audience::Nobody) })
        .collect();
    for some in events.chunks(20) {
        let change = Change { events: some.to_vec(), ..Change::default() };
        assert_eq!(store.commit(change).await.unwrap(), Committed::Done);
    }
    for since in [0, 1, 40, 60, 89, 90, 1000].map(|n| START.plus(n * HOUR)) {
        for about in [None, Some(host(1))] {
            let fits = |event: &&Event| {
                let subject = event.subject.as_ref().map(|subject| subject.id);
                event.at >= since && about.as_ref().is_none_or(|host| subject == Some(host.id))
            };
            let wanted: Vec<_> = events.iter().filter(fits).map(|event| event.id).collect();
            let query = EventQuery {
                host: about.as_ref().map(|host| host.id),
                since: Some(since),
                ascending: true,
                limit: 1000,
                ..EventQuery::default()
            };
            let found = async |query: EventQuery| {
                let listed = store.events(&query).await.unwrap();
                listed.into_iter().map(|listed| listed.value.id).collect::<Vec<_>>()
            };
            assert_eq!(found(query.clone()).await, wanted);
            assert_eq!(found(EventQuery { limit: 2, ..query.clone() }).await, wanted[..wanted.len().min(2)]);
            let mut newest_first = found(EventQuery { ascending: false, ..query }).await;
            newest_first.reverse();
            assert_eq!(newest_first, wanted);
        }
    }
}

#[tokio::test]
async fn texts_that_fit_into_no_key_are_unknown_or_refused() {
    let (store, _emulator) = fresh(Usage::default()).await;
    let long = "x".repeat(5000);
    assert_eq!(store.key(&long).await.unwrap(), None);
    assert_eq!(store.token(&long).await.unwrap(), None);
    assert!(!store.revoke_key(&long, START).await.unwrap());
    assert!(!store.revoke_token(&long, START).await.unwrap());
    store.touch_key(&long, START).await.unwrap();
    assert!(store.silent(START, Some(&("key".into(), long.clone())), 9).await.unwrap().is_empty());
    let tagged = HostQuery { tags: vec![("key".into(), long.clone())], limit: 9, ..HostQuery::default() };
    assert!(store.hosts(&tagged).await.unwrap().is_empty());
    let first = event(1, Some(&host(1)), Audience::Nobody);
    let credential = Credential::Token { id: long.clone() };
    let refused = store.enrol(&host(1), &first, &credential, START).await.unwrap();
    assert_eq!(refused, Enrolled::TokenRefused);
    enrol(&store, &host(1)).await;
    let known = store.enrol(&Host { key: host(1).key, ..host(2) }, &first, &credential, START).await.unwrap();
    assert_eq!(known, Enrolled::KeyKnown(id(1)));
    let channel = Channel {
        id: ChannelId(uuid::Uuid::from_u128(1)),
        name: long.clone(),
        kind: "webhook".into(),
        settings: serde_json::Value::Null,
        target: String::new(),
        admin: false,
        created_at: START,
        last_delivered_at: None,
        last_error: None,
    };
    assert!(store.add_channel(&channel).await.is_err());
    let key = ApiKey {
        id: long,
        hash: [0; 32],
        name: String::new(),
        scopes: [].into(),
        created_at: START,
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
    };
    assert!(store.add_key(&key).await.is_err());
    assert_eq!(read(&store, id(1)).await.value, host(1));
}
