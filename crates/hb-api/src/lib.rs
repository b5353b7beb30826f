//! hb's application: what can be done with hosts, and the HTTP interface over it.
//!
//! The use cases stand in [`app`] and its neighbours: [`beat`] (the hot path), [`sweep`], [`deliver`], [`watch`]. They are
//! the same on `hb-server`, on Lambda and in the simulator, which differ in the store, the clock, the entropy, the
//! [`courier::Courier`] and the [`watch::Prober`] that they pass in.

#![expect(
    clippy::result_large_err,
    reason = "a refusal is a problem document, by value: it is made once per refused request, and boxed where it leaves"
)]

pub mod app;
pub mod auth;
pub mod beat;
pub mod channels;
pub mod courier;
pub mod deliver;
pub mod enrol;
pub mod glance;
pub mod heartbeat;
pub mod hosts;
pub mod http;
pub mod id_key;
pub mod in_flight;
pub mod keyring;
pub mod keys;
pub mod metrics;
pub mod sweep;
pub mod tokens;
pub mod view;
pub mod watch;
pub mod why;
