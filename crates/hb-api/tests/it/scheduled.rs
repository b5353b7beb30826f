//! A sweeper that comes by each minute, and other processes that take the beats: as on AWS, in virtual time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hb_api::app::{App, Clock, Entropy, Loops};
use hb_api::courier::Courier;
use hb_api::id_key::IdKey;
use hb_api::watch::Prober;
use hb_core::observer::Rules;
use hb_store::faulty::{Faults, FaultyStore, When};
use hb_store::{Signer, Store};
use hb_wire::beat::BeatAnswer;
use hb_wire::nonce::Nonce;
use hb_wire::view::{Enrolment, HostState, HostView};
use http::StatusCode;
use http_body_util::BodyExt as _;
use serde_json::json;
use tower::ServiceExt as _;

use crate::support::{Agent, World};

/// The world's own application takes beats and answers operators; sweepers are made beside it.
struct Cloud {
    world: World,
    sweeper: Arc<App>,
}

impl Cloud {
    async fn new() -> Self {
        let world = World::with(|settings| {
            settings.loops = Loops::Elsewhere;
            settings.observer = Rules::SCHEDULED;
            settings.id_key = Some(IdKey::new([7; 32]));
        })
        .await;
        let sweeper = Self::process(&world, Faults::none());
        Self { world, sweeper }
    }

    /// Another process over the same table.
    fn process(world: &World, faults: Faults) -> Arc<App> {
        Self::over(world, Arc::new(FaultyStore::new(world.store.clone(), faults)))
    }

    fn over(world: &World, store: Arc<dyn Store>) -> Arc<App> {
        Arc::new(App::new(
            store,
            Arc::clone(&world.clock) as Arc<dyn Clock>,
            Arc::clone(&world.random) as Arc<dyn Entropy>,
            Arc::clone(&world.courier) as Arc<dyn Courier>,
            Arc::clone(&world.path) as Arc<dyn Prober>,
            world.app.settings.clone(),
        ))
    }

    /// A minute passes, and the sweeper comes by.
    async fn minute(&self) {
        self.world.jump(60);
        self.sweeper.come_by().await.unwrap();
        while self.world.app.deliver().await.unwrap() > 0 {}
    }

    async fn is_down(&self, agent: &Agent) -> bool {
        self.world.ask("GET", &format!("/v1/hosts/{}", agent.id)).await.read::<HostView>().state == HostState::Down
    }

    async fn unobserved_ms(&self) -> u64 {
        let observation = self.world.store.observation().await.unwrap().unwrap().value;
        observation.ledger.unobserved_ms(crate::support::BEGIN, self.world.now())
    }
}

#[tokio::test]
async fn minutes_that_are_swept_are_observed_and_a_silent_host_goes_down_in_time() {
    let cloud = Cloud::new().await;
    let mut beating = cloud.world.enrol("beating").await;
    let mut silent = cloud.world.enrol("silent").await;
    cloud.world.beat(&mut silent).await;
    for minute in 1..=30 {
        cloud.world.beat(&mut beating).await;
        cloud.minute().await;
        assert_eq!(cloud.is_down(&silent).await, minute >= 3, "interval and grace are three minutes; this is {minute}");
        assert!(!cloud.is_down(&beating).await, "{minute}");
    }
    assert_eq!(cloud.unobserved_ms().await, 0);
}

#[tokio::test]
async fn a_lone_death_among_laptops_that_are_away_is_told_on_its_own() {
    let cloud = Cloud::new().await;
    let laptop = |name: &str| json!({"name": name, "class": "intermittent", "max_away_s": 86_400});
    for name in ["lap1", "lap2", "lap3"] {
        let mut host = cloud.world.enrol_as(&laptop(name)).await;
        cloud.world.beat(&mut host).await;
    }
    let mut server = cloud.world.enrol("server").await;
    cloud.world.beat(&mut server).await;
    for _ in 0..4 {
        cloud.minute().await;
    }
    assert!(cloud.is_down(&server).await);
    let incidents = cloud.world.store.open_incidents().await.unwrap();
    assert!(incidents.is_empty(), "one server is no mass silence: {incidents:?}");
}

