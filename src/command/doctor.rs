//! `hb doctor`: looks at everything that a beat needs, and says what to do.

use std::time::Duration;

use hb_wire::beat::Beat;
use hb_wire::id::RunId;
use hb_wire::nonce::Nonce;
use hb_wire::view::ServerStatus;
use http::{HeaderMap, Method};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use url::Url;

use crate::agent::clock;
use crate::agent::post::{Answer, Attempt, Post};
use crate::config::Config;
use crate::context::Ctx;
use crate::error::{Failure, Outcome};
use crate::http::tls::Floor;
use crate::http::trouble::{Kind, Trouble};
use crate::http::{self as https, Options, Reply, Request, is_loopback};
use crate::identity::{Enrolled, Identity, LOST_KEY_HINT, load_key};
use crate::journal::{Keeper, replace};
use crate::output::time::skew;
use crate::output::{style, text};
use crate::place::Place;
use crate::{exit, host, systemd};

/// Time for one question to the server.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// A clock that is off by more than this, in seconds, is worth a warning.
const SKEW_S_WARN: i64 = 5;
/// A host that has not been heard for this many intervals is not well.
const INTERVALS_MISSED_WARN: u64 = 3;

/// The doctor has no arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exits with 0 when nothing fails (warnings allowed), with 1 otherwise. Changes nothing; what it asks the
server cannot be taken for a beat.

Examples:
  hb doctor
  sudo hb doctor                    to see the key of the system's agent, too
  hb doctor --json | jq '.checks[] | select(.result != \"ok\")'")]
pub struct Args {}

/// How one check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One check.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    result: Verdict,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// Everything found so far.
#[derive(Debug, Default)]
struct Findings(Vec<Check>);

impl Findings {
    fn ok(&mut self, name: &'static str, message: impl Into<String>) {
        self.0.push(Check { name, result: Verdict::Ok, message: message.into(), hint: None });
    }

    fn warn(&mut self, name: &'static str, message: impl Into<String>, hint: impl Into<String>) {
        self.0.push(Check { name, result: Verdict::Warn, message: message.into(), hint: Some(hint.into()) });
    }

    fn fail(&mut self, name: &'static str, message: impl Into<String>, hint: impl Into<String>) {
        self.0.push(Check { name, result: Verdict::Fail, message: message.into(), hint: Some(hint.into()) });
    }

    fn failure(&mut self, name: &'static str, failure: Failure) {
        self.0.push(Check { name, result: Verdict::Fail, message: failure.message, hint: failure.hint });
    }

    fn failed(&self) -> bool {
        self.0.iter().any(|check| check.result == Verdict::Fail)
    }
}

/// Runs every check.
pub fn run(ctx: &Ctx, _args: &Args) -> Outcome {
    let mut found = Findings::default();
    examine(ctx, &mut found)?;
    if ctx.json {
        ctx.printer.json(&json!({ "ok": !found.failed(), "checks": found.0 }));
    } else {
        for check in &found.0 {
            let (word, color) = match check.result {
                Verdict::Ok => ("ok  ", style::GOOD),
                Verdict::Warn => ("warn", style::CAUTION),
                Verdict::Fail => ("FAIL", style::BAD),
            };
            let message = text::visible_lines(&check.message);
            ctx.printer.line(&format!("{}  {:<10} {message}", ctx.printer.paint(color, word), check.name));
            if let Some(hint) = &check.hint {
                ctx.printer.line(&format!("{:<16} -> {}", "", text::visible_lines(hint)));
            }
        }
    }
    Ok(if found.failed() { exit::FAILED } else { exit::OK })
}

