//! Text that is safe to print: what a server, a file or an argument says must not steer the terminal.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value;

/// `text` with every character that could steer a terminal or hide its neighbours made visible (`\u{1b}`, `\r`).
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        if steers(char) {
            shown.extend(char.escape_default());
        } else {
            shown.push(char);
        }
    }
    Cow::Owned(shown)
}

/// [`visible`], but lines stay lines: for messages that hb itself breaks.
pub fn visible_lines(text: &str) -> String {
    text.split('\n').map(visible).collect::<Vec<_>>().join("\n")
}

/// Makes every string inside `value` [`visible`], the names of members included.
pub fn visible_value(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(visible(&text).into_owned()),
        Value::Array(items) => items.into_iter().map(visible_value).collect(),
        Value::Object(members) => {
            members.into_iter().map(|(name, value)| (visible(&name).into_owned(), visible_value(value))).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    }
}

/// `document` as JSON for people and programs: indented, and escaped so that it cannot steer a terminal either.
pub fn json<T: Serialize + ?Sized>(document: &T) -> String {
    escaped(&serde_json::to_string_pretty(document).expect("hb's documents have string keys and finite numbers"))
}

/// `document` as JSON on one line.
pub fn json_line<T: Serialize + ?Sized>(document: &T) -> String {
    escaped(&serde_json::to_string(document).expect("hb's documents have string keys and finite numbers"))
}

/// The word that stands for a value of an enum on the wire.
pub fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        _ => String::new(),
    }
}

/// JSON leaves DEL, C1 and bidirectional controls as they are; escaping them changes nothing for a parser. The line
/// breaks are those of the layout: inside strings they are escaped already.
fn escaped(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for char in json.chars() {
        if char != '\n' && steers(char) {
            let mut units = [0; 2];
            safe.extend(char.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            safe.push(char);
        }
    }
    safe
}

/// Controls (C0, DEL, C1), line and paragraph separators, and the format characters that reorder or hide text.
fn steers(char: char) -> bool {
    char.is_control()
        || matches!(
            char,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_steer_a_terminal_is_shown_and_does_nothing() {
        let check = |text: &str, expected: &str| assert_eq!(visible(text), expected);
        check("web1.example", "web1.example");
        check("Zürich 東京 🦀", "Zürich 東京 🦀");
        check("\x1b]0;owned\x07", r"\u{1b}]0;owned\u{7}");
        check("\x1b[2J", r"\u{1b}[2J");
        check("\u{9b}2J", r"\u{9b}2J");
        check("down\rup  ", r"down\rup  ");
        check("a\nb\tc", r"a\nb\tc");
        check("\u{202e}pu", r"\u{202e}pu");
        check("\u{7f}", r"\u{7f}");
    }

    #[test]
    fn json_keeps_its_meaning_while_its_controls_are_escaped() {
        let document = serde_json::json!({ "name": "\u{9b}2J\u{7f}\x1b\u{202e}\u{e0041}\n" });
        let text = json(&document);
        assert!(!text.contains(|char| char != '\n' && steers(char)), "{text:?}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), document);
    }

    #[test]
    fn every_string_of_a_document_is_made_visible_with_its_names() {
        let document = serde_json::json!({ "a\r": ["\x1b", { "b": "\u{7}" }], "n": 1, "t": true, "z": null });
        let expected = serde_json::json!({ "a\\r": ["\\u{1b}", { "b": "\\u{7}" }], "n": 1, "t": true, "z": null });
        assert_eq!(visible_value(document), expected);
    }
}
