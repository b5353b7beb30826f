//! Worlds that once found a fault of hb. A found seed becomes a line here; what it found stands beside it.

use hb_sim::front::Level;
use hb_sim::world::{Config, Focus, run};

fn is_clean(config: &Config) {
    let violations = run(config).violations;
    assert!(violations.is_empty(), "{}: {violations:#?}", config.command());
}

#[test]
fn worlds_that_found_a_fault_find_none_any_more() {
    let everything = |seed| Config { focus: Some(Focus::Everything), ..Config::new(seed) };
    let races = |seed| Config { focus: Some(Focus::Races), ..Config::new(seed) };
    for config in [
        // The uplink was cut for 28 s, less than three canaries: hosts with an interval of 15 s were called down.
        Config { hosts: 24, hours: 24, ..everything(1) },
        // The process was stopped in mid-sweep: what it had left to decide was decided without the gap.
        Config { hosts: 60, hours: 27, ..races(3) },
        // An interval was shortened: the host, which did not know, was called down before its next beat.
        Config { hosts: 150, hours: 12, ..everything(9) },
        Config { hosts: 150, hours: 26, ..everything(11) },
        // A restored backup had forgotten acknowledged beats: hosts with a short grace were called down.
        Config { hosts: 60, hours: 18, ..everything(5) },
        // A mass silence opened before a backup told its end under the same id after the restore.
        Config { hosts: 60, hours: 12, focus: Some(Focus::Masses), ..Config::new(46) },
        // An interval was changed, the store's answer to that was lost, and beats went on being told the old one.
        Config::new(177),
        Config::new(293),
        // Silent while hb looked, back while it did not: called down the moment hb looked again, or after four short gaps.
        Config::new(299),
        Config::new(132),
        // An announced maintenance ended while hb was blind: no hold-off.
        Config::new(199),
        // A backup taken in an announced blindness was restored: the blindness that followed was told as the end of the old.
        Config::new(191),
        // Stopped while it was deaf and could not store: five minutes of deafness were over before anybody was told.
        Config { hasty: true, ..Config::new(124) },
        // An interval was shortened and the host paused and resumed: it was called down before its next beat.
        Config { hasty: true, ..Config::new(27) },
        Config { hasty: true, ..Config::new(98) },
        // A host had said goodbye for a day, and a backup was restored: it was given another day from there.
        Config::new(2021),
        Config { level: Level::Router, hosts: 12, hours: 12, ..everything(1) },
    ] {
        is_clean(&config);
    }
}
