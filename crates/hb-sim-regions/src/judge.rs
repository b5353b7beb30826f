//! Knows the truth, and says at the end which promise was broken.
//!
//! - R1: a host that nobody heard for longer than its patience, a takeover and a few sweeps is told as `down`; where nothing was in
//!   the way, 75 s after the end of its patience at the latest.
//! - R2: nobody is told as `down` whom some region's 200 answered within its patience.
//! - R3: whoever was told as `down` and is heard again is told as `up`.
//! - R4: a message comes once.
//! - R5: while only replication is cut, each region says so once, and once that it works again.
//!
//! Where an item took longer to the other region than the regions can wait for, or a region that was lost for as long is back and
//! still behind, R4 cannot hold. Nor can R2 where a host was silent for all that had arrived in a region, and that could not ask
//! the other one; nor while what they wrote when they were parted is put together. Then it is counted what came of that.

use std::collections::BTreeMap;

use hb_store_dynamodb::keys::{
    DELIVERY, EVENT, FINISHED, INCIDENT, OUTAGE, PAGES, PENDING, SERVER, STAGED, UNTOLD, short,
};
use hb_wire::id::{HostId, IncidentId};
use hb_wire::problem::Code;

use crate::post::Receipt;
use crate::replica::{LATE_MS_MIN, Late, Replication};
use crate::report::{Tally, Violation};
use crate::world::MINUTE;

/// After this long without a sign of the other region's sweeper, a region looks whether it is gone.
const TAKEOVER_MS: u64 = 150_000;
/// Two runs of a sweeper, and what comes between a decision and its message.
const SWEEPS_MS: u64 = 2 * MINUTE + 30_000;
/// From the end of a host's patience to the message, where no region was lost, no link cut, and no run failed.
const PROMPT_MS: u64 = 75_000;
/// What hosts are given after hb itself could not hear: three hold-offs of 90 s.
const HOLD_MS: u64 = 270_000;
/// So long an end waits, at most, for the other region to say to whom it has told the beginning.
const TOLD_ELSEWHERE_MS: u64 = 12 * MINUTE;
/// What says who has told what, and whether the other region is there: late, it may have a message told twice.
const TOLD: [&str; 10] = [EVENT, UNTOLD, STAGED, PAGES, OUTAGE, INCIDENT, PENDING, FINISHED, DELIVERY, SERVER];
/// Nobody can be told apart within this: a beat that arrives in the minute of a decision.
const RACE_MS: u64 = 2_000;

/// A span of time; open while it lasts.
#[derive(Debug, Clone, Copy)]
struct Span {
    from: u64,
    until: u64,
}

impl Span {
    fn overlap(self, from: u64, until: u64) -> u64 {
        self.until.min(until).saturating_sub(self.from.max(from))
    }
}

/// Spans of one trouble.
#[derive(Debug, Default)]
struct Spans(Vec<Span>);

impl Spans {
    fn set(&mut self, is_on: bool, now: u64) {
        if is_on {
            self.0.push(Span { from: now, until: u64::MAX });
        } else if let Some(last) = self.0.last_mut().filter(|last| last.until == u64::MAX) {
            last.until = now;
        }
    }

    fn overlap(&self, from: u64, until: u64) -> u64 {
        self.0.iter().map(|span| span.overlap(from, until)).sum()
    }
}

/// What is known of a host.
#[derive(Debug)]
struct Truth {
    id: HostId,
    name: String,
    interval_ms: u64,
    need_ms: u64,
    /// When a region answered 200, and which.
    heard: Vec<(u64, usize)>,
    told: Vec<Told>,
}

/// What people were told about a host.
#[derive(Debug, Clone, Copy)]
struct Told {
    is_down: bool,
    at: u64,
    decided_at: u64,
    region: usize,
    is_alone: bool,
    incident: Option<IncidentId>,
}

/// What became of a world.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Its seed.
    pub seed: u64,
    /// What it was about.
    pub focus: &'static str,
    /// What broke.
    pub violations: Vec<Violation>,
    /// What ran.
    pub tally: Tally,
}

