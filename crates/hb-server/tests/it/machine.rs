//! A machine with the real `hb` on it, and what the server says of it.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::server::{Data, Server};

/// Nothing that a test waits for takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A machine with `hb` on it.
pub(crate) struct Machine {
    pub(crate) dir: TempDir,
    /// What its programs are run by: nothing, or a program that puts them elsewhere.
    within: Vec<String>,
    env: Vec<(String, String)>,
}

/// Its agent; killed when dropped.
pub(crate) struct Agent {
    child: Child,
    log: PathBuf,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Agent {
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// SIGTERM; it must end well.
    pub(crate) fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status:?}: {}", self.log());
    }
}

/// `hb` stands beside `hb-server`: whoever builds the workspace's tests builds both. `HB_TEST_AGENT` names another one, such as the
/// static one of the packages, which resolves names by another library.
fn hb() -> PathBuf {
    if let Some(path) = std::env::var_os("HB_TEST_AGENT") {
        return path.into();
    }
    let path = Path::new(env!("CARGO_BIN_EXE_hb-server")).with_file_name("hb");
    assert!(path.exists(), "there is no {}: cargo build --workspace", path.display());
    path
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), within: Vec::new(), env: Vec::new() }
    }

    /// One whose programs are run by `within`.
    pub(crate) fn within(within: &[&str]) -> Self {
        Self { within: within.iter().map(|&word| word.to_owned()).collect(), ..Self::new() }
    }

    /// With this in the environment of its programs.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn enrolled(data: &Data, server: &Server, name: &str) -> Self {
        let machine = Self::new();
        machine.enrol(data, &format!("http://{}", server.address), name, &["--grace", "60s"]);
        machine
    }

    /// Enrols it to beat every second.
    #[track_caller]
    pub(crate) fn enrol(&self, data: &Data, url: &str, name: &str, more: &[&str]) {
        let mut command = self.command(&["register", "--server", url, "--name", name, "--interval", "1s"]);
        let output = command.args(more).env("HB_API_KEY", &data.key).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// What a copy of the virtual machine would have.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self::new();
        for entry in fs::read_dir(self.dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::copy(&path, copy.dir.path().join(path.file_name().unwrap())).unwrap();
            }
        }
        copy
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.command_by(&self.within.iter().map(String::as_str).collect::<Vec<_>>(), args)
    }

    /// As [`Machine::command`], run by `within`.
    pub(crate) fn command_by(&self, within: &[&str], args: &[&str]) -> Command {
        let mut command = match within.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(hb());
                command
            }
            None => Command::new(hb()),
        };
        command.args(args).env_clear().env("HB_STATE_DIR", self.dir.path()).env("HOME", self.dir.path());
        command.envs(self.env.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    pub(crate) fn agent(&self) -> Agent {
        let log = self.dir.path().join("log");
        let file = fs::File::create(&log).unwrap();
        let mut command = self.command(&["agent"]);
        command.stdout(Stdio::null()).stderr(file).process_group(0);
        Agent { child: command.spawn().unwrap(), log }
    }
}

pub(crate) fn host(data: &Data, server: &Server, name: &str) -> Value {
    let answer = ask(data, server, "/v1/hosts");
    answer["hosts"].as_array().unwrap().iter().find(|host| host["name"] == name).unwrap().clone()
}

pub(crate) fn ask(data: &Data, server: &Server, path: &str) -> Value {
    let bearer = format!("Bearer {}", data.key);
    server.client_of(data).request("GET", path, &[("authorization", &bearer)], b"").unwrap().json()
}

/// Everything that happened to a host, the latest first.
pub(crate) fn events(data: &Data, server: &Server, name: &str) -> Vec<Value> {
    let mut events = ask(data, server, "/v1/events?limit=200")["events"].as_array().unwrap().clone();
    events.retain(|event| event["host"]["name"] == name);
    events
}

/// Waits until the latest that happened to a host is of this kind, and gives it.
#[track_caller]
pub(crate) fn event(data: &Data, server: &Server, name: &str, kind: &str) -> Value {
    let found = || events(data, server, name).into_iter().next().filter(|event| event["event"] == kind);
    until(&format!("{name} is told as {kind}"), || found().is_some());
    found().unwrap()
}

pub(crate) fn kinds(data: &Data, server: &Server) -> Vec<String> {
    let events = ask(data, server, "/v1/events?limit=200");
    let words = events["events"].as_array().unwrap().iter().map(|event| event["event"].as_str().unwrap().to_owned());
    words.collect()
}

#[track_caller]
pub(crate) fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
