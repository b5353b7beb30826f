use hb_core::event::{Audience, Cause, Kind};
use hb_core::host::State;
use hb_core::machine::{self, Grouping, Verdict};
use hb_core::time::Time;
use hb_wire::beat::{Ending, Fault, Gap, Intent, StopReason};
use hb_wire::id::IncidentId;
use hb_wire::key::{HostKey, PublicKey};
use hb_wire::nonce::Nonce;
use hb_wire::view::Class;

use crate::support::{GRACE, INTERVAL, Says, World, boot, goodbye, wish};

const NEED: u64 = INTERVAL + GRACE;

#[test]
fn a_first_beat_makes_a_host_up_and_tells_nobody() {
    let mut world = World::new();
    assert_eq!(world.beat(), [Kind::Up]);
    assert_eq!(world.last().audience, Audience::Nobody);
}

#[test]
fn a_beat_in_time_changes_nothing_but_life() {
    let mut world = World::up();
    assert_eq!(world.wait(60).beat(), []);
    assert_eq!(world.host.life.silent_from, world.now);
}

#[test]
fn silence_is_an_alarm_exactly_at_interval_plus_grace() {
    let mut world = World::up();
    world.wait(NEED - 1);
    assert_eq!(world.sweep(), []);
    world.now = world.now.plus(999);
    assert_eq!(world.sweep(), []);
    world.now = world.now.plus(1);
    assert_eq!(world.sweep(), [Kind::Down]);
    assert_eq!((world.last().cause, world.last().audience), (Some(Cause::Silent), Audience::Everyone));
    assert_eq!(world.sweep(), [], "a second sweep has nothing to decide");
}

#[test]
fn two_sweeps_from_the_same_beat_make_the_same_event() {
    let mut one = World::up();
    one.wait(NEED);
    let mut other = one.clone();
    other.wait(7);
    other.at(|_, _| ());
    one.sweep();
    other.sweep();
    assert_eq!(one.last().id, other.last().id);
    assert_eq!(one.last().incident, other.last().incident);
    let mut restored = World::up();
    restored.policy.epoch = 1;
    restored.wait(NEED).sweep();
    assert_ne!(one.last().id, restored.last().id, "a restored database must not reuse ids");
}

#[test]
fn a_host_that_was_never_heard_is_reported() {
    let mut world = World::new();
    world.wait(NEED);
    assert_eq!(world.sweep(), [Kind::Down]);
    assert_eq!(world.last().cause, Some(Cause::NeverSeen));
}

#[test]
fn unobserved_time_is_not_silence() {
    let mut world = World::up();
    world.wait(10).blind(3600);
    assert_eq!(world.sweep(), []);
    world.wait(NEED - 10);
    assert_eq!(world.sweep(), [Kind::Down]);
    assert_eq!(world.last().inputs["credit_ms"], 3_600_000);
}

#[test]
fn a_return_after_down_ends_the_incident_for_those_who_were_told() {
    let mut world = World::up();
    let heard = world.now;
    world.wait(NEED).sweep();
    let incident = world.last().incident;
    assert_eq!(world.wait(30).beat(), [Kind::Up]);
    assert_eq!(world.last().audience, Audience::Told);
    assert_eq!(world.last().incident, incident);
    assert_eq!(world.last().since, Some(heard), "silent since the last sign of life");
}

#[test]
fn a_member_of_a_mass_incident_is_announced_by_it_alone() {
    let mut world = World::up();
    world.wait(NEED);
    let incident = IncidentId(uuid::Uuid::from_bytes([9; 16]));
    let transition = world.at(|host, at| machine::sweep(host, Grouping::Member(incident), at)).unwrap();
    assert_eq!(world.take(transition), [Kind::Down]);
    assert_eq!((world.last().audience, world.last().incident), (Audience::Nobody, Some(incident)));
    world.beat();
    assert_eq!((world.last().audience, world.last().incident), (Audience::Nobody, Some(incident)));
}

