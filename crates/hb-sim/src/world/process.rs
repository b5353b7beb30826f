//! The server process from outside: killed, stopped, starved, cut off, restored from a backup.

use core::sync::atomic::Ordering;

use futures_util::FutureExt as _;
use hb_store::{Committed, Store as _, Versioned};

use super::faults::{Heal, Strike};
use super::{Backup, Happening, MINUTE, Process, World};

impl World {
    pub(super) fn boot_server(&mut self) {
        if !matches!(self.process, Process::Dead) {
            return;
        }
        self.say(|| "the server starts".to_owned());
        let server = self.machine.boot(&self.courier, self.epoch);
        self.fast_seen = 0;
        self.process = Process::Running(Box::new(server));
        if self.now > 0 {
            self.judge.blindness().lives(self.now);
            self.judge.blindness().ends(self.now, true);
        }
        self.run_server();
    }

    /// `kill -9`: every task is gone at this instant; what was committed stays.
    pub(super) fn kill(&mut self) {
        let length = match self.dice.within(0..6) {
            0..=2 => self.dice.within(200..3_000),
            3 => self.dice.within(5_000..120_000),
            4 => self.dice.about(10 * MINUTE),
            _ => self.dice.about(60 * MINUTE),
        };
        self.kill_for(if self.calm { 1_000 } else { length });
    }

    fn kill_for(&mut self, ms: u64) {
        if matches!(self.process, Process::Dead) {
            return;
        }
        let was_paused = matches!(self.process, Process::Paused(_));
        self.say(|| format!("the server is killed for {ms} ms"));
        self.tally.server_kills += 1;
        self.process = Process::Dead;
        drop(self.timeline.asked());
        self.waiting.clear();
        let done = core::mem::take(&mut *crate::executor::lock(&self.done));
        for done in done {
            self.answered(done);
        }
        for host in core::mem::take(&mut self.flights).into_values() {
            self.judge.maybe(host, self.now);
        }
        self.wishes_lost();
        self.read_events();
        if !was_paused {
            self.judge.blindness().begins(self.now, true);
            self.judge.blindness().dies(self.now);
        }
        self.after(ms, Happening::Heal(Heal::ServerStart));
    }

    pub(super) fn strike_server(&mut self, strike: Strike) {
        let weather = &self.machine.weather;
        match strike {
            Strike::ServerKill => {
                if self.dice.one_in(2) {
                    self.kill();
                } else {
                    weather.kill_at_write.store(true, Ordering::Relaxed);
                }
            }
            Strike::ServerPause => {
                let ms = if self.dice.one_in(3) { self.dice.about(20 * MINUTE) } else { self.dice.within(500..90_000) };
                self.pause_server(ms);
            }
            Strike::Cut => {
                if weather.cut.swap(true, Ordering::Relaxed) {
                    return;
                }
                self.tally.uplink_losses += 1;
                let ms =
                    if self.dice.one_in(3) { self.dice.within(3_000..60_000) } else { self.dice.about(15 * MINUTE) };
                self.say(|| format!("the server's uplink is cut for {ms} ms"));
                self.judge.blindness().begins(self.now, true);
                self.after(ms, Happening::Heal(Heal::CutEnd));
            }
            Strike::Overload => {
                if weather.overloaded.swap(true, Ordering::Relaxed) {
                    return;
                }
                self.tally.overloads += 1;
                let ms = self.dice.about(3 * MINUTE);
                self.say(|| format!("the server is overloaded for {ms} ms"));
                self.judge.blindness().begins(self.now, false);
                self.after(ms, Happening::Heal(Heal::OverloadEnd));
            }
            _ => {
                if weather.failing.swap(true, Ordering::Relaxed) {
                    return;
                }
                self.tally.store_failures += 1;
                let ms = self.dice.about(4 * MINUTE);
                self.say(|| format!("the server's store fails for {ms} ms"));
                self.judge.blindness().begins(self.now, false);
                self.after(ms, Happening::Heal(Heal::StoreGood));
            }
        }
    }

    fn pause_server(&mut self, ms: u64) {
        if let Process::Running(server) = core::mem::replace(&mut self.process, Process::Dead) {
            self.say(|| format!("the server is stopped for {ms} ms"));
            self.tally.server_pauses += 1;
            self.process = Process::Paused(server);
            self.judge.blindness().begins(self.now, true);
            self.judge.blindness().dies(self.now);
            self.after(ms, Happening::Heal(Heal::ServerResume));
        }
    }

    pub(super) fn resume_server(&mut self) {
        match core::mem::replace(&mut self.process, Process::Dead) {
            Process::Paused(server) => {
                self.say(|| "the server goes on".to_owned());
                self.process = Process::Running(server);
                self.judge.blindness().lives(self.now);
                self.judge.blindness().ends(self.now, true);
                self.run_server();
                for letter in core::mem::take(&mut self.waiting) {
                    if matches!(self.process, Process::Running(_)) {
                        self.serve(letter);
                    }
                }
            }
            other => self.process = other,
        }
    }

    pub(super) fn calm_server(&mut self) {
        for heal in [Heal::CutEnd, Heal::OverloadEnd, Heal::StoreGood] {
            self.heal(heal);
        }
        self.machine.weather.kill_at_write.store(false, Ordering::Relaxed);
        self.resume_server();
        self.boot_server();
    }

    pub(super) fn back_up(&mut self) {
        self.read_events();
        let backup = Backup { disk: self.machine.disk.snapshot(), rewind: self.judge.remember(), cursor: self.cursor };
        self.backup = Some(backup);
    }

    /// The server is killed, and comes back with a backup.
    pub(super) fn restore(&mut self) {
        let Some(backup) = self.backup.take() else { return };
        if matches!(self.process, Process::Paused(_)) {
            return;
        }
        let ms = self.dice.within(20_000..600_000);
        if matches!(self.process, Process::Dead) {
            return;
        }
        self.kill_for(ms);
        self.say(|| "a backup is restored".to_owned());
        self.tally.restores += 1;
        self.machine.disk.restore(&backup.disk);
        self.cursor = backup.cursor;
        self.judge.restored(backup.rewind, self.now);
        self.epoch += 1;
        let disk = &self.machine.disk;
        let observation = disk.observation().now_or_never().and_then(Result::ok).flatten();
        if let Some(Versioned { mut value, rev }) = observation {
            value.restore(self.epoch - 1);
            self.epoch = value.epoch;
            let stored = disk.observe(Versioned { value, rev }, Vec::new()).now_or_never().and_then(Result::ok);
            assert_eq!(stored, Some(Committed::Done), "nobody else writes while the server is dead");
        }
    }
}
