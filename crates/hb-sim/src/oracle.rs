//! The world's own idea of when a host has to be called down, and when it must not be: written from the rules, not from the
//! code under test.

use hb_wire::view::Class;

/// Longest hold-off after a gap.
const HOLD_MAX_MS: u64 = 90_000;
/// Hold-offs that one silence is entitled to.
const HOLDS_MAX: u64 = 3;
/// By how much the server's idea of a gap may exceed the truth on either side: three periods of the canary, a stored tick.
const GAP_SLACK_MS: u64 = 45_000;
/// A stop no longer than this may go unnoticed: a tick has to come three seconds late to be a gap, and ticks are a second
/// apart.
const UNNOTICED_MS: u64 = 4_000;

/// What a host asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Milliseconds between beats.
    pub interval: u64,
    /// Milliseconds of grace.
    pub grace: u64,
    /// What it is.
    pub class: Class,
    /// Longest absence of an intermittent host, in milliseconds.
    pub max_away: Option<u64>,
}

impl Terms {
    /// Interval plus grace.
    #[must_use]
    pub fn need(&self) -> u64 {
        self.interval + self.grace
    }

    /// Silence after which there is an alarm.
    #[must_use]
    pub fn patience(&self) -> Option<u64> {
        match self.class {
            Class::Server | Class::Ephemeral => Some(self.need()),
            Class::Intermittent => self.max_away.map(|away| away.max(self.need())),
        }
    }

    /// The hold-off after a gap.
    #[must_use]
    pub fn hold(&self) -> u64 {
        (self.interval * 3 / 2).min(HOLD_MAX_MS)
    }
}

/// A host's state, as its events tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Enrolled.
    New,
    /// Up.
    Up,
    /// Down.
    Down,
    /// Said goodbye.
    Stopped,
    /// Paused; with an outage that is not over, or without.
    Paused {
        /// An outage is open.
        outage: bool,
        /// When it ends by itself.
        until: Option<u64>,
    },
    /// Out of service.
    Retired,
}

impl Seen {
    /// As the store words it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Up => "up",
            Self::Down => "down",
            Self::Stopped => "stopped",
            Self::Paused { .. } => "paused",
            Self::Retired => "retired",
        }
    }
}

/// A span in which the server could not observe; the truth about it, not the server's ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blind {
    /// From.
    pub from: u64,
    /// To; none while it lasts.
    pub to: Option<u64>,
}

/// What is true of one host.
#[derive(Debug, Clone)]
pub struct Truth {
    /// What it asks for.
    pub terms: Terms,
    /// Edits that may or may not have been applied yet: the most and the least patient terms in force.
    pub asked: Option<Terms>,
    /// When the last edit was asked for: it was decided between that and its answer.
    pub asked_at: u64,
    /// Its silence counts from here at the latest.
    pub from: u64,
    /// Its silence counts from here at the earliest; none when that is not known, after a backup was restored.
    pub sure_from: Option<u64>,
    /// No alarm before this, because it was edited.
    pub edit_floor: u64,
    /// The same, if the edit was decided as late as its answer came.
    pub edit_floor_latest: u64,
    /// It said goodbye: expected back this long after `from`. A goodbye of which the answer was lost may not count.
    pub away_for: Option<u64>,
    /// Announced maintenance.
    pub maintenance: u64,
    /// What its events tell.
    pub seen: Seen,
    /// When it was last declared down.
    pub down_at: Option<u64>,
    /// That was told on its own, not inside a mass silence.
    pub fell_singly: bool,
    /// The last accepted beat.
    pub accepted_at: Option<u64>,
    /// Since when its holder has been found to have a clone.
    pub cloned_at: Option<u64>,
    /// A missed death is told once.
    pub missed: bool,
}

impl Truth {
    /// A host that was just enrolled.
    #[must_use]
    pub fn new(terms: Terms, now: u64) -> Self {
        Self {
            terms,
            asked: None,
            from: now,
            sure_from: Some(now),
            asked_at: 0,
            edit_floor: 0,
            edit_floor_latest: 0,
            away_for: None,
            maintenance: 0,
            seen: Seen::New,
            down_at: None,
            fell_singly: false,
            accepted_at: None,
            cloned_at: None,
            missed: false,
        }
    }

