//! The HTTP interface: routes, and nothing that decides.
//!
//! Every route stands once, with its description beside its handler, so that `/v1/openapi.json` cannot say anything else
//! than what is served. Beats go past everything that the other routes share.

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hb_wire::problem::{Code, Problem};
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;

mod answer;
mod beat;
mod body;
mod caller;
mod channels;
mod cursor;
mod deliveries;
mod describe;
mod enrol;
mod events;
mod heartbeat;
mod hosts;
mod keys;
mod metrics;
mod query;
mod status;
mod tokens;

pub use answer::{Failure, Handled, Json};
pub use body::{BODY_BYTES_MAX, BODY_TIMEOUT};
pub use query::{LIMIT_DEFAULT, LIMIT_MAX};

/// How long a client waits that was turned away because too many requests were in flight, in seconds.
pub const SHED_WAIT_S: u64 = 1;

/// Everything that is served.
pub fn router(app: Arc<App>) -> Router {
    let (beats, _) = beats().split_for_parts();
    beats.method_not_allowed_fallback(no_method).with_state(Arc::clone(&app)).merge(management(app))
}

/// Beats, and nothing else: for a program that does nothing else.
pub fn ingest(app: Arc<App>) -> Router {
    let (beats, _) = beats().split_for_parts();
    beats.fallback(no_route).method_not_allowed_fallback(no_method).with_state(app)
}

/// Everything but the signed beats.
pub fn management(app: Arc<App>) -> Router {
    let (heartbeats, _) = heartbeats().split_for_parts();
    let (managed, _) = managed().split_for_parts();
    let managed = managed
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), guard));
    heartbeats.method_not_allowed_fallback(no_method).merge(managed).with_state(app)
}

/// The description of everything that is served (OpenAPI 3.1).
#[must_use]
pub fn openapi() -> &'static OpenApi {
    static DOCUMENT: LazyLock<OpenApi> = LazyLock::new(|| {
        let mut document = describe::Described::openapi();
        document.merge(beats().into_openapi());
        document.merge(heartbeats().into_openapi());
        document.merge(managed().into_openapi());
        document
    });
    &DOCUMENT
}

fn beats() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(beat::beat))
}

/// Heartbeats as hb-api took them: past the guard, as beats are, but they ask for more rights than a beat does.
fn heartbeats() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(heartbeat::heartbeat)).routes(routes!(heartbeat::hearbeat))
}

fn managed() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(hosts::list, enrol::enrol))
        .routes(routes!(hosts::show, hosts::patch, hosts::retire))
        .routes(routes!(hosts::pause))
        .routes(routes!(hosts::resume))
        .routes(routes!(hosts::why))
        .routes(routes!(events::of_host))
        .routes(routes!(events::all))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::revoke))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::revoke))
        .routes(routes!(channels::list, channels::add))
        .routes(routes!(channels::remove))
        .routes(routes!(channels::test))
        .routes(routes!(deliveries::list))
        .routes(routes!(deliveries::retry))
        .routes(routes!(status::status))
        .routes(routes!(metrics::metrics))
        .routes(routes!(describe::document))
}

/// What all routes but those of beats share: a limit on what is in flight, the headers of every answer, and the log.
async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let response = match app.in_flight.enter() {
        Some(_place) => next.run(request).await,
        None => Failure::from(shed()).into_response(),
    };
    let response = answer::finish(response);
    answer::log(&response, &method, &path);
    response
}

fn shed() -> Problem {
    Problem {
        retry_after_s: Some(SHED_WAIT_S),
        ..Problem::new(Code::Unavailable, "the server has as many requests in flight as it takes")
    }
}

async fn no_route() -> Failure {
    Problem::new(Code::NotFound, "there is nothing at this path")
        .hint("the routes are described in /v1/openapi.json")
        .into()
}

async fn no_method() -> Failure {
    Problem::new(Code::MethodNotAllowed, "this path does not take this method; `Allow` lists those that it takes")
        .into()
}
