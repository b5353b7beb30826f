//! Many hosts: thousands that die in one minute, and how long a sweep of a hundred thousand takes.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _};
use hb_api::app::{Clock as _, Entropy as _};
use hb_core::host::{Holder, State, Wish};
use hb_core::ledger::Ledger;
use hb_core::machine::{self, Moment};
use hb_core::policy::Policy;
use hb_core::time::Time;
use hb_lambda::clock::{OsEntropy, WallClock};
use hb_store::{Credential, Enrolled, Store as _};
use hb_store_dynamodb::{Connection, DynamoStore, Usage};
use hb_wire::beat::Vitals;
use hb_wire::id::{BootId, HostId, RunId};
use hb_wire::key::HostKey;
use hb_wire::name::{HostName, Tags};
use hb_wire::nonce::Nonce;
use hb_wire::view::Class;
use serde_json::json;

use crate::cloud::Cloud;

/// Hosts that are enrolled at once.
const AT_ONCE: usize = 32;

/// A number from the environment, for the figures of the issue.
fn given(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap())
}

pub(crate) async fn store(cloud: &Cloud) -> DynamoStore {
    let connection = Connection {
        region: "eu-central-1".into(),
        endpoint: Some(cloud.part("dynamodb").to_owned()),
        access_key_id: "LOCALOPERATOR".into(),
        secret_access_key: "local".into(),
        session_token: None,
    };
    let usage = Usage { shards: 4, region: "eu-central-1".into() };
    DynamoStore::open(connection.client(), "hb-local-cloud", usage).await.unwrap()
}

/// Hosts that beat last at `heard`, as a beat leaves them.
pub(crate) async fn add_hosts(store: &DynamoStore, count: u64, interval_s: u64, heard: Time) {
    let enrol = |n: u64| async move {
        let mut random = [0; 32];
        OsEntropy.fill(&mut random);
        let (mut fresh, mut part) = ([0; 16], [0; 10]);
        fresh.copy_from_slice(&random[..16]);
        part.copy_from_slice(&random[16..26]);
        let wish = Wish {
            name: HostName::parse(&format!("many-{n:06}")).unwrap(),
            tags: Tags::default(),
            class: Class::Server,
            interval_s,
            grace_s: interval_s,
            max_away_s: None,
        };
        let fresh = Nonce(fresh);
        let mut host = wish.enrol(HostId::mint(heard.0, part), HostKey::from_seed(random).public(), fresh, heard);
        host.state = State::Up { since: heard };
        host.life.heard_at = Some(heard);
        host.life.silent_from = heard;
        host.life.holder = Some(Holder { boot: BootId(host.id.0), run: Some(RunId(host.id.0)) });
        host.life.seq = 10_000 + n;
        host.life.up_s = 600_000;
        env!("CARGO_PKG_VERSION").clone_into(&mut host.life.agent);
        host.life.vitals = Some(Vitals {
            load1: Some(0.25),
            cpus: Some(4),
            mem_used_bytes: Some(3 << 30),
            mem_total_bytes: Some(8 << 30),
            disk_free_bytes: Some(40 << 30),
            disk_total_bytes: Some(80 << 30),
            ..Vitals::default()
        });
        let moment = Moment { now: heard, ledger: &Ledger::default(), policy: &Policy::STANDARD, fresh };
        let event = machine::registered(&host, &moment);
        assert_eq!(store.enrol(&host, &event, &Credential::Trusted, heard).await.unwrap(), Enrolled::Done);
    };
    stream::iter(0..count).map(enrol).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
}

fn peak_mib(cloud: &Cloud, function: &str) -> u64 {
    let pid = cloud.made["pids"][function].as_u64().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// `HB_DEATHS=5000 cargo nextest run --workspace -E 'package(hb-lambda) & test(die_in_one_minute)' --no-capture`
#[test]
fn hosts_that_die_in_one_minute_are_one_incident_and_none_is_lost() {
    let deaths = given("HB_DEATHS", 300);
    // Thousands are for the time that they take; a few hundred, for what the roles allow.
    let options: &[&str] = if deaths > 300 { &["--no-roles"] } else { &[] };
    let mut cloud = Cloud::start(3600.0, options);
    let operator = cloud.machine();
    operator.run(&["channels", "add", "email", "--to", "ops@example.org"]);
    let sweep = json!({"do": "invoke", "function": "sweeper", "event": {"hb": "sweep"}});
    // It begins to observe.
    cloud.order(&sweep);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(store(&cloud));
    let begun = Instant::now();
    let heard = WallClock::default().now();
    // Long enough for all of them to be there before the first one is due.
    let interval_s = 10 + deaths / 100;
    runtime.block_on(add_hosts(&store, deaths, interval_s, heard));
    let need = Duration::from_secs(2 * interval_s + 1);
    assert!(begun.elapsed() < need, "{deaths} hosts took {:?}", begun.elapsed());
    // It goes on to observe, until their deadline has passed.
    while begun.elapsed() < need {
        cloud.order(&sweep);
        std::thread::sleep(Duration::from_secs(5).min(need.saturating_sub(begun.elapsed())));
    }
    let dying = Instant::now();
    let answer = cloud.order(&sweep);
    let swept = dying.elapsed();
    println!(
        "{deaths} deaths: a sweep of {:.1} s, {answer}, at most {} MiB",
        swept.as_secs_f64(),
        peak_mib(&cloud, "sweeper")
    );
    cloud.order(&sweep);
    let told = cloud.await_alert("many-");
    println!("told {:.1} s after the sweep began", dying.elapsed().as_secs_f64());
    assert_eq!(told.iter().filter(|text| text.contains("many-")).count(), 1, "{told:?}");
    let down = operator.json(&["status", "--state", "down"]);
    let down: BTreeSet<&str> =
        down["hosts"].as_array().unwrap().iter().map(|host| host["name"].as_str().unwrap()).collect();
    let down = down.iter().filter(|name| name.starts_with("many-")).count();
    assert_eq!(u64::try_from(down).unwrap(), deaths, "all of them are down");
    assert!(told[0].contains(&format!("{deaths}")), "and counted: {}", told[0]);
    cloud.nothing_went_wrong();
}

/// `HB_FLEET=100000 cargo nextest run --profile long --workspace -E 'package(hb-lambda) & test(whole_fleet)' --no-capture`
#[test]
fn a_sweep_sees_the_whole_fleet_in_time() {
    let hosts = given("HB_FLEET", 1_000);
    let mut cloud = Cloud::start(3600.0, &["--no-roles"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(store(&cloud));
    let heard = WallClock::default().now();
    runtime.block_on(add_hosts(&store, hosts, 86_400, heard));
    let sweep = json!({"do": "invoke", "function": "sweeper", "event": {"hb": "sweep"}});
    let mut took = Vec::new();
    for _ in 0..3 {
        let begun = Instant::now();
        let answer = cloud.order(&sweep);
        took.push(begun.elapsed());
        assert_eq!(answer["answer"]["decided"], 0, "{answer}");
        assert_eq!(answer["answer"]["blind"], false, "{answer}");
    }
    let peak = peak_mib(&cloud, "sweeper");
    println!("sweeps of {hosts} hosts: {took:?}, at most {peak} MiB");
    assert!(took.iter().all(|took| *took < Duration::from_secs(20)), "{took:?}");
    assert!(peak < 512, "{peak} MiB");
    cloud.nothing_went_wrong();
}
