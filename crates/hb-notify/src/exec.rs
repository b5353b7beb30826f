//! Programs: one that the server's configuration lists, run without a shell, with the notice as JSON on its stdin.

use core::time::Duration;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use async_trait::async_trait;
use rustix::process::{Pid, Signal, geteuid, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, Command};

use crate::Kind;
use crate::channel::{Channel, Letter, SendError};
use crate::message;
use crate::rules::Rules;
use crate::settings::{Fields, SettingsError};
use crate::text::visible;

/// `EX_TEMPFAIL` of sysexits(3): try again later.
const EX_TEMPFAIL: i32 = 75;
/// `EX_DATAERR`, `EX_NOUSER`, `EX_CONFIG`: trying again will not help.
const PERMANENT_EXITS: [i32; 3] = [65, 67, 78];
/// Most of what a program prints that is kept for the error, in bytes of each stream.
const OUTPUT_BYTES_MAX: usize = 4 * 1024;
/// Between SIGTERM and SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(2);
/// How long output is still read once the program ended; something it left running may hold the pipe open.
const OUTPUT_GRACE: Duration = Duration::from_millis(500);
/// Longest value in the environment, in characters.
const ENV_CHARS_MAX: usize = 1_024;
/// Where a program finds others.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(crate) const KIND: Kind = Kind { name: "exec", fields: &["program"], complete: |_, _| None, open };

#[derive(Debug)]
struct Exec {
    program: PathBuf,
    is_listed: bool,
    timeout: Duration,
}

fn open(fields: &Fields<'_>, rules: &Rules) -> Result<Arc<dyn Channel>, SettingsError> {
    let text = fields.required("program")?;
    let program = PathBuf::from(text);
    if !program.is_absolute() || text.chars().any(|c| visible(c) != c) || text.len() > 1_024 {
        return Err(fields.wrong("program", "must be an absolute path, alone: programs get no arguments"));
    }
    let is_listed = rules.exec_programs.contains(&program);
    Ok(Arc::new(Exec { program, is_listed, timeout: rules.exec_timeout }))
}

/// Refuses a program that is not there, cannot be run, or that somebody else could have written.
fn check_program(program: &Path) -> Result<(), String> {
    let shown = program.display();
    let real = program.canonicalize().map_err(|error| format!("{shown} cannot be found: {error}"))?;
    let metadata = real.metadata().map_err(|error| format!("{shown} cannot be looked at: {error}"))?;
    let mode = metadata.permissions().mode();
    if !metadata.is_file() {
        return Err(format!("{shown} is not a file"));
    }
    if mode & 0o111 == 0 {
        return Err(format!("{shown} is not executable: chmod 0755 {shown}"));
    }
    if mode & 0o022 != 0 {
        return Err(format!("{shown} can be changed by others than its owner: chmod go-w {shown}"));
    }
    if metadata.uid() != 0 && metadata.uid() != geteuid().as_raw() {
        return Err(format!(
            "{shown} belongs neither to root nor to the user that hb-server runs as: chown root {shown}"
        ));
    }
    // In a directory that anybody may write to, the file could be swapped; the sticky bit forbids just that.
    for directory in real.ancestors().skip(1) {
        let mode =
            directory.metadata().map_err(|error| format!("{shown} cannot be looked at: {error}"))?.permissions().mode();
        if mode & 0o002 != 0 && mode & 0o1000 == 0 {
            return Err(format!("{shown} lies in {}, where everybody may replace it", directory.display()));
        }
    }
    Ok(())
}

#[async_trait]
impl Channel for Exec {
    async fn send(&self, letter: &Letter<'_>) -> Result<(), SendError> {
        self.admit().map_err(|refused| SendError::permanent(refused.to_string()))?;
        let event = serde_json::to_vec(letter.notice)
            .map_err(|error| SendError::permanent(format!("the notice cannot be written as JSON: {error}")))?;
        let mut child = self.command(letter).spawn().map_err(|error| {
            SendError::temporary(format!("{} could not be started: {error}", self.program.display()))
        })?;
        let group = Group::of(&child);
        let output = (child.stdout.take(), child.stderr.take());
        let output = tokio::spawn(async move { tokio::join!(read_some(output.0), read_some(output.1)) });
        let stdin = child.stdin.take();
        let run = async {
            // A program that does not read its input, or ends before it did, is fine: its exit code decides. Even when
            // something that it left running holds the pipe open.
            tokio::select! {
                ended = child.wait() => return ended,
                () = feed(stdin, &event) => {}
            }
            child.wait().await
        };
        let ended = tokio::time::timeout(self.timeout, run).await;
        let Ok(ended) = ended else {
            group.signal(Signal::TERM);
            let _ = tokio::time::timeout(TERM_GRACE, child.wait()).await;
            drop(group);
            output.abort();
            let reason = format!(
                "{} did not end within {} s and was killed",
                self.program.display(),
                self.timeout.as_secs_f32()
            );
            return Err(SendError::ambiguous(reason));
        };
        group.release();
        let stop = output.abort_handle();
        let output = tokio::time::timeout(OUTPUT_GRACE, output).await;
        stop.abort();
        let (stdout, stderr) = output.ok().and_then(Result::ok).unwrap_or_default();
        self.judge(&ended, &stdout, &stderr)
    }

    fn admit(&self) -> Result<(), SettingsError> {
        if !self.is_listed {
            let problem = format!("{} is not listed in exec_programs of server.toml", self.program.display());
            return Err(SettingsError::refused(KIND.name, problem));
        }
        check_program(&self.program).map_err(|problem| SettingsError::refused(KIND.name, problem))
    }

    fn target(&self) -> String {
        self.program.display().to_string()
    }

