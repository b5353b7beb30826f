//! The agent's configuration: flag, then environment (`HB_…`), then `agent.toml`, then default.
//!
//! Read strictly: an unknown key, a wrong type or a number without a unit is an error that names the line and says what
//! to write. A typo in a file that nobody looks at again must not silently mean the default.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hb_wire::duration::{format_seconds, parse_seconds};
use hb_wire::view::Class;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::env::Env;
use crate::error::Failure;
use crate::http::proxy::ProxyUrl;
use crate::place::Place;

/// Shortest and longest time-out of one attempt, in seconds.
const TIMEOUT_S: (u64, u64) = (1, 30);
/// Largest configuration that is read, in bytes.
const CONFIG_BYTES_MAX: usize = 64 * 1024;
/// A key that is at least this alike (Jaro-Winkler, 0 to 1) is suggested.
const ALIKE_MIN: f64 = 0.75;

const KEYS: &[&str] = &["timeout", "ca_file", "proxy", "no_proxy", "insecure_http", "log", "register"];
const REGISTER_KEYS: &[&str] = &["server", "name", "interval", "grace", "class", "tags"];
const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace"];

/// The configuration of an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// Longest time for one attempt.
    pub timeout: Option<Duration>,
    /// The only certificate authorities to trust.
    pub ca_file: Option<PathBuf>,
    /// A proxy.
    pub proxy: Option<ProxyUrl>,
    /// What is reached without a proxy, as `NO_PROXY` is written.
    pub no_proxy: Option<String>,
    /// Plain http is allowed off loopback.
    pub insecure_http: bool,
    /// How much to log, one of `error`, `warn`, `info`, `debug`, `trace`.
    pub log: Option<String>,
    /// What `hb register` uses.
    pub register: Register,
}

/// What `hb register` uses where no flag says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Register {
    /// The server.
    pub server: Option<String>,
    /// The host's label.
    pub name: Option<String>,
    /// Seconds between beats.
    pub interval_s: Option<u64>,
    /// Seconds of grace.
    pub grace_s: Option<u64>,
    /// What the host is.
    pub class: Option<Class>,
    /// Labels.
    pub tags: BTreeMap<String, String>,
}

impl Config {
    /// Reads the file, if there is one, and puts the environment over it.
    ///
    /// # Errors
    /// 78, naming the file and line, or the variable.
    pub fn load(place: &Place, env: &Env) -> Result<Self, Failure> {
        let mut config = match fs::read_to_string(&place.config) {
            Ok(text) => Self::parse(&text, &place.config)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !place.config_is_named => Self::default(),
            Err(error) => {
                let what = format!("could not read the configuration {}: {error}", place.config.display());
                return Err(Failure::config(what).hint("check the path (HB_CONFIG) and its permissions"));
            }
        };
        config.overlay(env)?;
        Ok(config)
    }

