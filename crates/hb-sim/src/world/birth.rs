//! How a world begins.

use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use futures_util::FutureExt as _;
use hb_core::access::Channel;
use hb_core::host::Wish;
use hb_core::ledger::Ledger;
use hb_core::machine::{self, Moment};
use hb_core::policy::Policy;
use hb_core::time::Time;
use hb_store::{Credential, Store as _};
use hb_wire::id::{ChannelId, HostId};
use hb_wire::key::HostKey;
use hb_wire::name::{HostName, Tags};
use hb_wire::nonce::Nonce;
use hb_wire::view::Class;

use super::{Config, Focus, HOUR, Happening, Host, MINUTE, Process, World};
use crate::computer::Computer;
use crate::courier::SimCourier;
use crate::dice::Dice;
use crate::executor::Timeline;
use crate::front::Level;
use crate::judge::Judge;
use crate::oracle::Terms;
use crate::report::Tally;
use crate::server::{EPOCH_MS, Machine};

/// Interval and grace that hosts ask for, in seconds; the first is what most ask for.
const TERMS: [(u64, u64); 8] =
    [(60, 120), (60, 60), (60, 30), (15, 30), (120, 240), (300, 600), (300, 600), (600, 1_200)];

impl World {
    pub(super) fn new(mut config: Config) -> Self {
        let mut dice = Dice::new(config.seed);
        // Most worlds have a bit of everything.
        let focuses = [Focus::Everything, Focus::Everything, Focus::Races, Focus::Masses, Focus::Clones];
        let rolled = *dice.pick(&focuses).unwrap_or(&Focus::Everything);
        let focus = config.focus.unwrap_or(rolled);
        let (hosts, hours) = match (focus, config.level) {
            (Focus::Herd, _) => (2_500, 1),
            (_, Level::Domain) => ([24, 60, 150, 250][dice.within(0..4) as usize], dice.within(12..36)),
            (_, Level::Router) => ([6, 12, 20][dice.within(0..3) as usize], dice.within(6..18)),
        };
        config.hosts = if config.hosts == 0 { hosts } else { config.hosts };
        config.hours = if config.hours == 0 { hours } else { config.hours };
        let timeline = Timeline::default();
        let mut machine = Machine::new(timeline.clone(), dice.fork(), config.level);
        let widen = if focus == Focus::Herd {
            0
        } else if focus == Focus::Races {
            2
        } else {
            *dice.pick(&[0, 0, 40, 8]).unwrap_or(&0)
        };
        machine.weather.widen_one_in.store(widen, core::sync::atomic::Ordering::Relaxed);
        machine.sweep_every_ms =
            if focus == Focus::Herd { 1_000 } else { *dice.pick(&[1_000, 5_000, 5_000]).unwrap_or(&1_000) };
        machine.sweepers = if focus != Focus::Herd && dice.one_in(3) { dice.within(2..5) as usize } else { 1 };
        machine.refuse_nonces_percent = if dice.one_in(3) { 5 } else { 0 };
        let courier = Arc::new(SimCourier::new(timeline.clone(), Arc::clone(&machine.weather), dice.fork()));
        let mut world = Self {
            now: 0,
            end: (config.hours + 1) * HOUR,
            calm: false,
            seq: 0,
            queue: BinaryHeap::new(),
            net: dice.fork(),
            evil: dice.fork(),
            process: Process::Dead,
            epoch: 0,
            courier,
            channels: Vec::new(),
            done: Arc::default(),
            wished: Arc::default(),
            open_wishes: Vec::new(),
            flights: BTreeMap::new(),
            next_id: 0,
            fast_seen: 0,
            waiting: Vec::new(),
            hosts: Vec::new(),
            computers: Vec::new(),
            captured: Vec::new(),
            backup: None,
            cursor: None,
            judge: Judge::new(widen > 0, machine.sweep_every_ms),
            tally: Tally::default(),
            trace: 0xcbf2_9ce4_8422_2325,
            timeline,
            machine,
            dice,
            focus,
            config,
        };
        world.open_channels();
        world.enrol();
        world.start();
        world
    }

