//! What hb-api got wrong, as its code stands: one test for each at least, which hb-api would fail. Those that stand here are about what is
//! decided; the others are where hb is deployed on AWS, over the real functions, or where the template is compared with the code.
//!
//! | what hb-api does | the tests |
//! | --- | --- |
//! | a beat between the sweep's read and its unconditional delete is erased, and told as "missing" and "registered" | `a_beat_between_the_sweep_s_read_and_its_write_is_not_erased` |
//! | 25 rows a minute, of one minute only | `the_twenty_sixth_host_that_dies_in_a_minute_is_told_in_that_minute_too`, `a_sweep_that_was_skipped_for_minutes_forgets_nobody`, `hosts_that_die_in_one_minute_are_one_incident_and_none_is_lost` |
//! | these 25 are counted before those of the other region are left out | `a_sweep_reaches_all_of_its_region_however_many_of_the_other_one_are_silent` |
//! | a failed publish is lost, and the stream goes on; no queue of what was given up, no partial batch | `a_message_that_could_not_be_sent_is_sent_when_it_can_be`, `an_outage_that_sns_did_not_take_is_told_with_its_end_when_sns_works_again`, `an_event_of_another_shape_is_reported_and_put_aside_and_holds_nothing_up`, `test_only_the_notifier_reads_it_and_no_record_can_block_it` |
//! | the stream's function is run for each beat | `test_the_filters_let_through_events_to_tell_and_removals_by_the_time_to_live` |
//! | a subject of all names, which SNS refuses | `a_mass_outage_is_told_whatever_the_number_of_hosts`, `a_subject_is_one_that_sns_takes_whatever_the_hosts_are_called` |
//! | an outage and its end in one batch are dropped | `an_outage_that_ends_before_anybody_was_told_of_it_is_told`, `an_outage_that_sns_did_not_take_is_told_with_its_end_when_sns_works_again` |
//! | a host's name is letters and digits; letters beyond ASCII pass as they are | `host_names_with_dots_and_hyphens_are_taken`, `host_ids_that_differ_are_hosts_that_differ` |
//! | no grace: the interval is the deadline | `a_heartbeat_that_is_a_little_late_is_no_alarm` |
//! | a host that is down is gone: no list, no history | `a_host_that_is_down_is_still_there_with_its_history` |
//! | any key beats for any host, and a replay counts | `a_key_keeps_no_host_with_an_agent_alive_nor_does_a_replay` |
//! | taking a host out of service is an alarm | `taking_a_host_out_of_service_is_no_alarm` |
//! | 30,000 requests a day for each key, however many hosts share it | `a_key_that_many_hosts_share_has_no_limit_of_its_own` |
//! | 25 write units, of which a beat takes three: 750 hosts | `a_beat_is_one_request_and_one_unit_and_no_index`, `test_only_provisioned_capacity_is_bought` |
//! | `dynamodb:*`, SNS and SQS on `*` | `test_nothing_is_allowed_everywhere_and_no_action_has_a_star`, `test_other_services_are_given_as_far_as_needed` |
//! | asking for the status writes a row and lists topics | `asking_for_the_status_writes_nothing_and_needs_no_key`, `the_heartbeats_of_hb_api_are_taken_by_the_api_function` |
//! | the key stands in the command line of curl | `the_crontab_line_of_the_migration_page_beats_and_shows_no_key_in_ps` |
//! | the region of the last beat owns the alarm: when it is lost nobody tells | `a_region_is_lost_and_the_other_one_hears_its_hosts_and_tells_of_its_dead` |
//! | a removal by the time to live that arrives from the other region looks like somebody's delete | `without_any_sweeper_the_time_to_live_that_ends_in_the_other_region_brings_one_alert` |
//! | the table of all regions is made by a script that first deletes every row | `test_the_table_outlives_the_stack`, `test_the_second_region_makes_no_table` |
//! | the other region is reached by the DNS, minutes later | `it_fails_over_to_the_second_address_and_stays_there`, `it_fails_over_in_seconds_sticks_and_asks_the_primary_again_ever_less_often` |

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

/// The table at the top of this file names tests that there are.
#[test]
fn each_defect_has_its_tests() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut tests = BTreeSet::new();
    let mut folders = vec![root.join("crates"), root.join("src"), root.join("tests"), root.join("tools/lambda")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs" || kind == "py") {
                let text = std::fs::read_to_string(&path).unwrap();
                let names = text.lines().filter_map(|line| {
                    let line = line.trim_start().trim_start_matches("async ");
                    let rest = line.strip_prefix("fn ").or_else(|| line.strip_prefix("def "))?;
                    Some(rest.split('(').next()?.to_owned())
                });
                tests.extend(names);
            }
        }
    }
    let rows = include_str!("hb_api_defects.rs").lines().filter_map(|line| line.strip_prefix("//! | ")).skip(2);
    let mut defects = 0;
    for row in rows {
        let (defect, named) = row.split_once(" | ").unwrap();
        let named: Vec<&str> = named.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "{defect}: no test");
        for name in named {
            assert!(tests.contains(name), "{defect}: there is no test {name}");
        }
        defects += 1;
    }
    assert_eq!(defects, 21);
}
