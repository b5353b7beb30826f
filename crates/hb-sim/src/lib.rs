//! hb-sim
