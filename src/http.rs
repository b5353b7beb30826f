//! The one HTTPS client of the program: the agent's beats and the operators' commands both go through here.
//!
//! It follows no redirect, reads no more than it was told to, refuses plain http off loopback, and turns every failure
//! into a word and a sentence ([`trouble::Trouble`]). It retries nothing, but for one case: a certificate that is out
//! of date *by this machine's clock* is judged once more by a time that the clock cannot be behind ([`tls::Floor`]).

pub mod proxy;
pub mod resolve;
mod roots;
pub mod tls;
pub mod trouble;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method};
use url::{Host, Url};

use crate::error::Failure;
use proxy::{ProxyUrl, Way, Ways};
use resolve::Resolver;
use tls::{Floor, Pin, Tls};
use trouble::{Kind, Trouble};

/// Longest reply that is read when the request names no other limit, in bytes.
pub const REPLY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long a connection may take, from the name to the end of the handshake, at most. The C library gives a name server that
/// is silent five seconds before it asks the next one.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(8);

/// How long an unused connection is kept: longer than the usual interval between beats, shorter than most firewalls
/// remember it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// What a client is made from.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Trust only the certificate authorities in this PEM file.
    pub ca_file: Option<PathBuf>,
    /// Trust only the certificate with this fingerprint; nothing else about it is checked.
    pub pin: Option<Pin>,
    /// Allow plain http to a host that is not this machine.
    pub insecure_http: bool,
    /// A proxy; the environment's (`HTTPS_PROXY`, `ALL_PROXY`) when absent.
    pub proxy: Option<ProxyUrl>,
    /// What is reached without a proxy; the environment's (`NO_PROXY`) when absent.
    pub no_proxy: Option<String>,
    /// What to go through when neither the above nor the environment names a proxy.
    pub remembered: Option<Way>,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The method.
    pub method: Method,
    /// Where to.
    pub url: &'a Url,
    /// Every header but `Host`, `User-Agent` and `Content-Length`.
    pub headers: HeaderMap,
    /// The body.
    pub body: Option<Vec<u8>>,
    /// For everything, from name resolution to the last byte of the reply.
    pub timeout: Duration,
    /// Longest reply that is read, in bytes.
    pub reply_bytes_max: usize,
}

/// What came back, whatever its status.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Vec<u8>,
    /// True when the certificate was good only by the time floor: trust nothing in the reply but what is signed or
    /// harmless.
    pub by_floor: bool,
}

/// A client with its connections.
#[derive(Debug)]
pub struct Http {
    client: Mutex<reqwest::Client>,
    tls: Tls,
    options: Options,
    resolver: Arc<Resolver>,
    ways: Ways,
}

impl Http {
    /// A client; reads the certificate authorities now.
    ///
    /// # Errors
    /// 78 when the CA file cannot be read or the proxy is not a URL.
    pub fn new(options: Options) -> Result<Self, Failure> {
        let tls = Tls::new(options.ca_file.as_deref(), options.pin.as_ref())?;
        let resolver = Arc::new(Resolver::default());
        let ways = Ways::of_process(&options);
        let client = build(&ways, tls.config(None), &resolver, 1)?;
        Ok(Self { client: Mutex::new(client), tls, options, resolver, ways })
    }

    /// Sends one request and reads the reply, whatever its status.
    ///
    /// With a `floor`, a certificate that is only out of date is judged once more by that time (TRUST.md §4); such a
    /// connection is not kept.
    ///
    /// # Errors
    /// A [`Trouble`] when there is no reply, or it is too long.
    pub async fn send(&self, request: &Request<'_>, floor: Option<Floor>) -> Result<Reply, Trouble> {
        self.check_scheme(request.url)?;
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let first = self.send_with(&client, request).await;
        let (Err(trouble), Some(floor)) = (&first, floor) else { return first };
        if trouble.kind != Kind::TlsTime {
            return first;
        }
        let tolerant = build(&self.ways, self.tls.config(Some(floor)), &self.resolver, 0)
            .map_err(|failure| Trouble::new(Kind::Tls, failure.message))?;
        match self.send_with(&tolerant, request).await {
            Ok(reply) => Ok(Reply { by_floor: true, ..reply }),
            // Still out of date: the clock's own verdict says more than the floor's.
            Err(second) if second.kind == Kind::TlsTime => first,
            Err(second) => Err(second),
        }
    }

