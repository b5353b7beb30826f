//! The `hb` program: collects its arguments and environment, and hands them to the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(hb::run(std::env::args_os(), hb::env::Env::of_process()))
}
