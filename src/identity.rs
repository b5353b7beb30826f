//! Who this host is: its private key, and what the server said when it was enrolled.
//!
//! The key is the identity. It is made once, here, by `hb register`; only `hb identity rotate` replaces it, by one that the
//! server has accepted, and only `hb identity reset` and `hb image-prep` remove it.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use hb_wire::id::HostId;
use hb_wire::key::{HostKey, PEM_BYTES_MAX, PublicKey};
use hb_wire::nonce::Nonce;
use serde::{Deserialize, Serialize};
use url::Url;
use zeroize::Zeroizing;

use crate::account;
use crate::error::Failure;
use crate::http::proxy::{ProxyUrl, Way};
use crate::http::tls::Pin;
use crate::journal::{replace, replace_for};
use crate::place::{ENROLMENT_FILE, KEY_FILE, Place};

/// The layout of the enrolment record that this version writes.
const VERSION: u32 = 1;
/// A key that no server has accepted yet.
const PENDING_FILE: &str = "host.key.pending";
/// The key that takes over in a rotation.
const NEXT_FILE: &str = "host.key.next";
/// Most servers that one host beats to.
pub const BEAT_URLS_MAX: usize = 8;
/// What to do without the key that the server knows: the name is the old host's until that is retired.
pub const LOST_KEY_HINT: &str = "restore it; or retire the old host (hb hosts retire NAME), and enrol anew with a token: hb register --server URL --force";

/// The enrolment record. Readable by everybody on the machine, unless the proxy's password is in it: the only secret that may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// The layout of this record.
    pub version: u32,
    /// The host's id, the `keyid` of its signatures.
    pub id: HostId,
    /// Its label when it was enrolled.
    pub name: String,
    /// The server that enrolled it.
    pub server: Url,
    /// Where to beat, in order of preference.
    pub beat_urls: Vec<Url>,
    /// Seconds between beats, until the server says otherwise.
    pub interval_s: u64,
    /// Seconds of grace.
    pub grace_s: u64,
    /// The public key, to notice a key that was replaced.
    pub public_key: String,
    /// The public key that takes its place in a rotation that is under way: either may be in the key file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_key: Option<String>,
    /// The nonce of the first beat.
    pub first_nonce: Nonce,
    /// The server's time, in seconds since 1970.
    pub enrolled_at_unix_s: u64,
    /// The fingerprint of the only certificate to trust.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "pin_text")]
    pub pin: Option<Pin>,
    /// The only certificate authorities to trust; the configuration's `ca_file` goes before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Plain http was allowed.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub insecure_http: bool,
    /// The proxy that it went through; the configuration's `proxy` and the environment's go before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxyUrl>,
    /// What was excepted from that proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_proxy: Option<String>,
}

/// An enrolled host with its key.
#[derive(Debug)]
pub struct Identity {
    /// What the server said.
    pub enrolled: Enrolled,
    /// The private key.
    pub key: HostKey,
}

impl Identity {
    /// Loads who this host is.
    ///
    /// # Errors
    /// 78 when it is not enrolled, or its files cannot be used.
    pub fn load(place: &Place) -> Result<Self, Failure> {
        let Some(enrolled) = Enrolled::load(place)? else {
            return Err(Failure::config(format!(
                "this host is not enrolled: there is no {}",
                place.enrolment().display()
            ))
            .hint("hb register --server URL"));
        };
        let path = place.key();
        let key = load_key(&path, place.credential.is_none())?;
        let key = enrolled.own_key(&path, key)?;
        Ok(Self { enrolled, key })
    }
}

impl Enrolled {
    /// A record of the layout that this version writes.
    pub const VERSION: u32 = VERSION;

    /// True when this is the key of the record, or the one that takes its place.
    pub fn has_key(&self, key: &PublicKey) -> bool {
        let text = key.to_string();
        text == self.public_key || Some(text) == self.next_key
    }

    /// The proxy that it went through.
    pub fn way(&self) -> Option<Way> {
        let no_proxy = self.no_proxy.clone();
        self.proxy.clone().map(|proxy| Way { proxy, no_proxy })
    }

