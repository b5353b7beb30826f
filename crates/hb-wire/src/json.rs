//! What JSON allows and hb does not: repeated keys, deep nesting, arrays in the place of objects, endless objects.
//!
//! Two readers that resolve a repeated key differently see two messages under one signature (RFC 8259, section 4).

use core::fmt;
use std::borrow::Cow;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Deepest nesting, the outermost object included.
pub(crate) const DEPTH_MAX: usize = 8;
/// Most fields in one object: bounds the search for repeated keys.
pub(crate) const FIELDS_MAX: usize = 64;
/// Longest error of the JSON reader that is passed on, in characters: it may quote the input.
const ERROR_CHARS_MAX: usize = 200;

/// Passes over one JSON object and checks its form. Fields named in `objects` must be objects or null.
pub(crate) fn check(text: &[u8], objects: &[&str]) -> serde_json::Result<()> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let shape = Check { depth: 0, objects }.deserialize(&mut reader)?;
    reader.end()?;
    if shape == Shape::Object { Ok(()) } else { Err(serde_json::Error::custom("expected a JSON object")) }
}

/// An error of the JSON reader, made safe to show.
pub(crate) fn shown(error: &serde_json::Error) -> String {
    crate::name::escape_plain(&error.to_string(), ERROR_CHARS_MAX)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Null,
    Scalar,
    Array,
    Object,
}

#[derive(Clone, Copy)]
struct Check<'a> {
    depth: usize,
    objects: &'a [&'a str],
}

impl Check<'_> {
    fn inner<E: Error>(self) -> Result<Self, E> {
        let depth = self.depth + 1;
        if depth > DEPTH_MAX {
            return Err(E::custom(format_args!("nested deeper than {DEPTH_MAX} levels")));
        }
        Ok(Self { depth, objects: &[] })
    }
}

impl<'de> DeserializeSeed<'de> for Check<'_> {
    type Value = Shape;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Shape, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Check<'_> {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Shape, E> {
        Ok(Shape::Scalar)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Shape, E> {
        Ok(Shape::Scalar)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Shape, E> {
        Ok(Shape::Scalar)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Shape, E> {
        Ok(Shape::Scalar)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Shape, E> {
        Ok(Shape::Scalar)
    }

    fn visit_unit<E: Error>(self) -> Result<Shape, E> {
        Ok(Shape::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
        let inner = self.inner()?;
        while seq.next_element_seed(inner)?.is_some() {}
        Ok(Shape::Array)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
        let inner = self.inner()?;
        let mut seen: Vec<Key<'de>> = Vec::new();
        while let Some(key) = map.next_key::<Key<'de>>()? {
            if seen.contains(&key) {
                return Err(A::Error::custom(format_args!("the field \"{}\" stands twice", crate::name::echo(&key.0))));
            }
            if seen.len() == FIELDS_MAX {
                return Err(A::Error::custom(format_args!("more than {FIELDS_MAX} fields in one object")));
            }
            let shape = map.next_value_seed(inner)?;
            if self.objects.contains(&&*key.0) && !matches!(shape, Shape::Object | Shape::Null) {
                return Err(A::Error::custom(format_args!("the field {} must be an object", key.0)));
            }
            seen.push(key);
        }
        Ok(Shape::Object)
    }
}

/// A key, borrowed from the text unless it holds an escape.
#[derive(PartialEq, Eq, Deserialize)]
#[serde(transparent)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
