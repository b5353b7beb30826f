//! The network between hosts and server: it loses, delays, doubles and reorders.

use core::sync::atomic::AtomicU64;
use std::sync::Arc;

use futures_util::FutureExt as _;
use hb::agent::cadence::Outcome;
use hb_api::beat::Request;
use hb_core::machine::Heard;
use hb_core::mutant::{Mutant, active};
use hb_store::Store as _;
use hb_wire::beat::{Beat, BeatAnswer};
use hb_wire::nonce::Nonce;
use hb_wire::problem::{Code, Problem};
use hb_wire::signature::{self, Message, Params};

use super::{Done, Happening, Process, World};
use crate::executor::lock;
use crate::front::Level;
use crate::judge::Accepted;
use crate::server::{AUTHORITY, EPOCH_MS};

/// Requests that wait while the process is paused; the kernel keeps no more.
const BACKLOG_MAX: usize = 512;

/// Where a message comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From the host, on its way.
    Host,
    /// From the attacker: seen before by the server, or kept from it.
    Captured,
    /// From the attacker: never signed by the host.
    Forged,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Letter {
    /// The same for every copy.
    pub id: u64,
    /// Who hands it in.
    pub origin: Origin,
    /// Who waits for the answer.
    pub sender: Option<(usize, u32, u64)>,
    /// The computer that signed it.
    pub computer: usize,
    /// Whose key signed it.
    pub host: usize,
    /// What it says.
    pub beat: Arc<Beat>,
    /// What it spends.
    pub nonce: Nonce,
    /// What its signature says of time.
    pub created: i64,
    /// When it was really signed.
    pub signed_at: u64,
    /// When the server first accepted it or a copy of it, plus one; 0: never.
    pub accepted: Arc<AtomicU64>,
    /// The request as it stands on the wire, at the level of the router.
    pub wire: Option<Arc<Wire>>,
}

/// A signed request.
#[derive(Debug, Clone)]
pub struct Wire {
    /// `Content-Digest`.
    pub content_digest: String,
    /// `Signature-Input`.
    pub signature_input: String,
    /// `Signature`.
    pub signature: String,
    /// The body.
    pub body: Vec<u8>,
}

/// What a host gets to hear.
pub(crate) struct Reply {
    to: (usize, u32, u64),
    answer: Result<BeatAnswer, Option<Problem>>,
}

impl World {
    pub(super) fn sign(&self, host: usize, beat: &Beat, nonce: Nonce, created: i64) -> Option<Arc<Wire>> {
        if self.config.level == Level::Domain {
            return None;
        }
        let body = serde_json::to_vec(beat).unwrap_or_default();
        let params = Params { created, nonce, keyid: self.hosts[host].id.to_string() };
        let message = Message { method: "POST", authority: AUTHORITY, path: hb_api::beat::PATH, body: &body };
        let signed = signature::sign(&self.hosts[host].key, &message, &params);
        Some(Arc::new(Wire {
            content_digest: signed.content_digest,
            signature_input: signed.signature_input,
            signature: signed.signature,
            body,
        }))
    }

    /// A message leaves its host.
    pub(super) fn transmit(&mut self, letter: Letter) {
        let connected = self.computers[letter.computer].link_cuts == 0;
        if !connected {
            return;
        }
        self.tap(&letter);
        if self.withhold(&letter) {
            return;
        }
        if !self.calm {
            let roll = self.net.within(0..1_000);
            if roll < 15 {
                self.tally.lost += 1;
                self.judge.lossy(letter.host, self.now);
                return;
            }
            if roll < 18 {
                self.tally.delayed += 1;
                self.judge.lossy(letter.host, self.now);
                let delay = self.net.within(40_000..60_000);
                self.after(delay, Happening::Arrive(Box::new(letter)));
                return;
            }
            if roll < 28 {
                self.tally.duplicated += 1;
                let delay = self.net.within(1..5_000);
                let copy = Letter { sender: None, ..letter.clone() };
                self.after(delay, Happening::Arrive(Box::new(copy)));
            }
        }
        let latency = if self.net.one_in(20) { self.net.within(20..2_000) } else { self.net.within(5..80) };
        self.after(latency, Happening::Arrive(Box::new(letter)));
    }

    /// A message reaches the server's machine.
    pub(super) fn arrive(&mut self, letter: Box<Letter>) {
        if self.machine.weather.cut.load(core::sync::atomic::Ordering::Relaxed) {
            return;
        }
        match &self.process {
            Process::Dead => {
                if let Some(to) = letter.sender {
                    self.after(20, Happening::Reply(Box::new(Reply { to, answer: Err(None) })));
                }
            }
            Process::Paused(_) => {
                if self.waiting.len() < BACKLOG_MAX {
                    self.waiting.push(letter);
                }
            }
            Process::Running(_) => self.serve(letter),
        }
    }

