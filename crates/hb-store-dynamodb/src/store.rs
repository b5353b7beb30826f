//! The store: which part of the crate does what.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use hb_core::access::{ApiKey, Channel, Token};
use hb_core::delivery::{Delivery, Status};
use hb_core::event::{Event, Subject};
use hb_core::host::Host;
use hb_core::incident::{Group, Incident};
use hb_core::ledger::Ledger;
use hb_core::observer::Observation;
use hb_core::policy::Policy;
use hb_core::time::Time;
use hb_store::{
    Backlog, Beat, Beaten, Change, Committed, Credential, Enrolled, EventQuery, Fleet, HostQuery, Listed, Result,
    Signer, Store, Versioned,
};
use hb_wire::id::{ChannelId, DeliveryId, EventId, HostId, IncidentId};
use hb_wire::key::PublicKey;
use hb_wire::name::Tags;

use crate::calls::{Condition, Spent, Table, Written};
use crate::incidents::Incidents;
use crate::item::{number, some_number};
use crate::keys;
use crate::regions::Regions;
use crate::witness::Witness;

/// Most shards: far more than a million hosts need.
pub const SHARDS_MAX: u16 = 256;

/// How a table is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Partitions over which the slim items of hosts are spread: 1 for up to 10,000 hosts that beat each minute, 16 for up
    /// to 250,000, 64 for a million. May grow: a host moves when it is next decided about.
    pub shards: u16,
    /// The region, where the table has replicas in several, or may have: a host is looked after by the region that heard it
    /// last ([`DynamoStore::beside`]). Empty for a table that is in none.
    pub region: String,
}

/// What the other region told has arrived here after this long (ms), or it is not waited for any more.
const TOLD_ELSEWHERE_MS: u64 = 300_000;

impl Default for Usage {
    /// 16 shards in one region.
    fn default() -> Self {
        Self { shards: 16, region: String::new() }
    }
}

/// A [`Store`] in a DynamoDB table.
#[derive(Debug)]
pub struct DynamoStore {
    pub(crate) table: Table,
    pub(crate) shards: u16,
    pub(crate) regions: Regions,
    /// The most shards that the table was ever used with: so many have to be looked at.
    pub(crate) shards_in_use: u16,
    pub(crate) incidents: Incidents,
    pub(crate) witness: Option<Arc<dyn Witness>>,
}

impl DynamoStore {
    /// Opens a table: one small read, and a write if it is used with more shards than ever before.
    ///
    /// Whoever is open already does not learn of new shards. Change the number everywhere at once.
    ///
    /// # Errors
    /// When the table cannot be read, or is not there.
    pub async fn open(client: Client, table: impl Into<String>, usage: Usage) -> Result<Self> {
        let usage = Usage { shards: usage.shards.clamp(1, SHARDS_MAX), ..usage };
        let table = Table::new(client, table.into());
        let key = keys::server("shards");
        let known = table.get(&key, true).await?;
        let mut shards_in_use = known.map(|item| some_number(&item, "n")).transpose()?.flatten().unwrap_or(0);
        if shards_in_use < usage.shards {
            let more = Condition::new("attribute_not_exists(n) OR n < :n", [(":n", number(usage.shards))]);
            shards_in_use = match table.update(&key, "SET n = :n", &more).await? {
                Written::Done(_) => usage.shards,
                Written::Refused(met) => {
                    let met = met.map(|item| some_number(&item, "n")).transpose()?.flatten();
                    met.unwrap_or(usage.shards).max(usage.shards)
                }
            };
        }
        let regions = Regions::new(usage.region);
        Ok(Self { table, shards: usage.shards, regions, shards_in_use, incidents: Incidents::default(), witness: None })
    }

    /// What it has consumed since it was opened, as DynamoDB counted it.
    pub fn spent(&self) -> Spent {
        self.table.spent()
    }
}

#[async_trait]
impl Store for DynamoStore {
    async fn beat(&self, beat: Beat) -> Result<Beaten> {
        self.put_beat(&beat).await
    }

    async fn host(&self, id: HostId) -> Result<Option<Versioned<Host>>> {
        self.read_host(id).await
    }

    async fn signer(&self, id: HostId) -> Result<Option<Signer>> {
        self.glimpse_signer(id).await
    }

    async fn host_by_key(&self, key: &PublicKey) -> Result<Option<Versioned<Host>>> {
        self.read_host_by_key(key).await
    }

    async fn hosts(&self, query: &HostQuery) -> Result<Vec<Versioned<Host>>> {
        self.list_hosts(query).await
    }

