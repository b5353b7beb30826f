//! Hosts that exist only as keys, and one HTTP/1.1 connection that beats for them: as little client as possible, so that
//! what is measured is the server.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use hb_wire::beat::BeatAnswer;
use hb_wire::id::HostId;
use hb_wire::key::HostKey;
use hb_wire::nonce::Nonce;
use hb_wire::problem::Problem;
use hb_wire::signature::{self, Message, Params};
use hb_wire::view::{EnrolRequest, Enrolment};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A host of the load.
#[derive(Debug)]
pub(crate) struct Host {
    /// As the server calls it.
    pub id: HostId,
    key: HostKey,
    nonce: Nonce,
    seq: u64,
}

/// The key of the n-th host.
pub(crate) fn key(n: usize) -> HostKey {
    let mut seed = [0x5a; 32];
    for (to, from) in seed.iter_mut().zip(n.to_be_bytes()) {
        *to = from;
    }
    HostKey::from_seed(seed)
}

/// The id of the n-th host at the bare server.
pub(crate) fn bare_id(n: usize) -> HostId {
    HostId(uuid::Uuid::from_u128(u128::try_from(n).unwrap_or(0) + 1))
}

fn params(keyid: String, nonce: Nonce) -> Params {
    Params { created: 1_800_000_000, nonce, keyid }
}

impl Host {
    /// The n-th host as the bare server knows it.
    pub(crate) fn bare(n: usize) -> Self {
        Self { id: bare_id(n), key: key(n), nonce: Nonce::NONE, seq: 0 }
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    authority: String,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects to `host:port`.
    pub(crate) async fn open(authority: &str) -> Result<Self> {
        let stream = TcpStream::connect(authority).await.with_context(|| format!("connect to {authority}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, authority: authority.to_owned(), buffer: Vec::with_capacity(4096) })
    }

    /// Enrols the n-th host with an API key.
    pub(crate) async fn enrol(&mut self, n: usize, api_key: &str, interval_s: u64, grace_s: u64) -> Result<Host> {
        let key = key(n);
        let request = EnrolRequest {
            name: format!("load{n}"),
            public_key: key.public().to_string(),
            interval_s: Some(interval_s),
            grace_s: Some(grace_s),
            tags: std::collections::BTreeMap::new(),
            class: None,
            max_away_s: None,
        };
        let body = serde_json::to_vec(&request)?;
        let bearer = format!("Authorization: Bearer {api_key}\r\n");
        let (status, answer) =
            self.send(&key, &params(key.public().to_string(), Nonce::NONE), "/v1/hosts", &body, &bearer).await?;
        ensure!(status == 201 || status == 200, "enrolment answered {status}: {}", String::from_utf8_lossy(&answer));
        let enrolment: Enrolment = serde_json::from_slice(&answer)?;
        Ok(Host { id: enrolment.id, key, nonce: enrolment.next.parse().ok().context("a nonce")?, seq: 0 })
    }

    /// One beat, with the second round trip that a stale nonce costs; how long it took.
    pub(crate) async fn beat(&mut self, host: &mut Host) -> Result<Duration> {
        let start = Instant::now();
        for _ in 0..3 {
            host.seq += 1;
            let load = host.seq % 97;
            let body = format!(
                r#"{{"boot":"2d1f7c3e-8b0a-4c55-9e21-5f0c6a7b8c9d","run":"2d1f7c3e-8b0a-4c55-9e21-5f0c6a7b8c9e","seq":{},"up":{},"v":"0.1.0","vitals":{{"load1":0.{load:02},"cpus":2,"mem_used_bytes":{},"mem_total_bytes":25769803776,"disk_free_bytes":{},"disk_total_bytes":270582939648}}}}"#,
                host.seq,
                86_400 + host.seq,
                5_000_000_000 + host.seq * 4096,
                88_000_000_000 - host.seq * 4096,
            );
            let params = params(host.id.to_string(), host.nonce);
            let (status, answer) = self.send(&host.key, &params, "/v1/beat", body.as_bytes(), "").await?;
            let next = match status {
                200 => serde_json::from_slice::<BeatAnswer>(&answer)?.next,
                409 => Problem::parse(&answer).and_then(|problem| problem.next).context("a 409 brings a nonce")?,
                _ => bail!("a beat was answered {status}: {}", String::from_utf8_lossy(&answer)),
            };
            host.nonce = next.parse().ok().context("a nonce")?;
            if status == 200 {
                return Ok(start.elapsed());
            }
        }
        bail!("three nonces in a row were refused")
    }

    async fn send(
        &mut self,
        key: &HostKey,
        params: &Params,
        path: &str,
        body: &[u8],
        more: &str,
    ) -> Result<(u16, Vec<u8>)> {
        let message = Message { method: "POST", authority: &self.authority, path, body };
        let signed = signature::sign(key, &message, params);
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nContent-Digest: {}\r\nSignature-Input: {}\r\nSignature: {}\r\n{more}\r\n",
            self.authority,
            body.len(),
            signed.content_digest,
            signed.signature_input,
            signed.signature,
        );
        let mut request = head.into_bytes();
        request.extend_from_slice(body);
        self.stream.write_all(&request).await?;
        self.answer().await
    }

    /// A plain request with an API key; the body of the answer.
    pub(crate) async fn call(&mut self, method: &str, path: &str, api_key: &str, body: &str) -> Result<Vec<u8>> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {api_key}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.authority,
            body.len(),
        );
        self.stream.write_all(request.as_bytes()).await?;
        let (status, answer) = self.answer().await?;
        ensure!(
            (200..300).contains(&status),
            "{method} {path} answered {status}: {}",
            String::from_utf8_lossy(&answer)
        );
        Ok(answer)
    }

    async fn answer(&mut self) -> Result<(u16, Vec<u8>)> {
        self.buffer.clear();
        let (head, length) = loop {
            ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the server closed the connection");
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok())
                    .unwrap_or(0);
                break (end + 4, length);
            }
        };
        while self.buffer.len() < head + length {
            ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the server closed the connection");
        }
        let status = std::str::from_utf8(&self.buffer)
            .unwrap_or_default()
            .get(9..12)
            .and_then(|code| code.parse().ok())
            .context("a status line")?;
        Ok((status, self.buffer[head..head + length].to_vec()))
    }
}
