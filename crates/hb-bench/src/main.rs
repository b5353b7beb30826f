//! Measures hb. Every figure is a ratio within one run, or stands beside what it is compared with: the machine is shared.
//!
//! `hb-bench server` runs hb-server and the bare limit of its parts (axum, verification, SQLite group commit) in turns;
//! `hb-bench memory` enrols many hosts and looks at the server's memory; `hb-bench detect` lets hosts die and times the
//! alerts; `hb-bench agent` runs the agent over TLS beside the bare limit of its libraries and curl.

mod agent;
mod bare;
mod bare_agent;
mod beside;
mod detect;
mod fleet;
mod measure;
mod relay;
mod server;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "hb-bench", about = "Measures hb on this machine", version)]
struct Cli {
    /// Where the release binaries of hb and hb-server are.
    #[arg(long, global = true, default_value = "target")]
    binaries: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// CPU per durable, verified beat: hb-server against the bare limit, in interleaved pairs.
    Server {
        /// Pairs of runs.
        #[arg(long, default_value_t = 9)]
        pairs: usize,
        /// Seconds per run.
        #[arg(long, default_value_t = 4)]
        seconds: u64,
        /// Hosts that beat.
        #[arg(long, default_value_t = 2_000)]
        hosts: usize,
        /// Connections, each kept alive.
        #[arg(long, default_value_t = 64)]
        connections: usize,
    },
    /// The server's memory with many hosts enrolled and beating.
    Memory {
        /// Hosts to enrol.
        #[arg(long, default_value_t = 100_000)]
        hosts: usize,
    },
    /// From the deadline of a silent host to the arrival of the webhook.
    Detect {
        /// Hosts enrolled.
        #[arg(long, default_value_t = 10_000)]
        hosts: usize,
        /// How many of them die, one by one, at random moments.
        #[arg(long, default_value_t = 1_000)]
        deaths: usize,
        /// Over how many seconds.
        #[arg(long, default_value_t = 300)]
        seconds: u64,
    },
    /// The agent over TLS, beside the bare limit of its libraries and curl.
    Agent {
        /// Beats at ten a second.
        #[arg(long, default_value_t = 1_000)]
        beats: u64,
        /// Then, seconds at its own pace.
        #[arg(long, default_value_t = 240)]
        seconds: u64,
        /// That pace: seconds between two beats.
        #[arg(long, default_value_t = 1)]
        interval_s: u64,
        /// Another binary than the release build, such as the one in the package.
        #[arg(long)]
        hb: Option<PathBuf>,
        /// Beside zabbix-agent2, prometheus-node-exporter and collectd.
        #[arg(long)]
        beside: bool,
    },
    /// Internal: the bare server that hb-server is compared with.
    #[command(hide = true)]
    Bare {
        /// Hosts that it knows.
        #[arg(long)]
        hosts: usize,
        /// Where its database goes.
        #[arg(long)]
        data: PathBuf,
    },
    /// Internal: the bare agent that hb's is compared with.
    #[command(hide = true)]
    BareAgent {
        /// Whom it tells.
        #[arg(long)]
        url: String,
        /// Beats that count.
        #[arg(long)]
        beats: u64,
        /// Milliseconds between two of them.
        #[arg(long)]
        every_ms: u64,
    },
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match cli.command {
        Command::Bare { hosts, data } => runtime.block_on(bare::serve(hosts, &data)),
        Command::BareAgent { url, beats, every_ms } => {
            runtime.block_on(bare_agent::run(&url, beats, std::time::Duration::from_millis(every_ms)))
        }
        Command::Server { pairs, seconds, hosts, connections } => {
            runtime.block_on(server::compare(&cli.binaries, &server::Plan { pairs, seconds, hosts, connections }))
        }
        Command::Memory { hosts } => runtime.block_on(server::memory_report(&cli.binaries, hosts)),
        Command::Detect { hosts, deaths, seconds } => {
            runtime.block_on(detect::run(&cli.binaries, &detect::Plan { hosts, deaths, seconds }))
        }
        Command::Agent { beats, seconds, interval_s, hb, beside } => {
            runtime.block_on(agent::run(&cli.binaries, agent::Plan { hb, beats, seconds, interval_s, beside }))
        }
    }
}
