//! A server on loopback that speaks hb's protocol honestly (it verifies every signature and spends every nonce), and
//! lets a test answer any request differently.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hb_wire::beat::{Beat, Intent};
use hb_wire::key::PublicKey;
use hb_wire::nonce::Nonce;
use hb_wire::rotation;
use hb_wire::signature::{self, Message};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

pub(crate) const HOST_ID: &str = "01990000-0000-7000-8000-000000000001";

/// One request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
    pub(crate) at: Instant,
    /// Counts the connections.
    pub(crate) connection: usize,
}

impl Seen {
    pub(crate) fn beat(&self) -> Beat {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// What to answer.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Status, extra header lines, body.
    Http(u16, Vec<String>, String),
    /// These bytes, whatever they are, and the end of the connection.
    Raw(Vec<u8>),
    /// Nothing, for that long, and the end of the connection.
    Hang(Duration),
    /// As an honest server would, and then the answer is lost.
    LoseAnswer,
}

impl Reply {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::Http(status, vec!["Content-Type: application/json".to_owned()], body.to_string())
    }

    pub(crate) fn problem(status: u16, code: &str) -> Self {
        Self::json(status, &json!({ "type": format!("urn:hb:problem:{code}"), "status": status, "code": code }))
    }
}

type Script = Box<dyn Fn(usize, &Seen) -> Option<Reply> + Send + Sync>;

/// What the honest part knows.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) key: Option<PublicKey>,
    /// It passes over intents, as a server that does not know them.
    pub(crate) is_old: bool,
    /// Announced, and not used yet.
    pub(crate) next_key: Option<PublicKey>,
    nonce: u8,
    pub(crate) now: String,
    pub(crate) interval_s: u64,
    /// When the next beat is wished for; none: when the interval says.
    pub(crate) next_in_s: Option<u64>,
    pub(crate) beat_urls: Option<Vec<String>>,
    /// Beats stored.
    pub(crate) stored: Vec<Beat>,
    /// Beats refused, but for those that were told the next nonce.
    pub(crate) refused: u64,
}

/// The server.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    tls: bool,
    pub(crate) books: Arc<Mutex<Books>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    script: Arc<Mutex<Script>>,
    stop: Arc<AtomicBool>,
    called: Arc<Mutex<String>>,
}

impl Server {
    pub(crate) fn plain() -> Self {
        Self::start("127.0.0.1", None)
    }

    /// At another address of the loopback.
    pub(crate) fn plain_at(address: &str) -> Self {
        Self::start(address, None)
    }

    pub(crate) fn tls(config: Arc<ServerConfig>) -> Self {
        Self::start("127.0.0.1", Some(config))
    }

    fn start(address: &str, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let books = Books { interval_s: 60, now: "2026-11-23T00:00:00Z".to_owned(), ..Books::default() };
        let server = Self {
            address: listener.local_addr().unwrap(),
            tls: tls.is_some(),
            books: Arc::new(Mutex::new(books)),
            seen: Arc::default(),
            script: Arc::new(Mutex::new(Box::new(|_, _| None))),
            stop: Arc::default(),
            called: Arc::default(),
        };
        server.answer_to(&server.url());
        let connections = Arc::new(AtomicUsize::new(0));
        let worker = server.worker();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if worker.stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let worker = worker.clone();
                let tls = tls.clone();
                let connection = connections.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    // What a client does to its connection is seen in what it says, not here.
                    let _ = match tls {
                        None => worker.serve(stream.try_clone().unwrap(), stream, connection),
                        Some(config) => {
                            let tls = ServerConnection::new(config).unwrap();
                            worker.serve_tls(StreamOwned::new(tls, stream), connection)
                        }
                    };
                });
            }
        });
        server
    }

    fn worker(&self) -> Worker {
        Worker {
            books: Arc::clone(&self.books),
            seen: Arc::clone(&self.seen),
            script: Arc::clone(&self.script),
            stop: Arc::clone(&self.stop),
            url: Arc::clone(&self.called),
        }
    }

    /// Answers as `script` says: it gets the number of the request, counted from 0 from now on, and the request; none
    /// means honestly.
    pub(crate) fn play(&self, script: impl Fn(usize, &Seen) -> Option<Reply> + Send + Sync + 'static) {
        let mut seen = self.seen.lock().unwrap();
        seen.clear();
        *self.script.lock().unwrap() = Box::new(script);
    }

    /// Answers honestly from now on.
    pub(crate) fn behave(&self) {
        self.play(|_, _| None);
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        let host = if self.tls { "localhost".to_owned() } else { self.address.ip().to_string() };
        format!("{scheme}://{host}:{}", self.address.port())
    }

    /// Goes by another URL from now on.
    pub(crate) fn answer_to(&self, url: &str) {
        url.clone_into(&mut self.called.lock().unwrap());
    }

    /// Every request since the last change of the script.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn stored(&self) -> Vec<Beat> {
        self.books.lock().unwrap().stored.clone()
    }

    pub(crate) fn set_interval(&self, seconds: u64) {
        self.books.lock().unwrap().interval_s = seconds;
    }

    pub(crate) fn wish(&self, next_in_s: Option<u64>) {
        self.books.lock().unwrap().next_in_s = next_in_s;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the listener, so that it sees that it is over.
        let _ = TcpStream::connect(self.address);
    }
}

