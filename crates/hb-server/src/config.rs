//! The server's configuration: flag, then environment (`HB_SERVER_…`), then `server.toml`, then default.
//!
//! [`KEYS`] is the one list of what can be configured: the file, the environment and the messages all come from it. Read
//! strictly: an unknown key, a wrong type or a number without a unit is an error that names the line (or the variable) and
//! says what to write.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use hb_notify::{SmtpConfig, SmtpTls};
use ipnet::IpNet;
use url::Url;

use crate::error::Failure;

mod file;
mod given;

use given::{Given, Wrong};

/// Largest configuration that is read, in bytes.
pub const CONFIG_BYTES_MAX: usize = 64 * 1024;
/// Where the server listens unless told otherwise.
pub const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(core::net::IpAddr::V4(core::net::Ipv4Addr::LOCALHOST), 8600);
/// Shortest and longest pause of the sweeper.
pub const SWEEP_PERIOD: (Duration, Duration) = (Duration::from_millis(10), Duration::from_mins(1));
/// Shortest and longest attempt of a webhook or an `exec` program: a delivery is leased for a minute.
pub const ATTEMPT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Fewest and most connections at a time.
pub const CONNECTIONS: (u64, u64) = (16, 1_000_000);
/// Fewest and most beats per interval of one host.
pub const BEATS_PER_INTERVAL: (u64, u64) = (2, 1_000);

/// The environment: one variable's value by its name.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object per line.
    Json,
}

/// The configuration of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What hosts and people call it; the listen address when absent.
    pub public_url: Option<Url>,
    /// The certificate chain, PEM.
    pub tls_cert: Option<PathBuf>,
    /// Its private key, PEM.
    pub tls_key: Option<PathBuf>,
    /// Plain http off loopback, because something in front of it encrypts.
    pub insecure_http: bool,
    /// Most connections at a time; from the limit on open files when absent.
    pub connections_max: Option<u64>,
    /// Longest sleep of the sweeper.
    pub sweep_period: Duration,
    /// Beats that one host may send per interval.
    pub beats_per_interval: u64,
    /// Networks that webhooks may reach although they are not public.
    pub allow_networks: Vec<IpNet>,
    /// Programs that `exec` channels may run.
    pub exec_programs: Vec<PathBuf>,
    /// More certificate authorities for webhooks and mail, PEM.
    pub ca_file: Option<PathBuf>,
    /// Longest attempt of a webhook.
    pub webhook_timeout: Duration,
    /// Longest run of an `exec` program.
    pub exec_timeout: Duration,
    /// How mail leaves.
    pub smtp: Option<SmtpConfig>,
    /// How much is logged: one of [`LEVELS`].
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// The share of good nonces, in percent, that is refused all the same: for tests of clients.
    pub refuse_nonces_percent: u8,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: LISTEN_DEFAULT,
            public_url: None,
            tls_cert: None,
            tls_key: None,
            insecure_http: false,
            connections_max: None,
            sweep_period: Duration::from_secs(1),
            beats_per_interval: 10,
            allow_networks: Vec::new(),
            exec_programs: Vec::new(),
            ca_file: None,
            webhook_timeout: Duration::from_secs(10),
            exec_timeout: Duration::from_secs(30),
            smtp: None,
            log: "info".to_owned(),
            log_format: LogFormat::Human,
            refuse_nonces_percent: 0,
        }
    }
}

/// The levels of [`Config::log`].
pub const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace"];

/// One thing that can be configured.
pub struct Key {
    /// Its name in the file, with its section: `sweep_period`, `smtp.host`.
    pub name: &'static str,
    /// How its value is written, for hints.
    pub example: &'static str,
    set: fn(&mut Draft, &Given) -> Result<(), Wrong>,
}

impl core::fmt::Debug for Key {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Key").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Key {
    /// Its environment variable: `HB_SERVER_` and the name in capitals.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("HB_SERVER_{}", self.name.replace('.', "_").to_ascii_uppercase())
    }
}

