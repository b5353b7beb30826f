//! The vocabulary shared by hb's agent and server.
//!
//! Light on purpose: no async, no HTTP client, no clock, no randomness. Everything here parses strictly, never panics
//! on any bytes, and has a named limit.

// In a test, an index out of bounds is a failed test; anywhere else it is a crash on somebody's bytes.
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

pub mod api_key;
pub mod beat;
pub mod digest;
pub mod duration;
#[cfg(test)]
mod hex;
pub mod id;
mod json;
pub mod key;
pub mod name;
pub mod nonce;
pub mod problem;
pub mod rotation;
pub mod signature;
pub mod view;
