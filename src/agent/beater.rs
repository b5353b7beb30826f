//! One host's beats, one attempt at a time: what the daemon and the one-shot command share.

use std::time::Duration;

use hb_wire::beat::{Fault, Intent, StopReason};
use hb_wire::id::BootId;
use hb_wire::nonce::Nonce;
use jiff::Timestamp;

use super::cadence::{Outcome, STALE_MAX};
use super::clock;
use super::honesty::{Finding, Honesty};
use super::memory::{Memory, Report};
use super::post::{Answer, Attempt, Post};
use super::vitals::Readings;
use crate::error::Failure;
use crate::http::Options;
use crate::http::tls::Floor;
use crate::http::trouble::{Kind, Trouble};
use crate::identity::{Enrolled, Identity};
use crate::journal::{JournalError, Keeper, Pen, StateDir};

/// What an attempt came to, for people.
#[derive(Debug)]
pub enum Said {
    /// Stored; the marks that the server set on this host, and the clock's error in seconds if it was believed.
    Stored {
        /// `cloned`, `paused`, `maintenance`.
        marks: Vec<String>,
        /// False when the connection was good only by the time floor.
        trusted: bool,
    },
    /// A fresh nonce was given: no news.
    Stale,
    /// Refused.
    Refused {
        /// The reason.
        why: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// To be tried later.
    Busy {
        /// The status, and the server's words.
        why: String,
        /// How much later, in seconds.
        retry_after_s: Option<u64>,
    },
    /// Failed.
    Failed(Trouble),
}

/// What a command says of a stored beat.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Stored {
    /// Its number.
    pub seq: u64,
    /// The marks that the server set on this host.
    pub marks: Vec<String>,
    /// False when the connection was good only by the time floor.
    pub trusted: bool,
}

impl Said {
    /// What a command makes of it, for beat `seq`.
    ///
    /// # Errors
    /// 77 when the server refuses this host, 69 when it did not take the beat for another reason.
    pub fn outcome(self, seq: u64) -> Result<Stored, Failure> {
        match self {
            Self::Stored { marks, trusted } => Ok(Stored { seq, marks, trusted }),
            Self::Refused { why, hint } => {
                Err(Failure::refused(format!("the server refuses this host: {why}")).hint(hint))
            }
            Self::Busy { why, retry_after_s } => {
                let wait = retry_after_s.map_or_else(|| "a while".to_owned(), |wait| format!("{wait} s"));
                Err(Failure::unreachable(format!("the server did not take the beat: {why}"))
                    .hint(format!("run it again in {wait}")))
            }
            Self::Stale => Err(Failure::unreachable(format!("the server gave {} nonces and took none", STALE_MAX + 1))
                .hint("see the server's log; does more than one server answer at this address?")),
            Self::Failed(trouble) => Err(trouble.into_failure()),
        }
    }
}

/// Makes and sends beats.
#[derive(Debug)]
pub struct Beater {
    post: Post,
    memory: Memory,
    pen: Pen,
    honesty: Honesty,
    readings: Readings,
    faults: Vec<Fault>,
    enrolled_at_unix_s: u64,
}

impl Beater {
    /// Starts a run. The second value says what was wrong with the journal, if anything was.
    ///
    /// # Errors
    /// 78 when the options or addresses cannot be used; 1 when the system gives no randomness.
    pub fn new(
        identity: Identity,
        options: Options,
        state: &StateDir,
        keeper: Keeper,
    ) -> Result<(Self, Option<JournalError>), Failure> {
        let run = clock::new_run().map_err(|error| Failure::no_randomness(&error))?;
        // Without /proc every start looks like a boot; the server then shows a restart as a reboot, no more.
        let boot = clock::boot_id().unwrap_or(BootId(run.0));
        let (journal, damage) = match state.read() {
            Ok(journal) => (journal, None),
            Err(error) => (None, Some(error)),
        };
        let Enrolled { first_nonce, enrolled_at_unix_s, .. } = identity.enrolled;
        let memory = Memory::start(journal, keeper, boot, run, Some(first_nonce));
        let post = Post::new(identity, options)?;
        post.http().resolver().remind(memory.addresses());
        let beater = Self {
            post,
            memory,
            pen: state.pen(),
            honesty: Honesty::new(),
            readings: Readings::new(),
            faults: Vec::new(),
            enrolled_at_unix_s,
        };
        Ok((beater, damage))
    }

