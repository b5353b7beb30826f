//! A connection to a server: TCP by the first address that answers (RFC 8305), a tunnel through a proxy (RFC 9110, section
//! 9.3.6), TLS.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::error::Error;
use std::sync::Arc;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tower_service::Service;
use url::Url;

use super::CONNECT_TIMEOUT_MAX;
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
}

impl Connector {
    pub(super) fn new(resolver: &Resolver, tls: ClientConfig) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(resolver.clone());
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // Shared by the addresses: one that swallows everything leaves time for the next.
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT_MAX));
        Self { tcp, tls: Arc::new(tls) }
    }

    /// Connects to the server of `url`, through a proxy if there is one on the way.
    pub(super) async fn connect(&self, url: &Url, way: Option<&Way>) -> Result<Stream, Failed> {
        let server = uri(url).map_err(Failed::Connect)?;
        let Some(way) = way else { return self.dial(server).await.map_err(Failed::Connect) };
        let route = way.route()?;
        if url.scheme() == "http" {
            return self.dial(route.proxy).await.map_err(Failed::Connect);
        }
        let mut tunnel = Tunnel::new(route.proxy, self.clone());
        if let Some(login) = route.login {
            tunnel = tunnel.with_auth(login);
        }
        let through = tunnel.call(server.clone()).await.map_err(|error| Failed::Connect(error.into()))?;
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
