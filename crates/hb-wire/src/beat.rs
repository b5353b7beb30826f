//! The beat: what a host says, and what the server answers.
//!
//! `POST /v1/beat`, signed by the host (see [`crate::signature`]). Only `boot`, `seq`, `up` and `v` are required.
//! Nothing in a beat decides *when* it happened: the server's clock alone does.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::{BootId, RunId};
use crate::key::PublicKey;

mod parse;

pub use parse::{
    FAULTS_MAX, GAP_ERROR_CHARS_MAX, INTENT_S_MAX, MORE_KEY_BYTES_MAX, MORE_VITALS_MAX, NOTE_CHARS_MAX, ParseBeatError,
    SEQ_MAX, UPTIME_S_MAX, VERSION_CHARS_MAX,
};

/// Longest accepted body of a beat, in bytes.
pub const BEAT_BYTES_MAX: usize = 16 * 1024;
/// Longest pass, in characters.
pub const PASS_CHARS_MAX: usize = 128;

/// One message of a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Beat {
    /// The kernel's boot id: changes with each boot.
    pub boot: BootId,
    /// The agent's run id: changes with each start of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// Counts the beats of this host; for diagnosis only.
    pub seq: u64,
    /// Seconds since boot (`CLOCK_BOOTTIME`).
    pub up: u64,
    /// The agent's version, at most 32 characters.
    pub v: String,
    /// The host's wall clock when it signed; reported as skew, never trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
    pub sent_at: Option<Timestamp>,
    /// What the host is about to do.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "parse::known_intent")]
    pub intent: Option<Intent>,
    /// How the run before this one ended; sent until a beat of this run was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Ending>,
    /// Beats that could not be sent since the last accepted one; in the first beat after a partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
    /// What keeps the host from being able to work; empty when it is well.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "parse::known_faults")]
    pub degraded: Vec<Fault>,
    /// Cheap readings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vitals: Option<Vitals>,
    /// What the server gave as `pass` in an answer, as it came. One that is no good is passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass: Option<String>,
}

impl Beat {
    /// A beat that says nothing but who is alive, by this version of hb.
    #[must_use]
    pub fn bare(boot: BootId, run: Option<RunId>) -> Self {
        Self {
            boot,
            run,
            seq: 0,
            up: 0,
            v: env!("CARGO_PKG_VERSION").to_owned(),
            sent_at: None,
            intent: None,
            before: None,
            gap: None,
            degraded: Vec::new(),
            vitals: None,
            pass: None,
        }
    }
}

/// An announcement: silence that follows is expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Intent {
    /// The agent or the host stops, and is expected back within `back_in_s` (at most 24 h).
    Goodbye {
        /// Why.
        reason: StopReason,
        /// Seconds until it should be back.
        back_in_s: u64,
    },
    /// The host announces its own maintenance: silence during it raises no alarm.
    Maintenance {
        /// Seconds, at most 24 h; 0 ends a maintenance early.
        for_s: u64,
        /// Free text, at most 200 characters.
        #[serde(default)]
        note: String,
    },
    /// The host gets a new key. Until its first beat signed with the new one, both are good.
    Rotate {
        /// The new public key.
        #[cfg_attr(feature = "schema", schema(value_type = String))]
        public_key: PublicKey,
        /// That the host holds it, see [`crate::rotation`]: 86 characters of base64url.
        proof: String,
    },
}

/// Why an agent said goodbye.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The host reboots.
    Reboot,
    /// The host powers off.
    Poweroff,
    /// Only the agent stops.
    Service,
    /// Only the agent stops, and starts again as another version.
    Upgrade,
    /// The host goes to sleep.
    Sleep,
}

/// How the previous run of the agent ended, from the agent's journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Ending {
    /// The boot in which that run lived.
    pub boot: BootId,
    /// True when the agent wrote its clean-stop marker.
    pub clean: bool,
    /// Why it stopped, when it was clean.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "parse::known_reason")]
    pub reason: Option<StopReason>,
}

/// A summary of what could not be said in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Gap {
    /// Attempts that failed since the last accepted beat.
    pub failed: u64,
    /// Seconds (`CLOCK_BOOTTIME`) since the first of them.
    pub since_s: u64,
    /// Seconds of them that the host was suspended (`CLOCK_BOOTTIME` minus `CLOCK_MONOTONIC`).
    #[serde(default)]
    pub suspended_s: u64,
    /// The last failure in a word, for example `dns`, `connect`, `tls`, `timeout`, `http_503`.
    #[serde(default)]
    pub error: String,
}

/// Something that makes a living host unfit for work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The state directory cannot be written and synced.
    StateUnwritable,
    /// The disk that holds it is full.
    DiskFull,
    /// The root file system is mounted read-only.
    RootReadOnly,
}

/// Cheap readings; every one may be absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Vitals {
    /// Load average over one minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load1: Option<f64>,
    /// Processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Memory in use, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem_used_bytes: Option<u64>,
    /// Memory installed, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem_total_bytes: Option<u64>,
    /// Bytes free on the root file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_free_bytes: Option<u64>,
    /// Size of the root file system, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_total_bytes: Option<u64>,
    /// Anything a later agent adds; kept, at most 16 numbers.
    #[serde(flatten)]
    pub more: BTreeMap<String, serde_json::Value>,
}

/// The answer to a stored beat (200).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct BeatAnswer {
    /// The nonce that the next beat spends: 22 characters of base64url.
    pub next: String,
    /// The server's time.
    #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
    pub now: Timestamp,
    /// The interval that the server expects, in seconds.
    pub interval_s: u64,
    /// When the server would like the next beat, in seconds from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_in_s: Option<u64>,
    /// Marks that the operator set or the server found, for `hb doctor`: `degraded`, `cloned`, `maintenance`,
    /// `rotating`. An intent that this server does not know leaves none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<String>,
    /// To be sent with each beat from now on, in place of the one before: with it a server that pays for each read need not
    /// read the host's key. Opaque, no secret, at most 128 characters; who sends none is served all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass: Option<String>,
}
