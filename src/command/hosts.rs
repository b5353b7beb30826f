//! `hb hosts`: list, look at and change the hosts of the fleet.

use std::collections::BTreeMap;

use hb_wire::view::{Class, HostPatch, HostState, HostView};
use jiff::Timestamp;
use serde_json::json;

use crate::api::{Api, Filter};
use crate::cli::value;
use crate::command::status::{state_cell, summary_words};
use crate::context::Ctx;
use crate::error::{Failure, Outcome};
use crate::exit;
use crate::output::style;
use crate::output::table::{Cell, Table, column, optional};
use crate::output::text::word;
use crate::output::time::{ago, moment, skew, span};
use crate::profile::Choice;
use crate::prompt::confirm;

/// What to do with hosts.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  hb hosts list --tag role=db
  hb hosts show web1
  hb hosts rename web1 web1.example.org
  hb hosts tag web1 site=eu --remove rack
  hb hosts set web1 --interval 30s --grace 90s
  hb hosts retire web1")]
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
    /// List hosts by name
    #[command(
        after_help = "Examples:\n  hb hosts list\n  hb hosts list --state retired\n  hb hosts list --tag site=eu --json"
    )]
    List {
        /// Only hosts in this state (may be repeated)
        #[arg(long, value_name = "STATE", value_parser = value::state())]
        state: Vec<HostState>,
        /// Only hosts with this tag (may be repeated: all of them)
        #[arg(long, value_name = "K=V", value_parser = value::tag)]
        tag: Vec<(String, String)>,
    },
    /// Show everything about one host
    #[command(after_help = "Examples:\n  hb hosts show web1\n  hb hosts show 0199c5 --json")]
    Show {
        /// Its name, id, or the beginning of its id
        host: String,
    },
    /// Give a host another name; its id and key stay
    #[command(after_help = "Examples:\n  hb hosts rename web1 web1.example.org")]
    Rename {
        /// Its name, id, or the beginning of its id
        host: String,
        /// The new name
        #[arg(value_parser = value::host_name)]
        name: String,
    },
    /// Set and remove tags
    #[command(after_help = "Examples:\n  hb hosts tag web1 role=web site=eu\n  hb hosts tag web1 --remove rack")]
    Tag {
        /// Its name, id, or the beginning of its id
        host: String,
        /// Tags to set
        #[arg(value_name = "K=V", value_parser = value::tag, required_unless_present = "remove")]
        tags: Vec<(String, String)>,
        /// Tags to remove (may be repeated)
        #[arg(long, value_name = "KEY", value_parser = value::tag_key)]
        remove: Vec<String>,
    },
    /// Change how often a host beats, and what its silence means
    #[command(after_help = "\
