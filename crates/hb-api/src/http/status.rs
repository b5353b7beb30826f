//! `/v1/status`: whether hb itself is well, for load balancers and for whoever watches the watcher.

use std::sync::Arc;

use axum::extract::State;
use hb_core::time::{Time, seconds};
use hb_wire::view::ServerStatus;
use http::StatusCode;

use super::answer::{Handled, Json};
use super::query::NoQuery;
use crate::app::{App, Loops, timestamp};

/// The last tick, or the last sweep, is at most this old while hb is well: several times their period.
const STALLED_MS: u64 = seconds(30);
/// The same where the sweeper comes by each minute, and may miss one.
const STALLED_ELSEWHERE_MS: u64 = seconds(150);

/// Whether the server observes, and can store and notify. Cheap: no write, and no read more often than every 5 s.
#[utoipa::path(
    get,
    path = "/v1/status",
    operation_id = "showStatus",
    tag = "server",
    responses(
        (status = 200, description = "it observes, stores and notifies", body = ServerStatus),
        (status = 503, description = "it does not: `status` says what is wrong", body = ServerStatus),
    ),
)]
pub(super) async fn status(State(app): State<Arc<App>>, _: NoQuery) -> Handled<Json<ServerStatus>> {
    let status = app.status().await;
    let code = if status.status == "ok" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(Json(code, status))
}

impl App {
    /// True while silence is judged: nothing is known to be in the way, time goes on, and the sweeper comes by.
    #[must_use]
    pub fn observes(&self) -> bool {
        let now = self.clock.now();
        let shown = self.watch.shown();
        // Before the first sweep the time since the start counts: a sweeper that never runs is noticed, too.
        let stalled = |at: Time| now.since(at.max(self.started_at)) > STALLED_MS;
        match self.settings.loops {
            Loops::Here => {
                shown.observing() && !stalled(shown.observed_until) && !stalled(Time(self.metrics.swept_at_ms.get()))
            }
            // What is known is known from the sweeper: it ticks when it sweeps.
            Loops::Elsewhere => {
                let is_fresh = now.since(shown.observed_until) <= STALLED_ELSEWHERE_MS;
                self.watch.is_known() && shown.observing() && is_fresh
            }
        }
    }

    fn swept_at(&self) -> Option<Time> {
        let swept = match self.settings.loops {
            Loops::Here => Time(self.metrics.swept_at_ms.get()),
            Loops::Elsewhere if !self.watch.is_known() => Time::ZERO,
            Loops::Elsewhere => self.watch.shown().observed_until,
        };
        Some(swept).filter(|at| *at > Time::ZERO)
    }

    /// Whether hb is well.
    pub async fn status(&self) -> ServerStatus {
        let now = self.clock.now();
        let shown = self.watch.shown();
        let swept = self.swept_at();
        let blind = !self.observes();
        let outbox = self.recent_outbox().await;
        let word = match &outbox {
            Err(_) => "store",
            Ok(_) if self.watch.is_unstored() => "store",
            Ok(_) if blind => "blind",
            Ok(outbox) if !outbox.gets_through() => "notify",
            Ok(_) => "ok",
        };
        ServerStatus {
            status: word.to_owned(),
            observing: !blind,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now: timestamp(now),
            blind_since: shown.deaf_since.or(blind.then_some(shown.observed_until)).map(timestamp),
            swept_at: swept.map(timestamp),
        }
    }
}
