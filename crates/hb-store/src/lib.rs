//! What hb asks of a store.
//!
//! The trait speaks domain, not tables: it is the only seam at which the embedded and the serverless deployment differ. To
//! add a store, implement [`Store`] and call `hb_store::contract!` on it. Four rules:
//!
//! 1. What belongs together is written together: a [`Change`] is applied whole or not at all, and is durable when the
//!    call returns.
//! 2. Every write is conditional on exactly what was read: [`Versioned`] carries the revision, and "somebody was faster" is
//!    [`Committed::Conflict`], not an error.
//! 3. Absent is `None`, not an error. Errors are for stores that could not do their work; the caller may not know whether
//!    it was done.
//! 4. Time is a parameter. A store reads no clock.

#[cfg(feature = "contract")]
pub mod contract;
pub mod fast;
#[cfg(feature = "contract")]
pub mod faulty;
mod memory;

use async_trait::async_trait;
use hb_core::access::{ApiKey, Channel, Token};
use hb_core::delivery::{Delivery, Status};
use hb_core::event::{Event, Subject};
use hb_core::host::{Holder, Host};
use hb_core::incident::{Group, Incident};
use hb_core::ledger::Ledger;
use hb_core::observer::Observation;
use hb_core::policy::Policy;
use hb_core::time::Time;
use hb_wire::beat::{Fault, Vitals};
use hb_wire::id::{ChannelId, DeliveryId, EventId, HostId, IncidentId};
use hb_wire::key::PublicKey;
use hb_wire::name::{HostName, Tags};
use hb_wire::nonce::Nonce;

pub use memory::{MemoryStore, Snapshot};

/// Most rows that any list answers at once.
pub const PAGE_MAX: usize = 1000;
/// Events kept per host (and for the server itself); the oldest go first, but never one that is still to be told.
pub const EVENTS_PER_HOST_MAX: usize = 500;
/// Delivered, merged and dead deliveries kept.
pub const DELIVERIES_MAX: usize = 10_000;
/// By how much [`EVENTS_PER_HOST_MAX`] may be exceeded before the oldest go: letting go one by one would cost a write each.
pub const EVENTS_SLACK: usize = EVENTS_PER_HOST_MAX / 10;
/// By how much [`DELIVERIES_MAX`] may be exceeded before the oldest go.
pub const DELIVERIES_SLACK: usize = DELIVERIES_MAX / 10;
/// A token that ended this long ago may be forgotten, in milliseconds.
pub const TOKEN_MEMORY_MS: u64 = 24 * 3600 * 1000;

/// Why a store could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot take more at the moment; nothing was done. Answer 503 with `Retry-After`.
    #[error("the store is overloaded")]
    Overloaded,
    /// It cannot write or read: disk full, I/O error, gone. Whether the last write was done is unknown.
    #[error("the store is unavailable: {}", once(.0))]
    Unavailable(String),
    /// What it holds cannot be understood.
    #[error("the store holds something unexpected: {0}")]
    Corrupt(String),
}

/// A reason without the words that its error says before it: one error may be handed to many callers as a text.
fn once(reason: &str) -> &str {
    reason.strip_prefix("the store is unavailable: ").unwrap_or(reason)
}

/// What a store call answers.
pub type Result<T> = core::result::Result<T, StoreError>;

/// Something read, with the revision it had.
#[derive(Debug, Clone, PartialEq)]
pub struct Versioned<T> {
    /// What was read.
    pub value: T,
    /// Changes with every write of it.
    pub rev: u64,
}

/// The outcome of a conditional write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "somebody may have been faster"]
pub enum Committed {
    /// Written and durable.
    Done,
    /// Something changed since it was read; nothing was written. Read again and decide anew.
    Conflict,
}

