//! The sweep: looks for deadlines that have passed, decides, and writes each decision conditionally.
//!
//! It takes no input and is idempotent: a loop on `hb-server`, a schedule on Lambda, and anything else may run it sooner.

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use hb_core::event::Subject;
use hb_core::host::{Host, State};
use hb_core::incident::{self, Incident, MEMBERS_MAX};
use hb_core::machine::{self, Grouping, Moment};
use hb_core::mutant::{Mutant, active};
use hb_core::time::seconds;
use hb_store::{Change, Committed, Result, Versioned};

use crate::app::App;

/// Hosts that are decided about before the store is asked again.
pub const PAGE: usize = 500;
/// Hosts that are judged at once: where a decision takes a store some milliseconds, thousands would wait for each other.
const JUDGED_AT_ONCE: usize = 16;
/// How often a decision is made anew because somebody else was faster.
const TRIES_MAX: usize = 8;
/// An observation that this process stored itself less than this long ago is not read again, not even by a run that is late. If
/// somebody else stored one since, the tick's own write is refused, and goes on from there.
const KNOWN_FOR_MS: u64 = seconds(90);

/// What a sweep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Decisions written.
    pub decided: u64,
    /// True when nothing was judged, because hb was not observing.
    pub blind: bool,
}

impl App {
    /// One sweep, to the end.
    pub async fn sweep(&self) -> Result<Swept> {
        let mut swept = Swept::default();
        if !self.tick().await?.observing() {
            swept.blind = true;
            return Ok(swept);
        }
        loop {
            let due = self.due().await?;
            if due.is_empty() {
                break;
            }
            if !self.can_hear().await || !self.tick().await?.observing() {
                swept.blind = true;
                return Ok(swept);
            }
            let full = due.len() >= PAGE;
            let before = swept.decided;
            swept.decided += self.judge_all(due).await?;
            if !full || swept.decided == before || active(Mutant::LimitNoLoop) {
                break;
            }
        }
        // Mostly there is none; one that this sweep opened itself is looked for in earnest.
        if swept.decided > 0 || self.store.may_have_incidents().await? {
            self.review_incidents().await?;
        }
        self.metrics.sweeps.add();
        self.metrics.swept_at_ms.set(self.clock.now().0);
        Ok(swept)
    }

    /// One run of a sweeper that only comes by ([`crate::app::Loops::Elsewhere`]), each minute or so: takes over what was observed,
    /// hears itself, and sweeps. Late, skipped and doubled runs are harmless: what two decide alike is written once.
    pub async fn come_by(&self) -> Result<Swept> {
        let begun = self.clock.now();
        let swept = self.look_around().await;
        if swept.is_err() {
            // Whatever the reason: who cannot sweep cannot vouch for this minute either.
            self.watch.missed(begun);
        }
        swept
    }

    async fn look_around(&self) -> Result<Swept> {
        self.catch_up(KNOWN_FOR_MS).await?;
        if self.watch.has_missed() {
            // That of the run before this one counts, whatever the canary finds now.
            self.tick().await?;
        }
        // What it finds is weighed, and stored, by the next tick, and logged where it is sent.
        self.send_canary().await;
        self.sweep().await
    }

    async fn due(&self) -> Result<Vec<Versioned<Host>>> {
        let now = self.clock.now();
        let policy = &self.settings.policy;
        let ledger = self.watch.ledger();
        let mut due = self.store.due(now, &ledger, policy, PAGE).await?;
        if active(Mutant::EqualityMinute) {
            let minute = (now.0 / 60_000).saturating_sub(1);
            due.retain(|host| host.value.alarm_at(&ledger, policy).is_some_and(|at| at.0 / 60_000 == minute));
        }
        Ok(due)
    }

