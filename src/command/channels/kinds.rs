//! The kinds of channels, and what each needs. A new kind is one variant here.

use std::fs;
use std::path::{Path, PathBuf};

use hb_wire::view::ChannelRequest;
use serde_json::{Map, Value, json};
use url::Url;

use crate::error::Failure;
use crate::prompt::secret_file;

/// Longest template, in bytes: the server's own limit.
const TEMPLATE_BYTES_MAX: u64 = 16 * 1024;

/// What the server calls a setting, and the option that it came from.
pub(super) const OPTIONS: &[(&str, &str)] = &[
    ("settings: webhook: url: ", "--url: "),
    ("settings: webhook: headers: ", "--header: "),
    ("settings: webhook: body: ", "--template-file: "),
    ("settings: email: to: ", "--to: "),
    ("settings: exec: program: ", "--program: "),
    ("settings: to: ", "--to: "),
    ("settings: ", ""),
    ("name: ", "--name: "),
];

/// What every kind takes.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// Its name; the kind, when left out
    #[arg(long)]
    pub name: Option<String>,
    /// Also send the server's own notices here (blind, undelivered, clones); by default every channel gets them
    #[arg(long)]
    pub admin: bool,
}

/// One kind of channel.
#[derive(Debug, clap::Subcommand)]
pub enum Kind {
    /// POST each event as JSON, signed, to a URL
    #[command(after_help = "\
Examples:
  hb channels add webhook --url https://chat.example.org/hook
  hb channels add webhook --url-file /root/slack.url --template-file slack.json
  hb channels add webhook --url https://x.example.org/in --header 'X-Team: ops' --header-file /root/auth

A URL or header that is itself a secret belongs into a file (or `-` for stdin): arguments show in `ps`.
A header file has one `Name: value` per line. A template is JSON or text with fields like {{host.name}},
{{event}}, {{message}}.")]
    Webhook(Box<Webhook>),
    /// Send a mail for each event, by the server's mail settings
    #[command(
        after_help = "Examples:\n  hb channels add email --to oncall@example.org --to boss@example.org --name oncall"
    )]
    Email {
        /// To whom (may be repeated)
        #[arg(long, required = true, value_name = "ADDRESS")]
        to: Vec<String>,
        /// Name and duty
        #[command(flatten)]
        common: Common,
    },
    /// Send a short message for each event: on AWS only
    #[command(after_help = "\
Examples:
  hb channels add sms --to +491701234567

AWS sends to verified numbers only until its sandbox is left, and stops at a monthly limit: never rely on SMS
alone.")]
    Sms {
        /// To whom: plus, country, number, digits only (may be repeated)
        #[arg(long, required = true, value_name = "NUMBER")]
        to: Vec<String>,
        /// Name and duty
        #[command(flatten)]
        common: Common,
    },
    /// Run a program on the server, with the event as JSON on its stdin
    #[command(after_help = "\
Examples:
  hb channels add exec --program /usr/local/bin/page

Only programs that server.toml lists are run.")]
    Exec {
        /// Its absolute path on the server
        #[arg(long, value_name = "PATH")]
        program: String,
        /// Name and duty
        #[command(flatten)]
        common: Common,
    },
}

/// What a webhook takes.
#[derive(Debug, clap::Args)]
pub struct Webhook {
    /// Where to send
    #[arg(long, value_name = "URL", required_unless_present = "url_file")]
    pub url: Option<String>,
    /// Where to send, read from a file (`-`: stdin)
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    pub url_file: Option<PathBuf>,
    /// A header to send along (may be repeated)
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    pub header: Vec<(String, String)>,
    /// Headers to send along, from a file (`-`: stdin)
    #[arg(long, value_name = "FILE")]
    pub header_file: Option<PathBuf>,
    /// What to send instead of hb's own JSON, from a file
    #[arg(long, value_name = "FILE")]
    pub template_file: Option<PathBuf>,
    /// Name and duty
    #[command(flatten)]
    pub common: Common,
}

impl Kind {
    /// The request that adds such a channel.
    ///
    /// # Errors
    /// 2 for a secret on the command line, 78 for a file that cannot be used.
    pub fn request(&self) -> Result<ChannelRequest, Failure> {
        let (kind, settings, common) = match self {
            Self::Webhook(webhook) => ("webhook", webhook.settings()?, &webhook.common),
            Self::Email { to, common } => ("email", json!({ "to": to }), common),
            Self::Sms { to, common } => ("sms", json!({ "to": to }), common),
            Self::Exec { program, common } => ("exec", json!({ "program": program }), common),
        };
        let admin = common.admin.then_some(true);
        Ok(ChannelRequest { name: common.name.clone(), kind: kind.to_owned(), settings, admin })
    }
}

