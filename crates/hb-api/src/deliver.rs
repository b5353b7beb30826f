//! Delivery: makes the deliveries of new events, and carries those that are due (rule R5).
//!
//! Idempotent and without input, like the sweep. A delivery is leased, sent, and only then marked: a crash in between is
//! an ambiguous attempt, repeated under the same key.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use hb_core::access::Channel;
use hb_core::delivery::{Delivery, Status, fan_out};
use hb_core::event::{Audience, Event, Kind, derive_id};
use hb_core::mutant::{Mutant, active};
use hb_core::time::{Time, seconds};
use hb_store::{Change, Result};
use hb_wire::id::ChannelId;
use hb_wire::view::Notice;

use crate::app::{App, timestamp};
use crate::courier::{Failure, Parcel};

/// No attempt lasts longer.
pub const ATTEMPT_MAX_MS: u64 = seconds(45);
/// A claimed delivery belongs to its worker for this long: longer than any attempt.
pub const LEASE_MS: u64 = seconds(60);
/// Events fanned out, and deliveries carried, in one go.
pub const BATCH: usize = 64;

/// The input of a test event that names the one channel it is for.
const ADDRESSEE: &str = "channel_id";
/// Whoever tries a channel looks this often for what became of the message, in milliseconds.
const TRY_PAUSE_MS: u64 = 50;
/// And gives up looking after as long as an attempt may last.
const TRY_ROUNDS_MAX: u64 = ATTEMPT_MAX_MS / TRY_PAUSE_MS;

/// True when a test event is for this channel.
fn is_for(event: &Event, channel: ChannelId) -> bool {
    event.inputs.get(ADDRESSEE).and_then(serde_json::Value::as_str) == Some(channel.to_string().as_str())
}

impl App {
    /// One round; the number of events fanned out and attempts made. To be repeated until it is 0.
    pub async fn deliver(&self) -> Result<usize> {
        let fanned = self.fan_out().await?;
        let now = self.clock.now();
        let claimed = self.store.claim(now, now.plus(LEASE_MS), BATCH).await?;
        // Mostly there is nothing to do: then the channels are not asked for either.
        if claimed.is_empty() {
            return Ok(fanned);
        }
        let channels = self.store.channels().await?;
        let attempts = join_all(claimed.into_iter().map(|delivery| self.carry(delivery, &channels))).await;
        attempts.into_iter().try_fold(fanned, |done, attempt| attempt.map(|()| done + 1))
    }

    async fn fan_out(&self) -> Result<usize> {
        let events = self.store.untold(BATCH).await?;
        if events.is_empty() {
            return Ok(0);
        }
        let channels = self.store.channels().await?;
        let mut fanned = 0;
        for mut event in events {
            let told = match event.incident {
                Some(incident) if event.audience == Audience::Told => self.store.deliveries_of(incident).await?,
                Some(_) | None => Vec::new(),
            };
            let elsewhere_ms = self.store.told_elsewhere_ms();
            if told.is_empty() && event.audience == Audience::Told && elsewhere_ms > 0 {
                // Who was told of the beginning may not be known here yet.
                if self.clock.now().since(event.at) < elsewhere_ms {
                    continue;
                }
                // And if it still is not: an end too many is better than none.
                if matches!(event.kind, Kind::Up | Kind::Restored) {
                    event.audience = Audience::Everyone;
                }
            }
            fanned += 1;
            let mut deliveries = fan_out(&event, &channels, &told, self.clock.now());
            deliveries.retain(|delivery| event.kind != Kind::Test || is_for(&event, delivery.channel));
            self.store.tell(event.id, &deliveries).await?;
        }
        Ok(fanned)
    }

    async fn carry(&self, delivery: Delivery, channels: &[Channel]) -> Result<()> {
        let lease = delivery.leased_until.unwrap_or(Time::ZERO);
        let event = self.store.event(delivery.event).await?;
        let channel = channels.iter().find(|channel| channel.id == delivery.channel);
        let (Some(event), Some(channel)) = (event, channel) else {
            // The channel was removed, or the event is older than what is kept: nobody is left to tell. But where a store has
            // replicas, either may still arrive.
            let is_gone = self.store.told_elsewhere_ms() == 0;
            let reason = "the channel or the event is gone".to_owned();
            let failed = delivery.failed(reason, is_gone, None, self.clock.now(), self.random());
            self.store.settle(&failed, lease).await?;
            return Ok(());
        };
        if self.is_outdated(&delivery).await? {
            self.store.settle(&delivery.merged(self.clock.now()), lease).await?;
            self.to_deliver.notify_one();
            return Ok(());
        }
        let notice = self.notice(&event);
        let parcel = Parcel { notice: &notice, key: delivery.id, now: self.clock.now(), attempts: delivery.attempts };
        let outcome = self.courier.send(channel, parcel).await;
        if active(Mutant::ClaimFirst) {
            return Ok(());
        }
        let now = self.clock.now();
        let settled = match outcome {
            Ok(()) => {
                self.metrics.delivered.add();
                delivery.delivered(now)
            }
            Err(Failure { reason, permanent, retry_after_ms }) => {
                self.metrics.delivery_failures.add();
                tracing::warn!(channel.name = %channel.name, delivery.id = %delivery.id,
                    "a message could not be delivered to {}: {reason}", channel.name);
                // An operator who tries a channel wants the answer, not a message tomorrow.
                let permanent = permanent || event.kind == Kind::Test;
                delivery.failed(reason, permanent, retry_after_ms, now, self.random())
            }
        };
        if self.store.settle(&settled, lease).await? {
            self.tell_of_undelivered(&settled, &event, channel).await?;
            self.to_deliver.notify_one();
        }
        Ok(())
    }

