use http::StatusCode;
use http::header::RETRY_AFTER;
use serde_json::json;

use super::*;
use crate::{open as open_stored, parse};

fn refused(settings: &Value) -> String {
    parse("webhook", settings, &Rules::default(), [1; 32]).unwrap_err().to_string()
}

fn with_networks(networks: &[&str]) -> Rules {
    Rules { allow_networks: networks.iter().map(|net| net.parse().unwrap()).collect(), ..Rules::default() }
}

#[test]
fn a_secret_is_made_unless_one_is_brought_and_is_kept_for_the_next_opening() {
    let (channel, stored) =
        parse("webhook", &json!({"url": "https://hooks.example.org/T0/p4ss"}), &Rules::default(), [0xab; 32]).unwrap();
    assert_eq!(stored.secret.as_ref().unwrap().expose_secret(), &format!("whsec_{}", "ab".repeat(32)));
    assert_eq!(stored.settings.0["secret"], format!("whsec_{}", "ab".repeat(32)));
    assert_eq!(channel.target(), "https://hooks.example.org");
    assert_eq!(open_stored("webhook", &stored.settings.0, &Rules::default()).unwrap().target(), channel.target());

    let brought = json!({"url": "https://x.example.org:8443/", "secret": "a-secret-of-our-own"});
    let (channel, stored) = parse("webhook", &brought, &Rules::default(), [0xab; 32]).unwrap();
    assert!(stored.secret.is_none());
    assert_eq!(stored.settings.0, brought);
    assert_eq!(channel.target(), "https://x.example.org:8443");
}

#[test]
fn no_debug_and_no_error_shows_a_secret() {
    let settings = json!({
        "url": "https://hooks.example.org/T0/p4ssw0rd?token=p4ssw0rd", "headers": {"Authorization": "Bearer p4ssw0rd"},
        "secret": "p4ssw0rd-p4ssw0rd", "body": {"p4ssw0rd": "p4ssw0rd"},
    });
    let (channel, stored) = parse("webhook", &settings, &Rules::default(), [1; 32]).unwrap();
    let shown = format!("{channel:?} {stored:?} {}", channel.target());
    assert!(!shown.contains("p4ssw0rd"), "{shown}");
    for bad in [
        json!({"url": "p4ssw0rd"}),
        json!({"url": "ftp://p4ssw0rd.example.org"}),
        json!({"url": "https://u:p4ssw0rd@example.org"}),
        json!({"url": ["p4ssw0rd"]}),
        json!({"url": "https://example.org:p4ssw0rd/"}),
        json!({"url": "https://example.org/", "headers": "p4ssw0rd"}),
        json!({"url": "https://example.org/", "headers": {"Authorization": ["p4ssw0rd"]}}),
        json!({"url": "https://example.org/", "headers": {"Authorization": "p4ssw0rd\r\nx: y"}}),
        json!({"url": "https://example.org/", "secret": "p4ssw0rd"}),
        json!({"url": "https://example.org/", "secret": {"p4ssw0rd": 1}}),
        json!({"url": "https://example.org/", "body": "{\"p4ssw0rd\": p4ssw0rd}"}),
    ] {
        let said = refused(&bad);
        assert!(!said.contains("p4ssw0rd"), "{said}");
    }
}

#[test]
fn wrong_settings_are_refused_with_what_is_wrong() {
    for (settings, says) in [
        (json!([]), "webhook: settings: must be an object with url, headers, body, secret"),
        (json!({}), "webhook: url: is missing"),
        (json!({"url": ""}), "webhook: url: is missing"),
        (
            json!({"url": "https://a.example", "retry": 3}),
            "webhook: retry: is not a setting of this kind: there are url, headers, body, secret",
        ),
        (json!({"url": "file:///etc/passwd"}), "webhook: url: must begin with https://"),
        (json!({"url": "gopher://a.example"}), "webhook: url: must begin with https://"),
        (json!({"url": "https://"}), "webhook: url: is not a URL: empty host"),
        (json!({"url": "https://exa\nmple.org/"}), "webhook: url: must not hold spaces or invisible characters"),
        (json!({"url": "https://[fe80::1%25eth0]/"}), "webhook: url: is not a URL: invalid IPv6 address"),
        (json!({"url": "https://[fe80::1%eth0]/"}), "webhook: url: is not a URL: invalid IPv6 address"),
        (
            json!({"url": "https://{{host.name}}.example"}),
            "webhook: url: must not be a template: where an alert goes may not depend on what is in it",
        ),
        (
            json!({"url": "https://a.example", "headers": {"Host": "b"}}),
            "webhook: headers: host is set by hb itself or by the connection",
        ),
        (
            json!({"url": "https://a.example", "headers": {"a b": "c"}}),
            "webhook: headers: \"a b\" is not a header's name",
        ),
        (
            json!({"url": "https://a.example", "headers": {"x\r\ny": "c"}}),
            "webhook: headers: \"x  y\" is not a header's name",
        ),
        (
            json!({"url": "https://a.example", "headers": {"x": "a\nb"}}),
            "webhook: headers: x must not hold line breaks or invisible characters",
        ),
        (json!({"url": "https://a.example", "headers": {"x": 1}}), "webhook: headers: x must be a text"),
        (
            json!({"url": "https://a.example", "headers": {"x": "{{event"}}),
            "webhook: headers: x: a \"{{\" is not closed by \"}}\"",
        ),
        (json!({"url": "https://a.example", "body": 7}), "webhook: body: must be an object or a text"),
        (
            json!({"url": "https://a.example", "body": "{\"text\": {{message}}}"}),
            "webhook: body: begins like JSON, but is not: line 1, column 11",
        ),
        (
            json!({"url": "https://a.example", "secret": "short"}),
            "webhook: secret: must be 16 to 256 visible ASCII characters",
        ),
    ] {
        assert_eq!(refused(&settings), says);
    }
    for header in OWN_HEADERS.into_iter().chain([
        "Hb-Signature",
        "HB-Anything",
        "Proxy-Authorization",
        "Sec-Fetch-Mode",
        "Content-Length",
    ]) {
        assert!(
            refused(&json!({"url": "https://a.example", "headers": {header: "x"}})).contains("is set by hb"),
            "{header}"
        );
    }
    let many: Map<String, Value> = (0..21).map(|n| (format!("x-{n}"), json!("y"))).collect();
    assert_eq!(refused(&json!({"url": "https://a.example", "headers": many})), "webhook: headers: are more than 20");
    assert!(refused(&json!({"url": format!("https://a.example/{}", "x".repeat(2048))})).contains("longer than 2048"));
}

