//! The world: one queue of happenings in virtual time, and everything that they happen to.

use core::sync::atomic::Ordering;
use core::task::Waker;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use hb_core::mutant::{self, Mutant};
use hb_store::{EventQuery, Snapshot, Store as _};
use hb_wire::beat::BeatAnswer;
use hb_wire::id::{ChannelId, HostId};
use hb_wire::key::HostKey;
use hb_wire::problem::Problem;

use crate::agenda::Entry;
use crate::computer::Computer;
use crate::courier::SimCourier;
use crate::dice::Dice;
use crate::executor::{Timeline, lock};
use crate::front::Level;
use crate::judge::{Judge, Rewind};
use crate::oracle::Terms;
use crate::report::{Outcome, Tally};
use crate::server::{Machine, Server};

mod birth;
mod evil;
mod faults;
mod hosts;
pub(crate) mod network;
mod operator;
mod process;

use faults::{Heal, Strike};
use network::{Letter, Reply};
use operator::{Act, Wished};

/// Milliseconds of an hour.
pub const HOUR: u64 = 3_600_000;
/// Milliseconds of a minute.
pub const MINUTE: u64 = 60_000;
/// At the end nothing more goes wrong for this long.
const CALM_MS: u64 = HOUR;
/// Every host is looked at this often.
const AUDIT_EVERY_MS: u64 = 5 * MINUTE;
/// A run ends early when this much is broken.
const VIOLATIONS_MAX: usize = 20;

/// Which world.
#[derive(Debug, Clone)]
pub struct Config {
    /// Everything follows from it.
    pub seed: u64,
    /// How much of the server it runs through.
    pub level: Level,
    /// Hosts; 0: as the seed says.
    pub hosts: usize,
    /// Hours of trouble; a calm one follows. 0: as the seed says.
    pub hours: u64,
    /// A deliberate fault.
    pub mutant: Option<Mutant>,
    /// Tell what happens, on stderr.
    pub verbose: bool,
    /// Trouble that is wished for; none: as the seed says.
    pub focus: Option<Focus>,
    /// Operators do several things at once: they edit, pause and resume one host within seconds.
    pub hasty: bool,
}

impl Config {
    /// The world of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, level: Level::Domain, hosts: 0, hours: 0, mutant: None, verbose: false, focus: None, hasty: false }
    }

    /// The command that runs this world again.
    #[must_use]
    pub fn command(&self) -> String {
        use core::fmt::Write as _;
        let mut command = format!("hb-sim --seed {}", self.seed);
        let mut add = |name: &str, value: &dyn core::fmt::Display| {
            let _ = write!(command, " --{name} {value}");
        };
        if self.level == Level::Router {
            add("level", &"router");
        }
        if let Some(focus) = self.focus {
            add("focus", &focus.word());
        }
        if self.hosts > 0 {
            add("hosts", &self.hosts);
        }
        if self.hours > 0 {
            add("hours", &self.hours);
        }
        if let Some(mutant) = self.mutant {
            add("mutant", &mutant.word());
        }
        if self.hasty {
            command.push_str(" --hasty");
        }
        command
    }
}

/// What a world is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Focus {
    /// A bit of everything.
    Everything,
    /// Nearly every store call waits, and beats come just before their deadlines: windows between a read and its write.
    Races,
    /// Sites lose power again and again.
    Masses,
    /// Keys are copied again and again.
    Clones,
    /// A crowd that is enrolled at one instant and never switched on, and a server that nothing happens to.
    Herd,
}

impl Focus {
    /// Its name on the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Everything => "everything",
            Self::Races => "races",
            Self::Masses => "masses",
            Self::Clones => "clones",
            Self::Herd => "herd",
        }
    }
}

enum Happening {
    Wake(Waker),
    Agent { computer: usize, life: u32 },
    Expire { computer: usize, life: u32, attempt: u64 },
    Arrive(Box<Letter>),
    Reply(Box<Reply>),
    Strike(Strike),
    Heal(Heal),
    Audit,
}

/// What the server did with a request.
struct Done {
    flight: u64,
    letter: Box<Letter>,
    started: u64,
    answer: Result<BeatAnswer, Problem>,
}

/// A host of the fleet.
#[derive(Debug)]
pub struct Host {
    /// Its id.
    pub id: HostId,
    /// Its key.
    pub key: HostKey,
    /// Where it stands.
    pub site: usize,
    /// What it asks for.
    pub terms: Terms,
}

struct Backup {
    disk: Snapshot,
    rewind: Rewind,
    cursor: Option<u64>,
}

/// The process under test.
enum Process {
    Dead,
    Running(Box<Server>),
    Paused(Box<Server>),
}

/// A world.
#[expect(missing_debug_implementations, reason = "its executor holds futures; what it has to say is in its report")]
pub struct World {
    config: Config,
    focus: Focus,
    now: u64,
    end: u64,
    calm: bool,
    seq: u64,
    queue: BinaryHeap<Entry<Happening>>,
    timeline: Timeline,
    dice: Dice,
    net: Dice,
    evil: Dice,
    machine: Machine,
    process: Process,
    epoch: u32,
    courier: Arc<SimCourier>,
    channels: Vec<ChannelId>,
    done: Arc<Mutex<Vec<Done>>>,
    wished: Arc<Mutex<Vec<Wished>>>,
    open_wishes: Vec<(usize, Act)>,
    flights: BTreeMap<u64, usize>,
    next_id: u64,
    fast_seen: u64,
    /// Requests that wait in the kernel while the process is paused.
    #[expect(clippy::vec_box, reason = "they arrive and leave in their boxes")]
    waiting: Vec<Box<Letter>>,
    hosts: Vec<Host>,
    computers: Vec<Computer>,
    captured: Vec<Letter>,
    backup: Option<Backup>,
    cursor: Option<u64>,
    judge: Judge,
    tally: Tally,
    trace: u64,
}

