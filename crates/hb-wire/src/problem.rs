//! Problem documents: `application/problem+json` (RFC 9457) with a stable `code`.

use core::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::name::escape_plain;

/// The media type of a problem document.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Largest problem document that is read, in bytes.
pub const PROBLEM_BYTES_MAX: usize = 64 * 1024;
/// Longest text of a problem document that is kept, in characters.
const TEXT_CHARS_MAX: usize = 500;

/// What went wrong, for programs. Adding is free, changing is not: scripts match on these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Code {
    /// 400: the request could not be parsed.
    Malformed,
    /// 400: it parsed, but a value is out of bounds.
    Invalid,
    /// 401: no credential, or not one that works here.
    Unauthorized,
    /// 401: the signature is missing, malformed or wrong, or the host or key is unknown or revoked.
    BadSignature,
    /// 403: the credential is good but lacks the scope.
    Forbidden,
    /// 404.
    NotFound,
    /// 405.
    MethodNotAllowed,
    /// 408: the body did not arrive in time.
    Timeout,
    /// 409: the nonce was spent or is too old; `next` carries a fresh one.
    StaleNonce,
    /// 409: another live host has this name.
    NameTaken,
    /// 409: the change does not fit the present state.
    Conflict,
    /// 409: this key answers from two machines; this one is in quarantine.
    Cloned,
    /// 410: the host was retired.
    Retired,
    /// 413.
    TooLarge,
    /// 415.
    UnsupportedMediaType,
    /// 429: see `Retry-After`.
    TooManyRequests,
    /// 500: a bug in hb.
    Internal,
    /// 503: overloaded, stopping, or unable to store; see `Retry-After`.
    Unavailable,
    /// A code that this version does not know.
    #[serde(other)]
    Unknown,
}

impl Code {
    /// The HTTP status that goes with the code.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed | Self::Invalid => 400,
            Self::Unauthorized | Self::BadSignature => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Timeout => 408,
            Self::StaleNonce | Self::NameTaken | Self::Conflict | Self::Cloned => 409,
            Self::Retired => 410,
            Self::TooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::TooManyRequests => 429,
            Self::Internal | Self::Unknown => 500,
            Self::Unavailable => 503,
        }
    }

    /// One short title per code, the same for every occurrence (RFC 9457, section 3.1.3).
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Malformed => "the request is malformed",
            Self::Invalid => "a value is not acceptable",
            Self::Unauthorized => "not authenticated",
            Self::BadSignature => "the signature was not accepted",
            Self::Forbidden => "not allowed",
            Self::NotFound => "not found",
            Self::MethodNotAllowed => "method not allowed",
            Self::Timeout => "the request took too long",
            Self::StaleNonce => "the nonce is spent or too old",
            Self::NameTaken => "the name is taken",
            Self::Conflict => "the change does not fit the present state",
            Self::Cloned => "this key is in use on another machine",
            Self::Retired => "the host was retired",
            Self::TooLarge => "the request is too large",
            Self::UnsupportedMediaType => "the media type is not supported",
            Self::TooManyRequests => "too many requests",
            Self::Internal => "internal error",
            Self::Unavailable => "temporarily unavailable",
            Self::Unknown => "unknown error",
        }
    }

    /// The code as it stands on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Invalid => "invalid",
            Self::Unauthorized => "unauthorized",
            Self::BadSignature => "bad_signature",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Timeout => "timeout",
            Self::StaleNonce => "stale_nonce",
            Self::NameTaken => "name_taken",
            Self::Conflict => "conflict",
            Self::Cloned => "cloned",
            Self::Retired => "retired",
            Self::TooLarge => "too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::TooManyRequests => "too_many_requests",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A problem document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Problem {
    /// `urn:hb:problem:CODE`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The same for every occurrence of the code.
    #[serde(default)]
    pub title: String,
    /// The HTTP status, repeated.
    #[serde(default)]
    pub status: u16,
    /// For programs.
    pub code: Code,
    /// What happened this time, for people; never a secret.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// What to do next, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// With `stale_nonce`: the nonce to sign with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// With `stale_nonce`: the server's time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
    pub now: Option<Timestamp>,
    /// With `too_many_requests` and `unavailable`: seconds to wait, also in `Retry-After`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
}

