use proptest::prelude::*;
use serde_json::json;

use super::*;

const BOOT: &str = "2d1f7c3e-8b0a-4c55-9e21-5f0c6a7b8c9d";

fn minimal() -> Value {
    json!({"boot": BOOT, "seq": 4711, "up": 86400, "v": "0.1.0"})
}

fn full() -> Value {
    json!({
        "boot": BOOT, "run": "0199c2a4-5d1e-4b3a-9f00-1234567890ab", "seq": 1, "up": 2, "v": "0.1.0",
        "sent_at": "2026-11-23T10:00:00Z",
        "intent": {"kind": "maintenance", "for_s": 1200, "note": "kernel"},
        "before": {"boot": BOOT, "clean": true, "reason": "reboot"},
        "gap": {"failed": 3, "since_s": 180, "suspended_s": 0, "error": "dns"},
        "degraded": ["disk_full"],
        "vitals": {"load1": 0.25, "cpus": 4, "mem_used_bytes": 1, "mem_total_bytes": 2, "swap_used_bytes": 3},
    })
}

fn read(value: &Value) -> Result<Beat, ParseBeatError> {
    Beat::parse(value.to_string().as_bytes())
}

/// The full beat with one value replaced, by JSON pointer; a missing last step is added.
fn with(pointer: &str, value: Value) -> Value {
    let mut beat = full();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    beat.pointer_mut(parent).unwrap()[key] = value;
    beat
}

fn refused(pointer: &str, value: Value) -> String {
    read(&with(pointer, value)).unwrap_err().to_string()
}

#[test]
fn the_smallest_and_the_fullest_beat_are_read_and_written_back() {
    assert_eq!(serde_json::to_value(read(&minimal()).unwrap()).unwrap(), minimal());
    assert_eq!(serde_json::to_value(read(&full()).unwrap()).unwrap(), full());
    let goodbye = with("/intent", json!({"kind": "goodbye", "reason": "poweroff", "back_in_s": 86_400}));
    assert_eq!(
        read(&goodbye).unwrap().intent,
        Some(Intent::Goodbye { reason: StopReason::Poweroff, back_in_s: INTENT_S_MAX })
    );
    let quiet = with("/intent", json!({"kind": "maintenance", "for_s": 0}));
    assert_eq!(read(&quiet).unwrap().intent, Some(Intent::Maintenance { for_s: 0, note: String::new() }));
}

#[test]
fn a_beat_of_next_year_is_read_by_the_server_of_today() {
    let mut beat = full();
    beat["fans"] = json!([{"rpm": 1200, "place": {"rack": [1, 2]}}]);
    beat["gap"]["hops"] = json!(7);
    beat["vitals"]["gpu_temp_c"] = json!(61.5);
    beat["degraded"] = json!(["on_fire", "disk_full"]);
    beat["before"]["reason"] = json!("hibernate");
    let beat = read(&beat).unwrap();
    assert_eq!(beat.degraded, [Fault::DiskFull]);
    assert_eq!(beat.before.unwrap().reason, None);
    assert_eq!(beat.vitals.unwrap().more["gpu_temp_c"], json!(61.5));
    for intent in [json!({"kind": "teleport", "to": {}}), json!({"kind": "goodbye", "reason": "nap", "back_in_s": 1})] {
        assert_eq!(read(&with("/intent", intent)).unwrap().intent, None);
    }
    assert!(read(&with("/intent", Value::Null)).unwrap().intent.is_none());
}

#[test]
fn the_limits_themselves_are_accepted() {
    for (pointer, value) in [
        ("/seq", json!(SEQ_MAX)),
        ("/up", json!(UPTIME_S_MAX)),
        ("/v", json!("é".repeat(32))),
        ("/sent_at", json!("1970-01-01T00:00:00Z")),
        ("/sent_at", json!("9999-12-30T00:00:00Z")),
        ("/intent/for_s", json!(86_400)),
        ("/intent/note", json!("ü".repeat(200))),
        ("/gap/error", json!("x".repeat(32))),
        ("/degraded", json!(["disk_full", "a", "b", "c", "d", "e", "f", "g"])),
        ("/vitals/load1", json!(0)),
        ("/vitals/cpus", json!(u32::MAX)),
        ("/vitals/abcdefghijklmnopqrstuvwxyz_01234", json!(0)),
    ] {
        assert!(read(&with(pointer, value.clone())).is_ok(), "{pointer} {value}");
    }
}

