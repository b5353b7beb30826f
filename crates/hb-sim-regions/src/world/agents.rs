//! Hosts: the real decisions of hb's agent, which knows two addresses.

use hb::agent::cadence::{Action, Outcome as Came};
use hb_api::beat::{PATH, Request};
use hb_sim::server::EPOCH_MS;
use hb_wire::beat::BeatAnswer;
use hb_wire::nonce::Nonce;
use hb_wire::problem::{Code, Problem};
use hb_wire::signature::{self, Message, Params, SignedHeaders};

use super::{Happening, World};
use crate::Outcome;
use crate::region::AUTHORITIES;

/// A connection that is refused is known to be within this.
const REFUSED_MS: u64 = 40;
/// One request in so many is lost, and one answer, while there is trouble.
const LOST_ONE_IN: u64 = 150;

/// A beat on its way.
pub(super) struct Letter {
    place: usize,
    life: u32,
    attempt: u64,
    region: usize,
    headers: SignedHeaders,
    body: Vec<u8>,
}

/// An answer on its way.
pub(super) struct Reply {
    place: usize,
    life: u32,
    attempt: u64,
    answer: Result<BeatAnswer, Problem>,
}

impl World {
    /// Lets an agent do what it has to do now.
    pub(super) fn act(&mut self, place: usize) {
        let now = self.now;
        let computer = &mut self.hosts[place].computer;
        let (clock, life) = (computer.clock(now), computer.life);
        let Some(agent) = computer.agent.as_mut().filter(|agent| agent.pending.is_none()) else { return };
        match agent.cadence.next(clock) {
            Action::Wait { until_ms } => self.after(until_ms.saturating_sub(clock), Happening::Agent { place, life }),
            Action::Send { endpoint, fresh, timeout_ms } => self.send(place, endpoint, fresh, timeout_ms),
        }
    }

    fn send(&mut self, place: usize, region: usize, fresh: bool, timeout_ms: u64) {
        let now = self.now;
        let computer = &mut self.hosts[place].computer;
        let Some((beat, nonce)) = computer.beat(now, fresh, None) else { return };
        computer.attempts += 1;
        let (attempt, life, keyid) = (computer.attempts, computer.life, computer.id.to_string());
        if let Some(agent) = computer.agent.as_mut() {
            agent.pending = Some(attempt);
        }
        self.judge.tally.beats += 1;
        let is_open = self.hosts[place].paths[region] && self.regions[region].is_alive;
        // What does not answer is refused at once, or not at all.
        let gives_up = if !is_open && self.net.one_in(2) { REFUSED_MS } else { timeout_ms };
        self.after(gives_up, Happening::Expire { place, life, attempt });
        if !is_open || (!self.is_calm && self.net.one_in(LOST_ONE_IN)) {
            return;
        }
        let Ok(body) = serde_json::to_vec(&beat) else { return };
        let message = Message { method: "POST", authority: AUTHORITIES[region], path: PATH, body: &body };
        let created = i64::try_from((EPOCH_MS + now) / 1000).unwrap_or(i64::MAX);
        let headers = signature::sign(&self.hosts[place].key, &message, &Params { created, nonce, keyid });
        let latency = self.net.within(5..120);
        self.after(latency, Happening::Arrive(Box::new(Letter { place, life, attempt, region, headers, body })));
    }

    pub(super) async fn arrive(&mut self, letter: Letter) -> Outcome<()> {
        let Letter { place, life, attempt, region, headers, body } = letter;
        if !self.regions[region].is_alive {
            return Ok(());
        }
        let request = Request {
            authority: Some(AUTHORITIES[region]),
            content_digest: Some(&headers.content_digest),
            signature_input: Some(&headers.signature_input),
            signature: Some(&headers.signature),
            body: &body,
        };
        let answer = self.regions[region].ingest.beat(&request).await;
        match &answer {
            Ok(_) => self.judge.accepted(place, region, self.now),
            Err(problem) => {
                self.judge.refused(problem.code);
                self.say(|| format!("host {place}: region {region} answers {}: {}", problem.code, problem.detail));
            }
        }
        self.after_work(region)?;
        // Now and then a beat is taken and its answer lost.
        if self.hosts[place].paths[region] && (self.is_calm || !self.net.one_in(LOST_ONE_IN)) {
            let latency = self.net.within(5..120);
            self.after(latency, Happening::Reply(Box::new(Reply { place, life, attempt, answer })));
        }
        Ok(())
    }

    /// The answer reaches the host.
    pub(super) fn hear(&mut self, reply: &Reply) {
        let (place, now, rand) = (reply.place, self.now, self.net.roll());
        let computer = &mut self.hosts[place].computer;
        if computer.life != reply.life {
            return;
        }
        let (clock, moment) = (computer.clock(now), computer.moment(now));
        let Some(agent) = computer.agent.as_mut().filter(|agent| agent.pending == Some(reply.attempt)) else { return };
        agent.pending = None;
        let came = match &reply.answer {
            Ok(answer) => {
                agent.memory.accepted(answer, true, moment);
                Came::Accepted { interval_s: Some(answer.interval_s), next_in_s: answer.next_in_s }
            }
            Err(problem) if problem.code == Code::StaleNonce => {
                if let Some(next) = problem.next.as_deref().and_then(|next| Nonce::parse(next).ok()) {
                    agent.memory.stale(next, problem.now, moment);
                }
                Came::Stale
            }
            Err(problem) => {
                agent.memory.failed("refused", moment);
                match problem.code.status() {
                    429 | 503 => Came::Busy { retry_after_s: problem.retry_after_s },
                    500.. => Came::Failed,
                    _ => Came::Refused,
                }
            }
        };
        agent.cadence.on_result(came, clock, rand);
        self.act(place);
    }

    /// No answer came.
    pub(super) fn expire(&mut self, place: usize, life: u32, attempt: u64) {
        let (now, rand) = (self.now, self.net.roll());
        let computer = &mut self.hosts[place].computer;
        if computer.life != life {
            return;
        }
        let (clock, moment) = (computer.clock(now), computer.moment(now));
        let Some(agent) = computer.agent.as_mut().filter(|agent| agent.pending == Some(attempt)) else { return };
        agent.pending = None;
        agent.memory.failed("timeout", moment);
        agent.cadence.on_result(Came::Failed, clock, rand);
        self.act(place);
    }
}
