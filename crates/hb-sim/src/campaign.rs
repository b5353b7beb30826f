//! Many worlds, one seed after the other, on several threads.

use core::num::NonZero;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use crate::report::Outcome;
use crate::world::{Config, run};

/// When to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// When all hosts have lived this many hours together.
    HostHours(u64),
    /// After this many minutes of real time.
    Minutes(u64),
    /// After this many worlds.
    Worlds(u64),
}

/// Many worlds.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// What all of them share.
    pub template: Config,
    /// The first seed.
    pub from: u64,
    /// When to stop.
    pub goal: Goal,
    /// Worlds at the same time.
    pub threads: usize,
}

/// How many worlds can run at the same time on this machine.
#[must_use]
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

impl Campaign {
    /// Runs the worlds, and hands each outcome over as it comes.
    pub fn run(&self, mut each: impl FnMut(&Outcome)) {
        let (next, lived, started) = (AtomicU64::new(0), AtomicU64::new(0), Instant::now());
        let enough = |place: u64| match self.goal {
            Goal::HostHours(hours) => lived.load(Ordering::Relaxed) >= hours,
            Goal::Minutes(minutes) => started.elapsed() >= Duration::from_secs(60 * minutes),
            Goal::Worlds(worlds) => place >= worlds,
        };
        let (sender, outcomes) = mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..self.threads {
                let (sender, next, lived, enough) = (sender.clone(), &next, &lived, &enough);
                scope.spawn(move || {
                    loop {
                        let place = next.fetch_add(1, Ordering::Relaxed);
                        if enough(place) {
                            break;
                        }
                        let outcome = run(&Config { seed: self.from.wrapping_add(place), ..self.template.clone() });
                        lived.fetch_add(outcome.tally.host_hours(), Ordering::Relaxed);
                        if sender.send(outcome).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(sender);
            for outcome in outcomes {
                each(&outcome);
            }
        });
    }
}
