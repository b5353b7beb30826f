//! The simulator of two regions finds what it has to find, and finds nothing where nothing is.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod faults;
mod regressions;
