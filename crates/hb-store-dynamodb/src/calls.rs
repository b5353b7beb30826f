//! Requests to the table: paged to the end, repeated where nothing was done, counted.

use core::time::Duration;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::ProvideErrorMetadata as _;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    AttributeValue, CancellationReason, ConsumedCapacity, DeleteRequest, KeysAndAttributes, PutRequest,
    ReturnConsumedCapacity, ReturnValue, ReturnValuesOnConditionCheckFailure, Select, TransactWriteItem, WriteRequest,
};
use futures_util::future::try_join_all;
use hb_store::{Result, StoreError};
use tokio::sync::Semaphore;

use crate::failure;
use crate::item::{Item, text};
use crate::keys::Key;
use crate::table::{PK, SK};

/// How often a write is made anew that met another one of the same item, or that DynamoDB did not get to.
const TRIES_MAX: u32 = 8;
/// Most items in one request of each kind: DynamoDB's own limits.
const GET_MAX: usize = 100;
const WRITE_MAX: usize = 25;
/// Requests of one call that are under way at once.
const WIDTH_MAX: usize = 8;
/// Requests of a store that are under way at once. The others wait here, where no time-out runs, rather than in DynamoDB's
/// queue or for a connection.
const UNDER_WAY_MAX: usize = 64;

/// A condition, or a filter: an expression and its values. All names of attributes are one letter long, and so never one of
/// DynamoDB's reserved words.
#[derive(Debug, Clone, Default)]
pub(crate) struct Condition {
    pub(crate) expression: String,
    pub(crate) values: Vec<(&'static str, AttributeValue)>,
}

impl Condition {
    pub(crate) fn new<const N: usize>(expression: &str, values: [(&'static str, AttributeValue); N]) -> Self {
        Self { expression: expression.to_owned(), values: values.into() }
    }

    /// There is no such item yet.
    pub(crate) fn is_new() -> Self {
        Self::new("attribute_not_exists(p)", [])
    }

    /// There is such an item.
    pub(crate) fn exists() -> Self {
        Self::new("attribute_exists(p)", [])
    }

    pub(crate) fn map(&self) -> Option<HashMap<String, AttributeValue>> {
        let values: HashMap<_, _> =
            self.values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        // An empty map is refused.
        (!values.is_empty()).then_some(values)
    }
}

/// Which items of a partition.
#[derive(Debug, Clone)]
pub(crate) enum Range {
    All,
    After(String),
    Before(String),
    Prefix(String),
    /// Those with the prefix after this one.
    PrefixAfter(String, String),
}

/// A query of one partition.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) pk: String,
    pub(crate) range: Range,
    pub(crate) ascending: bool,
    /// Twice the price, for what was written just now.
    pub(crate) consistent: bool,
    pub(crate) filter: Option<Condition>,
    /// Only these attributes: fewer bytes to carry, at the same price.
    pub(crate) only: Option<&'static str>,
}

impl Query {
    /// All of a partition, as it is now, in order.
    pub(crate) fn all(pk: String) -> Self {
        Self { pk, range: Range::All, ascending: true, consistent: true, filter: None, only: None }
    }
}

/// The outcome of a conditional write of one item.
#[derive(Debug)]
pub(crate) enum Written {
    /// Done; the item's attributes as asked for.
    Done(Item),
    /// The condition did not hold for the item as it is; none: there is none.
    Refused(Option<Item>),
}

/// The outcome of a transaction.
#[derive(Debug)]
pub(crate) enum Ran {
    /// Everything was written.
    Done,
    /// Nothing was written. For each write of the transaction, in order: whether its condition held, and the item that it met.
    Refused(Vec<Refusal>),
    /// Nothing was written, for others kept writing the same items.
    Contended,
}

/// Why one write of a transaction was refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) is_refused: bool,
    pub(crate) item: Option<Item>,
}

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
struct Meter {
    requests: AtomicU64,
    /// In thousandths of a unit.
    read: AtomicU64,
    written: AtomicU64,
    by_indexes: AtomicU64,
}

/// One table.
#[derive(Debug)]
pub(crate) struct Table {
    client: Client,
    name: String,
    meter: Meter,
    /// Spreads out who waits for the same item.
    turn: AtomicU64,
    room: Semaphore,
}

impl Table {
    pub(crate) fn new(client: Client, name: String) -> Self {
        Self { client, name, meter: Meter::default(), turn: AtomicU64::new(0), room: Semaphore::new(UNDER_WAY_MAX) }
    }

