//! What a sweep finds.

use hb_core::host::{Host, Maintenance, State};
use hb_core::ledger::Ledger;
use hb_core::policy::Policy;
use hb_core::time::Time;
use hb_wire::id::HostId;
use hb_wire::view::Class;

use super::Subject;
use super::world::{Dice, at, beat_of, edit, enrol, enrol_all, host_id, nonce, read, up};
use crate::{Beaten, PAGE_MAX};

async fn due(store: &Subject, now: Time, ledger: &Ledger, limit: usize) -> Vec<HostId> {
    let found = store.due(now, ledger, &Policy::STANDARD, limit).await.unwrap();
    found.into_iter().map(|held| held.value.id).collect()
}

/// Who is due, by the definition alone, earliest first.
fn expected<'a>(hosts: impl IntoIterator<Item = &'a Host>, now: Time, ledger: &Ledger) -> Vec<(Time, HostId)> {
    let alarms = hosts.into_iter().filter_map(|host| Some((host.alarm_at(ledger, &Policy::STANDARD)?, host.id)));
    let mut alarms: Vec<_> = alarms.filter(|(alarm, _)| *alarm <= now).collect();
    alarms.sort_unstable();
    alarms
}

/// Over random fleets in which hosts beat, change and fall silent while gaps are entered: every alarm is found, in order.
pub async fn due_finds_every_alarm_and_nothing_else(store: Subject) {
    let mut dice = Dice(7);
    let mut now = at(1_000_000);
    let mut hosts: Vec<Host> = (0..250).map(|n| dice.host(n, now)).collect();
    enrol_all(&store, &hosts).await;
    let mut ledger = dice.ledger(now);
    let mut found = 0;
    for round in 0..30 {
        let alarms = expected(&hosts, now, &ledger);
        found += alarms.len();
        let ids: Vec<HostId> = alarms.iter().map(|(_, id)| *id).collect();
        assert_eq!(due(&store, now, &ledger, PAGE_MAX).await, ids, "round {round}");
        let some = ids.len() / 2;
        assert_eq!(due(&store, now, &ledger, some).await, ids[..some], "round {round}");
        let first = hosts.iter().filter_map(|host| host.alarm_at(&ledger, &Policy::STANDARD)).min();
        let next = store.next_due().await.unwrap();
        assert!(first.is_none_or(|first| next.is_some_and(|next| next <= first)), "{next:?} is later than {first:?}");
        for host in &mut hosts {
            match dice.below(6) {
                0 => {
                    let beat = beat_of(host, now, host.life.nonce);
                    if store.beat(beat).await.unwrap() == Beaten::Stored {
                        *host = read(&store, host.id).await.value;
                    }
                }
                1 => {
                    let other = Host { name: host.name.clone(), ..dice.host(0, now) };
                    *host = Host { id: host.id, key: host.key, ..other };
                    edit(&store, host.id, |held| *held = host.clone()).await;
                }
                _ => {}
            }
        }
        let before = now;
        now = now.plus(dice.pick(&[0, 1000, 20_000, 100_000]));
        if dice.one_in(3) {
            ledger.enter(before, now);
        }
    }
    assert!(found > 1000, "too few alarms to prove anything: {found}");
}

pub async fn due_is_answered_in_pages_earliest_first(store: Subject) {
    let hosts: Vec<Host> = (0..50)
        .map(|n| {
            let mut host = up(n);
            host.life.silent_from = at(1000 * (50 - n));
            host
        })
        .collect();
    enrol_all(&store, &hosts).await;
    let mut seen = Vec::new();
    loop {
        let page = due(&store, at(1_000_000), &Ledger::default(), 7).await;
        for id in &page {
            edit(&store, *id, |host| host.state = State::Retired { since: at(1_000_000) }).await;
        }
        seen.extend_from_slice(&page);
        if page.len() < 7 {
            break;
        }
    }
    let by_silence: Vec<HostId> = (0..50).rev().map(host_id).collect();
    assert_eq!(seen, by_silence);
}

pub async fn a_host_that_was_heard_is_not_due_until_it_is_silent_again(store: Subject) {
    let no_gaps = Ledger::default();
    enrol_all(&store, &[up(1), up(2)]).await;
    assert!(due(&store, at(179_999), &no_gaps, 10).await.is_empty());
    assert_eq!(store.beat(beat_of(&up(1), at(179_999), nonce(1))).await.unwrap(), Beaten::Stored);
    assert_eq!(due(&store, at(180_000), &no_gaps, 10).await, [host_id(2)]);
    assert_eq!(due(&store, at(180_000), &no_gaps, 10).await, [host_id(2)], "asking changes nothing");
    assert_eq!(due(&store, at(359_998), &no_gaps, 10).await, [host_id(2)]);
    assert_eq!(due(&store, at(359_999), &no_gaps, 10).await, [host_id(2), host_id(1)]);
}

pub async fn an_edit_that_brings_the_alarm_forward_is_found_at_once(store: Subject) {
    let no_gaps = Ledger::default();
    let mut host = up(1);
    host.class = Class::Intermittent;
    host.maintenance = Some(Maintenance { until: at(10_000_000), note: String::new() });
    enrol(&store, &host).await;
    assert!(due(&store, at(5_000_000), &no_gaps, 10).await.is_empty());
    edit(&store, host.id, |host| host.max_away_ms = Some(0)).await;
    assert!(due(&store, at(5_000_000), &no_gaps, 10).await.is_empty());
    assert!(store.next_due().await.unwrap().is_some_and(|next| next <= at(10_000_000)));
    edit(&store, host.id, |host| host.maintenance = None).await;
    assert_eq!(due(&store, at(5_000_000), &no_gaps, 10).await, [host.id]);
    edit(&store, host.id, |host| host.interval_ms = 10_000_000).await;
    assert!(due(&store, at(5_000_000), &no_gaps, 10).await.is_empty());
    edit(&store, host.id, |host| host.interval_ms = 1000).await;
    assert_eq!(due(&store, at(121_000), &no_gaps, 10).await, [host.id]);
}

pub async fn next_due_is_none_when_nothing_is_armed_and_never_late(store: Subject) {
    assert_eq!(store.next_due().await.unwrap(), None);
    enrol(&store, &up(1)).await;
    assert_eq!(store.next_due().await.unwrap(), Some(at(180_000)));
    let paused = |until| State::Paused { since: at(0), until, reason: String::new(), outage: None, goodbye: None };
    edit(&store, host_id(1), |host| host.state = paused(None)).await;
    assert_eq!(store.next_due().await.unwrap(), None);
    edit(&store, host_id(1), |host| host.state = paused(Some(at(99)))).await;
    assert_eq!(store.next_due().await.unwrap(), Some(at(99)));
    edit(&store, host_id(1), |host| host.state = State::Retired { since: at(0) }).await;
    assert_eq!(store.next_due().await.unwrap(), None);
}
