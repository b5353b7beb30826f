//! What the agent costs: `cargo build --release -p hb`, then
//! `HB_BENCH_BINARY=target/release/hb cargo bench -p hb --bench agent --profile dev`.
//!
//! Runs the release binary against a server on loopback that speaks TLS and verifies every signature, for
//! `HB_BENCH_BEATS` beats (1,000 by default, one a second), and then curl, if it is there, as the cron line that it
//! replaces. Prints the size of the binary, its memory, and the CPU per beat.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints, and stops when it fails")]
#![expect(dead_code, reason = "the server of the tests can do more than is needed here")]

#[path = "../tests/it/host/server.rs"]
mod server;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use server::Server;

/// Beats before the first reading: connecting, first use of every page.
const WARM_UP: usize = 5;
/// Runs of curl.
const CURL_RUNS: u32 = 50;

fn main() {
    let beats: usize = std::env::var("HB_BENCH_BEATS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000);
    let given = std::env::var_os("HB_BENCH_BINARY");
    let hb = given.as_ref().map_or(Path::new(env!("CARGO_BIN_EXE_hb")), Path::new);
    println!("binary: {} bytes", fs::metadata(hb).unwrap().len());
    let dir = tempfile::tempdir().unwrap();
    let (config, ca_pem) = site();
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, &ca_pem).unwrap();
    let server = Server::tls(config);
    server.set_interval(1);
    // As in the field: the system's authorities, and ours among them.
    let bundle = dir.path().join("bundle.pem");
    let system = fs::read_to_string("/etc/ssl/certs/ca-certificates.crt").unwrap_or_default();
    fs::write(&bundle, format!("{system}\n{ca_pem}")).unwrap();
    for (what, roots, count) in [("system bundle + own CA", &bundle, beats), ("own CA only", &ca, beats.min(120))] {
        measure(hb, &server, &dir.path().join(what.replace(' ', "-")), roots, what, count);
    }
    curl(&server, &bundle);
}

fn measure(hb: &Path, server: &Server, state: &Path, roots: &Path, what: &str, beats: usize) {
    let token = hb_wire::api_key::Secret::mint(hb_wire::api_key::SecretKind::Token, [7; 48]);
    fs::create_dir_all(state).unwrap();
    let token_file = state.join("token");
    fs::write(&token_file, token.expose()).unwrap();
    let command = || {
        let mut command = Command::new(hb);
        // SSL_CERT_FILE is where the system's authorities are looked for.
        command.env("HB_STATE_DIR", state).env("SSL_CERT_FILE", roots).env_remove("SSL_CERT_DIR");
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let enrolled = command()
        .args(["register", "--server", &server.url(), "--name", "bench", "--interval", "1s", "--token-file"])
        .arg(&token_file)
        .status()
        .unwrap();
    assert!(enrolled.success());
    let before = server.stored().len();
    let mut agent = Agent(command().arg("agent").spawn().unwrap());
    wait(&mut agent, || server.stored().len() >= before + WARM_UP);
    let (cpu_at_start, count_at_start) = (cpu_ms(agent.0.id()), server.stored().len());
    wait(&mut agent, || server.stored().len() >= before + beats);
    let count = server.stored().len() - count_at_start;
    #[expect(clippy::cast_precision_loss, reason = "a few thousand beats")]
    let per_beat = (cpu_ms(agent.0.id()) - cpu_at_start) / count as f64;
    let pid = agent.0.id();
    println!("agent ({what}), after {beats} beats over TLS, connection kept:");
    println!("  RSS {} KiB, PSS {} KiB, anonymous {} KiB", kib(pid, "Rss"), kib(pid, "Pss"), kib(pid, "Anonymous"));
    println!("  CPU {per_beat:.3} ms per beat (user + system, {count} beats, one a second, with fsync)");
    println!("  threads {}", fs::read_dir(format!("/proc/{pid}/task")).unwrap().count());
}

/// The cron line: one POST by curl against the system's bundle.
fn curl(server: &Server, bundle: &Path) {
    let started = children_cpu_ms();
    for _ in 0..CURL_RUNS {
        let url = format!("{}/v1/status", server.url());
        let status = Command::new("curl").args(["-fsS", "-o", "/dev/null", "--cacert"]).arg(bundle).arg(url).status();
        match status {
            Ok(status) => assert!(status.success()),
            Err(error) => return println!("curl: not measured ({error})"),
        }
    }
    let per_run = (children_cpu_ms() - started) / f64::from(CURL_RUNS);
    println!("curl over TLS with the system bundle: CPU {per_run:.1} ms per run ({CURL_RUNS} runs)");
}

/// Killed when dropped.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait(agent: &mut Agent, mut is_true: impl FnMut() -> bool) {
    while !is_true() {
        assert!(agent.0.try_wait().unwrap().is_none(), "the agent ended");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn kib(pid: u32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// User and system time by the scheduler's own nanoseconds.
fn cpu_ms(pid: u32) -> f64 {
    let mut ns = 0_u64;
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let text = fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
        ns += text.split_whitespace().next().unwrap().parse::<u64>().unwrap();
    }
    Duration::from_nanos(ns).as_secs_f64() * 1000.0
}

/// What the children that ended have used, in ticks of the kernel.
fn children_cpu_ms() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: f64 = fields[13].parse::<f64>().unwrap() + fields[14].parse::<f64>().unwrap();
    #[expect(clippy::cast_precision_loss, reason = "a hundred or a thousand")]
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    ticks * 1000.0 / per_second
}

/// A certificate authority and a server of its for `localhost`.
fn site() -> (Arc<ServerConfig>, String) {
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // OpenSSL takes a certificate for self-signed when its issuer has the same name as it has.
    ca.distinguished_name.push(DnType::CommonName, "hb bench authority");
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let leaf = leaf.signed_by(&key, &ca).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    (Arc::new(config), ca.pem())
}
