//! A whole server in memory: the real router over the store in memory, a clock that is turned by hand, randomness from a
//! seed, and a courier that writes down what it was given.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::body::Body;
use hb_api::app::{App, Clock, Entropy, Loops, Settings};
use hb_api::courier::{Courier, Failure, Opened, Parcel};
use hb_api::watch::{Canary, Prober};
use hb_core::access::{ApiKey, Channel};
use hb_core::observer::Rules;
use hb_core::policy::Policy;
use hb_core::time::Time;
use hb_store::faulty::{Faults, FaultyStore};
use hb_store::{MemoryStore, Store as _};
use hb_wire::api_key::{Secret, SecretKind};
use hb_wire::beat::BeatAnswer;
use hb_wire::id::{BootId, DeliveryId, RunId};
use hb_wire::key::HostKey;
use hb_wire::nonce::Nonce;
use hb_wire::problem::Problem;
use hb_wire::signature::{self, Message, Params};
use hb_wire::view::{Enrolment, Notice, Scope};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// What beats and enrolments are signed for.
pub const AUTHORITY: &str = "hb.example.com";
/// When the world begins: 2026-11-23T10:00:00Z.
pub const BEGIN: Time = Time(1_795_428_000_000);

/// A clock that is turned by hand.
#[derive(Debug)]
pub struct ManualClock(AtomicU64);

impl Clock for ManualClock {
    fn now(&self) -> Time {
        Time(self.0.load(Ordering::SeqCst))
    }
}

/// Randomness from a seed (`SplitMix64`).
#[derive(Debug)]
pub struct Seeded(AtomicU64);

impl Seeded {
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    pub fn next(&self) -> u64 {
        let state = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }
}

impl Entropy for Seeded {
    fn fill(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

/// Writes down what it was given.
#[derive(Debug, Default)]
pub struct Recorder {
    sent: Mutex<Vec<(String, DeliveryId, Notice)>>,
    /// Why nothing arrives, while it does not.
    pub broken: Mutex<Option<Failure>>,
}

impl Recorder {
    pub fn sent(&self) -> Vec<(String, DeliveryId, Notice)> {
        self.sent.lock().unwrap().clone()
    }
}

#[async_trait]
impl Courier for Recorder {
    fn open(&self, kind: &str, settings: &Value, random: [u8; 32]) -> Result<Opened, String> {
        let url = settings.get("url").and_then(Value::as_str);
        match (kind, url) {
            ("webhook", Some(url)) if url.starts_with("https://") => Ok(Opened {
                settings: json!({"url": url, "secret": random[0]}),
                target: url.to_owned(),
                secret: Some(format!("whsec_{:02x}", random[0])),
            }),
            ("webhook", _) => Err("url must begin with https://".to_owned()),
            _ => Err("the kinds are webhook, email and exec".to_owned()),
        }
    }

    async fn send(&self, channel: &Channel, parcel: Parcel<'_>) -> Result<(), Failure> {
        if let Some(failure) = self.broken.lock().unwrap().clone() {
            return Err(failure);
        }
        self.sent.lock().unwrap().push((channel.name.clone(), parcel.key, parcel.notice.clone()));
        Ok(())
    }

    fn line(&self, notice: &Notice) -> String {
        let about = notice.host.as_ref().map_or("the server", |host| host.name.as_str());
        format!("{about}: {}", notice.event)
    }
}

/// Says whether the public path is open.
#[derive(Debug, Default)]
pub struct Path {
    pub cut: std::sync::atomic::AtomicBool,
}

#[async_trait]
impl Prober for Path {
    async fn probe(&self, _: Canary) -> Result<(), String> {
        if self.cut.load(Ordering::SeqCst) { Err("cut".to_owned()) } else { Ok(()) }
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn read<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    pub fn problem(&self) -> Problem {
        assert_eq!(self.headers.get("content-type").unwrap(), "application/problem+json", "{self}");
        let problem: Problem = self.read();
        assert_eq!(problem.status, self.status.as_u16(), "{self}");
        problem
    }

    pub fn code(&self) -> String {
        self.problem().code.to_string()
    }

    /// Everything but the date: two answers that are equal here tell nobody anything apart.
    pub fn whole(&self) -> (StatusCode, BTreeMap<String, String>, Vec<u8>) {
        let headers =
            self.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
        (self.status, headers, self.body.clone())
    }
}

impl core::fmt::Display for Answer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} {}", self.status, String::from_utf8_lossy(&self.body))
    }
}