    /// A `down` that waits while its `up` waits behind it: the later message tells the whole story.
    async fn is_outdated(&self, delivery: &Delivery) -> Result<bool> {
        let (Kind::Down | Kind::Degraded | Kind::Blind | Kind::ReplicationCut, Some(incident)) =
            (delivery.kind, delivery.incident)
        else {
            return Ok(false);
        };
        let related = self.store.deliveries_of(incident).await?;
        Ok(related.iter().any(|other| {
            other.channel == delivery.channel
                && other.host == delivery.host
                && other.status == Status::Pending
                && other.event > delivery.event
                && matches!(other.kind, Kind::Up | Kind::Restored | Kind::Observing | Kind::ReplicationRestored)
        }))
    }

    /// A message that was given up is told to the admins through the channels that are left.
    async fn tell_of_undelivered(&self, delivery: &Delivery, event: &Event, channel: &Channel) -> Result<()> {
        if delivery.status != Status::Dead || matches!(event.kind, Kind::Undelivered | Kind::Test) {
            return Ok(());
        }
        let now = self.clock.now();
        let mut inputs = BTreeMap::new();
        inputs.insert("channel".into(), channel.name.clone().into());
        inputs.insert("delivery".into(), delivery.id.to_string().into());
        inputs.insert("event".into(), event.kind.word().into());
        inputs.insert("error".into(), delivery.last_error.clone().into());
        let notice = Event {
            id: derive_id(now, Kind::Undelivered, &[delivery.id.0.as_bytes(), &delivery.attempts.to_be_bytes()]),
            kind: Kind::Undelivered,
            at: now,
            since: Some(delivery.created_at),
            cause: None,
            deadline: None,
            audience: Audience::Admins,
            inputs,
            ..event.clone()
        };
        let _ = self.store.commit(Change { events: vec![notice], ..Change::default() }).await?;
        self.to_deliver.notify_one();
        Ok(())
    }

    /// Sends a test message through the real path, and waits for what becomes of it.
    pub async fn try_channel(&self, channel: &Channel) -> Result<Delivery> {
        let now = self.clock.now();
        let nonce = self.fresh_nonce();
        let mut inputs = BTreeMap::new();
        inputs.insert(ADDRESSEE.to_owned(), channel.id.to_string().into());
        inputs.insert("channel".to_owned(), channel.name.clone().into());
        let event = Event {
            id: derive_id(now, Kind::Test, &[&nonce.0]),
            kind: Kind::Test,
            subject: None,
            at: now,
            since: None,
            cause: None,
            deadline: None,
            incident: None,
            audience: Audience::Everyone,
            members: Vec::new(),
            inputs,
        };
        // Whoever fans the event out makes this delivery: its id follows from event and channel.
        let expected = Delivery::new(&event, channel.id, now);
        let _ = self.store.commit(Change { events: vec![event], ..Change::default() }).await?;
        for _ in 0..TRY_ROUNDS_MAX {
            // The worker may be faster; whoever claims it, its outcome is in the store.
            self.deliver().await?;
            match self.store.delivery(expected.id).await? {
                Some(tried) if tried.status != Status::Pending => return Ok(tried),
                Some(_) | None => tokio::time::sleep(core::time::Duration::from_millis(TRY_PAUSE_MS)).await,
            }
        }
        Ok(self.store.delivery(expected.id).await?.unwrap_or(expected))
    }

    /// What an event looks like to those who are told.
    #[must_use]
    pub fn notice(&self, event: &Event) -> Notice {
        let mut notice = Notice {
            event: event.kind.word().to_owned(),
            id: event.id,
            incident: event.incident,
            host: event.subject.as_ref().map(hb_core::event::Subject::to_ref),
            hosts: event.members.iter().map(hb_core::event::Subject::to_ref).collect(),
            at: timestamp(event.at),
            since: event.since.map(timestamp),
            cause: event.cause.map(|cause| cause.word().to_owned()),
            deadline: event.deadline.map(timestamp),
            message: String::new(),
            details: event.inputs.clone(),
        };
        notice.message = self.courier.line(&notice);
        notice
    }
}