    /// Uses no connection again that was made so far. Somebody else's answer may have come over one that he goes on holding: a
    /// portal does, after it has let everybody through.
    ///
    /// # Errors
    /// 70 when no other client can be made: the connections stay.
    pub fn hang_up(&self) -> Result<(), Failure> {
        let client = build(&self.ways, self.tls.config(None), &self.resolver, 1)?;
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
        Ok(())
    }

    /// The proxy that a request to `url` goes through, without its password.
    pub fn proxy_for(&self, url: &Url) -> Option<String> {
        self.ways.to(url).map(|way| way.proxy.shown())
    }

    /// True when that proxy is only known from the enrolment.
    pub fn is_proxy_remembered(&self, url: &Url) -> bool {
        let remembered = self.options.remembered.as_ref().map(|way| &way.proxy);
        remembered.is_some() && self.ways.to(url).map(|way| &way.proxy) == remembered
    }

    /// Names and their last good addresses, with which to go on when the resolver is away.
    pub fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// The fingerprint of the last certificate that was refused.
    pub fn refused_certificate(&self) -> Option<Pin> {
        self.tls.refused()
    }

    async fn send_with(&self, client: &reqwest::Client, request: &Request<'_>) -> Result<Reply, Trouble> {
        let mut sent = reqwest::Request::new(request.method.clone(), request.url.clone());
        sent.headers_mut().clone_from(&request.headers);
        *sent.timeout_mut() = Some(request.timeout);
        *sent.body_mut() = request.body.clone().map(Into::into);
        self.resolver.hurry(request.timeout.min(CONNECT_TIMEOUT_MAX));
        let classify = |error: &reqwest::Error| {
            let proxy = self.proxy_for(request.url);
            Trouble::classify(error, request.timeout, proxy.as_deref(), self.tls.refused())
        };
        let mut response = client.execute(sent).await.map_err(|error| classify(&error))?;
        let status = response.status().as_u16();
        let headers = core::mem::take(response.headers_mut());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| classify(&error))? {
            if body.len().saturating_add(chunk.len()) > request.reply_bytes_max {
                let detail = format!("the reply is longer than {} bytes", request.reply_bytes_max);
                return Err(Trouble::new(Kind::NotOurs, detail));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Reply { status, headers, body, by_floor: false })
    }

    fn check_scheme(&self, url: &Url) -> Result<(), Trouble> {
        check_scheme(url, self.options.insecure_http).map_err(|detail| Trouble::new(Kind::Refused, detail))
    }
}

/// Says why `url` may not be used: neither https, nor plain http to this machine (or anywhere, when `insecure_http`).
///
/// # Errors
/// The reason, for people.
pub fn check_scheme(url: &Url, insecure_http: bool) -> Result<(), String> {
    match url.scheme() {
        "https" => Ok(()),
        "http" if insecure_http || is_loopback(url) => Ok(()),
        "http" => Err(format!("{url} is plain http, and not on this machine")),
        other => Err(format!("{url} begins with {other}:, not https:")),
    }
}

/// A pin is the fingerprint of a certificate: over plain http there is none that it could be compared with.
///
/// # Errors
/// 2, when it was asked for all the same.
pub fn check_pin(url: &Url, is_pinned: bool) -> Result<(), Failure> {
    if is_pinned && url.scheme() == "http" {
        return Err(Failure::usage(format!("a pin has no meaning for {url}: plain http has no certificate"))
            .hint("use https, or leave out --pin (HB_PIN)"));
    }
    Ok(())
}

/// True when `url` can only mean this machine.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

