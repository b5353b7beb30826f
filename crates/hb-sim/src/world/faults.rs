//! Everything that goes wrong, and how it heals.

use core::sync::atomic::Ordering;

use hb_wire::beat::{Fault, Intent, StopReason};

use super::operator::Act;
use super::{Focus, HOUR, Happening, MINUTE, World};
use crate::computer::Computer;
use crate::courier::Mood;

/// Something goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strike {
    HostCrash,
    HostReboot,
    AgentKill,
    HostSleep,
    LinkLoss,
    SiteLoss,
    Degrade,
    Maintenance,
    Clone,
    ClockJump,
    ServerKill,
    ServerPause,
    Cut,
    Overload,
    StoreFailure,
    WallStep,
    ChannelTrouble,
    Pause,
    Edit,
    Backup,
    Restore,
    Replay,
    Forge,
    Ambush,
}

/// Something is well again.
#[derive(Debug, Clone)]
pub(super) enum Heal {
    Boot { computer: usize, life: u32 },
    AgentStart { computer: usize, life: u32 },
    WakeUp { computer: usize, life: u32 },
    LinkUp { computer: usize },
    Fit { computer: usize },
    CloneEnd { computer: usize },
    ServerStart,
    ServerResume,
    CutEnd,
    OverloadEnd,
    StoreGood,
    ChannelGood { channel: usize },
    Resume { host: usize },
    Wish { host: usize, act: Act },
}

impl Strike {
    /// Mean time between two, in milliseconds of one host or of the server.
    fn mean(self, focus: Focus, hosts: u64) -> Option<u64> {
        let per_host = |hours: u64| Some(hours * HOUR / hosts.max(1));
        let server = |hours: u64| Some(hours * HOUR);
        match (self, focus) {
            (Self::HostCrash, Focus::Races) => per_host(2),
            (Self::HostCrash, _) => per_host(25),
            (Self::HostReboot, _) => per_host(60),
            (Self::AgentKill, _) => per_host(60),
            (Self::HostSleep, _) => per_host(80),
            (Self::LinkLoss, Focus::Races) => per_host(1),
            (Self::LinkLoss, _) => per_host(40),
            (Self::Degrade, _) => per_host(150),
            (Self::Maintenance, _) => per_host(150),
            (Self::ClockJump, _) => per_host(40),
            (Self::Clone, Focus::Clones) => per_host(30),
            (Self::Clone, _) => per_host(400),
            (Self::SiteLoss, Focus::Masses) => server(1),
            (Self::SiteLoss, _) => server(15),
            (Self::ServerKill, _) => server(4),
            (Self::ServerPause, _) => server(7),
            (Self::Cut, _) => server(6),
            (Self::Overload, _) => server(9),
            (Self::StoreFailure, _) => server(9),
            (Self::WallStep, _) => server(1),
            (Self::ChannelTrouble, _) => server(2),
            (Self::Pause, _) => per_host(120),
            (Self::Edit, _) => per_host(120),
            (Self::Backup, _) => server(10),
            (Self::Restore, _) => server(40),
            (Self::Replay, _) => Some(10_000),
            (Self::Forge, _) => Some(20_000),
            (Self::Ambush, Focus::Races) => per_host(20),
            (Self::Ambush, _) => per_host(100),
        }
    }
}

const STRIKES: [Strike; 24] = [
    Strike::HostCrash,
    Strike::HostReboot,
    Strike::AgentKill,
    Strike::HostSleep,
    Strike::LinkLoss,
    Strike::SiteLoss,
    Strike::Degrade,
    Strike::Maintenance,
    Strike::Clone,
    Strike::ClockJump,
    Strike::ServerKill,
    Strike::ServerPause,
    Strike::Cut,
    Strike::Overload,
    Strike::StoreFailure,
    Strike::WallStep,
    Strike::ChannelTrouble,
    Strike::Pause,
    Strike::Edit,
    Strike::Backup,
    Strike::Restore,
    Strike::Replay,
    Strike::Forge,
    Strike::Ambush,
];

impl World {
    pub(super) fn plan_strikes(&mut self) {
        for strike in STRIKES {
            self.plan(strike);
        }
    }

    fn plan(&mut self, strike: Strike) {
        if let Some(mean) = strike.mean(self.focus, self.config.hosts as u64) {
            let wait = self.dice.within(1..2 * mean);
            self.after(wait, Happening::Strike(strike));
        }
    }

    fn any_host(&mut self) -> usize {
        self.dice.within(0..self.hosts.len() as u64) as usize
    }