/// The judge.
#[derive(Debug, Default)]
pub struct Judge {
    hosts: Vec<Truth>,
    canaries: [Option<usize>; 2],
    members: BTreeMap<IncidentId, Vec<HostId>>,
    lost: [Spans; 2],
    link: Spans,
    http: Spans,
    /// Other messages, by kind.
    notices: Vec<Receipt>,
    /// What ran.
    pub tally: Tally,
}

impl Judge {
    /// A host of the fleet.
    pub fn host(&mut self, id: HostId, name: String, (interval_ms, need_ms): (u64, u64)) {
        self.hosts.push(Truth { id, name, interval_ms, need_ms, heard: Vec::new(), told: Vec::new() });
    }

    /// The host that a region's sweeper is.
    pub fn canary(&mut self, region: usize, id: HostId, name: &str, patience: (u64, u64)) {
        self.canaries[region] = Some(self.hosts.len());
        self.host(id, format!("hb-sweeper-{name}"), patience);
    }

    /// A region answered 200.
    pub fn accepted(&mut self, place: usize, region: usize, now: u64) {
        self.tally.accepted += 1;
        let heard = &mut self.hosts[place].heard;
        if heard.last().is_some_and(|(_, before)| *before != region) {
            self.tally.moves += 1;
        }
        heard.push((now, region));
    }

    /// A region answered something else.
    pub fn refused(&mut self, code: Code) {
        if code == Code::StaleNonce {
            self.tally.stale += 1;
        } else {
            self.tally.refused += 1;
        }
    }

    /// A sweeper ran, and its own host was heard.
    pub fn swept(&mut self, region: usize, now: u64) {
        self.tally.sweeps += 1;
        if let Some(canary) = self.canaries[region] {
            self.hosts[canary].heard.push((now, region));
        }
    }

    /// Replication was cut, or goes on.
    pub fn link(&mut self, is_cut: bool, now: u64) {
        self.tally.cuts += u64::from(is_cut);
        self.link.set(is_cut, now);
    }

    /// The regions cannot call each other, or can.
    pub fn http(&mut self, is_cut: bool, now: u64) {
        self.http.set(is_cut, now);
    }

    /// A region is lost, or is back.
    pub fn region(&mut self, place: usize, is_alive: bool, now: u64) {
        self.tally.losses += u64::from(!is_alive);
        self.lost[place].set(!is_alive, now);
    }

    /// Whom a message is about, for people.
    #[must_use]
    pub fn describe(&self, receipt: &Receipt) -> String {
        let name = |id: &HostId| self.hosts.iter().find(|host| host.id == *id).map_or("?", |host| host.name.as_str());
        let members: Vec<&str> = receipt.members.iter().map(name).collect();
        let whom = receipt.host.as_ref().map_or("many", name);
        let since = receipt.since.unwrap_or_default() / 1000;
        format!("{whom} {members:?} since {since} s, decided at {} s, {}", receipt.decided_at / 1000, receipt.text)
    }

    /// A message arrived.
    pub fn receipt(&mut self, receipt: Receipt) {
        self.tally.receipts += 1;
        let is_down = match receipt.kind.as_str() {
            "down" => true,
            "up" => false,
            _ => {
                self.notices.push(receipt);
                return;
            }
        };
        let about = self.about(&receipt, is_down);
        let Receipt { at, decided_at, region, .. } = receipt;
        let told =
            Told { is_down, at, decided_at, region, is_alone: receipt.host.is_some(), incident: receipt.incident };
        for truth in self.hosts.iter_mut().filter(|truth| about.contains(&truth.id)) {
            self.tally.downs += u64::from(is_down);
            self.tally.ups += u64::from(!is_down);
            truth.told.push(told);
        }
    }

    /// Whom a message declares to be down, or up.
    fn about(&mut self, receipt: &Receipt, is_down: bool) -> Vec<HostId> {
        if let Some(host) = receipt.host {
            return vec![host];
        }
        let Some(incident) = receipt.incident else { return Vec::new() };
        let members = self.members.entry(incident).or_default();
        if is_down {
            let joined: Vec<HostId> = receipt.members.iter().filter(|id| !members.contains(id)).copied().collect();
            members.extend(&joined);
            self.tally.masses += 1;
            // Told twice is told twice.
            return if joined.is_empty() { receipt.members.clone() } else { joined };
        }
        // Whoever is not among those that are still down is back.
        let (down, back) = members.iter().copied().partition(|id| receipt.members.contains(id));
        *members = down;
        back
    }

