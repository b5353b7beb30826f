//! When to look at which host: a lower bound of each host's alarm, corrected only when it has passed.

use core::ops::Bound;
use std::collections::{BTreeMap, BTreeSet};

use hb_core::host::Host;
use hb_core::ledger::Ledger;
use hb_core::policy::Policy;
use hb_core::time::Time;
use hb_wire::id::HostId;

use super::records::Records;
use crate::{PAGE_MAX, Versioned};

/// An index by a lower bound of [`Host::alarm_at`]. A beat does not touch it: it only makes the bound too early.
#[derive(Debug, Clone, Default)]
pub(super) struct Alarms {
    by_time: BTreeSet<(Time, HostId)>,
    by_host: BTreeMap<HostId, Time>,
}

impl Alarms {
    pub(super) fn set(&mut self, id: HostId, at: Option<Time>) {
        if let Some(before) = self.by_host.remove(&id) {
            self.by_time.remove(&(before, id));
        }
        if let Some(at) = at {
            self.by_time.insert((at, id));
            self.by_host.insert(id, at);
        }
    }

    pub(super) fn first(&self) -> Option<Time> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// The first after this place.
    fn after(&self, place: Option<(Time, HostId)>) -> Option<(Time, HostId)> {
        let from = place.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_time.range((from, Bound::Unbounded)).next().copied()
    }
}

impl Records {
    /// Walks the bounds in order. One that is too early moves to the host's real alarm, where the walk may meet it again:
    /// so what is found is in the order of the real alarms.
    pub(super) fn due(&mut self, now: Time, ledger: &Ledger, policy: &Policy, limit: usize) -> Vec<Versioned<Host>> {
        let limit = limit.min(PAGE_MAX);
        let mut found = Vec::new();
        let mut place = None;
        while found.len() < limit {
            let Some((bound, id)) = self.alarms.after(place).filter(|(bound, _)| *bound <= now) else { break };
            let Some(held) = self.hosts.get(&id) else { break };
            match held.value.alarm_at(ledger, policy) {
                Some(alarm) if alarm <= bound => {
                    found.push(held.clone());
                    place = Some((bound, id));
                }
                later => self.alarms.set(id, later),
            }
        }
        found
    }
}
