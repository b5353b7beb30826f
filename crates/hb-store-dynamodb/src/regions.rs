//! Two regions over one table: whose is what, and which one acts.
//!
//! Each region has a replica of the table, and functions of its own over it. Replication is asynchronous, and of two writes
//! of an item the later one replaces the earlier one, whole and silently; so whatever only one may do has an *owner*, the
//! region in its attribute `g`: the one that last heard a host, and the one that made an event, a delivery or an incident.
//! Each region does what is its own, and leaves the rest alone, unless it *stands in* for the other one
//! ([`DynamoStore::stand_in`]): then it does as well what the other one left undone for [`TAKEOVER_AFTER_MS`]; but it tells what the
//! other one made after it had been seen last only an hour later.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use aws_sdk_dynamodb::types::AttributeValue;
use hb_core::time::Time;
use hb_store::{Result, StoreError};
use hb_wire::id::HostId;
use sha2::{Digest as _, Sha256};

use crate::image::Image;
use crate::item::{Item, set, text};
use crate::store::DynamoStore;

/// How long a region leaves what is another one's to it (ms): two sweeps, and the time that replication takes.
pub const TAKEOVER_AFTER_MS: u64 = 150_000;
/// How long a region leaves what another one made after it had been seen last (ms). That it is here shows that replication goes on,
/// and what was told of it may still be on its way; but nothing is left for ever.
const NEWS_MS: u64 = hb_core::time::seconds(3600);
/// Positions of one region lie this far apart, those of the others between them: a power of two, so that 2^37 of each are
/// still whole numbers in JSON.
pub(crate) const STRIDE: u64 = 1 << 16;
/// The attribute that says whose something is.
pub(crate) const OWNER: &str = "g";

/// The other region is gone, as far as this one can find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Absence {
    /// As of when.
    pub now: Time,
    /// The last sign that it was there.
    pub alive_at: Time,
}

/// The regions of a table, as one of them sees it.
#[derive(Debug)]
pub(crate) struct Regions {
    own: String,
    peer: Option<String>,
    /// When it was last said that this region stands in (ms); 0: it does not.
    stands_in_at: AtomicU64,
    /// When the other region gave the last sign of life before that (ms).
    alive_at: AtomicU64,
    /// Hosts of this region that the other one has heard since.
    heard_there: Mutex<HashSet<HostId>>,
}

impl Regions {
    pub(crate) fn new(own: String) -> Self {
        Self {
            own,
            peer: None,
            stands_in_at: AtomicU64::new(0),
            alive_at: AtomicU64::new(0),
            heard_there: Mutex::default(),
        }
    }

    /// This region; empty where there are none.
    pub(crate) fn own(&self) -> &str {
        &self.own
    }

    pub(crate) fn peer(&self) -> Option<&str> {
        self.peer.as_deref()
    }

    pub(crate) fn stands_in(&self) -> bool {
        self.stands_in_before().is_some()
    }

    /// What the other region was to do before this and did not is this region's; none: it leaves that to it.
    fn stands_in_before(&self) -> Option<Time> {
        let at = self.stands_in_at.load(Ordering::Relaxed);
        (at > 0).then(|| Time(at).minus(TAKEOVER_AFTER_MS))
    }

    /// What the other region made before this and did not tell is this region's to tell; none: it leaves that to it.
    pub(crate) fn tells_before(&self) -> Option<Time> {
        let before = self.stands_in_before()?;
        let seen = Time(self.alive_at.load(Ordering::Relaxed)).plus(TAKEOVER_AFTER_MS);
        Some(before.min(seen).max(before.minus(NEWS_MS)))
    }

    /// From when on this region carries a delivery that was made at `made`, and is to be carried `at` the earliest; none: not at all.
    pub(crate) fn turn_to_carry(&self, owner: Option<&str>, made: Time, at: Time) -> Option<Time> {
        let is_left = || self.tells_before().is_none_or(|before| made > before);
        if !self.is_own(owner) && is_left() { None } else { self.turn(owner, at) }
    }

