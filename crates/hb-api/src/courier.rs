//! What the application asks of the channels.

use async_trait::async_trait;
use hb_core::access::Channel;
use hb_core::time::Time;
use hb_wire::id::DeliveryId;
use hb_wire::view::Notice;
use serde_json::Value;

/// A message to be sent.
#[derive(Debug, Clone)]
pub struct Parcel<'a> {
    /// What it says.
    pub notice: &'a Notice,
    /// The `Idempotency-Key`: the same for every attempt.
    pub key: DeliveryId,
    /// Server time.
    pub now: Time,
    /// Attempts before this one.
    pub attempts: u32,
}

/// Why a message did not arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// In one line, without secrets.
    pub reason: String,
    /// The channel will never take it.
    pub permanent: bool,
    /// What the receiver asked for.
    pub retry_after_ms: Option<u64>,
}

/// A new channel, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// What to keep, secrets included.
    pub settings: Value,
    /// Where it goes, without secrets, in one line.
    pub target: String,
    /// A secret made for it, to be shown once.
    pub secret: Option<String>,
}

/// Sends messages.
#[async_trait]
pub trait Courier: Send + Sync + core::fmt::Debug {
    /// Checks the settings of a new channel. `random` is for a secret that it may need. The error says what is wrong.
    fn open(&self, kind: &str, settings: &Value, random: [u8; 32]) -> Result<Opened, String>;

    /// Makes a new channel known where it ends, before it is kept. The error says why that could not be.
    async fn enlist(&self, _channel: &Channel) -> Result<(), String> {
        Ok(())
    }

    /// Takes that back, after a channel was removed; `others` are those that are left.
    async fn dismiss(&self, _channel: &Channel, _others: &[Channel]) -> Result<(), String> {
        Ok(())
    }

    /// Addresses of a channel that do not take messages yet, since their owner has not agreed.
    async fn pending(&self, _channel: &Channel) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }

    /// Sends a message. Must end within [`crate::deliver::ATTEMPT_MAX_MS`].
    async fn send(&self, channel: &Channel, parcel: Parcel<'_>) -> Result<(), Failure>;

    /// The one line that tells what happened.
    fn line(&self, notice: &Notice) -> String;
}
