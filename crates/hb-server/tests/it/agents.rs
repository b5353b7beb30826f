//! The real agent against the real server: what only the two together can show.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::server::{Data, Server, text};

/// Nothing that a test waits for takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A machine with `hb` on it.
struct Machine {
    dir: TempDir,
}

/// Its agent; killed when dropped.
struct Agent {
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
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

/// `hb` stands beside `hb-server`: whoever builds the workspace's tests builds both.
fn hb() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_hb-server")).with_file_name("hb");
    assert!(path.exists(), "there is no {}: cargo build --workspace", path.display());
    path
}

impl Machine {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn enrolled(data: &Data, server: &Server, name: &str) -> Self {
        let machine = Self::new();
        let url = format!("http://{}", server.address);
        let args = ["register", "--server", &url, "--name", name, "--interval", "1s", "--grace", "60s"];
        let output = machine.command(&args).env("HB_API_KEY", &data.key).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        machine
    }

    /// What a copy of the virtual machine would have.
    fn copy(&self) -> Self {
        let copy = Self::new();
        for entry in fs::read_dir(self.dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::copy(&path, copy.dir.path().join(path.file_name().unwrap())).unwrap();
            }
        }
        copy
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(hb());
        command.args(args).env_clear().env("HB_STATE_DIR", self.dir.path()).env("HOME", self.dir.path());
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn agent(&self) -> Agent {
        let log = self.dir.path().join("log");
        let file = fs::File::create(&log).unwrap();
        let mut command = self.command(&["agent"]);
        command.stdout(Stdio::null()).stderr(file).process_group(0);
        Agent { child: command.spawn().unwrap(), log }
    }
}

fn host(data: &Data, server: &Server, name: &str) -> Value {
    let answer = ask(data, server, "/v1/hosts");
    answer["hosts"].as_array().unwrap().iter().find(|host| host["name"] == name).unwrap().clone()
}

fn ask(data: &Data, server: &Server, path: &str) -> Value {
    let bearer = format!("Bearer {}", data.key);
    server.client().request("GET", path, &[("authorization", &bearer)], b"").unwrap().json()
}

fn kinds(data: &Data, server: &Server) -> Vec<String> {
    let events = ask(data, server, "/v1/events?limit=200");
    let words = events["events"].as_array().unwrap().iter().map(|event| event["event"].as_str().unwrap().to_owned());
    words.collect()
}

#[track_caller]
fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_copied_machine_is_quarantined_and_says_so_and_the_original_is_never_displaced() {
    let data = Data::init();
    let server = data.serve();
    let original = Machine::enrolled(&data, &server, "web1");
    let first = original.agent();
    until("the original beats", || host(&data, &server, "web1")["state"] == "up");
    let copied = original.copy();
    let second = copied.agent();
    until("the operator is told", || kinds(&data, &server).iter().any(|kind| kind == "cloned"));
    until("the copy says so in its log", || second.log().contains("another machine is alive with this host's key"));
    assert!(second.log().contains("hb identity reset"), "and what to do: {}", second.log());
    let doctor = copied.run(&["doctor"]);
    let said = text(&doctor.stdout) + &text(&doctor.stderr);
    assert!(!doctor.status.success() && said.contains("quarantine"), "{said}");

    // From here on the original goes on as if there were no other.
    let seen = host(&data, &server, "web1");
    assert_eq!(seen["marks"], serde_json::json!(["cloned"]), "{seen}");
    let ours = first.log().lines().count();
    let last = |host: &Value| host["last_seen"].as_str().unwrap().to_owned();
    until("the original still beats", || last(&host(&data, &server, "web1")) > last(&seen));
    std::thread::sleep(Duration::from_secs(4));
    let events = kinds(&data, &server);
    assert_eq!(events.iter().filter(|kind| *kind == "cloned").count(), 1, "told once: {events:?}");
    assert!(!events.iter().any(|kind| kind == "down"), "{events:?}");
    assert!(first.log().lines().count() <= ours + 1, "{}", first.log());

    // Whoever of the two enrols again with that key would confirm it for both.
    let url = format!("http://{}", server.address);
    let forced = copied.run(&["register", "--server", &url, "--force", "--name", "web1-copy"]);
    let said = text(&forced.stderr);
    assert!(!forced.status.success() && said.contains("hb identity reset"), "{said}");
    assert_eq!(host(&data, &server, "web1")["id"], seen["id"], "and keeps its name");

    // The copy becomes a host of its own.
    drop(second);
    assert!(copied.run(&["identity", "reset", "--yes"]).status.success());
    let anew = ["register", "--server", &url, "--name", "web2", "--interval", "1s"];
    assert!(copied.command(&anew).env("HB_API_KEY", &data.key).output().unwrap().status.success());
    let _third = copied.agent();
    until("the copy is another host", || host(&data, &server, "web2")["state"] == "up");
    assert_eq!(host(&data, &server, "web1")["state"], "up");
    server.stop();
}

#[test]
fn a_host_announces_its_maintenance_and_changes_its_key_while_its_agent_runs() {
    let data = Data::init();
    let server = data.serve();
    let machine = Machine::enrolled(&data, &server, "web1");
    let agent = machine.agent();
    until("it beats", || host(&data, &server, "web1")["state"] == "up");

    let output = machine.run(&["maint", "20m", "kernel"]);
    assert!(output.status.success(), "{output:?}");
    let seen = host(&data, &server, "web1");
    assert_eq!((&seen["marks"], &seen["reason"]), (&serde_json::json!(["maintenance"]), &"kernel".into()), "{seen}");
    assert!(machine.run(&["maint", "end"]).status.success());
    assert_eq!(host(&data, &server, "web1")["marks"], serde_json::json!([]));

    let old = fs::read(machine.dir.path().join("host.key")).unwrap();
    let output = machine.run(&["identity", "rotate"]);
    assert!(output.status.success(), "{output:?}");
    drop(agent);
    let agent = machine.agent();
    until("the new key is the host's", || kinds(&data, &server).iter().any(|kind| kind == "key_rotated"));
    drop(agent);
    assert!(machine.run(&["beat"]).status.success());
    let new = fs::read(machine.dir.path().join("host.key")).unwrap();
    assert!(old != new);

    // Whoever kept the old key has nothing.
    let thief = machine.copy();
    let record = fs::read_to_string(thief.dir.path().join("enrolment.toml")).unwrap();
    let public =
        |pem: &[u8]| hb_wire::key::HostKey::from_pem(core::str::from_utf8(pem).unwrap()).unwrap().public().to_string();
    fs::write(thief.dir.path().join("enrolment.toml"), record.replace(&public(&new), &public(&old))).unwrap();
    fs::write(thief.dir.path().join("host.key"), &old).unwrap();
    let output = thief.run(&["beat"]);
    assert_eq!(output.status.code(), Some(77), "{output:?}");
    assert!(machine.run(&["beat"]).status.success());
    assert!(!kinds(&data, &server).iter().any(|kind| kind == "cloned" || kind == "down"));
    server.stop();
}
