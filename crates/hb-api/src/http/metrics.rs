//! `/metrics`: Prometheus' text format, version 0.0.4.

use core::fmt::{Display, Write as _};
use core::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, FromRequestParts, State};
use axum::response::Response;
use hb_wire::problem::Problem;
use hb_wire::view::Scope;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderValue};

use super::answer::{Failure, Handled};
use super::query::NoQuery;
use crate::app::{App, store_problem};

/// Headers by which a proxy says for whom it asks: behind one, everybody would come from loopback.
const FORWARDED_FOR: [&str; 3] = ["forwarded", "x-forwarded-for", "x-real-ip"];

/// Somebody who may read the metrics: from this machine, or with the scope `metrics`.
#[derive(Debug)]
pub(super) struct Reader;

impl FromRequestParts<Arc<App>> for Reader {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Failure> {
        if !is_local(parts.extensions.get(), &parts.headers) {
            app.authorize(&parts.headers, Scope::Metrics).await?;
        }
        Ok(Self)
    }
}

fn is_local(peer: Option<&ConnectInfo<SocketAddr>>, headers: &HeaderMap) -> bool {
    let forwarded = FORWARDED_FOR.iter().any(|name| headers.contains_key(*name));
    !forwarded && peer.is_some_and(|ConnectInfo(peer)| peer.ip().to_canonical().is_loopback())
}

/// Counters for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "showMetrics",
    tag = "server",
    responses(
        (status = 200, description = "the metrics", body = String, content_type = "text/plain"),
        (status = "default", description = "refused", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["metrics"])),
)]
pub(super) async fn metrics(State(app): State<Arc<App>>, _: Reader, _: NoQuery) -> Handled<Response> {
    let mut response = Response::new(Body::from(app.metrics_text().await?));
    let media_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    Ok(response)
}

impl App {
    /// The metrics as Prometheus reads them.
    pub async fn metrics_text(&self) -> Result<String, Problem> {
        let lens = self.lens();
        let standing = self.standing(&lens).await.map_err(|error| store_problem(&error))?;
        let outbox = self.recent_outbox().await.map_err(|error| store_problem(&error))?;
        let counted = &self.metrics;
        let mut page = Page::default();
        page.head("hb_beats_total", "counter", "Beats, by what became of them.");
        for (outcome, counter) in [
            ("stored", &counted.beats_fast),
            ("decided", &counted.beats_slow),
            ("stale", &counted.beats_stale),
            ("refused", &counted.beats_refused),
            ("limited", &counted.beats_limited),
            ("shed", &counted.beats_shed),
        ] {
            page.line("hb_beats_total", Some(("outcome", outcome)), counter.get());
        }
        page.head("hb_hosts", "gauge", "Hosts, by their state as shown.");
        for (state, count) in &standing {
            page.line("hb_hosts", Some(("state", state)), count);
        }
        page.one(
            "hb_observing",
            "gauge",
            "1 while silence is judged, 0 while hb is blind.",
            u64::from(self.observes()),
        );
        page.one("hb_gaps", "gauge", "Spans without observation that are remembered.", lens.ledger.gaps().len());
        let lasted = lens.ledger.gaps().iter().map(hb_core::ledger::Gap::length_ms).fold(0, u64::saturating_add);
        page.one("hb_gaps_seconds", "gauge", "How long they lasted altogether.", Seconds(lasted));
        page.one("hb_sweeps_total", "counter", "Sweeps that ended.", counted.sweeps.get());
        if let swept @ 1.. = counted.swept_at_ms.get() {
            let age_ms = lens.now.0.saturating_sub(swept);
            page.one("hb_sweep_age_seconds", "gauge", "Time since the last sweep ended.", Seconds(age_ms));
        }
        page.one("hb_decisions_total", "counter", "Decisions that sweeps wrote.", counted.decisions.get());
        page.one(
            "hb_conflicts_total",
            "counter",
            "Decisions that somebody else was faster with.",
            counted.conflicts.get(),
        );
        page.one("hb_delivered_total", "counter", "Messages that arrived.", counted.delivered.get());
        page.one("hb_delivery_failures_total", "counter", "Attempts that failed.", counted.delivery_failures.get());
        page.head("hb_deliveries", "gauge", "Messages that wait (failing: after a failed attempt), or were given up.");
        for (status, count) in
            [("pending", outbox.backlog.pending), ("failing", outbox.backlog.failing), ("dead", outbox.backlog.dead)]
        {
            page.line("hb_deliveries", Some(("status", status)), count);
        }
        page.one("hb_channels", "gauge", "Channels that messages go to.", outbox.channels);
        page.one("hb_channels_proven", "gauge", "Channels that a message ever arrived through.", outbox.proven);
        page.one("hb_requests_in_flight", "gauge", "Requests in flight.", self.in_flight.count());
        page.head("hb_build_info", "gauge", "The version of hb-server.");
        page.line("hb_build_info", Some(("version", env!("CARGO_PKG_VERSION"))), 1);
        Ok(page.0)
    }
}

/// Milliseconds, written as seconds.
struct Seconds(u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, label: Option<(&str, &str)>, value: impl Display) {
        let _ = match label {
            // Labels are hb's own words: nothing in them needs escaping.
            Some((label, of)) => writeln!(self.0, "{name}{{{label}=\"{of}\"}} {value}"),
            None => writeln!(self.0, "{name} {value}"),
        };
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        self.line(name, None, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(peer: Option<&str>, header: Option<&'static str>, expected: bool) {
        let peer = peer.map(|peer| ConnectInfo(peer.parse::<SocketAddr>().unwrap()));
        let mut headers = HeaderMap::new();
        if let Some(name) = header {
            headers.insert(name, HeaderValue::from_static("203.0.113.9"));
        }
        assert_eq!(is_local(peer.as_ref(), &headers), expected, "{peer:?} {header:?}");
    }

    #[test]
    fn only_a_loopback_peer_that_asks_for_itself_is_local() {
        check(Some("127.0.0.1:9"), None, true);
        check(Some("[::1]:9"), None, true);
        check(Some("[::ffff:127.0.0.1]:9"), None, true);
        check(Some("203.0.113.9:9"), None, false);
        check(None, None, false);
        for name in ["forwarded", "x-forwarded-for", "x-real-ip"] {
            check(Some("127.0.0.1:9"), Some(name), false);
        }
    }
}
