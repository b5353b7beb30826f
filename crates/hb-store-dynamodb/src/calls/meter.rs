//! What requests consume, as DynamoDB's answers say.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_dynamodb::types::ConsumedCapacity;

/// What requests have consumed so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spent {
    /// Requests that succeeded or were refused by a condition.
    pub requests: u64,
    /// Units read.
    pub read: f64,
    /// Units written.
    pub written: f64,
    /// Units of secondary indexes among them: none, as long as there is no index.
    pub by_indexes: f64,
}

#[derive(Debug, Default)]
pub(super) struct Meter {
    requests: AtomicU64,
    /// In thousandths of a unit.
    read: AtomicU64,
    written: AtomicU64,
    by_indexes: AtomicU64,
}

impl Meter {
    pub(super) fn spent(&self) -> Spent {
        let units = |meter: &AtomicU64| {
            #[expect(clippy::cast_precision_loss, reason = "exact up to 9 million million units")]
            let thousandths = meter.load(Ordering::Relaxed) as f64;
            thousandths / 1000.0
        };
        Spent {
            requests: self.requests.load(Ordering::Relaxed),
            read: units(&self.read),
            written: units(&self.written),
            by_indexes: units(&self.by_indexes),
        }
    }

    /// A request that was refused by a condition.
    pub(super) fn refused(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// A request that read.
    pub(super) fn read<'a>(&self, consumed: impl IntoIterator<Item = &'a ConsumedCapacity>) {
        self.count(&self.read, consumed);
    }

    /// A request that wrote.
    pub(super) fn wrote<'a>(&self, consumed: impl IntoIterator<Item = &'a ConsumedCapacity>) {
        self.count(&self.written, consumed);
    }

    fn count<'a>(&self, meter: &AtomicU64, consumed: impl IntoIterator<Item = &'a ConsumedCapacity>) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        for one in consumed {
            meter.fetch_add(thousandths(one.capacity_units()), Ordering::Relaxed);
            let indexes = [one.global_secondary_indexes(), one.local_secondary_indexes()];
            for index in indexes.into_iter().flatten().flat_map(HashMap::values) {
                self.by_indexes.fetch_add(thousandths(index.capacity_units()), Ordering::Relaxed);
            }
        }
    }
}

/// Units as whole thousandths. Units are halves at the finest.
fn thousandths(units: Option<f64>) -> u64 {
    let thousandths = (units.unwrap_or(0.0) * 1000.0).round();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number of units")]
    let whole = thousandths.max(0.0) as u64;
    whole
}
