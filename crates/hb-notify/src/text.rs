//! Text from outside, made fit for one line.

use hb_wire::name::clean_text;

/// The text on one line, at most `chars_max` characters: line breaks become spaces, other characters that a reader
/// cannot see become `�`, and `…` marks a cut.
///
/// Unlike [`clean_text`] it refuses nothing: an alert whose host has a strange name must still be read by somebody.
#[must_use]
pub fn one_line(text: &str, chars_max: usize) -> String {
    let mut line = String::with_capacity(text.len().min(chars_max));
    for (count, c) in text.trim().chars().enumerate() {
        if count + 1 == chars_max && text.trim().chars().nth(chars_max).is_some() {
            line.push('…');
            break;
        }
        line.push(visible(c));
    }
    line
}

/// The character itself, or what stands for it on one line.
pub(crate) fn visible(c: char) -> char {
    match c {
        ' '..='~' => c,
        '\n' | '\r' | '\t' => ' ',
        _ if clean_text(c.encode_utf8(&mut [0; 4]), 1).is_ok() => c,
        _ => char::REPLACEMENT_CHARACTER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_has_no_second_line_and_nothing_hidden() {
        for (text, line) in [
            ("  plain ünï 日本 ", "plain ünï 日本"),
            ("550 5.1.1\r\nno such user", "550 5.1.1  no such user"),
            ("a\u{202e}b\u{1b}[31m\0", "a�b�[31m�"),
            ("", ""),
        ] {
            assert_eq!(one_line(text, 100), line);
        }
    }

    #[test]
    fn a_cut_is_marked_and_never_longer_than_the_limit() {
        assert_eq!(one_line("abcdef", 6), "abcdef");
        assert_eq!(one_line("abcdefg", 6), "abcde…");
        assert_eq!(one_line(&"é".repeat(1_000_000), 400).chars().count(), 400);
    }
}
