//! `/v1/events`: what happened.

use std::sync::Arc;

use axum::extract::State;
use hb_store::EventQuery;
use hb_wire::id::HostId;
use hb_wire::problem::Problem;
use hb_wire::view::EventPage;
use jiff::Timestamp;

use super::answer::{Handled, Json, ok};
use super::body::shown;
use super::caller::{Caller, Read};
use super::cursor;
use super::query::{Id, Params, bad};
use crate::app::{App, store_problem, time};

const LIST: &str = "events";

/// The events of one host, newest first.
#[utoipa::path(
    get,
    path = "/v1/hosts/{id}/events",
    operation_id = "listHostEvents",
    tag = "events",
    params(
        ("id" = HostId, Path, description = "the host's id"),
        ("since" = Option<String>, Query, description = "only events decided at or after this (RFC 3339)"),
        ("order" = Option<String>, Query, description = "`desc` (default): newest first; `asc`: oldest first, to follow"),
        ("limit" = Option<u16>, Query, description = "events on a page, 1 to 1000; 100 by default"),
        ("cursor" = Option<String>, Query, description = "the `next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "a page", body = EventPage),
        (status = "default", description = "refused", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["read"])),
)]
pub(super) async fn of_host(
    State(app): State<Arc<App>>,
    _: Caller<Read>,
    Id(id): Id<HostId>,
    params: Params,
) -> Handled<Json<EventPage>> {
    app.host(id).await?;
    page(&app, Some(id), params).await
}

/// All events, newest first.
#[utoipa::path(
    get,
    path = "/v1/events",
    operation_id = "listEvents",
    tag = "events",
    params(
        ("since" = Option<String>, Query, description = "only events decided at or after this (RFC 3339)"),
        ("order" = Option<String>, Query, description = "`desc` (default): newest first; `asc`: oldest first, to follow"),
        ("limit" = Option<u16>, Query, description = "events on a page, 1 to 1000; 100 by default"),
        ("cursor" = Option<String>, Query, description = "the `next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "a page", body = EventPage),
        (status = "default", description = "refused", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["read"])),
)]
pub(super) async fn all(State(app): State<Arc<App>>, _: Caller<Read>, params: Params) -> Handled<Json<EventPage>> {
    page(&app, None, params).await
}

/// One page. Oldest first it always has a cursor, even at the end, so that a follower can ask again from there.
async fn page(app: &App, host: Option<HostId>, mut params: Params) -> Handled<Json<EventPage>> {
    let limit = params.limit()?;
    let since = params.parsed::<Timestamp>("since", "a time such as 2026-11-23T10:00:00Z")?;
    let ascending = match params.one("order")?.as_deref() {
        None | Some("desc") => false,
        Some("asc") => true,
        Some(other) => return Err(bad(format!("order={} is neither asc nor desc", shown(other))).into()),
    };
    let list = format!("{LIST}/{}/{ascending}", host.map(|id| id.to_string()).unwrap_or_default());
    let cursor = params.one("cursor")?;
    params.finish()?;
    let after = cursor.as_deref().map(|cursor| position(&list, cursor)).transpose()?;
    let more = (limit + 1).min(hb_store::PAGE_MAX);
    let query = EventQuery { host, since: since.map(time), ascending, after, limit: more };
    let mut events = app.store.events(&query).await.map_err(|error| store_problem(&error))?;
    let mut full = events.len() > limit;
    events.truncate(limit);
    if limit == hb_store::PAGE_MAX && events.len() == limit {
        // The store gives no more than a page: whether there is more, the next request finds out.
        full = true;
    }
    let end = events.last().map(|listed| listed.position);
    let next_cursor = match end {
        Some(position) if full || ascending => Some(cursor::write(&list, &position.to_string())),
        Some(_) => None,
        None => cursor.filter(|_| ascending),
    };
    ok(EventPage { events: events.iter().map(|listed| app.event_view(&listed.value)).collect(), next_cursor })
}

fn position(list: &str, cursor: &str) -> Result<u64, Problem> {
    cursor::read(list, cursor)?.parse().map_err(|_| bad("the cursor was not made for this list"))
}