    /// Begins a new beat: writes the journal, and by that finds out what is wrong with the host.
    pub fn begin(&mut self) -> Finding {
        self.memory.begin();
        let finding = self.honesty.check(&mut self.pen, &self.memory.journal(None));
        self.faults.clone_from(&finding.faults);
        finding
    }

    /// Sends the beat that was begun, once.
    pub async fn attempt(&mut self, endpoint: usize, timeout: Duration, intent: Option<Intent>) -> (Outcome, Said) {
        let began = clock::now();
        let wall = clock::wall();
        let vitals = Some(self.readings.read());
        // Nobody reads a clock's error in more detail, and every digit is sent with every beat.
        let sent_at = Timestamp::from_millisecond(wall.as_millisecond()).ok();
        let report = Report { sent_at, intent, degraded: self.faults.clone(), vitals };
        let beat = self.memory.beat(began, report);
        let floor = self.floor();
        let nonce = self.memory.nonce();
        let answer = self.post.send(&Attempt { endpoint, beat: &beat, nonce, timeout, floor, wall }).await;
        self.take(answer)
    }

    /// Writes down how the run goes on, or that it stops cleanly.
    ///
    /// # Errors
    /// As the file system says.
    pub fn write(&mut self, stopped: Option<StopReason>) -> std::io::Result<()> {
        self.pen.write(&self.memory.journal(stopped))
    }

    /// What the run remembers.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Where beats go.
    pub fn post(&self) -> &Post {
        &self.post
    }

    /// The time by which certificates are judged when the clock says that they are out of date.
    pub fn floor(&self) -> Floor {
        match self.memory.server_time(clock::now()) {
            Some((unix_s, since_s)) => Floor::new(Some(unix_s.max(self.enrolled_at_unix_s)), since_s),
            None => Floor::new(Some(self.enrolled_at_unix_s), 0),
        }
    }

    fn take(&mut self, answer: Answer) -> (Outcome, Said) {
        let now = clock::now();
        match answer {
            Answer::Stored { answer, trusted } => {
                let explained = self.memory.explains();
                self.memory.accepted(&answer, trusted, now);
                self.memory.learn_addresses(self.post.http().resolver().known());
                if explained {
                    // Else a run that is cut off before its next beat would be explained by what is told already. A disk that does
                    // not take it is noticed then.
                    let _ = self.pen.write(&self.memory.journal(None));
                }
                let (interval_s, next_in_s) =
                    if trusted { (Some(answer.interval_s), answer.next_in_s) } else { (None, None) };
                let marks = if trusted { answer.marks } else { Vec::new() };
                (Outcome::Accepted { interval_s, next_in_s }, Said::Stored { marks, trusted })
            }
            Answer::Stale { next, now: server_now } => self.stale(next, server_now),
            Answer::Refused { status, why, hint } => {
                self.memory.failed(&format!("http_{status}"), now);
                (Outcome::Refused, Said::Refused { why, hint })
            }
            Answer::Busy { status, why, retry_after_s } => {
                self.memory.failed(&format!("http_{status}"), now);
                (Outcome::Busy { retry_after_s }, Said::Busy { why, retry_after_s })
            }
            Answer::Failed(trouble) => {
                self.memory.failed(&trouble.word(), now);
                (Outcome::Failed, Said::Failed(trouble))
            }
        }
    }

    /// Being told the nonce that was just spent is no progress: that server gives none that works.
    fn stale(&mut self, next: Nonce, server_now: Option<Timestamp>) -> (Outcome, Said) {
        let now = clock::now();
        if next == self.memory.nonce() {
            self.memory.failed("http_409", now);
            let detail = "the server refuses the nonce that it gave";
            return (Outcome::Failed, Said::Failed(Trouble::new(Kind::Http(409), detail)));
        }
        self.memory.stale(next, server_now, now);
        (Outcome::Stale, Said::Stale)
    }
}
