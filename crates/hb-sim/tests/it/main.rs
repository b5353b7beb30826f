//! Worlds in which nothing may break, and deliberate faults that the checkers have to find.

use hb_core::mutant::Mutant;
use hb_sim::front::Level;
use hb_sim::world::{Config, Focus, run};

/// Worlds in which a mutant has to show.
const WORLDS: u64 = 12;

fn check_killed(mutant: Mutant, focus: Option<Focus>) {
    let killed = (1..=WORLDS).find(|seed| {
        let config = Config { mutant: Some(mutant), focus, ..Config::new(*seed) };
        !run(&config).violations.is_empty()
    });
    assert!(killed.is_some(), "{mutant:?} lived through {WORLDS} worlds");
}

macro_rules! killed {
    ($($test:ident: $mutant:ident, $focus:expr;)*) => {$(
        #[test]
        fn $test() {
            check_killed(Mutant::$mutant, $focus);
        }
    )*};
}

killed! {
    claim_first_is_found: ClaimFirst, None;
    cas_state_only_is_found: CasStateOnly, Some(Focus::Races);
    no_hold_is_found: NoHold, None;
    no_canary_is_found: NoCanary, None;
    wall_is_found: Wall, None;
    nonatomic_is_found: Nonatomic, Some(Focus::Races);
    stale_deadline_is_found: StaleDeadline, None;
    seq_no_resync_is_found: SeqNoResync, None;
    created_window_is_found: CreatedWindow, None;
    no_rotate_is_found: NoRotate, None;
    one_clock_is_found: OneClock, None;
    equality_minute_is_found: EqualityMinute, None;
    limit_no_loop_is_found: LimitNoLoop, Some(Focus::Herd);
    clone_obeyed_is_found: CloneObeyed, Some(Focus::Clones);
}

fn check_clean(config: &Config) {
    let outcome = run(config);
    assert!(outcome.tally.beats_accepted > 1000, "nothing was proven: {:?}", outcome.tally);
    assert!(outcome.violations.is_empty(), "{}: {:#?}", config.command(), outcome.violations);
}

#[test]
fn nothing_breaks_behind_the_signature() {
    for seed in [1, 2] {
        check_clean(&Config::new(seed));
    }
}

#[test]
fn nothing_breaks_through_the_signed_router() {
    check_clean(&Config { level: Level::Router, hosts: 12, hours: 4, ..Config::new(1) });
}

#[test]
fn the_same_seed_gives_the_same_world() {
    let config = Config { hosts: 10, hours: 6, ..Config::new(7) };
    let (first, second) = (run(&config), run(&config));
    assert_eq!((first.trace, first.tally), (second.trace, second.tally));
    assert_ne!(first.trace, run(&Config { seed: 8, ..config }).trace, "another seed is another world");
}
