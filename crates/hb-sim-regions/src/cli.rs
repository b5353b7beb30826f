//! The command line.

use core::sync::atomic::{AtomicU64, Ordering};
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use clap::Parser;
use hb_core::mutant::Mutant;

use crate::Outcome;
use crate::judge::Verdict;
use crate::report::{Tally, quantiles};
use crate::world::{Config, FOCUSES, WorldFocus, run as live};

/// Runs simulated worlds of two regions over two replicas of a table, and says what broke.
///
/// Without --seed it runs world after world, each with the next seed; with it, one.
#[derive(Debug, Parser)]
#[command(name = "hb-sim-regions", version)]
struct Args {
    /// Run one world: everything follows from this number
    #[arg(long, value_name = "N", conflicts_with_all = ["from", "worlds", "threads"])]
    seed: Option<u64>,
    /// The first seed of many
    #[arg(long, value_name = "N", default_value_t = 1)]
    from: u64,
    /// How many worlds
    #[arg(long, value_name = "N", default_value_t = 40)]
    worlds: u64,
    /// Worlds at the same time [default: as many as there are cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// What the worlds are about; many take turns unless it is given
    #[arg(long, value_name = "WORD", value_parser = focus)]
    focus: Option<WorldFocus>,
    /// Switch on a deliberate fault, which has to be found
    #[arg(long, value_name = "NAME", value_parser = mutant)]
    mutant: Option<Mutant>,
    /// Tell everything that happens, on stderr
    #[arg(long, requires = "seed")]
    trace: bool,
}

fn focus(word: &str) -> Result<WorldFocus, String> {
    FOCUSES.into_iter().find(|focus| focus.word() == word).ok_or_else(|| {
        let all: Vec<&str> = FOCUSES.into_iter().map(WorldFocus::word).collect();
        format!("there are these: {}", all.join(", "))
    })
}

fn mutant(word: &str) -> Result<Mutant, String> {
    Mutant::from_word(word).ok_or_else(|| "there is no such fault: see hb_core::mutant".to_owned())
}

/// Runs what the command line asks for: 0 if nothing broke, 1 if something did, 2 if the arguments are wrong.
#[must_use]
pub fn run() -> ExitCode {
    let args = Args::parse();
    let template = Config { seed: 0, mutant: args.mutant, verbose: args.trace, focus: args.focus };
    let broken = match args.seed {
        Some(seed) => one(&Config { seed, ..template }),
        None => many(&args, &template),
    };
    if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn one(config: &Config) -> bool {
    let verdict = live(config);
    if let Ok(verdict) = &verdict {
        print(|out| write_tally(out, &verdict.tally));
    }
    print(|out| write_verdict(out, config, &verdict));
    is_broken(&verdict)
}

fn many(args: &Args, template: &Config) -> bool {
    let threads = args.threads.map_or_else(hb_sim::campaign::cores, usize::from);
    let started = Instant::now();
    let mut total = Tally::default();
    let mut broken = 0_u64;
    each(args, template, threads, |config, verdict| {
        if let Ok(verdict) = verdict {
            total.add(&verdict.tally);
        }
        if is_broken(verdict) {
            broken += 1;
            print(|out| write_verdict(out, config, verdict));
        }
    });
    print(|out| {
        write_tally(out, &total)?;
        writeln!(
            out,
            "simulation (two regions): {} host-hours in {} worlds, {} s on {threads} threads; {broken} worlds with violations",
            total.host_ms / 3_600_000,
            args.worlds,
            started.elapsed().as_secs()
        )
    });
    broken > 0
}

/// Runs the worlds, and hands each verdict over as it comes.
fn each(args: &Args, template: &Config, threads: usize, mut take: impl FnMut(&Config, &Outcome<Verdict>)) {
    let next = AtomicU64::new(0);
    let (sender, verdicts) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    if place >= args.worlds {
                        break;
                    }
                    let config = Config { seed: args.from.wrapping_add(place), ..template.clone() };
                    let verdict = live(&config);
                    if sender.send((config, verdict)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for (config, verdict) in verdicts {
            take(&config, &verdict);
        }
    });
}

fn is_broken(verdict: &Outcome<Verdict>) -> bool {
    verdict.as_ref().map_or(true, |verdict| !verdict.violations.is_empty())
}

fn write_tally(out: &mut dyn std::io::Write, tally: &Tally) -> std::io::Result<()> {
    for (label, count) in tally.lines() {
        writeln!(out, "{count:>12} {label}")?;
    }
    for (label, delays) in [("all was well", &tally.delays), ("a region was lost, or cut off", &tally.troubled_delays)]
    {
        let [half, most, longest] = quantiles(delays);
        let count = delays.len();
        writeln!(
            out,
            "deaths told while {label}: {count}; after the host's patience {half} s (median), {most} s (p99), {longest} s (longest)"
        )?;
    }
    Ok(())
}

fn write_verdict(out: &mut dyn std::io::Write, config: &Config, verdict: &Outcome<Verdict>) -> std::io::Result<()> {
    let seed = config.seed;
    match verdict {
        Err(error) => writeln!(out, "seed {seed}: the world broke: {error}"),
        Ok(verdict) if verdict.violations.is_empty() => {
            writeln!(out, "seed {seed} ({}): nothing is broken", verdict.focus)
        }
        Ok(verdict) => {
            for violation in &verdict.violations {
                writeln!(out, "{violation}")?;
            }
            let count = verdict.violations.len();
            let mutant = config.mutant.map(|mutant| format!(" --mutant {}", mutant.word())).unwrap_or_default();
            let focus = config.focus.map(|focus| format!(" --focus {}", focus.word())).unwrap_or_default();
            writeln!(
                out,
                "seed {seed} ({}): {count} violations; again with: hb-sim-regions --seed {seed}{focus}{mutant} --trace",
                verdict.focus
            )
        }
    }
}

/// Writes to stdout; whoever closes it does not want to read on.
fn print(write: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()>) {
    let mut out = std::io::stdout().lock();
    let _ = write(&mut out).and_then(|()| out.flush());
}
