//! The proxy on the way to a server: where it comes from, and what of it may be shown.
//!
//! The configuration goes before the environment (read as curl does), and that before what an enrolment
//! remembers: a service and cron have no environment that names a proxy.

use core::fmt;

use base64ct::{Base64, Encoding};
use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::error::Failure;
use crate::http::Options;

/// The URL of a proxy as it was given, with the password that may stand in it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProxyUrl(String);

impl ProxyUrl {
    /// Anything: whether it is a URL is found out when it is used.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// With the password.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// True when a user, and most likely a password, stands in it.
    pub fn has_login(&self) -> bool {
        self.0.contains('@')
    }

    /// Without user and password, also when it is no URL.
    pub fn shown(&self) -> String {
        let (scheme, rest) = match self.0.split_once("://") {
            // What stands before an @ may be a password with :// in it.
            Some((scheme, rest)) if !scheme.contains('@') && !scheme.contains(':') => (format!("{scheme}://"), rest),
            _ => (String::new(), &*self.0),
        };
        let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
        format!("{scheme}{place}")
    }

    /// Where the proxy is, and how to log in there.
    ///
    /// # Errors
    /// 78 when it is not a URL.
    pub(super) fn route(&self) -> Result<Route, Failure> {
        self.parse().ok_or_else(|| {
            // Without a reason: one could quote the URL.
            Failure::config(format!("proxy {:?} is not a URL of http or https", self.shown()))
                .hint("write it like proxy = \"http://proxy.example.com:3128\"")
        })
    }

    fn parse(&self) -> Option<Route> {
        let whole = if self.0.contains("://") { self.0.clone() } else { format!("http://{}", self.0) };
        let url = Url::parse(&whole).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
        let place = format!("{}:{}", url.host_str()?, url.port_or_known_default()?);
        let proxy = Uri::builder().scheme(url.scheme()).authority(place).path_and_query("/").build().ok()?;
        let mut login = None;
        if self.has_login() {
            let mut pair: Vec<u8> = percent_decode_str(url.username()).collect();
            pair.push(b':');
            pair.extend(percent_decode_str(url.password().unwrap_or_default()));
            let mut value = HeaderValue::try_from(format!("Basic {}", Base64::encode_string(&pair))).ok()?;
            value.set_sensitive(true);
            login = Some(value);
        }
        Some(Route { proxy, login })
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.shown())
    }
}

/// A proxy, and the list of what is reached without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The proxy.
    pub proxy: ProxyUrl,
    /// As `NO_PROXY` is written.
    pub no_proxy: Option<String>,
}

impl Way {
    /// True when a request to `url` goes through the proxy, false when it is excepted.
    pub fn intercepts(&self, url: &Url) -> bool {
        let Ok(uri) = url.as_str().parse::<Uri>() else { return false };
        let no_proxy = self.no_proxy.as_deref().unwrap_or_default();
        // Only for what is excepted: it takes fewer texts for the URL of a proxy than `route` does.
        Matcher::builder().all("http://proxy.invalid").no(no_proxy).build().intercept(&uri).is_some()
    }
}

/// A proxy, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// Scheme, host and port.
    pub(super) proxy: Uri,
    /// What it is told about who asks.
    pub(super) login: Option<HeaderValue>,
}

/// The ways of one client, by the scheme of what is asked for.
#[derive(Debug, Clone)]
pub struct Ways {
    http: Option<Way>,
    https: Option<Way>,
}

impl Ways {
    /// As the options and the environment of this process say.
    ///
    /// # Errors
    /// 78 when the configured proxy is not a URL. One of the environment's is found out only if a request has to go through it: it
    /// was written for other programs as well.
    pub fn of_process(options: &Options) -> Result<Self, Failure> {
        if let Some(proxy) = &options.proxy {
            proxy.route()?;
        }
        Ok(Self::find(options, |name| std::env::var(name).ok()))
    }

