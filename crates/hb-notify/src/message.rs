//! What people read: one line, a subject and a mail's text. Pure functions over a [`Notice`].
//!
//! Written for somebody who is woken at three in the morning: who, what, since when, and why hb believes it. Times are
//! UTC and say so; "silent" is what hb knows, "down" is what it concludes.

use std::fmt::Write as _;

use hb_wire::duration::format_seconds;
use hb_wire::view::{HostRef, Notice};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use crate::text::one_line;

/// Longest line, in characters.
pub const LINE_CHARS_MAX: usize = 500;
/// Longest subject of a mail, in characters.
pub const SUBJECT_CHARS_MAX: usize = 120;
/// Most hosts that a line names; the others are counted.
const NAMED_IN_LINE: usize = 5;
/// Most hosts that a mail lists; the others are counted.
const LISTED_IN_TEXT: usize = 200;
/// Longest name shown, in characters: a host name is at most 253 bytes (RFC 1035).
const NAME_CHARS_MAX: usize = 253;
/// Longest free text shown within a line, in characters.
const REASON_CHARS_MAX: usize = 160;

/// The notice in one line: [`Notice::message`].
#[must_use]
pub fn line(notice: &Notice) -> String {
    let facts = Facts::of(notice);
    let line = if facts.is_mass { line_of_many(notice, &facts) } else { line_of_one(notice, &facts) };
    one_line(&line, LINE_CHARS_MAX)
}

/// The subject of a mail: the state and the name first, for a phone shows forty characters.
#[must_use]
pub fn subject(notice: &Notice) -> String {
    let facts = Facts::of(notice);
    let what = match notice.event.as_str() {
        "blind" => "BLIND: hb could not observe".to_owned(),
        "observing" => "hb observes again".to_owned(),
        "replication_cut" => format!("REPLICATION CUT: {} is not seen", facts.peer()),
        "replication_restored" => format!("replication restored: {} is seen again", facts.peer()),
        "undelivered" => format!("UNDELIVERED: {}", facts.lost()),
        "test" => "TEST: this channel works".to_owned(),
        event => {
            let lasted = notice.since.filter(|_| event == "up").map(|since| format!(" ({})", span(since, notice.at)));
            // `returned_late` as `RETURNED LATE`.
            let word = one_line(event, 40).to_uppercase().replace('_', " ");
            format!("{word} {}{}", whom(notice, &facts), lasted.unwrap_or_default())
        }
    };
    one_line(&format!("[hb] {what}"), SUBJECT_CHARS_MAX)
}

/// A mail's text: the line, the facts in a table, the hosts, and where to learn more.
#[must_use]
pub fn text(notice: &Notice) -> String {
    let message =
        if notice.message.trim().is_empty() { line(notice) } else { one_line(&notice.message, LINE_CHARS_MAX) };
    let mut text = format!("{message}\n\n");
    let mut row = |label: &str, value: &str| {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{label:<9} {value}");
    };
    if let Some(host) = &notice.host {
        row("Host", &with_tags(host));
    }
    row("Event", &one_line(&notice.event, 40));
    if let Some(since) = notice.since.filter(|since| *since < notice.at) {
        row("Since", &format!("{} ({} before this was decided)", full(since), span(since, notice.at)));
    }
    if let Some(deadline) = notice.deadline {
        row("Deadline", &full(deadline));
    }
    row("Decided", &full(notice.at));
    if let Some(cause) = &notice.cause {
        row("Cause", &cause_words(cause));
    }
    if let Some(incident) = notice.incident {
        row("Incident", &incident.to_string());
    }
    row("Id", &notice.id.to_string());
    if !notice.hosts.is_empty() {
        let which = if notice.event == "up" { "Still silent" } else { "Hosts" };
        let _ = writeln!(text, "\n{which} ({}):", notice.hosts.len());
        for host in notice.hosts.iter().take(LISTED_IN_TEXT) {
            let _ = writeln!(text, "  {}", with_tags(host));
        }
        if let Some(more) = notice.hosts.len().checked_sub(LISTED_IN_TEXT).filter(|more| *more > 0) {
            let _ = writeln!(text, "  and {more} more: hb status");
        }
    }
    let first = notice.host.as_ref().or(notice.hosts.first());
    let more = first.map_or_else(|| "hb status".to_owned(), |host| format!("hb why {}", name(host)));
    let _ = write!(text, "\nTo learn more:  {more}\n");
    text
}