    pub(crate) fn spent(&self) -> Spent {
        let units = |meter: &AtomicU64| {
            #[expect(clippy::cast_precision_loss, reason = "exact up to 9 million million units")]
            let thousandths = meter.load(Ordering::Relaxed) as f64;
            thousandths / 1000.0
        };
        Spent {
            requests: self.meter.requests.load(Ordering::Relaxed),
            read: units(&self.meter.read),
            written: units(&self.meter.written),
            by_indexes: units(&self.meter.by_indexes),
        }
    }

    fn count_one(&self, meter: &AtomicU64, consumed: Option<&ConsumedCapacity>) {
        self.meter.requests.fetch_add(1, Ordering::Relaxed);
        self.add(meter, consumed);
    }

    fn count_many(&self, meter: &AtomicU64, consumed: &[ConsumedCapacity]) {
        self.meter.requests.fetch_add(1, Ordering::Relaxed);
        for one in consumed {
            self.add(meter, Some(one));
        }
    }

    fn add(&self, meter: &AtomicU64, consumed: Option<&ConsumedCapacity>) {
        let Some(consumed) = consumed else { return };
        meter.fetch_add(thousandths(consumed.capacity_units()), Ordering::Relaxed);
        let indexes = [consumed.global_secondary_indexes(), consumed.local_secondary_indexes()];
        for index in indexes.into_iter().flatten().flat_map(HashMap::values) {
            self.meter.by_indexes.fetch_add(thousandths(index.capacity_units()), Ordering::Relaxed);
        }
    }

    /// Waits for room, then for the answer.
    async fn under_way<T>(&self, request: impl Future<Output = T>) -> T {
        // Nobody closes it: who gets no permit goes on without.
        let _permit = self.room.acquire().await;
        request.await
    }

    /// Waits before the next try: longer each time, and not as long as the others.
    async fn back_off(&self, tries: u32) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let spread = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let ceiling = 5_u64 << tries.min(6);
        tokio::time::sleep(Duration::from_millis(ceiling / 2 + spread % ceiling)).await;
    }

    pub(crate) async fn get(&self, key: &Key, consistent: bool) -> Result<Option<Item>> {
        let request = self.client.get_item().table_name(&self.name).set_key(Some(key.attributes()));
        let request = request.consistent_read(consistent).return_consumed_capacity(ReturnConsumedCapacity::Indexes);
        let answer = self.under_way(request.send()).await.map_err(|error| failure::of(&error))?;
        self.count_one(&self.meter.read, answer.consumed_capacity());
        Ok(answer.item)
    }

    /// Those of these items that exist.
    pub(crate) async fn get_many(&self, mut keys: Vec<Key>, consistent: bool) -> Result<HashMap<Key, Item>> {
        keys.sort_unstable();
        keys.dedup();
        let mut found = HashMap::with_capacity(keys.len());
        let chunks: Vec<&[Key]> = keys.chunks(GET_MAX).collect();
        for some in chunks.chunks(WIDTH_MAX) {
            for items in try_join_all(some.iter().map(|chunk| self.get_chunk(chunk, consistent))).await? {
                found.extend(items.into_iter().filter_map(|item| Some((Key::of(&item)?, item))));
            }
        }
        Ok(found)
    }

