//! Exit codes, the same as those of `hb`: part of the contract.

/// Done.
pub const OK: u8 = 0;
/// Failed, or the answer is no.
pub const FAILED: u8 = 1;
/// The command line was wrong.
pub const USAGE: u8 = 2;
/// Something that is needed was not reached (`EX_UNAVAILABLE`).
pub const UNREACHABLE: u8 = 69;
/// A bug in hb (`EX_SOFTWARE`).
pub const BUG: u8 = 70;
/// Refused by the operating system: permissions (`EX_NOPERM`).
pub const REFUSED: u8 = 77;
/// The configuration is wrong or missing (`EX_CONFIG`).
pub const CONFIG: u8 = 78;
