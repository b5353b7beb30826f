//! The HTTP interface, driven as a client would: the real router over the store in memory.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as loudly as tests do")]
#![expect(unreachable_pub, reason = "one binary, nothing of it is published")]

mod access;
mod bad_input;
mod beats;
mod channels;
mod enrol;
mod events;
mod hb_api_defects;
mod heartbeats;
mod hosts;
mod malformed;
mod openapi;
mod scheduled;
mod schema;
mod server;
mod support;
