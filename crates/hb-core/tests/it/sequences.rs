//! Whatever happens in whatever order: what must hold after every step.

use std::collections::BTreeSet;

use hb_core::event::{Audience, Kind};
use hb_core::host::State;
use hb_core::machine;
use hb_wire::beat::StopReason;
use proptest::prelude::*;

use crate::support::{Says, World, goodbye};

#[derive(Debug, Clone)]
enum Step {
    Beat { boot: u8, run: u8 },
    Wait(u64),
    Blind(u64),
    Sweep,
    Pause(Option<u64>),
    Resume,
    Goodbye(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..2_u8, 0..3_u8).prop_map(|(boot, run)| Step::Beat { boot, run }),
        4 => (0..400_u64).prop_map(Step::Wait),
        1 => (0..4000_u64).prop_map(Step::Blind),
        4 => Just(Step::Sweep),
        1 => prop::option::of(0..500_u64).prop_map(Step::Pause),
        1 => Just(Step::Resume),
        1 => (0..500_u64).prop_map(Step::Goodbye),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn down_and_up_alternate_and_no_state_changes_without_an_event(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        for step in steps {
            let before = world.host.clone();
            let count = world.events.len();
            let deadline = before.alarm_at(&world.ledger, &world.policy);
            match step {
                Step::Beat { boot, run } => {
                    let says = Says { boot, run, ..Says::default() };
                    world.try_says(&says);
                }
                Step::Wait(s) => { world.wait(s); }
                Step::Blind(s) => { world.blind(s); }
                Step::Sweep => { world.sweep(); }
                Step::Pause(s) => {
                    let until = s.map(|s| world.now.plus(s * 1000));
                    let transition = world.at(|host, at| machine::pause(host, until, "", at));
                    world.take(transition);
                }
                Step::Resume => { let transition = world.at(machine::resume); world.take(transition); }
                Step::Goodbye(s) => {
                    let holder = before.life.holder;
                    if holder.is_none() { world.says(&goodbye(StopReason::Reboot, s)); }
                }
            }
            let new = &world.events[count..];
            if before.state.word() != world.host.state.word() {
                prop_assert!(!new.is_empty(), "{} -> {} without an event", before.state.word(), world.host.state.word());
            }
            if new.iter().any(|event| event.kind == Kind::Down) {
                prop_assert!(deadline.is_some_and(|deadline| deadline <= world.now));
                let observed = world.now.since(before.life.silent_from)
                    - world.ledger.unobserved_ms(before.life.silent_from, world.now);
                let needed = match before.state { State::Stopped { .. } => 0, _ => before.need_ms() };
                prop_assert!(observed >= needed, "down after {observed} ms of observed silence");
            }
        }
        let ids: BTreeSet<_> = world.events.iter().map(|event| event.id).collect();
        prop_assert_eq!(ids.len(), world.events.len(), "every event has an id of its own");
        let mut open = None;
        for event in &world.events {
            match event.kind {
                Kind::Down => { prop_assert!(open.is_none(), "down twice"); open = event.incident; }
                Kind::Up if event.audience == Audience::Told => {
                    prop_assert!(open.is_some() && open == event.incident, "up of another incident"); open = None;
                }
                _ => {}
            }
        }
        prop_assert_eq!(open, world.host.state.outage().map(|outage| outage.incident));
    }
}
