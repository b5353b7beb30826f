use std::collections::BTreeMap;

use hb_wire::id::{EventId, HostId, IncidentId};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn host(n: usize) -> HostRef {
    let id = HostId::mint(1_000, [u8::try_from(n % 256).unwrap(); 10]);
    HostRef { id, name: format!("web{n}"), tags: BTreeMap::from([("site".to_owned(), "ams1".to_owned())]) }
}

pub(crate) fn hosts(count: usize) -> Vec<HostRef> {
    (1..=count).map(host).collect()
}

/// web1 is down.
pub(crate) fn down() -> Notice {
    Notice {
        event: "down".to_owned(),
        id: EventId::mint(1_000, [1; 10]),
        incident: None,
        host: Some(host(1)),
        hosts: Vec::new(),
        at: at("2026-11-23T03:14:39Z"),
        since: Some(at("2026-11-23T03:12:09Z")),
        cause: Some("silent".to_owned()),
        deadline: Some(at("2026-11-23T03:14:09Z")),
        message: String::new(),
        details: BTreeMap::new(),
    }
}

fn notice(event: &str) -> Notice {
    Notice { event: event.to_owned(), cause: None, deadline: None, ..down() }
}

/// The message of an incident, as the server makes it.
fn many(event: &str, count: usize, details: Value) -> Notice {
    let details = serde_json::from_value(details).unwrap();
    Notice { host: None, hosts: hosts(count), since: Some(down().at), details, ..notice(event) }
}

/// Ten minutes later.
fn later(notice: Notice) -> Notice {
    Notice { at: at("2026-11-23T03:24:39Z"), ..notice }
}

#[test]
fn a_death_says_who_since_when_and_which_deadline_passed() {
    let mut notice = down();
    assert_eq!(line(&notice), "web1 is DOWN: silent since 03:12:09 UTC (2m30s), deadline 03:14:09 UTC passed");
    notice.since = Some(at("2026-11-22T23:59:59Z"));
    assert_eq!(
        line(&notice),
        "web1 is DOWN: silent since 2026-11-22 23:59:59 UTC (3h14m40s), deadline 03:14:09 UTC passed"
    );
    notice.cause = Some("never_seen".to_owned());
    assert_eq!(
        line(&notice),
        "web1 is DOWN: never heard since it was enrolled, its first beat was due by 03:14:09 UTC"
    );
    notice.cause = Some("not_back".to_owned());
    assert_eq!(line(&notice), "web1 is DOWN: it said goodbye and was not back by 03:14:09 UTC");
}

#[test]
fn a_return_says_how_long_and_why() {
    let mut notice = notice("up");
    notice.cause = Some("crashed".to_owned());
    notice.incident = Some(IncidentId::mint(1, [1; 10]));
    assert_eq!(line(&notice), "web1 is back: down for 2m30s, cause: crashed (no clean stop: crash or power loss)");
    assert_eq!(subject(&notice), "[hb] UP web1 (2m30s)");
    notice.incident = None;
    assert_eq!(line(&notice), "web1 is back: away for 2m30s, cause: crashed (no clean stop: crash or power loss)");
    assert_eq!(cause_words("booted"), "booted (how it stopped is not known)");
    notice.cause = None;
    assert_eq!(line(&notice), "web1 is up", "what was never down is not back");
}

#[test]
fn many_deaths_are_one_line_that_says_how_many_and_what_they_share() {
    let mass = many("down", 41, json!({"silent": 41, "expected": 43, "shared": "site=ams1"}));
    assert_eq!(
        line(&mass),
        "41 of 43 hosts fell silent together (they share site=ams1): web1, web2, web3, web4, web5 and 36 more"
    );
    assert_eq!(subject(&mass), "[hb] DOWN 41 hosts (site=ams1)");
    let update = later(many("down", 2, json!({"silent": 43, "expected": 43, "shared": "site=ams1"})));
    assert_eq!(line(&update), "2 more hosts fell silent, 43 of 43 in all (they share site=ams1): web1, web2");
    // Where the server says nothing of it, the labels that all of them carry do.
    assert_eq!(
        line(&many("down", 3, json!({}))),
        "3 hosts fell silent together (they share site=ams1): web1, web2, web3"
    );
    let mut strangers = many("down", 3, json!({"silent": 3, "expected": 4, "shared": null}));
    strangers.hosts[2].tags.clear();
    assert_eq!(line(&strangers), "3 of 4 hosts fell silent together: web1, web2, web3");
}

