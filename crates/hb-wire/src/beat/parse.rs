//! Reading a beat from bytes that anybody may have sent.
//!
//! Strict in bounds, tolerant in vocabulary: the agent of next year must work with the server of today, so that unknown
//! fields, faults and intents are passed over, while nothing known may be absurd.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{BEAT_BYTES_MAX, Beat, Fault, Gap, Intent, StopReason, Vitals};
use crate::json;
use crate::name;
use crate::rotation;

/// Longest version of an agent, in characters.
pub const VERSION_CHARS_MAX: usize = 32;
/// Longest uptime: 100 years of 365.25 days, in seconds.
pub const UPTIME_S_MAX: u64 = 3_155_760_000;
/// Largest sequence number: what every JSON reader represents exactly (RFC 8259, section 6).
pub const SEQ_MAX: u64 = (1 << 53) - 1;
/// Longest goodbye and longest maintenance, in seconds: one day.
pub const INTENT_S_MAX: u64 = 86_400;
/// Longest note, in characters.
pub const NOTE_CHARS_MAX: usize = 200;
/// Longest name of a network error, in characters.
pub const GAP_ERROR_CHARS_MAX: usize = 32;
/// Most faults in one beat.
pub const FAULTS_MAX: usize = 8;
/// Most additional readings in one beat.
pub const MORE_VITALS_MAX: usize = 16;
/// Longest key of an additional reading, in bytes.
pub const MORE_KEY_BYTES_MAX: usize = 32;

/// Known fields that are objects: the derived readers would take an array for them too.
const OBJECTS: [&str; 4] = ["intent", "before", "gap", "vitals"];

/// Why a body is not a beat.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseBeatError {
    /// Larger than [`BEAT_BYTES_MAX`].
    #[error("the body has {found} bytes, at most {BEAT_BYTES_MAX} are allowed")]
    TooLarge {
        /// Its size.
        found: usize,
    },
    /// Not the JSON of a beat.
    #[error("the body is not a beat: {0}")]
    Malformed(String),
    /// A value is out of bounds.
    #[error("{field} {problem}")]
    Invalid {
        /// The field, as a path.
        field: &'static str,
        /// What is wrong, and the limit.
        problem: String,
    },
}

impl Beat {
    /// Reads and checks a beat. Unknown fields, faults and intents are ignored; everything known is held to its bounds.
    pub fn parse(body: &[u8]) -> Result<Self, ParseBeatError> {
        if body.len() > BEAT_BYTES_MAX {
            return Err(ParseBeatError::TooLarge { found: body.len() });
        }
        let malformed = |error: serde_json::Error| ParseBeatError::Malformed(json::shown(&error));
        json::check(body, &OBJECTS).map_err(malformed)?;
        let mut beat: Self = serde_json::from_slice(body).map_err(malformed)?;
        beat.check()?;
        Ok(beat)
    }

    fn check(&mut self) -> Result<(), ParseBeatError> {
        self.v = clean(&self.v, VERSION_CHARS_MAX, "v")?;
        if self.v.is_empty() {
            return Err(invalid("v", "is empty".to_owned()));
        }
        at_most(self.seq, SEQ_MAX, "seq")?;
        at_most(self.up, UPTIME_S_MAX, "up")?;
        if self.sent_at.is_some_and(|at| at < jiff::Timestamp::UNIX_EPOCH) {
            return Err(invalid("sent_at", "is before 1970".to_owned()));
        }
        if let Some(intent) = &mut self.intent {
            intent.check()?;
        }
        if let Some(gap) = &mut self.gap {
            gap.check()?;
        }
        if let Some(vitals) = &self.vitals {
            vitals.check()?;
        }
        at_most(self.degraded.len() as u64, FAULTS_MAX as u64, "the number of faults in degraded")
    }
}

impl Intent {
    fn check(&mut self) -> Result<(), ParseBeatError> {
        match self {
            Self::Goodbye { reason: _, back_in_s } => at_most(*back_in_s, INTENT_S_MAX, "intent.back_in_s"),
            Self::Maintenance { for_s, note } => {
                *note = clean(note, NOTE_CHARS_MAX, "intent.note")?;
                at_most(*for_s, INTENT_S_MAX, "intent.for_s")
            }
            Self::Rotate { public_key: _, proof } if proof.len() == rotation::PROOF_CHARS => Ok(()),
            Self::Rotate { .. } => {
                Err(invalid("intent.proof", format!("is not {} characters long", rotation::PROOF_CHARS)))
            }
        }
    }
}

