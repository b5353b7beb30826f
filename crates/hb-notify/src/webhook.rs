//! Webhooks: one signed POST, to a receiver that is allowed, without redirects and without a proxy.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use async_trait::async_trait;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, redirect, retry};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};
use sha2::Sha256;
use url::{Host, Url};

use crate::address::{Guard, Refused, Wire};
use crate::channel::{Channel, Letter, SendError};
use crate::rules::Rules;
use crate::settings::{Fields, SettingsError};
use crate::template::{self, Filling};
use crate::text::visible;
use crate::webhook::verdict::{REPLY_TIMEOUT, describe, discard, failure, judge, retry_after_s};
use crate::{Kind, template::TooLong};

mod verdict;

/// The header with which a receiver checks that a message is ours: `t=<unix seconds>,v1=<hex>`. See [`signature`].
pub const SIGNATURE_HEADER: &str = "hb-signature";
/// Longest URL, in bytes.
const URL_BYTES_MAX: usize = 2_048;
/// Most headers that an operator may add.
const HEADERS_MAX: usize = 20;
/// Longest value of such a header once filled, in characters; what is longer is cut.
const HEADER_CHARS_MAX: usize = 1_024;
/// Shortest and longest signing secret, in characters.
const SECRET_CHARS: core::ops::RangeInclusive<usize> = 16..=256;
/// Headers that are the connection's or hb's own; all that begin with `hb-`, `proxy-` or `sec-` are refused as well.
const OWN_HEADERS: [&str; 13] = [
    "connection",
    "content-length",
    "content-encoding",
    "date",
    "expect",
    "host",
    "idempotency-key",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

pub(crate) const KIND: Kind = Kind { name: "webhook", fields: &["url", "headers", "body", "secret"], complete, open };

/// The value of `Hb-Signature`: HMAC-SHA256, keyed with the whole secret as shown (`whsec_` included), over the time, a
/// full stop and the body's bytes. Receivers compare in constant time, and refuse a `t` that is minutes old.
#[must_use]
pub fn signature(secret: &str, unix_s: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(unix_s.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    format!("t={unix_s},v1={}", hex(&mac.finalize().into_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Makes the signing secret that the operator did not bring.
fn complete(settings: &mut Map<String, Value>, random: [u8; 32]) -> Option<SecretString> {
    if settings.get("secret").is_some_and(|secret| !secret.is_null()) {
        return None;
    }
    let secret = format!("whsec_{}", hex(&random));
    settings.insert("secret".to_owned(), Value::from(secret.as_str()));
    Some(SecretString::from(secret))
}

/// What is sent.
enum Body {
    /// The notice as it is.
    Notice,
    /// A JSON template.
    Json(Value),
    /// A text template, for receivers that take a plain text.
    Text(String),
}

struct Webhook {
    url: Url,
    /// Names, and templates of values.
    headers: Vec<(HeaderName, String)>,
    body: Body,
    secret: SecretString,
    guard: Guard,
    client: Client,
    timeout: Duration,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("target", &self.target()).finish_non_exhaustive()
    }
}

fn open(fields: &Fields<'_>, rules: &Rules) -> Result<Arc<dyn Channel>, SettingsError> {
    let url = read_url(fields)?;
    let wire = if url.scheme() == "https" { Wire::Encrypted } else { Wire::Plain };
    let allowed = rules.allow_networks.clone().into();
    let guard = Guard { allowed, wire, lookup: Arc::clone(&rules.lookup) };
    let secret = fields.required("secret")?;
    if !SECRET_CHARS.contains(&secret.len()) || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        let (least, most) = (SECRET_CHARS.start(), SECRET_CHARS.end());
        return Err(fields.wrong("secret", format!("must be {least} to {most} visible ASCII characters")));
    }
    let client = client(rules, guard.clone()).map_err(|error| fields.wrong("url", describe(error)))?;
    Ok(Arc::new(Webhook {
        url,
        headers: read_headers(fields)?,
        body: read_body(fields)?,
        secret: SecretString::from(secret),
        guard,
        client,
        timeout: rules.webhook_timeout,
    }))
}

fn read_url(fields: &Fields<'_>) -> Result<Url, SettingsError> {
    let wrong = |problem: &str| fields.wrong("url", problem);
    let text = fields.required("url")?;
    if text.len() > URL_BYTES_MAX {
        return Err(wrong("is longer than 2048 bytes"));
    }
    if text.contains("{{") {
        return Err(wrong("must not be a template: where an alert goes may not depend on what is in it"));
    }
    // Url::parse drops line breaks and tabs silently; a URL that holds any was not meant.
    if text.chars().any(|c| c.is_whitespace() || visible(c) != c) {
        return Err(wrong("must not hold spaces or invisible characters"));
    }
    let url = Url::parse(text).map_err(|error| wrong(&format!("is not a URL: {error}")))?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err(wrong("must begin with https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("must not hold a user or password: use headers, as in {\"Authorization\":\"Basic …\"}"));
    }
    Ok(url)
}

fn read_headers(fields: &Fields<'_>) -> Result<Vec<(HeaderName, String)>, SettingsError> {
    let Some(map) = fields.object("headers")? else { return Ok(Vec::new()) };
    let wrong = |problem: String| fields.wrong("headers", problem);
    if map.len() > HEADERS_MAX {
        return Err(wrong(format!("are more than {HEADERS_MAX}")));
    }
    let mut headers = Vec::with_capacity(map.len());
    for (name, value) in map {
        let shown = crate::text::one_line(name, 40);
        let name =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong(format!("{shown:?} is not a header's name")))?;
        let word = name.as_str();
        if OWN_HEADERS.contains(&word) || ["hb-", "proxy-", "sec-"].iter().any(|own| word.starts_with(own)) {
            return Err(wrong(format!("{word} is set by hb itself or by the connection")));
        }
        let Value::String(value) = value else { return Err(wrong(format!("{word} must be a text"))) };
        if value.chars().any(|c| visible(c) != c) {
            return Err(wrong(format!("{word} must not hold line breaks or invisible characters")));
        }
        template::check(&Value::from(value.as_str())).map_err(|error| wrong(format!("{word}: {}", error.0)))?;
        headers.push((name, value.clone()));
    }
    Ok(headers)
}

fn read_body(fields: &Fields<'_>) -> Result<Body, SettingsError> {
    let Some(body) = fields.value("body") else { return Ok(Body::Notice) };
    let wrong = |problem: String| fields.wrong("body", problem);
    let body = match body {
        // A JSON template that was typed as a text, as command lines do. Filling it as a text would let a name break
        // out of its quotes, so what looks like JSON must be JSON.
        Value::String(text) if text.trim_start().starts_with(['{', '[']) && !text.trim_start().starts_with("{{") => {
            let parsed = serde_json::from_str(text);
            Body::Json(parsed.map_err(|error| wrong(format!("begins like JSON, but is not: {}", place(&error))))?)
        }
        Value::String(text) => Body::Text(text.clone()),
        Value::Object(_) | Value::Array(_) => Body::Json(body.clone()),
        Value::Null | Value::Bool(_) | Value::Number(_) => return Err(wrong("must be an object or a text".to_owned())),
    };
    let checked = match &body {
        Body::Json(template) => template::check(template),
        Body::Text(template) => template::check(&Value::from(template.as_str())),
        Body::Notice => Ok(()),
    };
    checked.map_err(|error| wrong(error.0))?;
    Ok(body)
}

/// Where JSON broke. The parser's own text could repeat a value.
fn place(error: &serde_json::Error) -> String {
    format!("line {}, column {}", error.line(), error.column())
}

fn client(rules: &Rules, guard: Guard) -> reqwest::Result<Client> {
    Client::builder()
        .tls_backend_preconfigured(rules.trust.client_config())
        .https_only(guard.wire == Wire::Encrypted)
        .dns_resolver(Arc::new(guard))
        .redirect(redirect::Policy::none())
        .no_proxy()
        // Each attempt is counted and stored by the caller: none is made behind its back.
        .retry(retry::never())
        .referer(false)
        // Alerts are rare: a connection kept from the last one is most likely dead, and the failure ambiguous.
        .pool_max_idle_per_host(0)
        .user_agent(concat!("hb/", env!("CARGO_PKG_VERSION")))
        // Shorter than the whole: a connection that was never made is not ambiguous.
        .connect_timeout(rules.webhook_timeout / 2)
        .timeout(rules.webhook_timeout)
        .build()
}

impl Webhook {
    /// The body and its type.
    fn body(&self, letter: &Letter<'_>, filling: &Filling) -> Result<(Vec<u8>, &'static str), SendError> {
        const JSON: &str = "application/json";
        let too_long = |_: TooLong| SendError::permanent("the filled template is longer than 1 MiB");
        match &self.body {
            Body::Notice => serde_json::to_vec(letter.notice)
                .map(|body| (body, JSON))
                .map_err(|error| SendError::permanent(format!("the notice cannot be written as JSON: {error}"))),
            Body::Json(template) => {
                let body = template::fill_json(template, filling).map_err(too_long)?;
                Ok((body.to_string().into_bytes(), JSON))
            }
            Body::Text(template) => {
                let body = template::fill_text(template, filling).map_err(too_long)?;
                Ok((body.into_bytes(), "text/plain; charset=utf-8"))
            }
        }
    }

    fn headers(&self, letter: &Letter<'_>, filling: &Filling, content_type: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(self.headers.len() + 3);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        for (name, template) in &self.headers {
            // Too long a value is cut like any other; what is not fit for a header becomes visible, never a new header.
            let value = template::fill_text(template, filling).unwrap_or_default();
            let value: String = value.chars().take(HEADER_CHARS_MAX).map(visible).collect();
            if let Ok(mut value) = HeaderValue::from_str(&value).or_else(|_| HeaderValue::from_bytes(value.as_bytes()))
            {
                value.set_sensitive(true);
                headers.insert(name.clone(), value);
            }
        }
        if let Ok(key) = HeaderValue::from_str(&letter.key.to_string()) {
            headers.insert(HeaderName::from_static("idempotency-key"), key);
        }
        headers
    }

    /// Judges a receiver that is written as an address; names are judged when they are resolved.
    fn judge_literal(&self) -> Result<(), Refused> {
        match self.url.host() {
            Some(Host::Ipv4(address)) => self.guard.judge(address.into()),
            Some(Host::Ipv6(address)) => self.guard.judge(address.into()),
            Some(Host::Domain(_)) | None => Ok(()),
        }
    }
}

#[async_trait]
impl Channel for Webhook {
    async fn send(&self, letter: &Letter<'_>) -> Result<(), SendError> {
        self.admit().map_err(|refused| SendError::permanent(refused.to_string()))?;
        let filling = Filling::of(letter.notice, letter.key, letter.attempt);
        let (body, content_type) = self.body(letter, &filling)?;
        let mut headers = self.headers(letter, &filling, content_type);
        let signed = signature(self.secret.expose_secret(), letter.at.as_second(), &body);
        if let Ok(signed) = HeaderValue::from_str(&signed) {
            headers.insert(HeaderName::from_static(SIGNATURE_HEADER), signed);
        }
        let sent = self.client.post(self.url.clone()).headers(headers).body(body).send().await;
        let response = sent.map_err(|error| failure(error, self.timeout))?;
        let verdict = judge(response.status(), retry_after_s(response.headers(), letter.at));
        discard(response).await;
        verdict
    }

    fn admit(&self) -> Result<(), SettingsError> {
        if self.guard.wire == Wire::Plain && self.guard.allowed.is_empty() {
            let problem = "plain http goes only to networks listed in HB_SERVER_ALLOW_NETWORKS: use https";
            return Err(SettingsError::refused(KIND.name, problem));
        }
        self.judge_literal().map_err(|refused| SettingsError::refused(KIND.name, refused.to_string()))
    }

    fn target(&self) -> String {
        // The path and the query are often the receiver's password.
        self.url.origin().ascii_serialization()
    }

    fn timeout(&self) -> Duration {
        self.timeout + REPLY_TIMEOUT
    }
}

#[cfg(test)]
mod tests;
