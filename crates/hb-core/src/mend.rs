//! What becomes of a host that was decided about twice, by two who did not know of each other.
//!
//! Where a table has replicas in two regions, the later of two writes of an item replaces the earlier one, whole and
//! silently. So a decision may be overwritten by another one, and of a decision that was written in two items one half may
//! remain. What was announced cannot be taken back: it is ended by an event of its own. Pure and without a clock: whoever
//! mends the same makes the same host, and events with the same ids.

use std::collections::BTreeMap;

use hb_wire::id::{EventId, IncidentId};

use crate::event::{Audience, Cause, Event, Kind, Subject, derive_id, minted_at};
use crate::host::{Host, Life, Outage, State};
use crate::machine::Transition;
use crate::time::Time;

/// The pieces that are left of two decisions.
#[derive(Debug, Clone, Copy)]
pub struct Pieces<'a> {
    /// The decision that is stored.
    pub kept: &'a Host,
    /// The one that it replaced without knowing of it, if that is known.
    pub lost: Option<&'a Host>,
    /// True when the newer settings are those of the lost one.
    pub lost_is_edited: bool,
    /// What was heard since one of the two, and is stored apart from both.
    pub heard: Option<&'a Life>,
}

/// Puts the pieces together: the newest evidence of life, the newest settings, and the state that follows; with the events
/// that end what was announced and is no longer so.
#[must_use]
pub fn mend(pieces: &Pieces<'_>) -> Transition {
    let decided = [Some(pieces.kept), pieces.lost];
    let wiser = wiser(pieces);
    let mut next = settings(pieces).clone();
    next.life = newest_life(pieces, wiser);
    next.maintenance.clone_from(&wiser.maintenance);
    next.trouble = wiser.trouble.filter(|_| !next.life.faults.is_empty());
    next.former.clone_from(&wiser.former);
    next.quarantine.clone_from(&wiser.quarantine);
    next.state = state(pieces, wiser, &mut next.life);
    let mut events: Vec<Event> = Vec::new();
    for one in decided.into_iter().flatten() {
        for event in endings(one, &next) {
            if events.iter().all(|known| known.id != event.id) {
                events.push(event);
            }
        }
        next.transitions = next.transitions.max(one.transitions);
    }
    next.transitions = next.transitions.saturating_add(u64::try_from(events.len()).unwrap_or(u64::MAX));
    Transition { host: next, events }
}

/// The decision that knew more of the host. Where both knew the same, an outage that was told is not forgotten.
fn wiser<'a>(pieces: &Pieces<'a>) -> &'a Host {
    let rank = |host: &Host| (host.life.heard_at, host.state.outage().is_some());
    pieces.lost.filter(|lost| rank(lost) > rank(pieces.kept)).unwrap_or(pieces.kept)
}

/// Whose settings are the newest.
fn settings<'a>(pieces: &Pieces<'a>) -> &'a Host {
    pieces.lost.filter(|_| pieces.lost_is_edited).unwrap_or(pieces.kept)
}

fn newest_life(pieces: &Pieces<'_>, wiser: &Host) -> Life {
    let heard = pieces.heard.filter(|heard| heard.heard_at > wiser.life.heard_at);
    let mut life = heard.unwrap_or(&wiser.life).clone();
    // A resume or an edit may have moved on from where silence counts.
    let all = [Some(&pieces.kept.life), pieces.lost.map(|lost| &lost.life), pieces.heard];
    for other in all.into_iter().flatten().filter(|other| other.heard_at == life.heard_at) {
        life.silent_from = life.silent_from.max(other.silent_from);
    }
    life
}

fn state(pieces: &Pieces<'_>, wiser: &Host, life: &mut Life) -> State {
    let operator = settings(pieces);
    let is_held = |host: &Host| matches!(host.state, State::Paused { .. } | State::Retired { .. });
    // Nothing but an operator pauses and retires, or ends it again: as do the settings.
    let chosen = if is_held(operator) || is_held(wiser) { operator } else { wiser };
    let Some(heard_at) = life.heard_at.filter(|_| life.heard_at > chosen.life.heard_at) else {
        return still(chosen, wiser);
    };
    match &chosen.state {
        State::Down(_) | State::Stopped { .. } | State::New => {
            // Strictly later than what was decided from, so that two outages never share an id.
            life.silent_from = life.silent_from.max(chosen.life.silent_from.plus(1));
            State::Up { since: heard_at }
        }
        State::Paused { since, until, reason, outage: Some(_) } => {
            State::Paused { since: *since, until: *until, reason: reason.clone(), outage: None }
        }
        other @ (State::Up { .. } | State::Paused { outage: None, .. } | State::Retired { .. }) => other.clone(),
    }
}

/// The state of a host that was not heard since. A pause keeps an outage that is told already.
fn still(chosen: &Host, wiser: &Host) -> State {
    match &chosen.state {
        State::Paused { since, until, reason, outage: None } => State::Paused {
            since: *since,
            until: *until,
            reason: reason.clone(),
            outage: wiser.state.outage().copied(),
        },
        other @ (State::New
        | State::Up { .. }
        | State::Down(_)
        | State::Stopped { .. }
        | State::Paused { outage: Some(_), .. }
        | State::Retired { .. }) => other.clone(),
    }
}

/// The events that end what was announced of one decision and is not so in what follows.
fn endings(decided: &Host, next: &Host) -> Vec<Event> {
    let mut events = Vec::new();
    let goes_on = |outage: &Outage| next.state.outage().is_some_and(|known| known.event == outage.event);
    if let Some(outage) = decided.state.outage().filter(|outage| !goes_on(outage)) {
        let audience = if outage.grouped { Audience::Nobody } else { Audience::Told };
        let parts: [&[u8]; 2] = [b"mended", outage.event.0.as_bytes()];
        let id = derive_id(outage.since, Kind::Up, &parts);
        let at = next.life.heard_at.unwrap_or(outage.since).max(outage.since);
        let cause = Some(Cause::Unobserved);
        events.push(Event { id, cause, ..ending(decided, Kind::Up, audience, outage.incident, at) });
    }
    if let Some(trouble) = decided.trouble.filter(|trouble| next.trouble != Some(*trouble)) {
        let at = next.life.heard_at.unwrap_or(decided.enrolled_at);
        // The incident has the id of the event that began it.
        let begun = minted_at(EventId(trouble.0));
        let id = derive_id(begun.plus(1), Kind::Restored, &[b"mended", trouble.0.as_bytes()]);
        events.push(Event { id, ..ending(decided, Kind::Restored, Audience::Told, trouble, at) });
    }
    events
}

fn ending(decided: &Host, kind: Kind, audience: Audience, incident: IncidentId, at: Time) -> Event {
    let inputs = BTreeMap::from([
        ("state".to_owned(), decided.state.word().into()),
        ("heard_at_ms".to_owned(), decided.life.heard_at.map(|at| at.0).into()),
        // Why no beat stands beside it: two regions had decided, and one did not know of the other.
        ("mended".to_owned(), true.into()),
    ]);
    Event {
        id: derive_id(at, kind, &[]),
        kind,
        subject: Some(Subject::of(decided)),
        at,
        since: Some(decided.life.heard_at.unwrap_or(decided.enrolled_at)),
        cause: None,
        deadline: None,
        incident: Some(incident),
        audience,
        members: Vec::new(),
        inputs,
    }
}