    /// Decides.
    #[must_use]
    pub fn decide(mut self, seed: u64, focus: &'static str, end: u64, replication: &Replication) -> Verdict {
        self.tally.worlds = 1;
        self.tally.host_ms = end * self.hosts.len() as u64;
        self.tally.replicated = replication.applied;
        self.tally.overtaken = replication.overtaken;
        let mut violations = Vec::new();
        for place in 0..self.hosts.len() {
            let mut tally = core::mem::take(&mut self.tally);
            let truth = &self.hosts[place];
            self.no_silent_death(truth, end, &mut tally, &mut violations);
            self.no_false_alarm(truth, replication, &mut tally, &mut violations);
            self.every_end_is_told(truth, end, &mut violations);
            self.told_once(truth, replication, &mut tally, &mut violations);
            self.tally = tally;
        }
        for region in 0..2 {
            self.cuts_are_told_once(region, end, &mut violations);
        }
        self.tally.notices = self.notices.len() as u64;
        violations.sort_by_key(|violation| violation.at);
        Verdict { seed, focus, violations, tally: self.tally }
    }

    /// How much longer than usual anything may take between two instants: while hb itself was in trouble.
    fn trouble_ms(&self, from: u64, until: u64) -> u64 {
        let lost = self.lost[0].overlap(from, until).max(self.lost[1].overlap(from, until));
        let is_troubled = lost > 0 || self.link.overlap(from, until) > 0 || self.http.overlap(from, until) > 0;
        lost + if is_troubled { TAKEOVER_MS + HOLD_MS } else { 0 }
    }

    fn no_silent_death(&self, truth: &Truth, end: u64, tally: &mut Tally, out: &mut Vec<Violation>) {
        let mut until = truth.heard.iter().map(|(at, _)| *at).skip(1).chain([end]);
        for (from, _) in &truth.heard {
            let Some(until) = until.next() else { break };
            if until < from + truth.need_ms {
                continue;
            }
            let latest = from + truth.need_ms + SWEEPS_MS + TAKEOVER_MS;
            let latest = latest + self.trouble_ms(*from, latest.max(until));
            let told = truth.told.iter().find(|told| told.is_down && told.at > *from && told.at <= until.max(latest));
            match told {
                Some(told) if told.decided_at.saturating_sub(*from) >= truth.need_ms => {
                    let delay = told.at.saturating_sub(from + truth.need_ms);
                    // A region that has just come back gives credit for what it could not hear.
                    let is_troubled = self.trouble_ms(from.saturating_sub(TAKEOVER_MS), told.at) > 0;
                    tally.told(delay, is_troubled);
                    if delay > PROMPT_MS && !is_troubled && tally.failures == 0 {
                        out.push(Violation {
                            at: told.at,
                            invariant: "R1",
                            what: format!(
                                "{} was told as down {} s after its patience ended",
                                truth.name,
                                delay / 1000
                            ),
                        });
                    }
                }
                // People know it as down since before, and nobody has told them otherwise.
                None if truth.told.iter().rfind(|told| told.at <= latest).is_some_and(|told| told.is_down) => {}
                None if until > latest => out.push(Violation {
                    at: until,
                    invariant: "R1",
                    what: format!(
                        "{} was not heard from {} s to {} s, and nobody was told",
                        truth.name,
                        from / 1000,
                        until / 1000
                    ),
                }),
                Some(_) | None => {}
            }
        }
    }

