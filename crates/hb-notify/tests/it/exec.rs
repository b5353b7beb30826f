//! Programs, well-behaved and not.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hb_notify::{Channel, Rules, SendError};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{channel, is_ambiguous, is_permanent, is_temporary, key, letter, notice, send, send_notice};

/// A shell script as a channel, in a directory of its own.
fn script(text: &str, timeout: Duration) -> (Arc<dyn Channel>, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("alert");
    std::fs::write(&program, format!("#!/bin/sh\nstart=$PWD\ncd {}\n{text}\n", dir.path().display())).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
    let rules = Rules { exec_programs: vec![program.clone()], exec_timeout: timeout, ..Rules::default() };
    (channel("exec", &json!({"program": program.to_str().unwrap()}), &rules), dir)
}

const PATIENT: Duration = Duration::from_secs(20);
const IMPATIENT: Duration = Duration::from_secs(2);

fn read(dir: &TempDir, file: &str) -> String {
    std::fs::read_to_string(dir.path().join(file)).unwrap()
}

/// True while this process runs. A zombie that its new parent has not yet buried is dead too.
fn is_alive(pid: &str) -> bool {
    let stat = PathBuf::from("/proc").join(pid.trim()).join("stat");
    std::fs::read_to_string(stat).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Waits until nothing with this process id lives.
async fn is_gone(pid: &str) -> bool {
    for _ in 0..100 {
        if !is_alive(pid) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

#[tokio::test]
async fn a_program_gets_the_event_on_stdin_and_a_small_clean_environment() {
    let (channel, dir) = script("cat > stdin; env | sort > env; echo $start > start; exit 0", PATIENT);
    let mut notice = notice();
    notice.host.as_mut().unwrap().name = "web1\nPATH=/evil\0".to_owned();
    send_notice(&*channel, &notice).await.unwrap();

    let event: Value = serde_json::from_str(&read(&dir, "stdin")).unwrap();
    assert_eq!(event, serde_json::to_value(&notice).unwrap());
    assert_eq!(read(&dir, "start"), "/\n");
    let env = read(&dir, "env");
    let names: Vec<_> = env.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    let known = [
        "HB_AT",
        "HB_ATTEMPT",
        "HB_CAUSE",
        "HB_EVENT",
        "HB_HOST",
        "HB_HOST_ID",
        "HB_ID",
        "HB_INCIDENT",
        "HB_KEY",
        "HB_MESSAGE",
    ];
    // The shell itself adds the last few.
    let own: Vec<_> =
        names.iter().filter(|name| !["OLDPWD", "PATH", "PWD", "SHLVL", "_"].contains(*name)).copied().collect();
    assert_eq!(own, known);
    assert!(env.contains("\nHB_HOST=web1 PATH=/evil\u{fffd}\n"), "{env}");
    assert!(env.contains("\nPATH=/usr/local/sbin:"), "{env}");
    assert!(env.contains(&format!("\nHB_KEY={}\n", key())), "{env}");
    assert!(env.contains("HB_EVENT=down\n"), "{env}");
}

#[tokio::test]
async fn the_exit_code_decides_what_happens_next() {
    for (text, judge, says) in [
        ("exit 0", Result::is_ok as fn(&_) -> bool, ""),
        ("echo busy >&2; exit 75", is_temporary, "asks to try again later (exit 75): busy"),
        ("echo said; exit 1", is_temporary, "failed (exit 1): said"),
        ("echo no such user >&2; exit 67", is_permanent, "will not take it (exit 67): no such user"),
        ("exit 78", is_permanent, "will not take it (exit 78)"),
        ("kill -9 $$", is_temporary, "was ended by a signal"),
        ("exec 0<&-; exit 0", Result::is_ok, ""),
    ] {
        let (channel, _dir) = script(text, PATIENT);
        let result = send(&*channel).await;
        assert!(judge(&result), "{text}: {result:?}");
        if let Err(error) = result {
            assert!(error.reason().contains(says), "{text}: {error}");
        }
    }
}

#[tokio::test]
async fn a_program_that_does_not_read_or_prints_without_end_does_no_harm() {
    let mut big = notice();
    big.message = "x".repeat(1_000_000);
    let (channel, _dir) = script("exit 0", PATIENT);
    send_notice(&*channel, &big).await.unwrap();

    let (channel, _dir) =
        script("head -c 5000000 /dev/zero | tr '\\0' x; head -c 5000000 /dev/zero | tr '\\0' y >&2; exit 1", PATIENT);
    let result = send_notice(&*channel, &big).await;
    let Err(SendError::Temporary { reason, .. }) = result else { panic!("{result:?}") };
    assert!(reason.contains("(exit 1): yyyyy") && reason.chars().count() <= 400, "{reason}");
}

#[tokio::test]
async fn what_a_program_prints_cannot_forge_a_second_line() {
    let (channel, _dir) = script("printf 'a\\r\\nERROR forged \\033[31m' >&2; exit 1", PATIENT);
    let reason = send(&*channel).await.unwrap_err().reason().to_owned();
    assert!(reason.ends_with("(exit 1): a  ERROR forged \u{fffd}[31m"), "{reason:?}");
}

#[tokio::test]
async fn a_program_that_hangs_is_ended_with_all_it_started() {
    for (text, what) in [
        ("trap 'touch bye; exit 0' TERM; sleep 600 & echo $! > child; echo $$ > self; wait", "ends on SIGTERM"),
        ("trap '' TERM; sleep 600 & echo $! > child; echo $$ > self; while :; do sleep 600; done", "ignores SIGTERM"),
    ] {
        let (channel, dir) = script(text, IMPATIENT);
        let began = Instant::now();
        let result = send(&*channel).await;
        assert!(is_ambiguous(&result), "{what}: {result:?}");
        assert!(result.unwrap_err().reason().contains("did not end within 2 s and was killed"));
        assert!(began.elapsed() < Duration::from_secs(15), "{what}: {:?}", began.elapsed());
        for file in ["self", "child"] {
            assert!(is_gone(&read(&dir, file)).await, "{what}: {file}");
        }
        assert_eq!(dir.path().join("bye").exists(), what == "ends on SIGTERM", "{what}: it may tidy up first");
    }
}

#[tokio::test]
async fn a_program_whose_child_keeps_its_pipes_open_is_not_waited_for() {
    let mut big = notice();
    big.message = "x".repeat(1_000_000);
    for notice in [notice(), big] {
        let (channel, dir) = script("exec 3<&0; sleep 60 & echo $! > child; exit 0", PATIENT);
        let began = Instant::now();
        send_notice(&*channel, &notice).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        let child = read(&dir, "child");
        assert!(is_alive(&child), "what it left running is its own business");
        kill_process(Pid::from_raw(child.trim().parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    }
}

#[tokio::test]
async fn an_abandoned_attempt_kills_the_program() {
    let (channel, dir) = script("sleep 600 & echo $! > child; echo $$ > self; wait", PATIENT);
    let notice = notice();
    let letter = letter(&notice);
    let attempt = tokio::time::timeout(Duration::from_secs(2), channel.send(&letter)).await;
    assert!(attempt.is_err(), "it was still running");
    for file in ["self", "child"] {
        assert!(is_gone(&read(&dir, file)).await, "{file}");
    }
}

#[tokio::test]
async fn a_program_that_was_opened_to_others_since_is_not_run() {
    let (channel, dir) = script("touch ran; exit 0", PATIENT);
    std::fs::set_permissions(dir.path().join("alert"), std::fs::Permissions::from_mode(0o722)).unwrap();
    let result = send(&*channel).await;
    assert!(is_permanent(&result), "{result:?}");
    assert!(!dir.path().join("ran").exists());
}

#[tokio::test]
async fn nothing_is_run_through_a_shell() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("alert; touch ran");
    std::fs::write(&program, "not a script and not a binary").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
    let rules = Rules { exec_programs: vec![program.clone()], ..Rules::default() };
    let result = send(&*channel("exec", &json!({"program": program.to_str().unwrap()}), &rules)).await;
    assert!(is_temporary(&result), "{result:?}");
    assert!(result.unwrap_err().reason().contains("could not be started"));
    assert!(!dir.path().join("ran").exists());
}
