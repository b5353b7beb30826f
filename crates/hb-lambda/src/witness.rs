//! One region asks the other whether it has heard hosts that are silent here, before it accuses them.
//!
//! A question is a list of ids with a code over it (HMAC-SHA-256, RFC 2104), by a key that follows from the secrets in the
//! table: nobody else learns which hosts there are, nor when they were heard. It asks for nothing to be done, and so may be
//! heard twice; it is as old as its answer allows.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use base64ct::{Base64, Encoding as _};
use hb_api::app::Clock;
use hb_core::time::{Time, seconds};
use hb_store_dynamodb::{ASKED_MAX, DynamoStore, Witness};
use hb_wire::id::HostId;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::Error;
use crate::canary::client;
use crate::environment::Peer;

/// Where it is asked.
pub const PATH: &str = "/v1/peer/heard";
/// The header that carries the code, in Base64.
const CODE: &str = "hb-peer-code";
/// How long the other region may take to answer: an alarm waits for it.
const TIMEOUT: Duration = Duration::from_secs(4);
/// A question may be this old (ms): clocks of the platform are nearly the same.
const AGE_MAX_MS: u64 = seconds(120);
/// An answer has an id and a number for each host.
const ANSWER_BYTES_MAX: usize = 128 * ASKED_MAX;

/// The key that both regions have.
#[derive(Clone)]
pub struct PeerKey([u8; 32]);

impl core::fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("PeerKey(…)")
    }
}

impl PeerKey {
    /// The key that follows from a secret of the table.
    #[must_use]
    pub fn derive(secret: &[u8; 32]) -> Self {
        Self(Sha256::new().chain_update("key between regions").chain_update(secret).finalize().into())
    }

    fn mac(&self, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(body);
        mac
    }

    fn code(&self, body: &[u8]) -> String {
        Base64::encode_string(&self.mac(body).finalize().into_bytes())
    }

    fn made(&self, code: &str, body: &[u8]) -> bool {
        Base64::decode_vec(code).is_ok_and(|code| self.mac(body).verify_slice(&code).is_ok())
    }
}

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
struct Question {
    /// When, in milliseconds.
    at: u64,
    /// About whom.
    hosts: Vec<HostId>,
}

/// What is answered: of hosts that are that region's own, when it heard them, as it is stored. The same beat is of the same
/// instant in both regions, however their clocks differ.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    heard_at: BTreeMap<HostId, Time>,
}

/// Asks the other region.
#[derive(Debug)]
pub struct PeerWitness {
    url: Url,
    key: PeerKey,
    clock: Arc<dyn Clock>,
    client: reqwest::Client,
}

impl PeerWitness {
    /// For this peer.
    ///
    /// # Errors
    /// When there can be no client for it.
    pub fn new(peer: &Peer, key: PeerKey, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let mut url = peer.url.clone();
        url.set_path(&format!("{}{PATH}", peer.url.path().trim_end_matches('/')));
        Ok(Self { url, key, clock, client: client(TIMEOUT)? })
    }

    async fn ask(&self, hosts: Vec<HostId>, now: Time) -> Result<Answer, Error> {
        let body = serde_json::to_vec(&Question { at: now.0, hosts })?;
        let code = self.key.code(&body);
        let request = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/json").header(CODE, code);
        let mut answer = request.body(body).send().await.map_err(reqwest::Error::without_url)?;
        if answer.status() != StatusCode::OK {
            return Err(format!("it was answered {}", answer.status()).into());
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_BYTES_MAX {
                return Err("the answer is too long".into());
            }
        }
        Ok(serde_json::from_slice(&body)?)
    }
}

#[async_trait]
impl Witness for PeerWitness {
    async fn heard(&self, silent: &[(HostId, Time)]) -> Vec<(HostId, Time)> {
        let now = self.clock.now();
        match self.ask(silent.iter().map(|(id, _)| *id).collect(), now).await {
            Ok(answer) => later(silent, &answer),
            Err(reason) => {
                tracing::warn!("the other region does not say whom it has heard, and silence counts: {reason}");
                Vec::new()
            }
        }
    }
}

/// Those that were heard there later than here.
fn later(silent: &[(HostId, Time)], answer: &Answer) -> Vec<(HostId, Time)> {
    let heard = |id| Some((id, *answer.heard_at.get(&id)?));
    silent.iter().filter_map(|(id, from)| heard(*id).filter(|(_, at)| at > from)).collect()
}

#[derive(Debug)]
struct Answering {
    store: Arc<DynamoStore>,
    key: PeerKey,
    clock: Arc<dyn Clock>,
}

/// Answers the other region.
pub fn router(store: Arc<DynamoStore>, key: PeerKey, clock: Arc<dyn Clock>) -> Router {
    Router::new().route(PATH, post(answer)).with_state(Arc::new(Answering { store, key, clock }))
}

async fn answer(State(here): State<Arc<Answering>>, headers: HeaderMap, body: Bytes) -> Response {
    let now = here.clock.now();
    let code = headers.get(CODE).and_then(|code| code.to_str().ok()).unwrap_or_default();
    let question = here.key.made(code, &body).then(|| serde_json::from_slice::<Question>(&body).ok()).flatten();
    let Some(question) = question.filter(|question| now.0.abs_diff(question.at) <= AGE_MAX_MS) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    match here.store.heard_here(&question.hosts).await {
        Ok(heard) => axum::Json(Answer { heard_at: heard.into_iter().collect() }).into_response(),
        Err(error) => {
            tracing::error!("the other region could not be answered: {error}");
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> HostId {
        HostId::mint(n, [7; 10])
    }

    #[test]
    fn a_question_is_known_by_its_code_alone() {
        let (key, other) = (PeerKey::derive(&[1; 32]), PeerKey::derive(&[2; 32]));
        let code = key.code(b"whom?");
        assert!(key.made(&code, b"whom?"));
        for (key, code, body) in
            [(&other, code.as_str(), "whom?"), (&key, &code, "whom"), (&key, "", "whom?"), (&key, "%", "whom?")]
        {
            assert!(!key.made(code, body.as_bytes()));
        }
    }

    #[test]
    fn only_who_was_heard_there_later_than_here_is_left_to_the_other_region() {
        let silent = [(id(1), Time(800_000)), (id(2), Time(800_000)), (id(3), Time(800_000))];
        let answer = Answer { heard_at: [(id(1), Time(990_000)), (id(2), Time(800_000))].into() };
        assert_eq!(later(&silent, &answer), [(id(1), Time(990_000))]);
    }
}
