//! Enrolments, decisions, and lists of hosts.

use futures_util::future::join_all;
use hb_core::access::Token;
use hb_core::event::{Audience, Event};
use hb_core::host::{Host, State};
use hb_core::incident::{Group, Incident};
use hb_core::policy::Policy;
use hb_core::time::Time;
use hb_wire::name::Tags;

use super::Subject;
use super::world::{
    Dice, at, beat_of, edit, enrol, enrol_all, event, first_event, host, host_id, incident_id, key, name, nonce, read,
    tags, to, up,
};
use crate::{Beaten, Change, Committed, Credential, Enrolled, EventQuery, HostQuery, Versioned};

fn all() -> HostQuery {
    HostQuery { retired: true, limit: 1000, ..HostQuery::default() }
}

async fn names(store: &Subject, query: &HostQuery) -> Vec<String> {
    store.hosts(query).await.unwrap().into_iter().map(|held| held.value.name.to_string()).collect()
}

async fn events(store: &Subject) -> Vec<Event> {
    let query = EventQuery { ascending: true, limit: 1000, ..EventQuery::default() };
    store.events(&query).await.unwrap().into_iter().map(|listed| listed.value).collect()
}

fn token(id: &str, uses_left: u32) -> Token {
    Token {
        id: id.into(),
        hash: [1; 32],
        uses_left,
        tags: Tags::default(),
        created_at: at(0),
        expires_at: at(3_600_000),
        revoked_at: None,
        redeemed: Vec::new(),
    }
}

fn with(id: &str) -> Credential {
    Credential::Token { id: id.into() }
}

pub async fn an_enrolled_host_is_found_by_its_id_and_its_key_with_its_first_event(store: Subject) {
    let one = host(1);
    enrol(&store, &one).await;
    let held = read(&store, one.id).await;
    assert_eq!(held.value, one);
    assert_eq!(store.host_by_key(&one.key).await.unwrap(), Some(held));
    assert_eq!(store.event(first_event(&one).id).await.unwrap(), Some(first_event(&one)));
}

pub async fn what_is_not_there_is_none_and_no_error(store: Subject) {
    enrol(&store, &host(1)).await;
    assert_eq!(store.host(host_id(2)).await.unwrap(), None);
    assert_eq!(store.host_by_key(&key(2)).await.unwrap(), None);
    assert_eq!(store.event(event(5, None, Audience::Nobody).id).await.unwrap(), None);
    assert_eq!(store.key("nobody").await.unwrap(), None);
    assert_eq!(store.token("nothing").await.unwrap(), None);
    assert_eq!(store.observation().await.unwrap(), None);
    assert_eq!(store.next_claim().await.unwrap(), None);
    assert!(store.down_in(incident_id(1), 10).await.unwrap().is_empty());
    assert!(store.deliveries_of(incident_id(1)).await.unwrap().is_empty());
}

pub async fn a_name_belongs_to_one_host_that_is_not_retired(store: Subject) {
    enrol_all(&store, &[host(1), host(2)]).await;
    let namesake = Host { name: name("host-00001"), ..host(3) };
    let first = first_event(&namesake);
    let enrolled = store.enrol(&namesake, &first, &Credential::Trusted, at(0)).await.unwrap();
    assert_eq!(enrolled, Enrolled::NameTaken);
    assert_eq!(store.host(namesake.id).await.unwrap(), None);
    assert_eq!(store.event(first.id).await.unwrap(), None);

    let mut renamed = read(&store, host_id(2)).await;
    renamed.value.name = name("host-00001");
    assert_eq!(store.commit(to(renamed, vec![])).await.unwrap(), Committed::Conflict, "renamed to a name in use");

    edit(&store, host_id(1), |host| host.state = State::Retired { since: at(1) }).await;
    enrol(&store, &namesake).await;
    let mut back = read(&store, host_id(1)).await;
    back.value.state = State::New;
    assert_eq!(
        store.commit(to(back, vec![])).await.unwrap(),
        Committed::Conflict,
        "out of retirement into a name in use"
    );

    edit(&store, host_id(2), |host| host.name = name("web-2")).await;
    let freed = Host { name: name("host-00002"), ..host(4) };
    enrol(&store, &freed).await;
    assert_eq!(names(&store, &all()).await, ["host-00001", "host-00001", "host-00002", "web-2"]);
    let named = HostQuery { name: Some(name("host-00001")), ..all() };
    let live = store.hosts(&HostQuery { retired: false, ..named.clone() }).await.unwrap();
    assert_eq!(live.iter().map(|held| held.value.id).collect::<Vec<_>>(), [namesake.id]);
    assert_eq!(store.hosts(&named).await.unwrap().len(), 2);
}

