//! A judge of answers: as much of JSON Schema as hb's description uses, and strict about fields that it does not name.

use serde_json::Value;

/// Why a value does not fit the schema; empty when it does.
pub fn complaints(document: &Value, schema: &Value, value: &Value, place: &str) -> Vec<String> {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let target =
            document.pointer(reference.trim_start_matches('#')).unwrap_or_else(|| panic!("{reference} leads nowhere"));
        return complaints(document, target, value, place);
    }
    for word in ["oneOf", "anyOf"] {
        if let Some(choices) = schema.get(word).and_then(Value::as_array) {
            let tried: Vec<Vec<String>> =
                choices.iter().map(|choice| complaints(document, choice, value, place)).collect();
            return if tried.iter().any(Vec::is_empty) { Vec::new() } else { tried.concat() };
        }
    }
    if let Some(parts) = schema.get("allOf").and_then(Value::as_array) {
        return parts.iter().flat_map(|part| complaints(document, part, value, place)).collect();
    }
    let mut found = Vec::new();
    if !is_of_type(schema.get("type"), value) {
        found.push(format!("{place}: {value} is not {}", schema["type"]));
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        found.push(format!("{place}: {value} is none of {allowed:?}"));
    }
    match value {
        Value::Object(fields) => found.extend(of_fields(document, schema, fields, place)),
        Value::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                found.extend(complaints(document, &schema["items"], item, &format!("{place}[{number}]")));
            }
        }
        Value::String(text) if schema["format"] == "date-time" && text.parse::<jiff::Timestamp>().is_err() => {
            found.push(format!("{place}: {text} is not a time"));
        }
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    found
}

fn of_fields(document: &Value, schema: &Value, fields: &serde_json::Map<String, Value>, place: &str) -> Vec<String> {
    let mut found = Vec::new();
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            found.push(format!("{place}: {name} is missing"));
        }
    }
    for (name, value) in fields {
        let place = format!("{place}.{name}");
        match (schema["properties"].get(name), schema.get("additionalProperties")) {
            (Some(schema), _) => found.extend(complaints(document, schema, value, &place)),
            (None, Some(rest)) if rest.is_object() => found.extend(complaints(document, rest, value, &place)),
            // A schema without properties says nothing about them: free JSON.
            (None, None) if schema.get("properties").is_none() => {}
            (None, _) => found.push(format!("{place} is not described")),
        }
    }
    found
}

fn is_of_type(wanted: Option<&Value>, value: &Value) -> bool {
    let is = |word: &str| match word {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        _ => false,
    };
    match wanted {
        None => true,
        Some(Value::String(word)) => is(word),
        Some(Value::Array(words)) => words.iter().filter_map(Value::as_str).any(is),
        Some(_) => false,
    }
}
