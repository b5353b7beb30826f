//! `hb-server admin-key`: another admin key, and what `init` shares with it.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;

use hb_core::access::ApiKey;
use hb_core::time::Time;
use hb_store::{Store as _, StoreError};
use hb_store_sqlite::{Options, SqliteStore};
use hb_wire::api_key::{Secret, SecretKind};
use hb_wire::id::BootId;
use hb_wire::view::Scope;

use super::owner;
use crate::cli;
use crate::clock::Readings;
use crate::entropy::random;
use crate::error::Failure;

pub(super) fn run(args: &cli::AdminKey) -> Result<(), Failure> {
    let name = hb_api::keys::label(&args.name)
        .map_err(|problem| Failure::usage(format!("--{}", problem.detail)).hint("a few plain words for people"))?;
    let dir = &args.data.dir;
    // Before the key is made: one that was shown must not be followed by a failure.
    let store = owner::handing_over(dir, || Ok(SqliteStore::open(dir, &Options::default())?))?;
    super::wait_for(hand_out(&store, dir, &name, || ()))?
}

/// Stores a new admin key and prints it, alone, on stdout, after `announce`. A key that nobody saw is taken back.
pub(super) async fn hand_out(
    store: &SqliteStore,
    dir: &Path,
    name: &str,
    announce: impl FnOnce(),
) -> Result<(), Failure> {
    let now = Time(Readings::take(BootId::mint(0, [0; 10])).wall_ms);
    let secret = Secret::mint(SecretKind::ApiKey, random());
    let key = ApiKey {
        id: secret.id().to_owned(),
        hash: secret.hash(),
        name: name.to_owned(),
        scopes: BTreeSet::from([Scope::Admin]),
        created_at: now,
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
    };
    if !store.add_key(&key).await.map_err(|error| unstored(dir, &error))? {
        return Err(Failure::failed("the new key's id is taken already").hint("run the command again"));
    }
    announce();
    let mut out = std::io::stdout().lock();
    let printed = writeln!(out, "{}", secret.expose()).and_then(|()| out.flush());
    drop(out);
    match printed {
        Ok(()) => Ok(()),
        Err(error) => {
            store.revoke_key(&key.id, now).await.map_err(|error| unstored(dir, &error))?;
            Err(Failure::failed(format!("the key could not be written to stdout, so it was taken back: {error}"))
                .hint("see that stdout can be written, and run the command again"))
        }
    }
}

pub(super) fn unstored(dir: &Path, error: &StoreError) -> Failure {
    let database = hb_store_sqlite::database(dir);
    Failure::failed(format!("the key could not be stored in {}: {error}", database.display())).hint(format!(
        "see that there is space left for {} and that it can be written, and run the command again",
        dir.display()
    ))
}
