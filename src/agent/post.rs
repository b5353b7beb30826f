//! Signs one beat, sends it, and reads what came back.

use std::time::Duration;

use hb_wire::beat::{Beat, BeatAnswer};
use hb_wire::id::HostId;
use hb_wire::key::HostKey;
use hb_wire::nonce::Nonce;
use hb_wire::problem::{Code, Problem};
use hb_wire::signature::{self, CREATED_MAX, Message, Params, SignedHeaders};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::Timestamp;
use url::Url;

use crate::error::Failure;
use crate::http::tls::Floor;
use crate::http::trouble::{Kind, Trouble};
use crate::http::{Http, Options, Reply, Request, authority, check_scheme};
use crate::identity::Identity;

/// Longest answer to a beat that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// What to do when the server refuses this host.
pub const REFUSED_HINT: &str = "look at it with hb hosts show, or enrol anew: hb register --server URL --force";
/// What to do when an operator took this host out of service.
pub const RETIRED_HINT: &str =
    "it was taken out of service: give this machine a new identity: hb identity reset, then hb register --server URL";
/// What to do when this machine is a copy of another one.
pub const CLONED_HINT: &str = "give this machine a key of its own: hb identity reset, then hb register --server URL";

/// Sends the beats of one host.
#[derive(Debug)]
pub struct Post {
    http: Http,
    id: HostId,
    key: HostKey,
    urls: Vec<Url>,
}

/// One attempt.
#[derive(Debug)]
pub struct Attempt<'a> {
    /// To which of the URLs, counted from 0.
    pub endpoint: usize,
    /// What to say.
    pub beat: &'a Beat,
    /// What to spend.
    pub nonce: Nonce,
    /// For the whole exchange.
    pub timeout: Duration,
    /// The time by which a certificate is judged when the clock says that it is out of date.
    pub floor: Floor,
    /// The wall clock.
    pub wall: Timestamp,
}

/// What came back.
#[derive(Debug)]
pub enum Answer {
    /// The beat is stored.
    Stored {
        /// What the server said.
        answer: BeatAnswer,
        /// False when the connection was good only by the time floor.
        trusted: bool,
    },
    /// Another nonce is wanted.
    Stale {
        /// This one.
        next: Nonce,
        /// The server's time, when it may be believed.
        now: Option<Timestamp>,
    },
    /// This host is not wanted.
    Refused {
        /// The status.
        status: u16,
        /// Why, in one line.
        why: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// Later.
    Busy {
        /// The status.
        status: u16,
        /// Why, in one line.
        why: String,
        /// How much later, in seconds.
        retry_after_s: Option<u64>,
    },
    /// No answer, or not one of hb's.
    Failed(Trouble),
}

impl Post {
    /// Sends as `identity`, to its URLs.
    ///
    /// # Errors
    /// 78 when the options are unusable, or a URL may not be used.
    pub fn new(identity: Identity, options: Options) -> Result<Self, Failure> {
        let Identity { enrolled, key } = identity;
        for url in &enrolled.beat_urls {
            check_scheme(url, options.insecure_http).map_err(|what| {
                Failure::config(what).hint("enrol with an https server, or set insecure_http = true in agent.toml")
            })?;
        }
        Ok(Self { http: Http::new(options)?, id: enrolled.id, key, urls: enrolled.beat_urls })
    }

    /// Where beats go.
    pub fn urls(&self) -> &[Url] {
        &self.urls
    }

    /// The client, for other requests to the same server.
    pub fn http(&self) -> &Http {
        &self.http
    }

