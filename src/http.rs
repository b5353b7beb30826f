//! The one HTTPS client of the program: the agent's beats and the operators' commands both go through here.
//!
//! It follows no redirect, reads no more than it was told to, refuses plain http off loopback, and turns every failure
//! into a word and a sentence ([`trouble::Trouble`]). It retries nothing, but for one case: a certificate that is out
//! of date *by this machine's clock* is judged once more by a time that the clock cannot be behind ([`tls::Floor`]).

mod connect;
pub mod proxy;
pub mod resolve;
mod roots;
pub mod tls;
pub mod trouble;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, HOST, PROXY_AUTHORIZATION, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use url::{Host, Position, Url};

use crate::error::Failure;
use connect::Connector;
use proxy::{ProxyUrl, Way, Ways};
use resolve::Resolver;
use tls::{Floor, Pin, Tls};
use trouble::{Failed, Kind, Trouble};

const AGENT: HeaderValue = HeaderValue::from_static(concat!("hb/", env!("CARGO_PKG_VERSION")));

/// Longest reply that is read when the request names no other limit, in bytes.
pub const REPLY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long a connection may take, from the name to the end of the handshake, at most. The C library gives a name server that
/// is silent five seconds before it asks the next one.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(8);

/// How long an unused connection is kept: longer than the usual interval between beats, shorter than most firewalls
/// remember it.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// How long a kept connection may take to become ready for the next request.
const READY_MAX: Duration = Duration::from_millis(100);

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
    connector: Connector,
    kept: Mutex<Vec<Kept>>,
    tls: Tls,
    proxy_tls: Option<Tls>,
    options: Options,
    resolver: Resolver,
    ways: Ways,
}

/// A connection that nobody uses now.
#[derive(Debug)]
struct Kept {
    /// Scheme, host and port.
    place: String,
    sender: SendRequest<Full<Bytes>>,
    since: Instant,
}

impl Http {
    /// A client; reads the certificate authorities now.
    ///
    /// # Errors
    /// 78 when the CA file cannot be read or the proxy is not a URL.
    pub fn new(options: Options) -> Result<Self, Failure> {
        let tls = Tls::new(options.ca_file.as_deref(), options.pin.as_ref())?;
        let resolver = Resolver::default();
        let ways = Ways::of_process(&options)?;
        // Another trust costs memory: only where it is needed.
        let proxy_tls = if ways.is_encrypted() { Some(Tls::new(options.ca_file.as_deref(), None)?) } else { None };
        let connector = Connector::new(&resolver, tls.config(None), proxy_tls.as_ref().map(|tls| tls.config(None)));
        Ok(Self { connector, kept: Mutex::default(), tls, proxy_tls, options, resolver, ways })
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
        let first = self.send_by(&self.connector, true, request).await;
        let (Err(trouble), Some(floor)) = (&first, floor) else { return first };
        if trouble.kind != Kind::TlsTime {
            return first;
        }
        let proxy_tls = self.proxy_tls.as_ref().map(|tls| tls.config(Some(floor)));
        let tolerant = Connector::new(&self.resolver, self.tls.config(Some(floor)), proxy_tls);
        match self.send_by(&tolerant, false, request).await {
            Ok(reply) => Ok(Reply { by_floor: true, ..reply }),
            // Still out of date: the clock's own verdict says more than the floor's.
            Err(second) if second.kind == Kind::TlsTime => first,
            Err(second) => Err(second),
        }
    }