    fn find(options: &Options, lookup: impl Fn(&str) -> Option<String>) -> Self {
        // A CGI program gets a header `Proxy:` of its caller as HTTP_PROXY: then the environment is nobody's word.
        let is_cgi = lookup("REQUEST_METHOD").is_some();
        let set = |names: [&str; 2]| {
            names.iter().filter(|_| !is_cgi).find_map(|name| lookup(name).filter(|value| !value.is_empty()))
        };
        let except = options.no_proxy.clone().or_else(|| set(["NO_PROXY", "no_proxy"]));
        let named = |names| set(names).filter(|text| is_usable(text)).map(ProxyUrl::new);
        let way = |names| {
            let proxy = options.proxy.clone().or_else(|| named(names)).or_else(|| named(["ALL_PROXY", "all_proxy"]));
            match (proxy, &options.remembered) {
                (Some(proxy), _) => Some(Way { proxy, no_proxy: except.clone() }),
                (None, Some(way)) => {
                    let no_proxy = except.clone().or_else(|| way.no_proxy.clone());
                    Some(Way { proxy: way.proxy.clone(), no_proxy })
                }
                (None, None) => None,
            }
        };
        Self { http: way(["HTTP_PROXY", "http_proxy"]), https: way(["HTTPS_PROXY", "https_proxy"]) }
    }

    /// True when a proxy among them speaks TLS itself.
    pub(super) fn is_encrypted(&self) -> bool {
        let is_https =
            |way: &Way| way.proxy.expose().get(..8).is_some_and(|head| head.eq_ignore_ascii_case("https://"));
        [&self.http, &self.https].into_iter().flatten().any(is_https)
    }

    /// The way that a request to `url` goes; none when it goes through no proxy.
    pub fn to(&self, url: &Url) -> Option<&Way> {
        let way = if url.scheme() == "http" { &self.http } else { &self.https };
        way.as_ref().filter(|way| way.intercepts(url))
    }
}

