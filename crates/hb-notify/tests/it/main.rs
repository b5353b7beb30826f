//! The alert channels against real receivers on loopback: HTTP, TLS, SMTP and programs, well-behaved and hostile.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers fail a test as the tests themselves do")]

mod email;
mod exec;
mod receiver;
mod smtp_server;
mod support;
mod webhook;
