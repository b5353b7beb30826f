//! The tests of hb-server: they drive the real program over real sockets.

mod backup;
mod blind;
mod client;
mod crowd;
mod detection;
mod errors;
mod fleet;
mod kill;
mod receiver;
mod server;
mod start;
mod tls;
