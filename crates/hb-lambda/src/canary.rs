//! The sweeper's own beat through the public URL: proof that a beat is received, verified and stored.
//!
//! It is an ordinary host, `hb-sweeper-REGION`, with a key of its own that follows from the secrets in the table: whichever
//! process is the sweeper this minute beats for the same host, and `hb status` shows when it did.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use hb_api::app::{Clock, Entropy};
use hb_api::beat::PATH;
use hb_api::id_key::IdKey;
use hb_api::watch::{Canary, Prober};
use hb_core::host::{Host, Wish};
use hb_core::ledger::Ledger;
use hb_core::machine::{self, Moment};
use hb_core::policy::Policy;
use hb_store::{Credential, Enrolled, Store};
use hb_wire::beat::{Beat, BeatAnswer};
use hb_wire::id::{BootId, HostId, RunId};
use hb_wire::key::HostKey;
use hb_wire::name::{HostName, Tags};
use hb_wire::nonce::Nonce;
use hb_wire::problem::{Code, Problem};
use hb_wire::signature::{self, Message, Params};
use hb_wire::view::Class;
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::Error;
use crate::environment::authority;

/// Seconds between two beats, and of grace: a sweep may be missed, and one more.
const INTERVAL_S: u64 = 60;
const GRACE_S: u64 = 120;
/// How long one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(8);
/// A nonce that another process has spent is answered with a fresh one; two regions may make that twice.
const ATTEMPTS_MAX: usize = 4;

/// The host that the sweeper is.
pub struct SweeperHost {
    id: HostId,
    key: HostKey,
    name: HostName,
    url: Url,
    client: reqwest::Client,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    nonce: Mutex<Nonce>,
    seq: AtomicU64,
    is_enrolled: AtomicBool,
}

impl fmt::Debug for SweeperHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SweeperHost").field("id", &self.id).field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

/// Where a sweeper beats, and as whom.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// Its region.
    pub region: &'a str,
    /// The public URL of the region's `ingest`.
    pub base: &'a Url,
    /// What its key follows from.
    pub secret: &'a [u8; 32],
    /// Whose hosts it is among.
    pub ids: &'a IdKey,
}

impl fmt::Debug for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("region", &self.region).field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