#[test]
fn many_returns_are_one_line_that_names_who_is_still_missing() {
    let all = later(many("up", 0, json!({"silent": 41, "expected": 43, "shared": "site=ams1", "back": 41, "away": 0})));
    assert_eq!(line(&all), "all 41 hosts are back after 10m (they share site=ams1)");
    assert_eq!(subject(&all), "[hb] UP 41 hosts (site=ams1) (10m)");
    let some = later(many("up", 2, json!({"silent": 41, "shared": null, "back": 39, "away": 2})));
    assert_eq!(line(&some), "39 of 41 hosts are back after 10m, 2 are still silent: web1, web2");
    assert!(text(&some).contains("\nStill silent (2):\n  web1  (site=ams1)\n"), "{}", text(&some));
}

#[test]
fn a_host_that_was_up_and_unreachable_says_from_when_to_when() {
    let back = |cause: &str, gap: Value| {
        let mut notice = later(down());
        notice.event = "up".to_owned();
        notice.cause = Some(cause.to_owned());
        notice.details.insert("gap".to_owned(), gap);
        line(&notice)
    };
    let told = "unreachable (it was up, its beats did not get through from 03:14:39 UTC to 03:24:39 UTC, dns)";
    let said = back("unreachable", json!({"failed": 9, "since_s": 600, "suspended_s": 0, "error": "dns"}));
    assert!(said.ends_with(told), "{said}");
    let plain = "unreachable (it ran, its beats did not get through)";
    for odd in [json!(null), json!({}), json!({"failed": 0, "since_s": 600}), json!({"failed": 2}), json!("x")] {
        let said = back("unreachable", odd);
        assert!(said.ends_with(plain), "{said}");
    }
    let said = back("unreachable", json!({"failed": 9, "since_s": 600, "error": "x\ny\u{1b}[31m"}));
    assert!(said.contains("x y"), "{said}");
    assert!(!said.contains('\u{1b}') && !said.contains('\n'), "{said}");
    assert!(back("rebooted", json!({"failed": 9, "since_s": 600})).ends_with("rebooted (clean stop)"));
}

#[test]
fn every_kind_of_event_has_its_line() {
    let deadline = Some(at("2026-11-23T04:00:00Z"));
    for (event, details, says) in [
        ("stopped", json!({"reason": "reboot"}), "web1 said goodbye (reboot), expected back by 04:00:00 UTC"),
        ("returned_late", json!({}), "web1 was late and is back, silent for 2m30s, not declared down"),
        ("rebooted", json!({}), "web1 booted anew, silent for 2m30s"),
        ("restarted", json!({}), "web1: its agent was restarted in the same boot, silent for 2m30s"),
        ("cloned", json!({}), "web1 is CLONED: two machines use its key, the one that came second is not believed"),
        (
            "degraded",
            json!({"faults": ["disk_full", "x\ny"]}),
            "web1 is DEGRADED: alive, but not fit for work: disk_full, x y",
        ),
        ("restored", json!({}), "web1 is fit for work again"),
        ("paused", json!({"reason": "kernel"}), "web1 is paused until 04:00:00 UTC: kernel"),
        ("resumed", json!({}), "web1 is watched again: its pause ended, expected back by 04:00:00 UTC"),
        ("maintenance", json!({"note": "kernel"}), "web1 is in maintenance until 04:00:00 UTC: kernel"),
        ("retired", json!({}), "web1 was taken out of service"),
        ("key_rotated", json!({}), "web1 has a new key"),
        ("registered", json!({}), "web1 is enrolled, its first beat is expected by 04:00:00 UTC"),
        (
            "flapping",
            json!({}),
            "web1 is FLAPPING: it keeps going down and up, single changes are not told until it is steady",
        ),
        ("steady", json!({}), "web1 is steady again: changes are told one by one"),
        ("test", json!({}), "this is a test: alerts of hb arrive here"),
        ("test", json!({"channel": "oncall"}), "this is a test of the channel oncall: alerts of hb arrive here"),
        (
            "replication_cut",
            json!({"peer": "eu-west-1"}),
            "replication is CUT: what hb does in eu-west-1 does not arrive here since 03:12:09 UTC, though it works; each \
             region tells what it sees, late or twice at the worst",
        ),
        ("replication_restored", json!({}), "replication works again: what hb does in the other region arrives here"),
        ("news_of_next_year", json!({"reason": "new"}), "web1: news_of_next_year, silent for 2m30s: new"),
        (
            "undelivered",
            json!({"channel": "ops", "event": "down", "error": "the receiver answered 410"}),
            "the message \"down\" did not arrive at ops (about web1), and is given up: the receiver answered 410",
        ),
    ] {
        let details = serde_json::from_value(details).unwrap();
        let notice = Notice { details, deadline, ..notice(event) };
        assert_eq!(line(&notice), says, "{event}");
        assert!(subject(&notice).starts_with("[hb] "), "{event}");
    }
    let ended = Notice { deadline: None, ..notice("maintenance") };
    assert_eq!(line(&ended), "web1 ended its maintenance");
}

