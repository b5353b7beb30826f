//! The server's certificate: made by `init`, read at start, and read again on SIGHUP.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};

use crate::error::Failure;

/// Where a certificate and its private key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The chain, PEM, the server's own certificate first.
    pub cert: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

impl Files {
    /// The self-signed pair that `init` makes.
    #[must_use]
    pub fn own(data: &Path) -> Self {
        Self { cert: data.join("cert.pem"), key: data.join("key.pem") }
    }
}

/// The SHA-256 of a certificate, as `sha256:` and 64 hex digits: what `hb register --pin` takes.
#[must_use]
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    use core::fmt::Write as _;
    Sha256::digest(certificate).iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Makes a self-signed certificate for `names` and writes both files; existing ones are left as they are. The fingerprint.
///
/// It has no end that matters: it is trusted by its fingerprint, and a host whose clock is off must still get through.
///
/// # Errors
/// The files cannot be written, or exist but cannot be read.
pub fn make(files: &Files, names: &[String]) -> Result<String, Failure> {
    if !(files.cert.exists() && files.key.exists()) {
        let bug = |error: rcgen::Error| Failure::bug(format!("could not make a certificate: {error}"));
        let key = KeyPair::generate().map_err(bug)?;
        let mut params = CertificateParams::new(names).map_err(bug)?;
        params.distinguished_name.push(DnType::CommonName, "hb-server");
        let certificate = params.self_signed(&key).map_err(bug)?;
        write(&files.key, &key.serialize_pem(), 0o600)?;
        // No secret: it is copied to hosts that trust it by a file, and their agents are not root.
        write(&files.cert, &certificate.pem(), 0o644)?;
    }
    Ok(fingerprint(&Loaded::read(files)?.leaf))
}

/// A file of this mode, there as a whole or not at all.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let part = path.with_extension("part");
    let write = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        file.write_all(text.as_bytes())?;
        // Whatever the umask of whoever runs it.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&part, path)
    };
    write().map_err(|error| Failure::file("write", path, &error))
}

/// A certificate, ready to be served.
#[derive(Debug)]
pub struct Loaded {
    /// For new connections.
    pub config: Arc<ServerConfig>,
    /// The server's own certificate.
    pub leaf: CertificateDer<'static>,
}

impl Loaded {
    /// Reads both files and checks that they belong together, and that the key is private.
    ///
    /// # Errors
    /// 78 (or 77 when they may not be read), naming the file.
    pub fn read(files: &Files) -> Result<Self, Failure> {
        let Files { cert, key } = files;
        let text = fs::read(cert).map_err(|error| missing(cert, "certificate", &error))?;
        let chain = CertificateDer::pem_slice_iter(&text)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| unreadable(cert, "certificate", &error.to_string()))?;
        let Some(leaf) = chain.first().cloned() else {
            return Err(unreadable(cert, "certificate", "there is no CERTIFICATE block in it"));
        };
        refuse_open(key)?;
        let text = fs::read(key).map_err(|error| missing(key, "private key", &error))?;
        let private =
            PrivateKeyDer::from_pem_slice(&text).map_err(|error| unreadable(key, "private key", &error.to_string()))?;
        let provider = Arc::new(ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring speaks TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .map_err(|error| {
                if matches!(error, rustls::Error::InconsistentKeys(_)) {
                    let both = format!("{} is not the private key of {}", key.display(), cert.display());
                    return Failure::config(both).hint("give the certificate and the key that were made together");
                }
                unreadable(cert, "certificate", &error.to_string())
            })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // After a cut that disconnects a fleet, a ticket saves each host the costly half of its handshake.
        config.ticketer = ring::Ticketer::new().map_err(|error| Failure::bug(format!("no TLS tickets: {error}")))?;
        config.send_tls13_tickets = 1;
        Ok(Self { config: Arc::new(config), leaf })
    }
}

/// Refuses a private key that others than its owner can read or change.
fn refuse_open(key: &Path) -> Result<(), Failure> {
    let meta = fs::metadata(key).map_err(|error| missing(key, "private key", &error))?;
    let mode = meta.mode() & 0o777;
    if is_private(mode, meta.uid()) {
        return Ok(());
    }
    let shown = key.display();
    Err(Failure::config(format!("the private key {shown} is open to others (mode {mode:04o})"))
        .hint(format!("chmod 600 {shown}; if others may have read it, replace it together with its certificate")))
}

/// True when a file of this mode and owner is its owner's alone. A group may read it, too, where the owner is root: so Debian
/// shares keys (`root:ssl-cert`, 0640), and only root chose who is in that group. Of any other owner nobody knows that.
fn is_private(mode: u32, owner: u32) -> bool {
    const ROOT: u32 = 0;
    let allowed = if owner == ROOT { 0o740 } else { 0o700 };
    mode & 0o777 & !allowed == 0
}

fn missing(path: &Path, what: &str, error: &io::Error) -> Failure {
    Failure::file(&format!("read the {what}"), path, error).or_hint("check the path (--tls-cert, --tls-key)")
}

