//! `hb image-prep`: makes a machine safe to be copied.

use serde_json::json;

use super::identity::{forget_identity, shown};
use crate::context::Ctx;
use crate::error::Outcome;
use crate::exit;
use crate::place::Place;
use crate::prompt::confirm;

/// What goes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Run it last, before the image is taken: copies of a machine with a key would all be one host, and all but
the first go into quarantine. Removes the key, the enrolment and the journal; the package and its
configuration stay. Each copy enrols as a host of its own when `hb register` runs on it, for instance at
its first boot.

Examples:
  hb image-prep
  hb image-prep --yes               in the script that builds the image")]
pub struct Args {
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// Removes what must not be copied.
pub fn run(ctx: &Ctx, args: &Args) -> Outcome {
    let place = Place::find(&ctx.env)?;
    confirm(
        ctx,
        "Remove this machine's identity, so that its image can be copied? Its key cannot be had again.",
        args.yes,
    )?;
    let removed = forget_identity(&place)?;
    if ctx.json {
        ctx.printer.json(&json!({ "removed": removed }));
    } else if removed.is_empty() {
        ctx.printer.note("there was nothing to remove: copies of this machine enrol as hosts of their own");
    } else {
        ctx.printer.note(&format!("removed {}; copies of this machine enrol as hosts of their own", shown(&removed)));
    }
    Ok(exit::OK)
}
