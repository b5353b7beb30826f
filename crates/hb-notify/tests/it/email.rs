//! Mail through a real SMTP server, read back with a mail parser.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hb_notify::{Rules, SendError, SmtpConfig, SmtpSettings, SmtpTls, Trust};
use hb_wire::view::HostRef;
use mail_parser::MessageParser;
use serde_json::json;

use crate::smtp_server::{AfterData, Mail, Script, SmtpServer};
use crate::support::{certificate, channel, is_ambiguous, is_permanent, is_temporary, key, notice, send, send_notice};

fn config(server: &SmtpServer, tls: SmtpTls) -> SmtpConfig {
    SmtpConfig {
        host: "127.0.0.1".to_owned(),
        port: Some(server.address.port()),
        tls,
        username: None,
        password_file: None,
        from: "hb of Example <hb@alerts.example.org>".to_owned(),
    }
}

fn rules(config: &SmtpConfig) -> Rules {
    let smtp = SmtpSettings::load(config).unwrap().with_timeout(Duration::from_millis(800));
    Rules { smtp: Some(Arc::new(smtp)), ..Rules::default() }
}

/// A server that behaves like this, and rules that lead to it in the clear.
async fn plain(script: Script) -> (SmtpServer, Rules) {
    let server = SmtpServer::start(script).await;
    let rules = rules(&config(&server, SmtpTls::None));
    (server, rules)
}

fn header<'m>(mail: &'m Mail, name: &str) -> Vec<&'m str> {
    let head = mail.data.split("\r\n\r\n").next().unwrap();
    let lines = head.split("\r\n").filter(|line| !line.starts_with([' ', '\t']));
    lines
        .filter_map(|line| line.split_once(": "))
        .filter(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
        .collect()
}

#[tokio::test]
async fn a_mail_arrives_as_it_should_be_read() {
    let (server, rules) = plain(Script::default()).await;
    send(&*channel("email", &json!({"to": ["ops@example.org", "night@example.org"]}), &rules)).await.unwrap();
    let mails = server.mails();
    let [mail] = mails.as_slice() else { panic!("{mails:?}") };
    assert_eq!(mail.from, "hb@alerts.example.org");
    assert_eq!(mail.to, ["ops@example.org", "night@example.org"]);

    let read = MessageParser::default().parse(mail.data.as_bytes()).unwrap();
    assert_eq!(read.subject(), Some("[hb] DOWN web1"));
    assert_eq!(read.from().unwrap().first().unwrap().name(), Some("hb of Example"));
    assert_eq!(
        read.to().unwrap().iter().filter_map(|to| to.address()).collect::<Vec<_>>(),
        ["ops@example.org", "night@example.org"]
    );
    assert_eq!(read.date().unwrap().to_rfc3339(), "2026-11-23T03:14:40Z");
    assert_eq!(read.message_id(), Some(format!("{}@alerts.example.org", key()).as_str()));
    let thread = format!("<incident.{}@alerts.example.org>", notice().incident.unwrap());
    assert_eq!(header(mail, "references"), [thread.as_str()]);
    assert_eq!(header(mail, "auto-submitted"), ["auto-generated"]);
    assert_eq!(header(mail, "content-type"), ["text/plain; charset=utf-8"]);
    let text = read.body_text(0).unwrap().replace("\r\n", "\n");
    assert!(
        text.starts_with("web1 is DOWN: silent since 03:12:09 UTC (2m30s), deadline 03:14:09 UTC passed\n\n"),
        "{text}"
    );
    assert!(
        text.contains("\nHost      web1  (site=ams1)\n") && text.contains("\nTo learn more:  hb why web1\n"),
        "{text}"
    );
}

#[tokio::test]
async fn a_retry_is_the_same_mail_with_the_same_message_id() {
    let (server, rules) = plain(Script { after_data: AfterData::HangUp, ..Script::default() }).await;
    let channel = channel("email", &json!({"to": "ops@example.org"}), &rules);
    assert!(is_ambiguous(&send(&*channel).await));
    assert!(is_ambiguous(&send(&*channel).await));
    let mails = server.mails();
    assert_eq!(mails.len(), 2);
    assert_eq!(mails[0], mails[1]);
    assert_eq!(header(&mails[0], "message-id"), [format!("<{}@alerts.example.org>", key())]);
}

