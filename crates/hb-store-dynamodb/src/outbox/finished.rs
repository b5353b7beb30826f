//! Deliveries that are finished: listed, counted, and let go of.

use std::collections::HashSet;

use futures_util::future::try_join_all;
use hb_core::delivery::{Delivery, Status};
use hb_core::event::Kind;
use hb_store::{DELIVERIES_MAX, DELIVERIES_SLACK, Listed, PAGE_MAX, Result};
use hb_wire::id::ChannelId;

use super::{STATUSES, is_finished, listed, of_incident, partition, read};
use crate::calls::{Query, sk};
use crate::events::after;
use crate::item::Item;
use crate::keys::{self, Key};
use crate::store::DynamoStore;

impl DynamoStore {
    pub(crate) async fn list_deliveries(
        &self,
        status: Option<Status>,
        place: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Listed<Delivery>>> {
        let limit = limit.min(PAGE_MAX);
        let statuses = STATUSES.into_iter().filter(|one| status.is_none_or(|status| status == *one));
        let queries: Vec<Query> = statuses
            .map(|status| Query { ascending: false, range: after(place, false), ..Query::all(partition(status)) })
            .collect();
        let found = try_join_all(queries.iter().map(|query| self.table.first(query, limit))).await?;
        let mut deliveries = found.iter().flatten().map(listed).collect::<Result<Vec<_>>>()?;
        deliveries.sort_unstable_by_key(|listed| core::cmp::Reverse(listed.position));
        let mut seen = HashSet::new();
        deliveries.retain(|listed| seen.insert(listed.value.id));
        deliveries.truncate(limit);
        Ok(deliveries)
    }

    /// Deliveries that were given up and could still be told: not tests, nor those whose channel is gone.
    pub(super) async fn count_lost(&self) -> Result<u64> {
        let dead = self.table.query(&Query::all(partition(Status::Dead))).await?;
        if dead.is_empty() {
            return Ok(0);
        }
        let channels: HashSet<ChannelId> = self.list_channels().await?.into_iter().map(|channel| channel.id).collect();
        let mut lost = 0;
        for delivery in dead.iter().map(read) {
            let delivery = delivery?;
            lost += u64::from(delivery.kind != Kind::Test && channels.contains(&delivery.channel));
        }
        Ok(lost)
    }

    /// Lets go of the oldest finished deliveries; if that fails, the next time will do.
    pub(super) async fn let_go_of_deliveries(&self) {
        if let Err(error) = self.prune_deliveries().await {
            tracing::warn!("old deliveries are not let go of yet: {error}");
        }
    }

    async fn prune_deliveries(&self) -> Result<()> {
        let finished: Vec<Query> = STATUSES
            .into_iter()
            .filter(|status| is_finished(*status))
            .map(|status| Query::all(partition(status)))
            .collect();
        let counted = try_join_all(finished.iter().map(|query| self.table.count(query))).await?;
        let held = usize::try_from(counted.iter().sum::<u64>()).unwrap_or(usize::MAX);
        let surplus = held.saturating_sub(DELIVERIES_MAX);
        if surplus <= DELIVERIES_SLACK / 2 {
            return Ok(());
        }
        let oldest = try_join_all(finished.iter().map(|query| self.table.first(query, surplus))).await?;
        let mut oldest: Vec<Item> = oldest.into_iter().flatten().collect();
        oldest.sort_by(|a, b| sk(a).cmp(sk(b)));
        oldest.truncate(surplus);
        let mut pointers = Vec::new();
        for item in &oldest {
            let delivery = read(item)?;
            pointers.push(keys::delivery(delivery.id));
            pointers.extend(delivery.incident.map(|incident| of_incident(incident, sk(item))));
        }
        // The delivery itself goes last: as long as it is there, whoever comes next does what was left undone.
        self.table.delete_many(pointers).await?;
        self.table.delete_many(oldest.iter().filter_map(Key::of)).await
    }
}
