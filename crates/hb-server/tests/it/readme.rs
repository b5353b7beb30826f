//! What README.md tells people to type is what the program takes.

use clap::CommandFactory as _;
use hb_server::cli::Cli;

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
