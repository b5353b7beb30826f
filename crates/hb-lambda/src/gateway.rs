//! Between Lambda's events and HTTP: payload format 2.0, which function URLs and HTTP APIs share.
//!
//! Source: AWS Lambda developer guide, "Invoking Lambda function URLs" (request and response payload format), as of
//! autumn 2026.

use axum::Router;
use axum::body::Body;
use base64ct::{Base64, Encoding as _};
use hb_wire::problem::{Code, Problem};
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::BodyExt as _;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use tower::ServiceExt as _;

use crate::Error;

/// A request as Lambda hands it on. What it holds beside this is not looked at.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    raw_path: String,
    #[serde(default)]
    raw_query_string: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    request_context: Context,
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Context {
    /// What was called. The platform fills it in: a client cannot choose it as it can its `Host` header.
    domain_name: Option<String>,
    http: Http,
}

#[derive(Debug, Deserialize)]
struct Http {
    method: String,
}

/// The answer as Lambda takes it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    status_code: u16,
    headers: BTreeMap<String, String>,
    body: String,
    is_base64_encoded: bool,
}

impl Event {
    /// As a request.
    ///
    /// # Errors
    /// What of it is no HTTP.
    pub fn into_request(self) -> Result<Request<Body>, Error> {
        let mut target = if self.raw_path.is_empty() { "/".to_owned() } else { encoded(&self.raw_path) };
        if !self.raw_query_string.is_empty() {
            target.push('?');
            target.push_str(&self.raw_query_string);
        }
        let body = match self.body {
            Some(body) if self.is_base64_encoded => {
                Base64::decode_vec(&body).map_err(|_| "the body of the event is no Base64")?
            }
            body => body.unwrap_or_default().into_bytes(),
        };
        let mut headers = HeaderMap::with_capacity(self.headers.len() + 1);
        for (name, value) in self.headers {
            headers.append(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
        }
        if let Some(domain) = self.request_context.domain_name {
            headers.insert(HOST, HeaderValue::try_from(domain.to_ascii_lowercase())?);
        }
        let mut request = Request::builder()
            .method(Method::from_bytes(self.request_context.http.method.as_bytes())?)
            .uri(target)
            .body(Body::from(body))?;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

/// An HTTP API hands on a path that it has decoded: what may not stand in one (RFC 3986, section 3.3) is encoded again.
fn encoded(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a string cannot fail");
        }
    }
    out
}

/// Has a request answered.
///
/// # Errors
/// When the answer cannot be read.
pub async fn answer(router: &Router, event: Event) -> Result<Answer, Error> {
    let request = match event.into_request() {
        Ok(request) => request,
        Err(error) => {
            let problem = Problem::new(Code::Malformed, format!("this is no HTTP request: {error}"));
            let body = serde_json::to_string(&problem)?;
            let headers = [(CONTENT_TYPE.as_str().to_owned(), "application/problem+json".to_owned())].into();
            return Ok(Answer { status_code: problem.code.status(), headers, body, is_base64_encoded: false });
        }
    };
    let response = router.clone().oneshot(request).await?;
    read(response).await
}

async fn read(response: Response<Body>) -> Result<Answer, Error> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in &parts.headers {
        // Format 2.0 has one value for each name (cookies aside, of which hb has none).
        let value = value.to_str()?;
        headers
            .entry(name.as_str().to_owned())
            .and_modify(|held| {
                held.push_str(", ");
                held.push_str(value);
            })
            .or_insert_with(|| value.to_owned());
    }
    // Without one, Lambda would call it JSON.
    headers.entry(CONTENT_TYPE.as_str().to_owned()).or_insert_with(|| "application/octet-stream".to_owned());
    let (body, is_base64_encoded) = match String::from_utf8(body.into()) {
        Ok(text) => (text, false),
        Err(bytes) => (Base64::encode_string(bytes.as_bytes()), true),
    };
    Ok(Answer { status_code: parts.status.as_u16(), headers, body, is_base64_encoded })
}

#[cfg(test)]
mod tests {
    use axum::routing::post;
    use serde_json::{Value, json};

    use super::*;

    fn event(patch: &[(&str, Value)]) -> Event {
        let mut event = json!({
            "version": "2.0",
            "rawPath": "/v1/beat",
            "rawQueryString": "a=b&c=%20",
            "headers": {"host": "liar.example", "signature": "sig1=:AA==:"},
            "requestContext": {"domainName": "Abc.lambda-url.eu-central-1.on.aws", "http": {"method": "POST", "path": "/v1/beat"}},
            "body": "{\"seq\":1}",
            "isBase64Encoded": false,
        });
        for (name, value) in patch {
            event[*name] = value.clone();
        }
        serde_json::from_value(event).unwrap()
    }

    async fn body_of(request: Request<Body>) -> Vec<u8> {
        request.into_body().collect().await.unwrap().to_bytes().to_vec()
    }

    #[tokio::test]
    async fn a_request_arrives_as_it_was_sent_by_the_name_that_the_platform_says() {
        let request = event(&[]).into_request().unwrap();
        assert_eq!((request.method(), request.uri().to_string().as_str()), (&Method::POST, "/v1/beat?a=b&c=%20"));
        assert_eq!(request.headers()[HOST], "abc.lambda-url.eu-central-1.on.aws");
        assert_eq!(request.headers()["signature"], "sig1=:AA==:");
        assert_eq!(body_of(request).await, b"{\"seq\":1}");
        let encoded = event(&[("body", json!("eyJzZXEiOjF9")), ("isBase64Encoded", json!(true))]);
        assert_eq!(body_of(encoded.into_request().unwrap()).await, b"{\"seq\":1}");
        let empty = event(&[("body", Value::Null), ("rawQueryString", json!("")), ("rawPath", json!(""))]);
        assert_eq!(empty.into_request().unwrap().uri(), "/");
    }

    #[test]
    fn what_is_no_http_is_an_error_and_no_panic() {
        for (name, value) in
            [("body", json!("%%%")), ("headers", json!({"a b": "c"})), ("headers", json!({"a": "b\nc"}))]
        {
            let bad = event(&[(name, value), ("isBase64Encoded", json!(true))]);
            assert!(bad.into_request().is_err(), "{name}");
        }
        assert!(serde_json::from_value::<Event>(json!({"Records": []})).is_err());
        let odd = event(&[("rawPath", json!("/v1/hosts/a b?c\u{0}é%20")), ("rawQueryString", json!(""))]);
        assert_eq!(odd.into_request().unwrap().uri(), "/v1/hosts/a%20b%3Fc%00%C3%A9%20");
    }

    #[tokio::test]
    async fn an_answer_is_text_where_it_can_be() {
        let router = Router::new().route("/v1/beat", post(|| async { ([("x-a", "1"), ("x-a", "2")], "é") }));
        let answer = answer(&router, event(&[])).await.unwrap();
        assert_eq!((answer.status_code, answer.body.as_str(), answer.is_base64_encoded), (200, "é", false));
        let router = Router::new().route("/v1/beat", post(|| async { vec![0xff_u8, 0xfe] }));
        let answer = super::answer(&router, event(&[])).await.unwrap();
        assert_eq!((answer.body.as_str(), answer.is_base64_encoded), ("//4=", true));
        let router = Router::new();
        assert_eq!(super::answer(&router, event(&[])).await.unwrap().status_code, 404);
        let bad = event(&[("headers", json!({"a b": "c"}))]);
        assert_eq!(super::answer(&router, bad).await.unwrap().status_code, 400);
    }
}