    pub(super) fn strike(&mut self, strike: Strike) {
        if self.calm {
            return;
        }
        self.plan(strike);
        match strike {
            Strike::HostCrash | Strike::HostReboot | Strike::AgentKill | Strike::HostSleep => self.strike_host(strike),
            Strike::LinkLoss => {
                let host = self.any_host();
                self.tally.link_losses += 1;
                let ms = if self.focus == Focus::Races {
                    // Comes back just around the deadline.
                    self.hosts[host].terms.need() - 5_000 + self.dice.within(0..10_000)
                } else {
                    self.dice.about(10 * MINUTE)
                };
                self.cut_link(host, ms);
            }
            Strike::SiteLoss => self.lose_site(),
            Strike::Degrade => {
                let host = self.any_host();
                self.computers[host].faults = vec![Fault::DiskFull];
                let ms = self.dice.about(HOUR);
                self.after(ms, Happening::Heal(Heal::Fit { computer: host }));
            }
            Strike::Maintenance => {
                let host = self.any_host();
                let for_s = self.dice.within(60..7_200);
                self.announce(host, Intent::Maintenance { for_s, note: "kernel".to_owned() });
            }
            Strike::Clone => self.clone_host(),
            Strike::ClockJump => {
                let host = self.any_host();
                self.computers[host].clock_off =
                    i64::try_from(self.dice.within(0..4_000_000_000)).unwrap_or(0) - 2_000_000_000;
            }
            Strike::ServerKill | Strike::ServerPause | Strike::Cut | Strike::Overload | Strike::StoreFailure => {
                self.strike_server(strike);
            }
            Strike::WallStep => {
                self.tally.wall_steps += 1;
                let step = if self.dice.one_in(2) { 3_600_000 } else { -3_600_000 };
                self.machine.weather.wall_ms.fetch_add(step, Ordering::Relaxed);
            }
            Strike::ChannelTrouble => self.trouble_channel(),
            Strike::Pause => self.wish_pause(),
            Strike::Edit => self.wish_edit(),
            Strike::Backup => self.back_up(),
            Strike::Restore => self.restore(),
            Strike::Replay => self.replay(),
            Strike::Forge => self.forge(),
            Strike::Ambush => self.ambush(),
        }
    }

    fn strike_host(&mut self, strike: Strike) {
        let host = self.any_host();
        let running = self.computers[host].on && self.computers[host].agent.is_some() && !self.computers[host].asleep;
        if !running {
            return;
        }
        match strike {
            Strike::HostCrash => {
                self.tally.crashes += 1;
                let off = if self.dice.one_in(30) { None } else { Some(self.dice.about(20 * MINUTE)) };
                self.crash(host, off);
            }
            Strike::HostReboot => {
                self.tally.reboots += 1;
                let (reason, back_in_s) = *self
                    .dice
                    .pick(&[(StopReason::Reboot, 300), (StopReason::Reboot, 600), (StopReason::Poweroff, 86_400)])
                    .unwrap_or(&(StopReason::Reboot, 300));
                let off = if self.dice.one_in(10) { None } else { Some(self.dice.about(4 * MINUTE)) };
                self.shut_down(host, reason, back_in_s, off);
            }
            Strike::AgentKill => {
                self.tally.agent_kills += 1;
                let now = self.now;
                let computer = &mut self.computers[host];
                computer.stop_agent(now, None);
                let life = computer.life;
                let ms = if self.dice.one_in(4) { self.dice.about(20 * MINUTE) } else { 5_000 };
                self.after(ms, Happening::Heal(Heal::AgentStart { computer: host, life }));
            }
            _ => {
                self.tally.sleeps += 1;
                let ms = self.dice.about(30 * MINUTE);
                self.fall_asleep(host, ms);
            }
        }
    }

    pub(super) fn cut_link(&mut self, place: usize, ms: u64) {
        let now = self.now;
        self.computers[place].link_cuts += 1;
        self.computers[place].note(now);
        self.say(|| format!("host {place} loses its link for {ms} ms"));
        self.after(ms, Happening::Heal(Heal::LinkUp { computer: place }));
    }

    /// All hosts of a site, or all there are, lose power or their link at the same moment.
    fn lose_site(&mut self) {
        self.tally.site_losses += 1;
        let everything = self.dice.one_in(8);
        let site = self.dice.within(0..(self.config.hosts as u64 / 8).max(1)) as usize;
        let power = self.dice.one_in(2);
        let ms = self.dice.about(40 * MINUTE);
        self.say(|| format!("site {site} (everything: {everything}) loses power {power} for {ms} ms"));
        for host in 0..self.hosts.len() {
            if !everything && self.hosts[host].site != site {
                continue;
            }
            let apart = self.dice.within(0..60_000);
            if !power {
                self.cut_link(host, ms + apart);
            } else if self.computers[host].on {
                self.crash(host, Some(ms + apart));
            }
        }
    }

