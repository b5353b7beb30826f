//! The listener: accepts connections, and lets none of them cost more than it may.
//!
//! Not `axum::serve`, which keeps half-open connections for ever. hyper's own header time-out would end idle connections as
//! well, and an agent's connection is idle for a minute between two beats: so that each connection's patience is kept in
//! [`crowd`], by what the connection is doing.

use core::convert::Infallible;
use core::net::SocketAddr;
use core::time::Duration;
use std::io::{self, Write as _};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::error::Failure;
use crate::stop::Stop;
use crate::tls::Certificates;

mod crowd;
mod paced;

pub use crowd::{HALF_OPEN_AGE_MIN, HANDSHAKE_TIMEOUT, HEAD_TIMEOUT, IDLE_TIMEOUT, Limits, REQUEST_TIMEOUT};

use crowd::{Crowd, Place};
use paced::Paced;

/// Longest request line and header fields together, in bytes.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most header fields.
pub const FIELDS_MAX: usize = 64;
/// Read and write buffers of one connection grow no further than this, in bytes.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Connections that the kernel holds until they are accepted.
const BACKLOG: u32 = 4096;
/// After a failed accept (no file descriptor is left), the next attempt waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A clean stop waits this long for requests in flight.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// What somebody is told whose connection is one too many.
const CROWDED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\n\
content-type: application/problem+json\r\nContent-Length: 104\r\n\r\n\
{\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\"code\":\"unavailable\",\"retry_after_s\":5}";

/// Binds the address.
///
/// # Errors
/// 78 when it is taken or this machine does not have it, 77 when it is not allowed.
pub fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    let listen = || -> io::Result<TcpListener> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|error| {
        let message = format!("could not listen on {address}: {error}");
        let kind = error.kind();
        if kind == io::ErrorKind::AddrInUse {
            let port = address.port();
            let find = format!("another program has port {port}: find it with `ss -ltnp 'sport = :{port}'`");
            Failure::config(message).hint(format!("{find}, or choose another --listen"))
        } else if kind == io::ErrorKind::PermissionDenied {
            Failure::refused(message).hint(
                "ports below 1024 need CAP_NET_BIND_SERVICE (AmbientCapabilities= of the unit), or take one above",
            )
        } else if kind == io::ErrorKind::AddrNotAvailable {
            Failure::config(message).hint("this machine does not have that address: see `ip addr`")
        } else {
            Failure::failed(message).hint("check --listen, or `listen` of server.toml")
        }
    })
}

/// Serves until `stop` says so, then finishes what is in flight, for [`STOP_TIMEOUT`] at most.
///
/// `certificates`: TLS, with the certificate of the moment; none: plain http.
pub async fn serve(
    tcp: TcpListener,
    certificates: Option<Arc<Certificates>>,
    router: Router,
    limits: Limits,
    mut stop: Stop,
) {
    let crowd = Arc::new(Crowd::new(limits));
    let reaper = tokio::spawn(Arc::clone(&crowd).reap());
    let stopping = stop.clone();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.told() => break,
            accepted = tcp.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let visitor = Visitor {
                    certificates: certificates.clone(),
                    router: router.clone(),
                    stop: stopping.clone(),
                    peer,
                };
                if let Err(stream) = crowd.admit(stream, |stream, place| visitor.attend(stream, place)) {
                    turn_away(stream, certificates.is_some());
                }
            }
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(tcp);
    if tokio::time::timeout(STOP_TIMEOUT, crowd.emptied()).await.is_err() {
        tracing::warn!(connections = crowd.len(), "requests were still in flight after {STOP_TIMEOUT:?}: cut off");
        crowd.clear();
    }
    reaper.abort();
}

/// One too many: says so if that costs nothing.
fn turn_away(stream: TcpStream, encrypted: bool) {
    if encrypted {
        return;
    }
    // Written past the runtime, which does not know yet that the new socket has room, and never waiting for it: whoever
    // does not get to read it sees a closed connection, which it must be able to bear anyway.
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write(CROWDED);
    }
}

/// What one connection needs.
struct Visitor {
    certificates: Option<Arc<Certificates>>,
    router: Router,
    stop: Stop,
    peer: SocketAddr,
}

impl Visitor {
    async fn attend(self, stream: TcpStream, place: Arc<Place>) {
        // Answers are one small write: waiting for more to send would only delay them.
        let _ = stream.set_nodelay(true);
        let Some(certificates) = &self.certificates else {
            return self.converse(stream, place).await;
        };
        place.shakes_hands();
        let acceptor = TlsAcceptor::from(Arc::clone(&certificates.now().config));
        match acceptor.accept(stream).await {
            Ok(stream) => self.converse(stream, place).await,
            Err(error) => tracing::debug!(%error, peer = %self.peer, "a TLS handshake failed: {error}"),
        }
    }

    async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(mut self, stream: S, place: Arc<Place>) {
        place.waits_for_head();
        let io = TokioIo::new(Paced::new(stream, Arc::clone(&place)));
        let (router, peer) = (self.router, self.peer);
        let service = service_fn(move |request| answer(router.clone(), Arc::clone(&place), peer, request));
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_header_size(HEAD_BYTES_MAX)
            .max_buf_size(BUFFER_BYTES_MAX);
        let connection = builder.serve_connection(io, service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            () = self.stop.told() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, %peer, "a connection ended badly: {error}");
        }
    }
}

async fn answer(
    router: Router,
    place: Arc<Place>,
    peer: SocketAddr,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    place.is_busy();
    request.extensions_mut().insert(ConnectInfo(peer));
    let response = if request.headers().len() > FIELDS_MAX {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        response
    } else {
        router.oneshot(request.map(Body::new)).await?
    };
    Ok(place.answered(response))
}

impl Place {
    /// The request is answered: the connection may rest, unless others need the room.
    fn answered(&self, mut response: Response<Body>) -> Response<Body> {
        if self.rests() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_crowded_out_are_told_is_a_whole_answer() {
        let text = core::str::from_utf8(CROWDED).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", body.len());
        let problem: hb_wire::problem::Problem = serde_json::from_str(body).unwrap();
        assert_eq!(problem.code.status(), 503);
    }
}
