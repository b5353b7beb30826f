//! hb's agent and command line.

pub mod error;
pub mod exit;