/// A configuration while it is put together: mail is complete only at the end.
#[derive(Debug, Default)]
struct Draft {
    config: Config,
    smtp: BTreeMap<&'static str, String>,
    smtp_port: Option<u16>,
}

/// Every key.
pub const KEYS: &[Key] = &[
    Key { name: "listen", example: "\"127.0.0.1:8600\"", set: |d, v| v.address().map(|a| d.config.listen = a) },
    Key {
        name: "public_url",
        example: "\"https://hb.example.com\"",
        set: |d, v| v.server_url().map(|url| d.config.public_url = Some(url)),
    },
    Key {
        name: "tls_cert",
        example: "\"/etc/hb/tls/cert.pem\"",
        set: |d, v| v.path().map(|p| d.config.tls_cert = Some(p)),
    },
    Key {
        name: "tls_key",
        example: "\"/etc/hb/tls/key.pem\"",
        set: |d, v| v.path().map(|p| d.config.tls_key = Some(p)),
    },
    Key { name: "insecure_http", example: "false", set: |d, v| v.yes_or_no().map(|yes| d.config.insecure_http = yes) },
    Key {
        name: "connections_max",
        example: "20000",
        set: |d, v| v.number(CONNECTIONS).map(|n| d.config.connections_max = Some(n)),
    },
    Key {
        name: "sweep_period",
        example: "\"1s\"",
        set: |d, v| v.duration(SWEEP_PERIOD).map(|p| d.config.sweep_period = p),
    },
    Key {
        name: "beats_per_interval",
        example: "10",
        set: |d, v| v.number(BEATS_PER_INTERVAL).map(|n| d.config.beats_per_interval = n),
    },
    Key {
        name: "allow_networks",
        example: "[\"10.1.0.0/16\"]",
        set: |d, v| v.networks().map(|n| d.config.allow_networks = n),
    },
    Key {
        name: "exec_programs",
        example: "[\"/usr/local/bin/page-me\"]",
        set: |d, v| v.programs().map(|p| d.config.exec_programs = p),
    },
    Key { name: "ca_file", example: "\"/etc/hb/ca.pem\"", set: |d, v| v.path().map(|p| d.config.ca_file = Some(p)) },
    Key {
        name: "webhook_timeout",
        example: "\"10s\"",
        set: |d, v| v.duration(ATTEMPT).map(|t| d.config.webhook_timeout = t),
    },
    Key {
        name: "exec_timeout",
        example: "\"30s\"",
        set: |d, v| v.duration(ATTEMPT).map(|t| d.config.exec_timeout = t),
    },
    Key {
        name: "log",
        example: "\"info\"",
        set: |d, v| v.one_of(LEVELS).map(|level| level.clone_into(&mut d.config.log)),
    },
    Key {
        name: "log_format",
        example: "\"human\"",
        set: |d, v| {
            v.one_of(&["human", "json"]).map(|word| {
                d.config.log_format = if word == "json" { LogFormat::Json } else { LogFormat::Human };
            })
        },
    },
    Key {
        name: "refuse_nonces_percent",
        example: "0",
        set: |d, v| v.number((0, 100)).map(|n| d.config.refuse_nonces_percent = u8::try_from(n).unwrap_or(100)),
    },
    Key { name: "smtp.host", example: "\"mail.example.com\"", set: |d, v| d.mail("host", v) },
    Key {
        name: "smtp.port",
        example: "587",
        set: |d, v| v.number((1, 65_535)).map(|n| d.smtp_port = u16::try_from(n).ok()),
    },
    Key {
        name: "smtp.tls",
        example: "\"starttls\"",
        set: |d, v| v.one_of(&["starttls", "tls", "none"]).map(|word| drop(d.smtp.insert("tls", word.to_owned()))),
    },
    Key { name: "smtp.username", example: "\"hb\"", set: |d, v| d.mail("username", v) },
    Key { name: "smtp.password_file", example: "\"/etc/hb/smtp-password\"", set: |d, v| d.mail("password_file", v) },
    Key { name: "smtp.from", example: "\"hb <hb@example.com>\"", set: |d, v| d.mail("from", v) },
];

