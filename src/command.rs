//! The commands: one module each, with its arguments at the head.

use crate::cli::Command;
use crate::context::Ctx;
use crate::error::Outcome;

pub mod channels;
pub mod completions;
pub mod deliveries;
pub mod history;
pub mod hosts;
pub mod keys;
pub mod login;
pub mod pause;
pub mod status;
pub mod tokens;
pub mod why;

/// Runs one command.
pub fn run(ctx: &Ctx, command: &Command) -> Outcome {
    match command {
        Command::Status(args) => status::run(ctx, args),
        Command::Hosts(args) => hosts::run(ctx, args),
        Command::Pause(args) => pause::pause(ctx, args),
        Command::Resume(args) => pause::resume(ctx, args),
        Command::History(args) => history::run(ctx, args),
        Command::Why(args) => why::run(ctx, args),
        Command::Channels(args) => channels::run(ctx, args),
        Command::Deliveries(args) => deliveries::run(ctx, args),
        Command::Keys(args) => keys::run(ctx, args),
        Command::Tokens(args) => tokens::run(ctx, args),
        Command::Login(args) => login::login(ctx, args),
        Command::Logout(args) => login::logout(ctx, args),
        Command::Completions(args) => completions::run(ctx, args),
    }
}
