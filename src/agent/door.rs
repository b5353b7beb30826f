//! The agent's door: a socket in its state directory, by which another `hb` has the running agent beat now, or tell the
//! server something. A second process that beat for the same host would look like a clone of it.
//!
//! One request and one answer a connection, each a line of JSON. Who may knock is decided by the directory, which only
//! the agent's account and root may enter.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream as Stream;
use std::path::PathBuf;
use std::time::Duration;

use hb_wire::beat::Intent;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use super::beater::Stored;
use crate::error::Failure;
use crate::journal::StateDir;

const FILE: &str = "agent.sock";
/// Longest line, in bytes.
const LINE_BYTES_MAX: u64 = 8 * 1024;
/// Whoever knocks says at once what for: meanwhile the agent does nothing else.
const HEAR_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest wait for the agent's answer: it tries a few times to reach the server.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    /// The server has it.
    Stored(Stored),
    /// It does not: exit code, message and hint of the command that asked.
    Failed { exit: u8, message: String, hint: Option<String> },
}

/// The open door.
#[derive(Debug)]
pub struct Door {
    listener: UnixListener,
    path: PathBuf,
}

/// Somebody who asked for something and waits for the answer.
#[derive(Debug)]
pub struct Visitor {
    stream: UnixStream,
    /// What to tell the server; none: only that the host is alive.
    pub intent: Option<Intent>,
}

impl Door {
    /// Opens the door of the agent that holds the lock of `state`. Needs a running tokio runtime.
    ///
    /// # Errors
    /// As the file system says: the agent does without it.
    pub fn open(state: &StateDir) -> io::Result<Self> {
        let path = state.path().join(FILE);
        // What a killed agent left behind: the lock says that no other one lives.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(Self { listener: UnixListener::bind(&path)?, path })
    }

