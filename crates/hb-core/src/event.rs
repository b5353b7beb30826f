//! Events: immutable records of transitions, with the inputs they were decided from.

use core::fmt;
use std::collections::BTreeMap;

use hb_wire::id::{EventId, HostId, IncidentId};
use hb_wire::name::{HostName, Tags};
use hb_wire::view::HostRef;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::host::Host;
use crate::time::Time;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Enrolled.
    Registered,
    /// Heard again, or for the first time.
    Up,
    /// Silent past its deadline.
    Down,
    /// Said goodbye.
    Stopped,
    /// Heard after its deadline, but before it was declared down.
    ReturnedLate,
    /// A new boot, without having been declared down.
    Rebooted,
    /// A new run of the agent in the same boot.
    Restarted,
    /// Two machines use one key.
    Cloned,
    /// Alive, but not fit for work.
    Degraded,
    /// Fit for work again.
    Restored,
    /// Paused by an operator.
    Paused,
    /// The pause ended.
    Resumed,
    /// Announced its own maintenance, or ended it.
    Maintenance,
    /// Taken out of service.
    Retired,
    /// Enrolled again with the proof of its key, or with a new key.
    KeyRotated,
    /// hb could not observe.
    Blind,
    /// hb observes again.
    Observing,
    /// What the other region does does not arrive here, though it works.
    ReplicationCut,
    /// What the other region does arrives here again.
    ReplicationRestored,
    /// A message could not be delivered.
    Undelivered,
    /// An operator tries a channel.
    Test,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 21] = [
        Self::Registered,
        Self::Up,
        Self::Down,
        Self::Stopped,
        Self::ReturnedLate,
        Self::Rebooted,
        Self::Restarted,
        Self::Cloned,
        Self::Degraded,
        Self::Restored,
        Self::Paused,
        Self::Resumed,
        Self::Maintenance,
        Self::Retired,
        Self::KeyRotated,
        Self::Blind,
        Self::Observing,
        Self::ReplicationCut,
        Self::ReplicationRestored,
        Self::Undelivered,
        Self::Test,
    ];

    /// The kind as it stands on the wire and in the store.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Up => "up",
            Self::Down => "down",
            Self::Stopped => "stopped",
            Self::ReturnedLate => "returned_late",
            Self::Rebooted => "rebooted",
            Self::Restarted => "restarted",
            Self::Cloned => "cloned",
            Self::Degraded => "degraded",
            Self::Restored => "restored",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::Maintenance => "maintenance",
            Self::Retired => "retired",
            Self::KeyRotated => "key_rotated",
            Self::Blind => "blind",
            Self::Observing => "observing",
            Self::ReplicationCut => "replication_cut",
            Self::ReplicationRestored => "replication_restored",
            Self::Undelivered => "undelivered",
            Self::Test => "test",
        }
    }

    /// The kind of that word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Why an outage happened (rule R8), found out when it ends; or why it was declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A new boot after a clean stop.
    Rebooted,
    /// A new boot without one: crash or power loss.
    Crashed,
    /// A new boot, and nobody saw how the one before it ended: the host beats from cron, or its journal is lost.
    Booted,
    /// The same boot; its sends failed.
    Unreachable,
    /// The same boot; it slept.
    Suspended,
    /// The same boot; the agent was stopped.
    AgentStopped,
    /// The same boot; the agent was stopped to start again as another version.
    AgentUpgraded,
    /// The same boot; a new run without a clean stop.
    AgentKilled,
    /// The server was not observing.
    Unobserved,
    /// Nothing in the beat explains it.
    Unexplained,
    /// Declared: silent past interval and grace.
    Silent,
    /// Declared: enrolled, but never heard.
    NeverSeen,
    /// Declared: said goodbye, and did not come back by the time it gave.
    NotBack,
}

impl Cause {
    /// The cause as it stands on the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Rebooted => "rebooted",
            Self::Crashed => "crashed",
            Self::Booted => "booted",
            Self::Unreachable => "unreachable",
            Self::Suspended => "suspended",
            Self::AgentStopped => "agent_stopped",
            Self::AgentUpgraded => "agent_upgraded",
            Self::AgentKilled => "agent_killed",
            Self::Unobserved => "unobserved",
            Self::Unexplained => "unexplained",
            Self::Silent => "silent",
            Self::NeverSeen => "never_seen",
            Self::NotBack => "not_back",
        }
    }
}

/// To whom an event is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    /// Every channel.
    Everyone,
    /// The channels that were sent the event which opened this incident.
    Told,
    /// The channels for hb's own notices.
    Admins,
    /// Nobody: it is history.
    Nobody,
}

/// The host as it was called when the event happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Its id.
    pub id: HostId,
    /// Its label then.
    pub name: HostName,
    /// Its labels then.
    pub tags: Tags,
}

impl Subject {
    /// The host now.
    #[must_use]
    pub fn of(host: &Host) -> Self {
        Self { id: host.id, name: host.name.clone(), tags: host.tags.clone() }
    }

    /// As it stands on the wire.
    #[must_use]
    pub fn to_ref(&self) -> HostRef {
        HostRef { id: self.id, name: self.name.to_string(), tags: self.tags.as_map().clone() }
    }
}

/// One event. Never changes once it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Derived from what it was decided from, so that a second decision of the same is the same record (rule R7).
    pub id: EventId,
    /// What happened.
    pub kind: Kind,
    /// To whom; none for events of the server and of incidents of many hosts.
    pub subject: Option<Subject>,
    /// When it was decided.
    pub at: Time,
    /// Since when: for `down` the last sign of life, for `up` the beginning of the silence, for `blind` its beginning.
    pub since: Option<Time>,
    /// Why.
    pub cause: Option<Cause>,
    /// The deadline that passed.
    pub deadline: Option<Time>,
    /// What it belongs to.
    pub incident: Option<IncidentId>,
    /// To whom it is told.
    pub audience: Audience,
    /// For incidents of many hosts: who they are, at most [`crate::incident::MEMBERS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Subject>,
    /// The numbers it was decided from, for `hb why`.
    pub inputs: BTreeMap<String, Value>,
}

/// The instant in an id that [`derive_id`] made: what it was decided from, and the same for whoever decides the same.
#[must_use]
pub fn minted_at(id: EventId) -> Time {
    Time(u64::try_from(id.0.as_u128() >> 80).unwrap_or(u64::MAX))
}

/// The id of the event that ends what another one began. Whoever ends it gives it this id, so that an end is told once,
/// however many were told of the return at the same time. The epoch keeps the end of an outage that a restored backup brought
/// back apart from the one before.
#[must_use]
pub fn id_of_end(begun: EventId, kind: Kind, epoch: u32) -> EventId {
    derive_id(minted_at(begun).plus(1), kind, &[b"end", begun.0.as_bytes(), &epoch.to_be_bytes()])
}

/// Derives an event's id: version 7, its time from `commit`, its random part from a hash of what decides its identity.
#[must_use]
pub fn derive_id(commit: Time, kind: Kind, parts: &[&[u8]]) -> EventId {
    let mut hash = Sha256::new();
    hash.update(kind.word().as_bytes());
    for part in parts {
        // The length keeps ("ab", "c") apart from ("a", "bc").
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    let mut random = [0_u8; 10];
    for (to, from) in random.iter_mut().zip(digest.iter()) {
        *to = *from;
    }
    EventId::mint(commit.0, random)
}
