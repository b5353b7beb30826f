//! `hb status --check`: one line and an exit code, as the Monitoring Plugins guidelines want them.

use hb_wire::view::{Class, HostState, HostView};

use super::{View, table};
use crate::context::Ctx;
use crate::error::Failure;
use crate::exit;
use crate::output::text::visible;
use crate::output::time::{seconds_between, span};

/// Hosts named per state.
const NAMED_MAX: usize = 10;

/// Asks, prints the line, and answers the code. Whatever goes wrong is UNKNOWN: the one code that says "could not ask".
pub(super) fn run(ctx: &Ctx, look: impl FnOnce() -> Result<View, Failure>) -> u8 {
    let asked = look().and_then(|view| match view.page.hosts.as_slice() {
        // Nothing to judge is no good news: most likely the tag is mistyped.
        [] if view.by_tag => Err(Failure::failed("no host has these tags").hint("`hb hosts list` shows tags")),
        // Nobody watches what is retired: that all is well with it is not known. What is down goes before.
        hosts => match hosts.iter().find(|host| host.state == HostState::Retired) {
            Some(retired) if hosts.iter().all(|host| host.state != HostState::Down) => {
                Err(Failure::failed(format!("{} is retired: nobody watches it", retired.name))
                    .hint("check another host, or enrol this one again"))
            }
            Some(_) | None => Ok(view),
        },
    });
    let view = match asked {
        Ok(view) => view,
        Err(failure) => {
            let hint = failure.hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
            let text = format!("{}{hint}", failure.message).replace('\n', " ");
            if ctx.json {
                let error = serde_json::json!({ "message": text, "hint": null, "exit": exit::CHECK_UNKNOWN });
                ctx.printer.err(&crate::output::text::json(&serde_json::json!({ "error": error })));
            } else {
                ctx.printer.line(&format!("HB UNKNOWN - {}", tame(&text)));
            }
            return exit::CHECK_UNKNOWN;
        }
    };
    let (code, word) = verdict(&view);
    if ctx.json {
        ctx.printer.json(&view.document());
    } else {
        ctx.printer.line(&format!("HB {word} - {} | {}", said(&view), figures(&view.page.hosts)));
    }
    code
}

fn verdict(view: &View) -> (u8, &'static str) {
    let hosts = &view.page.hosts;
    if hosts.iter().any(|host| host.state == HostState::Down) {
        return (exit::CHECK_CRITICAL, "CRITICAL");
    }
    if !view.page.observing || hosts.iter().any(needs_a_look) {
        return (exit::CHECK_WARNING, "WARNING");
    }
    (exit::OK, "OK")
}

fn needs_a_look(host: &HostView) -> bool {
    is_late(host) || host.state == HostState::Unknown || marked(host)
}

/// Late without having said so.
fn is_late(host: &HostView) -> bool {
    host.state == HostState::Late && !is_away(host)
}

/// Silent as announced: in a maintenance, or a host that comes and goes.
fn is_away(host: &HostView) -> bool {
    let in_maintenance = host.marks.iter().any(|mark| mark == "maintenance");
    host.state == HostState::Late && (host.class == Class::Intermittent || in_maintenance)
}

fn marked(host: &HostView) -> bool {
    table::warns(host) && !matches!(host.state, HostState::Down | HostState::Late | HostState::Unknown)
}

fn said(view: &View) -> String {
    let hosts = &view.page.hosts;
    let now = view.page.observed_at;
    let named = |word: &str, fits: &dyn Fn(&HostView) -> bool, about: &dyn Fn(&HostView) -> String| {
        let found: Vec<&HostView> = hosts.iter().filter(|host| fits(host)).collect();
        let mut names: Vec<String> =
            found.iter().take(NAMED_MAX).map(|host| format!("{}{}", tame(&host.name), tame(&about(host)))).collect();
        if found.len() > NAMED_MAX {
            names.push("…".to_owned());
        }
        (!found.is_empty()).then(|| format!("{} {word}: {}", found.len(), names.join(", ")))
    };
    let lasting = |host: &HostView| {
        let since = host.since.or(host.deadline);
        since.map(|since| format!(" ({})", span(seconds_between(since, now)))).unwrap_or_default()
    };
    let nothing = |_: &HostView| String::new();
    let marks = |host: &HostView| format!(" ({})", host.marks.join(","));
    let parts = [
        named("down", &|host| host.state == HostState::Down, &lasting),
        named("late", &is_late, &nothing),
        named("unknown", &|host| host.state == HostState::Unknown, &nothing),
        named("marked", &marked, &marks),
        named("away as announced", &is_away, &nothing),
        (!view.page.observing).then(|| "the server is not observing".to_owned()),
    ];
    let total = format!("{} host{}", hosts.len(), if hosts.len() == 1 { "" } else { "s" });
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { format!("{total}, all well") } else { format!("{total}, {}", parts.join("; ")) }
}

/// Performance data: `label=value;warn;crit;min`.
fn figures(hosts: &[HostView]) -> String {
    let count = |state| hosts.iter().filter(|host| host.state == state).count();
    format!(
        "up={};;;0 late={};0;;0 down={};;0;0 unknown={};0;;0 degraded={};0;;0 paused={};;;0 stopped={};;;0 new={};;;0",
        count(HostState::Up),
        hosts.iter().filter(|host| is_late(host)).count(),
        count(HostState::Down),
        count(HostState::Unknown),
        hosts.iter().filter(|host| host.marks.iter().any(|mark| mark == "degraded")).count(),
        count(HostState::Paused),
        count(HostState::Stopped),
        count(HostState::New),
    )
}

/// A bar would begin the performance data.
fn tame(text: &str) -> String {
    visible(text).replace('|', "/")
}