#[test]
fn a_value_out_of_bounds_is_refused_with_the_field_and_the_limit() {
    for (pointer, value, says) in [
        ("/seq", json!(SEQ_MAX + 1), "seq is 9007199254740992, at most 9007199254740991 is allowed"),
        ("/up", json!(UPTIME_S_MAX + 1), "up is 3155760001, at most 3155760000 is allowed"),
        ("/v", json!(""), "v is empty"),
        ("/v", json!("  "), "v is empty"),
        ("/sent_at", json!("1969-12-31T23:59:59Z"), "sent_at is before 1970"),
        ("/intent/for_s", json!(86_401), "intent.for_s is 86401, at most 86400 is allowed"),
        ("/gap/since_s", json!(u64::MAX), "gap.since_s is 18446744073709551615, at most 3155760000 is allowed"),
        ("/vitals/load1", json!(-0.5), "vitals.load1 is negative"),
        ("/vitals/x", json!("1"), "vitals holds x, which is not a number of 0 or more"),
        ("/vitals/x", json!(-1), "vitals holds x, which is not a number of 0 or more"),
        ("/vitals/x", json!(null), "vitals holds x, which is not a number of 0 or more"),
        ("/vitals/x", json!({"y": 1}), "vitals holds x, which is not a number of 0 or more"),
        ("/vitals/Temp", json!(1), "vitals holds the name \"Temp\": 1 to 32 of a-z, 0-9 and '_' are allowed"),
    ] {
        assert_eq!(refused(pointer, value), says, "{pointer}");
    }
    for (pointer, value) in [
        ("/v", json!("x".repeat(33))),
        ("/v", json!("0.1\n")),
        ("/intent/note", json!("x".repeat(201))),
        ("/intent/note", json!("a\u{202e}b")),
        ("/gap/error", json!("x".repeat(33))),
        ("/gap/error", json!("a\u{1b}[31m")),
        ("/gap/failed", json!(u64::MAX)),
        ("/vitals/mem_total_bytes", json!(u64::MAX)),
        ("/vitals/", json!(1)),
        ("/vitals/abcdefghijklmnopqrstuvwxyz_012345", json!(1)),
        ("/intent", json!({"kind": "goodbye", "reason": "reboot", "back_in_s": 86_401})),
    ] {
        let error = read(&with(pointer, value.clone())).unwrap_err();
        assert!(matches!(error, ParseBeatError::Invalid { .. }), "{pointer} {value} {error}");
    }
    let mut crowded = full();
    for i in 0..MORE_VITALS_MAX {
        crowded["vitals"][format!("k{i}")] = json!(1);
    }
    assert_eq!(
        read(&crowded).unwrap_err().to_string(),
        "the number of further readings in vitals is 17, at most 16 is allowed"
    );
}

#[test]
fn a_value_of_the_wrong_type_is_refused() {
    for (pointer, value) in [
        ("/boot", json!("not a uuid")),
        ("/boot", json!("2d1f7c3e8b0a4c559e215f0c6a7b8c9d")),
        ("/boot", json!(format!("{{{BOOT}}}"))),
        ("/boot", json!(5)),
        ("/run", json!("")),
        ("/seq", json!(-1)),
        ("/seq", json!(1.5)),
        ("/seq", json!("1")),
        ("/seq", json!(1e30)),
        ("/up", json!(-86_400)),
        ("/up", json!(null)),
        ("/v", json!(1)),
        ("/sent_at", json!("yesterday")),
        ("/sent_at", json!("12026-01-01T00:00:00Z")),
        ("/sent_at", json!(1_795_444_000)),
        ("/intent", json!("goodbye")),
        ("/intent", json!({})),
        ("/intent", json!({"kind": 1})),
        ("/intent", json!({"kind": "goodbye"})),
        ("/intent", json!({"kind": "goodbye", "reason": 1, "back_in_s": 1})),
        ("/intent", json!({"kind": "goodbye", "reason": "reboot", "back_in_s": -1})),
        ("/intent", json!(["goodbye", {"reason": "reboot", "back_in_s": 1}])),
        ("/before", json!([BOOT, true])),
        ("/before/clean", json!("yes")),
        ("/before/reason", json!(1)),
        ("/gap", json!([1, 2, 3, "dns"])),
        ("/degraded", json!("disk_full")),
        ("/degraded", json!([1])),
        ("/degraded", json!(["a", "a", "a", "a", "a", "a", "a", "a", "a"])),
        ("/vitals", json!([])),
        ("/vitals/load1", json!("high")),
        ("/vitals/cpus", json!(-1)),
        ("/vitals/mem_used_bytes", json!(1.5)),
    ] {
        let error = read(&with(pointer, value.clone())).unwrap_err();
        assert!(matches!(error, ParseBeatError::Malformed(_)), "{pointer} {value} {error}");
    }
    for field in ["boot", "seq", "up", "v"] {
        let mut beat = full();
        beat.as_object_mut().unwrap().remove(field);
        assert_eq!(
            read(&beat).unwrap_err().to_string().split(" at line").next(),
            Some(&*format!("the body is not a beat: missing field `{field}`"))
        );
    }
}

