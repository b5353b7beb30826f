//! Name resolution by the system, with the last good answer kept for when the resolver is away.
//!
//! A host whose DNS is down is not a host that is down. The certificate still has to match the name, so an old address
//! costs nothing but a failed attempt.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::vec;

use hyper_util::client::legacy::connect::dns::Name;
use tokio::sync::watch;
use tower_service::Service;

/// Names whose last addresses are remembered, at most.
const NAMES_MAX: usize = 8;
/// Addresses remembered per name, at most.
const ADDRESSES_MAX: usize = 8;

/// The last good addresses by name.
pub type Addresses = BTreeMap<String, Vec<IpAddr>>;

/// What the system said of a name: its addresses, or why there are none.
type Found = Result<Vec<IpAddr>, String>;
/// Questions by name.
type Questions = BTreeMap<String, watch::Receiver<Option<Found>>>;

/// The system's resolver with a memory.
///
/// The system may take longer than a beat has time: five seconds for each name server that is silent. So a question goes on
/// when its asker has given up, whoever asks next waits for the same answer, and an address that was good is not kept waiting
/// for one that may never come. Clones share the memory.
#[derive(Debug, Clone)]
pub struct Resolver {
    known: Arc<Mutex<Addresses>>,
    /// Questions that the system has not answered yet.
    asked: Arc<Mutex<Questions>>,
    patience_ms: Arc<AtomicU64>,
}

impl Default for Resolver {
    fn default() -> Self {
        Self { known: Arc::default(), asked: Arc::default(), patience_ms: Arc::new(AtomicU64::new(u64::MAX)) }
    }
}

impl Resolver {
    /// Reminds it of addresses that were good in another run.
    pub fn remind(&self, addresses: &Addresses) {
        for (name, found) in addresses.iter().take(NAMES_MAX) {
            let found: Vec<IpAddr> = found.iter().copied().take(ADDRESSES_MAX).collect();
            remember(&self.known, name, &found);
        }
    }

    /// What it remembers.
    pub fn known(&self) -> Addresses {
        self.known.lock().map(|known| known.clone()).unwrap_or_default()
    }

    /// How long the next connection may take as a whole.
    pub(super) fn hurry(&self, connect: Duration) {
        self.patience_ms.store(u64::try_from(connect.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// What the system is asked about `name`, or was asked and has not answered yet. Needs a running tokio runtime.
fn ask(
    name: &str,
    known: &Arc<Mutex<Addresses>>,
    asked: &Arc<Mutex<Questions>>,
) -> Option<watch::Receiver<Option<Found>>> {
    let mut open = asked.lock().ok()?;
    // Nobody will answer one whose task ended with its runtime.
    if let Some(answer) = open.get(name).filter(|answer| answer.has_changed().is_ok()) {
        return Some(answer.clone());
    }
    let (tell, answer) = watch::channel(None);
    open.insert(name.to_owned(), answer.clone());
    drop(open);
    let (name, known, asked) = (name.to_owned(), Arc::clone(known), Arc::clone(asked));
    tokio::spawn(async move {
        let found = look_up(&name).await;
        if let Ok(found) = &found {
            remember(&known, &name, found);
        }
        if let Ok(mut open) = asked.lock() {
            open.remove(&name);
        }
        let _ = tell.send(Some(found));
    });
    Some(answer)
}

async fn look_up(name: &str) -> Found {
    match tokio::net::lookup_host((name, 0)).await {
        Ok(found) => {
            let found: Vec<IpAddr> = found.map(|address| address.ip()).take(ADDRESSES_MAX).collect();
            if found.is_empty() { Err("it has no address".to_owned()) } else { Ok(found) }
        }
        Err(error) => Err(tidy(&error.to_string())),
    }
}

/// The system could not resolve a name, and no earlier address is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolveFailed {
    /// The name.
    pub name: String,
    /// What the system said.
    pub why: String,
}

impl fmt::Display for ResolveFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not resolve {}: {}", self.name, self.why)
    }
}

impl std::error::Error for ResolveFailed {}

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = ResolveFailed;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ResolveFailed>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ResolveFailed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let name = name.as_str().to_owned();
        let last = self.known.lock().ok().and_then(|known| known.get(&name).cloned());
        let patience_ms = self.patience_ms.load(Ordering::Relaxed);
        // What is left afterwards is for the connection to an address that was good; else only for saying what went wrong.
        let patience = Duration::from_millis(if last.is_some() { patience_ms / 2 } else { patience_ms / 10 * 9 });
        let (known, asked) = (Arc::clone(&self.known), Arc::clone(&self.asked));
        Box::pin(async move {
            let found = async {
                let mut answer = ask(&name, &known, &asked)?;
                answer.wait_for(Option::is_some).await.ok()?.clone()
            };
            let why = match tokio::time::timeout(patience, found).await {
                Ok(Some(Ok(found))) => return Ok(addresses(found)),
                Ok(Some(Err(why))) => why,
                Ok(None) => "nobody was asked".to_owned(),
                Err(_) => format!("no name server answered within {} s", patience.as_secs_f32()),
            };
            match last {
                Some(last) => Ok(addresses(last)),
                None => Err(ResolveFailed { name, why }),
            }
        })
    }
}

