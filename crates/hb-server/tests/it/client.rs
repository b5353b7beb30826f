//! A small blocking HTTP client, and hosts that beat through it. Independent of hb's own agent.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use hb_wire::id::{BootId, HostId, RunId};
use hb_wire::key::HostKey;
use hb_wire::nonce::Nonce;
use hb_wire::signature::{self, Message, Params};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::{Value, json};

/// No answer of a server takes longer.
const TIMEOUT: Duration = Duration::from_secs(20);

/// One connection, made anew when it is gone.
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    authority: String,
    tls: Option<Arc<ClientConfig>>,
    wire: Option<Box<dyn Wire>>,
    timeout: Duration,
}

trait Wire: Read + Write + Send {}
impl<T: Read + Write + Send> Wire for T {}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Client {
    pub(crate) fn plain(address: SocketAddr) -> Self {
        Self { address, authority: address.to_string(), tls: None, wire: None, timeout: TIMEOUT }
    }

    /// Over TLS, trusting only the certificate with this fingerprint.
    pub(crate) fn pinned(address: SocketAddr, fingerprint: &str) -> Self {
        Self { tls: Some(Arc::new(pinned(fingerprint))), ..Self::plain(address) }
    }

    pub(crate) fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    pub(crate) fn called(self, authority: &str) -> Self {
        Self { authority: authority.to_owned(), ..self }
    }

    pub(crate) fn connect(&mut self) -> io::Result<()> {
        let stream = TcpStream::connect_timeout(&self.address, self.timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        self.wire = Some(match &self.tls {
            None => Box::new(stream),
            Some(config) => {
                let name = ServerName::IpAddress(self.address.ip().into());
                let session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
                Box::new(StreamOwned::new(session, stream))
            }
        });
        Ok(())
    }

    /// One request; over a kept connection that the server closed meanwhile, once more over a new one.
    pub(crate) fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        let was_kept = self.wire.is_some();
        match self.try_request(method, path, headers, body) {
            Err(_) if was_kept => {
                self.wire = None;
                self.try_request(method, path, headers, body)
            }
            done => done,
        }
        .inspect_err(|_| self.wire = None)
    }

    fn try_request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
        if self.wire.is_none() {
            self.connect()?;
        }
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n", self.authority, body.len());
        for (name, value) in headers {
            write!(request, "{name}: {value}\r\n").unwrap();
        }
        request.push_str("\r\n");
        let mut bytes = request.into_bytes();
        bytes.extend_from_slice(body);
        let wire = self.wire.as_mut().unwrap();
        wire.write_all(&bytes)?;
        wire.flush()?;
        let answer = read_answer(wire.as_mut())?;
        if answer.head.to_ascii_lowercase().contains("connection: close") {
            self.wire = None;
        }
        Ok(answer)
    }

    pub(crate) fn api(&mut self, key: &str, method: &str, path: &str, body: &Value) -> io::Result<Answer> {
        let authorization = format!("Bearer {key}");
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).unwrap() };
        let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        self.request(method, path, if body.is_empty() { &headers[..1] } else { &headers }, &body)
    }

    /// Adds a webhook channel.
    pub(crate) fn add_webhook(&mut self, key: &str, url: &str) {
        let answer = self.api(key, "POST", "/v1/channels", &json!({ "kind": "webhook", "settings": { "url": url } }));
        let answer = answer.unwrap();
        assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
    }

    fn signed(
        &mut self,
        key: &HostKey,
        path: &str,
        params: &Params,
        body: &[u8],
        more: &[(&str, &str)],
    ) -> io::Result<Answer> {
        let authority = self.authority.clone();
        let signed = signature::sign(key, &Message { method: "POST", authority: &authority, path, body }, params);
        let mut headers = vec![
            ("content-type", "application/json"),
            ("content-digest", signed.content_digest.as_str()),
            ("signature-input", signed.signature_input.as_str()),
            ("signature", signed.signature.as_str()),
        ];
        headers.extend_from_slice(more);
        self.request("POST", path, &headers, body)
    }
}

