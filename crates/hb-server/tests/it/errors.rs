//! What goes wrong before the server serves: one clear line each, what to do next, and the right exit code.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use crate::server::{Data, file, path_text, program, run, text};

/// Runs the program with `args` and checks its exit code, what it says, and its hint.
fn check_refused(args: &[&str], env: &[(&str, &str)], exit: i32, message: &str, hint: &str) {
    let output = program().args(args).envs(env.iter().copied()).output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(exit), "{args:?}: {stderr}");
    let said: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert!(said.len() == 1 && said[0].contains(message), "{args:?}: {stderr}");
    let hints: Vec<&str> = stderr.lines().filter(|line| line.starts_with("hint: ")).collect();
    assert!(hints.len() == 1 && hints[0].contains(hint), "{args:?}: {stderr}");
    assert!(!stderr.contains("panicked") && text(&output.stdout).is_empty(), "{stderr}");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let data = Data::init();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = path_text(data.path());
    let message = format!("could not listen on {address}");
    check_refused(&["serve", "--data", &dir, "--listen", &address], &[], 78, &message, "choose another --listen");
}

#[test]
fn an_address_that_is_not_this_machines_is_named() {
    let data = Data::init();
    let dir = path_text(data.path());
    let args = ["serve", "--data", &dir, "--listen", "192.0.2.1:8600"];
    check_refused(&args, &[], 78, "could not listen on 192.0.2.1:8600", "ip addr");
}

#[test]
fn a_second_server_on_the_same_data_is_refused_with_the_first_ones_process_id() {
    let data = Data::init();
    let server = data.serve();
    let dir = path_text(data.path());
    let holder = format!("is in use by another hb-server (process {})", server.pid());
    for args in [["serve", "--data", &dir, "--listen", "127.0.0.1:0"], ["init", "--data", &dir, "--name", "x"]] {
        check_refused(&args, &[], 1, &holder, "stop that one first");
    }
    server.stop();
}

#[test]
fn a_directory_without_a_database_says_how_to_make_one() {
    let dir = tempfile::tempdir().unwrap();
    let dir = path_text(dir.path());
    for args in
        [vec!["serve", "--data", &dir], vec!["check", "--data", &dir], vec!["backup", "--data", &dir, "--to", "x"]]
    {
        check_refused(&args, &[], 78, "there is no database at", "hb-server init");
    }
    check_refused(&["serve", "--data", "/nonexistent/hb"], &[], 78, "/nonexistent/hb", "hb-server init");
}

#[test]
fn a_database_of_a_newer_version_is_left_alone() {
    let data = Data::init();
    let path = data.path().join("hb.db");
    // The version stands in the header at byte 60 (SQLite file format, section 1.3: "user version").
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[60..64].copy_from_slice(&9_999_u32.to_be_bytes());
    std::fs::write(&path, &bytes).unwrap();
    let dir = path_text(data.path());
    for args in [vec!["serve", "--data", &dir, "--listen", "127.0.0.1:0"], vec!["check", "--data", &dir]] {
        check_refused(&args, &[], 78, "is of version 9999", "install the newer hb-server");
    }
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "nothing was changed");
}

#[test]
fn what_is_no_database_is_left_alone() {
    let data = Data::init();
    let path = file(data.path(), "hb.db", "this is a letter to somebody, and not a database of hb-server");
    let dir = path_text(data.path());
    check_refused(&["serve", "--data", &dir], &[], 78, "is not a database of hb-server", "nothing was changed");
    assert!(std::fs::read_to_string(path).unwrap().starts_with("this is a letter"));
}

#[test]
fn a_directory_that_cannot_be_made_or_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let in_the_way = file(dir.path(), "file", "x");
    let below = path_text(&in_the_way.join("hb"));
    let output = run(&["init", "--data", &below]);
    let stderr = text(&output.stderr);
    assert!(matches!(output.status.code(), Some(77 | 78)), "{stderr}");
    assert!(stderr.contains(&below) && !stderr.contains("panicked"), "{stderr}");
    // Root may write anywhere but where nobody may: procfs.
    let output = run(&["init", "--data", "/proc/hb"]);
    assert!(matches!(output.status.code(), Some(77 | 78)), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("/proc/hb"), "{}", text(&output.stderr));
}

