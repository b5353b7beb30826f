//! The table of `hb status`: a summary, then the hosts, the worst first.

use anstyle::Style;
use hb_wire::view::{HostState, HostView};
use jiff::Timestamp;

use super::View;
use crate::context::Ctx;
use crate::output::style;
use crate::output::table::{Cell, Table, column, optional};
use crate::output::text::word;
use crate::output::time::{ago, near_moment, seconds_between, span};

/// The states in the order of their urgency.
const BY_URGENCY: [HostState; 8] = [
    HostState::Down,
    HostState::Late,
    HostState::Unknown,
    HostState::Stopped,
    HostState::Paused,
    HostState::New,
    HostState::Up,
    HostState::Retired,
];

/// The summary line, and the table below it.
pub(super) fn render(ctx: &Ctx, view: &View) -> String {
    let summary = summary(ctx, view);
    if view.page.hosts.is_empty() {
        return summary;
    }
    let mut hosts: Vec<&HostView> = view.page.hosts.iter().collect();
    hosts.sort_by_key(|host| (place(host), host.name.clone()));
    let mut table = Table::new(&[
        column("HOST"),
        column("STATE"),
        column("LAST SEEN"),
        optional("DUE", 1),
        optional("MARKS", 2),
        optional("REASON", 4),
        optional("UPTIME", 5),
        optional("LOAD", 6),
        optional("TAGS", 3),
    ]);
    let now = view.page.observed_at;
    for host in hosts {
        table.row(row(ctx, host, now));
    }
    format!("{summary}\n{}", table.render(&ctx.printer))
}

/// How many hosts are in which state, the worst first, in colour.
pub fn summary_words(ctx: &Ctx, hosts: &[HostView]) -> String {
    let counted = BY_URGENCY.iter().filter_map(|state| {
        let count = hosts.iter().filter(|host| host.state == *state).count();
        (count > 0).then(|| ctx.printer.paint(state_style(*state), &format!("{count} {}", word(state))))
    });
    counted.collect::<Vec<_>>().join(", ")
}

/// A state as a cell.
pub fn state_cell(state: HostState) -> Cell {
    Cell::styled(word(&state), state_style(state))
}

fn summary(ctx: &Ctx, view: &View) -> String {
    let listed = view.page.hosts.len();
    let fleet: u64 = view.page.summary.iter().filter(|(state, _)| *state != "retired").map(|(_, count)| count).sum();
    let hosts = |count: u64| format!("{count} host{}", if count == 1 { "" } else { "s" });
    let words = summary_words(ctx, &view.page.hosts);
    match (listed, view.narrowed) {
        (0, false) => "no hosts yet\n".to_owned(),
        (0, true) => format!("none of {} fits\n", hosts(fleet)),
        (_, false) => format!("{}: {words}\n", hosts(listed as u64)),
        (_, true) => format!("{listed} of {}: {words}\n", hosts(fleet)),
    }
}

fn row(ctx: &Ctx, host: &HostView, now: Timestamp) -> Vec<Cell> {
    let alive = matches!(host.state, HostState::Up | HostState::Late);
    let vitals = host.vitals.as_ref().filter(|_| alive);
    let tags: Vec<String> = host.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
    vec![
        Cell::styled(&host.name, style::STRONG),
        state_cell(host.state),
        host.last_seen.map_or_else(|| "never".to_owned(), |seen| ago(now, seen)).into(),
        due(ctx, host, now).into(),
        Cell::styled(host.marks.join(","), if warns(host) { style::CAUTION } else { style::CALM }),
        host.reason.as_deref().unwrap_or_default().into(),
        host.uptime_s.filter(|_| alive).map(|seconds| span(seconds.cast_signed())).unwrap_or_default().into(),
        vitals.and_then(|vitals| vitals.load1).map(|load| format!("{load:.2}")).unwrap_or_default().into(),
        tags.join(" ").into(),
    ]
}

/// What happens next, or how long it has been overdue.
pub(super) fn due(ctx: &Ctx, host: &HostView, now: Timestamp) -> String {
    let until = |word: &str| match host.until {
        Some(until) => format!("{word} {}", near_moment(&ctx.zone, now, until)),
        None => "no end".to_owned(),
    };
    match (host.state, host.deadline) {
        (HostState::Paused, _) => until("until"),
        (HostState::Stopped, _) => until("back by"),
        (HostState::Down, _) => {
            let since = host.since.or(host.deadline);
            since.map(|since| format!("down for {}", span(seconds_between(since, now)))).unwrap_or_default()
        }
        (HostState::Late, Some(deadline)) => {
            let interval = i64::try_from(host.interval_s).unwrap_or(i64::MAX);
            let late = host.last_seen.map(|seen| seconds_between(seen, now).saturating_sub(interval));
            let late = late.map(|late| format!("late by {}, ", span(late))).unwrap_or_default();
            format!("{late}down in {}", span(seconds_between(now, deadline)))
        }
        (HostState::Up | HostState::New | HostState::Unknown, Some(deadline)) => {
            format!("in {}", span(seconds_between(now, deadline)))
        }
        (HostState::Late | HostState::Up | HostState::New | HostState::Unknown, None) | (HostState::Retired, _) => {
            String::new()
        }
    }
}

/// True for marks that somebody should look at.
pub(super) fn warns(host: &HostView) -> bool {
    host.marks.iter().any(|mark| mark != "maintenance")
}

/// The place of a host in the table.
fn place(host: &HostView) -> u8 {
    match host.state {
        HostState::Down => 0,
        HostState::Late => 1,
        HostState::Unknown => 2,
        HostState::Up if warns(host) => 3,
        HostState::Stopped => 4,
        HostState::Paused => 5,
        HostState::New => 6,
        HostState::Up => 7,
        HostState::Retired => 8,
    }
}

fn state_style(state: HostState) -> Style {
    match state {
        HostState::Up => style::GOOD,
        HostState::Late => style::CAUTION,
        HostState::Down => style::BAD,
        HostState::New | HostState::Stopped | HostState::Paused => style::CALM,
        HostState::Unknown => style::UNSURE,
        HostState::Retired => style::FAINT,
    }
}
