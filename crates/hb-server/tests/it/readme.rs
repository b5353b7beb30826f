//! What README.md tells people to type is what the program takes.

use std::path::Path;

use clap::CommandFactory as _;
use hb_server::cli::Cli;

#[test]
fn every_command_of_the_server_that_a_text_of_a_program_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut folders = vec![root.join("src"), root.join("crates")];
    let mut named = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.extend((!path.ends_with("tests")).then_some(path));
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
                for quoted in line.split('`').skip(1).step_by(2).filter_map(|quoted| quoted.strip_prefix("hb-server "))
                {
                    named += 1;
                    let word = quoted.split(' ').next().unwrap_or_default();
                    let exists = word.starts_with('-') || Cli::command().find_subcommand(word).is_some();
                    assert!(exists, "{} names hb-server {quoted}", path.display());
                }
            }
        }
    }
    assert!(named > 5, "{named}");
}

#[test]
fn every_command_line_of_the_readme_parses() {
    let page = include_str!("../../../../README.md").replace("\\\n", " ");
    let blocks = page.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("sh\n"));
    let mut shown = 0;
    for line in blocks.flat_map(str::lines) {
        let words = line.split(" #").next().unwrap_or_default().split_whitespace();
        let words: Vec<&str> = words.skip_while(|word| *word == "sudo" || word.starts_with("HB_")).collect();
        if words.first() != Some(&"hb-server") {
            continue;
        }
        shown += 1;
        let words = words.into_iter().take_while(|word| *word != ">");
        if let Err(error) = Cli::command().try_get_matches_from(words) {
            panic!("README.md shows `{line}`: {error}");
        }
    }
    assert!(shown >= 5, "{shown}");
}
