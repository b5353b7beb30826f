//! TLS: the self-signed certificate, files, and a reload.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use hb_server::tls::{Files, make};
use rustix::process::Signal;

use crate::client::{Client, Host};
use crate::server::{Data, path_text};

fn pair(dir: &Path) -> (Files, String) {
    let files = Files::own(dir);
    let fingerprint = make(&files, &["127.0.0.1".to_owned()]).unwrap();
    (files, fingerprint)
}

#[test]
fn off_loopback_the_certificate_of_init_is_served_and_pinned_by_its_fingerprint() {
    let data = Data::init();
    let mut server = data.serve_with(&["--listen", "0.0.0.0:0"], &[]);
    assert_eq!(server.scheme, "https");
    assert!(server.wait_for_line("certificate: sha256:").contains(&data.fingerprint));
    server.wait_for_line("nobody said what this server is called");
    let mut client = Client::pinned(server.address, &data.fingerprint);
    let mut host = Host::enrol(&mut client, &data.key, "web1", 60, 120);
    assert_eq!(host.beat(&mut client).unwrap(), 200);
    let other = format!("sha256:{}", "0".repeat(64));
    assert!(Client::pinned(server.address, &other).request("GET", "/v1/status", &[], b"").is_err());
    assert!(server.client().request("GET", "/v1/status", &[], b"").is_err(), "no plain http");
    server.stop();
}

#[test]
fn insecure_http_off_loopback_has_to_be_asked_for() {
    let data = Data::init();
    let server = data.serve_with(&["--listen", "0.0.0.0:0", "--insecure-http"], &[]);
    assert_eq!(server.scheme, "http");
    assert_eq!(server.client().request("GET", "/v1/status", &[], b"").unwrap().status, 200);
    server.stop();
}

#[test]
fn hangup_serves_the_new_certificate_and_keeps_the_old_one_when_the_new_one_is_bad() {
    let data = Data::init();
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (files, first_print) = pair(first.path());
    let (new, second_print) = pair(second.path());
    let (cert, key) = (path_text(&files.cert), path_text(&files.key));
    let mut server = data.serve_with(&["--listen", "127.0.0.1:0", "--tls-cert", &cert, "--tls-key", &key], &[]);
    assert_eq!(server.scheme, "https");
    let is_served = |fingerprint: &str| {
        Client::pinned(server.address, fingerprint)
            .request("GET", "/v1/status", &[], b"")
            .is_ok_and(|a| a.status == 200)
    };
    assert!(is_served(&first_print) && !is_served(&second_print));
    let mut kept = Client::pinned(server.address, &first_print);
    kept.connect().unwrap();
    let mut host = Host::enrol(&mut kept, &data.key, "web1", 60, 120);

    std::fs::copy(&new.cert, &files.cert).unwrap();
    server.signal(Signal::HUP);
    let address = server.address;
    server.wait_for_line("the certificate stays as it was");
    let is_served = |fingerprint: &str| {
        Client::pinned(address, fingerprint).request("GET", "/v1/status", &[], b"").is_ok_and(|a| a.status == 200)
    };
    assert!(is_served(&first_print), "a certificate without its key is not taken");

    std::fs::copy(&new.key, &files.key).unwrap();
    std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(0o644)).unwrap();
    server.signal(Signal::HUP);
    server.wait_for_line("the certificate stays as it was: the private key");
    assert!(is_served(&first_print), "a key that everybody can read is not taken");

    std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(0o600)).unwrap();
    server.signal(Signal::HUP);
    server.wait_for_line(&format!("it is now {second_print}"));
    assert!(is_served(&second_print) && !is_served(&first_print));
    assert_eq!(host.beat(&mut kept).unwrap(), 200, "a connection that was open goes on");
    server.stop();
}
