//! Puts the application of a function together.

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use hb_api::app::{App, Clock, Entropy, Loops, Settings};
use hb_api::courier::{Courier, Failure, Opened, Parcel};
use hb_api::id_key::IdKey;
use hb_api::watch::{Canary, Prober};
use hb_core::access::Channel;
use hb_core::observer::Rules;
use hb_core::policy::Policy;
use hb_store::Store;
use hb_store_dynamodb::{Connection, DynamoStore, Usage};
use hb_wire::view::Notice;
use serde_json::Value;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::Error;
use crate::canary::{Place, SweeperHost};
use crate::clock::{OsEntropy, WallClock};
use crate::courier::CloudCourier;
use crate::environment::{Environment, authority};
use crate::neighbour::Neighbour;
use crate::sweeper::{SETTLE, Sweeper};
use crate::topic::{self, Topic};
use crate::witness::{self, PeerKey, PeerWitness};

/// Beats that a host may send per interval before it gets 429; as `hb-server`'s default.
const BEATS_PER_INTERVAL: u32 = 10;
/// Requests that one environment has in flight: Lambda gives it one at a time.
const REQUESTS_IN_FLIGHT_MAX: usize = 64;

/// What every function has.
pub struct Function {
    /// What it was told.
    pub environment: Environment,
    /// The table.
    pub store: Arc<DynamoStore>,
    ids: IdKey,
    canary_secret: [u8; 32],
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl core::fmt::Debug for Function {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Function").field("environment", &self.environment).finish_non_exhaustive()
    }
}

impl Function {
    /// Reads the environment, starts the log, opens the table. To be called once, while Lambda still counts it as init.
    ///
    /// # Errors
    /// Which variable is wrong, or why the table cannot be opened.
    pub async fn start() -> Result<Self, Error> {
        let environment = Environment::read(|name| std::env::var(name).ok())?;
        log(&environment.log);
        let connection = connection(&environment, "AWS_ENDPOINT_URL_DYNAMODB")?;
        let usage = Usage { shards: environment.shards, region: environment.region.clone() };
        let mut store = DynamoStore::open(connection.client(), &environment.table, usage).await?;
        if let Some(peer) = &environment.peer {
            store = store.beside(&peer.region)?;
        }
        let mut fresh = [0; 64];
        OsEntropy.fill(&mut fresh);
        let secrets = store.secrets(fresh).await?;
        let (mut ids, mut canary_secret) = ([0; 32], [0; 32]);
        ids.copy_from_slice(&secrets[..32]);
        canary_secret.copy_from_slice(&secrets[32..]);
        let clock: Arc<dyn Clock> = Arc::new(WallClock::default());
        if let Some(peer) = &environment.peer {
            let key = PeerKey::derive(&canary_secret);
            store = store.asking(Arc::new(PeerWitness::new(peer, key, Arc::clone(&clock))?));
        }
        Ok(Self {
            environment,
            store: Arc::new(store),
            ids: IdKey::new(ids),
            canary_secret,
            clock,
            entropy: Arc::new(OsEntropy),
        })
    }

    /// The application of a function that neither sends messages nor beats: `ingest`.
    #[must_use]
    pub fn quiet(&self) -> Arc<App> {
        self.app(Arc::new(Nobody), Arc::new(Nobody), Vec::new())
    }

    /// The application of a function that sends messages, and does not judge: `api`.
    ///
    /// # Errors
    /// When there are no credentials.
    pub fn sending(&self) -> Result<Arc<App>, Error> {
        Ok(self.app(Arc::new(self.courier()?), Arc::new(Nobody), Vec::new()))
    }

    /// What answers the other region; where there is none, nothing.
    pub fn answering(&self) -> Router {
        if self.environment.peer.is_none() {
            return Router::new();
        }
        let key = PeerKey::derive(&self.canary_secret);
        witness::router(Arc::clone(&self.store), key, Arc::clone(&self.clock))
    }

    /// The application of a function that judges hosts (it beats through the public URL before it does): of `sweeper`, and of
    /// `notifier`, which also tells people.
    fn judging(&self, is_telling: bool) -> Result<Arc<App>, Error> {
        let base = self.environment.beat_urls.first().ok_or("HB_BEAT_URLS is not set: where the canary beats")?;
        let (store, clock): (Arc<dyn Store>, _) = (Arc::<DynamoStore>::clone(&self.store), Arc::clone(&self.clock));
        let place = Place { region: &self.environment.region, base, secret: &self.canary_secret, ids: &self.ids };
        let host = SweeperHost::new(&place, store, clock, Arc::clone(&self.entropy))?;
        let courier: Arc<dyn Courier> = if is_telling { Arc::new(self.courier()?) } else { Arc::new(Nobody) };
        Ok(self.app(courier, Arc::new(host), vec![authority(base)]))
    }

