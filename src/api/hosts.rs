//! Finding hosts: by name, id, the beginning of an id, state or tag.

use core::str::FromStr as _;

use hb_wire::id::HostId;
use hb_wire::view::{HostPage, HostState, HostView};

use super::{Api, Page, Param};
use crate::error::Failure;
use crate::output::text::word;

/// Shortest beginning of an id that is taken for one.
const PREFIX_CHARS_MIN: usize = 4;
/// How alike a name must be to be suggested (Jaro-Winkler, 0 to 1).
const ALIKE_MIN: f64 = 0.8;

/// Which hosts are wanted: those that fit all of it.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// One of these states; any, when empty. Retired hosts come only when they are asked for.
    pub states: Vec<HostState>,
    /// All of these tags.
    pub tags: Vec<(String, String)>,
}

/// True when the host fits the filter.
pub fn matches(filter: &Filter, host: &HostView) -> bool {
    let state = match filter.states.as_slice() {
        [] => host.state != HostState::Retired,
        states => states.contains(&host.state),
    };
    state && filter.tags.iter().all(|(key, value)| host.tags.get(key) == Some(value))
}

impl Page for HostPage {
    fn next_cursor(&mut self) -> Option<String> {
        self.next_cursor.take()
    }
}

impl Api<'_> {
    /// Every host that fits, as one page: what it says about the fleet is what the first one said.
    pub fn hosts(&self, filter: &Filter) -> Result<HostPage, Failure> {
        let state = match filter.states.as_slice() {
            [state] => Some(word(state)),
            _ => None,
        };
        let tag = filter.tags.first().map(|(key, value)| format!("{key}={value}"));
        let mut query: Vec<Param<'_>> = Vec::new();
        query.extend(state.as_deref().map(|state| ("state", state)));
        query.extend(tag.as_deref().map(|tag| ("tag", tag)));
        // The server narrows by one state and one tag; the rest is decided here.
        self.host_pages(&query, |host| matches(filter, host))
    }

    /// The host that a person means: a name, an id, or the beginning of an id.
    pub fn host(&self, wanted: &str) -> Result<HostView, Failure> {
        if let Ok(id) = HostId::from_str(&wanted.to_lowercase()) {
            return self.host_by_id(id);
        }
        let name = wanted.to_lowercase();
        let named = |query: &[Param<'_>]| -> Result<Vec<HostView>, Failure> {
            Ok(self.host_pages(query, |host| host.name.eq_ignore_ascii_case(&name))?.hosts)
        };
        // A retired host keeps its name, which another one may bear since.
        let mut found = named(&[("name", &name)])?;
        if found.iter().any(|host| host.state != HostState::Retired) {
            found.retain(|host| host.state != HostState::Retired);
        }
        match found.len() {
            0 => self.host_by_prefix(&name, wanted),
            1 => Ok(found.swap_remove(0)),
            _ => Err(ambiguous(&format!("{} retired hosts were named {name:?}", found.len()), &found)),
        }
    }

    fn host_by_prefix(&self, prefix: &str, wanted: &str) -> Result<HostView, Failure> {
        let all = self.host_pages(&[], |_| true)?.hosts;
        if is_id_prefix(prefix) {
            let mut found: Vec<HostView> = all.iter().filter(|host| starts(host, prefix)).cloned().collect();
            match found.len() {
                0 => {}
                1 => return Ok(found.swap_remove(0)),
                _ => return Err(ambiguous(&format!("{} ids begin with {prefix}", found.len()), &found)),
            }
        }
        let failure = Failure::failed(format!("there is no host {wanted:?}"));
        let living = all.iter().filter(|host| host.state != HostState::Retired).map(|host| host.name.as_str());
        Err(match most_alike(prefix, living) {
            Some(name) => failure.hint(format!("did you mean {name}?")),
            None => failure.hint("`hb hosts list` names them all"),
        })
    }

    fn host_pages(&self, query: &[Param<'_>], keep: impl Fn(&HostView) -> bool) -> Result<HostPage, Failure> {
        let mut whole: Option<HostPage> = None;
        self.pages("/v1/hosts", query, |mut page: HostPage| {
            page.hosts.retain(&keep);
            match &mut whole {
                None => whole = Some(page),
                Some(whole) => whole.hosts.append(&mut page.hosts),
            }
            true
        })?;
        whole.ok_or_else(|| Failure::bug("a list without any page"))
    }
}

fn is_id_prefix(text: &str) -> bool {
    text.len() >= PREFIX_CHARS_MIN && text.chars().all(|char| char.is_ascii_hexdigit() || char == '-')
}

fn starts(host: &HostView, prefix: &str) -> bool {
    host.id.to_string().starts_with(prefix)
}

fn ambiguous(what: &str, found: &[HostView]) -> Failure {
    const SHOWN_MAX: usize = 5;
    let mut shown: Vec<String> =
        found.iter().take(SHOWN_MAX).map(|host| format!("{} ({})", host.id, host.name)).collect();
    if found.len() > SHOWN_MAX {
        shown.push("…".to_owned());
    }
    Failure::failed(what.to_owned()).hint(format!("say which one: {}", shown.join(", ")))
}

fn most_alike<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = names.map(|name| (strsim::jaro_winkler(wanted, name), name));
    scored.filter(|(alike, _)| *alike >= ALIKE_MIN).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_is_answered_with_the_name_that_was_meant() {
        let check = |wanted: &str, expected| {
            assert_eq!(most_alike(wanted, ["web1", "web2", "database"].into_iter()), expected, "{wanted}");
        };
        check("wbe1", Some("web1"));
        check("databse", Some("database"));
        check("mail", None);
    }

    #[test]
    fn the_beginning_of_an_id_is_at_least_four_characters_of_one() {
        for (text, expected) in [("0199", true), ("0199aaaa-bb", true), ("019", false), ("web1", false)] {
            assert_eq!(is_id_prefix(text), expected, "{text}");
        }
    }
}
