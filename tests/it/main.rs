//! The program as people and scripts meet it: one binary of tests that run the real `hb`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers included")]
#![expect(clippy::needless_pass_by_value, reason = "documents are written where they are passed")]
#![expect(clippy::needless_raw_string_hashes, reason = "this is how UPDATE_EXPECT=1 writes snapshots")]

mod fleet;
mod support;

mod cli_channels;
mod cli_errors;
mod cli_help;
mod cli_hosts;
mod cli_keys;
mod cli_login;
mod cli_status;
mod cli_terminal;
mod dependencies;
mod host;
