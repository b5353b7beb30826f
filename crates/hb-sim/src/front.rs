//! Where requests come in: behind the check of the signature, or through the real router with real signatures.

use std::sync::Arc;

use hb_api::app::App;
use hb_api::beat::Request;
use hb_core::machine::Heard;
use hb_wire::beat::BeatAnswer;
use hb_wire::id::HostId;
use hb_wire::problem::Problem;

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
}

impl Front {
    /// The front door of an application.
    #[must_use]
    pub fn new(app: &Arc<App>, _level: Level) -> Self {
        Self { app: Arc::clone(app) }
    }

    /// A beat whose signature is taken for good.
    pub async fn trusted(&self, id: HostId, heard: &Heard<'_>) -> Result<BeatAnswer, Problem> {
        self.app.verified_beat(id, heard).await
    }

    /// A beat as it comes over the wire.
    pub async fn signed(&self, request: &Request<'_>) -> Result<BeatAnswer, Problem> {
        self.app.beat(request).await
    }
}