impl SweeperHost {
    /// Of a region, beating to its public URL.
    ///
    /// # Errors
    /// When the region is no name, or there is no client.
    pub fn new(
        place: &Place<'_>,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, Error> {
        let Place { region, base, secret, ids } = *place;
        let derive = |what: &str| -> [u8; 32] {
            Sha256::new().chain_update(secret).chain_update(what).chain_update(region).finalize().into()
        };
        let mut random = [0; 10];
        random.copy_from_slice(&derive("id of ")[..10]);
        let mut url = base.clone();
        url.set_path(&format!("{}{PATH}", base.path().trim_end_matches('/')));
        let client = client(TIMEOUT)?;
        Ok(Self {
            id: ids.mint(0, random),
            key: HostKey::from_seed(derive("key of ")),
            name: HostName::parse(&format!("hb-sweeper-{region}")).map_err(|error| format!("AWS_REGION: {error}"))?,
            url,
            client,
            store,
            clock,
            entropy,
            nonce: Mutex::new(Nonce::NONE),
            seq: AtomicU64::new(0),
            is_enrolled: AtomicBool::new(false),
        })
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> HostId {
        self.id
    }

    /// Enrols the host, where nobody has yet.
    ///
    /// # Errors
    /// When the store cannot, or somebody else has the name.
    pub async fn enrol(&self) -> Result<(), Error> {
        if self.store.host(self.id).await?.is_some() {
            return Ok(());
        }
        let tags = Tags::parse([("hb".to_owned(), "sweeper".to_owned())].into()).map_err(|error| error.to_string())?;
        let wish = Wish {
            name: self.name.clone(),
            tags,
            class: Class::Server,
            interval_s: INTERVAL_S,
            grace_s: GRACE_S,
            max_away_s: None,
        };
        let now = self.clock.now();
        let mut fresh = [0; 16];
        self.entropy.fill(&mut fresh);
        let fresh = Nonce(fresh);
        let host = wish.enrol(self.id, self.key.public(), fresh, now);
        let moment = Moment { now, ledger: &Ledger::default(), policy: &Policy::STANDARD, fresh };
        let event = machine::registered(&host, &moment);
        match self.store.enrol(&host, &event, &Credential::Trusted, now).await? {
            // Another sweeper was faster.
            Enrolled::Done | Enrolled::KeyKnown(_) => Ok(()),
            // Whoever took it: hb is not to go deaf over a name.
            Enrolled::NameTaken => {
                let name = format!("{}-{}", self.name, &self.id.0.simple().to_string()[24..]);
                let name = HostName::parse(&name).map_err(|error| error.to_string())?;
                let host = Host { name, ..host };
                let event = machine::registered(&host, &moment);
                match self.store.enrol(&host, &event, &Credential::Trusted, now).await? {
                    Enrolled::Done | Enrolled::KeyKnown(_) => Ok(()),
                    Enrolled::NameTaken | Enrolled::TokenRefused => {
                        Err(format!("the name {} is taken, too", host.name).into())
                    }
                }
            }
            Enrolled::TokenRefused => Err("the store asked for a token that none was needed for".into()),
        }
    }

    async fn send(&self, nonce: Nonce) -> Result<(u16, Vec<u8>), String> {
        let now_s = self.clock.now().0 / 1000;
        // One run for ever, whose count is the time: whichever process beats, its number is higher than the last.
        let seq = self.seq.fetch_max(now_s, Ordering::Relaxed).max(now_s);
        let beat = Beat { seq, ..Beat::bare(BootId(self.id.0), Some(RunId(self.id.0))) };
        let body = serde_json::to_vec(&beat).map_err(|error| error.to_string())?;
        let authority = authority(&self.url);
        let message = Message { method: "POST", authority: &authority, path: PATH, body: &body };
        let created = i64::try_from(now_s).unwrap_or(i64::MAX);
        let signed = signature::sign(&self.key, &message, &Params { created, nonce, keyid: self.id.to_string() });
        let request = self
            .client
            .post(self.url.clone())
            .header("content-type", "application/json")
            .header("content-digest", signed.content_digest)
            .header("signature-input", signed.signature_input)
            .header("signature", signed.signature)
            .body(body);
        let sent = async {
            let answer = request.send().await?;
            let status = answer.status().as_u16();
            Ok((status, answer.bytes().await?.to_vec()))
        };
        sent.await.map_err(|error: reqwest::Error| root_cause(&error.without_url()))
    }

    fn nonce(&self) -> Nonce {
        *self.nonce.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, next: &str) -> bool {
        let parsed = Nonce::parse(next);
        if let Ok(next) = parsed {
            *self.nonce.lock().unwrap_or_else(PoisonError::into_inner) = next;
        }
        parsed.is_ok()
    }
}

#[async_trait]
impl Prober for SweeperHost {
    /// The canary that the application signs is for a server that knows it; here a host beats instead.
    async fn probe(&self, _: Canary) -> Result<(), String> {
        if !self.is_enrolled.load(Ordering::Relaxed) {
            self.enrol().await.map_err(|error| format!("the sweeper's host cannot be enrolled: {error}"))?;
            self.is_enrolled.store(true, Ordering::Relaxed);
        }
        for _ in 0..ATTEMPTS_MAX {
            let (status, body) = self.send(self.nonce()).await?;
            let problem: Option<Problem> = serde_json::from_slice(&body).ok();
            match (status, &problem) {
                (200, _) => {
                    let answer = serde_json::from_slice::<BeatAnswer>(&body);
                    if answer.is_ok_and(|answer| self.keep(&answer.next)) {
                        return Ok(());
                    }
                    return Err("it was answered 200, but not as an hb server does".to_owned());
                }
                (409, Some(Problem { code: Code::StaleNonce, next: Some(next), .. })) if self.keep(next) => {}
                // Retired by an operator: it was received, verified and looked up all the same.
                (410, Some(Problem { code: Code::Retired, .. })) => {
                    tracing::warn!("the host {} was retired: the canary proves no write any more", self.name);
                    return Ok(());
                }
                // More than its share of beats: received and verified, too.
                (429, Some(Problem { code: Code::TooManyRequests, .. })) => return Ok(()),
                // As if there were no such host: perhaps there is none any more, in a table that was restored.
                (401, Some(problem)) => {
                    self.is_enrolled.store(false, Ordering::Relaxed);
                    return Err(format!("it was answered 401 ({})", problem.code));
                }
                (status, Some(problem)) => return Err(format!("it was answered {status} ({})", problem.code)),
                (status, None) => return Err(format!("it was answered {status}, and not as an hb server does")),
            }
        }
        Err("it was given one stale nonce after the other".to_owned())
    }
}

/// What the sweeper speaks HTTP with.
pub(crate) fn client(timeout: Duration) -> Result<reqwest::Client, Error> {
    let client = reqwest::Client::builder()
        .user_agent(concat!("hb-sweeper/", env!("CARGO_PKG_VERSION")))
        .tls_backend_preconfigured(trust())
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(timeout);
    Ok(client.build()?)
}

/// Bundled authorities: the sandbox of a function has no others to rely on, and function URLs are signed by one of them.
fn trust() -> rustls::ClientConfig {
    let roots: rustls::RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn root_cause(error: &dyn core::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
