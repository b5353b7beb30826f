//! A region: its four functions over its replica of the table, put together as `hb_lambda` does it, on virtual time.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use hb_api::app::{App, Clock, Loops, Settings};
use hb_api::id_key::IdKey;
use hb_api::watch::{Canary, Prober};
use hb_core::observer::Rules;
use hb_core::policy::Policy;
use hb_lambda::canary::{Place, SweeperHost};
use hb_lambda::environment::{Peer, authority};
use hb_lambda::neighbour::Neighbour;
use hb_lambda::stream;
use hb_lambda::sweeper::Sweeper;
use hb_lambda::witness::{self, PeerKey, PeerWitness};
use hb_sim::dice::Dice;
use hb_store_dynamodb::{Client, DynamoStore, Usage};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use url::Url;

use crate::Outcome;
use crate::filter::Filters;
use crate::post::{Mailbox, Postman, SimClock, SimEntropy};
use crate::table::TABLES;

/// What the regions are called.
pub const NAMES: [&str; 2] = ["eu-central-1", "eu-west-1"];
/// What beats are signed for.
pub const AUTHORITIES: [&str; 2] = ["one.example.org", "two.example.org"];
/// What the sweeper saw may be this old in an answer of `api`, as in its `main`.
const OBSERVATION_AGE_MAX_MS: u64 = 5_000;
/// How long what two regions decided is given to arrive, as the notifier has it.
const SETTLE_MS: u64 = 3_000;

/// What a world has in common.
#[derive(Debug)]
pub struct Common {
    /// Virtual time.
    pub clock: SimClock,
    /// Where messages arrive.
    pub mailbox: Mailbox,
    /// What ids are minted with.
    pub ids: IdKey,
    /// What the sweepers' keys follow from.
    pub secret: [u8; 32],
}

/// What can be called of a region over HTTP.
#[derive(Debug)]
pub struct Ports {
    ingest: TcpListener,
    api: TcpListener,
    /// The base URL of `ingest`.
    pub beat_url: Url,
    /// The base URL of `api`.
    pub api_url: Url,
}

impl Ports {
    /// Two that are free.
    ///
    /// # Errors
    /// When there are none.
    pub async fn open() -> Outcome<Self> {
        let ingest = TcpListener::bind(("127.0.0.1", 0)).await?;
        let api = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url =
            |listener: &TcpListener| -> Outcome<Url> { Ok(Url::parse(&format!("http://{}", listener.local_addr()?))?) };
        Ok(Self { beat_url: url(&ingest)?, api_url: url(&api)?, ingest, api })
    }
}

/// One region.
#[derive(Debug)]
pub struct Region {
    /// 0 or 1.
    pub place: usize,
    /// Takes beats.
    pub ingest: Arc<App>,
    /// Judges.
    pub sweeper: Sweeper,
    /// Tells, and mends.
    pub notifier: Sweeper,
    /// The host that its sweeper is.
    pub canary: Arc<SweeperHost>,
    filters: Filters,
    /// Records that its notifier has not been given yet, and from when on it is.
    backlog: Vec<(u64, Value)>,
    /// It answers.
    pub is_alive: bool,
    /// Its `api` can be reached from the other region.
    reach: Arc<AtomicBool>,
}

impl Region {
    /// Puts it together, and lets it listen.
    ///
    /// # Errors
    /// When the table cannot be opened.
    pub async fn start(
        place: usize,
        client: &Client,
        common: &Common,
        ports: Ports,
        peer: &Peer,
        dice: &mut Dice,
    ) -> Outcome<Self> {
        let mut make = Maker { place, client, common, ports: &ports, peer, dice };
        let ingest = make.quiet().await?;
        let api = make.quiet().await?;
        let answering = Arc::new(make.open().await?);
        let clock: Arc<dyn Clock> = Arc::new(common.clock.clone());
        let witness = witness::router(answering, PeerKey::derive(&common.secret), clock);
        let (sweeper, canary) = make.judging().await?;
        let (notifier, _) = make.judging().await?;
        let reach = Arc::new(AtomicBool::new(true));
        serve(ports.ingest, hb_api::http::ingest(Arc::clone(&ingest)));
        let door = Door { app: Arc::clone(&api), reach: Arc::clone(&reach) };
        let managed = hb_api::http::management(api).merge(witness);
        let managed = managed.layer(middleware::from_fn_with_state(door, through));
        serve(ports.api, managed);
        let filters = Filters::of(NAMES[place])?;
        Ok(Self { place, ingest, sweeper, notifier, canary, filters, backlog: Vec::new(), is_alive: true, reach })
    }

    /// Whether the other region can call it.
    pub fn set_reach(&self, is_reached: bool) {
        self.reach.store(is_reached, Ordering::Relaxed);
    }

    /// Keeps what of these records its notifier is given, and says when: what two regions decided is looked at once all of it
    /// has had time to arrive, for which the notifier itself would wait.
    pub fn note(&mut self, records: Vec<Value>, now: u64) -> Vec<u64> {
        let mut dues = Vec::new();
        for record in records.into_iter().filter(|record| self.filters.pass(record)) {
            let due = if record["eventName"] == "MODIFY" { now + SETTLE_MS } else { now };
            self.backlog.push((due, record));
            if dues.last() != Some(&due) {
                dues.push(due);
            }
        }
        dues
    }