    /// True for what this region made, and for everything where there is no other.
    pub(crate) fn is_own(&self, owner: Option<&str>) -> bool {
        self.peer.is_none() || owner.is_none_or(|owner| owner == self.own)
    }

    /// From when on this region does something that is `at` the earliest to be done; none: not at all.
    pub(crate) fn turn(&self, owner: Option<&str>, at: Time) -> Option<Time> {
        if self.is_own(owner) {
            return Some(at);
        }
        self.stands_in().then(|| at.plus(TAKEOVER_AFTER_MS))
    }

    /// From when on this region judges a host that is due at `alarm`, and of which `need_ms` of silence have to be seen; none:
    /// not at all.
    ///
    /// What the other one heard until it was gone may not have arrived here. But since then its hosts turn to this region.
    pub(crate) fn turn_to_judge(&self, owner: Option<&str>, alarm: Time, need_ms: u64) -> Option<Time> {
        let alive_at = Time(self.alive_at.load(Ordering::Relaxed));
        let seen = if self.is_own(owner) { alarm } else { alarm.max(alive_at.plus(need_ms)) };
        self.turn(owner, seen)
    }

    /// True for an item that this region deals with at present.
    pub(crate) fn deals_with(&self, item: &Item) -> bool {
        self.is_own(owner(item)) || self.stands_in()
    }

    /// Marks an item as this region's.
    pub(crate) fn sign(&self, item: &mut Item) {
        set(item, OWNER, self.mark());
    }

    /// This region as a value of [`OWNER`].
    pub(crate) fn mark(&self) -> Option<AttributeValue> {
        (!self.own.is_empty()).then(|| text(&self.own))
    }

    pub(crate) fn is_heard_there(&self, id: HostId) -> bool {
        self.peer.is_some() && self.heard_there.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }
}

/// Whose an item is.
pub(crate) fn owner(item: &Item) -> Option<&str> {
    item.get(OWNER)?.as_s().ok().map(String::as_str)
}

/// The place of a region's positions among those of all regions.
pub(crate) fn slot(region: &str) -> u64 {
    let hash = Sha256::digest(region.as_bytes());
    u64::from(u16::from_be_bytes([hash[0], hash[1]])) % STRIDE
}

impl DynamoStore {
    /// The table has a replica in another region, whose functions look after it as well. To be said before anything else is
    /// done with it.
    ///
    /// # Errors
    /// When the two cannot be told apart.
    pub fn beside(mut self, peer: impl Into<String>) -> Result<Self> {
        let peer = peer.into();
        if self.regions.own.is_empty() || peer.is_empty() || slot(&peer) == slot(&self.regions.own) {
            let own = &self.regions.own;
            return Err(StoreError::Unavailable(format!("the regions {own:?} and {peer:?} cannot share a table")));
        }
        self.regions.peer = Some(peer);
        Ok(self)
    }

    /// From now on this region also does what the other one left undone for [`TAKEOVER_AFTER_MS`], until it is told that it
    /// does not (`None`): judges its hosts, goes on with its incidents, tells its events and carries its deliveries.
    ///
    /// Nothing but the knowledge that the other region does not do it allows that: that nothing is seen of it may mean only
    /// that replication is cut, and then both would tell the same people different things.
    pub fn stand_in(&self, absence: Option<Absence>) {
        if let Some(absence) = absence {
            self.regions.alive_at.store(absence.alive_at.0, Ordering::Relaxed);
        }
        self.regions.stands_in_at.store(absence.map_or(0, |absence| absence.now.0), Ordering::Relaxed);
    }

    /// True while this region does the other one's work as well.
    pub fn stands_in(&self) -> bool {
        self.regions.stands_in()
    }

    /// True for an item of a stream whose host this region judges at present.
    #[must_use]
    pub fn deals_with(&self, image: &Image) -> bool {
        self.regions.deals_with(image)
    }