#[tokio::test]
async fn it_is_the_same_when_each_run_is_a_new_process() {
    let mut cloud = Cloud::new().await;
    let mut silent = cloud.world.enrol("silent").await;
    cloud.world.beat(&mut silent).await;
    for _ in 0..5 {
        cloud.sweeper = Cloud::process(&cloud.world, Faults::none());
        cloud.minute().await;
    }
    assert!(cloud.is_down(&silent).await);
    assert_eq!(cloud.unobserved_ms().await, 0);
}

#[tokio::test]
async fn a_missed_minute_is_no_gap_and_missed_ten_are_one_that_accuses_nobody() {
    let cloud = Cloud::new().await;
    let mut host = cloud.world.enrol("web1").await;
    cloud.world.beat(&mut host).await;
    cloud.minute().await;
    cloud.world.jump(60);
    cloud.world.beat(&mut host).await;
    cloud.minute().await;
    assert_eq!(cloud.unobserved_ms().await, 0, "one missed run");
    cloud.world.jump(600);
    cloud.minute().await;
    assert!(cloud.unobserved_ms().await >= 600_000);
    assert!(!cloud.is_down(&host).await, "nobody could have heard it");
    for _ in 0..6 {
        cloud.minute().await;
    }
    assert!(cloud.is_down(&host).await, "but it is silent");
}

#[tokio::test]
async fn a_cut_path_freezes_judgement_from_the_last_proof_on() {
    let cloud = Cloud::new().await;
    let mut host = cloud.world.enrol("web1").await;
    cloud.world.beat(&mut host).await;
    cloud.minute().await;
    cloud.world.path.cut.store(true, Ordering::SeqCst);
    for _ in 0..20 {
        cloud.minute().await;
        assert!(!cloud.is_down(&host).await);
    }
    assert_eq!(cloud.world.ask("GET", "/v1/status").await.read::<serde_json::Value>()["status"], "blind");
    cloud.world.path.cut.store(false, Ordering::SeqCst);
    cloud.minute().await;
    assert!(!cloud.is_down(&host).await, "it gets its time from here");
}

#[tokio::test]
async fn of_two_sweepers_at_once_both_judge_and_what_they_decide_is_told_once() {
    let cloud = Cloud::new().await;
    let hook = json!({"kind": "webhook", "name": "hook", "settings": {"url": "https://hook.example.org/"}});
    assert_eq!(cloud.world.post("POST", "/v1/channels", &hook).await.status, StatusCode::CREATED);
    let mut host = cloud.world.enrol("web1").await;
    cloud.world.beat(&mut host).await;
    let other = Cloud::process(&cloud.world, Faults::none());
    for _ in 0..5 {
        cloud.world.jump(60);
        let (one, two) = tokio::join!(cloud.sweeper.come_by(), other.come_by());
        assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
        while cloud.world.app.deliver().await.unwrap() > 0 {}
    }
    assert!(cloud.is_down(&host).await);
    let downs = cloud.world.courier.sent().into_iter().filter(|(_, _, notice)| notice.event == "down").count();
    assert_eq!(downs, 1);
}

#[tokio::test]
async fn a_warm_sweeper_reads_the_observation_only_where_somebody_else_stored_one() {
    let mut cloud = Cloud::new().await;
    let reads = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&reads);
    let count = Faults::none().hook(move |point| {
        counted
            .fetch_add(usize::from(point.call.method == "observation" && point.when == When::Before), Ordering::SeqCst);
        Box::pin(core::future::ready(()))
    });
    cloud.sweeper = Cloud::process(&cloud.world, count);
    for _ in 0..6 {
        cloud.minute().await;
    }
    assert_eq!(reads.load(Ordering::SeqCst), 1, "what it stored itself it knows");
    cloud.world.jump(30);
    Cloud::process(&cloud.world, Faults::none()).come_by().await.unwrap();
    cloud.minute().await;
    assert_eq!(reads.load(Ordering::SeqCst), 2, "another one came by meanwhile");
    cloud.world.jump(100);
    cloud.minute().await;
    assert_eq!(reads.load(Ordering::SeqCst), 3, "nobody vouches for what was stored so long ago");
    assert_eq!(cloud.unobserved_ms().await, 160_000, "a gap of more than 150 s");
}

