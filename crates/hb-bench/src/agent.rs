//! The agent over TLS, beside the bare limit of its libraries and curl: memory, CPU per beat, size.

use core::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::beside;
use crate::measure::{Memory, cpu, memory, say, share};
use crate::relay::Relay;

/// Beats before the first look at the clock: connections, caches and lazy statics are made in these.
const WARM_UP: u64 = 10;
/// Between two beats of the quick pace: that of BASELINES.md.
const QUICK: Duration = Duration::from_millis(100);
/// Knocks that lead to no beat.
const KNOCKS: u64 = 200;
/// Beats that each need a connection of their own, and how far apart they are: the relay has hung up by then.
const NEW_CONNECTIONS: u64 = 60;
const APART: Duration = Duration::from_millis(500);
/// Runs of curl that are averaged.
const CURLS: u32 = 100;
/// The bars that do not depend on the speed of the machine, and by how much memory may wander.
const RSS_KIB_MAX: u64 = 4_096;
/// Of a build that is linked with the system's C library, whose pages it maps as well; what is shipped is static.
const DYNAMIC_RSS_KIB_MAX: u64 = 4_608;
const ANONYMOUS_KIB_MAX: u64 = 900;
const WANDER_KIB: u64 = 32;
/// How many times as much curl takes, at least.
const CURL_TIMES_MIN: f64 = 20.0;
/// The bar on the CPU time of a beat in milliseconds, and what the bare limit took on the machine of BASELINES.md, where it was set.
const BAR_MS: f64 = 0.5;
const BASELINE_BARE_MS: f64 = 0.342;

/// How the agent is measured.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Its binary; none: the release build.
    pub(crate) hb: Option<PathBuf>,
    /// Beats at ten a second.
    pub(crate) beats: u64,
    /// Then so many seconds at its own pace.
    pub(crate) seconds: u64,
    /// That pace: seconds between two beats.
    pub(crate) interval_s: u64,
    /// Beside the agents that a sysadmin might pick instead.
    pub(crate) beside: bool,
}

