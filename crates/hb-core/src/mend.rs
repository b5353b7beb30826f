//! What becomes of a host that was decided about twice, by two who did not know of each other.
//!
//! Where a table has replicas in two regions, the later of two writes of an item replaces the earlier one, whole and
//! silently. So a decision may be overwritten by another one, and of a decision that was written in two items one half may
//! remain. What was announced cannot be taken back: it is ended by an event of its own. Pure and without a clock: whoever
//! mends the same makes the same host, and events with the same ids.

use std::collections::BTreeMap;

use hb_wire::id::{EventId, IncidentId};

use crate::event::{Audience, Cause, Event, Kind, Subject, derive_id, id_of_end};
use crate::host::{Host, Life, Outage, State};
use crate::machine::Transition;
use crate::policy::Policy;
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
        State::Paused { since, until, reason, .. } => {
            // What it was heard saying may have been a goodbye.
            let goodbye = wiser.state.goodbye().filter(|_| wiser.life.heard_at >= Some(heard_at));
            State::Paused { since: *since, until: *until, reason: reason.clone(), outage: None, goodbye }
        }
        other @ (State::Up { .. } | State::Retired { .. }) => other.clone(),
    }
}

/// The state of a host that was not heard since. A pause keeps an outage that is told already, and a goodbye.
fn still(chosen: &Host, wiser: &Host) -> State {
    match &chosen.state {
        State::Paused { since, until, reason, outage: None, .. } => State::Paused {
            since: *since,
            until: *until,
            reason: reason.clone(),
            outage: wiser.state.outage().copied(),
            goodbye: wiser.state.goodbye(),
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
        let id = id_of_end(outage.event, Kind::Up, Policy::STANDARD.epoch);
        let at = next.life.heard_at.unwrap_or(outage.since).max(outage.since);
        let cause = Some(Cause::Unobserved);
        events.push(Event { id, cause, ..ending(decided, Kind::Up, audience, outage.incident, at) });
    }
    if let Some(trouble) = decided.trouble.filter(|trouble| next.trouble != Some(*trouble)) {
        let at = next.life.heard_at.unwrap_or(decided.enrolled_at);
        // The incident has the id of the event that began it.
        let id = id_of_end(EventId(trouble.0), Kind::Restored, Policy::STANDARD.epoch);
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

#[cfg(test)]
mod tests {
    use hb_wire::id::HostId;
    use hb_wire::key::PublicKey;
    use hb_wire::name::{HostName, Tags};
    use hb_wire::nonce::Nonce;
    use hb_wire::view::Class;
    use uuid::Uuid;

    use super::*;
    use crate::host::Wish;

    const START: Time = Time(1_800_000_000_000);

    /// Up, and heard so many seconds after the start.
    fn heard(s: u64) -> Host {
        let wish = Wish {
            name: HostName::parse("web1").expect("a name"),
            tags: Tags::default(),
            class: Class::Server,
            interval_s: 60,
            grace_s: 120,
            max_away_s: None,
        };
        let mut host = wish.enrol(HostId(Uuid::from_u128(1)), PublicKey([1; 32]), Nonce::NONE, START);
        host.state = State::Up { since: START };
        host.life.heard_at = Some(START.plus(s * 1000));
        host.life.silent_from = START.plus(s * 1000);
        host.life.nonce = Nonce([u8::try_from(s % 256).unwrap_or(0); 16]);
        host
    }

    fn outage(n: u128, grouped: bool) -> Outage {
        let id = Uuid::from_u128(n);
        Outage { since: START.plus(200_000), event: EventId(id), incident: IncidentId(id), grouped }
    }

    fn down(s: u64, n: u128) -> Host {
        Host { state: State::Down(outage(n, false)), ..heard(s) }
    }

    fn of(kept: &Host, lost: Option<&Host>, heard: Option<&Life>) -> Transition {
        mend(&Pieces { kept, lost, lost_is_edited: false, heard })
    }

    fn told(mended: &Transition) -> Vec<(Kind, Audience, Option<IncidentId>)> {
        mended.events.iter().map(|event| (event.kind, event.audience, event.incident)).collect()
    }

    #[test]
    fn whoever_was_heard_after_what_a_down_was_decided_from_is_up_and_people_are_told() {
        let (down, life) = (down(10, 7), heard(70).life);
        let mended = of(&down, None, Some(&life));
        assert_eq!(mended.host.state, State::Up { since: START.plus(70_000) });
        assert_eq!(mended.host.life, life);
        assert_eq!(told(&mended), [(Kind::Up, Audience::Told, Some(outage(7, false).incident))]);
        assert_eq!(mended.host.transitions, 1);
    }

    #[test]
    fn a_down_that_knew_of_the_last_beat_stands() {
        let down = down(10, 7);
        for life in [heard(10).life, heard(5).life] {
            let mended = of(&down, None, Some(&life));
            assert_eq!((&mended.host, mended.events.as_slice()), (&down, [].as_slice()));
        }
    }

    #[test]
    fn an_outage_that_was_told_and_overwritten_is_ended_and_whoever_mends_it_ends_the_same() {
        let (up, lost) = (heard(70), down(10, 7));
        let one = of(&up, Some(&lost), None);
        assert!(matches!(one.host.state, State::Up { .. }));
        assert_eq!(told(&one), [(Kind::Up, Audience::Told, Some(outage(7, false).incident))]);
        // The other region lost the other one.
        let other = of(&lost, Some(&up), None);
        assert_eq!(other.events, one.events);
        assert_eq!((other.host.state, other.host.life), (one.host.state, one.host.life));
    }

    #[test]
    fn two_outages_of_one_silence_are_one_and_of_two_the_earlier_one_ends() {
        let same = of(&down(10, 7), Some(&down(10, 7)), None);
        assert_eq!(told(&same), []);
        let mended = of(&down(10, 7), Some(&down(70, 8)), None);
        assert_eq!(mended.host.state.outage(), Some(&outage(8, false)));
        assert_eq!(told(&mended), [(Kind::Up, Audience::Told, Some(outage(7, false).incident))]);
        // Of one that is lost nothing new was heard: people were told that the host is down, and it is.
        let mended = of(&heard(10), Some(&down(10, 7)), None);
        assert_eq!((mended.host.state.outage(), told(&mended)), (Some(&outage(7, false)), vec![]));
    }

    #[test]
    fn an_outage_that_an_incident_speaks_for_ends_in_silence() {
        let lost = Host { state: State::Down(outage(7, true)), ..heard(10) };
        let mended = of(&heard(70), Some(&lost), None);
        assert_eq!(told(&mended), [(Kind::Up, Audience::Nobody, Some(outage(7, true).incident))]);
    }

    #[test]
    fn of_the_settings_the_newer_ones_stand_and_of_life_the_newest() {
        let mut edited = heard(10);
        edited.name = HostName::parse("web2").expect("a name");
        edited.interval_ms = 5_000;
        let kept = heard(70);
        let pieces = Pieces { kept: &kept, lost: Some(&edited), lost_is_edited: true, heard: None };
        let mended = mend(&pieces).host;
        assert_eq!((mended.name.as_str(), mended.interval_ms, mended.life), ("web2", 5_000, kept.life.clone()));
        let mended = mend(&Pieces { lost_is_edited: false, ..pieces }).host;
        assert_eq!(mended.name.as_str(), "web1");
    }

    #[test]
    fn a_pause_is_the_operators_and_keeps_the_outage_that_was_told() {
        let pause = |outage| State::Paused { since: START, until: None, reason: String::new(), outage, goodbye: None };
        let paused = Host { state: pause(None), ..heard(10) };
        // The pause was lost, and is newer.
        let kept = heard(70);
        let pieces = Pieces { kept: &kept, lost: Some(&paused), lost_is_edited: true, heard: None };
        assert_eq!(mend(&pieces).host.state, pause(None));
        // A sweep that did not know of it.
        let mended = of(&paused, Some(&down(10, 7)), None);
        assert_eq!((mended.host.state.clone(), told(&mended)), (pause(Some(outage(7, false))), vec![]));
        // It was heard: the outage ends, the pause does not.
        let mended = of(&Host { state: pause(Some(outage(7, false))), ..heard(10) }, None, Some(&heard(70).life));
        assert_eq!(mended.host.state, pause(None));
        assert_eq!(told(&mended), [(Kind::Up, Audience::Told, Some(outage(7, false).incident))]);
        // A resume that was lost.
        let resumed = heard(20);
        let pieces = Pieces { kept: &paused, lost: Some(&resumed), lost_is_edited: true, heard: None };
        assert!(matches!(mend(&pieces).host.state, State::Up { .. }));
    }

    #[test]
    fn a_pause_keeps_a_goodbye_that_was_lost_until_the_host_is_heard() {
        let (since, back_by, reason) = (START.plus(20), START.plus(90_000), hb_wire::beat::StopReason::Poweroff);
        let pause = |goodbye| State::Paused { since: START, until: None, reason: String::new(), outage: None, goodbye };
        let paused = Host { state: pause(None), ..heard(10) };
        let gone = Host { state: State::Stopped { since, back_by, reason }, ..heard(20) };
        let goodbye = Some(crate::host::Goodbye { since, back_by, reason });
        assert_eq!(of(&paused, Some(&gone), None).host.state, pause(goodbye));
        let paused_after = Host { state: pause(goodbye), ..heard(20) };
        assert_eq!(of(&paused_after, Some(&heard(10)), None).host.state, pause(goodbye));
        assert_eq!(of(&paused, Some(&gone), Some(&heard(70).life)).host.state, pause(None));
    }

    #[test]
    fn who_is_out_of_service_stays_so_whatever_was_heard() {
        let retired = Host { state: State::Retired { since: START }, ..heard(10) };
        let mended = of(&retired, Some(&down(10, 7)), Some(&heard(70).life));
        assert_eq!(mended.host.state, retired.state);
        assert_eq!(told(&mended).len(), 1, "and its outage ends");
    }

    #[test]
    fn a_trouble_that_is_over_is_told_to_be_over() {
        let trouble = Some(IncidentId(Uuid::from_u128(9)));
        let lost = Host { trouble, ..heard(10) };
        let mended = of(&heard(70), Some(&lost), None);
        assert_eq!(told(&mended), [(Kind::Restored, Audience::Told, trouble)]);
    }
}