/// Beats again after `away` seconds of silence that ended in DOWN; the cause that was found.
fn cause(away: u64, blind: u64, says: &Says) -> Option<Cause> {
    let mut world = World::up();
    if blind > 0 {
        world.blind(blind);
    }
    world.wait(away);
    while world.sweep().is_empty() {
        world.wait(1);
    }
    world.says(says);
    assert_eq!(world.last().kind, Kind::Up);
    world.last().cause
}

#[test]
fn every_outage_gets_its_cause() {
    let ending = |clean, reason| Some(Ending { boot: boot(0), clean, reason });
    let gap = |failed, suspended_s| Some(Gap { failed, since_s: 200, suspended_s, error: "connect".into() });
    let says = Says::default;
    let clean = ending(true, Some(StopReason::Reboot));
    assert_eq!(cause(200, 0, &Says { boot: 1, run: 1, before: clean.clone(), ..says() }), Some(Cause::Rebooted));
    assert_eq!(cause(200, 0, &Says { boot: 1, run: 1, before: ending(false, None), ..says() }), Some(Cause::Crashed));
    assert_eq!(cause(200, 0, &Says { boot: 1, run: 1, ..says() }), Some(Cause::Booted));
    assert_eq!(cause(200, 0, &Says { run: 1, before: clean, ..says() }), Some(Cause::AgentStopped));
    let upgrade = |clean| ending(clean, Some(StopReason::Upgrade));
    assert_eq!(cause(200, 0, &Says { run: 1, before: upgrade(true), ..says() }), Some(Cause::AgentUpgraded));
    assert_eq!(cause(200, 0, &Says { boot: 1, run: 1, before: upgrade(true), ..says() }), Some(Cause::Rebooted));
    assert_eq!(cause(200, 0, &Says { run: 1, before: upgrade(false), ..says() }), Some(Cause::AgentKilled));
    assert_eq!(cause(200, 0, &Says { run: 1, before: ending(false, None), ..says() }), Some(Cause::AgentKilled));
    assert_eq!(cause(200, 0, &Says { gap: gap(9, 0), ..says() }), Some(Cause::Unreachable));
    assert_eq!(cause(200, 0, &Says { gap: gap(1, 190), ..says() }), Some(Cause::Suspended));
    assert_eq!(cause(0, 600, &Says { gap: gap(9, 0), ..says() }), Some(Cause::Unobserved));
    assert_eq!(cause(200, 0, &says()), Some(Cause::Unexplained));
    // It did not try for most of that time: a cron job that did not run, and then met a server that was away.
    let late = Some(Gap { failed: 1, since_s: 16, suspended_s: 0, error: "connect".into() });
    assert_eq!(cause(400, 0, &Says { gap: late, ..says() }), Some(Cause::Unexplained));
}

#[test]
fn a_reboot_within_the_grace_is_history_but_no_alarm() {
    let mut world = World::up();
    let before = Some(Ending { boot: boot(0), clean: false, reason: None });
    assert_eq!(world.wait(90).says(&Says { boot: 1, run: 1, before, ..Says::default() }), [Kind::Rebooted]);
    assert_eq!((world.last().cause, world.last().audience), (Some(Cause::Crashed), Audience::Nobody));
    assert_eq!(world.wait(60).says(&Says { boot: 1, run: 2, ..Says::default() }), [Kind::Restarted]);
}

#[test]
fn a_beat_after_the_deadline_that_no_sweep_saw_is_a_late_return() {
    let mut world = World::up();
    assert_eq!(world.wait(NEED + 5).beat(), [Kind::ReturnedLate]);
    assert_eq!(world.last().audience, Audience::Nobody);
}

