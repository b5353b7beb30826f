//! Help and completions.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::CommandFactory as _;
use expect_test::expect;
use hb::cli::Cli;

use crate::support::Hb;

/// Every command with its path, as in `hosts list`.
fn commands(command: &clap::Command, path: &str, found: &mut Vec<(String, clap::Command)>) {
    for sub in command.get_subcommands() {
        let path = format!("{path} {}", sub.get_name()).trim().to_owned();
        found.push((path.clone(), sub.clone()));
        commands(sub, &path, found);
    }
}

fn all() -> Vec<(String, clap::Command)> {
    let mut found = Vec::new();
    commands(&Cli::command(), "", &mut found);
    found
}

#[test]
fn the_definitions_hold_together() {
    Cli::command().debug_assert();
}

#[test]
fn the_help_of_every_command_has_examples_that_parse() {
    assert!(all().len() > 30);
    for (path, command) in all() {
        let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let examples: Vec<&str> = after
            .lines()
            .skip_while(|line| *line != "Examples:")
            .filter_map(|line| line.strip_prefix("  hb "))
            .collect();
        assert!(!examples.is_empty(), "`hb {path} --help` has no example");
        assert!(
            examples.iter().any(|example| example.starts_with(&path)),
            "`hb {path} --help` has no example of itself: {examples:?}"
        );
        for example in examples {
            let words = words(example);
            if let Err(error) =
                Cli::command().try_get_matches_from(core::iter::once("hb").chain(words.iter().map(String::as_str)))
            {
                panic!("`hb {path} --help` shows `hb {example}`: {error}");
            }
        }
    }
}

/// Splits an example as a shell would, up to a comment (two blanks or more), a pipe or a redirection.
fn words(example: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    let mut chars = example.chars().peekable();
    while let Some(char) = chars.next() {
        match (char, quote) {
            ('"' | '\'', None) => quote = Some(char),
            (_, Some(open)) if char == open => quote = None,
            (' ', None) if chars.peek() == Some(&' ') => break,
            ('|' | '>' | ';', None) => break,
            (' ', None) => words.push(String::new()),
            (_, _) => words.last_mut().unwrap().push(char),
        }
    }
    words.retain(|word| !word.is_empty());
    // Fingerprints are shortened for people.
    let whole = |word: String| if word.ends_with('…') { format!("sha256:{}", "3f".repeat(32)) } else { word };
    words.into_iter().map(whole).collect()
}

#[test]
fn every_command_line_of_the_readme_and_of_the_pages_parses() {
    for (name, page, least) in [
        ("README.md", include_str!("../../README.md"), 20),
        ("docs/migrating-from-hb-api.md", include_str!("../../docs/migrating-from-hb-api.md"), 4),
    ] {
        let lines = shell_lines(page);
        assert!(lines.len() >= least, "{name}: {lines:?}");
        for line in lines {
            let words = words(&line);
            if let Err(error) = Cli::command().try_get_matches_from(words) {
                panic!("{name} shows `{line}`: {error}");
            }
        }
    }
}

/// The `hb …` of a page's shell blocks, without what stands before and after it.
fn shell_lines(page: &str) -> Vec<String> {
    let blocks = page.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("sh\n"));
    let lines = blocks.flat_map(|block| {
        let block = block.replace("\\\n", " ");
        block.lines().map(str::to_owned).collect::<Vec<_>>()
    });
    let ours = lines.filter_map(|line| {
        let line = line.split(" #").next()?.trim_start();
        let mut rest = line.strip_prefix("sudo ").unwrap_or(line);
        // Variables that are set for the one command.
        while let Some((word, more)) = rest.split_once(' ').filter(|(word, _)| word.contains('=')) {
            assert!(word.starts_with("HB_"), "{line}");
            rest = more.trim_start();
        }
        rest.starts_with("hb ").then(|| rest.to_owned())
    });
    ours.collect()
}

#[test]
fn every_command_that_a_text_of_the_program_names_exists() {
    let mut named = 0;
    for file in sources(Path::new(env!("CARGO_MANIFEST_DIR"))) {
        let text = std::fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            let quoted = line.split('`').skip(1).step_by(2).filter_map(|quoted| quoted.strip_prefix("hb "));
            // A hint that is nothing but what to type.
            let whole = line.split("hint(\"hb ").skip(1).filter_map(|rest| rest.split('"').next());
            for quoted in quoted.chain(whole) {
                named += 1;
                let place = format!("{} line {}", file.display(), number + 1);
                assert!(is_a_command(&Cli::command(), quoted), "{place} names `hb {quoted}`");
            }
        }
    }
    assert!(named > 40, "{named}");
}

/// True when the words, as far as they can be names of commands, are some. What follows may be anything.
fn is_a_command(command: &clap::Command, words: &str) -> bool {
    let (word, rest) = words.split_once(' ').unwrap_or((words, ""));
    match command.find_subcommand(word) {
        Some(sub) => rest.is_empty() || !sub.has_subcommands() || is_a_command(sub, rest),
        None => word.starts_with('-'),
    }
}

/// The sources of all packages.
fn sources(root: &Path) -> Vec<PathBuf> {
    let mut folders = vec![root.join("src")];
    folders.extend(std::fs::read_dir(root.join("crates")).unwrap().map(|entry| entry.unwrap().path().join("src")));
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}

