//! What the program links grows only on purpose.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use expect_test::expect_file;

/// What must never be linked into a program that runs on every server.
const NEVER: [&str; 9] =
    ["rusqlite", "libsqlite3-sys", "axum", "hb-core", "hb-store", "hb-api", "hb-notify", "openssl-sys", "aws-lc-rs"];

#[test]
fn the_program_links_exactly_the_crates_that_were_agreed_on() {
    let names = linked();
    let text = names.into_iter().collect::<Vec<_>>().join("\n") + "\n";
    expect_file![Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/hb.deps.txt")].assert_eq(&text);
}

#[test]
fn the_program_links_no_database_no_server_and_no_cloud() {
    for name in linked() {
        assert!(!NEVER.contains(&name.as_str()) && !name.starts_with("aws-"), "hb links {name}");
    }
}

/// The names of all crates that are linked on Linux, sorted.
fn linked() -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["tree", "-p", "hb", "-e", "normal", "--prefix", "none", "--offline", "--format", "{p}"])
        .args(["--target", "x86_64-unknown-linux-gnu"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}
