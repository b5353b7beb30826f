use proptest::prelude::*;

use super::*;
use crate::key::PublicKey;

/// RFC 9421, B.1.4.
const RFC_KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF\n\
    -----END PRIVATE KEY-----\n";

const BODY: &[u8] = br#"{"boot":"2d1f7c3e-8b0a-4c55-9e21-5f0c6a7b8c9d","seq":4711,"up":86400,"v":"0.1.0"}"#;
const DIGEST: &str = "sha-256=:aIkSxK8pLxpQuprWb9NIUdPPUpVXq6YEeZ1DGZMB2zo=:";
const INPUT: &str = "hb=(\"@method\" \"@authority\" \"@path\" \"content-digest\");created=1795444000;\
    nonce=\"p4Q0v2hYz1mJtE9cX7sLdw\";keyid=\"h_7Q2M4K9XW3B5N8RT\";tag=\"hb/1\"";
const SIGNATURE: &str = "hb=:1j4lpRQvObq0OXlhjP4o5V2lbVK62BH0iuROd0Eh64zAole9eJ0qxmjpeb3elKHrokPiNSt6EzKY+U51L70DAg==:";

fn rfc_key() -> HostKey {
    HostKey::from_pem(RFC_KEY).unwrap()
}

fn golden_message() -> Message<'static> {
    Message { method: "POST", authority: "hb.example.com", path: "/v1/beat", body: BODY }
}

fn golden_params() -> Params {
    Params {
        created: 1_795_444_000,
        nonce: Nonce::parse("p4Q0v2hYz1mJtE9cX7sLdw").unwrap(),
        keyid: "h_7Q2M4K9XW3B5N8RT".to_owned(),
    }
}

/// Reads and verifies in one step, as a server with one key would.
fn accept(
    digest: &str,
    input: &str,
    signature: &str,
    verifier: &Verifier,
    message: &Message<'_>,
) -> Result<Params, SignatureError> {
    let signed = parse(digest, input, signature)?;
    signed.verify(verifier, message)?;
    Ok(signed.params)
}

#[test]
fn the_golden_vector_of_the_profile_is_signed_byte_for_byte_and_accepted() {
    let headers = sign(&rfc_key(), &golden_message(), &golden_params());
    assert_eq!(headers.content_digest, DIGEST);
    assert_eq!(headers.signature_input, INPUT);
    assert_eq!(headers.signature, SIGNATURE);
    let verifier = rfc_key().public().verifying().unwrap();
    assert_eq!(accept(DIGEST, INPUT, SIGNATURE, &verifier, &golden_message()), Ok(golden_params()));
    assert_eq!(base_of(&golden_message(), DIGEST, INPUT.strip_prefix("hb=").unwrap()).len(), 294);
}

#[test]
fn the_ed25519_example_of_rfc_9421_is_reproduced_byte_for_byte() {
    // RFC 9421, B.2.6.
    let input = "(\"date\" \"@method\" \"@path\" \"@authority\" \"content-type\" \"content-length\")\
        ;created=1618884473;keyid=\"test-key-ed25519\"";
    let components = [
        ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
        ("@method", "POST"),
        ("@path", "/foo"),
        ("@authority", "example.com"),
        ("content-type", "application/json"),
        ("content-length", "18"),
    ];
    let base = base(&components, input);
    assert_eq!(
        base,
        "\"date\": Tue, 20 Apr 2021 02:07:55 GMT\n\
         \"@method\": POST\n\
         \"@path\": /foo\n\
         \"@authority\": example.com\n\
         \"content-type\": application/json\n\
         \"content-length\": 18\n\
         \"@signature-params\": (\"date\" \"@method\" \"@path\" \"@authority\" \"content-type\" \"content-length\")\
         ;created=1618884473;keyid=\"test-key-ed25519\""
    );
    assert_eq!(
        Base64::encode_string(&rfc_key().sign(base.as_bytes())),
        "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="
    );
}

