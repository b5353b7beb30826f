//! `hb status`: the fleet at a glance, once, again and again, or as a Nagios plugin.

use std::collections::{BTreeMap, HashSet};
use std::io::Write as _;
use std::time::Duration;

use hb_wire::view::{HostPage, HostState, HostView};
use jiff::Timestamp;
use serde::Serialize;

use crate::api::{Api, Filter, matches};
use crate::cli::value;
use crate::context::Ctx;
use crate::error::{Failure, Outcome};
use crate::exit;
use crate::output::time::near_moment;
use crate::output::{style, text};
use crate::profile::Choice;

mod check;
mod table;
mod warnings;

pub use table::{state_cell, summary_words};

/// How often `--watch` asks.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// Which hosts, and how to show them.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  hb status                             every host, the worst first
  hb status web1 db1                    these two
  hb status --state down --state late   what needs attention
  hb status --tag role=db --watch       databases, refreshed every 2 s
  hb status --check --tag role=db       as a Nagios plugin
  hb status --json | jq -r '.hosts[] | select(.state == \"down\") | .name'

The summary of --json counts the hosts that are listed. With --watch, --json prints one document per line.
Exit codes of --check: 0 all well; 1 late, degraded or unknown; 2 down; 3 could not ask.")]
pub struct Args {
    /// Only these hosts: names, ids, or beginnings of ids
    #[arg(value_name = "HOST")]
    pub hosts: Vec<String>,
    /// Only hosts in this state (may be repeated)
    #[arg(long, value_name = "STATE", value_parser = value::state())]
    pub state: Vec<HostState>,
    /// Only hosts with this tag (may be repeated: all of them)
    #[arg(long, value_name = "K=V", value_parser = value::tag)]
    pub tag: Vec<(String, String)>,
    /// Refresh every 2 seconds until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
    /// One line and an exit code for Nagios and its kin
    #[arg(long, conflicts_with = "watch")]
    pub check: bool,
    /// Which server
    #[command(flatten)]
    pub choice: Choice,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Document<'a> {
    server: &'a str,
    observed_at: Timestamp,
    observing: bool,
    summary: BTreeMap<String, u64>,
    hosts: &'a [HostView],
    jobs: [(); 0],
}

/// What the server said about the hosts that were asked for.
#[derive(Debug)]
struct View {
    server: String,
    page: HostPage,
    /// True when not every host was asked for.
    narrowed: bool,
    /// True when hosts were asked for by tags alone.
    by_tag: bool,
}

impl View {
    /// Hosts that are listed, per state.
    fn summary(&self) -> BTreeMap<String, u64> {
        let mut summary: BTreeMap<String, u64> =
            value::STATES.iter().filter(|state| **state != "retired").map(|state| ((*state).to_owned(), 0)).collect();
        for host in &self.page.hosts {
            *summary.entry(text::word(&host.state)).or_default() += 1;
        }
        summary
    }

    fn document(&self) -> Document<'_> {
        Document {
            server: &self.server,
            observed_at: self.page.observed_at,
            observing: self.page.observing,
            summary: self.summary(),
            hosts: &self.page.hosts,
            jobs: [],
        }
    }
}

/// Shows the fleet.
pub fn run(ctx: &Ctx, args: &Args) -> Outcome {
    if args.check {
        return Ok(check::run(ctx, || look(&Api::connect(ctx, &args.choice)?, args)));
    }
    let api = Api::connect(ctx, &args.choice)?;
    let view = look(&api, args)?;
    if args.watch {
        return watch(ctx, &api, args, view);
    }
    if ctx.json {
        ctx.printer.json(&view.document());
    } else {
        ctx.printer.out(&table::render(ctx, &view));
    }
    if view.page.hosts.is_empty() && !view.narrowed && !ctx.json {
        ctx.printer.note("enrol the first one: `hb tokens create` here, then `hb register` there");
    }
    for warning in warnings::of(&view) {
        ctx.printer.warn(&warning);
    }
    Ok(exit::OK)
}

fn look(api: &Api<'_>, args: &Args) -> Result<View, Failure> {
    let filter = Filter { states: args.state.clone(), tags: args.tag.clone() };
    let page = if args.hosts.is_empty() {
        api.hosts(&filter)?
    } else {
        let mut page = api.fleet()?;
        page.hosts = args.hosts.iter().map(|host| api.host(host)).collect::<Result<_, _>>()?;
        // By name and by id it may be the same one.
        let mut seen = HashSet::new();
        page.hosts.retain(|host| seen.insert(host.id));
        let whole_state = Filter { tags: filter.tags.clone(), states: filter.states.clone() };
        // A host that is asked for by name is shown even when it is retired.
        page.hosts
            .retain(|host| filter.states.is_empty() && host.state == HostState::Retired || matches(&whole_state, host));
        page
    };
    let narrowed = !(args.hosts.is_empty() && args.state.is_empty() && args.tag.is_empty());
    let by_tag = !args.tag.is_empty() && args.state.is_empty();
    Ok(View { server: api.target().server.to_string(), page, narrowed, by_tag })
}

