//! The commands: one module each, with its arguments at the head.

use crate::cli::Command;
use crate::context::Ctx;
use crate::error::Outcome;

pub mod completions;

/// Runs one command.
pub fn run(ctx: &Ctx, command: &Command) -> Outcome {
    match command {
        Command::Completions(args) => completions::run(ctx, args),
    }
}
