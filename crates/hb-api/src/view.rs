//! From the domain to what is shown: [`hb_wire::view`].

use std::collections::BTreeMap;

use hb_core::access::Channel;
use hb_core::delivery::{Delivery, Status};
use hb_core::event::Event;
use hb_core::host::{Host, State};
use hb_core::ledger::Ledger;
use hb_core::policy::Policy;
use hb_core::time::{Time, seconds};
use hb_store::{HostQuery, PAGE_MAX, Result};
use hb_wire::beat::{Fault, StopReason};
use hb_wire::view::{Class, DeliveryView, EventView, HostRef, HostState, HostView};

use crate::app::{App, timestamp};
use crate::beat::marks;

/// How long a count of the whole fleet, host by host, is kept.
const STANDING_MS: u64 = seconds(2);
/// After a gap the fleet is counted host by host for this long: credit and hold-offs decide who is late and who unknown.
const RECKONING_MS: u64 = seconds(3600);

/// The moment at which hosts are looked at, and what had not been observed by then.
#[derive(Debug, Clone)]
pub struct Lens {
    /// Server time.
    pub now: Time,
    /// What was not observed, a gap that still lasts included.
    pub ledger: Ledger,
    /// Since when hb has been blind.
    pub blind_since: Option<Time>,
    /// The rules' numbers.
    pub policy: Policy,
}

/// Hosts per shown state, over the whole fleet.
pub type Standing = BTreeMap<String, u64>;

impl Lens {
    /// True while silence is judged.
    #[must_use]
    pub fn observing(&self) -> bool {
        self.blind_since.is_none()
    }

    /// A host's state as shown. `Late` and `Unknown` are not decided, only seen:
    /// - unknown: past its interval while hb is blind, or past its nominal deadline while credit or a hold-off lasts;
    /// - late: past its interval by observed time.
    #[must_use]
    pub fn state(&self, host: &Host) -> HostState {
        match host.state {
            State::New => HostState::New,
            State::Down(_) => HostState::Down,
            State::Stopped { .. } => HostState::Stopped,
            State::Paused { .. } => HostState::Paused,
            State::Retired { .. } => HostState::Retired,
            State::Up { .. } => self.liveness(host),
        }
    }

    fn liveness(&self, host: &Host) -> HostState {
        let silence_ms = self.now.since(host.life.silent_from);
        if silence_ms <= host.interval_ms {
            return HostState::Up;
        }
        let nominal = host.alarm_floor(&self.policy);
        let credited = host.alarm_at(&self.ledger, &self.policy);
        let holds_back =
            nominal.is_some_and(|nominal| nominal <= self.now) && credited.is_some_and(|due| self.now < due);
        if !self.observing() || holds_back {
            HostState::Unknown
        } else if host.is_late(self.now, &self.ledger) {
            HostState::Late
        } else {
            HostState::Up
        }
    }

    /// When silence becomes an alarm; none while no alarm is armed.
    #[must_use]
    pub fn deadline(&self, host: &Host) -> Option<Time> {
        match host.state {
            State::New | State::Up { .. } | State::Stopped { .. } => host.alarm_at(&self.ledger, &self.policy),
            State::Down(_) | State::Paused { .. } | State::Retired { .. } => None,
        }
    }

    /// A host as shown.
    #[must_use]
    pub fn host(&self, host: &Host) -> HostView {
        let life = &host.life;
        HostView {
            id: host.id,
            name: host.name.to_string(),
            state: self.state(host),
            since: Some(timestamp(since(host))),
            marks: marks(host, self.now),
            last_seen: life.heard_at.map(timestamp),
            deadline: self.deadline(host).map(timestamp),
            interval_s: host.interval_ms / 1000,
            grace_s: host.grace_ms / 1000,
            tags: host.tags.as_map().clone(),
            class: host.class,
            max_away_s: host.max_away_ms.filter(|_| host.class == Class::Intermittent).map(|ms| ms / 1000),
            agent: (!life.agent.is_empty()).then(|| life.agent.clone()),
            // 0 is what was said by nobody: neither by a host that was never heard, nor by a heartbeat of hb-api.
            uptime_s: (life.up_s > 0).then_some(life.up_s),
            clock_skew_s: life.skew_ms.map(milliseconds_as_seconds),
            vitals: life.vitals.clone(),
            reason: reason(host, self.now),
            until: until(host, self.now).map(timestamp),
            incident: host.state.outage().map(|outage| outage.incident).or(host.trouble),
            key: Some(host.key.fingerprint()),
            boot: life.holder.map(|holder| holder.boot),
            run: life.holder.and_then(|holder| holder.run),
            enrolled_at: timestamp(host.enrolled_at),
        }
    }
}