fn unreadable(path: &Path, what: &str, why: &str) -> Failure {
    Failure::config(format!("{} is not a {what} that can be used: {why}", path.display()))
        .hint("both files are PEM: -----BEGIN CERTIFICATE----- and -----BEGIN PRIVATE KEY-----")
}

/// The certificate that is served at the moment, and the one before it.
#[derive(Debug)]
pub struct Certificates {
    served: RwLock<Served>,
}

#[derive(Debug)]
struct Served {
    files: Files,
    now: Arc<Loaded>,
    before: Option<CertificateDer<'static>>,
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// As [`Loaded::read`].
    pub fn load(files: Files) -> Result<Self, Failure> {
        let now = Arc::new(Loaded::read(&files)?);
        Ok(Self { served: RwLock::new(Served { files, now, before: None }) })
    }

    /// What new connections are given.
    #[must_use]
    pub fn now(&self) -> Arc<Loaded> {
        Arc::clone(&self.served.read().unwrap_or_else(PoisonError::into_inner).now)
    }

    /// Reads the files again, from where `files` says; on failure the old certificate stays. The new fingerprint, if it
    /// changed.
    ///
    /// # Errors
    /// As [`Loaded::read`].
    pub fn reload(&self, files: Files) -> Result<Option<String>, Failure> {
        let loaded = Loaded::read(&files)?;
        let mut served = self.served.write().unwrap_or_else(PoisonError::into_inner);
        let changed = (loaded.leaf != served.now.leaf).then(|| fingerprint(&loaded.leaf));
        if changed.is_some() {
            served.before = Some(served.now.leaf.clone());
        }
        served.files = files;
        served.now = Arc::new(loaded);
        Ok(changed)
    }

    /// Where the certificate was read from.
    #[must_use]
    pub fn files(&self) -> Files {
        self.served.read().unwrap_or_else(PoisonError::into_inner).files.clone()
    }

    /// True for this server's own certificate: the one that is served, or was until the last reload.
    #[must_use]
    pub fn is_ours(&self, certificate: &CertificateDer<'_>) -> bool {
        let served = self.served.read().unwrap_or_else(PoisonError::into_inner);
        *certificate == served.now.leaf || served.before.as_ref() == Some(certificate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit;

    fn pair(dir: &Path) -> Files {
        let files = Files::own(dir);
        make(&files, &["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        files
    }

    #[test]
    fn a_made_key_is_private_and_the_pair_is_kept_when_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let files = pair(dir.path());
        let print = fingerprint(&Loaded::read(&files).unwrap().leaf);
        assert_eq!(print.len(), "sha256:".len() + 64);
        assert_eq!(make(&files, &[]).unwrap(), print);
        for (file, mode) in [(&files.cert, 0o644), (&files.key, 0o600)] {
            assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, mode);
        }
    }

    #[test]
    fn files_that_do_not_belong_together_or_cannot_be_read_are_named() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (one, two) = (pair(one.path()), pair(two.path()));
        let mixed = Loaded::read(&Files { cert: one.cert.clone(), key: two.key }).unwrap_err();
        assert_eq!(mixed.exit, exit::CONFIG);
        assert!(mixed.message.contains("is not the private key of"), "{mixed}");
        let swapped = Loaded::read(&Files { cert: one.key.clone(), key: one.cert.clone() }).unwrap_err();
        assert!(swapped.message.contains("key.pem is not a certificate"), "{swapped}");
        let gone = Loaded::read(&Files { cert: one.cert.with_extension("no"), key: one.key }).unwrap_err();
        assert!(gone.message.contains("could not read the certificate"), "{gone}");
    }

    #[test]
    fn only_root_may_share_a_key_and_only_for_reading_with_a_group() {
        for (mode, of_root, of_another) in [
            (0o600, true, true),
            (0o400, true, true),
            (0o640, true, false),
            (0o440, true, false),
            (0o660, false, false),
            (0o620, false, false),
            (0o644, false, false),
            (0o604, false, false),
            (0o602, false, false),
        ] {
            assert_eq!((is_private(mode, 0), is_private(mode, 996)), (of_root, of_another), "{mode:o}");
        }
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let files = pair(dir.path());
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o644)).unwrap();
        let open = Loaded::read(&files).unwrap_err();
        assert_eq!(open.exit, exit::CONFIG);
        assert!(open.message.ends_with("key.pem is open to others (mode 0644)"), "{open}");
        assert!(open.hint.unwrap().starts_with("chmod 600 "));
    }

    #[test]
    fn a_bad_new_certificate_leaves_the_old_one_in_place() {
        let (dir, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let files = pair(dir.path());
        let certificates = Certificates::load(files.clone()).unwrap();
        let old = certificates.now().leaf.clone();
        assert_eq!(certificates.reload(files.clone()).unwrap(), None, "nothing changed");
        fs::write(&files.cert, "broken").unwrap();
        assert!(certificates.reload(files).is_err());
        assert_eq!(certificates.now().leaf, old);
        let other = pair(new.path());
        let print = certificates.reload(other).unwrap().unwrap();
        assert_eq!(print, fingerprint(&certificates.now().leaf));
        assert!(certificates.is_ours(&old) && certificates.is_ours(&certificates.now().leaf.clone()));
    }
}
