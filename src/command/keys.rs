//! `hb keys`: API keys for people and programs.

use hb_wire::api_key::Secret;
use hb_wire::view::{KeyRequest, KeyView, Scope};
use serde_json::json;

use crate::api::Api;
use crate::cli::value;
use crate::context::Ctx;
use crate::error::{Failure, Outcome};
use crate::exit;
use crate::output::style;
use crate::output::table::{Cell, Table, column, optional};
use crate::output::text::word;
use crate::output::time::{ago, moment, seconds_between};
use crate::profile::{self, Choice, Profiles};
use crate::prompt::confirm;

/// What to do with API keys.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  hb keys create --name grafana --scope read --scope metrics
  hb keys create --name deploy --scope register --expires 90d > deploy.key
  hb keys list
  hb keys rotate 3yQ2mZ8a
  hb keys revoke 3yQ2mZ8a")]
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
    /// Make a key; its secret is shown once, alone on stdout
    #[command(after_help = "\
Examples:
  hb keys create --name grafana --scope read --scope metrics
  hb keys create --name deploy --scope register --expires 90d > deploy.key")]
    Create {
        /// What it is for
        #[arg(long)]
        name: String,
        /// What it may do (may be repeated)
        #[arg(long, required = true, value_parser = value::scope())]
        scope: Vec<Scope>,
        /// When it ends, like 90d; without it, never
        #[arg(long, value_name = "SPAN", value_parser = value::some_seconds)]
        expires: Option<u64>,
    },
    /// List keys; secrets are never shown again
    #[command(
        after_help = "Examples:\n  hb keys list\n  hb keys list --json | jq -r '.keys[] | select(.last_used_at == null) | .id'"
    )]
    List,
    /// Make a key stop working, at once and for good
    #[command(after_help = "Examples:\n  hb keys revoke 3yQ2mZ8a\n  hb keys revoke 3yQ2mZ8a --yes")]
    Revoke {
        /// Its id, as `hb keys list` shows it
        id: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Replace a key by a new one with the same name and scopes, and revoke the old one
    #[command(after_help = "\
Examples:
  hb keys rotate 3yQ2mZ8a > new.key
  hb keys rotate 3yQ2mZ8a --keep-old    revoke it yourself when nothing uses it any more

When it is the key that this command itself uses, the saved profile gets the new one.")]
    Rotate {
        /// Its id, as `hb keys list` shows it
        id: String,
        /// Leave the old key working
        #[arg(long)]
        keep_old: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// Makes, lists, revokes or rotates keys.
pub fn run(ctx: &Ctx, args: &Args) -> Outcome {
    let api = Api::connect(ctx, &args.choice)?;
    match &args.what {
        What::Create { name, scope, expires } => {
            let request = KeyRequest { name: name.clone(), scopes: scope.clone(), expires_in_s: *expires };
            let options = [("name: ", "--name: "), ("expires_in_s: ", "--expires: ")];
            let key = api.create_key(&request).map_err(|failure| failure.naming(&options))?;
            show_new(ctx, &key);
            if let Err(failure) = ctx.printer.all_written() {
                return Err(undo(&api, &key.id, failure, "no key was made"));
            }
            Ok(exit::OK)
        }
        What::List => list(ctx, &api),
        What::Revoke { id, yes } => {
            let key = find(&api, id)?;
            let own = if key.id == api.target().key.id() { " It is the one that you are using!" } else { "" };
            confirm(ctx, &format!("Revoke the key {} ({})?{own} It stops working for good.", key.id, key.name), *yes)?;
            api.revoke_key(&key.id)?;
            if ctx.json {
                ctx.printer.json(&json!({ "id": key.id, "name": key.name, "revoked": true }));
            } else {
                ctx.printer.line(&format!("the key {} ({}) is revoked", key.id, key.name));
            }
            Ok(exit::OK)
        }
        What::Rotate { id, keep_old, yes } => rotate(ctx, &api, id, *keep_old, *yes),
    }
}

/// The new key is made and put where the old one stood before the old one is revoked: whatever fails on the way, one of
/// the two works and is known; a new one that nobody got to know is revoked again.
fn rotate(ctx: &Ctx, api: &Api<'_>, id: &str, keep_old: bool, yes: bool) -> Outcome {
    let old = find(api, id)?;
    if !keep_old {
        confirm(ctx, &format!("Replace the key {} ({})? The old one stops working at once.", old.id, old.name), yes)?;
    }
    let left = old.expires_at.map(|end| seconds_between(api.now(), end));
    let expires_in_s = match left {
        None => None,
        Some(left) => Some(u64::try_from(left).ok().filter(|left| *left > 0).ok_or_else(|| {
            Failure::failed(format!("the key {} has expired", old.id)).hint("make a new one: `hb keys create`")
        })?),
    };
    let new = api.create_key(&KeyRequest { name: old.name.clone(), scopes: old.scopes.clone(), expires_in_s })?;
    let stays = format!("the old key {} works as before", old.id);
    show_new(ctx, &new);
    if let Err(failure) = ctx.printer.all_written() {
        return Err(undo(api, &new.id, failure, &stays));
    }
    let secret = new.secret.as_deref().map(Secret::parse);
    let Some(Ok(secret)) = secret else {
        return Err(
            Failure::unreachable("the server answered without a usable secret").hint("update hb, or the server")
        );
    };
    let mut target = api.target().clone();
    if target.key.id() == old.id {
        if let Err(failure) = replace_saved(ctx, api, &old.id, &secret) {
            return Err(undo(api, &new.id, failure, &stays));
        }
        target.key = secret;
    }
    if keep_old {
        ctx.printer.note(&format!("the old key {} still works: `hb keys revoke {}` ends it", old.id, old.id));
        return Ok(exit::OK);
    }
    Api::to(ctx, target)?.revoke_key(&old.id)?;
    ctx.printer.note(&format!("the old key {} is revoked", old.id));
    Ok(exit::OK)
}

/// Revokes a key that came to nothing, and says in the failure how things stand.
fn undo(api: &Api<'_>, id: &str, failure: Failure, stays: &str) -> Failure {
    let undone = match api.revoke_key(id) {
        Ok(()) => format!("the new key {id} is revoked again"),
        Err(_) => format!("the new key {id} could not be revoked again: `hb keys revoke {id}`"),
    };
    let message = format!("{}; {stays}, {undone}", failure.message);
    Failure { message, ..failure }
}

fn replace_saved(ctx: &Ctx, api: &Api<'_>, old: &str, new: &Secret) -> Result<(), Failure> {
    let path = profile::path()?;
    let mut profiles = Profiles::load(&path)?;
    if profiles.replace_key(&api.target().server, old, new) > 0 {
        profiles.save(&path)?;
        ctx.printer.note(&format!("{} holds the new key", path.display()));
    } else {
        ctx.printer.warn("the old key came from HB_API_KEY: put the new one there");
    }
    Ok(())
}

fn show_new(ctx: &Ctx, key: &KeyView) {
    if ctx.json {
        return ctx.printer.json(key);
    }
    ctx.printer.line(key.secret.as_deref().unwrap_or_default());
    let end = key
        .expires_at
        .map_or_else(|| "does not expire".to_owned(), |end| format!("expires {}", moment(&ctx.zone, end)));
    ctx.printer.note(&format!("key {} ({}): {}; {end}; shown this once", key.id, key.name, scopes(key)));
}

fn list(ctx: &Ctx, api: &Api<'_>) -> Outcome {
    let keys = api.keys()?;
    if ctx.json {
        ctx.printer.json(&json!({ "keys": keys }));
        return Ok(exit::OK);
    }
    let now = api.now();
    let mut table = Table::new(&[
        column("ID"),
        column("NAME"),
        column("STATE"),
        optional("SCOPES", 1),
        optional("LAST USED", 2),
        optional("EXPIRES", 3),
        optional("CREATED", 4),
    ]);
    for key in &keys {
        let expired = key.expires_at.is_some_and(|end| end <= now);
        let (state, look) = match (key.revoked, expired) {
            (true, _) => ("revoked", style::FAINT),
            (false, true) => ("expired", style::CAUTION),
            (false, false) => ("works", style::GOOD),
        };
        table.row(vec![
            key.id.as_str().into(),
            key.name.as_str().into(),
            Cell::styled(state, look),
            scopes(key).into(),
            key.last_used_at.map_or_else(|| "never".to_owned(), |at| ago(now, at)).into(),
            key.expires_at.map_or_else(|| "never".to_owned(), |at| moment(&ctx.zone, at)).into(),
            moment(&ctx.zone, key.created_at).into(),
        ]);
    }
    ctx.printer.out(&table.render(&ctx.printer));
    Ok(exit::OK)
}

/// The key with that id, which is looked up so that nothing but an id that exists reaches a URL.
fn find(api: &Api<'_>, id: &str) -> Result<KeyView, Failure> {
    if Secret::parse(id).is_ok() {
        return Err(Failure::usage("that is a key itself, and now stands in the shell's history: give its id instead")
            .hint("the id is the 8 characters after hbk_; consider rotating the key"));
    }
    let found = api.keys()?.into_iter().find(|key| key.id == id && !key.revoked);
    found.ok_or_else(|| Failure::failed(format!("there is no working key {id:?}")).hint("`hb keys list` shows ids"))
}

fn scopes(key: &KeyView) -> String {
    key.scopes.iter().map(word).collect::<Vec<_>>().join(",")
}