#[test]
fn a_private_address_is_refused_however_it_is_written() {
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "0",
        "169.254.169.254",
        "0xa9fea9fe",
        "2852039166",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "10.0.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "１２７.０.０.１",
        "127。0。0。1",
        "127.0.0.1.",
    ] {
        let said = refused(&json!({"url": format!("https://{host}/")}));
        assert!(
            said.starts_with("webhook: the receiver's address ") && said.contains("HB_SERVER_ALLOW_NETWORKS"),
            "{host}: {said}"
        );
    }
    assert!(parse("webhook", &json!({"url": "https://8.8.8.8/"}), &Rules::default(), [1; 32]).is_ok());
}

#[test]
fn plain_http_goes_only_to_listed_networks() {
    assert_eq!(
        refused(&json!({"url": "http://hooks.example.org/"})),
        "webhook: plain http goes only to networks listed in HB_SERVER_ALLOW_NETWORKS: use https"
    );
    let rules = with_networks(&["10.0.0.0/8"]);
    assert!(parse("webhook", &json!({"url": "http://10.1.2.3/"}), &rules, [1; 32]).is_ok());
    for (url, why) in [("http://8.8.8.8/", "plain http goes only"), ("http://127.0.0.1/", "loopback")] {
        let said = parse("webhook", &json!({"url": url}), &rules, [1; 32]).unwrap_err().to_string();
        assert!(said.contains(why), "{said}");
    }
    // What was stored stays listed when the rules grow stricter; only sending is refused.
    let (_, stored) = parse("webhook", &json!({"url": "http://10.1.2.3/"}), &rules, [1; 32]).unwrap();
    let channel = open_stored("webhook", &stored.settings.0, &Rules::default()).unwrap();
    assert_eq!(channel.target(), "http://10.1.2.3");
    assert!(channel.admit().is_err());
}

#[test]
fn each_status_is_retried_or_given_up_as_documented() {
    for status in 100..600 {
        let verdict = judge(StatusCode::from_u16(status).unwrap(), Some(7));
        match status {
            200..=299 => assert_eq!(verdict, Ok(()), "{status}"),
            300..=399 | 400 | 405 | 410 | 413 | 414 | 415 | 422 | 431 | 501 => {
                assert!(matches!(verdict, Err(SendError::Permanent { .. })), "{status}");
            }
            _ => assert!(matches!(verdict, Err(SendError::Temporary { retry_after_s: Some(7), .. })), "{status}"),
        }
    }
}

#[test]
fn retry_after_is_read_in_both_forms_and_capped_at_an_hour() {
    let now = "2026-11-23T03:00:00Z".parse().unwrap();
    for (text, seconds) in [
        ("0", Some(0)),
        ("120", Some(120)),
        (" 120 ", Some(120)),
        ("86400", Some(3_600)),
        ("99999999999999999999999", Some(3_600)),
        ("Mon, 23 Nov 2026 03:00:30 GMT", Some(30)),
        ("Mon, 23 Nov 2026 02:00:00 GMT", Some(0)),
        ("Mon, 23 Nov 2099 02:00:00 GMT", Some(3_600)),
        ("-5", None),
        ("", None),
        ("soon", None),
        ("1.5", None),
    ] {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]);
        assert_eq!(retry_after_s(&headers, now), seconds, "{text:?}");
    }
}

#[test]
fn the_signature_is_the_documented_one() {
    // printf '%s' '1700000000.{"a":1}' | openssl dgst -sha256 -hmac whsec_test
    assert_eq!(
        signature("whsec_test", 1_700_000_000, b"{\"a\":1}"),
        "t=1700000000,v1=38877139021993b830af32feea6e18a8da83eb2f6e49ee50bd9e4cf4ca4d3789"
    );
}
