//! `hb-sim-regions`: runs worlds of two regions, one or many, and says what broke.

use std::process::ExitCode;

fn main() -> ExitCode {
    hb_sim_regions::cli::run()
}
