//! hb-store