fn examine(ctx: &Ctx, found: &mut Findings) -> Result<(), Failure> {
    let place = Place::find(&ctx.env)?;
    let config = match Config::load(&place, &ctx.env) {
        Ok(config) => {
            let what = if place.config.exists() { "" } else { " (not there: defaults)" };
            found.ok("config", format!("{}{what}", place.config.display()));
            config
        }
        Err(failure) => {
            found.failure("config", failure);
            Config::default()
        }
    };
    let enrolled = match Enrolled::load(&place) {
        Ok(Some(enrolled)) => enrolled,
        Ok(None) => {
            let what = format!("this host is not enrolled: there is no {}", place.enrolment().display());
            found.fail("enrolment", what, "hb register --server URL");
            return Ok(());
        }
        Err(failure) => {
            found.failure("enrolment", failure);
            return Ok(());
        }
    };
    found.ok("enrolment", format!("{} ({}) at {}", enrolled.name, enrolled.id, enrolled.server));
    key(&place, &enrolled, found);
    state(&place, found);
    journal(&place, &enrolled, found);
    agent(&place, found);
    let options = host::options(&config, &enrolled);
    host::runtime()?.block_on(server(&place, &enrolled, options, found))
}

fn key(place: &Place, enrolled: &Enrolled, found: &mut Findings) {
    let path = place.key();
    match load_key(&path, place.credential.is_none()) {
        Ok(Some(key)) if key.public().to_string() == enrolled.public_key && enrolled.next_key.is_none() => {
            found.ok("key", format!("{} in {}", key.public().fingerprint(), path.display()));
        }
        Ok(Some(key)) if enrolled.has_key(&key.public()) => {
            found.warn("key", "a new key is on its way, and not yet in its place", "finish it with hb identity rotate");
        }
        Ok(Some(_)) => {
            let what = format!("{} is not the key that was enrolled", path.display());
            found.fail("key", what, LOST_KEY_HINT);
        }
        Ok(None) => {
            let what = format!("{} is gone", path.display());
            found.fail("key", what, LOST_KEY_HINT);
        }
        Err(failure) => found.failure("key", failure),
    }
}

fn state(place: &Place, found: &mut Findings) {
    let dir = place.state.path();
    let probe = replace(dir, "doctor", b"hb doctor\n", 0o600).and_then(|()| std::fs::remove_file(dir.join("doctor")));
    match probe {
        Ok(()) => found.ok("state", format!("{} can be written and synced", dir.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            found.warn("state", format!("{} is not there yet", dir.display()), "the agent makes it");
        }
        Err(error) => {
            let hint = if error.kind() == std::io::ErrorKind::PermissionDenied {
                "run hb doctor as root, or as the agent's user"
            } else if matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) {
                "free some space"
            } else {
                "check the file system: the beats say that this host is degraded"
            };
            found.fail("state", format!("{} cannot be written: {error}", dir.display()), hint);
        }
    }
}

fn journal(place: &Place, enrolled: &Enrolled, found: &mut Findings) {
    let journal = match place.state.read() {
        Ok(Some(journal)) => journal,
        Ok(None) => return found.ok("journal", "none yet: no beat was sent"),
        Err(error) => {
            let hint = "harmless: it costs an explanation of the last outage; the agent starts a new one";
            return found.warn("journal", error.to_string(), hint);
        }
    };
    let keeper = if journal.keeper == Keeper::Daemon { "hb agent" } else { "hb beat" };
    let now = clock::now();
    if let Some(misses) = journal.misses {
        let attempts = if misses.failed == 1 { "attempt" } else { "attempts" };
        let what = format!("{} {attempts} failed since the last accepted beat ({})", misses.failed, misses.error);
        return found.warn("journal", what, "see the checks of the server below");
    }
    if Some(journal.boot) != clock::boot_id() {
        return found.ok("journal", format!("beat {} by {keeper}, before this host booted", journal.seq));
    }
    match journal.heard {
        Some(heard) => {
            let ago_s = now.boottime_ms.saturating_sub(heard.boottime_ms) / 1000;
            // The agent writes an answer down with its next beat, `hb beat` at once.
            let which = if journal.keeper == Keeper::Daemon { "; the one before it was" } else { "," };
            let what = format!("beat {} by {keeper}{which} accepted {ago_s} s ago", journal.seq);
            if ago_s > enrolled.interval_s.saturating_mul(INTERVALS_MISSED_WARN) {
                found.warn("journal", what, "is the agent running? systemctl status hb");
            } else {
                found.ok("journal", what);
            }
        }
        None => found.ok("journal", format!("beat {} by {keeper}, and no answer to it yet", journal.seq)),
    }
}

