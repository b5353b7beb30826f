//! `/v1/keys`: API keys.

use std::sync::Arc;

use axum::extract::State;
use hb_wire::problem::Problem;
use hb_wire::view::{KeyList, KeyRequest, KeyView};
use http::StatusCode;

use super::answer::{Handled, Json, ok};
use super::body::{NoBody, Posted};
use super::caller::{Admin, Caller};
use super::query::{Id, NoQuery};
use crate::app::App;

/// Every API key, without secrets.
#[utoipa::path(
    get,
    path = "/v1/keys",
    operation_id = "listKeys",
    tag = "keys",
    responses(
        (status = 200, description = "the keys", body = KeyList),
        (status = "default", description = "refused", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["admin"])),
)]
pub(super) async fn list(State(app): State<Arc<App>>, _: Caller<Admin>, _: NoQuery) -> Handled<Json<KeyList>> {
    ok(KeyList { keys: app.list_keys().await? })
}

/// Makes an API key; its secret stands in this answer only.
#[utoipa::path(
    post,
    path = "/v1/keys",
    operation_id = "createKey",
    tag = "keys",
    request_body = KeyRequest,
    responses(
        (status = 201, description = "the key, with its secret", body = KeyView),
        (status = "default", description = "refused", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["admin"])),
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    _: Caller<Admin>,
    _: NoQuery,
    Posted(request): Posted<KeyRequest>,
) -> Handled<Json<KeyView>> {
    Ok(Json(StatusCode::CREATED, app.create_key(&request).await?))
}

/// Revokes an API key.
#[utoipa::path(
    delete,
    path = "/v1/keys/{id}",
    operation_id = "revokeKey",
    tag = "keys",
    params(("id" = String, Path, description = "the public part of the key: 8 characters")),
    responses(
        (status = 204, description = "revoked"),
        (status = "default", description = "refused", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["admin"])),
)]
pub(super) async fn revoke(
    State(app): State<Arc<App>>,
    _: Caller<Admin>,
    Id(id): Id<String>,
    _: NoQuery,
    _: NoBody,
) -> Handled<StatusCode> {
    app.revoke_key(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}
