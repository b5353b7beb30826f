//! Requests to the table: paged to the end, repeated where nothing was done, counted.

mod many;
mod meter;
mod query;

use core::time::Duration;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::ProvideErrorMetadata as _;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    AttributeValue, CancellationReason, ReturnConsumedCapacity, ReturnValue, ReturnValuesOnConditionCheckFailure,
    TransactWriteItem,
};
use hb_store::{Result, StoreError};
use tokio::sync::Semaphore;

use crate::failure;
use crate::item::Item;
use crate::keys::Key;

use meter::Meter;
pub use meter::Spent;
pub(crate) use query::{Query, Range, sk};

/// How often a write is made anew that met another one of the same item, or that DynamoDB did not get to.
const TRIES_MAX: u32 = 8;
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
        self.meter.spent()
    }

    /// Waits for room, then for the answer.
    async fn under_way<T>(&self, request: impl Future<Output = T>) -> T {
        // Nobody closes it: who gets no permit goes on without.
        let _permit = self.room.acquire().await;
        request.await
    }

    /// Waits before the next try: longer each time, and not as long as the others.
    pub(crate) async fn back_off(&self, tries: u32) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let spread = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let ceiling = 5_u64 << tries.min(6);
        tokio::time::sleep(Duration::from_millis(ceiling / 2 + spread % ceiling)).await;
    }

    pub(crate) async fn get(&self, key: &Key, consistent: bool) -> Result<Option<Item>> {
        let request = self.client.get_item().table_name(&self.name).set_key(Some(key.attributes()));
        let request = request.consistent_read(consistent).return_consumed_capacity(ReturnConsumedCapacity::Indexes);
        let answer = self.under_way(request.send()).await.map_err(|error| failure::of(&error))?;
        self.meter.read(answer.consumed_capacity());
        Ok(answer.item)
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
                    self.meter.wrote(answer.consumed_capacity());
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
                    self.meter.wrote(answer.consumed_capacity());
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
        self.meter.refused();
        Written::Refused(item.filter(|item| !item.is_empty()))
    }

    /// Writes all of these, or none.
    pub(crate) async fn transact(&self, writes: &[TransactWriteItem]) -> Result<Ran> {
        for tries in 0..TRIES_MAX {
            let request = self.client.transact_write_items().set_transact_items(Some(writes.to_vec()));
            let request = request.return_consumed_capacity(ReturnConsumedCapacity::Indexes);
            let error = match self.under_way(request.send()).await {
                Ok(answer) => {
                    self.meter.wrote(answer.consumed_capacity());
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
                        self.meter.refused();
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
