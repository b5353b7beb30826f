//! How a command fails: what happened, to what, and what to do next, in that order.

use core::fmt;

use crate::exit;

/// A failed command. Rendered once, in [`crate::run`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The process's exit code, one of [`crate::exit`].
    pub exit: u8,
    /// What happened to what: lower case, no full stop, no secret.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

/// The outcome of a command: its exit code (not every "no" is a failure), or why it failed.
pub type Outcome = Result<u8, Failure>;

impl Failure {
    /// It failed, or the answer is no (1).
    pub fn failed(message: impl Into<String>) -> Self {
        Self::with(exit::FAILED, message)
    }

    /// The command was misused (2).
    pub fn usage(message: impl Into<String>) -> Self {
        Self::with(exit::USAGE, message)
    }

    /// The server was not reached (69).
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self::with(exit::UNREACHABLE, message)
    }

    /// The server refused (77).
    pub fn refused(message: impl Into<String>) -> Self {
        Self::with(exit::REFUSED, message)
    }

    /// The configuration is wrong (78).
    pub fn config(message: impl Into<String>) -> Self {
        Self::with(exit::CONFIG, message)
    }

    /// A bug in hb (70).
    pub fn bug(message: impl Into<String>) -> Self {
        Self::with(exit::BUG, message)
    }

    /// The system gives no randomness (1).
    pub fn no_randomness(error: &dyn fmt::Display) -> Self {
        Self::failed(format!("the system gives no random numbers: {error}"))
            .hint("getrandom(2) must be allowed where this runs: look at its sandbox")
    }

    /// Says what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says the option where the server's message says the field: people know what they typed, not what was sent.
    #[must_use]
    pub fn naming(mut self, options: &[(&str, &str)]) -> Self {
        let starts = |at: usize| at == 0 || self.message[..at].ends_with(' ');
        let found = options.iter().find_map(|(field, option)| {
            let at = self.message.find(field).filter(|at| starts(*at))?;
            Some((at..at + field.len(), option))
        });
        if let Some((place, option)) = found {
            self.message.replace_range(place, option);
        }
        self
    }

    /// Puts the hint into the message: cron mails what a command says, and a mail of one line is read.
    #[must_use]
    pub fn on_one_line(mut self) -> Self {
        if let Some(hint) = self.hint.take() {
            self.message = format!("{}; hint: {hint}", self.message);
        }
        self
    }

    fn with(exit: u8, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_named_by_its_option_where_it_stands_as_a_word() {
        let options = [("name: ", "--name: "), ("expires_in_s: ", "--expires: ")];
        let said = |message: &str| Failure::usage(message).naming(&options).message;
        assert_eq!(
            said("expires_in_s: 1 is not between 60 and 90 seconds"),
            "--expires: 1 is not between 60 and 90 seconds"
        );
        assert_eq!(said("400 (invalid): name: it is empty"), "400 (invalid): --name: it is empty");
        assert_eq!(said("surname: it is empty"), "surname: it is empty");
    }
}
