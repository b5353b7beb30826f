//! Carries the application's messages through the channels: what hb-api calls a courier.

use core::time::Duration;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use async_trait::async_trait;
use hb_api::app::timestamp;
use hb_api::courier::{Courier, Failure, Opened, Parcel};
use hb_api::deliver::ATTEMPT_MAX_MS;
use hb_core::access::Channel;
use hb_wire::id::ChannelId;
use hb_wire::view::Notice;
use secrecy::ExposeSecret as _;
use serde_json::Value;

use crate::{Letter, Rules, SendError};

/// Most channels that are kept open; beyond that all are opened anew.
const OPEN_MAX: usize = 1_000;

/// A courier by these channels.
#[derive(Debug)]
pub struct Couriers {
    rules: RwLock<Rules>,
    open: Mutex<HashMap<ChannelId, Open>>,
}

/// A channel that was opened: keeps its connections for the next message.
#[derive(Debug)]
struct Open {
    settings: crate::Kept,
    channel: Arc<dyn crate::Channel>,
}

impl Couriers {
    /// Under these rules.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self { rules: RwLock::new(rules), open: Mutex::default() }
    }

    /// From now on, other rules hold.
    pub fn replace_rules(&self, rules: Rules) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn rules(&self) -> Rules {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The channel, open; a change of its settings opens it anew.
    fn channel(&self, channel: &Channel) -> Result<Arc<dyn crate::Channel>, Failure> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = open.get(&channel.id).filter(|found| found.settings.0 == channel.settings) {
            return Ok(Arc::clone(&found.channel));
        }
        let opened = crate::open(&channel.kind, &channel.settings, &self.rules()).map_err(|error| Failure {
            reason: error.to_string(),
            permanent: true,
            retry_after_ms: None,
        })?;
        if open.len() >= OPEN_MAX {
            open.clear();
        }
        let settings = crate::Kept(channel.settings.clone());
        open.insert(channel.id, Open { settings, channel: Arc::clone(&opened) });
        Ok(opened)
    }
}

#[async_trait]
impl Courier for Couriers {
    fn open(&self, kind: &str, settings: &Value, random: [u8; 32]) -> Result<Opened, String> {
        let (channel, stored) =
            crate::parse(kind, settings, &self.rules(), random).map_err(|error| error.to_string())?;
        Ok(Opened {
            settings: stored.settings.0,
            target: channel.target(),
            secret: stored.secret.map(|secret| secret.expose_secret().to_owned()),
        })
    }

    async fn send(&self, channel: &Channel, parcel: Parcel<'_>) -> Result<(), Failure> {
        let channel = self.channel(channel)?;
        let letter = Letter {
            notice: parcel.notice,
            key: parcel.key,
            at: timestamp(parcel.now),
            attempt: parcel.attempts.saturating_add(1),
        };
        let longest = Duration::from_millis(ATTEMPT_MAX_MS);
        let sent = tokio::time::timeout(longest, channel.send(&letter)).await;
        sent.unwrap_or_else(|_| Err(SendError::ambiguous(format!("no answer within {longest:?}")))).map_err(failure)
    }

    fn line(&self, notice: &Notice) -> String {
        crate::message::line(notice)
    }
}

fn failure(error: SendError) -> Failure {
    match error {
        SendError::Temporary { reason, retry_after_s } => {
            let retry_after_ms = retry_after_s.map(|s| s.saturating_mul(1000));
            Failure { reason, permanent: false, retry_after_ms }
        }
        SendError::Permanent { reason } => Failure { reason, permanent: true, retry_after_ms: None },
        SendError::Ambiguous { reason } => Failure { reason, permanent: false, retry_after_ms: None },
    }
}
