//! The way mail leaves: the server's own SMTP relay, from `[smtp]` of `server.toml`.

use core::fmt;
use core::time::Duration;
use std::collections::VecDeque;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use hb_wire::id::DeliveryId;
use lettre::Address;
use lettre::message::Mailbox;
use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tokio::net::TcpStream;

use crate::channel::SendError;
use crate::settings::SettingsError;
use crate::smtp::careful::Careful;
use crate::text::one_line;
use crate::trust::Trust;

mod careful;

/// Longest attempt, all recipients together (RFC 5321 asks for minutes; an alert cannot wait for them).
const TIMEOUT: Duration = Duration::from_secs(30);
/// Longest farewell, once the mail was taken.
const QUIT_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest password file, in bytes.
const PASSWORD_BYTES_MAX: usize = 1_024;
/// Mails of which it is remembered who has them already, while others are still being tried.
const PARTIAL_MAX: usize = 64;

/// How the connection to the mail server is protected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SmtpTls {
    /// Begins in the clear and must be upgraded (port 587).
    #[default]
    Starttls,
    /// Encrypted from the first byte (port 465).
    Tls,
    /// Not at all: only to a mail server on this very machine (port 25).
    None,
}

/// `[smtp]` of `server.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmtpConfig {
    /// The mail server's name or address.
    pub host: String,
    /// Its port; the usual one of `tls` by default.
    #[serde(default)]
    pub port: Option<u16>,
    /// How the connection is protected.
    #[serde(default)]
    pub tls: SmtpTls,
    /// With what name to log in; none to send without.
    #[serde(default)]
    pub username: Option<String>,
    /// The file that holds the password, alone on its first line.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// The sender: `hb@example.org`, or `hb <hb@example.org>`.
    pub from: String,
}

/// The server's mail relay, ready to use.
pub struct SmtpSettings {
    host: String,
    port: u16,
    tls: SmtpTls,
    login: Option<(String, SecretString)>,
    pub(crate) from: Mailbox,
    pub(crate) timeout: Duration,
    /// Who has a mail already, of the mails that not everybody has: a retry must not repeat it to them.
    partial: Mutex<VecDeque<(DeliveryId, Vec<Address>)>>,
}

impl fmt::Debug for SmtpSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, tls, .. } = self;
        f.debug_struct("SmtpSettings").field("host", host).field("port", port).field("tls", tls).finish_non_exhaustive()
    }
}