/// A request in the making.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: Method,
    pub uri: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Call {
    pub fn new(method: &str, uri: &str) -> Self {
        Self { method: method.parse().unwrap(), uri: uri.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn key(self, secret: &str) -> Self {
        self.header("authorization", &format!("Bearer {secret}"))
    }

    pub fn json(self, body: &Value) -> Self {
        self.raw(body.to_string().as_bytes())
    }

    pub fn raw(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self.header("content-type", "application/json")
    }

    /// Replaces a header.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(found, _)| found != name);
        self.header(name, value)
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(found, _)| found != name);
        self
    }

    /// The request, if it can be one at all.
    pub fn request(&self) -> Option<Request<Body>> {
        let mut request = Request::builder().method(self.method.clone()).uri(&self.uri);
        for (name, value) in &self.headers {
            request = request.header(name, value.as_str());
        }
        request.body(Body::from(self.body.clone())).ok()
    }
}

/// A host as its agent sees it.
#[derive(Debug)]
pub struct Agent {
    pub key: HostKey,
    pub id: String,
    pub nonce: Nonce,
    pub boot: BootId,
    pub run: RunId,
    pub seq: u64,
    pub pass: Option<String>,
}

impl Agent {
    /// The next beat, signed.
    pub fn call(&mut self) -> Call {
        self.seq += 1;
        let mut beat =
            json!({"boot": self.boot, "run": self.run, "seq": self.seq, "up": 1000 + self.seq, "v": "0.1.0"});
        if let Some(pass) = &self.pass {
            beat["pass"] = json!(pass);
        }
        self.sign(beat.to_string().as_bytes())
    }

    /// Any body, signed as a beat.
    pub fn sign(&self, body: &[u8]) -> Call {
        sign(&self.key, &self.id, self.nonce, AUTHORITY, "/v1/beat", body)
    }
}

/// A signed request.
pub fn sign(key: &HostKey, keyid: &str, nonce: Nonce, authority: &str, path: &str, body: &[u8]) -> Call {
    let params = Params { created: 1_795_428_000, nonce, keyid: keyid.to_owned() };
    let signed = signature::sign(key, &Message { method: "POST", authority, path, body }, &params);
    Call::new("POST", path)
        .header("host", authority)
        .header("content-digest", &signed.content_digest)
        .header("signature-input", &signed.signature_input)
        .header("signature", &signed.signature)
        .raw(body)
}

/// The server, and everything around it.
#[derive(Debug)]
pub struct World {
    pub app: Arc<App>,
    pub store: MemoryStore,
    pub clock: Arc<ManualClock>,
    pub courier: Arc<Recorder>,
    pub path: Arc<Path>,
    pub random: Arc<Seeded>,
    pub admin: String,
    router: axum::Router,
}

