//! The agent's log: lines on stderr, for systemd's journal or for a person.
//!
//! A few lines a day need no framework; leaving it out keeps some hundred kilobytes off every server.

use std::io::{self, Write as _};

use super::clock;

/// How much a line matters, the most important first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// A person should look.
    Error,
    /// It may pass.
    Warn,
    /// Good to know.
    Info,
    /// For finding faults.
    Debug,
}

/// Where the lines go, and which.
#[derive(Debug, Clone, Copy)]
pub struct Log {
    least: Level,
    to_journal: bool,
}

impl Log {
    /// A log of the lines that matter at least as much as `level` says (`error`, `warn`, `info`, `debug` or `trace`;
    /// `info` when nothing is said). The journal gets priorities, a person the time.
    pub fn new(level: Option<&str>, to_journal: bool) -> Self {
        let least = match level {
            Some("error") => Level::Error,
            Some("warn") => Level::Warn,
            Some("debug" | "trace") => Level::Debug,
            _ => Level::Info,
        };
        Self { least, to_journal }
    }

    /// Writes one line, if it matters enough. There is nobody left to tell when that fails.
    pub fn say(self, level: Level, text: &str) {
        if level <= self.least {
            let _ = io::stderr().lock().write_all(self.line(level, text).as_bytes());
        }
    }

    /// A line with the priority that systemd reads (`sd-daemon(3)`), or with the time.
    fn line(self, level: Level, text: &str) -> String {
        let (priority, word) = match level {
            Level::Error => (3, "error"),
            Level::Warn => (4, "warn"),
            Level::Info => (6, "info"),
            Level::Debug => (7, "debug"),
        };
        // A line break would make a second, forged line.
        let text: String = text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
        if self.to_journal {
            return format!("<{priority}>{text}\n");
        }
        format!("{:.0} {word:<5} {text}\n", clock::wall())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_gets_priorities_and_a_person_gets_the_time() {
        assert_eq!(Log::new(None, true).line(Level::Warn, "a"), "<4>a\n");
        let line = Log::new(None, false).line(Level::Error, "a");
        assert!(line.ends_with("Z error a\n") && line.starts_with("20"), "{line:?}");
    }

    #[test]
    fn a_line_stays_one_line() {
        assert_eq!(Log::new(None, true).line(Level::Info, "a\n<0>b\u{1b}[m"), "<6>a <0>b [m\n");
    }

    #[test]
    fn the_level_decides_what_is_said() {
        let said = |level: Option<&str>, line: Level| line <= Log::new(level, true).least;
        assert!(said(None, Level::Info) && !said(None, Level::Debug));
        assert!(said(Some("debug"), Level::Debug) && said(Some("trace"), Level::Debug));
        assert!(said(Some("error"), Level::Error) && !said(Some("error"), Level::Warn));
    }
}
