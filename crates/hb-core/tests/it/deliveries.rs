use std::collections::BTreeSet;

use hb_core::access::{ApiKey, Channel};
use hb_core::delivery::{BACKOFF_MAX_MS, Delivery, GIVE_UP_AFTER_MS, Status, fan_out};
use hb_core::event::{Audience, Event};
use hb_core::time::Time;
use hb_wire::id::ChannelId;
use hb_wire::view::Scope;

use crate::support::World;

fn channel(n: u8, admin: bool) -> Channel {
    Channel {
        id: ChannelId::mint(1, [n; 10]),
        name: format!("c{n}"),
        kind: "webhook".into(),
        settings: serde_json::Value::Null,
        target: String::new(),
        admin,
        created_at: Time(0),
        last_delivered_at: None,
        last_error: None,
    }
}

fn down() -> Event {
    let mut world = World::up();
    world.wait(180).sweep();
    world.last().clone()
}

#[test]
fn up_goes_only_to_those_who_were_sent_down() {
    let now = Time(5_000_000_000);
    let down = down();
    let early = [channel(1, true), channel(2, false)];
    let mut told = fan_out(&down, &early, &[], now);
    assert_eq!(told.len(), 2);
    told[1].status = Status::Dead;
    let all = [channel(1, true), channel(2, false), channel(3, true)];
    let up = Event { audience: Audience::Told, ..down.clone() };
    let back: Vec<_> = fan_out(&up, &all, &told, now).iter().map(|delivery| delivery.channel).collect();
    assert_eq!(back, [all[0].id], "not to one that came later, nor to one that never got it");
    let blind = Event { audience: Audience::Admins, ..down };
    assert_eq!(fan_out(&blind, &all, &[], now).len(), 2);
}

#[test]
fn a_delivery_keeps_its_key_over_retries_and_is_given_up_after_a_day() {
    let event = down();
    let now = event.at;
    let mut delivery = Delivery::new(&event, channel(1, true).id, now);
    assert_eq!(delivery, Delivery::new(&event, channel(1, true).id, now), "made twice is made once");
    let key = delivery.id;
    let mut clock = now;
    let mut attempts = 0;
    while delivery.status == Status::Pending {
        delivery = delivery.failed("500".into(), false, None, clock, u64::MAX - 1);
        assert!(delivery.next_attempt_at.since(clock) <= BACKOFF_MAX_MS);
        clock = delivery.next_attempt_at;
        attempts += 1;
        assert!(attempts < 100_000);
    }
    assert_eq!((delivery.id, delivery.status), (key, Status::Dead));
    assert!(clock.since(now) > GIVE_UP_AFTER_MS - BACKOFF_MAX_MS, "not before a day is over");
}

#[test]
fn a_permanent_failure_is_given_up_at_once_and_a_wish_to_wait_is_respected() {
    let event = down();
    let delivery = Delivery::new(&event, channel(1, true).id, event.at);
    assert_eq!(delivery.clone().failed("410".into(), true, None, event.at, 0).status, Status::Dead);
    let waits = delivery.failed("429".into(), false, Some(120_000), event.at, 0);
    assert_eq!(waits.next_attempt_at, event.at.plus(120_000));
}

#[test]
fn a_scope_carries_what_stands_below_it() {
    let key = |scope| ApiKey {
        id: "k".into(),
        hash: [0; 32],
        name: String::new(),
        scopes: BTreeSet::from([scope]),
        created_at: Time(0),
        expires_at: Some(Time(10)),
        revoked_at: None,
        last_used_at: None,
    };
    assert!(key(Scope::Admin).allows(Scope::Metrics));
    assert!(key(Scope::Operate).allows(Scope::Read));
    assert!(!key(Scope::Read).allows(Scope::Operate));
    assert!(!key(Scope::Register).allows(Scope::Read));
    assert!(key(Scope::Read).is_live(Time(9)) && !key(Scope::Read).is_live(Time(10)));
}
