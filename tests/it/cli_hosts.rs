//! `hb hosts`, `pause`, `resume`, `history` and `why`.

use expect_test::expect;
use hb_wire::problem::Code;
use serde_json::{Value, json};

use crate::fleet;
use crate::support::{Answer, Hb, Server};

#[test]
fn hosts_are_listed_by_name() {
    let server = fleet::serve();
    Hb::with(&server).run("hosts list").is(expect![[r#"
        exit 0
        --- stdout
        HOST   STATE   EVERY  GRACE  CLASS   AGENT  TAGS              ID
        batch  up      1m     2m     server  0.1.0                    019aaf00-0000-7000-8000-000000000005
        db1    down    1m     2m     server  0.1.0  role=db           019aaf00-0000-7000-8000-000000000002
        lab    paused  1m     2m     server  0.1.0                    019aaf00-0000-7000-8000-000000000004
        web1   up      1m     2m     server  0.1.0  role=web site=eu  019aaf00-0000-7000-8000-000000000001
        web2   late    1m     2m     server  0.1.0  role=web          019aaf00-0000-7000-8000-000000000003
    "#]]);
    let names = Hb::with(&server).run("hosts list --state retired --json").json();
    assert_eq!(names["hosts"][0]["name"], "old");
}

#[test]
fn an_empty_list_is_no_error() {
    let server = fleet::serve();
    Hb::with(&server).run("hosts list --tag role=mail").is(expect![[r#"
        exit 0
        --- stderr
        no host fits
    "#]]);
    Hb::with(&server).run("hosts list --tag role=mail --json").is(expect![[r#"
        exit 0
        --- stdout
        {
          "hosts": []
        }
    "#]]);
}

#[test]
fn one_host_is_shown_with_all_that_is_known_of_it() {
    let server = fleet::serve();
    Hb::with(&server).run("hosts show web1").is(expect![[r#"
        exit 0
        --- stdout
        web1
          id          019aaf00-0000-7000-8000-000000000001
          state       up
          since       2026-11-20 07:00:00 CET (3d 6h ago)
          last seen   2026-11-23 12:59:30 CET (30s ago)
          deadline    2026-11-23 13:02:30 CET
          interval    1m
          grace       2m
          class       server
          tags        role=web site=eu
          agent       0.1.0
          uptime      12d 4h
          load        0.42
          processors  4
          memory used 2.0 GiB of 8.0 GiB
          enrolled    2026-11-01 01:00:00 CET (22d 12h ago)
    "#]]);
    assert_eq!(Hb::with(&server).run("hosts show web1 --json").json()["id"], fleet::WEB1);
}

#[test]
fn a_name_that_a_retired_host_bore_means_the_living_one() {
    let server = Server::start(|seen| {
        if seen.method != "GET" || seen.query("name").is_none() {
            return fleet::answer(seen);
        }
        let mut hosts = fleet::hosts();
        hosts.retain(|host| host["name"] == "web1" || host["name"] == "old");
        for host in &mut hosts {
            host["name"] = json!("web1");
        }
        Answer::json(fleet::page(hosts))
    });
    let shown = Hb::with(&server).run("hosts show web1 --json").json();
    assert_eq!((&shown["id"], &shown["state"]), (&json!(fleet::WEB1), &json!("up")));
}

#[test]
fn a_host_is_renamed() {
    let server = fleet::serve();
    Hb::with(&server).run("hosts rename web1 Web1.Example.org").is(expect![[r#"
        exit 0
        --- stdout
        web1 is now web1.example.org
    "#]]);
    let patch = server.last(&format!("PATCH /v1/hosts/{}", fleet::WEB1));
    assert_eq!(patch.json(), json!({ "name": "web1.example.org" }));
    assert_eq!(Hb::with(&server).run("hosts rename web1 www --json").json()["name"], "www");
}

#[test]
fn a_name_that_cannot_be_one_is_refused_before_anything_is_asked() {
    let server = fleet::serve();
    Hb::with(&server).run_with(&["hosts", "rename", "web1", "web 1"], "").is(expect![[r#"
        exit 2
        --- stderr
        error: invalid value 'web 1' for '<NAME>': a host name must not hold ' ' (character 4), only ASCII letters, digits, '.', '-' and '_': "web 1"
        hint: see --help
    "#]]);
    assert!(server.lines().is_empty());
}

#[test]
fn tags_are_set_and_removed() {
    let server = fleet::serve();
    Hb::with(&server).run("hosts tag web1 rack=7 --remove site").is(expect![[r#"
        exit 0
        --- stdout
        web1: rack=7 role=web
    "#]]);
    let patch = server.last(&format!("PATCH /v1/hosts/{}", fleet::WEB1));
    assert_eq!(patch.json(), json!({ "tags": { "rack": "7", "site": null } }));
    assert_eq!(Hb::with(&server).run("hosts tag web1 a=b --json").json()["tags"]["a"], "b");
    Hb::with(&server).run("hosts tag web1").exits(2);
    Hb::with(&server).run("hosts tag web1 rack").is(expect![[r#"
        exit 2
        --- stderr
        error: invalid value 'rack' for '[K=V]...': write a tag as KEY=VALUE, for example role=db
        hint: see --help
    "#]]);
}

#[test]
fn settings_are_changed_and_what_is_not_named_stays() {
    let server = fleet::serve();
    Hb::with(&server).run("hosts set web1 --interval 30s --grace 1m30s").is(expect![[r#"
        exit 0
        --- stdout
        web1: server, every 30s, down after 1m 30s more
    "#]]);
    let patch = server.last(&format!("PATCH /v1/hosts/{}", fleet::WEB1));
    assert_eq!(patch.json(), json!({ "interval_s": 30, "grace_s": 90 }));
    Hb::with(&server).run("hosts set web1 --class intermittent --max-away 14d").exits(0);
    let patch = server.last(&format!("PATCH /v1/hosts/{}", fleet::WEB1));
    assert_eq!(patch.json(), json!({ "class": "intermittent", "max_away_s": 1_209_600 }));
    assert_eq!(Hb::with(&server).run("hosts set web1 --interval 5m --json").json()["interval_s"], 300);
    Hb::with(&server).run("hosts set web1").exits(2);
    Hb::with(&server).run("hosts set web1 --interval 60").is(expect![[r#"
        exit 2
        --- stderr
        error: invalid value '60' for '--interval <SPAN>': "60" has no unit: write 60s for seconds, 60m for minutes, 60h for hours
        hint: see --help
    "#]]);
    Hb::with(&server).run("hosts set web1 --interval 0s").exits(2);
}

#[test]
fn retiring_without_a_terminal_needs_yes() {
    let server = fleet::serve();
    Hb::with(&server).run("hosts retire web1").is(expect![[r#"
        exit 2
        --- stderr
        error: nobody can be asked, since there is no terminal: Retire web1 (019aaf00-0000-7000-8000-000000000001)? Its key stops working for good.
        hint: add --yes if you are sure
    "#]]);
    assert!(!server.lines().iter().any(|line| line.starts_with("DELETE")));
    Hb::with(&server).run("hosts retire web1 --yes").is(expect![[r#"
        exit 0
        --- stdout
        web1 is retired
    "#]]);
    server.last(&format!("DELETE /v1/hosts/{}", fleet::WEB1));
    let document = Hb::with(&server).run("hosts retire web1 --yes --json").json();
    assert_eq!(document, json!({ "id": fleet::WEB1, "name": "web1", "retired": true }));
    Hb::with(&server).run("hosts retire old --yes").is(expect![[r#"
        exit 1
        --- stderr
        error: old is retired already
        hint: nothing is left to do
    "#]]);
}

#[test]
fn a_pause_says_until_when_and_warns_when_it_has_no_end() {
    let server = fleet::serve();
    Hb::with(&server).run_with(&["pause", "web1", "--for", "2h", "--reason", "new disk"], "").is(expect![[r#"
        exit 0
        --- stdout
        web1 is paused until 15:00:00 CET
    "#]]);
    let pause = server.last(&format!("POST /v1/hosts/{}/pause", fleet::WEB1));
    assert_eq!(pause.json(), json!({ "for_s": 7200, "reason": "new disk" }));
    Hb::with(&server).run("pause web1").is(expect![[r#"
        exit 0
        --- stdout
        web1 is paused until it is resumed
        --- stderr
        warning: a pause without an end is easily forgotten: `--for 2h` gives it one
    "#]]);
    assert_eq!(Hb::with(&server).run("pause web1 --for 2h --json").json()["state"], "paused");
    Hb::with(&server).run("pause web1 --for 2").is(expect![[r#"
        exit 2
        --- stderr
        error: invalid value '2' for '--for <SPAN>': "2" has no unit: write 2s for seconds, 2m for minutes, 2h for hours
        hint: see --help
    "#]]);
}

#[test]
fn a_resumed_host_is_watched_again() {
    let server = fleet::serve();
    Hb::with(&server).run("resume web1").is(expect![[r#"
        exit 0
        --- stdout
        web1 was not paused: nothing changed (up)
    "#]]);
    server.last(&format!("POST /v1/hosts/{}/resume", fleet::WEB1));
    assert_eq!(Hb::with(&server).run("resume web1 --json").json()["name"], "web1");
    let run = Hb::with(&server).run("resume lab");
    assert!(run.exits(0).stdout.starts_with("lab is watched again"), "{run:?}");
}

#[test]
fn a_change_is_never_tried_twice() {
    let server = Server::start(|seen| match seen.method.as_str() {
        "GET" => fleet::answer(seen),
        _ => Answer::problem(Code::Unavailable, "stopping"),
    });
    Hb::with(&server).run("resume web1").is(expect![[r#"
        exit 69
        --- stderr
        error: http://SERVER is not available: stopping
        hint: try again in 30 s
    "#]]);
    assert_eq!(server.lines().iter().filter(|line| line.starts_with("POST")).count(), 1);
}

#[test]
fn history_reads_like_a_log_with_the_latest_last() {
    let server = fleet::serve();
    Hb::with(&server).run("history").is(expect![[r#"
        exit 0
        --- stdout
        TIME                     HOST  EVENT  AFTER  CAUSE     MESSAGE
        2026-11-22 04:10:00 CET  db1   up     10m    rebooted  db1 is up again
        2026-11-23 09:48:00 CET  db1   down   3m               db1 is down: silent for 3m
    "#]]);
    Hb::with(&server).run("history db1 --since 30d").is(expect![[r#"
        exit 0
        --- stdout
        TIME                     EVENT  AFTER  CAUSE     MESSAGE
        2026-11-22 04:10:00 CET  up     10m    rebooted  db1 is up again
        2026-11-23 09:48:00 CET  down   3m               db1 is down: silent for 3m
    "#]]);
    let asked = server.last(&format!("GET /v1/hosts/{}/events", fleet::DB1));
    assert!(asked.query("since").is_some_and(|since| since.ends_with('Z')), "{asked:?}");
    let document = Hb::with(&server).run("history --json").json();
    assert_eq!(document["truncated"], false);
    assert_eq!(document["events"][1]["event"], "down", "the latest comes last");
    assert_eq!(document["events"][1]["at"], "2026-11-23T08:48:00Z");
}

#[test]
fn a_history_that_is_cut_says_so() {
    let server = fleet::serve();
    let run = Hb::with(&server).run("history -n 1");
    run.is(expect![[r#"
        exit 0
        --- stdout
        TIME                     HOST  EVENT  AFTER  MESSAGE
        2026-11-23 09:48:00 CET  db1   down   3m     db1 is down: silent for 3m
        --- stderr
        warning: there were more: these are the latest 1 (`--limit`)
    "#]]);
    assert_eq!(Hb::with(&server).run("history -n 1 --json").json()["truncated"], true);
}

#[test]
fn a_quiet_week_is_said_to_be_one() {
    let server = Server::start(|_| Answer::json(json!({ "events": [] })));
    Hb::with(&server).run("history").is(expect![[r#"
        exit 0
        --- stdout
        nothing happened in the last 7d
    "#]]);
    Hb::with(&server).run("history --json").is(expect![[r#"
        exit 0
        --- stdout
        {
          "events": [],
          "truncated": false
        }
    "#]]);
    Hb::with(&server).run("history --since 9").exits(2);
}

#[test]
fn why_gives_the_answer_first_and_the_numbers_below() {
    let server = fleet::serve();
    Hb::with(&server).run("why db1").is(expect![[r#"
        exit 0
        --- stdout
        db1 is down since 09:48:00 CET (3h 12m); last heard 09:45:00 CET (3h 15m ago)
        no beat came for 180 s after the last one

        How hb came to this
          1. the last beat was stored at 08:45:00
          2. interval 60 s and grace 120 s passed

        The last change
          2026-11-23 09:48:00 CET  down
          db1 is down: silent for 3m
            credit_s = 0
            seq = 17

        Who was told
          oncall: delivered 09:48:01 CET (1 attempt)
          chat: pending (3 attempts), next 13:05:00 CET: timed out
    "#]]);
    let document = Hb::with(&server).run("why db1 --json").json();
    assert_eq!(document["event"]["inputs"]["seq"], 17);
}

#[test]
fn an_unknown_host_is_an_answer_and_not_a_crash() {
    let server = fleet::serve();
    for command in ["hosts show", "why", "history", "resume", "pause", "hosts retire --yes", "hosts set --interval 5m"]
    {
        Hb::with(&server).run(&format!("{command} nosuch")).exits(1);
    }
    let run = Hb::with(&server).run("why 019aaf00-0000-7000-8000-0000000000ff --json");
    assert_eq!(run.exits(1).error()["error"]["message"], "there is no such host");
}

/// What a hostile server would like a terminal to get: a title, a cleared screen, a second line, colour by C1, text
/// turned around.
const EVIL: &str = "\x1b]0;owned\x07\x1b[2J\r\n\u{9b}31m\u{202e}\u{7f}";

/// Words that must stay what they are, since they are values of enums.
const WORDS: [&str; 12] =
    ["up", "late", "down", "paused", "retired", "server", "admin", "read", "metrics", "email", "webhook", "pending"];

/// Appends [`EVIL`] to every text of a document that need not parse as an id, a time or a word; and adds a tag of it.
fn poison(value: &mut Value) {
    match value {
        Value::String(text) if text.len() == 36 || text.ends_with('Z') || WORDS.contains(&text.as_str()) => {}
        Value::String(text) => text.push_str(EVIL),
        Value::Array(items) => items.iter_mut().for_each(poison),
        Value::Object(members) => {
            // The host must still be found by its name.
            let is_host = members.contains_key("interval_s");
            for (_, value) in members.iter_mut().filter(|(name, _)| !is_host || *name != "name") {
                poison(value);
            }
            if let Some(tags) = members.get_mut("tags").and_then(Value::as_object_mut) {
                tags.insert(EVIL.to_owned(), EVIL.into());
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Fails when something printed could steer a terminal.
fn check_tame(args: &str, printed: &str) {
    let steering = printed.chars().find(|char| *char != '\n' && (char.is_control() || *char == '\u{202e}'));
    assert_eq!(steering, None, "{args}: {printed:?}");
}

#[test]
fn nothing_that_a_server_says_can_steer_a_terminal() {
    let server = Server::start(|seen| {
        let mut answer = fleet::answer(seen);
        if answer.status < 400 && !answer.body.is_empty() {
            let mut document: Value = serde_json::from_str(&answer.body).unwrap();
            poison(&mut document);
            answer.body = document.to_string();
        }
        answer
    });
    let commands = "status; hosts list; hosts show web1; hosts tag web1 a=b; history; why db1; keys list; \
        keys create --name x --scope read; channels list; channels add email --to a@b; deliveries; tokens list; \
        tokens create; pause web1; resume web1; status --check";
    for args in commands.split("; ") {
        let run = Hb::with(&server).run(args);
        let printed = format!("{}{}", run.stdout, run.stderr);
        check_tame(args, &printed);
        // These print names of hosts alone, which were spared.
        if !matches!(args, "status --check" | "pause web1" | "resume web1") {
            assert!(printed.contains(r"\u{1b}]0;owned\u{7}"), "{args} shows that something was there: {printed}");
        }
        let run = Hb::with(&server).run(&format!("{args} --json"));
        check_tame(args, &run.stdout);
        run.json();
    }
}

#[test]
fn nothing_that_a_refusal_says_can_steer_a_terminal() {
    let server = Server::start(|_| Answer::problem(Code::Forbidden, EVIL));
    for args in ["status", "status --json", "status --check", "keys list"] {
        let run = Hb::with(&server).run(args);
        check_tame(args, &format!("{}{}", run.stdout, run.stderr));
    }
    let run = Hb::with(&server).run_with(&["hosts", "show", EVIL], "");
    check_tame("hosts show", &run.stderr);
}

#[test]
fn what_is_given_twice_and_none_of_anything_is_refused_before_a_server_is_asked() {
    let server = fleet::serve();
    for (args, said) in [
        ("history -n 0", "it must be at least 1"),
        ("deliveries -n 0", "it must be at least 1"),
        ("hosts tag web1 role=a role=b", "tag role is given twice: a and b"),
        ("tokens create --tag site=eu --tag site=us", "tag site is given twice: eu and us"),
    ] {
        let run = Hb::with(&server).run(args);
        assert!(run.exits(2).stderr.contains(said), "{args}: {run:?}");
    }
    assert_eq!(server.lines(), [""; 0]);
}
