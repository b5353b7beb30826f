//! SIGHUP: the certificate and the configuration are read again. What is wrong is said, and the old one stays.

use std::sync::{Arc, Mutex, PoisonError};

use hb_notify::{Rules, SmtpSettings, SystemLookup, Trust};

use crate::cli;
use crate::config::Config;
use crate::error::Failure;
use crate::log::Level;
use crate::loops::Tempo;
use crate::systemd;
use crate::tls::{Certificates, Files};
use hb_notify::Couriers;

/// What the channels may do, as configured.
///
/// # Errors
/// 78: the mail settings or the certificate authorities cannot be used.
pub(super) fn channel_rules(config: &Config) -> Result<Rules, Failure> {
    let smtp = config.smtp.as_ref().map(SmtpSettings::load).transpose();
    let smtp = smtp.map_err(|error| Failure::config(error.to_string()).hint("see [smtp] of server.toml"))?;
    let trust = match &config.ca_file {
        None => Trust::default(),
        Some(path) => {
            let hint = "ca_file is a PEM file with CERTIFICATE blocks";
            let pem = std::fs::read(path)
                .map_err(|error| Failure::file("read the certificate authorities", path, &error).or_hint(hint))?;
            Trust::with_pem(&pem).map_err(|why| Failure::config(format!("{}: {why}", path.display())).hint(hint))?
        }
    };
    Ok(Rules {
        allow_networks: config.allow_networks.clone(),
        exec_programs: config.exec_programs.clone(),
        smtp: smtp.map(Arc::new),
        trust: Arc::new(trust),
        lookup: Arc::new(SystemLookup),
        webhook_timeout: config.webhook_timeout,
        exec_timeout: config.exec_timeout,
    })
}

/// Reads again what may change while the server runs.
pub(super) struct Reloader {
    args: cli::Serve,
    current: Mutex<Config>,
    certificates: Option<Arc<Certificates>>,
    couriers: Arc<Couriers>,
    tempo: Arc<Tempo>,
    level: Level,
}

impl Reloader {
    pub(super) fn new(
        args: &cli::Serve,
        config: &Config,
        certificates: Option<Arc<Certificates>>,
        couriers: Arc<Couriers>,
        tempo: Arc<Tempo>,
        level: Level,
    ) -> Self {
        Self { args: args.clone(), current: Mutex::new(config.clone()), certificates, couriers, tempo, level }
    }

    /// Reads everything again; each part that is good takes effect, each part that is not leaves the old one in place.
    pub(super) fn reload(&self) {
        systemd::reloading();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match super::configure(&self.args).and_then(|new| Ok((channel_rules(&new)?, new))) {
            Ok((rules, new)) => {
                self.couriers.replace_rules(rules);
                self.tempo.set_sweep_period(new.sweep_period);
                self.level.set(&new.log);
                for key in needs_restart(&current, &new) {
                    tracing::warn!("{key} was changed in the configuration: that takes effect with the next start");
                }
                tracing::info!("the configuration was read again");
                *current = new;
            }
            Err(failure) => tracing::error!("the configuration stays as it was: {}", in_one_line(&failure)),
        }
        self.reload_certificate(&current);
        systemd::ready("serving");
    }

    fn reload_certificate(&self, config: &Config) {
        let Some(certificates) = &self.certificates else { return };
        let files = match (&config.tls_cert, &config.tls_key) {
            (Some(cert), Some(key)) => Files { cert: cert.clone(), key: key.clone() },
            _ => certificates.files(),
        };
        match certificates.reload(files) {
            Ok(Some(fingerprint)) => tracing::info!("the certificate was read again, it is now {fingerprint}"),
            Ok(None) => tracing::info!("the certificate was read again, it is the same"),
            Err(failure) => tracing::error!("the certificate stays as it was: {}", in_one_line(&failure)),
        }
    }
}

fn in_one_line(failure: &Failure) -> String {
    failure.to_string().replace('\n', "; ")
}

/// The keys that differ and are only read at the start.
fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let changes = [
        ("listen", old.listen != new.listen),
        ("public_url", old.public_url != new.public_url),
        ("insecure_http", old.insecure_http != new.insecure_http),
        ("connections_max", old.connections_max != new.connections_max),
        ("beats_per_interval", old.beats_per_interval != new.beats_per_interval),
        ("log_format", old.log_format != new.log_format),
        ("refuse_nonces_percent", old.refuse_nonces_percent != new.refuse_nonces_percent),
        ("tls_cert", old.tls_cert.is_some() != new.tls_cert.is_some()),
    ];
    changes.into_iter().filter_map(|(key, changed)| changed.then_some(key)).collect()
}
