//! The agent: a loop around a pure [`cadence`]. One thread, one connection, nothing that grows.
//!
//! It never stops by itself: whatever fails is tried again, and said in the log. Only a signal ends it.

pub mod beater;
pub mod cadence;
pub mod clock;
pub mod door;
pub mod footprint;
pub mod honesty;
pub mod log;
pub mod memory;
pub mod post;
pub mod speaker;
pub mod vitals;

use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hb_wire::beat::{Intent, StopReason};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use self::beater::{Beater, Said};
use self::cadence::{Action, Cadence, Outcome, STALE_MAX};
use self::clock::Alarm;
use self::door::{Door, Visitor};
use self::log::{Level, Log};
use self::speaker::{Sentence, Speaker};
use crate::http::IDLE_TIMEOUT;
use crate::systemd;

/// How long the farewell may take, from the signal to the exit.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(600);
/// A host that reboots is expected back within this many seconds.
const BACK_AFTER_REBOOT_S: u64 = 900;
/// An agent that is upgraded is expected back within this many seconds: at once, but packages may wait for one another.
const BACK_AFTER_UPGRADE_S: u64 = 900;
/// An agent that was stopped is expected back within this many seconds.
const BACK_AFTER_STOP_S: u64 = 3_600;
/// From the goodbye of a host that goes to sleep to its next beat, at least: it is asleep by then, and the time that it sleeps
/// counts as well. A beat in between would say that it is back.
const ASLEEP_WITHIN_MS: u64 = 30_000;
/// A host that was powered off is expected back within a day: the longest that a goodbye holds.
const BACK_AFTER_POWEROFF_S: u64 = 86_400;

/// The daemon.
#[derive(Debug)]
pub struct Agent {
    beater: Beater,
    cadence: Cadence,
    speaker: Speaker,
    alarm: Alarm,
    stop: Stop,
    door: Option<Door>,
    watchdog: Option<Duration>,
    timeout_max: Duration,
    state_dir: String,
    jobs: Option<PathBuf>,
    log: Log,
    shed: bool,
}

/// How a daemon is set up.
#[derive(Debug)]
pub struct Setup {
    /// Longest time for one attempt, where the configuration says so.
    pub timeout_max: Option<Duration>,
    /// The state directory, for messages.
    pub state_dir: String,
    /// Where the unit writes down systemd's jobs before it stops the agent.
    pub jobs: Option<PathBuf>,
    /// Where others ask the agent to say something.
    pub door: Option<Door>,
    /// Where to say things.
    pub log: Log,
}

/// Why a rest ended.
#[derive(Debug)]
enum Woken {
    ByTime,
    ByVisitor(Visitor),
    ToStop,
}

/// Says that a signal has asked the agent to end: one thing to look at, however many signals there are.
#[derive(Debug)]
struct Stop {
    asked: Arc<Notify>,
}

impl Stop {
    fn listen() -> io::Result<Self> {
        let asked = Arc::new(Notify::new());
        let stop = Self { asked: Arc::clone(&asked) };
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {}
            }
            asked.notify_one();
        });
        Ok(stop)
    }

    async fn wait(&self) {
        self.asked.notified().await;
    }
}

impl Agent {
    /// A daemon around `beater`. Needs a running tokio runtime.
    ///
    /// # Errors
    /// When the system gives no timer or no signals.
    pub fn new(beater: Beater, cadence: Cadence, setup: Setup) -> io::Result<Self> {
        Ok(Self {
            beater,
            cadence,
            speaker: Speaker::default(),
            alarm: Alarm::new()?,
            stop: Stop::listen()?,
            door: setup.door,
            watchdog: systemd::watchdog_period(),
            timeout_max: setup.timeout_max.unwrap_or(Duration::MAX),
            state_dir: setup.state_dir,
            jobs: setup.jobs,
            log: setup.log,
            shed: false,
        })
    }

