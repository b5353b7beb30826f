//! One value, as the file or the environment gave it, and how it is understood.

use core::net::SocketAddr;
use core::time::Duration;
use std::path::PathBuf;

use hb_wire::duration::parse_seconds;
use ipnet::IpNet;
use url::Url;

use super::file::most_alike;

/// A value that is not understood yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Given {
    /// A text of the file.
    Text(String),
    /// A whole number of the file.
    Integer(i64),
    /// `true` or `false` in the file.
    Boolean(bool),
    /// A list of texts of the file.
    List(Vec<String>),
    /// Anything else of the file, by the name of its type.
    Other(&'static str),
    /// A variable of the environment, in which everything is text.
    Variable(String),
}

/// Why a value was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    /// What is wrong with it.
    pub(super) what: String,
    /// What to do; when absent, the key's example is shown.
    pub(super) hint: Option<String>,
}

impl Wrong {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// An example of the file as it is written in a variable: without quotes and brackets.
pub(super) fn bare(example: &str) -> String {
    example.replace(['"', '[', ']', ' '], "")
}

impl Given {
    pub(super) fn text(&self) -> Result<&str, Wrong> {
        match self {
            Self::Text(text) | Self::Variable(text) if !text.trim().is_empty() => Ok(text.trim()),
            Self::Text(_) | Self::Variable(_) => Err(Wrong::new("is empty")),
            Self::Integer(_) | Self::Boolean(_) | Self::List(_) | Self::Other(_) => Err(self.mistyped("a text")),
        }
    }

    pub(super) fn path(&self) -> Result<PathBuf, Wrong> {
        self.text().map(PathBuf::from)
    }

    pub(super) fn yes_or_no(&self) -> Result<bool, Wrong> {
        match self {
            Self::Boolean(yes) => Ok(*yes),
            Self::Variable(text) => match text.trim() {
                "1" | "true" => Ok(true),
                "0" | "false" => Ok(false),
                _ => Err(Wrong::new("is neither yes nor no").hint("write 1 or 0")),
            },
            Self::Text(_) | Self::Integer(_) | Self::List(_) | Self::Other(_) => Err(self.mistyped("true or false")),
        }
    }

    pub(super) fn number(&self, (least, most): (u64, u64)) -> Result<u64, Wrong> {
        let number = match self {
            Self::Integer(number) => u64::try_from(*number).ok(),
            Self::Variable(text) => text.trim().parse().ok(),
            Self::Text(_) | Self::Boolean(_) | Self::List(_) | Self::Other(_) => {
                return Err(self.mistyped("a whole number"));
            }
        };
        number
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(|| Wrong::new(format!("must be a whole number from {least} to {most}")))
    }

    /// A text with a unit; unlike elsewhere in hb, milliseconds are allowed (`200ms`).
    pub(super) fn duration(&self, (least, most): (Duration, Duration)) -> Result<Duration, Wrong> {
        if let Self::Integer(number) = self {
            return Err(Wrong::new(format!("{number} has no unit")).hint(format!("write \"{number}s\" for seconds")));
        }
        let text = self.text()?;
        let duration = match text.strip_suffix("ms").and_then(|ms| ms.trim().parse().ok()) {
            Some(ms) => Duration::from_millis(ms),
            None => Duration::from_secs(parse_seconds(text).map_err(|error| Wrong::new(error.to_string()))?),
        };
        if (least..=most).contains(&duration) {
            return Ok(duration);
        }
        Err(Wrong::new(format!("{duration:?} is not within {least:?} and {most:?}")))
    }

    pub(super) fn one_of<'a>(&self, words: &'a [&'a str]) -> Result<&'a str, Wrong> {
        let word = self.text()?;
        words.iter().find(|known| **known == word).copied().ok_or_else(|| {
            let all = words.join(", ");
            let near = most_alike(word, words.iter().copied());
            let hint =
                near.map_or_else(|| format!("one of {all}"), |near| format!("did you mean {near:?}? One of {all}"));
            Wrong::new("is not known").hint(hint)
        })
    }

    pub(super) fn address(&self) -> Result<SocketAddr, Wrong> {
        let text = self.text()?;
        text.parse().map_err(|_| {
            Wrong::new("is not an address with a port").hint("write 127.0.0.1:8600, 0.0.0.0:8600 or [::]:8600")
        })
    }

    /// The URL of a server: scheme, host, perhaps a port, and nothing else.
    pub(super) fn server_url(&self) -> Result<Url, Wrong> {
        let text = self.text()?;
        let url = Url::parse(text).map_err(|error| Wrong::new(format!("is not a URL: {error}")))?;
        let plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() || !plain || url.password().is_some() {
            return Err(Wrong::new("is more, or other, than an http(s) address"));
        }
        if url.path() != "/" {
            return Err(Wrong::new(
                "has a path: hb signs the whole path, so that it must stand at the root of its name",
            ));
        }
        Ok(url)
    }

    pub(super) fn networks(&self) -> Result<Vec<IpNet>, Wrong> {
        self.list()?
            .iter()
            .map(|text| {
                let alone = || text.parse().ok().map(|address: core::net::IpAddr| IpNet::from(address));
                text.parse().ok().or_else(alone).ok_or_else(|| Wrong::new(format!("{text:?} is not a network (CIDR)")))
            })
            .collect()
    }

    pub(super) fn programs(&self) -> Result<Vec<PathBuf>, Wrong> {
        self.list()?
            .into_iter()
            .map(|text| {
                let path = PathBuf::from(&text);
                if path.is_absolute() { Ok(path) } else { Err(Wrong::new(format!("{text:?} is not an absolute path"))) }
            })
            .collect()
    }

    fn list(&self) -> Result<Vec<String>, Wrong> {
        match self {
            Self::List(items) => Ok(items.clone()),
            Self::Variable(text) => {
                Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
            }
            Self::Text(_) | Self::Integer(_) | Self::Boolean(_) | Self::Other(_) => {
                Err(self.mistyped("a list of texts in brackets"))
            }
        }
    }

    fn mistyped(&self, wanted: &str) -> Wrong {
        let found = match self {
            Self::Text(_) | Self::Variable(_) => "text",
            Self::Integer(_) => "number",
            Self::Boolean(_) => "true or false",
            Self::List(_) => "list",
            Self::Other(kind) => kind,
        };
        Wrong::new(format!("cannot be this {found}, it is {wanted}"))
    }
}
