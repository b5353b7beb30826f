//! What `hb status` warns about: the ways in which nobody would hear an alarm.

use hb_wire::view::{HostState, HostView};

use super::View;
use crate::output::time::skew;

/// A clock that is off by more than this, in seconds, is worth a warning: beats do not need it, certificates and logs do.
const CLOCK_S_WARN: f64 = 60.0;
/// Hosts named in one warning.
const NAMED_MAX: usize = 5;

/// One line for each thing that may hurt.
pub(super) fn of(view: &View) -> Vec<String> {
    let channels = &view.page.channels;
    let mut warnings = Vec::new();
    if !view.page.observing {
        warnings
            .push("the server is not observing: states are as it last knew them, and no alarm is raised".to_owned());
    }
    if channels.configured == 0 {
        warnings.push("there is no channel: nobody would hear an alarm (`hb channels add --help`)".to_owned());
    } else if channels.proven == 0 {
        warnings.push("no channel was ever delivered to: try one (`hb channels test NAME`)".to_owned());
    }
    if channels.undelivered > 0 {
        let (messages, are) = if channels.undelivered == 1 { ("message", "is") } else { ("messages", "are") };
        warnings.push(format!("{} {messages} {are} undelivered (`hb deliveries`)", channels.undelivered));
    }
    let off: Vec<String> = view
        .page
        .hosts
        .iter()
        .filter(|host| matches!(host.state, HostState::Up | HostState::Late))
        .filter_map(|host| Some((host, host.clock_skew_s.filter(|skew_s| skew_s.abs() > CLOCK_S_WARN)?)))
        .map(|(host, skew_s)| format!("{}'s clock is {}", host.name, skew(skew_s)))
        .collect();
    if let Some((first, more)) = off.split_first() {
        let more = if more.is_empty() { String::new() } else { format!(", and {} more are off", more.len()) };
        warnings.push(format!("{first}{more}"));
    }
    let endless: Vec<&HostView> =
        view.page.hosts.iter().filter(|host| host.state == HostState::Paused && host.until.is_none()).collect();
    if !endless.is_empty() {
        let mut names: Vec<&str> = endless.iter().take(NAMED_MAX).map(|host| host.name.as_str()).collect();
        if endless.len() > NAMED_MAX {
            names.push("…");
        }
        warnings.push(format!("paused without an end: {} (`hb resume HOST`)", names.join(", ")));
    }
    warnings
}
