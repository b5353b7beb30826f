//! Queries of one partition.

use std::collections::HashMap;

use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::types::{ReturnConsumedCapacity, Select};
use hb_store::Result;

use super::{Condition, Table};
use crate::failure;
use crate::item::{Item, text};
use crate::table::{PK, SK};

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

impl Table {
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
        self.meter.read(answer.consumed_capacity());
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
            self.meter.read(answer.consumed_capacity());
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
}

/// The sort key of an item, or nothing.
pub(crate) fn sk(item: &Item) -> &str {
    item.get(SK).and_then(|value| value.as_s().ok()).map_or("", String::as_str)
}