#[test]
fn off_loopback_without_any_certificate_it_says_what_to_do() {
    let data = Data::init();
    std::fs::remove_file(data.path().join("cert.pem")).unwrap();
    let dir = path_text(data.path());
    let args = ["serve", "--data", &dir, "--listen", "0.0.0.0:0"];
    check_refused(&args, &[], 78, "is not on loopback, and there is no certificate", "--tls-cert and --tls-key");
}

#[test]
fn certificates_that_are_missing_mismatched_or_broken_are_named() {
    let (one, two) = (Data::init(), Data::init());
    let dir = path_text(one.path());
    let (cert, key) = (path_text(&one.path().join("cert.pem")), path_text(&one.path().join("key.pem")));
    let other_key = path_text(&two.path().join("key.pem"));
    let junk = path_text(&file(one.path(), "junk.pem", "junk"));
    set_mode(Path::new(&junk), 0o600);
    let serve = |cert: &str, key: &str, message: &str, hint: &str| {
        let args = ["serve", "--data", &dir, "--listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key];
        check_refused(&args, &[], 78, message, hint);
    };
    serve("/nonexistent.pem", &key, "could not read the certificate /nonexistent.pem", "--tls-cert");
    serve(&cert, "/nonexistent.pem", "could not read the private key /nonexistent.pem", "--tls-key");
    serve(&cert, &other_key, "is not the private key of", "made together");
    serve(&junk, &key, "is not a certificate that can be used", "PEM");
    serve(&cert, &junk, "is not a private key that can be used", "PEM");
}

#[test]
fn a_private_key_that_others_can_read_or_change_stops_the_start() {
    let data = Data::init();
    let dir = path_text(data.path());
    let key = data.path().join("key.pem");
    for mode in [0o644, 0o604, 0o602, 0o660, 0o620] {
        set_mode(&key, mode);
        let message = format!("key.pem is open to others (mode {mode:04o})");
        check_refused(&["serve", "--data", &dir, "--listen", "0.0.0.0:0"], &[], 78, &message, "chmod 600 ");
    }
    set_mode(&key, 0o600);
    data.serve_with(&["--listen", "0.0.0.0:0"], &[]).stop();
}

#[test]
fn a_database_that_is_open_to_others_is_closed_and_an_open_directory_is_told() {
    let data = Data::init();
    let database = data.path().join("hb.db");
    set_mode(&database, 0o664);
    set_mode(data.path(), 0o777);
    let mut server = data.serve();
    server.wait_for_line("hb.db was open to everybody on this machine (mode 0664)");
    server.wait_for_line("can be written by everybody on this machine (mode 0777)");
    assert_eq!(std::fs::metadata(&database).unwrap().permissions().mode() & 0o777, 0o660);
    server.stop();
    let log = data.serve().stop();
    assert!(!log.iter().any(|line| line.contains("hb.db")), "it is told once: {log:?}");
}

#[test]
fn a_database_that_this_user_may_not_see_is_not_said_to_be_missing() {
    let data = Data::init();
    let dir = path_text(data.path());
    for args in [vec!["serve"], vec!["check"], vec!["backup", "--to", "x"]] {
        let args: Vec<&str> = args.iter().copied().chain(["--data", &dir]).collect();
        let stderr = as_a_stranger(&args, data.path(), 77);
        assert!(stderr.contains("hb.db cannot be read by this user"), "{args:?}: {stderr}");
        assert!(stderr.contains("\nhint: run it as root or as _hb-server"), "{args:?}: {stderr}");
    }
}

#[test]
fn a_check_that_can_write_nothing_beside_the_database_says_so() {
    let data = Data::init();
    let dir = path_text(data.path());
    set_mode(&data.path().join("hb.db"), 0o644);
    set_mode(data.path(), 0o555);
    let output = stranger(data.path()).args(["check", "--data", &dir]).output().unwrap();
    set_mode(data.path(), 0o700);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{stderr}");
    assert!(
        stderr.contains("hb.db cannot be written: ") && stderr.contains("\nhint: check owner and mode"),
        "{stderr}"
    );
}

/// The program as a user who is neither root nor the owner of `dir`.
fn stranger(dir: &Path) -> Command {
    let mut command = program();
    if rustix::process::geteuid().is_root() {
        // Owner of nothing: what root made is not its own.
        command.uid(65_534).gid(65_534);
    } else {
        assert!(std::fs::metadata(dir).is_ok());
    }
    command
}

/// Runs the program without any right on `dir`, and answers what it says.
fn as_a_stranger(args: &[&str], dir: &Path, exit: i32) -> String {
    set_mode(dir, if rustix::process::geteuid().is_root() { 0o700 } else { 0 });
    let output = stranger(dir).args(args).output().unwrap();
    set_mode(dir, 0o700);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(exit), "{args:?}: {stderr}");
    stderr
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_wrong_configuration_is_named_by_its_line_or_variable() {
    let data = Data::init();
    let dir = path_text(data.path());
    let config = path_text(&file(data.path(), "server.toml", "log = \"info\"\nsweep_perod = \"1s\"\n"));
    let serve = ["serve", "--data", &dir, "--listen", "127.0.0.1:0"];
    let with_file: Vec<&str> = serve.iter().copied().chain(["--config", &config]).collect();
    let line = format!("{config} line 2: unknown key \"sweep_perod\"");
    check_refused(&with_file, &[], 78, &line, "did you mean sweep_period?");
    let missing: Vec<&str> = serve.iter().copied().chain(["--config", "/nonexistent.toml"]).collect();
    check_refused(&missing, &[], 78, "could not read the configuration /nonexistent.toml", "--config");
    let env = [("HB_SERVER_SWEEP_PERIOD", "1")];
    check_refused(&serve, &env, 78, "HB_SERVER_SWEEP_PERIOD=1", "HB_SERVER_SWEEP_PERIOD=1s");
    let env = [("HB_SERVER_CA_FILE", "/nonexistent.pem")];
    check_refused(&serve, &env, 78, "/nonexistent.pem", "ca_file");
    let env = [("HB_SERVER_SMTP_HOST", "mail.example.com"), ("HB_SERVER_SMTP_FROM", "nobody")];
    check_refused(&serve, &env, 78, "from", "[smtp]");
}

#[test]
fn a_backup_that_cannot_be_written_is_refused() {
    let data = Data::init();
    let dir = path_text(data.path());
    let output = run(&["backup", "--data", &dir, "--to", "/nonexistent/backup.db"]);
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("/nonexistent/backup.db"), "{}", text(&output.stderr));
}

