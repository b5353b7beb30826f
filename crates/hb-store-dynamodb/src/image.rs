//! Items as records of a stream spell them, for whoever reads the table's stream without DynamoDB's own client.

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use base64ct::{Base64, Encoding as _};
use hb_store::{Result, StoreError};
use serde_json::Value;

/// An item: its attributes by their names.
pub type Image = HashMap<String, AttributeValue>;

/// Reads an image of a record (`OldImage` or `NewImage`) as a function is given it: `{"p": {"S": "…"}, …}`.
///
/// # Errors
/// [`StoreError::Corrupt`] for what is no image of an item of this crate.
pub fn from_json(image: &Value) -> Result<Image> {
    let attributes = image.as_object().ok_or_else(|| StoreError::Corrupt("an image is no object".into()))?;
    let read = |(name, value): (&String, &Value)| {
        let value = attribute(value);
        value.map(|value| (name.clone(), value)).ok_or_else(|| {
            StoreError::Corrupt(format!("attribute {} of an image cannot be read", name.escape_default()))
        })
    };
    attributes.iter().map(read).collect()
}

fn attribute(value: &Value) -> Option<AttributeValue> {
    let mut kinds = value.as_object()?.iter();
    let (Some((kind, value)), None) = (kinds.next(), kinds.next()) else { return None };
    // No item of this crate has any other kind.
    Some(match kind.as_str() {
        "S" => AttributeValue::S(value.as_str()?.to_owned()),
        "N" => AttributeValue::N(value.as_str()?.to_owned()),
        "B" => AttributeValue::B(Blob::new(Base64::decode_vec(value.as_str()?).ok()?)),
        "BOOL" => AttributeValue::Bool(value.as_bool()?),
        "NULL" => AttributeValue::Null(value.as_bool()?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_kind_that_is_stored_is_read() {
        let image = from_json(&json!({
            "p": {"S": "L#00"}, "d": {"N": "1800000180000"}, "n": {"B": "AQID"}, "z": {"BOOL": false}, "y": {"NULL": true},
        }));
        let wanted = HashMap::from([
            ("p".to_owned(), AttributeValue::S("L#00".into())),
            ("d".to_owned(), AttributeValue::N("1800000180000".into())),
            ("n".to_owned(), AttributeValue::B(Blob::new([1, 2, 3]))),
            ("z".to_owned(), AttributeValue::Bool(false)),
            ("y".to_owned(), AttributeValue::Null(true)),
        ]);
        assert_eq!(image.unwrap(), wanted);
    }

    #[test]
    fn what_is_no_image_is_refused() {
        for bad in [
            json!(null),
            json!([]),
            json!({"p": "L#00"}),
            json!({"p": {}}),
            json!({"p": {"S": 1}}),
            json!({"p": {"S": "a", "N": "1"}}),
            json!({"n": {"B": "%%"}}),
            json!({"n": {"M": {}}}),
        ] {
            assert!(matches!(from_json(&bad), Err(StoreError::Corrupt(_))), "{bad}");
        }
    }
}
