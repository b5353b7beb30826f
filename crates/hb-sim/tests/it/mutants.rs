//! Each deliberate fault is found, by a checker that is meant to find it, in worlds that are clean without it.

use hb_core::mutant::Mutant;
use hb_sim::world::{Config, Focus, run};

/// Worlds that a mutant may survive before it counts as not found.
const WORLDS_MAX: u64 = 12;

/// Where to look for a mutant, and which invariants it breaks.
fn case(mutant: Mutant) -> (Focus, &'static [&'static str]) {
    match mutant {
        Mutant::ClaimFirst => (Focus::Everything, &["I3b"]),
        Mutant::CasStateOnly => (Focus::Races, &["I2", "I5", "I6"]),
        Mutant::NoHold | Mutant::NoCanary => (Focus::Everything, &["I4"]),
        Mutant::Wall => (Focus::Everything, &["I1", "I2", "I4"]),
        Mutant::Nonatomic => (Focus::Races, &["I3a"]),
        Mutant::StaleDeadline => (Focus::Everything, &["I2"]),
        Mutant::SeqNoResync => (Focus::Everything, &["I4", "I8"]),
        Mutant::CreatedWindow => (Focus::Everything, &["I5"]),
        Mutant::NoRotate | Mutant::OneClock => (Focus::Everything, &["I5b"]),
        Mutant::EqualityMinute => (Focus::Everything, &["I1", "I8"]),
        Mutant::LimitNoLoop => (Focus::Herd, &["I1"]),
        Mutant::CloneObeyed => (Focus::Clones, &["I11"]),
        Mutant::TakeoverUnasked | Mutant::AccusedUnasked | Mutant::Unmended => {
            unreachable!("hb-sim-regions finds it")
        }
    }
}

fn is_killed(mutant: Mutant) {
    let (focus, meant) = case(mutant);
    // A herd is as large as it has to be.
    let (hosts, hours) = if focus == Focus::Herd { (0, 0) } else { (60, 12) };
    for seed in 1..=WORLDS_MAX {
        let healthy = Config { hosts, hours, focus: Some(focus), ..Config::new(seed) };
        let sick = Config { mutant: Some(mutant), ..healthy.clone() };
        let found = run(&sick).violations;
        if found.iter().any(|violation| meant.contains(&violation.invariant)) {
            let clean = run(&healthy).violations;
            assert!(clean.is_empty(), "{} is not clean without the mutant: {clean:?}", healthy.command());
            return;
        }
    }
    unreachable!("{} survived {WORLDS_MAX} worlds", mutant.word());
}

macro_rules! killed {
    ($($name:ident: $mutant:ident,)*) => {
        $(
            #[test]
            fn $name() {
                is_killed(Mutant::$mutant);
            }
        )*

        #[test]
        fn every_mutant_has_its_test() {
            let tested = [$(Mutant::$mutant),*];
            assert!(Mutant::ALL.iter().all(|mutant| tested.contains(mutant)));
        }
    };
}

killed! {
    claim_first_is_killed: ClaimFirst,
    cas_state_only_is_killed: CasStateOnly,
    no_hold_is_killed: NoHold,
    no_canary_is_killed: NoCanary,
    wall_is_killed: Wall,
    nonatomic_is_killed: Nonatomic,
    stale_deadline_is_killed: StaleDeadline,
    seq_no_resync_is_killed: SeqNoResync,
    created_window_is_killed: CreatedWindow,
    no_rotate_is_killed: NoRotate,
    one_clock_is_killed: OneClock,
    equality_minute_is_killed: EqualityMinute,
    limit_no_loop_is_killed: LimitNoLoop,
    clone_obeyed_is_killed: CloneObeyed,
}
