//! Alert channels against real receivers on loopback.
