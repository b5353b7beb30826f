//! Values of arguments: parsed here, so that what cannot be right is refused before anything is asked of a server.

use std::collections::BTreeMap;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use hb_wire::name::{HostName, Tags};
use hb_wire::view::{Class, HostState, Scope};
use serde::de::DeserializeOwned;

use crate::error::Failure;

/// The states that can be asked for.
pub const STATES: [&str; 8] = ["new", "up", "late", "down", "stopped", "paused", "retired", "unknown"];
/// The scopes of an API key.
pub const SCOPES: [&str; 6] = ["admin", "operate", "read", "register", "ping", "metrics"];
/// The classes of hosts.
pub const CLASSES: [&str; 3] = ["server", "intermittent", "ephemeral"];

/// Seconds, written like `90s`, `2m`, `1h30m`.
///
/// # Errors
/// How to write it.
pub fn seconds(text: &str) -> Result<u64, String> {
    hb_wire::duration::parse_seconds(text).map_err(|error| error.to_string())
}

/// Seconds, but not none.
///
/// # Errors
/// How to write it.
pub fn some_seconds(text: &str) -> Result<u64, String> {
    match seconds(text)? {
        0 => Err("it must be longer than nothing".to_owned()),
        seconds => Ok(seconds),
    }
}

/// A tag: `KEY=VALUE`.
///
/// # Errors
/// What is wrong with it.
pub fn tag(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write a tag as KEY=VALUE, for example role=db")?;
    let tags = Tags::parse(BTreeMap::from([(key.to_owned(), value.to_owned())])).map_err(|error| error.to_string())?;
    tags.into_map().pop_first().ok_or_else(|| "it is empty".to_owned())
}

/// The key of a tag.
///
/// # Errors
/// What is wrong with it.
pub fn tag_key(text: &str) -> Result<String, String> {
    tag(&format!("{text}=")).map(|(key, _)| key).map_err(|_| "write the key alone, for example role".to_owned())
}

/// How many to show: at least one.
///
/// # Errors
/// How to write it.
pub fn count(text: &str) -> Result<usize, String> {
    let count: usize = text.parse().map_err(|_| "write a number, for example 20")?;
    if count == 0 { Err("it must be at least 1".to_owned()) } else { Ok(count) }
}

/// Tags as they were given, each key once.
///
/// # Errors
/// 2, saying which one was given again.
pub fn tags<'a>(given: impl IntoIterator<Item = &'a (String, String)>) -> Result<BTreeMap<String, String>, Failure> {
    let mut tags = BTreeMap::new();
    for (key, value) in given {
        if let Some(other) = tags.insert(key.clone(), value.clone()) {
            let both = format!("tag {key} is given twice: {other} and {value}");
            return Err(Failure::usage(both).hint("a host has one value for each tag"));
        }
    }
    Ok(tags)
}

/// A host's name.
///
/// # Errors
/// What is wrong with it.
pub fn host_name(text: &str) -> Result<String, String> {
    HostName::parse(text).map(String::from).map_err(|error| error.to_string())
}

/// A state.
pub fn state() -> impl TypedValueParser<Value = HostState> {
    word(STATES)
}

/// A scope.
pub fn scope() -> impl TypedValueParser<Value = Scope> {
    word(SCOPES)
}

/// A class.
pub fn class() -> impl TypedValueParser<Value = Class> {
    word(CLASSES)
}

/// One of the words that stand for an enum's values on the wire: one list for help, completion and parsing.
fn word<T: DeserializeOwned + Clone + Send + Sync + 'static, const N: usize>(
    words: [&'static str; N],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(words).try_map(|word| serde_json::from_value(serde_json::Value::String(word)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::text::word;

    #[test]
    fn every_listed_word_is_one_of_the_wire() {
        for state in STATES {
            let parsed: HostState = serde_json::from_value(state.into()).unwrap();
            assert_eq!(word(&parsed), state);
        }
        for scope in SCOPES {
            let parsed: Scope = serde_json::from_value(scope.into()).unwrap();
            assert_eq!(word(&parsed), scope);
        }
        for class in CLASSES {
            let parsed: Class = serde_json::from_value(class.into()).unwrap();
            assert_eq!(word(&parsed), class);
        }
    }

    #[test]
    fn a_tag_has_a_key_and_a_value_that_may_be_empty() {
        assert_eq!(tag("role=db").unwrap(), ("role".to_owned(), "db".to_owned()));
        assert_eq!(tag("role=a=b").unwrap(), ("role".to_owned(), "a=b".to_owned()));
        assert_eq!(tag("role=").unwrap(), ("role".to_owned(), String::new()));
        assert!(tag("role").unwrap_err().starts_with("write a tag as KEY=VALUE"));
        assert!(tag("=x").is_err());
    }

    #[test]
    fn a_tag_that_is_given_twice_is_named() {
        let given = |pairs: &[&str]| tags(&pairs.iter().map(|pair| tag(pair).unwrap()).collect::<Vec<_>>());
        assert_eq!(given(&["role=db", "site=eu"]).unwrap().len(), 2);
        let refused = given(&["role=db", "site=eu", "role=web"]).unwrap_err();
        assert_eq!(refused.message, "tag role is given twice: db and web");
    }

    #[test]
    fn none_are_not_shown() {
        assert_eq!(count("1").unwrap(), 1);
        assert!(count("0").unwrap_err().contains("at least 1"));
        assert!(count("-1").is_err() && count("many").is_err());
    }
}