/// Runs it and prints the comparison.
pub(crate) async fn run(binaries: &Path, plan: Plan) -> Result<()> {
    let hb = plan.hb.clone().unwrap_or_else(|| binaries.join("release").join("hb"));
    let server = ["server", "release", "debug"].map(|profile| binaries.join(profile).join("hb-server"));
    let server = server.iter().find(|path| path.exists()).context("there is no hb-server; hint: `make build`")?;
    ensure!(hb.exists(), "there is no {}; hint: `make build`", hb.display());
    let (data, state, site) = (tempfile::tempdir()?, tempfile::tempdir()?, Site::make()?);

    let init = Command::new(server).args(["init", "--data"]).arg(data.path()).output().await?;
    let admin = String::from_utf8(init.stdout)?.trim().to_owned();
    let relay = Relay::bind().await?;
    let (relayed, hangs_up) = (relay.url()?, std::sync::Arc::clone(&relay.hangs_up));
    let (_serving, url) = serve(server, data.path(), &site, &relayed).await?;
    let relaying = tokio::spawn(relay.run(url.trim_start_matches("https://").to_owned()));
    let command = |word: &str| {
        let mut command = Command::new(&hb);
        command.arg(word).env("HB_STATE_DIR", state.path()).env_remove("HB_API_KEY");
        // Where the system's authorities are looked for: as in the field, with one more among them.
        command.env("SSL_CERT_FILE", site.bundle()).env_remove("SSL_CERT_DIR");
        command
    };
    let mut register = command("register");
    let interval = format!("{}s", plan.interval_s);
    register.args(["--server", &relayed, "--name", "bench", "--interval", &interval, "--grace", "10m"]);
    let register = register.env("HB_API_KEY", &admin).output().await?;
    ensure!(register.status.success(), "register failed: {}", String::from_utf8_lossy(&register.stderr));
    let mut agent = command("agent").stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn()?;
    let pid = agent.id().context("the agent has ended")?;
    tokio::time::sleep(Duration::from_secs(WARM_UP)).await;
    let mut others = if plan.beside { beside::start(state.path()).await? } else { Vec::new() };

    say(
        "agent over TLS 1.3, the connection kept, the system's authorities and one more trusted, each beat with fdatasync:",
    );
    let bare = start_bare(&url, &admin, &site, plan.beats, QUICK)?;
    let before = cpu(pid)?;
    let beaten = beat_quickly(&state.path().join("agent.sock"), plan.beats).await?;
    let quick_ms = share(cpu(pid)?.saturating_sub(before), beaten);
    say(&format!("  ten beats a second, {beaten} beats: CPU {quick_ms:.3} ms a beat"));
    say(&format!("    {}", against(quick_ms, bare).await?));
    let door = state.path().join("agent.sock");
    let knock_ms = knock_in_vain(pid, &door, quick_ms).await?;
    say(&format!("    of it {knock_ms:.3} ms for who knocks at its door: a beat takes {:.3} ms", quick_ms - knock_ms));
    let rss_max = if plan.hb.is_some() { RSS_KIB_MAX } else { DYNAMIC_RSS_KIB_MAX };
    let early = Size::of(pid)?;
    say(&format!("    {early}"));
    early.check(rss_max)?;
    let first = knock(&door).await?;
    let (before, stored) = (cpu(pid)?, stored_bytes(pid)?);
    let before_others: Vec<Duration> = others.iter().map(beside::Other::cpu).collect::<Result<_>>()?;
    let bare = start_bare(&url, &admin, &site, plan.seconds / plan.interval_s, Duration::from_secs(plan.interval_s))?;
    tokio::time::sleep(Duration::from_secs(plan.seconds)).await;
    let (used, stored) = (cpu(pid)?, stored_bytes(pid)? - stored);
    let beats = knock(&door).await?.saturating_sub(first + 1);
    let slow_ms = share(used.saturating_sub(before), beats);
    let every = format!("one beat each {} s, for {} s, {beats} beats", plan.interval_s, plan.seconds);
    say(&format!("  {every}: CPU {slow_ms:.3} ms a beat, {} bytes stored a beat", stored / beats.max(1)));
    say(&format!("    {}", against(slow_ms, bare).await?));
    let ours = Size::of(pid)?;
    say(&format!("    {ours}"));
    ours.check(rss_max)?;
    let (first, last) = (early.memory.anonymous_kib, ours.memory.anonymous_kib);
    ensure!(last <= first + WANDER_KIB, "the agent grows: its own {first} KiB have become {last} KiB");
    for (other, before) in others.iter_mut().zip(before_others) {
        let used = other.cpu()?.saturating_sub(before).as_secs_f64() * 1000.0;
        #[expect(clippy::cast_precision_loss, reason = "hours at most")]
        let minutes = plan.seconds as f64 / 60.0;
        let theirs = other.size()?;
        say(&format!("  {}: {theirs}; CPU {:.1} ms a minute", other.name, used / minutes));
        let is_smaller = ours.memory.rss_kib < theirs.memory.rss_kib;
        ensure!(is_smaller || other.is_plain, "hb is resident with more than {}", other.name);
        other.stop().await?;
    }
    hangs_up.store(true, Ordering::Relaxed);
    let new_ms = beat_anew(pid, &door).await?;
    say(&format!(
        "  on a new connection each, {NEW_CONNECTIONS} beats: CPU {new_ms:.3} ms a beat (bar: 1.0), {:.3} ms without the knock",
        new_ms - knock_ms
    ));
    ensure!(!relaying.is_finished(), "the relay before the server ended");
    agent.kill().await?;
    say(&format!("  binary {} bytes (bar: 4,194,304)", std::fs::metadata(&hb)?.len()));
    let curl_ms = curl(&url, &site).await?;
    say(&format!(
        "curl, one process a beat, against the same authorities: {curl_ms:.1} ms a beat, {:.0} times the agent's",
        curl_ms / slow_ms
    ));
    ensure!(curl_ms >= CURL_TIMES_MIN * slow_ms, "a beat takes more than a twentieth of what curl does");
    Ok(())
}