    /// Reads a configuration; `path` is for messages.
    ///
    /// # Errors
    /// 78, naming the line.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Failure> {
        let file = File { text, path };
        if text.len() > CONFIG_BYTES_MAX {
            let what = format!("{} is larger than {CONFIG_BYTES_MAX} bytes", path.display());
            return Err(Failure::config(what).hint("is that the configuration? see the commented agent.toml"));
        }
        let table = DeTable::parse(text).map_err(|error| {
            file.wrong(error.span().map_or(0, |span| span.start), error.message(), "see the commented agent.toml")
        })?;
        let mut config = Self::default();
        for (key, value) in table.get_ref() {
            match key.get_ref().as_ref() {
                "timeout" => config.timeout = Some(file.timeout(value)?),
                "ca_file" => config.ca_file = Some(file.text(value, "ca_file", "\"/etc/hb/ca.pem\"")?.into()),
                "proxy" => {
                    let url = file.text(value, "proxy", "\"http://proxy.example.com:3128\"")?;
                    config.proxy = Some(ProxyUrl::new(url));
                }
                "no_proxy" => config.no_proxy = Some(file.text(value, "no_proxy", "\"example.com,10.0.0.0/8\"")?),
                "insecure_http" => config.insecure_http = file.yes_or_no(value, "insecure_http")?,
                "log" => config.log = Some(file.one_of(value, "log", LEVELS)?),
                "register" => config.register = file.register(value)?,
                _ => return Err(file.unknown(key, KEYS)),
            }
        }
        Ok(config)
    }

    fn overlay(&mut self, env: &Env) -> Result<(), Failure> {
        if let Some(text) = &env.timeout {
            self.timeout = Some(timeout(text).map_err(|(what, hint)| {
                Failure::config(format!("HB_TIMEOUT={text}: {what}")).hint(hint.replace("timeout = ", "HB_TIMEOUT="))
            })?);
        }
        if let Some(level) = &env.log {
            if !LEVELS.contains(&level.as_str()) {
                return Err(Failure::config(format!("HB_LOG={level} is not a level"))
                    .hint(format!("one of {}", LEVELS.join(", "))));
            }
            self.log = Some(level.clone());
        }
        if let Some(path) = &env.ca_file {
            self.ca_file = Some(path.clone());
        }
        if let Some(proxy) = &env.proxy {
            self.proxy = Some(ProxyUrl::new(proxy));
        }
        if let Some(value) = &env.insecure_http {
            self.insecure_http = match value.as_str() {
                "1" | "true" => true,
                "0" | "false" => false,
                _ => {
                    return Err(Failure::config(format!("HB_INSECURE_HTTP={value} is neither yes nor no"))
                        .hint("HB_INSECURE_HTTP=1 or HB_INSECURE_HTTP=0"));
                }
            };
        }
        if let Some(server) = &env.server {
            self.register.server = Some(server.clone());
        }
        Ok(())
    }
}

/// A configuration file while it is read.
struct File<'a> {
    text: &'a str,
    path: &'a Path,
}