#[derive(Clone)]
struct Worker {
    books: Arc<Mutex<Books>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    script: Arc<Mutex<Script>>,
    stop: Arc<AtomicBool>,
    /// What the clients call this server: scheme and authority.
    url: Arc<Mutex<String>>,
}

impl Worker {
    fn serve_tls(&self, stream: StreamOwned<ServerConnection, TcpStream>, connection: usize) -> io::Result<()> {
        let mut reader = BufReader::new(stream);
        while self.one(&mut reader, connection)? {}
        Ok(())
    }

    fn serve(&self, read: TcpStream, write: TcpStream, connection: usize) -> io::Result<()> {
        let mut reader = BufReader::new(Both { read, write });
        while self.one(&mut reader, connection)? {}
        Ok(())
    }

    /// Serves one request; false when the connection is over.
    fn one<S: Read + Write>(&self, stream: &mut BufReader<S>, connection: usize) -> io::Result<bool> {
        let Some(seen) = read_request(stream, connection)? else { return Ok(false) };
        let number = {
            let mut all = self.seen.lock().unwrap();
            all.push(seen.clone());
            all.len() - 1
        };
        let scripted = (self.script.lock().unwrap())(number, &seen);
        if self.stop.load(Ordering::SeqCst) {
            return Ok(false);
        }
        let (status, headers, body) = match scripted {
            None => self.honest(&seen),
            Some(Reply::Http(status, headers, body)) => (status, headers, body),
            Some(Reply::Raw(bytes)) => {
                stream.get_mut().write_all(&bytes)?;
                stream.get_mut().flush()?;
                return Ok(false);
            }
            Some(Reply::Hang(time)) => {
                std::thread::sleep(time);
                return Ok(false);
            }
            Some(Reply::LoseAnswer) => {
                self.honest(&seen);
                return Ok(false);
            }
        };
        let mut head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", body.len());
        for header in headers {
            head.push_str(&header);
            head.push_str("\r\n");
        }
        stream.get_mut().write_all(format!("{head}\r\n{body}").as_bytes())?;
        stream.get_mut().flush()?;
        Ok(true)
    }

    fn authority(&self) -> String {
        self.url.lock().unwrap().split_once("://").unwrap().1.to_owned()
    }

    fn honest(&self, seen: &Seen) -> (u16, Vec<String>, String) {
        let json = vec!["Content-Type: application/json".to_owned()];
        let (status, body) = match seen.path.as_str() {
            "/v1/hosts" => self.enrol(seen),
            "/v1/beat" => self.beat(seen),
            "/v1/status" => {
                let now = self.books.lock().unwrap().now.clone();
                (200, json!({ "status": "ok", "observing": true, "version": "0.1.0", "now": now }))
            }
            _ => (404, json!({ "code": "not_found" })),
        };
        (status, json, body.to_string())
    }