#[test]
fn a_changed_request_is_refused_whatever_was_changed() {
    let verifier = rfc_key().public().verifying().unwrap();
    let good = golden_message();
    let check = |message: Message<'_>| accept(DIGEST, INPUT, SIGNATURE, &verifier, &message).unwrap_err();
    assert_eq!(check(Message { method: "PUT", ..good }), SignatureError::Mismatch);
    assert_eq!(check(Message { authority: "hb2.example.com", ..good }), SignatureError::Mismatch);
    assert_eq!(check(Message { authority: "hb.example.com:8443", ..good }), SignatureError::Mismatch);
    assert_eq!(check(Message { authority: "HB.example.com", ..good }), SignatureError::Mismatch);
    assert_eq!(check(Message { path: "/v1/beats", ..good }), SignatureError::Mismatch);
    assert_eq!(check(Message { body: b"{}", ..good }), SignatureError::DigestMismatch);
    assert_eq!(check(Message { body: b"", ..good }), SignatureError::DigestMismatch);
    let other = HostKey::from_seed([9; 32]).public().verifying().unwrap();
    assert_eq!(accept(DIGEST, INPUT, SIGNATURE, &other, &good), Err(SignatureError::Mismatch));
}

#[test]
fn a_changed_parameter_is_refused_although_it_is_well_formed() {
    let verifier = rfc_key().public().verifying().unwrap();
    for (from, to) in [
        ("created=1795444000", "created=1795444001"),
        ("p4Q0v2hYz1mJtE9cX7sLdw", "q4Q0v2hYz1mJtE9cX7sLdw"),
        ("p4Q0v2hYz1mJtE9cX7sLdw", "AAAAAAAAAAAAAAAAAAAAAA"),
        ("h_7Q2M4K9XW3B5N8RT", "h_7Q2M4K9XW3B5N8RS"),
    ] {
        let input = INPUT.replace(from, to);
        assert_ne!(input, INPUT);
        assert_eq!(accept(DIGEST, &input, SIGNATURE, &verifier, &golden_message()), Err(SignatureError::Mismatch));
    }
    let digest = digest::content_digest(b"{}");
    let message = Message { body: b"{}", ..golden_message() };
    assert_eq!(accept(&digest, INPUT, SIGNATURE, &verifier, &message), Err(SignatureError::Mismatch));
}

#[test]
fn a_request_that_the_profile_does_not_cover_is_refused() {
    let verifier = rfc_key().public().verifying().unwrap();
    let good = golden_message();
    for (message, what) in [
        (Message { path: "/v1/beat?x=1", ..good }, "the path"),
        (Message { path: "/v1/beat?", ..good }, "the path"),
        (Message { path: "/v1/beat#x", ..good }, "the path"),
        (Message { path: "v1/beat", ..good }, "the path"),
        (Message { path: "", ..good }, "the path"),
        (Message { path: "/v1/beat\n\"content-digest\": x", ..good }, "the path"),
        (Message { path: "/v1/é", ..good }, "the path"),
        (Message { method: "", ..good }, "the method"),
        (Message { method: "POST\n", ..good }, "the method"),
        (Message { authority: "", ..good }, "the authority"),
        (Message { authority: "hb.example.com\n\"@path\": /", ..good }, "the authority"),
    ] {
        let refused = accept(DIGEST, INPUT, SIGNATURE, &verifier, &message);
        assert_eq!(refused, Err(SignatureError::Malformed(what)), "{message:?}");
    }
}

