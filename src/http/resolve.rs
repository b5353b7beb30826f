//! Name resolution by the system, with the last good answer kept for when the resolver is away.
//!
//! A host whose DNS is down is not a host that is down. The certificate still has to match the name, so an old address
//! costs nothing but a failed attempt.

use core::fmt;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Names whose last addresses are remembered, at most.
const NAMES_MAX: usize = 8;
/// Addresses remembered per name, at most.
const ADDRESSES_MAX: usize = 8;

/// The last good addresses by name.
pub type Addresses = BTreeMap<String, Vec<IpAddr>>;

/// The system's resolver with a memory.
#[derive(Debug, Default)]
pub struct Resolver {
    known: Arc<Mutex<Addresses>>,
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

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let known = Arc::clone(&self.known);
        Box::pin(async move {
            let name = name.as_str().to_owned();
            let why = match tokio::net::lookup_host((name.as_str(), 0)).await {
                Ok(found) => {
                    let found: Vec<IpAddr> = found.map(|address| address.ip()).take(ADDRESSES_MAX).collect();
                    if !found.is_empty() {
                        remember(&known, &name, &found);
                        return Ok(addresses(found));
                    }
                    "it has no address".to_owned()
                }
                Err(error) => tidy(&error.to_string()),
            };
            let last = known.lock().ok().and_then(|known| known.get(&name).cloned());
            match last {
                Some(last) => Ok(addresses(last)),
                None => Err(ResolveFailed { name, why }.into()),
            }
        })
    }
}

fn addresses(found: Vec<IpAddr>) -> Addrs {
    Box::new(found.into_iter().map(|ip| SocketAddr::new(ip, 0)))
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
            .block_on(resolver.resolve(name.parse().unwrap()))
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

    #[test]
    fn the_memory_is_bounded() {
        let resolver = Resolver::default();
        for n in 0..100 {
            remember(&resolver.known, &format!("h{n}"), &["192.0.2.7".parse().unwrap()]);
        }
        assert!(resolver.known.lock().unwrap().len() <= NAMES_MAX);
    }
}
