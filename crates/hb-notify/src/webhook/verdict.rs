//! What a receiver's answer, or its silence, means for the delivery.

use core::time::Duration;
use std::error::Error as _;

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use reqwest::Response;

use crate::address::Refused;
use crate::channel::{RETRY_AFTER_S_MAX, SendError};

/// Most of an answer that is read, in bytes; it is thrown away, only the status counts.
const REPLY_BYTES_MAX: usize = 4 * 1024;
/// Longest that an answer's body is listened to, once its status is known.
pub(crate) const REPLY_TIMEOUT: Duration = Duration::from_secs(1);

/// Lets the receiver finish a short answer; a long or slow one is hung up on.
pub(crate) async fn discard(mut response: Response) {
    let read = async {
        let mut bytes = 0;
        while let Ok(Some(chunk)) = response.chunk().await {
            bytes += chunk.len();
            if bytes > REPLY_BYTES_MAX {
                break;
            }
        }
    };
    // Whether it ended does not matter: the status has decided.
    let _ = tokio::time::timeout(REPLY_TIMEOUT, read).await;
}

/// What a status means for the delivery.
///
/// Any 2xx has taken it. Permanent is what speaks about this very request, and would be said again: 410 (the receiver
/// is gone for good), a redirect (never followed; the URL must be corrected), and 400, 405, 413, 414, 415, 422, 431 and
/// 501 (it does not take what hb sends). Everything else is tried again: 401, 403 and 404 are what a receiver says that
/// is being deployed, or whose token is being rotated, and a repeated attempt costs nothing.
pub(crate) fn judge(status: StatusCode, retry_after_s: Option<u64>) -> Result<(), SendError> {
    let said = format!("the receiver answered {}", status.as_u16());
    match status.as_u16() {
        200..=299 => Ok(()),
        300..=399 => Err(SendError::permanent(format!("{said}: redirects are not followed, use the final URL"))),
        410 => Err(SendError::permanent(format!("{said}: it is gone for good, remove the channel"))),
        400 | 405 | 413 | 414 | 415 | 422 | 431 | 501 => {
            Err(SendError::permanent(format!("{said}: it does not take this request, check the URL and the template")))
        }
        _ => Err(SendError::Temporary { reason: said, retry_after_s }),
    }
}

/// `Retry-After` (RFC 9110, section 10.2.3) in seconds from now, at most an hour.
pub(crate) fn retry_after_s(headers: &HeaderMap, now: Timestamp) -> Option<u64> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        // More digits than fit are a long time too.
        text.parse().unwrap_or(u64::MAX)
    } else {
        let until = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
        u64::try_from(until.as_second().saturating_sub(now.as_second())).unwrap_or(0)
    };
    Some(seconds.min(RETRY_AFTER_S_MAX))
}

/// What an error of the HTTP client means for the delivery.
pub(crate) fn failure(error: reqwest::Error, timeout: Duration) -> SendError {
    if let Some(refused) = find_source::<Refused>(&error) {
        return SendError::permanent(refused.to_string());
    }
    let is_early = error.is_connect() || error.is_builder();
    match (is_early, error.is_timeout()) {
        (true, true) => SendError::temporary("the receiver could not be reached in time"),
        (true, false) => SendError::temporary(format!("the receiver could not be reached: {}", describe(error))),
        (false, true) => {
            SendError::ambiguous(format!("no answer within {} s, it may have arrived", timeout.as_secs_f32()))
        }
        (false, false) => SendError::ambiguous(format!("no answer, it may have arrived: {}", describe(error))),
    }
}

fn find_source<E: core::error::Error + 'static>(error: &reqwest::Error) -> Option<&E> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        source = error.source();
    }
    None
}

/// The innermost causes of an error, without the URL.
pub(crate) fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut causes = Vec::new();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        // Wrappers often repeat what they wrap.
        causes.retain(|known: &String| !known.ends_with(&text));
        causes.push(text);
        source = cause.source();
    }
    if causes.is_empty() { error.to_string() } else { causes.join(": ") }
}