    fn enrol(&self, seen: &Seen) -> (u16, Value) {
        let request: Value = serde_json::from_slice(&seen.body).unwrap();
        let key: PublicKey = request["public_key"].as_str().unwrap().parse().unwrap();
        let (keyid, _) =
            verified(seen, &key, &self.authority()).expect("an enrolment is signed with the key it enrols");
        assert_eq!(keyid, key.to_string());
        let mut books = self.books.lock().unwrap();
        let known = books.key == Some(key);
        if !known && !seen.headers.contains_key("authorization") {
            return (401, json!({ "code": "unauthorized", "detail": "no credential" }));
        }
        books.key = Some(key);
        let urls = books.beat_urls.clone().unwrap_or_else(|| vec![format!("{}/v1/beat", self.url.lock().unwrap())]);
        let interval_s = request["interval_s"].as_u64().unwrap_or(books.interval_s);
        books.interval_s = interval_s;
        let body = json!({
            "id": HOST_ID, "name": request["name"], "next": nonce(books.nonce), "now": books.now,
            "interval_s": interval_s, "grace_s": request["grace_s"].as_u64().unwrap_or(2 * interval_s), "beat_urls": urls,
        });
        (if known { 200 } else { 201 }, body)
    }

    fn beat(&self, seen: &Seen) -> (u16, Value) {
        let mut books = self.books.lock().unwrap();
        let Some(key) = books.key else {
            books.refused += 1;
            return (401, json!({ "code": "bad_signature" }));
        };
        let by = |key: &PublicKey| verified(seen, key, &self.authority()).map(|(keyid, spent)| (*key, keyid, spent));
        let Some((signer, keyid, spent)) = by(&key).or_else(|| by(&books.next_key?)) else {
            books.refused += 1;
            return (401, json!({ "code": "bad_signature" }));
        };
        assert_eq!(keyid, HOST_ID);
        if spent.to_string() != nonce(books.nonce) {
            return (409, json!({ "code": "stale_nonce", "next": nonce(books.nonce), "now": books.now }));
        }
        books.nonce = books.nonce.wrapping_add(1).max(1);
        if signer != key {
            (books.key, books.next_key) = (Some(signer), None);
        }
        let beat = seen.beat();
        if let Some(Intent::Rotate { public_key, proof }) = &beat.intent {
            assert!(rotation::is_proven(proof, public_key, HOST_ID.parse().unwrap()));
            books.next_key = Some(*public_key);
        }
        let mut marks = Vec::new();
        if matches!(beat.intent, Some(Intent::Maintenance { for_s: 1.., .. })) && !books.is_old {
            marks.push("maintenance");
        }
        if books.is_old {
            books.next_key = None;
        }
        if books.next_key.is_some() {
            marks.push("rotating");
        }
        books.stored.push(beat);
        let mut body =
            json!({ "next": nonce(books.nonce), "now": books.now, "interval_s": books.interval_s, "marks": marks });
        if let Some(wish) = books.next_in_s {
            body["next_in_s"] = wish.into();
        }
        (200, body)
    }
}

/// Nonces of the honest part: never the one that an agent sends when it has none.
fn nonce(number: u8) -> String {
    Nonce([number.wrapping_add(1).max(1); 16]).to_string()
}

fn verified(seen: &Seen, key: &PublicKey, authority: &str) -> Option<(String, Nonce)> {
    let header = |name: &str| seen.headers.get(name).map_or("", String::as_str);
    let signed = signature::parse(header("content-digest"), header("signature-input"), header("signature")).ok()?;
    let message = Message { method: "POST", authority, path: &seen.path, body: &seen.body };
    signed.verify(&key.verifying().ok()?, &message).ok()?;
    Some((signed.params.keyid.clone(), signed.params.nonce))
}

fn read_request<S: Read>(stream: &mut BufReader<S>, connection: usize) -> io::Result<Option<Seen>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some(Seen { path, headers, body, at: Instant::now(), connection }))
}

struct Both {
    read: TcpStream,
    write: TcpStream,
}

impl Read for Both {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read.read(buffer)
    }
}

impl Write for Both {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write.flush()
    }
}
