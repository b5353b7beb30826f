//! `hb beat`: one beat now, for cron.

use std::io::IsTerminal as _;

use hb_wire::beat::{INTENT_S_MAX, Intent, StopReason};
use serde_json::json;

use crate::announce;
use crate::context::Ctx;
use crate::error::Outcome;
use crate::identity::Enrolled;
use crate::{exit, host};

/// One beat, and what it may say.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exits with 0 only when the server has stored the beat. Says nothing then, and one line otherwise.
While `hb agent` runs for the same host, it is the agent that beats, at once. As root it becomes the
account _hb, where there is one.

Examples:
  hb beat
  * * * * * hb beat                 in a crontab, where there is no systemd
  hb beat --json")]
pub struct Args {
    /// Say that this host goes to sleep: silence is no alarm for a day, unless it beats before
    #[arg(long)]
    pub before_sleep: bool,
}

/// Sends one beat. Where nobody looks on, a failure is one line.
pub fn run(ctx: &Ctx, args: &Args) -> Outcome {
    let one_line = !ctx.json && !std::io::stderr().is_terminal();
    let farewell = Intent::Goodbye { reason: StopReason::Sleep, back_in_s: INTENT_S_MAX };
    once(ctx, args.before_sleep.then_some(farewell))
        .map_err(|failure| if one_line { failure.on_one_line() } else { failure })
}

fn once(ctx: &Ctx, intent: Option<Intent>) -> Outcome {
    let (place, config) = host::setting(ctx)?;
    let id = Enrolled::load(&place)?.map(|enrolled| enrolled.id);
    let stored = announce::announce(ctx, place, &config, intent)?;
    if ctx.json {
        ctx.printer.json(&json!({ "stored": true, "id": id, "seq": stored.seq, "marks": stored.marks }));
    } else {
        let marks = if stored.marks.is_empty() { String::new() } else { format!(" ({})", stored.marks.join(", ")) };
        ctx.printer.detail(&format!("stored as beat {}{marks}", stored.seq));
    }
    Ok(exit::OK)
}
