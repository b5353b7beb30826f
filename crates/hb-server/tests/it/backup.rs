//! Backup while beats go on, restore, check.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::client::Host;
use crate::fleet::{Fleet, Plan};
use crate::server::{Data, file, path_text, run, text};

/// An account that is not root, and of which no machine expects anything: `nobody`.
const ACCOUNT: u32 = 65_534;

#[test]
fn a_backup_made_under_load_restores_to_a_server_that_the_hosts_go_on_with() {
    let data = Data::init();
    let server = data.serve_with(&["--listen", "127.0.0.1:0"], &[("HB_SERVER_BEATS_PER_INTERVAL", "1000")]);
    let mut client = server.client();
    let plan = Plan { every: Some(Duration::from_millis(10)), ..Plan::default() };
    let hosts = (0..20).map(|n| (Host::enrol(&mut client, &data.key, &format!("web{n}"), 60, 120), plan)).collect();
    let fleet = Fleet::start(server.address, hosts, 4);
    std::thread::sleep(Duration::from_secs(1));
    let backup = path_text(&data.path().join("backup.db"));
    let dir = path_text(data.path());
    let made = run(&["backup", "--data", &dir, "--to", &backup]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let again = run(&["backup", "--data", &dir, "--to", &backup]);
    assert_eq!(again.status.code(), Some(1), "{}", text(&again.stderr));
    assert!(text(&again.stderr).contains("exists already"));
    let checked = run(&["check", "--data", &dir]);
    assert_eq!((checked.status.code(), text(&checked.stdout).as_str()), (Some(0), "ok\n"), "while it is served");
    let refused = run(&["restore", "--data", &dir, "--from", &backup]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("is in use by another hb-server"), "{}", text(&refused.stderr));
    std::thread::sleep(Duration::from_millis(500));
    assert!(fleet.counts().refused.lock().unwrap().is_empty());
    let mut hosts = fleet.stop();
    server.stop();

    let restored = run(&["restore", "--data", &dir, "--from", &backup]);
    assert!(restored.status.success(), "{}", text(&restored.stderr));
    assert!(text(&restored.stderr).contains("is kept as"), "{}", text(&restored.stderr));
    assert_eq!(run(&["check", "--data", &dir]).status.code(), Some(0));
    let server = data.serve();
    let mut client = server.client();
    for host in &mut hosts {
        assert_eq!(host.beat(&mut client).unwrap(), 200, "one more round trip, and it goes on");
    }
    let shown = client.api(&data.key, "GET", "/v1/hosts", &Value::Null).unwrap().json();
    assert_eq!(shown["summary"]["up"], 20, "{shown}");
    server.stop();
}

#[test]
fn a_backup_restores_on_a_machine_that_has_nothing_yet() {
    let data = Data::init();
    let server = data.serve();
    let mut host = Host::enrol(&mut server.client(), &data.key, "web1", 60, 120);
    server.stop();
    let backup = path_text(&data.path().join("backup.db"));
    assert!(run(&["backup", "--data", &path_text(data.path()), "--to", &backup]).status.success());
    let elsewhere = tempfile::tempdir().unwrap();
    let dir = path_text(&elsewhere.path().join("hb"));
    let restored = run(&["restore", "--data", &dir, "--from", &backup]);
    assert!(restored.status.success(), "{}", text(&restored.stderr));
    assert!(text(&restored.stderr).contains("certificate, made anew: sha256:"));
    let mut command = crate::server::program();
    command.args(["serve", "--data", &dir, "--listen", "127.0.0.1:0"]);
    let server = crate::server::Server::spawn(&mut command);
    assert_eq!(host.beat(&mut server.client()).unwrap(), 200);
    server.stop();
}

#[test]
fn what_is_no_backup_is_not_restored_and_nothing_changes() {
    let data = Data::init();
    let before = std::fs::read(data.path().join("hb.db")).unwrap();
    let junk = path_text(&file(data.path(), "junk", "this is not a database at all, only some text"));
    for from in [junk.as_str(), "/nonexistent/backup.db"] {
        let refused = run(&["restore", "--data", &path_text(data.path()), "--from", from]);
        assert!(!refused.status.success(), "{from}");
        assert!(text(&refused.stderr).contains("hint: "), "{}", text(&refused.stderr));
    }
    assert_eq!(std::fs::read(data.path().join("hb.db")).unwrap(), before);
}

#[test]
fn a_damaged_database_does_not_pass_the_check() {
    let data = Data::init();
    let path = data.path().join("hb.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let len = bytes.len();
    for byte in &mut bytes[len - 6000..len - 200] {
        *byte ^= 0x5a;
    }
    std::fs::write(&path, bytes).unwrap();
    let checked = run(&["check", "--data", &path_text(data.path())]);
    assert_eq!(checked.status.code(), Some(1), "{}{}", text(&checked.stdout), text(&checked.stderr));
    assert!(text(&checked.stderr).contains("hb-server restore"), "{}", text(&checked.stderr));
}

/// A directory as the package makes it: of another account than root. None where this is not root, and nothing can be given
/// away.
fn directory_of_the_account() -> Option<tempfile::TempDir> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    chown(dir.path(), Some(ACCOUNT), Some(ACCOUNT)).unwrap();
    Some(dir)
}

/// The files of a directory with the account and the group of each.
fn owners(dir: &Path) -> BTreeSet<(String, u32, u32)> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let meta = entry.path().symlink_metadata().unwrap();
        (entry.file_name().into_string().unwrap(), meta.uid(), meta.gid())
    });
    entries.collect()
}

