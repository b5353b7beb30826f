//! hb-server
