//! A host of its own: a state directory, an environment, and the real `hb` in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::server::Server;

/// Longest time that a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A token that parses.
pub(crate) fn token() -> String {
    hb_wire::api_key::Secret::mint(hb_wire::api_key::SecretKind::Token, [7; 48]).expose().to_owned()
}

/// One host.
pub(crate) struct World {
    dir: TempDir,
    env: BTreeMap<String, String>,
}

/// What one run of `hb` said.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("token"), token()).unwrap();
        Self { dir, env: BTreeMap::new() }
    }

    /// A host that is enrolled at `server`.
    pub(crate) fn enrolled(server: &Server) -> Self {
        let world = Self::new();
        world.enrol(server, &[]);
        world
    }

    pub(crate) fn enrol(&self, server: &Server, more: &[&str]) {
        let url = server.url();
        let token = self.token_file();
        let mut args = vec!["register", "--server", &url, "--token-file", &token, "--name", "web1"];
        args.extend(more);
        let run = self.run(&args);
        assert_eq!(run.code, 0, "{run:?}");
        server.behave();
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn token_file(&self) -> String {
        self.path("token").display().to_string()
    }

    /// `program` in this host's environment, everything piped.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .env("HB_STATE_DIR", self.state())
            .envs(&self.env)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Run {
        let started = Instant::now();
        let output = self.command(Path::new(hb())).args(args).output().unwrap();
        Run::of(output, started)
    }

    /// Runs a shell script where mounts can be made that nobody else sees; `$HB` is the program.
    pub(crate) fn in_own_mounts(&self, script: &str) -> Run {
        let started = Instant::now();
        let mut command = self.command(Path::new("unshare"));
        command.args(["--map-root-user", "--mount", "sh", "-euc", script]).env("HB", hb());
        Run::of(command.output().unwrap(), started)
    }

    /// As [`World::in_own_mounts`], with the accounts of the system, which only root can change to.
    pub(crate) fn as_root_in_own_mounts(&self, script: &str) -> Run {
        assert!(rustix::process::geteuid().is_root(), "this test changes accounts: run it as root");
        let started = Instant::now();
        let mut command = self.command(Path::new("unshare"));
        command.args(["--mount", "sh", "-euc", script]).env("HB", hb());
        Run::of(command.output().unwrap(), started)
    }

    /// Starts the daemon.
    pub(crate) fn agent(&self) -> Daemon {
        self.agent_with(&[])
    }

    /// Starts the daemon from a program of its own.
    pub(crate) fn agent_at(&self, program: &Path) -> Daemon {
        Daemon { child: Some(self.command(program).arg("agent").spawn().unwrap()) }
    }

    /// Starts the daemon, with options.
    pub(crate) fn agent_with(&self, options: &[&str]) -> Daemon {
        let child = self.command(Path::new(hb())).arg("agent").args(options).spawn().unwrap();
        Daemon { child: Some(child) }
    }
}

pub(crate) fn hb() -> &'static str {
    env!("CARGO_BIN_EXE_hb")
}

impl Run {
    fn of(output: Output, started: Instant) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
            took: started.elapsed(),
        }
    }

    /// Checks the exit code and that every one of `words` was said on stderr.
    #[track_caller]
    pub(crate) fn says(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} was not said: {self:?}");
        }
    }
}

/// A running `hb agent`; killed when dropped.
pub(crate) struct Daemon {
    child: Option<Child>,
}

impl Daemon {
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(self.child.as_ref().unwrap());
        kill_process(pid, signal).unwrap();
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_none()
    }

    /// Asks it to stop, and waits for that.
    pub(crate) fn stop(self) -> Run {
        self.signal(Signal::TERM);
        self.finish()
    }

    /// As a crash would.
    pub(crate) fn kill(self) -> Run {
        self.signal(Signal::KILL);
        self.finish()
    }

    pub(crate) fn finish(mut self) -> Run {
        let started = Instant::now();
        let mut child = self.child.take().unwrap();
        until("the agent ends", || child.try_wait().unwrap().is_some());
        Run::of(child.wait_with_output().unwrap(), started)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits until `what` is true.
#[track_caller]
pub(crate) fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_true() {
        assert!(started.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