#[test]
fn what_is_not_one_plain_json_object_is_refused() {
    let good = minimal().to_string();
    let field = |extra: &str| format!("{},{extra}}}", good.strip_suffix('}').unwrap());
    assert!(Beat::parse(field(r#""x":{"y":[{"z":[[[1]]]}]}"#).as_bytes()).is_ok(), "eight levels are fine");
    for (body, says) in [
        (String::new(), "EOF while parsing a value"),
        ("null".to_owned(), "expected a JSON object"),
        ("[]".to_owned(), "expected a JSON object"),
        (format!(r#"["{BOOT}",null,1,2,"0.1"]"#), "expected a JSON object"),
        (good.replace('}', ""), "EOF while parsing an object"),
        (format!("{good}{good}"), "trailing characters"),
        (format!("\u{feff}{good}"), "expected value"),
        (field(r#""seq":1"#), "the field \"seq\" stands twice"),
        (field(r#""s\u0065q":1"#), "the field \"seq\" stands twice"),
        (field(r#""x":{"y":1,"y":2}"#), "the field \"y\" stands twice"),
        (field(r#""x":[[[[[[[[1]]]]]]]]"#), "nested deeper than 8 levels"),
        (field(r#""x":"\ud800""#), "unexpected end of hex escape"),
        (field(r#""x":1e999"#), "number out of range"),
        (field(r#""x":NaN"#), "expected value"),
        (field("\"x\":\"a\nb\""), "control character"),
        (field("//"), "key must be a string"),
    ] {
        let error = Beat::parse(body.as_bytes()).unwrap_err();
        assert!(matches!(&error, ParseBeatError::Malformed(why) if why.contains(says)), "{body}: {error}");
    }
    assert!(Beat::parse(&[b"{\"boot\":\"", &[0xff, 0xfe][..], b"\"}"].concat()).is_err());
    let many: Vec<String> = (0..61).map(|i| format!("\"k{i}\":1")).collect();
    let error = Beat::parse(field(&many.join(",")).as_bytes()).unwrap_err().to_string();
    assert!(error.contains("more than 64 fields in one object"), "{error}");
}

#[test]
fn a_body_that_is_too_large_is_refused_before_it_is_read() {
    let padded = |length: usize| format!("{:length$}", minimal().to_string(), length = length);
    assert!(Beat::parse(padded(BEAT_BYTES_MAX).as_bytes()).is_ok());
    assert_eq!(
        Beat::parse(padded(BEAT_BYTES_MAX + 1).as_bytes()).unwrap_err().to_string(),
        "the body has 16385 bytes, at most 16384 are allowed"
    );
}

#[test]
fn an_error_neither_repeats_a_long_text_nor_passes_control_characters_on() {
    for text in ["x".repeat(10_000), "\u{202e}".repeat(2_000), "\u{1b}[31m".repeat(1_000)] {
        for pointer in ["/boot", "/seq", "/v", "/intent/note", "/sent_at", "/vitals/cpus", "/degraded"] {
            let error = refused(pointer, json!(text));
            assert!(error.chars().count() <= 300, "{pointer}: {error}");
            assert!(!error.chars().any(name::is_hidden), "{pointer}: {error:?}");
        }
        let error = read(&with(&format!("/vitals/{text}"), json!(1))).unwrap_err().to_string();
        assert!(error.chars().count() <= 300 && !error.chars().any(name::is_hidden), "{error:?}");
    }
}

#[test]
fn the_most_expensive_body_is_read_in_bounded_time() {
    // As many objects with as many keys as fit: what bounds the search for repeated keys keeps it linear.
    let object = format!("{{{}}}", (0..64).map(|i| format!("\"{i}\":1")).collect::<Vec<_>>().join(","));
    let objects = vec![object; 30].join(",");
    let body = format!("{},\"x\":[{objects}]}}", minimal().to_string().strip_suffix('}').unwrap());
    assert!(body.len() > 12_000 && body.len() <= BEAT_BYTES_MAX);
    assert!(Beat::parse(body.as_bytes()).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Beat::parse(&bytes).is_err());
    }

    #[test]
    fn no_json_like_text_makes_the_reader_panic(text in "[\\[\\]{}\",:0-9a-z\\\\ .eE+-]{0,120}") {
        prop_assert!(Beat::parse(text.as_bytes()).is_err());
    }

    #[test]
    fn a_damaged_beat_is_refused_or_stays_within_bounds(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..4),
    ) {
        let mut body = full().to_string().into_bytes();
        for (place, with, how) in damage {
            let place = place.index(body.len());
            match how {
                0 => body[place] = with,
                1 => body.insert(place, with),
                2 => drop(body.remove(place)),
                // Repeating a stretch makes repeated keys and deeper nesting.
                _ => body.extend_from_within(place.min(body.len() - 1)..),
            }
        }
        if let Ok(beat) = Beat::parse(&body) {
            prop_assert!(beat.seq <= SEQ_MAX && beat.up <= UPTIME_S_MAX);
            prop_assert!(beat.v.chars().count() <= VERSION_CHARS_MAX && !beat.v.chars().any(name::is_hidden));
            prop_assert!(beat.degraded.len() <= FAULTS_MAX);
            // What was read can be written and read again, as the same beat.
            let again = Beat::parse(&serde_json::to_vec(&beat).unwrap()).unwrap();
            prop_assert_eq!(again, beat);
        }
    }
}
