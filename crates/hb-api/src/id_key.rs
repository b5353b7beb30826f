//! What a host brings along so that nothing has to be read for its beat, where each read is paid for (DynamoDB).
//!
//! - Its **id**: a stranger must not be able to cause a read. The last five bytes are a message authentication code
//!   (HMAC-SHA-256, RFC 2104, cut) over the rest of it. That is no proof of anything but of who made the id.
//! - Its **pass**, given with an answer: the host's public key and interval as they were read at an instant, with a code over
//!   them and the id. It stands in for the read that a process needs for each host that it has not met, and is no more than
//!   that: the host signs with its own key, the write's condition decides, and nothing in it is secret.

use base64ct::{Base64UrlUnpadded, Encoding as _};
use hb_core::time::Time;
use hb_store::Signer;
use hb_wire::id::HostId;
use hb_wire::key::PublicKey;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

/// Bytes of the code: a made-up id passes once in 10¹² times, and then costs one read.
const CODE_BYTES: usize = 5;
/// Bytes of a pass before its code: key, interval, instant.
const CLAIM_BYTES: usize = 32 + 8 + 8;
/// Bytes of the code of a pass: nobody makes up 2¹²⁸ of them.
const SEAL_BYTES: usize = 16;

/// The key of the codes.
#[derive(Clone, PartialEq, Eq)]
pub struct IdKey([u8; 32]);

impl core::fmt::Debug for IdKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("IdKey(…)")
    }
}

impl IdKey {
    /// From 32 secret bytes.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    /// A new id: the first half of the random bytes makes it unique, the code takes the place of the second.
    #[must_use]
    pub fn mint(&self, unix_ms: u64, random: [u8; 10]) -> HostId {
        let mut bytes = *HostId::mint(unix_ms, random).0.as_bytes();
        let (rest, code) = bytes.split_at_mut(16 - CODE_BYTES);
        code.copy_from_slice(&self.code(rest));
        HostId(uuid::Uuid::from_bytes(bytes))
    }

    /// Whether an id was minted with this key.
    #[must_use]
    pub fn made(&self, id: HostId) -> bool {
        let (rest, code) = id.0.as_bytes().split_at(16 - CODE_BYTES);
        self.code(rest).ct_eq(code).into()
    }

    /// The pass of a host whose beats were checked by `signer` as of `read_at`.
    #[must_use]
    pub fn pass(&self, id: HostId, signer: &Signer, read_at: Time) -> String {
        let mut bytes = [0; CLAIM_BYTES + SEAL_BYTES];
        let (claim, seal) = bytes.split_at_mut(CLAIM_BYTES);
        claim[..32].copy_from_slice(&signer.key.0);
        claim[32..40].copy_from_slice(&signer.interval_ms.to_be_bytes());
        claim[40..].copy_from_slice(&read_at.0.to_be_bytes());
        seal.copy_from_slice(&self.seal(id, claim));
        Base64UrlUnpadded::encode_string(&bytes)
    }

    /// What a pass says, if it was made with this key for this host: what its beats are checked by, and as of when.
    #[must_use]
    pub fn read_pass(&self, id: HostId, pass: &str) -> Option<(Signer, Time)> {
        let mut bytes = [0; CLAIM_BYTES + SEAL_BYTES];
        if Base64UrlUnpadded::decode(pass, &mut bytes).ok()?.len() != CLAIM_BYTES + SEAL_BYTES {
            return None;
        }
        let (claim, seal) = bytes.split_at(CLAIM_BYTES);
        if !bool::from(self.seal(id, claim).ct_eq(seal)) {
            return None;
        }
        let number = |bytes: &[u8]| bytes.try_into().map(u64::from_be_bytes).ok();
        let key = PublicKey(claim[..32].try_into().ok()?);
        Some((Signer { key, next_key: None, interval_ms: number(&claim[32..40])? }, Time(number(&claim[40..])?)))
    }

    fn code(&self, rest: &[u8]) -> [u8; CODE_BYTES] {
        self.mac(&[rest])
    }

    /// Over more bytes than any id has, so that one kind of code is never taken for the other.
    fn seal(&self, id: HostId, claim: &[u8]) -> [u8; SEAL_BYTES] {
        self.mac(&[b"pass", id.0.as_bytes(), claim])
    }

    fn mac<const N: usize>(&self, parts: &[&[u8]]) -> [u8; N] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        for part in parts {
            mac.update(part);
        }
        let full = mac.finalize().into_bytes();
        let mut cut = [0; N];
        cut.copy_from_slice(&full[..N]);
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_known_by_its_maker_and_stays_a_uuid_sorted_by_time() {
        let key = IdKey::new([7; 32]);
        let id = key.mint(1_795_444_000_000, [9; 10]);
        assert!(key.made(id));
        assert!(!IdKey::new([8; 32]).made(id), "another server's");
        assert!(!key.made(HostId::mint(1_795_444_000_000, [9; 10])), "an id without a code");
        assert_eq!(id.0.get_version_num(), 7);
        assert!(id < key.mint(1_795_444_000_001, [0; 10]));
        assert_ne!(id, key.mint(1_795_444_000_000, [10; 10]));
    }

    #[test]
    fn an_id_with_any_bit_changed_is_made_up() {
        let key = IdKey::new([7; 32]);
        let id = key.mint(1_795_444_000_000, [9; 10]);
        for bit in 0..128 {
            let mut bytes = *id.0.as_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.made(HostId(uuid::Uuid::from_bytes(bytes))), "bit {bit}");
        }
    }

    #[test]
    fn a_pass_says_what_was_read_of_one_host_to_the_server_that_made_it() {
        let key = IdKey::new([7; 32]);
        let id = key.mint(1_795_444_000_000, [9; 10]);
        let signer = Signer { key: PublicKey([3; 32]), next_key: None, interval_ms: 60_000 };
        let pass = key.pass(id, &signer, Time(1_795_444_000_123));
        assert!(pass.len() <= hb_wire::beat::PASS_CHARS_MAX);
        assert_eq!(key.read_pass(id, &pass), Some((signer, Time(1_795_444_000_123))));
        assert_eq!(IdKey::new([8; 32]).read_pass(id, &pass), None, "another server's");
        assert_eq!(key.read_pass(key.mint(1_795_444_000_000, [8; 10]), &pass), None, "another host's");
        for wrong in ["", "AAAA", &pass[1..], &format!("{pass}A"), &format!("{pass}="), &"A".repeat(10_000)] {
            assert_eq!(key.read_pass(id, wrong), None, "{wrong}");
        }
        let bytes = Base64UrlUnpadded::decode_vec(&pass).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.read_pass(id, &Base64UrlUnpadded::encode_string(&bytes)), None, "bit {bit}");
        }
    }
}
