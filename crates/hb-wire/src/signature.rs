//! The `hb/1` profile of HTTP Message Signatures (RFC 9421) with Content-Digest (RFC 9530).
//!
//! One signature, one label (`hb`), one algorithm (Ed25519, known from the key's record, so that `alg` is not sent and
//! cannot be confused), one list of components, one order of parameters. What is sent is plain RFC 9421; what is read is
//! this profile and nothing else, which is why the parser is a page and not a structured-fields library.
//!
//! ```text
//! POST /v1/beat HTTP/1.1
//! Host: hb.example.com
//! Content-Digest: sha-256=:aIkSxK8pLxpQuprWb9NIUdPPUpVXq6YEeZ1DGZMB2zo=:
//! Signature-Input: hb=("@method" "@authority" "@path" "content-digest");created=1795444000;nonce="p4Q0v2hYz1mJtE9cX7sLdw";keyid="h_7Q2M4K9XW3B5N8RT";tag="hb/1"
//! Signature: hb=:1j4lpRQvObq0OXlhjP4o5V2lbVK62BH0iuROd0Eh64zAole9eJ0qxmjpeb3elKHrokPiNSt6EzKY+U51L70DAg==:
//!
//! {"boot":"2d1f7c3e-8b0a-4c55-9e21-5f0c6a7b8c9d","seq":4711,"up":86400,"v":"0.1.0"}
//! ```
//!
//! What is signed (the signature base):
//!
//! ```text
//! "@method": POST
//! "@authority": hb.example.com
//! "@path": /v1/beat
//! "content-digest": sha-256=:aIkSxK8pLxpQuprWb9NIUdPPUpVXq6YEeZ1DGZMB2zo=:
//! "@signature-params": ("@method" "@authority" "@path" "content-digest");created=1795444000;nonce="p4Q0v2hYz1mJtE9cX7sLdw";keyid="h_7Q2M4K9XW3B5N8RT";tag="hb/1"
//! ```
//!
//! - The **nonce** is the server's, single-use: it alone makes a message fresh. `created` is for reporting a wrong clock;
//!   there is no `expires`, because no host's clock is trusted.
//! - The **authority** is compared with what the server is configured to be called, not with what a proxy wrote.
//! - The scheme is not covered, because proxies end TLS; requests with a query are refused, so none needs covering.
//! - The **tag** keeps a signature made for another protocol with the same key from meaning anything here.
//!
//! Reading and checking are two steps, because the key is looked up between them by [`Params::keyid`]:
//!
//! ```
//! use hb_wire::key::HostKey;
//! use hb_wire::nonce::Nonce;
//! use hb_wire::signature::{self, Message, Params};
//!
//! let key = HostKey::from_seed([7; 32]);
//! let message = Message { method: "POST", authority: "hb.example.com", path: "/v1/beat", body: b"{}" };
//! let params = Params { created: 1_795_444_000, nonce: Nonce([1; 16]), keyid: "0199-web1".to_owned() };
//! let headers = signature::sign(&key, &message, &params);
//!
//! let signed = signature::parse(&headers.content_digest, &headers.signature_input, &headers.signature)?;
//! assert_eq!(signed.params, params);
//! signed.verify(&key.public().verifying().unwrap(), &message)?;
//! # Ok::<(), signature::SignatureError>(())
//! ```

use core::fmt::Write as _;

use base64ct::{Base64, Encoding};

use crate::digest;
use crate::key::{HostKey, Verifier};
use crate::nonce::Nonce;

/// The value of the `tag` parameter: what separates hb's signatures from any other protocol's.
pub const TAG: &str = "hb/1";
/// Longest accepted value of each of the three header fields, in bytes. With a `keyid` of 64 characters and a year of
/// four digits, `Signature-Input` has 191.
pub const FIELD_BYTES_MAX: usize = 256;
/// Longest `keyid`, in characters of `[A-Za-z0-9_-]`.
pub const KEYID_CHARS_MAX: usize = 64;
/// Last accepted `created`: the end of the year 9999, in Unix seconds.
pub const CREATED_MAX: i64 = 253_402_300_799;