/// A beat on the fast path: one conditional write, no read.
///
/// It is applied only if the host is `up`, its nonce is `spent` and was issued no more than its need ago, it is not past
/// its deadline (no credit needed), the holder is the same and not in quarantine, its faults are the same, its `seq` is
/// higher than the last, and its interval is the one that the answer tells: [`fast::takes`]. In each of these cases [`hb_core::machine::beat`] accepts it without an event, and
/// makes the same host of it. Only for beats without an intent, which it has no place for.
#[derive(Debug, Clone, PartialEq)]
pub struct Beat {
    /// Whose.
    pub host: HostId,
    /// The nonce that it spends.
    pub spent: Nonce,
    /// The nonce that the next one spends.
    pub next: Nonce,
    /// Server time.
    pub now: Time,
    /// The interval that the answer tells: whoever answers may not have heard yet that it was changed.
    pub interval_ms: u64,
    /// Who sends it.
    pub holder: Holder,
    /// The agent's counter.
    pub seq: u64,
    /// Seconds since boot.
    pub up_s: u64,
    /// The host's clock minus the server's.
    pub skew_ms: Option<i64>,
    /// The agent's version.
    pub agent: String,
    /// What keeps it from working.
    pub faults: Vec<Fault>,
    /// Readings.
    pub vitals: Option<Vitals>,
}

/// What became of a beat on the fast path.
#[derive(Debug, Clone, PartialEq)]
pub enum Beaten {
    /// Stored and durable.
    Stored,
    /// A condition did not hold: decide with the state machine. The host as it is now, from the same round trip.
    Decide(Box<Versioned<Host>>),
    /// There is no such host.
    Unknown,
}

/// Everything that one decision writes, atomically.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// The host, if it is still at the revision that the decision was made from.
    pub host: Option<Versioned<Host>>,
    /// The incident: replaced if it is still at this revision; revision 0 creates it.
    pub incident: Option<Versioned<Incident>>,
    /// What happened. An event that is stored already (same id) is left as it is, and is no conflict.
    pub events: Vec<Event>,
}

/// What an enrolment is based on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// An API key with the scope `register`, or the proof of the key that was enrolled before.
    Trusted,
    /// An enrolment token: one use is taken off in the same write.
    Token {
        /// The token's id.
        id: String,
    },
}

/// The outcome of an enrolment.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "it may have been refused"]
pub enum Enrolled {
    /// Stored.
    Done,
    /// Another host that is not retired has this name.
    NameTaken,
    /// This key is enrolled already, as this host.
    KeyKnown(HostId),
    /// The token is spent, expired, revoked or unknown.
    TokenRefused,
}

/// Which hosts to list, in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostQuery {
    /// Only those whose name is exactly this.
    pub name: Option<HostName>,
    /// Only those that have all of these tags.
    pub tags: Vec<(String, String)>,
    /// Retired ones too.
    pub retired: bool,
    /// Only after this host, in the order (name, id).
    pub after: Option<(String, HostId)>,
    /// At most this many, and at most [`PAGE_MAX`].
    pub limit: usize,
}

/// Which events to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventQuery {
    /// Only this host's.
    pub host: Option<HostId>,
    /// Only those decided at or after this.
    pub since: Option<Time>,
    /// Oldest first; else newest first.
    pub ascending: bool,
    /// Only after this position in that order: the [`Listed::position`] of the last one seen.
    pub after: Option<u64>,
    /// At most this many, and at most [`PAGE_MAX`].
    pub limit: usize,
}

/// Something listed, with its place in the order of storing.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed<T> {
    /// Grows with every stored one.
    pub position: u64,
    /// What is listed.
    pub value: T,
}

/// How the fleet stands: what a status line and the detection of mass silence need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fleet {
    /// Hosts that are not retired.
    pub hosts: u64,
    /// Hosts per stored state ([`hb_core::host::State::word`]).
    pub states: std::collections::BTreeMap<String, u64>,
    /// Hosts that are up, but past their interval (nominal, gaps not credited).
    pub late: u64,
    /// The smallest interval plus grace of a host that is not retired.
    pub shortest_need_ms: Option<u64>,
}

/// Deliveries that wait or were given up, and channels that work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Pending, with at least one failed attempt.
    pub failing: u64,
    /// Pending altogether, plus events whose deliveries are not made yet.
    pub pending: u64,
    /// Given up, as long as the channel is still there: without it nobody can try again. Tests do not count.
    pub dead: u64,
}

/// What deliveries to one channel have to be in order about: a host, or without one an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// A host.
    Host(HostId),
    /// An incident of many hosts, or of the server.
    Incident(IncidentId),
    /// Nothing but the delivery itself, which waits for no other.
    Alone(DeliveryId),
}

impl Topic {
    /// What a delivery is about.
    #[must_use]
    pub fn of(delivery: &Delivery) -> Self {
        match (delivery.host, delivery.incident) {
            (Some(host), _) => Self::Host(host),
            (None, Some(incident)) => Self::Incident(incident),
            (None, None) => Self::Alone(delivery.id),
        }
    }
}

