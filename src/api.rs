//! The management API, as the operators' commands see it.
//!
//! Pages are followed, reads are tried again, and every answer that is not the wanted one becomes a [`Failure`] that
//! says what to do. Unless the answer is for a program, everything in it is made safe to print here, once, for all
//! commands.

use core::cell::Cell;
use std::time::Duration;

use hb_wire::problem::Problem;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::runtime::Runtime;
use url::Url;

use crate::context::Ctx;
use crate::error::Failure;
use crate::http::trouble::Kind;
use crate::http::{self as https, Http, Options, Reply, Request};
use crate::output::text;
use crate::profile::{self, Choice, Target};

mod hosts;
mod refusal;
mod routes;

pub use hosts::{Filter, matches};

/// Longest time for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest answer, in bytes: a full page of hosts is well below.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Pauses before a read is tried again; their number limits the attempts.
const RETRY_PAUSES_MS: [u64; 2] = [200, 1_000];
/// Longest `Retry-After` that a command waits for.
const RETRY_AFTER_S_MAX: u64 = 5;
/// Entries asked for per page.
const PAGE_LIMIT: &str = "1000";
/// Pages that are followed at most: a million entries.
const PAGES_MAX: usize = 1_000;

/// A connection to one server with one key.
#[derive(Debug)]
pub struct Api<'a> {
    ctx: &'a Ctx,
    runtime: Runtime,
    http: Http,
    target: Target,
    /// The server's time when it last answered.
    heard_at: Cell<Option<Timestamp>>,
}

/// Part of a query: name and value.
pub type Param<'a> = (&'a str, &'a str);

impl<'a> Api<'a> {
    /// Connects as the environment and the profiles say.
    ///
    /// # Errors
    /// 78 when they name no usable server.
    pub fn connect(ctx: &'a Ctx, choice: &Choice) -> Result<Self, Failure> {
        Self::to(ctx, profile::target(ctx, choice)?)
    }

