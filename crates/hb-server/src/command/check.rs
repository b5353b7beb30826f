//! `hb-server check`.

use std::io::Write as _;

use hb_store_sqlite::SqliteStore;

use crate::cli;
use crate::error::Failure;

pub(super) fn run(args: &cli::Check) -> Result<(), Failure> {
    let problems = SqliteStore::check(&args.data.dir)?;
    let database = hb_store_sqlite::database(&args.data.dir);
    let mut lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    if lines.is_empty() {
        lines.push("ok".to_owned());
    }
    let text = lines.join("\n");
    writeln!(std::io::stdout().lock(), "{text}").map_err(|error| {
        Failure::failed(format!("the answer could not be written to stdout: {error}")).hint("see where stdout goes")
    })?;
    if problems.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(format!("{} is not sound, problems found: {}", database.display(), problems.len()))
        .hint("stop the server and restore a backup with `hb-server restore`; what is replaced is kept"))
}
