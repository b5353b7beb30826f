//! What status pages look at: how the fleet stands, and whether messages get through. Kept for a moment, so that a probe
//! each second, or a dashboard on ten screens, costs the store next to nothing.

use std::sync::{Mutex, PoisonError};

use hb_core::access::Channel;
use hb_core::time::{Time, seconds};
use hb_store::{Backlog, Result};
use hb_wire::view::ChannelHealth;

use crate::app::App;

/// The outbox is looked at again after this long.
pub const OUTBOX_MS: u64 = seconds(5);

/// Something that is kept for a moment.
#[derive(Debug)]
pub(crate) struct Kept<T>(Mutex<Option<(Time, T)>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> Kept<T> {
    /// What is kept, if it is younger than `max_ms`.
    pub(crate) fn get(&self, now: Time, max_ms: u64) -> Option<T> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().filter(|(at, _)| now.since(*at) < max_ms).map(|(_, value)| value.clone())
    }

    /// Keeps it.
    pub(crate) fn put(&self, now: Time, value: T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, value));
    }
}

/// What is kept.
#[derive(Debug, Default)]
pub struct Glance {
    outbox: Kept<Outbox>,
    pub(crate) standing: Kept<crate::view::Standing>,
}

/// Whether messages get through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outbox {
    /// What waits, and what was given up.
    pub backlog: Backlog,
    /// Channels there are.
    pub channels: u64,
    /// Channels that a message was ever delivered to.
    pub proven: u64,
    /// Channels whose last attempt failed.
    pub failing: u64,
}

impl Outbox {
    fn of(backlog: Backlog, channels: &[Channel]) -> Self {
        let count =
            |pick: fn(&&Channel) -> bool| u64::try_from(channels.iter().filter(pick).count()).unwrap_or(u64::MAX);
        Self {
            backlog,
            channels: count(|_| true),
            proven: count(|channel| channel.last_delivered_at.is_some()),
            failing: count(|channel| channel.last_error.is_some()),
        }
    }

    /// True unless messages wait and no channel is left that takes them.
    #[must_use]
    pub fn gets_through(&self) -> bool {
        self.backlog.failing == 0 || self.failing < self.channels
    }

    /// As it is shown.
    #[must_use]
    pub fn health(&self) -> ChannelHealth {
        ChannelHealth {
            configured: self.channels,
            proven: self.proven,
            undelivered: self.backlog.pending.saturating_add(self.backlog.dead),
        }
    }
}

impl App {
    /// Whether messages get through, as of now.
    pub async fn outbox(&self) -> Result<Outbox> {
        let outbox = Outbox::of(self.store.backlog().await?, &self.store.channels().await?);
        self.glance.outbox.put(self.clock.now(), outbox);
        Ok(outbox)
    }

    /// Whether messages get through, as of the last few seconds.
    pub async fn recent_outbox(&self) -> Result<Outbox> {
        match self.glance.outbox.get(self.clock.now(), OUTBOX_MS) {
            Some(outbox) => Ok(outbox),
            None => self.outbox().await,
        }
    }
}
