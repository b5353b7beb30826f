//! Templates of webhook bodies and headers: `{{field}}`, and nothing more.
//!
//! A body is a JSON value whose texts are filled in, not a text that happens to be JSON: so a host's name can never
//! break out of its quotes. There are no loops and no conditions, so there is nothing that could run away.

use hb_wire::id::DeliveryId;
use hb_wire::view::Notice;
use serde_json::{Map, Value};

use crate::message;

/// Longest template, in bytes of JSON.
pub(crate) const TEMPLATE_BYTES_MAX: usize = 16 * 1024;
/// Longest body that a template may grow to, in bytes.
pub(crate) const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Deepest nesting of a template.
const DEPTH_MAX: usize = 32;
/// What may stand between the braces, besides `host.tags.NAME` and `details.NAME`.
const FIELDS: [&str; 16] = [
    "at",
    "attempt",
    "cause",
    "deadline",
    "details",
    "event",
    "host",
    "host.id",
    "host.name",
    "host.tags",
    "hosts",
    "id",
    "incident",
    "key",
    "message",
    "since",
];
/// Fields that are not of the notice, but derived from it.
const DERIVED: [&str; 3] = ["notice", "subject", "text"];

/// A template that cannot be used: why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TemplateError(pub(crate) String);

/// The filled template is longer than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Part of a text.
enum Piece<'a> {
    Literal(&'a str),
    Field(&'a str),
}

/// Cuts a text at its placeholders.
fn pieces(text: &str) -> Result<Vec<Piece<'_>>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((field, after)) = after.split_once("}}") else {
            return Err(TemplateError("a \"{{\" is not closed by \"}}\"".to_owned()));
        };
        let field = field.trim();
        let named = field.strip_prefix("host.tags.").or(field.strip_prefix("details."));
        if named.is_none_or(str::is_empty) && !FIELDS.contains(&field) && !DERIVED.contains(&field) {
            let field = message::quoted(field);
            let known = [&FIELDS[..], &DERIVED[..]].concat().join(", ");
            return Err(TemplateError(format!(
                "{{{{{field}}}}} is not a field: there are {known}, host.tags.NAME, details.NAME"
            )));
        }
        pieces.push(Piece::Literal(before));
        pieces.push(Piece::Field(field));
        rest = after;
    }
    pieces.push(Piece::Literal(rest));
    pieces.retain(|piece| !matches!(piece, Piece::Literal("")));
    Ok(pieces)
}

/// Checks every text of a template.
pub(crate) fn check(template: &Value) -> Result<(), TemplateError> {
    if template.to_string().len() > TEMPLATE_BYTES_MAX {
        return Err(TemplateError(format!("is longer than {TEMPLATE_BYTES_MAX} bytes")));
    }
    check_at(template, 0)
}

