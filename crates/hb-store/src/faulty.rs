//! A store that fails as stores do: before the work, after it (so that nobody knows whether it was done), or late.
//!
//! Deterministic: what happens to a call follows from its name and its number alone, and every wait is the caller's own.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use hb_core::access::{ApiKey, Channel, Token};
use hb_core::delivery::{Delivery, Status};
use hb_core::event::{Event, Subject};
use hb_core::host::Host;
use hb_core::incident::{Group, Incident};
use hb_core::ledger::Ledger;
use hb_core::mutant::{Mutant, active};
use hb_core::observer::Observation;
use hb_core::policy::Policy;
use hb_core::time::Time;
use hb_wire::id::{ChannelId, DeliveryId, EventId, HostId, IncidentId};
use hb_wire::key::PublicKey;
use hb_wire::name::Tags;

use crate::{
    Backlog, Beat, Beaten, Change, Committed, Credential, Enrolled, EventQuery, Fleet, HostQuery, Listed, Result,
    Signer, Store, StoreError, Versioned,
};

/// One call of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// The name of the method in [`Store`].
    pub method: &'static str,
    /// The how many-th call of this method it is, counted from 1.
    pub nth: u64,
}

/// A place in a call at which the caller's hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// The call.
    pub call: Call,
    /// Where in the call.
    pub when: When,
}

/// Where in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Nothing is done yet.
    Before,
    /// Only under the mutant `Nonatomic`: half of a commit is done.
    Between,
    /// Everything is done, and not yet answered.
    After,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is done.
    Pass,
    /// It is not done, and says so: [`StoreError::Overloaded`].
    Overloaded,
    /// It is not done, but the caller cannot know: [`StoreError::Unavailable`].
    Lost,
    /// It is done, but the caller cannot know: [`StoreError::Unavailable`].
    Ambiguous,
}

/// A future of the caller's own kind, for example one that waits in virtual time.
pub type Pause = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The plan: what becomes of each call, and what happens around it.
#[derive(Clone)]
pub struct Faults {
    fate: Arc<dyn Fn(Call) -> Fate + Send + Sync>,
    hook: Arc<dyn Fn(Point) -> Pause + Send + Sync>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faults")
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self { fate: Arc::new(|_| Fate::Pass), hook: Arc::new(|_| Box::pin(core::future::ready(()))) }
    }
}

impl Faults {
    /// No faults.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// The `nth` call of `method` (counted from 1) meets `fate`, every other one passes.
    #[must_use]
    pub fn at(method: &'static str, nth: u64, fate: Fate) -> Self {
        let marked = Call { method, nth };
        Self::none().fate(move |call| if call == marked { fate } else { Fate::Pass })
    }

    /// Decides about each call.
    #[must_use]
    pub fn fate(mut self, fate: impl Fn(Call) -> Fate + Send + Sync + 'static) -> Self {
        self.fate = Arc::new(fate);
        self
    }

    /// Runs at each point of each call: may wait, may note, may stop the world.
    #[must_use]
    pub fn hook(mut self, hook: impl Fn(Point) -> Pause + Send + Sync + 'static) -> Self {
        self.hook = Arc::new(hook);
        self
    }
}

/// A store around another one, which fails as its plan says.
#[derive(Debug)]
pub struct FaultyStore<S> {
    inner: S,
    faults: Mutex<Faults>,
    calls: Mutex<BTreeMap<&'static str, u64>>,
    glimpses: Mutex<BTreeMap<HostId, Signer>>,
}

impl<S: Store> FaultyStore<S> {
    /// Wraps a store.
    pub fn new(inner: S, faults: Faults) -> Self {
        Self { inner, faults: Mutex::new(faults), calls: Mutex::default(), glimpses: Mutex::default() }
    }

    /// The store inside, which never fails on purpose.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Another plan from here on. Calls go on being counted from where they are.
    pub fn plan(&self, faults: Faults) {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    /// From here on [`Store::signer`] says this of a host, whatever it is.
    pub fn glimpse(&self, id: HostId, signer: Signer) {
        self.glimpses.lock().unwrap_or_else(PoisonError::into_inner).insert(id, signer);
    }

    /// How often a method was called.
    pub fn calls(&self, method: &str) -> u64 {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).get(method).copied().unwrap_or(0)
    }

    fn begin(&self, method: &'static str) -> (Call, Faults) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let nth = calls.entry(method).or_default();
        *nth = nth.saturating_add(1);
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (Call { method, nth: *nth }, faults)
    }

    async fn through<T: Send>(&self, method: &'static str, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let (call, faults) = self.begin(method);
        around(call, &faults, work).await
    }