    /// The key that was found at `path`, if it is this host's.
    fn own_key(&self, path: &Path, found: Option<HostKey>) -> Result<HostKey, Failure> {
        let Some(key) = found else {
            return Err(Failure::config(format!("the host's key {} is gone", path.display())).hint(LOST_KEY_HINT));
        };
        if !self.has_key(&key.public()) {
            let what = format!("the key {} is not the one that was enrolled as {}", path.display(), self.name);
            return Err(Failure::config(what).hint(LOST_KEY_HINT));
        }
        Ok(key)
    }

    /// Looks whether the host still has its key. One that this user may not read is taken for good.
    ///
    /// # Errors
    /// 78 when it is gone, no key, or another one.
    pub fn check_key(&self, place: &Place) -> Result<(), Failure> {
        let path = place.key();
        if matches!(File::open(&path), Err(error) if error.kind() == io::ErrorKind::PermissionDenied) {
            return Ok(());
        }
        self.own_key(&path, load_key(&path, false)?).map(drop)
    }

    /// Reads the record; none when this host is not enrolled.
    ///
    /// # Errors
    /// 78 when it cannot be read, or was not written by this or an earlier version.
    pub fn load(place: &Place) -> Result<Option<Self>, Failure> {
        /// What every layout has.
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let path = place.enrolment();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(&path, &error)),
        };
        let damaged = |why: &str| {
            Failure::config(format!("the enrolment record {} is damaged: {why}", path.display()))
                .hint("enrol again with the same key: hb register --server URL --force")
        };
        let head: Head = toml::from_str(&text).map_err(|error| damaged(error.message()))?;
        if head.version > VERSION {
            let what = format!("{} was written by a newer hb (layout {})", path.display(), head.version);
            return Err(Failure::config(what).hint("upgrade hb on this host"));
        }
        let enrolled: Self = toml::from_str(&text).map_err(|error| damaged(error.message()))?;
        if enrolled.beat_urls.is_empty() || enrolled.beat_urls.len() > BEAT_URLS_MAX {
            return Err(damaged("it names no address, or too many, to beat to"));
        }
        Ok(Some(enrolled))
    }

    /// Writes the record, durably.
    ///
    /// # Errors
    /// 1, naming the file.
    pub fn save(&self, place: &Place) -> Result<(), Failure> {
        let text = toml::to_string(self).map_err(|error| Failure::bug(format!("enrolment record: {error}")))?;
        let is_secret = self.proxy.as_ref().is_some_and(ProxyUrl::has_login);
        let said = if is_secret { "The password of a proxy is in it" } else { "No secret in it" };
        let text = Zeroizing::new(format!("# Written by `hb register`. {said}; the key is beside it.\n{text}"));
        // The service reads it as its own account, which is not root.
        let readers = if is_secret { account::to_become(place).map(|account| account.gid) } else { None };
        let mode = if is_secret { 0o600 } else { 0o644 };
        let written = match readers {
            Some(gid) => replace_for(&place.dir, ENROLMENT_FILE, text.as_bytes(), gid),
            None => replace(&place.dir, ENROLMENT_FILE, text.as_bytes(), mode),
        };
        written.map_err(|error| unwritable(&place.enrolment(), &error))
    }
}

/// Finds out whether the enrolment record can be written, before the server is told anything that it would have to record.
///
/// # Errors
/// 1, naming the file.
pub fn check_writable(place: &Place) -> Result<(), Failure> {
    const PROBE: &str = "enrolment.probe";
    // As long as a record may become, so that a disk that is nearly full is found out too.
    let room = [b'#'; 8 * 1024];
    replace(&place.dir, PROBE, &room, 0o600)
        .and_then(|()| fs::remove_file(place.dir.join(PROBE)))
        .map_err(|error| unwritable(&place.enrolment(), &error))
}

/// The key of an enrolment that is under way: the host's key if there is one, else one that an earlier attempt left
/// (its answer may have been lost: the same key gets the same answer), else a new one, stored before it is used.
///
/// # Errors
/// 78 for a key file that cannot be used, 1 when nothing can be written.
pub fn key_to_enrol(place: &Place, seed: [u8; 32]) -> Result<HostKey, Failure> {
    for name in [KEY_FILE, PENDING_FILE] {
        if let Some(key) = load_key(&place.dir.join(name), true)? {
            return Ok(key);
        }
    }
    let key = HostKey::from_seed(seed);
    replace(&place.dir, PENDING_FILE, key.to_pem().as_bytes(), 0o600)
        .map_err(|error| unwritable(&place.dir.join(PENDING_FILE), &error))?;
    Ok(key)
}

