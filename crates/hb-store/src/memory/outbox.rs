//! Events to read, and the outbox.

use core::ops::Bound;

use hb_core::delivery::{Delivery, Status};
use hb_core::event::{Event, Kind};
use hb_core::mutant::{Mutant, active};
use hb_core::time::Time;
use hb_wire::id::{DeliveryId, EventId, IncidentId};

use super::records::{Records, remove_from};
use crate::{Backlog, DELIVERIES_MAX, DELIVERIES_SLACK, EventQuery, Listed, PAGE_MAX, Topic};

impl Records {
    pub(super) fn event(&self, id: EventId) -> Option<Event> {
        self.events.get(self.event_positions.get(&id)?).cloned()
    }

    pub(super) fn list_events(&self, query: &EventQuery) -> Vec<Listed<Event>> {
        let (from, to) = span(query.after, query.ascending);
        let positions: Box<dyn DoubleEndedIterator<Item = u64>> = match query.host {
            Some(host) => {
                let held = self.events_of.get(&Some(host));
                Box::new(held.into_iter().flat_map(move |held| held.range((from, to)).copied()))
            }
            None => Box::new(self.events.range((from, to)).map(|(position, _)| *position)),
        };
        let positions: Box<dyn Iterator<Item = u64>> =
            if query.ascending { positions } else { Box::new(positions.rev()) };
        positions
            .filter_map(|position| Some((position, self.events.get(&position)?)))
            .filter(|(_, event)| query.since.is_none_or(|since| event.at >= since))
            .take(query.limit.min(PAGE_MAX))
            .map(|(position, event)| Listed { position, value: event.clone() })
            .collect()
    }

    pub(super) fn untold(&self, limit: usize) -> Vec<Event> {
        self.untold.iter().take(limit.min(PAGE_MAX)).filter_map(|position| self.events.get(position)).cloned().collect()
    }

    pub(super) fn tell(&mut self, event: EventId, deliveries: &[Delivery]) {
        let Some(told) = self.event_positions.get(&event).copied() else { return };
        if !self.untold.remove(&told) {
            return;
        }
        for delivery in deliveries {
            if !self.delivery_positions.contains_key(&delivery.id) {
                let position = self.next_position();
                self.put_delivery(position, delivery.clone());
            }
        }
    }

    fn put_delivery(&mut self, position: u64, delivery: Delivery) {
        self.forget_delivery(position);
        self.delivery_positions.insert(delivery.id, position);
        if let Some(incident) = delivery.incident {
            self.by_incident.entry(incident).or_default().insert(position);
        }
        if delivery.status == Status::Pending {
            self.queues.entry((delivery.channel, Topic::of(&delivery))).or_default().insert(position);
        } else {
            self.finished.insert(position);
        }
        if matches!(delivery.status, Status::Pending | Status::Dead) {
            self.unsettled.entry(delivery.event).or_default().insert(position);
        }
        self.deliveries.insert(position, delivery);
        self.prune_deliveries();
    }

    pub(super) fn forget_delivery(&mut self, position: u64) {
        let Some(delivery) = self.deliveries.remove(&position) else { return };
        self.delivery_positions.remove(&delivery.id);
        self.finished.remove(&position);
        if let Some(incident) = delivery.incident {
            remove_from(&mut self.by_incident, &incident, &position);
        }
        remove_from(&mut self.queues, &(delivery.channel, Topic::of(&delivery)), &position);
        remove_from(&mut self.unsettled, &delivery.event, &position);
    }

    fn prune_deliveries(&mut self) {
        let surplus = self.finished.len().saturating_sub(DELIVERIES_MAX);
        if surplus <= DELIVERIES_SLACK {
            return;
        }
        for position in self.finished.iter().take(surplus).copied().collect::<Vec<_>>() {
            self.forget_delivery(position);
        }
    }

    /// The oldest pending delivery of each queue, by position.
    fn heads(&self) -> impl Iterator<Item = (u64, &Delivery)> {
        self.queues.values().filter_map(|queue| {
            let position = *queue.first()?;
            Some((position, self.deliveries.get(&position)?))
        })
    }