impl File<'_> {
    fn register(&self, value: &Spanned<DeValue<'_>>) -> Result<Register, Failure> {
        let Some(table) = value.get_ref().as_table() else {
            return Err(self.mistyped(value, "register", "a line [register] with its keys below it"));
        };
        let mut register = Register::default();
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "server" => register.server = Some(self.text(value, "server", "\"https://hb.example.com\"")?),
                "name" => register.name = Some(self.text(value, "name", "\"web1\"")?),
                "interval" => register.interval_s = Some(self.seconds(value, "interval", "60s")?),
                "grace" => register.grace_s = Some(self.seconds(value, "grace", "120s")?),
                "class" => register.class = Some(self.class(value)?),
                "tags" => register.tags = self.tags(value)?,
                _ => return Err(self.unknown(key, REGISTER_KEYS)),
            }
        }
        Ok(register)
    }

    fn tags(&self, value: &Spanned<DeValue<'_>>) -> Result<BTreeMap<String, String>, Failure> {
        let example = "tags = { site = \"ams\", role = \"db\" }";
        let Some(table) = value.get_ref().as_table() else { return Err(self.mistyped(value, "tags", example)) };
        let mut tags = BTreeMap::new();
        for (key, value) in table {
            let Some(text) = value.get_ref().as_str() else { return Err(self.mistyped(value, "tags", example)) };
            tags.insert(key.get_ref().to_string(), text.to_owned());
        }
        Ok(tags)
    }

    fn class(&self, value: &Spanned<DeValue<'_>>) -> Result<Class, Failure> {
        let word = self.one_of(value, "class", &["server", "intermittent", "ephemeral"])?;
        Ok(match word.as_str() {
            "intermittent" => Class::Intermittent,
            "ephemeral" => Class::Ephemeral,
            _ => Class::Server,
        })
    }

    fn timeout(&self, value: &Spanned<DeValue<'_>>) -> Result<Duration, Failure> {
        let text = self.duration_text(value, "timeout", "10s")?;
        timeout(&text).map_err(|(what, hint)| self.wrong(value.span().start, &format!("timeout: {what}"), &hint))
    }

    fn seconds(&self, value: &Spanned<DeValue<'_>>, key: &str, example: &str) -> Result<u64, Failure> {
        let text = self.duration_text(value, key, example)?;
        parse_seconds(&text).map_err(|error| {
            self.wrong(value.span().start, &format!("{key}: {error}"), &format!("write {key} = \"{example}\""))
        })
    }

    /// The text of a duration; a bare number gets the advice to add a unit.
    fn duration_text(&self, value: &Spanned<DeValue<'_>>, key: &str, example: &str) -> Result<String, Failure> {
        if let Some(number) = value.get_ref().as_integer() {
            let what = format!("{key} = {number} has no unit");
            return Err(self.wrong(value.span().start, &what, &format!("write {key} = \"{number}s\" for seconds")));
        }
        self.text(value, key, &format!("\"{example}\""))
    }

    fn one_of(&self, value: &Spanned<DeValue<'_>>, key: &str, words: &[&str]) -> Result<String, Failure> {
        let first = words.first().copied().unwrap_or_default();
        let word = self.text(value, key, &format!("\"{first}\""))?;
        if words.contains(&word.as_str()) {
            return Ok(word);
        }
        let what = format!("{key} = {word:?} is not known");
        let hint = match most_alike(&word, words) {
            Some(near) => format!("did you mean {near:?}? One of {}", words.join(", ")),
            None => format!("one of {}", words.join(", ")),
        };
        Err(self.wrong(value.span().start, &what, &hint))
    }

    fn text(&self, value: &Spanned<DeValue<'_>>, key: &str, example: &str) -> Result<String, Failure> {
        let text = value.get_ref().as_str().filter(|text| !text.is_empty());
        text.map(str::to_owned).ok_or_else(|| self.mistyped(value, key, &format!("{key} = {example}")))
    }

    fn yes_or_no(&self, value: &Spanned<DeValue<'_>>, key: &str) -> Result<bool, Failure> {
        value.get_ref().as_bool().ok_or_else(|| self.mistyped(value, key, &format!("{key} = true or {key} = false")))
    }

    fn mistyped(&self, value: &Spanned<DeValue<'_>>, key: &str, example: &str) -> Failure {
        let what = match value.get_ref().as_str() {
            Some("") => format!("{key} is empty"),
            _ => format!("{key} cannot be this {}", value.get_ref().type_str()),
        };
        self.wrong(value.span().start, &what, &format!("write {example}"))
    }

    fn unknown(&self, key: &Spanned<std::borrow::Cow<'_, str>>, known: &[&str]) -> Failure {
        let shown: String = key.get_ref().chars().take(64).collect();
        let hint = match most_alike(&shown, known) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("the keys here are {}", known.join(", ")),
        };
        self.wrong(key.span().start, &format!("unknown key {shown:?}"), &hint)
    }

    fn wrong(&self, at: usize, what: &str, hint: &str) -> Failure {
        let line = self.text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        Failure::config(format!("{} line {line}: {what}", self.path.display())).hint(hint)
    }
}

/// The time-out that a text means, or what is wrong with it and what to write.
fn timeout(text: &str) -> Result<Duration, (String, String)> {
    let hint = || "write timeout = \"10s\"".to_owned();
    let seconds = parse_seconds(text).map_err(|error| (error.to_string(), hint()))?;
    if (TIMEOUT_S.0..=TIMEOUT_S.1).contains(&seconds) {
        return Ok(Duration::from_secs(seconds));
    }
    let (least, most) = (format_seconds(TIMEOUT_S.0), format_seconds(TIMEOUT_S.1));
    Err((format!("{} is not within {least} and {most}", format_seconds(seconds)), hint()))
}

