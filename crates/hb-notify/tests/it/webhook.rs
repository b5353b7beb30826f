//! Webhooks against real receivers.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hb_notify::{Lookup, Rules, SendError, signature};
use serde_json::{Value, json};

use crate::receiver::{Manner, Receiver};
use crate::support::{
    RANDOM, certificate, channel, is_ambiguous, is_permanent, is_temporary, key, loopback, notice, send, send_notice,
};

/// Loopback allowed, and impatient.
fn impatient() -> Rules {
    Rules { webhook_timeout: Duration::from_millis(600), ..loopback() }
}

/// Every error must be free of what is in the URL.
fn without_secrets(result: &Result<(), SendError>) -> String {
    let shown = format!("{result:?}");
    assert!(!shown.contains("p4ssw0rd"), "{shown}");
    shown
}

#[tokio::test]
async fn a_notice_arrives_as_signed_json_with_its_key() {
    let receiver = Receiver::answering("204 No Content", "").await;
    let channel = channel("webhook", &json!({"url": receiver.url()}), &loopback());
    send(&*channel).await.unwrap();

    let requests = receiver.requests();
    let [request] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!(request.line, "POST /hook/p4ssw0rd?token=p4ssw0rd HTTP/1.1");
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body, serde_json::to_value(notice()).unwrap());
    assert_eq!(body["host"]["name"], "web1");
    assert_eq!(body["message"], "web1 is DOWN: silent since 03:12:09 UTC (2m30s), deadline 03:14:09 UTC passed");
    let header = |name: &str| request.headers[name].as_str();
    assert_eq!(header("idempotency-key"), key().to_string());
    assert_eq!(header("content-type"), "application/json");
    assert_eq!(header("user-agent"), concat!("hb/", env!("CARGO_PKG_VERSION")));
    assert_eq!(header("host"), receiver.address.to_string());
    let unix_s = 1_795_403_680;
    assert_eq!(header("hb-signature"), signature(&format!("whsec_{}", "07".repeat(32)), unix_s, &request.body));
    assert!(!request.headers.contains_key("referer") && !request.headers.contains_key("accept-encoding"));
}

#[tokio::test]
async fn body_and_headers_follow_their_templates() {
    let receiver = Receiver::answering("200 OK", "").await;
    let settings = json!({
        "url": receiver.url(),
        "headers": {"Title": "{{subject}}", "X-Name": "{{host.name}}", "Authorization": "Bearer p4ssw0rd", "Content-Type": "application/x-chat+json"},
        "body": "{\"text\": \"*{{event}}* {{host.name}} at {{host.tags.site}}\", \"host\": \"{{host}}\", \"key\": \"{{key}}\"}",
    });
    let mut notice = notice();
    notice.host.as_mut().unwrap().name = "web\"1\r\nX-Evil: é\u{202e}".to_owned();
    send_notice(&*channel("webhook", &settings, &loopback()), &notice).await.unwrap();

    let request = receiver.requests().remove(0);
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body["text"], "*down* web\"1\r\nX-Evil: é\u{202e} at ams1", "JSON can carry any name");
    assert_eq!(body["host"]["tags"]["site"], "ams1");
    assert_eq!(body["key"], key().to_string());
    assert_eq!(request.headers["x-name"], "web\"1  X-Evil: é\u{fffd}", "a header cannot");
    assert!(!request.headers.contains_key("x-evil"));
    assert_eq!(request.headers["authorization"], "Bearer p4ssw0rd");
    assert_eq!(request.headers["content-type"], "application/x-chat+json");
    assert!(request.headers["title"].starts_with("[hb] DOWN web\"1"));
}

#[tokio::test]
async fn a_text_template_is_sent_as_plain_text() {
    let receiver = Receiver::answering("200 OK", "").await;
    let settings = json!({"url": receiver.url(), "body": "{{event}}: {{message}}"});
    send(&*channel("webhook", &settings, &loopback())).await.unwrap();
    let request = receiver.requests().remove(0);
    assert_eq!(String::from_utf8(request.body).unwrap(), format!("down: {}", notice().message));
    assert_eq!(request.headers["content-type"], "text/plain; charset=utf-8");
}

