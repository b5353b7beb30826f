//! The certificate authorities that the agent trusts: those of a file, of the system, or those that it brings along.

use std::collections::HashSet;
use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject as _};

use crate::error::Failure;

/// The certificate authorities of this file, or else of the system.
///
/// # Errors
/// 78 when the file cannot be read or holds no certificate.
pub(super) fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, Failure> {
    match ca_file {
        Some(path) => of_file(path),
        None => Ok(or_bundled(of_system(&Places::find()))),
    }
}

fn of_file(path: &Path) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    let shown = path.display();
    let fail = |why: String| {
        Failure::config(format!("could not read certificate authorities from {shown}: {why}"))
            .hint("ca_file is a PEM file with one or more CERTIFICATE blocks")
    };
    let unread = |error: pem::Error| {
        let failure = fail(error.to_string());
        let is_unreadable = matches!(error, pem::Error::Io(_));
        if is_unreadable { failure.hint("ca_file (HB_CA_FILE): check its path, and who may read it") } else { failure }
    };
    for certificate in CertificateDer::pem_file_iter(path).map_err(unread)? {
        let certificate = certificate.map_err(unread)?;
        roots.add(certificate).map_err(|error| fail(error.to_string()))?;
    }
    if roots.is_empty() { Err(fail("it holds no certificate".to_owned())) } else { Ok(roots) }
}

/// Where the system keeps its certificate authorities: the places of OpenSSL, of which each file counts, whatever its name.
#[derive(Debug, Default)]
struct Places {
    file: Option<PathBuf>,
    dirs: Vec<PathBuf>,
}

impl Places {
    /// By `SSL_CERT_FILE` and `SSL_CERT_DIR`; without both, where distributions have them.
    fn find() -> Self {
        let file = env::var_os("SSL_CERT_FILE").map(PathBuf::from);
        let dirs = env::var_os("SSL_CERT_DIR").unwrap_or_default();
        let dirs: Vec<PathBuf> = env::split_paths(&dirs).filter(|dir| !dir.as_os_str().is_empty()).collect();
        if file.is_some() || !dirs.is_empty() {
            return Self { file, dirs };
        }
        let found = openssl_probe::probe();
        Self { file: found.cert_file, dirs: found.cert_dir }
    }

    /// Every file, once: directories are full of links to the same ones.
    fn files(&self) -> impl Iterator<Item = PathBuf> {
        let entries = self.dirs.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten();
        let all = self.file.iter().cloned().chain(entries.filter_map(|entry| Some(entry.ok()?.path())));
        let mut seen = HashSet::new();
        all.filter(move |path| {
            let about = fs::metadata(path).ok().filter(fs::Metadata::is_file);
            about.is_some_and(|about| seen.insert((about.dev(), about.ino())))
        })
    }
}

/// Reads certificate by certificate: all of them at once would be half of the agent's memory, and a heap that was full once does
/// not shrink. What cannot be read, or is no certificate, is passed over: it is somebody else's file.
fn of_system(places: &Places) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for path in places.files() {
        let Ok(certificates) = CertificateDer::pem_file_iter(&path) else { continue };
        for certificate in certificates.filter_map(Result::ok) {
            let Ok(()) = roots.add(certificate) else { continue };
            let Some(added) = roots.roots.pop() else { continue };
            // The bundle and the directory hold the same ones.
            if !roots.roots.contains(&added) {
                // Most are Mozilla's, and so in this program already.
                let bundled = webpki_roots::TLS_SERVER_ROOTS.iter().find(|bundled| **bundled == added);
                roots.roots.push(bundled.cloned().unwrap_or(added));
            }
        }
    }
    roots.roots.shrink_to_fit();
    roots
}

/// A system without any (a minimal image) is served by those of Mozilla, as of the day on which hb was built.
fn or_bundled(mut roots: RootCertStore) -> RootCertStore {
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn pem(name: &str) -> String {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    }

    #[test]
    fn each_authority_is_trusted_once_and_what_is_none_does_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        let (bundle, certs) = (dir.path().join("bundle.crt"), dir.path().join("certs"));
        let (one, two, local) = (pem("one"), pem("two"), pem("local"));
        fs::write(&bundle, format!("# one\n{one}\n{two}")).unwrap();
        fs::create_dir(&certs).unwrap();
        fs::write(certs.join("two.pem"), &two).unwrap();
        fs::write(certs.join("local.pem"), &local).unwrap();
        fs::write(certs.join("README"), "nothing").unwrap();
        fs::write(certs.join("torn.pem"), &one[..200]).unwrap();
        fs::create_dir(certs.join("java")).unwrap();
        for (link, to) in [("abcd.0", "two.pem"), ("ef01.0", "local.pem"), ("dead.0", "gone.pem")] {
            symlink(to, certs.join(link)).unwrap();
        }
        symlink(&bundle, certs.join("ca-certificates.crt")).unwrap();
        let places = Places { file: Some(bundle), dirs: vec![certs, dir.path().join("gone")] };
        assert_eq!(places.files().count(), 5);
        assert_eq!(of_system(&places).len(), 3);
    }

    #[test]
    fn a_system_without_authorities_is_served_by_the_bundled_ones_and_one_with_any_is_not() {
        let bundled = or_bundled(of_system(&Places::default()));
        assert!(bundled.len() > 100, "{}", bundled.len());
        // Let's Encrypt's root.
        let isrg = bundled.roots.iter().any(|root| root.subject.windows(12).any(|some| some == b"ISRG Root X1"));
        assert!(isrg);
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("own.pem");
        fs::write(&own, pem("own")).unwrap();
        assert_eq!(or_bundled(of_system(&Places { file: Some(own), dirs: Vec::new() })).len(), 1);
    }
}