/// What the environment says otherwise is passed over, as all programs do.
fn is_usable(text: &str) -> bool {
    Matcher::builder().all(text).build().intercept(&Uri::from_static("https://hb.invalid/")).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    /// The proxy for `to`, and what is excepted from it.
    fn found(options: &Options, env: &[(&str, &str)], to: &str) -> Option<(String, String)> {
        let ways = Ways::find(options, |name| env.iter().find(|(set, _)| *set == name).map(|(_, to)| (*to).to_owned()));
        ways.to(&url(to))
            .map(|way| (way.proxy.expose().to_owned(), way.no_proxy.as_deref().unwrap_or_default().to_owned()))
    }

    #[test]
    fn the_configuration_goes_before_the_environment_and_that_before_what_is_remembered() {
        let remembered = Way { proxy: ProxyUrl::new("http://old:1"), no_proxy: Some("near.example".to_owned()) };
        let mut options = Options { remembered: Some(remembered), ..Options::default() };
        let (far, near) = ("https://hb.example.com/", "https://near.example/");
        let is = |proxy: &str, except: &str| Some((proxy.to_owned(), except.to_owned()));
        assert_eq!(found(&Options::default(), &[], far), None);
        assert_eq!(found(&options, &[], far), is("http://old:1", "near.example"));
        assert_eq!(found(&options, &[], near), None);
        assert_eq!(
            found(&options, &[("HTTPS_PROXY", "")], far),
            is("http://old:1", "near.example"),
            "empty is not set"
        );
        assert_eq!(found(&options, &[("HTTPS_PROXY", "a b")], far), is("http://old:1", "near.example"));
        assert_eq!(found(&options, &[("HTTP_PROXY", "http://env:1")], far), is("http://old:1", "near.example"));
        assert_eq!(found(&options, &[("NO_PROXY", "x")], near), is("http://old:1", "x"));
        assert_eq!(found(&options, &[("NO_PROXY", "*")], far), None);
        for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
            let env = [(name, "http://env:1")];
            assert_eq!(
                found(&options, &env, near),
                is("http://env:1", ""),
                "{name}: the exceptions belong to the proxy"
            );
            let cgi = [(name, "http://env:1"), ("REQUEST_METHOD", "GET")];
            assert_eq!(found(&options, &cgi, far), is("http://old:1", "near.example"), "{name}");
        }
        options.proxy = Some(ProxyUrl::new("http://file:1"));
        let env = [("HTTPS_PROXY", "http://env:1"), ("NO_PROXY", "x")];
        assert_eq!(found(&options, &env, near), is("http://file:1", "x"));
        options.no_proxy = Some("*".to_owned());
        assert_eq!(found(&options, &env, near), None);
    }

    #[test]
    fn no_proxy_is_passed_by_for_the_way_that_it_is_written() {
        for given in [
            "http://u:p^w@proxy",
            "http://u:p\u{e4}@proxy",
            "proxy:3128/",
            "http://pr\u{f6}xy.example",
            "socks5://proxy",
        ] {
            let options = Options { proxy: Some(ProxyUrl::new(given)), ..Options::default() };
            assert_eq!(found(&options, &[], "https://hb.example.com/").map(|(proxy, _)| proxy).as_deref(), Some(given));
            assert_eq!(Ways::of_process(&options).is_err(), given.starts_with("socks"), "{given}");
        }
        // Of the environment, it stands in the way only of what would go through it.
        let env = [("HTTPS_PROXY", "http://env:1"), ("ALL_PROXY", "socks5://env:2")];
        let (http, https) = ("http://hb.example.com/", "https://hb.example.com/");
        assert_eq!(found(&Options::default(), &env, https).unwrap().0, "http://env:1");
        assert_eq!(found(&Options::default(), &env, http).unwrap().0, "socks5://env:2");
    }

    #[test]
    fn a_proxy_is_a_place_and_perhaps_a_login() {
        let route = |text: &str| {
            let route = ProxyUrl::new(text).route().ok()?;
            let login = route.login.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
            Some((route.proxy.to_string(), login))
        };
        for (given, place, login) in [
            ("http://proxy.example.com:3128", "http://proxy.example.com:3128/", ""),
            ("proxy:3128/", "http://proxy:3128/", ""),
            ("https://proxy", "https://proxy:443/", ""),
            ("http://[2001:db8::1]", "http://[2001:db8::1]:80/", ""),
            // RFC 7617, section 2: user Aladdin, password "open sesame".
            ("http://Aladdin:open%20sesame@proxy", "http://proxy:80/", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            ("u:s@cret@proxy:3128", "http://proxy:3128/", "Basic dTpzQGNyZXQ="),
            ("http://u@proxy", "http://proxy:80/", "Basic dTo="),
        ] {
            assert_eq!(route(given), Some((place.to_owned(), login.to_owned())), "{given}");
        }
        for wrong in ["", "http://", "http://[", "socks5://proxy", "a b", "http://proxy:99999"] {
            assert_eq!(route(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_password_is_shown_in_no_way() {
        for (given, shown) in [
            ("http://proxy.example.com:3128", "http://proxy.example.com:3128"),
            ("http://u:s3cret@proxy:3128", "http://proxy:3128"),
            ("u:s3cret@proxy:3128", "proxy:3128"),
            ("u:s3cret://x@proxy", "proxy"),
            ("http://u:s3cret@s3cret@proxy:3128/", "http://proxy:3128/"),
            ("http://u:s3cret/@[", "http://["),
        ] {
            let proxy = ProxyUrl::new(given);
            assert_eq!(proxy.shown(), shown, "{given}");
            let way = Way { proxy, no_proxy: None };
            let options =
                Options { remembered: Some(way.clone()), proxy: Some(way.proxy.clone()), ..Options::default() };
            let error = Ways::of_process(&options).err();
            let said = format!("{options:?} {way:?} {error:?}");
            assert!(!said.contains("s3cret"), "{said}");
            assert_eq!(way.proxy.has_login(), given != shown);
        }
    }
}
