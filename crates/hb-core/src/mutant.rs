//! Faults that the simulator must find: each is a design that another system has, or that hb's first drafts had.
//!
//! Without the feature `mutants` (which only hb-sim and tests ask for) [`active`] is a constant `false`.

/// A deliberate fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mutant {
    /// A delivery is marked as done before it is sent.
    ClaimFirst,
    /// A transition is conditional on the state only, not on the deadline.
    CasStateOnly,
    /// No hold-off and no credit after a gap.
    NoHold,
    /// The server does not notice that nothing reaches it.
    NoCanary,
    /// Deadlines follow the wall clock.
    Wall,
    /// State and event are written one after the other.
    Nonatomic,
    /// The deadline is counted from the last tick instead of from the commit.
    StaleDeadline,
    /// Freshness is a counter that a host with a lost state cannot continue.
    SeqNoResync,
    /// Freshness is a window around `created`, without a nonce.
    CreatedWindow,
    /// A DOWN decision leaves the nonce as it was.
    NoRotate,
    /// Nonces expire on observed time instead of elapsed time.
    OneClock,
    /// The sweep looks only at the minute that just passed.
    EqualityMinute,
    /// The sweep takes one page and leaves the rest.
    LimitNoLoop,
    /// A clone displaces the live holder.
    CloneObeyed,
    /// A region stands in for the other one without having asked it.
    TakeoverUnasked,
    /// A region accuses a host without having asked whether the other one hears it.
    AccusedUnasked,
    /// What two regions decided without knowing of each other stays as it is.
    Unmended,
}

impl Mutant {
    /// Every mutant that one server is enough for.
    pub const ALL: [Self; 14] = [
        Self::ClaimFirst,
        Self::CasStateOnly,
        Self::NoHold,
        Self::NoCanary,
        Self::Wall,
        Self::Nonatomic,
        Self::StaleDeadline,
        Self::SeqNoResync,
        Self::CreatedWindow,
        Self::NoRotate,
        Self::OneClock,
        Self::EqualityMinute,
        Self::LimitNoLoop,
        Self::CloneObeyed,
    ];

    /// Those that need two regions to do harm: hb-sim-regions finds them.
    pub const OF_REGIONS: [Self; 3] = [Self::TakeoverUnasked, Self::AccusedUnasked, Self::Unmended];

    /// Its name, as people type it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::ClaimFirst => "claim_first",
            Self::CasStateOnly => "cas_state_only",
            Self::NoHold => "no_hold",
            Self::NoCanary => "no_canary",
            Self::Wall => "wall",
            Self::Nonatomic => "nonatomic",
            Self::StaleDeadline => "stale_deadline",
            Self::SeqNoResync => "seq_no_resync",
            Self::CreatedWindow => "created_window",
            Self::NoRotate => "no_rotate",
            Self::OneClock => "one_clock",
            Self::EqualityMinute => "equality_minute",
            Self::LimitNoLoop => "limit_no_loop",
            Self::CloneObeyed => "clone_obeyed",
            Self::TakeoverUnasked => "takeover_unasked",
            Self::AccusedUnasked => "accused_unasked",
            Self::Unmended => "unmended",
        }
    }

    /// The mutant of that name.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().chain(Self::OF_REGIONS).find(|mutant| mutant.word() == word)
    }
}

#[cfg(feature = "mutants")]
mod switch {
    use core::cell::Cell;

    use super::Mutant;

    thread_local! {
        static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// True while `mutant` is switched on in this thread.
    #[must_use]
    pub fn active(mutant: Mutant) -> bool {
        ACTIVE.get() == Some(mutant)
    }

    /// Switches a mutant on (or all off) in this thread for as long as `run` runs.
    pub fn with<T>(mutant: Option<Mutant>, run: impl FnOnce() -> T) -> T {
        let before = ACTIVE.replace(mutant);
        let result = run();
        ACTIVE.set(before);
        result
    }
}

#[cfg(feature = "mutants")]
pub use switch::{active, with};

/// True while `mutant` is switched on; without the feature `mutants`, never.
#[cfg(not(feature = "mutants"))]
#[must_use]
#[inline(always)]
#[expect(clippy::inline_always, reason = "the check has to vanish from what is shipped")]
pub const fn active(_mutant: Mutant) -> bool {
    false
}