impl Webhook {
    fn settings(&self) -> Result<Value, Failure> {
        let url = match (&self.url, &self.url_file) {
            (Some(url), _) => {
                refuse_password(url)?;
                url.clone()
            }
            (None, Some(file)) => secret_file(file, "the URL")?.to_string(),
            (None, None) => {
                return Err(
                    Failure::usage("a webhook needs --url or --url-file").hint("--url https://chat.example.org/hook")
                );
            }
        };
        let mut headers = Map::new();
        for (name, value) in &self.header {
            refuse_secret(name)?;
            headers.insert(name.clone(), Value::from(value.as_str()));
        }
        if let Some(file) = &self.header_file {
            let text = secret_file(file, "the headers")?;
            for line in text.lines().filter(|line| !line.trim().is_empty()) {
                let (name, value) = header(line).map_err(|error| {
                    let what = format!("a header in {}: {error}", file.display());
                    Failure::config(what).hint("write one `Name: value` per line")
                })?;
                headers.insert(name, Value::from(value));
            }
        }
        let mut settings = Map::from_iter([("url".to_owned(), Value::from(url))]);
        if !headers.is_empty() {
            settings.insert("headers".to_owned(), Value::Object(headers));
        }
        if let Some(file) = &self.template_file {
            settings.insert("body".to_owned(), template(file)?);
        }
        Ok(Value::Object(settings))
    }
}

/// `Name: value`, as HTTP writes it. Never repeats the value: it may be a secret.
fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write a header as 'Name: value'")?;
    let (name, value) = (name.trim(), value.trim());
    http::HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is not a header's name"))?;
    http::HeaderValue::from_str(value).map_err(|_| format!("the value of {name} is not one of a header"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A secret is never an argument: it would show in `ps` and in the shell's history.
fn refuse_secret(name: &str) -> Result<(), Failure> {
    const TELLING: [&str; 7] = ["auth", "cookie", "token", "secret", "password", "api-key", "apikey"];
    let lower = name.to_lowercase();
    if TELLING.iter().any(|word| lower.contains(word)) {
        return Err(Failure::usage(format!("the header {name} is a secret, and arguments show in `ps`"))
            .hint("put it into a file and give it with --header-file (`-` for stdin)"));
    }
    Ok(())
}

fn refuse_password(url: &str) -> Result<(), Failure> {
    if Url::parse(url).is_ok_and(|url| url.password().is_some()) {
        return Err(Failure::usage("the URL holds a password, and arguments show in `ps`")
            .hint("put it into an Authorization header and give it with --header-file"));
    }
    Ok(())
}

/// JSON stays JSON, so that a host's name cannot break out of its quotes; anything else is text.
fn template(file: &Path) -> Result<Value, Failure> {
    let shown = file.display();
    let text = fs::metadata(file).and_then(|meta| match meta.len() {
        ..=TEMPLATE_BYTES_MAX => fs::read_to_string(file),
        _ => Err(std::io::Error::other(format!("it is longer than {TEMPLATE_BYTES_MAX} bytes"))),
    });
    let text = text.map_err(|error| {
        Failure::config(format!("the template {shown} could not be read: {error}")).hint("check the path")
    })?;
    let is_json = text.trim_start().starts_with(['{', '[']) && !text.trim_start().starts_with("{{");
    if !is_json {
        return Ok(Value::String(text));
    }
    serde_json::from_str(&text).map_err(|error| {
        Failure::config(format!("the template {shown} begins like JSON, but is not: {error}"))
            .hint("placeholders stand inside quotes, as in {\"text\": \"{{message}}\"}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhook() -> Webhook {
        Webhook {
            url: Some("https://chat.example.org/hook".to_owned()),
            url_file: None,
            header: Vec::new(),
            header_file: None,
            template_file: None,
            common: Common { name: None, admin: false },
        }
    }

    #[test]
    fn secrets_are_taken_from_files_and_refused_as_arguments() {
        let header = |name: &str| Webhook { header: vec![(name.to_owned(), "x".to_owned())], ..webhook() }.settings();
        assert!(header("X-Team").is_ok());
        for name in ["Authorization", "X-Auth-Token", "x-api-key", "Cookie", "X-Secret"] {
            assert_eq!(header(name).unwrap_err().exit, crate::exit::USAGE, "{name}");
        }
        let url = Webhook { url: Some("https://user:pw@chat.example.org/".to_owned()), ..webhook() };
        assert_eq!(url.settings().unwrap_err().exit, crate::exit::USAGE);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("headers");
        fs::write(&file, "Authorization: Bearer x\n\nX-Team: ops\n").unwrap();
        let settings = Webhook { header_file: Some(file), ..webhook() }.settings().unwrap();
        assert_eq!(settings["headers"], json!({ "Authorization": "Bearer x", "X-Team": "ops" }));
    }

    #[test]
    fn a_template_is_json_where_it_looks_like_json_and_else_text() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("template");
        let check = |text: &str| {
            fs::write(&file, text).unwrap();
            template(&file)
        };
        assert_eq!(check(r#"{"text":"{{message}}"}"#).unwrap(), json!({ "text": "{{message}}" }));
        assert_eq!(check("{{host.name}} is {{event}}").unwrap(), json!("{{host.name}} is {{event}}"));
        assert_eq!(check(r#"{"text":{{message}}}"#).unwrap_err().exit, crate::exit::CONFIG);
    }

    #[test]
    fn a_header_that_is_refused_does_not_show_its_value() {
        assert_eq!(header("X-Team: ops").unwrap(), ("X-Team".to_owned(), "ops".to_owned()));
        assert!(!header("X Team: s3cret").unwrap_err().contains("s3cret"));
        assert!(!header("s3cret").unwrap_err().contains("s3cret"));
        assert!(!header("X-Team: s3cret\u{7}").unwrap_err().contains("s3cret"));
    }
}