    /// Beats until a signal, then says goodbye.
    ///
    /// # Errors
    /// When the system's timer or randomness fails: nothing can be paced without them, and systemd starts anew.
    pub async fn run(mut self) -> io::Result<()> {
        loop {
            systemd::watchdog();
            match self.cadence.next(clock::now().boottime_ms) {
                Action::Wait { until_ms } => match self.rest(until_ms).await? {
                    Woken::ByTime => {}
                    Woken::ByVisitor(visitor) => {
                        if !self.receive(visitor).await? {
                            break;
                        }
                    }
                    Woken::ToStop => break,
                },
                Action::Send { endpoint, fresh, timeout_ms } => {
                    if fresh {
                        self.begin();
                    }
                    let timeout = Duration::from_millis(timeout_ms).min(self.timeout_max);
                    let Some((outcome, said)) = self.send(endpoint, timeout, None).await? else { break };
                    self.speak(&said, endpoint);
                    if !self.shed && matches!(outcome, Outcome::Accepted { .. }) {
                        // Everything that only the start needed has been used by now.
                        footprint::shed();
                        self.shed = true;
                    }
                    self.cadence.on_result(outcome, clock::now().boottime_ms, clock::rand()?);
                }
            }
        }
        self.goodbye().await;
        Ok(())
    }

