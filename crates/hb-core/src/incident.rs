//! What belongs together (rule R4): many hosts that fall silent at once are one message, with the list inside.
//!
//! When the first deadline passes, everybody who died with that host is late already (as long as the grace is at least the
//! interval), so nothing has to wait: [`widest`] looks at who is late in the whole fleet and in each of the host's tags.

use std::collections::BTreeMap;

use hb_wire::id::{HostId, IncidentId};
use serde::{Deserialize, Serialize};

use crate::event::{Audience, Event, Kind, Subject, derive_id};
use crate::host::Host;
use crate::policy::Policy;
use crate::time::{Time, seconds};

/// Most hosts that an incident lists by name; the count is always exact.
pub const MEMBERS_MAX: usize = 1000;
/// Hosts that join an incident after its message are told together, this long after the message before.
pub const UPDATE_AFTER_MS: u64 = seconds(10);

/// The hosts that share something, and how many of them are silent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The tag they share; none: the whole fleet.
    pub tag: Option<(String, String)>,
    /// How many should be beating: up, late, or down for less than an interval.
    pub expected: u64,
    /// How many of those are silent: past their interval, or down.
    pub silent: u64,
    /// How many of the silent ones were declared down, and told, on their own before.
    pub down: u64,
}

/// Hosts that fell silent together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Derived from the first of them.
    pub id: IncidentId,
    /// When it was opened.
    pub opened_at: Time,
    /// What they share; none: they are most of the fleet.
    pub tag: Option<(String, String)>,
    /// How many were expected.
    pub expected: u64,
    /// How many were late when it was opened, or joined later.
    pub silent: u64,
    /// How many had been told on their own before it was opened; they are told of their return on their own, too.
    pub singly: u64,
    /// Who they are, at most [`MEMBERS_MAX`].
    pub members: Vec<Subject>,
    /// Who joined since the last message.
    pub untold: Vec<Subject>,
    /// When the last message was made.
    pub told_at: Time,
    /// When it was first seen that a member is back.
    pub first_back_at: Option<Time>,
    /// How many recoveries were told.
    pub told_back: u64,
    /// When it ended.
    pub closed_at: Option<Time>,
}

/// The largest group that is silent together, if any is.
#[must_use]
pub fn widest<'a>(groups: &'a [Group], policy: &Policy) -> Option<&'a Group> {
    groups
        .iter()
        .filter(|group| {
            group.silent >= policy.mass_min
                && group.silent.saturating_mul(100) >= group.expected.saturating_mul(policy.mass_percent)
        })
        .max_by_key(|group| (group.silent, group.tag.is_none()))
}

impl Incident {
    /// Opens an incident and makes its message. `first` is the host whose deadline passed, `members` are those
    /// that are silent and not declared down yet (`first` among them).
    #[must_use]
    pub fn open(first: &Host, group: &Group, members: Vec<Subject>, now: Time, policy: &Policy) -> (Self, Event) {
        let from = first.life.silent_from;
        let tag = group.tag.as_ref().map(|(key, value)| format!("{key}={value}")).unwrap_or_default();
        let parts: [&[u8]; 5] =
            [b"incident", first.id.0.as_bytes(), &from.0.to_be_bytes(), tag.as_bytes(), &policy.epoch.to_be_bytes()];
        let mut incident = Self {
            id: IncidentId(derive_id(from, Kind::Down, &parts).0),
            opened_at: now,
            tag: group.tag.clone(),
            expected: group.expected,
            silent: group.silent.saturating_sub(group.down),
            singly: group.down,
            members,
            untold: Vec::new(),
            told_at: now,
            first_back_at: None,
            told_back: 0,
            closed_at: None,
        };
        incident.members.truncate(MEMBERS_MAX);
        let event = incident.event(Kind::Down, Audience::Everyone, incident.members.clone(), now, policy);
        (incident, event)
    }

    /// True when a host whose deadline passed fell silent before the incident was opened, and shares what its members share.
    #[must_use]
    pub fn takes(&self, host: &Host) -> bool {
        let shares = self.tag.as_ref().is_none_or(|(key, value)| host.tags.get(key) == Some(value.as_str()));
        self.closed_at.is_none() && shares && host.life.silent_from <= self.opened_at
    }

    /// True when the incident's message named the host.
    ///
    /// Beyond [`MEMBERS_MAX`] names, whoever was late when it was opened was counted, and counts as named.
    #[must_use]
    pub fn names(&self, host: &Host) -> bool {
        let was_late = host.life.silent_from.plus(host.interval_ms) < self.opened_at;
        self.has(host.id) || (was_late && self.members.len() >= MEMBERS_MAX)
    }

    fn has(&self, id: HostId) -> bool {
        self.members.iter().chain(&self.untold).any(|member| member.id == id)
    }

    /// A host that the message did not name joins; it is told with the next update.
    #[must_use]
    pub fn join(&self, host: &Host) -> Self {
        let mut next = self.clone();
        next.silent = next.silent.saturating_add(1);
        next.untold.push(Subject::of(host));
        next
    }