#[test]
fn a_goodbye_is_no_alarm_until_the_time_it_gave() {
    let mut world = World::up();
    assert_eq!(world.says(&goodbye(StopReason::Reboot, 600)), [Kind::Stopped]);
    assert_eq!(world.wait(599).sweep(), []);
    assert_eq!(world.wait(1).sweep(), [Kind::Down]);
    assert_eq!(world.last().cause, Some(Cause::NotBack));
}

#[test]
fn a_goodbye_holds_at_most_a_day_and_a_return_needs_no_message() {
    let mut world = World::up();
    world.says(&goodbye(StopReason::Service, 86_400));
    world.wait(3600);
    assert_eq!(world.says(&Says { boot: 1, run: 1, ..Says::default() }), [Kind::Up]);
    assert_eq!((world.last().cause, world.last().audience), (Some(Cause::Rebooted), Audience::Nobody));
}

#[test]
fn a_goodbye_of_a_host_that_was_down_says_first_that_it_lives() {
    let mut world = World::up();
    world.wait(NEED).sweep();
    assert_eq!(world.says(&goodbye(StopReason::Poweroff, 60)), [Kind::Up, Kind::Stopped]);
}

#[test]
fn announced_maintenance_postpones_the_alarm_and_ends_by_itself() {
    let mut world = World::up();
    let note = || "kernel".to_owned();
    let says = Says { intent: Some(Intent::Maintenance { for_s: 1200, note: note() }), ..Says::default() };
    assert_eq!(world.says(&says), [Kind::Maintenance]);
    assert_eq!(world.wait(1199).sweep(), []);
    assert_eq!(world.wait(1).sweep(), [Kind::Down]);
    let mut ended = World::up();
    ended.says(&says);
    ended.says(&Says { intent: Some(Intent::Maintenance { for_s: 0, note: note() }), ..Says::default() });
    assert_eq!(ended.wait(NEED).sweep(), [Kind::Down]);
}

#[test]
fn a_nonce_is_accepted_once() {
    let mut world = World::up();
    let nonce = world.host.life.nonce;
    world.beat();
    assert_eq!(world.verdict(&Says::default(), nonce), Verdict::Stale(None));
}

#[test]
fn a_nonce_lives_for_interval_plus_grace_of_elapsed_time() {
    let mut world = World::up();
    let nonce = world.host.life.nonce;
    world.blind(NEED + 1);
    let Verdict::Stale(Some(renewed)) = world.verdict(&Says::default(), nonce) else { panic!("not renewed") };
    assert_ne!(renewed.life.nonce, nonce);
    assert_eq!(renewed.life.nonce_at, world.now);
    assert_eq!(renewed.life.silent_from, world.host.life.silent_from, "a refused request never extends a deadline");
}

#[test]
fn a_stale_request_renews_only_a_nonce_past_half_its_life() {
    let mut world = World::up();
    world.wait(NEED / 2);
    assert_eq!(world.verdict(&Says::default(), Nonce([3; 16])), Verdict::Stale(None));
    world.wait(1);
    assert!(matches!(world.verdict(&Says::default(), Nonce([3; 16])), Verdict::Stale(Some(_))));
}

#[test]
fn a_message_signed_before_a_down_decision_does_not_undo_it() {
    let mut world = World::up();
    let captured = world.host.life.nonce;
    world.wait(NEED).sweep();
    assert!(matches!(world.verdict(&Says::default(), captured), Verdict::Stale(None)));
    assert!(world.is_down());
}