/// Shows the fleet again and again, until Ctrl-C or until nobody reads. An answer that does not come is reported in its
/// place, with the last one above.
fn watch(ctx: &Ctx, api: &Api<'_>, args: &Args, first: View) -> Outcome {
    end_on_interrupt(ctx.printer.is_terminal())?;
    let mut view = first;
    let mut trouble: Option<(Timestamp, Failure)> = None;
    loop {
        show(ctx, &view, trouble.as_ref(), api.now());
        if !ctx.printer.is_open() {
            return Ok(exit::OK);
        }
        std::thread::sleep(WATCH_EVERY);
        match look(api, args) {
            Ok(next) => (view, trouble) = (next, None),
            Err(failure) if failure.exit == exit::UNREACHABLE => {
                let since = trouble.map_or_else(|| api.now(), |(since, _)| since);
                trouble = Some((since, failure));
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// Makes Ctrl-C the regular end of `--watch`: at once, even while an answer is awaited, but never within a frame.
fn end_on_interrupt(on_terminal: bool) -> Result<(), Failure> {
    let no_signals = |error: std::io::Error| {
        Failure::failed(format!("Ctrl-C could not be listened for: {error}")).hint("leave out --watch")
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_signals)?;
    let interrupted = {
        let _entered = runtime.enter();
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()).map_err(no_signals)?
    };
    std::thread::spawn(move || {
        let mut interrupted = interrupted;
        runtime.block_on(interrupted.recv());
        let mut stdout = std::io::stdout().lock();
        // The shell's prompt belongs on a line of its own, below the last frame.
        let _ = stdout.write_all(if on_terminal { b"\n" } else { b"" }).and_then(|()| stdout.flush());
        #[expect(clippy::exit, reason = "the main thread may wait for an answer, and nothing is left to clean up")]
        std::process::exit(i32::from(exit::OK));
    });
    Ok(())
}

/// What fits on a screen of so many lines: the worst hosts come first, and the last line says how old all of it is.
fn cut(frame: &str, height: usize) -> String {
    let all: Vec<&str> = frame.lines().collect();
    let (Some(last), true) = (all.last(), all.len() > height) else { return frame.to_owned() };
    let kept = height.saturating_sub(2).max(1);
    let left_out = all.len().saturating_sub(kept + 1);
    let note = format!("… {left_out} more lines: `hb status` shows all");
    all.iter().take(kept).copied().chain([note.as_str(), last]).collect::<Vec<_>>().join("\n")
}

fn show(ctx: &Ctx, view: &View, trouble: Option<&(Timestamp, Failure)>, now: Timestamp) {
    if ctx.json {
        match trouble {
            None => ctx.printer.line(&text::json_line(&view.document())),
            Some((_, failure)) => ctx.printer.warn(&text::visible_lines(&failure.message)),
        }
        return;
    }
    let mut lines = vec![table::render(ctx, view)];
    if let Some((since, failure)) = trouble {
        let since = near_moment(&ctx.zone, now, *since);
        let message = text::visible_lines(&failure.message);
        lines.push(ctx.printer.paint(style::BAD, &format!("no answer since {since}: {message}")));
    }
    lines.extend(
        warnings::of(view).iter().map(|warning| ctx.printer.paint(style::CAUTION, &format!("warning: {warning}"))),
    );
    let seen = near_moment(&ctx.zone, now, view.page.observed_at);
    lines.push(ctx.printer.paint(style::FAINT, &format!("as of {seen}; Ctrl-C ends")));
    let mut frame = lines.join("\n");
    if let Some(height) = ctx.printer.height() {
        frame = cut(&frame, height);
    }
    if ctx.printer.is_terminal() {
        // Home, each line cleared to its end, the rest cleared: no flicker, nothing left of the last frame.
        ctx.printer.out(&format!("\x1b[H{}\x1b[K\x1b[J", frame.replace('\n', "\x1b[K\n")));
    } else {
        ctx.printer.line(&format!("{frame}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn a_frame_that_is_higher_than_the_screen_keeps_its_head_and_its_last_line() {
        let frame = "1\n2\n3\n4\n5\nas of now";
        assert_eq!(cut(frame, 6), frame);
        assert_eq!(cut(frame, 4), "1\n2\n… 3 more lines: `hb status` shows all\nas of now");
        assert_eq!(cut(frame, 1), "1\n… 4 more lines: `hb status` shows all\nas of now");
    }
}