    /// I1: the instant by which it has to be called down if nothing more is heard; none: never.
    #[must_use]
    pub fn latest_alarm(&self, blind: &[Blind], now: u64, detection: u64) -> Option<u64> {
        let patience = |terms: &Terms| match self.seen {
            Seen::New => Some(terms.need()),
            Seen::Up => terms.patience(),
            Seen::Stopped => Some(self.away_for.unwrap_or(0).max(terms.need())),
            Seen::Down | Seen::Paused { .. } | Seen::Retired => None,
        };
        let mut need = patience(&self.terms)?;
        if let Some(asked) = &self.asked {
            need = need.max(patience(asked)?);
        }
        need = need.max(self.away_for.unwrap_or(0));
        let hold = self.terms.hold().max(self.asked.map_or(0, |terms| terms.hold()));
        let start = blind.partition_point(|span| span.to.is_some_and(|to| to + GAP_SLACK_MS <= self.from));
        let spans = || blind[start..].iter().map(|span| (span.from, span.to.unwrap_or(now) + GAP_SLACK_MS));
        // A span that begins before the decision has to be there is followed by a hold-off, all together by three whole ones.
        let mut alarm = self.from + need;
        let mut most = alarm + HOLDS_MAX * hold;
        for (from, to) in spans() {
            if from > alarm + detection + GAP_SLACK_MS {
                break;
            }
            let credit = to.saturating_sub(from.max(self.from));
            most += credit;
            alarm = (alarm + credit).max(to + hold).min(most);
        }
        let mut quiet = self.maintenance;
        for (from, to) in spans() {
            if from <= quiet + detection + GAP_SLACK_MS && to > quiet {
                quiet = to + hold;
            }
        }
        alarm = alarm.max(self.edit_floor_latest).max(quiet);
        // What falls due while nobody looks is decided when somebody does.
        let unseen = blind.iter().rev().find(|span| span.from <= alarm + detection);
        if let Some(to) = unseen.map(|span| span.to.unwrap_or(now) + GAP_SLACK_MS) {
            alarm = alarm.max(to);
        }
        Some(alarm + detection)
    }

    /// I2: the instant before which it must not be called down, by the plain length of its silence; and by the part of it
    /// that was observed.
    #[must_use]
    pub fn earliest_alarm(&self, dead: &[Blind], at: u64) -> Option<(u64, u64)> {
        let from = self.sure_from?;
        let patience = |terms: &Terms| match self.seen {
            Seen::New => Some(terms.need()),
            Seen::Stopped => Some(self.away_for.unwrap_or(0)),
            Seen::Up => terms.patience(),
            Seen::Down | Seen::Paused { .. } | Seen::Retired => None,
        };
        let mut need = patience(&self.terms).unwrap_or(u64::MAX / 4);
        if let Some(asked) = &self.asked {
            need = need.min(patience(asked).unwrap_or(u64::MAX / 4));
        }
        let start = dead.partition_point(|span| span.to.is_some_and(|to| to <= from));
        let unobserved: u64 = dead[start..]
            .iter()
            .filter(|span| span.from < at && span.to.unwrap_or(at) - span.from > UNNOTICED_MS)
            .map(|span| span.to.unwrap_or(at).min(at).saturating_sub(span.from.max(from)))
            .sum();
        let plain = from + need;
        Some((plain.max(self.edit_floor), plain + unobserved))
    }

    /// The terms were changed: I15, an edit never turns silence that has already passed into an alarm, and a host keeps to its
    /// old interval until it hears of a shorter one.
    pub fn edit(&mut self, terms: Terms, now: u64) {
        if matches!(self.seen, Seen::New | Seen::Up | Seen::Paused { .. }) && terms.patience() != self.terms.patience()
        {
            let patience = terms.patience().unwrap_or(terms.need());
            self.edit_floor = self.asked_at.min(now) + terms.hold();
            self.edit_floor_latest = now + terms.hold();
            let told = self.from + self.terms.interval.saturating_sub(terms.interval);
            self.from = told.max((now + terms.hold()).saturating_sub(patience));
        }
        self.terms = terms;
        self.asked = None;
    }
}
