//! I20: the same seed is the same world, event by event, in another process too.

use std::process::Command;

fn said(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_hb-sim")).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(": trace "), "{text}");
    text
}

#[test]
fn two_processes_tell_the_same_of_one_seed_and_another_of_another() {
    for level in ["domain", "router"] {
        let world = |seed| said(&["--seed", seed, "--level", level, "--hosts", "12", "--hours", "6"]);
        assert_eq!(world("7"), world("7"));
        assert_ne!(world("7"), world("8"));
    }
}

#[test]
fn telling_what_happens_changes_nothing_of_it() {
    let args = ["--seed", "7", "--hosts", "12", "--hours", "6"];
    let quiet = said(&args);
    let output = Command::new(env!("CARGO_BIN_EXE_hb-sim")).args(args).arg("--trace").output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), quiet);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.lines().any(|line| line.contains("the server starts")), "{told}");
}
