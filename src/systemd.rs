//! What the service manager is told, and what it is asked. Everything here does nothing without systemd.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use hb_wire::beat::StopReason;
use sd_notify::NotifyState;

/// How long `systemctl` may take to say what is going on, while the host stops.
const ASK_TIMEOUT: Duration = Duration::from_millis(400);
/// Pause between two looks at whether it has.
const ASK_PAUSE: Duration = Duration::from_millis(5);
/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Tells that the agent is up, and a line about it.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Tells a line about the agent.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// Feeds the watchdog.
pub fn watchdog() {
    tell(&[NotifyState::Watchdog]);
}

/// Tells that the agent stops.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// How often the watchdog must be fed: half of what the unit allows.
pub fn watchdog_period() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|period| period / 2)
}

/// True where systemd is the init system.
pub fn is_running() -> bool {
    sd_notify::booted().unwrap_or(false)
}

/// True when a unit file of that name is installed.
pub fn has_unit(name: &str) -> bool {
    ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"]
        .iter()
        .any(|dir| Path::new(dir).join(name).exists())
}

/// Why the agent is asked to stop: the list of systemd's jobs says whether the host goes down, and how. The unit's
/// `ExecStop=` has written it to `jobs` before the agent is told to stop; that works on hosts without D-Bus, and takes
/// however long it takes. An agent that was started by hand asks by itself.
pub async fn stop_reason(jobs: Option<&Path>) -> StopReason {
    let reason = asked_systemd(jobs).await;
    if reason == StopReason::Service && is_replaced(std::fs::read_link("/proc/self/exe").ok().as_deref()) {
        return StopReason::Upgrade;
    }
    reason
}

async fn asked_systemd(jobs: Option<&Path>) -> StopReason {
    if let Some(text) = jobs.and_then(|path| std::fs::read_to_string(path).ok()) {
        return reason_in(&text);
    }
    let mut command = Command::new("systemctl");
    command.args(["list-jobs", "--plain", "--no-legend", "--no-pager"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let Ok(child) = command.spawn() else { return StopReason::Service };
    match answer(child).await {
        Some(jobs) => reason_in(&jobs),
        None => StopReason::Service,
    }
}

/// True when another file has taken the place of the program that runs, as a package does that is upgraded: proc(5) says
/// that it is deleted, and its name is in use again. Where the package was removed, it is not.
fn is_replaced(program: Option<&Path>) -> bool {
    let name = program.and_then(Path::to_str).and_then(|program| program.strip_suffix(" (deleted)"));
    name.is_some_and(|name| Path::new(name).exists())
}

/// What the child printed, if it came to an end in time.
async fn answer(mut child: Child) -> Option<String> {
    use std::io::Read as _;
    let mut waited = Duration::ZERO;
    while waited < ASK_TIMEOUT {
        if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            let mut text = String::new();
            child.stdout.take()?.take(ANSWER_BYTES_MAX).read_to_string(&mut text).ok()?;
            return Some(text);
        }
        tokio::time::sleep(ASK_PAUSE).await;
        waited += ASK_PAUSE;
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

/// Reads the list of jobs: `JOB UNIT TYPE STATE`.
fn reason_in(jobs: &str) -> StopReason {
    for line in jobs.lines() {
        let mut words = line.split_whitespace().skip(1);
        match (words.next(), words.next()) {
            (Some("reboot.target" | "kexec.target" | "soft-reboot.target"), Some("start")) => {
                return StopReason::Reboot;
            }
            (Some("poweroff.target" | "halt.target"), Some("start")) => return StopReason::Poweroff,
            _ => {}
        }
    }
    StopReason::Service
}

fn tell(what: &[NotifyState<'_>]) {
    // Asked once: the environment is searched from end to end for it.
    static IS_LISTENING: LazyLock<bool> = LazyLock::new(|| std::env::var_os("NOTIFY_SOCKET").is_some());
    if !*IS_LISTENING {
        return;
    }
    // Without a service manager, or with one that went away, there is nobody to tell.
    let _ = sd_notify::notify(what);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_jobs_says_why_the_host_stops() {
        let reboot = "  12 hb.service       stop  running\n  13 reboot.target    start waiting\n";
        let poweroff = "12 poweroff.target start waiting\n";
        let service = "12 hb.service stop running\n14 reboot.target stop waiting\n";
        assert_eq!(reason_in(reboot), StopReason::Reboot);
        assert_eq!(reason_in(poweroff), StopReason::Poweroff);
        assert_eq!(reason_in(service), StopReason::Service);
        assert_eq!(reason_in("No jobs running.\n"), StopReason::Service);
        assert_eq!(reason_in(""), StopReason::Service);
    }

    #[test]
    fn a_program_is_replaced_when_it_is_gone_and_another_has_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("hb");
        let deleted = dir.path().join("hb (deleted)");
        assert!(!is_replaced(Some(&program)) && !is_replaced(Some(&deleted)) && !is_replaced(None));
        std::fs::write(&program, "").unwrap();
        assert!(!is_replaced(Some(&program)) && is_replaced(Some(&deleted)));
    }

    #[test]
    fn the_list_that_the_unit_wrote_goes_before_asking() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let jobs = dir.path().join("jobs");
        std::fs::write(&jobs, "242 reboot.target start waiting\n").unwrap();
        assert_eq!(runtime.block_on(stop_reason(Some(&jobs))), StopReason::Reboot);
    }

    #[test]
    fn a_child_that_hangs_is_given_up_in_time() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let started = std::time::Instant::now();
        let child = Command::new("sleep").arg("30").stdout(Stdio::piped()).spawn().unwrap();
        assert_eq!(runtime.block_on(answer(child)), None);
        assert!(started.elapsed() < Duration::from_secs(3));
    }
}
