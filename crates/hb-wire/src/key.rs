//! Host keys: Ed25519 (RFC 8032), strict on every edge that implementations disagree about.
//!
//! The key is the identity of a host. The private half stays on the host; the server knows public halves only.

use core::fmt;

use base64ct::{Base64Unpadded, Base64UrlUnpadded, Encoding};
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize as _, Zeroizing};

/// Length of a public key as text.
pub const PUBLIC_KEY_CHARS: usize = 43;
/// Largest key file that is read, in bytes; a real one has 119.
pub const PEM_BYTES_MAX: usize = 4096;

/// The file does not hold a private key that hb can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseKeyError {
    /// Larger than [`PEM_BYTES_MAX`].
    #[error("larger than {PEM_BYTES_MAX} bytes, which no Ed25519 key is")]
    TooLarge,
    /// Anything but an unencrypted Ed25519 key in PKCS#8.
    #[error("not an unencrypted Ed25519 private key in PKCS#8 PEM (\"-----BEGIN PRIVATE KEY-----\")")]
    NotPkcs8,
}

/// The text was not a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a public key is 32 bytes in 43 characters of base64url without padding")]
pub struct ParsePublicKeyError;

/// A public key with which signatures prove nothing, or that other implementations read differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WeakKey {
    /// No point of the curve has this encoding.
    #[error("the public key is not a point of the curve")]
    NotAPoint,
    /// A second spelling of a point: two keys that look different would be one.
    #[error("the public key is not in canonical form")]
    NotCanonical,
    /// Of small order: anybody can make signatures that it accepts.
    #[error("the public key is of small order: it would accept forged signatures")]
    SmallOrder,
    /// With a component of small order: implementations disagree about its signatures.
    #[error("the public key has a component of small order, which no honest key has")]
    MixedOrder,
}

/// A host's private key. Never shown, wiped when dropped.
pub struct HostKey(SigningKey);

impl HostKey {
    /// A key from 32 random bytes (RFC 8032, section 5.1.5).
    #[must_use]
    pub fn from_seed(mut seed: [u8; 32]) -> Self {
        let key = SigningKey::from_bytes(&seed);
        seed.zeroize();
        Self(key)
    }

    /// Reads PKCS#8 PEM, version 1 or 2 (RFC 8410, RFC 5958).
    pub fn from_pem(pem: &str) -> Result<Self, ParseKeyError> {
        if pem.len() > PEM_BYTES_MAX {
            return Err(ParseKeyError::TooLarge);
        }
        SigningKey::from_pkcs8_pem(pem.trim()).map(Self).map_err(|_| ParseKeyError::NotPkcs8)
    }

    /// Writes PKCS#8 PEM, version 1: OpenSSL before 3.2 does not read version 2 for this kind of key.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        KeypairBytes { secret_key: self.0.to_bytes(), public_key: None }
            .to_pkcs8_pem(LineEnding::LF)
            .expect("32 bytes always fit the PKCS#8 structure")
    }

    /// Signs. Deterministic: the same message gives the same signature.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }
}

/// Shows the public half only.
impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostKey({})", self.public().fingerprint())
    }
}

/// A host's public key as stored and sent: 32 bytes, not yet known to be a good one (see [`PublicKey::verifying`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// Reads 43 characters of base64url without padding, in the one canonical spelling.
    pub fn parse(text: &str) -> Result<Self, ParsePublicKeyError> {
        if text.len() != PUBLIC_KEY_CHARS {
            return Err(ParsePublicKeyError);
        }
        let mut bytes = [0_u8; 32];
        Base64UrlUnpadded::decode(text, &mut bytes).map_err(|_| ParsePublicKeyError)?;
        Ok(Self(bytes))
    }

    /// `SHA256:` and the SHA-256 of the 32 bytes in base64 without padding: for people to compare.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        format!("SHA256:{}", Base64Unpadded::encode_string(&Sha256::digest(self.0)))
    }

    /// Makes it ready to verify with; refuses keys that are not points, not canonical or of small order.
    ///
    /// Cheap enough for every request. At enrolment, use [`PublicKey::vetted`].
    pub fn verifying(&self) -> Result<Verifier, WeakKey> {
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| WeakKey::NotAPoint)?;
        if key.is_weak() {
            return Err(WeakKey::SmallOrder);
        }
        if !self.is_canonical() {
            return Err(WeakKey::NotCanonical);
        }
        Ok(Verifier(key))
    }

    /// True when y is below p = 2²⁵⁵ - 19: decompression reads y modulo p, so that the rest are second spellings.
    ///
    /// The other kind of second spelling, x = 0 with a sign, belongs to two points of small order.
    fn is_canonical(&self) -> bool {
        let [low, middle @ .., high] = &self.0;
        *low < 0xed || high & 0x7f != 0x7f || middle.iter().any(|byte| *byte != 0xff)
    }

    /// The full check, for enrolment: as [`PublicKey::verifying`], and refuses points with a component of small order,
    /// which no key made from a seed has and about whose signatures implementations disagree.
    ///
    /// Costs about as much as one verification.
    pub fn vetted(&self) -> Result<Verifier, WeakKey> {
        let verifier = self.verifying()?;
        if verifier.0.to_edwards().is_torsion_free() { Ok(verifier) } else { Err(WeakKey::MixedOrder) }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = [0_u8; PUBLIC_KEY_CHARS];
        f.write_str(Base64UrlUnpadded::encode(&self.0, &mut buffer).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl core::str::FromStr for PublicKey {
    type Err = ParsePublicKeyError;
    fn from_str(text: &str) -> Result<Self, ParsePublicKeyError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for PublicKey {
    type Error = ParsePublicKeyError;
    fn try_from(text: String) -> Result<Self, ParsePublicKeyError> {
        Self::parse(&text)
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

/// A public key that was found good, parsed and ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verifier(VerifyingKey);

impl Verifier {
    /// Verifies strictly: canonical S (RFC 8032, section 5.1.7), canonical R, nothing of small order, no cofactor.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }

    /// The key as bytes.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.to_bytes())
    }
}

#[cfg(test)]
mod tests;
