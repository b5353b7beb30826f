//! Beats, enrolments and decisions.

use core::ops::Bound;

use hb_core::access::Token;
use hb_core::event::Event;
use hb_core::host::{Host, State};
use hb_core::mutant::{Mutant, active};
use hb_core::time::Time;
use hb_wire::id::HostId;
use hb_wire::key::PublicKey;
use hb_wire::name::HostName;

use super::records::Records;
use crate::{Beat, Beaten, Change, Committed, Credential, Enrolled, HostQuery, PAGE_MAX, Versioned, fast};

impl Records {
    pub(super) fn beat(&mut self, beat: Beat) -> Beaten {
        let Some(held) = self.hosts.get_mut(&beat.host) else { return Beaten::Unknown };
        if !fast::takes(&held.value, &beat) {
            return Beaten::Decide(Box::new(held.clone()));
        }
        fast::apply(&mut held.value, beat);
        held.rev = held.rev.saturating_add(1);
        Beaten::Stored
    }

    pub(super) fn host_by_key(&self, key: &PublicKey) -> Option<Versioned<Host>> {
        self.hosts.get(self.by_key.get(key)?).cloned()
    }

    pub(super) fn list_hosts(&self, query: &HostQuery) -> Vec<Versioned<Host>> {
        // A cursor is a text from outside: one that is not a name at all still has its place in the order.
        let after = query.after.as_ref();
        let from = after.and_then(|(name, id)| Some((HostName::parse(name).ok()?, *id)));
        let from = from.map_or(Bound::Unbounded, Bound::Excluded);
        self.in_order
            .range((from, Bound::Unbounded))
            .filter(|(name, id)| after.is_none_or(|(last, after)| (name.as_str(), id) > (last.as_str(), after)))
            .filter(|(name, _)| query.name.as_ref().is_none_or(|wanted| wanted == name))
            .filter_map(|(_, id)| self.hosts.get(id))
            .filter(|held| query.retired || !matches!(held.value.state, State::Retired { .. }))
            .filter(|held| query.tags.iter().all(|(key, value)| held.value.tags.get(key) == Some(value.as_str())))
            .take(query.limit.min(PAGE_MAX))
            .cloned()
            .collect()
    }

    pub(super) fn enrol(&mut self, host: &Host, event: &Event, credential: &Credential, now: Time) -> Enrolled {
        if let Some(known) = self.by_key.get(&host.key) {
            return Enrolled::KeyKnown(*known);
        }
        let token = match credential {
            Credential::Trusted => None,
            Credential::Token { id } => {
                match self.tokens.iter().position(|token| token.id == *id && token.is_live(now)) {
                    Some(place) => Some(place),
                    None => return Enrolled::TokenRefused,
                }
            }
        };
        if self.is_name_taken(host) || self.hosts.contains_key(&host.id) {
            return Enrolled::NameTaken;
        }
        if let Some(token) = token.and_then(|place| self.tokens.get_mut(place)) {
            redeem(token, host.key);
        }
        self.put_host(host.clone(), 1);
        self.note_word(host.id, 1);
        self.put_events(vec![event.clone()]);
        Enrolled::Done
    }

    pub(super) fn commit(&mut self, change: Change) -> Committed {
        let host_fits = change.host.as_ref().is_none_or(|host| self.is_current(host) && !self.is_taken(&host.value));
        let incident_fits = change
            .incident
            .as_ref()
            .is_none_or(|incident| self.incidents.get(&incident.value.id).map_or(0, |held| held.rev) == incident.rev);
        if !host_fits || !incident_fits {
            return Committed::Conflict;
        }
        if let Some(Versioned { value, .. }) = change.host {
            let id = value.id;
            let rev = self.hosts.get(&id).map_or(0, |held| held.rev).saturating_add(1);
            self.put_host(value, rev);
            self.note_word(id, rev);
        }
        if let Some(Versioned { value, rev }) = change.incident {
            self.incidents.insert(value.id, Versioned { value, rev: rev.saturating_add(1) });
        }
        self.put_events(change.events);
        Committed::Done
    }

    fn is_current(&self, decided: &Versioned<Host>) -> bool {
        let Some(held) = self.hosts.get(&decided.value.id) else { return false };
        if active(Mutant::CasStateOnly) {
            return self.word_at(held.value.id, decided.rev) == Some(held.value.state.word());
        }
        held.rev == decided.rev
    }

    /// True when the name or the key of this host belongs to another one.
    fn is_taken(&self, host: &Host) -> bool {
        self.is_name_taken(host) || self.by_key.get(&host.key).is_some_and(|owner| *owner != host.id)
    }

    fn is_name_taken(&self, host: &Host) -> bool {
        let retired = matches!(host.state, State::Retired { .. });
        !retired && self.live_names.get(&host.name).is_some_and(|owner| *owner != host.id)
    }

    /// Remembers since which revision the host's state has had its word, while the mutant that compares it is on.
    fn note_word(&mut self, id: HostId, rev: u64) {
        if !active(Mutant::CasStateOnly) {
            return;
        }
        let Some(word) = self.hosts.get(&id).map(|held| held.value.state.word()) else { return };
        let words = self.words.entry(id).or_default();
        if words.last().is_none_or(|(_, last)| *last != word) {
            words.push((rev, word));
        }
    }

    fn word_at(&self, id: HostId, rev: u64) -> Option<&'static str> {
        self.words.get(&id)?.iter().rev().find(|(since, _)| *since <= rev).map(|(_, word)| *word)
    }
}

fn redeem(token: &mut Token, key: PublicKey) {
    token.uses_left = token.uses_left.saturating_sub(1);
    token.redeemed.push(key);
}
