//! The simulator of two regions finds what it has to find, finds nothing where nothing is, and says the same thing twice.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod faults;
mod repeatable;
