//! What the tests of all channels need.

use std::collections::BTreeMap;
use std::sync::Arc;

use hb_notify::{Channel, Letter, Rules, SendError, Trust, parse};
use hb_wire::id::{DeliveryId, EventId, HostId, IncidentId};
use hb_wire::view::{HostRef, Notice};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::PrivateKeyDer;
use serde_json::Value;
use tokio_rustls::TlsAcceptor;

/// The secret of every webhook here: 32 bytes of 7.
pub(crate) const RANDOM: [u8; 32] = [7; 32];

pub(crate) fn key() -> DeliveryId {
    DeliveryId::mint(1_000, [9; 10])
}

/// web1 is down.
pub(crate) fn notice() -> Notice {
    let mut notice = Notice {
        event: "down".to_owned(),
        id: EventId::mint(1_000, [1; 10]),
        incident: Some(IncidentId::mint(1_000, [2; 10])),
        host: Some(HostRef {
            id: HostId::mint(1_000, [3; 10]),
            name: "web1".to_owned(),
            tags: BTreeMap::from([("site".to_owned(), "ams1".to_owned())]),
        }),
        hosts: Vec::new(),
        at: "2026-11-23T03:14:39Z".parse().unwrap(),
        since: Some("2026-11-23T03:12:09Z".parse().unwrap()),
        cause: Some("silent".to_owned()),
        deadline: Some("2026-11-23T03:14:09Z".parse().unwrap()),
        message: String::new(),
        details: BTreeMap::new(),
    };
    notice.message = hb_notify::message::line(&notice);
    notice
}

pub(crate) fn letter(notice: &Notice) -> Letter<'_> {
    Letter { notice, key: key(), at: "2026-11-23T03:14:40Z".parse().unwrap(), attempt: 1 }
}

/// Rules that allow webhooks to loopback.
pub(crate) fn loopback() -> Rules {
    let allow_networks = vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
    Rules { allow_networks, ..Rules::default() }
}

pub(crate) fn channel(kind: &str, settings: &Value, rules: &Rules) -> Arc<dyn Channel> {
    parse(kind, settings, rules, RANDOM).unwrap_or_else(|error| panic!("{settings}: {error}")).0
}

/// Sends web1's death, and checks that the attempt keeps its promised time.
pub(crate) async fn send(channel: &dyn Channel) -> Result<(), SendError> {
    send_notice(channel, &notice()).await
}

pub(crate) async fn send_notice(channel: &dyn Channel, notice: &Notice) -> Result<(), SendError> {
    let letter = letter(notice);
    tokio::time::timeout(channel.timeout(), channel.send(&letter)).await.expect("send ends within its timeout")
}

pub(crate) fn is_temporary(result: &Result<(), SendError>) -> bool {
    matches!(result, Err(SendError::Temporary { .. }))
}

pub(crate) fn is_permanent(result: &Result<(), SendError>) -> bool {
    matches!(result, Err(SendError::Permanent { .. }))
}

pub(crate) fn is_ambiguous(result: &Result<(), SendError>) -> bool {
    matches!(result, Err(SendError::Ambiguous { .. }))
}

/// A certificate for `names`, and who believes in it.
pub(crate) fn certificate(names: &[&str]) -> (TlsAcceptor, Trust) {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), Trust::with_pem(made.cert.pem().as_bytes()).unwrap())
}