pub async fn a_known_key_gets_the_host_it_has_and_takes_nothing(store: Subject) {
    assert!(store.add_token(&token("t", 5)).await.unwrap());
    enrol(&store, &host(1)).await;
    let again = Host { key: key(1), ..host(2) };
    let first = first_event(&again);
    for credential in [Credential::Trusted, with("t"), with("unknown")] {
        let enrolled = store.enrol(&again, &first, &credential, at(1)).await.unwrap();
        assert_eq!(enrolled, Enrolled::KeyKnown(host_id(1)));
    }
    edit(&store, host_id(1), |host| host.state = State::Retired { since: at(1) }).await;
    let enrolled = store.enrol(&again, &first, &with("t"), at(1)).await.unwrap();
    assert_eq!(enrolled, Enrolled::KeyKnown(host_id(1)), "a retired host keeps its key");
    assert_eq!(store.token("t").await.unwrap().unwrap().uses_left, 5);
    assert_eq!(names(&store, &all()).await, ["host-00001"]);
}

pub async fn a_token_enrols_as_often_as_it_says(store: Subject) {
    assert!(store.add_token(&token("t", 3)).await.unwrap());
    for n in 1..=4 {
        let one = host(n);
        let enrolled = store.enrol(&one, &first_event(&one), &with("t"), at(1)).await.unwrap();
        assert_eq!(enrolled, if n <= 3 { Enrolled::Done } else { Enrolled::TokenRefused }, "host {n}");
    }
    let spent = store.token("t").await.unwrap().unwrap();
    assert_eq!(spent.uses_left, 0);
    assert_eq!(spent.redeemed, [key(1), key(2), key(3)]);
}

pub async fn a_token_that_is_spent_expired_revoked_or_unknown_enrols_nobody(store: Subject) {
    assert!(store.add_token(&token("spent", 0)).await.unwrap());
    assert!(store.add_token(&token("expired", 1)).await.unwrap());
    assert!(store.add_token(&token("revoked", 1)).await.unwrap());
    assert!(store.revoke_token("revoked", at(1)).await.unwrap());
    let one = host(1);
    for (id, now) in [("spent", at(2)), ("expired", at(3_600_000)), ("revoked", at(2)), ("unknown", at(2))] {
        let enrolled = store.enrol(&one, &first_event(&one), &with(id), now).await.unwrap();
        assert_eq!(enrolled, Enrolled::TokenRefused, "{id}");
    }
    assert_eq!(store.host(one.id).await.unwrap(), None);
    assert!(events(&store).await.is_empty());
    let enrolled = store.enrol(&one, &first_event(&one), &with("expired"), at(3_599_999)).await.unwrap();
    assert_eq!(enrolled, Enrolled::Done, "in the last millisecond");
}

pub async fn of_a_hundred_that_redeem_a_single_use_token_at_once_one_is_enrolled(store: Subject) {
    assert!(store.add_token(&token("t", 1)).await.unwrap());
    let hosts: Vec<Host> = (0..100).map(host).collect();
    let tries = hosts.iter().map(|one| {
        let store = &store;
        async move { store.enrol(one, &first_event(one), &with("t"), at(1)).await.unwrap() }
    });
    let outcomes = join_all(tries).await;
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Enrolled::Done).count(), 1);
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Enrolled::TokenRefused).count(), 99);
    let enrolled = store.hosts(&all()).await.unwrap();
    let [only] = enrolled.as_slice() else { panic!("{} hosts", enrolled.len()) };
    assert_eq!(store.token("t").await.unwrap().unwrap().redeemed, [only.value.key]);
    assert_eq!(events(&store).await.len(), 1);
    let known = store.enrol(&only.value, &first_event(&only.value), &with("t"), at(2)).await.unwrap();
    assert_eq!(known, Enrolled::KeyKnown(only.value.id), "asked again");
}

pub async fn a_refused_enrolment_takes_no_use_off_the_token(store: Subject) {
    assert!(store.add_token(&token("t", 1)).await.unwrap());
    enrol(&store, &host(1)).await;
    let namesake = Host { name: name("host-00001"), ..host(2) };
    let enrolled = store.enrol(&namesake, &first_event(&namesake), &with("t"), at(1)).await.unwrap();
    assert_eq!(enrolled, Enrolled::NameTaken);
    let held = store.token("t").await.unwrap().unwrap();
    assert_eq!((held.uses_left, held.redeemed.len()), (1, 0));
}

