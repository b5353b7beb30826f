use hb_core::event::{Audience, Event, Kind, Subject};
use hb_core::host::Host;
use hb_core::incident::{Group, Incident, UPDATE_AFTER_MS};
use hb_core::policy::Policy;
use hb_core::time::Time;
use hb_wire::id::HostId;
use hb_wire::name::HostName;

use crate::support::World;

fn hosts(count: u8) -> Vec<Host> {
    (0..count)
        .map(|n| {
            let mut host = World::up().host;
            host.id = HostId::mint(1, [n; 10]);
            host.name = HostName::parse(&format!("web{n}")).unwrap();
            host
        })
        .collect()
}

fn subjects(hosts: &[Host]) -> Vec<Subject> {
    hosts.iter().map(Subject::of).collect()
}

fn open(hosts: &[Host], now: Time) -> (Incident, Event) {
    let silent = u64::try_from(hosts.len()).unwrap();
    let group = Group { tag: None, expected: silent, silent, down: 0 };
    Incident::open(&hosts[0], &group, subjects(hosts), now, &Policy::STANDARD)
}

#[test]
fn many_hosts_are_one_message_with_the_list_inside() {
    let hosts = hosts(5);
    let (incident, event) = open(&hosts, Time(2_000_000_000));
    assert_eq!((event.kind, event.audience), (Kind::Down, Audience::Everyone));
    assert_eq!(event.members, subjects(&hosts));
    assert_eq!(event.incident, Some(incident.id));
    assert!(event.subject.is_none());
}

#[test]
fn recoveries_are_one_digest_when_all_are_back() {
    let hosts = hosts(3);
    let now = Time(2_000_000_000);
    let (incident, _) = open(&hosts, now);
    assert!(incident.review(&subjects(&hosts), &[], now, &Policy::STANDARD).is_none(), "nothing changed");
    let (next, events) = incident.review(&subjects(&hosts[..1]), &[], now.plus(1000), &Policy::STANDARD).unwrap();
    assert!(events.is_empty(), "two are back, the digest waits for the third");
    let (next, events) = next.review(&[], &[], now.plus(2000), &Policy::STANDARD).unwrap();
    assert_eq!(
        events.iter().map(|event| (event.kind, event.audience)).collect::<Vec<_>>(),
        [(Kind::Up, Audience::Told)]
    );
    assert_eq!(next.closed_at, Some(now.plus(2000)));
    assert_eq!(events[0].inputs["back"], 3);
}

#[test]
fn a_digest_does_not_wait_for_ever_for_the_last_one() {
    let hosts = hosts(3);
    let now = Time(2_000_000_000);
    let policy = Policy::STANDARD;
    let (incident, _) = open(&hosts, now);
    let away = subjects(&hosts[..1]);
    let (next, _) = incident.review(&away, &[], now, &policy).unwrap();
    let later = now.plus(policy.digest_after_ms);
    let (next, events) = next.review(&away, &[], later, &policy).unwrap();
    assert_eq!(events[0].members, away, "the message names who is still away");
    assert!(next.closed_at.is_none());
    let (next, events) = next.review(&[], &[], later.plus(1), &policy).unwrap();
    assert_eq!((events.len(), next.closed_at), (1, Some(later.plus(1))));
}

#[test]
fn who_joins_later_is_told_within_seconds() {
    let all = hosts(4);
    let now = all[0].life.silent_from.plus(180_000);
    let (incident, _) = open(&all[..3], now);
    let fourth = &all[3];
    assert!(incident.takes(fourth) && !incident.names(fourth));
    let joined = incident.join(fourth);
    assert!(joined.review(&subjects(&all), &[], now.plus(1), &Policy::STANDARD).is_none());
    let (told, events) = joined.review(&subjects(&all), &[], now.plus(UPDATE_AFTER_MS), &Policy::STANDARD).unwrap();
    assert_eq!(events[0].members, subjects(&all[3..]));
    assert!(told.names(fourth));
}

#[test]
fn a_host_that_was_heard_after_the_incident_began_is_its_own_death() {
    let all = hosts(3);
    let now = all[0].life.silent_from.plus(180_000);
    let (incident, _) = open(&all, now);
    let mut alive = all[2].clone();
    alive.life.silent_from = now.plus(1);
    assert!(!incident.takes(&alive));
}
