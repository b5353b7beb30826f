//! hb's signatures, judged by implementations that share no code with it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod interop;
mod judge;
mod random;
