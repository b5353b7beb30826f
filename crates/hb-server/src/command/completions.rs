//! `hb-server completions`: a completion script for a shell, on stdout.

use std::io::{self, Write as _};

use clap::CommandFactory as _;

use crate::cli::{self, Cli};
use crate::error::Failure;

pub(super) fn run(args: &cli::Completions) -> Result<(), Failure> {
    // Made as a whole first: the generator panics where it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "hb-server", &mut script);
    let mut out = io::stdout().lock();
    out.write_all(&script).and_then(|()| out.flush()).map_err(|error| {
        Failure::failed(format!("could not print the completions: {error}")).hint("see where stdout goes")
    })
}
