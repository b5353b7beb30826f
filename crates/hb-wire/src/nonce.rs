//! The single-use number that makes a beat fresh without any clock: the server gives it, the next beat spends it.

use core::fmt;

use base64ct::{Base64UrlUnpadded, Encoding};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

/// Length of a nonce as text.
pub const NONCE_CHARS: usize = 22;

/// The text was not a nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a nonce is 22 characters of base64url without padding")]
pub struct ParseNonceError;

/// 128 bits from the server. On the wire: 22 characters of base64url without padding, in the one canonical spelling.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Nonce(pub [u8; 16]);

impl Nonce {
    /// What an agent sends that holds no nonce: never valid, answered by 409 and a real one.
    pub const NONE: Self = Self([0; 16]);

    /// Reads the canonical text.
    pub fn parse(text: &str) -> Result<Self, ParseNonceError> {
        if text.len() != NONCE_CHARS {
            return Err(ParseNonceError);
        }
        let mut buffer = [0_u8; 16];
        // The decoder checks that the last character encodes back to itself, so that one nonce has one spelling.
        Base64UrlUnpadded::decode(text, &mut buffer).map_err(|_| ParseNonceError)?;
        Ok(Self(buffer))
    }

    /// True for [`Nonce::NONE`].
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }
}

impl PartialEq for Nonce {
    /// In constant time.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Nonce {}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = [0_u8; NONCE_CHARS];
        f.write_str(Base64UrlUnpadded::encode(&self.0, &mut buffer).map_err(|_| fmt::Error)?)
    }
}

/// Only the first byte: enough to tell two apart in a log, useless to whoever reads it.
impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, ..] = self.0;
        write!(f, "Nonce({first:02x}…)")
    }
}

impl core::str::FromStr for Nonce {
    type Err = ParseNonceError;
    fn from_str(text: &str) -> Result<Self, ParseNonceError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Nonce {
    type Error = ParseNonceError;
    fn try_from(text: String) -> Result<Self, ParseNonceError> {
        Self::parse(&text)
    }
}

impl From<Nonce> for String {
    fn from(nonce: Nonce) -> Self {
        nonce.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_absent_nonce_is_22_times_a() {
        assert_eq!(Nonce::NONE.to_string(), "A".repeat(22));
        assert!(Nonce::parse(&"A".repeat(22)).unwrap().is_none());
        assert!(!Nonce([1; 16]).is_none());
    }

    #[test]
    fn only_the_canonical_spelling_is_read() {
        let good = "p4Q0v2hYz1mJtE9cX7sLdw";
        assert_eq!(Nonce::parse(good).unwrap().to_string(), good);
        for bad in [
            "",
            "p4Q0v2hYz1mJtE9cX7sLd",
            "p4Q0v2hYz1mJtE9cX7sLdww",
            "p4Q0v2hYz1mJtE9cX7sLdx",
            "p4Q0v2hYz1mJtE9cX7sLd/",
            "p4Q0v2hYz1mJtE9cX7sL==",
            "p4Q0v2hYz1mJtE9cX7sL w",
            "p4Q0v2hYz1mJtE9cX7sLé",
        ] {
            assert!(Nonce::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn debug_does_not_tell_the_nonce() {
        assert_eq!(format!("{:?}", Nonce([0xab; 16])), "Nonce(ab…)");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn every_nonce_has_exactly_one_spelling(bytes: [u8; 16], other in "[A-Za-z0-9_-]{22}") {
            let nonce = Nonce(bytes);
            prop_assert_eq!(Nonce::parse(&nonce.to_string()), Ok(nonce));
            let json = serde_json::to_string(&nonce).unwrap();
            prop_assert_eq!(serde_json::from_str::<Nonce>(&json).unwrap(), nonce);
            if let Ok(read) = Nonce::parse(&other) {
                prop_assert_eq!(read.to_string(), other);
            }
        }
    }
}
