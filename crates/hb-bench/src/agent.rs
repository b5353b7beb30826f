//! The agent over TLS, beside curl: memory, CPU per beat, size.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::measure::{cpu, memory, say};

/// Beats before the first look at the clock: connections, caches and lazy statics are made in these.
const WARM_UP: u64 = 10;
/// Runs of curl that are averaged.
const CURLS: u32 = 100;

/// Runs it and prints the comparison.
pub(crate) async fn run(binaries: &Path, beats: u64) -> Result<()> {
    let hb = binaries.join("release").join("hb");
    let server = ["server", "release", "debug"].map(|profile| binaries.join(profile).join("hb-server"));
    let server = server.iter().find(|path| path.exists()).context("there is no hb-server; hint: `make build`")?;
    ensure!(hb.exists(), "there is no {}; hint: `make build`", hb.display());
    let data = tempfile::tempdir()?;
    let state = tempfile::tempdir()?;

    let init = Command::new(server).args(["init", "--data"]).arg(data.path()).output().await?;
    let admin = String::from_utf8(init.stdout)?.trim().to_owned();
    let pin = String::from_utf8_lossy(&init.stderr)
        .split_whitespace()
        .find(|word| word.starts_with("sha256:"))
        .map(|word| word.trim_end_matches(['.', ',']).to_owned())
        .context("init prints the certificate's fingerprint")?;
    let certificate = data.path().join("cert.pem");
    let (_serving, url) = serve(server, data.path(), &certificate).await?;

    let register = Command::new(&hb)
        .args(["register", "--server", &url, "--pin", &pin, "--name", "bench", "--interval", "1s", "--grace", "30s"])
        .env("HB_STATE_DIR", state.path())
        .env("HB_API_KEY", &admin)
        .output()
        .await?;
    ensure!(register.status.success(), "register failed: {}", String::from_utf8_lossy(&register.stderr));
    let mut agent = Command::new(&hb);
    agent.arg("agent").env("HB_STATE_DIR", state.path()).env_remove("HB_API_KEY");
    let mut agent = agent.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn()?;
    let pid = agent.id().context("the agent has ended")?;

    // One beat a second, as paced as a real one: each wakes from idle with cold caches.
    tokio::time::sleep(Duration::from_secs(WARM_UP)).await;
    let (before, start) = (cpu(pid)?, Instant::now());
    tokio::time::sleep(Duration::from_secs(beats)).await;
    let used = cpu(pid)?.saturating_sub(before);
    let done = start.elapsed().as_secs_f64();
    let memory = memory(pid)?;
    agent.kill().await?;
    let size = std::fs::metadata(&hb)?.len();
    let curl_ms = curl(&url, &certificate).await?;
    let agent_ms = used.as_secs_f64() * 1000.0 / done;
    say(&format!("agent after {beats} beats over TLS 1.3, one a second, connection kept:"));
    say(&format!(
        "  resident {} KiB, of it anonymous {} KiB (bar: 4,608 KiB resident)",
        memory.rss_kib, memory.anonymous_kib
    ));
    say(&format!("  CPU {agent_ms:.3} ms a beat (bar: 0.6 ms); binary {size} bytes (bar: 4,194,304)"));
    say(&format!(
        "curl, one process a beat, verifying against the system's CAs: {curl_ms:.1} ms a beat, {:.0} times the agent's",
        curl_ms / agent_ms
    ));
    Ok(())
}

async fn serve(server: &Path, data: &Path, certificate: &Path) -> Result<(Child, String)> {
    let mut command = Command::new(server);
    command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(data);
    command.arg("--tls-cert").arg(certificate).arg("--tls-key").arg(certificate.with_file_name("key.pem"));
    command.env("HB_SERVER_LOG", "error").stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
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
async fn curl(url: &str, certificate: &Path) -> Result<f64> {
    let bundle = tempfile::NamedTempFile::new()?;
    let mut roots = std::fs::read("/etc/ssl/certs/ca-certificates.crt").unwrap_or_default();
    roots.extend(std::fs::read(certificate)?);
    std::fs::write(bundle.path(), roots)?;
    let script = format!(
        "for i in $(seq {CURLS}); do curl -s -o /dev/null --cacert {} -d '{{\"boot\":\"x\"}}' {url}/v1/beat; done; times",
        bundle.path().display()
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