/// The authority that a signature for `url` covers: host and port in lower case, the scheme's own port left out
/// (RFC 9421, section 2.2.3).
pub fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Parses the URL of a server: a scheme, a host, perhaps a port and a path prefix, and nothing else.
///
/// # Errors
/// 2, saying what is wrong with it.
pub fn parse_server(text: &str) -> Result<Url, Failure> {
    let example = "give it like https://hb.example.com";
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let url = Url::parse(&with_scheme)
        .map_err(|error| Failure::usage(format!("server {text:?} is not a URL: {error}")).hint(example))?;
    let plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    if !plain || url.password().is_some() || url.host_str().is_none() || !matches!(url.scheme(), "http" | "https") {
        return Err(Failure::usage(format!("server {text:?} is more, or other, than an http(s) address")).hint(example));
    }
    Ok(url)
}

/// The URL of `path` (which begins with `/`) on `server`.
pub fn join(server: &Url, path: &str) -> Url {
    let mut url = server.clone();
    let prefix = server.path().trim_end_matches('/');
    url.set_path(&format!("{prefix}{path}"));
    url
}

fn build(
    ways: &Ways,
    tls: rustls::ClientConfig,
    resolver: &Arc<Resolver>,
    idle: usize,
) -> Result<reqwest::Client, Failure> {
    let builder = reqwest::Client::builder()
        .user_agent(HeaderValue::from_static(concat!("hb/", env!("CARGO_PKG_VERSION"))))
        .tls_backend_preconfigured(tls)
        .dns_resolver(Arc::clone(resolver))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT_MAX)
        .pool_max_idle_per_host(idle)
        .pool_idle_timeout(IDLE_TIMEOUT)
        // A beat is followed by the next beat: probes in between would cost more than they tell.
        .tcp_keepalive(None);
    ways.apply(builder)?.build().map_err(|error| Failure::bug(format!("could not make an HTTPS client: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn plain_http_is_refused_off_loopback_unless_allowed() {
        for allowed in ["https://hb.example.com", "http://127.0.0.1:80", "http://[::1]:8080", "http://localhost:1"] {
            assert_eq!(check_scheme(&url(allowed), false), Ok(()), "{allowed}");
        }
        for refused in ["http://hb.example.com", "http://10.0.0.1", "http://localhost.example.com", "http://[fe80::1]"]
        {
            assert!(check_scheme(&url(refused), false).is_err(), "{refused}");
            assert_eq!(check_scheme(&url(refused), true), Ok(()), "{refused}");
        }
        assert!(check_scheme(&url("ftp://127.0.0.1"), true).is_err());
    }

    #[test]
    fn the_signed_authority_leaves_out_the_port_of_the_scheme_and_is_lower_case() {
        for (given, expected) in [
            ("https://HB.Example.com:443/v1/beat", "hb.example.com"),
            ("https://hb.example.com:8443/v1/beat", "hb.example.com:8443"),
            ("http://127.0.0.1:80/", "127.0.0.1"),
            ("http://[::1]:8080/", "[::1]:8080"),
        ] {
            assert_eq!(authority(&url(given)), expected);
        }
    }

    #[test]
    fn a_server_is_an_address_and_nothing_more() {
        assert_eq!(parse_server("hb.example.com").unwrap().as_str(), "https://hb.example.com/");
        assert_eq!(parse_server("http://127.0.0.1:8080").unwrap().as_str(), "http://127.0.0.1:8080/");
        for bad in ["", "https://", "https://a b", "https://u:p@h", "https://h/?q=1", "https://h/#f", "file:///etc"] {
            assert_eq!(parse_server(bad).unwrap_err().exit, crate::exit::USAGE, "{bad:?}");
        }
    }

    #[test]
    fn a_path_is_joined_to_a_server_with_or_without_a_prefix() {
        assert_eq!(join(&url("https://h"), "/v1/beat").as_str(), "https://h/v1/beat");
        assert_eq!(join(&url("https://h/hb/"), "/v1/beat").as_str(), "https://h/hb/v1/beat");
    }
}
