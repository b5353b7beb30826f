//! What `hb status` warns about: the ways in which nobody would hear an alarm.

use hb_wire::view::{HostState, HostView};

use super::View;

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