fn most_alike<'a>(wanted: &str, known: &[&'a str]) -> Option<&'a str> {
    let scored = known.iter().map(|word| (strsim::jaro_winkler(wanted, word), *word));
    scored.filter(|(alike, _)| *alike >= ALIKE_MIN).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit;

    fn parse(text: &str) -> Result<Config, Failure> {
        Config::parse(text, Path::new("agent.toml"))
    }

    fn check_wrong(text: &str, message: &str, hint: &str) {
        let failure = parse(text).unwrap_err();
        assert_eq!(failure.exit, exit::CONFIG);
        assert!(failure.message.contains(message), "{text:?}: {}", failure.message);
        assert!(failure.hint.as_deref().unwrap_or_default().contains(hint), "{text:?}: {:?}", failure.hint);
    }

    #[test]
    fn the_shipped_configuration_is_the_default_and_every_line_of_it_parses_when_uncommented() {
        let shipped = include_str!("../packaging/config/agent.toml");
        assert_eq!(parse(shipped).unwrap(), Config::default());
        let active: String = shipped
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let config = parse(&active).unwrap();
        assert_eq!(config.timeout, Some(Duration::from_secs(10)));
        assert_eq!(config.register.interval_s, Some(60));
        assert_eq!(config.register.tags.len(), 2);
        for key in KEYS.iter().chain(REGISTER_KEYS) {
            assert!(
                active.contains(&format!("{key} = ")) || active.contains(&format!("[{key}]")),
                "{key} is not shown"
            );
        }
    }

    #[test]
    fn an_unknown_key_names_its_line_and_the_key_that_was_meant() {
        check_wrong("\n# x\ntimout = \"10s\"\n", "agent.toml line 3: unknown key \"timout\"", "did you mean timeout?");
        check_wrong("[register]\nintervall = \"60s\"\n", "line 2: unknown key \"intervall\"", "did you mean interval?");
        check_wrong("zzz = 1\n", "line 1: unknown key \"zzz\"", "the keys here are timeout");
    }

    #[test]
    fn a_duration_without_or_with_a_wrong_unit_says_what_to_write() {
        check_wrong("timeout = 10\n", "line 1: timeout = 10 has no unit", "write timeout = \"10s\" for seconds");
        check_wrong("[register]\n\ninterval = 60\n", "line 3: interval = 60 has no unit", "interval = \"60s\"");
        check_wrong("[register]\ninterval = \"60 parsecs\"\n", "line 2: interval:", "write interval = \"60s\"");
        check_wrong("timeout = \"10\"\n", "line 1: timeout:", "write timeout = \"10s\"");
        check_wrong("timeout = \"5m\"\n", "5m is not within 1s and 30s", "write timeout");
    }

    #[test]
    fn a_wrong_type_a_wrong_word_and_broken_toml_name_their_line() {
        check_wrong("insecure_http = \"yes\"\n", "line 1: insecure_http cannot be this string", "insecure_http = true");
        check_wrong("proxy = \"\"\n", "proxy is empty", "write proxy = ");
        check_wrong("log = \"inf\"\n", "log = \"inf\" is not known", "did you mean \"info\"?");
        check_wrong("[register]\nclass = \"pet\"\n", "line 2: class", "one of server");
        check_wrong("[register]\ntags = { a = 1 }\n", "line 2: tags cannot be this integer", "tags = {");
        check_wrong("register = 3\n", "register cannot be this integer", "[register]");
        check_wrong("a = 1\n[reg\n", "line 2", "agent.toml");
    }

    #[test]
    fn the_environment_goes_before_the_file_and_the_file_before_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let env = |timeout: Option<&str>| Env {
            state_dir: Some(dir.path().to_owned()),
            timeout: timeout.map(str::to_owned),
            ..Env::default()
        };
        let load = |env: &Env| Config::load(&Place::find(env).unwrap(), env);
        assert_eq!(load(&env(None)).unwrap().timeout, None);
        fs::write(dir.path().join("agent.toml"), "timeout = \"7s\"\n").unwrap();
        assert_eq!(load(&env(None)).unwrap().timeout, Some(Duration::from_secs(7)));
        assert_eq!(load(&env(Some("3s"))).unwrap().timeout, Some(Duration::from_secs(3)));
        let failure = load(&env(Some("3"))).unwrap_err();
        assert!(failure.message.contains("HB_TIMEOUT=3"), "{failure}");
    }

    #[test]
    fn a_named_configuration_must_be_there() {
        let env = Env { config: Some("/nonexistent.toml".into()), state_dir: Some("/tmp".into()), ..Env::default() };
        assert_eq!(Config::load(&Place::find(&env).unwrap(), &env).unwrap_err().exit, exit::CONFIG);
    }
}
