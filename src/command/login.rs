//! `hb login` and `hb logout`: which server this user's commands talk to.

use std::path::PathBuf;

use serde_json::json;

use crate::api::Api;
use crate::context::Ctx;
use crate::error::{Failure, Outcome};
use crate::exit;
use crate::http::parse_server;
use crate::profile::{self, Choice, Profiles, Target, Transport};
use crate::prompt;

/// Which server, and where its key comes from.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  hb login https://hb.example.org                     asks for the API key
  hb login https://hb.example.org --key-file admin.key
  hb login https://10.0.0.5:8443 --pin sha256:4f…     a self-signed server; `hb-server` prints the pin
  hb login https://lab.example.org --server-profile lab

The key is read from --key-file, HB_API_KEY, a prompt, or stdin, in this order; never from an argument.
It is saved, readable by you alone, only after the server took it.")]
pub struct Args {
    /// The server's URL
    #[arg(value_name = "URL")]
    pub server: String,
    /// A file that holds the API key (`-`: stdin)
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Trust only the certificate with this fingerprint
    #[arg(long, value_name = "sha256:…", value_parser = pin)]
    pub pin: Option<String>,
    /// Trust only the certificate authorities in this PEM file
    #[arg(long, value_name = "FILE", conflicts_with = "pin")]
    pub ca_file: Option<PathBuf>,
    /// Allow plain http to another machine: everybody on the way can read the key
    #[arg(long)]
    pub insecure_http: bool,
    /// Under which name
    #[command(flatten)]
    pub choice: Choice,
}

/// Which server to forget.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hb logout\n  hb logout --server-profile lab\n\nThe key goes on working: `hb keys revoke` ends it."
)]
pub struct LogoutArgs {
    /// Which one
    #[command(flatten)]
    pub choice: Choice,
}

/// Saves a server and a key, after the server took it.
pub fn login(ctx: &Ctx, args: &Args) -> Outcome {
    let server = parse_server(&args.server)?;
    let name = name(ctx, &args.choice)?;
    let given = Transport {
        pin: args.pin.clone(),
        ca_file: args.ca_file.as_deref().map(absolute).transpose()?,
        insecure_http: args.insecure_http,
    };
    let from_environment = profile::environment(ctx, Transport::default());
    let transport = Transport {
        pin: given.pin.or(from_environment.pin),
        ca_file: given.ca_file.or(from_environment.ca_file),
        insecure_http: given.insecure_http || from_environment.insecure_http,
    };
    crate::http::check_pin(&server, transport.pin.is_some())?;
    crate::http::check_scheme(&server, transport.insecure_http).map_err(|why| {
        Failure::config(why).hint("use https, or allow everybody on the way to read the key with --insecure-http")
    })?;
    // Before a person types a key: is what is there usable?
    let path = profile::path()?;
    let mut profiles = Profiles::load(&path)?;
    let key = match (&args.key_file, &ctx.env.api_key) {
        (Some(file), _) => profile::api_key(&prompt::secret_file(file, "the API key")?, &file.display().to_string())?,
        (None, Some(key)) => profile::api_key(key, "HB_API_KEY")?,
        (None, None) => profile::api_key(&prompt::secret(ctx, "API key")?, "the prompt or stdin")?,
    };
    let target = Target { server, key, transport };
    match Api::to(ctx, target.clone())?.probe() {
        Ok(()) => {}
        Err(failure) if failure.exit == exit::REFUSED && failure.message.contains(" refused: ") => {
            ctx.printer.warn("the server knows the key, but it lacks the scope read: most commands will be refused");
        }
        Err(failure) => {
            return Err(Failure { message: format!("{}; nothing was saved", failure.message), ..failure });
        }
    }
    let name = name.unwrap_or_else(|| profiles.wanted(None).to_owned());
    profiles.put(&name, &target);
    profiles.save(&path)?;
    if ctx.json {
        ctx.printer.json(&json!({ "server": target.server, "profile": name, "file": path, "logged_in": true }));
    } else {
        ctx.printer.line(&format!("logged in to {} with the key {}", target.server, target.key.id()));
        ctx.printer.note(&format!("saved as profile {name} in {}", path.display()));
    }
    Ok(exit::OK)
}

/// Forgets a server and its key.
pub fn logout(ctx: &Ctx, args: &LogoutArgs) -> Outcome {
    let path = profile::path()?;
    let mut profiles = Profiles::load(&path)?;
    let name = name(ctx, &args.choice)?.unwrap_or_else(|| profiles.wanted(None).to_owned());
    if !profiles.remove(&name) {
        let hint = match profiles.names().as_slice() {
            [] => "no server is saved: nothing is left to forget".to_owned(),
            names => format!("there are: {} (--server-profile)", names.join(", ")),
        };
        return Err(Failure::failed(format!("there is no profile {name:?}: nothing to forget")).hint(hint));
    }
    profiles.save(&path)?;
    if ctx.json {
        ctx.printer.json(&json!({ "profile": name, "file": path, "logged_out": true }));
    } else {
        ctx.printer.line(&format!("profile {name} is forgotten"));
        ctx.printer.note("its key goes on working: `hb keys revoke` ends it");
    }
    Ok(exit::OK)
}

fn name(ctx: &Ctx, choice: &Choice) -> Result<Option<String>, Failure> {
    let wanted = choice.server_profile.as_deref().or(ctx.env.profile.as_deref());
    wanted.map(profile::parse_name).transpose().map_err(|why| Failure::usage(why).hint("--server-profile lab"))
}

fn pin(text: &str) -> Result<String, String> {
    let parsed: Result<crate::http::tls::Pin, _> = text.parse();
    parsed.map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn absolute(file: &std::path::Path) -> Result<PathBuf, Failure> {
    file.canonicalize().map_err(|error| {
        Failure::config(format!("{} could not be read: {error}", file.display())).hint("check the path")
    })
}
