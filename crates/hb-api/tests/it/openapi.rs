//! The description: committed, complete, and true to what handlers answer.

use std::path::PathBuf;

use serde_json::Value;

/// The description as it is served.
pub fn document() -> Value {
    serde_json::to_value(hb_api::http::openapi()).unwrap()
}

fn committed() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/api/openapi.json")
}

/// Every operation: method and path as in the description.
pub fn operations() -> Vec<(String, String, Value)> {
    let document = document();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            operations.push((method.to_uppercase(), path.clone(), operation.clone()));
        }
    }
    operations
}

#[test]
fn the_committed_description_is_the_one_that_is_served() {
    let served = serde_json::to_string_pretty(&document()).unwrap() + "\n";
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(committed().parent().unwrap()).unwrap();
        std::fs::write(committed(), &served).unwrap();
    }
    let found = std::fs::read_to_string(committed()).unwrap_or_default();
    assert!(found == served, "docs/api/openapi.json is out of date: UPDATE=1 cargo nextest run -p hb-api committed");
}
