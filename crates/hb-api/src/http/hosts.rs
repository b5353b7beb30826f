//! `/v1/hosts`: what operators see and do.

use std::sync::Arc;

use axum::extract::State;
use hb_store::HostQuery;
use hb_wire::id::HostId;
use hb_wire::name::HostName;
use hb_wire::problem::Problem;
use hb_wire::view::{HostPage, HostPatch, HostState, HostView, PauseRequest, WhyView};
use http::StatusCode;

use super::answer::{Handled, Json, ok};
use super::body::{MaybePosted, NoBody, Posted, shown};
use super::caller::{Caller, Operate, Read};
use super::cursor;
use super::query::{Id, NoQuery, Params, bad};
use crate::app::{App, store_problem, timestamp};
use crate::hosts::bad_text;
use crate::view::state_word;

const LIST: &str = "hosts";

/// Hosts by name, and how the whole fleet stands.
///
/// Retired hosts are shown when `state=retired` or their `name` is asked for. A page may hold fewer hosts than `limit`
/// although there are more: go on while there is a `next_cursor`.
#[utoipa::path(
    get,
    path = "/v1/hosts",
    operation_id = "listHosts",
    tag = "hosts",
    params(
        ("state" = Option<Vec<HostState>>, Query, description = "only hosts in these states: repeated, or separated by commas"),
        ("tag" = Option<Vec<String>>, Query, description = "only hosts with this tag, as key=value; repeated: with all of them"),
        ("name" = Option<String>, Query, description = "only hosts of this name"),
        ("limit" = Option<u16>, Query, description = "hosts on a page, 1 to 1000; 100 by default"),
        ("cursor" = Option<String>, Query, description = "the `next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "a page", body = HostPage),
        (status = "default", description = "refused", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["read"])),
)]
pub(super) async fn list(State(app): State<Arc<App>>, _: Caller<Read>, params: Params) -> Handled<Json<HostPage>> {
    let (query, states) = wanted(params)?;
    let lens = app.lens();
    let found = app.find_hosts(query, &states).await?;
    let summary = app.standing(&lens).await.map_err(|error| store_problem(&error))?;
    let outbox = app.outbox().await.map_err(|error| store_problem(&error))?;
    ok(HostPage {
        observed_at: timestamp(lens.now),
        observing: app.observes(),
        summary,
        channels: outbox.health(),
        hosts: found.hosts.iter().map(|host| lens.host(host)).collect(),
        next_cursor: found.more_after.map(|(name, id)| cursor::write(LIST, &format!("{name}/{id}"))),
    })
}

fn wanted(mut params: Params) -> Result<(HostQuery, Vec<HostState>), Problem> {
    let mut states = Vec::new();
    for word in params.all("state").iter().flat_map(|words| words.split(',')) {
        let state = ALL_STATES.into_iter().find(|state| state_word(*state) == word);
        states.push(state.ok_or_else(|| bad(format!("state={} is not a state of hosts", shown(word))))?);
    }
    let mut tags = Vec::new();
    for tag in params.all("tag") {
        let pair = tag.split_once('=').ok_or_else(|| bad(format!("tag={} is not key=value", shown(&tag))))?;
        tags.push((pair.0.to_owned(), pair.1.to_owned()));
    }
    let name = params.one("name")?;
    let name = name.as_deref().map(HostName::parse).transpose().map_err(|error| bad_text("name", &error))?;
    let limit = params.limit()?;
    let after = params.one("cursor")?.map(|cursor| place(&cursor)).transpose()?;
    params.finish()?;
    let retired = states.contains(&HostState::Retired) || (name.is_some() && states.is_empty());
    Ok((HostQuery { name, tags, retired, after, limit }, states))
}

fn place(cursor: &str) -> Result<(String, HostId), Problem> {
    let place = cursor::read(LIST, cursor)?;
    let (name, id) = place.split_once('/').ok_or_else(|| bad("the cursor was not made for this list"))?;
    let id = id.parse().map_err(|_| bad("the cursor was not made for this list"))?;
    Ok((name.to_owned(), id))
}

const ALL_STATES: [HostState; 8] = [
    HostState::New,
    HostState::Up,
    HostState::Late,
    HostState::Down,
    HostState::Stopped,
    HostState::Paused,
    HostState::Retired,
    HostState::Unknown,
];

