//! Reading `server.toml`.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::given::Given;
use super::{CONFIG_BYTES_MAX, Draft, KEYS};
use crate::error::Failure;

/// A key that is at least this alike (Jaro-Winkler, 0 to 1) is suggested.
const ALIKE_MIN: f64 = 0.75;

/// Takes every key of the file; `path` is for messages.
pub(super) fn read(text: &str, path: &Path, draft: &mut Draft) -> Result<(), Failure> {
    let file = File { text, path };
    if text.len() > CONFIG_BYTES_MAX {
        return Err(Failure::config(format!("{} is larger than {CONFIG_BYTES_MAX} bytes", path.display()))
            .hint("check the path (--config): that is no server.toml"));
    }
    let table = DeTable::parse(text).map_err(|error| {
        file.wrong(error.span().map_or(0, |span| span.start), error.message(), "see the commented server.toml")
    })?;
    file.take(table.get_ref(), "", draft)
}

/// The one of `words` that `word` most likely was meant to be.
pub(super) fn most_alike<'a>(word: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    words
        .map(|known| (strsim::jaro_winkler(word, known), known))
        .filter(|(alike, _)| *alike >= ALIKE_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

struct File<'a> {
    text: &'a str,
    path: &'a Path,
}

impl File<'_> {
    fn take(&self, table: &DeTable<'_>, section: &str, draft: &mut Draft) -> Result<(), Failure> {
        for (key, value) in table {
            let name = format!("{section}{}", key.get_ref());
            let is_section = KEYS.iter().any(|known| known.name.starts_with(&format!("{name}.")));
            if is_section {
                let Some(inner) = value.get_ref().as_table() else {
                    let hint = format!("write [{name}] on a line of its own and its keys below it");
                    return Err(self.wrong(value.span().start, &format!("{name} is a section"), &hint));
                };
                self.take(inner, &format!("{name}."), draft)?;
                continue;
            }
            let Some(known) = KEYS.iter().find(|known| known.name == name) else {
                return Err(self.unknown(key.span().start, &name, section));
            };
            (known.set)(draft, &given(value)).map_err(|wrong| {
                let hint = wrong.hint.unwrap_or_else(|| format!("write {} = {}", key.get_ref(), known.example));
                self.wrong(value.span().start, &format!("{name}: {}", wrong.what), &hint)
            })?;
        }
        Ok(())
    }

    fn unknown(&self, at: usize, name: &str, section: &str) -> Failure {
        let shown = hb_notify::one_line(name, 64);
        let here: Vec<&str> =
            KEYS.iter().filter_map(|key| key.name.strip_prefix(section)).filter(|key| !key.contains('.')).collect();
        let near = most_alike(&shown, KEYS.iter().map(|key| key.name))
            .or_else(|| most_alike(shown.rsplit('.').next().unwrap_or(&shown), here.iter().copied()));
        let hint = near
            .map_or_else(|| format!("the keys here are {}", here.join(", ")), |near| format!("did you mean {near}?"));
        self.wrong(at, &format!("unknown key {shown:?}"), &hint)
    }

    fn wrong(&self, at: usize, what: &str, hint: &str) -> Failure {
        let line = self.text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        Failure::config(format!("{} line {line}: {what}", self.path.display())).hint(hint)
    }
}

fn given(value: &Spanned<DeValue<'_>>) -> Given {
    let value = value.get_ref();
    if let Some(text) = value.as_str() {
        return Given::Text(text.to_owned());
    }
    if let Some(yes) = value.as_bool() {
        return Given::Boolean(yes);
    }
    if let Some(number) = value.as_integer() {
        return i64::from_str_radix(number.as_str(), number.radix()).map_or(Given::Other("number"), Given::Integer);
    }
    if let Some(items) = value.as_array() {
        let texts: Option<Vec<String>> = items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect();
        return texts.map_or(Given::Other("list of other things than texts"), Given::List);
    }
    Given::Other(value.type_str())
}
