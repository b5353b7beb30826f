//! What the store in memory holds, and the one place that writes hosts and events.

use std::collections::{BTreeMap, BTreeSet};

use hb_core::access::{ApiKey, Channel, Token};
use hb_core::delivery::Delivery;
use hb_core::event::{Audience, Event};
use hb_core::host::{Host, State};
use hb_core::incident::Incident;
use hb_core::observer::Observation;
use hb_wire::id::{ChannelId, DeliveryId, EventId, HostId, IncidentId};
use hb_wire::key::PublicKey;
use hb_wire::name::HostName;

use super::alarms::Alarms;
use crate::{Committed, EVENTS_PER_HOST_MAX, EVENTS_SLACK, Topic, Versioned};

/// Everything. What is not a plain record is an index, and follows from the records.
#[derive(Debug, Clone, Default)]
pub(super) struct Records {
    pub(super) hosts: BTreeMap<HostId, Versioned<Host>>,
    pub(super) by_key: BTreeMap<PublicKey, HostId>,
    /// Names of hosts that are not retired.
    pub(super) live_names: BTreeMap<HostName, HostId>,
    pub(super) in_order: BTreeSet<(HostName, HostId)>,
    pub(super) by_tag: BTreeMap<(String, String), BTreeSet<HostId>>,
    pub(super) by_outage: BTreeMap<IncidentId, BTreeSet<HostId>>,
    pub(super) alarms: Alarms,
    /// Only for the mutant that compares the state's word: since which revision each word has held.
    pub(super) words: BTreeMap<HostId, Vec<(u64, &'static str)>>,

    pub(super) incidents: BTreeMap<IncidentId, Versioned<Incident>>,
    pub(super) events: BTreeMap<u64, Event>,
    pub(super) event_positions: BTreeMap<EventId, u64>,
    pub(super) events_of: BTreeMap<Option<HostId>, BTreeSet<u64>>,
    pub(super) untold: BTreeSet<u64>,

    pub(super) deliveries: BTreeMap<u64, Delivery>,
    pub(super) delivery_positions: BTreeMap<DeliveryId, u64>,
    pub(super) by_incident: BTreeMap<IncidentId, BTreeSet<u64>>,
    /// Deliveries of an event that may still have to be sent: pending or dead.
    pub(super) unsettled: BTreeMap<EventId, BTreeSet<u64>>,
    /// Pending deliveries that have to arrive in order.
    pub(super) queues: BTreeMap<(ChannelId, Topic), BTreeSet<u64>>,
    /// Delivered, merged and dead.
    pub(super) finished: BTreeSet<u64>,
    pub(super) last_position: u64,

    pub(super) keys: Vec<ApiKey>,
    pub(super) tokens: Vec<Token>,
    pub(super) channels: Vec<Channel>,
    pub(super) observation: Option<Versioned<Observation>>,
}

impl Records {
    /// Writes a host, and every index that follows from it.
    pub(super) fn put_host(&mut self, host: Host, rev: u64) {
        let id = host.id;
        if let Some(before) = self.hosts.remove(&id) {
            self.unindex(&before.value);
        }
        self.by_key.insert(host.key, id);
        self.in_order.insert((host.name.clone(), id));
        if !matches!(host.state, State::Retired { .. }) {
            self.live_names.insert(host.name.clone(), id);
        }
        for (key, value) in host.tags.as_map() {
            self.by_tag.entry((key.clone(), value.clone())).or_default().insert(id);
        }
        if let Some(outage) = host.state.outage() {
            self.by_outage.entry(outage.incident).or_default().insert(id);
        }
        self.alarms.set(id, crate::check_at(&host));
        self.hosts.insert(id, Versioned { value: host, rev });
    }

    fn unindex(&mut self, host: &Host) {
        self.by_key.remove(&host.key);
        self.in_order.remove(&(host.name.clone(), host.id));
        if self.live_names.get(&host.name) == Some(&host.id) {
            self.live_names.remove(&host.name);
        }
        for (key, value) in host.tags.as_map() {
            remove_from(&mut self.by_tag, &(key.clone(), value.clone()), &host.id);
        }
        if let Some(outage) = host.state.outage() {
            remove_from(&mut self.by_outage, &outage.incident, &host.id);
        }
    }

    pub(super) fn next_position(&mut self) -> u64 {
        self.last_position = self.last_position.saturating_add(1);
        self.last_position
    }

    /// Stores events that are not stored yet, and lets go of the oldest.
    pub(super) fn put_events(&mut self, events: Vec<Event>) {
        for event in events {
            if self.event_positions.contains_key(&event.id) {
                continue;
            }
            let position = self.next_position();
            let subject = event.subject.as_ref().map(|subject| subject.id);
            self.event_positions.insert(event.id, position);
            self.events_of.entry(subject).or_default().insert(position);
            if event.audience != Audience::Nobody {
                self.untold.insert(position);
            }
            self.events.insert(position, event);
            self.prune_events(subject);
        }
    }

    fn prune_events(&mut self, subject: Option<HostId>) {
        let Some(held) = self.events_of.get_mut(&subject) else { return };
        let surplus = held.len().saturating_sub(EVENTS_PER_HOST_MAX);
        if surplus <= EVENTS_SLACK {
            return;
        }
        let is_free = |position: &u64| {
            let waits = self.events.get(position).is_some_and(|event| self.unsettled.contains_key(&event.id));
            !waits && !self.untold.contains(position)
        };
        let old: Vec<u64> = held.iter().take(surplus).copied().filter(is_free).collect();
        for position in old {
            held.remove(&position);
            if let Some(event) = self.events.remove(&position) {
                self.event_positions.remove(&event.id);
            }
        }
    }

    pub(super) fn observe(&mut self, observation: Versioned<Observation>, events: Vec<Event>) -> Committed {
        if self.observation.as_ref().map_or(0, |held| held.rev) != observation.rev {
            return Committed::Conflict;
        }
        self.observation = Some(Versioned { value: observation.value, rev: observation.rev.saturating_add(1) });
        self.put_events(events);
        Committed::Done
    }
}

/// Removes a value from a set in a map, and the set with its last value.
pub(super) fn remove_from<K: Ord, V: Ord>(sets: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}
