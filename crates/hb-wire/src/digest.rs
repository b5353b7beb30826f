//! `Content-Digest` (RFC 9530), SHA-256 only: a second algorithm would add length and a choice, but no safety.

use base64ct::{Base64, Encoding};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

const BEFORE: &str = "sha-256=:";
const AFTER: &str = ":";
/// 32 bytes in padded base64.
const BASE64_LEN: usize = 44;

/// The value of `Content-Digest` for a body: `sha-256=:…:`.
#[must_use]
pub fn content_digest(body: &[u8]) -> String {
    let mut header = String::with_capacity(BEFORE.len() + BASE64_LEN + AFTER.len());
    header.push_str(BEFORE);
    header.push_str(&Base64::encode_string(&Sha256::digest(body)));
    header.push_str(AFTER);
    header
}

/// True when the header is one well-formed `sha-256` digest, and it is the body's.
#[must_use]
pub fn matches(header: &str, body: &[u8]) -> bool {
    parse(header).is_some_and(|digest| is_of(&digest, body))
}

/// The digest in a header: exactly one, SHA-256, canonical base64.
pub(crate) fn parse(header: &str) -> Option<[u8; 32]> {
    let base64 = header.strip_prefix(BEFORE)?.strip_suffix(AFTER)?;
    if base64.len() != BASE64_LEN {
        return None;
    }
    // The buffer has room for what 44 characters could hold without padding; less or more than 32 bytes is refused.
    let mut buffer = [0_u8; 33];
    Base64::decode(base64, &mut buffer).ok()?.try_into().ok()
}

/// Compares a digest with the body's.
pub(crate) fn is_of(digest: &[u8; 32], body: &[u8]) -> bool {
    Sha256::digest(body).as_slice().ct_eq(digest).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 9530, appendix D.
    const RFC: &str = "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:";

    #[test]
    fn the_vectors_of_rfc_9530_are_reproduced() {
        assert_eq!(content_digest(br#"{"hello": "world"}"#), RFC);
        assert_eq!(
            content_digest(b"{\"hello\": \"world\"}\n"),
            "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:",
            "appendix B.1, with a line feed at the end"
        );
        assert_eq!(content_digest(b""), "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:");
        assert!(matches(RFC, br#"{"hello": "world"}"#));
    }

    #[test]
    fn any_other_body_or_spelling_is_refused() {
        let body = br#"{"hello": "world"}"#;
        assert!(!matches(RFC, br#"{"hello": "World"}"#));
        assert!(!matches(RFC, b""));
        for header in [
            "",
            "sha-256",
            "sha-256=:=:",
            "sha-256=::",
            " sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:",
            "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=: ",
            "SHA-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:",
            "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE:",
            "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPF=:",
            "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBP==:",
            "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPEA:",
            "sha-256=X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=",
            "sha-512=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:",
            "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:, sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:",
        ] {
            assert!(!matches(header, body), "{header}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn no_text_makes_the_parser_panic_and_a_digest_has_one_spelling(
            text in "(sha-256=:)?[A-Za-z0-9+/]{42,44}={0,2}:?|.{0,60}", body in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            prop_assert!(!matches(&text, &body));
            let header = content_digest(&body);
            prop_assert!(matches(&header, &body));
            if let Some(digest) = parse(&text) {
                prop_assert_eq!(format!("{BEFORE}{}{AFTER}", Base64::encode_string(&digest)), text);
            }
        }
    }
}
