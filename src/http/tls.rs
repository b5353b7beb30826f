//! TLS: whom to trust, and what time it is.
//!
//! Trust comes from a pin, else from a CA file, else from the system's authorities, else (a minimal image without any)
//! from Mozilla's, which are compiled in. The time is the system's, or, for a second attempt, a [`Floor`].

use core::fmt;
use core::str::FromStr;
use core::time::Duration;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};

use super::roots::roots;
use crate::error::Failure;

/// When this program was built, in seconds since 1970: no clock that is right can be before it.
pub const BUILT_AT_UNIX_S: u64 = {
    // Set by build.rs: digits only.
    let digits = env!("HB_BUILT_AT").as_bytes();
    let mut value = 0;
    let mut i = 0;
    while i < digits.len() {
        value = value * 10 + (digits[i] - b'0') as u64;
        i += 1;
    }
    value
};

/// The time by which a certificate is judged when the system's clock says that it is out of date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    unix_s: u64,
}

impl Floor {
    /// The latest of what is known: when this program was built, and the server's last time (in seconds since 1970)
    /// with what has passed since.
    pub fn new(server_unix_s: Option<u64>, since_s: u64) -> Self {
        let server = server_unix_s.unwrap_or(0).saturating_add(since_s);
        Self { unix_s: server.max(BUILT_AT_UNIX_S) }
    }

    /// In seconds since 1970.
    pub fn unix_s(self) -> u64 {
        self.unix_s
    }
}

impl TimeProvider for Floor {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.unix_s)))
    }
}

/// The SHA-256 of a certificate, or of the public key in it (SPKI), as `sha256:` and 64 hex digits.
#[derive(Clone, PartialEq, Eq)]
pub struct Pin([u8; 32]);

/// The text was not a pin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a fingerprint: it is sha256: and 64 hex digits, as `hb-server init` prints")]
pub struct ParsePinError(String);

impl Pin {
    fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }
}

impl FromStr for Pin {
    type Err = ParsePinError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParsePinError(text.chars().take(80).collect());
        let (kind, hex) = text.trim().split_once(':').ok_or_else(error)?;
        // OpenSSL prints the same digits with colons between them.
        let digits: Vec<u8> = hex.bytes().filter(|byte| *byte != b':').collect();
        if !kind.eq_ignore_ascii_case("sha256") || digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(error());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = core::str::from_utf8(pair).map_err(|_| error())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| error())?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The certificate is not the pinned one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the server's certificate is {seen}, not the pinned {pinned}")]
pub struct PinMismatch {
    /// What the server showed.
    pub seen: Pin,
    /// What it should have.
    pub pinned: Pin,
}

/// The parts from which client configurations are made.
#[derive(Debug)]
pub struct Tls {
    provider: Arc<CryptoProvider>,
    verifier: Arc<Verifier>,
}

impl Tls {
    /// Reads the certificate authorities, unless a pin makes them needless.
    ///
    /// # Errors
    /// 78 when the CA file cannot be read or holds no certificate.
    pub fn new(ca_file: Option<&Path>, pin: Option<&Pin>) -> Result<Self, Failure> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trust = match pin {
            Some(pin) => Trust::Pin(pin.clone()),
            None => Trust::Roots(
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots(ca_file)?), Arc::clone(&provider))
                    .build()
                    .map_err(|error| Failure::bug(format!("could not set up TLS: {error}")))?,
            ),
        };
        let verifier = Arc::new(Verifier { trust, provider: Arc::clone(&provider), refused: Mutex::new(None) });
        Ok(Self { provider, verifier })
    }

    /// A client configuration that tells the time by `floor`, or by the system's clock.
    pub fn config(&self, floor: Option<Floor>) -> ClientConfig {
        let time: Arc<dyn TimeProvider> = match floor {
            Some(floor) => Arc::new(floor),
            None => Arc::new(DefaultTimeProvider),
        };
        let verifier: Arc<dyn ServerCertVerifier> = Arc::<Verifier>::clone(&self.verifier);
        ClientConfig::builder_with_details(Arc::clone(&self.provider), time)
            .with_safe_default_protocol_versions()
            .expect("ring supports TLS 1.2 and 1.3")
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth()
    }

    /// The fingerprint of the last certificate that was refused.
    pub fn refused(&self) -> Option<Pin> {
        self.verifier.refused.lock().ok().and_then(|refused| refused.clone())
    }
}

/// Judges the server's certificate, and remembers what it refused so that an error can name it.
#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
    refused: Mutex<Option<Pin>>,
}

#[derive(Debug)]
enum Trust {
    Roots(Arc<WebPkiServerVerifier>),
    Pin(Pin),
}

impl Trust {
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self {
            Self::Roots(verifier) => verifier.verify_server_cert(leaf, rest, name, ocsp, now),
            Self::Pin(pinned) => {
                let key = ParsedCertificate::try_from(leaf)?.subject_public_key_info();
                let seen = Pin::of(leaf);
                if seen == *pinned || Pin::of(&key) == *pinned {
                    return Ok(ServerCertVerified::assertion());
                }
                let mismatch = PinMismatch { seen, pinned: pinned.clone() };
                Err(CertificateError::Other(OtherError(Arc::new(mismatch))).into())
            }
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verdict = self.trust.judge(end_entity, intermediates, server_name, ocsp_response, now);
        if let Ok(mut refused) = self.refused.lock() {
            *refused = verdict.is_err().then(|| Pin::of(end_entity));
        }
        verdict
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_reads_back_as_it_was_written_in_either_case_and_with_colons() {
        let hex = "00ff".repeat(16);
        let pin: Pin = format!("sha256:{hex}").parse().unwrap();
        assert_eq!(pin.to_string(), format!("sha256:{hex}"));
        assert_eq!(format!("SHA256:{}", hex.to_uppercase()).parse::<Pin>().unwrap(), pin);
        let colons: Vec<String> = hex.as_bytes().chunks(2).map(|b| String::from_utf8(b.to_vec()).unwrap()).collect();
        assert_eq!(format!("sha256:{}", colons.join(":")).parse::<Pin>().unwrap(), pin);
    }

    #[test]
    fn what_is_not_a_pin_is_refused_and_shown() {
        for bad in ["", "sha256:", "sha1:00", "sha256:00", &format!("sha256:{}", "zz".repeat(32)), &"é".repeat(64)] {
            let said = bad.parse::<Pin>().unwrap_err().to_string();
            assert!(said.contains("64 hex digits"), "{bad:?}: {said}");
        }
    }

    #[test]
    fn the_floor_is_never_before_the_build_and_moves_with_the_servers_time() {
        const { assert!(BUILT_AT_UNIX_S > 1_700_000_000) };
        assert_eq!(Floor::new(None, 0).unix_s(), BUILT_AT_UNIX_S);
        assert_eq!(Floor::new(Some(12), 5).unix_s(), BUILT_AT_UNIX_S);
        assert_eq!(Floor::new(Some(BUILT_AT_UNIX_S + 1000), 5).unix_s(), BUILT_AT_UNIX_S + 1005);
        assert_eq!(Floor::new(Some(u64::MAX), 5).unix_s(), u64::MAX);
    }

    #[test]
    fn a_ca_file_that_is_missing_or_empty_is_a_configuration_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("no.pem");
        let empty = dir.path().join("empty.pem");
        std::fs::write(&empty, "nothing here\n").unwrap();
        for path in [missing, empty] {
            let failure = Tls::new(Some(&path), None).unwrap_err();
            assert_eq!(failure.exit, crate::exit::CONFIG);
            assert!(failure.message.contains(path.to_str().unwrap()), "{failure}");
        }
    }
}
