//! `/v1/channels`: where messages go.

use std::sync::Arc;

use axum::extract::State;
use hb_wire::id::ChannelId;
use hb_wire::problem::Problem;
use hb_wire::view::{ChannelList, ChannelRequest, ChannelView, TestResult};
use http::StatusCode;

use super::answer::{Handled, Json, ok};
use super::body::{NoBody, Posted};
use super::caller::{Caller, Operate};
use super::query::{Id, NoQuery};
use crate::app::App;

/// Every channel, without secrets.
#[utoipa::path(
    get,
    path = "/v1/channels",
    operation_id = "listChannels",
    tag = "channels",
    responses(
        (status = 200, description = "the channels", body = ChannelList),
        (status = "default", description = "refused", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["operate"])),
)]
pub(super) async fn list(State(app): State<Arc<App>>, _: Caller<Operate>, _: NoQuery) -> Handled<Json<ChannelList>> {
    ok(ChannelList { channels: app.list_channels().await? })
}

/// Adds a channel; a secret that is made for it stands in this answer only.
#[utoipa::path(
    post,
    path = "/v1/channels",
    operation_id = "addChannel",
    tag = "channels",
    request_body = ChannelRequest,
    responses(
        (status = 201, description = "the channel", body = ChannelView),
        (status = 409, description = "the name is taken", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "refused", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["operate"])),
)]
pub(super) async fn add(
    State(app): State<Arc<App>>,
    _: Caller<Operate>,
    _: NoQuery,
    Posted(request): Posted<ChannelRequest>,
) -> Handled<Json<ChannelView>> {
    Ok(Json(StatusCode::CREATED, app.add_channel(&request).await?))
}

/// Removes a channel, and what waits for it.
#[utoipa::path(
    delete,
    path = "/v1/channels/{id}",
    operation_id = "removeChannel",
    tag = "channels",
    params(("id" = ChannelId, Path, description = "the channel's id")),
    responses(
        (status = 204, description = "removed"),
        (status = "default", description = "refused", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["operate"])),
)]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    _: Caller<Operate>,
    Id(id): Id<ChannelId>,
    _: NoQuery,
    _: NoBody,
) -> Handled<StatusCode> {
    app.remove_channel(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sends a real message through a channel, the way that alarms take, and waits for what becomes of it.
#[utoipa::path(
    post,
    path = "/v1/channels/{id}/test",
    operation_id = "testChannel",
    tag = "channels",
    params(("id" = ChannelId, Path, description = "the channel's id")),
    responses(
        (status = 200, description = "what became of it, delivered or not", body = TestResult),
        (status = "default", description = "refused", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["operate"])),
)]
pub(super) async fn test(
    State(app): State<Arc<App>>,
    _: Caller<Operate>,
    Id(id): Id<ChannelId>,
    _: NoQuery,
    _: NoBody,
) -> Handled<Json<TestResult>> {
    ok(app.test_channel(id).await?)
}