    /// Waits, at most until the watchdog is hungry.
    async fn rest(&mut self, until_ms: u64) -> io::Result<Woken> {
        if u128::from(until_ms.saturating_sub(clock::now().boottime_ms)) > IDLE_TIMEOUT.as_millis() {
            // Nothing would go over it again: neither side has to hold it.
            self.beater.post().http().hang_up();
        }
        let until_ms = self.watchdog_ms().map_or(until_ms, |hungry_ms| hungry_ms.min(until_ms));
        let visitor = async {
            match &self.door {
                Some(door) => door.visitor().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            rang = self.alarm.until(until_ms) => rang.map(|()| Woken::ByTime),
            visitor = visitor => Ok(Woken::ByVisitor(visitor)),
            () = self.stop.wait() => Ok(Woken::ToStop),
        }
    }

    /// A beat out of turn that says what a visitor asked for; false when it is time to stop.
    async fn receive(&mut self, visitor: Visitor) -> io::Result<bool> {
        self.begin();
        let endpoint = self.cadence.endpoint();
        let timeout = Duration::from_millis(self.cadence.timeout_ms()).min(self.timeout_max);
        for _ in 0..=STALE_MAX {
            let Some((outcome, said)) = self.send(endpoint, timeout, visitor.intent.clone()).await? else {
                return Ok(false);
            };
            if outcome != Outcome::Stale {
                self.speak(&said, endpoint);
                if matches!(outcome, Outcome::Accepted { .. }) {
                    // The answer may ask for another interval, and the server counts on it from now on.
                    self.cadence.on_result(outcome, clock::now().boottime_ms, clock::rand()?);
                }
                let goes_to_sleep = matches!(visitor.intent, Some(Intent::Goodbye { reason: StopReason::Sleep, .. }));
                if goes_to_sleep && matches!(outcome, Outcome::Accepted { .. }) {
                    self.cadence.hold(ASLEEP_WITHIN_MS, clock::now().boottime_ms);
                }
                visitor.tell(said.outcome(self.beater.memory().seq())).await;
                return Ok(true);
            }
        }
        visitor.tell(Said::Stale.outcome(self.beater.memory().seq())).await;
        Ok(true)
    }

    fn begin(&mut self) {
        let finding = self.beater.begin();
        let why = finding.error.as_ref().map(ToString::to_string);
        if let Some(sentence) = self.speaker.about_faults(&finding.faults, why, &self.state_dir) {
            self.say(&sentence);
        }
    }

    /// One attempt, with the watchdog fed meanwhile; none when it is time to stop.
    async fn send(
        &mut self,
        endpoint: usize,
        timeout: Duration,
        intent: Option<Intent>,
    ) -> io::Result<Option<(Outcome, Said)>> {
        let watchdog = self.watchdog;
        let mut attempt = pin!(self.beater.attempt(endpoint, timeout, intent));
        loop {
            let hungry = async {
                match hungry_at(watchdog) {
                    Some(hungry_ms) => self.alarm.until(hungry_ms).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                result = &mut attempt => return Ok(Some(result)),
                rang = hungry => rang?,
                () = self.stop.wait() => return Ok(None),
            }
            systemd::watchdog();
        }
    }

    fn speak(&mut self, said: &Said, endpoint: usize) {
        let place = self.place(endpoint);
        let failed = self.beater.memory().misses().map_or(0, |misses| misses.failed);
        let seq = self.beater.memory().seq();
        match said {
            Said::Stored { .. } => self.log.say(Level::Debug, &format!("beat {seq} is stored by {place}")),
            Said::Failed(trouble) => self.log.say(Level::Debug, &format!("beat {seq} is not sent: {trouble}")),
            Said::Stale | Said::Refused { .. } | Said::Busy { .. } => {}
        }
        for sentence in self.speaker.about(said, &place, failed, clock::now().boottime_ms) {
            systemd::status(&sentence.1);
            self.say(&sentence);
        }
    }

    fn place(&self, endpoint: usize) -> String {
        self.beater.post().urls().get(endpoint).map_or_else(String::new, |url| url.origin().ascii_serialization())
    }

    /// Tells the server why the silence begins, and the next run that this one ended well.
    async fn goodbye(&mut self) {
        systemd::stopping();
        let reason = systemd::stop_reason(self.jobs.as_deref()).await;
        // First what survives the power: the farewell itself may not get through.
        let written = self.beater.write(Some(reason));
        if let Err(error) = written {
            self.say(&(
                Level::Warn,
                format!("the clean stop could not be written down in {}: {error}", self.state_dir),
            ));
        }
        let intent = Intent::Goodbye { reason, back_in_s: back_in_s(reason) };
        let endpoint = self.cadence.endpoint();
        let farewell = async {
            for _ in 0..=STALE_MAX {
                let (outcome, _) = self.beater.attempt(endpoint, GOODBYE_TIMEOUT, Some(intent.clone())).await;
                if outcome != Outcome::Stale {
                    return matches!(outcome, Outcome::Accepted { .. });
                }
            }
            false
        };
        if tokio::time::timeout(GOODBYE_TIMEOUT, farewell).await.unwrap_or(false) {
            // The nonce that came back saves the next run a round trip. Losing it costs just that.
            let _ = self.beater.write(Some(reason));
            self.say(&(Level::Info, format!("stopped, and {} knows ({})", self.place(endpoint), word(reason))));
        } else {
            let what = format!("stopped, but {} does not know ({})", self.place(endpoint), word(reason));
            self.say(&(Level::Warn, what));
        }
    }

    fn say(&self, (level, text): &Sentence) {
        self.log.say(*level, text);
    }

    fn watchdog_ms(&self) -> Option<u64> {
        hungry_at(self.watchdog)
    }
}

fn hungry_at(watchdog: Option<Duration>) -> Option<u64> {
    let period_ms = u64::try_from(watchdog?.as_millis()).unwrap_or(u64::MAX);
    Some(clock::now().boottime_ms.saturating_add(period_ms))
}

fn back_in_s(reason: StopReason) -> u64 {
    match reason {
        StopReason::Reboot => BACK_AFTER_REBOOT_S,
        StopReason::Poweroff | StopReason::Sleep => BACK_AFTER_POWEROFF_S,
        StopReason::Service => BACK_AFTER_STOP_S,
        StopReason::Upgrade => BACK_AFTER_UPGRADE_S,
    }
}

fn word(reason: StopReason) -> &'static str {
    match reason {
        StopReason::Reboot => "reboot",
        StopReason::Poweroff => "poweroff",
        StopReason::Service => "service",
        StopReason::Upgrade => "upgrade",
        StopReason::Sleep => "sleep",
    }
}
