//! `hb identity`: the host's own key.

use serde_json::json;

use hb_wire::duration::format_seconds;

use crate::context::Ctx;
use crate::error::{Failure, Outcome};
use crate::exit;
use crate::identity::{Enrolled, load_key};
use crate::place::Place;

/// What to do with the identity.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hb identity show")]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// What can be done.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Show who this host is: its id, name, server and key's fingerprint, never the key
    #[command(after_help = "\
Examples:
  hb identity show
  hb identity show --json | jq -r .id")]
    Show,
}

/// Shows who this host is.
pub fn run(ctx: &Ctx, args: &Args) -> Outcome {
    match args.verb {
        Verb::Show => show(ctx),
    }
}

fn show(ctx: &Ctx) -> Outcome {
    let place = Place::find(&ctx.env)?;
    let Some(enrolled) = Enrolled::load(&place)? else {
        let what = format!("this host is not enrolled: there is no {}", place.enrolment().display());
        return Err(Failure::config(what).hint("hb register --server URL"));
    };
    let key = enrolled.public_key.parse::<hb_wire::key::PublicKey>().map_err(|error| {
        Failure::config(format!("{} is damaged: {error}", place.enrolment().display()))
            .hint("enrol again with the same key: hb register --server URL --force")
    })?;
    // Whoever may not read the key may still know the identity; a key that others can read is always worth saying.
    let trouble = match load_key(&place.key(), place.credential.is_none()) {
        Ok(Some(found)) if found.public() == key => None,
        Ok(Some(_)) => Some(format!("{} is not the key that was enrolled", place.key().display())),
        Ok(None) => Some(format!("the key {} is gone", place.key().display())),
        Err(failure) => Some(failure.message),
    };
    if ctx.json {
        let urls: Vec<&str> = enrolled.beat_urls.iter().map(url::Url::as_str).collect();
        ctx.printer.json(&json!({
            "id": enrolled.id,
            "name": enrolled.name,
            "server": enrolled.server.as_str(),
            "beat_urls": urls,
            "interval_s": enrolled.interval_s,
            "grace_s": enrolled.grace_s,
            "key": key.fingerprint(),
            "public_key": enrolled.public_key,
            "key_file": place.key(),
            "pin": enrolled.pin.as_ref().map(ToString::to_string),
            "trouble": trouble,
        }));
        return Ok(exit::OK);
    }
    let mut lines = vec![
        ("id", enrolled.id.to_string()),
        ("name", enrolled.name),
        ("server", enrolled.server.to_string()),
        ("interval", format!("{}, grace {}", format_seconds(enrolled.interval_s), format_seconds(enrolled.grace_s))),
        ("key", format!("{} in {}", key.fingerprint(), place.key().display())),
    ];
    if let Some(pin) = enrolled.pin {
        lines.push(("pin", pin.to_string()));
    }
    for (label, value) in lines {
        ctx.printer.line(&format!("{label:<9} {}", crate::output::text::visible(&value)));
    }
    if let Some(trouble) = trouble {
        ctx.printer.warn(&trouble);
    }
    Ok(exit::OK)
}
