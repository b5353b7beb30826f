//! The heartbeats of hb-api: over a real socket, into a real database, from the crontab line of the migration page.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::client::{Answer, Client};
use crate::receiver::Receiver;
use crate::server::{Data, file};

/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

fn ping_key(client: &mut Client, admin: &str) -> String {
    let made = client.api(admin, "POST", "/v1/keys", &json!({"name": "cron", "scopes": ["ping"]})).unwrap();
    assert_eq!(made.status, 201, "{made:?}");
    made.json()["secret"].as_str().unwrap().to_owned()
}

/// As `curl -d` sends it.
fn beat(client: &mut Client, key: &str, body: &str) -> Answer {
    let headers = [("x-api-key", key), ("content-type", "application/x-www-form-urlencoded")];
    client.request("POST", "/v1/hearbeat", &headers, body.as_bytes()).unwrap()
}

#[test]
fn a_host_of_hb_api_lives_dies_and_returns_and_each_is_told_once() {
    let data = Data::init();
    let receiver = Receiver::start();
    let server = data.serve();
    let mut client = server.client();
    client.add_webhook(&data.key, &receiver.url());
    let key = ping_key(&mut client, &data.key);
    let body = r#"{"hostId": "db-1.example.com", "intervalMs": 1500}"#;
    for _ in 0..8 {
        let answer = beat(&mut client, &key, body);
        assert_eq!((answer.status, answer.json()), (200, json!({"message": "OK"})), "{answer:?}");
        std::thread::sleep(Duration::from_secs(1));
    }
    let forged = format!("{}{}", &key[..key.len() - 1], if key.ends_with('0') { "1" } else { "0" });
    assert_eq!(beat(&mut client, &forged, body).status, 401);
    assert_eq!(beat(&mut client, &key, r#"{"hostId": "db 1"}"#).status, 400);
    assert!(receiver.arrivals().is_empty(), "{:?}", receiver.arrivals());
    receiver.wait_for("its death", PATIENCE, |all| all.iter().any(|arrival| arrival.event() == "down"));
    // The host is in the database, not in the process.
    server.stop();
    let server = data.serve();
    let mut client = server.client();
    assert_eq!(beat(&mut client, &key, body).status, 200);
    let arrivals = receiver.wait_for("its return", PATIENCE, |all| all.iter().any(|arrival| arrival.event() == "up"));
    let told: Vec<(&str, &str)> = arrivals.iter().map(|arrival| (arrival.host(), arrival.event())).collect();
    assert_eq!(told, [("db-1.example.com", "down"), ("db-1.example.com", "up")]);
    let hosts = client.api(&data.key, "GET", "/v1/hosts?tag=via%3Dhb-api", &json!(null)).unwrap().json();
    assert_eq!(hosts["hosts"].as_array().unwrap().len(), 1, "{hosts}");
    server.stop();
}

/// The line of the page as cron would run it: with the host and the URL of this server, and the header in a file.
fn crontab_line(page: &str, url: &str, header: &str) -> (String, String) {
    let block = page.split("```cron\n").nth(1).unwrap().split("```").next().unwrap();
    let mut lines = block.lines().map(str::trim).filter(|line| !line.is_empty());
    let variable = lines.next().unwrap().to_owned();
    let line = lines.next().unwrap().strip_prefix("*/5 * * * * ").unwrap();
    let line = line.replace("https://hb.example.org", url).replace("/etc/hb-api.header", header);
    (variable, line)
}

#[test]
fn the_crontab_line_of_the_migration_page_beats_and_shows_no_key_in_ps() {
    let page = include_str!("../../../../docs/migrating-from-hb-api.md");
    let data = Data::init();
    let server = data.serve();
    let mut client = server.client();
    let key = ping_key(&mut client, &data.key);
    let header = file(data.path(), "hb-api.header", &format!("x-api-key: {key}\n"));
    std::fs::set_permissions(&header, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (variable, line) = crontab_line(page, &format!("http://{}", server.address), header.to_str().unwrap());
    assert!(!line.contains("hbk_") && !line.contains("x-api-key") && line.contains("-H @"), "{line}");
    // Cron has `%` for a new line.
    assert!(!line.contains('%'), "{line}");
    let (name, value) = variable.split_once('=').unwrap();
    let output = Command::new("sh").args(["-c", &line]).env(name, value).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.is_empty() && output.stderr.is_empty(), "cron would mail this: {output:?}");
    let hosts = client.api(&data.key, "GET", "/v1/hosts", &json!(null)).unwrap().json();
    assert_eq!((&hosts["hosts"][0]["name"], &hosts["hosts"][0]["state"]), (&json!(value), &json!("up")), "{hosts}");
    // And cron mails when the server refuses.
    let refused = Command::new("sh").args(["-c", &line]).env(name, "web 01").output().unwrap();
    assert!(!refused.status.success() && !refused.stderr.is_empty(), "{refused:?}");
    server.stop();
}
