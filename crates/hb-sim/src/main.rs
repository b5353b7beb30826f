//! `hb-sim`: runs simulated worlds, one or many, and says what broke.

use std::process::ExitCode;

fn main() -> ExitCode {
    hb_sim::cli::run()
}
