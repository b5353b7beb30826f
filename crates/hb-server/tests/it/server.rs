//! The real hb-server, in a directory of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::client::Client;

/// A server takes no longer to start, and to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// A data directory after `init`.
pub(crate) struct Data {
    pub(crate) dir: TempDir,
    pub(crate) key: String,
    pub(crate) fingerprint: String,
}

pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hb-server"));
    command.env_remove("NOTIFY_SOCKET").env_remove("JOURNAL_STREAM").stdin(Stdio::null());
    command
}

pub(crate) fn run(args: &[&str]) -> Output {
    program().args(args).output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

impl Data {
    pub(crate) fn init() -> Self {
        Self::init_with(&[])
    }

    pub(crate) fn init_with(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let output = program().args(["init", "--data", dir.path().to_str().unwrap()]).args(args).output().unwrap();
        let stderr = text(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        let fingerprint = stderr.lines().find_map(|line| line.strip_prefix("certificate: ")).unwrap().to_owned();
        Self { dir, key: text(&output.stdout).trim().to_owned(), fingerprint }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Serves on any port of loopback; webhooks may go to loopback.
    pub(crate) fn serve(&self) -> Server {
        self.serve_with(&["--listen", "127.0.0.1:0"], &[])
    }

    pub(crate) fn serve_with(&self, args: &[&str], env: &[(&str, &str)]) -> Server {
        let mut command = program();
        command.args(["serve", "--data", self.path().to_str().unwrap()]).args(args);
        command.env("HB_SERVER_ALLOW_NETWORKS", "127.0.0.0/8");
        command.envs(env.iter().copied());
        Server::spawn(&mut command)
    }
}

/// A running server. Killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) scheme: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let lines = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        let mut server = Self { child, address: ([127, 0, 0, 1], 0).into(), scheme: String::new(), log };
        let line = server.wait_for_line("listening on ");
        let url = line.trim_start_matches("listening on ").split(' ').next().unwrap();
        let (scheme, authority) = url.split_once("://").unwrap();
        scheme.clone_into(&mut server.scheme);
        server.address = authority.parse().unwrap();
        server
    }

    /// The first line of stderr that holds `part`, now or soon.
    pub(crate) fn wait_for_line(&mut self, part: &str) -> String {
        let started = Instant::now();
        loop {
            if let Some(line) = self.log().iter().find(|line| line.contains(part)) {
                return line.clone();
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the server ended ({ended:?}): {:#?}", self.log());
            assert!(started.elapsed() < PATIENCE, "no line with {part:?}: {:#?}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn client(&self) -> Client {
        Client::plain(self.address)
    }

    /// A client that knows the certificate, where there is one.
    pub(crate) fn client_of(&self, data: &Data) -> Client {
        if self.scheme == "https" { Client::pinned(self.address, &data.fingerprint) } else { self.client() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "the server does not end: {:#?}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGTERM; it must end well.
    pub(crate) fn stop(mut self) -> Vec<String> {
        self.signal(Signal::TERM);
        let status = self.wait();
        assert!(status.success(), "{status:?}: {:#?}", self.log());
        self.log()
    }

    pub(crate) fn kill(mut self) {
        self.signal(Signal::KILL);
        self.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            println!("the server's last lines: {:#?}", &log[log.len().saturating_sub(40)..]);
        }
    }
}

pub(crate) fn path_text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

pub(crate) fn file(dir: &Path, name: &str, content: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, content).unwrap();
    path
}
