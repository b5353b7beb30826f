//! Running `hb` in a home of its own, against a server that says what it is told to.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use expect_test::Expect;
use hb_wire::api_key::{Secret, SecretKind};
use serde_json::Value;
use tempfile::TempDir;

/// A zone that needs no time zone database and is not UTC: one hour east, two in summer.
pub(crate) const ZONE: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

/// Longest time that a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A well-formed API key; the same `byte` makes the same key.
pub(crate) fn key(byte: u8) -> String {
    Secret::mint(SecretKind::ApiKey, [byte; 48]).expose().to_owned()
}

/// The program with its surroundings.
pub(crate) struct Hb {
    home: TempDir,
    env: BTreeMap<String, String>,
    server: Option<SocketAddr>,
}

impl Hb {
    /// In an empty home, knowing no server.
    pub(crate) fn new() -> Self {
        Self { home: TempDir::new().unwrap(), env: BTreeMap::new(), server: None }
    }

    /// In an empty home, with the server and a key in the environment.
    pub(crate) fn with(server: &Server) -> Self {
        Self::new().env("HB_SERVER", &server.url()).env("HB_API_KEY", &key(1)).knowing(server)
    }

    /// In an empty home; the address of `server` is replaced in what is printed.
    pub(crate) fn knowing(mut self, server: &Server) -> Self {
        self.server = Some(server.address);
        self
    }

    /// Sets a variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The home directory.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// The operators' profiles.
    pub(crate) fn profiles(&self) -> PathBuf {
        self.home().join(".config/hb/profiles.toml")
    }

    /// Runs with arguments split at blanks, without a terminal and with an empty stdin.
    pub(crate) fn run(&self, args: &str) -> Run {
        self.run_with(&args.split_whitespace().collect::<Vec<_>>(), "")
    }

    /// Runs with these arguments and this stdin, without a terminal.
    pub(crate) fn run_with(&self, args: &[&str], stdin: &str) -> Run {
        let mut child = self.command(args).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        // A program that does not read its stdin may be gone already.
        let _ = pipe.write_all(stdin.as_bytes());
        drop(pipe);
        self.finished(child.wait_with_output().unwrap())
    }

    /// The program as a command, everything piped: for tests that start it and look at it while it runs.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.surrounded(Path::new(env!("CARGO_BIN_EXE_hb")));
        command.args(args);
        command
    }

    /// Runs on a terminal of 80 columns with arguments for a shell; when `prompt` appears, `answer` is typed. Both of
    /// the program's streams end up in `stdout`.
    pub(crate) fn on_terminal(&self, args: &str, prompt: &str, answer: &str) -> Run {
        let mut command = self.surrounded(Path::new("script"));
        // Ctrl-C reaches the shell as well, which would otherwise end by it whatever the program did.
        let script = format!("trap : INT; {} {args}", env!("CARGO_BIN_EXE_hb"));
        command.args(["-qec", &script, "/dev/null"]);
        let mut child = command.spawn().unwrap();
        let mut typed = child.stdin.take().unwrap();
        let mut shown = child.stdout.take().unwrap();
        let mut seen = Vec::new();
        let mut asked = prompt.is_empty();
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = shown.read(&mut buffer) {
            seen.extend_from_slice(&buffer[..count]);
            if !asked && String::from_utf8_lossy(&seen).contains(prompt) {
                typed.write_all(answer.as_bytes()).unwrap();
                asked = true;
            }
        }
        drop(typed);
        let output = child.wait_with_output().unwrap();
        let mut run = self.finished(Output { stdout: seen, ..output });
        run.stdout = run.stdout.replace("\r\n", "\n");
        run
    }

    fn surrounded(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home())
            .env("TZ", ZONE)
            .env("TERM", "xterm")
            .env("COLUMNS", "80")
            .envs(&self.env)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// What a finished run printed, with the server's address and the home made the same for every run.
    pub(crate) fn finished(&self, output: Output) -> Run {
        let home = self.home().display().to_string();
        let tidy = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).expect("hb prints text").replace(&home, "HOME");
            match self.server {
                Some(server) => text.replace(&server.to_string(), "SERVER"),
                None => text,
            }
        };
        Run { code: output.status.code(), stdout: tidy(output.stdout), stderr: tidy(output.stderr) }
    }
}

