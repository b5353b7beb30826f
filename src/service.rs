//! The agent as a service of systemd: what `hb` does with it on behalf of root.

use std::process::Command;

use crate::place::Place;
use crate::systemd;

/// The unit.
pub const UNIT: &str = "hb.service";

/// What became of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Service {
    /// It runs, from now on or anew.
    Started,
    /// It does not run any more.
    Stopped,
    /// It did not run, and still does not.
    NotRunning,
    /// There is systemd, but not the unit.
    NotInstalled,
    /// There is no systemd.
    NoSystemd,
    /// The agent of this user is run by hand.
    ByHand,
    /// What systemctl said.
    Failed(String),
}

impl Service {
    /// In a word, as it stands in JSON.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Stopped => "stopped",
            Self::NotRunning => "not_running",
            Self::NotInstalled => "not_installed",
            Self::NoSystemd => "no_systemd",
            Self::ByHand => "by_hand",
            Self::Failed(_) => "failed",
        }
    }
}

/// Enables and (re)starts the service, where there is one and this is the system's enrolment.
pub fn start(place: &Place) -> Service {
    if let Some(without) = without(place) {
        return without;
    }
    ["enable", "restart"].iter().find_map(|verb| systemctl(verb)).map_or(Service::Started, Service::Failed)
}

/// Restarts the service if it runs.
pub fn restart(place: &Place) -> Service {
    if let Some(without) = without(place) {
        return without;
    }
    if !is_active() {
        return Service::NotRunning;
    }
    systemctl("restart").map_or(Service::Started, Service::Failed)
}

/// Stops the service if it runs; it stays enabled.
pub fn stop(place: &Place) -> Service {
    if let Some(without) = without(place) {
        return without;
    }
    if !is_active() {
        return Service::NotRunning;
    }
    systemctl("stop").map_or(Service::Stopped, Service::Failed)
}

fn without(place: &Place) -> Option<Service> {
    if !place.system || !rustix::process::geteuid().is_root() {
        return Some(Service::ByHand);
    }
    if !systemd::is_running() {
        return Some(Service::NoSystemd);
    }
    (!systemd::has_unit(UNIT)).then_some(Service::NotInstalled)
}

fn is_active() -> bool {
    Command::new("systemctl").args(["--quiet", "is-active", UNIT]).status().is_ok_and(|status| status.success())
}

/// None when it did what it was told; else what it said.
fn systemctl(verb: &str) -> Option<String> {
    match Command::new("systemctl").args(["--quiet", verb, UNIT]).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Some(said.lines().next().unwrap_or("systemctl failed").to_owned())
        }
        Err(error) => Some(format!("systemctl: {error}")),
    }
}
