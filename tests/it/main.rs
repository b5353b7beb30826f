//! The program as people and scripts meet it: one binary of tests that run the real `hb`.

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
