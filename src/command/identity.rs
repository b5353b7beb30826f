//! `hb identity`: the host's own key.

use std::path::PathBuf;

use hb_wire::beat::Intent;
use hb_wire::duration::format_seconds;
use hb_wire::key::PublicKey;
use hb_wire::rotation;
use serde_json::json;

use crate::context::Ctx;
use crate::error::{Failure, Outcome};
use crate::http::proxy::ProxyUrl;
use crate::identity::{Enrolled, Identity, forget, load_key, next_key, settle_next_key};
use crate::place::Place;
use crate::prompt::confirm;
use crate::service::{self, Service, UNIT};
use crate::{announce, exit, host};

/// What to do with the identity.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hb identity show\n  hb identity rotate\n  hb identity reset")]
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
    /// Give this host a new key, proven to the server by the old one
    #[command(after_help = "\
The server takes both keys until the first beat with the new one; from then on the old one is nobody's.
Whatever interrupts it, run it again: the same new key is used. As root, the service is restarted.

Examples:
  hb identity rotate
  hb identity rotate --json | jq -r .key")]
    Rotate,
    /// Forget who this host is: remove its key, its enrolment and its journal
    #[command(after_help = "\
For a machine that becomes another one. The server keeps the host, and reports its silence, until it is
retired there: hb hosts retire NAME (not on a copy, whose original goes on under that name). As root, the
service is stopped first.

Examples:
  hb identity reset
  hb identity reset --yes
  hb register --server https://hb.example.org --token-file /root/token")]
    Reset {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// Shows who this host is.
pub fn run(ctx: &Ctx, args: &Args) -> Outcome {
    match args.verb {
        Verb::Show => show(ctx),
        Verb::Rotate => rotate(ctx),
        Verb::Reset { yes } => reset(ctx, yes),
    }
}

fn rotate(ctx: &Ctx) -> Outcome {
    let (place, config) = host::setting(ctx)?;
    let Identity { mut enrolled, key } = Identity::load(&place)?;
    if enrolled.next_key.as_deref() == Some(key.public().to_string().as_str()) {
        // An earlier rotation got this far and no further.
        return settle(ctx, &place, enrolled);
    }
    let mut seed = zeroize::Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut()).map_err(|error| Failure::no_randomness(&error))?;
    let next = next_key(&place, *seed)?;
    enrolled.next_key = Some(next.public().to_string());
    enrolled.save(&place)?;
    let intent = Intent::Rotate { public_key: next.public(), proof: rotation::prove(&next, enrolled.id) };
    // A process that beats for the service gives up being root for good: the rest is done by this one.
    let stored = announce::apart(ctx, &place, &config, intent)?;
    if !stored.marks.iter().any(|mark| mark == "rotating") {
        // A server passes over an intent that it does not know: with the new key this host would be a stranger to it.
        let what = "the server stored the beat, but did not confirm the new key; the old one goes on";
        return Err(Failure::failed(what).hint(if stored.trusted {
            "hb-server is older than this hb: upgrade it, and run this again"
        } else {
            "set this machine's clock, and run this again"
        }));
    }
    settle_next_key(&place)?;
    settle(ctx, &place, enrolled)
}

/// The new key is in its place: the record follows, and the agent.
fn settle(ctx: &Ctx, place: &Place, mut enrolled: Enrolled) -> Outcome {
    if let Some(next) = enrolled.next_key.take() {
        enrolled.public_key = next;
    }
    enrolled.save(place)?;
    let service = service::restart(place);
    let key = enrolled.public_key.parse::<PublicKey>().map_or_else(|_| String::new(), |key| key.fingerprint());
    if ctx.json {
        ctx.printer.json(&json!({ "id": enrolled.id, "key": key, "service": service.word() }));
    } else {
        ctx.printer.line(&format!("{} has the new key {key}", enrolled.name));
        ctx.printer.note(if service == Service::Started {
            "the service beats with it from now on; the first beat ends the old key"
        } else if place.state.lock().is_none() {
            "restart the agent: its first beat with the new key ends the old one"
        } else {
            "the next beat is signed with it, and ends the old one"
        });
    }
    if let Service::Failed(why) = service {
        return Err(Failure::failed(format!("the new key is in place, but {UNIT} did not restart: {why}"))
            .hint(format!("systemctl restart {UNIT}; until then the old key goes on")));
    }
    Ok(exit::OK)
}

