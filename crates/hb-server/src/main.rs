//! The `hb-server` program: collects its arguments, and hands them to the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(hb_server::run(std::env::args_os()))
}
