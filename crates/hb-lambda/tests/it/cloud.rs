//! The local cloud (`tools/cloud/cloud.py`) and an hb to use it with.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Nothing that a test waits for takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A stack of its own for each test; ends with it.
pub(crate) struct Cloud {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// What is where.
    pub(crate) made: Value,
    dir: TempDir,
}

impl Drop for Cloud {
    fn drop(&mut self) {
        // Its end of input tells it to stop its parts first.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Beside the functions: whoever builds the workspace's tests builds it, too.
fn hb() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_ingest")).with_file_name("hb");
    assert!(path.exists(), "there is no {}: cargo build --workspace", path.display());
    path
}

/// Where the functions are: for measurements, those that were built as for AWS.
pub(crate) fn binaries() -> PathBuf {
    let others = std::env::var_os("HB_LAMBDA_BINARIES").map(|dir| root().join(dir));
    others.unwrap_or_else(|| Path::new(env!("CARGO_BIN_EXE_ingest")).parent().unwrap().to_owned())
}

/// `make cloud`, which refuses to start where AWS can be reached.
fn command() -> Command {
    let python = root().join(".cache/cloud/venv/bin/python");
    assert!(python.exists(), "there is no {}: run tools/cloud.sh --setup", python.display());
    let mut command = Command::new(python);
    command.arg(root().join("tools/cloud/cloud.py"));
    command
}

#[test]
fn neither_a_cloud_nor_the_tests_start_where_there_are_credentials_of_aws() {
    for name in
        ["AWS_PROFILE", "AWS_SECRET_ACCESS_KEY", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"]
    {
        for mut command in [command(), Command::new(root().join("tools/test.sh"))] {
            let output = command.env(name, "something").stdin(Stdio::null()).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && said.contains(&format!("{name} is set")), "{name}: {said}");
            assert!(output.stdout.is_empty(), "nothing was started");
        }
    }
}

impl Cloud {
    /// Starts one whose minutes last `minute_s`.
    pub(crate) fn start(minute_s: f64, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = command();
        command.arg("--json").args(["--minute", &minute_s.to_string()]);
        command.arg("--binaries").arg(binaries()).arg("--log").arg(dir.path().join("log")).args(options);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let orders = process.stdin.take().unwrap();
        let mut answers = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        let made = serde_json::from_str(&line).unwrap_or_else(|_| {
            let log = fs::read_to_string(dir.path().join("log")).unwrap_or_default();
            panic!("the cloud did not start: {line:?}\n{log}")
        });
        Self { process, orders, answers, made, dir }
    }

    /// Has it do something.
    pub(crate) fn order(&mut self, order: &Value) -> Value {
        writeln!(self.orders, "{order}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("{order}: {line:?}\n{}", self.log()))
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// What a function answers to a request without any credentials.
    #[track_caller]
    pub(crate) fn get(&mut self, function: &str, path: &str) -> Value {
        let event = json!({"rawPath": path, "requestContext": {"http": {"method": "GET"}}});
        let answer = self.order(&json!({"do": "invoke", "function": function, "event": event}));
        let body = answer["answer"]["body"].as_str().unwrap_or_else(|| panic!("{path}: {answer}"));
        serde_json::from_str(body).unwrap_or_else(|_| panic!("{path}: {body}"))
    }

    pub(crate) fn part(&self, name: &str) -> &str {
        self.made[name].as_str().unwrap()
    }

    /// What arrived in the queue since the last time: the first line of each, and the whole.
    pub(crate) fn alerts(&mut self) -> Vec<String> {
        self.alerts_of(0)
    }

    /// The same in one of two regions.
    pub(crate) fn alerts_of(&mut self, region: usize) -> Vec<String> {
        let answer = self.order(&json!({"do": "queue", "region": region}));
        let text = |message: &Value| message["Message"].as_str().unwrap().to_owned();
        answer["messages"].as_array().unwrap().iter().map(text).collect()
    }

    /// Waits until an alert arrives in which `wanted` stands; everything that arrived until then.
    #[track_caller]
    pub(crate) fn await_alert(&mut self, wanted: &str) -> Vec<String> {
        self.await_alert_of(0, wanted)
    }

    /// The same in one of two regions.
    #[track_caller]
    pub(crate) fn await_alert_of(&mut self, region: usize, wanted: &str) -> Vec<String> {
        let begun = Instant::now();
        let mut all = Vec::new();
        loop {
            all.extend(self.alerts_of(region));
            if all.iter().any(|text| text.contains(wanted)) {
                return all;
            }
            assert!(begun.elapsed() < PATIENCE, "{wanted:?} did not arrive, but {all:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// No role was in the way, and nothing was put aside.
    #[track_caller]
    pub(crate) fn nothing_went_wrong(&mut self) {
        for region in 0..self.made["regions"].as_array().unwrap().len() {
            let refused = self.order(&json!({"do": "units", "region": region}))["refused"].clone();
            assert_eq!(refused, json!([]), "a role forbids what its function does in region {region}");
            assert_eq!(self.order(&json!({"do": "dead", "region": region}))["dead"], json!([]));
        }
    }

    /// A machine with hb on it, which knows this server.
    pub(crate) fn machine(&self) -> Machine {
        Machine {
            dir: tempfile::tempdir().unwrap(),
            api: self.part("api").to_owned(),
            key: self.part("key").to_owned(),
        }
    }

    /// A machine that asks another region.
    pub(crate) fn machine_of(&self, region: usize) -> Machine {
        let api = self.made["regions"][region]["api"].as_str().unwrap().to_owned();
        Machine { api, ..self.machine() }
    }
}

/// A machine with hb on it.
pub(crate) struct Machine {
    dir: TempDir,
    api: String,
    key: String,
}

/// A child that ends with its test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Machine {
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(hb());
        command.args(args).env_clear().env("HB_STATE_DIR", self.dir.path()).env("HOME", self.dir.path());
        command.env("HB_SERVER", &self.api).env("HB_API_KEY", &self.key).stdin(Stdio::null());
        command
    }

    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> String {
        let output: Output = self.command(args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "hb {args:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.run(&[args, &["--json"]].concat())).unwrap()
    }

    #[track_caller]
    pub(crate) fn enrol(&self, name: &str, interval: &str, grace: &str) {
        self.run(&["register", "--server", &self.api, "--name", name, "--interval", interval, "--grace", grace]);
    }

    pub(crate) fn agent(&self) -> Running {
        let log = fs::File::create(self.dir.path().join("agent.log")).unwrap();
        Running(self.command(&["agent"]).stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    /// Waits until `hb status` shows a host in a state.
    #[track_caller]
    pub(crate) fn await_state(&self, name: &str, state: &str) {
        self.await_one_of(name, &[state]);
    }

    /// Where the functions' clocks run fast, a host that beats is mostly late by them.
    #[track_caller]
    pub(crate) fn await_up(&self, name: &str) {
        self.await_one_of(name, &["up", "late"]);
    }

    #[track_caller]
    fn await_one_of(&self, name: &str, states: &[&str]) {
        let begun = Instant::now();
        loop {
            let shown = self.json(&["hosts", "list"]);
            let found = shown["hosts"].as_array().unwrap().iter().find(|host| host["name"] == name).cloned();
            if found.as_ref().is_some_and(|host| states.iter().any(|state| host["state"] == *state)) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{name} is not {states:?}: {found:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}