Examples:
  hb hosts set web1 --interval 30s --grace 90s
  hb hosts set laptop7 --class intermittent --max-away 14d")]
    Set(Settings),
    /// Take a host out of service: its key stops working, its history stays
    #[command(after_help = "Examples:\n  hb hosts retire web1\n  hb hosts retire web1 --yes")]
    Retire {
        /// Its name, id, or the beginning of its id
        host: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// What can be set.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("setting").args(["interval", "grace", "class", "max_away"]).required(true).multiple(true))]
pub struct Settings {
    /// Its name, id, or the beginning of its id
    pub host: String,
    /// Time between beats, like 60s
    #[arg(long, value_name = "SPAN", value_parser = value::some_seconds)]
    pub interval: Option<u64>,
    /// Silence allowed beyond the interval, like 2m
    #[arg(long, value_name = "SPAN", value_parser = value::seconds)]
    pub grace: Option<u64>,
    /// What it is: a server alarms when silent, an intermittent host after --max-away, an ephemeral one retires itself
    #[arg(long, value_parser = value::class())]
    pub class: Option<Class>,
    /// For intermittent hosts: absence that does alarm, like 14d
    #[arg(long, value_name = "SPAN", value_parser = value::some_seconds)]
    pub max_away: Option<u64>,
}

/// Lists, shows or changes hosts.
pub fn run(ctx: &Ctx, args: &Args) -> Outcome {
    let api = Api::connect(ctx, &args.choice)?;
    match &args.what {
        What::List { state, tag } => list(ctx, &api, &Filter { states: state.clone(), tags: tag.clone() }),
        What::Show { host } => {
            let host = api.host(host)?;
            show(ctx, &host, api.now());
            Ok(exit::OK)
        }
        What::Rename { host, name } => {
            let patch = HostPatch { name: Some(name.clone()), ..nothing() };
            change(ctx, &api, host, &patch, |before, now| format!("{} is now {}", before.name, now.name))
        }
        What::Tag { host, tags, remove } => {
            let set = value::tags(tags)?.into_iter().map(|(key, value)| (key, Some(value)));
            let patch =
                HostPatch { tags: remove.iter().map(|key| (key.clone(), None)).chain(set).collect(), ..nothing() };
            change(ctx, &api, host, &patch, |_, now| format!("{}: {}", now.name, tags_line(now)))
        }
        What::Set(settings) => {
            let patch = HostPatch {
                interval_s: settings.interval,
                grace_s: settings.grace,
                class: settings.class,
                max_away_s: settings.max_away,
                ..nothing()
            };
            change(ctx, &api, &settings.host, &patch, |_, now| {
                let interval = span(now.interval_s.cast_signed());
                let down = match (now.class, now.max_away_s) {
                    (Class::Server | Class::Ephemeral, _) => {
                        format!("down after {} more", span(now.grace_s.cast_signed()))
                    }
                    (Class::Intermittent, Some(away)) => format!("down after {} of absence", span(away.cast_signed())),
                    (Class::Intermittent, None) => "never down for its absence".to_owned(),
                };
                format!("{}: {}, every {interval}, {down}", now.name, word(&now.class))
            })
        }
        What::Retire { host, yes } => retire(ctx, &api, host, *yes),
    }
}

fn list(ctx: &Ctx, api: &Api<'_>, filter: &Filter) -> Outcome {
    let page = api.hosts(filter)?;
    if ctx.json {
        ctx.printer.json(&json!({ "hosts": page.hosts }));
        return Ok(exit::OK);
    }
    if page.hosts.is_empty() {
        ctx.printer.note("no host fits");
        return Ok(exit::OK);
    }
    let mut table = Table::new(&[
        column("HOST"),
        column("STATE"),
        optional("EVERY", 2),
        optional("GRACE", 2),
        optional("CLASS", 4),
        optional("AGENT", 5),
        optional("TAGS", 3),
        optional("ID", 1),
    ]);
    for host in &page.hosts {
        table.row(vec![
            Cell::styled(&host.name, style::STRONG),
            state_cell(host.state),
            span(host.interval_s.cast_signed()).into(),
            span(host.grace_s.cast_signed()).into(),
            word(&host.class).into(),
            host.agent.as_deref().unwrap_or_default().into(),
            tags_line(host).into(),
            host.id.to_string().into(),
        ]);
    }
    ctx.printer.out(&table.render(&ctx.printer));
    ctx.printer.detail(&summary_words(ctx, &page.hosts));
    Ok(exit::OK)
}

fn show(ctx: &Ctx, host: &HostView, now: Timestamp) {
    if ctx.json {
        return ctx.printer.json(host);
    }
    let at = |at: Option<Timestamp>| at.map(|at| format!("{} ({})", moment(&ctx.zone, at), ago(now, at)));
    let ahead = |at: Option<Timestamp>| at.map(|at| moment(&ctx.zone, at));
    let seconds = |seconds: u64| span(seconds.cast_signed());
    let vitals = host.vitals.as_ref();
    let gib = |bytes: Option<u64>| bytes.map(gibibytes);
    let of = |part: Option<String>, whole: Option<String>| Some(format!("{} of {}", part?, whole?));
    let rows: [(&str, Option<String>); 25] = [
        ("id", Some(host.id.to_string())),
        ("state", Some(ctx.printer.paint(style::STRONG, &word(&host.state)))),
        ("since", at(host.since)),
        ("marks", some(host.marks.join(", "))),
        ("reason", host.reason.clone()),
        ("until", ahead(host.until)),
        ("last seen", at(host.last_seen).or_else(|| Some("never".to_owned()))),
        ("deadline", ahead(host.deadline)),
        ("interval", Some(seconds(host.interval_s))),
        ("grace", Some(seconds(host.grace_s))),
        ("class", Some(word(&host.class))),
        ("max away", host.max_away_s.map(|away| span(away.cast_signed()))),
        ("tags", some(tags_line(host))),
        ("agent", host.agent.clone()),
        ("uptime", host.uptime_s.map(seconds)),
        ("clock", host.clock_skew_s.map(clock)),
        ("load", vitals.and_then(|vitals| vitals.load1).map(|load| format!("{load:.2}"))),
        ("processors", vitals.and_then(|vitals| vitals.cpus).map(|cpus| cpus.to_string())),
        ("memory used", vitals.and_then(|vitals| of(gib(vitals.mem_used_bytes), gib(vitals.mem_total_bytes)))),
        ("disk free", vitals.and_then(|vitals| of(gib(vitals.disk_free_bytes), gib(vitals.disk_total_bytes)))),
        ("incident", host.incident.map(|incident| incident.to_string())),
        ("key", host.key.clone()),
        ("boot", host.boot.map(|boot| boot.to_string())),
        ("run", host.run.map(|run| run.to_string())),
        ("enrolled", at(Some(host.enrolled_at))),
    ];
    ctx.printer.line(&ctx.printer.paint(style::STRONG, &host.name));
    for (name, value) in rows {
        if let Some(value) = value {
            ctx.printer.line(&format!("  {} {value}", ctx.printer.paint(style::FAINT, &format!("{name:<11}"))));
        }
    }
}

fn change(
    ctx: &Ctx,
    api: &Api<'_>,
    wanted: &str,
    patch: &HostPatch,
    say: impl FnOnce(&HostView, &HostView) -> String,
) -> Outcome {
    let before = api.host(wanted)?;
    let options = [
        ("name: ", "NAME: "),
        ("interval_s: ", "--interval: "),
        ("grace_s: ", "--grace: "),
        ("max_away_s: ", "--max-away: "),
    ];
    let now = api.patch_host(before.id, patch).map_err(|failure| failure.naming(&options))?;
    if ctx.json {
        ctx.printer.json(&now);
    } else {
        ctx.printer.line(&say(&before, &now));
    }
    Ok(exit::OK)
}

fn retire(ctx: &Ctx, api: &Api<'_>, wanted: &str, yes: bool) -> Outcome {
    let host = api.host(wanted)?;
    if host.state == HostState::Retired {
        return Err(Failure::failed(format!("{} is retired already", host.name)).hint("nothing is left to do"));
    }
    confirm(ctx, &format!("Retire {} ({})? Its key stops working for good.", host.name, host.id), yes)?;
    api.retire_host(host.id)?;
    if ctx.json {
        ctx.printer.json(&json!({ "id": host.id, "name": host.name, "retired": true }));
    } else {
        ctx.printer.line(&format!("{} is retired", host.name));
    }
    Ok(exit::OK)
}

/// A patch that changes nothing.
fn nothing() -> HostPatch {
    HostPatch { name: None, interval_s: None, grace_s: None, tags: BTreeMap::new(), class: None, max_away_s: None }
}

/// A clock's distance from the server's, from a tenth of a second on.
fn clock(skew_s: f64) -> String {
    const SEEN_MIN_S: f64 = 0.05;
    if skew_s.abs() < SEEN_MIN_S { "as the server's".to_owned() } else { skew(skew_s) }
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn tags_line(host: &HostView) -> String {
    host.tags.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}

#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
fn gibibytes(bytes: u64) -> String {
    const GIB: f64 = 1_073_741_824.0;
    format!("{:.1} GiB", bytes as f64 / GIB)
}