/// The earliest instant at which a sweep could have something to decide about a host, whatever the ledger and the policy: what
/// a store indexes when a host is written by [`Store::commit`] or [`Store::enrol`]. None: never.
#[must_use]
pub fn check_at(host: &Host) -> Option<Time> {
    // Of the policy's numbers only this one has a part in a deadline before credit.
    host.alarm_floor(&Policy { ephemeral_down_ms: 0, ..Policy::STANDARD })
}

/// What the beats of a host are checked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signer {
    /// Its key.
    pub key: PublicKey,
    /// The key that takes over at its first beat.
    pub next_key: Option<PublicKey>,
    /// What the answers to its beats tell (ms).
    pub interval_ms: u64,
}

impl From<&Host> for Signer {
    fn from(host: &Host) -> Self {
        Self { key: host.key, next_key: host.next_key, interval_ms: host.interval_ms }
    }
}

/// A store. All methods may be called from many tasks at once.
#[async_trait]
pub trait Store: Send + Sync + core::fmt::Debug {
    // Hosts

    /// The fast path of a beat.
    async fn beat(&self, beat: Beat) -> Result<Beaten>;

    /// One host.
    async fn host(&self, id: HostId) -> Result<Option<Versioned<Host>>>;

    /// What the beats of a host are checked by, as it was a moment ago, where that is cheaper to read than the host. None: read
    /// the host.
    async fn signer(&self, _id: HostId) -> Result<Option<Signer>> {
        Ok(None)
    }

    /// The host, retired or not, that has this key.
    async fn host_by_key(&self, key: &PublicKey) -> Result<Option<Versioned<Host>>>;

    /// Hosts in the order of (name, id).
    async fn hosts(&self, query: &HostQuery) -> Result<Vec<Versioned<Host>>>;

    /// Stores a new host together with its first event. What is asked for, in this order: the key must be unknown, the token
    /// (if that is the credential) live, the name free; so that nobody without a token learns of names. The name must be free among hosts that are not retired, the key
    /// must be unknown, and the token (if that is the credential) must have a use left, which is taken off; asked again
    /// with the same key it answers [`Enrolled::KeyKnown`] and takes nothing.
    async fn enrol(&self, host: &Host, event: &Event, credential: &Credential, now: Time) -> Result<Enrolled>;

    /// Applies a decision, whole or not at all. A host's new name must be free: else [`Committed::Conflict`].
    async fn commit(&self, change: Change) -> Result<Committed>;

    /// Hosts about which a sweep has something to decide: every host with [`Host::alarm_at`] at or before `now` (given this
    /// ledger and policy) is in the answer, earliest first, up to `limit`; a caller that got `limit` of them asks again after
    /// deciding. Must not contain others.
    ///
    /// Bounds that were passed too early are moved to the alarm under this ledger and policy: from call to call the ledger may
    /// only grow, and [`Policy::ephemeral_down_ms`] must not shrink.
    async fn due(&self, now: Time, ledger: &Ledger, policy: &Policy, limit: usize) -> Result<Vec<Versioned<Host>>>;

    /// When [`Store::due`] has something to answer at the earliest; may be earlier than that, never later. None: nothing is
    /// armed.
    async fn next_due(&self) -> Result<Option<Time>>;

    /// How the fleet stands at `now`.
    async fn fleet(&self, now: Time) -> Result<Fleet>;

    /// Who is silent, in the whole fleet (`tag: None`, always in the answer) and among the hosts that share each of `tags`. A
    /// host is expected if [`Host::is_expected`], or `down` since no longer than its interval and not `grouped`; it is silent if
    /// it is such a `down` host (counted in [`Group::down`] too), or expected and past its interval (`silent_from + interval <
    /// now`).
    async fn silence(&self, now: Time, tags: &Tags) -> Result<Vec<Group>>;

    /// The hosts of one of those groups that are [expected](Host::is_expected) and past their interval, by name, at most `limit`.
    async fn silent(&self, now: Time, tag: Option<&(String, String)>, limit: usize) -> Result<Vec<Subject>>;

    // Incidents and events

    /// Incidents of many hosts that are not closed.
    async fn open_incidents(&self) -> Result<Vec<Versioned<Incident>>>;

    /// Whether there may be open incidents, where that is cheaper to find out: one that was opened a moment ago may be missed.
    async fn may_have_incidents(&self) -> Result<bool> {
        Ok(true)
    }

