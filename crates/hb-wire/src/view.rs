//! What the management API takes and gives: the shapes that the command line and other programs read.
//!
//! These types only grow optional fields; readers ignore what they do not know.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::beat::Vitals;
use crate::id::{BootId, ChannelId, DeliveryId, EventId, HostId, IncidentId, RunId};

macro_rules! shape {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* pub $field:ident : $ty:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty),* }
    };
}

/// What a host is to the fleet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Always on: silence raises an alarm.
    #[default]
    Server,
    /// A laptop: silence is shown, an alarm comes only after a longest absence.
    Intermittent,
    /// Comes and goes: retires itself after a goodbye or a day of silence.
    Ephemeral,
}

/// A host's state as shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    /// Enrolled, never heard.
    New,
    /// Heard in time.
    Up,
    /// Past its interval, within its grace.
    Late,
    /// Silent past interval and grace.
    Down,
    /// Said goodbye.
    Stopped,
    /// Paused by an operator.
    Paused,
    /// Taken out of service.
    Retired,
    /// The server was not observing long enough to tell.
    Unknown,
}

/// What an API key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Everything, keys and tokens included.
    Admin,
    /// Change hosts and channels.
    Operate,
    /// Read hosts and events.
    Read,
    /// Enrol hosts.
    Register,
    /// Ping checks and the routes of hb-api.
    Ping,
    /// Read `/metrics`.
    Metrics,
}

shape! {
    /// `POST /v1/hosts`. The request is signed with the key it enrols (proof of possession).
    pub struct EnrolRequest {
        /// The host's label.
        pub name: String,
        /// The Ed25519 public key: 32 bytes in base64url without padding.
        pub public_key: String,
        /// Seconds between beats; the server's default is 60.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub interval_s: Option<u64>,
        /// Seconds of grace; the server's default is twice the interval.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub grace_s: Option<u64>,
        /// Labels.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        pub tags: BTreeMap<String, String>,
        /// What the host is; `server` for a new host, and what it was for a known one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub class: Option<Class>,
        /// For `intermittent`: seconds of absence after which it does alarm.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub max_away_s: Option<u64>,
    }
}

shape! {
    /// The answer to an enrolment: 201, or 200 when this key was enrolled already.
    pub struct Enrolment {
        /// The host's id: the `keyid` of its signatures.
        pub id: HostId,
        /// Its label.
        pub name: String,
        /// The first nonce.
        pub next: String,
        /// The server's time.
        #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
        pub now: Timestamp,
        /// Seconds between beats.
        pub interval_s: u64,
        /// Seconds of grace.
        pub grace_s: u64,
        /// Where to beat, in order of preference.
        pub beat_urls: Vec<String>,
    }
}

shape! {
    /// One host.
    pub struct HostView {
        /// Its id.
        pub id: HostId,
        /// Its label.
        pub name: String,
        /// Its state as shown.
        pub state: HostState,
        /// Since when it has been in the stored state.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
        pub since: Option<Timestamp>,
        /// `degraded`, `flapping`, `cloned`, `maintenance`, `rotating`.
        #[serde(default)]
        pub marks: Vec<String>,
        /// When its last accepted beat was stored.
        #[serde(default)]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
        pub last_seen: Option<Timestamp>,
        /// When silence becomes an alarm; none while no alarm is armed.
        #[serde(default)]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
        pub deadline: Option<Timestamp>,
        /// Seconds between beats.
        pub interval_s: u64,
        /// Seconds of grace.
        pub grace_s: u64,
        /// Labels.
        #[serde(default)]
        pub tags: BTreeMap<String, String>,
        /// What it is.
        #[serde(default)]
        pub class: Class,
        /// For `intermittent`: seconds of absence after which it does alarm; none: its absence is no alarm.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub max_away_s: Option<u64>,
        /// The agent's version.
        #[serde(default)]
        pub agent: Option<String>,
        /// Seconds since its boot, when last heard.
        #[serde(default)]
        pub uptime_s: Option<u64>,
        /// Its clock minus the server's, in seconds, when last heard.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub clock_skew_s: Option<f64>,
        /// Readings of the last beat.
        #[serde(default)]
        pub vitals: Option<Vitals>,
        /// Why it is paused, stopped or degraded, in one line.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub reason: Option<String>,
        /// Until when a pause, a goodbye or a maintenance holds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
        pub until: Option<Timestamp>,
        /// The open incident.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub incident: Option<IncidentId>,
        /// `SHA256:` fingerprint of its public key.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub key: Option<String>,
        /// Its boot.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub boot: Option<BootId>,
        /// Its agent's run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub run: Option<RunId>,
        /// When it was enrolled.
        #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
        pub enrolled_at: Timestamp,
    }
}

shape! {
    /// `GET /v1/hosts`: `?state=&tag=K=V&name=&limit=&cursor=`.
    pub struct HostPage {
        /// When the server looked.
        #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
        pub observed_at: Timestamp,
        /// False while the server was blind.
        pub observing: bool,
        /// Hosts per shown state, over the whole fleet.
        pub summary: BTreeMap<String, u64>,
        /// Channels that could carry an alert, and how many of them ever did.
        pub channels: ChannelHealth,
        /// This page, by name.
        pub hosts: Vec<HostView>,
        /// Where the next page begins.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub next_cursor: Option<String>,
    }
}

