//! API keys and enrolment tokens: secrets that a typo and a leak scanner both recognise.
//!
//! `hbk_` (API key) or `hbe_` (enrolment token), 8 characters of id, `_`, 30 characters of secret (178 bits), and
//! 6 characters of CRC-32 over everything before them, all in base62 – the scheme of GitHub's tokens. The server stores
//! the id and the SHA-256 of the whole: with 178 random bits a slow hash would add nothing.

use core::fmt;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

/// Length of a secret as text.
pub const SECRET_CHARS: usize = 49;
/// For secret scanners: a regular expression that finds hb's secrets in any text.
pub const SCAN_PATTERN: &str = "\\bhb[ke]_[0-9A-Za-z]{8}_[0-9A-Za-z]{36}\\b";

const PREFIX_CHARS: usize = 4;
const ID_CHARS: usize = 8;
const RANDOM_CHARS: usize = 30;
const CHECKSUM_CHARS: usize = 6;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// What a secret is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SecretKind {
    /// An operator's or a program's API key.
    ApiKey,
    /// An enrolment token.
    Token,
}

impl SecretKind {
    /// How such a secret begins.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::ApiKey => "hbk_",
            Self::Token => "hbe_",
        }
    }
}

/// Why a text is not a secret. Never repeats the text: it may be a mistyped secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Something else altogether.
    #[error("not an API key (hbk_…) or enrolment token (hbe_…)")]
    NotASecret,
    /// Cut off, or with something appended.
    #[error("{0} characters long instead of {SECRET_CHARS}: it was not copied whole")]
    Length(usize),
    /// A character that no secret has.
    #[error("a character is wrong: the one at place {0} is not a letter or digit")]
    Character(usize),
    /// The checksum does not fit the rest.
    #[error("a character is wrong: the checksum at its end does not fit, compare it with the original")]
    Checksum,
}

/// An API key or enrolment token. Wiped when dropped; shown by [`Secret::expose`] only.
#[derive(Clone)]
pub struct Secret {
    kind: SecretKind,
    text: Zeroizing<String>,
}

impl Secret {
    /// Makes a secret from 48 random bytes, id included.
    ///
    /// The bytes are read as one number of 384 bits, of which 38 digits in base 62 (226.3 bits) are taken: each digit is
    /// off a uniform choice by less than 2⁻¹⁵⁰, and no bytes can be drawn that do not make a secret.
    #[must_use]
    pub fn mint(kind: SecretKind, mut random: [u8; 48]) -> Self {
        // Reserved at once: growing would leave copies of the secret behind.
        let mut text = Zeroizing::new(String::with_capacity(SECRET_CHARS));
        text.push_str(kind.prefix());
        for place in 0..ID_CHARS + RANDOM_CHARS {
            if place == ID_CHARS {
                text.push('_');
            }
            text.push(digit(divide_by_62(&mut random)));
        }
        random.zeroize();
        let checksum = checksum(&text);
        text.extend(checksum);
        Self { kind, text }
    }

    /// Reads a secret; a single wrong character is always noticed, here, without asking the server.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let kind = [SecretKind::ApiKey, SecretKind::Token]
            .into_iter()
            .find(|kind| text.starts_with(kind.prefix()))
            .ok_or(SecretError::NotASecret)?;
        let separator = PREFIX_CHARS + ID_CHARS;
        for (place, c) in text.chars().enumerate().skip(PREFIX_CHARS).take(SECRET_CHARS) {
            let fits = if place == separator { c == '_' } else { c.is_ascii_alphanumeric() };
            if !fits {
                return Err(SecretError::Character(place + 1));
            }
        }
        let found = text.chars().count();
        if found != SECRET_CHARS {
            return Err(SecretError::Length(found));
        }
        let (body, given) = text.split_at_checked(SECRET_CHARS - CHECKSUM_CHARS).ok_or(SecretError::NotASecret)?;
        if !checksum(body).into_iter().eq(given.chars()) {
            return Err(SecretError::Checksum);
        }
        Ok(Self { kind, text: Zeroizing::new(text.to_owned()) })
    }

    /// The public part, by which it is looked up, listed and revoked: 8 characters.
    #[must_use]
    pub fn id(&self) -> &str {
        self.text.get(PREFIX_CHARS..PREFIX_CHARS + ID_CHARS).expect("both constructors made 49 ASCII characters")
    }

    /// What it is for.
    #[must_use]
    pub fn kind(&self) -> SecretKind {
        self.kind
    }

    /// The SHA-256 of the whole text: what the server stores.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.text.as_bytes()).into()
    }

    /// The secret itself, to be shown once or sent.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }
}

/// Shows the id only.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({}{}…)", self.kind.prefix(), self.id())
    }
}

/// Compares two hashes in constant time.
#[must_use]
pub fn hash_eq(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.ct_eq(b).into()
}

/// Divides a big-endian number by 62 in place and returns the remainder.
fn divide_by_62(number: &mut [u8]) -> u8 {
    let mut remainder = 0_u16;
    for byte in number {
        let dividend = (remainder << 8) | u16::from(*byte);
        // The remainder is below 62, so that the dividend is below 62 * 256 and the quotient fits a byte.
        *byte = (dividend / 62).to_le_bytes()[0];
        remainder = dividend % 62;
    }
    remainder.to_le_bytes()[0]
}

