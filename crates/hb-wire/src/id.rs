//! Typed identifiers, so that an event cannot be passed where a host is meant.
//!
//! All of them are UUIDs (RFC 9562) on the wire. Hosts, events, incidents, deliveries and channels carry version 7
//! (sorted by time); a boot id is whatever the kernel says (version 4).

use core::fmt;
use core::str::FromStr;
use std::borrow::Cow;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use crate::name::echo;

/// Length of a UUID as text (RFC 9562, section 4).
const UUID_CHARS: usize = 36;

/// The text was not a UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a UUID: 36 characters such as 0199c2a4-5d1e-7b3a-9f00-1234567890ab")]
pub struct ParseIdError(String);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(value_type = String, format = Uuid))]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A version 7 UUID from a Unix time in milliseconds and ten random bytes: both are arguments, so that a
            /// simulated world is repeatable.
            #[must_use]
            pub fn mint(unix_ms: u64, random: [u8; 10]) -> Self {
                Self(uuid::Builder::from_unix_timestamp_millis(unix_ms, &random).into_uuid())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0.as_hyphenated())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let uuid = if text.len() == UUID_CHARS { Uuid::try_parse(text).ok() } else { None };
                uuid.map(Self).ok_or_else(|| ParseIdError(echo(text)))
            }
        }

        /// As [`FromStr`]: only the hyphenated form, so that a program that compares texts compares ids.
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }
    };
}

id!(
    /// A host: given by the server at registration, for ever; the name is only a label.
    HostId
);
id!(
    /// One event.
    EventId
);
id!(
    /// One incident: the events that belong together.
    IncidentId
);
id!(
    /// One delivery of one event to one channel; its text form is the `Idempotency-Key`.
    DeliveryId
);
id!(
    /// One channel.
    ChannelId
);
id!(
    /// One boot of a host's kernel (`/proc/sys/kernel/random/boot_id`).
    BootId
);
id!(
    /// One run of an agent; every start of `hb agent` makes a new one.
    RunId
);
