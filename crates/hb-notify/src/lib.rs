//! Alert channels: how a [`Notice`](hb_wire::view::Notice) reaches people.
//!
//! A channel is made once from what an operator typed ([`parse`]), kept by the store as JSON ([`Stored::settings`],
//! which holds its secrets), and opened again for each use ([`open`]); [`Channel::send`] makes one attempt and says
//! what to do next. When to try again, and whom to tell, is the caller's business: this crate touches no store, keeps
//! no queue and reads no clock but the timers of its own time-outs. [`Couriers`] puts them behind hb-api's port.
//!
//! | kind | settings |
//! | --- | --- |
//! | `webhook` | `url`, `headers` (templates), `body` (template), `secret` (made if absent) |
//! | `email` | `to`: one address or up to ten |
//! | `exec` | `program`: one that the server's `exec_programs` lists |
//!
//! **To add a kind**: write one file with its `KIND`, and add it to [`KINDS`].
//!
//! **Secrets** (a webhook's path, query, headers and signing secret, the SMTP password) are in no `Debug`, no error,
//! no [`Channel::target`] and no log line.

mod address;
mod channel;
mod courier;
mod email;
mod exec;
pub mod message;
mod rules;
mod settings;
mod smtp;
mod template;
mod text;
mod trust;
mod webhook;

use std::sync::Arc;

use secrecy::SecretString;
use serde_json::{Map, Value};

pub use crate::address::refusal;
pub use crate::channel::{Channel, Letter, REASON_CHARS_MAX, RETRY_AFTER_S_MAX, SendError};
pub use crate::courier::Couriers;
pub use crate::rules::{Lookup, Rules, SystemLookup, parse_networks};
pub use crate::settings::SettingsError;
pub use crate::smtp::{SmtpConfig, SmtpSettings, SmtpTls};
pub use crate::text::one_line;
pub use crate::trust::Trust;
pub use crate::webhook::{SIGNATURE_HEADER, signature};

use crate::settings::Fields;

/// One kind of channel.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Its word, as in `hb channels add WORD`.
    pub name: &'static str,
    /// The settings it knows.
    pub fields: &'static [&'static str],
    /// Adds what the operator left to the server, and hands out what is to be shown once.
    complete: fn(&mut Map<String, Value>, [u8; 32]) -> Option<SecretString>,
    /// Reads settings that are complete.
    open: Open,
}

type Open = fn(&Fields<'_>, &Rules) -> Result<Arc<dyn Channel>, SettingsError>;

/// Every kind of channel.
pub const KINDS: [Kind; 3] = [webhook::KIND, email::KIND, exec::KIND];

/// What the store keeps of a channel, and what its creator is shown.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The settings, complete, secrets included: for [`open`], and for nobody's eyes.
    pub settings: Kept,
    /// A secret that the server made: shown in the answer that creates the channel, and never again.
    pub secret: Option<SecretString>,
}

/// JSON that holds secrets: has no readable `Debug`.
#[derive(Clone, PartialEq)]
pub struct Kept(pub Value);

impl core::fmt::Debug for Kept {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Kept(…)")
    }
}

/// Makes a channel from what an operator typed. `random` is what a webhook's secret is made of, if none was given.
///
/// # Errors
/// [`SettingsError`], when the settings are wrong or this server's rules do not allow them.
pub fn parse(
    kind: &str,
    settings: &Value,
    rules: &Rules,
    random: [u8; 32],
) -> Result<(Arc<dyn Channel>, Stored), SettingsError> {
    let kind = find(kind)?;
    let mut complete = settings.clone();
    let secret = complete.as_object_mut().and_then(|map| (kind.complete)(map, random));
    let channel = open_as(kind, &complete, rules)?;
    channel.admit()?;
    Ok((channel, Stored { settings: Kept(complete), secret }))
}

/// Opens a channel that the store kept. It is not asked whether the rules still allow it (a listing must show it all
/// the same): [`Channel::send`] is.
///
/// # Errors
/// [`SettingsError`], when the stored settings cannot be read: they were not made by [`parse`].
pub fn open(kind: &str, stored: &Value, rules: &Rules) -> Result<Arc<dyn Channel>, SettingsError> {
    open_as(find(kind)?, stored, rules)
}

fn find(name: &str) -> Result<&'static Kind, SettingsError> {
    const ALL: &[Kind] = &KINDS;
    ALL.iter().find(|kind| kind.name == name).ok_or_else(|| SettingsError::UnknownKind {
        kind: one_line(name, 40),
        known: ALL.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", "),
    })
}

fn open_as(kind: &Kind, settings: &Value, rules: &Rules) -> Result<Arc<dyn Channel>, SettingsError> {
    (kind.open)(&Fields::read(kind.name, settings, kind.fields)?, rules)
}
