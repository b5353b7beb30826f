//! Reading bodies: bounded in size while they arrive, bounded in time, strict in form.

use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;
use core::time::Duration;
use std::sync::Arc;

use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use hb_wire::problem::{Code, Problem};
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;

use super::answer::Failure;
use crate::app::App;

/// Longest body of anything but a beat, in bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// A body must have arrived within this time.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest message about bad JSON, in characters.
const MESSAGE_CHARS_MAX: usize = 200;

/// Reads a whole body of at most `bytes_max`.
pub(crate) async fn read(headers: &HeaderMap, body: Body, bytes_max: usize) -> Result<Bytes, Problem> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let bytes_max_u64 = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    if announced.is_some_and(|length| length > bytes_max_u64) || body.size_hint().lower() > bytes_max_u64 {
        return Err(too_large(bytes_max));
    }
    let mut reading = pin!(collect(body, bytes_max));
    // Most bodies are there already: those need no timer.
    if let Poll::Ready(read) = poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx))).await {
        return read;
    }
    let late = || Problem::new(Code::Timeout, format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs()));
    tokio::time::timeout(BODY_TIMEOUT, reading).await.unwrap_or_else(|_| Err(late()))
}

async fn collect(mut body: Body, bytes_max: usize) -> Result<Bytes, Problem> {
    let mut whole = Bytes::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::new(Code::Malformed, "the body broke off"))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len().saturating_add(data.len()) > bytes_max {
            return Err(too_large(bytes_max));
        }
        whole = if whole.is_empty() { data } else { joined(&whole, &data) };
    }
    Ok(whole)
}

fn joined(first: &[u8], second: &[u8]) -> Bytes {
    let mut both = BytesMut::with_capacity(first.len() + second.len());
    both.extend_from_slice(first);
    both.extend_from_slice(second);
    both.freeze()
}

fn too_large(bytes_max: usize) -> Problem {
    Problem::new(Code::TooLarge, format!("a body has at most {bytes_max} bytes here"))
}

/// Refuses what does not say that it is JSON.
pub(crate) fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let essence = values.next().and_then(|value| value.to_str().ok()).and_then(|value| value.split(';').next());
    let is_json = essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"));
    if is_json && values.next().is_none() {
        Ok(())
    } else {
        Err(Problem::new(Code::UnsupportedMediaType, "the body must be JSON: Content-Type: application/json"))
    }
}

/// Reads a JSON object in which every field is known.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // serde would take an array for an object, too.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(Problem::new(Code::Malformed, "the body is not a JSON object"));
    }
    let mut unknown: Option<String> = None;
    let mut reader = serde_json::Deserializer::from_slice(body);
    let read = serde_ignored::deserialize(&mut reader, |path| {
        unknown.get_or_insert_with(|| path.to_string());
    });
    let value = read.and_then(|value: T| reader.end().map(|()| value)).map_err(|error| bad_json(&error))?;
    match unknown {
        None => Ok(value),
        Some(field) => {
            let field = shown(&field);
            Err(Problem::new(Code::Malformed, format!("the field {field} is not known here"))
                .hint("the fields of every request are described in /v1/openapi.json"))
        }
    }
}

fn bad_json(error: &serde_json::Error) -> Problem {
    Problem::new(
        Code::Malformed,
        format!("the body is not what is expected here: {}", shown(&unquoted(&error.to_string()))),
    )
}

/// A message of the JSON reader without the texts that it quotes: they may be secrets in the wrong place.
fn unquoted(message: &str) -> String {
    match (message.find('"'), message.rfind('"')) {
        (Some(first), Some(last)) if first < last => {
            format!("{}\"…\"{}", message.get(..first).unwrap_or_default(), message.get(last + 1..).unwrap_or_default())
        }
        _ => message.to_owned(),
    }
}

/// A text from outside, fit for one line.
pub(crate) fn shown(text: &str) -> String {
    let mut shown = String::new();
    for (place, char) in text.chars().enumerate() {
        if place >= MESSAGE_CHARS_MAX {
            shown.push('…');
            break;
        }
        let plain = char.is_ascii_graphic() || char == ' ' || char == '…' || char.is_alphanumeric();
        if plain { shown.push(char) } else { shown.extend(char.escape_unicode()) }
    }
    shown
}

/// A JSON body. Extracted last, after it is known who asks.
#[derive(Debug)]
pub(super) struct Posted<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Posted<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &Arc<App>) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        check_media_type(&parts.headers)?;
        let body = read(&parts.headers, body, BODY_BYTES_MAX).await?;
        Ok(Self(parse(&body)?))
    }
}

/// A JSON body that may be absent altogether.
#[derive(Debug)]
pub(super) struct MaybePosted<T>(pub(super) T);

impl<T: DeserializeOwned + Default> FromRequest<Arc<App>> for MaybePosted<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &Arc<App>) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        let body = read(&parts.headers, body, BODY_BYTES_MAX).await?;
        if body.is_empty() {
            return Ok(Self(T::default()));
        }
        check_media_type(&parts.headers)?;
        Ok(Self(parse(&body)?))
    }
}

/// No body: whoever sends one expects something that does not happen.
#[derive(Debug)]
pub(super) struct NoBody;

impl FromRequest<Arc<App>> for NoBody {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &Arc<App>) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        match read(&parts.headers, body, 2).await {
            // Some clients send an empty object with every POST.
            Ok(body) if body.is_empty() || body.as_ref() == b"{}" => Ok(Self),
            Ok(_) => Err(unexpected().into()),
            Err(problem) if problem.code == Code::TooLarge => Err(unexpected().into()),
            Err(problem) => Err(problem.into()),
        }
    }
}

fn unexpected() -> Problem {
    Problem::new(Code::Malformed, "this route takes no body")
}
