//! What hb-api got wrong, as its code stands: one test for each, which hb-api would fail.
//!
//! What is wrong with its deployment on AWS, and not with what it decides, has its tests where hb is deployed there:
//! - a stream handler that hides its errors lets the stream go on, and alarms are lost for ever: `hb-lambda`,
//!   `an_event_of_another_shape_is_reported_and_put_aside_and_holds_nothing_up`, and for a message that SNS does not take
//!   `a_message_that_sns_did_not_take_is_to_be_sent_again`;
//! - `dynamodb:*`, SNS and SQS on `*` for every function: `tools/lambda/template_test.py`,
//!   `test_nothing_is_allowed_everywhere_and_no_action_has_a_star`;
//! - the region of the last beat owns the alarm, and when it dies, nobody tells: `hb-lambda`,
//!   `a_region_is_lost_and_the_other_one_hears_its_hosts_and_tells_of_its_dead`;
//! - removals by TTL look different elsewhere: `hb-lambda`, the tests of `stream.rs`;
//! - the table of all regions is made by a script that first deletes every row: `tools/lambda/template_test.py`,
//!   `test_the_table_outlives_the_stack`.
//!
//! That a beat costs one write, and no index that moves with it, is measured in the tests of `hb-store-dynamodb`; that no
//! key stands in the command line of `curl`, in those of `hb-server`, which run the line of the migration page.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use hb_api::app::App;
use hb_api::courier::Failure;
use hb_api::heartbeat::Heartbeat;
use hb_store::faulty::{Faults, When};
use hb_store::{MemoryStore, Store as _};
use hb_wire::view::{EventPage, HostState};
use http::StatusCode;
use serde_json::json;

use crate::heartbeats::Site;
use crate::support::{Call, World};

/// `HeartBeatExpirator` reads from an index that lags, and deletes without a condition: a beat in between is erased, and
/// told as "missing" and "registered".
#[tokio::test]
async fn a_beat_between_the_sweep_s_read_and_its_write_is_not_erased() {
    static ARMED: AtomicBool = AtomicBool::new(false);
    static SERVER: OnceLock<(Arc<App>, MemoryStore)> = OnceLock::new();
    let faults = Faults::none().hook(|point| {
        let read = point.call.method == "due" && point.when == When::After;
        let Some((app, store)) = SERVER.get().filter(|_| read && ARMED.load(Ordering::SeqCst)) else {
            return Box::pin(core::future::ready(()));
        };
        Box::pin(async move {
            let policy = &app.settings.policy;
            if store.due(app.clock.now(), &app.watch.ledger(), policy, 1).await.unwrap().is_empty() {
                return;
            }
            app.heartbeat(&Heartbeat { host_id: "web1".to_owned(), interval_ms: Some(60_000) }).await.unwrap();
        })
    });
    let site = Site::on(World::failing(faults).await).await;
    SERVER.set((Arc::clone(&site.world.app), site.world.store.clone())).unwrap();
    site.beat("web1", 60_000).await;
    site.world.pass(119).await;
    let conflicts = site.world.app.metrics.conflicts.get();
    ARMED.store(true, Ordering::SeqCst);
    site.world.pass(3).await;
    ARMED.store(false, Ordering::SeqCst);
    assert!(site.world.app.metrics.conflicts.get() > conflicts, "the beat fell between read and write");
    assert_eq!(site.host("web1").await.state, HostState::Up);
    assert!(site.told().is_empty(), "{:?}", site.words());
}

async fn fleet(site: &Site, count: usize) -> BTreeSet<String> {
    let names: BTreeSet<String> = (0..count).map(|number| format!("web-{number:03}")).collect();
    for name in &names {
        site.beat(name, 60_000).await;
    }
    names
}

/// Every host that some message names.
fn named(site: &Site) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for notice in site.told() {
        names.extend(notice.host.iter().chain(&notice.hosts).map(|host| host.name.clone()));
    }
    names
}

