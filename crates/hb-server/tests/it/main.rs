//! The tests of hb-server: they drive the real program over real sockets.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints what it measured; its helpers included"
)]

mod agents;
mod backup;
mod blind;
mod canary;
mod client;
mod completions;
mod crowd;
mod detection;
mod errors;
mod fleet;
mod heartbeat;
mod kill;
mod machine;
mod network;
mod readme;
mod receiver;
mod server;
mod start;
mod tls;
