//! Sends the canary, hb's own beat, through the public path: name resolution, network, proxy, TLS and all.
//!
//! Every canary takes a new connection: one that was kept could go on working while nobody else gets in. A server that is
//! called by a name which cannot be reached from inside (hairpin NAT) probes itself over loopback instead; but only if the
//! public path never worked, for otherwise a dead uplink would pass for a hairpin and hb would be deaf without knowing.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::sync::Arc;

use async_trait::async_trait;
use hb_api::watch::{Canary, Prober};
use http::header::{CONTENT_TYPE, HOST};
use reqwest::Client;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::address::Names;
use crate::error::Failure;
use crate::tls::Certificates;

/// How long a canary may take to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a canary may take altogether.
const TIMEOUT: Duration = Duration::from_secs(5);
/// While on loopback, every so many canaries the public path is tried again: once in about five minutes.
const PUBLIC_AGAIN_EVERY: u64 = 30;

/// The prober of a running server.
pub struct PublicPath {
    client: Client,
    public: String,
    local: String,
    authority: String,
    /// The public path worked at least once.
    proven: AtomicBool,
    /// Canaries sent over loopback in a row.
    detours: AtomicU64,
}

impl fmt::Debug for PublicPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicPath").field("public", &self.public).field("local", &self.local).finish_non_exhaustive()
    }
}

/// A path on which no connection came about: the message never reached anybody.
enum Miss {
    NoConnection(String),
    Refused(String),
}

impl PublicPath {
    /// For a server with these names. `certificates` are its own: they are trusted whatever name they bear.
    ///
    /// # Errors
    /// 70: the client cannot be made.
    pub fn new(names: &Names, certificates: Option<Arc<Certificates>>) -> Result<Self, Failure> {
        let client = Client::builder()
            .user_agent(concat!("hb-server/", env!("CARGO_PKG_VERSION")))
            .tls_backend_preconfigured(client_config(certificates))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|error| Failure::bug(format!("could not make the canary's client: {error}")))?;
        let url = |base: &str| format!("{base}{}", hb_api::beat::PATH);
        Ok(Self {
            client,
            public: url(&names.public),
            local: url(&names.local),
            authority: names.authorities.first().cloned().unwrap_or_default(),
            proven: AtomicBool::new(false),
            detours: AtomicU64::new(0),
        })
    }

    async fn send(&self, url: &str, canary: &Canary) -> Result<(), Miss> {
        let request = self
            .client
            .post(url)
            .header(HOST, &self.authority)
            .header(CONTENT_TYPE, "application/json")
            .header("content-digest", &canary.content_digest)
            .header("signature-input", &canary.signature_input)
            .header("signature", &canary.signature)
            .body(canary.body.clone());
        match request.send().await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(Miss::Refused(format!("{url} answered {}", answer.status().as_u16()))),
            Err(error) => {
                let reason = format!("{url}: {}", root_cause(&error));
                if error.is_connect() || error.is_timeout() {
                    Err(Miss::NoConnection(reason))
                } else {
                    Err(Miss::Refused(reason))
                }
            }
        }
    }

    /// True when this canary may take the public path.
    fn tries_public(&self) -> bool {
        let detours = self.detours.load(Ordering::Relaxed);
        detours == 0 || detours.is_multiple_of(PUBLIC_AGAIN_EVERY)
    }

    fn reached(&self) {
        self.proven.store(true, Ordering::Relaxed);
        if self.detours.swap(0, Ordering::Relaxed) > 0 {
            tracing::info!("the public URL can be reached from this machine now: the canary goes there again");
        }
    }
}

#[async_trait]
impl Prober for PublicPath {
    async fn probe(&self, canary: Canary) -> Result<(), String> {
        if self.tries_public() {
            match self.send(&self.public, &canary).await {
                Ok(()) => {
                    self.reached();
                    return Ok(());
                }
                Err(Miss::Refused(reason)) => return Err(reason),
                Err(Miss::NoConnection(reason)) if self.public == self.local || self.proven.load(Ordering::Relaxed) => {
                    return Err(reason);
                }
                Err(Miss::NoConnection(reason)) => {
                    if self.detours.load(Ordering::Relaxed) == 0 {
                        tracing::warn!(
                            "the public URL cannot be reached from this machine ({reason}): the canary goes over \
                             loopback instead, and a cut on the way to this server will not be noticed by it"
                        );
                    }
                }
            }
        }
        self.detours.fetch_add(1, Ordering::Relaxed);
        self.send(&self.local, &canary).await.map_err(|miss| match miss {
            Miss::NoConnection(reason) | Miss::Refused(reason) => reason,
        })
    }
}

/// What lies at the bottom of an error: "connection refused" rather than "error sending request".
fn root_cause(error: &dyn core::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

fn client_config(certificates: Option<Arc<Certificates>>) -> ClientConfig {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    let (_added, _ignored) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let others = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .expect("there is at least one authority");
    let verifier = Arc::new(OursOrKnown { certificates, others, provider: Arc::clone(&provider) });
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth()
}

/// Trusts this server's own certificate, and otherwise what the system trusts: in front of hb may stand a proxy.
#[derive(Debug)]
struct OursOrKnown {
    certificates: Option<Arc<Certificates>>,
    others: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for OursOrKnown {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.certificates.as_ref().is_some_and(|ours| ours.is_ours(end_entity)) {
            return Ok(ServerCertVerified::assertion());
        }
        self.others.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
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
