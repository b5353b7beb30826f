//! The command line.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use hb_core::mutant::Mutant;

use crate::campaign::{self, Campaign, Goal};
use crate::front::Level;
use crate::report::{Outcome, Tally};
use crate::world::{Config, Focus, run as live};

/// Runs simulated worlds of hosts, networks, servers and channels against the real code of hb, and says what broke.
///
/// Without --seed it runs world after world, each with the next seed; with it, one.
#[derive(Debug, Parser)]
#[command(name = "hb-sim", version)]
struct Args {
    /// Run one world: everything follows from this number
    #[arg(long, value_name = "N", conflicts_with_all = ["from", "host_hours", "minutes", "threads"])]
    seed: Option<u64>,
    /// The first seed of many
    #[arg(long, value_name = "N", default_value_t = 1)]
    from: u64,
    /// Run worlds until their hosts have lived this many hours together
    #[arg(long, value_name = "HOURS", conflicts_with = "minutes")]
    host_hours: Option<u64>,
    /// Run worlds for this many minutes [default: 1]
    #[arg(long, value_name = "MINUTES")]
    minutes: Option<u64>,
    /// Worlds at the same time [default: as many as there are cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// How much of the server the worlds run through
    #[arg(long, value_enum, default_value_t = LevelArg::Domain)]
    level: LevelArg,
    /// Trouble that is wished for; many worlds take turns unless it is given [default: everything]
    #[arg(long, value_enum)]
    focus: Option<FocusArg>,
    /// Hosts of a world [default: as the seed says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    hosts: Option<u32>,
    /// Hours of trouble in a world, before a calm one [default: as the seed says]
    #[arg(long, value_name = "HOURS", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    hours: Option<u32>,
    /// Switch on a deliberate fault, which has to be found
    #[arg(long, value_name = "NAME", value_parser = mutant)]
    mutant: Option<Mutant>,
    /// Operators do several things at once: they edit, pause and resume one host within seconds
    #[arg(long)]
    hasty: bool,
    /// Tell everything that happens, on stderr
    #[arg(long, requires = "seed")]
    trace: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LevelArg {
    /// Everything behind the check of the signature
    Domain,
    /// Signed requests through the HTTP router
    Router,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FocusArg {
    Everything,
    Races,
    Masses,
    Clones,
    Herd,
}

impl From<FocusArg> for Focus {
    fn from(arg: FocusArg) -> Self {
        match arg {
            FocusArg::Everything => Self::Everything,
            FocusArg::Races => Self::Races,
            FocusArg::Masses => Self::Masses,
            FocusArg::Clones => Self::Clones,
            FocusArg::Herd => Self::Herd,
        }
    }
}

fn mutant(word: &str) -> Result<Mutant, String> {
    Mutant::from_word(word).ok_or_else(|| {
        let all: Vec<&str> = Mutant::ALL.into_iter().map(Mutant::word).collect();
        format!("there are these: {}", all.join(", "))
    })
}

/// Runs what the command line asks for: 0 if nothing broke, 1 if something did, 2 if the arguments are wrong.
#[must_use]
pub fn run() -> ExitCode {
    let args = Args::parse();
    let level = match args.level {
        LevelArg::Domain => Level::Domain,
        LevelArg::Router => Level::Router,
    };
    let template = Config {
        level,
        hosts: args.hosts.map_or(0, |hosts| usize::try_from(hosts).unwrap_or(usize::MAX)),
        hours: args.hours.map_or(0, u64::from),
        mutant: args.mutant,
        verbose: args.trace,
        focus: args.focus.map(Focus::from),
        hasty: args.hasty,
        ..Config::new(0)
    };
    let broken = match args.seed {
        Some(seed) => one(&Config { seed, ..template }),
        None => many(&args, &template),
    };
    if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn one(config: &Config) -> bool {
    let outcome = live(config);
    print(|out| {
        for (label, count) in outcome.tally.lines() {
            writeln!(out, "{count:>12} {label}")?;
        }
        writeln!(
            out,
            "seed {}: trace {:016x}, {} host-hours",
            outcome.seed,
            outcome.trace,
            outcome.tally.host_hours()
        )?;
        write_verdict(out, &outcome, config)
    });
    !outcome.violations.is_empty()
}

fn many(args: &Args, template: &Config) -> bool {
    let goal = match (args.host_hours, args.minutes) {
        (Some(hours), _) => Goal::HostHours(hours),
        (None, minutes) => Goal::Minutes(minutes.unwrap_or(1)),
    };
    let threads = args.threads.map_or_else(campaign::cores, usize::from);
    let started = Instant::now();
    let mut total = Tally::default();
    let (mut worlds, mut broken) = (0_u64, 0_u64);
    Campaign { template: template.clone(), from: args.from, goal, threads }.run(|outcome| {
        worlds += 1;
        total.add(&outcome.tally);
        if !outcome.violations.is_empty() {
            broken += 1;
            print(|out| write_verdict(out, outcome, template));
        }
    });
    let seconds = started.elapsed().as_secs_f64();
    print(|out| {
        for (label, count) in total.lines() {
            writeln!(out, "{count:>12} {label}")?;
        }
        let hours = total.host_hours();
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let rate = hours as f64 / seconds;
        writeln!(
            out,
            "simulation ({}): {hours} host-hours in {worlds} worlds, {seconds:.0} s on {threads} threads: \
            {rate:.0} host-hours per second; {broken} worlds with violations",
            word(template.level)
        )
    });
    broken > 0
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Domain => "state machine",
        Level::Router => "signed router",
    }
}

fn write_verdict(out: &mut dyn std::io::Write, outcome: &Outcome, config: &Config) -> std::io::Result<()> {
    for violation in &outcome.violations {
        writeln!(out, "{violation}")?;
    }
    if outcome.violations.is_empty() {
        return writeln!(out, "seed {}: nothing is broken", outcome.seed);
    }
    let replay = Config { seed: outcome.seed, ..config.clone() }.command();
    writeln!(out, "seed {}: {} violations; again with: {replay} --trace", outcome.seed, outcome.violations.len())
}

/// Writes to stdout; whoever closes it does not want to read on.
fn print(write: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()>) {
    let mut out = std::io::stdout().lock();
    let _ = write(&mut out).and_then(|()| out.flush());
}
