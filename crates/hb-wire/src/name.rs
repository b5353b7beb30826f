//! Names, tags and free text: what people type, and what is later shown in tables, mails and logs.
//!
//! Everything that could forge a second line, hide text or turn it around is refused at the door, once, here.

use core::fmt;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Longest host name, in bytes (RFC 1035, section 2.3.4).
pub const HOST_NAME_BYTES_MAX: usize = 253;
/// Most tags on one host.
pub const TAGS_MAX: usize = 16;
/// Longest key of a tag, in bytes.
pub const TAG_KEY_BYTES_MAX: usize = 32;
/// Longest value of a tag, in characters.
pub const TAG_VALUE_CHARS_MAX: usize = 128;
/// Longest piece of bad input that an error repeats, in characters after escaping.
pub const ECHO_CHARS_MAX: usize = 64;

/// Why a name, a tag or a text was refused: what, where, and the limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given where something is needed.
    #[error("{what} is empty")]
    Empty {
        /// What was being read.
        what: &'static str,
    },
    /// Longer than allowed.
    #[error("{what} is {found} {unit} long, at most {limit} are allowed: \"{echo}\"")]
    TooLong {
        /// What was being read.
        what: &'static str,
        /// Its length.
        found: usize,
        /// `bytes` or `characters`.
        unit: &'static str,
        /// The longest that is allowed.
        limit: usize,
        /// Its beginning, escaped.
        echo: String,
    },
    /// A character that is not allowed here.
    #[error("{what} must not hold {found:?} (character {at}), only {allowed}: \"{echo}\"")]
    Character {
        /// What was being read.
        what: &'static str,
        /// The character.
        found: char,
        /// Its place, counted from 1.
        at: usize,
        /// What is allowed.
        allowed: &'static str,
        /// The beginning of the text, escaped.
        echo: String,
    },
    /// Begins or ends with a character that is allowed only inside.
    #[error("{what} must begin {edge}: \"{echo}\"")]
    Edge {
        /// What was being read.
        what: &'static str,
        /// The rule.
        edge: &'static str,
        /// The beginning of the text, escaped.
        echo: String,
    },
    /// More tags than allowed.
    #[error("{found} tags, at most {limit} are allowed")]
    TooMany {
        /// How many there were.
        found: usize,
        /// How many are allowed.
        limit: usize,
    },
}

/// A host's label: DNS-like, lower case. The key is the identity, the name never is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

impl HostName {
    /// Reads a name and lower-cases it: 1 to 253 bytes of ASCII letters, digits, `.`, `-` and `_`, beginning and ending
    /// with a letter or digit.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        const WHAT: &str = "a host name";
        check_ascii_word(text, WHAT, HOST_NAME_BYTES_MAX, "ASCII letters, digits, '.', '-' and '_'", |c| {
            c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')
        })?;
        let edges_are_fine = |c: char| c.is_ascii_alphanumeric();
        if !text.starts_with(edges_are_fine) || !text.ends_with(edges_are_fine) {
            return Err(NameError::Edge { what: WHAT, edge: "and end with a letter or digit", echo: echo(text) });
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl core::str::FromStr for HostName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for HostName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl From<HostName> for String {
    fn from(name: HostName) -> Self {
        name.0
    }
}

/// Labels of a host: at most 16, keys `[a-z0-9][a-z0-9_.-]{0,31}`, values of at most 128 clean characters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct Tags(BTreeMap<String, String>);

impl Tags {
    /// Checks every key and value; values are trimmed.
    pub fn parse(raw: BTreeMap<String, String>) -> Result<Self, NameError> {
        if raw.len() > TAGS_MAX {
            return Err(NameError::TooMany { found: raw.len(), limit: TAGS_MAX });
        }
        let mut tags = BTreeMap::new();
        for (key, value) in raw {
            check_tag_key(&key)?;
            let value = clean(&value, TAG_VALUE_CHARS_MAX, "the value of a tag")?;
            tags.insert(key, value);
        }
        Ok(Self(tags))
    }

    /// The value of one tag.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Every tag, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The tags as a map.
    #[must_use]
    pub fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// The tags as a map, moved out.
    #[must_use]
    pub fn into_map(self) -> BTreeMap<String, String> {
        self.0
    }
}

impl TryFrom<BTreeMap<String, String>> for Tags {
    type Error = NameError;
    fn try_from(raw: BTreeMap<String, String>) -> Result<Self, NameError> {
        Self::parse(raw)
    }
}

impl From<Tags> for BTreeMap<String, String> {
    fn from(tags: Tags) -> Self {
        tags.0
    }
}

fn check_tag_key(key: &str) -> Result<(), NameError> {
    const WHAT: &str = "the key of a tag";
    check_ascii_word(key, WHAT, TAG_KEY_BYTES_MAX, "a-z, 0-9, '.', '-' and '_'", |c| {
        c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_')
    })?;
    if !key.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()) {
        return Err(NameError::Edge { what: WHAT, edge: "with a-z or 0-9", echo: echo(key) });
    }
    Ok(())
}

/// Not empty, not longer than `bytes_max`, and made of allowed characters only.
fn check_ascii_word(
    text: &str,
    what: &'static str,
    bytes_max: usize,
    allowed: &'static str,
    is_allowed: impl Fn(char) -> bool,
) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty { what });
    }
    if text.len() > bytes_max {
        return Err(NameError::TooLong { what, found: text.len(), unit: "bytes", limit: bytes_max, echo: echo(text) });
    }
    match text.chars().zip(1..).find(|(c, _)| !is_allowed(*c)) {
        Some((found, at)) => Err(NameError::Character { what, found, at, allowed, echo: echo(text) }),
        None => Ok(()),
    }
}

