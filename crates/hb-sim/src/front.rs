//! Where requests come in: behind the check of the signature, or through the real router with real signatures.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use hb_api::app::App;
use hb_api::beat::{PATH, Request};
use hb_core::machine::Heard;
use hb_wire::beat::BeatAnswer;
use hb_wire::id::HostId;
use hb_wire::problem::{Code, Problem};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

/// How much of the server a world runs through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Everything behind the check of the signature: the application, the state machine, the store, the outbox.
    Domain,
    /// Everything but the sockets: signed requests through the router.
    Router,
}

/// The server's front door.
#[derive(Debug, Clone)]
pub struct Front {
    app: Arc<App>,
    router: Option<Router>,
}

impl Front {
    /// The front door of an application.
    #[must_use]
    pub fn new(app: &Arc<App>, level: Level) -> Self {
        let router = (level == Level::Router).then(|| hb_api::http::router(Arc::clone(app)));
        Self { app: Arc::clone(app), router }
    }

    /// A beat whose signature is taken for good.
    pub async fn trusted(&self, id: HostId, heard: &Heard<'_>) -> Result<BeatAnswer, Problem> {
        self.app.verified_beat(id, heard).await
    }

    /// A beat as it comes over the wire.
    pub async fn signed(&self, request: &Request<'_>) -> Result<BeatAnswer, Problem> {
        let Some(router) = &self.router else { return self.app.beat(request).await };
        let mut posted = http::Request::post(PATH).header(http::header::CONTENT_TYPE, "application/json");
        for (name, value) in [
            ("host", request.authority),
            ("content-digest", request.content_digest),
            ("signature-input", request.signature_input),
            ("signature", request.signature),
        ] {
            if let Some(value) = value {
                posted = posted.header(name, value);
            }
        }
        let unusable = |what: String| Problem::new(Code::Internal, what);
        let posted = posted.body(Body::from(request.body.to_vec())).map_err(|error| unusable(error.to_string()))?;
        let response = match router.clone().oneshot(posted).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| unusable(error.to_string()))?.to_bytes();
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| unusable(error.to_string()));
        }
        Err(Problem::parse(&body).unwrap_or_else(|| unusable(format!("{status} without a problem document"))))
    }
}