impl Draft {
    fn mail(&mut self, field: &'static str, value: &Given) -> Result<(), Wrong> {
        self.smtp.insert(field, value.text()?.to_owned());
        Ok(())
    }

    fn finish(mut self) -> Result<Config, Failure> {
        let pair = (&self.config.tls_cert, &self.config.tls_key);
        if let (Some(_), None) | (None, Some(_)) = pair {
            return Err(Failure::config("tls_cert and tls_key belong together: only one of them is given")
                .hint("give both the certificate and its private key, or neither"));
        }
        if self.smtp.is_empty() && self.smtp_port.is_none() {
            return Ok(self.config);
        }
        let required = |name: &str, example: &str, value: Option<String>| {
            value.ok_or_else(|| {
                Failure::config(format!("[smtp] has no {name}")).hint(format!("write {name} = {example} below [smtp]"))
            })
        };
        let mut take = |field| self.smtp.remove(field);
        self.config.smtp = Some(SmtpConfig {
            host: required("host", "\"mail.example.com\"", take("host"))?,
            port: self.smtp_port,
            tls: match take("tls").as_deref() {
                Some("tls") => SmtpTls::Tls,
                Some("none") => SmtpTls::None,
                _ => SmtpTls::Starttls,
            },
            username: take("username"),
            password_file: take("password_file").map(PathBuf::from),
            from: required("from", "\"hb@example.com\"", take("from"))?,
        });
        Ok(self.config)
    }
}

/// Variables that are read beside those of [`KEYS`], by the command line.
const MORE_VARIABLES: [&str; 2] = ["HB_SERVER_DATA", "HB_SERVER_CONFIG"];

/// A warning for each variable that looks like one of hb-server's and is none: most likely it is mistyped.
#[must_use]
pub fn unknown_variables(names: impl Iterator<Item = OsString>) -> Vec<String> {
    let known: Vec<String> = KEYS.iter().map(Key::variable).chain(MORE_VARIABLES.map(str::to_owned)).collect();
    let mut unknown: Vec<String> = names
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.starts_with("HB_SERVER_") && !known.contains(name))
        .collect();
    unknown.sort();
    let warn = |name: String| {
        let shown = hb_notify::one_line(&name, 64);
        match file::most_alike(&name, known.iter().map(String::as_str)) {
            Some(near) => format!("{shown} is no variable of hb-server and is ignored: did you mean {near}?"),
            None => format!("{shown} is no variable of hb-server and is ignored"),
        }
    };
    unknown.into_iter().map(warn).collect()
}

/// Reads the file, if one is named, and puts the environment over it. The flags are put over it by the caller.
///
/// # Errors
/// 78, naming the file and line, or the variable; 77 when the file may not be read.
pub fn load(file: Option<&Path>, env: Lookup<'_>) -> Result<Config, Failure> {
    let mut draft = Draft::default();
    if let Some(path) = file {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::file("read the configuration", path, &error).or_hint("check the path (--config)")
        })?;
        file::read(&text, path, &mut draft)?;
    }
    for key in KEYS {
        let variable = key.variable();
        let Some(value) = env(&variable).filter(|value| !value.is_empty()) else { continue };
        (key.set)(&mut draft, &Given::Variable(value.clone())).map_err(|wrong| {
            let hint = wrong.hint.unwrap_or_else(|| format!("write {variable}={}", given::bare(key.example)));
            Failure::config(format!("{variable}={}: {}", hb_notify::one_line(&value, 80), wrong.what)).hint(hint)
        })?;
    }
    draft.finish()
}

#[cfg(test)]
mod tests;
