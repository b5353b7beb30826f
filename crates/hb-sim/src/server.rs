//! The simulated server process: the real application over the store in memory, killed, stopped and starved at will.

use core::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::future::{Either, select};
use hb_api::app::{App, Clock, Entropy, Loops, Settings};
use hb_api::beat::Request;
use hb_api::watch::{Canary, Prober};
use hb_core::mutant::{Mutant, active};
use hb_core::observer::Rules;
use hb_core::policy::Policy;
use hb_core::time::Time;
use hb_store::MemoryStore;
use hb_store::faulty::{Call, Fate, Faults, FaultyStore, Point, When};

use crate::courier::SimCourier;
use crate::dice::Dice;
use crate::executor::{Executor, Timeline, lock};
use crate::front::{Front, Level};

/// Server time when the world begins, in milliseconds since 1970.
pub const EPOCH_MS: u64 = 1_795_444_000_000;
/// What beats are signed for.
pub const AUTHORITY: &str = "hb.example.com";
/// How long the canary waits for an answer, in milliseconds.
const CANARY_TIMEOUT_MS: u64 = 3_000;
/// How often the canary is sent, in milliseconds.
const CANARY_EVERY_MS: u64 = 10_000;
/// How often the server ticks, in milliseconds.
const TICK_EVERY_MS: u64 = 1_000;
/// Workers that deliver.
const COURIERS: usize = 3;

/// What happens to the server from outside; shared with the hooks that run inside it.
#[derive(Debug, Default)]
pub struct Weather {
    /// The public path is cut: neither beats nor canaries get in, and nothing gets out.
    pub cut: AtomicBool,
    /// The store turns writes away.
    pub overloaded: AtomicBool,
    /// The store fails: some calls are not done, some are done and not answered.
    pub failing: AtomicBool,
    /// One store call in so many waits (0: none does), which widens every window between a read and its write.
    pub widen_one_in: AtomicU64,
    /// The process is to be killed at the next write.
    pub kill_at_write: AtomicBool,
    /// A write was reached while that was wished: the process does nothing more.
    pub killed: AtomicBool,
    /// How far the wall clock is off, in milliseconds. Only the mutant `Wall` reads it.
    pub wall_ms: AtomicI64,
    /// Store calls that failed on purpose.
    pub faults: AtomicU64,
}

/// Server time: virtual time. What a wall clock says only a mutant asks.
#[derive(Debug)]
pub struct SimClock {
    timeline: Timeline,
    weather: Arc<Weather>,
}

impl Clock for SimClock {
    fn now(&self) -> Time {
        let now = EPOCH_MS + self.timeline.now();
        if active(Mutant::Wall) {
            return Time(now.saturating_add_signed(self.weather.wall_ms.load(Ordering::Relaxed)));
        }
        Time(now)
    }
}

#[derive(Debug)]
struct SimEntropy(Mutex<Dice>);

impl Entropy for SimEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        lock(&self.0).fill(buffer);
    }
}

#[derive(Debug)]
struct SimProber {
    timeline: Timeline,
    weather: Arc<Weather>,
    /// Empty when the process is gone: the front holds the application, which holds this.
    front: Mutex<Option<Front>>,
}

impl SimProber {
    /// The canary of every ten seconds behind the check of the signature, which would cost more than all the rest.
    async fn unsigned(&self, app: &App) {
        let sent_at = app.clock.now();
        self.timeline.sleep(20).await;
        let cut = || self.weather.cut.load(Ordering::Relaxed);
        if !cut() && app.flush().await.is_ok() && !cut() {
            app.watch.heard(app.clock.now());
        } else {
            app.watch.missed(sent_at);
        }
    }
}

