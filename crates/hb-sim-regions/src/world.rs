//! The world: one queue of happenings in virtual time, two regions, and hosts that beat to them.
//!
//! What happens, happens at one instant of virtual time, one after the other; between two happenings anything may be
//! replicated, or not.

mod agents;
mod birth;
mod trouble;

use std::collections::BinaryHeap;

use hb_core::mutant::{self, Mutant};
use hb_sim::agenda::Entry;
use hb_sim::computer::Computer;
use hb_sim::dice::Dice;
use hb_wire::key::HostKey;

use crate::Outcome;
use crate::judge::{Judge, Verdict};
use crate::post::{Mailbox, SimClock};
use crate::region::Region;
use crate::replica::Replication;
use crate::table::Tables;
use agents::{Letter, Reply};
use trouble::{Focus, Strike};

pub use trouble::FOCUSES;

/// Milliseconds of a minute.
pub const MINUTE: u64 = 60_000;
/// Nothing goes wrong before this.
const TROUBLE_FROM_MS: u64 = 10 * MINUTE;
/// Nor after this: then everything heals.
const CALM_FROM_MS: u64 = 60 * MINUTE;
/// The end.
const END_MS: u64 = 95 * MINUTE;
/// The stream's event source is as late as this, at most.
const STREAM_MS_MAX: u64 = 1_000;

/// Which world.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Everything follows from it.
    pub seed: u64,
    /// A deliberate fault.
    pub mutant: Option<Mutant>,
    /// Tell what happens, on stderr.
    pub verbose: bool,
    /// What it is about; none: as the seed says.
    pub focus: Option<Focus>,
}

pub use trouble::Focus as WorldFocus;

enum Happening {
    Agent { place: usize, life: u32 },
    Expire { place: usize, life: u32, attempt: u64 },
    Arrive(Box<Letter>),
    Reply(Box<Reply>),
    Minute(usize),
    Replicate(usize),
    Stream(usize),
    Strike(Strike),
    Calm,
}

/// A host of the fleet.
struct Host {
    key: HostKey,
    computer: Computer,
    /// Whether its way to each of the regions is open.
    paths: [bool; 2],
    interval_s: u64,
}

/// A world.
#[expect(missing_debug_implementations, reason = "what it has to say is in its verdict")]
pub struct World {
    config: Config,
    focus: Focus,
    now: u64,
    seq: u64,
    queue: BinaryHeap<Entry<Happening>>,
    clock: SimClock,
    mailbox: Mailbox,
    tables: Tables,
    replication: Replication,
    /// For which instant the next replication is planned.
    planned: [Option<u64>; 2],
    regions: [Region; 2],
    hosts: Vec<Host>,
    dice: Dice,
    net: Dice,
    is_calm: bool,
    is_link_cut: bool,
    is_http_cut: bool,
    judge: Judge,
}

/// Runs a world to its end.
///
/// # Errors
/// When the world itself breaks: DynamoDB ends, say.
pub fn run(config: &Config) -> Outcome<Verdict> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    mutant::with(config.mutant, || {
        runtime.block_on(async {
            let mut world = Box::pin(World::new(config.clone())).await?;
            world.live().await?;
            Ok(world.finish())
        })
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
            hb_sim::report::say(self.now, &text());
        }
    }

    async fn live(&mut self) -> Outcome<()> {
        while let Some(entry) = self.queue.pop() {
            if entry.at > END_MS {
                break;
            }
            self.now = entry.at;
            self.clock.set(self.now);
            self.happen(entry.what).await?;
        }
        self.now = END_MS;
        Ok(())
    }

    async fn happen(&mut self, what: Happening) -> Outcome<()> {
        match what {
            Happening::Agent { place, life } => {
                if self.hosts[place].computer.life == life {
                    self.act(place);
                }
            }
            Happening::Expire { place, life, attempt } => self.expire(place, life, attempt),
            Happening::Arrive(letter) => self.arrive(*letter).await?,
            Happening::Reply(reply) => self.hear(&reply),
            Happening::Minute(region) => self.minute(region).await?,
            Happening::Replicate(to) => self.replicate(to)?,
            Happening::Stream(region) => self.stream(region).await?,
            Happening::Strike(strike) => self.strike(strike),
            Happening::Calm => self.calm(),
        }
        Ok(())
    }

    async fn minute(&mut self, place: usize) -> Outcome<()> {
        // The platform's schedule is a little late, each time anew.
        let late = self.net.within(0..1_500);
        self.at((self.now / MINUTE + 1) * MINUTE + 7_000 * place as u64 + late, Happening::Minute(place));
        if !self.regions[place].is_alive {
            return Ok(());
        }
        match self.regions[place].minute().await {
            Ok(()) => self.judge.swept(place, self.now),
            Err(error) => {
                self.judge.tally.failures += 1;
                self.say(|| format!("region {place}: a run of the schedule failed: {error}"));
            }
        }
        self.after_work(place)
    }

    /// What a region's functions did is found in its stream, and in the mailbox.
    fn after_work(&mut self, place: usize) -> Outcome<()> {
        let records = self.replication.collect(&mut self.tables, place, self.now)?;
        self.judge.tally.writes += records.len() as u64;
        self.wake(place, records);
        self.plan(1 - place);
        for receipt in self.mailbox.empty() {
            self.say(|| {
                let what = self.judge.describe(&receipt);
                format!("message from region {}: {} {what}", receipt.region, receipt.kind)
            });
            self.judge.receipt(receipt);
        }
        Ok(())
    }

    /// Has the notifier given what of these records concerns it.
    fn wake(&mut self, place: usize, records: Vec<serde_json::Value>) {
        for due in self.regions[place].note(records, self.now) {
            let late = self.net.within(50..STREAM_MS_MAX);
            self.at(due + late, Happening::Stream(place));
        }
    }

    async fn stream(&mut self, place: usize) -> Outcome<()> {
        // A lost region's stream is read when it is back.
        if !self.regions[place].is_alive {
            return Ok(());
        }
        if let Err(error) = self.regions[place].read_stream(self.now).await {
            self.judge.tally.failures += 1;
            self.say(|| format!("region {place}: the notifier failed: {error}"));
        }
        self.after_work(place)?;
        if self.regions[place].has_backlog(self.now) {
            self.judge.tally.failures += 1;
            self.after(2_000, Happening::Stream(place));
        }
        Ok(())
    }

    fn plan(&mut self, to: usize) {
        let Some(due) = self.replication.due(to) else { return };
        if self.planned[to].is_none_or(|planned| due < planned) {
            self.planned[to] = Some(due);
            self.at(due, Happening::Replicate(to));
        }
    }

    fn replicate(&mut self, to: usize) -> Outcome<()> {
        if self.planned[to].is_some_and(|planned| planned <= self.now) {
            self.planned[to] = None;
        }
        let records = self.replication.apply(&mut self.tables, to, self.now)?;
        self.wake(to, records);
        self.plan(to);
        Ok(())
    }

    fn finish(mut self) -> Verdict {
        self.replication.finish(self.now);
        let Self { replication, judge, config, focus, now, .. } = self;
        judge.decide(config.seed, focus.word(), now, &replication)
    }
}
