//! Printing: results on stdout, all else on stderr.
//!
//! Nothing else in hb writes to either stream. A reader that closed the pipe (`hb status | head`) is no error; any
//! other failure to write is kept and reported once, at the end of the run.

use std::io::{self, IsTerminal as _, Write};
use std::sync::{Mutex, PoisonError};

use anstyle::Style;
use serde::Serialize;

use crate::env::Env;
use crate::error::Failure;

pub mod style;
pub mod table;
pub mod text;
pub mod time;

/// When to colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How much to say on stderr.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Volume {
    /// Only results and errors.
    Quiet,
    /// Warnings and notes as well.
    #[default]
    Normal,
    /// And what is being done.
    Verbose,
}

/// Writes to stdout and stderr, and knows what each of them is.
#[derive(Debug)]
pub struct Printer {
    volume: Volume,
    out_color: bool,
    err_color: bool,
    width: Option<usize>,
    /// The first failure to write to stdout; `BrokenPipe` when the reader left.
    broken: Mutex<Option<io::Error>>,
}

impl Printer {
    /// A printer on this process's stdout and stderr.
    pub fn new(color: Color, volume: Volume, env: &Env) -> Self {
        let out_terminal = io::stdout().is_terminal();
        Self {
            volume,
            out_color: colored(color, env, out_terminal),
            err_color: colored(color, env, io::stderr().is_terminal()),
            width: out_terminal.then(|| terminal_width(env)),
            broken: Mutex::new(None),
        }
    }

    /// A line of the result, on stdout.
    pub fn line(&self, text: &str) {
        self.out(&format!("{text}\n"));
    }

    /// A part of the result, on stdout, exactly as given.
    pub fn out(&self, text: &str) {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        if broken.is_some() {
            return;
        }
        let mut stdout = io::stdout().lock();
        if let Err(error) = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            *broken = Some(error);
        }
    }

    /// The result as one JSON document, on stdout.
    pub fn json<T: Serialize + ?Sized>(&self, document: &T) {
        self.line(&text::json(document));
    }

    /// Something good to know, on stderr; not when quiet.
    pub fn note(&self, text: &str) {
        if self.volume >= Volume::Normal {
            self.err(text);
        }
    }

    /// Something that may hurt later, on stderr; not when quiet.
    pub fn warn(&self, text: &str) {
        if self.volume >= Volume::Normal {
            self.err(&format!("{}: {text}", self.paint_err(style::CAUTION, "warning")));
        }
    }

    /// What is being done, on stderr; only when verbose.
    pub fn detail(&self, text: &str) {
        if self.volume >= Volume::Verbose {
            self.err(text);
        }
    }

    /// A line on stderr, whatever the volume: for errors and questions.
    pub fn err(&self, text: &str) {
        self.err_raw(&format!("{text}\n"));
    }

    /// A part of a line on stderr, whatever the volume: for prompts. There is nobody left to tell when this fails.
    pub fn err_raw(&self, text: &str) {
        let mut stderr = io::stderr().lock();
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    }

    /// `text` in `style` when stdout shows colours, plain otherwise.
    pub fn paint(&self, style: Style, text: &str) -> String {
        paint(self.out_color, style, text)
    }

    /// `text` in `style` when stderr shows colours, plain otherwise.
    pub fn paint_err(&self, style: Style, text: &str) -> String {
        paint(self.err_color, style, text)
    }

    /// True when stdout shows colours.
    pub fn out_color(&self) -> bool {
        self.out_color
    }

    /// True when stderr shows colours.
    pub fn err_color(&self) -> bool {
        self.err_color
    }

    /// How much is said on stderr.
    pub fn volume(&self) -> Volume {
        self.volume
    }

    /// The width of the terminal in columns; none when stdout is not one, and lines may be as long as they are.
    pub fn width(&self) -> Option<usize> {
        self.width
    }

    /// The lines of the terminal, as they are now; none when stdout is not one, or does not say.
    pub fn height(&self) -> Option<usize> {
        self.width?;
        let size = rustix::termios::tcgetwinsize(rustix::stdio::stdout()).ok()?;
        Some(usize::from(size.ws_row)).filter(|&lines| lines > 0)
    }

    /// True when stdout is a terminal or claims to be one.
    pub fn is_terminal(&self) -> bool {
        self.width.is_some()
    }

    /// True while stdout has a reader.
    pub fn is_open(&self) -> bool {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Says so when what was printed did not get anywhere: the last chance to take back what only the output knows.
    ///
    /// # Errors
    /// 1, saying why.
    pub fn all_written(&self) -> Result<(), Failure> {
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        broken.as_ref().map_or(Ok(()), |error| Err(unwritten(error)))
    }

    /// What went wrong on stdout; nothing when its reader just left.
    pub fn failure(&self) -> Option<io::Error> {
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner).take();
        broken.filter(|error| error.kind() != io::ErrorKind::BrokenPipe)
    }
}

/// What a failure to write to stdout means for a command.
pub fn unwritten(error: &io::Error) -> Failure {
    let failure = Failure::failed(format!("the answer could not be written to stdout: {error}"));
    failure.hint(if error.kind() == io::ErrorKind::StorageFull {
        "free some space and run the command again"
    } else {
        "see where stdout goes, and run the command again"
    })
}

fn paint(color: bool, style: Style, text: &str) -> String {
    if color { format!("{style}{text}{style:#}") } else { text.to_owned() }
}

/// Whether to colour: the flag, then `NO_COLOR`, then `CLICOLOR_FORCE`, then whether somebody is looking.
fn colored(choice: Color, env: &Env, terminal: bool) -> bool {
    match choice {
        Color::Always => true,
        Color::Never => false,
        Color::Auto if env.no_color.is_some() => false,
        Color::Auto if env.clicolor_force.as_deref().is_some_and(|value| value != "0") => true,
        Color::Auto => terminal && env.term.as_deref() != Some("dumb"),
    }
}

/// Columns to assume when neither the terminal nor `COLUMNS` says.
const WIDTH_DEFAULT: usize = 80;

fn terminal_width(env: &Env) -> usize {
    let measured = rustix::termios::tcgetwinsize(rustix::stdio::stdout()).ok().map(|size| usize::from(size.ws_col));
    let told = || env.columns.as_deref().and_then(|columns| columns.parse().ok());
    measured.filter(|&columns| columns > 0).or_else(told).unwrap_or(WIDTH_DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(no_color: Option<&str>, force: Option<&str>, term: Option<&str>) -> Env {
        let own = |value: Option<&str>| value.map(str::to_owned);
        Env { no_color: own(no_color), clicolor_force: own(force), term: own(term), ..Env::default() }
    }

    #[test]
    fn the_flag_beats_no_color_which_beats_the_terminal() {
        let check = |choice, env: Env, terminal, expected: bool| {
            assert_eq!(colored(choice, &env, terminal), expected, "{choice:?} {env:?} {terminal}");
        };
        check(Color::Auto, env(None, None, Some("xterm")), true, true);
        check(Color::Auto, env(None, None, Some("xterm")), false, false);
        check(Color::Auto, env(None, None, Some("dumb")), true, false);
        check(Color::Auto, env(Some("1"), None, Some("xterm")), true, false);
        check(Color::Auto, env(None, Some("1"), None), false, true);
        check(Color::Auto, env(None, Some("0"), None), false, false);
        check(Color::Auto, env(Some("1"), Some("1"), None), true, false);
        check(Color::Always, env(Some("1"), None, Some("dumb")), false, true);
        check(Color::Never, env(None, Some("1"), Some("xterm")), true, false);
    }
}