pub async fn every_write_of_a_host_changes_its_revision(store: Subject) {
    enrol(&store, &up(1)).await;
    let mut seen = vec![read(&store, host_id(1)).await.rev];
    edit(&store, host_id(1), |_| {}).await;
    seen.push(read(&store, host_id(1)).await.rev);
    let beat = beat_of(&up(1), at(10), nonce(1));
    assert_eq!(store.beat(beat).await.unwrap(), Beaten::Stored);
    seen.push(read(&store, host_id(1)).await.rev);
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "{seen:?}");
    assert!(seen[0] > 0, "0 is for what is not there");
}

pub async fn a_commit_from_what_is_no_longer_true_conflicts(store: Subject) {
    enrol(&store, &host(1)).await;
    let stale = read(&store, host_id(1)).await;
    edit(&store, host_id(1), |host| host.transitions = 1).await;
    let current = read(&store, host_id(1)).await;
    assert_eq!(store.commit(to(stale, vec![])).await.unwrap(), Committed::Conflict);
    let future = Versioned { rev: current.rev + 1, ..current.clone() };
    assert_eq!(store.commit(to(future, vec![])).await.unwrap(), Committed::Conflict);
    assert_eq!(read(&store, host_id(1)).await, current);
}

fn incident(n: u64) -> Incident {
    let group = Group { tag: Some(("site".into(), "ams1".into())), expected: 9, silent: 7, down: 1 };
    let (incident, _) = Incident::open(&host(n), &group, Vec::new(), at(5), &Policy::STANDARD);
    Incident { id: incident_id(n), ..incident }
}

pub async fn a_commit_that_conflicts_writes_nothing(store: Subject) {
    enrol_all(&store, &[host(1), host(2)]).await;
    let opened = Versioned { value: incident(1), rev: 0 };
    let change = Change { incident: Some(opened.clone()), ..Change::default() };
    assert_eq!(store.commit(change).await.unwrap(), Committed::Done);
    let (hosts, incidents) = (store.hosts(&all()).await.unwrap(), store.open_incidents().await.unwrap());
    let told = events(&store).await;

    let good = |n: usize| {
        let mut held = hosts[n].clone();
        held.value.transitions = 9;
        held
    };
    let stale_host = Versioned { rev: hosts[0].rev + 7, ..good(0) };
    let mut renamed = good(0);
    renamed.value.name = hosts[1].value.name.clone();
    let mut rekeyed = good(0);
    rekeyed.value.key = key(2);
    let new_incident = Versioned { value: incident(2), rev: 0 };
    let stale_incident = Versioned { value: Incident { silent: 99, ..incident(1) }, rev: incidents[0].rev + 1 };
    let events_of = || vec![event(50, Some(&host(1)), Audience::Everyone), event(51, None, Audience::Nobody)];
    for (why, host, incident) in [
        ("the host has changed", Some(stale_host), Some(new_incident.clone())),
        ("the name is taken", Some(renamed), Some(new_incident.clone())),
        ("the key is another host's", Some(rekeyed), Some(new_incident)),
        ("the incident has changed", Some(good(0)), Some(stale_incident)),
        ("the incident exists", Some(good(0)), Some(opened)),
        ("the incident is not there", Some(good(0)), Some(Versioned { value: incident(3), rev: 1 })),
    ] {
        let change = Change { host, incident, events: events_of() };
        assert_eq!(store.commit(change).await.unwrap(), Committed::Conflict, "{why}");
        assert_eq!(store.hosts(&all()).await.unwrap(), hosts, "{why}");
        assert_eq!(store.open_incidents().await.unwrap(), incidents, "{why}");
        assert_eq!(events(&store).await, told, "{why}");
        assert!(store.untold(10).await.unwrap().is_empty(), "{why}");
    }
}

pub async fn a_commit_of_an_unknown_host_conflicts(store: Subject) {
    for rev in [0, 1] {
        let change = to(Versioned { value: host(1), rev }, vec![event(1, None, Audience::Everyone)]);
        assert_eq!(store.commit(change).await.unwrap(), Committed::Conflict);
    }
    assert!(events(&store).await.is_empty());
    assert!(store.hosts(&all()).await.unwrap().is_empty());
}