fn reset(ctx: &Ctx, yes: bool) -> Outcome {
    let place = Place::find(&ctx.env)?;
    // A damaged record is as good a reason as any to begin anew.
    let enrolled = Enrolled::load(&place).ok().flatten();
    let who = enrolled.as_ref().map_or_else(
        || format!("Remove what is left of an identity in {}?", place.dir.display()),
        |enrolled| format!("Forget that this host is {} ({}) at {}?", enrolled.name, enrolled.id, enrolled.server),
    );
    confirm(ctx, &format!("{who} Its key cannot be had again."), yes)?;
    let removed = forget_identity(&place)?;
    if ctx.json {
        let id = enrolled.as_ref().map(|enrolled| enrolled.id);
        ctx.printer.json(&json!({ "id": id, "removed": removed }));
    } else if removed.is_empty() {
        ctx.printer.note("there was nothing to forget");
    } else {
        ctx.printer.note(&format!("removed {}", shown(&removed)));
        if let Some(enrolled) = enrolled {
            let name = enrolled.name;
            ctx.printer.note(&format!(
                "the server still expects {name}: unless another machine goes on as {name}, retire it there (hb hosts retire {name})"
            ));
        }
    }
    Ok(exit::OK)
}

/// Stops the agent, and removes who this host is.
///
/// # Errors
/// 1 when the agent cannot be stopped, or a file not be removed.
pub fn forget_identity(place: &Place) -> Result<Vec<PathBuf>, Failure> {
    if let Service::Failed(why) = service::stop(place) {
        return Err(Failure::failed(format!("{UNIT} could not be stopped: {why}")).hint("nothing was removed"));
    }
    let _lock = announce::alone(place)?;
    forget(place)
}

/// Names of files, for people.
pub fn shown(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn show(ctx: &Ctx) -> Outcome {
    let place = Place::find(&ctx.env)?;
    let Some(enrolled) = Enrolled::load(&place)? else {
        let what = format!("this host is not enrolled: there is no {}", place.enrolment().display());
        return Err(Failure::config(what).hint("hb register --server URL"));
    };
    let key = enrolled.public_key.parse::<PublicKey>().map_err(|error| {
        Failure::config(format!("{} is damaged: {error}", place.enrolment().display()))
            .hint("enrol again with the same key: hb register --server URL --force")
    })?;
    // Whoever may not read the key may still know the identity; a key that others can read is always worth saying.
    let trouble = match load_key(&place.key(), place.credential.is_none()) {
        Ok(Some(found)) if enrolled.next_key.is_some() && enrolled.has_key(&found.public()) => {
            Some("a new key is on its way: finish it with hb identity rotate".to_owned())
        }
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
            "proxy": enrolled.proxy.as_ref().map(ProxyUrl::shown),
            "no_proxy": enrolled.no_proxy,
            "trouble": trouble,
        }));
        return Ok(exit::OK);
    }
    let mut lines = vec![
        ("id", enrolled.id.to_string()),
        ("name", enrolled.name),
        ("server", enrolled.server.to_string()),
        ("beats to", enrolled.beat_urls.iter().map(url::Url::as_str).collect::<Vec<_>>().join(", ")),
        ("interval", format!("{}, grace {}", format_seconds(enrolled.interval_s), format_seconds(enrolled.grace_s))),
        ("key", format!("{} in {}", key.fingerprint(), place.key().display())),
    ];
    if let Some(pin) = enrolled.pin {
        lines.push(("pin", pin.to_string()));
    }
    if let Some(proxy) = enrolled.proxy {
        let except = enrolled.no_proxy.map_or_else(String::new, |list| format!(", but not to {list}"));
        lines.push(("proxy", format!("{}{except}", proxy.shown())));
    }
    for (label, value) in lines {
        ctx.printer.line(&format!("{label:<9} {}", crate::output::text::visible(&value)));
    }
    if let Some(trouble) = trouble {
        ctx.printer.warn(&trouble);
    }
    Ok(exit::OK)
}
