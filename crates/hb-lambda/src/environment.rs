//! What a function is told by its environment, and what it says when that is wrong.

use url::Url;

/// Most shards, as the store has it.
const SHARDS_MAX: u16 = hb_store_dynamodb::SHARDS_MAX;

/// What a function is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// `HB_TABLE`: the table's name.
    pub table: String,
    /// `HB_SHARDS`: partitions over which the hosts are spread. 16.
    pub shards: u16,
    /// `AWS_REGION`: set by Lambda.
    pub region: String,
    /// `HB_BEAT_URLS`: where hosts beat, separated by commas; the first is this region's `ingest`.
    pub beat_urls: Vec<Url>,
    /// `HB_TOPIC_ARN`: the SNS topic of e-mail and SMS. None: those channels do not work.
    pub topic: Option<String>,
    /// The other region, where there are two.
    pub peer: Option<Peer>,
    /// `HB_LOG`: `error`, `warn`, `info` or `debug`. `warn`.
    pub log: String,
}

/// The region beside this one, whose functions look after the same table. All of it is told, or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// `HB_PEER_REGION`: its name.
    pub region: String,
    /// `HB_PEER_URL`: the base URL of its `api`.
    pub url: Url,
    /// `HB_PEER_TOPIC_ARN`: its SNS topic.
    pub topic: String,
}

impl Environment {
    /// Reads it by `get`.
    ///
    /// # Errors
    /// Which variable is wrong, and what it should be.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let text = |name: &str| get(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let need = |name: &str, what: &str| text(name).ok_or_else(|| format!("{name} is not set: it is {what}"));
        let url = |name: &str, value: &str| {
            let parsed =
                Url::parse(value).ok().filter(|url| url.has_host() && matches!(url.scheme(), "https" | "http"));
            parsed.ok_or_else(|| format!("{name} holds {value:?}, which is no URL: write https://…"))
        };
        let shards = match text("HB_SHARDS") {
            None => 16,
            Some(value) => value
                .parse()
                .ok()
                .filter(|shards| (1..=SHARDS_MAX).contains(shards))
                .ok_or_else(|| format!("HB_SHARDS is {value:?}: write a number from 1 to {SHARDS_MAX}"))?,
        };
        let beat_urls = text("HB_BEAT_URLS").unwrap_or_default();
        let beat_urls = beat_urls.split(',').map(str::trim).filter(|value| !value.is_empty());
        let region = need("AWS_REGION", "set by Lambda itself")?;
        let peer = match (text("HB_PEER_REGION"), text("HB_PEER_URL"), text("HB_PEER_TOPIC_ARN")) {
            (None, None, None) => None,
            (Some(peer), Some(_), Some(_)) if peer == region => {
                return Err(format!("HB_PEER_REGION is {peer:?}, which is this region: write the other one"));
            }
            (Some(region), Some(base), Some(topic)) => Some(Peer { region, url: url("HB_PEER_URL", &base)?, topic }),
            _ => {
                return Err("HB_PEER_REGION, HB_PEER_URL and HB_PEER_TOPIC_ARN go together: set all or none".to_owned());
            }
        };
        let log = text("HB_LOG").unwrap_or_else(|| "warn".to_owned());
        if !["error", "warn", "info", "debug"].contains(&log.as_str()) {
            return Err(format!("HB_LOG is {log:?}: write error, warn, info or debug"));
        }
        Ok(Self {
            table: need("HB_TABLE", "the name of the table")?,
            shards,
            region,
            beat_urls: beat_urls.map(|value| url("HB_BEAT_URLS", value)).collect::<Result<_, _>>()?,
            topic: text("HB_TOPIC_ARN"),
            peer,
            log,
        })
    }
}

/// The authority that a signature for this URL covers: host and port in lower case, the scheme's own port left out
/// (RFC 9421, section 2.2.3).
#[must_use]
pub fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &[(&str, &str)]) -> Result<Environment, String> {
        Environment::read(|name| set.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned()))
    }

    const NEEDED: [(&str, &str); 2] = [("HB_TABLE", "hb-table-of-mine"), ("AWS_REGION", "eu-central-1")];

    #[test]
    fn what_is_not_said_has_its_default() {
        let read = read(&NEEDED).unwrap();
        assert_eq!((read.shards, read.log.as_str(), read.beat_urls.len()), (16, "warn", 0));
        assert_eq!((read.topic, read.peer), (None, None));
    }

    #[test]
    fn a_wrong_value_is_named_with_what_it_should_be() {
        for (name, value, said) in [
            ("HB_SHARDS", "0", "HB_SHARDS is \"0\": write a number from 1 to 256"),
            ("HB_SHARDS", "many", "HB_SHARDS is \"many\""),
            ("HB_BEAT_URLS", "https://a.example,b", "HB_BEAT_URLS holds \"b\", which is no URL"),
            ("HB_PEER_URL", "https://a.example", "HB_PEER_REGION, HB_PEER_URL and HB_PEER_TOPIC_ARN go together"),
            ("HB_LOG", "loud", "HB_LOG is \"loud\""),
        ] {
            let error = read(&[&NEEDED[..], &[(name, value)]].concat()).unwrap_err();
            assert!(error.starts_with(said), "{error}");
        }
        let peer = |region, url| {
            let set = [("HB_PEER_REGION", region), ("HB_PEER_URL", url), ("HB_PEER_TOPIC_ARN", "arn:aws:sns:x:1:hb")];
            read(&[&NEEDED[..], &set].concat())
        };
        assert!(peer("eu-central-1", "https://a.example").unwrap_err().contains("this region"));
        assert!(peer("eu-west-1", "a.example").unwrap_err().contains("no URL"));
        assert_eq!(peer("eu-west-1", "https://a.example").unwrap().peer.unwrap().region, "eu-west-1");
        for (missing, _) in NEEDED {
            let rest: Vec<_> = NEEDED.into_iter().filter(|(name, _)| *name != missing).collect();
            assert!(read(&rest).unwrap_err().starts_with(&format!("{missing} is not set")));
        }
    }

    #[test]
    fn several_urls_are_separated_by_commas() {
        let set = [&NEEDED[..], &[("HB_BEAT_URLS", "https://a.example/, https://b.example:8443 ,")]].concat();
        let urls = read(&set).unwrap().beat_urls;
        assert_eq!(urls.iter().map(authority).collect::<Vec<_>>(), ["a.example", "b.example:8443"]);
    }
}
