//! What it costs: `docs/cost.md` is made here, from what is measured and the price list in `docs/prices.json`.
//!
//! Units are measured in each run and must be those of the page; `UPDATE=1` writes it. Times are those of the machine that
//! wrote them: `UPDATE=1 HB_LAMBDA_BINARIES=target/function` does so anew, with binaries built as for AWS.

use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use hb_api::app::Clock as _;
use hb_api::watch::STORE_EVERY_MS;
use hb_lambda::clock::WallClock;
use serde_json::{Value, json};

use crate::cloud::{self, Cloud, Running};
use crate::fleet;

/// Beats, and runs of each schedule, of a month.
const MINUTES: f64 = 43_800.0;
/// Hosts that are added to see what a sweep costs for each.
const HOSTS: u64 = 1_000;
/// Bytes that leave for one beat: the answer in its TLS record (270 as `hb-server` sends it), the headers that AWS adds (150),
/// TCP and IP of it and of the acknowledgement (80).
const BYTES_OUT: f64 = 500.0;
/// A function of 128 MB gets this part of a processor (1,769 MB are a whole one).
const CPU_OF_INGEST: f64 = 128.0 / 1769.0;
/// What a function waits for others in its own region, in seconds, beside what it computes: `ingest` for one write, the
/// sweeper for its canary and half a dozen reads, the notifier for three.
const WAIT_S: f64 = 0.004;
const SWEEPER_WAIT_S: f64 = 0.040;
const NOTIFIER_WAIT_S: f64 = 0.012;

/// Units to read what a host's beats are checked by.
pub(crate) const KEY_UNITS: f64 = 0.5;
/// Beats after which it is read again: the host's pass is good for a day. That one brings it past every environment is shown in
/// `floods.rs`.
const PASS_BEATS: f64 = 24.0 * 60.0;

/// Units read to find out why a replay was refused: at most so many, in `floods.rs`.
pub(crate) const REPLAY_UNITS: f64 = 1.5;

/// What a run consumed.
#[derive(Debug, Clone, Copy, Default)]
struct Units {
    read: f64,
    write: f64,
}

fn units(cloud: &mut Cloud, functions: &[&str]) -> Units {
    let all = cloud.order(&json!({"do": "units"}))["units"].clone();
    let mut sum = Units::default();
    for function in functions {
        for (operation, units) in all[*function].as_object().into_iter().flatten() {
            let units = units.as_f64().unwrap();
            match operation.as_str() {
                "GetItem" | "BatchGetItem" | "Query" | "TransactGetItems" => sum.read += units,
                _ => sum.write += units,
            }
        }
    }
    sum
}

impl core::ops::Sub for Units {
    type Output = Self;
    fn sub(self, before: Self) -> Self {
        Self { read: self.read - before.read, write: self.write - before.write }
    }
}

/// What was measured.
#[derive(Debug, Clone, Copy)]
struct Measured {
    beat: Units,
    /// One sweep with no hosts but the canary, of 4 shards, without the canary's beat.
    sweep: Units,
    /// The same where there are two regions: each looks at the other.
    sweep_of_two: Units,
    /// For each host of a sweep.
    sweep_per_host: f64,
    /// The notifier's minute.
    deliver: Units,
    /// A host that goes down, is told to one channel, comes back, and is told.
    outage: Units,
    /// Bytes that functions log in all that: none but for an outage.
    outage_log: f64,
    times: Times,
}

/// Of the machine that wrote the page, and of binaries built as for AWS.
#[derive(Debug, Clone, Copy, Default)]
struct Times {
    ingest_cpu_ms: f64,
    ingest_rss_mib: f64,
    sweeper_ms: f64,
    sweeper_us_per_host: f64,
    notifier_ms: f64,
    api_rss_mib: f64,
    /// With 1,000 hosts.
    sweeper_rss_mib: f64,
    notifier_rss_mib: f64,
}

const ALL: [&str; 3] = ["ingest", "sweeper", "notifier"];

