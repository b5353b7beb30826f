//! Completions for shells.

use std::process::Command;

use clap::CommandFactory as _;
use hb_server::cli::Cli;

use crate::server::{file, path_text, program, run, text};

#[test]
fn completions_are_scripts_that_their_shells_accept_and_know_every_command() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert!(output.status.success(), "{shell}: {}", text(&output.stderr));
        let script = text(&output.stdout);
        for command in Cli::command().get_subcommands().map(clap::Command::get_name) {
            assert!(script.contains(command), "{shell} does not know {command}");
        }
        assert!(script.contains("insecure-http"), "{shell} does not know --insecure-http");
        let path = file(dir.path(), shell, &script);
        match Command::new(shell).arg("-n").arg(&path).output() {
            Ok(output) => assert!(output.status.success(), "{shell}: {}", text(&output.stderr)),
            Err(error) => panic!("{shell}: {error}: apt install {shell} (tools/setup.sh does)"),
        }
    }
    assert_eq!(run(&["completions", "cmd"]).status.code(), Some(2));
}

#[test]
fn bash_completes_what_it_was_told() {
    let dir = tempfile::tempdir().unwrap();
    let script = file(dir.path(), "hb-server.bash", &text(&run(&["completions", "bash"]).stdout));
    // The function's name is the generator's affair: it is asked for as the shell finds it.
    let typed = format!(
        "source {}; set -- $(complete -p hb-server); while [ \"$1\" != -F ]; do shift; done; \
         COMP_WORDS=(hb-server re); COMP_CWORD=1; \"$2\" hb-server re hb-server; echo \"${{COMPREPLY[@]}}\"",
        path_text(&script)
    );
    let output = Command::new("bash").args(["-c", &typed]).output().unwrap();
    assert_eq!(text(&output.stdout).trim(), "restore", "{}", text(&output.stderr));
}

#[test]
fn completions_that_cannot_be_written_are_told() {
    // Writing to /dev/full fails with "no space left".
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = program().args(["completions", "bash"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).starts_with("error: could not print the completions: "), "{}", text(&output.stderr));
}
