//! Whose certificates are believed when a channel connects: the system's, and those of the server's configuration.

use std::sync::{Arc, OnceLock};

use lettre::transport::smtp::client::{Certificate, CertificateStore, TlsParameters};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use rustls_platform_verifier::Verifier;

/// Certificate authorities: the system's (or, where a machine has none, Mozilla's as bundled), and more.
#[derive(Debug, Default)]
pub struct Trust {
    extra: Vec<CertificateDer<'static>>,
    /// Reading the system's authorities takes milliseconds and is done at most once.
    config: OnceLock<ClientConfig>,
}

impl Trust {
    /// The system's authorities and those of a PEM file's contents.
    ///
    /// # Errors
    /// The text holds no certificate, or one that cannot be read.
    pub fn with_pem(pem: &[u8]) -> Result<Self, String> {
        let extra: Vec<_> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("the certificates cannot be read: {error}"))?;
        let mut check = RootCertStore::empty();
        for certificate in &extra {
            check.add(certificate.clone()).map_err(|error| format!("a certificate cannot be read: {error}"))?;
        }
        if extra.is_empty() {
            return Err("there is no certificate in it (a PEM file begins with -----BEGIN CERTIFICATE-----)".to_owned());
        }
        Ok(Self { extra, config: OnceLock::new() })
    }

    /// TLS 1.2 and 1.3 for webhooks.
    pub(crate) fn client_config(&self) -> ClientConfig {
        self.config.get_or_init(|| self.build()).clone()
    }

    fn build(&self) -> ClientConfig {
        let provider = Arc::new(ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> =
            match Verifier::new_with_extra_roots(self.extra.iter().cloned(), Arc::clone(&provider)) {
                Ok(verifier) => Arc::new(verifier),
                Err(error) => {
                    tracing::warn!(%error, "the system has no certificate authorities, the bundled ones are used");
                    let mut roots: RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
                    roots.add_parsable_certificates(self.extra.iter().cloned());
                    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                        .build()
                        .expect("the bundled authorities are not empty")
                }
            };
        ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring speaks TLS 1.2 and 1.3")
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth()
    }

    /// The same for the mail server `host`.
    pub(crate) fn smtp_parameters(&self, host: &str) -> Result<TlsParameters, lettre::transport::smtp::Error> {
        let build = |store: CertificateStore| {
            let mut builder = TlsParameters::builder(host.to_owned()).certificate_store(store);
            for certificate in &self.extra {
                builder = builder.add_root_certificate(Certificate::from_der(certificate.to_vec())?);
            }
            builder.build()
        };
        build(CertificateStore::Default).or_else(|_| build(CertificateStore::WebpkiRoots))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_refused_and_not_taken_for_none() {
        for bad in ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(Trust::with_pem(bad.as_bytes()).is_err(), "{bad:?}");
        }
        let good = rcgen::generate_simple_self_signed(vec!["ca.test".to_owned()]).unwrap().cert.pem();
        assert_eq!(Trust::with_pem(good.as_bytes()).unwrap().extra.len(), 1);
    }
}
