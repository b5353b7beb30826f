//! A beat in this host's name, now, which may tell the server something: by the agent when it runs, else by oneself.

use std::time::Duration;

use hb_wire::beat::Intent;

use crate::account;
use crate::agent::beater::{Beater, Said, Stored};
use crate::agent::cadence::{Outcome, STALE_MAX};
use crate::agent::door;
use crate::config::Config;
use crate::context::Ctx;
use crate::error::Failure;
use crate::host;
use crate::identity::Identity;
use crate::journal::{Keeper, Lock};
use crate::place::Place;

/// Time for one attempt where the configuration says nothing.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Beats, and tells the server what this host is about to do.
///
/// # Errors
/// 78 when this host is not enrolled, 69 when the server was not reached, 77 when it refuses.
pub fn announce(ctx: &Ctx, place: Place, config: &Config, intent: Option<Intent>) -> Result<Stored, Failure> {
    if let Some(stored) = door::knock(&place.state, intent.as_ref())? {
        return Ok(stored);
    }
    once(ctx, place, config, intent)
}

/// As [`announce`], for a process that has work left to do as root: what gives root up is a thread of its own.
///
/// # Errors
/// As [`announce`].
pub fn apart(ctx: &Ctx, place: &Place, config: &Config, intent: Intent) -> Result<Stored, Failure> {
    std::thread::scope(|scope| {
        let telling = scope.spawn(|| announce(ctx, place.clone(), config, Some(intent)));
        telling.join().unwrap_or_else(|_| Err(Failure::bug("the thread that told the server has ended")))
    })
}

/// One beat from this process.
///
/// # Errors
/// As [`announce`]; 1 when another process beats for this host.
fn once(ctx: &Ctx, place: Place, config: &Config, intent: Option<Intent>) -> Result<Stored, Failure> {
    let identity = Identity::load(&place)?;
    if let Some(account) = account::to_become(&place) {
        account::become_it(account, &place)?;
    }
    let _lock = alone(&place)?;
    let state = place.state;
    let shown = state.path().display().to_string();
    let options = host::options(config, &identity.enrolled);
    let (mut beater, damage) = Beater::new(identity, options, &state, Keeper::Once)?;
    if let Some(damage) = damage {
        ctx.printer.warn(&format!("the journal in {shown} cannot be used: {damage}; starting a new one"));
    }
    if let Some(error) = beater.begin().error {
        ctx.printer.warn(&format!("{shown} cannot be written: {error}; the beat says so"));
    }
    let timeout = config.timeout.unwrap_or(TIMEOUT);
    let said = host::runtime()?.block_on(send(&mut beater, timeout, intent));
    // The nonce that came back saves the next beat a round trip; that it cannot be kept was said above.
    let _ = beater.write(None);
    let stored = said.outcome(beater.memory().seq())?;
    if !stored.trusted {
        ctx.printer.warn("this machine's clock is wrong: the server's certificate is good only by its own time");
    }
    Ok(stored)
}

/// Becomes the one that beats for this host.
///
/// # Errors
/// 1 when another process is.
pub fn alone(place: &Place) -> Result<Lock, Failure> {
    // A folder that cannot be made is found out, and told in the beat, when the journal is written.
    let _ = place.state.create();
    place.state.lock().ok_or_else(|| {
        let lock = place.state.path().join("lock");
        Failure::failed(format!("another hb beats for this host already (it holds {})", lock.display()))
            .hint("`hb agent` beats by itself; to beat by hand, stop it first: systemctl stop hb")
    })
}

/// Every address once, in order; a fresh nonce is tried at once.
async fn send(beater: &mut Beater, timeout: Duration, intent: Option<Intent>) -> Said {
    let mut last = Said::Stale;
    for endpoint in 0..beater.post().urls().len() {
        for _ in 0..=STALE_MAX {
            let (outcome, said) = beater.attempt(endpoint, timeout, intent.clone()).await;
            last = said;
            match outcome {
                Outcome::Stale => {}
                Outcome::Accepted { .. } | Outcome::Refused => return last,
                Outcome::Busy { .. } | Outcome::Failed => break,
            }
        }
    }
    last
}
