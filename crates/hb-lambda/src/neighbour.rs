//! The other region, as the sweeper of this one sees it.
//!
//! What the other sweeper observes is replicated each minute. Is it old, then either the other region does not sweep, or its
//! replication is cut; only the other region itself can say which, over HTTP. If it does not sweep, this region stands in for
//! it. If it does, nobody stands in for anybody, and people are told once that the regions do not see one another.

use core::time::Duration;
use std::collections::BTreeMap;

use hb_api::app::{App, time};
use hb_core::event::{Audience, Event, Kind, derive_id};
use hb_core::mutant::{Mutant, active};
use hb_core::time::Time;
use hb_store::Committed;
use hb_store_dynamodb::{DynamoStore, Outlook, Sight, TAKEOVER_AFTER_MS};
use hb_wire::id::IncidentId;
use hb_wire::view::ServerStatus;
use url::Url;

use crate::Error;
use crate::canary::client;
use crate::environment::Peer;

/// How long the other region may take to answer.
const TIMEOUT: Duration = Duration::from_secs(4);
/// How often it is asked before it counts as gone: one answer may be lost.
const ASKED_MAX: usize = 2;
/// Its status is a few hundred bytes; whoever sends more is not it.
const STATUS_BYTES_MAX: usize = 16 * 1024;

/// The other region.
#[derive(Debug)]
pub struct Neighbour {
    own: String,
    region: String,
    status: Url,
    client: reqwest::Client,
}

impl Neighbour {
    /// The neighbour of region `own`.
    ///
    /// # Errors
    /// When there can be no client for it.
    pub fn new(own: &str, peer: &Peer) -> Result<Self, Error> {
        let mut status = peer.url.clone();
        status.set_path(&format!("{}/v1/status", peer.url.path().trim_end_matches('/')));
        Ok(Self { own: own.to_owned(), region: peer.region.clone(), status, client: client(TIMEOUT)? })
    }

    /// Finds out how the other region does, has this one stand in for it or not, and notes it.
    ///
    /// # Errors
    /// As the store says.
    pub async fn look(&self, app: &App, store: &DynamoStore) -> Result<(), Error> {
        let now = app.clock.now();
        let before = store.outlook().await?;
        let seen = store.observation_of_peer().await?.map(|seen| seen.observed_until);
        let next = match (seen, before.as_ref()) {
            // Two regions are not deployed at once: one that has not swept yet has as long from now on as any other.
            (None, None) => Some(Outlook { sight: Sight::Seen, since: now, at: now, alive_at: now, cut_since: None }),
            (None, Some(before)) => self.find(Some(before), before.alive_at, now).await,
            (Some(seen), before) => self.find(before, seen, now).await,
        };
        store.stand_in(next.as_ref().and_then(|next| next.absence(now)));
        let Some(next) = next else { return Ok(()) };
        let events = self.notice(before.as_ref(), &next);
        if before.as_ref().map_or(Sight::Seen, |before| before.sight) != next.sight {
            tracing::warn!("the region {} is {:?}", self.region, next.sight);
        }
        // Another run was faster, and found the same or something newer.
        let (Committed::Done | Committed::Conflict) = store.set_outlook(before.as_ref(), &next, events).await?;
        Ok(())
    }

    /// How it does, by what arrived of it, and else by what it says itself.
    async fn find(&self, before: Option<&Outlook>, observed: Time, now: Time) -> Option<Outlook> {
        if now.since(observed) < TAKEOVER_AFTER_MS {
            return next(before, Sight::Seen, observed, now);
        }
        if !active(Mutant::TakeoverUnasked) && self.sweeps().await {
            return next(before, Sight::Cut, now, now);
        }
        // One that answered until a moment ago merely may not be reached.
        let alive_at = before.map_or(observed, |before| before.alive_at.max(observed));
        let sight = if now.since(alive_at) < TAKEOVER_AFTER_MS { Sight::Cut } else { Sight::Gone };
        next(before, sight, alive_at, now)
    }

    /// True when it answers, and says that it sweeps.
    async fn sweeps(&self) -> bool {
        for _ in 0..ASKED_MAX {
            match self.ask().await {
                Ok(status) => return status.observing && sweeps(&status),
                Err(reason) => tracing::warn!("{} does not say how it does: {reason}", self.region),
            }
        }
        false
    }

