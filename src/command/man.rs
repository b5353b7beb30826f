//! `hb man`: the manual pages, made from what `--help` says.

use std::fs;
use std::path::{Path, PathBuf};

use clap_mangen::Man;
use serde_json::json;

use crate::context::Ctx;
use crate::error::{Failure, Outcome};
use crate::exit;

/// The section of commands.
const SECTION: &str = "1";

/// Which page, or where to put them all.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  hb man | man -l -                 read it
  hb man register | man -l -        the page of one command
  hb man --dir /usr/local/share/man/man1")]
pub struct Args {
    /// The command, for example `hosts rename` [default: hb itself]
    #[arg(value_name = "COMMAND")]
    pub command: Vec<String>,
    /// Write every page into this folder instead
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    pub dir: Option<PathBuf>,
}

/// Prints one page, or writes them all.
pub fn run(ctx: &Ctx, args: &Args) -> Outcome {
    let mut root = crate::cli::command().disable_help_subcommand(true);
    root.build();
    if let Some(dir) = &args.dir {
        let mut pages = Vec::new();
        write_all(&root, "hb", dir, &mut pages)?;
        if ctx.json {
            ctx.printer.json(&json!({ "pages": pages }));
        } else {
            ctx.printer.note(&format!("{} pages in {}", pages.len(), dir.display()));
        }
        return Ok(exit::OK);
    }
    let mut command = &root;
    let mut name = "hb".to_owned();
    for word in &args.command {
        command = command.find_subcommand(word).ok_or_else(|| {
            Failure::usage(format!("there is no command `{} {word}`", name.replace('-', " "))).hint("hb --help")
        })?;
        name = format!("{name}-{}", command.get_name());
    }
    let page = page(command, &name)?;
    if ctx.json {
        ctx.printer.json(&json!({ "name": name, "section": SECTION, "page": page }));
    } else {
        ctx.printer.out(&page);
    }
    Ok(exit::OK)
}

fn write_all(command: &clap::Command, name: &str, dir: &Path, pages: &mut Vec<String>) -> Result<(), Failure> {
    let file = format!("{name}.{SECTION}");
    let path = dir.join(&file);
    fs::write(&path, page(command, name)?).map_err(|error| {
        Failure::failed(format!("could not write {}: {error}", path.display())).hint("name a folder that you can write")
    })?;
    pages.push(file);
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        write_all(sub, &format!("{name}-{}", sub.get_name()), dir, pages)?;
    }
    Ok(())
}

fn page(command: &clap::Command, name: &str) -> Result<String, Failure> {
    let bug = |what: String| Failure::bug(format!("the manual page {name}: {what}"));
    // The help of a terminal may be coloured; a page is not.
    let man = Man::new(command.clone().styles(clap::builder::Styles::plain()))
        .title(name)
        .section(SECTION)
        .source(format!("hb {}", env!("CARGO_PKG_VERSION")))
        .manual("hb");
    let mut page = Vec::new();
    man.render(&mut page).map_err(|error| bug(error.to_string()))?;
    let page = String::from_utf8(page).map_err(|error| bug(error.to_string()))?;
    Ok(keep_lines(&page))
}

/// The end of the help is laid out by hand: its lines stay as they are.
fn keep_lines(page: &str) -> String {
    let Some((before, after)) = page.split_once(".SH EXTRA\n") else { return page.to_owned() };
    let (extra, rest) = after
        .split_once("\n.SH ")
        .map_or((after.trim_end(), String::new()), |(extra, rest)| (extra, format!("\n.SH {rest}")));
    format!("{before}.SH NOTES\n.nf\n{extra}\n.fi{rest}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_help_keeps_its_lines_and_what_follows_is_filled_again() {
        let page = keep_lines(".SH NAME\nx\n.SH EXTRA\na\nb\n.SH VERSION\nv1\n");
        assert_eq!(page, ".SH NAME\nx\n.SH NOTES\n.nf\na\nb\n.fi\n.SH VERSION\nv1\n\n");
        assert_eq!(keep_lines(".SH NAME\nx\n"), ".SH NAME\nx\n");
    }
}