const LABEL: &str = "hb=";
const COMPONENTS: &str = r#"("@method" "@authority" "@path" "content-digest")"#;
/// Room for the usual signature base, so that building it allocates once.
const BASE_CAPACITY: usize = 512;

/// The parts of a request that are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// As on the request line: `POST`.
    pub method: &'a str,
    /// What the server is called, normalised by [`normalize_authority`]: `hb.example.com`, `127.0.0.1:8080`.
    pub authority: &'a str,
    /// The absolute path without query: `/v1/beat`.
    pub path: &'a str,
    /// The body, byte for byte.
    pub body: &'a [u8],
}

/// The parameters of a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params {
    /// The signer's clock in Unix seconds, 0 to [`CREATED_MAX`]; informational, never trusted.
    pub created: i64,
    /// The server's nonce that this message spends.
    pub nonce: Nonce,
    /// Whose key: 1 to 64 of `[A-Za-z0-9_-]`. For a host, its id.
    pub keyid: String,
}

/// The three header fields of a signed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHeaders {
    /// `Content-Digest`.
    pub content_digest: String,
    /// `Signature-Input`.
    pub signature_input: String,
    /// `Signature`.
    pub signature: String,
}

/// Why a signature was not accepted: one variant for each reaction that a caller can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// A header field is absent or empty.
    #[error("the header field {0} is missing")]
    Missing(&'static str),
    /// A header field, or a part of the request, does not follow the profile.
    #[error("{0} does not follow the profile hb/1")]
    Malformed(&'static str),
    /// The body is not the one that was signed.
    #[error("the body does not match its digest")]
    DigestMismatch,
    /// The signature is not this key's over this request.
    #[error("the signature does not match")]
    Mismatch,
}

/// A signature as read, not yet verified: only good for looking the key up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// What the signer says; not to be believed before [`Signed::verify`] succeeded.
    pub params: Params,
    input: String,
    content_digest: String,
    digest: [u8; 32],
    signature: [u8; 64],
}

/// Signs a request.
///
/// The caller has made sure that the parameters keep their grammar ([`Params`]); one that does not makes a signature
/// that [`parse`] refuses.
#[must_use]
pub fn sign(key: &HostKey, message: &Message<'_>, params: &Params) -> SignedHeaders {
    let content_digest = digest::content_digest(message.body);
    let input = write_params(params);
    let base = base_of(message, &content_digest, &input);
    let signature = Base64::encode_string(&key.sign(base.as_bytes()));
    SignedHeaders {
        content_digest,
        signature_input: format!("{LABEL}{input}"),
        signature: format!("{LABEL}:{signature}:"),
    }
}

/// Reads the values of `Content-Digest`, `Signature-Input` and `Signature` (each from its one field line).
///
/// Exactly the profile: any other component, order, spelling, white space, case, parameter or base64 is refused.
pub fn parse(content_digest: &str, signature_input: &str, signature: &str) -> Result<Signed, SignatureError> {
    for (name, value) in
        [("content-digest", content_digest), ("signature-input", signature_input), ("signature", signature)]
    {
        if value.is_empty() {
            return Err(SignatureError::Missing(name));
        }
        if value.len() > FIELD_BYTES_MAX {
            return Err(SignatureError::Malformed(name));
        }
    }
    let digest = digest::parse(content_digest).ok_or(SignatureError::Malformed("content-digest"))?;
    let input = signature_input.strip_prefix(LABEL).ok_or(SignatureError::Malformed("signature-input"))?;
    let params = read_params(input).ok_or(SignatureError::Malformed("signature-input"))?;
    let signature = read_signature(signature).ok_or(SignatureError::Malformed("signature"))?;
    Ok(Signed { params, input: input.to_owned(), content_digest: content_digest.to_owned(), digest, signature })
}

impl Signed {
    /// Checks that the body has the signed digest, then that the signature is this key's over this request.
    pub fn verify(&self, verifier: &Verifier, message: &Message<'_>) -> Result<(), SignatureError> {
        // A line break in a component would let one request's base be read as another's.
        for (name, value) in [("the method", message.method), ("the authority", message.authority)] {
            if value.is_empty() || !value.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(SignatureError::Malformed(name));
            }
        }
        let path = message.path;
        if !path.starts_with('/') || !path.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#')) {
            return Err(SignatureError::Malformed("the path"));
        }
        if !digest::is_of(&self.digest, message.body) {
            return Err(SignatureError::DigestMismatch);
        }
        let base = base_of(message, &self.content_digest, &self.input);
        if verifier.verify(base.as_bytes(), &self.signature) { Ok(()) } else { Err(SignatureError::Mismatch) }
    }
}

