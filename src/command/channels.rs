//! `hb channels`: where alerts go.

use hb_wire::view::{ChannelRequest, ChannelView};
use serde_json::json;

use crate::api::Api;
use crate::context::Ctx;
use crate::error::{Failure, Outcome};
use crate::exit;
use crate::output::style;
use crate::output::table::{Cell, Table, column, optional};
use crate::output::time::ago;
use crate::profile::Choice;
use crate::prompt::confirm;

mod kinds;

/// What to do with channels.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  hb channels add webhook --url https://chat.example.org/hook
  hb channels add email --to oncall@example.org --name oncall
  hb channels add exec --program /usr/local/bin/page
  hb channels test oncall
  hb channels list
  hb channels remove oncall")]
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
    /// Add a channel; try it with `hb channels test`
    #[command(after_help = "\
Examples:
  hb channels add webhook --url https://chat.example.org/hook
  hb channels add email --to oncall@example.org")]
    Add {
        /// Its kind
        #[command(subcommand)]
        kind: kinds::Kind,
    },
    /// List channels, and when each last worked
    #[command(
        after_help = "Examples:\n  hb channels list\n  hb channels list --json | jq -r '.channels[] | select(.last_error) | .name'"
    )]
    List,
    /// Send a real message through a channel, the way an alert would go
    #[command(after_help = "Examples:\n  hb channels test oncall")]
    Test {
        /// Its name or id
        name: String,
    },
    /// Remove a channel; what still waits for it is not sent
    #[command(after_help = "Examples:\n  hb channels remove oncall\n  hb channels remove oncall --yes")]
    Remove {
        /// Its name or id
        name: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// Adds, lists, tries or removes channels.
pub fn run(ctx: &Ctx, args: &Args) -> Outcome {
    // What can be refused without a server is refused before there is one.
    let request = match &args.what {
        What::Add { kind } => Some(kind.request()?),
        What::List | What::Test { .. } | What::Remove { .. } => None,
    };
    let api = Api::connect(ctx, &args.choice)?;
    match (&args.what, request) {
        (What::Add { .. }, Some(request)) => add(ctx, &api, &request),
        (What::Add { .. } | What::List, _) => list(ctx, &api),
        (What::Test { name }, _) => test(ctx, &api, name),
        (What::Remove { name, yes }, _) => remove(ctx, &api, name, *yes),
    }
}

fn add(ctx: &Ctx, api: &Api<'_>, request: &ChannelRequest) -> Outcome {
    let channel = api.add_channel(request).map_err(|failure| failure.naming(kinds::OPTIONS))?;
    if ctx.json {
        ctx.printer.json(&channel);
        return Ok(exit::OK);
    }
    if let Some(secret) = &channel.secret {
        ctx.printer.line(secret);
    }
    ctx.printer.note(&format!("channel {} added: {} to {}", channel.name, channel.kind, channel.target));
    if channel.secret.is_some() {
        ctx.printer.note("its messages are signed (Hb-Signature) with the secret above, shown this once");
    }
    if !channel.pending.is_empty() {
        ctx.printer.warn(&format!(
            "nothing arrives before its owner agrees: {} (AWS has sent a mail with a link that ends after two days)",
            channel.pending.join(", ")
        ));
    }
    ctx.printer.note(&format!("try it: hb channels test {}", channel.name));
    Ok(exit::OK)
}

fn list(ctx: &Ctx, api: &Api<'_>) -> Outcome {
    let channels = api.channels()?;
    if ctx.json {
        ctx.printer.json(&json!({ "channels": channels }));
        return Ok(exit::OK);
    }
    if channels.is_empty() {
        ctx.printer.warn("there is no channel: nobody would hear an alarm (`hb channels add --help`)");
        return Ok(exit::OK);
    }
    let now = api.now();
    let mut table = Table::new(&[
        column("NAME"),
        column("KIND"),
        column("LAST DELIVERED"),
        optional("ADMIN", 3),
        optional("TARGET", 2),
        optional("PROBLEM", 1),
    ])
    .shortening();
    for channel in &channels {
        let look = if problem(channel).is_empty() { style::GOOD } else { style::BAD };
        table.row(vec![
            Cell::styled(&channel.name, style::STRONG),
            channel.kind.as_str().into(),
            match channel.last_delivered_at {
                Some(at) => Cell::styled(ago(now, at), look),
                None => Cell::styled("never", style::CAUTION),
            },
            if channel.admin { "yes" } else { "" }.into(),
            channel.target.as_str().into(),
            problem(channel).into(),
        ]);
    }
    ctx.printer.out(&table.render(&ctx.printer));
    Ok(exit::OK)
}

/// Why messages do not arrive; empty where they do.
fn problem(channel: &ChannelView) -> String {
    match (channel.pending.as_slice(), &channel.last_error) {
        ([], error) => error.clone().unwrap_or_default(),
        (pending, _) => format!("waits for its owner to agree: {}", pending.join(", ")),
    }
}

fn test(ctx: &Ctx, api: &Api<'_>, name: &str) -> Outcome {
    let channel = find(api, name)?;
    let result = api.test_channel(channel.id)?;
    if ctx.json {
        ctx.printer.json(&result);
        return Ok(if result.delivered { exit::OK } else { exit::FAILED });
    }
    if result.delivered {
        ctx.printer.line(&format!("{}: delivered in {:.1} s", channel.name, result.took_s));
        return Ok(exit::OK);
    }
    let why = result.error.as_deref().unwrap_or("the server does not say why");
    Err(Failure::failed(format!("{} did not take the message: {why}", channel.name))
        .hint(format!("check {} and the server's log; delivery {}", channel.target, result.delivery)))
}

fn remove(ctx: &Ctx, api: &Api<'_>, name: &str, yes: bool) -> Outcome {
    let channel = find(api, name)?;
    confirm(ctx, &format!("Remove the channel {} ({} to {})?", channel.name, channel.kind, channel.target), yes)?;
    api.remove_channel(channel.id)?;
    if ctx.json {
        ctx.printer.json(&json!({ "id": channel.id, "name": channel.name, "removed": true }));
    } else {
        ctx.printer.line(&format!("the channel {} is removed", channel.name));
    }
    Ok(exit::OK)
}

fn find(api: &Api<'_>, wanted: &str) -> Result<ChannelView, Failure> {
    let channels = api.channels()?;
    let names: Vec<&str> = channels.iter().map(|channel| channel.name.as_str()).collect();
    let hint = if names.is_empty() {
        "there is none yet: `hb channels add --help`".to_owned()
    } else {
        format!("there are: {}", names.join(", "))
    };
    let found = channels.into_iter().find(|channel| channel.name == wanted || channel.id.to_string() == wanted);
    found.ok_or_else(|| Failure::failed(format!("there is no channel {wanted:?}")).hint(hint))
}
