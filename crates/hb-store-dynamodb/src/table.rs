//! The table itself: its definition as data, which the template of the deployment must agree with.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, StreamSpecification,
    StreamViewType, TimeToLiveSpecification,
};
use hb_store::{Result, StoreError};

use crate::failure;

/// The partition key, a text. Names are one letter long: they are stored, and paid for, with each item.
pub const PK: &str = "p";
/// The sort key, a text.
pub const SK: &str = "s";
/// When an item may be removed by DynamoDB, in seconds since the epoch.
pub const TTL: &str = "t";

/// How a table is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Definition {
    /// Key attributes with their types (`S`): nothing else is defined, since nothing else is a key.
    pub attributes: Vec<(&'static str, &'static str)>,
    /// Key attributes with their parts (`HASH`, `RANGE`).
    pub keys: Vec<(&'static str, &'static str)>,
    /// `PAY_PER_REQUEST`.
    pub billing: &'static str,
    /// What records of the stream carry: what was removed by its time to live has to be put back whole.
    pub stream: &'static str,
    /// Secondary indexes: none. A beat must not pay for one.
    pub indexes: usize,
}

/// The definition of every table of this crate.
#[must_use]
pub fn definition() -> Definition {
    Definition {
        attributes: vec![(PK, "S"), (SK, "S")],
        keys: vec![(PK, "HASH"), (SK, "RANGE")],
        billing: "PAY_PER_REQUEST",
        stream: "NEW_AND_OLD_IMAGES",
        indexes: 0,
    }
}

/// The attribute by which DynamoDB removes items.
#[must_use]
pub fn time_to_live() -> &'static str {
    TTL
}

/// Makes the table, and switches its time to live on: for tests, and for who has no template. Nothing is waited for.
///
/// # Errors
/// When there is such a table already, or DynamoDB refuses.
pub async fn create(client: &Client, table: &str) -> Result<()> {
    let wrong = |what: aws_sdk_dynamodb::error::BuildError| StoreError::Unavailable(format!("a table: {what}"));
    let definition = definition();
    let mut request = client.create_table().table_name(table).billing_mode(BillingMode::from(definition.billing));
    for (name, kind) in definition.attributes {
        let kind = ScalarAttributeType::from(kind);
        let attribute = AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build();
        request = request.attribute_definitions(attribute.map_err(wrong)?);
    }
    for (name, part) in definition.keys {
        let key = KeySchemaElement::builder().attribute_name(name).key_type(KeyType::from(part)).build();
        request = request.key_schema(key.map_err(wrong)?);
    }
    let stream = StreamSpecification::builder()
        .stream_enabled(true)
        .stream_view_type(StreamViewType::from(definition.stream))
        .build()
        .map_err(wrong)?;
    request.stream_specification(stream).send().await.map_err(|error| failure::of(&error))?;
    let expiry = TimeToLiveSpecification::builder().enabled(true).attribute_name(time_to_live()).build();
    client
        .update_time_to_live()
        .table_name(table)
        .time_to_live_specification(expiry.map_err(wrong)?)
        .send()
        .await
        .map_err(|error| failure::of(&error))?;
    Ok(())
}