/// The authority as RFC 9421, section 2.2.3 wants it signed: lower case, without the scheme's default port.
///
/// Takes a URL (`https://HB.example.com:443/v1/beat` gives `hb.example.com`) or a bare `host[:port]`, of which the port
/// is kept, for want of a scheme. None for anything else: user names, empty hosts, ports out of range, foreign letters.
#[must_use]
pub fn normalize_authority(url: &str) -> Option<String> {
    let (default_port, rest) = match url.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Some(443), rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Some(80), rest),
        Some(_) => return None,
        None => (None, url),
    };
    let authority = rest.split(['/', '?', '#']).next()?;
    // The last colon separates the port, unless it stands inside the brackets of an IPv6 address.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if !is_host(host) {
        return None;
    }
    let mut normal = host.to_ascii_lowercase();
    if let Some(port) = port {
        let all_digits = !port.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
        let port: u16 = port.parse().ok().filter(|port| all_digits && *port > 0)?;
        if Some(port) != default_port {
            write!(normal, ":{port}").ok()?;
        }
    }
    Some(normal)
}

fn is_host(host: &str) -> bool {
    if let Some(v6) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return v6.parse::<core::net::Ipv6Addr>().is_ok();
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    (1..=crate::name::HOST_NAME_BYTES_MAX).contains(&host.len()) && host.bytes().all(allowed)
}

fn base_of(message: &Message<'_>, content_digest: &str, input: &str) -> String {
    let components = [
        ("@method", message.method),
        ("@authority", message.authority),
        ("@path", message.path),
        ("content-digest", content_digest),
    ];
    base(&components, input)
}

/// The signature base of RFC 9421, section 2.5, for components without parameters.
fn base(components: &[(&str, &str)], input: &str) -> String {
    let mut base = String::with_capacity(BASE_CAPACITY);
    for (name, value) in components.iter().chain([&("@signature-params", input)]) {
        if !base.is_empty() {
            base.push('\n');
        }
        for piece in ["\"", name, "\": ", value] {
            base.push_str(piece);
        }
    }
    base
}

fn write_params(params: &Params) -> String {
    let Params { created, nonce, keyid } = params;
    format!("{COMPONENTS};created={created};nonce=\"{nonce}\";keyid=\"{keyid}\";tag=\"{TAG}\"")
}

/// The inverse of [`write_params`], and of nothing else.
fn read_params(input: &str) -> Option<Params> {
    let rest = input.strip_prefix(COMPONENTS)?.strip_prefix(";created=")?;
    let (created, rest) = rest.split_once(";nonce=\"")?;
    let (nonce, rest) = rest.split_once("\";keyid=\"")?;
    let (keyid, rest) = rest.split_once("\";tag=\"")?;
    if rest.strip_suffix('"')? != TAG || !is_keyid(keyid) {
        return None;
    }
    Some(Params { created: read_created(created)?, nonce: Nonce::parse(nonce).ok()?, keyid: keyid.to_owned() })
}

/// True for 1 to 64 of `[A-Za-z0-9_-]`.
#[must_use]
pub fn is_keyid(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    (1..=KEYID_CHARS_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

/// Digits without sign or leading zeros, up to [`CREATED_MAX`].
fn read_created(text: &str) -> Option<i64> {
    let canonical = text == "0" || (!text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()));
    text.parse().ok().filter(|created| canonical && (0..=CREATED_MAX).contains(created))
}

fn read_signature(header: &str) -> Option<[u8; 64]> {
    let base64 = header.strip_prefix(LABEL)?.strip_prefix(':')?.strip_suffix(':')?;
    if base64.len() != 88 {
        return None;
    }
    let mut buffer = [0_u8; 66];
    Base64::decode(base64, &mut buffer).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests;
