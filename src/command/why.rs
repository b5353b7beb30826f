//! `hb why`: what hb knows about one host, why it decided so, and who was told. Written to be read at three in the
//! morning: the answer first, the numbers below.

use hb_wire::view::{DeliveryView, HostState, WhyView};
use jiff::Timestamp;

use crate::api::Api;
use crate::context::Ctx;
use crate::error::Outcome;
use crate::exit;
use crate::output::style;
use crate::output::text::word;
use crate::output::time::{ago, moment, near_moment, seconds_between, span};
use crate::profile::Choice;

/// Which host.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hb why web1\n  hb why web1 --json | jq .event.inputs")]
pub struct Args {
    /// Its name, id, or the beginning of its id
    pub host: String,
    /// Which server
    #[command(flatten)]
    pub choice: Choice,
}

/// Explains the state of a host.
pub fn run(ctx: &Ctx, args: &Args) -> Outcome {
    let api = Api::connect(ctx, &args.choice)?;
    let why = api.why(api.host(&args.host)?.id)?;
    if ctx.json {
        ctx.printer.json(&why);
    } else {
        ctx.printer.line(&told(ctx, &why, api.now()).join("\n"));
    }
    Ok(exit::OK)
}

fn told(ctx: &Ctx, why: &WhyView, now: Timestamp) -> Vec<String> {
    let heading = |text: &str| [String::new(), ctx.printer.paint(style::STRONG, text)];
    let mut lines = vec![headline(ctx, why, now), why.because.clone()];
    if !why.steps.is_empty() {
        lines.extend(heading("How hb came to this"));
        lines.extend(why.steps.iter().zip(1..).map(|(step, number)| format!("  {number}. {step}")));
    }
    if let Some(event) = &why.event {
        lines.extend(heading("The last change"));
        let cause = event.cause.as_ref().map(|cause| format!(", cause: {cause}")).unwrap_or_default();
        lines.push(format!("  {}  {}{cause}", moment(&ctx.zone, event.at), event.event));
        lines.push(format!("  {}", event.message));
        let inputs = event.inputs.iter().map(|(name, input)| format!("    {name} = {}", plain(input)));
        lines.extend(inputs.map(|input| ctx.printer.paint(style::FAINT, &input)));
    }
    lines.extend(heading("Who was told"));
    if why.deliveries.is_empty() {
        lines.push("  nobody: no message was due".to_owned());
    }
    lines.extend(why.deliveries.iter().map(|delivery| format!("  {}", delivery_line(ctx, delivery, now))));
    lines
}

fn headline(ctx: &Ctx, why: &WhyView, now: Timestamp) -> String {
    let host = &why.host;
    let style = match host.state {
        HostState::Down => style::BAD,
        HostState::Up => style::GOOD,
        HostState::Late => style::CAUTION,
        HostState::New | HostState::Stopped | HostState::Paused | HostState::Retired => style::CALM,
        HostState::Unknown => style::UNSURE,
    };
    let state = ctx.printer.paint(style, &word(&host.state));
    let since = host
        .since
        .map(|since| format!(" since {} ({})", near_moment(&ctx.zone, now, since), span(seconds_between(since, now))));
    let seen = host.last_seen.map_or_else(
        || "; it was never heard".to_owned(),
        |seen| format!("; last heard {} ({})", near_moment(&ctx.zone, now, seen), ago(now, seen)),
    );
    let marks = if host.marks.is_empty() { String::new() } else { format!("; marked {}", host.marks.join(", ")) };
    format!("{} is {state}{}{seen}{marks}", ctx.printer.paint(style::STRONG, &host.name), since.unwrap_or_default())
}

/// One line about one delivery.
fn delivery_line(ctx: &Ctx, delivery: &DeliveryView, now: Timestamp) -> String {
    let attempts = format!("{} attempt{}", delivery.attempts, if delivery.attempts == 1 { "" } else { "s" });
    let near = |at| near_moment(&ctx.zone, now, at);
    let outcome = match (delivery.status.as_str(), delivery.delivered_at) {
        ("delivered", Some(at)) => format!("delivered {}", near(at)),
        (status, _) => status.to_owned(),
    };
    let next = delivery.next_attempt_at.filter(|_| delivery.status == "pending");
    let next = next.map(|next| format!(", next {}", near(next))).unwrap_or_default();
    let error = delivery.last_error.as_ref().filter(|_| delivery.status != "delivered");
    let error = error.map(|error| format!(": {error}")).unwrap_or_default();
    format!("{}: {outcome} ({attempts}){next}{error}", delivery.channel_name)
}

fn plain(input: &serde_json::Value) -> String {
    input.as_str().map_or_else(|| input.to_string(), str::to_owned)
}