/// Free text made fit for one line of a table, a mail or a log: trimmed, at most `max_chars` characters, without control
/// characters, line separators, zero-width, bidirectional or other invisible format characters. May be empty.
///
/// Used for every free text: reasons, notes, names of keys and channels.
pub fn clean_text(text: &str, max_chars: usize) -> Result<String, NameError> {
    clean(text, max_chars, "the text")
}

pub(crate) fn clean(text: &str, max_chars: usize, what: &'static str) -> Result<String, NameError> {
    // Only spaces are trimmed: a line break at the end is as unwelcome as one in the middle.
    let trimmed = text.trim_matches(|c: char| c.is_whitespace() && !is_hidden(c));
    if trimmed.chars().nth(max_chars).is_some() {
        let found = trimmed.chars().count();
        return Err(NameError::TooLong { what, found, unit: "characters", limit: max_chars, echo: echo(trimmed) });
    }
    match trimmed.chars().zip(1..).find(|(c, _)| is_hidden(*c)) {
        Some((found, at)) => {
            let allowed = "visible characters on one line";
            Err(NameError::Character { what, found, at, allowed, echo: echo(trimmed) })
        }
        None => Ok(trimmed.to_owned()),
    }
}

/// True for what a reader cannot see, or what changes how the rest is read: Unicode's Cc, Cf, Zl and Zp.
pub(crate) fn is_hidden(c: char) -> bool {
    c.is_control() || HIDDEN.iter().any(|&(first, last)| (first..=last).contains(&c))
}

/// Unicode 16: general categories Cf, Zl and Zp. (`char::is_control` is Cc.)
const HIDDEN: [(char, char); 22] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{180e}', '\u{180e}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{2029}'),
    ('\u{202a}', '\u{202e}'),
    ('\u{2060}', '\u{2064}'),
    ('\u{2066}', '\u{206f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{fff9}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0001}', '\u{e0001}'),
    ('\u{e0020}', '\u{e007f}'),
];

/// The beginning of bad input, safe to print: escaped, at most [`ECHO_CHARS_MAX`] characters.
pub(crate) fn echo(text: &str) -> String {
    escape(text, ECHO_CHARS_MAX)
}

/// The beginning of a text as it would stand between quotes, at most `chars_max` characters; `…` marks a cut.
fn escape(text: &str, chars_max: usize) -> String {
    shorten(text, chars_max, |c| if is_hidden(c) { c.escape_unicode().collect() } else { c.escape_debug().collect() })
}

/// The beginning of a text with only the hidden characters escaped, at most `chars_max` characters; `…` marks a cut.
pub(crate) fn escape_plain(text: &str, chars_max: usize) -> String {
    shorten(text, chars_max, |c| if is_hidden(c) { c.escape_unicode().collect() } else { c.to_string() })
}

fn shorten(text: &str, chars_max: usize, write: impl Fn(char) -> String) -> String {
    let mut shown = String::new();
    let mut chars = 0_usize;
    for c in text.chars() {
        let piece = write(c);
        let piece_chars = piece.chars().count();
        // One character is kept for the mark of the cut.
        if chars.saturating_add(piece_chars) >= chars_max {
            shown.push('…');
            break;
        }
        chars = chars.saturating_add(piece_chars);
        shown.push_str(&piece);
    }
    shown
}

#[cfg(test)]
mod tests;
