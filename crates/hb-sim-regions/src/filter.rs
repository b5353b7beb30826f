//! Which records of its stream wake a region's notifier: what the template of the deployment says, read from the template itself.

use serde_json::Value;

const TEMPLATE: &str = include_str!("../../../packaging/lambda/template.yaml");

/// The filters of the notifier's event source, for a region.
#[derive(Debug, Clone)]
pub struct Filters(Vec<Value>);

impl Filters {
    /// Those of the template, in which a region stands as `${AWS::Region}`.
    ///
    /// # Errors
    /// When the template holds none that can be read.
    pub fn of(region: &str) -> Result<Self, String> {
        let mut patterns = Vec::new();
        for line in TEMPLATE.lines() {
            let Some((_, pattern)) = line.split_once("- Pattern: ") else { continue };
            let pattern = pattern.trim().trim_start_matches("!Sub").trim().trim_matches('\'');
            let pattern = pattern.replace("${AWS::Region}", region);
            patterns.push(serde_json::from_str(&pattern).map_err(|error| format!("{pattern}: {error}"))?);
        }
        if patterns.is_empty() { Err("the template has no filters".to_owned()) } else { Ok(Self(patterns)) }
    }

    /// Whether a record passes.
    #[must_use]
    pub fn pass(&self, record: &Value) -> bool {
        self.0.iter().any(|pattern| matches(pattern, Some(record)))
    }
}

/// Patterns of `EventBridge`, as far as the template uses them: literals, `{"prefix": …}` and `{"exists": …}`.
fn matches(pattern: &Value, value: Option<&Value>) -> bool {
    match pattern {
        Value::Object(parts) => {
            parts.iter().all(|(name, part)| matches(part, value.and_then(|value| value.get(name.as_str()))))
        }
        Value::Array(choices) => choices.iter().any(|choice| is_one(choice, value)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn is_one(choice: &Value, value: Option<&Value>) -> bool {
    if let Some(prefix) = choice.get("prefix").and_then(Value::as_str) {
        return value.and_then(Value::as_str).is_some_and(|text| text.starts_with(prefix));
    }
    if let Some(exists) = choice.get("exists").and_then(Value::as_bool) {
        return value.is_some() == exists;
    }
    value == Some(choice)
}