/// What a run of the program came to.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// Exit code, stdout and stderr, all of them.
    pub(crate) fn is(&self, expected: Expect) -> &Self {
        let code = self.code.map_or_else(|| "signal".to_owned(), |code| code.to_string());
        let section = |name: &str, text: &str| match text {
            "" => String::new(),
            text => format!("--- {name}\n{text}{}", if text.ends_with('\n') { "" } else { "(no line break)\n" }),
        };
        expected.assert_eq(&format!(
            "exit {code}\n{}{}",
            section("stdout", &self.stdout),
            section("stderr", &self.stderr)
        ));
        self
    }

    /// Only the exit code; shows the rest when it is another one.
    pub(crate) fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// The one JSON document on stdout.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("not one document: {error}: {self:?}"))
    }

    /// The JSON document on stderr.
    pub(crate) fn error(&self) -> Value {
        serde_json::from_str(&self.stderr).unwrap_or_else(|error| panic!("not one document: {error}: {self:?}"))
    }
}

/// A request as the server got it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Seen {
    /// Method and target, as in `GET /v1/hosts?limit=1000`.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }

    /// Method and path, without the query.
    pub(crate) fn route(&self) -> String {
        let path = self.target.split('?').next().unwrap_or_default();
        format!("{} {path}", self.method)
    }

    /// One value of the query, not decoded.
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("not JSON: {error}: {self:?}"))
    }
}

/// What the server answers.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    /// 200 with a document.
    pub(crate) fn json(body: Value) -> Self {
        Self::status(200, body)
    }

    /// Any status with a document.
    pub(crate) fn status(status: u16, body: Value) -> Self {
        let kind = if status < 400 { "application/json" } else { "application/problem+json" };
        let headers = vec![("Content-Type".to_owned(), kind.to_owned())];
        Self { status, headers, body: body.to_string() }
    }

    /// A problem document.
    pub(crate) fn problem(code: hb_wire::problem::Code, detail: &str) -> Self {
        let problem = hb_wire::problem::Problem::new(code, detail);
        Self::status(problem.status, serde_json::to_value(problem).unwrap())
    }

    /// Any status with a text that is no document.
    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self { status, headers: vec![("Content-Type".into(), "text/html".into())], body: body.to_owned() }
    }

    /// 204.
    pub(crate) fn nothing() -> Self {
        Self { status: 204, headers: Vec::new(), body: String::new() }
    }

    /// With one more header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

type Script = dyn Fn(&Seen) -> Answer + Send + Sync;

/// A server on loopback that answers by a script, and remembers what it was asked.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The server's clock: what every answer carries as `Date`.
pub(crate) const SERVER_DATE: &str = "Mon, 23 Nov 2026 12:00:00 GMT";

impl Server {
    /// Starts it; every request gets what `script` says.
    pub(crate) fn start(script: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let script: Arc<Script> = Arc::new(script);
        let thread = {
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let (seen, script) = (Arc::clone(&seen), Arc::clone(&script));
                    std::thread::spawn(move || {
                        // A client that goes away early is its own affair: the test looks at the client.
                        let _ = stream.and_then(|stream| serve(stream, &seen, &*script));
                    });
                }
            })
        };
        Self { address, seen, stop, thread: Some(thread) }
    }

    /// Its URL, without a slash at the end.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The first lines of all requests so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen().iter().map(Seen::line).collect()
    }

    /// The last request of a route, as in `POST /v1/keys`.
    pub(crate) fn last(&self, route: &str) -> Seen {
        let found = self.seen().into_iter().rfind(|seen| seen.route() == route);
        found.unwrap_or_else(|| panic!("no {route} in {:?}", self.lines()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Serves one connection: one request, one answer.
fn serve(stream: TcpStream, seen: &Mutex<Vec<Seen>>, script: &Script) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(()) };
    let (method, target) = (method.to_owned(), target.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8_lossy(&body).into_owned();
    let request = Seen { method, target, headers, body };
    seen.lock().unwrap().push(request.clone());
    let answer = script(&request);
    let mut lines = vec![format!("HTTP/1.1 {} x", answer.status)];
    lines.extend([format!("Date: {SERVER_DATE}"), "Connection: close".to_owned()]);
    if answer.status != 204 {
        lines.push(format!("Content-Length: {}", answer.body.len()));
    }
    lines.extend(answer.headers.iter().map(|(name, value)| format!("{name}: {value}")));
    let text = lines.join("\r\n") + "\r\n\r\n";
    let mut stream = reader.into_inner();
    stream.write_all(text.as_bytes())?;
    stream.write_all(answer.body.as_bytes())
}

/// Waits for a child that is to end by itself.
pub(crate) fn wait(child: &mut Child) -> Option<i32> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    panic!("it did not end within {PATIENCE:?}");
}
