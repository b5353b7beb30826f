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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_minted_id_is_a_version_7_uuid_sorted_by_time() {
        let early = HostId::mint(1_795_444_000_000, [0xff; 10]);
        let late = HostId::mint(1_795_444_000_001, [0; 10]);
        assert!(early < late && early.to_string() < late.to_string());
        assert_eq!(late.to_string(), "01a208cd-4501-7000-8000-000000000000");
        assert_eq!(format!("{late:?}"), "HostId(01a208cd-4501-7000-8000-000000000000)");
    }

    #[test]
    fn only_the_hyphenated_form_is_read_from_text_and_from_json() {
        let good = "01a209b5-2a41-7000-8000-000000000000";
        assert_eq!(good.parse::<HostId>().unwrap().to_string(), good);
        assert_eq!(serde_json::from_str::<HostId>(&format!("\"{good}\"")).unwrap().to_string(), good);
        for bad in ["", "web1", &good.replace('-', ""), &format!("{{{good}}}"), &format!("urn:uuid:{good}"), &good[1..]]
        {
            assert!(bad.parse::<HostId>().is_err(), "{bad}");
            assert!(serde_json::from_str::<HostId>(&format!("\"{bad}\"")).is_err(), "{bad}");
        }
        assert_eq!(
            "a\nb".parse::<HostId>().unwrap_err().to_string(),
            "\"a\\u{a}b\" is not a UUID: 36 characters such as 0199c2a4-5d1e-7b3a-9f00-1234567890ab"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn no_text_makes_the_parser_panic(text in "[0-9a-fA-F-]{30,40}|.{0,50}") {
            if let Ok(id) = text.parse::<EventId>() {
                prop_assert_eq!(id.to_string(), text.to_ascii_lowercase());
            }
        }
    }
}
