//! `/v1/openapi.json`: the description of the interface, made from the code that serves it.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::answer::{Handled, Json};
use super::query::NoQuery;

/// What the routes do not say themselves.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "hb",
        description = "Heartbeats of servers: signed beats in, alarms out.\n\nJSON in and out. Times are RFC 3339 in UTC, durations seconds with the suffix `_s`. Errors are problem documents (RFC 9457) with a stable `code`. Lists go on by `cursor` while there is a `next_cursor`.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    modifiers(&Schemes),
    tags(
        (name = "beats", description = "What hosts say."),
        (name = "hosts", description = "Hosts, and why they are in their state."),
        (name = "events", description = "What happened."),
        (name = "keys", description = "API keys."),
        (name = "tokens", description = "Enrolment tokens."),
        (name = "channels", description = "Where messages go."),
        (name = "deliveries", description = "What became of messages."),
        (name = "server", description = "hb itself."),
    ),
)]
pub(super) struct Described;

struct Schemes;

impl Modify for Schemes {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = |description: &str| {
            SecurityScheme::Http(
                HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description)).build(),
            )
        };
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("api_key", bearer("An API key, `hbk_…`; also taken from `x-api-key`."));
        components.add_security_scheme("enrolment_token", bearer("An enrolment token, `hbe_…`."));
        let signature =
            "An HTTP Message Signature (RFC 9421) in the profile hb/1, with `Signature-Input` and `Content-Digest`.";
        components.add_security_scheme(
            "host_signature",
            SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description("Signature", signature))),
        );
    }
}

/// This document.
#[utoipa::path(
    get,
    path = "/v1/openapi.json",
    operation_id = "showDescription",
    tag = "server",
    responses((status = 200, description = "this document", body = serde_json::Value)),
)]
pub(super) async fn document(_: NoQuery) -> Handled<Response> {
    Ok(Json(StatusCode::OK, super::openapi()).into_response())
}
