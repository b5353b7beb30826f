//! What receivers see: each event that has an audience arrives, in order, and twice only after doubt (I3b, I3c, I3d).

use std::collections::{BTreeMap, BTreeSet};

use hb_api::deliver::{ATTEMPT_MAX_MS, LEASE_MS};
use hb_core::event::{Audience, Event, Kind};
use hb_wire::id::{ChannelId, DeliveryId, EventId, HostId, IncidentId};

use crate::courier::Receipt;
use crate::judge::SETTLED_MS;
use crate::report::Tally;

/// What orders messages: a host, or an incident of many, of the server.
type Topic = (Option<HostId>, Option<IncidentId>);

/// An event that has to be told.
#[derive(Debug, Clone)]
struct Due {
    at: u64,
    kind: Kind,
    topic: Topic,
    incident: Option<IncidentId>,
    /// Its place in the order of commits.
    place: u64,
    missing: BTreeSet<ChannelId>,
}

/// The expectations of all receivers.
#[derive(Debug, Clone, Default)]
pub(super) struct Messages {
    channels: Vec<(ChannelId, bool)>,
    due: BTreeMap<EventId, Due>,
    places: BTreeMap<EventId, (u64, Topic, Kind)>,
    /// Which channels were to hear of an incident.
    opened: BTreeMap<IncidentId, BTreeSet<ChannelId>>,
    /// Last receipt of each key, and whether the sender could know.
    keys: BTreeMap<DeliveryId, (u64, bool)>,
    /// The latest event that a channel has heard of a topic.
    latest: BTreeMap<(ChannelId, Topic), u64>,
    last_place: u64,
}

fn topic(host: Option<HostId>, incident: Option<IncidentId>) -> Topic {
    if host.is_some() { (host, None) } else { (None, incident) }
}

impl Messages {
    pub(super) fn channel(&mut self, id: ChannelId, admin: bool) {
        self.channels.push((id, admin));
    }

    pub(super) fn event(&mut self, event: &Event, now: u64) {
        self.last_place += 1;
        let topic = topic(event.subject.as_ref().map(|subject| subject.id), event.incident);
        self.places.insert(event.id, (self.last_place, topic, event.kind));
        let all = |admin_only: bool| -> BTreeSet<ChannelId> {
            self.channels.iter().filter(|(_, admin)| *admin || !admin_only).map(|(id, _)| *id).collect()
        };
        let missing = match event.audience {
            Audience::Everyone => all(false),
            Audience::Admins => all(true),
            Audience::Told => {
                event.incident.and_then(|incident| self.opened.get(&incident)).cloned().unwrap_or_default()
            }
            Audience::Nobody => return,
        };
        if let Some(incident) = event.incident
            && event.audience != Audience::Told
        {
            self.opened.entry(incident).or_default().extend(missing.iter().copied());
        }
        let (incident, place) = (event.incident, self.last_place);
        self.due.insert(event.id, Due { at: now, kind: event.kind, topic, incident, place, missing });
    }

    pub(super) fn receipt(
        &mut self,
        receipt: &Receipt,
        troubled_since: impl Fn(u64) -> bool,
        tally: &mut Tally,
    ) -> Vec<(&'static str, String)> {
        let mut broken = Vec::new();
        let before = self.keys.insert(receipt.key, (receipt.at, receipt.ambiguous));
        let Some((place, topic, kind)) = self.places.get(&receipt.event).copied() else {
            broken.push(("I3a", format!("a message tells of {}, which is not stored", receipt.event)));
            return broken;
        };
        if let Some((at, ambiguous)) = before {
            tally.repeats += 1;
            // A server that was stopped between claim and send may have lost its lease, and not know it.
            // After a restore, what arrived before it is expected once more.
            self.tell(receipt, place, topic, kind);
            if !ambiguous && !troubled_since(at.saturating_sub(LEASE_MS + ATTEMPT_MAX_MS)) {
                broken.push(("I3d", format!("the {kind} {} was sent again without a doubt", receipt.event)));
            }
            return broken;
        }
        let latest = self.latest.entry((receipt.channel, topic)).or_default();
        if *latest > place {
            broken.push(("I3c", format!("the {kind} {} arrived after what followed it", receipt.event)));
        }
        *latest = place.max(*latest);
        self.tell(receipt, place, topic, kind);
        broken
    }

    /// Takes a message off what is expected, and what a closing message tells as well.
    fn tell(&mut self, receipt: &Receipt, place: u64, topic: Topic, kind: Kind) {
        let closes = matches!(kind, Kind::Up | Kind::Restored | Kind::Observing);
        let told: Vec<EventId> = self
            .due
            .iter()
            .filter(|(id, due)| {
                let told_too = closes
                    && matches!(due.kind, Kind::Down | Kind::Degraded | Kind::Blind)
                    && due.incident == receipt.incident
                    && due.topic == topic
                    && due.place < place;
                **id == receipt.event || told_too
            })
            .map(|(id, _)| *id)
            .collect();
        for id in told {
            if let Some(due) = self.due.get_mut(&id) {
                due.missing.remove(&receipt.channel);
                if due.missing.is_empty() {
                    self.due.remove(&id);
                }
            }
        }
    }

    /// I3b: what should have arrived by now.
    pub(super) fn undelivered(&self, now: u64) -> Vec<String> {
        self.due
            .iter()
            .filter(|(_, due)| due.at + SETTLED_MS <= now && !due.missing.is_empty())
            .map(|(id, due)| {
                format!("the {} {id} of {} ms did not arrive at {} channels", due.kind, due.at, due.missing.len())
            })
            .collect()
    }

    /// A backup takes back what was to be told; what arrived has arrived.
    pub(super) fn restored(&mut self, before: Self) {
        let keys = core::mem::take(&mut self.keys);
        // After a restore the same message may come again: the store does not know that it was sent.
        let doubtful = keys.into_iter().map(|(key, (at, _))| (key, (at, true))).collect();
        let places = core::mem::take(&mut self.places);
        *self = Self { keys: doubtful, places, latest: BTreeMap::new(), last_place: self.last_place, ..before };
    }
}
