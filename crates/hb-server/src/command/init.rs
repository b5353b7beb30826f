//! `hb-server init`.

use std::path::Path;

use hb_core::time::Time;
use hb_store::Store as _;
use hb_store_sqlite::{Options, SqliteStore};

use super::admin_key::{hand_out, unstored};
use super::owner;
use crate::cli;
use crate::error::Failure;
use crate::say;
use crate::tls::{self, Files};

pub(super) fn run(args: &cli::Init) -> Result<(), Failure> {
    let dir = &args.data.dir;
    let store = owner::handing_over(dir, || Ok(SqliteStore::open(dir, &Options::creating())?))?;
    super::wait_for(async {
        let keys = store.keys().await.map_err(|error| unstored(dir, &error))?;
        // A run that was interrupted before it handed out a key is simply finished.
        if keys.iter().any(|key| key.is_live(Time::ZERO)) {
            return Err(initialised(dir));
        }
        let fingerprint = tls::make(&Files::own(dir), &names(&args.name))?;
        say(&format!("database: {}", hb_store_sqlite::database(dir).display()));
        say(&format!("certificate: {fingerprint}"));
        owner::hand_over(dir)?;
        hand_out(&store, dir, "first", || say("the first admin key follows on stdout; it is shown this once:")).await
    })?
}

fn initialised(dir: &Path) -> Failure {
    Failure::failed(format!("{} is initialised already: nothing was changed", dir.display())).hint(
        "serve it with `hb-server serve`, make a lost key anew with `hb-server admin-key`, or name another --data",
    )
}

/// What the self-signed certificate is for: this machine, by every name that it knows of itself, and what was asked for.
fn names(more: &[String]) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    names.extend(hostname::get().ok().and_then(|name| name.into_string().ok()).filter(|name| !name.is_empty()));
    names.extend(more.iter().cloned());
    names.retain(|name| name.is_ascii());
    names.dedup();
    names
}
