//! hb itself: status, metrics, limits, and what it writes into its log.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::ConnectInfo;
use hb_api::courier::Failure;
use hb_store::faulty::{Fate, Faults};
use hb_wire::view::{HostPage, Scope, ServerStatus};
use http::StatusCode;
use serde_json::json;

use crate::support::{Call, World};

async fn status(world: &World) -> (StatusCode, ServerStatus) {
    let answer = world.send(&Call::new("GET", "/v1/status")).await;
    (answer.status, answer.read())
}

#[tokio::test]
async fn status_is_well_while_hb_observes_and_a_probe_writes_nothing() {
    let world = World::new().await;
    world.pass(5).await;
    let before = world.digest();
    let (code, shown) = status(&world).await;
    assert_eq!((code, shown.status.as_str(), shown.observing), (StatusCode::OK, "ok", true));
    assert!(shown.swept_at.is_some() && shown.blind_since.is_none());
    assert!(world.digest() == before);
    let head = world.send(&Call::new("HEAD", "/v1/status")).await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
}

#[tokio::test]
async fn status_is_blind_while_nothing_gets_through_and_well_again_after() {
    let world = World::new().await;
    world.pass(1).await;
    world.path.cut.store(true, Ordering::SeqCst);
    world.pass(35).await;
    let (code, shown) = status(&world).await;
    assert_eq!((code, shown.status.as_str(), shown.observing), (StatusCode::SERVICE_UNAVAILABLE, "blind", false));
    assert!(shown.blind_since.is_some());
    world.path.cut.store(false, Ordering::SeqCst);
    world.pass(5).await;
    assert_eq!(status(&world).await.0, StatusCode::OK);
}

#[tokio::test]
async fn status_is_blind_when_nobody_sweeps_although_it_ticks() {
    let world = World::new().await;
    world.pass(1).await;
    for _ in 0..31 {
        world.jump(1);
        world.app.watch.heard(world.now());
        world.app.tick().await.unwrap();
    }
    assert_eq!(status(&world).await.1.status, "blind");
    world.pass(1).await;
    assert_eq!(status(&world).await.1.status, "ok");
}

#[tokio::test]
async fn status_says_so_when_messages_do_not_get_through() {
    let world = World::new().await;
    let hook = json!({"kind": "webhook", "settings": {"url": "https://hooks.example.com/x"}});
    world.post("POST", "/v1/channels", &hook).await;
    let mut web1 = world.enrol("web1").await;
    world.beat(&mut web1).await;
    *world.courier.broken.lock().unwrap() =
        Some(Failure { reason: "503".to_owned(), permanent: false, retry_after_ms: None });
    world.pass(187).await;
    let (code, shown) = status(&world).await;
    assert_eq!((code, shown.status.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "notify"));
    *world.courier.broken.lock().unwrap() = None;
    world.pass(906).await;
    assert_eq!(status(&world).await.1.status, "ok");
}

/// Reads the text format, strictly enough to notice what Prometheus would refuse.
fn parsed(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut typed = std::collections::BTreeSet::new();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge"].contains(&kind), "{line}");
            assert!(typed.insert(name.to_owned()), "{name} stands in two places");
            assert!(kind != "counter" || name.ends_with("_total"), "{line}");
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        assert!(typed.contains(name), "{line} has no type");
        assert!(samples.insert(series.to_owned(), value.parse().unwrap()).is_none(), "{series} stands twice");
    }
    samples
}

#[tokio::test]
async fn the_metrics_are_what_prometheus_reads_and_count_what_happened() {
    let world = World::new().await;
    let mut web1 = world.enrol("web1").await;
    world.enrol("web2").await;
    world.beat(&mut web1).await;
    world.beat(&mut web1).await;
    let spent = web1.call();
    world.send(&spent).await;
    world.send(&spent).await;
    world.pass(10).await;
    let answer = world.ask("GET", "/metrics").await;
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let samples = parsed(std::str::from_utf8(&answer.body).unwrap());
    for (series, value) in [
        ("hb_beats_total{outcome=\"stored\"}", 2.0),
        ("hb_beats_total{outcome=\"decided\"}", 1.0),
        ("hb_beats_total{outcome=\"stale\"}", 1.0),
        ("hb_hosts{state=\"up\"}", 1.0),
        ("hb_hosts{state=\"new\"}", 1.0),
        ("hb_hosts{state=\"down\"}", 0.0),
        ("hb_observing", 1.0),
        ("hb_gaps", 0.0),
        ("hb_sweep_age_seconds", 0.0),
        ("hb_sweeps_total", 10.0),
        ("hb_deliveries{status=\"dead\"}", 0.0),
        ("hb_requests_in_flight", 1.0),
    ] {
        assert!((samples[series] - value).abs() < 1e-9, "{series}: {samples:#?}");
    }
}