/// One character of base62.
fn digit(value: u8) -> char {
    char::from(*BASE62.get(usize::from(value)).expect("a remainder of a division by 62"))
}

/// The CRC-32 (ISO 3309) of a text as six digits of base62, the most significant first.
fn checksum(text: &str) -> [char; CHECKSUM_CHARS] {
    let mut rest = crc32fast::hash(text.as_bytes()).to_be_bytes();
    let mut digits = ['0'; CHECKSUM_CHARS];
    for place in digits.iter_mut().rev() {
        *place = digit(divide_by_62(&mut rest));
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn random(seed: u8) -> [u8; 48] {
        core::array::from_fn(|i| seed.wrapping_mul(31).wrapping_add(u8::try_from(i).unwrap().wrapping_mul(97)))
    }

    #[test]
    fn a_secret_has_the_documented_form() {
        let key = Secret::mint(SecretKind::ApiKey, random(1));
        assert_eq!(key.expose(), "hbk_K1ZMKCY5_BVzbcZaqz5LWnA9OEYobRA8mTW7VQ63jqGoE");
        assert_eq!(key.expose().len(), SECRET_CHARS);
        assert_eq!(key.id(), &key.expose()[4..12]);
        assert_eq!(key.kind(), SecretKind::ApiKey);
        assert!(Secret::mint(SecretKind::Token, random(1)).expose().starts_with("hbe_"));
        assert_eq!(Secret::mint(SecretKind::ApiKey, [0; 48]).id(), "00000000");
        assert_eq!(Secret::mint(SecretKind::ApiKey, [255; 48]).expose().len(), SECRET_CHARS);
    }

    #[test]
    fn a_secret_is_read_back_and_hashed_whole() {
        let key = Secret::mint(SecretKind::Token, random(2));
        let read = Secret::parse(key.expose()).unwrap();
        assert_eq!((read.id(), read.kind(), read.expose()), (key.id(), SecretKind::Token, key.expose()));
        assert!(hash_eq(&read.hash(), &key.hash()));
        assert!(!hash_eq(&read.hash(), &Secret::mint(SecretKind::Token, random(3)).hash()));
        assert_eq!(key.hash()[..], Sha256::digest(key.expose())[..]);
    }

    #[test]
    fn every_typo_of_one_character_is_noticed() {
        for seed in 0..4 {
            let key = Secret::mint(SecretKind::ApiKey, random(seed));
            for place in 0..SECRET_CHARS {
                for wrong in (0x20..0x7f_u8).map(char::from).chain(['é', '\u{200b}', '\0', 'Ā']) {
                    let typo: String =
                        key.expose().chars().enumerate().map(|(i, c)| if i == place { wrong } else { c }).collect();
                    assert_eq!(Secret::parse(&typo).is_ok(), typo == key.expose(), "{typo}");
                }
            }
        }
    }

    #[test]
    fn swapped_neighbours_and_cut_or_grown_secrets_are_noticed() {
        let key = Secret::mint(SecretKind::ApiKey, random(5));
        let text = key.expose();
        for i in 0..SECRET_CHARS - 1 {
            let mut swapped = text.as_bytes().to_vec();
            swapped.swap(i, i + 1);
            let swapped = String::from_utf8(swapped).unwrap();
            assert_eq!(Secret::parse(&swapped).is_ok(), swapped == text);
        }
        for length in 0..SECRET_CHARS {
            assert!(Secret::parse(&text[..length]).is_err());
        }
        assert_eq!(Secret::parse(&text[..40]).unwrap_err(), SecretError::Length(40));
        assert_eq!(Secret::parse(&format!("{text}A")).unwrap_err(), SecretError::Length(50));
        assert_eq!(Secret::parse(&format!("{text}\n")).unwrap_err(), SecretError::Character(50));
        assert_eq!(Secret::parse(&format!(" {text}")).unwrap_err(), SecretError::NotASecret);
    }

    #[test]
    fn neither_debug_nor_an_error_shows_the_secret() {
        let key = Secret::mint(SecretKind::ApiKey, random(6));
        assert_eq!(format!("{key:?}"), format!("Secret(hbk_{}…)", key.id()));
        for place in 0..SECRET_CHARS {
            let mut typo = key.expose().to_owned();
            typo.replace_range(place..=place, "!");
            let error = Secret::parse(&typo).unwrap_err().to_string();
            assert!(!error.contains(&key.expose()[13..20]), "{error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn any_random_bytes_make_a_readable_secret(low: [u8; 32], high: [u8; 16]) {
            let mut random = [0; 48];
            random[..16].copy_from_slice(&high);
            random[16..].copy_from_slice(&low);
            let secret = Secret::mint(SecretKind::ApiKey, random);
            prop_assert!(Secret::parse(secret.expose()).is_ok());
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "hb[ke]_[0-9A-Za-z_]{40,50}|.{0,60}|hbk_.{45}") {
            if let Ok(secret) = Secret::parse(&text) {
                prop_assert_eq!(secret.expose(), text);
            }
        }
    }
}