fn check_at(template: &Value, depth: usize) -> Result<(), TemplateError> {
    if depth > DEPTH_MAX {
        return Err(TemplateError(format!("is nested deeper than {DEPTH_MAX}")));
    }
    match template {
        Value::String(text) => pieces(text).map(drop),
        Value::Array(items) => items.iter().try_for_each(|item| check_at(item, depth + 1)),
        Value::Object(map) => map.values().try_for_each(|item| check_at(item, depth + 1)),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

/// What templates are filled with.
#[derive(Debug)]
pub(crate) struct Filling {
    notice: Value,
    subject: String,
    text: String,
    key: String,
    attempt: Value,
}

impl Filling {
    pub(crate) fn of(notice: &Notice, key: DeliveryId, attempt: u32) -> Self {
        Self {
            notice: serde_json::to_value(notice).unwrap_or_default(),
            subject: message::subject(notice),
            text: message::text(notice),
            key: key.to_string(),
            attempt: attempt.into(),
        }
    }

    /// The value of a field; `null` when this notice has none.
    fn value(&self, field: &str) -> Value {
        match field {
            "notice" => self.notice.clone(),
            "subject" => Value::from(self.subject.as_str()),
            "text" => Value::from(self.text.as_str()),
            "key" => Value::from(self.key.as_str()),
            "attempt" => self.attempt.clone(),
            _ => {
                // The name of a tag may hold dots itself.
                let mut value = &self.notice;
                let steps = if field.starts_with("details.") { 2 } else { 3 };
                for step in field.splitn(steps, '.') {
                    value = value.get(step).unwrap_or(&Value::Null);
                }
                value.clone()
            }
        }
    }
}

/// A value within a text: names for hosts, nothing for nothing, JSON for the rest.
fn as_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(|item| item.get("name").is_some()) => {
            items.iter().filter_map(|item| item.get("name")?.as_str()).collect::<Vec<_>>().join(", ")
        }
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// Fills a text. A placeholder that is not known (it was, when the template was checked) becomes nothing.
pub(crate) fn fill_text(template: &str, filling: &Filling) -> Result<String, TooLong> {
    let mut text = String::new();
    for piece in pieces(template).unwrap_or_default() {
        match piece {
            Piece::Literal(literal) => text.push_str(literal),
            Piece::Field(field) => text.push_str(&as_text(&filling.value(field))),
        }
        if text.len() > BODY_BYTES_MAX {
            return Err(TooLong);
        }
    }
    Ok(text)
}

/// Fills every text of a JSON value. A text that is one placeholder and nothing else becomes the value itself:
/// `"{{hosts}}"` a list, `"{{since}}"` a text or `null`.
pub(crate) fn fill_json(template: &Value, filling: &Filling) -> Result<Value, TooLong> {
    let mut bytes_left = BODY_BYTES_MAX;
    fill_at(template, filling, &mut bytes_left)
}

fn fill_at(template: &Value, filling: &Filling, bytes_left: &mut usize) -> Result<Value, TooLong> {
    match template {
        Value::String(text) => {
            let value = match pieces(text).unwrap_or_default().as_slice() {
                [Piece::Field(field)] => filling.value(field),
                _ => Value::from(fill_text(text, filling)?),
            };
            *bytes_left = bytes_left.checked_sub(value.to_string().len()).ok_or(TooLong)?;
            Ok(value)
        }
        Value::Array(items) => {
            items.iter().map(|item| fill_at(item, filling, bytes_left)).collect::<Result<_, _>>().map(Value::Array)
        }
        Value::Object(map) => {
            let filled = map.iter().map(|(key, item)| Ok((key.clone(), fill_at(item, filling, bytes_left)?)));
            filled.collect::<Result<Map<_, _>, _>>().map(Value::Object)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(template.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::tests::{down, hosts};
    use proptest::prelude::*;
    use serde_json::json;

    fn filling(notice: &Notice) -> Filling {
        Filling::of(notice, DeliveryId::mint(1, [7; 10]), 2)
    }

    fn check_fill(template: &Value, filled: &Value) {
        check(template).unwrap();
        let mut notice = down();
        notice.details.insert("last_seq".to_owned(), 7.into());
        assert_eq!(&fill_json(template, &filling(&notice)).unwrap(), filled);
    }

    #[test]
    fn texts_are_filled_wherever_they_stand_and_all_else_is_kept() {
        check_fill(
            &json!({"text": "{{event}}: {{ host.name }}", "n": 7, "deep": [{"site": "{{host.tags.site}}"}], "no": null}),
            &json!({"text": "down: web1", "n": 7, "deep": [{"site": "ams1"}], "no": null}),
        );
    }

    #[test]
    fn a_lone_placeholder_becomes_the_value_itself() {
        check_fill(
            &json!({"tags": "{{host.tags}}", "cause": "{{cause}}", "incident": "{{incident}}", "try": "{{attempt}}", "seq": "{{details.last_seq}}"}),
            &json!({"tags": {"site": "ams1"}, "cause": "silent", "incident": null, "try": 2, "seq": 7}),
        );
        check_fill(&json!("x{{incident}}y{{host.tags.none}}"), &json!("xy"));
    }

    #[test]
    fn many_hosts_are_named_in_a_text_and_listed_in_a_value() {
        let mut notice = down();
        notice.hosts = hosts(3);
        let filled = fill_json(&json!(["{{hosts}}", "these: {{hosts}}"]), &filling(&notice)).unwrap();
        assert_eq!(filled[0].as_array().unwrap().len(), 3);
        assert_eq!(filled[1], "these: web1, web2, web3");
    }

    #[test]
    fn a_template_with_an_unknown_field_or_an_open_brace_is_refused_with_the_list_of_fields() {
        let says = |template: Value| check(&template).unwrap_err().0;
        assert!(says(json!({"a": ["{{hostname}}"]})).starts_with("{{hostname}} is not a field: there are at, "));
        assert_eq!(says(json!("{{event")), "a \"{{\" is not closed by \"}}\"");
        assert!(says(json!("{{host.tags.}}")).contains("is not a field"));
        assert!(says(json!("{{}}")).contains("is not a field"));
        assert!(says(json!("x".repeat(TEMPLATE_BYTES_MAX))).contains("longer than"));
        let deep = (0..40).fold(json!(1), |inner, _| json!([inner]));
        assert!(says(deep).contains("nested deeper"));
    }

    #[test]
    fn a_template_cannot_grow_without_limit() {
        let mut notice = down();
        notice.hosts = hosts(1_000);
        let greedy = json!(vec!["{{hosts}}"; 1_000]);
        check(&greedy).unwrap();
        assert_eq!(fill_json(&greedy, &filling(&notice)), Err(TooLong));
        assert_eq!(fill_text(&"{{hosts}}".repeat(1_000), &filling(&notice)), Err(TooLong));
    }

    proptest! {
        #[test]
        fn no_name_breaks_out_of_its_quotes(name in ".{0,60}", event in "[\"\\\\{}:,\\[\\]a-z\n]{0,20}") {
            let mut notice = down();
            notice.host.as_mut().unwrap().name.clone_from(&name);
            notice.event.clone_from(&event);
            let filled = fill_json(&json!({"a": "<{{host.name}}>", "b": "{{event}}", "c": 1}), &filling(&notice)).unwrap();
            let read: Value = serde_json::from_str(&filled.to_string()).unwrap();
            prop_assert_eq!(read, json!({"a": format!("<{name}>"), "b": event, "c": 1}));
        }

        #[test]
        fn no_text_makes_the_template_panic(text in "[{}a-z. ]{0,30}|.{0,30}") {
            let template = Value::from(text);
            if check(&template).is_ok() {
                fill_json(&template, &filling(&down())).unwrap();
            }
        }
    }
}