    async fn get_chunk(&self, keys: &[Key], consistent: bool) -> Result<Vec<Item>> {
        let keys = keys.iter().map(Key::attributes).collect();
        let wanted = KeysAndAttributes::builder().consistent_read(consistent).set_keys(Some(keys)).build();
        let mut wanted = wanted.map_err(|_| StoreError::Corrupt("no keys".into()))?;
        let mut found = Vec::new();
        for tries in 0..TRIES_MAX {
            let request = self.client.batch_get_item().request_items(&self.name, wanted);
            let request = request.return_consumed_capacity(ReturnConsumedCapacity::Indexes);
            let answer = self.under_way(request.send()).await.map_err(|error| failure::of(&error))?;
            self.count_many(&self.meter.read, answer.consumed_capacity());
            found.extend(answer.responses.into_iter().flat_map(HashMap::into_values).flatten());
            match answer.unprocessed_keys.and_then(|mut rest| rest.remove(&self.name)) {
                Some(rest) if !rest.keys().is_empty() => wanted = rest,
                _ => return Ok(found),
            }
            self.back_off(tries).await;
        }
        Err(StoreError::Overloaded)
    }

    /// One page: up to `limit` items or a megabyte, and where the next page begins.
    pub(crate) async fn page(
        &self,
        query: &Query,
        start: Option<Item>,
        limit: Option<usize>,
    ) -> Result<(Vec<Item>, Option<Item>)> {
        let limit = limit.map(|limit| i32::try_from(limit.clamp(1, 10_000)).unwrap_or(1));
        let request = self.query_request(query).set_exclusive_start_key(start).set_limit(limit);
        let answer = self.under_way(request.send()).await.map_err(|error| failure::of(&error))?;
        self.count_one(&self.meter.read, answer.consumed_capacity());
        let next = answer.last_evaluated_key.filter(|key| !key.is_empty());
        Ok((answer.items.unwrap_or_default(), next))
    }

    /// Every item. Only for partitions that are bounded, or that have to be read whole.
    pub(crate) async fn query(&self, query: &Query) -> Result<Vec<Item>> {
        let mut found = Vec::new();
        let mut start = None;
        loop {
            let (items, next) = self.page(query, start, None).await?;
            found.extend(items);
            // A page may be empty and yet not be the last.
            if next.is_none() {
                return Ok(found);
            }
            start = next;
        }
    }

    /// The first items, at most `limit`.
    pub(crate) async fn first(&self, query: &Query, limit: usize) -> Result<Vec<Item>> {
        let mut found = Vec::new();
        let mut start = None;
        while found.len() < limit {
            // What a filter leaves out counts for the limit of a page: then pages as they come.
            let page = if query.filter.is_some() { None } else { Some(limit - found.len()) };
            let (items, next) = self.page(query, start, page).await?;
            found.extend(items);
            if next.is_none() {
                break;
            }
            start = next;
        }
        found.truncate(limit);
        Ok(found)
    }

    /// How many there are.
    pub(crate) async fn count(&self, query: &Query) -> Result<u64> {
        let mut found = 0;
        let mut start = None;
        loop {
            let request = self.query_request(query).select(Select::Count).set_exclusive_start_key(start);
            let answer = self.under_way(request.send()).await.map_err(|error| failure::of(&error))?;
            self.count_one(&self.meter.read, answer.consumed_capacity());
            found += u64::try_from(answer.count()).unwrap_or(0);
            start = answer.last_evaluated_key.filter(|key| !key.is_empty());
            if start.is_none() {
                return Ok(found);
            }
        }
    }