shape! {
    /// Whether anybody would hear an alarm.
    pub struct ChannelHealth {
        /// Channels configured.
        pub configured: u64,
        /// Channels that a message was ever delivered to.
        pub proven: u64,
        /// Deliveries that wait or were given up.
        pub undelivered: u64,
    }
}

shape! {
    /// `PATCH /v1/hosts/{id}`: what is absent stays.
    pub struct HostPatch {
        /// A new label.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub name: Option<String>,
        /// Seconds between beats.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub interval_s: Option<u64>,
        /// Seconds of grace.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub grace_s: Option<u64>,
        /// Labels to set; a null value removes one.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        pub tags: BTreeMap<String, Option<String>>,
        /// What the host is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub class: Option<Class>,
        /// For `intermittent`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub max_away_s: Option<u64>,
    }
}

shape! {
    /// `POST /v1/hosts/{id}/pause`.
    pub struct PauseRequest {
        /// Seconds; absent means until resumed (which `hb status` warns about).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub for_s: Option<u64>,
        /// Why, at most 200 characters.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub reason: Option<String>,
    }
}

shape! {
    /// The host that an event or a message is about.
    pub struct HostRef {
        /// Its id.
        pub id: HostId,
        /// Its label.
        pub name: String,
        /// Labels.
        #[serde(default)]
        pub tags: BTreeMap<String, String>,
    }
}

shape! {
    /// One event.
    pub struct EventView {
        /// Its id.
        pub id: EventId,
        /// What happened: `down`, `up`, `stopped`, …
        pub event: String,
        /// The host; absent for events of the server itself (`blind`, `observing`).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub host: Option<HostRef>,
        /// When it was decided, on the server's clock.
        #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
        pub at: Timestamp,
        /// Since when the state that it ends or begins had lasted (for `up`: silent since; for `down`: last seen).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
        pub since: Option<Timestamp>,
        /// Why: `rebooted`, `crashed`, `booted`, `unreachable`, `suspended`, `agent_stopped`, `agent_upgraded`, `agent_killed`,
        /// `unobserved`, …
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub cause: Option<String>,
        /// The deadline that passed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
        pub deadline: Option<Timestamp>,
        /// What it belongs to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub incident: Option<IncidentId>,
        /// One line for people.
        pub message: String,
        /// The inputs of the decision: last seq, credit, hold, boot, run, members, …
        #[serde(default)]
        pub inputs: BTreeMap<String, Value>,
    }
}

shape! {
    /// `GET /v1/events` and `GET /v1/hosts/{id}/events`: `?since=RFC3339&limit=&cursor=`, newest first;
    /// with `order=asc`, oldest first (to follow).
    pub struct EventPage {
        /// This page.
        pub events: Vec<EventView>,
        /// Where the next page begins.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub next_cursor: Option<String>,
    }
}

shape! {
    /// `GET /v1/hosts/{id}/why`.
    pub struct WhyView {
        /// The host now.
        pub host: HostView,
        /// One sentence that explains its state.
        pub because: String,
        /// Step by step, with the numbers.
        pub steps: Vec<String>,
        /// The last transition with its inputs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub event: Option<EventView>,
        /// Who was told of it.
        #[serde(default)]
        pub deliveries: Vec<DeliveryView>,
    }
}

shape! {
    /// `POST /v1/keys`.
    pub struct KeyRequest {
        /// For people.
        pub name: String,
        /// What it may do.
        pub scopes: Vec<Scope>,
        /// Seconds until it expires.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub expires_in_s: Option<u64>,
    }
}

shape! {
    /// An API key as listed; `secret` stands only in the answer that creates it.
    pub struct KeyView {
        /// The public part.
        pub id: String,
        /// For people.
        pub name: String,
        /// What it may do.
        pub scopes: Vec<Scope>,
        /// When it was made.
        #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
        pub created_at: Timestamp,
        /// When it ends.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
        pub expires_at: Option<Timestamp>,
        /// When it was last used, to the minute.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
        pub last_used_at: Option<Timestamp>,
        /// True once revoked.
        #[serde(default)]
        pub revoked: bool,
        /// `hbk_…`, shown once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub secret: Option<String>,
    }
}

shape! {
    /// `GET /v1/keys`.
    pub struct KeyList {
        /// Every key.
        pub keys: Vec<KeyView>,
    }
}

shape! {
    /// `POST /v1/tokens`.
    pub struct TokenRequest {
        /// How many hosts it may enrol; 1 by default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub uses: Option<u32>,
        /// Seconds until it expires; an hour by default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub expires_in_s: Option<u64>,
        /// Labels that every host enrolled with it gets.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        pub tags: BTreeMap<String, String>,
    }
}