    /// What judges hosts in this region, and looks how the other one does.
    ///
    /// # Errors
    /// When it does not know where to beat, or there are no credentials.
    pub fn sweeper(&self, is_telling: bool) -> Result<Sweeper, Error> {
        let neighbour = match &self.environment.peer {
            Some(peer) => Some(Neighbour::new(&self.environment.region, peer)?),
            None => None,
        };
        Ok(Sweeper { app: self.judging(is_telling)?, store: Arc::clone(&self.store), neighbour, settle: SETTLE })
    }

    fn courier(&self) -> Result<CloudCourier, Error> {
        let topic = match &self.environment.topic {
            Some(arn) => Some(Topic::new(connection(&self.environment, "AWS_ENDPOINT_URL_SNS")?, arn.clone())),
            None => None,
        };
        let peer = match &self.environment.peer {
            Some(peer) => {
                let here = connection(&self.environment, "AWS_ENDPOINT_URL_SNS")?;
                let there = Connection { region: topic::region(&peer.topic).to_owned(), ..here };
                Some(Topic::new(there, peer.topic.clone()))
            }
            None => None,
        };
        let networks = std::env::var("HB_ALLOW_NETWORKS").unwrap_or_default();
        let allow_networks =
            hb_notify::parse_networks(&networks).map_err(|error| format!("HB_ALLOW_NETWORKS: {error}"))?;
        let rules = hb_notify::Rules { allow_networks, ..hb_notify::Rules::default() };
        Ok(CloudCourier::new(topic, rules).with_peer(peer))
    }

    fn app(&self, courier: Arc<dyn Courier>, prober: Arc<dyn Prober>, authorities: Vec<String>) -> Arc<App> {
        let settings = Settings {
            authorities,
            beat_urls: self.environment.beat_urls.iter().map(|url| beat_url(url.as_str())).collect(),
            policy: Policy::STANDARD,
            observer: Rules::SCHEDULED,
            refuse_nonces_percent: 0,
            beats_per_interval: BEATS_PER_INTERVAL,
            requests_in_flight_max: REQUESTS_IN_FLIGHT_MAX,
            loops: Loops::Elsewhere,
            id_key: Some(self.ids.clone()),
        };
        let store: Arc<dyn Store> = Arc::<DynamoStore>::clone(&self.store);
        Arc::new(App::new(store, Arc::clone(&self.clock), Arc::clone(&self.entropy), courier, prober, settings))
    }
}

fn beat_url(base: &str) -> String {
    format!("{}{}", base.trim_end_matches('/'), hb_api::beat::PATH)
}

/// As whom AWS is used, as Lambda hands it to a function (it lasts longer than the environment that holds it), and where: at
/// the region's own address, or at the one in this variable.
fn connection(environment: &Environment, endpoint: &str) -> Result<Connection, Error> {
    let get = |name: &str| {
        std::env::var(name).map_err(|_| format!("{name} is not set: Lambda sets it by the function's role"))
    };
    Ok(Connection {
        region: environment.region.clone(),
        endpoint: std::env::var(endpoint).ok(),
        access_key_id: get("AWS_ACCESS_KEY_ID")?,
        secret_access_key: get("AWS_SECRET_ACCESS_KEY")?,
        session_token: std::env::var("AWS_SESSION_TOKEN").ok(),
    })
}

/// One line of JSON for each record, on stderr, which Lambda collects.
fn log(level: &str) {
    let level = match level {
        "error" => LevelFilter::ERROR,
        "info" => LevelFilter::INFO,
        "debug" => LevelFilter::DEBUG,
        _ => LevelFilter::WARN,
    };
    let ours =
        ["hb_lambda", "hb_api", "hb_core", "hb_notify", "hb_store", "hb_store_dynamodb"].map(|name| (name, level));
    let targets = Targets::new().with_default(level.min(LevelFilter::WARN)).with_targets(ours);
    let layer =
        tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).with_target(false);
    // Fails only where a test has one already.
    let _ = tracing_subscriber::registry().with(targets).with(layer).try_init();
}

/// For functions that have nobody to talk to.
#[derive(Debug)]
struct Nobody;

#[async_trait]
impl Courier for Nobody {
    fn open(&self, _: &str, _: &Value, _: [u8; 32]) -> Result<Opened, String> {
        Err("this function opens no channels".to_owned())
    }

    async fn send(&self, _: &Channel, _: Parcel<'_>) -> Result<(), Failure> {
        let reason = "this function sends no messages".to_owned();
        Err(Failure { reason, permanent: false, retry_after_ms: None })
    }

    fn line(&self, notice: &Notice) -> String {
        notice.event.clone()
    }
}

#[async_trait]
impl Prober for Nobody {
    async fn probe(&self, _: Canary) -> Result<(), String> {
        Err("this function does not judge".to_owned())
    }
}
