//! hb-server against the bare limit, and its memory.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::fleet::{Connection, Host};
use crate::measure::{cpu, median, memory, quantile, say};

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Pairs of runs.
    pub pairs: usize,
    /// Seconds per run.
    pub seconds: u64,
    /// Hosts that beat.
    pub hosts: usize,
    /// Connections.
    pub connections: usize,
}

/// A server that runs as a child process on the first core, while the load runs on the second.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// `host:port`.
    pub authority: String,
    /// An API key that may do everything.
    pub admin: String,
    _data: tempfile::TempDir,
}

impl Server {
    /// hb-server on a fresh database.
    pub(crate) async fn hb(binaries: &Path, env: &[(&str, &str)]) -> Result<Self> {
        let program = server_binary(binaries)?;
        let data = tempfile::tempdir()?;
        let init =
            Command::new(&program).args(["init", "--data"]).arg(data.path()).stderr(Stdio::null()).output().await?;
        let admin = String::from_utf8(init.stdout)?.trim().to_owned();
        let mut command = pinned(&program);
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(data.path());
        command.envs(env.iter().copied()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().context("start hb-server")?;
        let lines = child.stderr.take().context("its standard error")?;
        let authority = listening(lines).await?;
        Ok(Self { child, authority, admin, _data: data })
    }

    /// The bare limit.
    async fn bare(hosts: usize) -> Result<Self> {
        let data = tempfile::tempdir()?;
        let mut command = pinned(&std::env::current_exe()?);
        command.args(["bare", "--hosts", &hosts.to_string(), "--data"]).arg(data.path());
        command.stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().context("start the bare server")?;
        let lines = child.stdout.take().context("its standard output")?;
        let authority = listening(lines).await?;
        Ok(Self { child, authority, admin: String::new(), _data: data })
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Result<u32> {
        self.child.id().context("the server has ended")
    }

    /// Enrols hosts over a few connections.
    pub(crate) async fn enrol(&self, hosts: usize, interval_s: u64, grace_s: u64) -> Result<Vec<Host>> {
        let workers: Vec<_> = (0..32)
            .map(|worker| {
                let (authority, admin) = (self.authority.clone(), self.admin.clone());
                tokio::spawn(async move {
                    let mut connection = Connection::open(&authority).await?;
                    let mut enrolled = Vec::new();
                    for n in (worker..hosts).step_by(32) {
                        enrolled.push(connection.enrol(n, &admin, interval_s, grace_s).await?);
                    }
                    anyhow::Ok(enrolled)
                })
            })
            .collect();
        let mut all = Vec::with_capacity(hosts);
        for worker in workers {
            all.extend(worker.await??);
        }
        Ok(all)
    }
}

fn server_binary(binaries: &Path) -> Result<PathBuf> {
    for profile in ["server", "release", "debug"] {
        let path = binaries.join(profile).join("hb-server");
        if path.exists() {
            return Ok(path);
        }
    }
    bail!("there is no hb-server under {}; hint: `make build`", binaries.display())
}

fn pinned(program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]).arg(program).kill_on_drop(true);
    command
}

/// Reads until the server says where it listens; what follows is read and dropped, so that it never blocks.
async fn listening(lines: impl tokio::io::AsyncRead + Unpin + Send + 'static) -> Result<String> {
    let mut lines = BufReader::new(lines).lines();
    while let Some(line) = lines.next_line().await? {
        if let Some((_, authority)) = line.split_once("listening on http://") {
            let authority = authority.split_whitespace().next().unwrap_or_default().to_owned();
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok(authority);
        }
    }
    bail!("the server ended before it listened")
}

/// What one run gave.
#[derive(Debug)]
struct Run {
    beats: f64,
    per_second: f64,
    cpu_us: f64,
    latencies_ms: Vec<f64>,
}