shape! {
    /// An enrolment token as listed; `secret` stands only in the answer that creates it.
    pub struct TokenView {
        /// The public part.
        pub id: String,
        /// Uses left.
        pub uses_left: u32,
        /// When it was made.
        #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
        pub created_at: Timestamp,
        /// When it ends.
        #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
        pub expires_at: Timestamp,
        /// Labels that it gives.
        #[serde(default)]
        pub tags: BTreeMap<String, String>,
        /// True once revoked.
        #[serde(default)]
        pub revoked: bool,
        /// `hbe_…`, shown once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub secret: Option<String>,
    }
}

shape! {
    /// `GET /v1/tokens`.
    pub struct TokenList {
        /// Every token that is neither spent nor expired.
        pub tokens: Vec<TokenView>,
    }
}

shape! {
    /// `POST /v1/channels`.
    pub struct ChannelRequest {
        /// Unique; the kind by default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub name: Option<String>,
        /// `webhook`, `email` or `exec`.
        pub kind: String,
        /// What the kind needs, for example `{"url":"https://…"}`; secrets go in here and never come out.
        pub settings: Value,
        /// Gets the server's own notices (blind, undelivered, clones).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub admin: Option<bool>,
    }
}

shape! {
    /// A channel as listed: without secrets.
    pub struct ChannelView {
        /// Its id.
        pub id: ChannelId,
        /// Its name.
        pub name: String,
        /// `webhook`, `email` or `exec`.
        pub kind: String,
        /// Where it goes, without secrets, in one line.
        pub target: String,
        /// Gets the server's own notices.
        pub admin: bool,
        /// When it was made.
        #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
        pub created_at: Timestamp,
        /// When a message last arrived.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
        pub last_delivered_at: Option<Timestamp>,
        /// Why the last attempt failed; absent when it did not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub last_error: Option<String>,
        /// Addresses whose owner has not agreed to messages yet: they get none until then.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub pending: Vec<String>,
        /// With which webhooks are signed; shown once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub secret: Option<String>,
    }
}

shape! {
    /// `GET /v1/channels`.
    pub struct ChannelList {
        /// Every channel.
        pub channels: Vec<ChannelView>,
    }
}

shape! {
    /// The outcome of `POST /v1/channels/{id}/test`.
    pub struct TestResult {
        /// True when the channel took the message.
        pub delivered: bool,
        /// How long it took, in seconds.
        pub took_s: f64,
        /// Why it did not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub error: Option<String>,
        /// The delivery's `Idempotency-Key`.
        pub delivery: DeliveryId,
    }
}

shape! {
    /// One delivery.
    pub struct DeliveryView {
        /// Its id, and `Idempotency-Key`.
        pub id: DeliveryId,
        /// What it carries.
        pub event: EventId,
        /// What it tells: `down`, `up`, `blind`, …
        #[serde(default)]
        pub kind: String,
        /// About which host; absent where it is about many, or about the server itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub host: Option<HostRef>,
        /// To whom.
        pub channel: ChannelId,
        /// The channel's name.
        pub channel_name: String,
        /// `pending`, `delivered`, `merged` (told by a later message) or `dead`.
        pub status: String,
        /// Attempts so far.
        pub attempts: u32,
        /// When it was made.
        #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
        pub created_at: Timestamp,
        /// When it arrived.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
        pub delivered_at: Option<Timestamp>,
        /// When it is tried again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
        pub next_attempt_at: Option<Timestamp>,
        /// Why the last attempt failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub last_error: Option<String>,
    }
}

shape! {
    /// `GET /v1/deliveries`: `?status=&limit=&cursor=`, newest first.
    pub struct DeliveryPage {
        /// This page.
        pub deliveries: Vec<DeliveryView>,
        /// Where the next page begins.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub next_cursor: Option<String>,
    }
}

shape! {
    /// `GET /v1/status`: 200 while observing and able to store and to notify, else 503.
    pub struct ServerStatus {
        /// `ok`, or what is wrong in a word: `blind`, `store`, `notify`.
        pub status: String,
        /// False while the server is blind or holds back after it was.
        pub observing: bool,
        /// The server's version.
        pub version: String,
        /// The server's time.
        #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
        pub now: Timestamp,
        /// Since when it has been blind.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
        pub blind_since: Option<Timestamp>,
        /// When the last sweep ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
        pub swept_at: Option<Timestamp>,
    }
}

shape! {
    /// The body of a webhook, and what `exec` gets on stdin.
    pub struct Notice {
        /// What happened.
        pub event: String,
        /// The event's id.
        pub id: EventId,
        /// What it belongs to.
        #[serde(default)]
        pub incident: Option<IncidentId>,
        /// The host; absent for messages of the server itself and for many hosts at once.
        #[serde(default)]
        pub host: Option<HostRef>,
        /// For an incident of many hosts: all of them (at most 1,000).
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub hosts: Vec<HostRef>,
        /// When it was decided.
        #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
        pub at: Timestamp,
        /// Since when.
        #[serde(default)]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
        pub since: Option<Timestamp>,
        /// Why.
        #[serde(default)]
        pub cause: Option<String>,
        /// The deadline that passed.
        #[serde(default)]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
        pub deadline: Option<Timestamp>,
        /// One line.
        pub message: String,
        /// The numbers behind it, for templates and programs; may grow.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        pub details: BTreeMap<String, Value>,
    }
}
