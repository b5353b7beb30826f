//! The agent.

pub mod cadence;
pub mod memory;
