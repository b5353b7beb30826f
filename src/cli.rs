//! The command line: what can be typed, and what its help says. No behaviour.
//!
//! The arguments of one command stand at the head of its module under [`crate::command`].

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::command::{
    agent, beat, channels, completions, deliveries, doctor, history, hosts, identity, image_prep, keys, login, maint,
    man, pause, register, status, tokens, why,
};
use crate::output::{Color, Volume};

pub mod value;

/// Heartbeats for servers: hb says "I am alive" for this host, and tells you which hosts do not.
#[derive(Debug, Parser)]
#[command(
    name = "hb",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = format!("{EXAMPLES}\n\n{}", crate::env::reference())
)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The command line as it is parsed and explained.
///
/// The paragraphs below the options are broken for the readers of their source: each is one line here, which clap breaks
/// where the terminal ends.
pub fn command() -> clap::Command {
    with_whole_paragraphs(Cli::command())
}

/// The same for nothing but the commands that beat, and without a word of help: half a megabyte less, in which the agent would
/// live for months. What it does not take is for [`command`] to take or to refuse.
pub fn command_to_beat() -> clap::Command {
    let command = Global::augment_args(clap::Command::new("hb").subcommand_required(true));
    command
        .subcommand(agent::Args::augment_args(clap::Command::new("agent")))
        .subcommand(beat::Args::augment_args(clap::Command::new("beat")))
}

fn with_whole_paragraphs(command: clap::Command) -> clap::Command {
    let text = command.get_after_help().map(ToString::to_string);
    let command = match text {
        Some(text) => command.after_help(whole_paragraphs(&text)),
        None => command,
    };
    command.mut_subcommands(with_whole_paragraphs)
}

/// Joins lines that follow each other; indented ones are examples, and stay as they are.
fn whole_paragraphs(text: &str) -> String {
    let is_prose = |line: &str| !line.is_empty() && !line.starts_with(' ');
    let mut whole = String::with_capacity(text.len());
    let mut before = "";
    for line in text.lines() {
        if !whole.is_empty() {
            whole.push(if is_prose(before) && is_prose(line) { ' ' } else { '\n' });
        }
        whole.push_str(line);
        before = line;
    }
    whole
}

const EXAMPLES: &str = "\
Examples:
  hb login https://hb.example.org       connect this shell to a server
  hb status                             the fleet at a glance
  hb register --server https://hb.example.org
                                        enrol this host

Exit codes: 0 done; 1 failed, or the answer is no; 2 misused; 69 server not reached; 77 refused;
78 configuration; 70 a bug in hb.";

/// What holds for every command.
#[derive(Debug, Args)]
pub struct Global {
    /// Print the answer as one JSON document (errors too, on stderr)
    #[arg(long, global = true, help_heading = "Output")]
    pub json: bool,
    /// When to use colour: auto, always or never
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN", help_heading = "Output")]
    #[arg(hide_possible_values = true)]
    pub color: Color,
    /// Print results and errors only
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Output")]
    pub quiet: bool,
    /// Also say what is being done
    #[arg(short, long, global = true, help_heading = "Output")]
    pub verbose: bool,
}

impl Global {
    /// How much to say on stderr.
    pub fn volume(&self) -> Volume {
        match (self.quiet, self.verbose) {
            (true, _) => Volume::Quiet,
            (false, true) => Volume::Verbose,
            (false, false) => Volume::Normal,
        }
    }
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Enrol this host, and start its agent
    Register(register::Args),
    /// Run the daemon that beats for this host
    Agent(agent::Args),
    /// Send one beat now
    Beat(beat::Args),
    /// Announce a maintenance of this host
    Maint(maint::Args),
    /// Show who this host is, give it a new key, or have it forget who it is
    Identity(identity::Args),
    /// Make a golden image of this machine safe to copy
    ImagePrep(image_prep::Args),
    /// Check everything that a beat needs, and say what to do
    Doctor(doctor::Args),
    /// Show the fleet at a glance
    Status(status::Args),
    /// List, look at and change hosts
    Hosts(hosts::Args),
    /// Expect silence from a host, for a while
    Pause(pause::Args),
    /// Watch a paused host again
    Resume(pause::ResumeArgs),
    /// Show what happened
    History(history::Args),
    /// Explain the state of a host, with the numbers
    Why(why::Args),
    /// Manage where alerts go
    Channels(channels::Args),
    /// Show who was told what, and try again
    Deliveries(deliveries::Args),
    /// Manage API keys
    Keys(keys::Args),
    /// Manage enrolment tokens
    Tokens(tokens::Args),
    /// Connect this user's commands to a server
    Login(login::Args),
    /// Forget a server and its key
    Logout(login::LogoutArgs),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Print the manual
    Man(man::Args),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_beats_takes_the_same_arguments_either_way() {
        let names = |command: &clap::Command| {
            let all = command.get_arguments().map(|arg| (arg.get_id().to_string(), arg.get_long().map(str::to_owned)));
            all.collect::<Vec<_>>()
        };
        let (mut lean, mut whole) = (command_to_beat(), command());
        assert_eq!(names(&lean), names(&whole));
        for name in ["agent", "beat"] {
            let (lean, whole) = (lean.find_subcommand_mut(name).unwrap(), whole.find_subcommand_mut(name).unwrap());
            assert_eq!(names(lean), names(whole), "{name}");
        }
        for args in [vec!["hb", "agent"], vec!["hb", "-q", "agent", "-q"], vec!["hb", "beat", "--json"]] {
            assert_eq!(
                command_to_beat().try_get_matches_from(&args).is_ok(),
                command().try_get_matches_from(&args).is_ok()
            );
        }
        for args in
            [vec!["hb"], vec!["hb", "agent", "--help"], vec!["hb", "status"], vec!["hb", "hosts", "show", "agent"]]
        {
            assert!(command_to_beat().try_get_matches_from(&args).is_err(), "{args:?} is for the whole command line");
        }
    }

    #[test]
    fn a_paragraph_is_one_line_and_examples_stay_as_they_are() {
        assert_eq!(
            whole_paragraphs("One\ntwo.\n\nExamples:\n  hb a\n  hb b\n\nThree\nfour."),
            "One two.\n\nExamples:\n  hb a\n  hb b\n\nThree four."
        );
    }
}