/// Since when a host has been in its stored state.
#[must_use]
pub fn since(host: &Host) -> Time {
    match &host.state {
        State::New => host.enrolled_at,
        State::Down(outage) => outage.since,
        State::Up { since } | State::Stopped { since, .. } | State::Paused { since, .. } | State::Retired { since } => {
            *since
        }
    }
}

fn until(host: &Host, now: Time) -> Option<Time> {
    match &host.state {
        State::Paused { until, .. } => *until,
        State::Stopped { back_by, .. } => Some(*back_by),
        State::New | State::Up { .. } | State::Down(_) | State::Retired { .. } => {
            host.maintenance.as_ref().filter(|_| host.in_maintenance(now)).map(|maintenance| maintenance.until)
        }
    }
}

/// Why a host is paused, stopped, degraded or in maintenance, in one line.
fn reason(host: &Host, now: Time) -> Option<String> {
    let text = match &host.state {
        State::Paused { reason, .. } => reason.clone(),
        State::Stopped { reason, .. } => stop_word(*reason).to_owned(),
        State::New | State::Up { .. } | State::Down(_) | State::Retired { .. } if !host.life.faults.is_empty() => {
            let faults: Vec<&str> = host.life.faults.iter().map(|fault| fault_words(*fault)).collect();
            faults.join(", ")
        }
        State::New | State::Up { .. } | State::Down(_) | State::Retired { .. } => {
            let maintenance = host.maintenance.as_ref().filter(|_| host.in_maintenance(now));
            maintenance.map(|maintenance| maintenance.note.clone()).unwrap_or_default()
        }
    };
    (!text.is_empty()).then_some(text)
}

/// Why an agent said goodbye, in words.
#[must_use]
pub fn stop_word(reason: StopReason) -> &'static str {
    match reason {
        StopReason::Reboot => "reboots",
        StopReason::Poweroff => "powers off",
        StopReason::Service => "its agent was stopped",
        StopReason::Upgrade => "its agent is upgraded",
        StopReason::Sleep => "goes to sleep",
    }
}

fn fault_words(fault: Fault) -> &'static str {
    match fault {
        Fault::StateUnwritable => "the agent's state directory cannot be written",
        Fault::DiskFull => "the disk is full",
        Fault::RootReadOnly => "the root file system is read-only",
    }
}

#[expect(clippy::cast_precision_loss, reason = "a clock that is off by 285,000 years may be shown a second wrong")]
fn milliseconds_as_seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

impl App {
    /// The present moment, for looking at hosts.
    #[must_use]
    pub fn lens(&self) -> Lens {
        let shown = self.watch.shown();
        let now = self.clock.now();
        let mut ledger = shown.ledger.clone();
        if let Some(since) = shown.deaf_since {
            ledger.enter(since, now);
        }
        Lens { now, ledger, blind_since: shown.deaf_since, policy: self.settings.policy.clone() }
    }

    /// An event as shown.
    #[must_use]
    pub fn event_view(&self, event: &Event) -> EventView {
        let notice = self.notice(event);
        let mut inputs = notice.details;
        if !notice.hosts.is_empty() {
            let names: Vec<String> = notice.hosts.into_iter().map(|host| host.name).collect();
            inputs.insert("members".to_owned(), names.into());
        }
        EventView {
            id: notice.id,
            event: notice.event,
            host: notice.host,
            at: notice.at,
            since: notice.since,
            cause: notice.cause,
            deadline: notice.deadline,
            incident: notice.incident,
            message: notice.message,
            inputs,
        }
    }

