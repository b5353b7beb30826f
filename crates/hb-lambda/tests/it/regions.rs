//! Two regions: one that is lost and comes back, and replication that is cut. The functions' clocks run ten times as fast as
//! ours, so that a takeover is a matter of seconds.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::cloud::{Cloud, Machine, PATIENCE};

/// What the clocks of the functions call half a minute is between two sweeps.
const MINUTE_S: f64 = 3.0;
const TWO: [&str; 4] = ["--regions", "2", "--speed", "10"];
/// An agent beats each second of ours, ten of theirs; two sweeps are in the grace.
const INTERVAL: &str = "1s";
const GRACE: &str = "90s";

/// Units that a region's `ingest` consumed for beats.
fn beats(cloud: &mut Cloud, region: usize) -> f64 {
    let answer = cloud.order(&json!({"do": "units", "region": region}));
    answer["units"]["ingest"]["UpdateItem"].as_f64().unwrap_or(0.0)
}

/// Waits until so many more arrived.
fn await_beats(cloud: &mut Cloud, region: usize, more: f64) {
    let (before, begun) = (beats(cloud, region), Instant::now());
    while beats(cloud, region) < before + more {
        assert!(begun.elapsed() < PATIENCE, "no agent beats to region {region}\n{}", cloud.log());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Waits until each region knows that the other one sweeps. Its first beat comes before its first sweep has ended: one more minute.
fn await_sweeps(here: &Machine, there: &Machine) {
    there.await_up("hb-sweeper-eu-central-1");
    here.await_up("hb-sweeper-eu-west-1");
    std::thread::sleep(Duration::from_secs_f64(1.5 * MINUTE_S));
}

/// How many alerts begin with all of these words.
fn count(alerts: &[String], words: &[&str]) -> usize {
    let begins = |text: &&String| text.lines().next().is_some_and(|line| words.iter().all(|word| line.contains(word)));
    alerts.iter().filter(begins).count()
}

#[test]
fn a_region_is_lost_and_the_other_one_hears_its_hosts_and_tells_of_its_dead() {
    let mut cloud = Cloud::start(MINUTE_S, &TWO);
    let (walker, victim, there) = (cloud.machine(), cloud.machine(), cloud.machine_of(1));
    walker.run(&["channels", "add", "email", "--to", "ops@example.org"]);
    walker.enrol("walker", INTERVAL, GRACE);
    victim.enrol("victim", INTERVAL, GRACE);
    let agents = (walker.agent(), victim.agent());
    walker.await_up("walker");
    walker.await_up("victim");
    there.await_up("walker");
    await_sweeps(&walker, &there);

    // One dies with the first region, the other goes on.
    cloud.order(&json!({"do": "region", "region": 0, "on": false}));
    let (agent, dead) = agents;
    drop(dead);
    let begun = Instant::now();
    await_beats(&mut cloud, 1, 5.0);
    println!("five beats in the other region after {:.1} s", begun.elapsed().as_secs_f64());
    let mut told = cloud.await_alert_of(1, "victim");
    println!("the death told by the other region after {:.1} s", begun.elapsed().as_secs_f64());
    there.await_up("walker");
    // It beats there, after it may have been named as late with the others, and dies there.
    await_beats(&mut cloud, 1, 3.0);
    drop(agent);
    let begun = Instant::now();
    told.extend(cloud.await_alert_of(1, "walker is DOWN"));
    println!("a death in the other region told after {:.1} s", begun.elapsed().as_secs_f64());

    cloud.order(&json!({"do": "region", "region": 0, "on": true}));
    walker.await_state("walker", "down");
    walker.await_state("victim", "down");
    walker.await_up("hb-sweeper-eu-central-1");
    let _agents = (walker.agent(), victim.agent());
    walker.await_up("walker");
    walker.await_up("victim");
    there.await_up("walker");
    std::thread::sleep(Duration::from_secs(8));
    told.extend(cloud.alerts_of(0));
    told.extend(cloud.alerts_of(1));
    // By these clocks hosts are late between two beats, and so may be told together.
    let victim = count(&told, &["victim", "together"]) + count(&told, &["victim is DOWN"]);
    assert_eq!(victim, 1, "{told:#?}");
    for words in ["walker is DOWN", "walker is back"] {
        assert_eq!(count(&told, &[words]), 1, "{words}: {told:#?}");
    }
    cloud.nothing_went_wrong();
}

#[test]
fn a_region_whose_sweeper_never_came_by_is_stood_in_for() {
    // No schedules: only the first region sweeps, when it is told to.
    let mut cloud = Cloud::start(3600.0, &TWO);
    let (here, there) = (cloud.machine(), cloud.machine_of(1));
    here.run(&["channels", "add", "email", "--to", "ops@example.org"]);
    there.enrol("victim", INTERVAL, GRACE);
    let agent = there.agent();
    there.await_up("victim");
    here.await_up("victim");
    drop(agent);
    let begun = Instant::now();
    let mut told = Vec::new();
    while count(&told, &["victim is DOWN"]) == 0 {
        assert!(begun.elapsed() < PATIENCE, "nobody was told\n{}", cloud.log());
        let answer = cloud.order(&json!({"do": "invoke", "function": "sweeper", "event": {"hb": "sweep"}}));
        assert!(answer["error"].is_null(), "{answer}");
        std::thread::sleep(Duration::from_secs_f64(MINUTE_S));
        told.extend(cloud.alerts_of(0));
    }
    println!("told after {:.1} s", begun.elapsed().as_secs_f64());
    assert!(begun.elapsed() >= Duration::from_secs(12), "it was waited for as for any other");
    assert_eq!(told.len(), 1, "{told:#?}");
    cloud.nothing_went_wrong();
}

/// The time to live may end in either region, and is replicated as a removal like any other.
fn the_time_to_live_ends(region: usize) {
    let mut cloud = Cloud::start(MINUTE_S, &TWO);
    let (here, there) = (cloud.machine(), cloud.machine_of(1));
    here.run(&["channels", "add", "email", "--to", "ops@example.org"]);
    here.enrol("victim", INTERVAL, GRACE);
    let agent = here.agent();
    here.await_up("victim");
    there.await_up("victim");
    await_sweeps(&here, &there);
    cloud.order(&json!({"do": "schedule", "on": false}));
    drop(agent);
    // By the functions' clocks its patience ends, and both sweepers have been away for longer than a takeover.
    std::thread::sleep(Duration::from_secs(22));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let removed = cloud.order(&json!({"do": "clock", "s": now + 20_000, "region": region}));
    assert!(removed["removed"].as_u64().unwrap() >= 1, "{removed}");
    let begun = Instant::now();
    let mut told = Vec::new();
    while count(&told, &["victim"]) == 0 {
        assert!(begun.elapsed() < PATIENCE, "region {region}: nobody was told\n{}", cloud.log());
        std::thread::sleep(Duration::from_millis(500));
        told.extend(cloud.alerts_of(0));
        told.extend(cloud.alerts_of(1));
    }
    println!("it ended in region {region}: told {:.1} s later", begun.elapsed().as_secs_f64());
    here.await_state("victim", "down");
    there.await_state("victim", "down");
    std::thread::sleep(Duration::from_secs(6));
    told.extend(cloud.alerts_of(0));
    told.extend(cloud.alerts_of(1));
    assert_eq!(count(&told, &["victim"]), 1, "{told:#?}");
    cloud.nothing_went_wrong();
}

#[test]
fn without_any_sweeper_the_time_to_live_brings_one_alert() {
    the_time_to_live_ends(0);
}

#[test]
fn without_any_sweeper_the_time_to_live_that_ends_in_the_other_region_brings_one_alert() {
    the_time_to_live_ends(1);
}

#[test]
fn while_replication_is_cut_each_region_says_so_once_and_none_takes_over() {
    let mut cloud = Cloud::start(MINUTE_S, &TWO);
    let (host, there) = (cloud.machine(), cloud.machine_of(1));
    host.run(&["channels", "add", "email", "--to", "ops@example.org"]);
    host.enrol("walker", INTERVAL, GRACE);
    let agent = host.agent();
    there.await_up("walker");
    await_sweeps(&host, &there);

    cloud.order(&json!({"do": "replication", "on": false}));
    let begun = Instant::now();
    let mut told = [cloud.await_alert_of(0, "eu-west-1"), cloud.await_alert_of(1, "eu-central-1")];
    println!("the cut told by both regions after {:.1} s", begun.elapsed().as_secs_f64());
    // Longer than a takeover, and than the patience with every host.
    std::thread::sleep(Duration::from_secs(40));
    for (region, told) in told.iter_mut().enumerate() {
        told.extend(cloud.alerts_of(region));
        assert_eq!(told.len(), 1, "one notice, and nobody is down: {told:#?}");
    }
    // Its own dead are told by each region.
    drop(agent);
    assert_eq!(count(&cloud.await_alert_of(0, "walker"), &["walker is DOWN"]), 1);
    assert_eq!(cloud.alerts_of(1), Vec::<String>::new());

    cloud.order(&json!({"do": "replication", "on": true}));
    cloud.await_alert_of(0, "eu-west-1");
    cloud.await_alert_of(1, "eu-central-1");
    there.await_state("walker", "down");
    std::thread::sleep(Duration::from_secs(8));
    for region in [0, 1] {
        assert_eq!(cloud.alerts_of(region), Vec::<String>::new(), "region {region}");
    }
    cloud.nothing_went_wrong();
}
