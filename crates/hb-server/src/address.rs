//! What the server is called: the public URL, and the authorities that beats may be signed for.

use core::net::{IpAddr, SocketAddr};

use hb_wire::signature::normalize_authority;
use url::Url;

/// How the listener is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Plain.
    Http,
    /// Encrypted.
    Https,
}

impl Scheme {
    /// As in a URL.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// What the server is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// What hosts and people call it, without a slash at the end.
    pub public: String,
    /// Where it can be reached on this machine, whatever the public URL is.
    pub local: String,
    /// The authorities that beats may be signed for; the public one first.
    pub authorities: Vec<String>,
    /// True when nobody said what it is called and the listen address does not tell.
    pub guessed: bool,
}

impl Names {
    /// From the public URL, if there is one, the address that is listened on, and this machine's name.
    #[must_use]
    pub fn new(public_url: Option<&Url>, scheme: Scheme, listen: SocketAddr, hostname: &str) -> Self {
        let (ip, port) = (listen.ip(), listen.port());
        let url = |host: &str| format!("{}://{host}:{port}", scheme.word());
        let literal = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let local_ip = match (ip.is_unspecified(), ip.is_ipv4()) {
            (false, _) => ip,
            (true, true) => IpAddr::V4(core::net::Ipv4Addr::LOCALHOST),
            (true, false) => IpAddr::V6(core::net::Ipv6Addr::LOCALHOST),
        };
        let guessed = public_url.is_none() && ip.is_unspecified();
        let public = match public_url {
            Some(public) => public.as_str().trim_end_matches('/').to_owned(),
            None if guessed && !hostname.is_empty() => url(hostname),
            None => url(&literal(local_ip)),
        };
        let mut candidates = vec![public.clone()];
        if public_url.is_none() {
            candidates.push(url(&literal(local_ip)));
        }
        if ip.is_loopback() || ip.is_unspecified() {
            candidates.extend(["127.0.0.1", "localhost", "[::1]"].map(url));
        }
        if ip.is_unspecified() && !hostname.is_empty() {
            candidates.push(url(hostname));
        }
        let mut authorities = Vec::new();
        for authority in candidates.iter().filter_map(|url| normalize_authority(url)) {
            if !authorities.contains(&authority) {
                authorities.push(authority);
            }
        }
        Self { public, local: url(&literal(local_ip)), authorities, guessed }
    }

    /// Where hosts beat.
    #[must_use]
    pub fn beat_url(&self) -> String {
        format!("{}{}", self.public, hb_api::beat::PATH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(public: Option<&str>, scheme: Scheme, listen: &str) -> Names {
        let public = public.map(|url| Url::parse(url).unwrap());
        Names::new(public.as_ref(), scheme, listen.parse().unwrap(), "hb1")
    }

    #[test]
    fn on_loopback_without_a_public_url_every_spelling_of_loopback_is_accepted() {
        let names = names(None, Scheme::Http, "127.0.0.1:8600");
        assert_eq!(names.public, "http://127.0.0.1:8600");
        assert_eq!(names.beat_url(), "http://127.0.0.1:8600/v1/beat");
        assert_eq!(names.authorities, ["127.0.0.1:8600", "localhost:8600", "[::1]:8600"]);
        assert!(!names.guessed);
    }

    #[test]
    fn a_public_url_comes_first_and_is_alone_off_loopback() {
        let names = names(Some("https://HB.example.com:443/"), Scheme::Https, "192.0.2.7:8600");
        assert_eq!(names.public, "https://hb.example.com");
        assert_eq!(names.authorities, ["hb.example.com"]);
        assert_eq!(names.local, "https://192.0.2.7:8600");
    }

    #[test]
    fn on_every_address_without_a_public_url_the_machines_name_is_a_guess() {
        let names = names(None, Scheme::Https, "0.0.0.0:443");
        assert_eq!(names.public, "https://hb1:443");
        assert_eq!(names.authorities, ["hb1", "127.0.0.1", "localhost", "[::1]"], "443 is the scheme's own port");
        assert_eq!(names.local, "https://127.0.0.1:443");
        assert!(names.guessed);
    }

    #[test]
    fn behind_a_proxy_both_the_public_name_and_loopback_are_accepted() {
        let names = names(Some("https://hb.example.com"), Scheme::Http, "[::1]:8600");
        assert_eq!(names.authorities, ["hb.example.com", "127.0.0.1:8600", "localhost:8600", "[::1]:8600"]);
        assert_eq!(names.local, "http://[::1]:8600");
    }
}
