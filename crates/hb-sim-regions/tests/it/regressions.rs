//! Worlds that once found a fault of hb.

use hb_sim_regions::world::{Config, run};

/// A region came back and heard a host whose `down` the other one had told: who had been told was not known there yet, and so
/// nobody was told of the end.
#[test]
fn an_end_is_told_whoever_told_the_beginning() {
    let verdict = run(&Config { seed: 35, ..Config::default() }).unwrap();
    let found: Vec<_> = verdict.violations.iter().map(|violation| violation.invariant).collect();
    assert_eq!(found, Vec::<&str>::new());
}
