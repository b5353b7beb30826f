//! The commands: one module each, with its arguments at the head.

use crate::cli::Command;
use crate::context::Ctx;
use crate::error::Outcome;

pub mod agent;
pub mod beat;
pub mod channels;
pub mod completions;
pub mod deliveries;
pub mod doctor;
pub mod history;
pub mod hosts;
pub mod identity;
pub mod image_prep;
pub mod keys;
pub mod login;
pub mod maint;
pub mod man;
pub mod pause;
pub mod register;
pub mod status;
pub mod tokens;
pub mod why;

/// Runs one command.
pub fn run(ctx: &Ctx, command: &Command) -> Outcome {
    match command {
        Command::Register(args) => args.check().and_then(|()| register::run(ctx, args)),
        Command::Agent(args) => agent::run(ctx, args),
        Command::Beat(args) => beat::run(ctx, args),
        Command::Identity(args) => identity::run(ctx, args),
        Command::ImagePrep(args) => image_prep::run(ctx, args),
        Command::Maint(args) => maint::run(ctx, args),
        Command::Doctor(args) => doctor::run(ctx, args),
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
        Command::Man(args) => man::run(ctx, args),
    }
}
