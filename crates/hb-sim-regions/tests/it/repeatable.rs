//! The same seed gives the same world.

use hb_sim_regions::world::{Config, run};

#[test]
fn two_runs_of_a_world_count_the_same() {
    let live = || run(&Config { seed: 3, ..Config::default() }).unwrap();
    let (first, second) = (live(), live());
    assert_eq!(first.tally, second.tally);
    assert_eq!(first.violations, second.violations);
}
