//! `hb channels` and `hb deliveries`.

use std::fs;

use expect_test::expect;
use serde_json::json;

use crate::fleet;
use crate::support::{Answer, Hb, Server};

#[test]
fn a_webhook_is_added_and_its_secret_stands_alone_on_stdout() {
    let server = fleet::serve();
    let args = [
        "channels",
        "add",
        "webhook",
        "--url",
        "https://chat.example.org/hook",
        "--name",
        "chat",
        "--header",
        "X-Team: ops",
    ];
    Hb::with(&server).run_with(&args, "").is(expect![[r#"
        exit 0
        --- stdout
        whsec_shown_once
        --- stderr
        channel chat added: webhook to o…@example.org
        its messages are signed (Hb-Signature) with the secret above, shown this once
        try it: hb channels test chat
    "#]]);
    let expected = json!({
        "kind": "webhook",
        "name": "chat",
        "settings": { "url": "https://chat.example.org/hook", "headers": { "X-Team": "ops" } },
    });
    assert_eq!(server.last("POST /v1/channels").json(), expected);
    let run = Hb::with(&server).run("channels add webhook --url https://x.example.org --json");
    assert_eq!(run.json()["secret"], "whsec_shown_once");
}

#[test]
fn a_webhooks_secrets_come_from_files_or_stdin_and_never_from_arguments() {
    let server = fleet::serve();
    let hb = Hb::with(&server);
    let template = hb.home().join("template.json");
    fs::write(&template, r#"{"text":"{{message}}"}"#).unwrap();
    let template = template.to_str().unwrap();
    let args = ["channels", "add", "webhook", "--url-file", "-", "--template-file", template, "--admin"];
    hb.run_with(&args, "https://chat.example.org/T0KEN\n").exits(0);
    let expected = json!({
        "kind": "webhook",
        "settings": { "url": "https://chat.example.org/T0KEN", "body": { "text": "{{message}}" } },
        "admin": true,
    });
    assert_eq!(server.last("POST /v1/channels").json(), expected);
    let args = ["channels", "add", "webhook", "--url", "https://x.example.org", "--header", "Authorization: Bearer x"];
    hb.run_with(&args, "").is(expect![[r#"
        exit 2
        --- stderr
        error: the header Authorization is a secret, and arguments show in `ps`
        hint: put it into a file and give it with --header-file (`-` for stdin)
    "#]]);
    hb.run("channels add webhook --url-file /nonexistent").is(expect![[r#"
        exit 78
        --- stderr
        error: the URL in /nonexistent could not be read: No such file or directory (os error 2)
        hint: check the path
    "#]]);
    hb.run("channels add webhook").exits(2);
}

#[test]
fn mail_and_programs_are_added() {
    let server = fleet::serve();
    Hb::with(&server).run("channels add email --to a@example.org --to b@example.org --name oncall").is(expect![[r#"
        exit 0
        --- stderr
        channel oncall added: email to o…@example.org
        try it: hb channels test oncall
    "#]]);
    let expected =
        json!({ "kind": "email", "name": "oncall", "settings": { "to": ["a@example.org", "b@example.org"] } });
    assert_eq!(server.last("POST /v1/channels").json(), expected);
    Hb::with(&server).run("channels add exec --program /usr/local/bin/page").exits(0);
    let expected = json!({ "kind": "exec", "settings": { "program": "/usr/local/bin/page" } });
    assert_eq!(server.last("POST /v1/channels").json(), expected);
}

#[test]
fn channels_are_listed_with_what_last_came_of_them() {
    let server = fleet::serve();
    Hb::with(&server).run("channels list").is(expect![[r#"
        exit 0
        --- stdout
        NAME    KIND   LAST DELIVERED  ADMIN  TARGET
        oncall  email  3h 11m ago      yes    o…@example.org
    "#]]);
    assert_eq!(Hb::with(&server).run("channels list --json").json()["channels"][0]["name"], "oncall");
    let none = Server::start(|_| Answer::json(json!({ "channels": [] })));
    Hb::with(&none).run("channels list").is(expect![[r#"
        exit 0
        --- stderr
        warning: there is no channel: nobody would hear an alarm (`hb channels add --help`)
    "#]]);
}

#[test]
fn a_channel_is_tried_by_a_real_message() {
    let server = fleet::serve();
    Hb::with(&server).run("channels test oncall").is(expect![[r#"
        exit 0
        --- stdout
        oncall: delivered in 0.2 s
    "#]]);
    assert_eq!(Hb::with(&server).run("channels test oncall --json").json()["delivered"], true);
    Hb::with(&server).run("channels test nosuch").is(expect![[r#"
        exit 1
        --- stderr
        error: there is no channel "nosuch"
        hint: there are: oncall
    "#]]);
}

#[test]
fn a_test_that_did_not_arrive_is_a_failure() {
    let server = Server::start(|seen| match seen.method.as_str() {
        "POST" => {
            Answer::json(json!({ "delivered": false, "took_s": 5.0, "error": "HTTP 500", "delivery": fleet::DELIVERY }))
        }
        _ => fleet::answer(seen),
    });
    Hb::with(&server).run("channels test oncall").is(expect![[r#"
        exit 1
        --- stderr
        error: oncall did not take the message: HTTP 500
        hint: check o…@example.org and the server's log; delivery 019ab000-0000-7000-8000-00000000000d
    "#]]);
    let run = Hb::with(&server).run("channels test oncall --json");
    assert_eq!(run.exits(1).json()["error"], "HTTP 500");
}

#[test]
fn removing_a_channel_without_a_terminal_needs_yes() {
    let server = fleet::serve();
    Hb::with(&server).run("channels remove oncall").is(expect![[r#"
        exit 2
        --- stderr
        error: nobody can be asked, since there is no terminal: Remove the channel oncall (email to o…@example.org)?
        hint: add --yes if you are sure
    "#]]);
    assert!(!server.lines().iter().any(|line| line.starts_with("DELETE")));
    Hb::with(&server).run("channels remove oncall --yes").is(expect![[r#"
        exit 0
        --- stdout
        the channel oncall is removed
    "#]]);
    server.last(&format!("DELETE /v1/channels/{}", fleet::CHANNEL));
    assert_eq!(Hb::with(&server).run("channels remove oncall -y --json").json()["removed"], true);
}

#[test]
fn deliveries_are_listed_and_tried_again() {
    let server = fleet::serve();
    Hb::with(&server).run("deliveries").is(expect![[r#"
        exit 0
        --- stdout
        CREATED                  EVENT  HOST  CHANNEL  STATUS     ATTEMPTS  NEXT                     ID                                    LAST ERROR
        2026-11-23 09:48:00 CET  down   web1  oncall   pending    3         2026-11-23 13:05:00 CET  019ab000-0000-7000-8000-00000000000d  timed out
        2026-11-23 09:48:00 CET  down   web1  oncall   delivered  1
    "#]]);
    for list in ["deliveries --status dead -n 7", "deliveries list --status dead -n 7"] {
        Hb::with(&server).run(list).exits(0);
        let asked = server.last("GET /v1/deliveries");
        assert_eq!(asked.query("status"), Some("dead"), "{list}");
    }
    let (bare, named) = (Hb::with(&server).run("deliveries"), Hb::with(&server).run("deliveries list"));
    assert_eq!((bare.code, &bare.stdout), (named.code, &named.stdout), "`list` is what is done without a subcommand");
    assert_eq!(Hb::with(&server).run("deliveries --json").json()["deliveries"][0]["status"], "pending");
    Hb::with(&server).run(&format!("deliveries retry {}", fleet::DELIVERY)).is(expect![[r#"
        exit 0
        --- stdout
        019ab000-0000-7000-8000-00000000000d is tried again
    "#]]);
    server.last(&format!("POST /v1/deliveries/{}/retry", fleet::DELIVERY));
    let document = Hb::with(&server).run(&format!("deliveries retry {} --json", fleet::DELIVERY)).json();
    assert_eq!(document, json!({ "id": fleet::DELIVERY, "retried": true }));
    Hb::with(&server).run("deliveries retry 17").is(expect![[r#"
        exit 2
        --- stderr
        error: a delivery's id is needed: "17" is not a UUID: 36 characters such as 0199c2a4-5d1e-7b3a-9f00-1234567890ab
        hint: `hb deliveries list` shows ids
    "#]]);
    Hb::with(&server).run("deliveries --status lost").exits(2);
}
