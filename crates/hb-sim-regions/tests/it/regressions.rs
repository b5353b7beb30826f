//! Worlds that once found a fault of hb.

use hb_sim_regions::world::{Config, run};

fn nothing_breaks(seed: u64) {
    let verdict = run(&Config { seed, ..Config::default() }).unwrap();
    let found: Vec<_> = verdict.violations.iter().map(|violation| violation.invariant).collect();
    assert_eq!(found, Vec::<&str>::new(), "seed {seed}");
}

/// A region came back and heard a host whose `down` the other one had told: who had been told was not known there yet, and so
/// nobody was told of the end.
#[test]
fn an_end_is_told_whoever_told_the_beginning() {
    nothing_breaks(35);
}

/// While replication caught up after a cut, a region put a host together from what had arrived, and so took away what the other
/// one had heard since.
#[test]
fn what_is_still_on_its_way_is_not_replaced_by_what_is_older() {
    nothing_breaks(76);
}

/// Replication had been cut for long, and the other region was known to be well; then it could not be reached once, and all of
/// its hosts were accused.
#[test]
fn a_region_that_answered_a_moment_ago_is_not_gone() {
    nothing_breaks(95);
}

/// A claim of a delivery came after the other region had finished it: it was carried again each minute, for ever.
#[test]
fn a_delivery_that_is_done_stays_done() {
    nothing_breaks(1293);
}
