//! Replication between the two tables, as DynamoDB's global tables do it: each item by itself, some time later, in any order,
//! and the last writer wins.
//!
//! A write is stamped when it is found in the stream of the table that it was made in. It is applied to the other table only
//! if that has nothing newer of the item; what is applied so is in that table's stream as well, but is not sent back.

use std::collections::{BTreeMap, HashMap};

use hb_sim::dice::Dice;
use serde_json::{Value, json};

use crate::Outcome;
use crate::table::{TABLES, Tables};

/// When an item was written: virtual milliseconds, and a count that tells apart what was written at one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// Virtual time.
    pub at: u64,
    seq: u64,
}

/// Which item.
pub type Key = (String, String);

/// How long a write takes to the other region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Mostly below a second, now and then a few.
    Brisk,
    /// Up to half a minute.
    Sluggish,
    /// One item in four takes up to ten minutes.
    Crawling,
}

#[derive(Debug)]
struct Change {
    stamp: Stamp,
    key: Key,
    /// None: it was removed.
    image: Option<Value>,
}

/// The way to one of the tables.
#[derive(Debug, Default)]
struct Lane {
    waiting: BTreeMap<(u64, u64), Change>,
    /// Cut: nothing moves.
    is_cut: bool,
}

/// What was applied late, or has not been applied: the time in which a table was behind about an item.
#[derive(Debug, Clone)]
pub struct Late {
    /// The item.
    pub key: Key,
    /// Which table was behind.
    pub to: usize,
    /// From when on.
    pub from: u64,
    /// Until when.
    pub until: u64,
}

/// Spans shorter than this are not remembered.
pub const LATE_MS_MIN: u64 = 20_000;

/// Both directions.
#[derive(Debug)]
pub struct Replication {
    newest: [HashMap<Key, Stamp>; 2],
    lanes: [Lane; 2],
    seq: u64,
    dice: Dice,
    /// How fast it is at present.
    pub pace: Pace,
    /// Where it was slow.
    pub late: Vec<Late>,
    /// Changes that were applied, that came too late to be, and the longest that one took.
    pub applied: u64,
    /// Older than what was there.
    pub overtaken: u64,
    /// The longest that an applied one took.
    pub longest_ms: u64,
}

impl Replication {
    /// At its usual pace.
    #[must_use]
    pub fn new(dice: Dice) -> Self {
        Self {
            newest: Default::default(),
            lanes: Default::default(),
            seq: 0,
            dice,
            pace: Pace::Brisk,
            late: Vec::new(),
            applied: 0,
            overtaken: 0,
            longest_ms: 0,
        }
    }

    fn lag_ms(&mut self) -> u64 {
        match self.pace {
            Pace::Brisk if self.dice.one_in(40) => self.dice.within(1_000..8_000),
            Pace::Brisk => self.dice.within(100..900),
            Pace::Sluggish => self.dice.within(500..30_000),
            Pace::Crawling if self.dice.one_in(4) => self.dice.within(30_000..600_000),
            Pace::Crawling => self.dice.within(200..5_000),
        }
    }

    /// Takes what was written in a region, and gives it back for those who read its stream.
    ///
    /// # Errors
    /// When the stream cannot be read.
    pub fn collect(&mut self, tables: &mut Tables, from: usize, now: u64) -> Outcome<Vec<Value>> {
        let records = tables.fresh(TABLES[from])?;
        for record in &records {
            let key = key_of(record).ok_or("a record of the stream has no key")?;
            self.seq += 1;
            let stamp = Stamp { at: now, seq: self.seq };
            self.newest[from].insert(key.clone(), stamp);
            let due = now + self.lag_ms();
            let image = record["dynamodb"].get("NewImage").cloned();
            self.lanes[1 - from].waiting.insert((due, self.seq), Change { stamp, key, image });
        }
        Ok(records)
    }

    /// When the next change is due in a region.
    #[must_use]
    pub fn due(&self, to: usize) -> Option<u64> {
        let lane = self.lanes.get(to)?;
        if lane.is_cut { None } else { lane.waiting.keys().next().map(|(due, _)| *due) }
    }

    /// Applies what is due in a region, and gives what its stream shows of that.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn apply(&mut self, tables: &mut Tables, to: usize, now: u64) -> Outcome<Vec<Value>> {
        let mut writes = Vec::new();
        while self.due(to).is_some_and(|due| due <= now) {
            let Some((_, change)) = self.lanes[to].waiting.pop_first() else { break };
            if now.saturating_sub(change.stamp.at) >= LATE_MS_MIN {
                self.late.push(Late { key: change.key.clone(), to, from: change.stamp.at, until: now });
            }
            if self.newest[to].get(&change.key).is_some_and(|newest| *newest > change.stamp) {
                self.overtaken += 1;
                continue;
            }
            self.applied += 1;
            self.longest_ms = self.longest_ms.max(now.saturating_sub(change.stamp.at));
            self.newest[to].insert(change.key.clone(), change.stamp);
            let (p, s) = change.key;
            writes.push(match change.image {
                Some(image) => json!({"PutRequest": {"Item": image}}),
                None => json!({"DeleteRequest": {"Key": {"p": {"S": p}, "s": {"S": s}}}}),
            });
        }
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        tables.write(TABLES[to], &writes)?;
        tables.fresh(TABLES[to])
    }

    /// Nothing gets to a region any more.
    pub fn cut(&mut self, to: usize) {
        self.lanes[to].is_cut = true;
    }

    /// It goes on, with what was held up within a minute.
    pub fn heal(&mut self, to: usize, now: u64) {
        let lane = &mut self.lanes[to];
        lane.is_cut = false;
        let held = core::mem::take(&mut lane.waiting);
        for ((due, seq), change) in held {
            let due = if due <= now { now + self.dice.within(200..60_000) } else { due };
            self.lanes[to].waiting.insert((due, seq), change);
        }
    }

    /// True while nothing gets to a region.
    #[must_use]
    pub fn is_cut(&self, to: usize) -> bool {
        self.lanes[to].is_cut
    }

    /// Closes the book: what still waits has been late until now.
    pub fn finish(&mut self, now: u64) {
        for (to, lane) in self.lanes.iter().enumerate() {
            for change in lane.waiting.values() {
                self.late.push(Late { key: change.key.clone(), to, from: change.stamp.at, until: now });
            }
        }
    }
}

/// Which item a record of the stream is about.
#[must_use]
pub fn key_of(record: &Value) -> Option<Key> {
    let keys = &record["dynamodb"]["Keys"];
    Some((keys["p"]["S"].as_str()?.to_owned(), keys["s"]["S"].as_str()?.to_owned()))
}
