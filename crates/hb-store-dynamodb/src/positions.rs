//! Positions: the order of storing.
//!
//! Each region counts for itself, in an item that no other region writes; a position is that count together with the place of
//! its region, so that no two regions ever give the same one. A count first goes beyond what is seen of the other region's:
//! what is stored in the knowledge of something else comes after it.

use hb_store::{Result, StoreError};

use crate::calls::{Condition, Written};
use crate::item::{need_number, number, some_number};
use crate::keys::{self, Key};
use crate::regions::{STRIDE, slot};
use crate::store::DynamoStore;

/// How often a count is set beyond the other region's, while others count here as well.
const TRIES_MAX: u32 = 8;
const COUNTER: &str = "position";

/// Positions that nobody else gets, growing. They do not follow one another without gaps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Positions {
    first: u64,
    count: u64,
    stride: u64,
    slot: u64,
}

impl Positions {
    /// None at all.
    pub(crate) const NONE: Self = Self { first: 0, count: 0, stride: 1, slot: 0 };

    pub(crate) fn iter(self) -> impl Iterator<Item = u64> {
        let Self { first, count, stride, slot } = self;
        (first..first.saturating_add(count)).map(move |n| n.saturating_mul(stride).saturating_add(slot))
    }

    /// True when the region's count passed a multiple of this with them.
    pub(crate) fn pass_multiple_of(self, every: u64) -> bool {
        self.first / every != self.first.saturating_add(self.count) / every
    }
}

impl DynamoStore {
    /// One position.
    pub(crate) async fn allocate_one(&self) -> Result<u64> {
        let one = self.allocate(1).await?;
        one.iter().next().ok_or(StoreError::Overloaded)
    }

    /// So many positions.
    pub(crate) async fn allocate(&self, count: usize) -> Result<Positions> {
        if count == 0 {
            return Ok(Positions::NONE);
        }
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let own = self.regions.own();
        let key = counter(own);
        let (stride, slot) = if own.is_empty() { (1, 0) } else { (STRIDE, slot(own)) };
        let seen = self.seen_of_peer().await?;
        for _ in 0..TRIES_MAX {
            if let Written::Done(now) = self.table.update(&key, "ADD n :n", &self.counts_on(count, seen)).await? {
                let first = need_number::<u64>(&now, "n")?.saturating_sub(count).saturating_add(1);
                return Ok(Positions { first, count, stride, slot });
            }
            let from = number(seen.max(self.counted_before().await?));
            let behind = Condition::new("attribute_not_exists(n) OR n < :n", [(":n", from)]);
            self.table.update(&key, "SET n = :n", &behind).await?;
        }
        Err(StoreError::Overloaded)
    }

    /// A count that has begun, and is not behind.
    fn counts_on(&self, count: u64, seen: u64) -> Condition {
        let mut condition = Condition::new("", [(":n", number(count))]);
        if seen > 0 {
            condition.expression.push_str("n >= :m");
            condition.values.push((":m", number(seen)));
        } else if !self.regions.own().is_empty() {
            condition.expression.push_str("attribute_exists(n)");
        }
        condition
    }

    /// What is seen here of the other region's count. It may be old: then the order of what both store at the same time is
    /// any.
    async fn seen_of_peer(&self) -> Result<u64> {
        let Some(peer) = self.regions.peer() else { return Ok(0) };
        self.count_of(peer, false).await
    }

    /// How far was counted before the table had regions.
    async fn counted_before(&self) -> Result<u64> {
        let last = self.count_of("", true).await?;
        Ok(if last == 0 { 0 } else { last / STRIDE + 1 })
    }

    async fn count_of(&self, region: &str, consistent: bool) -> Result<u64> {
        let item = self.table.get(&counter(region), consistent).await?;
        Ok(item.map(|item| some_number(&item, "n")).transpose()?.flatten().unwrap_or(0))
    }
}

fn counter(region: &str) -> Key {
    keys::server(&keys::of_region(COUNTER, region))
}
