//! hb-notify