    /// What has to be said now: who joined, and who is back. `down` are the members that are down at present, `late` those
    /// that are silent but not yet declared down. None: nothing changed.
    #[must_use]
    pub fn review(&self, down: &[Subject], late: &[Subject], now: Time, policy: &Policy) -> Option<(Self, Vec<Event>)> {
        let away = u64::try_from(down.len().saturating_add(late.len())).unwrap_or(u64::MAX);
        let back = self.silent.saturating_sub(away);
        let tells_joined = !self.untold.is_empty() && now.since(self.told_at) >= UPDATE_AFTER_MS;
        let more_are_back = back > self.told_back;
        let first_back_at = if more_are_back { self.first_back_at.or(Some(now)) } else { self.first_back_at };
        let closes = away == 0 && (self.untold.is_empty() || tells_joined);
        let waited = first_back_at.is_some_and(|first| now.since(first) >= policy.digest_after_ms);
        let tells_back = more_are_back && (closes || waited);
        // Mostly nothing changes: then nothing is copied.
        if !tells_joined && !closes && !tells_back && first_back_at == self.first_back_at {
            return None;
        }
        let mut next = Self { first_back_at, ..self.clone() };
        let mut events = Vec::new();
        if tells_joined {
            let joined = core::mem::take(&mut next.untold);
            next.members.extend(joined.iter().cloned());
            next.members.truncate(MEMBERS_MAX);
            next.told_at = now;
            events.push(next.event(Kind::Down, Audience::Everyone, joined, now, policy));
        }
        if closes {
            next.closed_at = Some(now);
        }
        if tells_back {
            next.told_back = back;
            next.first_back_at = None;
            let still_away = down.iter().chain(late).take(MEMBERS_MAX).cloned().collect();
            let mut event = next.event(Kind::Up, Audience::Told, still_away, now, policy);
            event.inputs.insert("back".into(), back.into());
            event.inputs.insert("away".into(), away.into());
            events.push(event);
        }
        Some((next, events))
    }

    fn event(&self, kind: Kind, audience: Audience, members: Vec<Subject>, now: Time, policy: &Policy) -> Event {
        let mut inputs = BTreeMap::new();
        inputs.insert("silent".into(), self.silent.saturating_add(self.singly).into());
        inputs.insert("expected".into(), self.expected.into());
        inputs.insert("shared".into(), self.tag.as_ref().map(|(key, value)| format!("{key}={value}")).into());
        // The incident may be older than a backup that was restored: the epoch keeps what follows apart from what was undone.
        let salt = [self.silent, self.told_back, u64::from(policy.epoch)].map(u64::to_be_bytes).concat();
        Event {
            id: derive_id(self.opened_at, kind, &[b"mass", self.id.0.as_bytes(), &salt]),
            kind,
            subject: None,
            at: now,
            since: Some(self.opened_at),
            cause: None,
            deadline: None,
            incident: Some(self.id),
            audience,
            members,
            inputs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(silent: u64, expected: u64) -> Group {
        Group { tag: None, expected, silent, down: 0 }
    }

    #[test]
    fn what_an_incident_tells_after_a_restore_has_ids_of_its_own() {
        let open = Incident {
            id: IncidentId(uuid::Uuid::nil()),
            opened_at: Time(1000),
            tag: None,
            expected: 3,
            silent: 3,
            singly: 0,
            members: Vec::new(),
            untold: Vec::new(),
            told_at: Time(1000),
            first_back_at: None,
            told_back: 0,
            closed_at: None,
        };
        let told = |epoch| {
            let policy = Policy { epoch, ..Policy::STANDARD };
            let (_, events) = open.review(&[], &[], Time(2000), &policy).expect("all are back");
            events.first().expect("and that is told").id
        };
        assert_eq!(told(0), told(0));
        assert_ne!(told(0), told(1));
    }

    #[test]
    fn three_hosts_and_sixty_percent_make_a_mass_silence() {
        let policy = Policy::STANDARD;
        assert!(widest(&[group(2, 2)], &policy).is_none());
        assert!(widest(&[group(3, 6)], &policy).is_none());
        assert!(widest(&[group(3, 5)], &policy).is_some());
        assert!(widest(&[group(59, 100)], &policy).is_none());
        assert!(widest(&[group(60, 100)], &policy).is_some());
    }

    #[test]
    fn the_largest_group_speaks_and_the_fleet_before_a_tag() {
        let policy = Policy::STANDARD;
        let site = Group { tag: Some(("site".into(), "ams1".into())), expected: 10, silent: 10, down: 0 };
        let groups = [site.clone(), group(10, 40)];
        assert_eq!(widest(&groups, &policy), Some(&site));
        let groups = [site.clone(), group(30, 40)];
        assert_eq!(widest(&groups, &policy), Some(&group(30, 40)));
        let groups = [site, group(10, 10)];
        assert_eq!(widest(&groups, &policy), Some(&group(10, 10)));
    }
}
