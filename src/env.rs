//! Every environment variable that hb reads, and the only place that reads the environment.
//!
//! Left to the libraries and modules that own them: `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY` (`http::proxy`), `HOME` and `XDG_*`
//! (directories), `TZ` (jiff), `NOTIFY_SOCKET` and `WATCHDOG_*` (sd-notify).

use core::fmt;
use std::ffi::OsString;
use std::path::PathBuf;

/// One variable that hb reads: its name and what it does.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// As written in a shell.
    pub name: &'static str,
    /// What it does, in the words of the reference.
    pub does: &'static str,
}

macro_rules! environment {
    ($($(#[doc = $doc:literal])+ $name:literal => $field:ident: $type:ty,)+) => {
        /// The environment of one run. A variable that is set but empty counts as not set.
        #[derive(Clone, Default)]
        pub struct Env {
            $($(#[doc = $doc])+ pub $field: Option<$type>,)+
            /// A warning for each variable that looks like one of hb's and is none.
            pub unknown: Vec<String>,
        }

        /// Every variable, in the order of the reference.
        pub const VARIABLES: &[Variable] = &[$(Variable { name: $name, does: concat!($($doc),+).trim_ascii() }),+];

        impl Env {
            /// Reads every variable through `lookup`.
            pub fn read(lookup: impl Fn(&str) -> Option<OsString>) -> Self {
                Self {
                    $($field: lookup($name).filter(|value| !value.is_empty()).map(FromOs::from_os),)+
                    unknown: Vec::new(),
                }
            }
        }

        impl fmt::Debug for Env {
            /// Names what is set, never the values: one of them is a secret.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_set()$(.entries(self.$field.as_ref().map(|_| $name)))+.finish()
            }
        }
    };
}

environment! {
    /// The server's URL; overrides the saved profile and the agent's configuration.
    "HB_SERVER" => server: String,
    /// The API key that goes with `HB_SERVER`, or replaces the saved one.
    "HB_API_KEY" => api_key: String,
    /// With `HB_SERVER`: pins the server's certificate (sha256:…), as `hb login --pin` does.
    "HB_PIN" => pin: String,
    /// With `HB_SERVER`: a PEM file of certificate authorities to trust, as `hb login --ca-file` does.
    "HB_CA_FILE" => ca_file: PathBuf,
    /// With `HB_SERVER`: `1` allows plain http off loopback, as `hb login --insecure-http` does.
    "HB_INSECURE_HTTP" => insecure_http: String,
    /// Which saved profile to use, as `--server-profile` does.
    "HB_PROFILE" => profile: String,
    /// The agent's configuration file.
    "HB_CONFIG" => config: PathBuf,
    /// Where an agent keeps its key, journal and configuration.
    "HB_STATE_DIR" => state_dir: PathBuf,
    /// How much the agent logs: error, warn, info, debug or trace.
    "HB_LOG" => log: String,
    /// Longest time for one attempt to send a beat, with a unit (`10s`).
    "HB_TIMEOUT" => timeout: String,
    /// A proxy for the agent, instead of `HTTPS_PROXY`.
    "HB_PROXY" => proxy: String,
    /// The file with the enrolment token for `hb register`.
    "HB_TOKEN_FILE" => token_file: PathBuf,
    /// Where systemd puts the state of a service (`StateDirectory=`).
    "STATE_DIRECTORY" => state_directory: String,
    /// Where systemd puts what a service keeps while it runs (`RuntimeDirectory=`).
    "RUNTIME_DIRECTORY" => runtime_directory: String,
    /// Where systemd puts the credentials of a service (`LoadCredential=`).
    "CREDENTIALS_DIRECTORY" => credentials_dir: PathBuf,
    /// Set by systemd where stderr goes to its journal, which adds the time by itself.
    "JOURNAL_STREAM" => journal_stream: String,
    /// Turns colour off.
    "NO_COLOR" => no_color: String,
    /// Turns colour on even where there is no terminal, unless it is `0`.
    "CLICOLOR_FORCE" => clicolor_force: String,
    /// The kind of terminal; `dumb` means no colour.
    "TERM" => term: String,
    /// The width of the output in columns, when it cannot be measured.
    "COLUMNS" => columns: String,
}

impl Env {
    /// The environment of this process.
    pub fn of_process() -> Self {
        let unknown = unknown(std::env::vars_os().map(|(name, _)| name));
        Self { unknown, ..Self::read(|name| std::env::var_os(name)) }
    }
}

/// A variable that is at least this alike (Jaro-Winkler, 0 to 1) is suggested.
const ALIKE_MIN: f64 = 0.85;

/// What hb-server tells the programs of `exec` channels, which may well run hb.
const TOLD_TO_PROGRAMS: [&str; 10] = [
    "HB_AT",
    "HB_ATTEMPT",
    "HB_CAUSE",
    "HB_EVENT",
    "HB_HOST",
    "HB_HOST_ID",
    "HB_ID",
    "HB_INCIDENT",
    "HB_KEY",
    "HB_MESSAGE",
];
/// How the variables of hb-server and of this repository's own tools begin: they are none of hb's business.
const OF_OTHERS: [&str; 6] = ["HB_SERVER_", "HB_TEST_", "HB_DEMO_", "HB_KILL_", "HB_BENCH_", "HB_DEB_"];

/// A warning for each name that looks like one of hb's variables and is none of them: most likely it is mistyped. Others'
/// variables may begin with the same letters.
fn unknown(names: impl Iterator<Item = OsString>) -> Vec<String> {
    let mut found: Vec<String> = names
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.starts_with("HB_") && !OF_OTHERS.iter().any(|prefix| name.starts_with(prefix)))
        .filter(|name| !TOLD_TO_PROGRAMS.contains(&name.as_str()))
        .filter(|name| VARIABLES.iter().all(|variable| variable.name != name))
        .collect();
    found.sort();
    let warn = |name: String| {
        let near = VARIABLES.iter().map(|variable| (strsim::jaro_winkler(&name, variable.name), variable.name));
        let (_, near) = near.filter(|(alike, _)| *alike >= ALIKE_MIN).max_by(|a, b| a.0.total_cmp(&b.0))?;
        let name = crate::output::text::visible(&name);
        Some(format!("{name} is no variable of hb and is ignored: did you mean {near}?"))
    };
    found.into_iter().filter_map(warn).collect()
}

/// The reference of all variables, as the help shows it.
pub fn reference() -> String {
    let lines = VARIABLES.iter().map(|variable| format!("  {}\n      {}", variable.name, variable.does));
    core::iter::once("Environment:".to_owned()).chain(lines).collect::<Vec<_>>().join("\n")
}

/// How a value is taken: text loses what is not UTF-8 (and then fails to parse with a clear error), a path keeps it.
trait FromOs {
    fn from_os(value: OsString) -> Self;
}

impl FromOs for String {
    fn from_os(value: OsString) -> Self {
        value.to_string_lossy().into_owned()
    }
}

impl FromOs for PathBuf {
    fn from_os(value: OsString) -> Self {
        Self::from(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_counts_as_not_set() {
        let env = Env::read(|name| (name == "HB_SERVER").then(OsString::new));
        assert_eq!(env.server, None);
    }

    #[test]
    fn debug_output_names_what_is_set_and_shows_no_value() {
        let env = Env::read(|name| (name == "HB_API_KEY").then(|| OsString::from("hbk_secret")));
        assert_eq!(format!("{env:?}"), r#"{"HB_API_KEY"}"#);
    }

    #[test]
    fn a_mistyped_variable_is_told_with_the_one_that_was_meant() {
        let names = ["HB_SEVER", "HB_SERVER", "HB_SERVER_DATA", "PATH", "HB_TIMOUT", "HB_OPTIONS_OF_OTHERS"];
        assert_eq!(
            unknown(names.into_iter().map(OsString::from)),
            [
                "HB_SEVER is no variable of hb and is ignored: did you mean HB_SERVER?",
                "HB_TIMOUT is no variable of hb and is ignored: did you mean HB_TIMEOUT?",
            ]
        );
    }

    #[test]
    fn a_program_that_hb_server_runs_may_run_hb_without_a_warning() {
        let source = include_str!("../crates/hb-notify/src/exec.rs");
        let told = source.split('"').filter(|text| text.starts_with("HB_") && !text.contains(' '));
        let told: Vec<OsString> = told.map(OsString::from).collect();
        assert!(told.len() >= TOLD_TO_PROGRAMS.len(), "{told:?}");
        assert_eq!(unknown(told.into_iter()), Vec::<String>::new());
    }

    #[test]
    fn every_variable_is_documented() {
        for variable in VARIABLES {
            assert!(variable.does.ends_with('.'), "{} has no sentence: {:?}", variable.name, variable.does);
        }
    }
}