#[test]
fn a_signature_input_that_is_not_exactly_the_profile_is_malformed() {
    let with = |from: &str, to: &str| {
        assert!(INPUT.contains(from), "{from}");
        INPUT.replacen(from, to, 1)
    };
    let bad_inputs = [
        // Components: order, missing, extra, repeated, parameters, case, white space.
        with("\"@method\" \"@authority\"", "\"@authority\" \"@method\""),
        with("\"@method\" ", ""),
        with(" \"content-digest\"", ""),
        with("\"content-digest\")", "\"content-digest\" \"date\")"),
        with("\"@method\"", "\"@method\" \"@method\""),
        with("\"@path\"", "\"@path\";req"),
        with("\"@path\"", "\"@target-uri\""),
        with("\"@method\"", "\"@METHOD\""),
        with("content-digest", "Content-Digest"),
        with(" \"@path\"", "  \"@path\""),
        with("(\"@method\"", "( \"@method\""),
        with("\"@path\"", "@path"),
        // Parameters: order, missing, extra, repeated, case, white space, quotes.
        with(
            ";created=1795444000;nonce=\"p4Q0v2hYz1mJtE9cX7sLdw\"",
            ";nonce=\"p4Q0v2hYz1mJtE9cX7sLdw\";created=1795444000",
        ),
        with(";keyid=\"h_7Q2M4K9XW3B5N8RT\";tag=\"hb/1\"", ";tag=\"hb/1\";keyid=\"h_7Q2M4K9XW3B5N8RT\""),
        with(";created=1795444000", ""),
        with(";nonce=\"p4Q0v2hYz1mJtE9cX7sLdw\"", ""),
        with(";keyid=\"h_7Q2M4K9XW3B5N8RT\"", ""),
        with(";tag=\"hb/1\"", ""),
        with(";tag=\"hb/1\"", ";alg=\"ed25519\";tag=\"hb/1\""),
        with(";tag=\"hb/1\"", ";tag=\"hb/1\";alg=\"ed25519\""),
        with(";tag=\"hb/1\"", ";tag=\"hb/1\";tag=\"hb/1\""),
        with(";tag=\"hb/1\"", ";expires=1;tag=\"hb/1\""),
        with(";created", ";Created"),
        with(";created", "; created"),
        with(";nonce", " ;nonce"),
        with("=1795444000", "=\"1795444000\""),
        with("\"p4Q0v2hYz1mJtE9cX7sLdw\"", "p4Q0v2hYz1mJtE9cX7sLdw"),
        with("\"p4Q0v2hYz1mJtE9cX7sLdw\"", ":p4Q0v2hYz1mJtE9cX7sLdw==:"),
        with("tag=\"hb/1\"", "tag=hb/1"),
        with("hb/1", "hb/2"),
        with("hb/1", "HB/1"),
        // Values: canonical numbers and nonces, the grammar of keyid.
        with("1795444000", "-1"),
        with("1795444000", "-0"),
        with("1795444000", "+1"),
        with("1795444000", "01"),
        with("1795444000", "00"),
        with("1795444000", ""),
        with("1795444000", "1.0"),
        with("1795444000", "1e3"),
        with("1795444000", "253402300800"),
        with("1795444000", "9223372036854775808"),
        with("1795444000", "99999999999999999999999"),
        with("p4Q0v2hYz1mJtE9cX7sLdw", "p4Q0v2hYz1mJtE9cX7sLdx"),
        with("p4Q0v2hYz1mJtE9cX7sLdw", "p4Q0v2hYz1mJtE9cX7sLdw=="),
        with("p4Q0v2hYz1mJtE9cX7sLdw", ""),
        with("h_7Q2M4K9XW3B5N8RT", ""),
        with("h_7Q2M4K9XW3B5N8RT", "h 7"),
        with("h_7Q2M4K9XW3B5N8RT", "h\\\"7"),
        with("h_7Q2M4K9XW3B5N8RT", "h.7"),
        with("h_7Q2M4K9XW3B5N8RT", &"k".repeat(65)),
        with("h_7Q2M4K9XW3B5N8RT", &"k".repeat(1_000)),
        // The label, and more than one signature.
        with("hb=", "HB="),
        with("hb=", "sig1="),
        with("hb=", "hb ="),
        with("hb=", ""),
        format!("{INPUT}, {INPUT}"),
        format!("{INPUT},sig1=()"),
        format!("{INPUT} "),
        format!(" {INPUT}"),
        format!("{INPUT}\n"),
        format!("{INPUT}\0"),
    ];
    for input in &bad_inputs {
        assert_eq!(parse(DIGEST, input, SIGNATURE), Err(SignatureError::Malformed("signature-input")), "{input}");
    }
}

#[test]
fn a_signature_or_digest_that_is_not_exactly_the_profile_is_malformed() {
    let bad_signatures = [
        SIGNATURE.replacen("hb=", "HB=", 1),
        SIGNATURE.replacen("hb=", "sig1=", 1),
        SIGNATURE.replacen("hb=:", "hb=", 1),
        SIGNATURE.replace("DAg==", "DAh=="),
        SIGNATURE.replace("DAg==", "DAg="),
        SIGNATURE.replace("DAg==", "DAg"),
        SIGNATURE.replace("DAg==", "DAgA="),
        SIGNATURE.replace("DAg==", "DAgAA"),
        SIGNATURE.replace('+', "-"),
        SIGNATURE.replace("1j4l", ""),
        SIGNATURE.replace("1j4l", "1 4l"),
        format!("{SIGNATURE}, {SIGNATURE}"),
        format!("{SIGNATURE} "),
        format!("{SIGNATURE};x=1"),
        "hb=::".to_owned(),
        "hb=:".to_owned(),
        "hb=".to_owned(),
    ];
    for signature in &bad_signatures {
        assert_eq!(parse(DIGEST, INPUT, signature), Err(SignatureError::Malformed("signature")), "{signature}");
    }
    for digest in ["sha-256=::", "sha-512=:AAAA:", &DIGEST.to_uppercase(), &format!("{DIGEST}, {DIGEST}")] {
        assert_eq!(parse(digest, INPUT, SIGNATURE), Err(SignatureError::Malformed("content-digest")), "{digest}");
    }
}

