//! Exit codes: part of the contract, so that scripts can tell "no" from "could not ask".

/// Done, or the answer is yes.
pub const OK: u8 = 0;
/// Failed, or the answer is no.
pub const FAILED: u8 = 1;
/// The command line was wrong.
pub const USAGE: u8 = 2;
/// The server was not reached (`EX_UNAVAILABLE`).
pub const UNREACHABLE: u8 = 69;
/// A bug in hb (`EX_SOFTWARE`).
pub const BUG: u8 = 70;
/// Refused: key, scope or signature (`EX_NOPERM`).
pub const REFUSED: u8 = 77;
/// The configuration is wrong or missing (`EX_CONFIG`).
pub const CONFIG: u8 = 78;

/// `hb status --check`: at least one host is late, degraded or unknown (Nagios WARNING).
pub const CHECK_WARNING: u8 = 1;
/// `hb status --check`: at least one host is down (Nagios CRITICAL).
pub const CHECK_CRITICAL: u8 = 2;
/// `hb status --check`: could not ask, for whatever reason (Nagios UNKNOWN).
pub const CHECK_UNKNOWN: u8 = 3;
