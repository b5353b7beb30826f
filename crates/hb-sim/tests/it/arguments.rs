//! What is typed wrong is named, and nothing runs.

use std::process::{Command, Output};

fn typed(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hb-sim")).args(args).output().unwrap()
}

#[test]
fn wrong_arguments_exit_with_2_and_say_what_there_is() {
    for (args, hint) in [
        (&["--mutant", "nothing"][..], "claim_first"),
        (&["--seed", "x"], "--seed"),
        (&["--level", "sockets"], "router"),
        (&["--focus", "x"], "masses"),
        (&["--hours", "0"], "1..=10000"),
        (&["--trace"], "--seed"),
        (&["--seed", "1", "--minutes", "1"], "--minutes"),
        (&["--minutes", "1", "--host-hours", "1"], "--host-hours"),
        (&["--nonsense"], "--nonsense"),
    ] {
        let output = typed(args);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {told}");
        assert!(told.contains(hint), "{args:?}: {told}");
    }
}

#[test]
fn a_world_with_violations_exits_with_1_and_says_how_to_see_it_again() {
    let args = ["--seed", "1", "--hosts", "20", "--hours", "4", "--mutant", "created_window"];
    let output = typed(&args);
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains(" I5 host "), "{told}");
    let again = "again with: hb-sim --seed 1 --hosts 20 --hours 4 --mutant created_window --trace";
    assert!(told.contains(again), "{told}");
}

#[test]
fn many_worlds_are_run_until_their_hosts_have_lived_long_enough() {
    let output = typed(&["--from", "3", "--host-hours", "100", "--hosts", "12", "--hours", "4", "--threads", "2"]);
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told}");
    let summary = told.lines().last().unwrap();
    assert!(summary.starts_with("simulation (state machine): "), "{told}");
    assert!(summary.ends_with("; 0 worlds with violations"), "{told}");
}
