//! Each deliberate fault that needs two regions is found, in worlds that are clean without it.

use hb_core::mutant::Mutant;
use hb_sim_regions::world::{Config, run};

fn broken(seed: u64, mutant: Option<Mutant>) -> Vec<&'static str> {
    let verdict = run(&Config { seed, mutant, ..Config::default() }).unwrap();
    verdict.violations.iter().map(|violation| violation.invariant).collect()
}

/// The world in which a fault is found, and the promise that it breaks there.
fn is_killed(mutant: Mutant, seed: u64, promise: &str) {
    let found = broken(seed, Some(mutant));
    assert!(found.contains(&promise), "{} survived world {seed}: {found:?}", mutant.word());
    assert_eq!(broken(seed, None), Vec::<&str>::new(), "world {seed} is not clean without {}", mutant.word());
}

#[test]
fn a_takeover_without_asking_is_found() {
    is_killed(Mutant::TakeoverUnasked, 12, "R5");
}

#[test]
fn an_accusation_without_asking_is_found() {
    is_killed(Mutant::AccusedUnasked, 4, "R2");
}

#[test]
fn decisions_that_stay_torn_are_found() {
    is_killed(Mutant::Unmended, 11, "R3");
}
