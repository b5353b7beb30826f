//! `POST /v1/hearbeat` and `/v1/heartbeat`: the heartbeats of hb-api, as its users' crontabs send them.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use hb_wire::problem::{Code, Problem};
use hb_wire::view::Scope;
use http::{Method, StatusCode};

use super::answer::{self, Failure, Json};
use super::{body, shed};
use crate::app::App;
use crate::heartbeat::{HEARTBEAT_BYTES_MAX, Heartbeat, Message};

/// One heartbeat, as hosts sent it to hb-api.
///
/// Unsigned: the API key vouches for it. The first one of an unknown `hostId` makes the host; a key can beat only for
/// hosts that were made so, never for one that an agent enrolled. Another `intervalMs` changes the host's interval. The
/// body is JSON whatever its media type says: the crontabs that send it say none.
#[utoipa::path(
    post,
    path = "/v1/heartbeat",
    operation_id = "heartbeat",
    tag = "beats",
    request_body = Heartbeat,
    responses(
        (status = 200, description = "the heartbeat is stored", body = Message),
        (status = 409, description = "another host, one with a key of its own, has this name",
            body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "this host was retired", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "more heartbeats than the interval asks for",
            body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "refused", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["ping"])),
)]
pub(super) async fn heartbeat(State(app): State<Arc<App>>, request: Request) -> Response {
    answered(&app, request).await
}

/// The same as `/v1/heartbeat`, under the name that hb-api gave it.
#[utoipa::path(
    post,
    path = "/v1/hearbeat",
    operation_id = "hearbeat",
    tag = "beats",
    request_body = Heartbeat,
    responses(
        (status = 200, description = "the heartbeat is stored", body = Message),
        (status = "default", description = "as for `/v1/heartbeat`",
            body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["ping"])),
)]
pub(super) async fn hearbeat(State(app): State<Arc<App>>, request: Request) -> Response {
    answered(&app, request).await
}

async fn answered(app: &App, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    match take(app, request).await {
        Ok(()) => Json(StatusCode::OK, Message::ok()).into_response(),
        Err(problem) => {
            let response = Failure::from(problem).into_response();
            answer::log(&response, &Method::POST, &path);
            response
        }
    }
}

async fn take(app: &App, request: Request) -> Result<(), Problem> {
    let result = match app.in_flight.enter() {
        Some(_place) => read(app, request).await,
        None => Err(shed()),
    };
    // As for every beat: whoever could not be taken in must not be called silent.
    app.note(&result);
    result
}

async fn read(app: &App, request: Request) -> Result<(), Problem> {
    let (parts, body) = request.into_parts();
    app.authorize(&parts.headers, Scope::Ping).await?;
    if parts.uri.query().is_some() {
        return Err(Problem::new(Code::Malformed, "a heartbeat takes no query"));
    }
    let body = body::read(&parts.headers, body, HEARTBEAT_BYTES_MAX).await?;
    let heartbeat: Heartbeat = body::parse(&body)?;
    app.heartbeat(&heartbeat).await
}
