//! `hb beat`: one beat now, for cron.

use std::io::IsTerminal as _;
use std::time::Duration;

use serde_json::json;

use crate::account;
use crate::agent::beater::{Beater, Said};
use crate::agent::cadence::{self, STALE_MAX};
use crate::context::Ctx;
use crate::error::{Failure, Outcome};
use crate::identity::Identity;
use crate::journal::Keeper;
use crate::{exit, host};

/// Time for one attempt where the configuration says nothing.
const TIMEOUT: Duration = Duration::from_secs(10);

/// One beat has no arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exits with 0 only when the server has stored the beat. Says nothing then, and one line otherwise.
Does nothing while `hb agent` runs for the same host. As root it becomes the account _hb, where there
is one.

Examples:
  hb beat
  * * * * * hb beat                 in a crontab, where there is no systemd
  hb beat --json")]
pub struct Args {}

/// Sends one beat. Where nobody looks on, a failure is one line.
pub fn run(ctx: &Ctx, _args: &Args) -> Outcome {
    let one_line = !ctx.json && !std::io::stderr().is_terminal();
    once(ctx).map_err(|failure| if one_line { failure.on_one_line() } else { failure })
}

fn once(ctx: &Ctx) -> Outcome {
    let (place, config) = host::setting(ctx)?;
    let identity = Identity::load(&place)?;
    if let Some(account) = account::to_become(&place) {
        account::become_it(account, &place)?;
    }
    let state = place.state;
    let shown = state.path().display().to_string();
    // A folder that cannot be made is found out, and told in the beat, when the journal is written.
    let _ = state.create();
    let Some(_lock) = state.lock() else {
        return Err(Failure::failed(format!("another hb beats for this host already (it holds {shown}/lock)"))
            .hint("`hb agent` beats by itself; to beat by hand, stop it first: systemctl stop hb"));
    };
    let options = host::options(&config, &identity.enrolled);
    let id = identity.enrolled.id;
    let (mut beater, damage) = Beater::new(identity, options, &state, Keeper::Once)?;
    if let Some(damage) = damage {
        ctx.printer.warn(&format!("the journal in {shown} cannot be used: {damage}; starting a new one"));
    }
    if let Some(error) = beater.begin().error {
        ctx.printer.warn(&format!("{shown} cannot be written: {error}; the beat says so"));
    }
    let said = host::runtime()?.block_on(send(&mut beater, config.timeout.unwrap_or(TIMEOUT)));
    // The nonce that came back saves the next beat a round trip; that it cannot be kept was said above.
    let _ = beater.write(None);
    match said {
        Said::Stored { marks, trusted } => {
            if !trusted {
                ctx.printer
                    .warn("this machine's clock is wrong: the server's certificate is good only by its own time");
            }
            if ctx.json {
                ctx.printer.json(&json!({ "stored": true, "id": id, "seq": beater.memory().seq(), "marks": marks }));
            } else {
                let marks = if marks.is_empty() { String::new() } else { format!(" ({})", marks.join(", ")) };
                ctx.printer.detail(&format!("stored as beat {}{marks}", beater.memory().seq()));
            }
            Ok(exit::OK)
        }
        Said::Refused(why) => Err(Failure::refused(format!("the server refuses this host: {why}"))
            .hint("look at it with hb hosts show, or enrol anew: hb register --server URL --force")),
        Said::Busy(status) => {
            Err(Failure::unreachable(format!("the server is busy ({status})")).hint("run it again in a while"))
        }
        Said::Stale => Err(Failure::unreachable(format!("the server gave {} nonces and took none", STALE_MAX + 1))
            .hint("see the server's log; does more than one server answer at this address?")),
        Said::Failed(trouble) => Err(trouble.into_failure()),
    }
}

/// Every address once, in order; a fresh nonce is tried at once.
async fn send(beater: &mut Beater, timeout: Duration) -> Said {
    let mut last = Said::Stale;
    for endpoint in 0..beater.post().urls().len() {
        for _ in 0..=STALE_MAX {
            let (outcome, said) = beater.attempt(endpoint, timeout, None).await;
            last = said;
            match outcome {
                cadence::Outcome::Stale => {}
                cadence::Outcome::Accepted { .. } | cadence::Outcome::Refused => return last,
                cadence::Outcome::Busy { .. } | cadence::Outcome::Failed => break,
            }
        }
    }
    last
}
