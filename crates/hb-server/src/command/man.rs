//! `hb-server man`: the manual page, made from what `--help` says: one page with every command in it.

use std::io::{self, Write};

use clap::CommandFactory as _;
use clap_mangen::Man;

use crate::cli::Cli;
use crate::error::Failure;

pub(super) fn run() -> Result<(), Failure> {
    let mut page = Vec::new();
    render(&mut page)
        .and_then(|()| io::stdout().lock().write_all(&page))
        .map_err(|error| Failure::failed(format!("could not print the manual: {error}")).hint("see where stdout goes"))
}

fn render(page: &mut dyn Write) -> io::Result<()> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let of = |command: &clap::Command| Man::new(command.clone()).title("hb-server").section("8").manual("hb");
    let whole = of(&root).source(format!("hb-server {}", env!("CARGO_PKG_VERSION")));
    whole.render_title(page)?;
    whole.render_name_section(page)?;
    whole.render_synopsis_section(page)?;
    whole.render_description_section(page)?;
    whole.render_options_section(page)?;
    writeln!(page, ".SH COMMANDS")?;
    for command in root.get_subcommands() {
        writeln!(page, ".SS {}", command.get_name())?;
        let mut text = Vec::new();
        let man = of(command);
        man.render_description_section(&mut text)?;
        man.render_options_section(&mut text)?;
        man.render_extra_section(&mut text)?;
        for line in String::from_utf8_lossy(&text).lines() {
            // The headings inside of a command are no headings of the page.
            match line.strip_prefix(".SH ") {
                Some("DESCRIPTION") => {}
                Some("EXTRA") => writeln!(page, ".PP\n.nf")?,
                Some(heading) => writeln!(page, ".PP\n\\fB{heading}\\fR")?,
                None => writeln!(page, "{line}")?,
            }
        }
        writeln!(page, ".fi")?;
    }
    let mut notes = Vec::new();
    whole.render_extra_section(&mut notes)?;
    write!(page, "{}", String::from_utf8_lossy(&notes).replace(".SH EXTRA\n", ".SH NOTES\n.nf\n"))
}
