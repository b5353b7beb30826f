//! What every channel provides, what it is given, and how it may fail.

use core::fmt;
use core::time::Duration;

use async_trait::async_trait;
use hb_wire::id::DeliveryId;
use hb_wire::view::Notice;
use jiff::Timestamp;

use crate::settings::SettingsError;
use crate::text::one_line;

/// Longest reason that an error carries, in characters: it is stored with the delivery and shown in a table.
pub const REASON_CHARS_MAX: usize = 400;

/// Longest wait that a receiver may ask for, in seconds: an alert must not be postponed for days by a header.
pub const RETRY_AFTER_S_MAX: u64 = 3_600;

/// A place where alerts go. `Debug` shows no secret.
#[async_trait]
pub trait Channel: Send + Sync + fmt::Debug {
    /// Delivers one letter, once. Returns within [`Channel::timeout`]; dropping the future abandons the attempt, which
    /// must then be taken for ambiguous.
    ///
    /// # Errors
    /// [`SendError`]: what to do next is in the variant.
    async fn send(&self, letter: &Letter<'_>) -> Result<(), SendError>;

    /// Asks whether this server's rules allow the channel, now. Needs no network. `send` asks again each time, for the
    /// rules may have changed since the channel was stored.
    ///
    /// # Errors
    /// [`SettingsError::Refused`], with the setting to change.
    fn admit(&self) -> Result<(), SettingsError>;

    /// Where it goes, in one line, without secrets: for listings.
    fn target(&self) -> String;

    /// The longest that `send` takes. A lease on a delivery must be longer.
    fn timeout(&self) -> Duration;
}

/// One message on its way to one channel.
#[derive(Debug, Clone, Copy)]
pub struct Letter<'a> {
    /// What happened.
    pub notice: &'a Notice,
    /// The delivery's id: the same in every attempt, so that the receiver can tell a repetition.
    pub key: DeliveryId,
    /// The server's time: goes into signatures and `Date` headers.
    pub at: Timestamp,
    /// Which attempt this is, counted from 1.
    pub attempt: u32,
}

/// Why a letter did not arrive, and so what to do with it.
///
/// The rule: what may heal without changing the letter (a dead receiver, a wrong password, a route that is missing
/// during a deployment) is temporary; what will be refused again for the same letter is permanent, so that people learn
/// of it at once and not after a day of retries.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// It did not arrive; try again later.
    #[error("{reason}")]
    Temporary {
        /// What happened, in one line without secrets.
        reason: String,
        /// Seconds that the receiver asked to be left alone, at most [`RETRY_AFTER_S_MAX`].
        retry_after_s: Option<u64>,
    },
    /// It will never arrive in this form.
    #[error("{reason}")]
    Permanent {
        /// What happened, in one line without secrets.
        reason: String,
    },
    /// It may have arrived: it was sent, and no answer came. Trying again may tell people twice, under the same key.
    #[error("{reason}")]
    Ambiguous {
        /// What happened, in one line without secrets.
        reason: String,
    },
}

impl SendError {
    /// Try again when the usual back-off says so.
    pub fn temporary(reason: impl AsRef<str>) -> Self {
        Self::Temporary { reason: one_line(reason.as_ref(), REASON_CHARS_MAX), retry_after_s: None }
    }

    /// Do not try again.
    pub fn permanent(reason: impl AsRef<str>) -> Self {
        Self::Permanent { reason: one_line(reason.as_ref(), REASON_CHARS_MAX) }
    }

    /// Try again, and count that it may be a repetition.
    pub fn ambiguous(reason: impl AsRef<str>) -> Self {
        Self::Ambiguous { reason: one_line(reason.as_ref(), REASON_CHARS_MAX) }
    }

    /// What happened, in one line without secrets.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Temporary { reason, .. } | Self::Permanent { reason } | Self::Ambiguous { reason } => reason,
        }
    }

    /// True when another attempt makes sense.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Permanent { .. })
    }
}