#[tokio::test]
async fn where_only_beats_are_taken_every_other_path_is_a_problem_that_says_so() {
    let cloud = Cloud::new().await;
    let ingest = hb_api::http::ingest(Cloud::process(&cloud.world, Faults::none()));
    for (method, path, status, code) in [
        ("GET", "/v1/hosts", StatusCode::NOT_FOUND, "not_found"),
        ("GET", "/v1/beat", StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
    ] {
        let request = http::Request::builder().method(method).uri(path).body(axum::body::Body::empty()).unwrap();
        let answer = ingest.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let problem: hb_wire::problem::Problem = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem.code.to_string(), code, "{path}");
    }
}

#[tokio::test]
async fn a_host_that_was_there_before_the_second_region_learns_of_it_when_it_enrols_again() {
    let cloud = Cloud::new().await;
    let host = cloud.world.enrol("web1").await;
    let second = "https://beat.eu-west-1.example/v1/beat".to_owned();
    let mut settings = cloud.world.app.settings.clone();
    settings.beat_urls.push(second.clone());
    let world = &cloud.world;
    let later = hb_api::http::management(Arc::new(App::new(
        Arc::new(world.store.clone()),
        Arc::clone(&world.clock) as Arc<dyn Clock>,
        Arc::clone(&world.random) as Arc<dyn Entropy>,
        Arc::clone(&world.courier) as Arc<dyn Courier>,
        Arc::clone(&world.path) as Arc<dyn Prober>,
        settings,
    )));
    let call = World::enrolment(&host.key, &json!({"name": "web1"}));
    let answer = later.oneshot(call.request().unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let enrolment: Enrolment = serde_json::from_slice(&body).unwrap();
    assert_eq!((enrolment.id.to_string(), enrolment.beat_urls.last()), (host.id, Some(&second)));
}

#[tokio::test]
async fn whoever_beats_too_often_is_told_to_wait_until_he_has_waited_whatever_he_sends() {
    let gap = json!({"failed": 1, "since_s": 1, "error": "dns"});
    for more in [json!({}), json!({"gap": gap})] {
        let cloud = Cloud::new().await;
        let mut host = cloud.world.enrol("web1").await;
        let burst = cloud.world.app.settings.beats_per_interval;
        let mut taken = 0;
        for _ in 0..3 * burst {
            host.seq += 1;
            let mut beat =
                json!({"boot": host.boot, "run": host.run, "seq": host.seq, "up": 9, "v": "1", "pass": host.pass});
            beat.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let answer = cloud.world.send(&host.sign(beat.to_string().as_bytes())).await;
            if answer.status == StatusCode::OK {
                taken += 1;
                let answer: BeatAnswer = answer.read();
                host.nonce = answer.next.parse().unwrap();
                host.pass = answer.pass.or(host.pass);
            } else {
                assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{answer}");
            }
        }
        assert_eq!(taken, burst, "its share, with {more}");
    }
}

#[tokio::test]
async fn an_id_that_was_made_up_reads_nothing() {
    let cloud = Cloud::new().await;
    let host = cloud.world.enrol("web1").await;
    let mut stranger = cloud.world.enrol("web2").await;
    let mut id = host.id.clone();
    let last = id.pop().unwrap();
    id.push(if last == '0' { '1' } else { '0' });
    stranger.id = id;
    let answer = cloud.world.send(&stranger.call()).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::UNAUTHORIZED, "bad_signature"));
}

