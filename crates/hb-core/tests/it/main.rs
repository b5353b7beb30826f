//! The state machine as a user would describe it. Everything in virtual time.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    unreachable_pub,
    reason = "a test that fails shall stop, and these modules are seen by nobody"
)]

mod deliveries;
mod incidents;
mod machine;
mod sequences;
mod support;