async fn load(server: &Server, hosts: &mut Vec<Host>, plan: &Plan) -> Result<Run> {
    let mut shares: Vec<Vec<Host>> = (0..plan.connections).map(|_| Vec::new()).collect();
    for (n, host) in hosts.drain(..).enumerate() {
        shares[n % plan.connections].push(host);
    }
    let before = cpu(server.pid()?)?;
    let start = Instant::now();
    let end = start + Duration::from_secs(plan.seconds);
    let workers: Vec<_> = shares
        .into_iter()
        .map(|mut share| {
            let authority = server.authority.clone();
            tokio::spawn(async move {
                let mut connection = Connection::open(&authority).await?;
                let mut latencies = Vec::new();
                while Instant::now() < end {
                    for host in &mut share {
                        latencies.push(connection.beat(host).await?.as_secs_f64() * 1000.0);
                        if Instant::now() >= end {
                            break;
                        }
                    }
                }
                anyhow::Ok((share, latencies))
            })
        })
        .collect();
    let mut latencies_ms = Vec::new();
    for worker in workers {
        let (share, latencies) = worker.await??;
        hosts.extend(share);
        latencies_ms.extend(latencies);
    }
    let used = cpu(server.pid()?)?.saturating_sub(before);
    latencies_ms.sort_by(f64::total_cmp);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let beats = latencies_ms.len() as f64;
    Ok(Run {
        beats,
        per_second: beats / start.elapsed().as_secs_f64(),
        cpu_us: used.as_secs_f64() * 1e6 / beats,
        latencies_ms,
    })
}

/// Runs both in turns and compares.
pub(crate) async fn compare(binaries: &Path, plan: &Plan) -> Result<()> {
    // A beat a second and host is far above any real cadence; the rate limit is not what is measured.
    let hb = Server::hb(binaries, &[("HB_SERVER_BEATS_PER_INTERVAL", "1000"), ("HB_SERVER_LOG", "error")]).await?;
    let bare = Server::bare(plan.hosts).await?;
    let mut hb_hosts = hb.enrol(plan.hosts, 3600, 3600).await?;
    let mut bare_hosts: Vec<Host> = (0..plan.hosts).map(Host::bare).collect();
    let warm = Plan { seconds: 2, ..*plan };
    load(&hb, &mut hb_hosts, &warm).await?;
    load(&bare, &mut bare_hosts, &warm).await?;
    say(&format!(
        "durable, verified beats: {} hosts, {} connections, {} pairs of {} s, server on one core",
        plan.hosts, plan.connections, plan.pairs, plan.seconds
    ));
    say("pair   bare us/beat  beats/s   hb us/beat  beats/s   ratio   hb p50 ms   p99 ms");
    let (mut ratios, mut ours, mut theirs, mut rates) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for pair in 1..=plan.pairs {
        let one = load(&bare, &mut bare_hosts, plan).await?;
        let two = load(&hb, &mut hb_hosts, plan).await?;
        say(&format!(
            "{pair:>4}   {:>12.1} {:>8.0} {:>12.1} {:>8.0} {:>7.2} {:>11.1} {:>8.1}",
            one.cpu_us,
            one.per_second,
            two.cpu_us,
            two.per_second,
            two.cpu_us / one.cpu_us,
            quantile(&two.latencies_ms, 0.5),
            quantile(&two.latencies_ms, 0.99),
        ));
        if one.beats > 0.0 && two.beats > 0.0 {
            ratios.push(two.cpu_us / one.cpu_us);
            theirs.push(one.cpu_us);
            ours.push(two.cpu_us);
            rates.push(two.per_second);
        }
    }
    say(&format!(
        "median: hb {:.1} us/beat, bare {:.1} us/beat, ratio {:.2} (bar: 1.50), hb {:.0} beats/s",
        median(&ours),
        median(&theirs),
        median(&ratios),
        median(&rates),
    ));
    Ok(())
}

/// Enrols hosts, lets each beat once, and looks at the memory.
pub(crate) async fn memory_of(binaries: &Path, hosts: usize) -> Result<(u64, u64)> {
    let server = Server::hb(binaries, &[("HB_SERVER_LOG", "error")]).await?;
    let empty = memory(server.pid()?)?.rss_kib;
    let mut enrolled = server.enrol(hosts, 3600, 3600).await?;
    let plan = Plan { pairs: 1, seconds: 1, hosts, connections: 64 };
    let mut beaten = 0;
    while beaten < hosts {
        // Round after round: each connection goes on where its share begins, so every host beats at least once.
        let take = enrolled.len().min(6400);
        let mut some: Vec<Host> = enrolled.drain(..take).collect();
        load(&server, &mut some, &plan).await?;
        beaten += take;
        enrolled.extend(some);
    }
    Ok((empty, memory(server.pid()?)?.rss_kib))
}

/// Prints the memory.
pub(crate) async fn memory_report(binaries: &Path, hosts: usize) -> Result<()> {
    let (empty, full) = memory_of(binaries, hosts).await?;
    say(&format!(
        "hb-server memory: {:.1} MB resident empty, {:.1} MB with {hosts} hosts enrolled and beating (bar: 64 MB)",
        mb(empty),
        mb(full)
    ));
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn mb(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
