//! What hosts do: boot, beat, sleep, crash, say goodbye.

use std::sync::Arc;

use hb::agent::cadence::{Action, Outcome};
use hb_wire::beat::{Intent, StopReason};

use super::faults::Heal;
use super::network::{Letter, Origin};
use super::{Happening, World};

impl World {
    /// The agent of a computer does what it has to do now.
    pub(super) fn act(&mut self, place: usize) {
        let now = self.now;
        let computer = &mut self.computers[place];
        if computer.asleep {
            return;
        }
        let (life, clock) = (computer.life, computer.clock(now));
        let Some(agent) = computer.agent.as_mut().filter(|agent| agent.pending.is_none()) else { return };
        match agent.cadence.next(clock) {
            Action::Wait { until_ms } => self.after(until_ms - clock, Happening::Agent { computer: place, life }),
            Action::Send { fresh, timeout_ms, .. } => self.send(place, fresh, timeout_ms, None),
        }
    }

    fn send(&mut self, place: usize, fresh: bool, timeout_ms: u64, intent: Option<Intent>) {
        let now = self.now;
        let computer = &mut self.computers[place];
        let Some((beat, nonce)) = computer.beat(now, fresh, intent) else { return };
        computer.attempts += 1;
        let (attempt, life, host) = (computer.attempts, computer.life, computer.host);
        if let Some(agent) = computer.agent.as_mut() {
            agent.pending = Some(attempt);
        }
        let created = (computer.wall_ms(now) / 1000).clamp(0, hb_wire::signature::CREATED_MAX);
        self.after(timeout_ms, Happening::Expire { computer: place, life, attempt });
        self.tally.beats_sent += 1;
        self.next_id += 1;
        let wire = self.sign(host, &beat, nonce, created);
        let letter = Letter {
            id: self.next_id,
            origin: Origin::Host,
            sender: Some((place, life, attempt)),
            computer: place,
            host,
            beat: Arc::new(beat),
            nonce,
            created,
            signed_at: now,
            wire,
            accepted: Arc::default(),
        };
        self.transmit(letter);
    }

    /// No answer came in time.
    pub(super) fn expire(&mut self, place: usize, life: u32, attempt: u64) {
        let rand = self.net.roll();
        let now = self.now;
        let computer = &mut self.computers[place];
        if computer.life != life || computer.asleep {
            return;
        }
        let (clock, moment) = (computer.clock(now), computer.moment(now));
        let Some(agent) = computer.agent.as_mut().filter(|agent| agent.pending == Some(attempt)) else { return };
        agent.pending = None;
        agent.memory.failed("timeout", moment);
        agent.cadence.on_result(Outcome::Failed, clock, rand);
        self.say(|| format!("host {place}: no answer in time"));
        self.act(place);
    }

    /// Sends what the host is about to do, once, beside its rhythm.
    pub(super) fn announce(&mut self, place: usize, intent: Intent) {
        let timeout_ms = match self.computers[place].agent.as_ref() {
            Some(agent) if !self.computers[place].asleep => agent.cadence.timeout_ms(),
            Some(_) | None => return,
        };
        // Whatever waited for an answer is given up.
        self.send(place, true, timeout_ms, Some(intent));
    }

    pub(super) fn boot_after(&mut self, place: usize, ms: u64) {
        let life = self.computers[place].life;
        self.after(ms, Happening::Heal(Heal::Boot { computer: place, life }));
    }

    pub(super) fn boot(&mut self, place: usize) {
        let now = self.now;
        self.say(|| format!("host {place} boots"));
        if !self.calm && self.dice.one_in(6) {
            self.tally.states_lost += 1;
            self.computers[place].disk = None;
        }
        let computer = &mut self.computers[place];
        computer.boot(now, &mut self.dice);
        computer.start_agent(now, &mut self.dice);
        self.act(place);
    }

    /// Power is gone.
    pub(super) fn crash(&mut self, place: usize, off_ms: Option<u64>) {
        let now = self.now;
        let computer = &mut self.computers[place];
        computer.stop_agent(now, None);
        computer.on = false;
        computer.asleep = false;
        computer.note(now);
        self.say(|| format!("host {place} crashes for {off_ms:?} ms"));
        if let Some(ms) = off_ms {
            self.boot_after(place, ms);
        }
    }

    /// A clean stop: goodbye, marker, power off.
    pub(super) fn shut_down(&mut self, place: usize, reason: StopReason, back_in_s: u64, off_ms: Option<u64>) {
        self.say(|| format!("host {place} says goodbye for {back_in_s} s, is away for {off_ms:?} ms"));
        self.announce(place, Intent::Goodbye { reason, back_in_s });
        let now = self.now;
        let computer = &mut self.computers[place];
        computer.stop_agent(now, Some(reason));
        if reason != StopReason::Service {
            computer.on = false;
        }
        computer.note(now);
        if let Some(ms) = off_ms {
            self.boot_after(place, ms);
        }
    }

    pub(super) fn fall_asleep(&mut self, place: usize, ms: u64) {
        let now = self.now;
        self.say(|| format!("host {place} sleeps for {ms} ms"));
        let computer = &mut self.computers[place];
        computer.asleep = true;
        computer.slept_at = now;
        computer.note(now);
        let life = computer.life;
        self.after(ms, Happening::Heal(Heal::WakeUp { computer: place, life }));
    }

    pub(super) fn wake_up(&mut self, place: usize) {
        let now = self.now;
        let rand = self.net.roll();
        let computer = &mut self.computers[place];
        if !computer.asleep {
            return;
        }
        computer.asleep = false;
        computer.suspended += now - computer.slept_at;
        computer.note(now);
        let (clock, moment) = (computer.clock(now), computer.moment(now));
        if let Some(agent) = computer.agent.as_mut()
            && agent.pending.take().is_some()
        {
            agent.memory.failed("timeout", moment);
            agent.cadence.on_result(Outcome::Failed, clock, rand);
        }
        // Timers that ended in the sleep were not heard.
        self.act(place);
    }
}