fn agent(place: &Place, found: &mut Findings) {
    if !place.state.path().exists() {
        return found.warn("agent", "no agent runs", start_hint());
    }
    let looked = std::fs::read_dir(place.state.path());
    if looked.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied) {
        return found.warn("agent", "this account may not see whether it runs", "run hb doctor as root");
    }
    match place.state.lock() {
        None => found.ok("agent", "it runs"),
        Some(_) => found.warn("agent", "no agent runs (fine where cron runs `hb beat`)", start_hint()),
    }
}

fn start_hint() -> &'static str {
    if systemd::is_running() {
        "systemctl status hb says why; systemctl enable --now hb starts it"
    } else {
        "run hb agent, or hb beat from cron"
    }
}

async fn server(place: &Place, enrolled: &Enrolled, options: Options, found: &mut Findings) -> Result<(), Failure> {
    let identity = Identity::load(place);
    let http = match https::Http::new(options.clone()) {
        Ok(http) => http,
        Err(failure) => {
            found.failure("tls", failure);
            return Ok(());
        }
    };
    let proxy = match http.proxy_for(&enrolled.server) {
        Some(proxy) if http.is_proxy_remembered(&enrolled.server) => format!("{proxy} (as at the enrolment)"),
        Some(proxy) => format!("{proxy} (HTTPS_PROXY, HB_PROXY or proxy in agent.toml)"),
        None => "none".to_owned(),
    };
    let floor = floor(place, enrolled);
    let url = https::join(&enrolled.server, "/v1/status");
    let request = Request {
        method: Method::GET,
        url: &url,
        headers: HeaderMap::new(),
        body: None,
        timeout: TIMEOUT,
        reply_bytes_max: ANSWER_BYTES_MAX,
    };
    let asked = clock::wall();
    let answer = http.send(&request, Some(floor)).await;
    // What fails is reported below, once.
    if answer.as_ref().err().is_none_or(|trouble| trouble.kind != Kind::Proxy) {
        found.ok("proxy", proxy);
    }
    match answer {
        Ok(reply) => answered(&reply, asked, &url, enrolled, found),
        Err(trouble) => {
            unanswered(&trouble, found);
            return Ok(());
        }
    }
    match identity {
        Ok(identity) => {
            // As the run that last beat here: a clone finds out that it is one.
            let journal = place.state.read().ok().flatten();
            let run = journal.filter(|journal| Some(journal.boot) == clock::boot_id()).map(|journal| journal.run);
            accepted(identity, run, options, floor, found).await;
        }
        Err(_) => found.warn("accepted", "cannot be asked without the key", "see the check of the key above"),
    }
    Ok(())
}

fn floor(place: &Place, enrolled: &Enrolled) -> Floor {
    let known = place.state.read().ok().flatten().and_then(|journal| journal.server);
    let unix_s = known.map_or(0, |server| server.unix_s).max(enrolled.enrolled_at_unix_s);
    Floor::new(Some(unix_s), 0)
}

fn unanswered(trouble: &Trouble, found: &mut Findings) {
    let name = match trouble.kind {
        Kind::Dns => "dns",
        Kind::Proxy => "proxy",
        Kind::Tls | Kind::TlsTime => "tls",
        Kind::Connect | Kind::Timeout | Kind::Http(_) | Kind::NotOurs | Kind::Refused => "server",
    };
    found.fail(name, trouble.detail.clone(), trouble.hint());
    if trouble.kind == Kind::TlsTime {
        let now = clock::wall();
        found.fail("clock", format!("it says {now}"), "set it (timedatectl), or let NTP do it");
    }
}

