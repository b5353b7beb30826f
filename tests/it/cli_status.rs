//! `hb status`.

use std::io::{BufRead as _, BufReader, Read as _};

use expect_test::expect;
use hb_wire::problem::Code;
use serde_json::{Value, json};

use crate::fleet;
use crate::support::{Answer, Hb, Server, wait};

#[test]
fn the_fleet_is_shown_with_its_summary_and_the_worst_first() {
    let server = fleet::serve();
    Hb::with(&server).run("status").is(expect![[r#"
        exit 0
        --- stdout
        5 hosts: 1 down, 1 late, 1 paused, 2 up

        HOST   STATE   LAST SEEN   DUE                          MARKS     REASON     UPTIME  LOAD  TAGS
        db1    down    3h 15m ago  down for 3h 12m                                                 role=db
        web2   late    1m 20s ago  late by 20s, down in 1m 40s                       12d 4h        role=web
        batch  up      30s ago     in 2m 30s                    degraded  disk_full  12d 4h
        lab    paused  1d 2h ago   no end                                 new disk
        web1   up      30s ago     in 2m 30s                                         12d 4h  0.42  role=web site=eu
        --- stderr
        warning: paused without an end: lab (`hb resume HOST`)
    "#]]);
    assert_eq!(server.lines(), ["GET /v1/hosts?limit=1000"]);
}

#[test]
fn the_json_document_is_the_one_of_the_contract() {
    let server = fleet::serve();
    let run = Hb::with(&server).run("status --json web1");
    run.is(expect![[r#"
        exit 0
        --- stdout
        {
          "server": "http://SERVER/",
          "observed_at": "2026-11-23T12:00:00Z",
          "observing": true,
          "summary": {
            "down": 0,
            "late": 0,
            "new": 0,
            "paused": 0,
            "stopped": 0,
            "unknown": 0,
            "up": 1
          },
          "hosts": [
            {
              "id": "019aaf00-0000-7000-8000-000000000001",
              "name": "web1",
              "state": "up",
              "since": "2026-11-20T06:00:00Z",
              "marks": [],
              "last_seen": "2026-11-23T11:59:30Z",
              "deadline": "2026-11-23T12:02:30Z",
              "interval_s": 60,
              "grace_s": 120,
              "tags": {
                "role": "web",
                "site": "eu"
              },
              "class": "server",
              "agent": "0.1.0",
              "uptime_s": 1051200,
              "vitals": {
                "load1": 0.42,
                "cpus": 4,
                "mem_used_bytes": 2147483648,
                "mem_total_bytes": 8589934592
              },
              "enrolled_at": "2026-11-01T00:00:00Z"
            }
          ],
          "jobs": []
        }
    "#]]);
}

#[test]
fn the_json_document_of_the_fleet_counts_every_state() {
    let server = fleet::serve();
    let document = Hb::with(&server).run("status --json").json();
    let expected = json!({ "new": 0, "up": 2, "late": 1, "down": 1, "stopped": 0, "paused": 1, "unknown": 0 });
    assert_eq!(document["summary"], expected);
    let names: Vec<&str> =
        document["hosts"].as_array().unwrap().iter().map(|host| host["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["batch", "db1", "lab", "web1", "web2"], "retired hosts are left out");
    assert_eq!(document["observing"], true);
    assert_eq!(document["observed_at"], "2026-11-23T12:00:00Z");
}

#[test]
fn hosts_are_chosen_by_state_and_tag() {
    let server = fleet::serve();
    let hb = Hb::with(&server);
    hb.run("status --state down --tag role=db").is(expect![[r#"
        exit 0
        --- stdout
        1 of 5 hosts: 1 down

        HOST  STATE  LAST SEEN   DUE              TAGS
        db1   down   3h 15m ago  down for 3h 12m  role=db
    "#]]);
    assert_eq!(server.lines(), ["GET /v1/hosts?state=down&tag=role%3Ddb&limit=1000"]);
    let names = |args: &str| -> Vec<String> {
        let document = hb.run(args).json();
        document["hosts"].as_array().unwrap().iter().map(|host| host["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("status --json --state down --state late"), ["db1", "web2"]);
    assert_eq!(names("status --json --tag role=web --tag site=eu"), ["web1"]);
    assert_eq!(names("status --json --state retired"), ["old"]);
    assert_eq!(names("status --json --tag role=mail"), [""; 0]);
}

#[test]
fn hosts_are_chosen_by_name_id_and_beginning_of_an_id() {
    let server = fleet::serve();
    let hb = Hb::with(&server);
    for wanted in ["db1", "DB1", fleet::DB1] {
        let document = hb.run(&format!("status --json {wanted}")).json();
        assert_eq!(document["hosts"][0]["id"], fleet::DB1, "{wanted}");
    }
    hb.run("status 019aaf00").is(expect![[r#"
        exit 1
        --- stderr
        error: 5 ids begin with 019aaf00
        hint: say which one: 019aaf00-0000-7000-8000-000000000005 (batch), 019aaf00-0000-7000-8000-000000000002 (db1), 019aaf00-0000-7000-8000-000000000004 (lab), 019aaf00-0000-7000-8000-000000000001 (web1), 019aaf00-0000-7000-8000-000000000003 (web2)
    "#]]);
    hb.run("status 019aaf00-0000-7000-8000-000000000002 --json").exits(0);
    hb.run("status wbe1").is(expect![[r#"
        exit 1
        --- stderr
        error: there is no host "wbe1"
        hint: did you mean web1?
    "#]]);
    hb.run("status mail").is(expect![[r#"
        exit 1
        --- stderr
        error: there is no host "mail"
        hint: `hb hosts list` names them all
    "#]]);
}

#[test]
fn an_empty_fleet_is_no_error() {
    let server = Server::start(|_| Answer::json(fleet::page(vec![])));
    Hb::with(&server).run("status").is(expect![[r#"
        exit 0
        --- stdout
        no hosts yet
        --- stderr
        enrol the first one: `hb tokens create` here, then `hb register` there
    "#]]);
    Hb::with(&server).run("status --state down").is(expect![[r#"
        exit 0
        --- stdout
        none of 5 hosts fits
    "#]]);
}

#[test]
fn it_warns_when_nobody_would_hear_an_alarm() {
    let with = |channels: Value, observing: bool| {
        let server = Server::start(move |_| {
            let mut page = fleet::page(vec![]);
            page["channels"] = channels.clone();
            page["observing"] = json!(observing);
            Answer::json(page)
        });
        Hb::with(&server).run("status")
    };
    with(json!({ "configured": 0, "proven": 0, "undelivered": 0 }), true).is(expect![[r#"
        exit 0
        --- stdout
        no hosts yet
        --- stderr
        enrol the first one: `hb tokens create` here, then `hb register` there
        warning: there is no channel: nobody would hear an alarm (`hb channels add --help`)
    "#]]);
    with(json!({ "configured": 1, "proven": 0, "undelivered": 1 }), true).is(expect![[r#"
        exit 0
        --- stdout
        no hosts yet
        --- stderr
        enrol the first one: `hb tokens create` here, then `hb register` there
        warning: no channel was ever delivered to: try one (`hb channels test NAME`)
        warning: 1 message is undelivered (`hb deliveries`)
    "#]]);
    with(json!({ "configured": 1, "proven": 1, "undelivered": 7 }), false).is(expect![[r#"
        exit 0
        --- stdout
        no hosts yet
        --- stderr
        enrol the first one: `hb tokens create` here, then `hb register` there
        warning: the server is not observing: states are as it last knew them, and no alarm is raised
        warning: 7 messages are undelivered (`hb deliveries`)
    "#]]);
}

#[test]
fn a_clock_that_is_years_off_is_warned_of() {
    let server = Server::start(|seen| {
        let mut answer: Value = serde_json::from_str(&fleet::answer(seen).body).unwrap();
        for host in answer["hosts"].as_array_mut().unwrap() {
            host["clock_skew_s"] = json!(if host["name"] == "web1" { -63_072_000.0 } else { 2.0 });
        }
        Answer::json(answer)
    });
    let run = Hb::with(&server).run("status");
    assert!(run.stderr.contains("warning: web1's clock is 730 days behind the server's\n"), "{run:?}");
}

#[test]
fn warnings_leave_stdout_alone_and_are_silenced_by_quiet() {
    let server = Server::start(|_| {
        let mut page = fleet::page(vec![]);
        page["channels"]["configured"] = json!(0);
        Answer::json(page)
    });
    let run = Hb::with(&server).run("status --json");
    run.json();
    assert!(run.stderr.starts_with("warning: there is no channel"), "{run:?}");
    Hb::with(&server).run("-q status").is(expect![[r#"
        exit 0
        --- stdout
        no hosts yet
    "#]]);
}

#[test]
fn pages_are_followed_to_the_end() {
    let server = Server::start(|seen| {
        let (number, next) = match seen.query("cursor") {
            None => (1, Some("two")),
            Some("two") => (2, Some("three")),
            _ => (3, None),
        };
        let mut page = fleet::page(vec![fleet::host(number, &format!("h{number}"), "up", json!({}))]);
        page["next_cursor"] = json!(next);
        Answer::json(page)
    });
    let document = Hb::with(&server).run("status --json").json();
    assert_eq!(document["hosts"].as_array().unwrap().len(), 3);
    assert_eq!(
        server.lines(),
        ["GET /v1/hosts?limit=1000", "GET /v1/hosts?limit=1000&cursor=two", "GET /v1/hosts?limit=1000&cursor=three"]
    );
}

#[test]
fn a_server_that_repeats_a_page_for_ever_is_not_followed_for_ever() {
    let server = Server::start(|_| {
        let mut page = fleet::page(vec![]);
        page["next_cursor"] = json!("again");
        Answer::json(page)
    });
    Hb::with(&server).run("status").is(expect![[r#"
        exit 1
        --- stderr
        error: the server sends the same page again and again
        hint: see its log
    "#]]);
    assert_eq!(server.lines().len(), 2);
}

#[test]
fn check_is_critical_when_a_host_is_down() {
    let server = fleet::serve();
    Hb::with(&server).run("status --check").is(expect![[r#"
        exit 2
        --- stdout
        HB CRITICAL - 5 hosts, 1 down: db1 (3h 12m); 1 late: web2; 1 marked: batch (degraded) | up=2;;;0 late=1;0;;0 down=1;;0;0 unknown=0;0;;0 degraded=1;0;;0 paused=1;;;0 stopped=0;;;0 new=0;;;0
    "#]]);
}

#[test]
fn check_is_a_warning_for_late_degraded_and_unknown_hosts() {
    let server = fleet::serve();
    Hb::with(&server).run("status --check web1 web2").is(expect![[r#"
        exit 1
        --- stdout
        HB WARNING - 2 hosts, 1 late: web2 | up=1;;;0 late=1;0;;0 down=0;;0;0 unknown=0;0;;0 degraded=0;0;;0 paused=0;;;0 stopped=0;;;0 new=0;;;0
    "#]]);
    Hb::with(&server).run("status --check batch").is(expect![[r#"
        exit 1
        --- stdout
        HB WARNING - 1 host, 1 marked: batch (degraded) | up=1;;;0 late=0;0;;0 down=0;;0;0 unknown=0;0;;0 degraded=1;0;;0 paused=0;;;0 stopped=0;;;0 new=0;;;0
    "#]]);
    let server = Server::start(|_| Answer::json(fleet::page(vec![fleet::host(1, "web1", "unknown", json!({}))])));
    Hb::with(&server).run("status --check").is(expect![[r#"
        exit 1
        --- stdout
        HB WARNING - 1 host, 1 unknown: web1 | up=0;;;0 late=0;0;;0 down=0;;0;0 unknown=1;0;;0 degraded=0;0;;0 paused=0;;;0 stopped=0;;;0 new=0;;;0
    "#]]);
}

#[test]
fn check_is_well_when_all_is_well() {
    let server = fleet::serve();
    Hb::with(&server).run("status --check web1").is(expect![[r#"
        exit 0
        --- stdout
        HB OK - 1 host, all well | up=1;;;0 late=0;0;;0 down=0;;0;0 unknown=0;0;;0 degraded=0;0;;0 paused=0;;;0 stopped=0;;;0 new=0;;;0
    "#]]);
    let run = Hb::with(&server).run("status --check web1 --json");
    assert_eq!(run.exits(0).json()["hosts"][0]["name"], "web1");
}

#[test]
fn check_is_a_warning_while_the_server_does_not_observe() {
    let server = Server::start(|_| {
        let mut page = fleet::page(vec![fleet::host(1, "web1", "up", json!({}))]);
        page["observing"] = json!(false);
        Answer::json(page)
    });
    Hb::with(&server).run("status --check").is(expect![[r#"
        exit 1
        --- stdout
        HB WARNING - 1 host, the server is not observing | up=1;;;0 late=0;0;;0 down=0;;0;0 unknown=0;0;;0 degraded=0;0;;0 paused=0;;;0 stopped=0;;;0 new=0;;;0
    "#]]);
}

#[test]
fn check_is_unknown_whenever_it_could_not_ask() {
    let refusing = Server::start(|_| Answer::problem(Code::Unauthorized, ""));
    Hb::with(&refusing).run("status --check").is(expect![[r#"
        exit 3
        --- stdout
        HB UNKNOWN - http://SERVER refused the API key: not authenticated (log in again with a key that works: `hb login`)
    "#]]);
    Hb::new().run("status --check").is(expect![[r#"
        exit 3
        --- stdout
        HB UNKNOWN - no server is known yet (run `hb login https://…`, or set HB_SERVER and HB_API_KEY)
    "#]]);
    Hb::new().run("status --check --nonsense").is(expect![[r#"
        exit 3
        --- stdout
        HB UNKNOWN - error: unexpected argument '--nonsense' found
    "#]]);
    let server = fleet::serve();
    Hb::with(&server).run("status --check nosuch").is(expect![[r#"
        exit 3
        --- stdout
        HB UNKNOWN - there is no host "nosuch" (`hb hosts list` names them all)
    "#]]);
    Hb::with(&server).run("status --check old").is(expect![[r#"
        exit 3
        --- stdout
        HB UNKNOWN - old is retired: nobody watches it (check another host, or enrol this one again)
    "#]]);
    Hb::with(&server).run("status --check web1 old").exits(3);
    let run = Hb::with(&server).run("status --check db1 old");
    assert!(run.exits(2).stdout.contains("CRITICAL"), "what is down is not hidden: {run:?}");
    Hb::with(&server).run("status --check --tag role=mail").is(expect![[r#"
        exit 3
        --- stdout
        HB UNKNOWN - no host has these tags (`hb hosts list` shows tags)
    "#]]);
    let gone = fleet::serve();
    let hb = Hb::with(&gone);
    drop(gone);
    hb.run("status --check").is(expect![[r#"
        exit 3
        --- stdout
        HB UNKNOWN - no connection to http://SERVER: Connection refused (os error 111) (check that the server runs and that no firewall is in between)
    "#]]);
    let run = hb.run("status --check --json");
    assert_eq!(run.exits(3).error()["error"]["exit"], 3);
}

#[test]
fn names_cannot_break_out_of_the_line_of_check() {
    let server = Server::start(|_| {
        let name = "a|evil=1\n\x1b[2Jb";
        Answer::json(fleet::page(vec![fleet::host(1, name, "down", json!({ "since": "2026-11-23T11:00:00Z" }))]))
    });
    Hb::with(&server).run("status --check").is(expect![[r#"
        exit 2
        --- stdout
        HB CRITICAL - 1 host, 1 down: a/evil=1\n\u{1b}[2Jb (1h) | up=0;;;0 late=0;0;;0 down=1;;0;0 unknown=0;0;;0 degraded=0;0;;0 paused=0;;;0 stopped=0;;;0 new=0;;;0
    "#]]);
}

#[test]
fn watching_without_a_terminal_prints_a_document_per_line_until_interrupted() {
    let server = fleet::serve();
    let hb = Hb::with(&server);
    let mut child = hb.command(&["status", "--watch", "--json", "web1"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        let line = lines.next().unwrap().unwrap();
        let document: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(document["hosts"][0]["name"], "web1");
    }
    interrupt(child.id());
    assert_eq!(wait(&mut child), Some(0));
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(stderr, "");
}

#[test]
fn watching_ends_when_nobody_reads_any_more() {
    let server = fleet::serve();
    let hb = Hb::with(&server);
    let mut child = hb.command(&["status", "--watch"]).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(wait(&mut child), Some(0));
}

#[test]
fn watching_goes_on_over_an_outage_of_the_server_and_says_so() {
    let asked = std::sync::atomic::AtomicU32::new(0);
    let server = Server::start(move |seen| match asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        // The second look at the fleet fails: each is tried three times.
        1..=3 => Answer::problem(Code::Unavailable, "stopping"),
        _ => fleet::answer(seen),
    });
    let hb = Hb::with(&server);
    let mut child = hb.command(&["status", "--watch"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut frame = || -> Vec<String> {
        let mut lines = lines.by_ref().map(Result::unwrap);
        let mut frame: Vec<String> = lines.by_ref().take_while(|line| !line.contains("Ctrl-C")).collect();
        frame.retain(|line| line.starts_with("db1") || line.starts_with("no answer since"));
        frame
    };
    let (before, during, after) = (frame(), frame(), frame());
    assert!(matches!(&before[..], [host] if host.starts_with("db1")), "{before:?}");
    assert!(
        matches!(&during[..], [host, trouble] if host.starts_with("db1") && trouble.ends_with(" is not available: stopping")),
        "{during:?}"
    );
    assert_eq!(after, before);
    interrupt(child.id());
    assert_eq!(wait(&mut child), Some(0));
}

fn interrupt(pid: u32) {
    let status = std::process::Command::new("kill").args(["-INT", &pid.to_string()]).status().unwrap();
    assert!(status.success());
}
