//! What a beat costs over the real functions, and how long it takes.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::cloud::Cloud;

#[test]
fn a_beat_costs_one_write_unit_and_no_read() {
    let mut cloud = Cloud::start(3600.0, &[]);
    let host = cloud.machine();
    host.enrol("web-01", "1s", "60s");
    let _agent = host.agent();
    host.await_state("web-01", "up");
    let beats = |cloud: &mut Cloud| {
        let units = cloud.order(&json!({"do": "units"}))["units"]["ingest"].clone();
        let sum = |names: &[&str]| names.iter().map(|name| units[*name].as_f64().unwrap_or(0.0)).sum::<f64>();
        (units["UpdateItem"].as_f64().unwrap_or(0.0), sum(&["GetItem", "Query", "BatchGetItem"]), sum(&["TransactWriteItems", "PutItem"]))
    };
    std::thread::sleep(Duration::from_secs(2));
    let begun = Instant::now();
    let before = beats(&mut cloud);
    std::thread::sleep(Duration::from_secs(12));
    let after = beats(&mut cloud);
    let (writes, reads, others) = (after.0 - before.0, after.1 - before.1, after.2 - before.2);
    println!("in {:.1} s: {writes} write units for beats, {reads} read units, {others} others", begun.elapsed().as_secs_f64());
    assert!((10.0..=14.0).contains(&writes), "about one a second: {writes}");
    assert!(reads < f64::EPSILON && others < f64::EPSILON, "{reads} {others}");
    cloud.nothing_went_wrong();
}
