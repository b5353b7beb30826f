//! A channel's settings: JSON that an operator typed, read strictly and without ever repeating a value, for any value
//! may be a secret.

use core::fmt;

use serde_json::{Map, Value};

/// Why settings were not taken. Says which field, never its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// No such kind of channel.
    #[error("{kind:?} is not a kind of channel: there are {known}")]
    UnknownKind {
        /// What was asked for, shortened.
        kind: String,
        /// The kinds there are.
        known: String,
    },
    /// One field is missing, unknown or wrong.
    #[error("{kind}: {field}: {problem}")]
    Field {
        /// The kind of channel.
        kind: &'static str,
        /// The field.
        field: String,
        /// What is wrong with it, and how it should be.
        problem: String,
    },
    /// The settings are sound, but this server's configuration does not allow them.
    #[error("{kind}: {problem}")]
    Refused {
        /// The kind of channel.
        kind: &'static str,
        /// What is not allowed, and which setting of the server would allow it.
        problem: String,
    },
}

impl SettingsError {
    pub(crate) fn refused(kind: &'static str, problem: impl Into<String>) -> Self {
        Self::Refused { kind, problem: problem.into() }
    }
}

/// The fields of one channel's settings.
pub(crate) struct Fields<'a> {
    kind: &'static str,
    map: &'a Map<String, Value>,
}

impl fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fields").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl<'a> Fields<'a> {
    /// Takes an object with none but known fields.
    pub(crate) fn read(kind: &'static str, settings: &'a Value, known: &[&str]) -> Result<Self, SettingsError> {
        let Value::Object(map) = settings else {
            let problem = format!("must be an object with {}", known.join(", "));
            return Err(SettingsError::Field { kind, field: "settings".to_owned(), problem });
        };
        let fields = Self { kind, map };
        match map.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => {
                let field = crate::text::one_line(key, 40);
                Err(fields.wrong(&field, format!("is not a setting of this kind: there are {}", known.join(", "))))
            }
            None => Ok(fields),
        }
    }

    /// The error that one field is wrong.
    pub(crate) fn wrong(&self, field: &str, problem: impl Into<String>) -> SettingsError {
        SettingsError::Field { kind: self.kind, field: field.to_owned(), problem: problem.into() }
    }

    /// A field as it stands; `null` is as good as absent.
    pub(crate) fn value(&self, field: &str) -> Option<&'a Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    /// A text, if it is there.
    pub(crate) fn text(&self, field: &str) -> Result<Option<&'a str>, SettingsError> {
        match self.value(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(field, "must be a text")),
        }
    }

    /// A text that must be there.
    pub(crate) fn required(&self, field: &str) -> Result<&'a str, SettingsError> {
        match self.text(field)? {
            Some(text) if !text.trim().is_empty() => Ok(text),
            Some(_) | None => Err(self.wrong(field, "is missing")),
        }
    }

    /// One text or several.
    pub(crate) fn texts(&self, field: &str) -> Result<Vec<&'a str>, SettingsError> {
        let texts = match self.value(field) {
            Some(Value::String(text)) => vec![text.as_str()],
            Some(Value::Array(items)) => {
                let texts: Option<Vec<_>> = items.iter().map(Value::as_str).collect();
                texts.ok_or_else(|| self.wrong(field, "must be a text or a list of texts"))?
            }
            Some(_) => return Err(self.wrong(field, "must be a text or a list of texts")),
            None => Vec::new(),
        };
        if texts.is_empty() { Err(self.wrong(field, "is missing")) } else { Ok(texts) }
    }

    /// An object, if it is there.
    pub(crate) fn object(&self, field: &str) -> Result<Option<&'a Map<String, Value>>, SettingsError> {
        match self.value(field) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(_) => Err(self.wrong(field, "must be an object")),
        }
    }
}
