//! `hb-server backup`.

use hb_store_sqlite::SqliteStore;

use crate::cli;
use crate::error::Failure;
use crate::say;

pub(super) fn run(args: &cli::Backup) -> Result<(), Failure> {
    SqliteStore::backup_dir(&args.data.dir, &args.to)?;
    say(&format!("backup: {}", args.to.display()));
    Ok(())
}
