//! The HTTP interface, driven as a client would: the real router over the store in memory.

#![expect(clippy::unwrap_used, clippy::panic, clippy::missing_panics_doc, reason = "a test says so when it fails")]
#![expect(unreachable_pub, reason = "one binary, nothing of it is published")]

mod hosts;
mod openapi;
mod support;