#[test]
fn a_clone_is_found_when_the_first_holder_returns_and_never_displaces_it() {
    let first = Says { boot: 1, run: 1, ..Says::default() };
    let clone = Says { boot: 2, run: 2, ..Says::default() };
    let mut world = World::new();
    world.says(&first);
    assert_eq!(world.wait(60).says(&clone), [Kind::Rebooted], "it could be a reboot");
    assert_eq!(world.wait(1).says(&first), [Kind::Cloned, Kind::Rebooted]);
    let nonce = world.host.life.nonce;
    let heard = world.host.life.heard_at;
    assert_eq!(world.wait(60).verdict(&clone, nonce), Verdict::Cloned);
    assert_eq!(world.verdict(&Says { boot: 2, run: 9, ..Says::default() }, nonce), Verdict::Cloned, "nor a new run");
    assert_eq!(world.host.life.heard_at, heard);
    assert_eq!(world.says(&first), []);
    world.wait(NEED);
    assert_eq!(world.sweep(), [Kind::Down], "the clone does not mask the death of the host");
    let resumed = world.at(machine::resume);
    world.take(resumed);
    assert_eq!(world.says(&clone), [Kind::Up], "an operator decides that it is the host now");
}

#[test]
fn a_pause_is_silence_without_alarm_and_ends_with_a_full_deadline() {
    let mut world = World::up();
    let until = world.now.plus(7_200_000);
    let paused = world.at(|host, at| machine::pause(host, Some(until), "disk swap", at));
    assert_eq!(world.take(paused), [Kind::Paused]);
    assert_eq!(world.wait(7199).sweep(), []);
    assert_eq!(world.wait(1).sweep(), [Kind::Resumed]);
    assert_eq!(world.wait(NEED - 1).sweep(), []);
    assert_eq!(world.wait(1).sweep(), [Kind::Down]);
}

#[test]
fn a_pause_of_a_host_that_is_down_keeps_its_outage() {
    let mut world = World::up();
    world.wait(NEED).sweep();
    let incident = world.last().incident;
    let paused = world.at(|host, at| machine::pause(host, None, "known", at));
    world.take(paused);
    assert_eq!(world.wait(100_000).sweep(), [], "without an end it lasts until resumed");
    let mut heard = world.clone();
    assert_eq!(heard.beat(), [Kind::Up]);
    assert_eq!((heard.last().incident, heard.last().audience), (incident, Audience::Told));
    assert!(matches!(heard.host.state, State::Paused { outage: None, .. }));
    let resumed = world.at(machine::resume);
    world.take(resumed);
    assert!(world.is_down());
    assert_eq!(world.sweep(), [], "it was told already");
}

#[test]
fn a_pause_keeps_what_a_host_said_when_it_went() {
    let mut world = World::up();
    world.says(&goodbye(StopReason::Poweroff, 86_400));
    let gone = world.now;
    for _ in 0..2 {
        let paused = world.wait(60).at(|host, at| machine::pause(host, None, "moves", at));
        world.take(paused);
    }
    let resumed = world.wait(600).at(machine::resume);
    world.take(resumed);
    let back_by = gone.plus(86_400_000);
    assert_eq!(world.host.state, State::Stopped { since: gone, back_by, reason: StopReason::Poweroff });
    assert_eq!(world.wait(80_000).sweep(), []);
    assert_eq!(world.wait(7_000).sweep(), [Kind::Down], "it said that it would be back");
}

#[test]
fn a_goodbye_during_a_pause_counts_when_the_pause_is_over() {
    let mut world = World::up();
    let until = world.now.plus(3_600_000);
    let paused = world.at(|host, at| machine::pause(host, Some(until), "", at));
    world.take(paused);
    world.wait(10).says(&goodbye(StopReason::Service, 1_800));
    assert_eq!(world.wait(3_590).sweep(), [Kind::Resumed]);
    assert!(matches!(world.host.state, State::Stopped { .. }));
    assert_eq!(world.wait(NEED - 1).sweep(), [], "the time that it gave is over, but a resumed host gets its own");
    assert_eq!(world.wait(1).sweep(), [Kind::Down]);
    let mut back = World::up();
    back.says(&goodbye(StopReason::Reboot, 900));
    let paused = back.at(|host, at| machine::pause(host, None, "", at));
    back.take(paused);
    back.wait(60).beat();
    let resumed = back.at(machine::resume);
    back.take(resumed);
    assert!(matches!(back.host.state, State::Up { .. }), "it was heard since");
}

