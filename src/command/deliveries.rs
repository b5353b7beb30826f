//! `hb deliveries`: who was told what, and what could not be told.

use core::str::FromStr as _;

use hb_wire::id::DeliveryId;
use serde_json::json;

use crate::api::Api;
use crate::cli::value;
use crate::context::Ctx;
use crate::error::{Failure, Outcome};
use crate::exit;
use crate::output::style;
use crate::output::table::{Cell, Table, column, optional};
use crate::output::time::moment;
use crate::profile::Choice;

/// Deliveries shown at most, unless told otherwise.
const LIMIT: usize = 100;
/// The statuses of a delivery.
const STATUSES: [&str; 4] = ["pending", "delivered", "merged", "dead"];

/// Which deliveries, or what to do with one.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "\
Examples:
  hb deliveries                         the latest
  hb deliveries list --status dead      given up after 24 hours
  hb deliveries retry 0199c5e0-6d3a-7c1e-9b1f-2f6f0f8f6c11",
    args_conflicts_with_subcommands = true
)]
pub struct Args {
    /// Which of them; the same as `list`
    #[command(flatten)]
    pub listing: Listing,
    /// What to do; without it, they are listed
    #[command(subcommand)]
    pub what: Option<What>,
    /// Which server
    #[command(flatten)]
    pub choice: Choice,
}

/// Which deliveries to list.
#[derive(Debug, clap::Args)]
pub struct Listing {
    /// Only these
    #[arg(long, value_parser = STATUSES)]
    pub status: Option<String>,
    /// Show at most this many, the latest ones
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = LIMIT, value_parser = value::count)]
    pub limit: usize,
}

/// One thing to do.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// List deliveries, as without a subcommand
    #[command(after_help = "Examples:\n  hb deliveries list\n  hb deliveries list --status dead")]
    List(Listing),
    /// Try a delivery again, now
    #[command(after_help = "Examples:\n  hb deliveries retry 0199c5e0-6d3a-7c1e-9b1f-2f6f0f8f6c11")]
    Retry {
        /// Its id
        id: String,
    },
}

/// Lists deliveries, or tries one again.
pub fn run(ctx: &Ctx, args: &Args) -> Outcome {
    match &args.what {
        None => list(ctx, &args.choice, &args.listing),
        Some(What::List(listing)) => list(ctx, &args.choice, listing),
        Some(What::Retry { id }) => {
            let id = DeliveryId::from_str(id).map_err(|error| {
                Failure::usage(format!("a delivery's id is needed: {error}")).hint("`hb deliveries list` shows ids")
            })?;
            Api::connect(ctx, &args.choice)?.retry_delivery(id)?;
            if ctx.json {
                ctx.printer.json(&json!({ "id": id, "retried": true }));
            } else {
                ctx.printer.line(&format!("{id} is tried again"));
            }
            Ok(exit::OK)
        }
    }
}

fn list(ctx: &Ctx, choice: &Choice, listing: &Listing) -> Outcome {
    let api = Api::connect(ctx, choice)?;
    let (deliveries, more) = api.deliveries(listing.status.as_deref(), listing.limit)?;
    if ctx.json {
        ctx.printer.json(&json!({ "deliveries": deliveries, "truncated": more }));
    } else if deliveries.is_empty() {
        ctx.printer.note("no deliveries");
    } else {
        let mut table = Table::new(&[
            optional("CREATED", 4),
            optional("EVENT", 3),
            optional("HOST", 2),
            column("CHANNEL"),
            column("STATUS"),
            optional("ATTEMPTS", 5),
            optional("NEXT", 6),
            // What `deliveries retry` needs, and why it is needed, go before when it was; what is done needs none.
            column("ID"),
            optional("LAST ERROR", 1),
        ])
        .shortening();
        for delivery in &deliveries {
            let look = match delivery.status.as_str() {
                "delivered" | "merged" => style::GOOD,
                "pending" => style::CAUTION,
                _ => style::BAD,
            };
            let is_open = matches!(delivery.status.as_str(), "pending" | "dead");
            let next = delivery.next_attempt_at.filter(|_| delivery.status == "pending");
            table.row(vec![
                moment(&ctx.zone, delivery.created_at).into(),
                delivery.kind.as_str().into(),
                delivery.host.as_ref().map_or("", |host| host.name.as_str()).into(),
                delivery.channel_name.as_str().into(),
                Cell::styled(&delivery.status, look),
                delivery.attempts.to_string().into(),
                next.map(|at| moment(&ctx.zone, at)).unwrap_or_default().into(),
                if is_open { delivery.id.to_string() } else { String::new() }.into(),
                delivery.last_error.as_deref().unwrap_or_default().into(),
            ]);
        }
        ctx.printer.out(&table.render(&ctx.printer));
    }
    if more {
        ctx.printer.warn(&format!("there are more: these are the latest {} (`--limit`)", listing.limit));
    }
    Ok(exit::OK)
}