#[tokio::test]
async fn the_metrics_are_for_loopback_and_for_keys_with_the_scope() {
    let world = World::new().await;
    let from = |peer: &str, header: Option<&'static str>| {
        let mut call = Call::new("GET", "/metrics");
        if let Some(name) = header {
            call = call.header(name, "203.0.113.9");
        }
        let mut request = call.request().unwrap();
        request.extensions_mut().insert(ConnectInfo(peer.parse::<SocketAddr>().unwrap()));
        request
    };
    assert_eq!(world.send_request(from("127.0.0.1:4", None)).await.status, StatusCode::OK);
    assert_eq!(world.send_request(from("203.0.113.9:4", None)).await.code(), "unauthorized");
    let forwarded = world.send_request(from("127.0.0.1:4", Some("x-forwarded-for"))).await;
    assert_eq!(forwarded.code(), "unauthorized", "behind a proxy everybody comes from loopback");
    let key = world.api_key(&[Scope::Metrics]).await;
    assert_eq!(world.send(&Call::new("GET", "/metrics").key(&key)).await.status, StatusCode::OK);
}

#[tokio::test]
async fn beyond_the_limit_requests_are_shed_and_the_time_counts_as_unobserved() {
    let world = World::with(|settings| settings.requests_in_flight_max = 2).await;
    let mut web1 = world.enrol("web1").await;
    world.pass(1).await;
    let stuck = || {
        let mut request = Call::new("POST", "/v1/keys").key(&world.admin).json(&json!({})).request().unwrap();
        let never = futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>();
        *request.body_mut() = axum::body::Body::from_stream(never);
        request
    };
    let shed = async {
        while world.app.in_flight.count() < 2 {
            tokio::task::yield_now().await;
        }
        let before = world.digest();
        let answers = (world.ask("GET", "/v1/hosts").await, world.send(&web1.call()).await);
        assert!(world.digest() == before);
        answers
    };
    let (managed, beat) = tokio::select! {
        answers = shed => answers,
        _ = world.send_request(stuck()) => panic!("its body never ends"),
        _ = world.send_request(stuck()) => panic!("its body never ends"),
    };
    for answer in [managed, beat] {
        assert_eq!(answer.code(), "unavailable");
        assert_eq!(answer.headers["retry-after"], "1");
    }
    assert_eq!((world.app.in_flight.count(), world.app.metrics.beats_shed.get()), (0, 1), "places are given back");
    world.jump(1);
    assert!(!world.app.tick().await.unwrap().observing(), "who was turned away must not be called silent");
    world.beat(&mut web1).await;
}

/// Writes the log into a text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_tells_of_refusals_and_never_a_secret_a_signature_or_a_body() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let world = World::new().await;
    let mut web1 = world.enrol("web1").await;
    let call = web1.call();
    let signature = call.headers.iter().find(|(name, _)| name == "signature").unwrap().1.clone();
    world.send(&call).await;
    world.send(&call).await;
    let reader = world.api_key(&[Scope::Read]).await;
    world.send(&Call::new("DELETE", &format!("/v1/hosts/{}", web1.id)).key(&reader)).await;
    world.send(&Call::new("GET", "/v1/hosts?cursor=hunter2").key(&reader)).await;
    world.send(&Call::new("GET", "/v1/hosts").key(&reader[..40])).await;
    let typed = json!({"kind": "webhook", "settings": {"url": "ftp://hunter2"}});
    world.post("POST", "/v1/channels", &typed).await;
    world.send(&Call::new("GET", "/no%0Asuch/\u{7f}".trim_end_matches('\u{7f}'))).await;
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for code in ["stale_nonce", "forbidden", "malformed", "unauthorized", "invalid", "not_found"] {
        assert!(text.contains(code), "{code} is not in the log:\n{text}");
    }
    for secret in [&reader[13..30], &world.admin[13..30], &signature[5..30], "hunter2", "\"boot\"", "Bearer hbk"] {
        assert!(!text.contains(secret), "{secret} is in the log:\n{text}");
    }
}

#[tokio::test]
async fn a_store_that_takes_nothing_is_told_at_once_and_can_still_be_read() {
    let full = Arc::new(AtomicBool::new(false));
    let is_full = Arc::clone(&full);
    let writes = ["observe", "touch_key", "beat", "commit", "tell", "settle", "claim", "enrol"];
    let faults = Faults::none().fate(move |call| {
        if is_full.load(Ordering::SeqCst) && writes.contains(&call.method) { Fate::Lost } else { Fate::Pass }
    });
    let world = World::failing(faults).await;
    let mut web1 = world.enrol("web1").await;
    world.beat(&mut web1).await;
    world.pass(5).await;
    full.store(true, Ordering::SeqCst);
    // The next tick that stores is at most five seconds away, and the key was last used more than a minute ago.
    for _ in 0..70 {
        world.jump(1);
        world.app.watch.heard(world.now());
        let _ = world.app.tick().await;
        if world.app.watch.is_unstored() {
            break;
        }
    }
    let (code, shown) = status(&world).await;
    assert_eq!((code, shown.status.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "store"));
    world.jump(70);
    let answer = world.ask("GET", "/v1/hosts").await;
    assert_eq!(answer.status, StatusCode::OK, "whoever looks why is not turned away: {answer}");
    let page: HostPage = answer.read();
    assert!(!page.observing, "nobody sweeps: {answer}");
    assert!(world.ask("GET", "/metrics").await.to_string().contains("hb_observing 0"));
    full.store(false, Ordering::SeqCst);
    world.pass(10).await;
    assert_eq!(status(&world).await.1.status, "ok");
}