    fn open_channels(&mut self) {
        for n in 0..2_u64 {
            let id = ChannelId::mint(EPOCH_MS, self.dice.bytes());
            let channel = Channel {
                id,
                name: format!("channel-{n}"),
                kind: "sim".to_owned(),
                settings: serde_json::Value::Null,
                target: String::new(),
                admin: n == 0,
                created_at: Time(EPOCH_MS),
                last_delivered_at: None,
                last_error: None,
            };
            let _ = self.machine.disk.add_channel(&channel).now_or_never();
            self.channels.push(id);
            self.judge.channel(id, n == 0);
        }
    }

    fn terms(&mut self, n: usize) -> Terms {
        let (interval, grace) = match self.focus {
            Focus::Everything if !n.is_multiple_of(3) => *self.dice.pick(&TERMS).unwrap_or(&TERMS[0]),
            Focus::Everything | Focus::Races | Focus::Masses | Focus::Clones | Focus::Herd => TERMS[0],
        };
        let (class, max_away) = match (self.focus, self.dice.within(0..40)) {
            (Focus::Everything, 0) => (Class::Intermittent, None),
            (Focus::Everything, 1) => (Class::Intermittent, Some(2 * HOUR)),
            (Focus::Everything, 2) => (Class::Ephemeral, None),
            _ => (Class::Server, None),
        };
        Terms { interval: interval * 1000, grace: grace * 1000, class, max_away }
    }

    fn enrol(&mut self) {
        let sites = (self.config.hosts / 8).max(1);
        for n in 0..self.config.hosts {
            let terms = self.terms(n);
            let key = HostKey::from_seed(self.dice.bytes());
            let id = HostId::mint(EPOCH_MS, self.dice.bytes());
            let nonce = Nonce(self.dice.bytes());
            let site = n % sites;
            let tags = BTreeMap::from([("site".to_owned(), format!("s{site}"))]);
            let wish = Wish {
                name: HostName::parse(&format!("h{n}")).expect("h and digits are a name"),
                tags: Tags::parse(tags).expect("short words are tags"),
                class: terms.class,
                interval_s: terms.interval / 1000,
                grace_s: terms.grace / 1000,
                max_away_s: terms.max_away.map(|ms| ms / 1000),
            };
            let host = wish.enrol(id, key.public(), nonce, Time(EPOCH_MS));
            let ledger = Ledger::default();
            let moment = Moment { now: Time(EPOCH_MS), ledger: &ledger, policy: &Policy::STANDARD, fresh: nonce };
            let event = machine::registered(&host, &moment);
            let _ = self.machine.disk.enrol(&host, &event, &Credential::Trusted, Time(EPOCH_MS)).now_or_never();
            self.judge.enrolled(id, site, terms, self.now, self.computers.len());
            self.hosts.push(Host { id, key, site, terms });
            let mut computer = Computer::new(n, id, nonce, terms.interval / 1000, &mut self.dice);
            // Clocks are wrong by a few seconds, some by years; they must not matter.
            computer.clock_off = match self.dice.within(0..10) {
                0 => -1_700_000_000_000,
                1 => 400_000_000_000,
                2 => 7_200_000,
                _ => i64::try_from(self.dice.within(0..4_000)).unwrap_or(0) - 2_000,
            };
            self.computers.push(computer);
        }
    }

    fn start(&mut self) {
        self.boot_server();
        for n in 0..self.computers.len() {
            // Some hosts are never switched on: enrolled, never seen.
            if self.focus != Focus::Herd && (self.config.hosts < 10 || !self.dice.one_in(50)) {
                let delay = self.dice.within(0..20_000);
                self.boot_after(n, delay);
            }
        }
        if self.focus != Focus::Herd {
            self.plan_strikes();
        }
        self.after(MINUTE, Happening::Audit);
    }
}
