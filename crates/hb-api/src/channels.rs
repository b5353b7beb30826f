//! Channels and deliveries: where messages go, and what became of them.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use hb_core::access::Channel;
use hb_core::delivery::{Delivery, Status};
use hb_core::host::Host;
use hb_core::time::Time;
use hb_wire::id::{ChannelId, DeliveryId, HostId};
use hb_wire::problem::{Code, Problem};
use hb_wire::view::{ChannelRequest, ChannelView, DeliveryView, TestResult};

use crate::app::{App, store_problem, timestamp};
use crate::hosts::invalid;
use crate::keys::{full, label};
use crate::view::delivery_view;

/// Most channels: every alarm goes to each of them.
pub const CHANNELS_MAX: usize = 100;
/// Hosts that are read at once for a list.
const READ_AT_ONCE: usize = 16;

impl App {
    /// Adds a channel. A secret that was made for it stands in this answer and nowhere else.
    pub async fn add_channel(&self, request: &ChannelRequest) -> Result<ChannelView, Problem> {
        let name = label(request.name.as_deref().unwrap_or(&request.kind))?;
        let mut random = [0; 32];
        self.entropy.fill(&mut random);
        let opened = self.courier.open(&request.kind, &request.settings, random).map_err(|error| {
            invalid(format!("settings: {error}")).hint("`hb channels add --help` shows what each kind takes")
        })?;
        let channels = self.store.channels().await.map_err(|error| store_problem(&error))?;
        if channels.len() >= CHANNELS_MAX {
            return Err(full("channels", CHANNELS_MAX));
        }
        let now = self.clock.now();
        let mut random = [0; 10];
        self.entropy.fill(&mut random);
        let channel = Channel {
            id: ChannelId::mint(now.0, random),
            name,
            kind: request.kind.clone(),
            settings: opened.settings,
            target: opened.target,
            // Whoever does not say gets hb's own notices too: better told twice than not at all.
            admin: request.admin.unwrap_or(true),
            created_at: now,
            last_delivered_at: None,
            last_error: None,
        };
        // First where it ends: a channel that is kept and reaches nobody would be believed in.
        self.courier.enlist(&channel).await.map_err(|error| {
            tracing::warn!(channel.name = %channel.name, "a channel could not be made known where it ends: {error}");
            Problem::new(Code::Unavailable, format!("the channel could not be set up: {error}"))
        })?;
        if !self.store.add_channel(&channel).await.map_err(|error| store_problem(&error))? {
            return Err(Problem::new(Code::NameTaken, format!("there is a channel called {} already", channel.name))
                .hint("choose another with --name, or remove that one first"));
        }
        Ok(ChannelView { secret: opened.secret, ..self.channel_view(&channel).await })
    }

    /// Every channel.
    pub async fn list_channels(&self) -> Result<Vec<ChannelView>, Problem> {
        let channels = self.store.channels().await.map_err(|error| store_problem(&error))?;
        Ok(join_all(channels.iter().map(|channel| self.channel_view(channel))).await)
    }

    async fn channel_view(&self, channel: &Channel) -> ChannelView {
        let pending = self.courier.pending(channel).await.unwrap_or_else(|error| {
            tracing::warn!(channel.name = %channel.name, "who has agreed to a channel is not known: {error}");
            Vec::new()
        });
        ChannelView { pending, ..channel_view(channel) }
    }

    /// Removes a channel, and what waits for it.
    pub async fn remove_channel(&self, id: ChannelId) -> Result<(), Problem> {
        let channels = self.store.channels().await.map_err(|error| store_problem(&error))?;
        let removed = self.store.remove_channel(id).await.map_err(|error| store_problem(&error))?;
        if !removed {
            return Err(no_channel(id));
        }
        let (gone, left): (Vec<_>, Vec<_>) = channels.into_iter().partition(|channel| channel.id == id);
        for channel in gone {
            if let Err(error) = self.courier.dismiss(&channel, &left).await {
                // Nothing is sent there any more, whatever is still known there.
                tracing::warn!(channel.name = %channel.name, "a channel that was removed is still known where it ended: {error}");
            }
        }
        Ok(())
    }

    /// Sends a real message through a channel and says what became of it.
    pub async fn test_channel(&self, id: ChannelId) -> Result<TestResult, Problem> {
        let channels = self.store.channels().await.map_err(|error| store_problem(&error))?;
        let channel = channels.iter().find(|channel| channel.id == id).ok_or_else(|| no_channel(id))?;
        let begun = self.clock.now();
        let delivery = self.try_channel(channel).await.map_err(|error| store_problem(&error))?;
        let delivered = delivery.status == Status::Delivered;
        let error =
            delivery.last_error.unwrap_or_else(|| "it was not tried in time; it stays in the outbox".to_owned());
        Ok(TestResult {
            delivered,
            took_s: took_s(begun, self.clock.now()),
            error: (!delivered).then_some(error),
            delivery: delivery.id,
        })
    }

    /// Tries a delivery again that was given up, or that waits.
    pub async fn retry_delivery(&self, id: DeliveryId) -> Result<DeliveryView, Problem> {
        let missing = || Problem::new(Code::NotFound, format!("there is no delivery {id}"));
        let delivery = self.store.delivery(id).await.map_err(|error| store_problem(&error))?.ok_or_else(missing)?;
        let channels = self.store.channels().await.map_err(|error| store_problem(&error))?;
        if channels.iter().all(|channel| channel.id != delivery.channel) {
            return Err(Problem::new(Code::Conflict, "the channel of this delivery was removed")
                .hint("nothing is left to do: `hb history` shows what it would have told, and it counts no more"));
        }
        let hosts = self.hosts_of([&delivery]).await?;
        let revived: Delivery = delivery.revived(self.clock.now());
        if !self.store.revive(&revived).await.map_err(|error| store_problem(&error))? {
            return Err(Problem::new(Code::Conflict, "this delivery arrived, was merged, or is being tried right now")
                .hint("`hb deliveries list` shows what became of it"));
        }
        self.to_deliver.notify_one();
        Ok(delivery_view(&revived, &channels, &hosts))
    }

    /// The hosts that these deliveries are about.
    pub async fn hosts_of(&self, deliveries: impl IntoIterator<Item = &Delivery>) -> Result<Vec<Host>, Problem> {
        let ids: BTreeSet<HostId> = deliveries.into_iter().filter_map(|delivery| delivery.host).collect();
        let read = stream::iter(ids).map(|id| self.store.host(id)).buffered(READ_AT_ONCE);
        let found: Vec<_> = read.try_collect().await.map_err(|error| store_problem(&error))?;
        Ok(found.into_iter().flatten().map(|held| held.value).collect())
    }
}

fn no_channel(id: ChannelId) -> Problem {
    Problem::new(Code::NotFound, format!("there is no channel {id}")).hint("`hb channels list` names them all")
}

#[expect(clippy::cast_precision_loss, reason = "a test lasts less than 285,000 years")]
fn took_s(begun: Time, ended: Time) -> f64 {
    ended.since(begun) as f64 / 1000.0
}

fn channel_view(channel: &Channel) -> ChannelView {
    ChannelView {
        id: channel.id,
        name: channel.name.clone(),
        kind: channel.kind.clone(),
        target: channel.target.clone(),
        admin: channel.admin,
        created_at: timestamp(channel.created_at),
        last_delivered_at: channel.last_delivered_at.map(timestamp),
        last_error: channel.last_error.clone(),
        pending: Vec::new(),
        secret: None,
    }
}