    /// Hosts per shown state, over the whole fleet: every state but `retired`, zeros included.
    ///
    /// The store's count is exact while everything was observed. For an hour after a gap, where credit and hold-offs decide
    /// who is late and who unknown, hosts that may be either are counted one by one.
    pub async fn standing(&self, lens: &Lens) -> Result<Standing> {
        let fleet = self.store.fleet(lens.now).await?;
        let mut standing: Standing = ["new", "up", "late", "down", "stopped", "paused", "unknown"]
            .into_iter()
            .map(|word| (word.to_owned(), fleet.states.get(word).copied().unwrap_or(0)))
            .collect();
        if fleet.late == 0 {
            return Ok(standing);
        }
        if !lens.observing() {
            move_count(&mut standing, "unknown", fleet.late);
        } else if lens.ledger.gaps().last().is_none_or(|gap| lens.now.since(gap.to) > RECKONING_MS) {
            move_count(&mut standing, "late", fleet.late);
        } else {
            standing = self.reckoned(lens, standing).await?;
        }
        Ok(standing)
    }

    async fn reckoned(&self, lens: &Lens, zeros: Standing) -> Result<Standing> {
        if let Some(standing) = self.glance.standing.get(lens.now, STANDING_MS) {
            return Ok(standing);
        }
        let mut standing: Standing = zeros.into_keys().map(|word| (word, 0)).collect();
        let mut query = HostQuery { limit: PAGE_MAX, ..HostQuery::default() };
        loop {
            let page = self.store.hosts(&query).await?;
            for host in &page {
                *standing.entry(state_word(lens.state(&host.value)).to_owned()).or_default() += 1;
            }
            match page.last() {
                Some(last) if page.len() >= PAGE_MAX => {
                    query.after = Some((last.value.name.to_string(), last.value.id));
                }
                Some(_) | None => break,
            }
        }
        self.glance.standing.put(lens.now, standing.clone());
        Ok(standing)
    }
}

fn move_count(standing: &mut Standing, word: &str, count: u64) {
    let up = standing.entry("up".to_owned()).or_default();
    let moved = count.min(*up);
    *up -= moved;
    standing.insert(word.to_owned(), moved);
}

/// A state as it stands on the wire.
#[must_use]
pub fn state_word(state: HostState) -> &'static str {
    match state {
        HostState::New => "new",
        HostState::Up => "up",
        HostState::Late => "late",
        HostState::Down => "down",
        HostState::Stopped => "stopped",
        HostState::Paused => "paused",
        HostState::Retired => "retired",
        HostState::Unknown => "unknown",
    }
}

/// A delivery as shown, with the names of its channel and its host, as far as they are among these.
#[must_use]
pub fn delivery_view(delivery: &Delivery, channels: &[Channel], hosts: &[Host]) -> DeliveryView {
    let channel = channels.iter().find(|channel| channel.id == delivery.channel);
    let host = hosts.iter().find(|host| Some(host.id) == delivery.host);
    let pending = delivery.status == Status::Pending;
    DeliveryView {
        id: delivery.id,
        event: delivery.event,
        kind: delivery.kind.to_string(),
        host: host.map(|host| HostRef { id: host.id, name: host.name.to_string(), tags: host.tags.as_map().clone() }),
        channel: delivery.channel,
        channel_name: channel.map_or_else(|| "(removed)".to_owned(), |channel| channel.name.clone()),
        status: delivery.status.word().to_owned(),
        attempts: delivery.attempts,
        created_at: timestamp(delivery.created_at),
        delivered_at: delivery.delivered_at.map(timestamp),
        next_attempt_at: pending.then(|| timestamp(delivery.next_attempt_at)),
        last_error: delivery.last_error.clone(),
    }
}
