//! Why there was no answer: one word for programs, one sentence for people, and what to do next.

use core::fmt;
use std::error::Error;
use std::io;
use std::time::Duration;

use rustls::CertificateError;
use url::Url;

use super::resolve::ResolveFailed;
use super::tls::{Pin, PinMismatch};
use crate::error::Failure;

/// What `tokio-rustls` says when the other side hangs up before the handshake is done.
const HANDSHAKE_CUT: &str = "tls handshake eof";
/// What `hyper-util` says when a proxy answers CONNECT with 407, and with any other status but 200.
const PROXY_WANTS_PASSWORD: &str = "tunnel error: proxy authorization required";
const PROXY_REFUSED: &str = "tunnel error: unsuccessful";

/// What kind of failure it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The name could not be resolved.
    Dns,
    /// No connection.
    Connect,
    /// The proxy could not be used.
    Proxy,
    /// The connection is not trusted.
    Tls,
    /// The certificate is out of date, by this machine's clock.
    TlsTime,
    /// It took too long.
    Timeout,
    /// A status that is not an answer.
    Http(u16),
    /// An answer that no hb server gives.
    NotOurs,
    /// hb itself refuses to ask.
    Refused,
}

/// A failure to get an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What kind.
    pub kind: Kind,
    /// What happened, for people: lower case, no full stop, no secret.
    pub detail: String,
    /// The fingerprint of the certificate that was refused.
    pub certificate: Option<Pin>,
    /// True when another one was pinned.
    pub is_mismatch: bool,
}

impl Trouble {
    /// A failure without more about it.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), certificate: None, is_mismatch: false }
    }

    /// The failure in a word, as a beat reports it: `dns`, `connect`, `proxy`, `tls`, `tls_time`, `timeout`,
    /// `http_503`, `not_ours`.
    pub fn word(&self) -> String {
        match self.kind {
            Kind::Dns => "dns".to_owned(),
            Kind::Connect => "connect".to_owned(),
            Kind::Proxy => "proxy".to_owned(),
            Kind::Tls => "tls".to_owned(),
            Kind::TlsTime => "tls_time".to_owned(),
            Kind::Timeout => "timeout".to_owned(),
            Kind::Http(status) => format!("http_{status}"),
            Kind::NotOurs => "not_ours".to_owned(),
            Kind::Refused => "refused".to_owned(),
        }
    }

    /// What to do next.
    pub fn hint(&self) -> String {
        match self.kind {
            Kind::Dns => "check the server's name and this machine's DNS".to_owned(),
            Kind::Connect => "check that the server runs and that no firewall is in between".to_owned(),
            Kind::Proxy => {
                "check the proxy, or except the server from it with NO_PROXY (for the agent: no_proxy in agent.toml)"
                    .to_owned()
            }
            Kind::Tls => match &self.certificate {
                // No pin to copy here: whoever is in between would be the one who offers it.
                Some(_) if self.is_mismatch => {
                    "the server's certificate was replaced, or somebody is in between: trust the \
                     new one only if the server itself shows it (hb-server prints it at its start)"
                        .to_owned()
                }
                Some(seen) => format!(
                    "if the server's own output shows {seen}, give --pin {seen} to `hb login` or `hb register` (HB_PIN); for \
                     a private authority set ca_file (HB_CA_FILE)"
                ),
                None => "check that the address speaks TLS, and the port".to_owned(),
            },
            Kind::TlsTime => "set this machine's clock, or renew the server's certificate".to_owned(),
            Kind::Timeout => "check the network to the server, then the server's load".to_owned(),
            Kind::Http(300..=399) => "use the address that it redirects to as the server".to_owned(),
            Kind::Http(_) => "see the server's log".to_owned(),
            Kind::NotOurs => {
                "check the server's address: something else answers there (a portal or a proxy)".to_owned()
            }
            Kind::Refused => "use https, or allow plain http with --insecure-http (HB_INSECURE_HTTP=1)".to_owned(),
        }
    }

    /// As a failed command.
    pub fn into_failure(self) -> Failure {
        let hint = self.hint();
        let failure = match self.kind {
            Kind::Refused => Failure::config(self.detail),
            Kind::Dns
            | Kind::Connect
            | Kind::Proxy
            | Kind::Tls
            | Kind::TlsTime
            | Kind::Timeout
            | Kind::Http(_)
            | Kind::NotOurs => Failure::unreachable(self.detail),
        };
        failure.hint(hint)
    }

    pub(super) fn classify(
        failed: Failed,
        url: &Url,
        timeout: Duration,
        proxy: Option<&str>,
        refused: Option<Pin>,
    ) -> Self {
        if let Failed::Known(trouble) = failed {
            return trouble;
        }
        let place = url.origin().ascii_serialization();
        let causes = failed.causes();
        if let Some(failed) = causes.iter().find_map(|cause| find::<ResolveFailed>(*cause)) {
            return Self::new(if proxy.is_some() { Kind::Proxy } else { Kind::Dns }, failed.to_string());
        }
        let no_way = |kind: Kind, why: String| {
            let proxy = proxy.unwrap_or("on the way");
            Self::new(kind, format!("the proxy {proxy} gave no connection to {place}: {why}"))
        };
        if let Failed::Proxy(_) = failed {
            return match causes.iter().find_map(|cause| find::<rustls::Error>(*cause)) {
                Some(tls) => {
                    let kind = if is_about_time(tls) { Kind::TlsTime } else { Kind::Proxy };
                    no_way(kind, format!("it is not trusted: {}", explain(tls)))
                }
                None => no_way(Kind::Proxy, tunnel(last(&causes))),
            };
        }
        if let Some(tls) = causes.iter().find_map(|cause| find::<rustls::Error>(*cause)) {
            let kind = if is_about_time(tls) { Kind::TlsTime } else { Kind::Tls };
            let detail = format!("the TLS connection to {place} is not trusted: {}", explain(tls));
            let certificate = matches!(tls, rustls::Error::InvalidCertificate(_)).then_some(refused).flatten();
            return Self { kind, detail, certificate, is_mismatch: mismatch(tls).is_some() };
        }
        if causes.iter().any(|cause| cause.to_string() == HANDSHAKE_CUT) {
            return Self::new(Kind::Tls, format!("{place} hung up during the TLS handshake"));
        }
        let is_connecting = matches!(failed, Failed::Connect(_) | Failed::ConnectTimeout);
        if proxy.is_some() && is_connecting {
            return no_way(Kind::Proxy, last(&causes));
        }
        // A port that is not written is one that nobody thought of.
        let place = match (is_connecting, url.port(), url.port_or_known_default()) {
            (true, None, Some(port)) => format!("{place} (port {port})"),
            _ => place,
        };
        if matches!(failed, Failed::Timeout | Failed::ConnectTimeout) || causes.iter().any(|cause| is_timeout(*cause)) {
            return Self::new(Kind::Timeout, format!("{place} did not answer within {} s", timeout.as_secs_f32()));
        }
        if is_connecting {
            return Self::new(Kind::Connect, format!("no connection to {place}: {}", last(&causes)));
        }
        if causes.iter().any(|cause| find::<io::Error>(*cause).is_some()) || is_incomplete(&causes) {
            return Self::new(Kind::Connect, format!("the connection to {place} broke: {}", last(&causes)));
        }
        Self::new(Kind::NotOurs, format!("{place} did not answer in HTTP: {}", last(&causes)))
    }
}

