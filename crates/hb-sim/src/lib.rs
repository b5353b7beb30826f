//! The simulated world that proves hb: the real state machine, use cases and (at the level of the router) the real HTTP
//! interface, on virtual time, with every fault that can be thought of, judged by checkers that know the world's truth.
//!
//! Deterministic: one thread, one queue, one source of chance. The same seed gives the same world, event by event.
//!
//! Reading order: [`world`] (the queue and what happens), [`computer`] (hosts), [`server`] (the process under test),
//! [`courier`] (receivers), [`oracle`] (when an alarm is due), [`judge`] (the checkers), [`report`].

#![expect(
    clippy::wildcard_enum_match_arm,
    clippy::cast_possible_truncation,
    clippy::match_same_arms,
    reason = "the world looks at the events it must judge, counts far below 32 bits, and lists its faults in their order"
)]

pub mod agenda;
pub mod campaign;
pub mod cli;
pub mod computer;
pub mod courier;
pub mod dice;
pub mod executor;
pub mod front;
pub mod judge;
pub mod oracle;
pub mod report;
pub mod server;
pub mod world;