/// What a function has computed so far, in milliseconds.
fn cpu_ms(cloud: &Cloud, function: &str) -> f64 {
    let pid = cloud.made["pids"][function].as_u64().unwrap();
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e6
}

/// The most memory that a function has had, in MiB.
fn rss_mib(cloud: &Cloud, function: &str) -> f64 {
    let pid = cloud.made["pids"][function].as_u64().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let rss = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    rss.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

/// Bytes that the functions have logged.
fn logged(cloud: &Cloud) -> f64 {
    let lines =
        cloud.log().lines().filter(|line| line.starts_with("{\"timestamp\"")).map(|line| line.len() + 1).sum::<usize>();
    f64::from(u32::try_from(lines).unwrap())
}

/// Units and processor time of one run.
fn minute_of(cloud: &mut Cloud, function: &str, event: &Value) -> (Units, f64) {
    let (before, cpu) = (units(cloud, &[function]), cpu_ms(cloud, function));
    let answer = cloud.order(&json!({"do": "invoke", "function": function, "event": event}));
    assert!(answer["error"].is_null(), "{answer}");
    let cpu = cpu_ms(cloud, function) - cpu;
    (units(cloud, &[function]) - before, cpu)
}

/// The cheapest of some runs: what does not belong to it only adds. The canary's beat is that of a host, and billed as one.
fn cheapest(cloud: &mut Cloud, function: &str, event: &Value) -> (Units, f64) {
    let mut run = |_| {
        if function == "sweeper" {
            // Each minute it writes what it observed; runs that follow each other sooner do so only now and then.
            std::thread::sleep(Duration::from_millis(STORE_EVERY_MS + 100));
        }
        minute_of(cloud, function, event)
    };
    let runs: Vec<_> = (0..3).map(&mut run).collect();
    println!("{function}: {runs:?}");
    let least = |pick: fn(&(Units, f64)) -> f64| runs.iter().map(pick).fold(f64::INFINITY, f64::min);
    (Units { read: least(|run| run.0.read), write: least(|run| run.0.write) }, least(|run| run.1))
}

/// Hosts that beat, and are not due while this test runs: an item that beats have written is twice as large as a new one.
async fn add_hosts(cloud: &Cloud) {
    let store = fleet::store(cloud).await;
    fleet::add_hosts(&store, HOSTS, 3600, WallClock::default().now()).await;
}

fn measure(cloud: &mut Cloud, old: Option<Times>) -> Measured {
    let host = cloud.machine();
    host.run(&["channels", "add", "email", "--to", "ops@example.org"]);
    host.enrol("web-01", "1s", "5s");
    let sweep = json!({"hb": "sweep"});
    let deliver = json!({"hb": "deliver"});
    let agent = host.agent();
    host.await_state("web-01", "up");
    let quiet = logged(cloud);
    let (beat, times) = beats(cloud, &agent);
    assert!((logged(cloud) - quiet).abs() < 1.0, "a beat logs nothing\n{}", cloud.log());
    drop(agent);
    // Down at the first sweep after its deadline, told by the stream.
    let before = units(cloud, &ALL);
    let mut sweeps = 0.0;
    let begun = Instant::now();
    while !cloud.alerts().iter().any(|text| text.contains("web-01")) {
        assert!(begun.elapsed() < Duration::from_mins(1), "no alert\n{}", cloud.log());
        minute_of(cloud, "sweeper", &sweep);
        sweeps += 1.0;
        std::thread::sleep(Duration::from_secs(2));
    }
    let down = units(cloud, &ALL) - before;
    let down_log = logged(cloud) - quiet;
    let quiet = logged(cloud);
    let (empty, sweeper_ms) = cheapest(cloud, "sweeper", &sweep);
    let (delivered, notifier_ms) = cheapest(cloud, "notifier", &deliver);
    assert!((logged(cloud) - quiet).abs() < 1.0, "a run without work logs nothing\n{}", cloud.log());
    let before = units(cloud, &ALL);
    let agent = host.agent();
    cloud.await_alert("web-01");
    drop(agent);
    let up = units(cloud, &ALL) - before;
    let outage_log = down_log + logged(cloud) - quiet;
    tokio::runtime::Runtime::new().unwrap().block_on(add_hosts(cloud));
    let (full, full_ms) = cheapest(cloud, "sweeper", &sweep);
    let hosts = 1_000.0;
    Measured {
        beat,
        sweep: empty,
        sweep_of_two: of_two_regions(),
        sweep_per_host: (full.read - empty.read) / hosts,
        deliver: delivered,
        outage: Units {
            read: down.read + up.read - sweeps * empty.read,
            write: down.write + up.write - sweeps * empty.write,
        },
        outage_log,
        times: old.unwrap_or(Times {
            sweeper_ms,
            sweeper_us_per_host: ((full_ms - sweeper_ms) * 1000.0 / hosts).max(0.0),
            notifier_ms,
            api_rss_mib: rss_mib(cloud, "api"),
            sweeper_rss_mib: rss_mib(cloud, "sweeper"),
            notifier_rss_mib: rss_mib(cloud, "notifier"),
            ..times
        }),
    }
}

/// A sweep of no hosts in one of two regions that both sweep.
fn of_two_regions() -> Units {
    let mut cloud = Cloud::start(3600.0, &["--regions", "2"]);
    let sweep = json!({"hb": "sweep"});
    for region in [0, 1] {
        let order = json!({"do": "invoke", "function": "sweeper", "event": sweep, "region": region});
        let answer = cloud.order(&order);
        assert!(answer["error"].is_null(), "{answer}");
    }
    // Until each has seen that the other one does.
    std::thread::sleep(Duration::from_millis(STORE_EVERY_MS));
    let (units, _) = cheapest(&mut cloud, "sweeper", &sweep);
    cloud.nothing_went_wrong();
    units
}

/// Milliseconds from the start of an `ingest` to its first question for work; the median of some.
fn ready_ms(cloud: &Cloud) -> f64 {
    let runtime = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    median((0..9).map(|_| start_once(cloud, &runtime)))
}

fn median(some: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = some.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn start_once(cloud: &Cloud, runtime: &std::net::TcpListener) -> f64 {
    let mut command = Command::new(cloud::binaries().join("ingest"));
    command.env_clear().env("AWS_LAMBDA_RUNTIME_API", runtime.local_addr().unwrap().to_string());
    command.envs([("AWS_REGION", "eu-central-1"), ("AWS_ACCESS_KEY_ID", "LOCAL"), ("AWS_SECRET_ACCESS_KEY", "local")]);
    command.envs([("AWS_LAMBDA_FUNCTION_NAME", "ingest"), ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")]);
    command.envs([("AWS_LAMBDA_FUNCTION_VERSION", "1"), ("AWS_LAMBDA_LOG_GROUP_NAME", "local")]);
    command.envs([("AWS_LAMBDA_LOG_STREAM_NAME", "local"), ("HB_TABLE", "hb-local-cloud"), ("HB_SHARDS", "4")]);
    command.env("AWS_ENDPOINT_URL_DYNAMODB", cloud.part("dynamodb"));
    let begun = Instant::now();
    let mut function = command.spawn().unwrap();
    let (mut asked, _) = runtime.accept().unwrap();
    let mut head = [0; 4096];
    let read = asked.read(&mut head).unwrap();
    let took = begun.elapsed();
    function.kill().unwrap();
    function.wait().unwrap();
    let head = String::from_utf8_lossy(&head[..read]).into_owned();
    assert!(head.contains("/runtime/invocation/next"), "{head}");
    took.as_secs_f64() * 1000.0
}

/// Units, processor and memory of beats, one a second.
fn beats(cloud: &mut Cloud, _agent: &Running) -> (Units, Times) {
    std::thread::sleep(Duration::from_secs(3));
    let updates = |cloud: &mut Cloud| {
        cloud.order(&json!({"do": "units"}))["units"]["ingest"]["UpdateItem"].as_f64().unwrap_or(0.0)
    };
    let (before, count, cpu) = (units(cloud, &["ingest"]), updates(cloud), cpu_ms(cloud, "ingest"));
    std::thread::sleep(Duration::from_secs(15));
    let (spent, beats, cpu) =
        (units(cloud, &["ingest"]) - before, updates(cloud) - count, cpu_ms(cloud, "ingest") - cpu);
    assert!(beats >= 10.0, "only {beats} beats");
    let answer = cloud.order(&json!({"do": "times"}));
    let of = |what: &str| median(answer[what]["ingest"].as_array().unwrap().iter().map(|ms| ms.as_f64().unwrap()));
    println!("a beat through the emulator: p50 {} ms, of it the gate that counts units {} ms", of("times"), of("gate"));
    let times = Times { ingest_cpu_ms: cpu / beats, ingest_rss_mib: rss_mib(cloud, "ingest"), ..Times::default() };
    (Units { read: spent.read / beats, write: spent.write / beats }, times)
}

struct Prices(Value);

impl Prices {
    fn of(&self, name: &str) -> f64 {
        self.0[name].as_f64().unwrap_or_else(|| panic!("docs/prices.json has no {name}"))
    }
}

/// One line of the bill: what, and dollars a month for so many hosts.
type Line = (&'static str, f64);

/// As the template recommends.
fn shards(hosts: f64) -> f64 {
    match hosts {
        ..=10_000.0 => 1.0,
        ..=60_000.0 => 4.0,
        ..=250_000.0 => 16.0,
        _ => 64.0,
    }
}

/// Of the sweeper, in megabytes, as the template recommends.
fn memory(hosts: f64) -> f64 {
    if hosts <= 1_000.0 { 128.0 } else { 512.0 }
}

fn bill(m: &Measured, p: &Prices, hosts: f64, regions: f64) -> Vec<Line> {
    // The canary of each region is a host.
    let beats = (hosts + regions) * MINUTES;
    let gb_s = p.of("lambda_arm64_gb_s");
    let ingest_s = m.times.ingest_cpu_ms / 1000.0 / CPU_OF_INGEST + WAIT_S;
    // Each shard is read, though it be empty: half a unit.
    let others = (shards(hosts) - 4.0) * 0.5;
    let sweep = if regions > 1.0 { m.sweep_of_two } else { m.sweep };
    let sweep_read = sweep.read + others + m.sweep_per_host * hosts;
    let sweeper_s =
        (m.times.sweeper_ms + m.times.sweeper_us_per_host * hosts / 1000.0) / 1000.0 / (memory(hosts) / 1769.0)
            + SWEEPER_WAIT_S;
    let notifier_s = m.times.notifier_ms / 1000.0 / (256.0 / 1769.0) + NOTIFIER_WAIT_S;
    let runs = MINUTES * regions;
    vec![
        ("beats: write units", beats * m.beat.write * p.of("dynamodb_write_unit") * regions),
        ("beats: read units", beats * (m.beat.read + KEY_UNITS / PASS_BEATS) * p.of("dynamodb_read_unit")),
        ("beats: requests of `ingest`", beats * p.of("lambda_request")),
        ("beats: time of `ingest`", beats * ingest_s * 0.125 * gb_s),
        ("beats: bytes out", beats * BYTES_OUT * p.of("egress_gb") / 1e9),
        // What is written is written in each region.
        (
            "sweeps: units",
            runs * (sweep_read * p.of("dynamodb_read_unit") + sweep.write * p.of("dynamodb_write_unit") * regions),
        ),
        ("sweeps: `sweeper`", runs * (p.of("lambda_request") + sweeper_s * memory(hosts) / 1024.0 * gb_s)),
        (
            "deliveries looked for: units",
            runs * (m.deliver.read * p.of("dynamodb_read_unit") + m.deliver.write * p.of("dynamodb_write_unit")),
        ),
        ("deliveries looked for: `notifier`", runs * (p.of("lambda_request") + notifier_s * 0.25 * gb_s)),
    ]
}

/// hb-api's design, as its repository configures it: REST API, Java at 1 GB for 30 ms, an index on the deadline (2 units more
/// for each beat), a stream handler that each beat invokes, logs of each request.
fn hb_api(p: &Prices, regions: f64) -> f64 {
    let units = 3.0 * regions;
    MINUTES
        * (p.of("rest_api_request")
            + p.of("lambda_request")
            + 0.030 * 1.0 * p.of("lambda_x86_gb_s")
            + units * p.of("dynamodb_write_unit")
            + 700.0 * p.of("logs_gb") / 1e9
            + 990.0 * p.of("egress_gb") / 1e9
            + 0.1 * regions * p.of("lambda_request"))
        + 0.005 * regions
}

/// A request of Lambda and a write of DynamoDB, and nothing else.
fn floor(p: &Prices, regions: f64) -> f64 {
    let write = regions * p.of("dynamodb_write_unit");
    MINUTES * (p.of("lambda_request") + 0.010 * 0.125 * p.of("lambda_arm64_gb_s") + write)
}

fn page(m: &Measured, p: &Prices) -> String {
    let mut out = String::new();
    let t = &m.times;
    write!(
        out,
        "# What hb costs on AWS\n\n\
        Made by `crates/hb-lambda/tests/it/cost.rs` from what the functions consumed in the local cloud and the prices of {} in\n\
        {} (`docs/prices.json`: list prices, no free tier). Each host beats once a minute; a fleet that beats every five minutes\n\
        pays a fifth of the lines for beats.\n\n\
        ## Measured\n\n\
        | what | figure |\n| --- | --- |\n\
        | a beat | {:.2} write units, {:.2} read units |\n\
        | a sweep of no hosts, 4 shards | {:.1} read units, {:.1} write units |\n\
        | the same in one of two regions | {:.1} read units, {:.1} write units |\n\
        | a sweep, for each host more | {:.4} read units |\n\
        | a look for deliveries | {:.1} read units, {:.1} write units |\n\
        | an outage: down, told, up, told, to one channel | {:.0} write units, {:.0} read units |\n\
        | `ingest`: processor for a beat | {:.2} ms |\n\
        | `ingest`: memory | {:.1} MiB |\n\
        | `sweeper`: processor for a run without hosts | {:.1} ms |\n\
        | `sweeper`: for each host more | {:.1} us |\n\
        | `notifier`: processor for a look for deliveries | {:.1} ms |\n\
        | `api`: memory | {:.1} MiB |\n\
        | `sweeper`: memory, with 1,000 hosts | {:.1} MiB |\n\
        | `notifier`: memory | {:.1} MiB |\n\
        | log of beats, sweeps and looks for deliveries | 0 bytes |\n\
        | log of an outage: down, told, up, told | {:.0} bytes |\n\n\
        Processor time is scaled to the part of a processor that a function's memory buys (128 MB of 1,769); waiting is\n\
        taken as {:.0} ms in `ingest`, {:.0} ms in `sweeper`, {:.0} ms in `notifier`, bytes out as {:.0} for each beat with TLS and TCP. None\n\
        of these four was measured on AWS. Shards, and the memory of the sweeper, are as the template recommends.\n\n\
        A host's key is read ({:.1} units) when it has no pass that says what it is, which an answer gives it for a day: {:.4} units for a\n\
        beat, however many environments `ingest` has. A host that keeps no pass has its key read by each environment that it meets.\n\n",
        p.0["as_of"].as_str().unwrap(),
        p.0["region"].as_str().unwrap(),
        m.beat.write, m.beat.read,
        m.sweep.read, m.sweep.write,
        m.sweep_of_two.read, m.sweep_of_two.write,
        m.sweep_per_host,
        m.deliver.read, m.deliver.write,
        m.outage.write, m.outage.read,
        t.ingest_cpu_ms, t.ingest_rss_mib, t.sweeper_ms, t.sweeper_us_per_host, t.notifier_ms,
        t.api_rss_mib, t.sweeper_rss_mib, t.notifier_rss_mib, m.outage_log,
        WAIT_S * 1000.0, SWEEPER_WAIT_S * 1000.0, NOTIFIER_WAIT_S * 1000.0, BYTES_OUT,
        KEY_UNITS, KEY_UNITS / PASS_BEATS,
    )
    .unwrap();
    out.push_str("## Dollars for each host and month\n\n");
    for (regions, title) in [(1.0, "One region"), (2.0, "Two regions, each of which has all that is written")] {
        writeln!(out, "{title}:\n").unwrap();
        out.push_str("| hosts | hb, function URL | hb, HTTP API | hb-api's design | the floor |\n| ---: | ---: | ---: | ---: | ---: |\n");
        for hosts in [1.0, 10.0, 1e3, 1e5, 1e6] {
            let url = per_host(m, p, hosts, regions);
            let http = url + MINUTES * p.of("http_api_request");
            let (peer, floor) = (hb_api(p, regions), floor(p, regions));
            writeln!(out, "| {hosts:.0} | {url:.4} | {http:.4} | {peer:.4} | {floor:.4} |").unwrap();
        }
        out.push('\n');
    }
    out.push_str(
        "The floor is, for each beat, one request of Lambda and one write of DynamoDB in each region. hb-api's design is priced on\n\
         demand, at any number of hosts; as it is configured it ends at about 750.\n\n## The bill of 1,000 hosts\n\n\
         | line | dollars a month |\n| --- | ---: |\n",
    );
    for (what, dollars) in bill(m, p, 1e3, 1.0) {
        writeln!(out, "| {what} | {dollars:.3} |").unwrap();
    }
    let p_write = p.of("dynamodb_write_unit");
    write!(
        out,
        "\nBeside that: ten alarms of CloudWatch are free in an account, as many as one stack with function URLs has (a second region's are a dollar a month);\n\
         storage is about 2 KB for each host and 1 KB for each event kept ($0.25 a GB, and $0.20 for its continuous backup);\n\
         an outage with its return costs ${:.6} in units, mails $2 for 100,000, SMS what the country costs.\n\n\
         ## What a flood costs\n\n\
         - A forged beat of a made-up host reads and writes nothing: a request of Lambda and its time, about ${:.2} for a million.\n\
         - A forged beat of a real host costs the same, once its key is in the function's memory.\n\
         - A replay of a good beat is refused by the write's own condition: one write unit and {REPLAY_UNITS} read units more, ${:.2} for a\n\
           million. Only who saw the beat on its way, inside TLS, has one. It moves no deadline and spends no nonce: the host itself goes on unharmed.\n\
         - A host that beats too often is told to wait before anything is written. Each environment of `ingest` counts for itself: where\n\
           beats arrive that many at once, a host gets as many times its share.\n\
         - `ReservedConcurrency` caps all of it at ten times as many requests a second.\n\
         - Without it, as in a new account, a flood takes the concurrency that sweeper and notifier need: it costs no more, but nobody is told of\n\
         \x20 hosts while it lasts. The alarms of the stack say so.\n",
        m.outage.write * p_write + m.outage.read * p.of("dynamodb_read_unit"),
        1e6 * (p.of("lambda_request") + (t.ingest_cpu_ms / 1000.0 / CPU_OF_INGEST) * 0.125 * p.of("lambda_arm64_gb_s")),
        1e6 * (p.of("lambda_request") + p_write + REPLAY_UNITS * p.of("dynamodb_read_unit")),
    )
    .unwrap();
    out
}

fn per_host(m: &Measured, p: &Prices, hosts: f64, regions: f64) -> f64 {
    bill(m, p, hosts, regions).iter().map(|(_, dollars)| dollars).sum::<f64>() / hosts
}

/// The times that a page states.
fn times_of(page: &str) -> Option<Times> {
    let figure = |what: &str| -> Option<f64> {
        let line = page.lines().find(|line| line.starts_with(&format!("| {what} |")))?;
        line.rsplit('|').nth(1)?.split_whitespace().next()?.parse().ok()
    };
    Some(Times {
        ingest_cpu_ms: figure("`ingest`: processor for a beat")?,
        ingest_rss_mib: figure("`ingest`: memory")?,
        sweeper_ms: figure("`sweeper`: processor for a run without hosts")?,
        sweeper_us_per_host: figure("`sweeper`: for each host more")?,
        notifier_ms: figure("`notifier`: processor for a look for deliveries")?,
        api_rss_mib: figure("`api`: memory")?,
        sweeper_rss_mib: figure("`sweeper`: memory, with 1,000 hosts")?,
        notifier_rss_mib: figure("`notifier`: memory")?,
    })
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

#[test]
fn the_page_says_what_is_measured_and_the_price_is_as_promised() {
    let prices = Prices(serde_json::from_str(&fs::read_to_string(docs().join("prices.json")).unwrap()).unwrap());
    let is_update = std::env::var_os("UPDATE").is_some();
    let written = fs::read_to_string(docs().join("cost.md")).unwrap_or_default();
    let mut cloud = Cloud::start(3600.0, &[]);
    let is_built_as_for_aws = std::env::var_os("HB_LAMBDA_BINARIES").is_some();
    let ready_ms = ready_ms(&cloud);
    println!("ingest asks for work {ready_ms:.1} ms after its start");
    if is_built_as_for_aws {
        assert!(ready_ms <= 50.0, "ingest asks for work {ready_ms} ms after its start");
    }
    let old = if is_update && is_built_as_for_aws { None } else { times_of(&written) };
    let measured = measure(&mut cloud, old);
    println!("{measured:#?}");
    assert!((measured.beat.write - 1.0).abs() < 0.001, "a beat is one write unit: {:?}", measured.beat);
    assert!(measured.beat.read <= 0.1, "{:?}", measured.beat);
    assert!(measured.sweep_per_host <= 0.025, "1,000 hosts: 25 read units at most, {}", measured.sweep_per_host);
    assert!(measured.times.ingest_rss_mib <= 40.0, "{:?}", measured.times);
    cloud.nothing_went_wrong();
    let made = page(&measured, &prices);
    if is_update {
        fs::write(docs().join("cost.md"), &made).unwrap();
        println!("{made}");
    }
    for hosts in [1e3, 1e5, 1e6] {
        assert!(per_host(&measured, &prices, hosts, 1.0) <= 0.040, "{:?}", bill(&measured, &prices, hosts, 1.0));
    }
    assert!(per_host(&measured, &prices, 10.0, 1.0) <= 0.050, "{:?}", bill(&measured, &prices, 10.0, 1.0));
    assert!(hb_api(&prices, 1.0) >= 6.0 * per_host(&measured, &prices, 1_000.0, 1.0));
    if !is_update {
        assert_alike(&made, &written);
    }
}

/// The same words, and figures that differ by no more than chance: a sweep reads half a unit more or less.
#[track_caller]
fn assert_alike(made: &str, written: &str) {
    let lines = |page: &str| -> Vec<String> {
        // An outage costs a look more or less, by when it falls.
        page.lines().filter(|line| !line.contains("outage")).map(str::to_owned).collect()
    };
    let (made, written) = (lines(made), lines(written));
    assert_eq!(made.len(), written.len(), "docs/cost.md is out of date: UPDATE=1 writes it");
    for (made, written) in made.iter().zip(&written) {
        let words = |line: &str| -> Vec<String> { line.split([' ', '$']).map(str::to_owned).collect() };
        let (made_words, written_words) = (words(made), words(written));
        let alike = made_words.len() == written_words.len()
            && made_words.iter().zip(&written_words).all(|(one, other)| {
                match (one.parse::<f64>(), other.parse::<f64>()) {
                    (Ok(one), Ok(other)) => (one - other).abs() <= (0.02 * other.abs()).max(0.012),
                    _ => one == other,
                }
            });
        assert!(alike, "docs/cost.md is out of date (UPDATE=1 writes it): it says {written:?}, measured was {made:?}");
    }
}
