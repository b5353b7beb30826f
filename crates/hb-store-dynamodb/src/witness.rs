//! Before a region accuses, it asks the other one: a host that fell silent here may be heard there, and nobody here know of it
//! because replication is late or cut.

use core::fmt;
use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use hb_core::mutant::{Mutant, active};
use hb_core::time::Time;
use hb_store::Result;
use hb_wire::id::HostId;

use crate::keys;
use crate::live::Live;
use crate::registry;
use crate::store::DynamoStore;

/// Most hosts that are asked about at once. Whoever falls silent beyond that is judged by what is known here.
pub const ASKED_MAX: usize = 1000;

/// Asks the other region.
#[async_trait]
pub trait Witness: Send + Sync + fmt::Debug {
    /// Those of these hosts that were heard there later than here, and when. What is not known is not heard: an alarm too many
    /// is better than none. Must end within a few seconds.
    async fn heard(&self, silent: &[(HostId, Time)]) -> Vec<(HostId, Time)>;
}

impl DynamoStore {
    /// Has a witness asked before hosts are said to be due ([`hb_store::Store::due`]).
    #[must_use]
    pub fn asking(mut self, witness: Arc<dyn Witness>) -> Self {
        self.witness = Some(witness);
        self
    }

    /// Asks about hosts that are due here, and about those that are late already: these count when it is decided whether many
    /// are silent at once.
    pub(crate) async fn ask_about(&self, due: &[(HostId, Time)], now: Time) -> Result<()> {
        let Some(witness) = &self.witness else { return Ok(()) };
        // What was said before says nothing of now.
        self.leave_to_peer(core::iter::empty());
        if due.is_empty() || active(Mutant::AccusedUnasked) {
            return Ok(());
        }
        let mut silent = due.to_vec();
        let known: HashSet<HostId> = due.iter().map(|(id, _)| *id).collect();
        for live in self.judged().await? {
            if live.is_late(now) && !known.contains(&live.id) {
                silent.extend(live.silent_from().map(|from| (live.id, from)));
            }
        }
        silent.truncate(ASKED_MAX);
        let heard = witness.heard(&silent).await;
        if !heard.is_empty() {
            tracing::warn!("{} silent hosts are heard in the other region: they are left to it", heard.len());
        }
        self.leave_to_peer(heard.into_iter().map(|(id, _)| id));
        Ok(())
    }

    /// When the other region heard a host, if that was later than `here`, as far as it can be asked.
    pub(crate) async fn heard_there_since(&self, id: HostId, here: Option<Time>) -> Option<Time> {
        let heard = self.witness.as_ref()?.heard(&[(id, here.unwrap_or(Time::ZERO))]).await;
        heard.into_iter().find(|(known, _)| *known == id).map(|(_, at)| at)
    }

    /// When this region last heard those of these hosts that are its own: what it answers when the other one asks.
    ///
    /// # Errors
    /// As all calls of the store.
    pub async fn heard_here(&self, hosts: &[HostId]) -> Result<Vec<(HostId, Time)>> {
        let hosts = hosts.get(..ASKED_MAX.min(hosts.len())).unwrap_or_default();
        let place = |id: HostId| keys::live(keys::LIVE, keys::shard(id, self.shards), id);
        let found = self.table.get_many(hosts.iter().map(|id| place(*id)).collect(), true).await?;
        let mut heard = Vec::new();
        for item in found.values() {
            let live = Live::read(item)?;
            if live.owner() != Some(self.regions.own()) {
                continue;
            }
            let last = match Live::life(item)? {
                Some(open) => open.heard_at,
                None => {
                    registry::read(&self.table, live.id, self.shards).await?.and_then(|held| held.host.life.heard_at)
                }
            };
            heard.extend(last.map(|at| (live.id, at)));
        }
        Ok(heard)
    }
}