#[test]
fn blindness_says_from_when_to_when_and_that_nothing_was_decided() {
    let until = |until: Value| Notice {
        host: None,
        details: BTreeMap::from([("until_ms".to_owned(), until)]),
        ..notice("blind")
    };
    let end = at("2026-11-23T03:13:09Z").as_millisecond();
    assert_eq!(
        line(&until(json!(end))),
        "hb was blind from 03:12:09 UTC to 03:13:09 UTC (1m): nothing was decided in that time"
    );
    assert_eq!(
        line(&until(Value::Null)),
        "hb is blind: it cannot observe since 03:12:09 UTC (2m30s), nothing is decided meanwhile"
    );
    assert_eq!(
        line(&Notice { event: "observing".to_owned(), ..until(json!(end)) }),
        "hb observes again: it was blind from 03:12:09 UTC to 03:13:09 UTC (1m): nothing was decided in that time"
    );
}

#[test]
fn details_of_the_wrong_type_are_left_out() {
    let bad =
        json!({"silent": "41", "expected": -1, "shared": 7, "reason": [], "faults": 3, "until_ms": "x", "back": null});
    let details: BTreeMap<String, Value> = serde_json::from_value(bad).unwrap();
    assert_eq!(line(&Notice { details: details.clone(), ..down() }), line(&down()));
    assert_eq!(line(&Notice { details, ..many("down", 2, json!({})) }), line(&many("down", 2, json!({}))));
}

#[test]
fn a_mail_reads_well_at_night() {
    assert_eq!(
        text(&down()),
        "web1 is DOWN: silent since 03:12:09 UTC (2m30s), deadline 03:14:09 UTC passed\n\
         \n\
         Host      web1  (site=ams1)\n\
         Event     down\n\
         Since     2026-11-23 03:12:09 UTC (2m30s before this was decided)\n\
         Deadline  2026-11-23 03:14:09 UTC\n\
         Decided   2026-11-23 03:14:39 UTC\n\
         Cause     silent past its deadline\n\
         Id        00000000-03e8-7101-8101-010101010101\n\
         \n\
         To learn more:  hb why web1\n"
    );
    let mass = text(&many("down", 250, json!({})));
    assert!(mass.contains("\nHosts (250):\n  web1  (site=ams1)\n"), "{mass}");
    assert!(mass.contains("\n  web200  (site=ams1)\n  and 50 more: hb status\n"), "{mass}");
    assert!(!mass.contains("web201"));
}

#[test]
fn the_message_that_the_server_made_is_the_first_line_of_the_mail() {
    let notice = Notice { message: "41 of 43 hosts fell silent together".to_owned(), ..many("down", 41, json!({})) };
    assert!(text(&notice).starts_with("41 of 43 hosts fell silent together\n\n"));
}

proptest! {
    #[test]
    fn whatever_is_in_a_notice_the_line_is_one_line_and_the_mail_hides_nothing(
        event in "down|up|paused|.{0,30}", name in ".{0,80}", value in ".{0,80}", message in ".{0,700}",
        cause in proptest::option::of(".{0,40}"), since in proptest::option::of(any::<i32>()), count in 0_usize..8,
    ) {
        let mut notice = Notice { event, message, cause, ..many("down", count, json!({})) };
        notice.since = since.map(|since| Timestamp::from_second(i64::from(since)).unwrap());
        let mut odd = host(1);
        odd.name = name;
        odd.tags.insert("k".to_owned(), value);
        notice.hosts.extend((count > 0).then(|| odd.clone()));
        notice.host = Some(odd);
        for shown in [line(&notice), subject(&notice)] {
            prop_assert!(shown.chars().all(|c| crate::text::visible(c) == c), "{shown:?}");
            prop_assert!(shown.chars().count() <= LINE_CHARS_MAX);
        }
        prop_assert!(subject(&notice).chars().count() <= SUBJECT_CHARS_MAX);
        let text = text(&notice);
        prop_assert!(text.chars().all(|c| c == '\n' || crate::text::visible(c) == c), "{text:?}");
        prop_assert!(text.lines().all(|line| line.chars().count() <= 2 * LINE_CHARS_MAX + NAME_CHARS_MAX * 16));
    }
}