#[test]
fn the_end_of_a_maintenance_that_never_was_is_no_event() {
    let over = Says { intent: Some(Intent::Maintenance { for_s: 0, note: String::new() }), ..Says::default() };
    assert_eq!(World::up().says(&over), []);
}

#[test]
fn an_edit_never_turns_past_silence_into_an_alarm() {
    let mut world = World::up();
    world.wait(170);
    let mut shorter = wish(Class::Server);
    shorter.interval_s = 5;
    shorter.grace_s = 5;
    world.host = world.at(|host, at| machine::edit(host, shorter, at));
    assert_eq!(world.sweep(), []);
    assert_eq!(world.wait(7).sweep(), [], "a hold-off of 1.5 intervals first");
    assert_eq!(world.wait(1).sweep(), [Kind::Down]);
}

#[test]
fn a_host_beats_by_its_old_interval_until_it_hears_of_a_shorter_one() {
    let mut world = World::up();
    let mut shorter = wish(Class::Server);
    shorter.interval_s = 5;
    shorter.grace_s = 5;
    world.host = world.at(|host, at| machine::edit(host, shorter, at));
    assert_eq!(world.wait(INTERVAL).sweep(), [], "its next beat is only due by now");
    assert_eq!(world.beat(), [], "and it came");
    assert_eq!(world.wait(10).sweep(), [Kind::Down], "from then on the short interval counts");
}

#[test]
fn a_pause_and_its_end_do_not_forget_that_a_host_still_beats_by_its_old_interval() {
    fn edit(world: &mut World) {
        let shorter = hb_core::host::Wish { interval_s: 5, grace_s: 5, ..wish(Class::Server) };
        world.host = world.at(|host, at| machine::edit(host, shorter, at));
    }
    fn pause(world: &mut World) {
        world.host = world.at(|host, at| machine::pause(host, None, "", at)).host;
    }
    fn resume(world: &mut World) {
        world.host = world.at(machine::resume).host;
    }
    let orders: [[fn(&mut World); 3]; 3] = [[edit, pause, resume], [pause, edit, resume], [pause, resume, edit]];
    for (order, steps) in orders.iter().enumerate() {
        let mut world = World::up();
        world.wait(1);
        for step in steps {
            step(&mut world);
            world.wait(1);
        }
        assert_eq!(world.wait(INTERVAL - 4).sweep(), [], "order {order}: its next beat is only due by now");
        assert_eq!(world.beat(), [], "order {order}: and it came");
        assert_eq!(world.wait(10).sweep(), [Kind::Down], "order {order}: from then on the short interval counts");
    }
}

#[test]
fn a_beat_in_a_pause_tells_of_a_shorter_interval_like_any_other() {
    let mut world = World::up();
    world.wait(1);
    world.host = world.at(|host, at| machine::pause(host, None, "", at)).host;
    let shorter = hb_core::host::Wish { interval_s: 5, grace_s: 5, ..wish(Class::Server) };
    world.host = world.at(|host, at| machine::edit(host, shorter, at));
    world.wait(1);
    world.beat();
    world.host = world.at(machine::resume).host;
    assert_eq!(world.wait(11).sweep(), [Kind::Down], "it knows, and is silent");
}

#[test]
fn an_edit_of_the_name_moves_no_deadline() {
    let mut world = World::up();
    world.wait(170);
    let before = world.host.life.silent_from;
    world.host = world.at(|host, at| machine::edit(host, wish(Class::Server), at));
    assert_eq!(world.host.life.silent_from, before);
}

#[test]
fn a_host_unfit_for_work_is_told_and_its_recovery_too() {
    let mut world = World::up();
    let sick = Says { degraded: vec![Fault::DiskFull], ..Says::default() };
    assert_eq!(world.says(&sick), [Kind::Degraded]);
    let incident = world.last().incident;
    assert_eq!(world.last().audience, Audience::Everyone);
    assert_eq!(world.wait(60).says(&sick), []);
    assert_eq!(world.wait(60).beat(), [Kind::Restored]);
    assert_eq!((world.last().audience, world.last().incident), (Audience::Told, incident));
}