    /// Hosts whose open outage belongs to the incident, at most `limit`.
    async fn down_in(&self, incident: IncidentId, limit: usize) -> Result<Vec<Subject>>;

    /// One event.
    async fn event(&self, id: EventId) -> Result<Option<Event>>;

    /// Events in the order of storing.
    async fn events(&self, query: &EventQuery) -> Result<Vec<Listed<Event>>>;

    // Deliveries: the outbox

    /// Events with an audience whose deliveries are not made yet, oldest first.
    async fn untold(&self, limit: usize) -> Result<Vec<Event>>;

    /// Makes an event's deliveries and marks it as fanned out, atomically. Doing it again changes nothing.
    async fn tell(&self, event: EventId, deliveries: &[Delivery]) -> Result<()>;

    /// Leases pending deliveries that are due until `until`, oldest first. Of the deliveries about one host (without a
    /// host: about one incident) to one channel only the oldest pending one is ever leased, so that they arrive in order.
    async fn claim(&self, now: Time, until: Time, limit: usize) -> Result<Vec<Delivery>>;

    /// When [`Store::claim`] or [`Store::untold`] has something to answer at the earliest: `ZERO` when an event waits to be
    /// told, else when the first delivery may be claimed, which may have passed.
    async fn next_claim(&self) -> Result<Option<Time>>;

    /// Stores what became of a claimed delivery, if the lease (`leased_until` as claimed) is still the one held; updates the
    /// channel's `last_delivered_at` or `last_error` alike. `false`: the lease was lost, nothing was written.
    async fn settle(&self, delivery: &Delivery, lease: Time) -> Result<bool>;

    /// How long after an event, in milliseconds, it may not be known yet who was told of the one before it, because somebody
    /// else told them: where a store has replicas.
    fn told_elsewhere_ms(&self) -> u64 {
        0
    }

    /// Deliveries of an incident.
    async fn deliveries_of(&self, incident: IncidentId) -> Result<Vec<Delivery>>;

    /// One delivery.
    async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>>;

    /// Replaces a delivery that is `dead` or `pending` and not leased by `revived`. `false`: it is neither.
    async fn revive(&self, revived: &Delivery) -> Result<bool>;

    /// Deliveries, newest first.
    async fn deliveries(
        &self,
        status: Option<Status>,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Listed<Delivery>>>;

    /// What waits, and what was given up.
    async fn backlog(&self) -> Result<Backlog>;

    // Access and channels

    /// Stores a new API key; `false`: the id is taken.
    async fn add_key(&self, key: &ApiKey) -> Result<bool>;
    /// One API key, revoked or not.
    async fn key(&self, id: &str) -> Result<Option<ApiKey>>;
    /// Every API key, oldest first.
    async fn keys(&self) -> Result<Vec<ApiKey>>;
    /// Revokes; `false`: unknown or revoked already.
    async fn revoke_key(&self, id: &str, now: Time) -> Result<bool>;
    /// Notes that a key was used; not necessarily durable.
    async fn touch_key(&self, id: &str, now: Time) -> Result<()>;

    /// Stores a new token; `false`: the id is taken.
    async fn add_token(&self, token: &Token) -> Result<bool>;
    /// One token.
    async fn token(&self, id: &str) -> Result<Option<Token>>;
    /// Every token, oldest first. Those that ended more than a day before `now` may be forgotten.
    async fn tokens(&self, now: Time) -> Result<Vec<Token>>;
    /// Revokes; `false`: unknown or revoked already.
    async fn revoke_token(&self, id: &str, now: Time) -> Result<bool>;

    /// Stores a new channel; `false`: the name is taken.
    async fn add_channel(&self, channel: &Channel) -> Result<bool>;
    /// Every channel, oldest first.
    async fn channels(&self) -> Result<Vec<Channel>>;
    /// Removes a channel and its pending deliveries; `false`: unknown.
    async fn remove_channel(&self, id: ChannelId) -> Result<bool>;

    // The server itself

    /// What the server last knew of its own observing.
    async fn observation(&self) -> Result<Option<Versioned<Observation>>>;

    /// Stores it together with its events, if it is still at that revision (0: there is none yet). Durable: this is also the
    /// proof that the store can be written.
    async fn observe(&self, observation: Versioned<Observation>, events: Vec<Event>) -> Result<Committed>;
}