/// What went wrong on the way to a reply, before it has a word.
#[derive(Debug)]
pub(super) enum Failed {
    /// Before there was a connection.
    Connect(Box<dyn Error + Send + Sync>),
    /// Before the proxy had one.
    Proxy(Box<dyn Error + Send + Sync>),
    /// There was none in time.
    ConnectTimeout,
    /// Over a connection.
    Exchange(hyper::Error),
    /// There was no whole reply in time.
    Timeout,
    /// It has a word already.
    Known(Trouble),
}

impl Failed {
    /// The error and all its sources, `io::Error`'s inner ones included (its `source()` skips them).
    fn causes(&self) -> Vec<&(dyn Error + 'static)> {
        let mut next: Option<&(dyn Error + 'static)> = match self {
            Self::Connect(error) | Self::Proxy(error) => Some(&**error),
            Self::Exchange(error) => Some(error),
            Self::Known(trouble) => Some(trouble),
            Self::ConnectTimeout | Self::Timeout => None,
        };
        let mut found = Vec::new();
        while let Some(cause) = next {
            found.push(cause);
            next = match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
                Some(inner) => Some(inner),
                None => cause.source(),
            };
        }
        found
    }
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self::Known(Trouble::new(Kind::Proxy, failure.message))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl Error for Trouble {}

fn find<'a, E: Error + 'static>(cause: &'a (dyn Error + 'static)) -> Option<&'a E> {
    cause.downcast_ref::<E>()
}