#[tokio::test]
async fn no_field_of_a_notice_can_forge_a_header_a_recipient_or_the_end_of_the_mail() {
    const CORPUS: [&str; 12] = [
        "\r\nBcc: evil@example.com",
        "\nBcc: evil@example.com",
        "\rBcc: evil@example.com",
        "web1\r\n\r\nforged body",
        "\r\n.\r\nMAIL FROM:<evil@example.com>\r\nRCPT TO:<evil@example.com>\r\nDATA\r\n",
        "\n.\n",
        ".",
        "\0\u{1b}[31m\u{7f}\u{85}\u{2028}Bcc: evil@example.com",
        "=?utf-8?q?=0D=0ABcc:_evil@example.com?=",
        "\u{202e}gro.elpmaxe@live",
        "ünï 日本 🎉\r\n Bcc: evil@example.com",
        "x",
    ];
    let (server, rules) = plain(Script::default()).await;
    let channel = channel("email", &json!({"to": "ops@example.org"}), &rules);
    let mut sent = 0;
    for (index, evil) in CORPUS.into_iter().map(|evil| evil.repeat(1 + 200 * usize::from(evil == "x"))).enumerate() {
        for field in 0..6 {
            let mut notice = notice();
            match field {
                0 => notice.host.as_mut().unwrap().name.clone_from(&evil),
                1 => drop(notice.host.as_mut().unwrap().tags.insert(evil.clone(), evil.clone())),
                2 => notice.message.clone_from(&evil),
                3 => notice.event.clone_from(&evil),
                4 => notice.cause = Some(evil.clone()),
                _ => {
                    let host = notice.host.take().unwrap();
                    notice.hosts = vec![HostRef { name: evil.clone(), ..host }; 3];
                    drop(notice.details.insert("shared".to_owned(), evil.clone().into()));
                }
            }
            send_notice(&*channel, &notice).await.unwrap();
            sent += 1;
            let mails = server.mails();
            assert_eq!(mails.len(), sent, "{index} {field}: one mail, no more");
            let mail = mails.last().unwrap();
            assert_eq!(mail.to, ["ops@example.org"], "{index} {field}");
            assert!(
                mail.data.is_ascii() && !mail.data.replace("\r\n", "").contains(['\r', '\n', '\0']),
                "{index} {field}"
            );
            assert!(mail.data.split("\r\n").all(|line| line.len() <= 998), "{index} {field}: RFC 5322, section 2.1.1");
            let read = MessageParser::default().parse(mail.data.as_bytes()).unwrap();
            assert!(read.bcc().is_none() && read.cc().is_none(), "{index} {field}");
            assert_eq!(read.to().unwrap().iter().count(), 1, "{index} {field}");
            let head = mail.data.split("\r\n\r\n").next().unwrap();
            let names: Vec<_> = head
                .split("\r\n")
                .filter(|line| !line.starts_with(' '))
                .map(|line| line.split(':').next().unwrap())
                .collect();
            let own = [
                "From",
                "Subject",
                "Date",
                "Message-ID",
                "Auto-Submitted",
                "Content-Type",
                "In-Reply-To",
                "References",
                "To",
                "Content-Transfer-Encoding",
            ];
            assert!(names.iter().all(|name| own.contains(name)), "{index} {field}: {names:?}");
            assert_eq!(names.len(), own.len(), "{index} {field}: {names:?}");
            assert!(read.subject().unwrap().starts_with("[hb] "), "{index} {field}: {:?}", read.subject());
            assert!(!read.subject().unwrap().chars().any(char::is_control), "{index} {field}: {:?}", read.subject());
            assert!(read.body_text(0).unwrap().contains("To learn more:"), "{index} {field}");
        }
    }
    assert!(server.heard().iter().all(|line| !line.contains("evil")), "{:?}", server.heard());
}

