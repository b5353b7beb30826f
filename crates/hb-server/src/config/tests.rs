use super::*;
use crate::exit;

fn nothing(_: &str) -> Option<String> {
    None
}

fn parse(text: &str) -> Result<Config, Failure> {
    let mut draft = Draft::default();
    file::read(text, Path::new("server.toml"), &mut draft)?;
    draft.finish()
}

fn check_wrong(text: &str, message: &str, hint: &str) {
    let failure = parse(text).unwrap_err();
    assert_eq!(failure.exit, exit::CONFIG);
    assert!(failure.message.contains(message), "{text:?}: {}", failure.message);
    assert!(failure.hint.as_deref().unwrap_or_default().contains(hint), "{text:?}: {:?}", failure.hint);
}

fn uncommented() -> String {
    let shipped = include_str!("../../../../packaging/config/server.toml");
    shipped
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect()
}

#[test]
fn the_shipped_configuration_is_the_default() {
    assert_eq!(parse(include_str!("../../../../packaging/config/server.toml")).unwrap(), Config::default());
}

#[test]
fn every_line_of_the_shipped_configuration_parses_and_shows_the_default_when_uncommented() {
    let given = parse(&uncommented()).unwrap();
    let smtp = given.smtp.clone().unwrap();
    assert_eq!((smtp.port, smtp.tls, smtp.username.as_deref()), (Some(587), SmtpTls::Starttls, Some("hb")));
    let default = Config::default();
    let examples = Config {
        public_url: None,
        tls_cert: None,
        tls_key: None,
        connections_max: None,
        ca_file: None,
        smtp: None,
        ..given
    };
    assert_eq!(examples, default, "what is shown is not the default");
}

#[test]
fn every_key_is_shown_in_the_shipped_configuration_with_its_variable() {
    let shipped = include_str!("../../../../packaging/config/server.toml");
    for key in KEYS {
        let field = key.name.rsplit('.').next().unwrap();
        assert!(shipped.contains(&format!("\n#{field} = ")), "{} is not shown", key.name);
        assert!(shipped.contains(&key.variable()), "{} is not shown", key.variable());
    }
}

#[test]
fn an_unknown_key_names_its_line_and_the_key_that_was_meant() {
    check_wrong(
        "\n# x\nsweep_periode = \"1s\"\n",
        "server.toml line 3: unknown key \"sweep_periode\"",
        "did you mean sweep_period?",
    );
    check_wrong("[smtp]\nhots = \"x\"\n", "line 2: unknown key \"smtp.hots\"", "did you mean smtp.host?");
    check_wrong("qqq = 1\n", "line 1: unknown key \"qqq\"", "the keys here are listen");
}

#[test]
fn a_duration_without_or_with_a_wrong_unit_says_what_to_write() {
    check_wrong("sweep_period = 1\n", "line 1: sweep_period: 1 has no unit", "write \"1s\" for seconds");
    check_wrong("\nsweep_period = \"1 parsec\"\n", "line 2: sweep_period:", "write sweep_period = \"1s\"");
    check_wrong("sweep_period = \"1ms\"\n", "1ms is not within 10ms and 60s", "write sweep_period");
    check_wrong("webhook_timeout = \"2m\"\n", "120s is not within 1s and 30s", "write webhook_timeout");
}

