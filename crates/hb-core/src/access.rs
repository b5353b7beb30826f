//! Who may do what: API keys, enrolment tokens; and where messages go: channels.

use std::collections::BTreeSet;

use hb_wire::id::ChannelId;
use hb_wire::key::PublicKey;
use hb_wire::name::Tags;
use hb_wire::view::Scope;
use serde::{Deserialize, Serialize};

use crate::time::Time;

/// An API key. The secret itself is never stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// The public part of the secret.
    pub id: String,
    /// SHA-256 of the secret: it has 178 bits of entropy, so that no slow hash is needed.
    pub hash: [u8; 32],
    /// For people.
    pub name: String,
    /// What it may do.
    pub scopes: BTreeSet<Scope>,
    /// When it was made.
    pub created_at: Time,
    /// When it ends.
    pub expires_at: Option<Time>,
    /// When it was revoked.
    pub revoked_at: Option<Time>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Time>,
}

impl ApiKey {
    /// True while it may be used.
    #[must_use]
    pub fn is_live(&self, now: Time) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }

    /// True when it carries the scope. `admin` carries all, `operate` carries `read`.
    #[must_use]
    pub fn allows(&self, scope: Scope) -> bool {
        self.scopes.contains(&Scope::Admin)
            || self.scopes.contains(&scope)
            || (scope == Scope::Read && self.scopes.contains(&Scope::Operate))
    }
}

/// An enrolment token. The secret itself is never stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The public part of the secret.
    pub id: String,
    /// SHA-256 of the secret.
    pub hash: [u8; 32],
    /// Hosts that it may still enrol.
    pub uses_left: u32,
    /// Labels that it gives.
    pub tags: Tags,
    /// When it was made.
    pub created_at: Time,
    /// When it ends.
    pub expires_at: Time,
    /// When it was revoked.
    pub revoked_at: Option<Time>,
    /// The keys that it enrolled: the same key again gets the same answer, so that a lost answer costs nothing.
    pub redeemed: Vec<PublicKey>,
}

impl Token {
    /// True while it may enrol one more host.
    #[must_use]
    pub fn is_live(&self, now: Time) -> bool {
        self.revoked_at.is_none() && now < self.expires_at && self.uses_left > 0
    }
}

/// Where messages go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// Its id.
    pub id: ChannelId,
    /// Its name, unique.
    pub name: String,
    /// `webhook`, `email`, `exec`.
    pub kind: String,
    /// What the kind needs, secrets included, as the kind wrote it.
    pub settings: serde_json::Value,
    /// One line without secrets.
    pub target: String,
    /// Gets hb's own notices.
    pub admin: bool,
    /// When it was made.
    pub created_at: Time,
    /// When a message last arrived.
    pub last_delivered_at: Option<Time>,
    /// Why the last attempt failed; none when it did not.
    pub last_error: Option<String>,
}