/// Starts the bare agent, which beats at the same time as hb's: what the machine does meanwhile, it does to both.
fn start_bare(url: &str, api_key: &str, site: &Site, beats: u64, every: Duration) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bare-agent", "--url", url]).args(["--beats", &beats.to_string()]);
    command.args(["--every-ms", &every.as_millis().to_string()]);
    command.env("HB_API_KEY", api_key).env("SSL_CERT_FILE", site.bundle()).env_remove("SSL_CERT_DIR");
    Ok(command.stdout(Stdio::piped()).kill_on_drop(true).spawn()?)
}

/// Waits for the bare agent, and says how `ms` of CPU a beat stands to its figure and to the bar.
async fn against(ms: f64, bare: Child) -> Result<String> {
    let output = bare.wait_with_output().await?;
    ensure!(output.status.success(), "the bare agent failed");
    let bare_ms: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
    Ok(format!(
        "the bare limit beside it: {bare_ms:.3} ms; hb {:.2} times that (bar: {BAR_MS} ms where the bare limit is {BASELINE_BARE_MS}: {:.2} times)",
        ms / bare_ms,
        BAR_MS / BASELINE_BARE_MS
    ))
}

/// What a process has had written to storage so far, in bytes.
fn stored_bytes(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line =
        text.lines().find_map(|line| line.strip_prefix("write_bytes: ")).context("the kernel's account of io")?;
    Ok(line.trim().parse()?)
}

/// What an agent takes up, whatever the speed of the machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) memory: Memory,
    threads: usize,
}

impl Size {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        Ok(Self { memory: memory(pid)?, threads: std::fs::read_dir(format!("/proc/{pid}/task"))?.count() })
    }

    /// Fails when hb's is above its bars.
    fn check(&self, rss_max: u64) -> Result<()> {
        let (rss, anonymous) = (self.memory.rss_kib, self.memory.anonymous_kib);
        ensure!(rss <= rss_max, "the agent is resident with {rss} KiB: more than {rss_max}");
        ensure!(
            anonymous <= ANONYMOUS_KIB_MAX,
            "{anonymous} KiB of the agent are its own: more than {ANONYMOUS_KIB_MAX}"
        );
        ensure!(self.threads == 1, "the agent has {} threads", self.threads);
        Ok(())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Memory { rss_kib, anonymous_kib } = self.memory;
        write!(f, "resident {rss_kib} KiB, of it anonymous {anonymous_kib} KiB; threads: {}", self.threads)
    }
}

/// Asks the agent at its door for a beat, as `hb beat` does, again and again; how many beats it sent meanwhile, those of its
/// own pace included.
async fn beat_quickly(door: &Path, beats: u64) -> Result<u64> {
    let mut ticks = tokio::time::interval(QUICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut first, mut last) = (None, 0);
    while last < first.unwrap_or(0) + beats {
        ticks.tick().await;
        last = knock(door).await?;
        first.get_or_insert(last.saturating_sub(1));
    }
    Ok(last - first.unwrap_or(0))
}

/// What the knock at its door costs the agent, in milliseconds of CPU: it sends away, without a beat, whoever says nothing
/// sensible. A beat of its own pace that falls due meanwhile, which takes `beat_ms`, is not counted.
async fn knock_in_vain(agent: u32, door: &Path, beat_ms: f64) -> Result<f64> {
    let first = knock(door).await?;
    let before = cpu(agent)?;
    let mut ticks = tokio::time::interval(QUICK);
    for _ in 0..KNOCKS {
        ticks.tick().await;
        let mut stream = UnixStream::connect(door).await.context("knock at the agent's door")?;
        stream.write_all(b"{}\n").await?;
        ensure!(stream.read_to_end(&mut Vec::new()).await? == 0, "the agent answered nonsense");
    }
    let used = cpu(agent)?.saturating_sub(before);
    let beats = knock(door).await?.saturating_sub(first + 1);
    #[expect(clippy::cast_precision_loss, reason = "a few")]
    let beats = beats as f64 / KNOCKS as f64;
    Ok(share(used, KNOCKS) - beats * beat_ms)
}