pub async fn an_event_is_stored_once_and_never_changes(store: Subject) {
    let first = event(1, None, Audience::Everyone);
    let other = Event { at: at(99), audience: Audience::Admins, ..first.clone() };
    for event in [first.clone(), first.clone(), other] {
        let change = Change { events: vec![event], ..Change::default() };
        assert_eq!(store.commit(change).await.unwrap(), Committed::Done, "a stored event is no conflict");
    }
    assert_eq!(events(&store).await, std::slice::from_ref(&first));
    store.tell(first.id, &[]).await.unwrap();
    let change = Change { events: vec![first], ..Change::default() };
    assert_eq!(store.commit(change).await.unwrap(), Committed::Done);
    assert!(store.untold(10).await.unwrap().is_empty(), "told stays told");
}

pub async fn of_64_commits_of_one_decision_one_is_done(store: Subject) {
    enrol(&store, &up(1)).await;
    let mut decided = read(&store, host_id(1)).await;
    decided.value.transitions = 1;
    let told = event(1, Some(&decided.value), Audience::Everyone);
    let tries = (0..64).map(|_| store.commit(to(decided.clone(), vec![told.clone()])));
    let outcomes = join_all(tries).await;
    let done = outcomes.into_iter().filter(|outcome| matches!(outcome, Ok(Committed::Done))).count();
    assert_eq!(done, 1);
    assert_eq!(store.untold(10).await.unwrap(), [told]);
    assert_eq!(read(&store, host_id(1)).await.value, decided.value);
}

pub async fn an_incident_is_created_once_and_replaced_by_revision(store: Subject) {
    let put = |value: Incident, rev| Change { incident: Some(Versioned { value, rev }), ..Change::default() };
    let tries = (0..16).map(|_| store.commit(put(incident(1), 0)));
    let done = join_all(tries).await.into_iter().filter(|outcome| matches!(outcome, Ok(Committed::Done))).count();
    assert_eq!(done, 1);
    let held = store.open_incidents().await.unwrap();
    assert_eq!(held.iter().map(|held| held.value.clone()).collect::<Vec<_>>(), [incident(1)]);
    let closed = Incident { closed_at: Some(at(9)), ..incident(1) };
    assert_eq!(store.commit(put(closed.clone(), held[0].rev)).await.unwrap(), Committed::Done);
    assert_eq!(store.commit(put(incident(1), held[0].rev)).await.unwrap(), Committed::Conflict);
    assert_eq!(store.commit(put(incident(1), 0)).await.unwrap(), Committed::Conflict, "closed is not gone");
    assert!(store.open_incidents().await.unwrap().is_empty());
}

pub async fn everything_that_a_host_has_is_read_back(store: Subject) {
    let mut dice = Dice(1);
    for n in 0..200 {
        let one = dice.host(n, at(0));
        enrol(&store, &one).await;
        assert_eq!(read(&store, one.id).await.value, one);
        let other = Host { name: one.name.clone(), ..dice.host(n, at(1000)) };
        edit(&store, one.id, |host| *host = other.clone()).await;
        assert_eq!(read(&store, one.id).await.value, other);
        assert_eq!(store.host_by_key(&other.key).await.unwrap().map(|held| held.value), Some(other));
    }
}