#[test]
fn misuse_exits_with_2_and_help_with_0() {
    for args in
        [vec!["serv"], vec!["serve", "--listen", "nowhere"], vec!["backup"], vec!["serve", "--tls-cert", "x"], vec![]]
    {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let stderr = text(&output.stderr);
        assert!(args.is_empty() || stderr.ends_with("\nhint: see --help\n"), "{args:?}: {stderr}");
    }
    let env = [("HB_SERVER_DATTA", "x")];
    let warned = program().args(["check", "--data", "/nonexistent"]).envs(env).output().unwrap();
    let stderr = text(&warned.stderr);
    assert!(
        stderr.starts_with("warning: HB_SERVER_DATTA is no variable") && stderr.contains("HB_SERVER_DATA?"),
        "{stderr}"
    );
    for command in ["init", "serve", "backup", "restore", "check", "admin-key", "man", "completions"] {
        let output = run(&[command, "--help"]);
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).contains("Examples:"), "{command} --help has no example");
    }
    let version = run(&["--version"]);
    assert!(text(&version.stdout).starts_with("hb-server "));
}

#[test]
fn a_key_that_cannot_be_written_out_is_taken_back_and_init_can_be_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("hb");
    // Writing to /dev/full fails with "no space left".
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = program().args(["init", "--data", dir.to_str().unwrap()]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("it was taken back"), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("\nhint: "), "{}", text(&output.stderr));
    let again = run(&["init", "--data", dir.to_str().unwrap()]);
    assert!(again.status.success(), "{}", text(&again.stderr));
    assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
}
