//! Who is silent, and with whom.

use std::collections::BTreeMap;

use hb_core::event::Subject as About;
use hb_core::host::{Host, Maintenance, Outage, State};
use hb_core::incident::Group;
use hb_core::time::Time;
use hb_wire::id::{EventId, HostId};
use hb_wire::view::Class;

use super::Subject;
use super::world::{Dice, at, edit, enrol_all, host_id, incident_id, name, tags, up, uuid};

fn down(n: u64, since: Time, grouped: bool) -> Host {
    let outage = Outage { since, event: EventId(uuid(6, n)), incident: incident_id(1), grouped };
    Host { state: State::Down(outage), ..up(n) }
}

fn tag(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

pub async fn silence_is_counted_for_the_fleet_and_for_each_tag(store: Subject) {
    let now = at(100_000);
    let maintenance = |until| Some(Maintenance { until: at(until), note: String::new() });
    let ams = tags(&[("site", "ams1"), ("env", "prod")]);
    let heard = |n, at| {
        let mut host = up(n);
        host.life.silent_from = at;
        host
    };
    let hosts = [
        Host { tags: ams.clone(), ..heard(1, at(90_000)) },
        Host { tags: ams.clone(), ..heard(2, at(39_999)) },
        Host { tags: ams.clone(), ..heard(3, at(40_000)) },
        Host { tags: tags(&[("env", "prod")]), ..down(4, at(40_000), false) },
        Host { tags: ams.clone(), ..down(5, at(39_999), false) },
        Host { tags: ams.clone(), ..down(6, at(99_000), true) },
        Host { state: State::New, ..heard(7, at(0)) },
        Host { state: State::Retired { since: at(0) }, tags: ams.clone(), ..heard(8, at(0)) },
        // Their silence is announced: it says nothing about others.
        Host { class: Class::Intermittent, tags: ams.clone(), ..heard(9, at(0)) },
        Host { class: Class::Intermittent, max_away_ms: Some(90_000_000), tags: ams.clone(), ..heard(10, at(0)) },
        Host { maintenance: maintenance(100_001), tags: ams.clone(), ..heard(11, at(0)) },
    ];
    enrol_all(&store, &hosts).await;
    let groups = store.silence(now, &ams).await.unwrap();
    let group = |tag, expected, silent, down| Group { tag, expected, silent, down };
    assert_eq!(groups.len(), 3);
    assert!(groups.contains(&group(None, 4, 2, 1)), "{groups:?}");
    assert!(groups.contains(&group(Some(tag("site", "ams1")), 3, 1, 0)), "{groups:?}");
    assert!(groups.contains(&group(Some(tag("env", "prod")), 4, 2, 1)), "{groups:?}");
    let named: Vec<HostId> = store.silent(now, None, 10).await.unwrap().iter().map(|about| about.id).collect();
    assert_eq!(named, [host_id(2)]);
    edit(&store, host_id(11), |host| host.maintenance = maintenance(100_000)).await;
    assert!(store.silence(now, &ams).await.unwrap().contains(&group(None, 5, 3, 1)), "the maintenance is over");
    let nobody = store.silence(now, &tags(&[("site", "zrh")])).await.unwrap();
    assert!(nobody.contains(&group(Some(tag("site", "zrh")), 0, 0, 0)), "{nobody:?}");
}

pub async fn silent_hosts_are_named_in_order(store: Subject) {
    let silent = |n, text: &str, site| Host { name: name(text), tags: tags(&[("site", site)]), ..up(n) };
    let hosts = [silent(1, "c", "ams1"), silent(2, "a", "zrh"), silent(3, "b", "ams1"), down(4, at(0), false)];
    enrol_all(&store, &hosts).await;
    let about = |n: usize| About::of(&hosts[n]);
    assert_eq!(store.silent(at(60_001), None, 10).await.unwrap(), [about(1), about(2), about(0)]);
    assert_eq!(store.silent(at(60_001), None, 2).await.unwrap(), [about(1), about(2)]);
    let ams = tag("site", "ams1");
    assert_eq!(store.silent(at(60_001), Some(&ams), 10).await.unwrap(), [about(2), about(0)]);
    assert!(store.silent(at(60_000), None, 10).await.unwrap().is_empty());
}

pub async fn the_hosts_of_an_incident_are_those_whose_outage_is_open(store: Subject) {
    let hosts = [down(1, at(0), true), down(2, at(0), false), up(3)];
    enrol_all(&store, &hosts).await;
    let ids = async |limit| {
        let members = store.down_in(incident_id(1), limit).await.unwrap();
        members.into_iter().map(|about| about.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(10).await, [host_id(1), host_id(2)]);
    assert_eq!(ids(1).await, [host_id(1)]);
    let outage = hosts[0].state.outage().copied();
    let paused = State::Paused { since: at(1), until: None, reason: String::new(), outage, goodbye: None };
    edit(&store, host_id(1), |host| host.state = paused).await;
    assert_eq!(ids(10).await, [host_id(1), host_id(2)], "a pause ends no outage");
    edit(&store, host_id(2), |host| host.state = State::Up { since: at(2) }).await;
    assert_eq!(ids(10).await, [host_id(1)]);
    assert!(store.down_in(incident_id(2), 10).await.unwrap().is_empty());
}

pub async fn the_fleet_is_counted_by_state(store: Subject) {
    assert_eq!(store.fleet(at(0)).await.unwrap(), crate::Fleet::default());
    let mut quick = up(3);
    quick.interval_ms = 5000;
    quick.grace_ms = 1000;
    let retired = Host { interval_ms: 1, grace_ms: 1, state: State::Retired { since: at(0) }, ..up(5) };
    enrol_all(&store, &[up(1), up(2), quick, down(4, at(0), false), retired]).await;
    let fleet = store.fleet(at(60_000)).await.unwrap();
    let states: BTreeMap<String, u64> =
        [("up".to_owned(), 3), ("down".to_owned(), 1), ("retired".to_owned(), 1)].into();
    assert_eq!((fleet.hosts, fleet.late, fleet.shortest_need_ms), (4, 1, Some(6000)));
    assert_eq!(fleet.states, states);
    assert_eq!(store.fleet(at(60_001)).await.unwrap().late, 3);
}

/// The trait's own words, over any fleet.
pub async fn groups_agree_with_their_definition_for_any_fleet(store: Subject) {
    let mut dice = Dice(11);
    let now = at(1_000_000);
    let hosts: Vec<Host> = (0..400).map(|n| dice.host(n, now)).collect();
    enrol_all(&store, &hosts).await;
    let is_missed = |host: &Host| host.is_expected(now) && host.life.silent_from.plus(host.interval_ms) < now;
    let fell = |host: &Host| matches!(&host.state, State::Down(outage) if !outage.grouped && now.since(outage.since) <= host.interval_ms);
    let asked = tags(&[("site", "ams1"), ("env", "prod")]);
    for group in store.silence(now, &asked).await.unwrap() {
        let shares =
            |host: &&Host| group.tag.as_ref().is_none_or(|(key, value)| host.tags.get(key) == Some(value.as_str()));
        let count = |which: &dyn Fn(&Host) -> bool| {
            u64::try_from(hosts.iter().filter(shares).filter(|host| which(host)).count()).unwrap()
        };
        assert_eq!(group.expected, count(&|host| host.is_expected(now) || fell(host)), "{:?}", group.tag);
        assert_eq!(group.silent, count(&|host| is_missed(host) || fell(host)), "{:?}", group.tag);
        assert_eq!(group.down, count(&fell), "{:?}", group.tag);
        let named = store.silent(now, group.tag.as_ref(), 1000).await.unwrap();
        assert_eq!(u64::try_from(named.len()).unwrap(), count(&is_missed), "{:?}", group.tag);
        assert!(group.silent > 0, "too few cases to prove anything");
    }
}
