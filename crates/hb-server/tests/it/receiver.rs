//! A webhook receiver on loopback that writes down what arrives.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

/// One message that arrived.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    /// The wall clock, in milliseconds since 1970.
    pub(crate) wall_ms: u64,
    pub(crate) key: String,
    pub(crate) body: Value,
}

impl Arrival {
    pub(crate) fn event(&self) -> &str {
        self.body["event"].as_str().unwrap()
    }

    pub(crate) fn host(&self) -> &str {
        self.body["host"]["name"].as_str().unwrap_or_default()
    }
}

pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    arrivals: Mutex<Vec<Arrival>>,
    rang: Condvar,
}

impl Receiver {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let keep = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&keep);
                std::thread::spawn(move || attend(stream, &shared));
            }
        });
        Self { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.shared.arrivals.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, event: &str) -> usize {
        self.arrivals().iter().filter(|arrival| arrival.event() == event).count()
    }

    /// Waits until `enough` is content with what arrived; panics after `patience`.
    pub(crate) fn wait_for(&self, what: &str, patience: Duration, enough: impl Fn(&[Arrival]) -> bool) -> Vec<Arrival> {
        let started = Instant::now();
        let mut arrivals = self.shared.arrivals.lock().unwrap();
        while !enough(&arrivals) {
            let left = patience.saturating_sub(started.elapsed());
            assert!(!left.is_zero(), "{what} did not arrive within {patience:?}: {}", summary(&arrivals));
            arrivals = self.shared.rang.wait_timeout(arrivals, left).unwrap().0;
        }
        arrivals.clone()
    }
}

fn summary(arrivals: &[Arrival]) -> String {
    let mut kinds = BTreeMap::new();
    for arrival in arrivals {
        *kinds.entry(arrival.event().to_owned()).or_insert(0) += 1;
    }
    format!("{kinds:?}")
}

fn attend(mut stream: TcpStream, shared: &Shared) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16384];
    loop {
        let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            }
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..at]).into_owned();
        let field = |wanted: &str| {
            let fields = head.lines().filter_map(|line| line.split_once(':'));
            fields
                .filter(|(name, _)| name.eq_ignore_ascii_case(wanted))
                .map(|(_, value)| value.trim().to_owned())
                .next()
        };
        let length: usize = field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        while bytes.len() < at + 4 + length {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            }
        }
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let body = serde_json::from_slice(&bytes[at + 4..at + 4 + length]).unwrap();
        let arrival = Arrival {
            wall_ms: u64::try_from(wall.as_millis()).unwrap(),
            key: field("idempotency-key").unwrap_or_default(),
            body,
        };
        shared.arrivals.lock().unwrap().push(arrival);
        shared.rang.notify_all();
        if stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_err() {
            return;
        }
        bytes.drain(..at + 4 + length);
    }
}