fn is_timeout(cause: &(dyn Error + 'static)) -> bool {
    find::<io::Error>(cause).is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

fn last(causes: &[&(dyn Error + 'static)]) -> String {
    causes.last().map_or_else(|| "it took too long".to_owned(), ToString::to_string)
}

/// What a proxy's refusal means.
fn tunnel(cause: String) -> String {
    match cause.as_str() {
        PROXY_WANTS_PASSWORD => {
            "it wants a user and a password (407): give its URL as http://USER:PASSWORD@HOST:PORT".to_owned()
        }
        PROXY_REFUSED => "it refuses to (it answered CONNECT, but not with 200)".to_owned(),
        _ => cause,
    }
}

/// The connection ended inside a message: the other side went away, whatever spoke there.
fn is_incomplete(causes: &[&(dyn Error + 'static)]) -> bool {
    causes.iter().any(|cause| {
        let text = cause.to_string();
        text.contains("connection closed before message completed") || text.contains("end of file before message")
    })
}

fn is_about_time(error: &rustls::Error) -> bool {
    matches!(
        error,
        rustls::Error::InvalidCertificate(
            CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. }
        )
    )
}

/// What was pinned and what was seen, when that is what went wrong.
fn mismatch(error: &rustls::Error) -> Option<&PinMismatch> {
    let rustls::Error::InvalidCertificate(CertificateError::Other(other)) = error else { return None };
    other.0.downcast_ref()
}

fn explain(error: &rustls::Error) -> String {
    let rustls::Error::InvalidCertificate(certificate) = error else { return error.to_string() };
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest speaks for itself, and grows with rustls")]
    match certificate {
        CertificateError::ExpiredContext { time, not_after } => format!(
            "by this machine's clock its certificate expired {} ago",
            span(time.as_secs().saturating_sub(not_after.as_secs()))
        ),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "by this machine's clock its certificate is valid only in {}",
            span(not_before.as_secs().saturating_sub(time.as_secs()))
        ),
        CertificateError::UnknownIssuer => "its certificate is signed by nobody that this machine knows".to_owned(),
        CertificateError::Other(other) => match mismatch(error) {
            Some(mismatch) => mismatch.to_string(),
            None => other.to_string(),
        },
        _ => certificate.to_string(),
    }
}

/// A span of time as people say it: only the size matters.
fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit;

    #[test]
    fn every_kind_has_its_word_and_its_exit_code() {
        for (kind, word, code) in [
            (Kind::Dns, "dns", exit::UNREACHABLE),
            (Kind::Connect, "connect", exit::UNREACHABLE),
            (Kind::Proxy, "proxy", exit::UNREACHABLE),
            (Kind::Tls, "tls", exit::UNREACHABLE),
            (Kind::TlsTime, "tls_time", exit::UNREACHABLE),
            (Kind::Timeout, "timeout", exit::UNREACHABLE),
            (Kind::Http(503), "http_503", exit::UNREACHABLE),
            (Kind::NotOurs, "not_ours", exit::UNREACHABLE),
            (Kind::Refused, "refused", exit::CONFIG),
        ] {
            let trouble = Trouble::new(kind, "x");
            assert_eq!(trouble.word(), word);
            assert!(!trouble.hint().is_empty());
            assert_eq!(trouble.into_failure().exit, code);
        }
    }

    #[test]
    fn a_port_that_nobody_wrote_is_named_when_there_is_no_connection_to_it() {
        let said = |url: &str, failed: Failed| {
            let url = Url::parse(url).unwrap();
            Trouble::classify(failed, &url, Duration::from_secs(5), None, None).detail
        };
        let refused = || Failed::Connect(Box::new(io::Error::from(io::ErrorKind::ConnectionRefused)));
        let text = said("https://hb.example.com/v1/status", refused());
        assert_eq!(text, "no connection to https://hb.example.com (port 443): connection refused");
        let text = said("https://hb.example.com:8443/v1/status", refused());
        assert_eq!(text, "no connection to https://hb.example.com:8443: connection refused");
        let text = said("http://hb.example.com/v1/status", Failed::ConnectTimeout);
        assert_eq!(text, "http://hb.example.com (port 80) did not answer within 5 s");
        let text = said("https://hb.example.com/v1/status", Failed::Timeout);
        assert_eq!(text, "https://hb.example.com did not answer within 5 s");
    }

    #[test]
    fn only_the_two_errors_about_time_are_about_time() {
        assert!(is_about_time(&CertificateError::Expired.into()));
        assert!(is_about_time(&CertificateError::NotValidYet.into()));
        assert!(!is_about_time(&CertificateError::UnknownIssuer.into()));
        assert!(!is_about_time(&CertificateError::Revoked.into()));
        assert!(!is_about_time(&rustls::Error::DecryptError));
    }

    #[test]
    fn a_span_is_said_in_the_unit_that_fits() {
        for (seconds, said) in [(5, "5 s"), (600, "10 min"), (86_400, "24 h"), (864_000, "10 days")] {
            assert_eq!(span(seconds), said);
        }
    }
}
