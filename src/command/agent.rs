//! `hb agent`: the daemon.

use std::io;
use std::path::Path;

use hb_wire::duration::format_seconds;

use crate::account;
use crate::agent::beater::Beater;
use crate::agent::cadence::Cadence;
use crate::agent::clock;
use crate::agent::door::Door;
use crate::agent::log::{Level, Log};
use crate::agent::{Agent, Setup};
use crate::context::Ctx;
use crate::error::{Failure, Outcome};
use crate::identity::Identity;
use crate::journal::Keeper;
use crate::output::Volume;
use crate::{exit, host, systemd};

/// The daemon has no arguments: it is configured by `agent.toml` and the environment.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Runs in the foreground until SIGTERM, then says goodbye to the server. Configured by /etc/hb/agent.toml
and HB_… variables. As root it becomes the account _hb, where there is one.

Examples:
  systemctl enable --now hb         the usual way
  hb agent                          by hand
  HB_STATE_DIR=~/hb hb agent        without root, with a folder of its own")]
pub struct Args {}

/// Beats until a signal.
pub fn run(ctx: &Ctx, _args: &Args) -> Outcome {
    let (place, config) = host::setting(ctx)?;
    // What is typed goes before what is configured.
    let level = match ctx.printer.volume() {
        Volume::Quiet => Some("warn"),
        Volume::Normal => config.log.as_deref(),
        Volume::Verbose => Some("debug"),
    };
    let log = Log::new(level, ctx.env.journal_stream.is_some());
    let identity = Identity::load(&place)?;
    if let Some(account) = account::to_become(&place) {
        account::become_it(account, &place)?;
    }
    let state = place.state;
    let state_dir = state.path().display().to_string();
    if let Err(error) = state.create() {
        log.say(Level::Error, &format!("the state directory {state_dir} cannot be made: {error}; beating without it"));
    }
    let Some(_lock) = state.lock() else {
        return Err(Failure::failed(format!("another hb beats for this host already (it holds {state_dir}/lock)"))
            .hint("systemctl status hb"));
    };
    let (name, id, interval_s) = (identity.enrolled.name.clone(), identity.enrolled.id, identity.enrolled.interval_s);
    let options = host::options(&config, &identity.enrolled);
    let (beater, damage) = Beater::new(identity, options, &state, Keeper::Daemon)?;
    if let Some(damage) = damage {
        let what = format!("the journal in {state_dir} cannot be used: {damage}; starting a new one");
        log.say(Level::Warn, &what);
    }
    let place = beater.post().urls().first().map_or_else(String::new, |url| url.origin().ascii_serialization());
    let every = format_seconds(interval_s);
    let endpoints = beater.post().urls().len();
    let jobs = ctx.env.runtime_directory.as_deref().map(|dir| Path::new(dir).join("jobs"));
    let running = async move {
        let cadence = Cadence::new(id, interval_s, endpoints, clock::now().boottime_ms);
        let door = Door::open(&state)
            .inspect_err(|error| {
                let what =
                    format!("no door in {state_dir}: {error}; hb maint and hb identity rotate cannot reach the agent");
                log.say(Level::Warn, &what);
            })
            .ok();
        let setup = Setup { timeout_max: config.timeout, state_dir, jobs, door, log };
        let agent = Agent::new(beater, cadence, setup)?;
        let line = format!("beating for {name} ({id}) to {place} every {every}");
        log.say(Level::Info, &line);
        systemd::ready(&line);
        agent.run().await
    };
    // As a task: waking the future that a runtime blocks on takes a detour through the kernel each time.
    let outcome = host::runtime()?.block_on(async { tokio::spawn(running).await.map_err(io::Error::other)? });
    outcome.map_err(|error| Failure::failed(format!("the agent cannot go on: {error}")))?;
    Ok(exit::OK)
}
