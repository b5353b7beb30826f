//! hb's standalone server: the whole API in one process, on an embedded database.
//!
//! In reading order: [`cli`] says what the program does, [`command`] does it. `serve` puts hb-api together with the SQLite
//! store, the [`clock`], the channels of hb-notify and the [`prober`], serves it through the [`listener`], and keeps the [`loops`]
//! going. Nothing here decides anything about a host.

use std::ffi::OsString;
use std::io::Write as _;

use clap::Parser as _;

use crate::cli::Cli;
use crate::error::Failure;

pub mod address;
pub mod cli;
pub mod clock;
pub mod command;
pub mod config;
pub mod entropy;
pub mod error;
pub mod exit;
pub mod limits;
pub mod listener;
pub mod log;
pub mod loops;
pub mod prober;
pub mod stop;
pub mod systemd;
pub mod tls;

/// Runs the program with `args` (its name first) and answers its exit code, one of [`exit`]: the only place that prints an
/// error and picks the code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    report_bugs();
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            print_misuse(&error);
            return exit::USAGE;
        }
        Err(error) => {
            // Where the answer cannot be written, nobody reads the reason either.
            let _ = error.print();
            return exit::OK;
        }
    };
    for warning in config::unknown_variables(std::env::vars_os().map(|(name, _)| name)) {
        say(&format!("warning: {warning}"));
    }
    match command::run(&cli.command) {
        Ok(()) => exit::OK,
        Err(failure) => {
            print_failure(&failure);
            failure.exit
        }
    }
}

/// One line on stderr.
pub(crate) fn say(line: &str) {
    // A closed stderr is not a reason to stop serving.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

fn print_failure(failure: &Failure) {
    say(&format!("error: {}", failure.message));
    if let Some(hint) = &failure.hint {
        say(&format!("hint: {hint}"));
    }
}

/// What clap could not accept, in its words, with the last line as every other error has it.
fn print_misuse(error: &clap::Error) {
    let text = error.render().to_string();
    match text.split_once("\n\nFor more information, try ") {
        Some((what, _)) => say(&format!("{what}\nhint: see --help")),
        None => say(text.trim_end()),
    }
}

/// A panic is a bug in hb: say so, and end with the code that says so. Never go on without the part that panicked.
fn report_bugs() {
    std::panic::set_hook(Box::new(|panic| {
        say(&format!("error: a bug in hb-server {}: {panic}", env!("CARGO_PKG_VERSION")));
        say("hint: please report it; the service manager starts the server again");
        #[expect(clippy::exit, reason = "a server that goes on without one of its loops would be blind and not know")]
        std::process::exit(i32::from(exit::BUG));
    }));
}