    async fn ask(&self) -> Result<ServerStatus, Error> {
        let asked = self.client.get(self.status.clone()).send();
        let mut answer = asked.await.map_err(reqwest::Error::without_url)?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
            body.extend_from_slice(&chunk);
            if body.len() > STATUS_BYTES_MAX {
                return Err("its answer is too long for a status".into());
            }
        }
        // With 503 it says what is wrong, in the same words.
        serde_json::from_slice(&body).map_err(|_| format!("it answered {}, and no status", answer.status()).into())
    }

    /// What people are told: that replication is cut, and that it works again.
    fn notice(&self, before: Option<&Outlook>, now: &Outlook) -> Vec<Event> {
        let told = before.and_then(|before| before.cut_since);
        match (told, now.cut_since) {
            (None, Some(since)) => vec![self.event(Kind::ReplicationCut, Audience::Admins, since, now.at)],
            (Some(since), None) => vec![self.event(Kind::ReplicationRestored, Audience::Told, since, now.at)],
            (None, None) | (Some(_), Some(_)) => Vec::new(),
        }
    }

    fn event(&self, kind: Kind, audience: Audience, since: Time, at: Time) -> Event {
        let parts: [&[u8]; 2] = [self.own.as_bytes(), self.region.as_bytes()];
        Event {
            id: derive_id(at, kind, &parts),
            kind,
            subject: None,
            at,
            since: Some(since),
            cause: None,
            deadline: None,
            incident: Some(IncidentId(derive_id(since, Kind::ReplicationCut, &parts).0)),
            audience,
            members: Vec::new(),
            inputs: BTreeMap::from([
                ("peer".to_owned(), self.region.as_str().into()),
                ("region".to_owned(), self.own.as_str().into()),
            ]),
        }
    }
}

/// True when its sweeper came by not long ago, by its own clock.
fn sweeps(status: &ServerStatus) -> bool {
    status.swept_at.is_some_and(|swept| time(status.now).since(time(swept)) < TAKEOVER_AFTER_MS)
}

/// What is to be stored: nothing while everything is well.
fn next(before: Option<&Outlook>, sight: Sight, alive_at: Time, now: Time) -> Option<Outlook> {
    let same = before.filter(|before| before.sight == sight);
    if sight == Sight::Seen && (same.is_some() || before.is_none()) {
        return None;
    }
    let cut_since = match sight {
        Sight::Seen => None,
        // A notice that is out stays out until both see one another again.
        Sight::Gone => before.and_then(|before| before.cut_since),
        Sight::Cut => before.and_then(|before| before.cut_since).or(Some(now)),
    };
    Some(Outlook { sight, since: same.map_or(now, |same| same.since), at: now, alive_at, cut_since })
}

#[cfg(test)]
mod tests {
    use hb_store_dynamodb::Absence;

    use super::*;

    fn neighbour() -> Neighbour {
        let url = Url::parse("https://api.example").unwrap();
        let peer = Peer { region: "eu-west-1".into(), url, topic: "arn".into() };
        Neighbour::new("eu-central-1", &peer).unwrap()
    }

    #[test]
    fn people_are_told_once_of_a_cut_and_once_of_its_end() {
        let neighbour = neighbour();
        let mut held: Option<Outlook> = None;
        let mut told = Vec::new();
        let sights = [
            Sight::Seen,
            Sight::Cut,
            Sight::Cut,
            Sight::Gone,
            Sight::Gone,
            Sight::Cut,
            Sight::Seen,
            Sight::Seen,
            Sight::Gone,
            Sight::Seen,
        ];
        for (sight, minute) in sights.into_iter().zip(1..) {
            let now = Time(minute * 60_000);
            if let Some(next) = next(held.as_ref(), sight, now, now) {
                told.extend(
                    neighbour.notice(held.as_ref(), &next).into_iter().map(|event| (event.kind, event.incident)),
                );
                assert_eq!((next.sight, next.at), (sight, now), "what is stored is as of now");
                held = Some(next);
            }
        }
        let [(Kind::ReplicationCut, cut), (Kind::ReplicationRestored, restored)] = told[..] else { panic!("{told:?}") };
        assert_eq!(cut, restored, "the end belongs to the beginning");
    }

    #[test]
    fn nothing_is_stored_while_everything_is_well() {
        let alive_at = Time(30_000);
        let next = |before: Option<&Outlook>, sight, now| next(before, sight, alive_at, now);
        let first = next(None, Sight::Gone, Time(60_000)).unwrap();
        let later = next(Some(&first), Sight::Gone, Time(120_000)).unwrap();
        assert_eq!((later.since, later.at), (Time(60_000), Time(120_000)));
        let now = Time(120_000);
        assert_eq!(later.absence(now), Some(Absence { now, alive_at }));
        assert_eq!(later.absence(now.plus(TAKEOVER_AFTER_MS)), None);
        let seen = next(Some(&later), Sight::Seen, Time(180_000)).unwrap();
        assert_eq!(seen.absence(Time(180_000)), None);
        assert_eq!(next(Some(&seen), Sight::Seen, Time(240_000)), None);
        assert_eq!(next(None, Sight::Seen, Time(240_000)), None);
    }

    #[test]
    fn a_status_tells_whether_its_sweeper_comes_by() {
        let status = |ago_s: Option<i64>| {
            let now = jiff::Timestamp::from_second(1_800_000_000).unwrap();
            let swept_at = ago_s.map(|ago| jiff::Timestamp::from_second(1_800_000_000 - ago).unwrap());
            let (status, version) = ("notify".to_owned(), "0.1.0".to_owned());
            ServerStatus { status, observing: true, version, now, blind_since: None, swept_at }
        };
        assert!(sweeps(&status(Some(60))));
        assert!(!sweeps(&status(Some(150))) && !sweeps(&status(None)));
    }
}