#[test]
fn every_command_and_argument_is_explained() {
    for (path, command) in all() {
        assert!(command.get_about().is_some(), "`hb {path}` says nothing about itself");
        for argument in command.get_arguments().filter(|argument| argument.get_id() != "help") {
            assert!(argument.get_help().is_some(), "`hb {path}`: {} is not explained", argument.get_id());
        }
    }
}

#[test]
fn the_help_names_every_command_and_every_exit_code() {
    let run = Hb::new().run("--help");
    run.exits(0);
    assert_eq!(run.stderr, "");
    for command in Cli::command().get_subcommands() {
        assert!(run.stdout.contains(&format!("  {} ", command.get_name())), "{} is missing", command.get_name());
    }
    assert!(run.stdout.contains("Exit codes: 0 done; 1 failed"), "{run:?}");
}

#[test]
fn help_and_version_are_results() {
    Hb::new().run("--version").is(expect![[r#"
        exit 0
        --- stdout
        hb 0.1.0
    "#]]);
    Hb::new().run("resume --help").is(expect![[r#"
        exit 0
        --- stdout
        Watch a paused host again

        Usage: hb resume [OPTIONS] <HOST>

        Arguments:
          <HOST>  Its name, id, or the beginning of its id

        Options:
          -h, --help     Print help
          -V, --version  Print version

        Server:
              --server-profile <NAME>  Use this saved profile instead of the default one

        Output:
              --json          Print the answer as one JSON document (errors too, on
                              stderr)
              --color <WHEN>  When to use colour: auto, always or never [default: auto]
          -q, --quiet         Print results and errors only
          -v, --verbose       Also say what is being done

        Examples:
          hb resume web1
    "#]]);
}

#[test]
fn no_paragraph_of_a_help_is_broken_before_the_terminal_ends() {
    const WIDTH: usize = 80;
    for (path, _) in all() {
        let text = Hb::new().run(&format!("{path} --help")).stdout;
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.windows(2) {
            let is_prose = |line: &str| !line.is_empty() && !line.starts_with(' ') && !line.ends_with(':');
            let word = pair[1].split(' ').next().unwrap_or_default();
            let fits = pair[0].chars().count() + 1 + word.chars().count() <= WIDTH;
            assert!(!(is_prose(pair[0]) && is_prose(pair[1]) && fits), "hb {path} --help: {pair:#?}");
        }
    }
}

#[test]
fn no_argument_takes_a_secret() {
    for (path, command) in all() {
        for argument in command.get_arguments() {
            let name = argument.get_id().as_str();
            let tells = ["api_key", "password", "secret"].contains(&name) || (name == "token" || name == "key");
            assert!(!tells, "`hb {path}` takes {name} as an argument: it would show in ps");
        }
    }
}

#[test]
fn every_command_has_its_manual_page() {
    let mut wanted: BTreeSet<String> = all()
        .iter()
        .filter(|(_, command)| !command.is_hide_set())
        .map(|(path, _)| format!("hb-{}.1", path.replace(' ', "-")))
        .collect();
    wanted.insert("hb.1".to_owned());
    let dir = tempfile::tempdir().unwrap();
    Hb::new().run(&format!("man --dir {}", dir.path().display())).exits(0);
    let entries = std::fs::read_dir(dir.path()).unwrap().flatten();
    let pages: BTreeSet<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert_eq!(pages, wanted);
    assert!(pages.contains("hb-agent.1") && pages.contains("hb-identity-rotate.1"), "{pages:?}");
    for page in pages {
        let text = std::fs::read_to_string(dir.path().join(&page)).unwrap();
        assert!(text.contains(".TH ") && text.contains(".SH SYNOPSIS"), "{page}");
    }
}

#[test]
fn completions_are_scripts_that_their_shells_accept() {
    for shell in ["bash", "zsh", "fish"] {
        let run = Hb::new().run(&format!("completions {shell}"));
        run.exits(0);
        for word in ["status", "channels", "--server-profile", "--watch"] {
            let bare = word.trim_start_matches('-');
            assert!(run.stdout.contains(bare), "{shell} does not know {word}");
        }
        let script = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(script.path(), &run.stdout).unwrap();
        match Command::new(shell).arg("-n").arg(script.path()).output() {
            Ok(output) => assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => panic!("{shell}: {error}: apt install {shell} (tools/setup.sh does)"),
        }
    }
    Hb::new().run("completions cmd").exits(2);
    let document = Hb::new().run("completions bash --json").json();
    assert!(document["script"].as_str().unwrap().contains("complete -F _hb"));
}

#[test]
fn bash_completes_what_it_was_told() {
    let hb = Hb::new();
    let script = hb.home().join("hb.bash");
    std::fs::write(&script, hb.run("completions bash").stdout).unwrap();
    let program = format!(
        "source {}; COMP_WORDS=(hb hosts re); COMP_CWORD=2; _hb hb re hosts; echo \"${{COMPREPLY[@]}}\"",
        script.display()
    );
    let output = Command::new("bash").args(["-c", &program]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "rename retire");
}