#[async_trait]
impl Prober for SimProber {
    async fn probe(&self, canary: Canary) -> Result<(), String> {
        if self.weather.cut.load(Ordering::Relaxed) {
            self.timeline.sleep(CANARY_TIMEOUT_MS).await;
            return Err("no answer".to_owned());
        }
        self.timeline.sleep(20).await;
        let front = lock(&self.front).clone().ok_or("the server is gone")?;
        let request = Request {
            authority: Some(AUTHORITY),
            content_digest: Some(&canary.content_digest),
            signature_input: Some(&canary.signature_input),
            signature: Some(&canary.signature),
            body: &canary.body,
        };
        match front.signed(&request).await {
            Ok(_) if !self.weather.cut.load(Ordering::Relaxed) => Ok(()),
            Ok(_) => Err("the answer was lost".to_owned()),
            Err(problem) => Err(problem.detail),
        }
    }
}

/// One life of the server process.
#[derive(Debug)]
pub struct Server {
    /// The application.
    pub app: Arc<App>,
    /// Where its requests come in.
    pub front: Front,
    /// Its tasks.
    pub executor: Executor,
    prober: Arc<SimProber>,
}

impl Drop for Server {
    fn drop(&mut self) {
        *lock(&self.prober.front) = None;
    }
}

/// What outlives the process.
#[derive(Debug)]
pub struct Machine {
    /// Everything that was ever committed.
    pub disk: MemoryStore,
    /// The same, with faults.
    pub store: Arc<FaultyStore<MemoryStore>>,
    /// Outside influences.
    pub weather: Arc<Weather>,
    timeline: Timeline,
    dice: Dice,
    /// Evaluators that sweep at the same time.
    pub sweepers: usize,
    /// Milliseconds between two sweeps of one of them.
    pub sweep_every_ms: u64,
    /// Share of good nonces that are refused, in percent.
    pub refuse_nonces_percent: u8,
    level: Level,
}

impl Machine {
    /// A machine with an empty disk.
    #[must_use]
    pub fn new(timeline: Timeline, mut dice: Dice, level: Level) -> Self {
        let weather = Arc::new(Weather::default());
        let disk = MemoryStore::new();
        let plan = plan(&timeline, &weather, dice.fork());
        let store = Arc::new(FaultyStore::new(disk.clone(), plan));
        Self {
            disk,
            store,
            weather,
            timeline,
            dice,
            sweepers: 1,
            sweep_every_ms: 1_000,
            refuse_nonces_percent: 0,
            level,
        }
    }

    /// Starts the process.
    #[must_use]
    pub fn boot(&mut self, courier: &Arc<SimCourier>, epoch: u32) -> Server {
        self.weather.kill_at_write.store(false, Ordering::Relaxed);
        self.weather.killed.store(false, Ordering::Relaxed);
        let prober = Arc::new(SimProber {
            timeline: self.timeline.clone(),
            weather: Arc::clone(&self.weather),
            front: Mutex::new(None),
        });
        let clock = SimClock { timeline: self.timeline.clone(), weather: Arc::clone(&self.weather) };
        let app = Arc::new(App::new(
            Arc::clone(&self.store) as _,
            Arc::new(clock),
            Arc::new(SimEntropy(Mutex::new(self.dice.fork()))),
            Arc::clone(courier) as _,
            Arc::clone(&prober) as _,
            Settings {
                authorities: vec![AUTHORITY.to_owned()],
                beat_urls: vec![format!("https://{AUTHORITY}/v1/beat")],
                policy: Policy { epoch, ..Policy::STANDARD },
                observer: Rules::STANDARD,
                refuse_nonces_percent: self.refuse_nonces_percent,
                beats_per_interval: 10,
                requests_in_flight_max: 1_000,
                loops: Loops::Here,
                id_key: None,
            },
        ));
        let front = Front::new(&app, self.level);
        *lock(&prober.front) = Some(front.clone());
        let mut executor = Executor::default();
        executor.spawn(main_task(Arc::clone(&app), Arc::clone(&prober), self.level));
        // Every sweeper and courier waits for the start by itself: it is idle until hb has looked at its past.
        for n in 0..self.sweepers {
            executor.spawn(sweep_task(Arc::clone(&app), self.timeline.clone(), self.sweep_every_ms, 7 * n as u64));
        }
        for _ in 0..COURIERS {
            executor.spawn(courier_task(Arc::clone(&app), self.timeline.clone()));
        }
        Server { app, front, executor, prober }
    }
}