impl Problem {
    /// A problem with its standard type, title and status.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:hb:problem:{code}"),
            title: code.title().to_owned(),
            status: code.status(),
            code,
            detail: detail.into(),
            hint: None,
            next: None,
            now: None,
            retry_after_s: None,
        }
    }

    /// Reads a problem document from whatever answered: a server of another year, a proxy, a captive portal.
    ///
    /// Tolerant: an unknown or absent code is [`Code::Unknown`], a field of the wrong type counts as absent. Texts are cut
    /// at 500 characters and have control and invisible characters escaped, so that they can be shown on a terminal.
    /// None when it is larger than [`PROBLEM_BYTES_MAX`] or no problem document at all.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        if body.len() > PROBLEM_BYTES_MAX {
            return None;
        }
        let Ok(Value::Object(fields)) = serde_json::from_slice::<Value>(body) else { return None };
        if !["code", "type", "title", "status", "detail"].iter().any(|name| fields.contains_key(*name)) {
            return None;
        }
        let text = |name: &str| fields.get(name).and_then(Value::as_str).map(|t| escape_plain(t, TEXT_CHARS_MAX));
        let number = |name: &str| fields.get(name).and_then(Value::as_u64);
        let code = fields.get("code").and_then(|code| Code::deserialize(code).ok()).unwrap_or(Code::Unknown);
        Some(Self {
            kind: text("type").unwrap_or_default(),
            title: text("title").unwrap_or_default(),
            status: number("status").and_then(|status| u16::try_from(status).ok()).unwrap_or_default(),
            code,
            detail: text("detail").unwrap_or_default(),
            hint: text("hint"),
            next: text("next"),
            now: fields.get("now").and_then(Value::as_str).and_then(|now| now.parse().ok()),
            retry_after_s: number("retry_after_s"),
        })
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_problem_is_read_back_as_it_was_written() {
        let mut problem = Problem::new(Code::StaleNonce, "the nonce was spent").hint("sign again with `next`");
        problem.next = Some("p4Q0v2hYz1mJtE9cX7sLdw".to_owned());
        problem.now = Some("2026-11-23T10:00:00Z".parse().unwrap());
        problem.retry_after_s = Some(5);
        assert_eq!(Problem::parse(&serde_json::to_vec(&problem).unwrap()), Some(problem));
    }

    #[test]
    fn every_code_is_written_as_its_name_says() {
        for code in [Code::Malformed, Code::BadSignature, Code::StaleNonce, Code::UnsupportedMediaType, Code::Unknown] {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }

    #[test]
    fn a_problem_of_another_year_or_another_program_is_read_as_far_as_possible() {
        let future =
            Problem::parse(br#"{"code":"quota_spent","status":402,"detail":"pay","hint":7,"retry_after_s":-1}"#);
        let future = future.unwrap();
        assert_eq!((future.code, future.status, &*future.detail), (Code::Unknown, 402, "pay"));
        assert_eq!((future.hint, future.retry_after_s), (None, None));
        let proxy = Problem::parse(br#"{"type":"about:blank","title":"Bad Gateway","status":502}"#).unwrap();
        assert_eq!((proxy.code, proxy.status, &*proxy.title), (Code::Unknown, 502, "Bad Gateway"));
        let odd = Problem::parse(br#"{"code":7,"status":70000,"title":["x"]}"#).unwrap();
        assert_eq!((odd.code, odd.status, &*odd.title), (Code::Unknown, 0, ""));
    }

    #[test]
    fn what_is_no_problem_document_is_none() {
        for body in ["", "{}", "[]", "null", "<html>", "{\"message\":\"Forbidden\"}", "{\"code\":"] {
            assert_eq!(Problem::parse(body.as_bytes()), None, "{body}");
        }
        let padded = |length: usize| r#"{"code":"internal"}"#.to_owned() + &" ".repeat(length - 19);
        assert!(Problem::parse(padded(PROBLEM_BYTES_MAX).as_bytes()).is_some());
        assert!(Problem::parse(padded(PROBLEM_BYTES_MAX + 1).as_bytes()).is_none());
    }

    #[test]
    fn texts_are_cut_and_cannot_drive_a_terminal() {
        let evil =
            serde_json::json!({"code": "internal", "detail": "\u{1b}]0;x\u{7}".repeat(500), "title": "a\nb\u{202e}"});
        let problem = Problem::parse(evil.to_string().as_bytes()).unwrap();
        assert_eq!(problem.title, "a\\u{a}b\\u{202e}");
        assert!(problem.detail.chars().count() <= 500 && problem.detail.ends_with('…'));
        assert!(!problem.detail.contains(char::is_control));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn no_bytes_make_the_reader_panic(
            noise in proptest::collection::vec(any::<u8>(), 0..200), key in "(code|type|title|status|detail|now|next)",
            value in "(-?[0-9]{1,25}|\"[^\"\\\\]{0,20}\"|\\[\\]|null|1e400)",
        ) {
            let _ = Problem::parse(&noise);
            if let Some(problem) = Problem::parse(format!("{{\"{key}\":{value}}}").as_bytes()) {
                prop_assert!(!problem.detail.contains(char::is_control));
            }
        }
    }
}