/// One host.
#[utoipa::path(
    get,
    path = "/v1/hosts/{id}",
    operation_id = "showHost",
    tag = "hosts",
    params(("id" = HostId, Path, description = "the host's id")),
    responses(
        (status = 200, description = "the host", body = HostView),
        (status = "default", description = "refused", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["read"])),
)]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    _: Caller<Read>,
    Id(id): Id<HostId>,
    _: NoQuery,
) -> Handled<Json<HostView>> {
    let host = app.host(id).await?;
    ok(app.lens().host(&host.value))
}

/// Changes a host; what is absent stays.
#[utoipa::path(
    patch,
    path = "/v1/hosts/{id}",
    operation_id = "changeHost",
    tag = "hosts",
    params(("id" = HostId, Path, description = "the host's id")),
    request_body = HostPatch,
    responses(
        (status = 200, description = "the host, changed", body = HostView),
        (status = 409, description = "the name is taken", body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "the host was retired", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "refused", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["operate"])),
)]
pub(super) async fn patch(
    State(app): State<Arc<App>>,
    _: Caller<Operate>,
    Id(id): Id<HostId>,
    _: NoQuery,
    Posted(patch): Posted<HostPatch>,
) -> Handled<Json<HostView>> {
    let host = app.patch(id, &patch).await?;
    ok(app.lens().host(&host))
}

/// Takes a host out of service: its key is refused from now on, its history stays.
#[utoipa::path(
    delete,
    path = "/v1/hosts/{id}",
    operation_id = "retireHost",
    tag = "hosts",
    params(("id" = HostId, Path, description = "the host's id")),
    responses(
        (status = 204, description = "retired"),
        (status = "default", description = "refused", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["operate"])),
)]
pub(super) async fn retire(
    State(app): State<Arc<App>>,
    _: Caller<Operate>,
    Id(id): Id<HostId>,
    _: NoQuery,
    _: NoBody,
) -> Handled<StatusCode> {
    app.retire(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Pauses a host: its silence raises no alarm.
#[utoipa::path(
    post,
    path = "/v1/hosts/{id}/pause",
    operation_id = "pauseHost",
    tag = "hosts",
    params(("id" = HostId, Path, description = "the host's id")),
    request_body = PauseRequest,
    responses(
        (status = 200, description = "the host, paused", body = HostView),
        (status = "default", description = "refused", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["operate"])),
)]
pub(super) async fn pause(
    State(app): State<Arc<App>>,
    _: Caller<Operate>,
    Id(id): Id<HostId>,
    _: NoQuery,
    MaybePosted(request): MaybePosted<Pause>,
) -> Handled<Json<HostView>> {
    let host = app.pause(id, &request.0).await?;
    ok(app.lens().host(&host))
}

/// A [`PauseRequest`] of which everything may be absent.
#[derive(Debug, serde::Deserialize)]
#[serde(transparent)]
pub(super) struct Pause(PauseRequest);

impl Default for Pause {
    fn default() -> Self {
        Self(PauseRequest { for_s: None, reason: None })
    }
}

/// Ends a pause, and releases clones of the host from quarantine.
#[utoipa::path(
    post,
    path = "/v1/hosts/{id}/resume",
    operation_id = "resumeHost",
    tag = "hosts",
    params(("id" = HostId, Path, description = "the host's id")),
    responses(
        (status = 200, description = "the host", body = HostView),
        (status = "default", description = "refused", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["operate"])),
)]
pub(super) async fn resume(
    State(app): State<Arc<App>>,
    _: Caller<Operate>,
    Id(id): Id<HostId>,
    _: NoQuery,
    _: NoBody,
) -> Handled<Json<HostView>> {
    let host = app.resume(id).await?;
    ok(app.lens().host(&host))
}

/// Why a host is in its state, with the numbers.
#[utoipa::path(
    get,
    path = "/v1/hosts/{id}/why",
    operation_id = "explainHost",
    tag = "hosts",
    params(("id" = HostId, Path, description = "the host's id")),
    responses(
        (status = 200, description = "the explanation", body = WhyView),
        (status = "default", description = "refused", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["read"])),
)]
pub(super) async fn why(
    State(app): State<Arc<App>>,
    _: Caller<Read>,
    Id(id): Id<HostId>,
    _: NoQuery,
) -> Handled<Json<WhyView>> {
    ok(app.why(id).await?)
}