    pub(super) fn serve(&mut self, letter: Box<Letter>) {
        let Process::Running(server) = &mut self.process else { return };
        self.next_id += 1;
        let flight = self.next_id;
        self.flights.insert(flight, letter.host);
        let (front, done, started) = (server.front.clone(), Arc::clone(&self.done), self.now);
        let (id, key) = (self.hosts[letter.host].id, self.hosts[letter.host].key.public());
        server.executor.spawn(async move {
            let answer = match &letter.wire {
                None => {
                    let heard = Heard { key, beat: &letter.beat, spent: letter.nonce, created: letter.created };
                    front.trusted(id, &heard).await
                }
                Some(wire) => {
                    let request = Request {
                        authority: Some(AUTHORITY),
                        content_digest: Some(&wire.content_digest),
                        signature_input: Some(&wire.signature_input),
                        signature: Some(&wire.signature),
                        body: &wire.body,
                    };
                    front.signed(&request).await
                }
            };
            lock(&done).push(Done { flight, letter, started, answer });
        });
        self.run_server();
    }

    /// The server has answered; whether the answer arrives is another matter.
    pub(super) fn answered(&mut self, done: Done) {
        let Done { flight, letter, started, answer } = done;
        self.flights.remove(&flight);
        let code = answer.as_ref().err().map(|problem| problem.code);
        self.say(|| {
            let what = code.map_or("accepted", Code::as_str);
            format!("host {}: beat {} ({:?}) {what}", letter.host, letter.id, letter.origin)
        });
        self.mark(letter.id ^ code.map_or(0, |code| u64::from(code.status())));
        match code {
            None => {
                self.tally.beats_accepted += 1;
                self.judge.accepted(Accepted { letter: &letter, started, now: self.now });
                self.check_durable(&letter, started);
            }
            Some(Code::Unavailable) => {
                self.tally.beats_shed += 1;
                self.judge.maybe(letter.host, self.now);
            }
            Some(code) => {
                self.tally.beats_refused += 1;
                self.judge.refused(&letter, code, self.now);
            }
        }
        let Some(to) = letter.sender else { return };
        let connected = self.computers[letter.computer].link_cuts == 0;
        let cut = self.machine.weather.cut.load(core::sync::atomic::Ordering::Relaxed);
        if !connected || cut || (!self.calm && self.net.within(0..1_000) < 15) {
            self.tally.lost += 1;
            self.judge.lossy(letter.host, self.now);
            return;
        }
        let latency = self.net.within(5..80);
        self.after(latency, Happening::Reply(Box::new(Reply { to, answer: answer.map_err(Some) })));
    }

    /// I6: what was answered with 200 is in the store. Looked at where something could have come between, and now and then.
    fn check_durable(&mut self, letter: &Letter, started: u64) {
        if started == self.now && !letter.id.is_multiple_of(16) {
            return;
        }
        let Some(row) =
            self.machine.disk.host(self.hosts[letter.host].id).now_or_never().and_then(Result::ok).flatten()
        else {
            return;
        };
        let heard = row.value.life.heard_at.unwrap_or_default();
        let wall = active(Mutant::Wall) || active(Mutant::StaleDeadline);
        if heard.0 < EPOCH_MS + started && !wall {
            self.judge.broken(
                self.now,
                "I6",
                format!("host {}: a beat answered with 200 is not in the store", letter.host),
            );
        }
    }

    /// The answer reaches the host.
    pub(super) fn hear(&mut self, reply: &Reply) {
        let (place, life, attempt) = reply.to;
        let rand = self.net.roll();
        let now = self.now;
        let computer = &mut self.computers[place];
        if computer.life != life || computer.asleep {
            return;
        }
        let (clock, moment) = (computer.clock(now), computer.moment(now));
        let Some(agent) = computer.agent.as_mut().filter(|agent| agent.pending == Some(attempt)) else { return };
        agent.pending = None;
        let outcome = match &reply.answer {
            Ok(answer) => {
                agent.memory.accepted(answer, true, moment);
                Outcome::Accepted { interval_s: Some(answer.interval_s), next_in_s: answer.next_in_s }
            }
            Err(None) => {
                agent.memory.failed("connect", moment);
                Outcome::Failed
            }
            Err(Some(problem)) => match problem.code {
                Code::StaleNonce => {
                    if let Some(next) = problem.next.as_deref().and_then(|next| Nonce::parse(next).ok()) {
                        agent.memory.stale(next, problem.now, moment);
                    }
                    Outcome::Stale
                }
                Code::TooManyRequests | Code::Unavailable => {
                    agent.memory.failed("http_503", moment);
                    Outcome::Busy { retry_after_s: problem.retry_after_s }
                }
                _ => {
                    agent.memory.failed("refused", moment);
                    Outcome::Refused
                }
            },
        };
        agent.cadence.on_result(outcome, clock, rand);
        self.act(place);
    }
}