#[test]
fn the_limits_of_the_grammar_are_accepted() {
    for (created, keyid) in
        [(0, "k".to_owned()), (CREATED_MAX, "-".repeat(64)), (1, "0199c2a4-5d1e-7b3a-9f00-1234567890ab".to_owned())]
    {
        let params = Params { created, nonce: Nonce::NONE, keyid };
        let headers = sign(&rfc_key(), &golden_message(), &params);
        assert!(headers.signature_input.len() <= 191, "as the documentation of FIELD_BYTES_MAX says");
        let verifier = rfc_key().public().verifying().unwrap();
        let SignedHeaders { content_digest, signature_input, signature } = &headers;
        assert_eq!(accept(content_digest, signature_input, signature, &verifier, &golden_message()), Ok(params));
    }
}

#[test]
fn an_absent_field_is_named() {
    assert_eq!(parse("", INPUT, SIGNATURE), Err(SignatureError::Missing("content-digest")));
    assert_eq!(parse(DIGEST, "", SIGNATURE), Err(SignatureError::Missing("signature-input")));
    assert_eq!(parse(DIGEST, INPUT, ""), Err(SignatureError::Missing("signature")));
    assert_eq!(parse("", "", "").unwrap_err().to_string(), "the header field content-digest is missing");
}

/// Calls `check` with every copy of `bytes` in which one bit is flipped.
fn for_each_bit_flip(bytes: &[u8], mut check: impl FnMut(usize, &[u8])) {
    let mut flipped = bytes.to_vec();
    for bit in 0..bytes.len() * 8 {
        flipped[bit / 8] ^= 1 << (bit % 8);
        check(bit, &flipped);
        flipped[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn no_bit_of_base_signature_or_key_can_be_flipped() {
    let mut refused = 0;
    for seed in [None, Some([1; 32]), Some([0xa5; 32])] {
        let key = seed.map_or_else(rfc_key, HostKey::from_seed);
        let verifier = key.public().verifying().unwrap();
        let base = base_of(&golden_message(), DIGEST, INPUT.strip_prefix("hb=").unwrap());
        let signature = key.sign(base.as_bytes());
        assert!(verifier.verify(base.as_bytes(), &signature));
        for_each_bit_flip(base.as_bytes(), |bit, flipped| {
            assert!(!verifier.verify(flipped, &signature), "bit {bit} of the base");
            refused += 1;
        });
        for_each_bit_flip(&signature, |bit, flipped| {
            assert!(!verifier.verify(base.as_bytes(), flipped.try_into().unwrap()), "bit {bit} of the signature");
            refused += 1;
        });
        for_each_bit_flip(&key.public().0, |bit, flipped| {
            let other = PublicKey(flipped.try_into().unwrap()).verifying();
            let accepted = other.is_ok_and(|other| other.verify(base.as_bytes(), &signature));
            assert!(!accepted, "bit {bit} of the key");
            refused += 1;
        });
    }
    assert_eq!(refused, 3 * (294 * 8 + 512 + 256));
}

#[test]
fn no_bit_of_a_header_or_the_body_can_be_flipped() {
    let verifier = rfc_key().public().verifying().unwrap();
    let message = golden_message();
    for (field, text) in [DIGEST, INPUT, SIGNATURE].into_iter().enumerate() {
        for_each_bit_flip(text.as_bytes(), |bit, flipped| {
            let Ok(flipped) = core::str::from_utf8(flipped) else { return };
            let mut fields = [DIGEST, INPUT, SIGNATURE];
            fields[field] = flipped;
            let [digest, input, signature] = fields;
            assert!(accept(digest, input, signature, &verifier, &message).is_err(), "bit {bit} of field {field}");
        });
    }
    for_each_bit_flip(BODY, |bit, flipped| {
        let message = Message { body: flipped, ..message };
        let refused = accept(DIGEST, INPUT, SIGNATURE, &verifier, &message);
        assert_eq!(refused, Err(SignatureError::DigestMismatch), "bit {bit} of the body");
    });
}

#[test]
fn an_authority_is_normalised_as_the_rfc_says() {
    for (url, authority) in [
        ("https://HB.Example.com:443/v1/beat", "hb.example.com"),
        ("https://hb.example.com", "hb.example.com"),
        ("HTTPS://hb.example.com:8443?x", "hb.example.com:8443"),
        ("http://127.0.0.1:80", "127.0.0.1"),
        ("http://127.0.0.1:8080/", "127.0.0.1:8080"),
        ("http://h:443#x", "h:443"),
        ("https://h:0443", "h"),
        ("https://[2001:DB8::1]:8443/x", "[2001:db8::1]:8443"),
        ("https://[::1]", "[::1]"),
        ("[::1]:443", "[::1]:443"),
        ("HB.example.com", "hb.example.com"),
        ("hb.example.com:443", "hb.example.com:443"),
        ("my_host:80", "my_host:80"),
    ] {
        assert_eq!(normalize_authority(url).as_deref(), Some(authority), "{url}");
        assert_eq!(normalize_authority(authority).as_deref(), Some(authority), "{authority} is a fixed point");
    }
    let long = "a".repeat(254);
    for url in ["", "https://", "https:///x", "ftp://h", "https://u:p@h", "h:", "h:0", "h:65536", "h:+1", "h:1x", ":80"]
        .into_iter()
        .chain([
            "h h",
            "hé",
            "h\n",
            "[::1",
            "::1",
            "[zz]",
            "[::1]x",
            "https://h:80:90",
            "h\u{202e}",
            "a,b",
            "h%41",
            &long,
        ])
    {
        assert_eq!(normalize_authority(url), None, "{url}");
    }
}

/// A text with one character replaced, inserted or removed.
fn mutated(text: &str, place: usize, with: char, how: u8) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    let place = place % chars.len();
    match how % 3 {
        0 => chars[place] = with,
        1 => chars.insert(place, with),
        _ => drop(chars.remove(place)),
    }
    chars.into_iter().collect()
}

prop_compose! {
    fn any_params()(created in 0..=CREATED_MAX, nonce: [u8; 16], keyid in "[A-Za-z0-9_-]{1,64}") -> Params {
        Params { created, nonce: Nonce(nonce), keyid }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whatever_is_signed_is_accepted_and_nothing_else(
        seed: [u8; 32],
        params in any_params(),
        method in "(GET|POST|PUT|PATCH|DELETE)",
        authority in "[a-z0-9.-]{1,40}(:[1-9][0-9]{0,3})?",
        path in "/[A-Za-z0-9/_.~%-]{0,60}",
        body in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        let key = HostKey::from_seed(seed);
        let verifier = key.public().vetted().unwrap();
        let message = Message { method: &method, authority: &authority, path: &path, body: &body };
        let headers = sign(&key, &message, &params);
        let SignedHeaders { content_digest, signature_input, signature } = &headers;
        let signed = parse(content_digest, signature_input, signature).unwrap();
        prop_assert_eq!(&signed.params, &params);
        prop_assert_eq!(signed.verify(&verifier, &message), Ok(()));
        let elsewhere = format!("{path}x");
        let elsewhere = Message { path: &elsewhere, ..message };
        prop_assert_eq!(signed.verify(&verifier, &elsewhere), Err(SignatureError::Mismatch));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30_000))]

    #[test]
    fn what_is_read_is_what_would_be_written(params in any_params(), place: usize, with: char, how: u8) {
        let input = write_params(&params);
        prop_assert_eq!(read_params(&input), Some(params));
        let other = mutated(&input, place, with, how);
        if let Some(read) = read_params(&other) {
            prop_assert_eq!(write_params(&read), other, "one meaning must have one spelling");
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic_and_no_damaged_one_is_read_as_the_original(
        field in 0..3_usize, place: usize, with in any::<char>(), how: u8, noise in ".{0,300}",
    ) {
        let mut fields = [DIGEST.to_owned(), INPUT.to_owned(), SIGNATURE.to_owned()];
        fields[field] = noise;
        prop_assert!(parse(&fields[0], &fields[1], &fields[2]).is_err());
        fields[field] = mutated([DIGEST, INPUT, SIGNATURE][field], place, with, how);
        let original = parse(DIGEST, INPUT, SIGNATURE).unwrap();
        if let Ok(read) = parse(&fields[0], &fields[1], &fields[2]) {
            prop_assert_eq!(read == original, fields == [DIGEST, INPUT, SIGNATURE]);
        }
    }

    #[test]
    fn a_normalised_authority_stays_as_it_is(url in "(https?://)?[A-Za-z0-9.:@\\[\\]_-]{0,30}(/.{0,10})?|.{0,40}") {
        if let Some(authority) = normalize_authority(&url) {
            prop_assert_eq!(normalize_authority(&authority), Some(authority));
        }
    }
}