    fn query_request(&self, query: &Query) -> QueryFluentBuilder {
        let (range, bounds) = match &query.range {
            Range::All => ("", vec![]),
            Range::After(after) => (" AND s > :a", vec![(":a", text(after))]),
            Range::Before(before) => (" AND s < :a", vec![(":a", text(before))]),
            Range::Prefix(prefix) => (" AND begins_with(s, :a)", vec![(":a", text(prefix))]),
            // Between both ends: nothing that begins with the prefix sorts after it and this character.
            Range::PrefixAfter(prefix, after) => (
                " AND s BETWEEN :a AND :z",
                vec![(":a", text(format!("{after}\u{1}"))), (":z", text(format!("{prefix}\u{10ffff}")))],
            ),
        };
        let mut values = HashMap::from([(":p".to_owned(), text(&query.pk))]);
        let filter = query.filter.as_ref();
        let given = bounds.into_iter().chain(filter.into_iter().flat_map(|filter| filter.values.clone()));
        values.extend(given.map(|(name, value)| (name.to_owned(), value)));
        self.client
            .query()
            .table_name(&self.name)
            .key_condition_expression(format!("{PK} = :p{range}"))
            .set_filter_expression(filter.map(|filter| filter.expression.clone()))
            .set_projection_expression(query.only.map(str::to_owned))
            .set_expression_attribute_values(Some(values))
            .scan_index_forward(query.ascending)
            .consistent_read(query.consistent)
            .return_consumed_capacity(ReturnConsumedCapacity::Indexes)
    }

    pub(crate) async fn put(&self, item: Item, condition: &Condition) -> Result<Written> {
        for tries in 0..TRIES_MAX {
            let request = self
                .client
                .put_item()
                .table_name(&self.name)
                .set_item(Some(item.clone()))
                .condition_expression(&condition.expression)
                .set_expression_attribute_values(condition.map())
                .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
                .return_consumed_capacity(ReturnConsumedCapacity::Indexes);
            match self.under_way(request.send()).await {
                Ok(answer) => {
                    self.count_one(&self.meter.written, answer.consumed_capacity());
                    return Ok(Written::Done(Item::new()));
                }
                Err(error) if failure::contends(&error) => self.back_off(tries).await,
                Err(error) => match error.as_service_error() {
                    Some(PutItemError::ConditionalCheckFailedException(met)) => {
                        return Ok(self.refused(met.item().cloned()));
                    }
                    _ => return Err(failure::of(&error)),
                },
            }
        }
        Err(StoreError::Overloaded)
    }

    /// Updates one item under a condition; answers the attributes that were updated, as they are now.
    pub(crate) async fn update(&self, key: &Key, update: &str, condition: &Condition) -> Result<Written> {
        for tries in 0..TRIES_MAX {
            let expression = Some(condition.expression.clone()).filter(|expression| !expression.is_empty());
            let request = self
                .client
                .update_item()
                .table_name(&self.name)
                .set_key(Some(key.attributes()))
                .update_expression(update)
                .set_condition_expression(expression)
                .set_expression_attribute_values(condition.map())
                .return_values(ReturnValue::UpdatedNew)
                .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
                .return_consumed_capacity(ReturnConsumedCapacity::Indexes);
            match self.under_way(request.send()).await {
                Ok(answer) => {
                    self.count_one(&self.meter.written, answer.consumed_capacity());
                    return Ok(Written::Done(answer.attributes.unwrap_or_default()));
                }
                Err(error) if failure::contends(&error) => self.back_off(tries).await,
                Err(error) => match error.as_service_error() {
                    Some(UpdateItemError::ConditionalCheckFailedException(met)) => {
                        return Ok(self.refused(met.item().cloned()));
                    }
                    _ => return Err(failure::of(&error)),
                },
            }
        }
        Err(StoreError::Overloaded)
    }

    fn refused(&self, item: Option<Item>) -> Written {
        self.meter.requests.fetch_add(1, Ordering::Relaxed);
        Written::Refused(item.filter(|item| !item.is_empty()))
    }

