//! What the server's configuration allows its channels, and lends them.

use core::fmt;
use core::net::IpAddr;
use core::time::Duration;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use ipnet::IpNet;

use crate::smtp::SmtpSettings;
use crate::text::one_line;
use crate::trust::Trust;

/// What the server's configuration allows its channels. Made once, shared by all; cloning is cheap where it matters.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Networks that webhooks may reach although they are not public (`HB_SERVER_ALLOW_NETWORKS`).
    pub allow_networks: Vec<IpNet>,
    /// Programs that `exec` channels may run: absolute paths.
    pub exec_programs: Vec<PathBuf>,
    /// How mail leaves; without it there are no `email` channels.
    pub smtp: Option<Arc<SmtpSettings>>,
    /// Whose certificates are believed.
    pub trust: Arc<Trust>,
    /// Who turns names of webhook receivers into addresses.
    pub lookup: Arc<dyn Lookup>,
    /// Longest attempt of a webhook.
    pub webhook_timeout: Duration,
    /// Longest run of an `exec` program before it is asked to end.
    pub exec_timeout: Duration,
}

impl Default for Rules {
    /// The strictest: public https receivers only, no mail, no programs.
    fn default() -> Self {
        Self {
            allow_networks: Vec::new(),
            exec_programs: Vec::new(),
            smtp: None,
            trust: Arc::new(Trust::default()),
            lookup: Arc::new(SystemLookup),
            webhook_timeout: Duration::from_secs(10),
            exec_timeout: Duration::from_secs(30),
        }
    }
}

/// Reads `HB_SERVER_ALLOW_NETWORKS`: networks or single addresses, separated by commas. Empty opens nothing.
///
/// # Errors
/// Which piece is neither, and how to write it.
pub fn parse_networks(text: &str) -> Result<Vec<IpNet>, String> {
    let pieces = text.split(',').map(str::trim).filter(|piece| !piece.is_empty());
    let read = |piece: &str| {
        let network = piece.parse::<IpNet>().ok();
        let network = network.or_else(|| piece.parse::<IpAddr>().ok().map(IpNet::from));
        network.map(|network| network.trunc()).ok_or_else(|| {
            format!("{:?} is not a network: write for example 10.0.0.0/8, fd00::/8 or 127.0.0.1", one_line(piece, 60))
        })
    };
    pieces.map(read).collect()
}

/// Turns a name into addresses.
#[async_trait]
pub trait Lookup: Send + Sync + fmt::Debug {
    /// Every address of a name.
    ///
    /// # Errors
    /// The name has no address, or could not be asked for.
    async fn lookup(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// The system's resolver.
#[derive(Debug, Clone, Copy)]
pub struct SystemLookup;

#[async_trait]
impl Lookup for SystemLookup {
    async fn lookup(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_from_one_line_and_a_wrong_one_is_named() {
        let read =
            |text: &str| parse_networks(text).map(|nets| nets.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(read("").unwrap(), [""; 0]);
        assert_eq!(
            read(" 127.0.0.1, 10.1.2.3/8,fd00::/8,,::1 ").unwrap(),
            ["127.0.0.1/32", "10.0.0.0/8", "fd00::/8", "::1/128"]
        );
        for bad in ["10.0.0.0/33", "localhost", "10.0.0", "10.0.0.0/8 192.168.0.0/16", "*"] {
            let said = read(bad).unwrap_err();
            assert_eq!(said, format!("{bad:?} is not a network: write for example 10.0.0.0/8, fd00::/8 or 127.0.0.1"));
        }
    }
}