fn addresses(found: Vec<IpAddr>) -> vec::IntoIter<SocketAddr> {
    let found: Vec<SocketAddr> = found.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect();
    found.into_iter()
}

fn remember(known: &Mutex<Addresses>, name: &str, found: &[IpAddr]) {
    if let Ok(mut known) = known.lock() {
        if known.len() >= NAMES_MAX && !known.contains_key(name) {
            known.clear();
        }
        known.insert(name.to_owned(), found.to_vec());
    }
}

/// The C library's prefix says nothing that the sentence around it does not.
fn tidy(text: &str) -> String {
    text.strip_prefix("failed to lookup address information: ").unwrap_or(text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(resolver: &Resolver, name: &str) -> Result<Vec<IpAddr>, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime
            .block_on(resolver.clone().call(name.parse().unwrap()))
            .map(|found| found.map(|address| address.ip()).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn an_unknown_name_fails_and_says_which() {
        let said = resolve(&Resolver::default(), "no-such-host.invalid").unwrap_err();
        assert!(said.starts_with("could not resolve no-such-host.invalid: "), "{said}");
    }

    #[test]
    fn the_last_good_address_serves_while_the_resolver_fails() {
        let resolver = Resolver::default();
        let address: IpAddr = "192.0.2.7".parse().unwrap();
        remember(&resolver.known, "no-such-host.invalid", &[address]);
        assert_eq!(resolve(&resolver, "no-such-host.invalid"), Ok(vec![address]));
    }

    /// A resolver whose question about this name the system never answers.
    fn unanswered(name: &str) -> (Resolver, watch::Sender<Option<Found>>) {
        let resolver = Resolver::default();
        let (tell, answer) = watch::channel(None);
        resolver.asked.lock().unwrap().insert(name.to_owned(), answer);
        resolver.hurry(Duration::from_millis(200));
        (resolver, tell)
    }

    #[test]
    fn a_system_that_does_not_answer_is_not_waited_for_longer_than_there_is_time() {
        let (resolver, tell) = unanswered("hb.example.com");
        let said = resolve(&resolver, "hb.example.com").unwrap_err();
        assert_eq!(said, "could not resolve hb.example.com: no name server answered within 0.18 s");
        let address: IpAddr = "192.0.2.7".parse().unwrap();
        remember(&resolver.known, "hb.example.com", &[address]);
        assert_eq!(resolve(&resolver, "hb.example.com"), Ok(vec![address]), "what was good before is tried");
        drop(tell);
    }

    #[test]
    fn whoever_asks_while_a_question_is_open_gets_its_answer() {
        let (resolver, tell) = unanswered("hb.example.com");
        let address: IpAddr = "192.0.2.8".parse().unwrap();
        tell.send(Some(Ok(vec![address]))).unwrap();
        assert_eq!(resolve(&resolver, "hb.example.com"), Ok(vec![address]));
    }

    #[test]
    fn the_memory_is_bounded() {
        let resolver = Resolver::default();
        for n in 0..100 {
            remember(&resolver.known, &format!("h{n}"), &["192.0.2.7".parse().unwrap()]);
        }
        assert!(resolver.known.lock().unwrap().len() <= NAMES_MAX);
    }
}