impl World {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::build(change, Faults::none()).await
    }

    /// On a store that fails as `faults` say.
    pub async fn failing(faults: Faults) -> Self {
        Self::build(|_| {}, faults).await
    }

    async fn build(change: impl FnOnce(&mut Settings), faults: Faults) -> Self {
        let store = MemoryStore::new();
        let clock = Arc::new(ManualClock(AtomicU64::new(BEGIN.0)));
        let courier = Arc::new(Recorder::default());
        let path = Arc::new(Path::default());
        let random = Arc::new(Seeded::new(7));
        let mut settings = Settings {
            authorities: vec![AUTHORITY.to_owned()],
            beat_urls: vec![format!("https://{AUTHORITY}/v1/beat")],
            policy: Policy::STANDARD,
            observer: Rules::STANDARD,
            refuse_nonces_percent: 0,
            beats_per_interval: 6,
            requests_in_flight_max: 1000,
            loops: Loops::Here,
            id_key: None,
        };
        change(&mut settings);
        let app = Arc::new(App::new(
            Arc::new(FaultyStore::new(store.clone(), faults)),
            Arc::clone(&clock) as Arc<dyn Clock>,
            Arc::clone(&random) as Arc<dyn Entropy>,
            Arc::clone(&courier) as Arc<dyn Courier>,
            Arc::clone(&path) as Arc<dyn Prober>,
            settings,
        ));
        app.start(None).await.unwrap();
        let router = hb_api::http::router(Arc::clone(&app));
        let mut world = Self { app, store, clock, courier, path, random, admin: String::new(), router };
        world.admin = world.api_key(&[Scope::Admin]).await;
        world
    }

    /// A key with these scopes; its secret.
    pub async fn api_key(&self, scopes: &[Scope]) -> String {
        let mut bytes = [0; 48];
        self.random.fill(&mut bytes);
        let secret = Secret::mint(SecretKind::ApiKey, bytes);
        let key = ApiKey {
            id: secret.id().to_owned(),
            hash: secret.hash(),
            name: "test".to_owned(),
            scopes: scopes.iter().copied().collect(),
            created_at: BEGIN,
            expires_at: None,
            revoked_at: None,
            last_used_at: Some(BEGIN),
        };
        assert!(self.store.add_key(&key).await.unwrap());
        secret.expose().to_owned()
    }

    /// Sends a request through the real router.
    pub async fn send(&self, call: &Call) -> Answer {
        self.send_request(call.request().expect("a well-formed request")).await
    }

    pub async fn send_request(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// As an admin.
    pub async fn ask(&self, method: &str, uri: &str) -> Answer {
        self.send(&Call::new(method, uri).key(&self.admin)).await
    }

    /// As an admin, with a body.
    pub async fn post(&self, method: &str, uri: &str, body: &Value) -> Answer {
        self.send(&Call::new(method, uri).key(&self.admin).json(body)).await
    }

    pub fn host_key(&self) -> HostKey {
        let mut seed = [0; 32];
        self.random.fill(&mut seed);
        HostKey::from_seed(seed)
    }

    /// A signed enrolment without a credential.
    pub fn enrolment(key: &HostKey, body: &Value) -> Call {
        let mut body = body.clone();
        let public = String::from(key.public());
        body["public_key"] = json!(public);
        sign(key, &public, Nonce::NONE, AUTHORITY, "/v1/hosts", body.to_string().as_bytes())
    }

    /// Enrols a host as an admin.
    pub async fn enrol(&self, name: &str) -> Agent {
        self.enrol_as(&json!({"name": name})).await
    }

    pub async fn enrol_as(&self, body: &Value) -> Agent {
        let key = self.host_key();
        let answer = self.send(&Self::enrolment(&key, body).key(&self.admin)).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer}");
        let enrolment: Enrolment = answer.read();
        let mut random = [0; 10];
        self.random.fill(&mut random);
        Agent {
            key,
            id: enrolment.id.to_string(),
            nonce: enrolment.next.parse().unwrap(),
            boot: BootId::mint(BEGIN.0, random),
            run: RunId::mint(BEGIN.0 + 1, random),
            seq: 0,
            pass: None,
        }
    }

    /// One good beat; as agents do, once more with the nonce that a 409 brought.
    pub async fn beat(&self, agent: &mut Agent) -> BeatAnswer {
        let mut answer = self.send(&agent.call()).await;
        if answer.status == StatusCode::CONFLICT {
            agent.nonce = answer.problem().next.expect("a stale nonce comes with a fresh one").parse().unwrap();
            answer = self.send(&agent.call()).await;
        }
        assert_eq!(answer.status, StatusCode::OK, "{answer}");
        let answer: BeatAnswer = answer.read();
        agent.nonce = answer.next.parse().unwrap();
        if let Some(pass) = &answer.pass {
            agent.pass = Some(pass.clone());
        }
        answer
    }

    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// Turns the clock without anybody running meanwhile.
    pub fn jump(&self, seconds: u64) {
        self.clock.0.fetch_add(seconds * 1000, Ordering::SeqCst);
    }

    /// Time passes as on a server that works: a tick and a sweep each second, and everything delivered.
    pub async fn pass(&self, seconds: u64) {
        for _ in 0..seconds {
            self.jump(1);
            if !self.path.cut.load(Ordering::SeqCst) {
                self.app.watch.heard(self.now());
            }
            self.app.sweep().await.unwrap();
            while self.app.deliver().await.unwrap() > 0 {}
        }
    }

    /// What the store holds.
    pub fn digest(&self) -> [u8; 32] {
        self.store.digest()
    }
}