#[tokio::test]
async fn starttls_and_tls_encrypt_and_log_in() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, "p4ssw0rd\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (acceptor, trust) = certificate(&["127.0.0.1"]);
    let trust = Arc::new(trust);
    // "\0hb\0p4ssw0rd" in base64.
    let login = Some("AGhiAHA0c3N3MHJk".to_owned());
    for (script, tls) in [
        (Script { starttls: Some(acceptor.clone()), login: login.clone(), ..Script::default() }, SmtpTls::Starttls),
        (Script { tls: Some(acceptor.clone()), login: login.clone(), ..Script::default() }, SmtpTls::Tls),
    ] {
        let server = SmtpServer::start(script).await;
        let config =
            SmtpConfig { username: Some("hb".to_owned()), password_file: Some(file.clone()), ..config(&server, tls) };
        let believing = Rules { trust: Arc::clone(&trust), ..rules(&config) };
        let to = json!({"to": "ops@example.org"});
        send(&*channel("email", &to, &believing)).await.unwrap();
        let mail = server.mails().remove(0);
        assert!(mail.was_encrypted && mail.was_logged_in, "{tls:?}");

        // A certificate that nobody vouches for: no login, no mail.
        let result = send(&*channel("email", &to, &rules(&config))).await;
        assert!(is_temporary(&result), "{tls:?}: {result:?}");
        assert_eq!(server.mails().len(), 1);
        assert_eq!(server.heard().iter().filter(|line| line.starts_with("AUTH")).count(), 1);

        std::fs::write(&file, "wr0ng-p4ssw0rd").unwrap();
        let result = send(&*channel("email", &to, &Rules { trust: Arc::clone(&trust), ..rules(&config) })).await;
        std::fs::write(&file, "p4ssw0rd\n").unwrap();
        assert!(is_temporary(&result), "a wrong password is not the mail's fault: {result:?}");
        let shown = format!("{result:?}");
        assert!(shown.contains("refused the login") && shown.contains("535") && !shown.contains("wr0ng"), "{shown}");
    }
}

#[tokio::test]
async fn nothing_is_sent_in_the_clear_when_starttls_is_stripped() {
    let server = SmtpServer::start(Script { login: Some("x".to_owned()), ..Script::default() }).await;
    let result =
        send(&*channel("email", &json!({"to": "ops@example.org"}), &rules(&config(&server, SmtpTls::Starttls)))).await;
    assert!(is_temporary(&result), "{result:?}");
    assert!(result.unwrap_err().reason().contains("offers no STARTTLS"));
    assert!(server.heard().iter().all(|line| line.starts_with("EHLO") || line == "QUIT"), "{:?}", server.heard());
}

#[tokio::test]
async fn an_answer_slipped_in_before_the_encryption_is_not_taken_for_one_after_it() {
    let (acceptor, trust) = certificate(&["127.0.0.1"]);
    let injected = "\r\n250-mail.test\r\n250 SIZE 10000000".to_owned();
    let server = SmtpServer::start(Script { starttls: Some(acceptor), injected, ..Script::default() }).await;
    let rules = Rules { trust: Arc::new(trust), ..rules(&config(&server, SmtpTls::Starttls)) };
    let result = send(&*channel("email", &json!({"to": "ops@example.org"}), &rules)).await;
    assert!(is_temporary(&result), "{result:?}");
    assert!(result.unwrap_err().reason().contains("cannot be encrypted to"));
    assert!(server.mails().is_empty());
}

#[tokio::test]
async fn replies_of_the_mail_server_decide_what_happens_next() {
    let say = |reply: &str| AfterData::Say(reply.to_owned());
    let recipients = |reply: &str| vec![("ops".to_owned(), reply.to_owned(), usize::MAX)];
    let base = Script::default;
    for (script, judge, what) in [
        (Script { greeting: "421 too busy".to_owned(), ..base() }, is_temporary as fn(&_) -> bool, "busy"),
        (
            Script { greeting: "554 go away".to_owned(), ..base() },
            is_temporary,
            "a refused connection is not the mail's fault",
        ),
        (Script { greeting: "SSH-2.0-OpenSSH".to_owned(), ..base() }, is_temporary, "another protocol"),
        (Script { mail_reply: "451 later".to_owned(), ..base() }, is_temporary, "sender later"),
        (Script { mail_reply: "550 no".to_owned(), ..base() }, is_permanent, "sender refused"),
        (Script { recipients: recipients("450 greylisted"), ..base() }, is_temporary, "recipient later"),
        (Script { recipients: recipients("550 5.1.1 no such user"), ..base() }, is_permanent, "no such user"),
        (Script { after_data: say("452 full"), ..base() }, is_temporary, "mail later"),
        (Script { after_data: say("554 spam"), ..base() }, is_permanent, "mail refused"),
        (Script { after_data: say("what?"), ..base() }, is_ambiguous, "garbage after the mail"),
        (Script { after_data: AfterData::HangUp, ..base() }, is_ambiguous, "hang-up after the mail"),
        (Script { after_data: AfterData::Mute, ..base() }, is_ambiguous, "silence after the mail"),
    ] {
        let (server, rules) = plain(script).await;
        let began = Instant::now();
        let result = send(&*channel("email", &json!({"to": "ops@example.org"}), &rules)).await;
        assert!(judge(&result), "{what}: {result:?}");
        assert!(began.elapsed() < Duration::from_secs(2), "{what}");
        assert_eq!(server.mails().len(), usize::from(is_ambiguous(&result)), "{what}");
    }
}