fn answered(reply: &Reply, asked: Timestamp, url: &Url, enrolled: &Enrolled, found: &mut Findings) {
    match (url.scheme(), &enrolled.pin) {
        ("https", Some(pin)) => found.ok("tls", format!("the certificate is the pinned one, {pin}")),
        ("https", None) if reply.by_floor => found.warn(
            "tls",
            "the certificate is good by the server's time, and out of date by this machine's clock",
            "set the clock; until then only nonces are taken from the server",
        ),
        ("https", None) => found.ok("tls", "the certificate is trusted"),
        _ if is_loopback(url) => found.ok("tls", "none: the server is on this machine"),
        _ => found.warn("tls", "none: beats are signed, but anybody on the way can read and drop them", "use https"),
    }
    let Ok(status) = serde_json::from_slice::<ServerStatus>(&reply.body) else {
        let what = format!("{url} answered {}, but not as an hb server does", reply.status);
        return found.fail("server", what, "check the server's address: something else answers there");
    };
    let now = clock::wall();
    let between = asked.as_second().midpoint(now.as_second());
    let skew_s = between.saturating_sub(status.now.as_second());
    if skew_s.abs() > SKEW_S_WARN {
        #[expect(clippy::cast_precision_loss, reason = "it is said in days")]
        let what = format!("this machine's clock is {}", skew(skew_s as f64));
        found.warn("clock", what, "beats do not need it, but certificates and logs do: timedatectl set-ntp true");
    } else {
        found.ok("clock", format!("within {} s of the server's", skew_s.abs().max(1)));
    }
    if reply.status == 200 && status.observing {
        found.ok("server", format!("hb {} answers, and is observing", text::visible(&status.version)));
    } else {
        let what = format!("hb {} answers {} ({})", status.version, reply.status, status.status);
        found.warn("server", what, "it is starting, or cannot store or notify: see its log");
    }
}

/// Asks with a signed message that spends no nonce: the answer to a host that is known is a fresh one (409), and
/// nothing is stored.
async fn accepted(identity: Identity, run: Option<RunId>, options: Options, floor: Floor, found: &mut Findings) {
    let post = match Post::new(identity, options) {
        Ok(post) => post,
        Err(failure) => return found.failure("accepted", failure),
    };
    let (Some(boot), now) = (clock::boot_id(), clock::now()) else {
        return found.warn("accepted", "this system shows no boot id", "mount /proc");
    };
    let beat = Beat { up: now.boottime_ms / 1000, ..Beat::bare(boot, run) };
    for (endpoint, url) in post.urls().iter().enumerate() {
        let wall = clock::wall();
        let attempt = Attempt { endpoint, beat: &beat, nonce: Nonce::NONE, timeout: TIMEOUT, floor, wall };
        match post.send(&attempt).await {
            Answer::Stale { .. } => found.ok("accepted", format!("{url} knows this host and its key")),
            Answer::Stored { .. } => {
                let what = format!("{url} stored a message that it should have refused");
                found.fail("accepted", what, "that is no hb server, or a broken one: check the address");
            }
            Answer::Refused { why, hint, .. } => {
                found.fail("accepted", format!("{url} refuses this host: {why}"), hint);
            }
            Answer::Busy { why, .. } => {
                found.warn("accepted", format!("{url} is busy: {why}"), "ask again in a while");
            }
            Answer::Failed(trouble) => found.fail("accepted", trouble.detail.clone(), trouble.hint()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_no_failure() {
        let mut found = Findings::default();
        found.ok("a", "x");
        found.warn("b", "x", "y");
        assert!(!found.failed());
        found.fail("c", "x", "y");
        assert!(found.failed());
    }
}
