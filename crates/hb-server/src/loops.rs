//! What the server does by itself: ticks, sweeps, delivers, and sends the canary.
//!
//! Each loop repeats an idempotent use case of hb-api; a signal only makes it run sooner. A loop that ends before it is told
//! to takes the whole process down with it: systemd starts it again, and that is better than a server that goes on without
//! looking.

use core::time::Duration;
use std::sync::{Arc, PoisonError, RwLock};

use hb_api::app::{App, Clock as _};
use hb_core::time::Time;
use hb_store::StoreError;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::clock::{DRIFT_WARN_MS, ServerClock};
use crate::stop::Stop;
use crate::systemd;

/// How often time is looked at: a tick that comes three of these late means that the server was stopped.
const TICK_EVERY: Duration = Duration::from_secs(1);
/// How often the wall clock is compared with server time.
const DRIFT_EVERY: Duration = Duration::from_mins(1);
/// How often the canary is sent; three missed ones mean that hb is deaf.
const CANARY_EVERY: Duration = Duration::from_secs(10);
/// After the store could not do its work, a loop waits this long.
const TROUBLE_PAUSE: Duration = Duration::from_secs(1);
/// The sweeper rests at least this long: in a large fleet some deadline passes every millisecond, and one sweep sees to all.
const SWEEP_PAUSE_MIN: Duration = Duration::from_millis(50);
/// Rounds of delivery at a time: a receiver that hangs holds one of them up, and the others go on.
const ROUNDS_MAX: usize = 16;
/// A round that was begun gets this long to claim what is due before another one is begun for what is left.
const ROUND_HEAD_START: Duration = Duration::from_millis(25);
/// Without any signal, what is due for delivery is looked for this often.
const DELIVER_EVERY: Duration = Duration::from_secs(30);

/// Settings that a reload may change while the loops run.
#[derive(Debug)]
pub struct Tempo {
    sweep_period: RwLock<Duration>,
}

impl Tempo {
    /// With this longest sleep of the sweeper.
    #[must_use]
    pub fn new(sweep_period: Duration) -> Self {
        Self { sweep_period: RwLock::new(sweep_period) }
    }

    /// From the next sleep on, another one.
    pub fn set_sweep_period(&self, period: Duration) {
        *self.sweep_period.write().unwrap_or_else(PoisonError::into_inner) = period;
    }

