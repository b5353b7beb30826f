//! A host's new key: announced in a beat, which the old key signs, and proven by the new one.
//!
//! The proof is a signature by the new key over a text that names its purpose, the host and the key, so that nobody can
//! have a host take over a key that somebody else holds. It needs no nonce of its own: the beat that carries it has one.

use base64ct::{Base64UrlUnpadded, Encoding};

use crate::id::HostId;
use crate::key::{HostKey, PublicKey};

/// Length of a proof, in characters.
pub const PROOF_CHARS: usize = 86;

/// The proof that whoever asks for `host` holds `key`.
#[must_use]
pub fn prove(key: &HostKey, host: HostId) -> String {
    Base64UrlUnpadded::encode_string(&key.sign(text(host, &key.public()).as_bytes()))
}

/// True when `proof` is one for this host and key, and the key is a good one ([`PublicKey::vetted`]).
#[must_use]
pub fn is_proven(proof: &str, key: &PublicKey, host: HostId) -> bool {
    let mut signature = [0; 64];
    let read = Base64UrlUnpadded::decode(proof, &mut signature).is_ok_and(|bytes| bytes.len() == 64);
    read && key.vetted().is_ok_and(|verifier| verifier.verify(text(host, key).as_bytes(), &signature))
}

fn text(host: HostId, key: &PublicKey) -> String {
    format!("hb/1 rotate\n{host}\n{key}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_good_for_one_host_and_one_key() {
        let (key, other) = (HostKey::from_seed([1; 32]), HostKey::from_seed([2; 32]));
        let (host, stranger) = (HostId::mint(1, [1; 10]), HostId::mint(1, [2; 10]));
        let proof = prove(&key, host);
        assert_eq!(proof.len(), PROOF_CHARS);
        assert!(is_proven(&proof, &key.public(), host));
        assert!(!is_proven(&proof, &key.public(), stranger));
        assert!(!is_proven(&proof, &other.public(), host));
        let mut bent = proof.clone();
        bent.replace_range(3..4, if &proof[3..4] == "A" { "B" } else { "A" });
        for odd in ["", "A", bent.as_str(), &proof[..85], &format!("{proof}A"), &"=".repeat(86), &"é".repeat(43)] {
            assert!(!is_proven(odd, &key.public(), host), "{odd}");
        }
    }
}