    /// The other region says that it has heard these hosts since this one did, though nothing of it is seen here yet: until
    /// this is called again they are its hosts.
    pub fn leave_to_peer(&self, hosts: impl IntoIterator<Item = HostId>) {
        let mut held = self.regions.heard_there.lock().unwrap_or_else(PoisonError::into_inner);
        *held = hosts.into_iter().collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As of autumn 2026.
    const KNOWN: [&str; 36] = [
        "us-east-1",
        "us-east-2",
        "us-west-1",
        "us-west-2",
        "af-south-1",
        "ap-east-1",
        "ap-east-2",
        "ap-south-1",
        "ap-south-2",
        "ap-southeast-1",
        "ap-southeast-2",
        "ap-southeast-3",
        "ap-southeast-4",
        "ap-southeast-5",
        "ap-southeast-6",
        "ap-southeast-7",
        "ap-northeast-1",
        "ap-northeast-2",
        "ap-northeast-3",
        "ca-central-1",
        "ca-west-1",
        "eu-central-1",
        "eu-central-2",
        "eu-west-1",
        "eu-west-2",
        "eu-west-3",
        "eu-north-1",
        "eu-south-1",
        "eu-south-2",
        "il-central-1",
        "me-central-1",
        "me-south-1",
        "mx-central-1",
        "sa-east-1",
        "us-gov-east-1",
        "us-gov-west-1",
    ];

    #[test]
    fn the_positions_of_no_two_regions_meet() {
        let slots: HashSet<u64> = KNOWN.into_iter().map(slot).collect();
        assert_eq!(slots.len(), KNOWN.len());
    }

    #[test]
    fn what_is_another_regions_is_left_to_it_unless_this_one_stands_in() {
        let regions = Regions { peer: Some("eu-west-1".into()), ..Regions::new("eu-central-1".into()) };
        let (alarm, need_ms) = (Time(1_000_000), 180_000);
        let turn = |owner| regions.turn_to_judge(owner, alarm, need_ms);
        assert_eq!((turn(None), turn(Some("eu-central-1"))), (Some(alarm), Some(alarm)));
        assert_eq!(turn(Some("eu-west-1")), None);
        regions.stands_in_at.store(2_000_000, Ordering::Relaxed);
        regions.alive_at.store(alarm.0 - need_ms, Ordering::Relaxed);
        assert_eq!(turn(Some("eu-west-1")), Some(alarm.plus(TAKEOVER_AFTER_MS)));
        // It was there until long after the last that arrived of the host.
        regions.alive_at.store(1_500_000, Ordering::Relaxed);
        assert_eq!(turn(Some("eu-west-1")), Some(Time(1_500_000 + need_ms + TAKEOVER_AFTER_MS)));
        // It was seen last at 1,500 s. What it had made by then was to be told by it in time; what it made after that has only now
        // arrived, and what it told of it may be on its way.
        let tell = |made: u64| regions.turn_to_carry(Some("eu-west-1"), Time(made), Time(made));
        regions.stands_in_at.store(2_000_000, Ordering::Relaxed);
        assert_eq!(tell(1_600_000), Some(Time(1_600_000 + TAKEOVER_AFTER_MS)));
        assert_eq!(tell(1_700_000), None);
        assert_eq!(regions.turn_to_carry(None, Time(1_700_000), Time(1_700_000)), Some(Time(1_700_000)));
        regions.stands_in_at.store(1_700_000 + TAKEOVER_AFTER_MS + NEWS_MS, Ordering::Relaxed);
        assert_eq!(tell(1_700_000), Some(Time(1_700_000 + TAKEOVER_AFTER_MS)));
        let alone = Regions::new("eu-central-1".into());
        assert_eq!(alone.turn_to_judge(Some("eu-west-1"), alarm, need_ms), Some(alarm), "there is no other");
    }
}