    /// The stream's event source gives the notifier what there is.
    ///
    /// # Errors
    /// When the notifier fails as a whole.
    pub async fn read_stream(&mut self, now: u64) -> Outcome<()> {
        let (ready, later): (Vec<_>, Vec<_>) =
            core::mem::take(&mut self.backlog).into_iter().partition(|(due, _)| *due <= now);
        self.backlog = later;
        if ready.is_empty() {
            return Ok(());
        }
        let records: Vec<Value> = ready.into_iter().map(|(_, record)| record).collect();
        let answer = stream::run(&self.notifier, json!({"Records": &records})).await?;
        // Lambda begins again at the first that failed.
        let answer = serde_json::to_value(answer)?;
        if let Some(first) = answer["batchItemFailures"][0]["itemIdentifier"].as_str() {
            let at = records.iter().position(|record| record["dynamodb"]["SequenceNumber"] == first);
            self.backlog.extend(records.into_iter().skip(at.unwrap_or(0)).map(|record| (now, record)));
        }
        Ok(())
    }

    /// True when its notifier has failed at something, and is to be given it again, or could not be given it.
    #[must_use]
    pub fn has_backlog(&self, now: u64) -> bool {
        self.backlog.iter().any(|(due, _)| *due <= now)
    }

    /// Both schedules.
    ///
    /// # Errors
    /// When one of them fails.
    pub async fn minute(&mut self) -> Outcome<()> {
        self.sweeper.run().await?;
        stream::run(&self.notifier, json!({"hb": "deliver"})).await?;
        Ok(())
    }
}

struct Maker<'a> {
    place: usize,
    client: &'a Client,
    common: &'a Common,
    ports: &'a Ports,
    peer: &'a Peer,
    dice: &'a mut Dice,
}

impl Maker<'_> {
    async fn open(&self) -> Outcome<DynamoStore> {
        let usage = Usage { shards: 1, region: NAMES[self.place].to_owned() };
        let store = DynamoStore::open(self.client.clone(), TABLES[self.place], usage).await?;
        Ok(store.beside(&self.peer.region)?)
    }

    /// As [`hb_lambda::function::Function::start`] opens it.
    async fn store(&self) -> Outcome<Arc<DynamoStore>> {
        let clock: Arc<dyn Clock> = Arc::new(self.common.clock.clone());
        let witness = PeerWitness::new(self.peer, PeerKey::derive(&self.common.secret), clock)?;
        Ok(Arc::new(self.open().await?.asking(Arc::new(witness))))
    }

    async fn quiet(&mut self) -> Outcome<Arc<App>> {
        let store = Arc::new(self.open().await?);
        Ok(self.app(&store, Arc::new(Nobody), Vec::new()))
    }

    async fn judging(&mut self) -> Outcome<(Sweeper, Arc<SweeperHost>)> {
        let store = self.store().await?;
        let base = &self.ports.beat_url;
        let place = Place { region: NAMES[self.place], base, secret: &self.common.secret, ids: &self.common.ids };
        let clock: Arc<dyn Clock> = Arc::new(self.common.clock.clone());
        let entropy = Arc::new(SimEntropy::new(self.dice.fork()));
        let canary = Arc::new(SweeperHost::new(&place, Arc::<DynamoStore>::clone(&store), clock, entropy)?);
        let app = self.app(&store, Arc::<SweeperHost>::clone(&canary), vec![authority(base)]);
        let neighbour = Some(Neighbour::new(NAMES[self.place], self.peer)?);
        Ok((Sweeper { app, store, neighbour, settle: Duration::ZERO }, canary))
    }

    fn app(&mut self, store: &Arc<DynamoStore>, prober: Arc<dyn Prober>, authorities: Vec<String>) -> Arc<App> {
        let beat_url = |authority: &&str| format!("https://{authority}{}", hb_api::beat::PATH);
        let settings = Settings {
            authorities,
            beat_urls: AUTHORITIES.iter().map(beat_url).collect(),
            policy: Policy::STANDARD,
            observer: Rules::SCHEDULED,
            refuse_nonces_percent: 0,
            beats_per_interval: 10,
            requests_in_flight_max: 64,
            loops: Loops::Elsewhere,
            id_key: Some(self.common.ids.clone()),
        };
        let Common { clock, mailbox, .. } = self.common;
        let postman = Postman { region: self.place, clock: clock.clone(), mailbox: mailbox.clone() };
        let entropy = Arc::new(SimEntropy::new(self.dice.fork()));
        let store = Arc::<DynamoStore>::clone(store);
        Arc::new(App::new(store, Arc::new(clock.clone()), entropy, Arc::new(postman), prober, settings))
    }
}

/// For functions that do not judge.
#[derive(Debug)]
struct Nobody;

#[async_trait]
impl Prober for Nobody {
    async fn probe(&self, _: Canary) -> Result<(), String> {
        Err("this function does not judge".to_owned())
    }
}

fn serve(listener: TcpListener, router: Router) {
    // Ends with the runtime of its world.
    tokio::spawn(async move { axum::serve(listener, router).await });
}

/// Between the regions.
#[derive(Debug, Clone)]
struct Door {
    app: Arc<App>,
    reach: Arc<AtomicBool>,
}

async fn through(State(door): State<Door>, request: Request, next: Next) -> Response {
    if !door.reach.load(Ordering::Relaxed) {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let _ = door.app.catch_up(OBSERVATION_AGE_MAX_MS).await;
    next.run(request).await
}
