//! A simulated computer: power, sleep, link, clock, disk, and the real decisions of hb's agent.

use hb::agent::cadence::Cadence;
use hb::agent::memory::{Memory, Moment, Report};
use hb::journal::{Journal, Keeper};
use hb_wire::beat::{Beat, Fault, Intent, StopReason};
use hb_wire::id::{BootId, HostId, RunId};
use hb_wire::nonce::Nonce;
use jiff::Timestamp;

use crate::dice::Dice;
use crate::server::EPOCH_MS;

/// The agent while it runs.
#[derive(Debug, Clone)]
pub struct Agent {
    /// When to beat.
    pub cadence: Cadence,
    /// What to say.
    pub memory: Memory,
    /// The attempt that waits for an answer.
    pub pending: Option<u64>,
}

/// A computer with a host's key on it.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a trouble of its own, and any of them may meet any other")]
pub struct Computer {
    /// Which host it is, or pretends to be.
    pub host: usize,
    /// The host's id.
    pub id: HostId,
    /// A copy of another one.
    pub is_clone: bool,
    /// It has power.
    pub on: bool,
    /// It sleeps.
    pub asleep: bool,
    /// Cut links: more than one reason may cut it at once.
    pub link_cuts: u32,
    /// The agent, while it runs.
    pub agent: Option<Agent>,
    /// Grows when what was planned for the agent no longer applies.
    pub life: u32,
    /// Attempts so far.
    pub attempts: u64,
    /// This boot.
    pub boot: BootId,
    /// When it began.
    pub booted_at: u64,
    /// How long it slept since.
    pub suspended: u64,
    /// Since when it sleeps.
    pub slept_at: u64,
    /// The attacker lies in wait for its next beat with a fresh nonce.
    pub ambushed: bool,
    /// Its wall clock minus the truth, in milliseconds.
    pub clock_off: i64,
    /// What is on the disk.
    pub disk: Option<Journal>,
    /// The nonce that enrolment gave.
    pub first: Nonce,
    /// What keeps it from working.
    pub faults: Vec<Fault>,
    /// Since when it has been alive, awake and connected; none while it is not.
    pub good_since: Option<u64>,
    /// The interval that it was configured with, in seconds.
    pub interval_s: u64,
}

impl Computer {
    /// A computer that has not been switched on yet.
    #[must_use]
    pub fn new(host: usize, id: HostId, first: Nonce, interval_s: u64, dice: &mut Dice) -> Self {
        Self {
            host,
            id,
            is_clone: false,
            on: false,
            asleep: false,
            link_cuts: 0,
            agent: None,
            life: 0,
            attempts: 0,
            boot: BootId::mint(0, dice.bytes()),
            booted_at: 0,
            suspended: 0,
            slept_at: 0,
            ambushed: false,
            clock_off: 0,
            disk: None,
            first,
            faults: Vec::new(),
            good_since: None,
            interval_s,
        }
    }

    /// True while its beats can be expected.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.on && !self.asleep && self.link_cuts == 0 && self.agent.is_some()
    }

    /// To be called after every change.
    pub fn note(&mut self, now: u64) {
        self.good_since = if self.is_well() { self.good_since.or(Some(now)) } else { None };
    }

    /// It gets power: a new boot.
    pub fn boot(&mut self, now: u64, dice: &mut Dice) {
        self.on = true;
        self.asleep = false;
        self.boot = BootId::mint(now, dice.bytes());
        self.booted_at = now;
        self.suspended = 0;
    }

    /// The agent starts. A state that was lost is none.
    pub fn start_agent(&mut self, now: u64, dice: &mut Dice) {
        self.life += 1;
        let run = RunId::mint(now, dice.bytes());
        let memory = Memory::start(self.disk.clone(), Keeper::Daemon, self.boot, run, Some(self.first));
        let cadence = Cadence::new(self.id, self.interval_s, 1, self.clock(now));
        self.agent = Some(Agent { cadence, memory, pending: None });
        self.note(now);
    }

    /// The agent ends: killed, or with a clean stop that it writes down.
    pub fn stop_agent(&mut self, now: u64, clean: Option<StopReason>) {
        self.life += 1;
        if let Some(agent) = self.agent.take() {
            self.disk = Some(agent.memory.journal(clean));
        }
        self.note(now);
    }

    /// `CLOCK_BOOTTIME`, in milliseconds.
    #[must_use]
    pub fn clock(&self, now: u64) -> u64 {
        now.saturating_sub(self.booted_at)
    }

    /// Both of the host's clocks.
    #[must_use]
    pub fn moment(&self, now: u64) -> Moment {
        Moment { boottime_ms: self.clock(now), suspended_ms: self.suspended }
    }

    /// What its wall clock says, in milliseconds since 1970.
    #[must_use]
    pub fn wall_ms(&self, now: u64) -> i64 {
        i64::try_from(EPOCH_MS + now).unwrap_or(i64::MAX).saturating_add(self.clock_off)
    }

    /// The beat as it stands now, and the nonce that it spends.
    pub fn beat(&mut self, now: u64, fresh: bool, intent: Option<Intent>) -> Option<(Beat, Nonce)> {
        let (moment, wall) = (self.moment(now), self.wall_ms(now));
        let agent = self.agent.as_mut()?;
        if fresh {
            agent.memory.begin();
        }
        let sent_at = Timestamp::from_millisecond(wall).ok();
        let report = Report { sent_at, intent, degraded: self.faults.clone(), vitals: None };
        Some((agent.memory.beat(moment, report), agent.memory.nonce()))
    }
}