/// Starts, retrying as a supervisor would, then ticks and sends the canary.
async fn main_task(app: Arc<App>, prober: Arc<SimProber>, level: Level) {
    let timeline = prober.timeline.clone();
    while app.start(None).await.is_err() {
        timeline.sleep(1_000).await;
    }
    app.metrics.swept_at_ms.set(1);
    let canary = async {
        loop {
            match level {
                Level::Domain => prober.unsigned(&app).await,
                Level::Router => drop(app.send_canary().await),
            }
            timeline.sleep(CANARY_EVERY_MS).await;
        }
    };
    let ticks = async {
        loop {
            let _ = app.tick().await;
            timeline.sleep(TICK_EVERY_MS).await;
        }
    };
    futures_util::future::join(Box::pin(canary), Box::pin(ticks)).await;
}

async fn started(app: &App, timeline: &Timeline) {
    while app.metrics.swept_at_ms.get() == 0 {
        timeline.sleep(100).await;
    }
}

async fn sweep_task(app: Arc<App>, timeline: Timeline, every_ms: u64, offset_ms: u64) {
    timeline.sleep(offset_ms).await;
    started(&app, &timeline).await;
    loop {
        let _ = app.sweep().await;
        timeline.sleep(every_ms).await;
    }
}

async fn courier_task(app: Arc<App>, timeline: Timeline) {
    started(&app, &timeline).await;
    loop {
        match app.deliver().await {
            Ok(0) => {}
            Ok(_) => continue,
            Err(_) => timeline.sleep(1_000).await,
        }
        let next = app.store.next_claim().await.ok().flatten().unwrap_or(Time::MAX);
        let wait = next.since(app.clock.now()).clamp(1, 10_000);
        match select(Box::pin(app.to_deliver.notified()), timeline.sleep(wait)).await {
            Either::Left(_) | Either::Right(_) => {}
        }
    }
}

/// The plan of the faulty store: what the weather says.
fn plan(timeline: &Timeline, weather: &Arc<Weather>, mut dice: Dice) -> Faults {
    let (sky, lots) = (Arc::clone(weather), Mutex::new(dice.fork()));
    let fate = move |call: Call| {
        let writes = is_write(call.method);
        if sky.overloaded.load(Ordering::Relaxed) && matches!(call.method, "beat" | "commit") {
            sky.faults.fetch_add(1, Ordering::Relaxed);
            return Fate::Overloaded;
        }
        if sky.failing.load(Ordering::Relaxed) && (writes || lock(&lots).one_in(3)) {
            sky.faults.fetch_add(1, Ordering::Relaxed);
            return if writes && lock(&lots).one_in(4) { Fate::Ambiguous } else { Fate::Lost };
        }
        Fate::Pass
    };
    let (sky, lots, timeline) = (Arc::clone(weather), Mutex::new(dice), timeline.clone());
    let hook = move |point: Point| -> hb_store::faulty::Pause {
        if sky.killed.load(Ordering::Relaxed) {
            return Box::pin(core::future::pending());
        }
        if sky.kill_at_write.load(Ordering::Relaxed) && is_write(point.call.method) {
            let chance = if point.when == When::Between { 2 } else { 6 };
            if lock(&lots).one_in(chance) {
                sky.killed.store(true, Ordering::Relaxed);
                return Box::pin(core::future::pending());
            }
        }
        let widen = sky.widen_one_in.load(Ordering::Relaxed);
        if widen > 0 && lock(&lots).one_in(widen) {
            let ms = lock(&lots).within(0..400);
            return Box::pin(timeline.sleep(ms));
        }
        Box::pin(core::future::ready(()))
    };
    Faults::none().fate(fate).hook(hook)
}

fn is_write(method: &str) -> bool {
    matches!(method, "beat" | "commit" | "observe" | "tell" | "settle" | "claim" | "enrol")
}
