//! `hb-server serve`: puts everything together, and takes it apart again in order.

use std::sync::Arc;

use hb_api::app::{App, Loops, Settings};
use hb_core::observer::Rules;
use hb_core::policy::Policy;
use hb_store::Store;
use hb_store_sqlite::{Options, SqliteStore};
use hb_wire::id::BootId;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::owner;
use crate::address::{Names, Scheme};
use crate::cli;
use crate::clock::{self, Found, Readings, ServerClock};
use crate::config::{self, Config};
use crate::entropy::{OsEntropy, random};
use crate::error::Failure;
use crate::listener::{self, Limits, STOP_TIMEOUT};
use crate::loops::{self, Tempo};
use crate::prober::PublicPath;
use crate::tls::{Certificates, Files};
use crate::{limits, log, say, stop, systemd};
use hb_notify::Couriers;

mod private;
mod reload;

use reload::Reloader;

/// Requests that may be in flight at once: at 10,000 beats a second, a queue of a tenth of a second.
const REQUESTS_IN_FLIGHT_MAX: usize = 1024;

pub(super) fn run(args: &cli::Serve) -> Result<(), Failure> {
    let config = configure(args)?;
    let level = log::start(&config, std::env::var_os("JOURNAL_STREAM").is_some());
    let open_files = limits::raise_open_files();
    let (limits, warning) = limits::connections(config.connections_max, open_files);
    if let Some(warning) = warning {
        tracing::warn!("{warning}");
    }
    let certificates = certificates(args, &config)?;
    let couriers = Arc::new(Couriers::new(reload::channel_rules(&config)?));
    let opened = SqliteStore::open(&args.data.dir, &Options::default());
    // Root serves whatever it may not give away; it is the account's next start that would miss it.
    if let Err(failure) = owner::hand_over(&args.data.dir) {
        tracing::warn!("what root made may not be usable by the account of the service: {}", failure.message);
    }
    let store: Arc<dyn Store> = Arc::new(opened?);
    private::close(&args.data.dir);
    // One thread for everything but SQLite: a beat is little more than the bare limit of its parts
    // (BENCHMARKS.md), and handing it from thread to thread would add to that.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        Failure::failed(format!("could not start: {error}")).hint("see the limits on processes (ulimit -u)")
    })?;
    let served = runtime.block_on(async {
        let server = Server { limits, certificates: certificates.clone(), couriers: Arc::clone(&couriers), store };
        let tempo = Arc::new(Tempo::new(config.sweep_period));
        let reloader = Reloader::new(args, &config, certificates, couriers, Arc::clone(&tempo), level);
        server.run(&config, tempo, reloader).await
    });
    // Whatever still runs is abandoned; the store finishes what is queued when the last user lets go of it.
    runtime.shutdown_timeout(core::time::Duration::from_secs(1));
    served
}

/// The configuration, with the flags over it.
pub(super) fn configure(args: &cli::Serve) -> Result<Config, Failure> {
    let mut config = config::load(args.config.as_deref(), &|name| std::env::var(name).ok())?;
    config.listen = args.listen.unwrap_or(config.listen);
    config.insecure_http |= args.insecure_http;
    if args.tls_cert.is_some() {
        config.tls_cert.clone_from(&args.tls_cert);
        config.tls_key.clone_from(&args.tls_key);
    }
    Ok(config)
}

/// Where the certificate is, if there is to be one.
fn certificate_files(args: &cli::Serve, config: &Config) -> Option<Files> {
    match (&config.tls_cert, &config.tls_key) {
        (Some(cert), Some(key)) => Some(Files { cert: cert.clone(), key: key.clone() }),
        _ if config.listen.ip().is_loopback() || config.insecure_http => None,
        _ => Some(Files::own(&args.data.dir)),
    }
}

fn certificates(args: &cli::Serve, config: &Config) -> Result<Option<Arc<Certificates>>, Failure> {
    let Some(files) = certificate_files(args, config) else { return Ok(None) };
    let is_own = files == Files::own(&args.data.dir);
    // One that cannot be looked at is there for all that is known: reading it says why not.
    if is_own && matches!(files.cert.try_exists(), Ok(false)) {
        let message = format!("{} is not on loopback, and there is no certificate", config.listen);
        return Err(Failure::config(message).hint(
            "make one with `hb-server init`, give --tls-cert and --tls-key, or say --insecure-http behind a proxy that encrypts",
        ));
    }
    Ok(Some(Arc::new(Certificates::load(files)?)))
}

struct Server {
    limits: Limits,
    certificates: Option<Arc<Certificates>>,
    couriers: Arc<Couriers>,
    store: Arc<dyn Store>,
}