impl SmtpSettings {
    /// Checks `[smtp]` and reads the password.
    ///
    /// # Errors
    /// [`SettingsError::Refused`], naming the key and what to write instead.
    pub fn load(config: &SmtpConfig) -> Result<Self, SettingsError> {
        let wrong = |problem: String| SettingsError::refused("[smtp]", problem);
        let host = config.host.trim().trim_matches(['[', ']']).to_owned();
        if host.is_empty() || host.chars().any(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':'))) {
            return Err(wrong("host: must be a name or an address".to_owned()));
        }
        if config.tls == SmtpTls::None && !is_loopback(&host) {
            let problem =
                format!("tls = \"none\" is only for a mail server on loopback, {host} is not: use starttls or tls");
            return Err(wrong(problem));
        }
        let from = config.from.parse::<Mailbox>();
        let from = from.map_err(|error| wrong(format!("from: is not a mail address: {error}")))?;
        if config.from.chars().any(char::is_control) || !from.email.to_string().is_ascii() {
            return Err(wrong("from: must be ASCII, on one line".to_owned()));
        }
        let login = match (&config.username, &config.password_file) {
            (None, None) => None,
            (Some(username), Some(file)) => Some((username.clone(), read_password(file).map_err(wrong)?)),
            (Some(_), None) => return Err(wrong("username is set, but password_file is not".to_owned())),
            (None, Some(_)) => return Err(wrong("password_file is set, but username is not".to_owned())),
        };
        let usual = match config.tls {
            SmtpTls::Starttls => 587,
            SmtpTls::Tls => 465,
            SmtpTls::None => 25,
        };
        let port = config.port.unwrap_or(usual);
        Ok(Self { host, port, tls: config.tls, login, from, timeout: TIMEOUT, partial: Mutex::default() })
    }

    /// The same, giving up after another time than 30 seconds.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Sends one mail to everybody who does not have it yet.
    ///
    /// Each recipient is told of separately by the mail server: one mailbox that does not exist, or is greylisted, does
    /// not keep an alert from the others.
    pub(crate) async fn deliver(
        &self,
        trust: &Trust,
        key: DeliveryId,
        to: &[Address],
        mail: &[u8],
    ) -> Result<(), SendError> {
        let served = self.served(key);
        let waiting: Vec<_> = to.iter().filter(|address| !served.contains(address)).collect();
        let mut is_sent = false;
        let attempt = tokio::time::timeout(self.timeout, self.converse(trust, &waiting, mail, &mut is_sent)).await;
        let refusals = match attempt {
            Ok(result) => result?,
            Err(_) if is_sent => {
                let reason = format!(
                    "the mail server did not confirm within {} s, it may have arrived",
                    self.timeout.as_secs_f32()
                );
                return Err(SendError::ambiguous(reason));
            }
            Err(_) => {
                return Err(SendError::temporary(format!("no mail was taken within {} s", self.timeout.as_secs_f32())));
            }
        };
        self.conclude(key, &waiting, &refusals)
    }

    /// What the refusals of single recipients mean for the whole delivery.
    fn conclude(&self, key: DeliveryId, waiting: &[&Address], refusals: &[Refusal]) -> Result<(), SendError> {
        let Some(first) = refusals.iter().find(|refusal| refusal.is_temporary).or(refusals.first()) else {
            self.forget(key);
            return Ok(());
        };
        let taken = waiting.iter().filter(|address| refusals.iter().all(|refusal| refusal.address != ***address));
        self.remember(key, taken.map(|address| (*address).clone()).collect());
        let reason =
            format!("{} of {} recipients refused, {}: {}", refusals.len(), waiting.len(), first.address, first.said);
        if first.is_temporary {
            return Err(SendError::temporary(reason));
        }
        self.forget(key);
        Err(SendError::permanent(reason))
    }

    /// One conversation with the mail server. The refused recipients are returned; when all are, nothing was sent.
    async fn converse(
        &self,
        trust: &Trust,
        to: &[&Address],
        mail: &[u8],
        is_sent: &mut bool,
    ) -> Result<Vec<Refusal>, SendError> {
        let mut connection = self.connect(trust).await?;
        let from = Mail::new(Some(self.from.email.clone()), Vec::new());
        connection.command(from).await.map_err(|error| refused("the sender", &error))?;
        let mut refusals = Vec::new();
        for address in to {
            match connection.command(Rcpt::new((*address).clone(), Vec::new())).await {
                Ok(_) => {}
                Err(error) if error.status().is_some() => refusals.push(Refusal {
                    address: (*address).clone(),
                    is_temporary: error.is_transient(),
                    said: one_line(&error.to_string(), 200),
                }),
                Err(error) => return Err(refused("a recipient", &error)),
            }
        }
        if refusals.len() < to.len() {
            connection.command(Data).await.map_err(|error| refused("the mail", &error))?;
            *is_sent = true;
            connection.message(mail).await.map_err(|error| match error.status() {
                Some(_) => refused("the mail", &error),
                None => SendError::ambiguous(format!("the mail server did not confirm, it may have arrived: {error}")),
            })?;
        }
        // The mail is taken: how the farewell goes does not matter.
        let _ = tokio::time::timeout(QUIT_TIMEOUT.min(self.timeout / 4), connection.quit()).await;
        Ok(refusals)
    }

    /// Connects, encrypts and logs in. Whatever fails here is not the mail's fault, and may be healed by an operator
    /// while it waits: temporary.
    async fn connect(&self, trust: &Trust) -> Result<AsyncSmtpConnection, SendError> {
        let server = format!("the mail server {}:{}", self.host, self.port);
        let failed = |what: &str, error: &SmtpError| SendError::temporary(format!("{server} {what}: {error}"));
        let hello = ClientId::default();
        let tls = match self.tls {
            SmtpTls::None => None,
            SmtpTls::Starttls | SmtpTls::Tls => {
                Some(trust.smtp_parameters(&self.host).map_err(|error| failed("cannot be encrypted to", &error))?)
            }
        };
        let address = (self.host.as_str(), self.port);
        let connected = if self.tls == SmtpTls::Starttls {
            let stream = TcpStream::connect(address).await;
            let stream =
                stream.map_err(|error| SendError::temporary(format!("{server} cannot be reached: {error}")))?;
            AsyncSmtpConnection::connect_with_transport(Box::new(Careful(stream)), &hello).await
        } else {
            AsyncSmtpConnection::connect_tokio1(address, Some(self.timeout), &hello, tls.clone(), None).await
        };
        let mut connection = connected.map_err(|error| failed("cannot be reached", &error))?;
        if let (SmtpTls::Starttls, Some(tls)) = (self.tls, tls) {
            if !connection.can_starttls() {
                let reason =
                    format!("{server} offers no STARTTLS, and nothing is sent in the clear: set tls = \"tls\"");
                return Err(SendError::temporary(reason));
            }
            connection.starttls(tls, &hello).await.map_err(|error| failed("cannot be encrypted to", &error))?;
        }
        if let Some((username, password)) = &self.login {
            let credentials = Credentials::new(username.clone(), password.expose_secret().to_owned());
            let login = connection.auth(&[Mechanism::Plain, Mechanism::Login], &credentials).await;
            login.map_err(|error| failed("refused the login (username and password_file of [smtp])", &error))?;
        }
        Ok(connection)
    }

    fn served(&self, key: DeliveryId) -> Vec<Address> {
        let partial = self.partial.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        partial.iter().find(|(known, _)| *known == key).map(|(_, served)| served.clone()).unwrap_or_default()
    }

    fn remember(&self, key: DeliveryId, taken: Vec<Address>) {
        let mut served = self.served(key);
        served.extend(taken);
        self.forget(key);
        let mut partial = self.partial.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if partial.len() >= PARTIAL_MAX {
            partial.pop_front();
        }
        partial.push_back((key, served));
    }

    fn forget(&self, key: DeliveryId) {
        let mut partial = self.partial.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        partial.retain(|(known, _)| *known != key);
    }
}

