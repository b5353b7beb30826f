//! The people: one mailbox for both regions, in which every message is kept as it came.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use hb_api::app::{Clock, Entropy};
use hb_api::courier::{Courier, Failure, Opened, Parcel};
use hb_core::access::Channel;
use hb_core::time::Time;
use hb_sim::dice::Dice;
use hb_sim::server::EPOCH_MS;
use hb_wire::id::{DeliveryId, EventId, HostId, IncidentId};
use hb_wire::view::Notice;

/// Virtual time, which both regions agree on to the millisecond.
#[derive(Debug, Clone, Default)]
pub struct SimClock(Arc<AtomicU64>);

impl SimClock {
    /// Virtual milliseconds since the world began.
    #[must_use]
    pub fn ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// It is that late now.
    pub fn set(&self, ms: u64) {
        self.0.store(ms, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Time {
        Time(EPOCH_MS + self.ms())
    }
}

/// Chance, for the functions.
#[derive(Debug)]
pub struct SimEntropy(Mutex<Dice>);

impl SimEntropy {
    /// From these dice.
    #[must_use]
    pub fn new(dice: Dice) -> Self {
        Self(Mutex::new(dice))
    }
}

impl Entropy for SimEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill(buffer);
    }
}

/// A message that arrived.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// When.
    pub at: u64,
    /// From which region.
    pub region: usize,
    /// Its `Idempotency-Key`.
    pub key: DeliveryId,
    /// What it tells of.
    pub event: EventId,
    /// What it tells.
    pub kind: String,
    /// When that was decided, in virtual milliseconds.
    pub decided_at: u64,
    /// Since when it is so.
    pub since: Option<u64>,
    /// Whom it is about.
    pub host: Option<HostId>,
    /// What it belongs to.
    pub incident: Option<IncidentId>,
    /// Whom a message about many is about.
    pub members: Vec<HostId>,
    /// As people read it.
    pub text: String,
}

/// Where messages arrive.
#[derive(Debug, Clone, Default)]
pub struct Mailbox(Arc<Mutex<Vec<Receipt>>>);

impl Mailbox {
    /// What arrived since the last time.
    #[must_use]
    pub fn empty(&self) -> Vec<Receipt> {
        core::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Carries the messages of a region.
#[derive(Debug)]
pub struct Postman {
    /// Which region's.
    pub region: usize,
    /// Virtual time.
    pub clock: SimClock,
    /// Where to.
    pub mailbox: Mailbox,
}

#[async_trait]
impl Courier for Postman {
    fn open(&self, _kind: &str, settings: &serde_json::Value, _random: [u8; 32]) -> Result<Opened, String> {
        Ok(Opened { settings: settings.clone(), target: "the mailbox".to_owned(), secret: None })
    }

    async fn send(&self, _: &Channel, parcel: Parcel<'_>) -> Result<(), Failure> {
        let Notice { event, id, incident, host, hosts, at, since, details, .. } = parcel.notice;
        let ms = |at: &_| hb_api::app::time(*at).0.saturating_sub(EPOCH_MS);
        let receipt = Receipt {
            at: self.clock.ms(),
            region: self.region,
            key: parcel.key,
            event: *id,
            kind: event.clone(),
            decided_at: ms(at),
            since: since.as_ref().map(ms),
            host: host.as_ref().map(|host| host.id),
            incident: *incident,
            members: hosts.iter().map(|host| host.id).collect(),
            text: format!("{} {details:?}", host.as_ref().map_or("-", |host| host.name.as_str())),
        };
        self.mailbox.0.lock().unwrap_or_else(PoisonError::into_inner).push(receipt);
        Ok(())
    }

    fn line(&self, notice: &Notice) -> String {
        notice.event.clone()
    }
}