pub async fn numbers_beyond_every_limit_are_kept_or_capped(store: Subject) {
    let cap = |number: u64| number == u64::MAX || i64::try_from(number) == Ok(i64::MAX);
    let mut one = up(1);
    one.interval_ms = u64::MAX;
    one.grace_ms = u64::MAX;
    one.max_away_ms = Some(u64::MAX);
    one.state = State::Stopped { since: Time::MAX, back_by: Time::MAX, reason: hb_wire::beat::StopReason::Sleep };
    one.life.nonce_at = Time::MAX;
    one.life.silent_from = Time::MAX;
    one.life.heard_at = Some(Time::MAX);
    one.life.seq = u64::MAX;
    one.life.up_s = u64::MAX;
    one.life.skew_ms = Some(i64::MIN);
    one.transitions = u64::MAX;
    enrol(&store, &one).await;
    let life = read(&store, one.id).await.value.life;
    assert!([life.nonce_at.0, life.silent_from.0, life.seq, life.up_s].into_iter().all(cap), "{life:?}");
    assert_eq!(life.skew_ms, Some(i64::MIN));
    edit(&store, one.id, |host| host.state = State::Up { since: Time::MAX }).await;
    for now in [Time::ZERO, at(0), Time::MAX] {
        let beat = beat_of(&read(&store, one.id).await.value, now, nonce(1));
        let handed_back = store.beat(beat).await.unwrap();
        assert!(matches!(handed_back, Beaten::Stored | Beaten::Decide(_)), "{handed_back:?}");
        let due = store.due(now, &hb_core::ledger::Ledger::default(), &Policy::STANDARD, 10).await.unwrap();
        assert!(due.len() <= 1);
        store.fleet(now).await.unwrap();
        assert_eq!(store.silence(now, &tags(&[("a", "b")])).await.unwrap().len(), 2);
        store.silent(now, None, 10).await.unwrap();
        store.tokens(now).await.unwrap();
        store.claim(now, Time::MAX, usize::MAX).await.unwrap();
    }
    let far = Event { at: Time::MAX, ..event(1, Some(&one), Audience::Everyone) };
    let change = Change { events: vec![far.clone()], ..Change::default() };
    assert_eq!(store.commit(change).await.unwrap(), Committed::Done);
    assert_eq!(store.event(far.id).await.unwrap(), Some(far));
    let query =
        EventQuery { since: Some(Time::MAX), after: Some(u64::MAX), limit: usize::MAX, ..EventQuery::default() };
    assert_eq!(store.events(&query).await.unwrap().len(), 1);
    assert!(store.deliveries(None, Some(u64::MAX), usize::MAX).await.unwrap().is_empty());
}

pub async fn hosts_are_listed_by_name_and_filtered(store: Subject) {
    let tagged = |n, text, pairs: &[(&str, &str)]| Host { name: name(text), tags: tags(pairs), ..host(n) };
    let hosts = [
        tagged(1, "web10", &[("env", "prod"), ("site", "ams1")]),
        tagged(2, "web1", &[("env", "prod")]),
        tagged(3, "db.example.org", &[("env", "test"), ("site", "ams1")]),
        tagged(4, "old", &[("env", "prod")]),
    ];
    enrol_all(&store, &hosts).await;
    edit(&store, host_id(4), |host| host.state = State::Retired { since: at(1) }).await;
    let query = |pairs: &[(&str, &str)], retired| HostQuery {
        tags: pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        retired,
        limit: 100,
        ..HostQuery::default()
    };
    assert_eq!(names(&store, &query(&[], false)).await, ["db.example.org", "web1", "web10"]);
    assert_eq!(names(&store, &query(&[], true)).await, ["db.example.org", "old", "web1", "web10"]);
    assert_eq!(names(&store, &query(&[("env", "prod")], false)).await, ["web1", "web10"]);
    assert_eq!(names(&store, &query(&[("env", "prod"), ("site", "ams1")], true)).await, ["web10"]);
    assert!(names(&store, &query(&[("env", "Prod")], true)).await.is_empty());
    assert!(names(&store, &query(&[("env", "prod' OR '1'='1")], true)).await.is_empty());
    let named = HostQuery { name: Some(name("web1")), ..query(&[], false) };
    assert_eq!(names(&store, &named).await, ["web1"]);
    edit(&store, host_id(2), |host| host.tags = tags(&[("env", "test")])).await;
    assert_eq!(names(&store, &query(&[("env", "prod")], false)).await, ["web10"]);
    assert_eq!(names(&store, &query(&[("env", "test")], false)).await, ["db.example.org", "web1"]);
}

pub async fn lists_of_hosts_go_on_after_the_last_one_seen(store: Subject) {
    let hosts: Vec<Host> = (0..37).map(host).collect();
    enrol_all(&store, &hosts).await;
    let mut seen = Vec::new();
    let mut query = HostQuery { limit: 10, ..HostQuery::default() };
    loop {
        let page = store.hosts(&query).await.unwrap();
        assert!(page.len() <= 10);
        let Some(last) = page.last() else { break };
        query.after = Some((last.value.name.to_string(), last.value.id));
        seen.extend(page.into_iter().map(|held| held.value));
    }
    assert_eq!(seen, hosts);
    let nowhere = HostQuery { after: Some(("ab\"c; \u{0} – not a name".into(), host_id(0))), ..query.clone() };
    assert_eq!(store.hosts(&nowhere).await.unwrap().len(), 10, "a place in the order need not be a name");
    assert!(store.hosts(&HostQuery { limit: 0, ..HostQuery::default() }).await.unwrap().is_empty());
}