/// Runs a world to its end.
#[must_use]
pub fn run(config: &Config) -> Outcome {
    mutant::with(config.mutant, || {
        let mut world = World::new(config.clone());
        world.live();
        world.finish()
    })
}

impl World {
    fn at(&mut self, at: u64, what: Happening) {
        self.seq += 1;
        self.queue.push(Entry { at: at.max(self.now), seq: self.seq, what });
    }

    fn after(&mut self, ms: u64, what: Happening) {
        self.at(self.now.saturating_add(ms), what);
    }

    fn say(&self, text: impl FnOnce() -> String) {
        if self.config.verbose {
            crate::report::say(self.now, &text());
        }
    }

    /// Every step of every run of this seed is the same: this number says so.
    fn mark(&mut self, what: u64) {
        for part in [self.now, what] {
            self.trace = (self.trace ^ part).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        }
    }

    fn live(&mut self) {
        while let Some(entry) = self.queue.pop() {
            if entry.at > self.end || self.judge.violations.len() >= VIOLATIONS_MAX {
                break;
            }
            if entry.at != self.now {
                self.now = entry.at;
                self.timeline.set(self.now);
            }
            if !self.calm && self.now + CALM_MS >= self.end {
                self.begin_calm();
            }
            self.happen(entry.what);
        }
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Wake(waker) => {
                waker.wake();
                self.run_server();
            }
            Happening::Agent { computer, life } => {
                if self.computers[computer].life == life {
                    self.act(computer);
                }
            }
            Happening::Expire { computer, life, attempt } => self.expire(computer, life, attempt),
            Happening::Arrive(letter) => self.arrive(letter),
            Happening::Reply(reply) => self.hear(&reply),
            Happening::Strike(strike) => self.strike(strike),
            Happening::Heal(heal) => self.heal(heal),
            Happening::Audit => {
                self.audit();
                self.after(AUDIT_EVERY_MS, Happening::Audit);
            }
        }
    }

    /// Lets the server do what it can do now, and looks at what came of it.
    fn run_server(&mut self) {
        let Process::Running(server) = &mut self.process else { return };
        server.executor.run();
        for (at, waker) in self.timeline.asked() {
            self.at(at, Happening::Wake(waker));
        }
        let done = core::mem::take(&mut *lock(&self.done));
        let only_fast = self.count_fast() == done.len() as u64;
        if !only_fast || done.is_empty() {
            self.read_events();
        }
        for done in done {
            self.answered(done);
        }
        self.settle_wishes();
        if self.machine.weather.killed.load(Ordering::Relaxed) {
            self.tally.kills_in_write += 1;
            self.kill();
        }
    }

    /// Beats that were stored on the fast path since the last time: no event can have come of them.
    fn count_fast(&mut self) -> u64 {
        let Process::Running(server) = &self.process else { return 0 };
        let now = server.app.metrics.beats_fast.get();
        now - core::mem::replace(&mut self.fast_seen, now)
    }

    /// Takes notice of every event that was committed, in its order.
    fn read_events(&mut self) {
        loop {
            let query = EventQuery { ascending: true, after: self.cursor, limit: 1_000, ..EventQuery::default() };
            let events = self.machine.disk.events(&query).now_or_never().and_then(Result::ok).unwrap_or_default();
            let Some(last) = events.last() else { break };
            self.cursor = Some(last.position);
            for event in events {
                self.mark(event.value.id.0.as_u64_pair().1);
                self.say(|| describe(&event.value));
                self.judge.event(&event.value, self.now, &self.computers, &mut self.tally);
            }
        }
        for receipt in self.courier.receipts() {
            self.mark(receipt.key.0.as_u64_pair().1);
            self.tally.receipts += 1;
            self.say(|| {
                format!("message {} {} host {:?} to {}", receipt.kind, receipt.event, receipt.host, receipt.channel)
            });
            self.judge.receipt(&receipt, &mut self.tally);
        }
    }

    /// Compares every row with what its events told.
    fn audit(&mut self) {
        self.read_events();
        let disk = &self.machine.disk;
        let word = |host: &Host| {
            let row = disk.host(host.id).now_or_never().and_then(Result::ok).flatten();
            row.map_or("gone", |row| row.value.state.word())
        };
        let words: Vec<&'static str> = self.hosts.iter().map(word).collect();
        self.judge.audit(self.now, &words, &self.computers);
    }

    fn finish(mut self) -> Outcome {
        self.read_events();
        self.audit();
        if self.judge.violations.len() < VIOLATIONS_MAX {
            self.judge.end(self.now, &self.computers);
        }
        let lived = self.now;
        self.tally.host_ms = lived * self.hosts.len() as u64;
        self.tally.store_faults = self.machine.weather.faults.load(Ordering::Relaxed);
        Outcome { seed: self.config.seed, violations: self.judge.violations, tally: self.tally, trace: self.trace }
    }
}

fn describe(event: &hb_core::event::Event) -> String {
    let who = event.subject.as_ref().map_or_else(|| "-".to_owned(), |subject| subject.name.to_string());
    let cause = event.cause.map_or("", hb_core::event::Cause::word);
    format!(
        "event {} {who} {cause} incident {:?} audience {:?} members {}",
        event.kind,
        event.incident,
        event.audience,
        event.members.len()
    )
}
