//! Answers: JSON, nothing, or a problem document; always with the headers that every answer of hb has.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use hb_wire::problem::{Code, PROBLEM_JSON, Problem};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

/// A request that failed.
#[derive(Debug)]
pub struct Failure(pub Box<Problem>);

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

/// What a handler comes to.
pub type Handled<T> = Result<T, Failure>;

/// What the log is told of a failure: never a body, a header or a query.
#[derive(Debug, Clone)]
pub(crate) struct Logged {
    code: Code,
    detail: String,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let problem = self.0;
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = document(status, PROBLEM_JSON, &problem);
        let headers = response.headers_mut();
        if let Some(wait_s) = problem.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(wait_s));
        }
        if problem.code == Code::Unauthorized {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"hb\""));
        }
        response.extensions_mut().insert(Logged { code: problem.code, detail: problem.detail });
        response
    }
}

/// A JSON answer.
#[derive(Debug)]
pub struct Json<T>(pub StatusCode, pub T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        document(self.0, "application/json", &self.1)
    }
}

/// An answer of 200 with JSON.
#[expect(clippy::unnecessary_wraps, reason = "the last expression of handlers, which can fail before it")]
pub(crate) fn ok<T: Serialize>(value: T) -> Handled<Json<T>> {
    Ok(Json(StatusCode::OK, value))
}

/// An answer of 200 with JSON to the agent of a host, and nothing that only a browser or a cache would read: it is sent with
/// every beat, and no cache keeps the answer to a POST that does not ask for it.
pub(crate) fn terse(value: &impl Serialize) -> Response {
    write(StatusCode::OK, "application/json", value)
}

fn document(status: StatusCode, media_type: &'static str, value: &impl Serialize) -> Response {
    finish(write(status, media_type, value))
}

fn write(status: StatusCode, media_type: &'static str, value: &impl Serialize) -> Response {
    // hb's own types have text keys and finite numbers; whatever else happened, it is our bug and not the client's.
    let (status, body) = match serde_json::to_vec(value) {
        Ok(body) => (status, body),
        Err(error) => {
            tracing::error!(error = %error, "an answer could not be written as JSON: {error}");
            (StatusCode::INTERNAL_SERVER_ERROR, b"{\"code\":\"internal\",\"status\":500}".to_vec())
        }
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// The headers that every answer has, but that to a beat.
pub(crate) fn finish(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Writes the one line that a failed request leaves in the log.
pub(crate) fn log(response: &Response, method: &http::Method, path: &str) {
    let Some(Logged { code, detail }) = response.extensions().get() else { return };
    let status = response.status().as_u16();
    // A path is what a stranger sent: it is logged quoted, and only as much of it as any route has.
    let path: String = path.chars().take(PATH_CHARS_LOGGED).collect();
    if status >= 500 {
        tracing::error!(http.method = %method, http.path = ?path, http.status = status, problem.code = %code,
            "{method} {path:?} failed with {status}: {detail}");
    } else {
        tracing::debug!(http.method = %method, http.path = ?path, http.status = status, problem.code = %code,
            "{method} {path:?} was refused with {status} {code}");
    }
}

/// Longest part of a path that is logged, in characters.
const PATH_CHARS_LOGGED: usize = 100;
