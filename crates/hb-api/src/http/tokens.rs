//! `/v1/tokens`: enrolment tokens.

use std::sync::Arc;

use axum::extract::State;
use hb_wire::problem::Problem;
use hb_wire::view::{TokenList, TokenRequest, TokenView};
use http::StatusCode;

use super::answer::{Handled, Json, ok};
use super::body::{NoBody, Posted};
use super::caller::{Admin, Caller};
use super::query::{Id, NoQuery};
use crate::app::App;

/// Every token that is neither spent nor expired, without secrets.
#[utoipa::path(
    get,
    path = "/v1/tokens",
    operation_id = "listTokens",
    tag = "tokens",
    responses(
        (status = 200, description = "the tokens", body = TokenList),
        (status = "default", description = "refused", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["admin"])),
)]
pub(super) async fn list(State(app): State<Arc<App>>, _: Caller<Admin>, _: NoQuery) -> Handled<Json<TokenList>> {
    ok(TokenList { tokens: app.list_tokens().await? })
}

/// Makes an enrolment token; its secret stands in this answer only.
#[utoipa::path(
    post,
    path = "/v1/tokens",
    operation_id = "createToken",
    tag = "tokens",
    request_body = TokenRequest,
    responses(
        (status = 201, description = "the token, with its secret", body = TokenView),
        (status = "default", description = "refused", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["admin"])),
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    _: Caller<Admin>,
    _: NoQuery,
    Posted(request): Posted<TokenRequest>,
) -> Handled<Json<TokenView>> {
    Ok(Json(StatusCode::CREATED, app.create_token(&request).await?))
}

/// Revokes a token. Hosts that it enrolled stay.
#[utoipa::path(
    delete,
    path = "/v1/tokens/{id}",
    operation_id = "revokeToken",
    tag = "tokens",
    params(("id" = String, Path, description = "the public part of the token: 8 characters")),
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
    app.revoke_token(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}