/// Makes the pending key the host's key. A key that exists is left alone.
///
/// # Errors
/// 1, naming the file.
pub fn settle_key(place: &Place) -> Result<(), Failure> {
    let (pending, settled) = (place.dir.join(PENDING_FILE), place.dir.join(KEY_FILE));
    if settled.exists() {
        return Ok(());
    }
    fs::rename(&pending, &settled)
        .and_then(|()| File::open(&place.dir)?.sync_all())
        .map_err(|error| unwritable(&settled, &error))
}

/// The key that takes over in a rotation: the one that an earlier attempt left, else a new one, stored before it is used.
///
/// # Errors
/// 78 for a key file that cannot be used, 1 when nothing can be written.
pub fn next_key(place: &Place, seed: [u8; 32]) -> Result<HostKey, Failure> {
    let path = place.dir.join(NEXT_FILE);
    if let Some(key) = load_key(&path, true)? {
        return Ok(key);
    }
    let key = HostKey::from_seed(seed);
    replace(&place.dir, NEXT_FILE, key.to_pem().as_bytes(), 0o600).map_err(|error| unwritable(&path, &error))?;
    Ok(key)
}

/// Puts the next key in the place of the host's key.
///
/// # Errors
/// 1, naming the file.
pub fn settle_next_key(place: &Place) -> Result<(), Failure> {
    let (next, settled) = (place.dir.join(NEXT_FILE), place.dir.join(KEY_FILE));
    fs::rename(&next, &settled)
        .and_then(|()| File::open(&place.dir)?.sync_all())
        .map_err(|error| unwritable(&settled, &error))
}

/// Removes everything by which this machine is that host: its keys, its record, its journal. What is not there is no error.
/// Answers what was removed.
///
/// # Errors
/// 1, naming the file; what was removed before it is gone.
pub fn forget(place: &Place) -> Result<Vec<PathBuf>, Failure> {
    // The record goes last: whoever is cut off in between sees a host that is enrolled and has lost its key.
    let secret = [KEY_FILE, PENDING_FILE, NEXT_FILE].map(|name| place.dir.join(name));
    let state = ["journal", "agent.sock"].map(|name| place.state.path().join(name));
    let mut removed = Vec::new();
    for path in secret.into_iter().chain(state).chain([place.enrolment()]) {
        match fs::remove_file(&path) {
            Ok(()) => removed.push(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unwritable(&path, &error)),
        }
    }
    if !removed.is_empty() {
        File::open(&place.dir).and_then(|dir| dir.sync_all()).map_err(|error| unwritable(&place.dir, &error))?;
    }
    Ok(removed)
}

/// True when the host has a settled key.
pub fn has_key(place: &Place) -> bool {
    place.dir.join(KEY_FILE).exists()
}

