//! Whether hb is observing: the ticks, the proofs of hearing, and the canary.
//!
//! The canary is a beat of hb's own, sent through the public path and signed like any other; it is recognised by its id and
//! ends as a write to the store, so that it proves listening, verifying and storing. It is also sent on demand: before a
//! host is declared down, hb asks whether it can hear at all ([`App::can_hear`]).

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use async_trait::async_trait;
use hb_core::ledger::Ledger;
use hb_core::mutant::{Mutant, active};
use hb_core::observer::{Anchor, Observation, Signs};
use hb_core::time::{Time, seconds};
use hb_store::{Committed, Result, StoreError, Versioned};
use hb_wire::beat::Beat;
use hb_wire::id::{BootId, HostId};
use hb_wire::key::HostKey;
use hb_wire::nonce::Nonce;
use hb_wire::signature::{self, Message, Params};
use tokio::sync::Mutex;

use crate::app::{App, Entropy, Loops};

/// The observation is stored at least this often, so that a crash costs at most this much credit.
pub const STORE_EVERY_MS: u64 = seconds(5);
/// A proof of hearing this young needs no canary before a decision.
pub const PROOF_FRESH_MS: u64 = seconds(1);

/// How often a tick is made where another process stored one at the same moment.
const TICK_TRIES_MAX: u32 = 3;

/// A beat of hb itself, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canary {
    /// `Content-Digest`.
    pub content_digest: String,
    /// `Signature-Input`.
    pub signature_input: String,
    /// `Signature`.
    pub signature: String,
    /// The body.
    pub body: Vec<u8>,
}

/// Sends the canary through the public path.
#[async_trait]
pub trait Prober: Send + Sync + core::fmt::Debug {
    /// `Ok`: the server answered 200. Otherwise why not, in a few words. Must end within a few seconds.
    async fn probe(&self, canary: Canary) -> core::result::Result<(), String>;
}

/// What hb knows of its observing.
#[derive(Debug)]
pub struct Watch {
    state: Mutex<Stored>,
    /// Readable without waiting: the ledger for decisions, and the whole for status pages.
    shown: RwLock<Arc<Observation>>,
    /// The last attempt to store the observation failed.
    unstored: AtomicBool,
    /// Some observation was read from the store, or written to it.
    is_known: AtomicBool,
    proof_at: AtomicU64,
    shed_at: AtomicU64,
    missed_at: AtomicU64,
    canary: CanaryKey,
    /// One canary at a time: they share a nonce.
    probing: Mutex<()>,
}

#[derive(Debug)]
#[expect(clippy::struct_field_names, reason = "the instant of storing, as everywhere else")]
struct Stored {
    observation: Observation,
    rev: u64,
    stored_at: Time,
    /// When it was last read from the store, where another process may write it.
    read_at: Time,
}

struct CanaryKey {
    id: HostId,
    key: HostKey,
    nonce: std::sync::Mutex<Nonce>,
}