#[tokio::test]
async fn a_key_that_another_process_rotated_is_taken_here_at_once_and_the_old_one_no_more() {
    let cloud = Cloud::new().await;
    let mut host = cloud.world.enrol("web1").await;
    // This process knows the old key.
    cloud.world.beat(&mut host).await;
    cloud.world.jump(60);
    let (new, id) = (cloud.world.host_key(), host.id.parse().unwrap());
    // Another one takes the new key.
    let mut held = cloud.world.store.host(id).await.unwrap().unwrap();
    held.value.key = new.public();
    let change = hb_store::Change { host: Some(held), ..hb_store::Change::default() };
    assert_eq!(cloud.world.store.commit(change).await.unwrap(), hb_store::Committed::Done);
    let old = core::mem::replace(&mut host.key, new);
    cloud.world.beat(&mut host).await;
    host.key = old;
    let refused = cloud.world.send(&host.call()).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{refused}");
}

#[tokio::test]
async fn what_was_seen_of_a_host_a_moment_ago_refuses_nobody_and_a_stranger_has_it_read_once() {
    let cloud = Cloud::new().await;
    let mut host = cloud.world.enrol("web1").await;
    let id = host.id.parse().unwrap();
    let held = cloud.world.store.host(id).await.unwrap().unwrap();
    let store = Arc::new(FaultyStore::new(cloud.world.store.clone(), Faults::none()));
    // As it was before its key was rotated.
    store.glimpse(id, Signer { key: cloud.world.host_key().public(), ..Signer::from(&held.value) });
    let router = hb_api::http::ingest(Cloud::over(&cloud.world, Arc::clone(&store) as Arc<dyn Store>));
    let first = host.call();
    let answer = router.clone().oneshot(first.request().unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    host.key = cloud.world.host_key();
    let forged = host.call();
    let mut reads = Vec::new();
    for _ in 0..4 {
        let answer = router.clone().oneshot(forged.request().unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        reads.push(store.calls("host"));
    }
    assert!(reads[0] <= 3 && reads.iter().all(|read| *read == reads[0]), "{reads:?}");
}

/// Sends a beat to a process of its own; how it was answered, and how often that process read the host.
async fn elsewhere(cloud: &Cloud, host: &mut Agent) -> (StatusCode, BeatAnswer, u64) {
    let store = Arc::new(FaultyStore::new(cloud.world.store.clone(), Faults::none()));
    let router = hb_api::http::ingest(Cloud::over(&cloud.world, Arc::clone(&store) as Arc<dyn Store>));
    let answer = router.oneshot(host.call().request().unwrap()).await.unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let answer: BeatAnswer = serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{status} {body:?}: {error}"));
    host.nonce = answer.next.parse().unwrap();
    host.pass = answer.pass.clone().or(host.pass.take());
    (status, answer, store.calls("host"))
}

#[tokio::test]
async fn a_host_with_a_pass_is_known_wherever_it_beats_without_a_read() {
    let cloud = Cloud::new().await;
    let mut host = cloud.world.enrol("web1").await;
    cloud.world.beat(&mut host).await;
    let first = host.pass.clone().expect("its first answer brings one");
    for _ in 0..24 * 60 - 1 {
        cloud.world.jump(60);
        let (status, answer, reads) = elsewhere(&cloud, &mut host).await;
        assert_eq!((status, answer.pass, reads), (StatusCode::OK, None, 0));
    }
    // A day later it is read again: what an operator changed is not passed over for ever.
    cloud.world.jump(90);
    let (_, answer, reads) = elsewhere(&cloud, &mut host).await;
    assert_eq!((answer.pass.is_some_and(|pass| pass != first), reads), (true, 1));
    let (_, answer, reads) = elsewhere(&cloud, &mut host).await;
    assert_eq!((answer.pass, reads), (None, 0));
}

#[tokio::test]
async fn a_pass_that_is_no_good_is_as_none() {
    let cloud = Cloud::new().await;
    let mut host = cloud.world.enrol("web1").await;
    let mut other = cloud.world.enrol("web2").await;
    for agent in [&mut host, &mut other] {
        cloud.world.beat(agent).await;
    }
    for wrong in ["", "made up", &"A".repeat(86), &"A".repeat(4000), &other.pass.clone().unwrap()] {
        host.pass = Some(wrong.to_owned());
        let (status, answer, reads) = elsewhere(&cloud, &mut host).await;
        assert_eq!((status, answer.pass.is_some(), reads), (StatusCode::OK, true, 1), "{wrong}");
    }
}

#[tokio::test]
async fn a_pass_opens_nothing_to_a_key_that_was_replaced_or_to_a_host_that_was_retired() {
    let cloud = Cloud::new().await;
    let mut host = cloud.world.enrol("web1").await;
    cloud.world.beat(&mut host).await;
    let (pass, spent, id) = (host.pass.clone(), host.nonce, host.id.parse().unwrap());
    let mut held = cloud.world.store.host(id).await.unwrap().unwrap();
    let new = cloud.world.host_key();
    held.value.key = new.public();
    let change = hb_store::Change { host: Some(held), ..hb_store::Change::default() };
    assert_eq!(cloud.world.store.commit(change).await.unwrap(), hb_store::Committed::Done);
    let old = core::mem::replace(&mut host.key, new);
    // The new key comes with the old one's pass, and gets its own.
    let (status, _, _) = elsewhere(&cloud, &mut host).await;
    assert_eq!((status, host.pass == pass), (StatusCode::OK, false));
    let (_, _, reads) = elsewhere(&cloud, &mut host).await;
    assert_eq!(reads, 0);
    // A process that has read nothing believes the pass, and still stores nothing by the old key: nonces are given to the new one.
    let new = core::mem::replace(&mut host.key, old);
    let (passed, unspent) = (core::mem::replace(&mut host.pass, pass), host.nonce);
    for nonce in [spent, Nonce::NONE] {
        host.nonce = nonce;
        let fresh = hb_api::http::ingest(Cloud::process(&cloud.world, Faults::none()));
        let before = cloud.world.digest();
        let answer = fresh.oneshot(host.call().request().unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(cloud.world.digest(), before);
    }
    let answer = cloud.world.ask("DELETE", &format!("/v1/hosts/{id}")).await;
    assert!(answer.status.is_success(), "{answer}");
    let fresh = hb_api::http::ingest(Cloud::process(&cloud.world, Faults::none()));
    (host.key, host.pass, host.nonce) = (new, passed, unspent);
    let answer = fresh.oneshot(host.call().request().unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::GONE);
}

#[tokio::test]
async fn an_interval_that_another_process_shortened_is_told_by_the_very_next_answer() {
    let cloud = Cloud::new().await;
    let mut host = cloud.world.enrol("web1").await;
    cloud.world.beat(&mut host).await;
    cloud.world.jump(1);
    // A beat that nobody has to decide about: from here on this process knows the old interval. Another one changes it.
    let first = cloud.world.beat(&mut host).await;
    cloud.world.jump(1);
    let id = host.id.parse().unwrap();
    let mut held = cloud.world.store.host(id).await.unwrap().unwrap();
    held.value.interval_ms = 5_000;
    let change = hb_store::Change { host: Some(held), ..hb_store::Change::default() };
    assert_eq!(cloud.world.store.commit(change).await.unwrap(), hb_store::Committed::Done);
    let next = cloud.world.beat(&mut host).await;
    assert_eq!((first.interval_s, next.interval_s), (60, 5), "the server counts on what it stored");
}

#[tokio::test]
async fn until_a_sweeper_came_by_nobody_says_that_all_is_well() {
    let cloud = Cloud::new().await;
    let fresh = Cloud::process(&cloud.world, Faults::none());
    assert!(!fresh.observes(), "it has read nothing");
    cloud.minute().await;
    fresh.catch_up(0).await.unwrap();
    assert!(fresh.observes());
    cloud.world.jump(151);
    fresh.catch_up(0).await.unwrap();
    assert!(!fresh.observes(), "the sweeper is gone");
}