    fn timeout(&self) -> Duration {
        self.timeout + TERM_GRACE + OUTPUT_GRACE
    }
}

impl Exec {
    fn command(&self, letter: &Letter<'_>) -> Command {
        let notice = letter.notice;
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("PATH", PATH)
            .env("HB_EVENT", fit(&notice.event))
            .env("HB_ID", notice.id.to_string())
            .env("HB_KEY", letter.key.to_string())
            .env("HB_ATTEMPT", letter.attempt.to_string())
            .env("HB_AT", notice.at.to_string())
            .env(
                "HB_MESSAGE",
                fit(&if notice.message.is_empty() { message::line(notice) } else { notice.message.clone() }),
            )
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(host) = &notice.host {
            command.env("HB_HOST", fit(&host.name)).env("HB_HOST_ID", host.id.to_string());
        }
        if let Some(cause) = &notice.cause {
            command.env("HB_CAUSE", fit(cause));
        }
        if let Some(incident) = notice.incident {
            command.env("HB_INCIDENT", incident.to_string());
        }
        command
    }

    /// Exit 0 has taken it. 65, 67 and 78 (sysexits: data, user, configuration) will not take it ever; 75 and all else
    /// may next time.
    fn judge(&self, ended: &io::Result<ExitStatus>, stdout: &[u8], stderr: &[u8]) -> Result<(), SendError> {
        let program = self.program.display();
        let status = match ended {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => status,
            Err(error) => return Err(SendError::ambiguous(format!("{program} was lost: {error}"))),
        };
        let printed = if stderr.trim_ascii().is_empty() { stdout } else { stderr };
        let printed = String::from_utf8_lossy(printed.trim_ascii());
        let said = if printed.is_empty() { String::new() } else { format!(": {printed}") };
        match status.code() {
            Some(EX_TEMPFAIL) => {
                Err(SendError::temporary(format!("{program} asks to try again later (exit 75){said}")))
            }
            Some(code) if PERMANENT_EXITS.contains(&code) => {
                Err(SendError::permanent(format!("{program} will not take it (exit {code}){said}")))
            }
            Some(code) => Err(SendError::temporary(format!("{program} failed (exit {code}){said}"))),
            None => Err(SendError::temporary(format!("{program} was ended by a signal ({status}){said}"))),
        }
    }
}

/// A value fit for the environment: one line, and no NUL, which would keep the program from starting.
fn fit(text: &str) -> String {
    text.chars().take(ENV_CHARS_MAX).map(visible).collect()
}

async fn feed(stdin: Option<ChildStdin>, event: &[u8]) {
    if let Some(mut stdin) = stdin {
        let _ = stdin.write_all(event).await;
        let _ = stdin.shutdown().await;
    }
}

/// Reads to the end, so that the program never blocks on a full pipe, and keeps the beginning.
async fn read_some(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let Some(mut stream) = stream else { return Vec::new() };
    let (mut kept, mut buffer) = (Vec::new(), [0_u8; 1_024]);
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let room = OUTPUT_BYTES_MAX.saturating_sub(kept.len());
        kept.extend_from_slice(buffer.get(..count.min(room)).unwrap_or_default());
    }
    kept
}

/// The program and all that it started: killed when dropped, unless it ended by itself.
struct Group {
    leader: Option<Pid>,
}

impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self { leader: id.and_then(Pid::from_raw) }
    }

    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.leader {
            // It may be gone already.
            let _ = kill_process_group(leader, signal);
        }
    }

    /// The program ended: what it left running on purpose is its own business, and its number may soon be another's.
    fn release(mut self) {
        self.leader = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::parse;

    fn says(rules: &Rules, program: &str) -> String {
        parse("exec", &json!({"program": program}), rules, [0; 32]).unwrap_err().to_string()
    }

    #[test]
    fn only_a_listed_program_that_nobody_else_can_change_is_run() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("alert");
        let text = program.to_str().unwrap();
        let rules = Rules { exec_programs: vec![program.clone()], ..Rules::default() };
        assert!(says(&rules, text).contains("cannot be found"));
        std::fs::write(&program, "#!/bin/sh\n").unwrap();
        for (mode, problem) in [
            (0o644, Some("is not executable: chmod 0755")),
            (0o775, Some("can be changed by others than its owner")),
            (0o757, Some("can be changed by others than its owner")),
            (0o755, None),
            (0o700, None),
        ] {
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(mode)).unwrap();
            match problem {
                Some(problem) => assert!(says(&rules, text).contains(problem), "{mode:o}"),
                None => assert!(parse("exec", &json!({"program": text}), &rules, [0; 32]).is_ok(), "{mode:o}"),
            }
        }
        assert!(says(&Rules::default(), text).ends_with("is not listed in exec_programs of server.toml"));
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(says(&rules, text).contains("where everybody may replace it"));
        let folder = Rules { exec_programs: vec![dir.path().to_owned()], ..Rules::default() };
        assert!(says(&folder, dir.path().to_str().unwrap()).contains("is not a file"));
    }

    #[test]
    fn a_program_is_a_path_and_never_a_command_line() {
        let rules = Rules::default();
        for bad in ["", "alert", "./alert", "../alert", "/bin/sh\n", "/bin/\0sh"] {
            assert!(
                matches!(parse("exec", &json!({"program": bad}), &rules, [0; 32]), Err(SettingsError::Field { .. })),
                "{bad:?}"
            );
        }
        assert!(parse("exec", &json!({"program": "/bin/sh", "args": ["-c"]}), &rules, [0; 32]).is_err());
        assert!(says(&rules, "/bin/sh -c true").contains("is not listed"));
    }
}
