//! `hb completions`: a completion script for a shell, on stdout.

use clap_complete::Shell;
use serde_json::json;

use crate::context::Ctx;
use crate::error::{Failure, Outcome};
use crate::exit;

/// Which shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  hb completions bash > /etc/bash_completion.d/hb
  hb completions zsh > ~/.zfunc/_hb
  hb completions fish > ~/.config/fish/completions/hb.fish")]
pub struct Args {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,
}

/// Prints the script; with `--json` as the member `script`.
pub fn run(ctx: &Ctx, args: &Args) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::cli::command(), "hb", &mut script);
    let script = String::from_utf8(script).map_err(|_| Failure::bug("the completion script is not text"))?;
    if ctx.json {
        ctx.printer.json(&json!({ "shell": args.shell.to_string(), "script": script }));
    } else {
        ctx.printer.out(&script);
    }
    Ok(exit::OK)
}