    /// The disk of a host is copied to another machine, which is switched on.
    fn clone_host(&mut self) {
        let host = self.any_host();
        let original = &self.computers[host];
        let steady = original.good_since.is_some_and(|since| self.now > since + 10 * MINUTE);
        if !steady || self.computers.iter().any(|computer| computer.is_clone && computer.host == host && computer.on) {
            return;
        }
        self.tally.clones += 1;
        let journal = original.agent.as_ref().map(|agent| agent.memory.journal(None));
        let (id, first, interval_s) = (original.id, original.first, original.interval_s);
        let mut clone = Computer::new(host, id, first, interval_s, &mut self.dice);
        clone.is_clone = true;
        clone.disk = journal;
        clone.boot(self.now, &mut self.dice);
        clone.start_agent(self.now, &mut self.dice);
        let place = self.computers.len();
        self.computers.push(clone);
        self.say(|| format!("host {host} is cloned as computer {place}"));
        self.judge.cloned(host, self.now);
        self.act(place);
        let ms = 5 * self.hosts[host].terms.interval + self.dice.about(2 * HOUR);
        self.after(ms, Happening::Heal(Heal::CloneEnd { computer: place }));
    }

    fn trouble_channel(&mut self) {
        let channel = self.dice.within(0..self.channels.len() as u64) as usize;
        if !self.courier.works(self.channels[channel]) {
            return;
        }
        self.tally.channel_troubles += 1;
        let mood = *self.dice.pick(&Mood::BAD).unwrap_or(&Mood::Fails);
        let ms = self.dice.about(40 * MINUTE);
        self.say(|| format!("channel {channel} is in trouble: {mood:?} for {ms} ms"));
        self.courier.set(self.channels[channel], mood);
        self.after(ms, Happening::Heal(Heal::ChannelGood { channel }));
    }

    pub(super) fn heal(&mut self, heal: Heal) {
        let now = self.now;
        match heal {
            Heal::Boot { computer, life } => {
                if self.computers[computer].life == life {
                    self.boot(computer);
                }
            }
            Heal::AgentStart { computer, life } => {
                if self.computers[computer].life == life && self.computers[computer].on {
                    self.computers[computer].start_agent(now, &mut self.dice);
                    self.act(computer);
                }
            }
            Heal::WakeUp { computer, life } => {
                if self.computers[computer].life == life {
                    self.wake_up(computer);
                }
            }
            Heal::LinkUp { computer } => {
                let computer = &mut self.computers[computer];
                computer.link_cuts = computer.link_cuts.saturating_sub(1);
                computer.note(now);
            }
            Heal::Fit { computer } => self.computers[computer].faults.clear(),
            Heal::CloneEnd { computer } => self.end_clone(computer),
            Heal::ServerStart => self.boot_server(),
            Heal::ServerResume => self.resume_server(),
            Heal::CutEnd => {
                if self.machine.weather.cut.swap(false, Ordering::Relaxed) {
                    self.judge.blindness().ends(now, true);
                }
            }
            Heal::OverloadEnd => {
                if self.machine.weather.overloaded.swap(false, Ordering::Relaxed) {
                    self.judge.blindness().ends(now, false);
                }
            }
            Heal::StoreGood => {
                if self.machine.weather.failing.swap(false, Ordering::Relaxed) {
                    self.judge.blindness().ends(now, false);
                }
            }
            Heal::ChannelGood { channel } => {
                self.courier.set(self.channels[channel], Mood::Works);
            }
            Heal::Resume { host } => self.wish_resume(host),
            Heal::Wish { host, act } => self.wish_again(host, act),
        }
    }

    fn end_clone(&mut self, place: usize) {
        let now = self.now;
        let computer = &mut self.computers[place];
        computer.stop_agent(now, None);
        computer.on = false;
        let host = computer.host;
        self.say(|| format!("the clone of host {host} is switched off"));
        self.judge.clone_gone(host, now);
        // The operator, told of the clone, releases the quarantine.
        self.wish_resume(host);
    }

    /// Nothing new goes wrong from here on, and everything but hosts that are off is well at once.
    pub(super) fn begin_calm(&mut self) {
        self.calm = true;
        self.say(|| "calm".to_owned());
        for place in 0..self.computers.len() {
            self.computers[place].link_cuts = 0;
            let now = self.now;
            self.computers[place].note(now);
            if self.computers[place].asleep {
                self.wake_up(place);
            }
            if self.computers[place].is_clone && self.computers[place].on {
                self.end_clone(place);
            }
        }
        for channel in 0..self.channels.len() {
            self.heal(Heal::ChannelGood { channel });
        }
        self.calm_server();
    }
}