    /// Decides about these hosts, and how many were decided about. The first one alone: those that fell silent with it find
    /// the incident that it opens.
    async fn judge_all(&self, due: Vec<Versioned<Host>>) -> Result<u64> {
        let mut due = due.into_iter();
        let mut decided = 0;
        if let Some(first) = due.next() {
            decided += u64::from(self.judge(first).await?);
        }
        let mut judged = stream::iter(due).map(|host| self.judge(host)).buffer_unordered(JUDGED_AT_ONCE);
        while let Some(is_decided) = judged.try_next().await? {
            decided += u64::from(is_decided);
        }
        Ok(decided)
    }

    /// Decides about one host; true when something was written.
    async fn judge(&self, mut read: Versioned<Host>) -> Result<bool> {
        for _ in 0..TRIES_MAX {
            let (grouping, mut change) = self.group(&read.value).await?;
            // As of the last tick, not of now: if the process was stopped since, nobody has entered that gap yet.
            let seen = self.watch.shown();
            let moment = Moment {
                now: seen.observed_until,
                ledger: &seen.ledger,
                policy: &self.settings.policy,
                fresh: self.fresh_nonce(),
            };
            let Some(transition) = machine::sweep(&read.value, grouping, &moment) else { return Ok(false) };
            let retired = matches!(transition.host.state, State::Retired { .. });
            change.host = Some(Versioned { value: transition.host, rev: read.rev });
            change.events.extend(transition.events);
            match self.store.commit(change).await? {
                Committed::Done => {
                    if retired {
                        self.keyring.forget(read.value.id);
                    }
                    self.metrics.decisions.add();
                    self.to_deliver.notify_one();
                    return Ok(true);
                }
                Committed::Conflict => self.metrics.conflicts.add(),
            }
            // A beat, an operator or another sweep was faster: what it wrote decides whether there is anything left to do.
            match self.store.host(read.value.id).await? {
                Some(host) => read = host,
                None => return Ok(false),
            }
        }
        Ok(false)
    }

    /// Whether a host that fell silent speaks for itself (rule R4), and what else is to be written then.
    async fn group(&self, host: &Host) -> Result<(Grouping, Change)> {
        let single = (Grouping::Single, Change::default());
        // Who may be away at any time says nothing about others by it.
        if !matches!(host.state, State::Up { .. }) || !host.is_always_on() {
            return Ok(single);
        }
        for open in self.store.open_incidents().await? {
            if open.value.takes(host) {
                let id = open.value.id;
                let incident =
                    (!open.value.names(host)).then(|| Versioned { value: open.value.join(host), rev: open.rev });
                return Ok((Grouping::Member(id), Change { incident, ..Change::default() }));
            }
        }
        let now = self.watch.shown().observed_until;
        let groups = self.store.silence(now, &host.tags).await?;
        let Some(group) = incident::widest(&groups, &self.settings.policy) else { return Ok(single) };
        let members = self.store.silent(now, group.tag.as_ref(), MEMBERS_MAX).await?;
        let (opened, event) = Incident::open(host, group, members, now, &self.settings.policy);
        let grouping = Grouping::Member(opened.id);
        let incident = Some(Versioned { value: opened, rev: 0 });
        Ok((grouping, Change { incident, events: vec![event], host: None }))
    }

    async fn review_incidents(&self) -> Result<()> {
        for open in self.store.open_incidents().await? {
            let now = self.clock.now();
            let down = self.store.down_in(open.value.id, MEMBERS_MAX).await?;
            let late = self.late_members(&open.value).await?;
            let Some((next, events)) = open.value.review(&down, &late, now, &self.settings.policy) else { continue };
            let change = Change { host: None, incident: Some(Versioned { value: next, rev: open.rev }), events };
            // Somebody faster reviewed it already; what is left is seen at the next sweep.
            if self.store.commit(change).await? == Committed::Done {
                self.to_deliver.notify_one();
            }
        }
        Ok(())
    }

    /// Members that are still silent, but whose deadline has not passed.
    async fn late_members(&self, incident: &Incident) -> Result<Vec<Subject>> {
        let mut silent = self.store.silent(self.clock.now(), incident.tag.as_ref(), MEMBERS_MAX).await?;
        silent.retain(|subject| incident.members.iter().any(|member| member.id == subject.id));
        Ok(silent)
    }
}
