//! From the deadline of a silent host to the arrival of the webhook.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use axum::Router;
use axum::extract::State;
use axum::routing::post;
use hb_wire::id::HostId;
use hb_wire::view::Notice;

use crate::fleet::{Connection, Host};
use crate::measure::{histogram, quantile, say};
use crate::server::Server;

/// Interval and grace of every host, in seconds: long enough that the machine, not the protocol, sets the pace.
const INTERVAL_S: u64 = 20;
const GRACE_S: u64 = 10;
const CONNECTIONS: usize = 32;

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Hosts enrolled.
    pub hosts: usize,
    /// How many die.
    pub deaths: usize,
    /// Over how many seconds.
    pub seconds: u64,
}

type Arrivals = Arc<Mutex<BTreeMap<HostId, Vec<(String, Instant)>>>>;

/// Runs it and prints the histogram.
pub(crate) async fn run(binaries: &Path, plan: &Plan) -> Result<()> {
    ensure!(plan.deaths * 2 <= plan.hosts, "more than half of the hosts would die: that is another alarm");
    let arrivals = Arrivals::default();
    let sink = sink(Arc::clone(&arrivals)).await?;
    let env = [("HB_SERVER_ALLOW_NETWORKS", "127.0.0.0/8"), ("HB_SERVER_LOG", "error")];
    let server = Server::hb(binaries, &env).await?;
    let channel = format!(r#"{{"kind":"webhook","settings":{{"url":"http://{sink}/"}}}}"#);
    Connection::open(&server.authority).await?.call("POST", "/v1/channels", &server.admin, &channel).await?;
    let hosts = server.enrol(plan.hosts, INTERVAL_S, GRACE_S).await?;

    let start = Instant::now() + Duration::from_secs(INTERVAL_S);
    let mut shares: Vec<Vec<(Host, Option<Instant>)>> = (0..CONNECTIONS).map(|_| Vec::new()).collect();
    for (n, host) in hosts.into_iter().enumerate() {
        // The first hosts die; when, is spread by a fixed scramble over the whole time.
        let dies = (n < plan.deaths).then(|| {
            let scrambled = (n * 7919 + 13) % plan.deaths;
            start + Duration::from_secs(plan.seconds).mul_f64(fraction(scrambled, plan.deaths))
        });
        shares[n % CONNECTIONS].push((host, dies));
    }
    let end = start + Duration::from_secs(plan.seconds + INTERVAL_S + GRACE_S + 5);
    let workers: Vec<_> =
        shares.into_iter().map(|share| tokio::spawn(keep_alive(server.authority.clone(), share, end))).collect();
    let mut last_beats = BTreeMap::new();
    for worker in workers {
        last_beats.extend(worker.await??);
    }
    report(&last_beats, &arrivals, plan)
}

/// Beats for its hosts, evenly spread, until each dies; the last beat of those that died.
async fn keep_alive(
    authority: String,
    mut share: Vec<(Host, Option<Instant>)>,
    end: Instant,
) -> Result<BTreeMap<HostId, Instant>> {
    let mut connection = Connection::open(&authority).await?;
    let mut last = BTreeMap::new();
    let period = Duration::from_secs(INTERVAL_S);
    let mut round = Instant::now();
    while round < end {
        let count = share.len();
        for (n, (host, dies)) in share.iter_mut().enumerate() {
            tokio::time::sleep_until((round + period.mul_f64(fraction(n, count))).into()).await;
            let alive = dies.is_none_or(|dies| Instant::now() < dies);
            if alive && Instant::now() < end {
                connection.beat(host).await?;
                if dies.is_some() {
                    last.insert(host.id, Instant::now());
                }
            }
        }
        round += period;
    }
    Ok(last)
}

async fn sink(arrivals: Arrivals) -> Result<String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let router = Router::new().route("/", post(arrived)).with_state(arrivals);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

async fn arrived(State(arrivals): State<Arrivals>, body: axum::body::Bytes) {
    let Ok(notice) = serde_json::from_slice::<Notice>(&body) else { return };
    if let (Some(host), Ok(mut arrivals)) = (notice.host, arrivals.lock()) {
        arrivals.entry(host.id).or_default().push((notice.event, Instant::now()));
    }
}

fn report(last_beats: &BTreeMap<HostId, Instant>, arrivals: &Arrivals, plan: &Plan) -> Result<()> {
    let arrivals = arrivals.lock().ok().context("the arrivals")?;
    let need = Duration::from_secs(INTERVAL_S + GRACE_S);
    let mut delays = Vec::new();
    let mut missed = 0;
    for (host, last) in last_beats {
        match arrivals.get(host).and_then(|events| events.iter().find(|(event, _)| event == "down")) {
            Some((_, at)) => delays.push(at.saturating_duration_since(*last + need).as_secs_f64()),
            None => missed += 1,
        }
    }
    let false_alarms = arrivals.keys().filter(|host| !last_beats.contains_key(host)).count();
    let repeats: usize = arrivals
        .values()
        .map(|events| events.iter().filter(|(event, _)| event == "down").count().saturating_sub(1))
        .sum();
    delays.sort_by(f64::total_cmp);
    say(&format!(
        "detection: {} hosts enrolled, {} died one by one over {} s (interval {INTERVAL_S} s, grace {GRACE_S} s)",
        plan.hosts, plan.deaths, plan.seconds
    ));
    say(&format!(
        "from the deadline to the webhook: p50 {:.3} s, p99 {:.3} s (bar: 1 s), longest {:.3} s; {missed} missed, {false_alarms} false, {repeats} repeated",
        quantile(&delays, 0.5),
        quantile(&delays, 0.99),
        delays.last().copied().unwrap_or(f64::NAN),
    ));
    say(histogram(&delays).trim_end());
    ensure!(missed == 0 && false_alarms == 0, "a death was missed or an alarm was false");
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn fraction(n: usize, of: usize) -> f64 {
    n as f64 / of.max(1) as f64
}