    /// Uses no connection again that was made so far. Somebody else's answer may have come over one that he goes on holding: a
    /// portal does, after it has let everybody through.
    pub fn hang_up(&self) {
        self.kept().clear();
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

    async fn send_by(&self, connector: &Connector, keep: bool, request: &Request<'_>) -> Result<Reply, Trouble> {
        self.resolver.hurry(request.timeout.min(CONNECT_TIMEOUT_MAX));
        let exchanged = tokio::time::timeout(request.timeout, self.exchange(connector, keep, request)).await;
        exchanged.unwrap_or(Err(Failed::Timeout)).map_err(|failed| {
            let proxy = self.proxy_for(request.url);
            Trouble::classify(failed, request.url, request.timeout, proxy.as_deref(), self.tls.refused())
        })
    }

    /// One request over a connection that was kept, or over a new one.
    async fn exchange(&self, connector: &Connector, keep: bool, request: &Request<'_>) -> Result<Reply, Failed> {
        let place = request.url[..Position::BeforePath].to_owned();
        let way = self.ways.to(request.url);
        let mut unsent = message(request, way)?;
        let (sender, response) = loop {
            let kept = if keep { self.take(&place).await } else { None };
            let is_used = kept.is_some();
            let mut sender = match kept {
                Some(sender) => sender,
                None => open(connector, request, way).await?,
            };
            match sender.try_send_request(unsent).await {
                Ok(response) => break (sender, response),
                Err(mut error) => match error.take_message() {
                    // The other side hung up meanwhile, and has seen nothing of it.
                    Some(message) if is_used => unsent = message,
                    _ => return Err(Failed::Exchange(error.into_error())),
                },
            }
        };
        let reply = read(response, request.reply_bytes_max).await?;
        if keep {
            self.kept().push(Kept { place, sender, since: Instant::now() });
        }
        Ok(reply)
    }

    /// A connection to a place that was kept and is still good.
    async fn take(&self, place: &str) -> Option<SendRequest<Full<Bytes>>> {
        let mut sender = {
            let mut kept = self.kept();
            kept.retain(|one| one.since.elapsed() < IDLE_TIMEOUT && !one.sender.is_closed());
            let found = kept.iter().position(|one| one.place == place)?;
            kept.swap_remove(found).sender
        };
        // Ready again when all of the former request has left, which is before its reply unless that came early.
        let ready = tokio::time::timeout(READY_MAX, sender.ready()).await;
        matches!(ready, Ok(Ok(()))).then_some(sender)
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
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

/// The request as it is sent: a proxy is told the whole URL of what is not encrypted.
fn message(request: &Request<'_>, way: Option<&Way>) -> Result<http::Request<Full<Bytes>>, Failed> {
    let url = request.url;
    let proxy = if url.scheme() == "http" { way } else { None };
    let from = if proxy.is_some() { Position::BeforeScheme } else { Position::BeforePath };
    let wrong = |error: &dyn core::fmt::Display| {
        Failed::Known(Trouble::new(Kind::Refused, format!("{url} cannot be asked for in HTTP: {error}")))
    };
    let uri: http::Uri = url[from..Position::AfterQuery].parse().map_err(|error| wrong(&error))?;
    let host = HeaderValue::try_from(authority(url)).map_err(|error| wrong(&error))?;
    let mut message = http::Request::new(Full::new(request.body.clone().unwrap_or_default().into()));
    *message.method_mut() = request.method.clone();
    *message.uri_mut() = uri;
    message.headers_mut().clone_from(&request.headers);
    message.headers_mut().insert(HOST, host);
    message.headers_mut().insert(USER_AGENT, AGENT);
    message.headers_mut().entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    if request.body.is_none() && request.method == Method::POST {
        // Some front ends turn away what does not say it (411), and hyper does not.
        message.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    if let Some(login) = proxy.map(|way| way.proxy.route()).transpose()?.and_then(|route| route.login) {
        message.headers_mut().insert(PROXY_AUTHORIZATION, login);
    }
    Ok(message)
}

/// A new connection, which is served in the background until both sides have dropped it.
async fn open(
    connector: &Connector,
    request: &Request<'_>,
    way: Option<&Way>,
) -> Result<SendRequest<Full<Bytes>>, Failed> {
    let limit = request.timeout.min(CONNECT_TIMEOUT_MAX);
    let opened = tokio::time::timeout(limit, connector.within(limit).connect(request.url, way)).await;
    let too_late = if limit < request.timeout { Failed::ConnectTimeout } else { Failed::Timeout };
    let stream = opened.unwrap_or(Err(too_late))?;
    let (sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(Failed::Exchange)?;
    tokio::spawn(async move {
        // Whoever waits for an answer is told by the sender.
        let _ = connection.await;
    });
    Ok(sender)
}

async fn read(response: http::Response<Incoming>, bytes_max: usize) -> Result<Reply, Failed> {
    let (head, mut incoming) = response.into_parts();
    let mut body = Vec::new();
    while let Some(frame) = incoming.frame().await {
        let Ok(chunk) = frame.map_err(Failed::Exchange)?.into_data() else { continue };
        if body.len().saturating_add(chunk.len()) > bytes_max {
            let detail = format!("the reply is longer than {bytes_max} bytes");
            return Err(Failed::Known(Trouble::new(Kind::NotOurs, detail)));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Reply { status: head.status.as_u16(), headers: head.headers, body, by_floor: false })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    /// A server that answers each request, and sees to how long connections stand: what it does after each answer, in order, and
    /// instead of the last one. Tells how many connections and requests there were.
    struct Tally {
        url: Url,
        served: std::thread::JoinHandle<(usize, usize)>,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Then {
        Keep,
        HangUp,
        /// Without an answer.
        HangUpMute,
        /// Without an answer, and for good.
        End,
    }

    fn serve(script: &'static [Then]) -> Tally {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = url(&format!("http://{}/v1/beat", listener.local_addr().unwrap()));
        let served = std::thread::spawn(move || {
            let mut script = script.iter();
            let (mut connections, mut requests) = (0, 0);
            loop {
                let (mut stream, _) = listener.accept().unwrap();
                connections += 1;
                let mut head = [0; 4096];
                while stream.read(&mut head).unwrap_or(0) > 0 {
                    requests += 1;
                    let then = script.next().unwrap();
                    match then {
                        Then::HangUpMute => break,
                        Then::End => return (connections, requests),
                        Then::Keep | Then::HangUp => {}
                    }
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
                    if *then == Then::HangUp {
                        break;
                    }
                }
            }
        });
        Tally { url, served }
    }

    /// Sends requests one after the other, hanging up before some, until one fails.
    fn send(tally: &Tally, hang_up_before: &[usize]) -> (usize, Trouble) {
        let http = Http::new(Options { no_proxy: Some("*".to_owned()), ..Options::default() }).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for answered in 0.. {
                if hang_up_before.contains(&answered) {
                    http.hang_up();
                }
                let request = Request {
                    method: Method::POST,
                    url: &tally.url,
                    headers: HeaderMap::new(),
                    body: Some(b"{}".to_vec()),
                    timeout: Duration::from_secs(5),
                    reply_bytes_max: 2,
                };
                match http.send(&request, None).await {
                    Ok(reply) => assert_eq!((reply.status, &*reply.body), (200, &b"ok"[..])),
                    Err(trouble) => return (answered, trouble),
                }
                // The end of a connection comes a moment after its last answer.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            unreachable!("a script ends")
        })
    }

    #[test]
    fn a_connection_is_used_again_until_one_side_hangs_up() {
        for (script, hang_up_before, connections) in [
            (&[Then::Keep, Then::Keep, Then::End][..], &[][..], 1),
            (&[Then::HangUp, Then::Keep, Then::End], &[], 2),
            (&[Then::Keep, Then::Keep, Then::End], &[1], 2),
        ] {
            let tally = serve(script);
            let (answered, _) = send(&tally, hang_up_before);
            assert_eq!(answered, 2, "{script:?}");
            assert_eq!(tally.served.join().unwrap(), (connections, 3), "{script:?}");
        }
    }

    #[test]
    fn what_may_have_arrived_is_not_sent_again() {
        // It would be answered at the next connection.
        let tally = serve(&[Then::Keep, Then::HangUpMute, Then::Keep, Then::End]);
        let (answered, trouble) = send(&tally, &[]);
        assert_eq!((answered, trouble.kind), (1, Kind::Connect), "{trouble}");
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