    pub(super) fn claim(&mut self, now: Time, until: Time, limit: usize) -> Vec<Delivery> {
        let mut ready: Vec<u64> =
            self.heads().filter(|(_, delivery)| ready_at(delivery) <= now).map(|(position, _)| position).collect();
        ready.sort_unstable();
        ready.truncate(limit.min(PAGE_MAX));
        let mut claimed = Vec::with_capacity(ready.len());
        for position in ready {
            let Some(mut delivery) = self.deliveries.get(&position).cloned() else { continue };
            delivery.leased_until = Some(until);
            let held = if active(Mutant::ClaimFirst) { delivery.clone().delivered(now) } else { delivery.clone() };
            self.put_delivery(position, held);
            claimed.push(delivery);
        }
        claimed
    }

    pub(super) fn next_claim(&self) -> Option<Time> {
        if !self.untold.is_empty() {
            return Some(Time::ZERO);
        }
        self.heads().map(|(_, delivery)| ready_at(delivery)).min()
    }

    pub(super) fn settle(&mut self, delivery: &Delivery, lease: Time) -> bool {
        let Some(position) = self.delivery_positions.get(&delivery.id).copied() else { return false };
        let is_held = |held: &Delivery| held.status == Status::Pending && held.leased_until == Some(lease);
        if !self.deliveries.get(&position).is_some_and(is_held) {
            return false;
        }
        if let Some(channel) = self.channels.iter_mut().find(|channel| channel.id == delivery.channel) {
            if delivery.status == Status::Delivered {
                channel.last_delivered_at = delivery.delivered_at;
                channel.last_error = None;
            } else if delivery.status != Status::Merged {
                channel.last_error.clone_from(&delivery.last_error);
            }
        }
        self.put_delivery(position, delivery.clone());
        true
    }

    pub(super) fn deliveries_of(&self, incident: IncidentId) -> Vec<Delivery> {
        let positions = self.by_incident.get(&incident).into_iter().flatten();
        positions.filter_map(|position| self.deliveries.get(position)).cloned().collect()
    }

    pub(super) fn delivery(&self, id: DeliveryId) -> Option<&Delivery> {
        self.deliveries.get(self.delivery_positions.get(&id)?)
    }

    pub(super) fn revive(&mut self, revived: &Delivery) -> bool {
        let Some(position) = self.delivery_positions.get(&revived.id).copied() else { return false };
        let is_idle = |held: &Delivery| {
            held.status == Status::Dead || (held.status == Status::Pending && held.leased_until.is_none())
        };
        if !self.deliveries.get(&position).is_some_and(is_idle) {
            return false;
        }
        self.put_delivery(position, revived.clone());
        true
    }

    pub(super) fn list_deliveries(
        &self,
        status: Option<Status>,
        after: Option<u64>,
        limit: usize,
    ) -> Vec<Listed<Delivery>> {
        self.deliveries
            .range(span(after, false))
            .rev()
            .filter(|(_, delivery)| status.is_none_or(|status| delivery.status == status))
            .take(limit.min(PAGE_MAX))
            .map(|(position, delivery)| Listed { position: *position, value: delivery.clone() })
            .collect()
    }

    pub(super) fn backlog(&self) -> Backlog {
        let mut backlog = Backlog { pending: count(self.untold.len()), ..Backlog::default() };
        for queue in self.queues.values() {
            backlog.pending += count(queue.len());
            let failing = |position: &&u64| self.deliveries.get(position).is_some_and(|delivery| delivery.attempts > 0);
            backlog.failing += count(queue.iter().filter(failing).count());
        }
        let is_lost = |delivery: &&Delivery| {
            delivery.status == Status::Dead
                && delivery.kind != Kind::Test
                && self.channels.iter().any(|channel| channel.id == delivery.channel)
        };
        let finished = self.finished.iter().filter_map(|position| self.deliveries.get(position));
        backlog.dead = count(finished.filter(is_lost).count());
        backlog
    }
}

/// When a pending delivery may be claimed: due, and not leased.
fn ready_at(delivery: &Delivery) -> Time {
    delivery.next_attempt_at.max(delivery.leased_until.unwrap_or(Time::ZERO))
}

/// Positions after `after`, in that direction.
fn span(after: Option<u64>, ascending: bool) -> (Bound<u64>, Bound<u64>) {
    let edge = after.map_or(Bound::Unbounded, Bound::Excluded);
    if ascending { (edge, Bound::Unbounded) } else { (Bound::Unbounded, edge) }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