    fn sweep_period(&self) -> Duration {
        *self.sweep_period.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts every loop; each ends when `stop` says so.
pub fn start(app: &Arc<App>, clock: ServerClock, tempo: Arc<Tempo>, stop: &Stop) -> JoinSet<()> {
    let mut loops = JoinSet::new();
    loops.spawn(until(stop.clone(), tick(Arc::clone(app))));
    loops.spawn(until(stop.clone(), compare_clocks(clock)));
    loops.spawn(until(stop.clone(), sweep(Arc::clone(app), tempo)));
    loops.spawn(until(stop.clone(), canary(Arc::clone(app))));
    loops.spawn(deliver(Arc::clone(app), stop.clone()));
    loops
}

async fn until(mut stop: Stop, work: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = stop.told() => {}
        () = work => {}
    }
}

async fn tick(app: Arc<App>) {
    let mut every = interval(TICK_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut trouble = Trouble::new("record that it observes");
    loop {
        every.tick().await;
        trouble.note(app.tick().await.err());
    }
}

async fn compare_clocks(clock: ServerClock) {
    let mut every = interval(DRIFT_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut was_off = false;
    loop {
        every.tick().await;
        let drift_ms = clock.drift_ms();
        let is_off = drift_ms.unsigned_abs() > DRIFT_WARN_MS;
        if is_off && !was_off {
            let (seconds, side) = (drift_ms.unsigned_abs() / 1000, if drift_ms > 0 { "ahead of" } else { "behind" });
            tracing::warn!(
                drift_ms,
                now = ?clock.now(),
                "this machine's clock is {seconds} s {side} server time: decisions are not affected, but times that are \
                 shown are off until the next boot; check NTP"
            );
        }
        was_off = is_off;
    }
}

async fn sweep(app: Arc<App>, tempo: Arc<Tempo>) {
    let watchdog = systemd::watchdog();
    let mut trouble = Trouble::new("look for silent hosts");
    loop {
        let begun = app.clock.now();
        let failed = app.sweep().await.err();
        let is_failing = failed.is_some();
        trouble.note(failed);
        systemd::alive();
        let longest = watchdog.map_or(tempo.sweep_period(), |watchdog| watchdog.min(tempo.sweep_period()));
        let pause = if is_failing { TROUBLE_PAUSE.min(longest) } else { until_due(&app, begun, longest).await };
        sleep(pause).await;
    }
}

/// How long the sweeper may sleep: until the next deadline. What was overdue when the last sweep began, and still is, waits
/// for something else (hb does not observe), for which the longest sleep is short enough.
async fn until_due(app: &App, begun: Time, longest: Duration) -> Duration {
    let Ok(Some(due)) = app.store.next_due().await else { return longest };
    if due <= begun {
        return longest;
    }
    Duration::from_millis(due.since(app.clock.now())).max(SWEEP_PAUSE_MIN).min(longest)
}

async fn canary(app: Arc<App>) {
    let mut every = interval(CANARY_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        // What it found is logged where it is sent, and weighed by the ticks.
        app.send_canary().await;
    }
}

/// Begins a round of delivery whenever something is due; several may run at a time. When told to stop, it lets those that
/// have begun come to their end.
async fn deliver(app: Arc<App>, mut stop: Stop) {
    let rounds = Arc::new(Semaphore::new(ROUNDS_MAX));
    let mut running: JoinSet<()> = JoinSet::new();
    let trouble = Arc::new(std::sync::Mutex::new(Trouble::new("deliver messages")));
    loop {
        let free = tokio::select! {
            biased;
            () = stop.told() => break,
            free = Arc::clone(&rounds).acquire_owned() => free,
        };
        let Ok(free) = free else { break };
        let (round, complaint, until) = (Arc::clone(&app), Arc::clone(&trouble), stop.clone());
        running.spawn(async move {
            let failed = round_of(&round, &until).await.err();
            complaint.lock().unwrap_or_else(PoisonError::into_inner).note(failed);
            drop(free);
        });
        while let Some(ended) = running.try_join_next() {
            ended.expect("a round that panicked takes the loop with it");
        }
        tokio::select! {
            biased;
            () = stop.told() => break,
            () = next_round(&app) => {}
        }
    }
    while running.join_next().await.is_some() {}
}

async fn round_of(app: &App, stop: &Stop) -> Result<(), StoreError> {
    while app.deliver().await? > 0 {
        if stop.is_told() {
            break;
        }
    }
    Ok(())
}

/// Waits until something is due.
async fn next_round(app: &App) {
    let begun = Instant::now();
    // A ring that comes while the round before this one claims is kept for later by the bell itself.
    if timeout(ROUND_HEAD_START, app.to_deliver.notified()).await.is_ok() {
        return;
    }
    loop {
        let wait = match app.store.next_claim().await {
            Ok(Some(Time::ZERO)) => Duration::ZERO,
            Ok(Some(due)) => Duration::from_millis(due.since(app.clock.now())),
            Ok(None) => DELIVER_EVERY,
            Err(_) => TROUBLE_PAUSE,
        };
        let wait = wait.min(DELIVER_EVERY);
        if wait.is_zero() || begun.elapsed() >= DELIVER_EVERY {
            return;
        }
        if timeout(wait, app.to_deliver.notified()).await.is_ok() {
            return;
        }
    }
}

/// Says once that something does not work, and once that it works again.
#[derive(Debug)]
struct Trouble {
    doing: &'static str,
    is_failing: bool,
}

impl Trouble {
    fn new(doing: &'static str) -> Self {
        Self { doing, is_failing: false }
    }

    fn note(&mut self, error: Option<StoreError>) {
        match (error, self.is_failing) {
            (Some(error), false) => tracing::error!(%error, "hb could not {}: {error}", self.doing),
            (None, true) => tracing::info!("hb can {} again", self.doing),
            (Some(_), true) | (None, false) => return,
        }
        self.is_failing = !self.is_failing;
    }
}