    /// The mutant `Nonatomic`: the host first, then the rest.
    async fn commit_in_halves(&self, change: Change, call: Call, faults: &Faults) -> Result<Committed> {
        let host = Change { host: change.host, ..Change::default() };
        if self.inner.commit(host).await? == Committed::Conflict {
            return Ok(Committed::Conflict);
        }
        (faults.hook)(Point { call, when: When::Between }).await;
        self.inner.commit(Change { host: None, incident: change.incident, events: change.events }).await
    }
}

async fn around<T: Send>(call: Call, faults: &Faults, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
    let fate = (faults.fate)(call);
    (faults.hook)(Point { call, when: When::Before }).await;
    match fate {
        Fate::Overloaded => return Err(StoreError::Overloaded),
        Fate::Lost => return Err(lost(call)),
        Fate::Pass | Fate::Ambiguous => {}
    }
    let done = work.await;
    (faults.hook)(Point { call, when: When::After }).await;
    if fate == Fate::Ambiguous { Err(lost(call)) } else { done }
}

fn lost(call: Call) -> StoreError {
    StoreError::Unavailable(format!("call {} of {} fails as planned", call.nth, call.method))
}

/// Every method goes to the same method of the store inside.
macro_rules! through {
    ($($(#[$meta:meta])* fn $method:ident($($name:ident: $type:ty),*) -> $answer:ty;)*) => {
        #[async_trait]
        impl<S: Store> Store for FaultyStore<S> {
            async fn commit(&self, change: Change) -> Result<Committed> {
                let (call, faults) = self.begin("commit");
                if active(Mutant::Nonatomic) {
                    return around(call, &faults, self.commit_in_halves(change, call, &faults)).await;
                }
                around(call, &faults, self.inner.commit(change)).await
            }
            // Neither fails nor waits: it is a cheaper way to what `host` says.
            async fn signer(&self, id: HostId) -> Result<Option<Signer>> {
                let seen = self.glimpses.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied();
                if seen.is_some() { Ok(seen) } else { self.inner.signer(id).await }
            }
            $(async fn $method(&self, $($name: $type),*) -> Result<$answer> {
                self.through(stringify!($method), self.inner.$method($($name),*)).await
            })*
        }
    };
}

through! {
    fn beat(beat: Beat) -> Beaten;
    fn host(id: HostId) -> Option<Versioned<Host>>;
    fn host_by_key(key: &PublicKey) -> Option<Versioned<Host>>;
    fn hosts(query: &HostQuery) -> Vec<Versioned<Host>>;
    fn enrol(host: &Host, event: &Event, credential: &Credential, now: Time) -> Enrolled;
    fn due(now: Time, ledger: &Ledger, policy: &Policy, limit: usize) -> Vec<Versioned<Host>>;
    fn next_due() -> Option<Time>;
    fn fleet(now: Time) -> Fleet;
    fn silence(now: Time, tags: &Tags) -> Vec<Group>;
    fn silent(now: Time, tag: Option<&(String, String)>, limit: usize) -> Vec<Subject>;
    fn open_incidents() -> Vec<Versioned<Incident>>;
    fn may_have_incidents() -> bool;
    fn down_in(incident: IncidentId, limit: usize) -> Vec<Subject>;
    fn event(id: EventId) -> Option<Event>;
    fn events(query: &EventQuery) -> Vec<Listed<Event>>;
    fn untold(limit: usize) -> Vec<Event>;
    fn tell(event: EventId, deliveries: &[Delivery]) -> ();
    fn claim(now: Time, until: Time, limit: usize) -> Vec<Delivery>;
    fn next_claim() -> Option<Time>;
    fn settle(delivery: &Delivery, lease: Time) -> bool;
    fn deliveries_of(incident: IncidentId) -> Vec<Delivery>;
    fn delivery(id: DeliveryId) -> Option<Delivery>;
    fn revive(revived: &Delivery) -> bool;
    fn deliveries(status: Option<Status>, after: Option<u64>, limit: usize) -> Vec<Listed<Delivery>>;
    fn backlog() -> Backlog;
    fn add_key(key: &ApiKey) -> bool;
    fn key(id: &str) -> Option<ApiKey>;
    fn keys() -> Vec<ApiKey>;
    fn revoke_key(id: &str, now: Time) -> bool;
    fn touch_key(id: &str, now: Time) -> ();
    fn add_token(token: &Token) -> bool;
    fn token(id: &str) -> Option<Token>;
    fn tokens(now: Time) -> Vec<Token>;
    fn revoke_token(id: &str, now: Time) -> bool;
    fn add_channel(channel: &Channel) -> bool;
    fn channels() -> Vec<Channel>;
    fn remove_channel(id: ChannelId) -> bool;
    fn observation() -> Option<Versioned<Observation>>;
    fn observe(observation: Versioned<Observation>, events: Vec<Event>) -> Committed;
}
