//! hb's domain: what a host is, when silence is an alarm, what belongs together, who is told.
//!
//! Pure on purpose. Every function takes what it needs (the time, the ledger of unobserved spans, random bytes) and
//! returns what follows (the new host, the events). Nothing here reads a clock, draws a random number, waits or talks to
//! anything, so that `hb-server`, the serverless API and the simulator run the very same decisions.
//!
//! Reading order: [`time`], [`host`], [`machine`] (the state machine), [`event`], [`ledger`] (what was not observed),
//! [`observer`] (how that is found out), [`incident`] (what belongs together), [`delivery`] (who is told, and when again),
//! [`mend`](mod@mend) (two decisions that did not know of each other).

pub mod access;
pub mod delivery;
pub mod event;
pub mod host;
pub mod incident;
pub mod ledger;
pub mod machine;
pub mod mend;
pub mod mutant;
pub mod observer;
pub mod policy;
pub mod time;
