//! `hb-server restore`.

use std::path::Path;

use hb_store_sqlite::{OpenError, SqliteStore};

use super::owner;
use crate::cli;
use crate::error::Failure;
use crate::say;
use crate::tls::{self, Files};

pub(super) fn run(args: &cli::Restore) -> Result<(), Failure> {
    let dir = &args.data.dir;
    owner::handing_over(dir, || restore(dir, &args.from))?;
    say(&format!("restored {} to {}", args.from.display(), dir.display()));
    Ok(())
}

fn restore(dir: &Path, from: &Path) -> Result<(), Failure> {
    let replaced = SqliteStore::restore(dir, from).map_err(|error| {
        // The hint of a missing database is to make one; a missing backup needs another.
        if let OpenError::Missing { path } = &error {
            let message = format!("there is no backup at {}", path.display());
            return Failure::failed(message).hint("check the path (--from)");
        }
        error.into()
    })?;
    if let Some(replaced) = replaced {
        say(&format!("the database before is kept as {}", replaced.display()));
    }
    let files = Files::own(dir);
    if !files.cert.exists() {
        // On a new machine: a backup holds the database, not the private key of the old one.
        let fingerprint = tls::make(&files, &["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()])?;
        say(&format!("certificate, made anew: {fingerprint}"));
    }
    Ok(())
}