/// Only 25 rows of one minute are read, in one page.
#[tokio::test]
async fn the_twenty_sixth_host_that_dies_in_a_minute_is_told_in_that_minute_too() {
    let site = Site::new().await;
    let names = fleet(&site, 60).await;
    site.world.pass(125).await;
    assert!(site.hosts().await.iter().all(|host| host.state == HostState::Down));
    assert_eq!(named(&site), names);
}

/// Only the minute before this one is read: who expired in a minute that no cron tick saw, waits for the TTL.
#[tokio::test]
async fn a_sweep_that_was_skipped_for_minutes_forgets_nobody() {
    let site = Site::new().await;
    let names = fleet(&site, 30).await;
    site.world.pass(60).await;
    // The process goes on to hear, but nobody sweeps for ten minutes.
    for _ in 0..600 {
        site.world.jump(1);
        site.world.app.watch.heard(site.world.now());
        site.world.app.tick().await.unwrap();
    }
    assert!(site.told().is_empty());
    site.world.pass(2).await;
    assert!(site.hosts().await.iter().all(|host| host.state == HostState::Down));
    assert_eq!(named(&site), names);
}

/// The names of all hosts make the subject, and SNS takes no more than 100 characters: of a mass outage nobody heard.
#[tokio::test]
async fn a_mass_outage_is_told_whatever_the_number_of_hosts() {
    let site = Site::new().await;
    let names = fleet(&site, 200).await;
    site.world.pass(125).await;
    let told = site.told();
    assert!(told.len() < 10, "and not by a message for each: {}", told.len());
    let longest = told.iter().map(|notice| notice.message.chars().count()).max().unwrap();
    assert!(longest < 200, "a line stays a line: {longest} characters");
    assert_eq!(named(&site), names);
}

/// A publish that fails is logged, and forgotten.
#[tokio::test]
async fn a_message_that_could_not_be_sent_is_sent_when_it_can_be() {
    let site = Site::new().await;
    site.beat("web1", 60_000).await;
    *site.world.courier.broken.lock().unwrap() =
        Some(Failure { reason: "503".to_owned(), permanent: false, retry_after_ms: None });
    site.world.pass(130).await;
    assert!(site.told().is_empty());
    *site.world.courier.broken.lock().unwrap() = None;
    site.world.pass(900).await;
    assert_eq!(site.words(), ["web1 down"], "once");
}

/// A host that was deleted and inserted within one batch "flipped": an outage and its end were not told at all.
#[tokio::test]
async fn an_outage_that_ends_before_anybody_was_told_of_it_is_told() {
    let site = Site::new().await;
    site.beat("web1", 60_000).await;
    let seen = site.host("web1").await.last_seen;
    site.world.pass(119).await;
    // Decided, and not delivered: what happens in one batch of a stream.
    site.world.jump(2);
    site.world.app.watch.heard(site.world.now());
    site.world.app.sweep().await.unwrap();
    let down = site.host("web1").await;
    assert_eq!(down.state, HostState::Down);
    site.beat("web1", 60_000).await;
    assert!(site.told().is_empty());
    site.world.pass(2).await;
    // One message for both, since when included: nobody is sent what is over already.
    let told = site.told();
    let [notice] = told.as_slice() else { panic!("{told:#?}") };
    assert_eq!((notice.event.as_str(), notice.since), ("up", seen));
    let events: EventPage = site.world.ask("GET", &format!("/v1/hosts/{}/events", down.id)).await.read();
    let kinds: Vec<&str> = events.events.iter().map(|event| event.event.as_str()).collect();
    assert_eq!(kinds, ["up", "down", "up", "registered"]);
}

/// `StringUtils.isAlphanumeric`: neither `web-01` nor `db1.example.com` is one.
#[tokio::test]
async fn host_names_with_dots_and_hyphens_are_taken() {
    let site = Site::new().await;
    for name in ["web-01", "db1.example.com", "ip-10-0-0-1.eu-west-1.compute.internal", "build_7"] {
        site.beat(name, 60_000).await;
        assert_eq!(site.host(name).await.state, HostState::Up);
    }
}

