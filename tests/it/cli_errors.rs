//! What goes wrong between the program and the server, and with the program's own streams.

use std::fs::OpenOptions;
use std::net::TcpListener;
use std::process::Stdio;

use expect_test::expect;
use hb_wire::problem::{Code, Problem};

use crate::fleet;
use crate::support::{Answer, Hb, Server};

fn answering(answer: Answer) -> (Server, Hb) {
    let server = Server::start(move |_| answer.clone());
    let hb = Hb::with(&server);
    (server, hb)
}

#[test]
fn a_refused_key_is_told_from_a_missing_scope() {
    let (_server, hb) = answering(Answer::problem(Code::Unauthorized, ""));
    hb.run("status").is(expect![[r#"
        exit 77
        --- stderr
        error: http://SERVER refused the API key: not authenticated
        hint: log in again with a key that works: `hb login`
    "#]]);
    let problem = Problem::new(Code::Forbidden, "this needs the scope admin").hint("ask for a key with it");
    let (_server, hb) = answering(Answer::status(403, serde_json::to_value(problem).unwrap()));
    hb.run("keys list").is(expect![[r#"
        exit 77
        --- stderr
        error: http://SERVER refused: this needs the scope admin
        hint: ask for a key with the scope admin: `hb keys create --scope admin`
    "#]]);
}

#[test]
fn an_error_is_a_document_on_stderr_for_programs() {
    let (_server, hb) = answering(Answer::problem(Code::Unauthorized, ""));
    hb.run("status --json").is(expect![[r#"
        exit 77
        --- stderr
        {
          "error": {
            "exit": 77,
            "hint": "log in again with a key that works: `hb login`",
            "message": "http://SERVER refused the API key: not authenticated"
          }
        }
    "#]]);
    hb.run("status --json --nonsense").is(expect![[r#"
        exit 2
        --- stderr
        {
          "error": {
            "exit": 2,
            "hint": "see --help",
            "message": "unexpected argument '--nonsense' found"
          }
        }
    "#]]);
}

#[test]
fn a_server_that_is_away_is_asked_three_times() {
    let gone = fleet::serve();
    let hb = Hb::with(&gone);
    drop(gone);
    hb.run("status").is(expect![[r#"
        exit 69
        --- stderr
        error: no connection to http://SERVER: Connection refused (os error 111)
        hint: check that the server runs and that no firewall is in between
    "#]]);
    let (server, hb) = answering(Answer::problem(Code::Unavailable, "stopping"));
    hb.run("status").is(expect![[r#"
        exit 69
        --- stderr
        error: http://SERVER is not available: stopping
        hint: try again in 30 s
    "#]]);
    assert_eq!(server.lines().len(), 3);
}

#[test]
fn a_read_that_fails_once_is_tried_again() {
    let asked = std::sync::atomic::AtomicU32::new(0);
    let server = Server::start(move |seen| match asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        0 => Answer::text(502, "bad gateway").header("Retry-After", "0"),
        _ => fleet::answer(seen),
    });
    Hb::with(&server).run("status").exits(0);
    assert_eq!(server.lines().len(), 2);
}

#[test]
fn a_long_retry_after_is_not_waited_for() {
    let (server, hb) = answering(Answer::problem(Code::Unavailable, "overloaded").header("Retry-After", "3600"));
    hb.run("status").exits(69);
    assert_eq!(server.lines().len(), 1);
}

#[test]
fn what_is_no_hb_server_is_said_to_be_none() {
    let (_server, hb) = answering(Answer::text(200, "<html>It works!</html>"));
    hb.run("status").is(expect![[r#"
        exit 69
        --- stderr
        error: http://SERVER/v1/hosts?limit=1000 did not answer as an hb server does: expected value at line 1 column 1
        hint: check the server's URL; if it is right, compare `hb --version` with the server's
    "#]]);
    let (_server, hb) = answering(Answer::text(404, "<html>no</html>"));
    hb.run("status").is(expect![[r#"
        exit 69
        --- stderr
        error: http://SERVER answered HTTP 404, not in hb's words
        hint: check the server's URL: another program may be there
    "#]]);
    let (_server, hb) = answering(Answer::text(301, "").header("Location", "https://elsewhere.example/\u{9b}"));
    hb.run("status").is(expect![[r#"
        exit 69
        --- stderr
        error: http://SERVER redirects to https://elsewhere.example/\u{9b}
        hint: log in to that address: `hb login URL`
    "#]]);
}

#[test]
fn a_redirect_is_not_followed_with_the_key() {
    let elsewhere = fleet::serve();
    let (_server, hb) = answering(Answer::text(302, "").header("Location", &elsewhere.url()));
    hb.run("status").exits(69);
    assert!(elsewhere.lines().is_empty());
}

#[test]
fn something_that_speaks_no_http_is_no_crash() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        use std::io::Write as _;
        for stream in listener.incoming().take(3) {
            let _ = stream.and_then(|mut stream| stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n"));
        }
    });
    let hb = Hb::new().env("HB_SERVER", &format!("http://{address}")).env("HB_API_KEY", &crate::support::key(1));
    let run = hb.run("resume 019aaf00-0000-7000-8000-000000000001");
    run.exits(69);
    assert!(run.stderr.starts_with("error: ") && run.stderr.contains("\nhint: "), "{run:?}");
    drop(thread);
}

#[test]
fn no_server_is_a_matter_of_configuration() {
    Hb::new().run("status").is(expect![[r#"
        exit 78
        --- stderr
        error: no server is known yet
        hint: run `hb login https://…`, or set HB_SERVER and HB_API_KEY
    "#]]);
    Hb::new().env("HB_SERVER", "https://hb.example.org").run("status").is(expect![[r#"
        exit 78
        --- stderr
        error: HB_SERVER names https://hb.example.org/, for which no API key is saved
        hint: set HB_API_KEY as well, or run `hb login https://hb.example.org/`
    "#]]);
    Hb::new().env("HB_SERVER", "not a url").env("HB_API_KEY", &crate::support::key(1)).run("status").is(expect![[r#"
        exit 78
        --- stderr
        error: server "not a url" is not a URL: invalid international domain name
        hint: give it like https://hb.example.com
    "#]]);
    Hb::new().env("HB_SERVER", "https://hb.example.org").env("HB_API_KEY", "hbk_typo").run("status").is(expect![[r#"
        exit 78
        --- stderr
        error: the API key from HB_API_KEY is not one: 8 characters long instead of 49: it was not copied whole
        hint: copy it again, whole: hbk_ and 45 more characters
    "#]]);
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let server = fleet::serve();
    let hb = Hb::with(&server);
    let mut child = hb.command(&["hosts", "list"]).spawn().unwrap();
    drop(child.stdout.take());
    hb.finished(child.wait_with_output().unwrap()).is(expect![[r#"
        exit 0
    "#]]);
}

#[test]
fn an_answer_that_cannot_be_written_is_an_error() {
    let server = fleet::serve();
    let hb = Hb::with(&server);
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = hb.command(&["hosts", "list"]).stdout(Stdio::from(full)).output().unwrap();
    hb.finished(output).is(expect![[r#"
        exit 1
        --- stderr
        error: the answer could not be written to stdout: No space left on device (os error 28)
        hint: free some space and run the command again
    "#]]);
}

#[test]
fn verbose_says_what_is_asked_and_never_the_key() {
    let server = fleet::serve();
    let run = Hb::with(&server).run("-v resume web1");
    run.is(expect![[r#"
        exit 0
        --- stdout
        web1 was not paused: nothing changed (up)
        --- stderr
        GET http://SERVER/v1/hosts?name=web1&limit=1000
        POST http://SERVER/v1/hosts/019aaf00-0000-7000-8000-000000000001/resume
    "#]]);
    assert!(!format!("{run:?}").contains(&crate::support::key(1)));
}

#[test]
fn a_variable_that_is_none_of_hbs_is_warned_of_and_a_bad_file_is_no_less_bad_beside_a_pin() {
    let server = fleet::serve();
    let run = Hb::with(&server).env("HB_TIMOUT", "5s").run("status web1");
    assert_eq!(
        run.exits(0).stderr,
        "warning: HB_TIMOUT is no variable of hb and is ignored: did you mean HB_TIMEOUT?\n"
    );
    let pinned = Hb::with(&server).env("HB_PIN", &format!("sha256:{}", "3f".repeat(32)));
    let run = pinned.env("HB_CA_FILE", "/nope").run("status");
    assert!(run.exits(78).stderr.contains("could not read certificate authorities from /nope"), "{run:?}");
    let run = Hb::with(&server).env("HB_PIN", "sha256:zz").run("status");
    assert!(run.exits(78).stderr.contains("\nhint: correct HB_PIN"), "{run:?}");
}

#[test]
fn a_value_that_the_server_refuses_is_misuse_and_is_named_as_it_was_typed() {
    let refused = |detail: &str, command: &str| {
        let (_server, hb) = answering(Answer::problem(Code::Invalid, detail));
        let run = hb.run(command);
        run.exits(2);
        run.stderr
    };
    for (detail, command, said) in [
        ("expires_in_s: 1 is not between 60 and 9 seconds", "tokens create --expires 1s", "error: --expires: 1 is not"),
        (
            "expires_in_s: 1 is not between 60 and 9 seconds",
            "keys create --name x --scope read --expires 1s",
            "error: --expires: ",
        ),
        ("name: it is empty", "keys create --name x --scope read", "error: --name: it is empty"),
        ("settings: webhook: url: is not a URL", "channels add webhook --url notaurl", "error: --url: is not a URL"),
        ("settings: webhook: leads to 127.0.0.1", "channels add webhook --url http://x", "error: webhook: leads to"),
    ] {
        let stderr = refused(detail, command);
        assert!(stderr.starts_with(said) && stderr.contains("\nhint: "), "{command}: {stderr}");
    }
}

#[test]
fn misuse_is_told_with_the_way_out() {
    Hb::new().run("stauts").is(expect![[r#"
        exit 2
        --- stderr
        error: unrecognized subcommand 'stauts'

          tip: some similar subcommands exist: 'hosts', 'pause', 'status'

        Usage: hb [OPTIONS] <COMMAND>
        hint: see --help
    "#]]);
    Hb::new().run("status --state dwon").is(expect![[r#"
        exit 2
        --- stderr
        error: invalid value 'dwon' for '--state <STATE>'
          [possible values: new, up, late, down, stopped, paused, retired, unknown]

          tip: a similar value exists: 'down'
        hint: see --help
    "#]]);
    Hb::new().run("-q -v status").exits(2);
    Hb::new().run("").exits(2);
}
