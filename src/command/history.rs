//! `hb history`: what happened, the latest last, as in a log.

use anstyle::Style;
use hb_wire::view::EventView;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::api::Api;
use crate::cli::value;
use crate::context::Ctx;
use crate::error::{Failure, Outcome};
use crate::exit;
use crate::output::style;
use crate::output::table::{Cell, Table, column, optional};
use crate::output::time::{moment, seconds_between, span};
use crate::profile::Choice;

/// Events shown at most, unless told otherwise.
const LIMIT: usize = 1_000;

/// Whose history, and how far back.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  hb history                            the fleet's last seven days
  hb history web1 --since 30d
  hb history --since 1h --json | jq '.events[] | select(.event == \"down\")'

The latest event comes last. AFTER is how long the state had lasted that the event ends.")]
pub struct Args {
    /// Only this host: its name, id, or the beginning of its id
    pub host: Option<String>,
    /// How far back, like 12h or 30d
    #[arg(long, value_name = "SPAN", default_value = "7d", value_parser = value::some_seconds)]
    pub since: u64,
    /// Show at most this many, the latest ones
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = LIMIT, value_parser = value::count)]
    pub limit: usize,
    /// Which server
    #[command(flatten)]
    pub choice: Choice,
}

/// Shows what happened.
pub fn run(ctx: &Ctx, args: &Args) -> Outcome {
    let api = Api::connect(ctx, &args.choice)?;
    let host = args.host.as_deref().map(|host| api.host(host)).transpose()?;
    let since = since(ctx.now(), args.since)?;
    let (events, more) = api.events(host.as_ref().map(|host| host.id), since, args.limit)?;
    if ctx.json {
        ctx.printer.json(&json!({ "events": events, "truncated": more }));
    } else if events.is_empty() {
        let whose = host.as_ref().map(|host| format!(" to {}", host.name)).unwrap_or_default();
        ctx.printer.line(&format!("nothing happened{whose} in the last {}", span(args.since.cast_signed())));
    } else {
        ctx.printer.out(&table(ctx, &events, host.is_none()).render(&ctx.printer));
    }
    if more {
        ctx.printer.warn(&format!("there were more: these are the latest {} (`--limit`)", args.limit));
    }
    Ok(exit::OK)
}

fn since(now: Timestamp, seconds: u64) -> Result<Timestamp, Failure> {
    let span = SignedDuration::from_secs(seconds.cast_signed());
    now.checked_sub(span)
        .map_err(|_| Failure::usage("--since reaches back further than time is counted").hint("--since 30d"))
}

fn table(ctx: &Ctx, events: &[EventView], with_host: bool) -> Table {
    let host = if with_host { column("HOST") } else { optional("HOST", u8::MAX) };
    let mut table = Table::new(&[
        column("TIME"),
        host,
        column("EVENT"),
        optional("AFTER", 2),
        optional("CAUSE", 1),
        column("MESSAGE"),
    ])
    .wrapping();
    for event in events {
        let name = event.host.as_ref().filter(|_| with_host).map(|host| host.name.as_str()).unwrap_or_default();
        table.row(vec![
            moment(&ctx.zone, event.at).into(),
            name.into(),
            Cell::styled(&event.event, event_style(&event.event)),
            event.since.map(|since| span(seconds_between(since, event.at))).unwrap_or_default().into(),
            event.cause.as_deref().unwrap_or_default().into(),
            event.message.as_str().into(),
        ]);
    }
    table
}

/// The colour of a kind of event.
pub fn event_style(event: &str) -> Style {
    match event {
        "down" | "cloned" | "blind" => style::BAD,
        "up" | "restored" | "observing" | "steady" => style::GOOD,
        "degraded" | "flapping" | "returned_late" | "rebooted" | "restarted" => style::CAUTION,
        _ => style::CALM,
    }
}