#[test]
fn an_intermittent_host_alarms_only_after_its_longest_absence() {
    let mut world = World::of(Class::Intermittent);
    world.beat();
    assert_eq!(world.wait(10_000_000).sweep(), []);
    let mut world = World::of(Class::Intermittent);
    world.host.max_away_ms = Some(3_600_000);
    world.beat();
    assert_eq!(world.wait(3599).sweep(), []);
    assert_eq!(world.wait(1).sweep(), [Kind::Down]);
}

#[test]
fn an_ephemeral_host_retires_after_a_goodbye_or_a_day_of_silence() {
    let mut world = World::of(Class::Ephemeral);
    world.beat();
    world.says(&goodbye(StopReason::Poweroff, 300));
    assert_eq!(world.wait(300).sweep(), [Kind::Retired]);
    let mut world = World::of(Class::Ephemeral);
    world.beat();
    assert_eq!(world.wait(NEED).sweep(), [Kind::Down]);
    assert_eq!(world.wait(86_399).sweep(), []);
    assert_eq!(world.wait(1).sweep(), [Kind::Retired]);
    assert_eq!(world.verdict(&Says::default(), Nonce([0; 16])), Verdict::Retired);
}

#[test]
fn no_value_of_time_can_panic_or_wrap() {
    for now in [0, 1, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
        let mut world = World::up();
        world.ledger.enter(Time(5), Time(u64::MAX));
        world.host.interval_ms = u64::MAX;
        world.host.grace_ms = u64::MAX;
        world.now = Time(now);
        world.sweep();
        world.beat();
    }
}

fn key(n: u8) -> PublicKey {
    HostKey::from_seed([n; 32]).public()
}

fn rotate(to: PublicKey) -> Says {
    Says { intent: Some(Intent::Rotate { public_key: to, proof: "checked before".into() }), ..Says::default() }
}

#[test]
fn a_new_key_takes_over_at_its_first_beat_and_until_then_both_are_good() {
    let mut world = World::up();
    let old = world.host.key;
    assert_eq!(world.says(&rotate(key(2))), [], "announced, and nothing more");
    assert_eq!((world.host.key, world.host.next_key), (old, Some(key(2))));
    assert_eq!(world.wait(60).beat(), [], "the old one is still good");
    let by = |key| Says { key: Some(key), ..Says::default() };
    assert_eq!(world.wait(60).says(&by(key(2))), [Kind::KeyRotated]);
    assert_eq!(world.last().audience, Audience::Nobody);
    assert_eq!((world.host.key, world.host.next_key), (key(2), None));
    let nonce = world.host.life.nonce;
    assert_eq!(world.verdict(&by(old), nonce), Verdict::Foreign, "the old one is nobody's");
    assert_eq!(world.verdict(&by(key(3)), nonce), Verdict::Foreign);
    assert_eq!(world.wait(60).says(&by(key(2))), []);
}

#[test]
fn a_rotation_that_is_asked_for_again_is_the_same_or_replaces_the_one_before() {
    let mut world = World::up();
    world.says(&rotate(key(2)));
    world.says(&rotate(key(2)));
    assert_eq!(world.host.next_key, Some(key(2)));
    world.says(&rotate(key(3)));
    assert_eq!(world.host.next_key, Some(key(3)));
    let nonce = world.host.life.nonce;
    assert_eq!(world.verdict(&Says { key: Some(key(2)), ..Says::default() }, nonce), Verdict::Foreign);
    world.says(&Says { key: Some(key(3)), ..rotate(key(3)) });
    assert_eq!((world.host.key, world.host.next_key), (key(3), None), "the answer to it was lost, and it was done");
}
