//! `hb pause` and `hb resume`: planned silence, with an end or with a warning.

use hb_wire::view::{HostState, PauseRequest};

use crate::api::Api;
use crate::cli::value;
use crate::context::Ctx;
use crate::error::{Failure, Outcome};
use crate::exit;
use crate::output::time::near_moment;
use crate::profile::Choice;

/// Longest reason, in characters.
const REASON_CHARS_MAX: usize = 200;

/// Which host, for how long, and why.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  hb pause web1 --for 2h --reason \"new disk\"
  hb pause web1                         until `hb resume web1`")]
pub struct Args {
    /// Its name, id, or the beginning of its id
    pub host: String,
    /// How long, like 2h; without it, until `hb resume`
    #[arg(long = "for", value_name = "SPAN", value_parser = value::some_seconds)]
    pub span: Option<u64>,
    /// Why, for those who see it paused
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: Option<String>,
    /// Which server
    #[command(flatten)]
    pub choice: Choice,
}

/// Which host to watch again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hb resume web1")]
pub struct ResumeArgs {
    /// Its name, id, or the beginning of its id
    pub host: String,
    /// Which server
    #[command(flatten)]
    pub choice: Choice,
}

/// Pauses a host: its silence raises no alarm.
pub fn pause(ctx: &Ctx, args: &Args) -> Outcome {
    let api = Api::connect(ctx, &args.choice)?;
    let host = api.host(&args.host)?;
    let request = PauseRequest { for_s: args.span, reason: args.reason.clone() };
    let options = [("for_s: ", "--for: "), ("reason: ", "--reason: ")];
    let host = api.pause_host(host.id, &request).map_err(|failure| failure.naming(&options))?;
    if ctx.json {
        ctx.printer.json(&host);
    } else {
        let end = host.until.map_or_else(
            || "until it is resumed".to_owned(),
            |until| format!("until {}", near_moment(&ctx.zone, api.now(), until)),
        );
        ctx.printer.line(&format!("{} is paused {end}", host.name));
    }
    if host.until.is_none() {
        ctx.printer.warn("a pause without an end is easily forgotten: `--for 2h` gives it one");
    }
    Ok(exit::OK)
}

/// Watches a paused host again.
pub fn resume(ctx: &Ctx, args: &ResumeArgs) -> Outcome {
    let api = Api::connect(ctx, &args.choice)?;
    let before = api.host(&args.host)?;
    let host = api.resume_host(before.id)?;
    if ctx.json {
        ctx.printer.json(&host);
    } else {
        let now = if before.state == HostState::Paused {
            "is watched again"
        } else if before.marks.iter().any(|mark| mark == "cloned") {
            "is no longer marked as cloned: whoever holds its key may beat again"
        } else {
            "was not paused: nothing changed"
        };
        ctx.printer.line(&format!("{} {now} ({})", host.name, crate::output::text::word(&host.state)));
    }
    Ok(exit::OK)
}

fn reason(text: &str) -> Result<String, Failure> {
    hb_wire::name::clean_text(text, REASON_CHARS_MAX)
        .map_err(|error| Failure::usage(error.to_string()).hint("write a short sentence on one line"))
}