impl Server {
    async fn run(self, config: &Config, tempo: Arc<Tempo>, reloader: Reloader) -> Result<(), Failure> {
        let mut signals = Signals::new()?;
        // Bound first: whoever beats while the rest starts waits in the kernel's queue instead of being refused.
        let tcp = listener::bind(config.listen)?;
        let names = self.names(config, &tcp)?;
        let (app, clock) = self.start(config, &names).await?;
        let (stopper, stop) = stop::pair();
        let mut loops = loops::start(&app, clock, tempo, &stop);
        let router = hb_api::http::router(Arc::clone(&app));
        let serving = listener::serve(tcp, self.certificates.clone(), router, self.limits, stop.clone());
        tokio::pin!(serving);
        let elsewhere =
            if config.listen.ip().is_unspecified() { " and on every other address of this machine" } else { "" };
        say(&format!("listening on {}{elsewhere}", names.local));
        if let Some(certificates) = &self.certificates {
            say(&format!("certificate: {}", crate::tls::fingerprint(&certificates.now().leaf)));
        }
        tracing::info!(
            public_url = %names.public,
            connections_max = self.limits.connections_max,
            "hb-server {} is called {}", env!("CARGO_PKG_VERSION"), names.public
        );
        systemd::ready(&format!("serving {}", names.public));
        loop {
            tokio::select! {
                biased;
                ended = loops.join_next() => return Err(lost(ended)),
                () = &mut serving => return Err(Failure::bug("the listener ended by itself")),
                event = signals.next() => match event {
                    Event::Reload => reloader.reload(),
                    Event::Stop(name) => {
                        tracing::info!("{name}: no new connections, finishing what is in flight");
                        break;
                    }
                }
            }
        }
        systemd::stopping();
        let latest = Instant::now() + STOP_TIMEOUT;
        stopper.stop();
        serving.await;
        finish(&app, loops, latest).await;
        Ok(())
    }

    fn names(&self, config: &Config, tcp: &TcpListener) -> Result<Names, Failure> {
        let listen = tcp
            .local_addr()
            .map_err(|error| Failure::failed(format!("the listener has no address: {error}")).hint("start it again"))?;
        let hostname = hostname::get().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
        let scheme = if self.certificates.is_some() { Scheme::Https } else { Scheme::Http };
        let names = Names::new(config.public_url.as_ref(), scheme, listen, &hostname);
        if names.guessed {
            tracing::warn!(
                "nobody said what this server is called: hosts are told {}, which they may not be able to reach; set \
                 public_url (HB_SERVER_PUBLIC_URL) to what they can",
                names.public
            );
        }
        Ok(names)
    }

    /// The application, with everything since the last time credited.
    async fn start(&self, config: &Config, names: &Names) -> Result<(Arc<App>, ServerClock), Failure> {
        let unread = |error: hb_store::StoreError| {
            Failure::failed(format!("the database cannot be used: {error}")).hint(
                "stop the server and look at the database with `hb-server check`; see that there is space on its disk",
            )
        };
        let stored = self.store.observation().await.map_err(unread)?.map(|stored| stored.value);
        let (anchor, found) = clock::anchor(&Readings::take(BootId::mint(0, random())), stored.as_ref());
        if let Found::WallBehind(behind_ms) = found {
            tracing::warn!(
                behind_ms,
                "this machine's clock is {} s behind what was stored before its restart and cannot be believed: server time \
                 goes on an hour after that; check NTP and the battery of the clock",
                behind_ms / 1000
            );
        }
        let clock = ServerClock::new(anchor);
        let settings = Settings {
            authorities: names.authorities.clone(),
            beat_urls: vec![names.beat_url()],
            policy: Policy { epoch: stored.map_or(0, |stored| stored.epoch), ..Policy::STANDARD },
            observer: Rules::STANDARD,
            refuse_nonces_percent: config.refuse_nonces_percent,
            beats_per_interval: u32::try_from(config.beats_per_interval).unwrap_or(u32::MAX),
            requests_in_flight_max: REQUESTS_IN_FLIGHT_MAX,
            loops: Loops::Here,
            id_key: None,
        };
        let prober = Arc::new(PublicPath::new(names, self.certificates.clone())?);
        let couriers: Arc<Couriers> = Arc::clone(&self.couriers);
        let app = App::new(Arc::clone(&self.store), Arc::new(clock), Arc::new(OsEntropy), couriers, prober, settings);
        app.start(Some(anchor)).await.map_err(unread)?;
        Ok((Arc::new(app), clock))
    }
}

/// After the last request: lets the loops end, and stores until when hb observed.
async fn finish(app: &App, mut loops: JoinSet<()>, latest: Instant) {
    let all = async { while loops.join_next().await.is_some() {} };
    if timeout_at(latest, all).await.is_err() {
        tracing::warn!(
            "messages were still on their way after {STOP_TIMEOUT:?}: they are sent again at the next start"
        );
    }
    loops.shutdown().await;
    if let Err(error) = app.flush().await {
        tracing::error!(%error, "the last observation could not be stored, the next start credits some more: {error}");
    }
}

fn lost(ended: Option<Result<(), tokio::task::JoinError>>) -> Failure {
    let how = match ended {
        Some(Err(error)) => error.to_string(),
        Some(Ok(())) | None => "it ended by itself".to_owned(),
    };
    Failure::bug(format!("one of the server's loops is gone: {how}"))
        .hint("please report it; the service manager starts the server again")
}

enum Event {
    Reload,
    Stop(&'static str),
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::bug(format!("signals cannot be received: {error}")));
        Ok(Self {
            hangup: listen(SignalKind::hangup())?,
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Event {
        tokio::select! {
            _ = self.hangup.recv() => Event::Reload,
            _ = self.terminate.recv() => Event::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Event::Stop("SIGINT"),
        }
    }
}
