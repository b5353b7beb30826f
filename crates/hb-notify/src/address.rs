//! Which addresses a webhook may reach: anybody with the right to add a channel could otherwise make the server talk to
//! its own neighbours (SSRF). Every address of a name is judged, and only judged addresses are connected to.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::rules::Lookup;

/// What is not the public Internet in IPv4: the IANA special-purpose registry (RFC 6890), and one cloud's metadata.
const REFUSED_V4: [(Ipv4Net, &str); 17] = [
    (v4(0, 0, 0, 0, 8), "this network"),
    (v4(10, 0, 0, 0, 8), "a private network"),
    (v4(100, 64, 0, 0, 10), "shared address space (CGNAT)"),
    (v4(127, 0, 0, 0, 8), "loopback"),
    (v4(168, 63, 129, 16, 32), "a cloud's metadata service"),
    (v4(169, 254, 0, 0, 16), "link-local, cloud metadata"),
    (v4(172, 16, 0, 0, 12), "a private network"),
    (v4(192, 0, 0, 0, 24), "protocol assignments"),
    (v4(192, 0, 2, 0, 24), "documentation"),
    (v4(192, 31, 196, 0, 24), "AS112"),
    (v4(192, 88, 99, 0, 24), "6to4 relays"),
    (v4(192, 168, 0, 0, 16), "a private network"),
    (v4(198, 18, 0, 0, 15), "benchmarking"),
    (v4(198, 51, 100, 0, 24), "documentation"),
    (v4(203, 0, 113, 0, 24), "documentation"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(240, 0, 0, 0, 4), "reserved"),
];

/// What is not the public Internet within IPv6's global unicast (`2000::/3`), and the better known of what is outside.
const REFUSED_V6: [(Ipv6Net, &str); 13] = [
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 128), "unspecified"),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), "loopback"),
    (v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96), "an IPv4 address in disguise"),
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 96), "an IPv4 address in disguise"),
    (v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 32), "translated to IPv4 (NAT64)"),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), "protocol assignments, Teredo"),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), "documentation"),
    (v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), "translated to IPv4 (6to4)"),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), "documentation"),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), "a private network (ULA)"),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "link-local"),
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), "a private network (site-local)"),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "multicast"),
];

/// `2000::/3`: all of IPv6 that is routed on the Internet today.
const GLOBAL_UNICAST: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(s: [u16; 8], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]), prefix)
}

/// Why a webhook may not reach this address, in a few words; `None` when it may. `allowed` are the networks that the
/// server's configuration opens (`HB_SERVER_ALLOW_NETWORKS`).
///
/// An IPv4 network opens nothing that is written as IPv6: `::ffff:10.0.0.1` stays refused when 10.0.0.0/8 is allowed.
#[must_use]
pub fn refusal(address: IpAddr, allowed: &[IpNet]) -> Option<&'static str> {
    if is_allowed(address, allowed) {
        return None;
    }
    match address {
        IpAddr::V4(address) => REFUSED_V4.iter().find(|(net, _)| net.contains(&address)).map(|(_, why)| *why),
        IpAddr::V6(address) => {
            let known = REFUSED_V6.iter().find(|(net, _)| net.contains(&address)).map(|(_, why)| *why);
            known.or_else(|| (!GLOBAL_UNICAST.contains(&address)).then_some("not a public address"))
        }
    }
}

fn is_allowed(address: IpAddr, allowed: &[IpNet]) -> bool {
    allowed.iter().any(|net| net.contains(&address))
}

/// How a receiver is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    /// https: any public or allowed address.
    Encrypted,
    /// http: only allowed networks, for alerts and signatures are readable on the way.
    Plain,
}

/// Judges addresses, and resolves names into judged addresses only.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    pub(crate) allowed: Arc<[IpNet]>,
    pub(crate) wire: Wire,
    pub(crate) lookup: Arc<dyn Lookup>,
}

/// An address that a webhook may not reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    address: IpAddr,
    why: &'static str,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, why } = self;
        write!(
            f,
            "the receiver's address {address} is refused ({why}): to allow it, list its network in HB_SERVER_ALLOW_NETWORKS"
        )
    }
}

impl core::error::Error for Refused {}

impl Guard {
    /// Judges one address.
    pub(crate) fn judge(&self, address: IpAddr) -> Result<(), Refused> {
        let why = match self.wire {
            Wire::Encrypted => refusal(address, &self.allowed),
            Wire::Plain if is_allowed(address, &self.allowed) => None,
            Wire::Plain => refusal(address, &[]).or(Some("plain http goes only to networks that are listed")),
        };
        why.map_or(Ok(()), |why| Err(Refused { address, why }))
    }

