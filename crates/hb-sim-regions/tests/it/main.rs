//! The worlds of two regions.