/// One recipient that the mail server would not take.
struct Refusal {
    address: Address,
    is_temporary: bool,
    said: String,
}

/// A negative answer within the conversation: 4xx is temporary, 5xx permanent (RFC 5321, section 4.2.1), and a broken
/// connection temporary, since the mail was not yet handed over.
fn refused(what: &str, error: &SmtpError) -> SendError {
    let reason = format!("the mail server did not take {what}: {error}");
    if error.is_permanent() { SendError::permanent(reason) } else { SendError::temporary(reason) }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<core::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn read_password(file: &Path) -> Result<SecretString, String> {
    let shown = file.display();
    let read = |error: std::io::Error| format!("password_file: {shown} cannot be read: {error}");
    let mode = std::fs::metadata(file).map_err(read)?.permissions().mode();
    if mode & 0o007 != 0 {
        return Err(format!(
            "password_file: {shown} can be read by everybody: chmod 0640 {shown}, \
             and give it to the group of the server (chgrp _hb-server {shown})"
        ));
    }
    let text = std::fs::read_to_string(file).map_err(read)?;
    let password = text.lines().next().unwrap_or_default();
    if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
        return Err(format!(
            "password_file: {shown} must hold the password on its first line, at most {PASSWORD_BYTES_MAX} bytes"
        ));
    }
    Ok(SecretString::from(password))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> SmtpConfig {
        SmtpConfig {
            host: "mail.example.org".to_owned(),
            port: None,
            tls: SmtpTls::Starttls,
            username: None,
            password_file: None,
            from: "hb <hb@example.org>".to_owned(),
        }
    }

    fn says(config: &SmtpConfig) -> String {
        SmtpSettings::load(config).unwrap_err().to_string()
    }

    #[test]
    fn the_port_follows_the_protection() {
        for (tls, host, port) in [
            (SmtpTls::Starttls, "mail.example.org", 587),
            (SmtpTls::Tls, "mail.example.org", 465),
            (SmtpTls::None, "::1", 25),
        ] {
            assert_eq!(SmtpSettings::load(&SmtpConfig { tls, host: host.to_owned(), ..config() }).unwrap().port, port);
        }
        assert_eq!(SmtpSettings::load(&SmtpConfig { port: Some(2525), ..config() }).unwrap().port, 2525);
    }

    #[test]
    fn mail_in_the_clear_is_only_for_this_machine() {
        for (host, is_fine) in
            [("localhost", true), ("127.0.0.1", true), ("[::1]", true), ("10.0.0.1", false), ("mail", false)]
        {
            let config = SmtpConfig { tls: SmtpTls::None, host: host.to_owned(), ..config() };
            assert_eq!(SmtpSettings::load(&config).is_ok(), is_fine, "{host}");
        }
        let said = says(&SmtpConfig { tls: SmtpTls::None, ..config() });
        assert_eq!(
            said,
            "[smtp]: tls = \"none\" is only for a mail server on loopback, mail.example.org is not: use starttls or tls"
        );
    }

    #[test]
    fn a_password_comes_from_a_file_that_only_the_server_reads_and_is_shown_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "p4ssw0rd\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let config = SmtpConfig { username: Some("hb".to_owned()), password_file: Some(file.clone()), ..config() };
        assert!(says(&config).contains("can be read by everybody: chmod 0640"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let settings = SmtpSettings::load(&config).unwrap();
        assert_eq!(settings.login.as_ref().unwrap().1.expose_secret(), "p4ssw0rd");
        assert!(!format!("{settings:?}").contains("p4ssw0rd"));
        std::fs::write(&file, "\n").unwrap();
        assert!(says(&config).contains("on its first line"));
        std::fs::remove_file(&file).unwrap();
        assert!(says(&config).contains("cannot be read"));
        assert!(says(&SmtpConfig { username: None, ..config.clone() }).contains("username is not"));
        assert!(says(&SmtpConfig { password_file: None, ..config }).contains("password_file is not"));
    }

    #[test]
    fn a_sender_or_host_that_could_forge_a_line_is_refused() {
        for from in [
            "",
            "hb",
            "hb@x\r\nBcc: b@x.org",
            "hb\n <hb@example.org>",
            "<hb@example.org>, <c@example.org>",
            "hb@bücher.example",
        ] {
            assert!(SmtpSettings::load(&SmtpConfig { from: from.to_owned(), ..config() }).is_err(), "{from:?}");
        }
        for host in ["", "mail example", "mail\r\n", "a/b", "user@mail"] {
            let config = SmtpConfig { host: host.to_owned(), ..config() };
            assert!(host == "mail\r\n" || SmtpSettings::load(&config).is_err(), "{host:?}");
        }
    }
}
