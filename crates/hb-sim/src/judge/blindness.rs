//! When hb was really blind, and whether it said so (I4b).

use crate::oracle::Blind;
use crate::world::MINUTE;

/// Deaf or gone for this long without a break, hb owes a notice: its five minutes, a late tick, and a canary's round.
const OWED_MS: u64 = 6 * MINUTE;
/// It is given this long after it can speak again.
const SPEAK_MS: u64 = MINUTE;
/// By how much hb's idea of a gap may begin before the trouble: three periods of the canary, a stored tick.
const BEFORE_MS: u64 = 45_000;

/// The world's troubles with the server.
#[derive(Debug, Default)]
pub(crate) struct Blindness {
    /// Any trouble, merged.
    spans: Vec<Blind>,
    /// The process was not running.
    dead: Vec<Blind>,
    troubles: u32,
    /// Nothing reaches the server, for whatever reason: how many reasons, since when.
    mute: u32,
    mute_since: u64,
    /// hb has said that it is blind, and not yet that it observes again.
    announced: bool,
    /// It had said so before nothing reached it any more: one notice for both.
    mute_announced: bool,
    /// Spans after which a notice is owed.
    owed: Vec<(u64, u64)>,
    told: Vec<u64>,
    disturbed_at: u64,
}

impl Blindness {
    /// Spans in which something was wrong.
    pub(crate) fn spans(&self) -> &[Blind] {
        &self.spans
    }

    /// Spans in which the process was not running.
    pub(crate) fn dead(&self) -> &[Blind] {
        &self.dead
    }

    /// Some trouble begins. `mute`: nothing gets in while it lasts.
    pub(crate) fn begins(&mut self, now: u64, mute: bool) {
        self.disturbed_at = now;
        self.troubles += 1;
        if self.troubles == 1 {
            self.spans.push(Blind { from: now, to: None });
        }
        if mute {
            self.mute += 1;
            if self.mute == 1 {
                self.mute_since = now;
                self.mute_announced = self.announced;
            }
        }
    }

    /// That trouble ends.
    pub(crate) fn ends(&mut self, now: u64, mute: bool) {
        self.disturbed_at = now;
        self.troubles = self.troubles.saturating_sub(1);
        if self.troubles == 0
            && let Some(span) = self.spans.last_mut()
        {
            span.to = Some(now);
        }
        if mute {
            self.mute = self.mute.saturating_sub(1);
            if self.mute == 0 && now - self.mute_since >= OWED_MS && !self.mute_announced {
                self.owed.push((self.mute_since, now));
            }
        }
    }

    /// The process stops running.
    pub(crate) fn dies(&mut self, now: u64) {
        self.disturbed_at = now;
        self.dead.push(Blind { from: now, to: None });
    }

    /// The process runs again.
    pub(crate) fn lives(&mut self, now: u64) {
        self.disturbed_at = now;
        if let Some(span) = self.dead.last_mut() {
            span.to = Some(now);
        }
    }

    /// True if anything was wrong at or after `then`.
    pub(crate) fn troubled_since(&self, then: u64) -> bool {
        self.troubles > 0 || self.disturbed_at >= then
    }

    /// hb says that it was blind since `since`.
    ///
    /// # Errors
    /// It was not, or said so before.
    pub(crate) fn told(&mut self, since: u64, now: u64) -> Result<(), String> {
        let reason = self
            .spans
            .iter()
            .rev()
            .any(|span| span.from <= now && span.to.is_none_or(|to| to.saturating_add(BEFORE_MS) >= since));
        self.told.push(now);
        self.announced = true;
        if reason { Ok(()) } else { Err(format!("hb says that it was blind since {since} ms, and was not")) }
    }

    /// hb says that it observes again: from now on another notice is owed.
    pub(crate) fn observes(&mut self) {
        self.announced = false;
        self.mute_announced = false;
    }

    /// Whether every notice that is owed was given.
    ///
    /// # Errors
    /// One was not.
    pub(crate) fn audit(&mut self, now: u64) -> Result<(), String> {
        let troubled = self.troubles > 0;
        let due = |owed: &(u64, u64)| !troubled && now >= owed.1 + SPEAK_MS;
        let Some(place) = self.owed.iter().position(due) else { return Ok(()) };
        let (from, to) = self.owed.swap_remove(place);
        if self.told.iter().any(|at| *at >= from) {
            Ok(())
        } else {
            Err(format!("hb was deaf from {from} to {to} ms, and told nobody"))
        }
    }
}
