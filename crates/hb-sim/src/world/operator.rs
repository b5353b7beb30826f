//! What operators wish, through the same use cases that the HTTP interface offers.

use std::collections::BTreeMap;
use std::sync::Arc;

use hb_wire::view::{HostPatch, PauseRequest};

use super::faults::Heal;
use super::{HOUR, Happening, MINUTE, Process, World};
use crate::executor::lock;
use crate::oracle::Terms;

/// A wish.
#[derive(Debug, Clone)]
pub(super) enum Act {
    Pause { for_s: Option<u64> },
    Resume,
    Edit { terms: Terms },
}

/// What became of it.
pub(super) struct Wished {
    host: usize,
    act: Act,
    granted: bool,
}

impl World {
    pub(super) fn wish_pause(&mut self) {
        let host = self.dice.within(0..self.hosts.len() as u64) as usize;
        self.tally.pauses += 1;
        let for_s = if self.dice.one_in(2) { Some(self.dice.within(60..7_200)) } else { None };
        if for_s.is_none() {
            let ms = self.dice.about(HOUR);
            self.after(ms, Happening::Heal(Heal::Resume { host }));
        }
        self.wish(host, Act::Pause { for_s });
    }

    pub(super) fn wish_resume(&mut self, host: usize) {
        self.wish(host, Act::Resume);
    }

    pub(super) fn wish_edit(&mut self) {
        let host = self.dice.within(0..self.hosts.len() as u64) as usize;
        let grace = [30_000, 60_000, 120_000, 240_000, 600_000][self.dice.within(0..5) as usize];
        let interval = [15_000, 30_000, 60_000, 120_000, 300_000][self.dice.within(0..5) as usize];
        let terms = Terms { interval, grace, ..self.hosts[host].terms };
        self.tally.edits += 1;
        // A host must not pay for it that it has not heard of the first thing yet.
        let hasty = self.config.hasty;
        let (before, after) = (hasty && self.dice.one_in(8), hasty && self.dice.one_in(8));
        if before {
            self.wish(host, Act::Pause { for_s: None });
        }
        self.wish(host, Act::Edit { terms });
        if after && !before {
            self.wish(host, Act::Pause { for_s: None });
        }
        if before || after {
            let ms = self.dice.within(0..20_000);
            self.after(ms, Happening::Heal(Heal::Resume { host }));
        }
    }

    fn wish(&mut self, host: usize, act: Act) {
        if let Act::Edit { terms } = &act {
            self.judge.asked(host, Some(*terms), self.now);
        }
        let Process::Running(server) = &mut self.process else { return self.again(host, act) };
        let (app, wished, id) = (Arc::clone(&server.app), Arc::clone(&self.wished), self.hosts[host].id);
        self.open_wishes.push((host, act.clone()));
        server.executor.spawn(async move {
            let granted = match &act {
                Act::Pause { for_s } => {
                    let request = PauseRequest { for_s: *for_s, reason: Some("maintenance".to_owned()) };
                    app.pause(id, &request).await.is_ok()
                }
                Act::Resume => app.resume(id).await.is_ok(),
                Act::Edit { terms } => {
                    let patch = HostPatch {
                        name: None,
                        interval_s: Some(terms.interval / 1000),
                        grace_s: Some(terms.grace / 1000),
                        tags: BTreeMap::new(),
                        class: None,
                        max_away_s: None,
                    };
                    app.patch(id, &patch).await.is_ok()
                }
            };
            lock(&wished).push(Wished { host, act, granted });
        });
        self.run_server();
    }

    /// An operator who got no answer tries again.
    fn again(&mut self, host: usize, act: Act) {
        self.after(MINUTE, Happening::Heal(Heal::Wish { host, act }));
    }

    pub(super) fn settle_wishes(&mut self) {
        let wished = core::mem::take(&mut *lock(&self.wished));
        for Wished { host, act, granted } in wished {
            if let Some(place) = self.open_wishes.iter().position(|(other, _)| *other == host) {
                self.open_wishes.remove(place);
            }
            self.wish_answered(host, act, granted);
        }
    }

    pub(super) fn wishes_lost(&mut self) {
        self.settle_wishes();
        for (host, act) in core::mem::take(&mut self.open_wishes) {
            self.wish_answered(host, act, false);
        }
    }

    fn wish_answered(&mut self, host: usize, act: Act, granted: bool) {
        self.say(|| format!("host {host}: {act:?} granted {granted}"));
        match (&act, granted) {
            (Act::Edit { terms }, true) => {
                self.hosts[host].terms = *terms;
                self.judge.edited(host, *terms, self.now);
            }
            (Act::Pause { .. } | Act::Resume, true) => {}
            (_, false) if self.judge.is_retired(host) => self.judge.asked(host, None, self.now),
            (_, false) => self.again(host, act),
        }
    }

    pub(super) fn wish_again(&mut self, host: usize, act: Act) {
        self.wish(host, act);
    }
}
