//! TLS: trusted, pinned, out of date by this machine's clock, and everything that must be refused.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hb::http::tls::BUILT_AT_UNIX_S;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};

use super::server::Server;
use super::system::SYSTEM;
use super::world::World;

pub(super) const DAY: i64 = 86_400;
/// 2040-01-01: far from any clock that this test may meet.
const FUTURE: i64 = 2_208_988_800;

/// A certificate authority and a server certificate of its.
pub(super) struct Site {
    ca_pem: String,
    certificate: CertificateDer<'static>,
    key_spki: Vec<u8>,
    pub(super) config: Arc<ServerConfig>,
}

impl Site {
    pub(super) fn pin(&self) -> String {
        pin_of(&self.certificate)
    }
}

/// Valid from and to, in seconds since 1970.
pub(super) fn site(name: &str, from: i64, to: i64) -> Site {
    let stamp = |unix_s: i64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(unix_s).unwrap());
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (ca.not_before, ca.not_after) = (stamp(0), stamp(4_000_000_000));
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new(vec![name.to_owned()]).unwrap();
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (leaf.not_before, leaf.not_after) = (stamp(from), stamp(to));
    let leaf = leaf.signed_by(&key, &ca).unwrap();
    let certificate = leaf.der().clone();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let key_spki = rcgen::PublicKeyData::subject_public_key_info(&key);
    Site { ca_pem: ca.pem(), certificate, key_spki, config: Arc::new(config) }
}

pub(super) fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

fn pin_of(bytes: &[u8]) -> String {
    let digits = |byte: u8| [byte >> 4, byte & 15].map(|digit| char::from_digit(u32::from(digit), 16).unwrap());
    let hex: String = Sha256::digest(bytes).iter().flat_map(|byte| digits(*byte)).collect();
    format!("sha256:{hex}")
}

/// A host that trusts the site's authority.
pub(super) fn trusting(site: &Site) -> World {
    let world = World::new();
    fs::write(world.path("ca.pem"), &site.ca_pem).unwrap();
    let path = world.path("ca.pem").display().to_string();
    world.env("HB_CA_FILE", &path)
}

/// A host that was enrolled while the server had a good certificate, and now meets `site` at the same address.
fn enrolled_then(site: &Site, enrolled_at: &str) -> (World, Server) {
    let good = self::site("localhost", now() - DAY, now() + DAY);
    let server = Server::tls(Arc::clone(&good.config));
    enrolled_at.clone_into(&mut server.books.lock().unwrap().now);
    let world = trusting(&good);
    world.enrol(&server, &[]);
    let key = server.books.lock().unwrap().key;
    let moved = Server::tls(Arc::clone(&site.config));
    {
        let mut books = moved.books.lock().unwrap();
        (books.key, books.now) = (key, enrolled_at.to_owned());
    }
    let record = world.state().join("enrolment.toml");
    let text = fs::read_to_string(&record).unwrap().replace(&server.url(), &moved.url());
    fs::write(&record, text).unwrap();
    fs::write(world.path("ca.pem"), &site.ca_pem).unwrap();
    (world, moved)
}

#[test]
fn a_private_authority_is_trusted_by_its_file_which_the_agent_remembers() {
    let site = site("localhost", now() - DAY, now() + DAY);
    let server = Server::tls(Arc::clone(&site.config));
    let world = trusting(&site);
    world.enrol(&server, &[]);
    let world = world.env("HB_CA_FILE", "");
    world.run(&["beat"]).says(0, &[]);
    assert_eq!(server.stored().len(), 1);
}

#[test]
fn authorities_that_the_service_could_not_read_are_refused_before_a_token_is_spent() {
    let site = site("localhost", now() - DAY, now() + DAY);
    let server = Server::tls(Arc::clone(&site.config));
    let world = trusting(&site);
    let run = world.as_root_in_own_mounts(&format!(
        "{SYSTEM}
        mkdir -m 755 /etc/hb
        cp $HB_CA_FILE /etc/hb/ca.pem
        export HB_CA_FILE=/etc/hb/ca.pem
        chmod 600 $HB_CA_FILE
        \"$HB\" register --server {0} --token-file token --name web1 && exit 3
        ls /etc/hb
        chmod 644 $HB_CA_FILE
        \"$HB\" register --server {0} --token-file token --name web1
        \"$HB\" beat",
        server.url()
    ));
    run.says(0, &["the agent, which runs as _hb, cannot read /etc/hb/ca.pem"]);
    assert!(run.stdout.starts_with("ca.pem\n"), "{run:?}");
    assert_eq!((server.seen().len(), server.stored().len()), (2, 1), "one enrolment, one beat");
}

#[test]
fn a_certificate_that_nobody_signed_is_refused_and_its_fingerprint_told() {
    let site = site("localhost", now() - DAY, now() + DAY);
    let server = Server::tls(Arc::clone(&site.config));
    let world = World::new();
    let run = world.run(&["register", "--server", &server.url(), "--token-file", &world.token_file()]);
    let pin = pin_of(&site.certificate);
    run.says(69, &["is not trusted", "signed by nobody", &format!("--pin {pin}"), "ca_file"]);
    assert!(server.seen().is_empty(), "no token leaves for a server that is not trusted");
}

