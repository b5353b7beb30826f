//! Asking a person: for a secret without showing it, and whether something dangerous is really meant.

use std::fs::File;
use std::io::{self, BufRead, IsTerminal as _, Read};
use std::path::Path;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::context::Ctx;
use crate::error::Failure;

/// Longest secret that is read, in bytes.
const SECRET_BYTES_MAX: usize = 4096;

/// What a secret's source has to hold.
const ALONE: &str = "put it there alone, on one line: a file, or a pipe as in `pass show hb | hb login URL`";

/// Goes on when `yes` was given or a person says so. Without a terminal nobody can be asked, and nothing is done.
pub fn confirm(ctx: &Ctx, question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::usage(format!("nobody can be asked, since there is no terminal: {question}"))
            .hint("add --yes if you are sure"));
    }
    ctx.printer.err_raw(&format!("{} [y/N] ", crate::output::text::visible(question)));
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    if read.is_ok() && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(Failure::failed("not confirmed: nothing was changed").hint("answer y, or add --yes"))
}

/// A secret from a person at the terminal (not echoed) or, without one, from stdin.
pub fn secret(ctx: &Ctx, what: &str) -> Result<Zeroizing<String>, Failure> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return read_secret(stdin.lock(), &format!("the {what} on stdin"), Failure::usage);
    }
    let line = {
        // Silent before the prompt: whoever is quick to type must not be shown either.
        let _silent = Silent::begin();
        ctx.printer.err_raw(&format!("{what}: "));
        read_keys(stdin.lock())
    };
    ctx.printer.err("");
    trimmed(
        &line
            .map_err(|error| Failure::failed(format!("the {what} could not be read: {error}")).hint("run it again"))?,
        what,
        Failure::usage,
    )
}

/// A secret from a file; `-` means stdin.
///
/// # Errors
/// 78 when the file cannot be read or holds none, 2 when stdin does not.
pub fn secret_file(path: &Path, what: &str) -> Result<Zeroizing<String>, Failure> {
    if path.as_os_str() == "-" {
        return read_secret(io::stdin().lock(), &format!("{what} on stdin"), Failure::usage);
    }
    let shown = format!("{what} in {}", path.display());
    let file = File::open(path)
        .map_err(|error| Failure::config(format!("{shown} could not be read: {error}")).hint("check the path"))?;
    read_secret(file, &shown, Failure::config)
}

fn read_secret(
    source: impl Read,
    what: &str,
    refused: impl Fn(String) -> Failure,
) -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::new());
    let size = source
        .take(SECRET_BYTES_MAX as u64 + 1)
        .read_to_string(&mut text)
        .map_err(|error| refused(format!("{what} could not be read: {error}")).hint(ALONE))?;
    if size > SECRET_BYTES_MAX {
        return Err(refused(format!("{what} is longer than {SECRET_BYTES_MAX} bytes")).hint(ALONE));
    }
    trimmed(&text, what, refused)
}

fn trimmed(text: &str, what: &str, refused: impl Fn(String) -> Failure) -> Result<Zeroizing<String>, Failure> {
    match text.trim() {
        "" => Err(refused(format!("{what} is empty")).hint(ALONE)),
        secret => Ok(Zeroizing::new(secret.to_owned())),
    }
}

/// Reads a line key by key, since nothing but this loop handles Backspace and Ctrl-C while the terminal is silent.
fn read_keys(keys: impl BufRead) -> io::Result<Zeroizing<String>> {
    const INTERRUPT: u8 = 0x03;
    const END: u8 = 0x04;
    const ERASE_LINE: u8 = 0x15;
    // Reserved at once: growing would leave copies of the secret behind.
    let mut line = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX));
    for key in keys.bytes() {
        match key? {
            b'\r' | b'\n' | END => break,
            INTERRUPT => return Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted")),
            ERASE_LINE => line.clear(),
            0x08 | 0x7f => drop(line.pop()),
            _ if line.len() == SECRET_BYTES_MAX => return Err(io::Error::other("it is too long")),
            byte => line.push(byte),
        }
    }
    let text = core::str::from_utf8(&line).map_err(|_| io::Error::other("it is not text"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Keeps the terminal from echoing, and from killing hb while it does not echo, until it is dropped.
struct Silent(Option<Termios>);

impl Silent {
    fn begin() -> Self {
        let stdin = rustix::stdio::stdin();
        let Ok(before) = tcgetattr(stdin) else { return Self(None) };
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        Self(tcsetattr(stdin, OptionalActions::Drain, &silent).ok().map(|()| before))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_make_a_line_with_backspace_and_line_erase() {
        let check = |keys: &[u8], expected: &str| assert_eq!(*read_keys(keys).unwrap(), expected);
        check(b"hbk_1\r", "hbk_1");
        check(b"hbk_12\x7f\nrest", "hbk_1");
        check(b"wrong\x15right\x04", "right");
        check(b"\x7f\x7fa", "a");
    }

    #[test]
    fn a_file_without_a_good_secret_is_one_mistake_whatever_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let long = vec![b'a'; SECRET_BYTES_MAX + 1];
        let files = [
            (dir.path().join("none"), "could not be read"),
            (dir.path().to_owned(), "could not be read"),
            (write("empty", b" \n"), "is empty"),
            (write("binary", &[0xff]), "could not be read"),
            (write("long", &long), "is longer than"),
        ];
        for (path, said) in files {
            let failure = secret_file(&path, "the key").unwrap_err();
            assert_eq!(failure.exit, crate::exit::CONFIG, "{failure}");
            assert!(failure.message.contains(said) && failure.hint.is_some(), "{failure}");
        }
    }

    #[test]
    fn an_interrupt_and_an_endless_line_end_the_prompt() {
        assert_eq!(read_keys(&b"hbk\x03"[..]).unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert!(read_keys(&vec![b'a'; SECRET_BYTES_MAX + 1][..]).is_err());
    }
}
