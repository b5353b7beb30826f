//! The application: everything that a use case needs, passed in once.

use std::sync::Arc;

use hb_core::machine::Moment;
use hb_core::policy::Policy;
use hb_core::time::Time;
use hb_store::{Store, StoreError};
use hb_wire::nonce::Nonce;
use hb_wire::problem::{Code, Problem};
use jiff::Timestamp;
use tokio::sync::Notify;

use crate::auth::Doorman;
use crate::courier::Courier;
use crate::glance::Glance;
use crate::id_key::IdKey;
use crate::in_flight::InFlight;
use crate::keyring::Keyring;
use crate::metrics::Metrics;
use crate::watch::{Prober, Watch};

/// The server's time. The only source of "now".
pub trait Clock: Send + Sync + core::fmt::Debug {
    /// Server time; never goes back.
    fn now(&self) -> Time;
}

/// Where random bytes come from.
pub trait Entropy: Send + Sync + core::fmt::Debug {
    /// Fills the buffer with bytes that nobody can foresee.
    fn fill(&self, buffer: &mut [u8]);
}

/// What an operator of the server decides.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The authorities (`host[:port]`, lower case, without a default port) that beats may be signed for. None: the one that
    /// was called, on a platform that hands on only what was called by one of our names.
    pub authorities: Vec<String>,
    /// Where hosts beat, in order of preference.
    pub beat_urls: Vec<String>,
    /// The numbers of the state machine.
    pub policy: Policy,
    /// The numbers of self-observation.
    pub observer: hb_core::observer::Rules,
    /// The share of good nonces, in percent, that is refused all the same: keeps clients honest in tests (like Pebble). 0.
    pub refuse_nonces_percent: u8,
    /// Beats that a host may send per interval before it gets 429.
    pub beats_per_interval: u32,
    /// Requests that may be in flight at once; one more is answered 503 with `Retry-After`.
    pub requests_in_flight_max: usize,
    /// Where ticks and sweeps are made.
    pub loops: Loops,
    /// Marks the ids of hosts, so that a made-up one is known as such without a read; none where a read costs nothing.
    pub id_key: Option<IdKey>,
}

/// Where the ticks and sweeps are made that this process's decisions stand on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loops {
    /// In this process, all the time.
    Here,
    /// In another process that comes by each minute; what it saw is read from the store.
    Elsewhere,
}

/// The application.
#[derive(Debug)]
pub struct App {
    /// State, events, deliveries.
    pub store: Arc<dyn Store>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Sends messages.
    pub courier: Arc<dyn Courier>,
    /// Sends a canary through the public path.
    pub prober: Arc<dyn Prober>,
    /// What the operator decided.
    pub settings: Settings,
    /// Keys of hosts, parsed.
    pub keyring: Keyring,
    /// Whether hb is observing.
    pub watch: Watch,
    /// Counters.
    pub metrics: Metrics,
    /// Rings when there is something to deliver.
    pub to_deliver: Notify,
    /// API keys, as they were read last.
    pub doorman: Doorman,
    /// Requests in flight.
    pub in_flight: InFlight,
    /// What status pages would otherwise ask the store again and again.
    pub glance: Glance,
    /// When this process put the application together.
    pub started_at: Time,
}

impl App {
    /// Puts the application together. Call [`App::start`] before anything else.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        courier: Arc<dyn Courier>,
        prober: Arc<dyn Prober>,
        settings: Settings,
    ) -> Self {
        let watch = Watch::new(clock.now(), entropy.as_ref());
        let started_at = clock.now();
        let in_flight = InFlight::new(settings.requests_in_flight_max);
        Self {
            store,
            clock,
            entropy,
            courier,
            prober,
            settings,
            keyring: Keyring::default(),
            watch,
            metrics: Metrics::default(),
            to_deliver: Notify::new(),
            doorman: Doorman::default(),
            in_flight,
            glance: Glance::default(),
            started_at,
        }
    }

    /// A fresh nonce.
    #[must_use]
    pub fn fresh_nonce(&self) -> Nonce {
        let mut bytes = [0; 16];
        self.entropy.fill(&mut bytes);
        Nonce(bytes)
    }

    /// A random number.
    #[must_use]
    pub fn random(&self) -> u64 {
        let mut bytes = [0; 8];
        self.entropy.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Decides something, now, with a fresh nonce.
    pub fn decide<T>(&self, decide: impl FnOnce(&Moment<'_>) -> T) -> T {
        let ledger = self.watch.ledger();
        decide(&Moment {
            now: self.clock.now(),
            ledger: &ledger,
            policy: &self.settings.policy,
            fresh: self.fresh_nonce(),
        })
    }
}

/// Server time as it stands on the wire.
#[must_use]
pub fn timestamp(time: Time) -> Timestamp {
    let ms = i64::try_from(time.0).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
}

/// A wire timestamp as server time; before 1970 is 1970.
#[must_use]
pub fn time(timestamp: Timestamp) -> Time {
    Time(u64::try_from(timestamp.as_millisecond()).unwrap_or(0))
}

/// What a client is told when the store could not do its work.
#[must_use]
pub fn store_problem(error: &StoreError) -> Problem {
    let (detail, wait_s) = match error {
        StoreError::Overloaded => ("the server is overloaded", 2),
        StoreError::Unavailable(_) => ("the server cannot store at the moment", 10),
        StoreError::Corrupt(_) => return Problem::new(Code::Internal, "the server's store holds something unexpected"),
    };
    Problem { retry_after_s: Some(wait_s), ..Problem::new(Code::Unavailable, detail) }
}
