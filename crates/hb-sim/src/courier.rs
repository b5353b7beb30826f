//! The receivers of messages: channels that work, fail, hang, and answer after having accepted.

use core::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use hb_api::courier::{Courier, Failure, Opened, Parcel};
use hb_core::access::Channel;
use hb_wire::id::{ChannelId, DeliveryId, EventId, HostId, IncidentId};
use hb_wire::view::Notice;

use crate::dice::Dice;
use crate::executor::{Timeline, lock};
use crate::server::Weather;

/// How a channel behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// It takes everything.
    Works,
    /// It answers 500.
    Fails,
    /// It takes nothing, and does not answer.
    Hangs,
    /// It takes the message, and answers 500.
    Lies,
    /// It takes the message, and does not answer.
    Swallows,
}

impl Mood {
    /// All that are not [`Mood::Works`].
    pub const BAD: [Self; 4] = [Self::Fails, Self::Hangs, Self::Lies, Self::Swallows];
}

/// One message as a receiver saw it.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// When, in virtual time.
    pub at: u64,
    /// Where.
    pub channel: ChannelId,
    /// Its `Idempotency-Key`.
    pub key: DeliveryId,
    /// The event.
    pub event: EventId,
    /// The event's kind, as it stands in the message.
    pub kind: String,
    /// About whom.
    pub host: Option<HostId>,
    /// What it belongs to.
    pub incident: Option<IncidentId>,
    /// The list inside.
    pub members: Vec<HostId>,
    /// The sender will not learn that it arrived.
    pub ambiguous: bool,
}

/// The post office.
#[derive(Debug)]
pub struct SimCourier {
    timeline: Timeline,
    weather: Arc<Weather>,
    counter: Mutex<Counter>,
}

#[derive(Debug)]
struct Counter {
    dice: Dice,
    moods: Vec<(ChannelId, Mood)>,
    receipts: Vec<Receipt>,
}

impl SimCourier {
    /// No channel yet.
    #[must_use]
    pub fn new(timeline: Timeline, weather: Arc<Weather>, dice: Dice) -> Self {
        let counter = Mutex::new(Counter { dice, moods: Vec::new(), receipts: Vec::new() });
        Self { timeline, weather, counter }
    }

    /// From here on the channel behaves like this.
    pub fn set(&self, channel: ChannelId, mood: Mood) {
        let mut counter = lock(&self.counter);
        counter.moods.retain(|(id, _)| *id != channel);
        counter.moods.push((channel, mood));
    }

    /// True while the channel takes everything.
    #[must_use]
    pub fn works(&self, channel: ChannelId) -> bool {
        lock(&self.counter).moods.iter().all(|(id, mood)| *id != channel || *mood == Mood::Works)
    }

    /// What arrived since the last time.
    #[must_use]
    pub fn receipts(&self) -> Vec<Receipt> {
        core::mem::take(&mut lock(&self.counter).receipts)
    }

    /// What the channel does this time: its mood, how long it takes, and how long before it is given up.
    fn roll(&self, channel: ChannelId) -> (Mood, u64, u64) {
        let mut counter = lock(&self.counter);
        let cut = self.weather.cut.load(Ordering::Relaxed);
        let mood = counter.moods.iter().find(|(id, _)| *id == channel).map_or(Mood::Works, |(_, mood)| *mood);
        let latency = counter.dice.within(5..300);
        let patience = counter.dice.within(5_000..30_000);
        (if cut { Mood::Hangs } else { mood }, latency, patience)
    }

    fn take(&self, channel: &Channel, parcel: &Parcel<'_>, ambiguous: bool) {
        let notice = parcel.notice;
        lock(&self.counter).receipts.push(Receipt {
            at: self.timeline.now(),
            channel: channel.id,
            key: parcel.key,
            event: notice.id,
            kind: notice.event.clone(),
            host: notice.host.as_ref().map(|host| host.id),
            incident: notice.incident,
            members: notice.hosts.iter().map(|host| host.id).collect(),
            ambiguous,
        });
    }
}

fn failure(reason: &str) -> Failure {
    Failure { reason: reason.to_owned(), permanent: false, retry_after_ms: None }
}

#[async_trait]
impl Courier for SimCourier {
    fn open(&self, _kind: &str, settings: &serde_json::Value, _random: [u8; 32]) -> Result<Opened, String> {
        Ok(Opened { settings: settings.clone(), target: "a simulated receiver".to_owned(), secret: None })
    }

    async fn send(&self, channel: &Channel, parcel: Parcel<'_>) -> Result<(), Failure> {
        let (mood, latency, patience) = self.roll(channel.id);
        self.timeline.sleep(latency).await;
        match mood {
            Mood::Works => {
                self.take(channel, &parcel, false);
                self.timeline.sleep(latency).await;
                Ok(())
            }
            Mood::Fails => Err(failure("500")),
            Mood::Lies => {
                self.take(channel, &parcel, true);
                Err(failure("500 after having taken it"))
            }
            Mood::Hangs => {
                self.timeline.sleep(patience).await;
                Err(failure("no answer"))
            }
            Mood::Swallows => {
                self.take(channel, &parcel, true);
                self.timeline.sleep(patience).await;
                Err(failure("no answer after having taken it"))
            }
        }
    }

    fn line(&self, notice: &Notice) -> String {
        notice.event.clone()
    }
}