fn read_answer(wire: &mut dyn Wire) -> io::Result<Answer> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 8192];
    let (head, start) = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break (String::from_utf8_lossy(&bytes[..at]).into_owned(), at + 4);
        }
        let read = wire.read(&mut buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&buffer[..read]);
    };
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status: u16 = status.ok_or_else(|| io::Error::other(format!("not an answer: {head:?}")))?;
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let mut lengths =
        fields.filter(|(name, _)| name.eq_ignore_ascii_case("content-length")).map(|(_, value)| value.trim().parse());
    let length: usize = lengths.next_back().unwrap_or(Ok(0)).map_err(io::Error::other)?;
    let mut body = bytes.split_off(start);
    while body.len() < length {
        let read = wire.read(&mut buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        body.extend_from_slice(&buffer[..read]);
    }
    Ok(Answer { status, head, body })
}

/// A host, as far as its beats are concerned.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) id: HostId,
    pub(crate) name: String,
    pub(crate) interval: Duration,
    /// The last beat that was answered 200, and the nonce that came with it.
    pub(crate) acked: Option<(u64, Nonce)>,
    key: Arc<HostKey>,
    pub(crate) nonce: Nonce,
    pub(crate) seq: u64,
    boot: BootId,
    run: RunId,
}

impl Host {
    /// Enrols a host of that name.
    pub(crate) fn enrol(client: &mut Client, api_key: &str, name: &str, interval_s: u64, grace_s: u64) -> Self {
        let key = HostKey::from_seed(hb_server::entropy::random());
        let public = key.public().to_string();
        let wanted = json!({ "name": name, "public_key": public, "interval_s": interval_s, "grace_s": grace_s });
        let body = serde_json::to_vec(&wanted).unwrap();
        let params = Params { created: 1_795_444_000, nonce: Nonce::NONE, keyid: public };
        let authorization = format!("Bearer {api_key}");
        let answer = client.signed(&key, "/v1/hosts", &params, &body, &[("authorization", &authorization)]).unwrap();
        assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
        let enrolled = answer.json();
        Self {
            id: enrolled["id"].as_str().unwrap().parse().unwrap(),
            name: name.to_owned(),
            interval: Duration::from_secs(interval_s),
            acked: None,
            key: Arc::new(key),
            nonce: Nonce::parse(enrolled["next"].as_str().unwrap()).unwrap(),
            seq: 0,
            boot: BootId::mint(1, hb_server::entropy::random()),
            run: RunId::mint(1, hb_server::entropy::random()),
        }
    }

    /// One beat, with the retry that a stale nonce asks for; the status of the last answer.
    pub(crate) fn beat(&mut self, client: &mut Client) -> io::Result<u16> {
        self.seq += 1;
        for _ in 0..3 {
            let beat =
                json!({ "boot": self.boot, "run": self.run, "seq": self.seq, "up": 1000 + self.seq, "v": "0.1.0" });
            let body = serde_json::to_vec(&beat).unwrap();
            let params = Params { created: 1_795_444_000, nonce: self.nonce, keyid: self.id.to_string() };
            let answer = client.signed(&self.key, "/v1/beat", &params, &body, &[])?;
            if let Some(next) = answer.json()["next"].as_str() {
                self.nonce = Nonce::parse(next).unwrap();
            }
            if answer.status == 200 {
                self.acked = Some((self.seq, self.nonce));
            }
            if answer.status != 409 {
                return Ok(answer.status);
            }
        }
        Ok(409)
    }
}

fn pinned(fingerprint: &str) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pin(fingerprint.to_owned())))
        .with_no_client_auth()
}

#[derive(Debug)]
struct Pin(String);

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if hb_server::tls::fingerprint(end_entity) == self.0 {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::General("another certificate than the pinned one".to_owned()))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &ring::default_provider().signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &ring::default_provider().signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