#[test]
fn a_wrong_type_or_value_says_what_to_write() {
    check_wrong("listen = 8600\n", "listen: cannot be this number", "listen = \"127.0.0.1:8600\"");
    check_wrong("listen = \"localhost:8600\"\n", "listen: is not an address with a port", "127.0.0.1:8600");
    check_wrong("insecure_http = \"yes\"\n", "cannot be this text, it is true or false", "insecure_http = false");
    check_wrong("connections_max = 3\n", "a whole number from 16 to 1000000", "connections_max = 20000");
    check_wrong("allow_networks = \"10.0.0.0/8\"\n", "a list of texts", "[\"10.1.0.0/16\"]");
    check_wrong("allow_networks = [\"10.0.0.0/40\"]\n", "\"10.0.0.0/40\" is not a network", "[\"10.1.0.0/16\"]");
    check_wrong("exec_programs = [\"page\"]\n", "\"page\" is not an absolute path", "exec_programs");
    check_wrong("log = \"inf\"\n", "log: is not known", "did you mean \"info\"?");
    check_wrong("public_url = \"https://h/hb\"\n", "has a path", "https://hb.example.com");
    check_wrong("public_url = \"ftp://h\"\n", "other, than an http(s) address", "https://hb.example.com");
    check_wrong("smtp = 3\n", "smtp is a section", "[smtp]");
    check_wrong("[smtp]\nhost = \"h\"\n", "[smtp] has no from", "from = ");
    check_wrong("tls_cert = \"/c\"\n", "belong together", "both");
    check_wrong("a = 1\n[smt\n", "line 2", "server.toml");
    check_wrong("log = \"\"\n", "log: is empty", "write log = \"info\"");
}

#[test]
fn the_environment_goes_before_the_file_and_the_file_before_the_default() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server.toml");
    std::fs::write(&path, "sweep_period = \"2s\"\nallow_networks = [\"10.0.0.0/8\"]\n").unwrap();
    let env = |name: &str| match name {
        "HB_SERVER_SWEEP_PERIOD" => Some("300ms".to_owned()),
        "HB_SERVER_INSECURE_HTTP" => Some("1".to_owned()),
        "HB_SERVER_LOG" => Some(String::new()),
        _ => None,
    };
    assert_eq!(load(None, &nothing).unwrap(), Config::default());
    assert_eq!(load(Some(&path), &nothing).unwrap().sweep_period, Duration::from_secs(2));
    let both = load(Some(&path), &env).unwrap();
    assert_eq!(both.sweep_period, Duration::from_millis(300));
    assert!(both.insecure_http);
    assert_eq!(both.log, "info", "an empty variable counts as not set");
    assert_eq!(both.allow_networks, ["10.0.0.0/8".parse().unwrap()]);
}

#[test]
fn every_key_can_be_set_by_its_variable() {
    for key in KEYS {
        let variable = key.variable();
        let value = given::bare(key.example);
        let mut draft = Draft::default();
        let given = Given::Variable(value.clone());
        assert_eq!((key.set)(&mut draft, &given), Ok(()), "{variable}={value}");
    }
    let env = |name: &str| (name == "HB_SERVER_ALLOW_NETWORKS").then(|| "127.0.0.0/8, ::1".to_owned());
    assert_eq!(load(None, &env).unwrap().allow_networks.len(), 2);
}

#[test]
fn a_wrong_variable_is_named_with_what_to_write() {
    let env = |name: &str| (name == "HB_SERVER_SWEEP_PERIOD").then(|| "soon".to_owned());
    let failure = load(None, &env).unwrap_err();
    assert_eq!(failure.exit, exit::CONFIG);
    assert!(failure.message.contains("HB_SERVER_SWEEP_PERIOD=soon"), "{failure}");
    assert_eq!(failure.hint.as_deref(), Some("write HB_SERVER_SWEEP_PERIOD=1s"));
}

#[test]
fn a_named_configuration_must_be_there() {
    let failure = load(Some(Path::new("/nonexistent/server.toml")), &nothing).unwrap_err();
    assert_eq!(failure.exit, exit::CONFIG);
    assert!(failure.message.contains("/nonexistent/server.toml"), "{failure}");
}

#[test]
fn a_mistyped_variable_is_told_with_the_one_that_was_meant() {
    let names = ["HB_SERVER_LISTN", "HB_SERVER", "HB_SERVER_DATA", "HB_SERVER_CONFIG", "HB_SERVER_LISTEN", "PATH"];
    assert_eq!(
        unknown_variables(names.into_iter().map(Into::into)),
        ["HB_SERVER_LISTN is no variable of hb-server and is ignored: did you mean HB_SERVER_LISTEN?"]
    );
}
