//! `hb keys` and `hb tokens`.

use expect_test::expect;
use serde_json::json;

use crate::fleet;
use crate::support::{Hb, key};

#[test]
fn a_new_key_stands_alone_on_stdout() {
    let server = fleet::serve();
    let run = Hb::with(&server).run("keys create --name grafana --scope read --scope metrics");
    run.is(expect![[r#"
        exit 0
        --- stdout
        hbk_MSbQyrP4_x9vIFE0aaPAVGF4vnoSswauShdQTMf3NobPO
        --- stderr
        key MSbQyrP4 (grafana): read,metrics; does not expire; shown this once
    "#]]);
    assert_eq!(run.stdout, format!("{}\n", key(2)));
    assert_eq!(server.last("POST /v1/keys").json(), json!({ "name": "grafana", "scopes": ["read", "metrics"] }));
    let document = Hb::with(&server).run("keys create --name x --scope admin --expires 90d --json").json();
    assert_eq!(document["secret"], key(2));
    assert_eq!(server.last("POST /v1/keys").json()["expires_in_s"], 7_776_000);
}

#[test]
fn a_scope_that_does_not_exist_is_refused_before_anything_is_asked() {
    let server = fleet::serve();
    Hb::with(&server).run("keys create --name x --scope root").is(expect![[r#"
        exit 2
        --- stderr
        error: invalid value 'root' for '--scope <SCOPE>'
          [possible values: admin, operate, read, register, ping, metrics]
        hint: see --help
    "#]]);
    Hb::with(&server).run("keys create --name x").exits(2);
    assert!(server.lines().is_empty());
}

#[test]
fn keys_are_listed_without_secrets() {
    let server = fleet::serve();
    Hb::with(&server).run("keys list").is(expect![[r#"
        exit 0
        --- stdout
        ID        NAME     STATE  SCOPES        LAST USED   EXPIRES                  CREATED
        BjIDzvCX  alice    works  admin         1m 30s ago  never                    2026-11-01 01:00:00 CET
        AbCd1234  grafana  works  read,metrics  never       2026-12-01 01:00:00 CET  2026-11-01 01:00:00 CET
    "#]]);
    let document = Hb::with(&server).run("keys list --json").json();
    assert_eq!(document["keys"][1]["id"], "AbCd1234");
}

#[test]
fn revoking_a_key_without_a_terminal_needs_yes() {
    let server = fleet::serve();
    Hb::with(&server).run("keys revoke AbCd1234").is(expect![[r#"
        exit 2
        --- stderr
        error: nobody can be asked, since there is no terminal: Revoke the key AbCd1234 (grafana)? It stops working for good.
        hint: add --yes if you are sure
    "#]]);
    Hb::with(&server).run("keys revoke AbCd1234 --yes").is(expect![[r#"
        exit 0
        --- stdout
        the key AbCd1234 (grafana) is revoked
    "#]]);
    server.last("DELETE /v1/keys/AbCd1234");
    let document = Hb::with(&server).run("keys revoke AbCd1234 --yes --json").json();
    assert_eq!(document, json!({ "id": "AbCd1234", "name": "grafana", "revoked": true }));
    Hb::with(&server).run("keys revoke ../hosts --yes").is(expect![[r#"
        exit 1
        --- stderr
        error: there is no working key "../hosts"
        hint: `hb keys list` shows ids
    "#]]);
}

#[test]
fn a_whole_key_given_as_an_id_is_refused_without_being_repeated() {
    let server = fleet::serve();
    let run = Hb::with(&server).run(&format!("keys revoke {} --yes", key(1)));
    run.is(expect![[r#"
        exit 2
        --- stderr
        error: that is a key itself, and now stands in the shell's history: give its id instead
        hint: the id is the 8 characters after hbk_; consider rotating the key
    "#]]);
    assert!(!run.stderr.contains(&key(1)));
}

#[test]
fn a_key_is_rotated_by_making_the_new_one_first() {
    let server = fleet::serve();
    Hb::with(&server).run("keys rotate AbCd1234 --yes").is(expect![[r#"
        exit 0
        --- stdout
        hbk_MSbQyrP4_x9vIFE0aaPAVGF4vnoSswauShdQTMf3NobPO
        --- stderr
        key MSbQyrP4 (grafana): read,metrics; expires 2026-12-01 01:00:00 CET; shown this once
        the old key AbCd1234 is revoked
    "#]]);
    let changes: Vec<String> = server.lines().into_iter().filter(|line| !line.starts_with("GET")).collect();
    assert_eq!(changes, ["POST /v1/keys", "DELETE /v1/keys/AbCd1234"]);
    let made = server.last("POST /v1/keys").json();
    assert_eq!((&made["name"], &made["scopes"]), (&json!("grafana"), &json!(["read", "metrics"])));
    assert_eq!(made["expires_in_s"], 7 * 86_400 + 12 * 3_600, "it ends when the old one would have ended");
    Hb::with(&server).run("keys rotate AbCd1234").exits(2);
    let kept = fleet::serve();
    let run = Hb::with(&kept).run("keys rotate AbCd1234 --keep-old --json");
    assert_eq!(run.exits(0).json()["secret"], key(2));
    assert!(!kept.lines().iter().any(|line| line.starts_with("DELETE")));
}

#[test]
fn a_key_whose_secret_nobody_got_is_revoked_again_and_the_old_one_works_on() {
    for args in [&["keys", "rotate", "AbCd1234", "--yes"][..], &["keys", "create", "--name", "x", "--scope", "read"]] {
        let server = fleet::serve();
        let hb = Hb::with(&server);
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = hb.command(args).stdout(full).output().unwrap();
        let run = hb.finished(output);
        run.exits(1);
        assert!(run.stderr.contains("the new key MSbQyrP4 is revoked again"), "{}", run.stderr);
        let changes: Vec<String> = server.lines().into_iter().filter(|line| !line.starts_with("GET")).collect();
        assert_eq!(changes, ["POST /v1/keys", "DELETE /v1/keys/MSbQyrP4"], "{args:?}");
    }
}

#[test]
fn rotating_the_key_in_use_saves_the_new_one_and_revokes_with_it() {
    let server = crate::support::Server::start(|seen| {
        // The old key may not be used to revoke itself.
        if seen.method == "DELETE" && seen.headers["authorization"] == format!("Bearer {}", key(2)) {
            return crate::support::Answer::nothing();
        }
        fleet::answer(seen)
    });
    let hb = Hb::new().knowing(&server);
    hb.run_with(&["login", &server.url()], &key(1)).exits(0);
    hb.run(&format!("keys rotate {} --yes", fleet::own_key_id())).exits(0);
    let deleted = server.last(&format!("DELETE /v1/keys/{}", fleet::own_key_id()));
    assert_eq!(deleted.headers["authorization"], format!("Bearer {}", key(2)));
    let saved = std::fs::read_to_string(hb.profiles()).unwrap();
    assert!(saved.contains(&key(2)) && !saved.contains(&key(1)));
}

#[test]
fn a_new_token_stands_alone_on_stdout_and_says_how_to_use_it() {
    let server = fleet::serve();
    Hb::with(&server).run("tokens create").is(expect![[r#"
        exit 0
        --- stdout
        hbe_shown_once
        --- stderr
        token 7bKq0xPa: enrols 1 host until 2026-11-23 14:00:00 CET; shown this once
        on the host: hb register --server http://SERVER/ --token-file FILE
    "#]]);
    assert_eq!(server.last("POST /v1/tokens").json(), json!({ "uses": 1, "expires_in_s": 3600 }));
    let pin = format!("sha256:{}", "3f".repeat(32));
    let pinned = Hb::with(&server).env("HB_PIN", &pin).run("tokens create");
    let line = format!("on the host: hb register --server http://SERVER/ --pin {pin} --token-file FILE\n");
    assert!(pinned.stderr.ends_with(&line), "{pinned:?}");
    let run = Hb::with(&server).run("tokens create --uses 50 --expires 1d --tag site=eu --json");
    assert_eq!(run.json()["secret"], "hbe_shown_once");
    let asked = server.last("POST /v1/tokens").json();
    assert_eq!(asked, json!({ "uses": 50, "expires_in_s": 86_400, "tags": { "site": "eu" } }));
    Hb::with(&server).run("tokens create --uses 0").exits(2);
}

#[test]
fn tokens_are_listed_and_revoked() {
    let server = fleet::serve();
    Hb::with(&server).run("tokens list").is(expect![[r#"
        exit 0
        --- stdout
        ID        USES LEFT  EXPIRES                  CREATED
        7bKq0xPa  1          2026-11-23 14:00:00 CET  2026-11-23 13:00:00 CET
    "#]]);
    assert_eq!(Hb::with(&server).run("tokens list --json").json()["tokens"][0]["id"], "7bKq0xPa");
    Hb::with(&server).run("tokens revoke 7bKq0xPa").exits(2);
    Hb::with(&server).run("tokens revoke 7bKq0xPa --yes").is(expect![[r#"
        exit 0
        --- stdout
        the token 7bKq0xPa is revoked
    "#]]);
    server.last("DELETE /v1/tokens/7bKq0xPa");
    assert_eq!(Hb::with(&server).run("tokens revoke 7bKq0xPa -y --json").json()["revoked"], true);
    Hb::with(&server).run("tokens revoke nosuch -y").is(expect![[r#"
        exit 1
        --- stderr
        error: there is no working token "nosuch"
        hint: `hb tokens list` shows ids
    "#]]);
}
