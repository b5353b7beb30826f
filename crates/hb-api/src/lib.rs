//! hb-api