/// What stands in a notice's details, as far as a line tells of it. What is missing, or not of its type, is not told.
#[derive(Debug, Default)]
struct Facts {
    /// The notice is about many hosts at once.
    is_mass: bool,
    /// An operator's or a host's own words, or a word for them.
    reason: Option<String>,
    /// What keeps a host from its work.
    faults: Option<String>,
    /// Mass silence: how many fell silent so far.
    silent: Option<u64>,
    /// Mass silence: out of how many.
    expected: Option<u64>,
    /// Mass silence: the label that they share.
    shared: Option<String>,
    /// Mass silence: how many are back, and how many are not.
    back: Option<(u64, u64)>,
    /// The blindness lasts: its end is known to be unknown.
    is_blind: bool,
    /// The end of a blindness.
    blind_until: Option<Timestamp>,
    /// The host's own summary of what did not get through: since how many seconds, and the last failure in a word.
    gap: Option<(i64, Option<String>)>,
    /// Of a message that was lost: which kind, to which channel, and why.
    lost: Option<(String, String, String)>,
    /// Another region.
    peer: Option<String>,
}

impl Facts {
    fn of(notice: &Notice) -> Self {
        let text = |key: &str| {
            let text = notice.details.get(key).and_then(Value::as_str).filter(|text| !text.trim().is_empty());
            text.map(|text| one_line(text, REASON_CHARS_MAX))
        };
        let count = |key: &str| notice.details.get(key).and_then(Value::as_u64);
        let faults = notice.details.get("faults").and_then(Value::as_array).filter(|faults| !faults.is_empty());
        let faults = faults.map(|faults| faults.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "));
        // The hosts of an `up` are those that are still silent: what they share says nothing of those that are back.
        let shared = text("shared").or_else(|| shared_tags(&notice.hosts).filter(|_| notice.event != "up"));
        let until = notice.details.get("until_ms");
        let counts = count("silent").or(count("back"));
        Self {
            is_mass: matches!(notice.event.as_str(), "down" | "up")
                && notice.host.is_none()
                && (counts.is_some() || !notice.hosts.is_empty()),
            reason: text("reason").or_else(|| text("note")),
            faults: faults.map(|faults| one_line(&faults, REASON_CHARS_MAX)),
            silent: count("silent"),
            expected: count("expected"),
            shared,
            back: count("back").map(|back| (back, count("away").unwrap_or(0))),
            is_blind: until.is_some_and(Value::is_null),
            blind_until: until.and_then(Value::as_i64).and_then(|until| Timestamp::from_millisecond(until).ok()),
            gap: notice.details.get("gap").filter(|gap| gap["failed"].as_u64() > Some(0)).and_then(|gap| {
                let error = gap["error"].as_str().filter(|error| !error.trim().is_empty());
                Some((gap["since_s"].as_i64()?, error.map(|error| one_line(error, REASON_CHARS_MAX))))
            }),
            lost: text("channel")
                .map(|channel| (text("event").unwrap_or_default(), channel, text("error").unwrap_or_default())),
            peer: text("peer"),
        }
    }

    /// Which other region.
    fn peer(&self) -> &str {
        self.peer.as_deref().unwrap_or("the other region")
    }

    /// Which message was lost on the way to which channel.
    fn lost(&self) -> String {
        self.lost.as_ref().map_or_else(
            || "a message did not arrive".to_owned(),
            |(event, channel, _)| format!("the message {event:?} did not arrive at {channel}"),
        )
    }
}

fn line_of_one(notice: &Notice, facts: &Facts) -> String {
    let who = notice.host.as_ref().map_or_else(|| "hb".to_owned(), name);
    let at = notice.at;
    let until = notice.deadline.map(|until| clock(until, at));
    let suffix =
        |lead: &str, text: &Option<String>| text.as_ref().map(|text| format!("{lead}{text}")).unwrap_or_default();
    let reason = suffix(": ", &facts.reason);
    let silence = notice.since.map(|since| span(since, at));
    let after = suffix(", silent for ", &silence);
    let because = suffix(", cause: ", &notice.cause.as_deref().map(|cause| unreachable(cause, facts, at)));
    match notice.event.as_str() {
        "down" => line_of_down(notice, &who),
        "up" => match silence.filter(|_| notice.cause.is_some() || notice.incident.is_some()) {
            Some(silence) => {
                // Without an incident it had said goodbye: nobody was told that it was down.
                let state = if notice.incident.is_some() { "down" } else { "away" };
                format!("{who} is back: {state} for {silence}{because}")
            }
            None => format!("{who} is up"),
        },
        "registered" => format!("{who} is enrolled{}", suffix(", its first beat is expected by ", &until)),
        "stopped" => {
            let why = facts.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
            format!("{who} said goodbye{why}{}", suffix(", expected back by ", &until))
        }
        "returned_late" => format!("{who} was late and is back{after}, not declared down{because}"),
        "rebooted" => format!("{who} booted anew{after}{because}"),
        "restarted" => format!("{who}: its agent was restarted in the same boot{after}{because}"),
        "cloned" => {
            format!("{who} is CLONED: two machines use its key, the one that came second is not believed{reason}")
        }
        "degraded" => format!("{who} is DEGRADED: alive, but not fit for work{}", suffix(": ", &facts.faults)),
        "restored" => format!("{who} is fit for work again"),
        "paused" => format!("{who} is paused{}{reason}", suffix(" until ", &until)),
        "resumed" => format!("{who} is watched again: its pause ended{}", suffix(", expected back by ", &until)),
        "maintenance" if until.is_none() => format!("{who} ended its maintenance{reason}"),
        "maintenance" => format!("{who} is in maintenance{}{reason}", suffix(" until ", &until)),
        "retired" => format!("{who} was taken out of service{reason}"),
        "key_rotated" => format!("{who} has a new key{reason}"),
        "flapping" => {
            format!("{who} is FLAPPING: it keeps going down and up, single changes are not told until it is steady")
        }
        "steady" => format!("{who} is steady again: changes are told one by one"),
        "blind" | "observing" => line_of_blindness(notice, facts),
        "replication_cut" => format!(
            "replication is CUT: what hb does in {} does not arrive here{}, though it works; each region tells what it sees, \
             late or twice at the worst",
            facts.peer(),
            suffix(" since ", &notice.since.map(|since| clock(since, notice.at)))
        ),
        "replication_restored" => format!("replication works again: what hb does in {} arrives here", facts.peer()),
        "undelivered" => {
            let about = notice.host.as_ref().map(|host| format!(" (about {})", name(host))).unwrap_or_default();
            let error = facts.lost.as_ref().filter(|lost| !lost.2.is_empty()).map(|lost| format!(": {}", lost.2));
            format!("{}{about}, and is given up{}", facts.lost(), error.unwrap_or_default())
        }
        "test" => {
            let channel = notice.details.get("channel").and_then(Value::as_str);
            let of = channel.map(|channel| format!(" of the channel {}", one_line(channel, REASON_CHARS_MAX)));
            format!("this is a test{}: alerts of hb arrive here", of.unwrap_or_default())
        }
        other => format!("{who}: {}{after}{because}{reason}", one_line(other, 40)),
    }
}

fn line_of_blindness(notice: &Notice, facts: &Facts) -> String {
    let at = notice.at;
    let lead = if notice.event == "observing" { "hb observes again: it" } else { "hb" };
    let Some(since) = notice.since else {
        return format!("{lead} was blind: nothing was decided in that time");
    };
    let from = clock(since, at);
    if notice.event == "blind" && facts.is_blind {
        return format!(
            "hb is blind: it cannot observe since {from} ({}), nothing is decided meanwhile",
            span(since, at)
        );
    }
    let until = facts.blind_until.unwrap_or(at);
    let (to, lasted) = (clock(until, at), span(since, until));
    format!("{lead} was blind from {from} to {to} ({lasted}): nothing was decided in that time")
}

fn line_of_down(notice: &Notice, who: &str) -> String {
    let at = notice.at;
    let passed = notice.deadline.map(|deadline| clock(deadline, at));
    match (notice.cause.as_deref(), notice.since) {
        (Some("never_seen"), _) => {
            let passed = passed.map(|passed| format!(", its first beat was due by {passed}"));
            format!("{who} is DOWN: never heard since it was enrolled{}", passed.unwrap_or_default())
        }
        (Some("not_back"), _) => {
            let passed = passed.map(|passed| format!(" by {passed}")).unwrap_or_default();
            format!("{who} is DOWN: it said goodbye and was not back{passed}")
        }
        (_, Some(since)) => {
            let passed = passed.map(|passed| format!(", deadline {passed} passed")).unwrap_or_default();
            format!("{who} is DOWN: silent since {} ({}){passed}", clock(since, at), span(since, at))
        }
        (_, None) => {
            let passed = passed.map(|passed| format!(": deadline {passed} passed")).unwrap_or_default();
            format!("{who} is DOWN{passed}")
        }
    }
}

fn line_of_many(notice: &Notice, facts: &Facts) -> String {
    let named = named(&notice.hosts);
    let share = facts.shared.as_ref().map(|shared| format!(" (they share {shared})")).unwrap_or_default();
    let lasted = notice.since.map(|since| span(since, notice.at)).unwrap_or_default();
    if notice.event == "up" {
        return match facts.back {
            Some((back, 0)) => format!("all {back} hosts are back after {lasted}{share}"),
            Some((back, away)) => {
                let all = back.saturating_add(away);
                let list = if named.is_empty() { String::new() } else { format!(": {named}") };
                format!("{back} of {all} hosts are back after {lasted}{share}, {away} are still silent{list}")
            }
            None => format!("{} hosts are back after {lasted}{share}: {named}", notice.hosts.len()),
        };
    }
    let named_count = u64::try_from(notice.hosts.len()).unwrap_or(u64::MAX);
    let silent = facts.silent.unwrap_or(named_count);
    let all = facts.expected.filter(|all| *all >= silent).map(|all| format!(" of {all}")).unwrap_or_default();
    // The first message of an incident bears the time at which it was opened; later ones bring who joined.
    let is_update = notice.since.is_some_and(|since| since < notice.at) && facts.silent.is_some();
    if is_update {
        format!("{named_count} more hosts fell silent, {silent}{all} in all{share}: {named}")
    } else {
        format!("{silent}{all} hosts fell silent together{share}: {named}")
    }
}

/// Whom a subject names.
fn whom(notice: &Notice, facts: &Facts) -> String {
    let share = facts.shared.as_ref().map(|shared| format!(" ({shared})")).unwrap_or_default();
    match (&notice.host, facts.back) {
        (Some(host), _) => name(host),
        (None, Some((back, _))) => format!("{back} hosts{share}"),
        (None, None) if facts.is_mass => format!("{} hosts{share}", facts.silent.unwrap_or(notice.hosts.len() as u64)),
        (None, None) => "hb".to_owned(),
    }
}

fn name(host: &HostRef) -> String {
    one_line(&host.name, NAME_CHARS_MAX)
}

fn with_tags(host: &HostRef) -> String {
    let tags: Vec<_> = host.tags.iter().map(|(key, value)| tag(key, value)).collect();
    if tags.is_empty() { name(host) } else { format!("{}  ({})", name(host), tags.join(", ")) }
}

fn tag(key: &str, value: &str) -> String {
    one_line(&format!("{key}={value}"), REASON_CHARS_MAX)
}

/// The first names, and how many more there are.
fn named(hosts: &[HostRef]) -> String {
    let names: Vec<_> = hosts.iter().take(NAMED_IN_LINE).map(|host| one_line(&host.name, 40)).collect();
    match hosts.len().saturating_sub(NAMED_IN_LINE) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

/// The labels that all of several hosts carry: what they share is where to look. At most three.
fn shared_tags(hosts: &[HostRef]) -> Option<String> {
    let (first, others) = hosts.split_first().filter(|(_, others)| !others.is_empty())?;
    let is_shared = |key: &str, value: &String| others.iter().all(|host| host.tags.get(key) == Some(value));
    let shared = first.tags.iter().filter(|(key, value)| is_shared(key, value)).take(3);
    let shared: Vec<_> = shared.map(|(key, value)| tag(key, value)).collect();
    (!shared.is_empty()).then(|| shared.join(", "))
}

/// A cause in words. One that is not known is shown as it is.
fn cause_words(cause: &str) -> String {
    let words = match cause {
        "rebooted" => "rebooted (clean stop)",
        "crashed" => "crashed (no clean stop: crash or power loss)",
        "booted" => "booted (how it stopped is not known)",
        "unreachable" => "unreachable (it ran, its beats did not get through)",
        "suspended" => "suspended (it slept)",
        "agent_stopped" => "agent stopped (the machine ran on)",
        "agent_upgraded" => "agent upgraded (the machine ran on)",
        "agent_killed" => "agent killed (the machine ran on)",
        "unobserved" => "unobserved (hb was not watching)",
        "unexplained" => "unexplained",
        "silent" => "silent past its deadline",
        "never_seen" => "never heard since it was enrolled",
        "not_back" => "not back by the time it gave",
        other => return one_line(other, REASON_CHARS_MAX),
    };
    words.to_owned()
}

/// The words for a cause, with what the host says of a time in which it was up and could not be heard.
fn unreachable(cause: &str, facts: &Facts, at: Timestamp) -> String {
    let from = |since_s| Timestamp::from_second(at.as_second().saturating_sub(since_s)).ok();
    let Some((from, error)) = facts.gap.as_ref().and_then(|(since_s, error)| Some((from(*since_s)?, error))) else {
        return cause_words(cause);
    };
    if cause != "unreachable" {
        return cause_words(cause);
    }
    let why = error.as_ref().map(|error| format!(", {error}")).unwrap_or_default();
    format!("unreachable (it was up, its beats did not get through from {} to {}{why})", clock(from, at), clock(at, at))
}

/// How long from `since` to `at`, in whole seconds; nothing for a time that lies ahead.
fn span(since: Timestamp, at: Timestamp) -> String {
    format_seconds(u64::try_from(at.as_second().saturating_sub(since.as_second())).unwrap_or(0))
}

/// `03:14:09 UTC`, with the date when that is another day than `reference`.
fn clock(time: Timestamp, reference: Timestamp) -> String {
    let (day, reference) = (TimeZone::UTC.to_datetime(time).date(), TimeZone::UTC.to_datetime(reference).date());
    if day == reference { time.strftime("%H:%M:%S UTC").to_string() } else { full(time) }
}

fn full(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// A piece of bad input, fit for an error.
pub(crate) fn quoted(text: &str) -> String {
    one_line(text, 40)
}

#[cfg(test)]
pub(crate) mod tests;
