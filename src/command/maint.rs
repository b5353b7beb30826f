//! `hb maint`: this host announces its own maintenance.

use hb_wire::beat::{INTENT_S_MAX, Intent, NOTE_CHARS_MAX};
use hb_wire::duration::{format_seconds, parse_seconds};
use hb_wire::name::clean_text;
use serde_json::json;

use crate::announce::announce;
use crate::context::Ctx;
use crate::error::{Failure, Outcome};
use crate::{exit, host};

/// How long, and what for.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Signed with this host's key: no API key is needed. Through the agent when it runs, else by a beat of its
own. Silence during a maintenance raises no alarm; at its end the host gets its full grace.

Examples:
  hb maint 20m \"kernel\"
  hb maint 2h \"moving to rack 7\"
  hb maint end                      it is over sooner")]
pub struct Args {
    /// How long (90s, 20m, 2h; at most 24h), or `end`
    #[arg(value_name = "TIME|end", value_parser = time)]
    pub time: u64,
    /// What for, at most 200 characters
    #[arg(value_name = "NOTE", value_parser = note, default_value = "", hide_default_value = true)]
    pub note: String,
}

fn time(text: &str) -> Result<u64, String> {
    if text == "end" {
        return Ok(0);
    }
    match parse_seconds(text).map_err(|error| error.to_string())? {
        0 => Err("no time at all; to end a maintenance: hb maint end".to_owned()),
        for_s if for_s > INTENT_S_MAX => {
            Err(format!("at most 24h; longer than that, let an operator pause it: hb pause HOST --for {text}"))
        }
        for_s => Ok(for_s),
    }
}

fn note(text: &str) -> Result<String, String> {
    clean_text(text, NOTE_CHARS_MAX).map_err(|error| error.to_string())
}

/// Announces it.
pub fn run(ctx: &Ctx, args: &Args) -> Outcome {
    let Args { time: for_s, note } = args;
    if *for_s == 0 && !note.is_empty() {
        return Err(Failure::usage("the end of a maintenance has no note").hint("hb maint end"));
    }
    let (place, config) = host::setting(ctx)?;
    let intent = Intent::Maintenance { for_s: *for_s, note: note.clone() };
    let stored = announce(ctx, place, &config, Some(intent))?;
    if *for_s > 0 && stored.trusted && !stored.marks.iter().any(|mark| mark == "maintenance") {
        let what = "the server stored the beat, but not the maintenance: silence is an alarm as ever";
        return Err(Failure::failed(what).hint("hb-server is older than this hb: upgrade it, or use hb pause HOST"));
    }
    if ctx.json {
        ctx.printer.json(&json!({
            "stored": true, "seq": stored.seq, "for_s": for_s, "note": note, "marks": stored.marks,
        }));
    } else if *for_s == 0 {
        ctx.printer.note("the maintenance is over: silence is an alarm again");
    } else {
        let why = if note.is_empty() { String::new() } else { format!(" ({note})") };
        ctx.printer.note(&format!("announced: silence is no alarm for {}{why}", format_seconds(*for_s)));
    }
    Ok(exit::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_maintenance_lasts_from_a_second_to_a_day() {
        assert_eq!(time("20m"), Ok(1200));
        assert_eq!(time("24h"), Ok(86_400));
        assert_eq!(time("end"), Ok(0));
        for bad in ["0s", "25h", "2d", "soon", "", "-1m"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}