#[tokio::test]
async fn a_recipient_that_is_refused_does_not_keep_the_mail_from_the_others() {
    let greylisted = ("slow".to_owned(), "450 greylisted".to_owned(), 1);
    let gone = ("gone".to_owned(), "550 no such user".to_owned(), usize::MAX);
    let (server, rules) = plain(Script { recipients: vec![greylisted, gone], ..Script::default() }).await;
    let settings = json!({"to": ["ops@example.org", "slow@example.org", "gone@example.org"]});
    let first = send(&*channel("email", &settings, &rules)).await;
    assert!(is_temporary(&first), "{first:?}");
    assert!(first.unwrap_err().reason().starts_with("2 of 3 recipients refused, slow@example.org: "));
    // The channel is opened anew for each attempt, as the server does; who has the mail is not told twice.
    let second = send(&*channel("email", &settings, &rules)).await;
    assert!(is_permanent(&second), "somebody was not told, and never will be: {second:?}");
    assert!(second.unwrap_err().reason().starts_with("1 of 2 recipients refused, gone@example.org: "));
    let told: Vec<_> = server.mails().into_iter().map(|mail| mail.to).collect();
    assert_eq!(told, [["ops@example.org"], ["slow@example.org"]]);
}

#[tokio::test]
async fn a_mail_server_that_is_not_there_or_never_speaks_is_tried_again() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = Some(listener.local_addr().unwrap().port());
    let (server, _) = plain(Script::default()).await;
    for tls in [SmtpTls::None, SmtpTls::Starttls, SmtpTls::Tls] {
        let config = SmtpConfig { port, ..config(&server, tls) };
        let result = send(&*channel("email", &json!({"to": "ops@example.org"}), &rules(&config))).await;
        assert!(is_temporary(&result), "{tls:?}: {result:?}");
    }
    drop(listener);
    let config = SmtpConfig { port, ..config(&server, SmtpTls::None) };
    let result = send(&*channel("email", &json!({"to": "ops@example.org"}), &rules(&config))).await;
    let Err(SendError::Temporary { reason, .. }) = result else { panic!("{result:?}") };
    assert!(reason.starts_with("the mail server 127.0.0.1:") && reason.contains("cannot be reached"), "{reason}");
}

#[tokio::test]
async fn a_mass_incident_is_one_mail_with_the_list_inside() {
    let (server, rules) = plain(Script::default()).await;
    let mut notice = notice();
    let host = notice.host.take().unwrap();
    notice.hosts = (0..1_000).map(|n| HostRef { name: format!("web{n}"), ..host.clone() }).collect();
    notice.message = hb_notify::message::line(&notice);
    send_notice(&*channel("email", &json!({"to": "ops@example.org"}), &rules), &notice).await.unwrap();
    let mail = server.mails().remove(0);
    let read = MessageParser::default().parse(mail.data.as_bytes()).unwrap();
    assert_eq!(read.subject(), Some("[hb] DOWN 1000 hosts (site=ams1)"));
    let text = read.body_text(0).unwrap().replace("\r\n", "\n");
    assert!(
        text.contains("\nHosts (1000):\n  web0  (site=ams1)\n") && text.contains("\n  and 800 more: hb status\n"),
        "{text}"
    );
}

#[tokio::test]
async fn a_server_whose_smtp_section_was_removed_keeps_its_mail_for_later() {
    let (_, with) = plain(Script::default()).await;
    let (_, stored) = hb_notify::parse("email", &json!({"to": "ops@example.org"}), &with, [0; 32]).unwrap();
    let without = Rules { trust: Arc::new(Trust::default()), ..Rules::default() };
    let channel = hb_notify::open("email", &stored.settings.0, &without).unwrap();
    assert_eq!(channel.target(), "ops@example.org");
    let result = send(&*channel).await;
    assert!(is_temporary(&result), "{result:?}");
    assert!(result.unwrap_err().reason().contains("set [smtp] in server.toml"));
}
