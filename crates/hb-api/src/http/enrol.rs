//! `POST /v1/hosts`: enrolment.

use std::sync::Arc;

use axum::extract::{Request, State};
use hb_wire::problem::{Code, Problem};
use hb_wire::view::{EnrolRequest, Enrolment};
use http::StatusCode;

use super::answer::{Handled, Json};
use super::beat::{called, single};
use super::body::{self, BODY_BYTES_MAX};
use crate::app::App;
use crate::auth::presented;
use crate::enrol::Request as EnrolmentRequest;

/// Enrols a host.
///
/// Signed like a beat, with the key that is enrolled: `keyid` is the public key as in the body, the nonce is 22 times `A`.
/// Needs an API key with the scope `register` or an enrolment token (as `Bearer`); a key that is enrolled already needs
/// neither, and gets its id and nonce again.
#[utoipa::path(
    post,
    path = "/v1/hosts",
    operation_id = "enrolHost",
    tag = "hosts",
    request_body = EnrolRequest,
    params(
        ("Content-Digest" = String, Header, description = "RFC 9530, sha-256 of the body"),
        ("Signature-Input" = String, Header, description = "RFC 9421 in the profile hb/1"),
        ("Signature" = String, Header, description = "Ed25519 by the key in the body"),
    ),
    responses(
        (status = 201, description = "enrolled", body = Enrolment),
        (status = 200, description = "this key was enrolled already", body = Enrolment),
        (status = 409, description = "the name is taken", body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "the host with this key was retired",
            body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "refused", body = Problem, content_type = "application/problem+json"),
    ),
    security(
        ("host_signature" = [], "api_key" = ["register"]),
        ("host_signature" = [], "enrolment_token" = []),
        ("host_signature" = []),
    ),
)]
pub(super) async fn enrol(State(app): State<Arc<App>>, request: Request) -> Handled<Json<Enrolment>> {
    let (parts, body) = request.into_parts();
    let headers = &parts.headers;
    let read = body::read(headers, body, BODY_BYTES_MAX).await;
    let bytes = read.as_ref().map(|body| body.to_vec()).unwrap_or_default();
    let wanted = if parts.uri.query().is_some() {
        Err(Problem::new(Code::Malformed, "an enrolment takes no query: it would not be signed"))
    } else {
        read.and_then(|body| body::check_media_type(headers).and_then(|()| body::parse(&body)))
    };
    let outcome = app
        .enrol(EnrolmentRequest {
            presented: presented(headers),
            authority: called(&parts.uri, headers),
            content_digest: single(headers, "content-digest"),
            signature_input: single(headers, "signature-input"),
            signature: single(headers, "signature"),
            body: &bytes,
            read: wanted,
        })
        .await?;
    let status = if outcome.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(Json(status, outcome.enrolment))
}
