//! What differs on a terminal: colour, width, prompts and questions.

use expect_test::expect;

use crate::fleet;
use crate::support::{Hb, key};

#[test]
fn a_terminal_gets_colour_and_as_many_columns_as_fit() {
    let server = fleet::serve();
    Hb::with(&server).on_terminal("status", "", "").is(expect![[r#"
        exit 0
        --- stdout
        5 hosts: [1m[31m1 down[0m, [1m[33m1 late[0m, [36m1 paused[0m, [32m2 up[0m

        [2mHOST[0m   [2mSTATE[0m   [2mLAST SEEN[0m   [2mDUE[0m                          [2mMARKS[0m
        [1mdb1[0m    [1m[31mdown[0m    3h 15m ago  down for 3h 12m
        [1mweb2[0m   [1m[33mlate[0m    1m 20s ago  late by 20s, down in 1m 40s
        [1mbatch[0m  [32mup[0m      30s ago     in 2m 30s                    [1m[33mdegraded[0m
        [1mlab[0m    [36mpaused[0m  1d 2h ago   no end
        [1mweb1[0m   [32mup[0m      30s ago     in 2m 30s
        [1m[33mwarning[0m: paused without an end: lab (`hb resume HOST`)
    "#]]);
}

#[test]
fn colour_can_be_turned_off_and_on() {
    let server = fleet::serve();
    let colored = |run: &crate::support::Run| run.stdout.contains("\x1b[");
    assert!(colored(&Hb::with(&server).on_terminal("status", "", "")));
    assert!(!colored(&Hb::with(&server).env("NO_COLOR", "1").on_terminal("status", "", "")));
    assert!(!colored(&Hb::with(&server).on_terminal("status --color never", "", "")));
    assert!(colored(&Hb::with(&server).run("status --color always")));
    assert!(!colored(&Hb::with(&server).run("status")));
    assert!(!colored(&Hb::new().env("NO_COLOR", "1").on_terminal("--help", "", "")));
    assert!(colored(&Hb::new().on_terminal("--help", "", "")));
}

#[test]
fn a_dangerous_command_asks_and_takes_no_for_an_answer() {
    let server = fleet::serve();
    Hb::with(&server).on_terminal("hosts retire web1", "[y/N]", "n\n").is(expect![[r#"
        exit 1
        --- stdout
        Retire web1 (019aaf00-0000-7000-8000-000000000001)? Its key stops working for good. [y/N] n
        [1m[31merror[0m: not confirmed: nothing was changed
        [36mhint[0m: answer y, or add --yes
    "#]]);
    assert!(!server.lines().iter().any(|line| line.starts_with("DELETE")));
    Hb::with(&server).on_terminal("hosts retire web1", "[y/N]", "\n").exits(1);
    assert!(!server.lines().iter().any(|line| line.starts_with("DELETE")));
    Hb::with(&server).on_terminal("hosts retire web1", "[y/N]", "y\n").exits(0);
    server.last(&format!("DELETE /v1/hosts/{}", fleet::WEB1));
}

#[test]
fn a_key_is_asked_for_and_not_shown_while_it_is_typed() {
    let server = fleet::serve();
    let hb = Hb::new().knowing(&server);
    let run = hb.on_terminal(&format!("login {}", server.url()), "API key: ", &format!("{}\r", key(1)));
    run.is(expect![[r#"
        exit 0
        --- stdout
        API key: 
        logged in to http://SERVER/ with the key BjIDzvCX
        saved as profile default in HOME/.config/hb/profiles.toml
    "#]]);
    assert!(!run.stdout.contains(&key(1)));
    assert!(hb.profiles().exists());
}

#[test]
fn ctrl_c_at_the_prompt_ends_it_and_leaves_the_terminal_as_it_was() {
    let server = fleet::serve();
    let hb = Hb::new().knowing(&server);
    let login = format!("login {}; stty -a | grep -o -E -e '-?(echo|icanon|isig)\\b'", server.url());
    hb.on_terminal(&login, "API key: ", "hbk_\x03").is(expect![[r#"
        exit 0
        --- stdout
        API key: 
        [1m[31merror[0m: the API key could not be read: interrupted
        [36mhint[0m: run it again
        isig
        icanon
        echo
    "#]]);
}

#[test]
fn watching_on_a_terminal_redraws_in_place_and_ends_cleanly_on_ctrl_c() {
    let server = fleet::serve();
    let run = Hb::with(&server).on_terminal("status --watch web1", "Ctrl-C ends", "\x03");
    run.is(expect![[r#"
        exit 0
        --- stdout
        [H1 of 5 hosts: [32m1 up[0m[K
        [K
        [2mHOST[0m  [2mSTATE[0m  [2mLAST SEEN[0m  [2mDUE[0m        [2mUPTIME[0m  [2mLOAD[0m  [2mTAGS[0m[K
        [1mweb1[0m  [32mup[0m     30s ago    in 2m 30s  12d 4h  0.42  role=web site=eu[K
        [K
        [2mas of 13:00:00 CET; Ctrl-C ends[0m[K[J^C
    "#]]);
}

#[test]
fn every_table_fits_the_terminal() {
    let server = fleet::serve();
    let commands =
        "status; hosts list; hosts show web1; history; history db1; keys list; tokens list; channels list; deliveries";
    for args in commands.split("; ") {
        let run = Hb::with(&server).on_terminal(args, "", "");
        run.exits(0);
        for line in plain(&run.stdout).lines().filter(|line| !line.starts_with("warning: ")) {
            assert!(line.chars().count() <= 80, "{args}: {line:?}");
        }
    }
}

#[test]
fn a_document_is_the_same_on_a_terminal() {
    let server = fleet::serve();
    for args in ["status web1 --json", "hosts list --json", "why db1 --json", "keys list --json"] {
        let piped = Hb::with(&server).run(args);
        let shown = Hb::with(&server).on_terminal(args, "", "");
        assert_eq!(shown.stdout, piped.stdout, "{args}");
    }
}

#[test]
fn a_question_is_asked_on_a_terminal_even_when_the_answer_goes_elsewhere() {
    let server = fleet::serve();
    let run = Hb::with(&server).on_terminal("keys revoke AbCd1234 > /dev/null", "[y/N]", "yes\n");
    run.exits(0);
    server.last("DELETE /v1/keys/AbCd1234");
    Hb::with(&server).on_terminal("keys revoke AbCd1234 < /dev/null", "", "").exits(2);
}

/// Text without colours.
fn plain(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |plain, part| plain + part.split_once('m').map_or(part, |(_, rest)| rest))
}
