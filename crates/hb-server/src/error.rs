//! How a command fails: what happened, to what, and what to do next, in that order.

use core::fmt;
use std::io;
use std::path::Path;

use crate::exit;

/// A failed command. Rendered once, in [`crate::run`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The process's exit code, one of [`crate::exit`].
    pub exit: u8,
    /// What happened to what: lower case, no full stop, no secret.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl Failure {
    /// It failed, or the answer is no (1).
    pub fn failed(message: impl Into<String>) -> Self {
        Self::with(exit::FAILED, message)
    }

    /// The command was misused (2).
    pub fn usage(message: impl Into<String>) -> Self {
        Self::with(exit::USAGE, message)
    }

    /// The operating system does not allow it (77).
    pub fn refused(message: impl Into<String>) -> Self {
        Self::with(exit::REFUSED, message)
    }

    /// The configuration is wrong (78).
    pub fn config(message: impl Into<String>) -> Self {
        Self::with(exit::CONFIG, message)
    }

    /// A bug in hb (70).
    pub fn bug(message: impl Into<String>) -> Self {
        Self::with(exit::BUG, message)
    }

    /// A file or directory could not be used: `doing` says what was tried (`"read the certificate"`).
    pub fn file(doing: &str, path: &Path, error: &io::Error) -> Self {
        let message = format!("could not {doing} {}: {error}", path.display());
        let kind = error.kind();
        if kind == io::ErrorKind::PermissionDenied {
            let shown = path.display();
            let hint = format!("check the owner and the permissions of {shown} and of the directories above it");
            Self::refused(message).hint(hint)
        } else if kind == io::ErrorKind::StorageFull {
            Self::failed(message).hint("free some space and try again")
        } else if kind == io::ErrorKind::ReadOnlyFilesystem {
            Self::config(message).hint("the file system is mounted read-only")
        } else if kind == io::ErrorKind::NotFound && doing == "create" {
            Self::config(message).hint("check the path; make the directory first if it is missing")
        } else if matches!(kind, io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory) {
            Self::config(message).hint("something else is at this path: give another one")
        } else {
            Self::config(message)
        }
    }

    /// Says what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says what to do next, unless something better was said already.
    #[must_use]
    pub fn or_hint(self, hint: impl Into<String>) -> Self {
        if self.hint.is_some() { self } else { self.hint(hint) }
    }

    fn with(exit: u8, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}