    fn no_false_alarm(&self, truth: &Truth, replication: &Replication, tally: &mut Tally, out: &mut Vec<Violation>) {
        for told in truth.told.iter().filter(|told| told.is_down) {
            // Many that are silent at once are told as soon as the first of them has been for long enough (rule R4).
            let patience = if told.is_alone { truth.need_ms } else { truth.interval_ms };
            let heard = truth.heard.iter().rev().find(|(at, _)| at + RACE_MS <= told.decided_at);
            let Some((heard, by)) = heard else { continue };
            let silent = told.decided_at - heard;
            if silent >= patience {
                continue;
            }
            // Who tells is not always who decided.
            let may_decide = |region| {
                let known = Self::last_known(truth, replication, region, told.decided_at);
                let is_silent = known.is_none_or(|known| told.decided_at - known >= patience);
                is_silent && self.could_not_ask(region, told.decided_at)
            };
            // And where they were parted, what the one wrote replaces what the other has heard, until they have mended it.
            if may_decide(0) || may_decide(1) || self.were_parted(*heard, told.decided_at) {
                tally.false_alarms += 1;
                continue;
            }
            out.push(Violation {
                at: told.at,
                invariant: "R2",
                what: format!(
                    "region {} told at {} s that {} is down, which region {by} had heard {} s before",
                    told.region,
                    told.decided_at / 1000,
                    truth.name,
                    silent / 1000
                ),
            });
        }
    }

    /// Whether a region could not ask the other one when it decided something.
    fn could_not_ask(&self, region: usize, at: u64) -> bool {
        let (from, until) = (at.saturating_sub(RACE_MS), at + RACE_MS);
        self.http.overlap(from, until) > 0 || self.lost[1 - region].overlap(from, until) > 0
    }

    /// The last beat that a region can have known of at that time: one that it heard itself, or that had arrived.
    fn last_known(truth: &Truth, replication: &Replication, region: usize, now: u64) -> Option<u64> {
        let late: Vec<&Late> =
            replication.late.iter().filter(|late| late.to == region && is_about(truth, late)).collect();
        let had_arrived = |at: u64| {
            let is_on_its_way = late.iter().any(|late| late.from.abs_diff(at) <= RACE_MS && late.until > now);
            at + LATE_MS_MIN <= now && !is_on_its_way
        };
        let before = truth.heard.iter().rev().filter(|(at, _)| at + RACE_MS <= now);
        before.map(|(at, by)| (*at, *by)).find(|(at, by)| *by == region || had_arrived(*at)).map(|(at, _)| at)
    }

    /// How late what the regions knew of a host, and of what had been told, was at most between two instants.
    fn lateness(truth: &Truth, replication: &Replication, from: u64, until: u64) -> u64 {
        let is_told = |late: &Late| TOLD.iter().any(|prefix| late.key.0.starts_with(prefix));
        let spans = replication.late.iter().filter(|late| is_told(late) || is_about(truth, late));
        spans
            .filter(|late| late.from <= until && late.until >= from)
            .map(|late| late.until.saturating_sub(late.from))
            .max()
            .unwrap_or(0)
    }

    fn every_end_is_told(&self, truth: &Truth, end: u64, out: &mut Vec<Violation>) {
        for (n, told) in truth.told.iter().enumerate().filter(|(_, told)| told.is_down) {
            let Some((back, _)) = truth.heard.iter().find(|(at, _)| *at > told.decided_at + RACE_MS) else { continue };
            // Members of a mass silence are told when all are back, or five minutes after the first.
            let digest = if told.is_alone { 0 } else { 40 * MINUTE };
            let latest = back.max(&told.at) + SWEEPS_MS + TAKEOVER_MS + digest + TOLD_ELSEWHERE_MS;
            let latest = latest + self.trouble_ms(*back, latest) + self.link.overlap(*back, end);
            // Of whichever outage: where two regions were told of one each, one message says that it is back.
            let is_told = truth.told[n..].iter().any(|told| !told.is_down && told.at <= latest);
            // Silent again before anybody could be told: then what people know is true.
            let heard = truth.heard.iter().map(|(at, _)| *at).filter(|at| at >= back && *at <= latest);
            let is_silent = latest.saturating_sub(heard.max().unwrap_or(*back)) >= truth.need_ms;
            if latest < end && !is_told && !is_silent {
                out.push(Violation {
                    at: latest,
                    invariant: "R3",
                    what: format!(
                        "{} was told as down at {} s and heard again at {} s, and nobody was told",
                        truth.name,
                        told.at / 1000,
                        back / 1000
                    ),
                });
            }
        }
    }

