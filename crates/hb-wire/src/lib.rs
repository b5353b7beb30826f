//! The vocabulary shared by hb's agent and server.
//!
//! Light on purpose: no async, no HTTP client, no clock, no randomness. Everything here parses strictly, never panics
//! on any bytes, and has a named limit.

pub mod api_key;
pub mod beat;
pub mod digest;
pub mod duration;
pub mod id;
pub mod key;
pub mod name;
pub mod nonce;
pub mod problem;
pub mod signature;
pub mod view;
