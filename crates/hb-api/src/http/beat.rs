//! `POST /v1/beat`: the hot path. Reads three headers and the body, and hands them on.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use hb_wire::beat::{BEAT_BYTES_MAX, Beat, BeatAnswer};
use hb_wire::problem::{Code, Problem};
use http::header::HOST;
use http::{HeaderMap, Uri};

use super::answer::{self, Failure};
use super::{body, shed};
use crate::app::App;
use crate::beat::{PATH, Request as BeatRequest};

/// One beat of a host, signed with its key.
///
/// Answers after the beat is durable. On 409 sign again, with the nonce in `next`.
#[utoipa::path(
    post,
    path = "/v1/beat",
    operation_id = "beat",
    tag = "beats",
    request_body = Beat,
    params(
        ("Content-Digest" = String, Header, description = "RFC 9530, sha-256 of the body"),
        ("Signature-Input" = String, Header, description = "RFC 9421 in the profile hb/1"),
        ("Signature" = String, Header, description = "Ed25519 by the host's key"),
    ),
    responses(
        (status = 200, description = "the beat is stored", body = BeatAnswer),
        (status = 409, description = "the nonce was spent or is too old: `next` carries a fresh one; or the key is a clone's",
            body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "refused", body = Problem, content_type = "application/problem+json"),
    ),
    security(("host_signature" = [])),
)]
pub(super) async fn beat(State(app): State<Arc<App>>, request: Request) -> Response {
    match take(&app, request).await {
        Ok(answer) => answer::terse(&answer),
        Err(problem) => {
            let response = Failure::from(problem).into_response();
            answer::log(&response, &http::Method::POST, PATH);
            response
        }
    }
}

async fn take(app: &App, request: Request) -> Result<BeatAnswer, Problem> {
    let Some(_place) = app.in_flight.enter() else {
        // Whoever could not be taken in must not be called silent.
        app.metrics.beats_shed.add();
        app.watch.shed(app.clock.now());
        return Err(shed());
    };
    let (parts, body) = request.into_parts();
    let read = if parts.uri.query().is_some() {
        Err(Problem::new(Code::Malformed, "a beat takes no query: it would not be signed"))
    } else {
        body::read(&parts.headers, body, BEAT_BYTES_MAX).await
    };
    let body = read.inspect_err(|_| app.metrics.beats_refused.add())?;
    app.beat(&BeatRequest {
        authority: called(&parts.uri, &parts.headers),
        content_digest: single(&parts.headers, "content-digest"),
        signature_input: single(&parts.headers, "signature-input"),
        signature: single(&parts.headers, "signature"),
        body: &body,
    })
    .await
}

/// The value of a header that stands exactly once.
pub(super) fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

/// The authority that the client called.
pub(super) fn called<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    single(headers, HOST.as_str()).or_else(|| uri.authority().map(http::uri::Authority::as_str))
}