    fn told_once(&self, truth: &Truth, replication: &Replication, tally: &mut Tally, out: &mut Vec<Violation>) {
        for (n, pair) in truth.told.windows(2).enumerate() {
            let [before, after] = pair else { continue };
            if before.is_down != after.is_down {
                continue;
            }
            // The end of an outage of its own: where the regions were parted, there may have been two at once.
            let of_it = |told: &&Told| told.incident == after.incident;
            let last = truth.told[..=n].iter().rev().find(of_it);
            if !after.is_down && before.incident != after.incident && last.is_some_and(|last| last.is_down) {
                continue;
            }
            let from = before.decided_at.min(after.decided_at).saturating_sub(TAKEOVER_MS);
            let is_late = Self::lateness(truth, replication, from, after.at) >= TAKEOVER_MS
                || self.is_catching_up(after.decided_at);
            if is_late || self.were_parted(from, after.at) {
                tally.duplicates += 1;
                continue;
            }
            let what = if after.is_down { "down" } else { "up" };
            out.push(Violation {
                at: after.at,
                invariant: "R4",
                what: format!(
                    "{} was told as {what} at {} s by region {}, and again by region {}",
                    truth.name,
                    before.at / 1000,
                    before.region,
                    after.region
                ),
            });
        }
    }

    /// Whether a region that had been lost for longer than a takeover came back less than a minute ago: so long it is behind.
    fn is_catching_up(&self, at: u64) -> bool {
        let is_behind =
            |span: &Span| span.until - span.from >= TAKEOVER_MS && (span.until..span.until + MINUTE).contains(&at);
        self.lost.iter().flat_map(|lost| &lost.0).filter(|span| span.until != u64::MAX).any(is_behind)
    }

    /// Whether each region had reason to believe that the other one was gone.
    fn were_parted(&self, from: u64, until: u64) -> bool {
        let from = from.saturating_sub(TAKEOVER_MS);
        self.link.overlap(from, until) >= TAKEOVER_MS && self.http.overlap(from, until) > 0
    }

    fn cuts_are_told_once(&self, region: usize, end: u64, out: &mut Vec<Violation>) {
        let mut broken = |at: u64, what: String| out.push(Violation { at, invariant: "R5", what });
        // One that the other region had told already is no other one, where neither could know of the other.
        let is_repeated = |n: usize, notice: &Receipt| {
            let before = self.notices[..n].iter().find(|before| before.event == notice.event);
            before.is_some_and(|before| before.region != region && self.were_parted(before.at, notice.at))
        };
        let told: Vec<(u64, bool)> = self
            .notices
            .iter()
            .enumerate()
            .filter(|(_, notice)| notice.region == region && notice.kind.starts_with("replication_"))
            .filter(|(n, notice)| !is_repeated(*n, notice))
            .map(|(_, notice)| (notice.at, notice.kind == "replication_cut"))
            .collect();
        let mut is_cut = false;
        for (at, says_cut) in &told {
            if *says_cut == is_cut {
                broken(
                    *at,
                    format!("region {region} told twice that replication is {}", if is_cut { "cut" } else { "well" }),
                );
            }
            is_cut = *says_cut;
        }
        if is_cut && told.last().is_some_and(|(at, _)| at + 30 * MINUTE < end) {
            broken(end, format!("region {region} has not told that replication works again"));
        }
        for span in &self.link.0 {
            let until = span.until.min(end);
            let latest = span.from + TAKEOVER_MS + SWEEPS_MS;
            let is_alone = self.trouble_but_link(span.from.saturating_sub(TAKEOVER_MS), until) == 0;
            let is_told = told.iter().any(|(at, says_cut)| *says_cut && *at >= span.from && *at <= latest);
            if is_alone && latest < until && !is_told {
                broken(
                    latest,
                    format!("replication was cut at {} s, and region {region} did not tell", span.from / 1000),
                );
            }
        }
    }

    fn trouble_but_link(&self, from: u64, until: u64) -> u64 {
        self.lost[0].overlap(from, until) + self.lost[1].overlap(from, until) + self.http.overlap(from, until)
    }
}

/// Whether an item is the host's own.
fn is_about(truth: &Truth, late: &Late) -> bool {
    let (id, short) = (truth.id.0.to_string(), short(truth.id.0));
    let (p, s) = &late.key;
    [p, s].iter().any(|key| key.contains(&id) || key.contains(&short))
}
