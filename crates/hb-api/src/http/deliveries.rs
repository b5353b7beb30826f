//! `/v1/deliveries`: what became of messages.

use std::sync::Arc;

use axum::extract::State;
use hb_core::delivery::Status;
use hb_wire::id::DeliveryId;
use hb_wire::problem::Problem;
use hb_wire::view::{DeliveryPage, DeliveryView};

use super::answer::{Handled, Json, ok};
use super::body::{NoBody, shown};
use super::caller::{Caller, Operate};
use super::cursor;
use super::query::{Id, NoQuery, Params, bad};
use crate::app::{App, store_problem};
use crate::view::delivery_view;

const LIST: &str = "deliveries";

/// Deliveries, newest first.
#[utoipa::path(
    get,
    path = "/v1/deliveries",
    operation_id = "listDeliveries",
    tag = "deliveries",
    params(
        ("status" = Option<String>, Query, description = "only those: `pending`, `delivered`, `merged` or `dead`"),
        ("limit" = Option<u16>, Query, description = "deliveries on a page, 1 to 1000; 100 by default"),
        ("cursor" = Option<String>, Query, description = "the `next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "a page", body = DeliveryPage),
        (status = "default", description = "refused", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["operate"])),
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    _: Caller<Operate>,
    mut params: Params,
) -> Handled<Json<DeliveryPage>> {
    let limit = params.limit()?;
    let word = params.one("status")?;
    let status = word
        .as_deref()
        .map(|word| Status::from_word(word).ok_or_else(|| bad(format!("status={} is not a status", shown(word)))))
        .transpose()?;
    let after = params.one("cursor")?.map(|cursor| position(&cursor)).transpose()?;
    params.finish()?;
    let listed = app.store.deliveries(status, after, limit).await.map_err(|error| store_problem(&error))?;
    let channels = app.store.channels().await.map_err(|error| store_problem(&error))?;
    let hosts = app.hosts_of(listed.iter().map(|delivery| &delivery.value)).await?;
    let next_cursor =
        listed.last().filter(|_| listed.len() >= limit).map(|last| cursor::write(LIST, &last.position.to_string()));
    ok(DeliveryPage {
        deliveries: listed.iter().map(|delivery| delivery_view(&delivery.value, &channels, &hosts)).collect(),
        next_cursor,
    })
}

fn position(cursor: &str) -> Result<u64, Problem> {
    cursor::read(LIST, cursor)?.parse().map_err(|_| bad("the cursor was not made for this list"))
}

/// Tries a delivery again that was given up, or that waits.
#[utoipa::path(
    post,
    path = "/v1/deliveries/{id}/retry",
    operation_id = "retryDelivery",
    tag = "deliveries",
    params(("id" = DeliveryId, Path, description = "the delivery's id")),
    responses(
        (status = 200, description = "it is tried again", body = DeliveryView),
        (status = 409, description = "it arrived, or is being tried",
            body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "refused", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["operate"])),
)]
pub(super) async fn retry(
    State(app): State<Arc<App>>,
    _: Caller<Operate>,
    Id(id): Id<DeliveryId>,
    _: NoQuery,
    _: NoBody,
) -> Handled<Json<DeliveryView>> {
    ok(app.retry_delivery(id).await?)
}
