//! `hb login`, `hb logout`, and which server and key a command uses.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use expect_test::expect;
use hb_wire::problem::Code;

use crate::fleet;
use crate::support::{Answer, Hb, Server, key};

#[test]
fn a_key_is_saved_after_the_server_took_it() {
    let server = fleet::serve();
    let hb = Hb::new().knowing(&server);
    hb.run_with(&["login", &server.url()], &key(1)).is(expect![[r#"
        exit 0
        --- stdout
        logged in to http://SERVER/ with the key BjIDzvCX
        --- stderr
        saved as profile default in HOME/.config/hb/profiles.toml
    "#]]);
    assert_eq!(server.lines(), ["GET /v1/hosts?limit=1"]);
    assert_eq!(fs::metadata(hb.profiles()).unwrap().permissions().mode() & 0o777, 0o600);
    hb.run("status web1").exits(0);
    hb.run("logout").is(expect![[r#"
        exit 0
        --- stdout
        profile default is forgotten
        --- stderr
        its key goes on working: `hb keys revoke` ends it
    "#]]);
    hb.run("status").is(expect![[r#"
        exit 78
        --- stderr
        error: no server is known yet
        hint: run `hb login https://…`, or set HB_SERVER and HB_API_KEY
    "#]]);
    hb.run("logout").is(expect![[r#"
        exit 1
        --- stderr
        error: there is no profile "default": nothing to forget
        hint: no server is saved: nothing is left to forget
    "#]]);
    hb.run_with(&["login", &server.url()], "\n").is(expect![[r#"
        exit 2
        --- stderr
        error: the API key on stdin is empty
        hint: put it there alone, on one line: a file, or a pipe as in `pass show hb | hb login URL`
    "#]]);
}

#[test]
fn a_pin_is_not_taken_where_there_is_no_certificate() {
    let server = fleet::serve();
    let hb = Hb::new().knowing(&server);
    let pin = format!("sha256:{}", "0".repeat(64));
    hb.run_with(&["login", &server.url(), "--pin", &pin], &key(1)).is(expect![[r#"
        exit 2
        --- stderr
        error: a pin has no meaning for http://SERVER/: plain http has no certificate
        hint: use https, or leave out --pin (HB_PIN)
    "#]]);
    assert!(!hb.profiles().exists());
}

#[test]
fn login_and_logout_answer_in_json_without_the_key() {
    let server = fleet::serve();
    let hb = Hb::new().knowing(&server);
    let run = hb.run_with(&["login", &server.url(), "--json"], &key(1));
    run.is(expect![[r#"
        exit 0
        --- stdout
        {
          "file": "HOME/.config/hb/profiles.toml",
          "logged_in": true,
          "profile": "default",
          "server": "http://SERVER/"
        }
    "#]]);
    hb.run("logout --json").is(expect![[r#"
        exit 0
        --- stdout
        {
          "file": "HOME/.config/hb/profiles.toml",
          "logged_out": true,
          "profile": "default"
        }
    "#]]);
}

#[test]
fn the_key_comes_from_a_file_the_environment_or_stdin() {
    let server = fleet::serve();
    let file = |hb: &Hb| {
        let file = hb.home().join("key");
        fs::write(&file, format!("{}\n", key(1))).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let hb = Hb::new();
    hb.run_with(&["login", &server.url(), "--key-file", &file(&hb)], "").exits(0);
    hb.run_with(&["login", &server.url(), "--key-file", "-"], &key(1)).exits(0);
    Hb::new().env("HB_API_KEY", &key(1)).run(&format!("login {}", server.url())).exits(0);
    // The file is named on purpose: it comes before the environment.
    let hb = Hb::new().env("HB_API_KEY", &key(9));
    hb.run_with(&["login", &server.url(), "--key-file", &file(&hb)], "").exits(0);
    Hb::new().run(&format!("login {}", server.url())).is(expect![[r#"
        exit 2
        --- stderr
        error: the API key on stdin is empty
        hint: put it there alone, on one line: a file, or a pipe as in `pass show hb | hb login URL`
    "#]]);
}

#[test]
fn a_mistyped_key_is_found_before_the_server_is_asked() {
    let server = fleet::serve();
    let hb = Hb::new().knowing(&server);
    let mut typo = key(1);
    let last = typo.pop().unwrap();
    typo.push(if last == 'a' { 'b' } else { 'a' });
    let run = hb.run_with(&["login", &server.url()], &typo);
    run.is(expect![[r#"
        exit 78
        --- stderr
        error: the API key from the prompt or stdin is not one: a character is wrong: the checksum at its end does not fit, compare it with the original
        hint: copy it again, whole: hbk_ and 45 more characters
    "#]]);
    assert!(!run.stderr.contains(&typo[4..]));
    hb.run_with(&["login", &server.url()], "password").is(expect![[r#"
        exit 78
        --- stderr
        error: the API key from the prompt or stdin is not one: not an API key (hbk_…) or enrolment token (hbe_…)
        hint: copy it again, whole: hbk_ and 45 more characters
    "#]]);
    assert!(server.lines().is_empty());
}

#[test]
fn a_refused_key_is_not_saved_and_replaces_nothing() {
    let server = fleet::serve();
    let hb = Hb::new().knowing(&server);
    hb.run_with(&["login", &server.url()], &key(9)).is(expect![[r#"
        exit 77
        --- stderr
        error: http://SERVER refused the API key: not authenticated; nothing was saved
        hint: log in again with a key that works: `hb login`
    "#]]);
    assert!(!hb.profiles().exists());
    hb.run_with(&["login", &server.url()], &key(1)).exits(0);
    let before = fs::read(hb.profiles()).unwrap();
    hb.run_with(&["login", &server.url()], &key(9)).exits(77);
    assert_eq!(fs::read(hb.profiles()).unwrap(), before);
}

#[test]
fn a_key_without_the_scope_read_is_saved_with_a_warning() {
    let server = Server::start(|_| Answer::problem(Code::Forbidden, "this needs the scope read"));
    let hb = Hb::new().knowing(&server);
    hb.run_with(&["login", &server.url()], &key(1)).is(expect![[r#"
        exit 0
        --- stdout
        logged in to http://SERVER/ with the key BjIDzvCX
        --- stderr
        warning: the server knows the key, but it lacks the scope read: most commands will be refused
        saved as profile default in HOME/.config/hb/profiles.toml
    "#]]);
    assert!(hb.profiles().exists());
}

#[test]
fn several_servers_are_kept_under_their_names() {
    let (one, two) = (fleet::serve(), fleet::serve());
    let hb = Hb::new();
    hb.run_with(&["login", &one.url()], &key(1)).exits(0);
    hb.run_with(&["login", &two.url(), "--server-profile", "lab"], &key(1)).exits(0);
    hb.run("status").exits(0);
    assert_eq!((one.lines().len(), two.lines().len()), (2, 1));
    hb.run("status --server-profile lab").exits(0);
    hb.run("hosts list --server-profile lab").exits(0);
    assert_eq!((one.lines().len(), two.lines().len()), (2, 3));
    hb.run("status --server-profile nosuch").is(expect![[r#"
        exit 78
        --- stderr
        error: there is no profile "nosuch"
        hint: there are: default, lab
    "#]]);
    hb.run_with(&["login", &two.url(), "--server-profile", "a b"], &key(1)).exits(2);
}

#[test]
fn a_saved_key_never_follows_to_another_server() {
    let (mine, other) = (fleet::serve(), fleet::serve());
    let hb = Hb::new().knowing(&other);
    hb.run_with(&["login", &mine.url()], &key(1)).exits(0);
    let hb = hb.env("HB_SERVER", &other.url());
    hb.run("status").is(expect![[r#"
        exit 78
        --- stderr
        error: HB_SERVER names http://SERVER/, for which no API key is saved
        hint: set HB_API_KEY as well, or run `hb login http://SERVER/`
    "#]]);
    assert!(other.lines().is_empty());
    let hb = hb.env("HB_SERVER", &mine.url());
    hb.run("status").exits(0);
}

#[test]
fn plain_http_to_another_machine_is_refused_before_the_key_is_read() {
    Hb::new().run("login http://hb.example.org").is(expect![[r#"
        exit 78
        --- stderr
        error: http://hb.example.org/ is plain http, and not on this machine
        hint: use https, or allow everybody on the way to read the key with --insecure-http
    "#]]);
    Hb::new().run("login ftp://hb.example.org").exits(2);
}

#[test]
fn profiles_that_others_can_read_are_refused() {
    let server = fleet::serve();
    let hb = Hb::new().knowing(&server);
    hb.run_with(&["login", &server.url()], &key(1)).exits(0);
    fs::set_permissions(hb.profiles(), fs::Permissions::from_mode(0o644)).unwrap();
    hb.run("status").is(expect![[r#"
        exit 78
        --- stderr
        error: HOME/.config/hb/profiles.toml holds API keys and is open to others (mode 0644)
        hint: chmod 600 HOME/.config/hb/profiles.toml; if others may have read it, rotate its keys
    "#]]);
}

#[test]
fn a_wrong_pin_is_refused_where_it_is_typed() {
    Hb::new().run("login https://hb.example.org --pin sha256:00").exits(2);
}