impl core::fmt::Debug for CanaryKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("CanaryKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Watch {
    pub(crate) fn new(now: Time, entropy: &dyn Entropy) -> Self {
        let mut seed = [0; 32];
        let mut random = [0; 10];
        let mut nonce = [0; 16];
        entropy.fill(&mut seed);
        entropy.fill(&mut random);
        entropy.fill(&mut nonce);
        let observation = Observation::begin(now);
        Self {
            shown: RwLock::new(Arc::new(observation.clone())),
            state: Mutex::new(Stored { observation, rev: 0, stored_at: Time::ZERO, read_at: Time::ZERO }),
            is_known: AtomicBool::new(false),
            unstored: AtomicBool::new(false),
            proof_at: AtomicU64::new(now.0),
            shed_at: AtomicU64::new(0),
            missed_at: AtomicU64::new(0),
            probing: Mutex::new(()),
            canary: CanaryKey {
                id: HostId::mint(now.0, random),
                key: HostKey::from_seed(seed),
                nonce: std::sync::Mutex::new(Nonce(nonce)),
            },
        }
    }

    /// What was not observed.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.shown().ledger.clone()
    }

    /// The observation as of the last tick.
    #[must_use]
    pub fn shown(&self) -> Arc<Observation> {
        Arc::clone(&self.shown.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// A message got through and was stored.
    pub fn heard(&self, now: Time) {
        self.proof_at.fetch_max(now.0, Ordering::Relaxed);
    }

    /// A good beat had to be turned away.
    pub fn shed(&self, now: Time) {
        self.shed_at.fetch_max(now.0, Ordering::Relaxed);
    }

    /// A canary that was sent then did not get through.
    pub fn missed(&self, sent_at: Time) {
        self.missed_at.fetch_max(sent_at.0, Ordering::Relaxed);
    }

    /// True when nothing got through since a canary did not.
    #[must_use]
    pub fn has_missed(&self) -> bool {
        self.missed_at.load(Ordering::Relaxed) > self.proof_at.load(Ordering::Relaxed)
    }

    /// When a message last got through.
    #[must_use]
    pub fn proof_at(&self) -> Time {
        Time(self.proof_at.load(Ordering::Relaxed))
    }

    /// True when the last attempt to store what is observed failed: the store takes nothing.
    #[must_use]
    pub fn is_unstored(&self) -> bool {
        self.unstored.load(Ordering::Relaxed)
    }

    /// True once something was read of the observing, or stored: until then nobody knows whether hb observes.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }

    /// The id that the canary signs with.
    #[must_use]
    pub fn canary_id(&self) -> HostId {
        self.canary.id
    }

    pub(crate) fn canary_key(&self) -> &HostKey {
        &self.canary.key
    }

    /// Spends the canary's nonce, if it is the right one.
    pub(crate) fn spend_canary(&self, spent: Nonce, next: Nonce) -> bool {
        let mut nonce = self.canary.nonce.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let good = *nonce == spent;
        if good {
            *nonce = next;
        }
        good
    }

    fn sign_canary(&self, authority: &str, now: Time) -> Canary {
        let beat = Beat::bare(BootId(self.canary.id.0), None);
        let body = serde_json::to_vec(&beat).unwrap_or_default();
        let nonce = *self.canary.nonce.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let created = i64::try_from(now.0 / 1000).unwrap_or(i64::MAX);
        let params = Params { created, nonce, keyid: self.canary.id.to_string() };
        let signed = signature::sign(
            &self.canary.key,
            &Message { method: "POST", authority, path: crate::beat::PATH, body: &body },
            &params,
        );
        Canary {
            content_digest: signed.content_digest,
            signature_input: signed.signature_input,
            signature: signed.signature,
            body,
        }
    }
}

impl App {
    /// Reads what was last known, credits the time since then, and stores it. To be called once, before anything else.
    pub async fn start(&self, anchor: Option<Anchor>) -> Result<()> {
        let now = self.clock.now();
        let fleet = self.store.fleet(now).await?;
        let mut state = self.watch.state.lock().await;
        let (mut observation, rev, events) = match self.store.observation().await? {
            None => (Observation::begin(now), 0, Vec::new()),
            Some(stored) => {
                let (observation, events) = stored.value.restart(now, fleet.shortest_need_ms, &self.settings.observer);
                (observation, stored.rev, events)
            }
        };
        observation.anchor = anchor;
        self.watch.heard(now);
        self.store_observation(&mut state, observation, rev, events).await
    }

    /// Where another process ticks: takes over what it stored, if what is known here is older than `max_age_ms`. Reads nothing
    /// where this process ticks itself.
    pub async fn catch_up(&self, max_age_ms: u64) -> Result<()> {
        if self.settings.loops == Loops::Here {
            return Ok(());
        }
        let mut state = self.watch.state.lock().await;
        let now = self.clock.now();
        if state.read_at > Time::ZERO && now.since(state.read_at) <= max_age_ms {
            return Ok(());
        }
        state.read_at = now;
        let is_first = !self.watch.is_known();
        if let Some(stored) = self.store.observation().await? {
            self.watch.show(&stored.value);
            if is_first {
                // That this process has begun proves nothing.
                self.watch.proof_at.store(stored.value.proof_at.0, Ordering::Relaxed);
            }
            self.watch.is_known.store(true, Ordering::Relaxed);
            // It was stored with its last tick: the next one is due when that is old, not when this read is.
            let stored_at = stored.value.observed_until;
            *state = Stored { stored_at, read_at: now, observation: stored.value, rev: stored.rev };
        }
        Ok(())
    }

    /// Time passes: notices gaps and deafness. To be called each second, and before each decision about silence.
    pub async fn tick(&self) -> Result<Arc<Observation>> {
        let mut tries = TICK_TRIES_MAX;
        loop {
            let ticked = self.tick_once().await;
            tries -= 1;
            // Where another process may tick as well, what it stored is known by now, and goes on from there.
            if ticked.is_ok() || tries == 0 || self.settings.loops == Loops::Here {
                return ticked;
            }
        }
    }

    async fn tick_once(&self) -> Result<Arc<Observation>> {
        let mut state = self.watch.state.lock().await;
        let now = self.clock.now();
        let noted = |at: &AtomicU64| Some(Time(at.load(Ordering::Relaxed))).filter(|at| *at > Time::ZERO);
        let signs = Signs {
            proof_at: self.watch.proof_at(),
            shed_at: noted(&self.watch.shed_at),
            missed_at: noted(&self.watch.missed_at),
        };
        let (next, events) = state.observation.clone().tick(now, signs, &self.settings.observer);
        let changed = !events.is_empty()
            || next.deaf_since != state.observation.deaf_since
            || next.ledger != state.observation.ledger;
        if changed || now.since(state.stored_at) >= STORE_EVERY_MS {
            let rev = state.rev;
            self.store_observation(&mut state, next, rev, events).await?;
        } else {
            self.watch.show(&next);
            state.observation = next;
        }
        Ok(self.watch.shown())
    }

    /// Stores the last tick at once: before a clean stop, so that the next start credits no more than it has to.
    pub async fn flush(&self) -> Result<()> {
        self.tick().await?;
        let mut state = self.watch.state.lock().await;
        let (next, rev) = (state.observation.clone(), state.rev);
        self.store_observation(&mut state, next, rev, Vec::new()).await
    }

    async fn store_observation(
        &self,
        state: &mut Stored,
        next: Observation,
        rev: u64,
        events: Vec<hb_core::event::Event>,
    ) -> Result<()> {
        let told = !events.is_empty();
        let stored = self.store.observe(Versioned { value: next.clone(), rev }, events).await;
        self.watch.unstored.store(stored.is_err(), Ordering::Relaxed);
        match stored? {
            Committed::Done => {
                self.watch.show(&next);
                self.watch.is_known.store(true, Ordering::Relaxed);
                let now = self.clock.now();
                let stored_at = next.observed_until.max(now);
                *state = Stored { stored_at, read_at: now, observation: next, rev: rev + 1 };
                if told {
                    self.to_deliver.notify_one();
                }
                Ok(())
            }
            Committed::Conflict => {
                // Another process watches over the same store: go on from what it knows.
                if let Some(stored) = self.store.observation().await? {
                    self.watch.show(&stored.value);
                    let read_at = self.clock.now();
                    *state = Stored { stored_at: Time::ZERO, read_at, observation: stored.value, rev: stored.rev };
                }
                Err(StoreError::Unavailable("another process stored an observation at the same moment".to_owned()))
            }
        }
    }

    /// Asks before it accuses: true when a message got through within the last second, or the canary does now.
    pub async fn can_hear(&self) -> bool {
        if active(Mutant::NoCanary) || self.clock.now().since(self.watch.proof_at()) <= PROOF_FRESH_MS {
            return true;
        }
        self.send_canary().await
    }

    /// Sends the canary once. To be called every ten seconds.
    pub async fn send_canary(&self) -> bool {
        let Some(authority) = self.settings.authorities.first() else { return false };
        let _alone = self.watch.probing.lock().await;
        let sent_at = self.clock.now();
        match self.prober.probe(self.watch.sign_canary(authority, sent_at)).await {
            Ok(()) => {
                // Where another process took it, that one noted it.
                self.watch.heard(sent_at);
                true
            }
            Err(reason) => {
                self.watch.missed(sent_at);
                tracing::warn!(canary.error = %reason, "the canary did not get through the public path: {reason}");
                false
            }
        }
    }
}

impl Watch {
    fn show(&self, observation: &Observation) {
        let shown = Arc::new(observation.clone());
        *self.shown.write().unwrap_or_else(std::sync::PoisonError::into_inner) = shown;
    }
}
