//! The monitored host's side: the real `hb` against a server that behaves, or misbehaves, on purpose.

mod agent;
mod beat;
mod doctor;
mod footprint;
mod identity;
mod kill;
mod proxy;
mod register;
mod server;
mod state;
mod system;
mod tls;
mod world;
