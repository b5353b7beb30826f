//! Who is silent, and with whom.

use hb_core::event::Subject;
use hb_core::host::{Host, State};
use hb_core::incident::Group;
use hb_core::time::Time;
use hb_wire::id::{HostId, IncidentId};
use hb_wire::name::Tags;

use super::records::Records;
use crate::{Fleet, PAGE_MAX, Versioned};

impl Records {
    pub(super) fn fleet(&self, now: Time) -> Fleet {
        let mut fleet = Fleet::default();
        for Versioned { value: host, .. } in self.hosts.values() {
            *fleet.states.entry(host.state.word().to_owned()).or_default() += 1;
            if matches!(host.state, State::Retired { .. }) {
                continue;
            }
            fleet.hosts += 1;
            fleet.late += u64::from(is_late(host, now));
            let shortest = fleet.shortest_need_ms.unwrap_or(u64::MAX).min(host.need_ms());
            fleet.shortest_need_ms = Some(shortest);
        }
        fleet
    }

    pub(super) fn silence(&self, now: Time, tags: &Tags) -> Vec<Group> {
        let shared = tags.as_map().iter().map(|(key, value)| Some((key.clone(), value.clone())));
        core::iter::once(None).chain(shared).map(|tag| self.group(now, tag)).collect()
    }

    fn group(&self, now: Time, tag: Option<(String, String)>) -> Group {
        let (mut expected, mut silent, mut down) = (0, 0, 0);
        for host in self.members(tag.as_ref()) {
            let fell = fell_alone(host, now);
            expected += u64::from(fell || host.is_expected(now));
            silent += u64::from(fell || is_missed(host, now));
            down += u64::from(fell);
        }
        Group { tag, expected, silent, down }
    }

    pub(super) fn silent(&self, now: Time, tag: Option<&(String, String)>, limit: usize) -> Vec<Subject> {
        let late: Vec<&Host> = self.members(tag).filter(|host| is_missed(host, now)).collect();
        by_name(late, limit)
    }

    pub(super) fn down_in(&self, incident: IncidentId, limit: usize) -> Vec<Subject> {
        let ids = self.by_outage.get(&incident).into_iter().flatten();
        by_name(ids.filter_map(|id| self.of(id)).collect(), limit)
    }

    fn members<'a>(&'a self, tag: Option<&(String, String)>) -> Box<dyn Iterator<Item = &'a Host> + 'a> {
        match tag {
            None => Box::new(self.hosts.values().map(|held| &held.value)),
            Some(tag) => Box::new(self.by_tag.get(tag).into_iter().flatten().filter_map(|id| self.of(id))),
        }
    }

    fn of(&self, id: &HostId) -> Option<&Host> {
        self.hosts.get(id).map(|held| &held.value)
    }
}

/// Up, and past its interval.
fn is_late(host: &Host, now: Time) -> bool {
    matches!(host.state, State::Up { .. }) && host.life.silent_from.plus(host.interval_ms) < now
}

/// Expected, and past its interval.
fn is_missed(host: &Host, now: Time) -> bool {
    host.is_expected(now) && is_late(host, now)
}

/// Declared down on its own, no longer than an interval ago.
fn fell_alone(host: &Host, now: Time) -> bool {
    matches!(&host.state, State::Down(outage) if !outage.grouped && now.since(outage.since) <= host.interval_ms)
}

fn by_name(mut hosts: Vec<&Host>, limit: usize) -> Vec<Subject> {
    hosts.sort_by_key(|host| (&host.name, host.id));
    hosts.into_iter().take(limit.min(PAGE_MAX)).map(Subject::of).collect()
}
