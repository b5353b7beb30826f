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
        // Decompression reads y modulo p: what does not compress back to itself is a second spelling.
        if key.to_edwards().compress().to_bytes() != self.0 {
            return Err(WeakKey::NotCanonical);
        }
        Ok(Verifier(key))
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 9421, B.1.4, and the same key as this crate must write it.
    const RFC_PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF\n\
        -----END PRIVATE KEY-----\n";
    const RFC_PUBLIC: &str = "JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs";

    #[test]
    fn a_key_is_read_and_written_as_the_rfc_has_it() {
        let key = HostKey::from_pem(RFC_PEM).unwrap();
        assert_eq!(key.public().to_string(), RFC_PUBLIC);
        assert_eq!(*key.to_pem(), RFC_PEM);
        let again = HostKey::from_pem(&HostKey::from_seed([7; 32]).to_pem()).unwrap();
        assert_eq!(again.public(), HostKey::from_seed([7; 32]).public());
        assert_eq!(HostKey::from_pem(&format!("\n{RFC_PEM}\n\n")).unwrap().public(), key.public());
    }

    #[test]
    fn version_2_of_pkcs8_is_read_too_and_its_public_half_must_fit() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let with_public = key.to_pkcs8_pem(LineEnding::LF).unwrap();
        assert_eq!(HostKey::from_pem(&with_public).unwrap().public().0, key.verifying_key().to_bytes());
        let wrong = KeypairBytes {
            secret_key: [7; 32],
            public_key: Some(ed25519_dalek::pkcs8::PublicKeyBytes(
                SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes(),
            )),
        };
        let wrong = wrong.to_pkcs8_pem(LineEnding::LF).unwrap();
        assert_eq!(HostKey::from_pem(&wrong).unwrap_err(), ParseKeyError::NotPkcs8);
    }

    #[test]
    fn anything_but_a_key_is_refused_without_showing_it() {
        for bad in ["", "secret", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", RFC_PUBLIC]
            .into_iter()
            .map(str::to_owned)
            .chain([
                RFC_PEM.replace("PRIVATE", "PUBLIC"),
                RFC_PEM.replace("MC4", "MC5"),
                RFC_PEM.replace("VwBC", "VuBC"),
            ])
        {
            assert_eq!(HostKey::from_pem(&bad).unwrap_err(), ParseKeyError::NotPkcs8, "{bad}");
        }
        assert_eq!(HostKey::from_pem(&"x".repeat(5_000)).unwrap_err(), ParseKeyError::TooLarge);
    }

    #[test]
    fn debug_shows_only_the_fingerprint() {
        let shown = format!("{:?}", HostKey::from_pem(RFC_PEM).unwrap());
        assert_eq!(shown, "HostKey(SHA256:sWwtG+rRJiY5dk/bDuTTd0WZM2vUk0BM2ksRNsWfIGI)");
    }

    #[test]
    fn a_public_key_has_one_spelling() {
        assert_eq!(PublicKey::parse(RFC_PUBLIC).unwrap().to_string(), RFC_PUBLIC);
        let json = format!("\"{RFC_PUBLIC}\"");
        assert_eq!(serde_json::from_str::<PublicKey>(&json).unwrap().to_string(), RFC_PUBLIC);
        for bad in [
            "",
            "JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bt",
            "JrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs",
            "JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs=",
            "JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0b",
        ] {
            assert!(PublicKey::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn signing_reproduces_rfc_8032() {
        // RFC 8032, section 7.1, test 2.
        let seed = crate::hex::bytes::<32>("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
        let key = HostKey::from_seed(seed);
        let signature = crate::hex::bytes::<64>(
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        );
        assert_eq!(key.sign(&[0x72]), signature);
        assert!(key.public().vetted().unwrap().verify(&[0x72], &signature));
        assert!(!key.public().verifying().unwrap().verify(&[0x73], &signature));
    }

    #[test]
    fn keys_of_small_order_and_second_spellings_are_refused() {
        // The eight points of small order and their non-canonical spellings, as libsodium's block list has them.
        for (hex, why) in [
            ("0100000000000000000000000000000000000000000000000000000000000000", WeakKey::SmallOrder),
            ("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", WeakKey::SmallOrder),
            ("0000000000000000000000000000000000000000000000000000000000000000", WeakKey::SmallOrder),
            ("0000000000000000000000000000000000000000000000000000000000000080", WeakKey::SmallOrder),
            ("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", WeakKey::SmallOrder),
            ("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85", WeakKey::SmallOrder),
            ("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a", WeakKey::SmallOrder),
            ("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa", WeakKey::SmallOrder),
            ("0100000000000000000000000000000000000000000000000000000000000080", WeakKey::SmallOrder),
            ("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", WeakKey::SmallOrder),
            ("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", WeakKey::SmallOrder),
            // y = 2 is no point of the curve; y = p + 3 is a second spelling of y = 3, a point of large order.
            ("0200000000000000000000000000000000000000000000000000000000000000", WeakKey::NotAPoint),
            ("f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", WeakKey::NotCanonical),
        ] {
            let key = PublicKey(crate::hex::bytes(hex));
            assert_eq!(key.verifying().unwrap_err(), why, "{hex}");
            assert_eq!(key.vetted().unwrap_err(), why, "{hex}");
        }
    }

    // "Taming the many EdDSAs" (Chalkias, Garillot, Nikolaenko; 2020), the vectors of its table: message, key, signature.
    const TAMING: [(&str, &str, &str); 10] = [
        (
            "8c93255d71dcab10e8f379c26200f3c7bd5f09d9bc3068d3ef4edeb4853022b6",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a\
             0000000000000000000000000000000000000000000000000000000000000000",
        ),
        (
            "9bd9f44f4dcc75bd531b56b2cd280b0bb38fc1cd6d1230e14861d861de092e79",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
            "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43\
             a5bb704786be79fc476f91d3f3f89b03984d8068dcf1bb7dfc6637b45450ac04",
        ),
        (
            "aebf3f2601a0c8c5d39cc7d8911642f740b78168218da8471772b35f9d35b9ab",
            "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa\
             8c4bd45aecaca5b24fb97bc10ac27ac8751a7dfe1baff8b953ec9f5833ca260e",
        ),
        (
            "9bd9f44f4dcc75bd531b56b2cd280b0bb38fc1cd6d1230e14861d861de092e79",
            "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
            "9046a64750444938de19f227bb80485e92b83fdb4b6506c160484c016cc1852f\
             87909e14428a7a1d62e9f22f3d3ad7802db02eb2e688b6c52fcd6648a98bd009",
        ),
        (
            "e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec4011eaccd55b53f56c",
            "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
            "160a1cb0dc9c0258cd0a7d23e94d8fa878bcb1925f2c64246b2dee1796bed512\
             5ec6bc982a269b723e0668e540911a9a6a58921d6925e434ab10aa7940551a09",
        ),
        (
            "e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec4011eaccd55b53f56c",
            "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
            "21122a84e0b5fca4052f5b1235c80a537878b38f3142356b2c2384ebad4668b7\
             e40bc836dac0f71076f9abe3a53f9c03c1ceeeddb658d0030494ace586687405",
        ),
        (
            "85e241a07d148b41e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec40",
            "442aad9f089ad9e14647b1ef9099a1ff4798d78589e66f28eca69c11f582a623",
            "e96f66be976d82e60150baecff9906684aebb1ef181f67a7189ac78ea23b6c0e\
             547f7690a0e2ddcd04d87dbc3490dc19b3b3052f7ff0538cb68afb369ba3a514",
        ),
        (
            "85e241a07d148b41e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec40",
            "442aad9f089ad9e14647b1ef9099a1ff4798d78589e66f28eca69c11f582a623",
            "8ce5b96c8f26d0ab6c47958c9e68b937104cd36e13c33566acd2fe8d38aa1942\
             7e71f98a473474f2f13f06f97c20d58cc3f54b8bd0d272f42b695dd7e89a8c22",
        ),
        (
            "fdaebc429f4a735932a160da1301080c13280eea8bc280d1b392c6b9e6ba3a5a",
            "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f\
             454d370c8d9fc323a41450f8d513eafeb5b0697390c1e505a0d4ddc71f566607",
        ),
        (
            "84b698d39be126ff55fe45079e6c8bf64a0d7db6994560b4e96b7021eb39c1a1",
            "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f\
             084d5b99c2a9463d9c8bd5026916996984eeec87ddf1d3be329006ace1b37b09",
        ),
    ];

    #[test]
    fn the_edge_cases_that_implementations_disagree_about_are_refused() {
        let mut accepted_by_lax_verification = 0;
        for (i, (message, key, signature)) in TAMING.iter().enumerate() {
            let message = crate::hex::bytes::<32>(message);
            let key = PublicKey(crate::hex::bytes(key));
            let signature = crate::hex::bytes::<64>(signature);
            let refused = key.vetted().map_or(true, |verifier| !verifier.verify(&message, &signature));
            assert!(refused, "vector {i}");
            let lax = VerifyingKey::from_bytes(&key.0).is_ok_and(|k| {
                ed25519_dalek::Verifier::verify(&k, &message, &Signature::from_bytes(&signature)).is_ok()
            });
            accepted_by_lax_verification += u32::from(lax);
        }
        assert!(accepted_by_lax_verification >= 3, "the vectors would prove nothing if anybody refused them");
    }

    #[test]
    fn a_signature_whose_s_was_raised_by_the_group_order_is_refused() {
        let order = crate::hex::bytes::<32>("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
        for seed in 0..64 {
            let key = HostKey::from_seed([seed; 32]);
            let mut signature = key.sign(b"beat");
            let mut carry = 0_u16;
            for (byte, add) in signature[32..].iter_mut().zip(order) {
                let sum = u16::from(*byte) + u16::from(add) + carry;
                *byte = sum.to_le_bytes()[0];
                carry = sum >> 8;
            }
            assert_eq!(carry, 0, "S + L fits 256 bits, so that it is a different spelling of the same S");
            assert!(!key.public().verifying().unwrap().verify(b"beat", &signature), "{seed}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn no_text_makes_a_key_parser_panic(text in "[A-Za-z0-9_-]{43}|.{0,60}", bytes: [u8; 32]) {
            if let Ok(key) = PublicKey::parse(&text) {
                prop_assert_eq!(key.to_string(), text);
            }
            let key = PublicKey(bytes);
            prop_assert_eq!(PublicKey::parse(&key.to_string()), Ok(key));
            if let Ok(verifier) = key.verifying() {
                prop_assert_eq!(verifier.public(), key);
            }
        }
    }
}
