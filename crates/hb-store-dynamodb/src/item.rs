//! Attributes of items: written and read.

use core::str::FromStr;
use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use hb_core::time::Time;
use hb_store::{Result, StoreError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::keys::Key;

/// An item, by the names of its attributes.
pub(crate) type Item = HashMap<String, AttributeValue>;

/// A document in an item: JSON.
pub(crate) const DOC: &str = "j";

pub(crate) fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

#[expect(clippy::needless_pass_by_value, reason = "numbers are copied")]
pub(crate) fn number(value: impl ToString) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

pub(crate) fn time(value: Time) -> AttributeValue {
    number(value.0)
}

pub(crate) fn bytes(value: impl Into<Vec<u8>>) -> AttributeValue {
    AttributeValue::B(Blob::new(value))
}

/// An item with this key and these attributes.
pub(crate) fn item<const N: usize>(key: &Key, attributes: [(&str, AttributeValue); N]) -> Item {
    let mut item = key.attributes();
    item.extend(attributes.map(|(name, value)| (name.to_owned(), value)));
    item
}

/// Sets an attribute if there is something to set.
pub(crate) fn set(item: &mut Item, name: &str, value: Option<AttributeValue>) {
    if let Some(value) = value {
        item.insert(name.to_owned(), value);
    }
}

pub(crate) fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| StoreError::Corrupt(format!("it cannot be written as JSON: {error}")))
}

pub(crate) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text)
        .map_err(|error| StoreError::Corrupt(format!("a stored document cannot be read: {error}")))
}

/// The document of an item.
pub(crate) fn doc<T: DeserializeOwned>(item: &Item) -> Result<T> {
    from_json(need_text(item, DOC)?)
}

pub(crate) fn corrupt(item: &Item, what: &str) -> StoreError {
    let place = Key::of(item).map_or_else(String::new, |key| format!(" of {} {}", key.pk, key.sk));
    StoreError::Corrupt(format!("attribute {what}{place} is missing or of another kind"))
}

pub(crate) fn need_text<'a>(item: &'a Item, name: &str) -> Result<&'a str> {
    item.get(name).and_then(|value| value.as_s().ok()).map(String::as_str).ok_or_else(|| corrupt(item, name))
}

pub(crate) fn some_number<T: FromStr>(item: &Item, name: &str) -> Result<Option<T>> {
    let Some(value) = item.get(name) else { return Ok(None) };
    let parsed = value.as_n().ok().and_then(|text| text.parse().ok());
    parsed.map(Some).ok_or_else(|| corrupt(item, name))
}

pub(crate) fn need_number<T: FromStr>(item: &Item, name: &str) -> Result<T> {
    some_number(item, name)?.ok_or_else(|| corrupt(item, name))
}

pub(crate) fn some_time(item: &Item, name: &str) -> Result<Option<Time>> {
    Ok(some_number(item, name)?.map(Time))
}

pub(crate) fn need_bytes<'a>(item: &'a Item, name: &str) -> Result<&'a [u8]> {
    item.get(name).and_then(|value| value.as_b().ok()).map(AsRef::as_ref).ok_or_else(|| corrupt(item, name))
}

/// About as many bytes as DynamoDB counts for it.
pub(crate) fn size(item: &Item) -> usize {
    item.iter().map(|(name, value)| name.len() + value_size(value)).sum()
}

fn value_size(value: &AttributeValue) -> usize {
    match value {
        AttributeValue::S(text) => text.len(),
        AttributeValue::N(text) => text.len() / 2 + 2,
        AttributeValue::B(blob) => blob.as_ref().len(),
        // No other kind is longer in this table.
        AttributeValue::Bool(_)
        | AttributeValue::Null(_)
        | AttributeValue::Bs(_)
        | AttributeValue::L(_)
        | AttributeValue::M(_)
        | AttributeValue::Ns(_)
        | AttributeValue::Ss(_)
        | _ => 1,
    }
}
