//! hb's agent and command line.
//!
//! In reading order: [`cli`] says what the program does, [`command`] does it; [`output`] is the only way to print and
//! [`env`](mod@env) the only way to the environment.

use std::ffi::OsString;

use clap::FromArgMatches as _;
use jiff::tz::TimeZone;
use serde_json::json;

use crate::cli::Cli;
use crate::context::Ctx;
use crate::env::Env;
use crate::error::{Failure, Outcome};
use crate::output::{Color, Printer, Volume, style, text};

pub mod account;
pub mod agent;
pub mod announce;
pub mod api;
pub mod cli;
pub mod command;
pub mod config;
pub mod context;
pub mod env;
pub mod error;
pub mod exit;
pub mod host;
pub mod http;
pub mod identity;
pub mod journal;
pub mod output;
pub mod place;
pub mod profile;
pub mod prompt;
pub mod service;
pub mod systemd;

/// Runs hb with `args` (the program's name first) and answers its exit code, one of [`exit`]: the only place that
/// prints an error and picks the code.
pub fn run(args: impl IntoIterator<Item = OsString>, env: Env) -> u8 {
    let args: Vec<OsString> = args.into_iter().collect();
    report_bugs();
    match parse(&args) {
        Ok(cli) => {
            let printer = Printer::new(cli.global.color, cli.global.volume(), &env);
            for warning in &env.unknown {
                printer.warn(warning);
            }
            let ctx = Ctx { printer, json: cli.global.json, env, zone: TimeZone::system() };
            finish(&ctx, command::run(&ctx, &cli.command))
        }
        Err(error) => {
            let early = Early::of(&args);
            let printer = Printer::new(early.color, Volume::Normal, &env);
            misused(&Ctx { printer, json: early.json, env, zone: TimeZone::UTC }, &error, &early)
        }
    }
}

fn parse(args: &[OsString]) -> Result<Cli, clap::Error> {
    if let Ok(cli) =
        cli::command_to_beat().try_get_matches_from(args).and_then(|matches| Cli::from_arg_matches(&matches))
    {
        return Ok(cli);
    }
    let mut command = cli::command().color(clap::ColorChoice::Always);
    let matches = command.try_get_matches_from_mut(args)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// Prints why a command failed, if it did, and picks the code.
fn finish(ctx: &Ctx, outcome: Outcome) -> u8 {
    let outcome = match ctx.printer.failure() {
        Some(error) if outcome.is_ok() => Err(output::unwritten(&error)),
        _ => outcome,
    };
    outcome.unwrap_or_else(|failure| {
        print_failure(ctx, &failure);
        failure.exit
    })
}

fn print_failure(ctx: &Ctx, failure: &Failure) {
    let message = text::visible_lines(&failure.message);
    let hint = failure.hint.as_deref().map(text::visible_lines);
    if ctx.json {
        let error = json!({ "message": message, "hint": hint, "exit": failure.exit });
        return ctx.printer.err(&text::json(&json!({ "error": error })));
    }
    ctx.printer.err(&format!("{}: {message}", ctx.printer.paint_err(style::BAD, "error")));
    if let Some(hint) = hint {
        ctx.printer.err(&format!("{}: {hint}", ctx.printer.paint_err(style::CALM, "hint")));
    }
}

/// What clap could not accept, and what it answers by itself (`--help`, `--version`).
fn misused(ctx: &Ctx, error: &clap::Error, early: &Early) -> u8 {
    let rendered = error.render();
    let colored = |color| if color { rendered.ansi().to_string() } else { rendered.to_string() };
    if !error.use_stderr() {
        ctx.printer.out(&colored(ctx.printer.out_color()));
        return finish(ctx, Ok(exit::OK));
    }
    let code = if early.check { exit::CHECK_UNKNOWN } else { exit::USAGE };
    if early.check {
        let first = rendered.to_string().lines().next().unwrap_or_default().to_owned();
        ctx.printer.line(&format!("HB UNKNOWN - {}", text::visible(&first)));
    } else if ctx.json {
        let message = rendered.to_string();
        let first = message.split("\n\n").next().unwrap_or_default();
        let message = text::visible_lines(first.trim().trim_start_matches("error: "));
        let error = json!({ "message": message, "hint": "see --help", "exit": code });
        ctx.printer.err(&text::json(&json!({ "error": error })));
    } else {
        let text = colored(ctx.printer.err_color());
        match text.split_once("\n\nFor more information, try ") {
            Some((what, _)) => {
                ctx.printer.err(what);
                ctx.printer.err(&format!("{}: see --help", ctx.printer.paint_err(style::CALM, "hint")));
            }
            None => ctx.printer.err_raw(&text),
        }
    }
    code
}

/// What must be known about a command line that could not be parsed.
#[derive(Debug, Default)]
struct Early {
    json: bool,
    check: bool,
    color: Color,
}

impl Early {
    fn of(args: &[OsString]) -> Self {
        let words: Vec<&str> = args.iter().map_while(|arg| arg.to_str()).take_while(|arg| *arg != "--").collect();
        let after = words.iter().position(|word| *word == "--color").and_then(|at| words.get(at + 1)).copied();
        let joined = words.iter().find_map(|word| word.strip_prefix("--color="));
        Self {
            json: words.contains(&"--json"),
            check: words.contains(&"status") && words.contains(&"--check"),
            color: match joined.or(after) {
                Some("always") => Color::Always,
                Some("never") => Color::Never,
                _ => Color::Auto,
            },
        }
    }
}

/// A panic is a bug in hb: say so, and end with the code that says so.
fn report_bugs() {
    std::panic::set_hook(Box::new(|panic| {
        let printer = Printer::new(Color::Never, Volume::Normal, &Env::default());
        printer.err(&format!("error: a bug in hb {}: {panic}", env!("CARGO_PKG_VERSION")));
        printer.err("hint: please report it with the command that you ran");
        #[expect(clippy::exit, reason = "a release build aborts on panic: only here can the code still be chosen")]
        std::process::exit(i32::from(exit::BUG));
    }));
}