/// Reads a private key; none when there is no such file. With `private`, one that others could read is refused.
///
/// # Errors
/// 78: unreadable, readable by others, or not a key.
pub fn load_key(path: &Path, private: bool) -> Result<Option<HostKey>, Failure> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(path, &error)),
    };
    let metadata = file.metadata().map_err(|error| unreadable(path, &error))?;
    let mode = metadata.permissions().mode() & 0o7777;
    let shown = path.display();
    let own = rustix::process::geteuid().as_raw();
    if private && metadata.uid() != own && metadata.uid() != 0 {
        let what = format!("the private key {shown} belongs to another user (uid {})", metadata.uid());
        return Err(Failure::config(what).hint(format!("chown {own} {shown}; if it may have been copied, enrol anew")));
    }
    if private && mode & 0o077 != 0 {
        let what = format!("the private key {shown} can be used by others (mode {mode:04o})");
        return Err(Failure::config(what).hint(format!("chmod 600 {shown}; if it may have been copied, enrol anew")));
    }
    let mut pem = Zeroizing::new(String::new());
    file.take(PEM_BYTES_MAX as u64 + 1).read_to_string(&mut pem).map_err(|error| unreadable(path, &error))?;
    HostKey::from_pem(&pem).map(Some).map_err(|error| {
        let hint = format!("{LOST_KEY_HINT}, after the file was moved away");
        Failure::config(format!("{shown} is not a host key: {error}")).hint(hint)
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the system has forty ways to fail, and two that need another hint")]
fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::config(format!("could not read {}: {error}", path.display()));
    match error.kind() {
        io::ErrorKind::PermissionDenied => failure.hint("run it as root, or as the user who enrolled this host"),
        _ => failure.hint("check the file and the disk that it is on"),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the system has forty ways to fail, and some that need a hint")]
fn unwritable(path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::failed(format!("could not write {}: {error}", path.display()));
    match error.kind() {
        io::ErrorKind::PermissionDenied => failure.hint("run it as root, or set HB_STATE_DIR to a folder of your own"),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => failure.hint("free some space, and run it again"),
        io::ErrorKind::ReadOnlyFilesystem => failure.hint("the file system is mounted read-only"),
        io::ErrorKind::NotFound => failure.hint("make the folder that it is in"),
        _ => failure,
    }
}

/// A pin as text in the record.
mod pin_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::http::tls::Pin;

    #[expect(clippy::ref_option, reason = "the signature that serde calls")]
    pub(super) fn serialize<S: Serializer>(pin: &Option<Pin>, serializer: S) -> Result<S::Ok, S::Error> {
        match pin {
            Some(pin) => serializer.collect_str(pin),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Pin>, D::Error> {
        String::deserialize(deserializer)?.parse().map(Some).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Env;
    use crate::exit;

    fn place(dir: &Path) -> Place {
        Place::find(&Env { state_dir: Some(dir.to_owned()), ..Env::default() }).unwrap()
    }

    fn enrolled(key: &HostKey) -> Enrolled {
        Enrolled {
            version: VERSION,
            id: HostId::mint(1_795_444_000_000, [5; 10]),
            name: "web1".to_owned(),
            server: Url::parse("https://hb.example.com/").unwrap(),
            beat_urls: vec![Url::parse("https://hb.example.com/v1/beat").unwrap()],
            interval_s: 60,
            grace_s: 120,
            public_key: key.public().to_string(),
            next_key: None,
            first_nonce: Nonce([3; 16]),
            enrolled_at_unix_s: 1_795_444_000,
            pin: Some(format!("sha256:{}", "ab".repeat(32)).parse().unwrap()),
            ca_file: None,
            insecure_http: false,
            proxy: None,
            no_proxy: None,
        }
    }

    #[test]
    fn a_key_is_made_once_pending_first_and_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        let first = key_to_enrol(&place, [1; 32]).unwrap().public();
        assert!(!has_key(&place));
        assert_eq!(key_to_enrol(&place, [2; 32]).unwrap().public(), first, "an earlier attempt's key is used again");
        settle_key(&place).unwrap();
        settle_key(&place).unwrap();
        assert!(has_key(&place));
        assert_eq!(key_to_enrol(&place, [3; 32]).unwrap().public(), first);
        let mode = fs::metadata(dir.path().join(KEY_FILE)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
    }

    #[test]
    fn a_key_that_others_can_use_is_refused_whatever_the_mode() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        key_to_enrol(&place, [1; 32]).unwrap();
        settle_key(&place).unwrap();
        for mode in 0..0o1000 {
            fs::set_permissions(place.key(), fs::Permissions::from_mode(mode)).unwrap();
            let loaded = load_key(&place.key(), true);
            // Root reads any file; another user meets the permission itself.
            if mode & 0o077 != 0 {
                let failure = loaded.unwrap_err();
                assert_eq!(failure.exit, exit::CONFIG, "{mode:o}");
            } else if mode & 0o400 != 0 {
                assert!(loaded.is_ok(), "{mode:o}");
            }
        }
    }

    #[test]
    fn an_enrolment_reads_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        assert_eq!(Enrolled::load(&place).unwrap(), None);
        assert_eq!(Identity::load(&place).unwrap_err().exit, exit::CONFIG);
        let key = key_to_enrol(&place, [1; 32]).unwrap();
        settle_key(&place).unwrap();
        let mut record = enrolled(&key);
        record.save(&place).unwrap();
        assert_eq!(Identity::load(&place).unwrap().enrolled, record);
        record.pin = None;
        record.ca_file = Some("/etc/ca.pem".into());
        record.insecure_http = true;
        record.proxy = Some(ProxyUrl::new("http://proxy.example.com:3128"));
        record.no_proxy = Some("localhost,10.0.0.0/8".to_owned());
        record.save(&place).unwrap();
        assert_eq!(Enrolled::load(&place).unwrap(), Some(record));
    }

    #[test]
    fn a_record_of_the_time_before_proxies_were_remembered_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        let old = "\
            # Written by `hb register`. No secret in it; the key is beside it.\n\
            version = 1\n\
            id = \"01990000-0000-7000-8000-000000000001\"\n\
            name = \"web1\"\n\
            server = \"https://hb.example.com/\"\n\
            beat_urls = [\"https://hb.example.com/v1/beat\"]\n\
            interval_s = 60\n\
            grace_s = 120\n\
            public_key = \"ed25519:AAAA\"\n\
            first_nonce = \"AAAAAAAAAAAAAAAAAAAAAQ\"\n\
            enrolled_at_unix_s = 1795444000\n";
        fs::write(place.enrolment(), old).unwrap();
        let record = Enrolled::load(&place).unwrap().unwrap();
        assert_eq!((record.name.as_str(), record.way()), ("web1", None));
        record.save(&place).unwrap();
        assert_eq!(fs::read_to_string(place.enrolment()).unwrap(), old, "and an older hb can read what is written");
    }

    #[test]
    fn a_record_is_for_everybody_but_with_the_password_of_a_proxy() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        let mut record = enrolled(&HostKey::from_seed([1; 32]));
        for (proxy, mode) in [("http://proxy:3128", 0o644), ("http://u:p@proxy:3128", 0o600), ("proxy:3128", 0o644)] {
            record.proxy = Some(ProxyUrl::new(proxy));
            record.save(&place).unwrap();
            assert_eq!(fs::metadata(place.enrolment()).unwrap().permissions().mode() & 0o777, mode, "{proxy}");
        }
    }

    #[test]
    fn a_key_that_was_replaced_or_is_gone_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        let key = key_to_enrol(&place, [1; 32]).unwrap();
        settle_key(&place).unwrap();
        enrolled(&key).save(&place).unwrap();
        replace(&place.dir, KEY_FILE, HostKey::from_seed([2; 32]).to_pem().as_bytes(), 0o600).unwrap();
        let failure = Identity::load(&place).unwrap_err();
        assert!(failure.message.contains("not the one that was enrolled"), "{failure}");
        fs::remove_file(place.key()).unwrap();
        assert!(Identity::load(&place).unwrap_err().message.contains("is gone"));
    }

    #[test]
    fn a_damaged_or_newer_record_is_a_configuration_error_and_never_a_panic() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        let key = key_to_enrol(&place, [1; 32]).unwrap();
        enrolled(&key).save(&place).unwrap();
        let whole = fs::read_to_string(place.enrolment()).unwrap();
        for length in 0..whole.len() {
            fs::write(place.enrolment(), &whole[..length]).unwrap();
            if let Err(failure) = Enrolled::load(&place) {
                assert_eq!(failure.exit, exit::CONFIG, "cut to {length}");
            }
        }
        fs::write(place.enrolment(), whole.replace("version = 1", "version = 2")).unwrap();
        assert!(Enrolled::load(&place).unwrap_err().message.contains("newer hb"));
    }

    #[test]
    fn what_is_not_a_key_is_refused_without_showing_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        for text in ["", "secret-text", &"x".repeat(100_000)] {
            replace(dir.path(), "k", text.as_bytes(), 0o600).unwrap();
            let failure = load_key(&path, true).unwrap_err();
            assert_eq!(failure.exit, exit::CONFIG);
            assert!(!failure.to_string().contains("secret-text"));
        }
    }
}
