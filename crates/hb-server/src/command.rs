//! The commands.

use hb_store_sqlite::OpenError;

use crate::cli::Command;
use crate::error::Failure;

mod admin_key;
mod backup;
mod check;
mod completions;
mod init;
mod man;
mod owner;
mod restore;
mod serve;

/// Runs a command to its end.
///
/// # Errors
/// What happened, to what, and what to do next.
pub fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Init(args) => init::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Backup(args) => backup::run(args),
        Command::Restore(args) => restore::run(args),
        Command::Check(args) => check::run(args),
        Command::AdminKey(args) => admin_key::run(args),
        Command::Man => man::run(),
        Command::Completions(args) => completions::run(args),
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let text = error.to_string();
        let (message, hint) = match text.split_once("\nhint: ") {
            Some((message, hint)) => (message.to_owned(), Some(hint.to_owned())),
            None => (text, None),
        };
        let failure = match &error {
            // What only an operator can change, by installing, mounting or naming something else.
            OpenError::Missing { .. }
            | OpenError::Empty { .. }
            | OpenError::ReadOnly { .. }
            | OpenError::Foreign { .. }
            | OpenError::Newer { .. } => Self::config(message),
            OpenError::Denied { .. } => Self::refused(message),
            OpenError::Io { path, source, what } => Self::file(what, path, source),
            OpenError::Locked { .. }
            | OpenError::Full { .. }
            | OpenError::Damaged { .. }
            | OpenError::BadBackup { .. }
            | OpenError::Exists { .. }
            | OpenError::Sql { .. } => Self::failed(message),
        };
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// Runs something that waits, for a command that does one thing and ends.
fn wait_for<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let started = runtime.map_err(|error| {
        Failure::failed(format!("could not start: {error}")).hint("see the limits on processes (ulimit -u)")
    });
    Ok(started?.block_on(work))
}
