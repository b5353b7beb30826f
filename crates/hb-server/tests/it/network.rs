//! The real programs on a real network: each test has two namespaces and a cable between them, and breaks it.

mod endpoints;
mod lab;
mod names;
mod partition;
mod portal;
mod proxy;
mod wire;