/// The interval is the deadline: cron that is a second late is an alarm.
#[tokio::test]
async fn a_heartbeat_that_is_a_little_late_is_no_alarm() {
    let site = Site::new().await;
    for _ in 0..10 {
        site.beat("web1", 60_000).await;
        site.world.pass(75).await;
        assert_eq!(site.host("web1").await.state, HostState::Late, "it shows");
    }
    assert!(site.told().is_empty(), "{:?}", site.words());
}

/// The state is whether there is a row: a host that is down is in no list, and nothing tells what happened to it.
#[tokio::test]
async fn a_host_that_is_down_is_still_there_with_its_history() {
    let site = Site::new().await;
    site.beat("web1", 60_000).await;
    let seen = site.host("web1").await.last_seen;
    site.world.pass(86_400).await;
    let host = site.host("web1").await;
    assert_eq!((host.state, host.last_seen), (HostState::Down, seen));
    let events: EventPage = site.world.ask("GET", &format!("/v1/hosts/{}/events", host.id)).await.read();
    let kinds: Vec<&str> = events.events.iter().map(|event| event.event.as_str()).collect();
    assert_eq!(kinds, ["down", "up", "registered"]);
    let why = site.world.ask("GET", &format!("/v1/hosts/{}/why", host.id)).await;
    assert!(why.read::<serde_json::Value>()["because"].as_str().unwrap().contains("web1"), "{why}");
}

/// One key beats for every host, and whoever saw a request can send it again.
#[tokio::test]
async fn a_key_keeps_no_host_with_an_agent_alive_nor_does_a_replay() {
    let site = Site::new().await;
    let mut web1 = site.world.enrol("web1").await;
    let seen = web1.call();
    assert_eq!(site.world.send(&seen).await.status, StatusCode::OK);
    for _ in 0..19 {
        site.world.pass(10).await;
        assert_eq!(site.world.send(&seen).await.code(), "stale_nonce");
        assert_eq!(site.send("web1", 60_000).await.code(), "name_taken");
        let unsigned = Call::new("POST", "/v1/beat").raw(&seen.body).header("x-api-key", &site.world.admin);
        assert_eq!(site.world.send(&unsigned).await.code(), "bad_signature");
    }
    assert_eq!(site.host("web1").await.state, HostState::Down);
    assert_eq!(site.words(), ["web1 down"]);
}

/// `delete_host.sh` sets `test`, and the code reads `is_test`: taking a host out of service is an alarm.
#[tokio::test]
async fn taking_a_host_out_of_service_is_no_alarm() {
    let site = Site::new().await;
    site.beat("web1", 60_000).await;
    let id = site.host("web1").await.id;
    assert_eq!(site.world.ask("DELETE", &format!("/v1/hosts/{id}")).await.status, StatusCode::NO_CONTENT);
    site.world.pass(3_600).await;
    assert!(site.told().is_empty(), "{:?}", site.words());
}

/// The usage plan: 10 requests per second and 30,000 per day for a key, however many hosts share it.
#[tokio::test]
async fn a_key_that_many_hosts_share_has_no_limit_of_its_own() {
    let site = Site::new().await;
    let names = fleet(&site, 200).await;
    // 40,000 in one day of server time, 200 of them in the same instant each time.
    for _ in 0..199 {
        site.world.jump(20);
        site.world.app.watch.heard(site.world.now());
        for name in &names {
            site.beat(name, 60_000).await;
        }
    }
    assert!(site.told().is_empty());
}

/// The status page writes a row, lists the topics, and answers from a cache which hides that it could not.
#[tokio::test]
async fn asking_for_the_status_writes_nothing_and_needs_no_key() {
    let site = Site::new().await;
    site.beat("web1", 60_000).await;
    site.world.pass(5).await;
    let before = site.world.digest();
    for _ in 0..10 {
        let answer = site.world.send(&Call::new("GET", "/v1/status")).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer}");
    }
    assert!(site.world.digest() == before);
    assert_eq!(site.hosts().await.len(), 1, "the status is no host");
    site.world.path.cut.store(true, Ordering::SeqCst);
    site.world.pass(35).await;
    let answer = site.world.send(&Call::new("GET", "/v1/status")).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer}");
    assert_eq!(answer.read::<serde_json::Value>()["observing"], json!(false));
}