    async fn enrol(&self, host: &Host, event: &Event, credential: &Credential, now: Time) -> Result<Enrolled> {
        self.put_new(host, event, credential, now).await
    }

    async fn commit(&self, change: Change) -> Result<Committed> {
        Box::pin(self.apply(change)).await
    }

    async fn due(&self, now: Time, ledger: &Ledger, policy: &Policy, limit: usize) -> Result<Vec<Versioned<Host>>> {
        self.find_due(now, ledger, policy, limit).await
    }

    async fn next_due(&self) -> Result<Option<Time>> {
        self.first_floor().await
    }

    async fn fleet(&self, now: Time) -> Result<Fleet> {
        self.count_fleet(now).await
    }

    async fn silence(&self, now: Time, tags: &Tags) -> Result<Vec<Group>> {
        self.count_silence(now, tags).await
    }

    async fn silent(&self, now: Time, tag: Option<&(String, String)>, limit: usize) -> Result<Vec<Subject>> {
        self.find_silent(now, tag, limit).await
    }

    async fn open_incidents(&self) -> Result<Vec<Versioned<Incident>>> {
        self.list_open().await
    }

    async fn may_have_incidents(&self) -> Result<bool> {
        self.may_be_open().await
    }

    async fn down_in(&self, incident: IncidentId, limit: usize) -> Result<Vec<Subject>> {
        self.members_down(incident, limit).await
    }

    async fn event(&self, id: EventId) -> Result<Option<Event>> {
        self.get_event(id).await
    }

    async fn events(&self, query: &EventQuery) -> Result<Vec<Listed<Event>>> {
        self.list_events(query).await
    }

    async fn untold(&self, limit: usize) -> Result<Vec<Event>> {
        self.list_untold(limit).await
    }

    async fn tell(&self, event: EventId, deliveries: &[Delivery]) -> Result<()> {
        self.fan_out(event, deliveries).await
    }

    async fn claim(&self, now: Time, until: Time, limit: usize) -> Result<Vec<Delivery>> {
        self.lease(now, until, limit).await
    }

    async fn next_claim(&self) -> Result<Option<Time>> {
        self.next_work().await
    }

    async fn settle(&self, delivery: &Delivery, lease: Time) -> Result<bool> {
        self.finish_delivery(delivery, lease).await
    }

    fn told_elsewhere_ms(&self) -> u64 {
        if self.regions.peer().is_some() { TOLD_ELSEWHERE_MS } else { 0 }
    }

    async fn deliveries_of(&self, incident: IncidentId) -> Result<Vec<Delivery>> {
        self.list_of_incident(incident).await
    }

    async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>> {
        self.get_delivery(id).await
    }

    async fn revive(&self, revived: &Delivery) -> Result<bool> {
        self.try_revive(revived).await
    }

    async fn deliveries(
        &self,
        status: Option<Status>,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Listed<Delivery>>> {
        self.list_deliveries(status, after, limit).await
    }

    async fn backlog(&self) -> Result<Backlog> {
        self.count_backlog().await
    }

    async fn add_key(&self, key: &ApiKey) -> Result<bool> {
        self.put_key(key).await
    }

    async fn key(&self, id: &str) -> Result<Option<ApiKey>> {
        self.get_key(id).await
    }

    async fn keys(&self) -> Result<Vec<ApiKey>> {
        self.list_keys().await
    }

    async fn revoke_key(&self, id: &str, now: Time) -> Result<bool> {
        self.end_key(id, now).await
    }

    async fn touch_key(&self, id: &str, now: Time) -> Result<()> {
        self.use_key(id, now).await
    }

    async fn add_token(&self, token: &Token) -> Result<bool> {
        self.put_token(token).await
    }

    async fn token(&self, id: &str) -> Result<Option<Token>> {
        self.get_token(id).await
    }

    async fn tokens(&self, now: Time) -> Result<Vec<Token>> {
        self.list_tokens(now).await
    }

    async fn revoke_token(&self, id: &str, now: Time) -> Result<bool> {
        self.end_token(id, now).await
    }

    async fn add_channel(&self, channel: &Channel) -> Result<bool> {
        self.put_channel(channel).await
    }

    async fn channels(&self) -> Result<Vec<Channel>> {
        self.list_channels().await
    }

    async fn remove_channel(&self, id: ChannelId) -> Result<bool> {
        self.drop_channel(id).await
    }

    async fn observation(&self) -> Result<Option<Versioned<Observation>>> {
        self.get_observation().await
    }

    async fn observe(&self, observation: Versioned<Observation>, events: Vec<Event>) -> Result<Committed> {
        self.put_observation(&observation, events).await
    }
}