    /// The next visitor; whoever says nothing sensible is sent away.
    pub async fn visitor(&self) -> Visitor {
        loop {
            let Ok((mut stream, _)) = self.listener.accept().await else {
                // Out of file descriptors, say: not a reason to spin, nor to stop beating.
                tokio::time::sleep(HEAR_TIMEOUT).await;
                continue;
            };
            let heard = tokio::time::timeout(HEAR_TIMEOUT, hear(&mut stream)).await;
            if let Ok(Some(intent)) = heard {
                return Visitor { stream, intent };
            }
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Visitor {
    /// Tells what came of it. Whoever left meanwhile does not want to know.
    pub async fn tell(mut self, outcome: Result<Stored, Failure>) {
        let answer = match outcome {
            Ok(stored) => Answer::Stored(stored),
            Err(Failure { exit, message, hint }) => Answer::Failed { exit, message, hint },
        };
        let mut line = serde_json::to_vec(&answer).expect("an answer has only text and numbers");
        line.push(b'\n');
        let _ = tokio::time::timeout(HEAR_TIMEOUT, self.stream.write_all(&line)).await;
    }
}

async fn hear(stream: &mut UnixStream) -> Option<Option<Intent>> {
    let mut line = Vec::new();
    let mut limited = stream.take(LINE_BYTES_MAX);
    while !line.ends_with(b"\n") {
        if limited.read_buf(&mut line).await.ok()? == 0 {
            return None;
        }
    }
    serde_json::from_slice(&line).ok()
}

/// Has the agent that runs for `state` beat, and tell the server that; none when no agent runs.
///
/// # Errors
/// What the agent says, or that it says nothing.
pub fn knock(state: &StateDir, intent: Option<&Intent>) -> Result<Option<Stored>, Failure> {
    match knock_once(state, intent)? {
        Knocked::Answered(stored) => Ok(Some(stored)),
        Knocked::NobodyThere => Ok(None),
        // The agent hangs up when a beat falls due before it has heard what for; it listens again after that beat.
        Knocked::HungUp => match knock_once(state, intent)? {
            Knocked::Answered(stored) => Ok(Some(stored)),
            Knocked::NobodyThere => Ok(None),
            Knocked::HungUp => Err(mute(&"it hung up")),
        },
    }
}

enum Knocked {
    Answered(Stored),
    NobodyThere,
    HungUp,
}

fn mute(why: &dyn core::fmt::Display) -> Failure {
    Failure::failed(format!("the agent did not say what came of it: {why}"))
        .hint("see its log (journalctl -u hb), and run this again: it does no harm twice")
}

fn knock_once(state: &StateDir, intent: Option<&Intent>) -> Result<Knocked, Failure> {
    let path = state.path().join(FILE);
    let mut stream = match Stream::connect(&path) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(Knocked::NobodyThere);
        }
        Err(error) => {
            let what = format!("could not speak to the agent at {}: {error}", path.display());
            return Err(Failure::failed(what).hint("run it as root, or as the user whose agent it is"));
        }
    };
    let mut line = serde_json::to_vec(&intent).expect("an intent has only text and numbers");
    line.push(b'\n');
    let mut answer = String::new();
    let heard = stream
        .set_read_timeout(Some(ANSWER_TIMEOUT))
        .and_then(|()| stream.write_all(&line))
        .and_then(|()| BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut answer));
    match heard {
        Ok(0) => return Ok(Knocked::HungUp),
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            return Ok(Knocked::HungUp);
        }
        heard => heard.map_err(|error| mute(&error))?,
    };
    match serde_json::from_str(&answer) {
        Ok(Answer::Stored(stored)) => Ok(Knocked::Answered(stored)),
        Ok(Answer::Failed { exit, message, hint }) => Err(Failure { exit, message, hint }),
        Err(error) => Err(mute(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maintenance() -> Intent {
        Intent::Maintenance { for_s: 60, note: "kernel".to_owned() }
    }

    fn serve(
        state: &StateDir,
        visitors: usize,
        outcome: impl Fn() -> Result<Stored, Failure>,
        knock: impl FnOnce() + Send,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        std::thread::scope(|scope| {
            let door = runtime.block_on(async { Door::open(state).unwrap() });
            let knocking = scope.spawn(knock);
            runtime.block_on(async {
                for _ in 0..visitors {
                    let visitor = door.visitor().await;
                    assert_eq!(visitor.intent, Some(maintenance()));
                    visitor.tell(outcome()).await;
                }
            });
            knocking.join().unwrap();
        });
    }

    #[test]
    fn a_visitor_gets_what_came_of_it_and_a_closed_door_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        assert!(knock(&state, Some(&maintenance())).unwrap().is_none());
        let stored = || Ok(Stored { seq: 7, marks: vec!["maintenance".to_owned()], trusted: true });
        serve(&state, 1, stored, || {
            let answer = knock(&state, Some(&maintenance())).unwrap().unwrap();
            assert_eq!((answer.seq, answer.marks.as_slice()), (7, ["maintenance".to_owned()].as_slice()));
        });
        let failed = || Err(Failure::refused("no").hint("so"));
        serve(&state, 1, failed, || {
            assert_eq!(knock(&state, Some(&maintenance())).unwrap_err(), Failure::refused("no").hint("so"));
        });
        assert!(!dir.path().join(FILE).exists(), "a door that is closed leaves nothing");
        std::os::unix::net::UnixListener::bind(dir.path().join(FILE)).unwrap();
        assert!(knock(&state, Some(&maintenance())).unwrap().is_none(), "what a killed agent left is no agent");
    }

    #[test]
    fn an_agent_that_hangs_up_is_asked_once_more() {
        let dir = tempfile::tempdir().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(dir.path().join(FILE)).unwrap();
        let busy = std::thread::spawn(move || {
            for _ in 0..3 {
                drop(listener.accept().unwrap());
            }
            let (stream, _) = listener.accept().unwrap();
            BufReader::new(&stream).read_line(&mut String::new()).unwrap();
            (&stream).write_all(b"{\"stored\":{\"seq\":9,\"marks\":[],\"trusted\":true}}\n").unwrap();
        });
        let state = StateDir::new(dir.path());
        let failure = knock(&state, Some(&maintenance())).unwrap_err();
        assert!(failure.message.contains("hung up") && failure.hint.is_some(), "twice: {failure}");
        assert_eq!(knock(&state, Some(&maintenance())).unwrap().unwrap().seq, 9, "once, and then heard");
        busy.join().unwrap();
    }

    #[test]
    fn who_says_nothing_sensible_keeps_nobody_else_out() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        let path = dir.path().join(FILE);
        serve(
            &state,
            1,
            || Err(Failure::failed("x")),
            || {
                let silent = Stream::connect(&path).unwrap();
                let endless = "x".repeat(100_000) + "\n";
                for text in ["", "\n", "{}\n", "[\n", "{\"kind\":\"dance\"}\n", endless.as_str()] {
                    // It may hang up before it has heard all of it.
                    let _ = Stream::connect(&path).unwrap().write_all(text.as_bytes());
                }
                assert_eq!(knock(&state, Some(&maintenance())).unwrap_err().message, "x");
                drop(silent);
            },
        );
    }
}
