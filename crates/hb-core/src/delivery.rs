//! Who is told, and when it is tried again (rule R5).
//!
//! An event with an audience waits in the store until its deliveries are made ([`fan_out`]); a delivery waits until its
//! channel took it, for [`GIVE_UP_AFTER_MS`] at most. Claims are leases: a worker that dies is followed by another.
//! Delivery is at least once, under one key that never changes; only an ambiguous attempt can be seen twice.

use hb_wire::id::{ChannelId, DeliveryId, EventId, HostId, IncidentId};
use serde::{Deserialize, Serialize};

use crate::access::Channel;
use crate::event::{Audience, Event, Kind, derive_id, minted_at};
use crate::time::{Time, seconds};

/// After this long a delivery is given up, and shown as `dead`.
pub const GIVE_UP_AFTER_MS: u64 = seconds(24 * 3600);
/// The first retry comes within this time.
pub const BACKOFF_BASE_MS: u64 = seconds(5);
/// No retry waits longer than this.
pub const BACKOFF_MAX_MS: u64 = seconds(15 * 60);

/// One event to one channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Its `Idempotency-Key`.
    pub id: DeliveryId,
    /// What it carries.
    pub event: EventId,
    /// What the event is.
    pub kind: Kind,
    /// To whom.
    pub channel: ChannelId,
    /// About whom: messages about one host arrive in order.
    pub host: Option<HostId>,
    /// What the event belongs to.
    pub incident: Option<IncidentId>,
    /// What became of it.
    pub status: Status,
    /// Attempts so far.
    pub attempts: u32,
    /// When it was made.
    pub created_at: Time,
    /// Not before this.
    pub next_attempt_at: Time,
    /// A worker has it until then.
    pub leased_until: Option<Time>,
    /// When it arrived.
    pub delivered_at: Option<Time>,
    /// Why the last attempt failed; never a secret.
    pub last_error: Option<String>,
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It waits, or is being tried.
    Pending,
    /// The channel took it.
    Delivered,
    /// A later message told it too: "was down from … to …".
    Merged,
    /// It was given up.
    Dead,
}

impl Status {
    /// The status as stored and shown.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Merged => "merged",
            Self::Dead => "dead",
        }
    }

    /// The status of that word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Pending, Self::Delivered, Self::Merged, Self::Dead].into_iter().find(|status| status.word() == word)
    }
}

/// The deliveries of an event. `told` are the deliveries of its incident that exist already.
#[must_use]
pub fn fan_out(event: &Event, channels: &[Channel], told: &[Delivery], now: Time) -> Vec<Delivery> {
    channels
        .iter()
        .filter(|channel| match event.audience {
            Audience::Everyone => true,
            Audience::Admins => channel.admin,
            Audience::Told => told.iter().any(|before| before.channel == channel.id && before.status != Status::Dead),
            Audience::Nobody => false,
        })
        .map(|channel| Delivery::new(event, channel.id, now))
        .collect()
}

impl Delivery {
    /// A new delivery. Its id follows from the id of the event and the channel, so that making it twice is making it once,
    /// whoever decided the same event when.
    #[must_use]
    pub fn new(event: &Event, channel: ChannelId, now: Time) -> Self {
        let parts: [&[u8]; 3] = [b"delivery", event.id.0.as_bytes(), channel.0.as_bytes()];
        Self {
            id: DeliveryId(derive_id(minted_at(event.id), event.kind, &parts).0),
            event: event.id,
            kind: event.kind,
            channel,
            host: event.subject.as_ref().map(|subject| subject.id),
            incident: event.incident,
            status: Status::Pending,
            attempts: 0,
            created_at: now,
            next_attempt_at: now,
            leased_until: None,
            delivered_at: None,
            last_error: None,
        }
    }

    /// After an attempt: it arrived.
    #[must_use]
    pub fn delivered(mut self, now: Time) -> Self {
        self.status = Status::Delivered;
        self.attempts = self.attempts.saturating_add(1);
        self.delivered_at = Some(now);
        self.leased_until = None;
        self.last_error = None;
        self
    }

    /// A later message of its incident tells it too.
    #[must_use]
    pub fn merged(mut self, now: Time) -> Self {
        self.status = Status::Merged;
        self.delivered_at = Some(now);
        self.leased_until = None;
        self
    }

    /// After an attempt: it did not arrive. Tried again with exponential backoff and full jitter until it is given up;
    /// at once given up when the channel will never take it.
    ///
    /// `random` is any number; `retry_after_ms` is what the receiver asked for.
    #[must_use]
    pub fn failed(
        mut self,
        error: String,
        permanent: bool,
        retry_after_ms: Option<u64>,
        now: Time,
        random: u64,
    ) -> Self {
        let ceiling = BACKOFF_BASE_MS.saturating_mul(1_u64 << self.attempts.min(16)).min(BACKOFF_MAX_MS);
        let wait = (random % ceiling.saturating_add(1)).max(retry_after_ms.unwrap_or(0)).max(1);
        self.attempts = self.attempts.saturating_add(1);
        self.last_error = Some(error);
        self.leased_until = None;
        self.next_attempt_at = now.plus(wait);
        if permanent || self.next_attempt_at > self.created_at.plus(GIVE_UP_AFTER_MS) {
            self.status = Status::Dead;
        }
        self
    }

    /// An operator wants it tried again.
    #[must_use]
    pub fn revived(mut self, now: Time) -> Self {
        self.status = Status::Pending;
        self.created_at = now;
        self.next_attempt_at = now;
        self.leased_until = None;
        self
    }
}
