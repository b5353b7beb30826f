//! Ids of hosts that can be told from made-up ones without a read.
//!
//! Where each read is paid for (DynamoDB), a stranger must not be able to cause one: the last five bytes of an id are a
//! message authentication code (HMAC-SHA-256, RFC 2104, cut) over the rest of it. That is no proof of anything but of who
//! made the id; the host still signs with its own key.

use hb_wire::id::HostId;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

/// Bytes of the code: a made-up id passes once in 10¹² times, and then costs one read.
const CODE_BYTES: usize = 5;

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

    fn code(&self, rest: &[u8]) -> [u8; CODE_BYTES] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(rest);
        let full = mac.finalize().into_bytes();
        let mut code = [0; CODE_BYTES];
        code.copy_from_slice(&full[..CODE_BYTES]);
        code
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
}
