//! A connection to a server: TCP by the first address that answers (RFC 8305), a tunnel through a proxy (RFC 9110, section
//! 9.3.6), TLS.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::error::Error;
use std::sync::Arc;

use http::header::USER_AGENT;
use http::{HeaderMap, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tower_service::Service;
use url::Url;

use super::proxy::Way;
use super::resolve::Resolver;
use super::trouble::Failed;

type BoxError = Box<dyn Error + Send + Sync>;
/// What bytes go over, encrypted or not.
pub(super) type Stream = TokioIo<Box<dyn Duplex>>;

pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Makes connections.
#[derive(Clone)]
pub(super) struct Connector {
    tcp: HttpConnector<Resolver>,
    tls: Arc<ClientConfig>,
    /// For a proxy that speaks TLS itself, where that is another one.
    proxy_tls: Arc<ClientConfig>,
}

impl Connector {
    pub(super) fn new(resolver: &Resolver, tls: ClientConfig, proxy_tls: Option<ClientConfig>) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(resolver.clone());
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let tls = Arc::new(tls);
        Self { tcp, proxy_tls: proxy_tls.map_or_else(|| Arc::clone(&tls), Arc::new), tls }
    }

    /// The same for connections that have so much time. The addresses of a name share it: one that swallows everything leaves some to
    /// the next.
    pub(super) fn within(&self, limit: Duration) -> Self {
        let mut connector = self.clone();
        connector.tcp.set_connect_timeout(Some(limit));
        connector
    }

    /// Connects to the server of `url`, through a proxy if there is one on the way.
    pub(super) async fn connect(&self, url: &Url, way: Option<&Way>) -> Result<Stream, Failed> {
        let server = uri(url).map_err(Failed::Connect)?;
        let Some(way) = way else { return self.dial(server).await.map_err(Failed::Connect) };
        let route = way.proxy.route()?;
        // A pin, for one, is that of the server.
        let mut to_proxy = self.clone();
        to_proxy.tls = Arc::clone(&self.proxy_tls);
        if url.scheme() == "http" {
            return to_proxy.dial(route.proxy).await.map_err(Failed::Proxy);
        }
        // Some proxies let nobody through who does not say who it is.
        let agent = HeaderMap::from_iter([(USER_AGENT, super::AGENT)]);
        let mut tunnel = Tunnel::new(route.proxy, to_proxy).with_headers(agent);
        if let Some(login) = route.login {
            tunnel = tunnel.with_auth(login);
        }
        let through = tunnel.call(server.clone()).await.map_err(|error| Failed::Proxy(error.into()))?;
        self.encrypt(&server, through.into_inner()).await.map_err(Failed::Connect)
    }

    /// Connects to the host in `uri` itself.
    async fn dial(&self, uri: Uri) -> Result<Stream, BoxError> {
        let tcp = self.tcp.clone().call(uri.clone()).await?.into_inner();
        if uri.scheme_str() == Some("https") { self.encrypt(&uri, tcp).await } else { Ok(TokioIo::new(Box::new(tcp))) }
    }

    async fn encrypt(&self, uri: &Uri, stream: impl Duplex + 'static) -> Result<Stream, BoxError> {
        // An IPv6 address stands in brackets there.
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned())?;
        Ok(TokioIo::new(Box::new(TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await?)))
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

/// As a tunnel asks for the connection to its proxy.
impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.dial(uri).await })
    }
}

/// Scheme, host and port of `url`, the port also where it is the scheme's own: a proxy has to be told.
fn uri(url: &Url) -> Result<Uri, BoxError> {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    Ok(Uri::builder().scheme(url.scheme()).authority(format!("{host}:{port}")).path_and_query("/").build()?)
}
