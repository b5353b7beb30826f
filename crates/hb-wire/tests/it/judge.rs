//! An implementation in another language, started once, asked over its standard input.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// The independent implementations that run outside of this process.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Judge {
    /// `PyPI`: http-message-signatures.
    Python,
    /// npm: http-message-sig.
    NodeSig,
    /// npm: http-message-signatures.
    NodeSignatures,
}

impl Judge {
    /// The package and version that must have answered.
    fn library(self) -> &'static str {
        match self {
            Self::Python => "http-message-signatures 3.0.0",
            Self::NodeSig => "http-message-sig 0.3.0",
            Self::NodeSignatures => "http-message-signatures 1.0.6",
        }
    }

    fn command(self) -> Command {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let root = root.canonicalize().expect("the workspace exists");
        let cache = root.join(".cache/interop");
        let scripts = root.join("tools/interop");
        let node = |library| {
            let mut command = Command::new("node");
            command.arg(scripts.join("interop.mjs")).arg(installed(cache.join("node"), "node_modules")).arg(library);
            command
        };
        match self {
            Self::Python => {
                let mut command = Command::new(installed(cache.join("venv"), "bin/python").join("bin/python"));
                command.arg(scripts.join("interop.py"));
                command
            }
            Self::NodeSig => node("http-message-sig"),
            Self::NodeSignatures => node("http-message-signatures"),
        }
    }

    /// Asks every question in one process and returns the answers in order.
    pub(crate) fn ask(self, questions: &[Value]) -> Vec<Value> {
        let mut child = self
            .command()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {self:?} ({error}): run tools/interop/setup.sh"));
        let mut stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut lines: Vec<String> = questions.iter().map(Value::to_string).collect();
        lines.push(String::new());
        let lines = lines.join("\n");
        // Written beside the reading: either pipe may be full while the other side waits. A child that ends early breaks
        // the pipe; that shows below, as answers that are missing.
        let writer = std::thread::spawn(move || drop(stdin.write_all(lines.as_bytes())));
        let mut answers: Vec<Value> = stdout
            .lines()
            .map(|line| serde_json::from_str(&line.expect("the judge writes UTF-8")).expect("the judge writes JSON"))
            .collect();
        writer.join().unwrap();
        let status = child.wait().unwrap();
        assert!(status.success() && !answers.is_empty(), "{self:?} failed ({status}): run tools/interop/setup.sh");
        assert_eq!(
            answers.remove(0)["library"],
            self.library(),
            "another version answered: run tools/interop/setup.sh"
        );
        assert_eq!(answers.len(), questions.len(), "every question has an answer");
        answers
    }
}

/// The directory, when the file or directory inside it exists.
fn installed(directory: PathBuf, part: &str) -> PathBuf {
    let part = directory.join(part);
    assert!(part.exists(), "{} is missing: run tools/interop/setup.sh", part.display());
    directory
}