/// These files, all of the account.
fn of_the_account(names: &[&str]) -> BTreeSet<(String, u32, u32)> {
    names.iter().map(|name| ((*name).to_owned(), ACCOUNT, ACCOUNT)).collect()
}

/// A backup, outside of the directory that it will be restored to.
fn a_backup(data: &Data) -> String {
    let backup = path_text(&data.path().join("backup.db"));
    let made = run(&["backup", "--data", &path_text(data.path()), "--to", &backup]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    backup
}

#[test]
fn what_root_initialises_belongs_to_the_account_of_the_directory() {
    let Some(account) = directory_of_the_account() else { return };
    let made = run(&["init", "--data", &path_text(account.path())]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert_eq!(owners(account.path()), of_the_account(&["cert.pem", "hb.db", "hb.lock", "key.pem"]));
}

#[test]
fn what_root_restores_belongs_to_the_account_of_the_directory() {
    let Some(account) = directory_of_the_account() else { return };
    let data = Data::init();
    let (backup, dir) = (a_backup(&data), path_text(account.path()));
    let restore = || {
        let restored = run(&["restore", "--data", &dir, "--from", &backup]);
        assert!(restored.status.success(), "{}", text(&restored.stderr));
    };
    let junk = path_text(&file(data.path(), "junk", "this is not a database at all, only some text"));
    assert!(!run(&["restore", "--data", &dir, "--from", &junk]).status.success());
    assert_eq!(owners(account.path()), of_the_account(&["hb.lock"]), "nor does a refusal leave anything of root's");
    restore();
    assert_eq!(
        owners(account.path()),
        of_the_account(&["cert.pem", "hb.db", "hb.lock", "key.pem"]),
        "on a new machine"
    );
    restore();
    let names = ["cert.pem", "hb.db", "hb.db.replaced-1", "hb.lock", "key.pem"];
    assert_eq!(owners(account.path()), of_the_account(&names), "over a database");
}

#[test]
fn other_commands_of_root_leave_nothing_that_the_account_cannot_use() {
    let Some(account) = directory_of_the_account() else { return };
    let dir = path_text(account.path());
    assert!(run(&["init", "--data", &dir]).status.success());
    let whole = of_the_account(&["cert.pem", "hb.db", "hb.lock", "key.pem"]);
    // Made anew, as after a move of the database alone.
    let lock = account.path().join("hb.lock");
    std::fs::remove_file(&lock).unwrap();
    let key = run(&["admin-key", "--data", &dir]);
    assert!(key.status.success(), "{}", text(&key.stderr));
    assert_eq!(owners(account.path()), whole, "admin-key");

    assert_eq!(run(&["check", "--data", &dir]).status.code(), Some(0));
    let served = whole.union(&of_the_account(&["hb.db-shm", "hb.db-wal"])).cloned().collect();
    assert_eq!(owners(account.path()), served, "check: who only reads leaves the log");

    std::fs::remove_file(&lock).unwrap();
    let mut command = crate::server::program();
    command.args(["serve", "--data", &dir, "--listen", "127.0.0.1:0"]);
    let running = crate::server::Server::spawn(&mut command);
    assert_eq!(owners(account.path()), served, "serve: as it would be after a crash");
    running.stop();
    assert_eq!(owners(account.path()), whole, "serve");
}

#[test]
fn what_root_shares_or_others_own_in_the_directory_stays_theirs() {
    let Some(account) = directory_of_the_account() else { return };
    // As Debian shares keys: given away, it would be open to a group that its owner did not choose.
    let shared = file(account.path(), "shared.pem", "x");
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o640)).unwrap();
    let foreign = file(account.path(), "foreign", "x");
    chown(&foreign, Some(1), Some(1)).unwrap();
    let data = Data::init();
    let target = data.path().join("key.pem");
    std::os::unix::fs::symlink(&target, account.path().join("link")).unwrap();
    let restored = run(&["restore", "--data", &path_text(account.path()), "--from", &a_backup(&data)]);
    assert!(restored.status.success(), "{}", text(&restored.stderr));
    let uid = |path: &Path| path.symlink_metadata().unwrap().uid();
    assert_eq!([uid(&shared), uid(&foreign), uid(&target)], [0, 1, 0]);
    assert_eq!(uid(&account.path().join("hb.db")), ACCOUNT);
}