    /// Writes all of these, or none.
    pub(crate) async fn transact(&self, writes: &[TransactWriteItem]) -> Result<Ran> {
        for tries in 0..TRIES_MAX {
            let request = self.client.transact_write_items().set_transact_items(Some(writes.to_vec()));
            let request = request.return_consumed_capacity(ReturnConsumedCapacity::Indexes);
            let error = match self.under_way(request.send()).await {
                Ok(answer) => {
                    self.count_many(&self.meter.written, answer.consumed_capacity());
                    return Ok(Ran::Done);
                }
                Err(error) => error,
            };
            match error.as_service_error() {
                Some(TransactWriteItemsError::TransactionCanceledException(canceled)) => {
                    let reasons = canceled.cancellation_reasons();
                    let has =
                        |which: &dyn Fn(&str) -> bool| reasons.iter().any(|reason| reason.code().is_some_and(which));
                    if has(&|code| code == REFUSED) {
                        self.meter.requests.fetch_add(1, Ordering::Relaxed);
                        return Ok(Ran::Refused(reasons.iter().map(refusal).collect()));
                    }
                    if has(&failure::is_busy) {
                        return Err(StoreError::Overloaded);
                    }
                    if !has(&failure::is_contended) {
                        let code = reasons.iter().filter_map(CancellationReason::code).find(|code| *code != "None");
                        return Err(failure::of_code(code.unwrap_or("TransactionCanceledException")));
                    }
                }
                Some(other) if other.code().is_some_and(failure::is_contended) => {}
                _ => return Err(failure::of(&error)),
            }
            self.back_off(tries).await;
        }
        Ok(Ran::Contended)
    }

    /// Puts items where nobody looks yet: unconditionally, each on its own.
    pub(crate) async fn put_many(&self, items: Vec<Item>) -> Result<()> {
        let puts = items.into_iter().map(|item| {
            let put = PutRequest::builder().set_item(Some(item)).build();
            put.map(|put| WriteRequest::builder().put_request(put).build())
        });
        self.write_many(puts.collect::<core::result::Result<_, _>>().map_err(|_| no_item())?).await
    }

    /// Deletes what nobody needs any more: unconditionally, each on its own.
    pub(crate) async fn delete_many(&self, keys: impl IntoIterator<Item = Key>) -> Result<()> {
        let deletes = keys.into_iter().map(|key| {
            let delete = DeleteRequest::builder().set_key(Some(key.attributes())).build();
            delete.map(|delete| WriteRequest::builder().delete_request(delete).build())
        });
        self.write_many(deletes.collect::<core::result::Result<_, _>>().map_err(|_| no_item())?).await
    }

    async fn write_many(&self, writes: Vec<WriteRequest>) -> Result<()> {
        let chunks: Vec<&[WriteRequest]> = writes.chunks(WRITE_MAX).collect();
        for some in chunks.chunks(WIDTH_MAX) {
            try_join_all(some.iter().map(|chunk| self.write_chunk(chunk.to_vec()))).await?;
        }
        Ok(())
    }

    async fn write_chunk(&self, mut writes: Vec<WriteRequest>) -> Result<()> {
        for tries in 0..TRIES_MAX {
            let request = self.client.batch_write_item().request_items(&self.name, writes);
            let request = request.return_consumed_capacity(ReturnConsumedCapacity::Indexes);
            let answer = self.under_way(request.send()).await.map_err(|error| failure::of(&error))?;
            self.count_many(&self.meter.written, answer.consumed_capacity());
            match answer.unprocessed_items.and_then(|mut rest| rest.remove(&self.name)) {
                Some(rest) if !rest.is_empty() => writes = rest,
                _ => return Ok(()),
            }
            self.back_off(tries).await;
        }
        Err(StoreError::Overloaded)
    }

    /// This table's name, for the writes of a transaction.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

const REFUSED: &str = "ConditionalCheckFailed";

fn refusal(reason: &CancellationReason) -> Refusal {
    let item = reason.item().filter(|item| !item.is_empty()).cloned();
    Refusal { is_refused: reason.code() == Some(REFUSED), item }
}

fn no_item() -> StoreError {
    StoreError::Corrupt("an item without attributes".into())
}

/// Units as whole thousandths. Units are halves at the finest.
fn thousandths(units: Option<f64>) -> u64 {
    let thousandths = (units.unwrap_or(0.0) * 1000.0).round();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number of units")]
    let whole = thousandths.max(0.0) as u64;
    whole
}

/// The sort key of an item, or nothing.
pub(crate) fn sk(item: &Item) -> &str {
    item.get(SK).and_then(|value| value.as_s().ok()).map_or("", String::as_str)
}
