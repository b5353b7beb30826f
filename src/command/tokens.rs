//! `hb tokens`: enrolment tokens, for hosts that are to register themselves.

use hb_wire::api_key::Secret;
use hb_wire::view::TokenRequest;
use serde_json::json;

use crate::api::Api;
use crate::cli::value;
use crate::context::Ctx;
use crate::error::{Failure, Outcome};
use crate::exit;
use crate::output::table::{Table, column, optional};
use crate::output::time::moment;
use crate::profile::Choice;
use crate::prompt::confirm;

/// What to do with enrolment tokens.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  (umask 077; hb tokens create > token)     for one host, within the hour
  hb tokens create --uses 50 --expires 1d --tag site=eu
  hb tokens list
  hb tokens revoke 7bKq0xPa")]
pub struct Args {
    /// Which of them
    #[command(subcommand)]
    pub what: What,
    /// Which server
    #[command(flatten)]
    pub choice: Choice,
}

/// One thing to do.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// Make a token; it is shown once, alone on stdout
    #[command(after_help = "\
Examples:
  (umask 077; hb tokens create > token)
  hb tokens create --uses 50 --expires 1d --tag site=eu --tag role=web")]
    Create {
        /// How many hosts it may enrol
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        uses: u32,
        /// How long it works, like 1h
        #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = value::some_seconds)]
        expires: u64,
        /// Tag every host enrolled with it (may be repeated)
        #[arg(long, value_name = "K=V", value_parser = value::tag)]
        tag: Vec<(String, String)>,
    },
    /// List tokens that still work
    #[command(after_help = "Examples:\n  hb tokens list\n  hb tokens list --json")]
    List,
    /// Make a token stop working
    #[command(after_help = "Examples:\n  hb tokens revoke 7bKq0xPa\n  hb tokens revoke 7bKq0xPa --yes")]
    Revoke {
        /// Its id, as `hb tokens list` shows it
        id: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// Makes, lists or revokes tokens.
pub fn run(ctx: &Ctx, args: &Args) -> Outcome {
    let api = Api::connect(ctx, &args.choice)?;
    match &args.what {
        What::Create { uses, expires, tag } => create(
            ctx,
            &api,
            &TokenRequest { uses: Some(*uses), expires_in_s: Some(*expires), tags: value::tags(tag)? },
        ),
        What::List => list(ctx, &api),
        What::Revoke { id, yes } => revoke(ctx, &api, id, *yes),
    }
}

fn create(ctx: &Ctx, api: &Api<'_>, request: &TokenRequest) -> Outcome {
    let options = [("uses: ", "--uses: "), ("expires_in_s: ", "--expires: "), ("tags: ", "--tag: ")];
    let token = api.create_token(request).map_err(|failure| failure.naming(&options))?;
    if ctx.json {
        ctx.printer.json(&token);
        return Ok(exit::OK);
    }
    ctx.printer.line(token.secret.as_deref().unwrap_or_default());
    let hosts = format!("{} host{}", token.uses_left, if token.uses_left == 1 { "" } else { "s" });
    let end = moment(&ctx.zone, token.expires_at);
    ctx.printer.note(&format!("token {}: enrols {hosts} until {end}; shown this once", token.id));
    // Everything that the host needs to know: it has no profile.
    let target = api.target();
    let pin = target.transport.pin.as_ref().map(|pin| format!(" --pin {pin}")).unwrap_or_default();
    let plain = if target.transport.insecure_http { " --insecure-http" } else { "" };
    ctx.printer.note(&format!("on the host: hb register --server {}{pin}{plain} --token-file FILE", target.server));
    Ok(exit::OK)
}

fn list(ctx: &Ctx, api: &Api<'_>) -> Outcome {
    let mut tokens = api.tokens()?;
    let now = api.now();
    tokens.retain(|token| !token.revoked && token.uses_left > 0 && token.expires_at > now);
    if ctx.json {
        ctx.printer.json(&json!({ "tokens": tokens }));
        return Ok(exit::OK);
    }
    if tokens.is_empty() {
        ctx.printer.note("no token works: make one with `hb tokens create`");
        return Ok(exit::OK);
    }
    let mut table = Table::new(&[
        column("ID"),
        column("USES LEFT"),
        column("EXPIRES"),
        optional("TAGS", 1),
        optional("CREATED", 2),
    ]);
    for token in &tokens {
        let tags: Vec<String> = token.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
        table.row(vec![
            token.id.as_str().into(),
            token.uses_left.to_string().into(),
            moment(&ctx.zone, token.expires_at).into(),
            tags.join(" ").into(),
            moment(&ctx.zone, token.created_at).into(),
        ]);
    }
    ctx.printer.out(&table.render(&ctx.printer));
    Ok(exit::OK)
}

fn revoke(ctx: &Ctx, api: &Api<'_>, id: &str, yes: bool) -> Outcome {
    if Secret::parse(id).is_ok() {
        return Err(Failure::usage(
            "that is a token itself, and now stands in the shell's history: give its id instead",
        )
        .hint("the id is the 8 characters after hbe_"));
    }
    // Looked up, so that nothing but an id that exists reaches a URL.
    let token = api.tokens()?.into_iter().find(|token| token.id == id && !token.revoked).ok_or_else(|| {
        Failure::failed(format!("there is no working token {id:?}")).hint("`hb tokens list` shows ids")
    })?;
    confirm(ctx, &format!("Revoke the token {}? No host can enrol with it any more.", token.id), yes)?;
    api.revoke_token(&token.id)?;
    if ctx.json {
        ctx.printer.json(&json!({ "id": token.id, "revoked": true }));
    } else {
        ctx.printer.line(&format!("the token {} is revoked", token.id));
    }
    Ok(exit::OK)
}
