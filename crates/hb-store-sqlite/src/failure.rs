//! What can go wrong inside, and what the callers of the store are told of it.

use hb_store::StoreError;
use rusqlite::ErrorCode;

/// Why a piece of work on the database did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// SQLite refused.
    #[error("{0}")]
    Sql(#[from] rusqlite::Error),
    /// What is stored cannot be read as what it should be.
    #[error("{0}")]
    Corrupt(String),
}

/// What a piece of work on the database answers.
pub(crate) type Outcome<T> = Result<T, Failure>;

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Corrupt(format!("a stored document cannot be read: {error}"))
    }
}

impl Failure {
    /// True when the database, the disk or the memory failed, not merely this one piece of work: nothing of the group can be
    /// trusted to be written.
    pub(crate) fn is_grave(&self) -> bool {
        match self {
            Self::Corrupt(_) => false,
            Self::Sql(error) => !matches!(
                error.sqlite_error_code(),
                None | Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch)
            ),
        }
    }

    /// True when what is on the disk can no longer be known from this connection.
    pub(crate) fn is_io(&self) -> bool {
        matches!(self, Self::Sql(error) if matches!(
            error.sqlite_error_code(),
            Some(
                ErrorCode::SystemIoFailure
                    | ErrorCode::CannotOpen
                    | ErrorCode::DatabaseCorrupt
                    | ErrorCode::NotADatabase
                    | ErrorCode::ReadOnly
            )
        ))
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Corrupt(what) => Self::Corrupt(what),
            Failure::Sql(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Corrupt(error.to_string()),
                Some(ErrorCode::DiskFull) => Self::Unavailable("the disk is full".into()),
                Some(ErrorCode::ReadOnly) => Self::Unavailable("the database cannot be written".into()),
                _ => Self::Unavailable(error.to_string()),
            },
        }
    }
}