#[test]
fn a_pin_of_the_certificate_or_of_its_key_replaces_every_other_check() {
    // Of another name, and long expired: the pin alone counts.
    let site = site("other.example", 0, DAY);
    for pin in [pin_of(&site.certificate), pin_of(&site.key_spki)] {
        let server = Server::tls(Arc::clone(&site.config));
        let world = World::new();
        world.enrol(&server, &["--pin", &pin]);
        world.run(&["beat"]).says(0, &[]);
        assert_eq!(server.stored().len(), 1);
    }
}

#[test]
fn another_certificate_than_the_pinned_one_is_refused_even_from_a_good_authority() {
    let site = site("localhost", now() - DAY, now() + DAY);
    let server = Server::tls(Arc::clone(&site.config));
    let world = trusting(&site);
    let wrong = pin_of(b"something else");
    let run = world.run(&["register", "--server", &server.url(), "--token-file", &world.token_file(), "--pin", &wrong]);
    run.says(69, &[&format!("not the pinned {wrong}"), &pin_of(&site.certificate), "somebody is in between"]);
    assert!(!run.stderr.contains("--pin "), "who is in between would be the one to offer a pin: {run:?}");
    assert!(server.seen().is_empty());
    world.enrol(&server, &["--pin", &pin_of(&site.certificate)]);
    let other = self::site("localhost", now() - DAY, now() + DAY);
    let moved = Server::tls(other.config);
    let record = world.state().join("enrolment.toml");
    let text = fs::read_to_string(&record).unwrap().replace(&server.url(), &moved.url());
    fs::write(&record, text).unwrap();
    world.run(&["beat"]).says(69, &["not the pinned"]);
    assert!(moved.seen().is_empty());
}

#[test]
fn a_clock_that_is_years_behind_still_beats_by_the_servers_own_time() {
    let site = site("localhost", FUTURE - DAY, FUTURE + DAY);
    let (world, server) = enrolled_then(&site, "2040-01-01T00:00:00Z");
    let run = world.run(&["beat"]);
    run.says(0, &["clock is wrong"]);
    assert_eq!(server.stored().len(), 1);
    world.run(&["doctor"]).says(0, &[]);
    assert!(world.run(&["doctor"]).stdout.contains("out of date by this machine's clock"));
}

#[test]
fn a_clock_that_is_ahead_of_the_certificate_still_beats_by_the_time_of_the_build() {
    let built = i64::try_from(BUILT_AT_UNIX_S).unwrap();
    // Expired a second after the build: by any clock that is right, and by the one of this test.
    while now() <= built + 2 {
        std::thread::sleep(Duration::from_millis(100));
    }
    let site = site("localhost", built - DAY, built + 1);
    let (world, server) = enrolled_then(&site, "2026-01-01T00:00:00Z");
    world.run(&["beat"]).says(0, &["clock is wrong"]);
    assert_eq!(server.stored().len(), 1);
}

#[test]
fn a_certificate_that_is_out_of_date_by_every_clock_is_refused_and_says_by_how_much() {
    for (site, says) in [
        (site("localhost", now() - 400 * DAY, now() - 300 * DAY), "expired 300 days ago"),
        (site("localhost", FUTURE, FUTURE + DAY), "valid only in"),
    ] {
        let (world, server) = enrolled_then(&site, "2026-01-01T00:00:00Z");
        world.run(&["beat"]).says(69, &[says, "set this machine's clock, or renew"]);
        assert!(server.seen().is_empty());
        let journal = fs::read_to_string(world.state().join("journal")).unwrap();
        assert!(journal.contains(r#""error":"tls_time""#), "{journal}");
    }
}

#[test]
fn the_time_floor_forgives_nothing_but_the_time() {
    // Out of date by the clock, and of another name.
    let other = site("other.example", FUTURE - DAY, FUTURE + DAY);
    let (world, server) = enrolled_then(&other, "2040-01-01T00:00:00Z");
    world.run(&["beat"]).says(69, &["is not trusted"]);
    assert!(server.seen().is_empty());
    // Out of date by the clock, and signed by somebody else.
    let stranger = site("localhost", FUTURE - DAY, FUTURE + DAY);
    let (world, server) = enrolled_then(&stranger, "2040-01-01T00:00:00Z");
    fs::write(world.path("ca.pem"), &other.ca_pem).unwrap();
    world.run(&["beat"]).says(69, &["is not trusted"]);
    assert!(server.seen().is_empty());
}

#[test]
fn an_enrolment_is_never_made_by_the_time_floor() {
    let built = i64::try_from(BUILT_AT_UNIX_S).unwrap();
    while now() <= built + 2 {
        std::thread::sleep(Duration::from_millis(100));
    }
    let site = site("localhost", built - DAY, built + 1);
    let server = Server::tls(Arc::clone(&site.config));
    let world = trusting(&site);
    let run = world.run(&["register", "--server", &server.url(), "--token-file", &world.token_file()]);
    run.says(69, &["expired"]);
    assert!(server.seen().is_empty());
}

#[test]
fn a_plain_server_behind_https_is_a_tls_failure() {
    let plain = Server::plain();
    let world = World::new();
    let url = plain.url().replace("http:", "https:");
    world
        .run(&["register", "--server", &url, "--token-file", &world.token_file()])
        .says(69, &["during the TLS handshake", "speaks TLS"]);
}

#[test]
fn a_ca_file_that_is_not_there_is_a_configuration_error() {
    let world = World::new().env("HB_CA_FILE", "/nonexistent.pem");
    let run = world.run(&["register", "--server", "https://127.0.0.1:1", "--token-file", &world.token_file()]);
    run.says(78, &["/nonexistent.pem", "No such file", "check its path, and who may read it"]);
}