    /// Sends one beat.
    pub async fn send(&self, attempt: &Attempt<'_>) -> Answer {
        let Some(url) = self.urls.get(attempt.endpoint).or_else(|| self.urls.first()) else {
            return Answer::Failed(Trouble::new(Kind::Refused, "there is no address to beat to"));
        };
        let body = serde_json::to_vec(attempt.beat).expect("a beat has text keys and finite numbers");
        let keyid = self.id.to_string();
        let headers = signed_headers(&self.key, url, keyid, attempt.nonce, attempt.wall, &body);
        let request = Request {
            method: Method::POST,
            url,
            headers,
            body: Some(body),
            timeout: attempt.timeout,
            reply_bytes_max: ANSWER_BYTES_MAX,
        };
        match self.http.send(&request, Some(attempt.floor)).await {
            Ok(reply) => {
                let answer = read(&reply, url);
                if !is_ours(&answer, &reply) {
                    // Without another client the next beat is sent as this one was.
                    self.http.hang_up();
                }
                answer
            }
            Err(trouble) => Answer::Failed(trouble),
        }
    }
}

/// True when an hb server gave this reply, whatever it thinks of the beat.
fn is_ours(answer: &Answer, reply: &Reply) -> bool {
    match answer {
        Answer::Stored { .. } | Answer::Stale { .. } => true,
        Answer::Refused { .. } | Answer::Busy { .. } | Answer::Failed(_) => {
            reply.status != 200 && serde_json::from_slice::<Problem>(&reply.body).is_ok()
        }
    }
}

/// The headers of a signed JSON request to `url` (TRUST.md §4).
pub fn signed_headers(
    key: &HostKey,
    url: &Url,
    keyid: String,
    nonce: Nonce,
    wall: Timestamp,
    body: &[u8],
) -> HeaderMap {
    let authority = authority(url);
    let message = Message { method: "POST", authority: &authority, path: url.path(), body };
    // A clock before 1970 or after 9999 has no spelling in the profile; what it says is informational anyway.
    let params = Params { created: wall.as_second().clamp(0, CREATED_MAX), nonce, keyid };
    let SignedHeaders { content_digest, signature_input, signature } = signature::sign(key, &message, &params);
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in
        [("content-digest", content_digest), ("signature-input", signature_input), ("signature", signature)]
    {
        let value = HeaderValue::try_from(value).expect("base64, digits and quotes are visible ASCII");
        headers.insert(HeaderName::from_static(name), value);
    }
    headers
}

fn read(reply: &Reply, url: &Url) -> Answer {
    let place = url.origin().ascii_serialization();
    let not_ours = |what: &str| Answer::Failed(Trouble::new(Kind::NotOurs, format!("{place} {what}")));
    if reply.status == 200 {
        // Somebody else's 200 (a portal, a wrong virtual host) must not count as a stored beat.
        return match serde_json::from_slice::<BeatAnswer>(&reply.body) {
            Ok(answer) if Nonce::parse(&answer.next).is_ok() => Answer::Stored { answer, trusted: !reply.by_floor },
            _ => not_ours("answered 200, but not as an hb server does"),
        };
    }
    let problem: Option<Problem> = serde_json::from_slice(&reply.body).ok();
    match (reply.status, &problem) {
        (409, Some(problem)) if problem.code == Code::StaleNonce => match problem.next.as_deref().map(Nonce::parse) {
            Some(Ok(next)) => Answer::Stale { next, now: problem.now.filter(|_| !reply.by_floor) },
            _ => not_ours("answered 409 without a fresh nonce"),
        },
        (401 | 403 | 404 | 410, _) | (409, Some(_)) => {
            let hint = match problem.as_ref().map(|problem| problem.code) {
                Some(Code::Cloned) => CLONED_HINT,
                Some(Code::Retired) => RETIRED_HINT,
                Some(_) | None => REFUSED_HINT,
            };
            Answer::Refused { status: reply.status, why: why(reply.status, problem.as_ref()), hint }
        }
        (429 | 503, _) => {
            let header = reply.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
            let why = why(reply.status, problem.as_ref());
            Answer::Busy { status: reply.status, why, retry_after_s: header.or(problem.and_then(|p| p.retry_after_s)) }
        }
        (status, _) => {
            let detail = format!("{place} answered {}", why(status, problem.as_ref()));
            Answer::Failed(Trouble::new(Kind::Http(status), detail))
        }
    }
}

/// A refusal in one line that is safe to print.
pub fn why(status: u16, problem: Option<&Problem>) -> String {
    let text = match problem {
        Some(problem) if problem.detail.is_empty() => format!("{status} ({})", problem.code),
        Some(problem) => format!("{status} ({}): {}", problem.code, problem.detail),
        None => format!("{status}, and not as an hb server does"),
    };
    text.chars().filter(|char| !char.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str) -> Reply {
        Reply { status, headers: HeaderMap::new(), body: body.as_bytes().to_vec(), by_floor: false }
    }

    fn read_as(status: u16, body: &str) -> Answer {
        read(&reply(status, body), &Url::parse("https://hb.example.com/v1/beat").unwrap())
    }

    const STORED: &str = r#"{"next":"AAAAAAAAAAAAAAAAAAAAAQ","now":"2026-11-23T00:00:00Z","interval_s":60}"#;

    #[test]
    fn only_an_answer_of_hbs_own_counts_as_stored() {
        assert!(matches!(read_as(200, STORED), Answer::Stored { trusted: true, .. }));
        for portal in
            ["", "<html>Welcome</html>", "{}", "null", r#"{"next":"x","now":"2026-11-23T00:00:00Z","interval_s":60}"#]
        {
            assert!(matches!(read_as(200, portal), Answer::Failed(Trouble { kind: Kind::NotOurs, .. })), "{portal}");
        }
        for status in [201, 204, 301, 302, 307] {
            assert!(matches!(read_as(status, STORED), Answer::Failed(Trouble { kind: Kind::Http(_), .. })), "{status}");
        }
    }

    #[test]
    fn a_409_is_stale_only_with_a_nonce_and_a_refusal_with_another_code() {
        let problem = |code: &str, next: &str| format!(r#"{{"code":"{code}","next":"{next}"}}"#);
        assert!(matches!(read_as(409, &problem("stale_nonce", "AAAAAAAAAAAAAAAAAAAAAQ")), Answer::Stale { .. }));
        assert!(matches!(read_as(409, &problem("stale_nonce", "no")), Answer::Failed(_)));
        assert!(matches!(read_as(409, &problem("cloned", "")), Answer::Refused { status: 409, .. }));
        assert!(matches!(read_as(409, "<html>"), Answer::Failed(_)));
    }

    #[test]
    fn each_status_has_its_reaction() {
        for status in [401, 403, 404, 410] {
            assert!(matches!(read_as(status, ""), Answer::Refused { .. }), "{status}");
        }
        assert!(matches!(
            read_as(503, r#"{"code":"unavailable","retry_after_s":7}"#),
            Answer::Busy { retry_after_s: Some(7), .. }
        ));
        let mut busy = reply(429, "");
        busy.headers.insert(RETRY_AFTER, HeaderValue::from_static("12"));
        let url = Url::parse("https://h/").unwrap();
        assert!(matches!(read(&busy, &url), Answer::Busy { retry_after_s: Some(12), .. }));
        for status in [400, 413, 500, 502, 504] {
            assert!(matches!(read_as(status, ""), Answer::Failed(Trouble { kind: Kind::Http(_), .. })), "{status}");
        }
    }

    #[test]
    fn a_connection_by_which_somebody_else_answers_is_not_kept() {
        let ours = |status, body| is_ours(&read_as(status, body), &reply(status, body));
        let problem = r#"{"code":"unavailable","retry_after_s":7}"#;
        assert!(ours(200, STORED) && ours(503, problem) && ours(403, r#"{"code":"forbidden"}"#));
        for portal in [(200, "<html>Welcome</html>"), (200, problem), (503, "<html>"), (403, ""), (302, "")] {
            assert!(!ours(portal.0, portal.1), "{portal:?}");
        }
    }

    #[test]
    fn what_a_stranger_says_cannot_reach_the_terminal_or_fill_the_log() {
        let said = why(404, Some(&Problem::new(Code::NotFound, format!("\u{1b}[31m{}", "x".repeat(10_000)))));
        assert!(!said.contains('\u{1b}') && said.chars().count() <= 300);
    }

    #[test]
    fn a_clock_out_of_all_bounds_still_signs() {
        let key = HostKey::from_seed([1; 32]);
        let url = Url::parse("https://hb.example.com/v1/beat").unwrap();
        for wall in [Timestamp::MIN, Timestamp::MAX] {
            let headers = signed_headers(&key, &url, "k".to_owned(), Nonce::NONE, wall, b"{}");
            let get = |name: &str| headers.get(name).unwrap().to_str().unwrap();
            signature::parse(get("content-digest"), get("signature-input"), get("signature")).unwrap();
        }
    }
}