    /// Connects to a given server.
    ///
    /// # Errors
    /// 78 when the pin or the CA file is unusable, or plain http is not allowed.
    pub fn to(ctx: &'a Ctx, target: Target) -> Result<Self, Failure> {
        let pin = target.transport.pin.as_deref().map(str::parse).transpose();
        let options = Options {
            ca_file: target.transport.ca_file.clone(),
            pin: pin.map_err(|error| {
                Failure::config(format!("the server's pin is not one: {error}"))
                    .hint("correct HB_PIN, or save the right one: `hb login URL --pin sha256:…`")
            })?,
            insecure_http: target.transport.insecure_http,
            ..Options::default()
        };
        if let (Some(file), Some(_)) = (&options.ca_file, &options.pin) {
            // The pin alone decides; a file that could not be used is an error all the same, as without a pin.
            https::tls::Tls::new(Some(file), None)?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
            Failure::failed(format!("the system gave no resources to connect with: {error}"))
                .hint("see the limits on processes and open files (ulimit -a)")
        })?;
        Ok(Self { ctx, runtime, http: Http::new(options)?, target, heard_at: Cell::new(None) })
    }

    /// The server and the key in use.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The time by which the answers are to be read: the server's own, where it said so, since all moments in them are
    /// of its clock and this machine's may be wrong.
    pub fn now(&self) -> Timestamp {
        self.heard_at.get().unwrap_or_else(|| self.ctx.now())
    }

    /// Reads; tried again when the server was not reached or is not available.
    fn read<T: DeserializeOwned>(&self, path: &str, query: &[Param<'_>]) -> Result<T, Failure> {
        let url = self.url(path, query);
        let mut pauses = RETRY_PAUSES_MS.iter();
        loop {
            let outcome = self.attempt(&Method::GET, &url, None);
            let Some(&pause_ms) = pauses.next() else { return outcome?.read(self) };
            let pause = match &outcome {
                Ok(answer) => answer.retry_in().map(|asked| asked.max(Duration::from_millis(pause_ms))),
                // A refused certificate or scheme is refused the next time, too.
                Err(failure) => failure.passing.then(|| Duration::from_millis(pause_ms)),
            };
            let Some(pause) = pause else { return outcome?.read(self) };
            self.ctx.printer.detail(&format!("GET {url}: no answer yet, trying again in {} ms", pause.as_millis()));
            std::thread::sleep(pause);
        }
    }

    /// Changes; tried once, since an answer that was lost says nothing about what was done.
    fn change<T: DeserializeOwned>(&self, method: &Method, path: &str, body: Option<Vec<u8>>) -> Result<T, Failure> {
        self.attempt(method, &self.url(path, &[]), body)?.read(self)
    }

    /// Changes, where there is nothing to read in the answer.
    fn order(&self, method: &Method, path: &str) -> Result<(), Failure> {
        self.attempt(method, &self.url(path, &[]), None)?.accepted(self)
    }

    fn attempt(&self, method: &Method, url: &Url, body: Option<Vec<u8>>) -> Result<Answer, NoAnswer> {
        self.ctx.printer.detail(&format!("{method} {url}"));
        let request = Request {
            method: method.clone(),
            url,
            headers: self.headers(body.is_some()),
            body,
            timeout: ANSWER_TIMEOUT,
            reply_bytes_max: ANSWER_BYTES_MAX,
        };
        match self.runtime.block_on(self.http.send(&request, None)) {
            Ok(reply) => {
                let date = reply.headers.get(DATE).and_then(|date| date.to_str().ok());
                let date = date.and_then(|date| rfc2822::parse(date).ok());
                self.heard_at.set(date.map(|date| date.timestamp()));
                Ok(Answer { reply, method: method.clone(), url: url.clone() })
            }
            Err(trouble) => Err(NoAnswer {
                passing: matches!(trouble.kind, Kind::Dns | Kind::Connect | Kind::Proxy),
                failure: trouble.into_failure(),
            }),
        }
    }

    fn headers(&self, with_body: bool) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let bearer = format!("Bearer {}", self.target.key.expose());
        let mut bearer = HeaderValue::try_from(bearer).expect("a parsed key is letters, digits and '_'");
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if with_body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        headers
    }

    fn url(&self, path: &str, query: &[Param<'_>]) -> Url {
        let mut url = https::join(&self.target.server, path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// Follows the pages of a list until `take` says that it has enough.
    fn pages<P: Page + DeserializeOwned>(
        &self,
        path: &str,
        query: &[Param<'_>],
        mut take: impl FnMut(P) -> bool,
    ) -> Result<(), Failure> {
        let mut cursor: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let mut query = query.to_vec();
            query.push(("limit", PAGE_LIMIT));
            if let Some(cursor) = &cursor {
                query.push(("cursor", cursor));
            }
            let mut page: P = self.read(path, &query)?;
            let next = page.next_cursor();
            if !take(page) || next.is_none() {
                return Ok(());
            }
            if next == cursor {
                return Err(Failure::failed("the server sends the same page again and again").hint("see its log"));
            }
            cursor = next;
        }
        Err(Failure::failed(format!("the list is longer than {PAGES_MAX} pages")).hint("narrow it with a filter"))
    }
}

/// A page of a list.
trait Page {
    /// Where the next one begins.
    fn next_cursor(&mut self) -> Option<String>;
}

/// A request without an answer, and whether the next attempt may fare better.
struct NoAnswer {
    failure: Failure,
    passing: bool,
}

impl From<NoAnswer> for Failure {
    fn from(none: NoAnswer) -> Self {
        none.failure
    }
}

/// An answer, whatever it says.
struct Answer {
    reply: Reply,
    method: Method,
    url: Url,
}

impl Answer {
    /// How long to wait before asking again, where that may help.
    fn retry_in(&self) -> Option<Duration> {
        if !matches!(self.reply.status, 502..=504) {
            return None;
        }
        let asked = self.reply.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let seconds: u64 = asked.unwrap_or(0);
        (seconds <= RETRY_AFTER_S_MAX).then(|| Duration::from_secs(seconds))
    }

    fn accepted(self, api: &Api<'_>) -> Result<(), Failure> {
        match self.reply.status {
            200..=299 => Ok(()),
            status => {
                let problem: Option<Problem> = self.json(api).ok();
                Err(refusal::failure(status, problem, &self.method, &self.url, &self.reply.headers))
            }
        }
    }

    fn read<T: DeserializeOwned>(self, api: &Api<'_>) -> Result<T, Failure> {
        if !matches!(self.reply.status, 200..=299) {
            self.accepted(api)?;
            return Err(Failure::bug("a refusal was taken for an answer"));
        }
        self.json(api).map_err(|error| {
            let what = format!("{} did not answer as an hb server does: {error}", self.url);
            Failure::unreachable(what)
                .hint("check the server's URL; if it is right, compare `hb --version` with the server's")
        })
    }

    /// The body, made safe to print unless it is for a program.
    fn json<T: DeserializeOwned>(&self, api: &Api<'_>) -> Result<T, serde_json::Error> {
        if api.ctx.json {
            return serde_json::from_slice(&self.reply.body);
        }
        let value: Value = serde_json::from_slice(&self.reply.body)?;
        serde_json::from_value(text::visible_value(value))
    }
}

/// A body. hb's own requests are always JSON: plain structs with string keys.
fn body<T: Serialize>(request: &T) -> Vec<u8> {
    serde_json::to_vec(request).expect("hb's requests have string keys and finite numbers")
}
