//! A receiver of webhooks on loopback that behaves as told. It speaks raw bytes, for it must be able to misbehave.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What it does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Manner {
    /// Answers with these bytes.
    Say(String),
    /// Hangs up before it reads.
    HangUpAtOnce,
    /// Reads the request and hangs up without an answer.
    HangUp,
    /// Reads the request and never answers: it has accepted it all the same.
    Mute,
    /// Answers one byte each 50 ms.
    Drip,
    /// Says 200, then sends a body without end.
    Flood,
    /// Says 200, and never ends the body it promised.
    HalfBody,
    /// Sends a header without end.
    FloodHeaders,
}

/// One request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) line: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    connections: Arc<Mutex<usize>>,
    flooded_bytes: Arc<Mutex<usize>>,
}

impl Receiver {
    pub(crate) async fn start(manner: Manner) -> Self {
        Self::start_with(manner, None).await
    }

    pub(crate) async fn answering(status: &str, headers: &str) -> Self {
        Self::start(Manner::Say(format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n{headers}\r\nok"))).await
    }

    pub(crate) async fn start_with(manner: Manner, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, connections) = (Arc::new(Mutex::default()), Arc::new(Mutex::new(0)));
        let flooded_bytes = Arc::new(Mutex::new(0));
        let flooded = Arc::clone(&flooded_bytes);
        let (kept, counted) = (Arc::clone(&requests), Arc::clone(&connections));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *counted.lock().unwrap() += 1;
                let (manner, kept, tls) = (manner.clone(), Arc::clone(&kept), tls.clone());
                let flooded = Arc::clone(&flooded);
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &manner, &kept, &flooded).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, &manner, &kept, &flooded).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, requests, connections, flooded_bytes }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook/p4ssw0rd?token=p4ssw0rd", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) fn flooded_bytes(&self) -> usize {
        *self.flooded_bytes.lock().unwrap()
    }

    pub(crate) fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    manner: &Manner,
    kept: &Mutex<Vec<Request>>,
    flooded: &Mutex<usize>,
) {
    if matches!(manner, Manner::HangUpAtOnce) {
        return;
    }
    let Some(request) = read_request(&mut stream).await else { return };
    kept.lock().unwrap().push(request);
    let _ = answer(&mut stream, manner, flooded).await;
}

async fn answer(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    manner: &Manner,
    flooded: &Mutex<usize>,
) -> std::io::Result<()> {
    match manner {
        Manner::Say(bytes) => stream.write_all(bytes.as_bytes()).await?,
        Manner::HangUpAtOnce | Manner::HangUp => {}
        Manner::Mute => wait_for_hang_up(stream).await,
        Manner::Drip => {
            for byte in "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n".bytes().chain(std::iter::repeat(b'x')) {
                stream.write_all(&[byte]).await?;
                stream.flush().await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Manner::Flood => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            loop {
                stream.write_all(&[b'x'; 8 * 1024]).await?;
                *flooded.lock().unwrap() += 8 * 1024;
            }
        }
        Manner::HalfBody => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await?;
            stream.flush().await?;
            wait_for_hang_up(stream).await;
        }
        Manner::FloodHeaders => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await?;
            loop {
                stream.write_all(&[b'x'; 8 * 1024]).await?;
                *flooded.lock().unwrap() += 8 * 1024;
            }
        }
    }
    stream.flush().await?;
    stream.shutdown().await
}

async fn wait_for_hang_up(stream: &mut (impl AsyncRead + Unpin)) {
    while matches!(stream.read(&mut [0; 64]).await, Ok(1..)) {}
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<Request> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        let mut buffer = [0; 4_096];
        match stream.read(&mut buffer).await {
            Ok(count @ 1..) => bytes.extend_from_slice(&buffer[..count]),
            Ok(0) | Err(_) => return None,
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    let mut lines = head.split("\r\n");
    let line = lines.next()?.to_owned();
    let headers: BTreeMap<_, _> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers.get("content-length")?.parse().ok()?;
    let mut body = bytes.split_off(head_end + 4);
    let arrived = body.len();
    body.resize(length, 0);
    stream.read_exact(&mut body[arrived..]).await.ok()?;
    Some(Request { line, headers, body })
}