    /// Every address of a name; refused as a whole when one of them is, for the connection could take any.
    async fn addresses(&self, name: &str) -> Result<Vec<SocketAddr>, Box<dyn core::error::Error + Send + Sync>> {
        let addresses = self.lookup.lookup(name).await?;
        if addresses.is_empty() {
            return Err("the name has no address".into());
        }
        for address in &addresses {
            self.judge(*address)?;
        }
        // Port 0 stands for the port of the URL.
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, 0)).collect())
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let addresses = guard.addresses(name.as_str()).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(address: &str) -> bool {
        refusal(address.parse().unwrap(), &[]).is_none()
    }

    /// First and last address of each refused range, with the neighbours outside it where those are public.
    #[test]
    fn each_special_range_is_refused_from_its_first_to_its_last_address() {
        let ranges = [
            ("0.0.0.0", "0.255.255.255", None, Some("1.0.0.0")),
            ("10.0.0.0", "10.255.255.255", Some("9.255.255.255"), Some("11.0.0.0")),
            ("100.64.0.0", "100.127.255.255", Some("100.63.255.255"), Some("100.128.0.0")),
            ("127.0.0.0", "127.255.255.255", Some("126.255.255.255"), Some("128.0.0.0")),
            ("168.63.129.16", "168.63.129.16", Some("168.63.129.15"), Some("168.63.129.17")),
            ("169.254.0.0", "169.254.255.255", Some("169.253.255.255"), Some("169.255.0.0")),
            ("172.16.0.0", "172.31.255.255", Some("172.15.255.255"), Some("172.32.0.0")),
            ("192.0.0.0", "192.0.0.255", Some("191.255.255.255"), Some("192.0.1.0")),
            ("192.0.2.0", "192.0.2.255", Some("192.0.1.255"), Some("192.0.3.0")),
            ("192.31.196.0", "192.31.196.255", Some("192.31.195.255"), Some("192.31.197.0")),
            ("192.88.99.0", "192.88.99.255", Some("192.88.98.255"), Some("192.88.100.0")),
            ("192.168.0.0", "192.168.255.255", Some("192.167.255.255"), Some("192.169.0.0")),
            ("198.18.0.0", "198.19.255.255", Some("198.17.255.255"), Some("198.20.0.0")),
            ("198.51.100.0", "198.51.100.255", Some("198.51.99.255"), Some("198.51.101.0")),
            ("203.0.113.0", "203.0.113.255", Some("203.0.112.255"), Some("203.0.114.0")),
            ("224.0.0.0", "255.255.255.255", Some("223.255.255.255"), None),
            ("::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None, Some("2000::")),
            (
                "2001::",
                "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff",
                Some("2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
                Some("2001:200::"),
            ),
            (
                "2001:db8::",
                "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
                Some("2001:db7:ffff:ffff:ffff:ffff:ffff:ffff"),
                Some("2001:db9::"),
            ),
            (
                "2002::",
                "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                Some("2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
                Some("2003::"),
            ),
            (
                "3fff::",
                "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff",
                Some("3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
                Some("3fff:1000::"),
            ),
            (
                "4000::",
                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                Some("3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
                None,
            ),
        ];
        for (first, last, before, after) in ranges {
            assert!(!open(first), "{first}");
            assert!(!open(last), "{last}");
            for neighbour in [before, after].into_iter().flatten() {
                assert!(open(neighbour), "{neighbour}");
            }
        }
    }

    #[test]
    fn loopback_metadata_and_ipv4_in_disguise_are_refused_with_the_reason() {
        for (address, why) in [
            ("127.0.0.1", "loopback"),
            ("169.254.169.254", "link-local, cloud metadata"),
            ("169.254.170.2", "link-local, cloud metadata"),
            ("100.100.100.200", "shared address space (CGNAT)"),
            ("192.0.0.192", "protocol assignments"),
            ("::1", "loopback"),
            ("::", "unspecified"),
            ("::ffff:8.8.8.8", "an IPv4 address in disguise"),
            ("::ffff:127.0.0.1", "an IPv4 address in disguise"),
            ("::127.0.0.1", "an IPv4 address in disguise"),
            ("64:ff9b::7f00:1", "translated to IPv4 (NAT64)"),
            ("64:ff9b:1::1", "translated to IPv4 (NAT64)"),
            ("2002:7f00:1::", "translated to IPv4 (6to4)"),
            ("fd00:ec2::254", "a private network (ULA)"),
            ("fe80::1", "link-local"),
            ("ff02::1", "multicast"),
            ("100::1", "not a public address"),
            ("5f00::1", "not a public address"),
        ] {
            assert_eq!(refusal(address.parse().unwrap(), &[]), Some(why), "{address}");
        }
    }

    #[test]
    fn an_allowed_network_opens_itself_and_nothing_else() {
        let allowed: Vec<IpNet> = vec!["10.1.0.0/16".parse().unwrap(), "fd00::/64".parse().unwrap()];
        for (address, is_open) in [
            ("10.1.0.0", true),
            ("10.1.255.255", true),
            ("10.0.255.255", false),
            ("10.2.0.0", false),
            ("::ffff:10.1.0.1", false),
            ("fd00::1", true),
            ("fd00:0:0:1::", false),
        ] {
            assert_eq!(refusal(address.parse().unwrap(), &allowed).is_none(), is_open, "{address}");
        }
    }
}