impl Gap {
    fn check(&mut self) -> Result<(), ParseBeatError> {
        self.error = clean(&self.error, GAP_ERROR_CHARS_MAX, "gap.error")?;
        at_most(self.failed, SEQ_MAX, "gap.failed")?;
        at_most(self.since_s, UPTIME_S_MAX, "gap.since_s")?;
        at_most(self.suspended_s, UPTIME_S_MAX, "gap.suspended_s")
    }
}

impl Vitals {
    fn check(&self) -> Result<(), ParseBeatError> {
        if self.load1.is_some_and(|load| !load.is_finite() || load < 0.0) {
            return Err(invalid("vitals.load1", "is negative".to_owned()));
        }
        let bytes = [self.mem_used_bytes, self.mem_total_bytes, self.disk_free_bytes, self.disk_total_bytes];
        for bytes in bytes.into_iter().flatten() {
            // Stores keep signed 64-bit numbers; 8 EiB is not a machine.
            at_most(bytes, i64::MAX.unsigned_abs(), "a size in vitals")?;
        }
        at_most(self.more.len() as u64, MORE_VITALS_MAX as u64, "the number of further readings in vitals")?;
        for (key, value) in &self.more {
            let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            if !(1..=MORE_KEY_BYTES_MAX).contains(&key.len()) || !key.bytes().all(allowed) {
                let problem =
                    format!("holds the name \"{}\": 1 to 32 of a-z, 0-9 and '_' are allowed", name::echo(key));
                return Err(invalid("vitals", problem));
            }
            if !value.as_f64().is_some_and(|number| number.is_finite() && number >= 0.0) {
                return Err(invalid("vitals", format!("holds {key}, which is not a number of 0 or more")));
            }
        }
        Ok(())
    }
}

fn at_most(found: u64, limit: u64, field: &'static str) -> Result<(), ParseBeatError> {
    if found <= limit { Ok(()) } else { Err(invalid(field, format!("is {found}, at most {limit} is allowed"))) }
}

fn clean(text: &str, chars_max: usize, field: &'static str) -> Result<String, ParseBeatError> {
    name::clean_text(text, chars_max).map_err(|error| invalid(field, format!("is refused: {error}")))
}

fn invalid(field: &'static str, problem: String) -> ParseBeatError {
    ParseBeatError::Invalid { field, problem }
}

/// Faults of a later agent are passed over: a beat with an unknown complaint is still a beat.
pub(super) fn known_faults<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Fault>, D::Error> {
    let words = Vec::<Value>::deserialize(deserializer)?;
    if words.len() > FAULTS_MAX {
        return Err(D::Error::custom(format_args!("degraded has {} entries, at most {FAULTS_MAX}", words.len())));
    }
    let known = words.into_iter().filter_map(|word| known_word("degraded", word).transpose());
    known.collect::<Result<_, _>>().map_err(D::Error::custom)
}

/// The reason of a later agent is passed over.
pub(super) fn known_reason<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<StopReason>, D::Error> {
    match Option::<Value>::deserialize(deserializer)? {
        Some(word) => known_word("reason", word).map_err(D::Error::custom),
        None => Ok(None),
    }
}

/// The intent of a later agent is passed over: the host is alive, and its silence will be an alarm, as without it.
pub(super) fn known_intent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Intent>, D::Error> {
    let Some(value) = Option::<Value>::deserialize(deserializer)? else { return Ok(None) };
    let word = |name| value.get(name).and_then(Value::as_str);
    let known = match word("kind") {
        Some("goodbye") => word("reason").is_none_or(is_known::<StopReason>),
        Some("maintenance" | "rotate") => true,
        Some(_) => false,
        None => return Err(D::Error::custom("intent has no kind")),
    };
    if known { serde_json::from_value(value).map(Some).map_err(D::Error::custom) } else { Ok(None) }
}

/// A word of the vocabulary, or none when it is a word of another year; anything but a word is an error.
fn known_word<T: DeserializeOwned>(field: &str, word: Value) -> Result<Option<T>, String> {
    if word.is_string() { Ok(serde_json::from_value(word).ok()) } else { Err(format!("{field} must hold words")) }
}

fn is_known<T: DeserializeOwned>(word: &str) -> bool {
    serde_json::from_value::<T>(Value::String(word.to_owned())).is_ok()
}

#[cfg(test)]
mod tests;