#[tokio::test]
async fn the_status_decides_what_happens_next() {
    for (status, headers, expected) in [
        ("200 OK", "", "Ok"),
        ("503 Busy", "retry-after: 7\r\n", "temporary Some(7)"),
        ("429 Slow down", "retry-after: 999999\r\n", "temporary Some(3600)"),
        ("404 Not Found", "", "temporary None"),
        ("500 Oops", "", "temporary None"),
        ("410 Gone", "", "permanent"),
        ("422 No", "", "permanent"),
    ] {
        let receiver = Receiver::answering(status, headers).await;
        let result = send(&*channel("webhook", &json!({"url": receiver.url()}), &loopback())).await;
        let got = match &result {
            Ok(()) => "Ok".to_owned(),
            Err(SendError::Temporary { retry_after_s, .. }) => format!("temporary {retry_after_s:?}"),
            Err(SendError::Permanent { .. }) => "permanent".to_owned(),
            Err(SendError::Ambiguous { .. }) => "ambiguous".to_owned(),
        };
        assert_eq!(got, expected, "{status}");
        without_secrets(&result);
        assert_eq!(receiver.connections(), 1, "{status}: one attempt, and no other behind the caller's back");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_not_even_to_an_allowed_address() {
    let elsewhere = Receiver::answering("200 OK", "").await;
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"] {
        for location in [elsewhere.url(), "http://169.254.169.254/latest/meta-data/".to_owned()] {
            let receiver = Receiver::answering(status, &format!("location: {location}\r\n")).await;
            let result = send(&*channel("webhook", &json!({"url": receiver.url()}), &loopback())).await;
            assert!(is_permanent(&result), "{status}: {result:?}");
            assert!(result.unwrap_err().reason().contains("redirects are not followed"));
        }
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn hostile_receivers_neither_hang_nor_fool_the_server() {
    for (manner, judge, what) in [
        (Manner::HangUpAtOnce, is_ambiguous as fn(&_) -> bool, "hangs up before reading"),
        (Manner::HangUp, is_ambiguous, "hangs up without an answer"),
        (Manner::Mute, is_ambiguous, "accepts and never answers"),
        (Manner::Drip, is_ambiguous, "answers a byte at a time"),
        (Manner::FloodHeaders, is_ambiguous, "sends a header without end"),
        (Manner::Say("SSH-2.0-OpenSSH_9.2\r\n".to_owned()), is_ambiguous, "speaks another protocol"),
        (Manner::Say("HTTP/1.1 200".to_owned()), is_ambiguous, "breaks off its status line"),
        (Manner::Say("HTTP/1.1 999999 Ok\r\n\r\n".to_owned()), is_ambiguous, "invents a status"),
        (Manner::Say("\0\u{1}\u{2}".repeat(1_000)), is_ambiguous, "answers garbage"),
        (Manner::Flood, Result::is_ok, "sends a body without end"),
        (Manner::HalfBody, Result::is_ok, "never ends its body"),
    ] {
        let receiver = Receiver::start(manner).await;
        let began = Instant::now();
        let result = send(&*channel("webhook", &json!({"url": receiver.url()}), &impatient())).await;
        assert!(judge(&result), "{what}: {result:?}");
        assert!(began.elapsed() < Duration::from_secs(3), "{what}: {:?}", began.elapsed());
        without_secrets(&result);
        // What the kernels hold on both sides, and no more.
        assert!(receiver.flooded_bytes() < 64 * 1024 * 1024, "{what}: {}", receiver.flooded_bytes());
    }
}

#[tokio::test]
async fn an_answer_after_the_timeout_is_ambiguous_and_the_retry_bears_the_same_key() {
    let receiver = Receiver::start(Manner::Mute).await;
    let channel = channel("webhook", &json!({"url": receiver.url()}), &impatient());
    assert!(is_ambiguous(&send(&*channel).await));
    assert!(is_ambiguous(&send(&*channel).await));
    let requests = receiver.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0], requests[1], "the repetition is the same to the byte, signature included");
}

#[tokio::test]
async fn a_receiver_that_is_not_there_is_tried_again() {
    let vacant = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = json!({"url": format!("http://{vacant}/p4ssw0rd")});
    let result = send(&*channel("webhook", &url, &impatient())).await;
    assert!(is_temporary(&result), "{result:?}");
    assert!(without_secrets(&result).contains("could not be reached"));
}

/// A resolver that never answers.
#[derive(Debug)]
struct Lost;

#[async_trait]
impl Lookup for Lost {
    async fn lookup(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn what_hangs_before_the_request_is_sent_is_not_ambiguous() {
    let receiver = Receiver::start(Manner::Mute).await;
    let handshake = json!({"url": format!("https://{}/p4ssw0rd", receiver.address)});
    let name = json!({"url": "http://hooks.example.org/p4ssw0rd"});
    for settings in [handshake, name] {
        let rules = Rules { lookup: Arc::new(Lost), ..impatient() };
        let result = send(&*channel("webhook", &settings, &rules)).await;
        assert!(is_temporary(&result), "{result:?}");
        without_secrets(&result);
    }
}

#[tokio::test]
async fn a_stored_channel_is_judged_by_the_rules_of_today() {
    let receiver = Receiver::answering("200 OK", "").await;
    let (_, stored) = hb_notify::parse("webhook", &json!({"url": receiver.url()}), &loopback(), RANDOM).unwrap();
    for allowed in [&[] as &[&str], &["10.0.0.0/8"]] {
        let allow_networks = allowed.iter().map(|network| network.parse().unwrap()).collect();
        let rules = Rules { allow_networks, ..Rules::default() };
        let channel = hb_notify::open("webhook", &stored.settings.0, &rules).unwrap();
        let result = send(&*channel).await;
        assert!(is_permanent(&result), "{result:?}");
        without_secrets(&result);
    }
    assert_eq!(receiver.connections(), 0);
}

/// Answers each question with the next of its answers, and the last one for ever.
#[derive(Debug)]
struct Flipping {
    answers: Vec<Vec<IpAddr>>,
    asked: AtomicUsize,
}

impl Flipping {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let answers = answers.iter().map(|ips| ips.iter().map(|ip| ip.parse().unwrap()).collect()).collect();
        Arc::new(Self { answers, asked: AtomicUsize::new(0) })
    }
}

#[async_trait]
impl Lookup for Flipping {
    async fn lookup(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        let answer = self.answers.get(asked).or(self.answers.last());
        answer.cloned().ok_or_else(|| io::Error::other("no such host"))
    }
}

/// Only 127.0.0.1 is allowed: the rest of loopback stands for the private network.
fn rules_with(lookup: &Arc<Flipping>) -> Rules {
    let lookup: Arc<dyn Lookup> = Arc::<Flipping>::clone(lookup);
    Rules { allow_networks: vec!["127.0.0.1/32".parse().unwrap()], lookup, ..impatient() }
}

#[tokio::test]
async fn a_name_that_turns_to_a_private_address_after_it_was_checked_is_not_reached() {
    let receiver = Receiver::answering("200 OK", "").await;
    let url = format!("http://rebind.example.org:{}/", receiver.address.port());
    let lookup = Flipping::new(&[&["127.0.0.1"], &["127.0.0.2"], &["169.254.169.254"]]);
    let channel = channel("webhook", &json!({"url": url}), &rules_with(&lookup));
    send(&*channel).await.unwrap();
    assert_eq!(lookup.asked.load(Ordering::SeqCst), 1, "the checked address is the one connected to");
    for address in ["127.0.0.2", "169.254.169.254"] {
        let result = send(&*channel).await;
        assert!(is_permanent(&result), "{result:?}");
        assert!(result.unwrap_err().reason().contains(&format!("the receiver's address {address} is refused")));
    }
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn one_refused_address_among_good_ones_refuses_the_name() {
    let receiver = Receiver::answering("200 OK", "").await;
    let url = format!("http://mixed.example.org:{}/", receiver.address.port());
    for answer in [["127.0.0.1", "10.0.0.1"], ["10.0.0.1", "127.0.0.1"], ["127.0.0.1", "::ffff:127.0.0.1"]] {
        let rules = rules_with(&Flipping::new(&[&answer]));
        let result = send(&*channel("webhook", &json!({"url": url}), &rules)).await;
        assert!(is_permanent(&result), "{answer:?}: {result:?}");
    }
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn a_name_without_addresses_is_tried_again() {
    for answers in [&[] as &[&[&str]], &[&[]]] {
        let rules = rules_with(&Flipping::new(answers));
        let result = send(&*channel("webhook", &json!({"url": "http://none.example.org/p4ssw0rd"}), &rules)).await;
        assert!(is_temporary(&result), "{result:?}");
        without_secrets(&result);
    }
}

#[tokio::test]
async fn localhost_is_refused_by_the_systems_own_resolver_unless_allowed() {
    let receiver = Receiver::answering("200 OK", "").await;
    let port = receiver.address.port();
    let result =
        send(&*channel("webhook", &json!({"url": format!("https://localhost:{port}/")}), &Rules::default())).await;
    assert!(is_permanent(&result), "{result:?}");
    assert_eq!(receiver.connections(), 0);
    send(&*channel("webhook", &json!({"url": format!("http://localhost:{port}/")}), &loopback())).await.unwrap();
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn https_reaches_a_receiver_whose_certificate_is_believed_and_no_other() {
    let (tls, trust) = certificate(&["hooks.example.org"]);
    let say = Manner::Say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned());
    let receiver = Receiver::start_with(say, Some(tls)).await;
    let port = receiver.address.port();
    let rules = rules_with(&Flipping::new(&[&["127.0.0.1"]]));
    let believing = Rules { trust: Arc::new(trust), ..rules.clone() };
    let url = |name: &str| json!({"url": format!("https://{name}:{port}/p4ssw0rd")});

    send(&*channel("webhook", &url("hooks.example.org"), &believing)).await.unwrap();
    for (name, rules) in [("other.example.org", &believing), ("hooks.example.org", &rules)] {
        let result = send(&*channel("webhook", &url(name), rules)).await;
        assert!(is_temporary(&result), "{result:?}");
        assert!(without_secrets(&result).contains("certificate"), "{result:?}");
    }
    assert_eq!(receiver.requests().len(), 1);
}

#[tokio::test]
async fn a_proxy_in_the_environment_is_not_used() {
    // The environment is set for a child of this very test, for it is shared by all threads of a process.
    const MARK: &str = "HB_TEST_PROXY_CHILD";
    if std::env::var_os(MARK).is_some() {
        let receiver = Receiver::answering("200 OK", "").await;
        send(&*channel("webhook", &json!({"url": receiver.url()}), &loopback())).await.unwrap();
        assert_eq!(receiver.requests().len(), 1);
        return;
    }
    let proxy = Receiver::answering("200 OK", "").await;
    let test = "webhook::a_proxy_in_the_environment_is_not_used";
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", test]).env(MARK, "1").env_remove("NO_PROXY").env_remove("no_proxy");
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        child.env(name, format!("http://{}", proxy.address));
    }
    let output = child.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
    assert_eq!(proxy.connections(), 0);
}

#[tokio::test]
async fn a_mass_incident_of_a_thousand_hosts_arrives_whole() {
    let receiver = Receiver::answering("200 OK", "").await;
    let mut notice = notice();
    let host = notice.host.take().unwrap();
    notice.hosts = (0..1_000).map(|n| hb_wire::view::HostRef { name: format!("web{n}"), ..host.clone() }).collect();
    send_notice(&*channel("webhook", &json!({"url": receiver.url()}), &loopback()), &notice).await.unwrap();
    let body: Value = serde_json::from_slice(&receiver.requests()[0].body).unwrap();
    assert_eq!(body["hosts"].as_array().unwrap().len(), 1_000);
}
