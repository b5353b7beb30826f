//! hb-store-sqlite
