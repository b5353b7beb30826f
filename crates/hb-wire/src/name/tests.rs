use proptest::prelude::*;

use super::*;

fn refused(text: &str) -> String {
    HostName::parse(text).unwrap_err().to_string()
}

#[test]
fn a_host_name_is_lower_cased_and_otherwise_kept() {
    for (given, kept) in
        [("web1", "web1"), ("Web1.Example.COM", "web1.example.com"), ("a", "a"), ("db_2-old.x", "db_2-old.x")]
    {
        assert_eq!(HostName::parse(given).unwrap().as_str(), kept);
    }
    assert_eq!(HostName::parse(&"a".repeat(253)).unwrap().as_str().len(), 253);
}

#[test]
fn a_refused_host_name_says_what_is_wrong_and_where() {
    assert_eq!(refused(""), "a host name is empty");
    assert_eq!(
        refused("web 1"),
        "a host name must not hold ' ' (character 4), only ASCII letters, digits, '.', '-' and '_': \"web 1\""
    );
    assert_eq!(refused("-web"), "a host name must begin and end with a letter or digit: \"-web\"");
    assert_eq!(refused("web."), "a host name must begin and end with a letter or digit: \"web.\"");
    assert!(refused(&"a".repeat(254)).starts_with("a host name is 254 bytes long, at most 253 are allowed: \"aaa"));
    for bad in ["web\n1", "web1\n", "<b>", "w\u{202e}eb", "wéb", "web\0", "a/b", "a\tb", "\u{1b}[31m"] {
        assert!(HostName::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn an_error_repeats_at_most_64_escaped_characters_of_bad_input() {
    for bad in ["\u{202e}".repeat(10_000_000 / 3), "a".repeat(10_000_000), "\n".repeat(200), "é".repeat(300)] {
        let shown = echo(&bad);
        assert!(shown.chars().count() <= ECHO_CHARS_MAX, "{shown}");
        assert!(shown.chars().all(|c| !is_hidden(c)), "{shown}");
        let message = refused(&bad);
        assert!(message.len() < 300 && message.chars().all(|c| !is_hidden(c)), "{message}");
    }
}

#[test]
fn tags_are_checked_key_by_key_and_trimmed() {
    let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    };
    let tags = Tags::parse(map(&[("env", " prod "), ("site.eu-1", "Zürich")])).unwrap();
    assert_eq!(tags.get("env"), Some("prod"));
    assert_eq!(tags.iter().count(), 2);
    for bad in [("Env", "x"), ("", "x"), (".a", "x"), ("a b", "x"), ("a", "x\ny"), ("a", "\u{200b}"), ("a", "x\n")] {
        assert!(Tags::parse(map(&[bad])).is_err(), "{bad:?}");
    }
    assert!(Tags::parse(map(&[(&"k".repeat(32), "x")])).is_ok());
    assert!(Tags::parse(map(&[(&"k".repeat(33), "x")])).is_err());
    assert!(Tags::parse(map(&[("k", &"é".repeat(128))])).is_ok());
    assert!(Tags::parse(map(&[("k", &"é".repeat(129))])).is_err());
    let many = |n: usize| (0..n).map(|i| (format!("k{i}"), String::new())).collect::<BTreeMap<_, _>>();
    assert_eq!(Tags::parse(many(16)).unwrap().len(), 16);
    assert_eq!(Tags::parse(many(17)).unwrap_err().to_string(), "17 tags, at most 16 are allowed");
    assert!(serde_json::from_str::<Tags>(r#"{"A":"b"}"#).is_err(), "reading JSON validates too");
}

#[test]
fn clean_text_trims_spaces_and_refuses_what_cannot_be_seen() {
    assert_eq!(clean_text("  kernel\u{a0}", 200).unwrap(), "kernel");
    assert_eq!(clean_text("a  b – ünï 日本 🎉 <b>&'\"", 200).unwrap(), "a  b – ünï 日本 🎉 <b>&'\"");
    assert_eq!(clean_text("", 200).unwrap(), "");
    assert_eq!(clean_text(" xx ", 2).unwrap(), "xx");
    assert_eq!(
        clean_text("xxx", 2).unwrap_err().to_string(),
        "the text is 3 characters long, at most 2 are allowed: \"xxx\""
    );
    for bad in ['\0', '\n', '\r', '\t', '\u{7f}', '\u{85}', '\u{ad}', '\u{200b}', '\u{200d}', '\u{2028}', '\u{2029}']
        .into_iter()
        .chain(['\u{202a}', '\u{202e}', '\u{2066}', '\u{2069}', '\u{feff}', '\u{e0041}', '\u{61c}', '\u{180e}'])
    {
        for text in [format!("a{bad}b"), format!("{bad}ab"), format!("ab{bad}")] {
            assert!(clean_text(&text, 200).is_err(), "{text:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn no_text_makes_a_parser_panic_and_what_is_accepted_is_clean(text in "[a-zA-Z0-9._-]{1,20}|.{0,60}|\\PC{0,40}") {
        if let Ok(name) = HostName::parse(&text) {
            prop_assert_eq!(HostName::parse(name.as_str()), Ok(name.clone()));
            prop_assert!(name.as_str().is_ascii() && !name.as_str().contains(char::is_uppercase));
        }
        if let Ok(clean) = clean_text(&text, 50) {
            prop_assert!(clean.chars().count() <= 50 && !clean.chars().any(is_hidden));
            prop_assert_eq!(clean_text(&clean, 50), Ok(clean));
        }
        prop_assert!(!echo(&text).chars().any(is_hidden));
    }
}
