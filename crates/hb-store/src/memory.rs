//! A store in memory: for the simulator and for tests, and the plainest reading of the contract.
//!
//! One lock over ordered maps: deterministic, never waits. Nothing survives the process.

use core::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use hb_core::access::{ApiKey, Channel, Token};
use hb_core::delivery::{Delivery, Status};
use hb_core::event::{Event, Subject};
use hb_core::host::Host;
use hb_core::incident::{Group, Incident};
use hb_core::ledger::Ledger;
use hb_core::observer::Observation;
use hb_core::policy::Policy;
use hb_core::time::Time;
use hb_wire::id::{ChannelId, DeliveryId, EventId, HostId, IncidentId};
use hb_wire::key::PublicKey;
use hb_wire::name::Tags;

use crate::{
    Backlog, Beat, Beaten, Change, Committed, Credential, Enrolled, EventQuery, Fleet, HostQuery, Listed, Result,
    Store, Versioned,
};

mod access;
mod alarms;
mod digest;
mod hosts;
mod outbox;
mod records;
mod silence;

use records::Records;

/// A [`Store`] in memory. Clones share what they hold.
#[derive(Clone, Default)]
pub struct MemoryStore {
    records: Arc<Mutex<Records>>,
}

/// Everything that a [`MemoryStore`] held at one instant.
#[derive(Clone)]
pub struct Snapshot(Records);

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("hosts", &self.0.hosts.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("hosts", &self.lock().hosts.len()).finish_non_exhaustive()
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What it holds now, for [`MemoryStore::restore`]: a simulated server that loses what it has not acknowledged.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.lock().clone())
    }

    /// Back to what it held then.
    pub fn restore(&self, snapshot: &Snapshot) {
        *self.lock() = snapshot.0.clone();
    }

    /// SHA-256 over everything that it holds: equal before and after means that nothing was written.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        digest::of(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        // A test that panicked elsewhere must not hide its reason behind ours.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn beat(&self, beat: Beat) -> Result<Beaten> {
        Ok(self.lock().beat(beat))
    }

    async fn host(&self, id: HostId) -> Result<Option<Versioned<Host>>> {
        Ok(self.lock().hosts.get(&id).cloned())
    }

    async fn host_by_key(&self, key: &PublicKey) -> Result<Option<Versioned<Host>>> {
        Ok(self.lock().host_by_key(key))
    }

    async fn hosts(&self, query: &HostQuery) -> Result<Vec<Versioned<Host>>> {
        Ok(self.lock().list_hosts(query))
    }

    async fn enrol(&self, host: &Host, event: &Event, credential: &Credential, now: Time) -> Result<Enrolled> {
        Ok(self.lock().enrol(host, event, credential, now))
    }

    async fn commit(&self, change: Change) -> Result<Committed> {
        Ok(self.lock().commit(change))
    }

    async fn due(&self, now: Time, ledger: &Ledger, policy: &Policy, limit: usize) -> Result<Vec<Versioned<Host>>> {
        Ok(self.lock().due(now, ledger, policy, limit))
    }

    async fn next_due(&self) -> Result<Option<Time>> {
        Ok(self.lock().alarms.first())
    }

    async fn fleet(&self, now: Time) -> Result<Fleet> {
        Ok(self.lock().fleet(now))
    }

    async fn silence(&self, now: Time, tags: &Tags) -> Result<Vec<Group>> {
        Ok(self.lock().silence(now, tags))
    }

    async fn silent(&self, now: Time, tag: Option<&(String, String)>, limit: usize) -> Result<Vec<Subject>> {
        Ok(self.lock().silent(now, tag, limit))
    }

    async fn open_incidents(&self) -> Result<Vec<Versioned<Incident>>> {
        Ok(self.lock().incidents.values().filter(|held| held.value.closed_at.is_none()).cloned().collect())
    }

    async fn down_in(&self, incident: IncidentId, limit: usize) -> Result<Vec<Subject>> {
        Ok(self.lock().down_in(incident, limit))
    }

    async fn event(&self, id: EventId) -> Result<Option<Event>> {
        Ok(self.lock().event(id))
    }

    async fn events(&self, query: &EventQuery) -> Result<Vec<Listed<Event>>> {
        Ok(self.lock().list_events(query))
    }

    async fn untold(&self, limit: usize) -> Result<Vec<Event>> {
        Ok(self.lock().untold(limit))
    }

    async fn tell(&self, event: EventId, deliveries: &[Delivery]) -> Result<()> {
        self.lock().tell(event, deliveries);
        Ok(())
    }

    async fn claim(&self, now: Time, until: Time, limit: usize) -> Result<Vec<Delivery>> {
        Ok(self.lock().claim(now, until, limit))
    }

    async fn next_claim(&self) -> Result<Option<Time>> {
        Ok(self.lock().next_claim())
    }

    async fn settle(&self, delivery: &Delivery, lease: Time) -> Result<bool> {
        Ok(self.lock().settle(delivery, lease))
    }

    async fn deliveries_of(&self, incident: IncidentId) -> Result<Vec<Delivery>> {
        Ok(self.lock().deliveries_of(incident))
    }

    async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>> {
        Ok(self.lock().delivery(id).cloned())
    }

    async fn revive(&self, revived: &Delivery) -> Result<bool> {
        Ok(self.lock().revive(revived))
    }

    async fn deliveries(
        &self,
        status: Option<Status>,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Listed<Delivery>>> {
        Ok(self.lock().list_deliveries(status, after, limit))
    }

    async fn backlog(&self) -> Result<Backlog> {
        Ok(self.lock().backlog())
    }

    async fn add_key(&self, key: &ApiKey) -> Result<bool> {
        Ok(self.lock().add_key(key))
    }

    async fn key(&self, id: &str) -> Result<Option<ApiKey>> {
        Ok(self.lock().keys.iter().find(|key| key.id == id).cloned())
    }

    async fn keys(&self) -> Result<Vec<ApiKey>> {
        Ok(self.lock().keys.clone())
    }

    async fn revoke_key(&self, id: &str, now: Time) -> Result<bool> {
        Ok(self.lock().revoke_key(id, now))
    }

    async fn touch_key(&self, id: &str, now: Time) -> Result<()> {
        self.lock().touch_key(id, now);
        Ok(())
    }

    async fn add_token(&self, token: &Token) -> Result<bool> {
        Ok(self.lock().add_token(token))
    }

    async fn token(&self, id: &str) -> Result<Option<Token>> {
        Ok(self.lock().tokens.iter().find(|token| token.id == id).cloned())
    }

    async fn tokens(&self, now: Time) -> Result<Vec<Token>> {
        Ok(self.lock().list_tokens(now))
    }

    async fn revoke_token(&self, id: &str, now: Time) -> Result<bool> {
        Ok(self.lock().revoke_token(id, now))
    }

    async fn add_channel(&self, channel: &Channel) -> Result<bool> {
        Ok(self.lock().add_channel(channel))
    }

    async fn channels(&self) -> Result<Vec<Channel>> {
        Ok(self.lock().channels.clone())
    }

    async fn remove_channel(&self, id: ChannelId) -> Result<bool> {
        Ok(self.lock().remove_channel(id))
    }

    async fn observation(&self) -> Result<Option<Versioned<Observation>>> {
        Ok(self.lock().observation.clone())
    }

    async fn observe(&self, observation: Versioned<Observation>, events: Vec<Event>) -> Result<Committed> {
        Ok(self.lock().observe(observation, events))
    }
}
