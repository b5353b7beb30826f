//! Logs: on stderr, structured, without any secret.

use std::io;

use tracing::level_filters::LevelFilter;
use tracing::{Subscriber, subscriber};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload::{self, Handle};

use crate::config::{Config, LogFormat};

/// Changes the level while the server runs.
pub struct Level {
    set: Box<dyn Fn(Targets) + Send + Sync>,
}

impl core::fmt::Debug for Level {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Level")
    }
}

impl Level {
    /// From now on, another level.
    pub fn set(&self, level: &str) {
        (self.set)(targets(level));
    }
}

/// Starts logging as configured. Under journald, which adds the time itself, lines have none.
pub fn start(config: &Config, under_journald: bool) -> Level {
    let registry = tracing_subscriber::registry();
    let (filter, handle) = reload::Layer::new(targets(&config.log));
    let layer = fmt::layer().with_writer(io::stderr).with_target(false);
    match (config.log_format, under_journald) {
        (LogFormat::Json, _) => install(registry.with(layer.json().flatten_event(true).with_filter(filter))),
        (LogFormat::Human, true) => install(registry.with(layer.with_ansi(false).without_time().with_filter(filter))),
        (LogFormat::Human, false) => install(registry.with(layer.with_ansi(is_terminal()).with_filter(filter))),
    }
    level(handle)
}

fn level<S: 'static>(handle: Handle<Targets, S>) -> Level {
    Level {
        set: Box::new(move |targets| {
            if let Err(error) = handle.reload(targets) {
                tracing::warn!(%error, "the log level could not be changed: {error}");
            }
        }),
    }
}

fn install(subscriber: impl Subscriber + Send + Sync + for<'a> LookupSpan<'a>) {
    // Only fails where a test started logging before: its own then stays.
    let _ = subscriber::set_global_default(subscriber);
}

fn is_terminal() -> bool {
    use std::io::IsTerminal as _;
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// hb's own messages at the level asked for, those of libraries from `warn` up: they know nothing of secrets.
fn targets(level: &str) -> Targets {
    let level = match level {
        "error" => LevelFilter::ERROR,
        "warn" => LevelFilter::WARN,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        _ => LevelFilter::INFO,
    };
    Targets::new().with_default(level.min(LevelFilter::WARN)).with_targets(
        ["hb_server", "hb_api", "hb_core", "hb_notify", "hb_store", "hb_store_sqlite"].map(|name| (name, level)),
    )
}