/// Has the agent beat while its connection is hung up on each time; the CPU time of a beat in milliseconds.
async fn beat_anew(agent: u32, door: &Path) -> Result<f64> {
    // The first one may still use the connection that was kept.
    let first = knock(door).await?;
    tokio::time::sleep(APART).await;
    let (before, mut last) = (cpu(agent)?, first);
    while last < first + NEW_CONNECTIONS {
        last = knock(door).await?;
        tokio::time::sleep(APART).await;
    }
    Ok(share(cpu(agent)?.saturating_sub(before), last - first))
}

/// Has the agent beat; the number of that beat.
async fn knock(door: &Path) -> Result<u64> {
    loop {
        let mut stream = UnixStream::connect(door).await.context("knock at the agent's door")?;
        stream.write_all(b"null\n").await?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).await?;
        // It hangs up when a beat of its own falls due at that moment.
        if answer.is_empty() {
            continue;
        }
        let answer: serde_json::Value = serde_json::from_str(&answer)?;
        return answer["stored"]["seq"].as_u64().with_context(|| format!("the agent did not beat: {answer}"));
    }
}

/// A certificate authority, and a certificate of its for the server.
struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn make() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // OpenSSL takes a certificate for self-signed when its issuer has the same name as it has.
        ca.distinguished_name.push(DnType::CommonName, "hb bench authority");
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = leaf.signed_by(&key, &ca)?;
        std::fs::write(dir.path().join("cert.pem"), leaf.pem())?;
        std::fs::write(dir.path().join("key.pem"), key.serialize_pem())?;
        let system = std::fs::read_to_string("/etc/ssl/certs/ca-certificates.crt").unwrap_or_default();
        std::fs::write(dir.path().join("bundle.pem"), format!("{system}\n{}", ca.pem()))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(dir.path().join("key.pem"), mode)?;
        Ok(Self { dir })
    }

    fn bundle(&self) -> PathBuf {
        self.dir.path().join("bundle.pem")
    }
}

async fn serve(server: &Path, data: &Path, site: &Site, public_url: &str) -> Result<(Child, String)> {
    let mut command = Command::new(server);
    command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(data);
    let file = |name: &str| site.dir.path().join(name);
    command.arg("--tls-cert").arg(file("cert.pem")).arg("--tls-key").arg(file("key.pem"));
    command.env("HB_SERVER_PUBLIC_URL", public_url);
    // The quick pace is more than a host may send.
    command.env("HB_SERVER_LOG", "error").env("HB_SERVER_BEATS_PER_INTERVAL", "1000");
    command.stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let mut lines = BufReader::new(child.stderr.take().context("its standard error")?).lines();
    while let Some(line) = lines.next_line().await? {
        if let Some((_, url)) = line.split_once("listening on ") {
            let url = url.split_whitespace().next().unwrap_or_default().to_owned();
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok((child, url));
        }
    }
    bail!("hb-server ended before it listened")
}

/// CPU of one `curl` that posts a beat-sized body, in milliseconds, from the shell's own account of its children.
async fn curl(url: &str, site: &Site) -> Result<f64> {
    let script = format!(
        "for i in $(seq {CURLS}); do curl -s -o /dev/null --cacert {} -d '{{\"boot\":\"x\"}}' {url}/v1/beat; done; times",
        site.bundle().display()
    );
    let output = Command::new("bash").args(["-c", &script]).output().await?;
    let text = String::from_utf8(output.stdout)?;
    let children = text.lines().nth(1).context("the shell's `times`")?;
    let seconds: f64 = children
        .split_whitespace()
        .filter_map(|time| {
            let (minutes, seconds) = time.trim_end_matches('s').split_once('m')?;
            Some(minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?)
        })
        .sum();
    Ok(seconds * 1000.0 / f64::from(CURLS))
}
