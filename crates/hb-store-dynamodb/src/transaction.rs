//! Writes that belong together.

use aws_sdk_dynamodb::types::{
    ConditionCheck, Delete, Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update,
};
use hb_store::{Result, StoreError};

use crate::calls::{Condition, Ran, Refusal, Table};
use crate::item::{self, Item};
use crate::keys::Key;

/// Most writes in one transaction: DynamoDB's limit.
pub(crate) const WRITES_MAX: usize = 100;
/// Most bytes in one transaction: DynamoDB's limit is 4 MB, of which what the conditions read is a part.
pub(crate) const BYTES_MAX: usize = 2_500_000;

/// What a write of a transaction is there for: says what it means when its condition does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// What was decided from is no longer true.
    Basis,
    /// A public key that may belong to somebody else.
    PublicKey,
    /// The token that an enrolment is based on.
    Token,
    /// A name that may be taken.
    Name,
    /// This event may be stored already.
    Event(usize),
    /// This delivery may be stored already.
    Delivery(usize),
    /// It has no condition.
    Free,
}

/// Writes that are done together or not at all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Transaction {
    writes: Vec<TransactWriteItem>,
    roles: Vec<Role>,
    bytes: usize,
}

/// What became of a transaction.
#[derive(Debug)]
pub(crate) enum Outcome {
    Done,
    /// The roles of the writes whose conditions did not hold, with what they met.
    Refused(Vec<(Role, Option<Item>)>),
    Contended,
}

impl Transaction {
    pub(crate) fn len(&self) -> usize {
        self.writes.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// True when another one fits behind this one.
    pub(crate) fn has_room_for(&self, other: &Self) -> bool {
        self.len() + other.len() <= WRITES_MAX && self.bytes + other.bytes <= BYTES_MAX
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        self.writes.append(&mut other.writes);
        self.roles.append(&mut other.roles);
        self.bytes += other.bytes;
    }

    fn push(&mut self, role: Role, bytes: usize, write: TransactWriteItem) {
        self.writes.push(write);
        self.roles.push(role);
        self.bytes += bytes;
    }

    pub(crate) fn put(&mut self, table: &Table, role: Role, item: Item, condition: Option<Condition>) -> Result<()> {
        let bytes = item::size(&item);
        let (expression, values) = split(condition);
        let put = Put::builder()
            .table_name(table.name())
            .set_item(Some(item))
            .set_condition_expression(expression)
            .set_expression_attribute_values(values)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
            .map_err(incomplete)?;
        self.push(role, bytes, TransactWriteItem::builder().put(put).build());
        Ok(())
    }

    pub(crate) fn delete(&mut self, table: &Table, role: Role, key: &Key, condition: Option<Condition>) -> Result<()> {
        let (expression, values) = split(condition);
        let delete = Delete::builder()
            .table_name(table.name())
            .set_key(Some(key.attributes()))
            .set_condition_expression(expression)
            .set_expression_attribute_values(values)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
            .map_err(incomplete)?;
        self.push(role, 200, TransactWriteItem::builder().delete(delete).build());
        Ok(())
    }

    pub(crate) fn update(
        &mut self,
        table: &Table,
        role: Role,
        key: &Key,
        update: &str,
        condition: Condition,
    ) -> Result<()> {
        let (expression, values) = split(Some(condition));
        let update = Update::builder()
            .table_name(table.name())
            .set_key(Some(key.attributes()))
            .update_expression(update)
            .set_condition_expression(expression)
            .set_expression_attribute_values(values)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
            .map_err(incomplete)?;
        self.push(role, 1000, TransactWriteItem::builder().update(update).build());
        Ok(())
    }

    pub(crate) fn check(&mut self, table: &Table, role: Role, key: &Key, condition: Condition) -> Result<()> {
        let (expression, values) = split(Some(condition));
        let check = ConditionCheck::builder()
            .table_name(table.name())
            .set_key(Some(key.attributes()))
            .condition_expression(expression.unwrap_or_default())
            .set_expression_attribute_values(values)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
            .map_err(incomplete)?;
        self.push(role, 1000, TransactWriteItem::builder().condition_check(check).build());
        Ok(())
    }

    /// Runs it.
    pub(crate) async fn run(&self, table: &Table) -> Result<Outcome> {
        if self.is_empty() {
            return Ok(Outcome::Done);
        }
        Ok(match table.transact(&self.writes).await? {
            Ran::Done => Outcome::Done,
            Ran::Contended => Outcome::Contended,
            Ran::Refused(refusals) => Outcome::Refused(self.name(refusals)),
        })
    }

    fn name(&self, refusals: Vec<Refusal>) -> Vec<(Role, Option<Item>)> {
        let named = self.roles.iter().zip(refusals);
        named.filter(|(_, refusal)| refusal.is_refused).map(|(role, refusal)| (*role, refusal.item)).collect()
    }
}

type Parts = (Option<String>, Option<std::collections::HashMap<String, aws_sdk_dynamodb::types::AttributeValue>>);

fn split(condition: Option<Condition>) -> Parts {
    condition.map_or((None, None), |condition| {
        let values = condition.map();
        (Some(condition.expression).filter(|expression| !expression.is_empty()), values)
    })
}

#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
fn incomplete(error: aws_sdk_dynamodb::error::BuildError) -> StoreError {
    StoreError::Corrupt(format!("a write cannot be made: {error}"))
}
