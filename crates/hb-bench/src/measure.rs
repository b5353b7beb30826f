//! Reading what a process used, and saying it.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// CPU time of a process so far, all threads, user and system.
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    // Nanoseconds, where /proc/PID/stat counts in ticks of 10 ms.
    let mut total = 0_u64;
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("look at process {pid}"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        total += text.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(total))
}

/// The part of each of so many beats, in milliseconds.
pub(crate) fn share(used: Duration, beats: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let beats = beats.max(1) as f64;
    used.as_secs_f64() * 1000.0 / beats
}

/// Memory of a process in KiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// Resident set.
    pub rss_kib: u64,
    /// Of it, anonymous.
    pub anonymous_kib: u64,
}

/// Memory of a process.
pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let text =
        std::fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("look at process {pid}"))?;
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .unwrap_or(0)
    };
    Ok(Memory { rss_kib: field("VmRSS:"), anonymous_kib: field("RssAnon:") })
}

/// The value at a share (0 to 1) of a sorted list.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    if sorted.is_empty() {
        return f64::NAN;
    }
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index"
    )]
    let index = ((sorted.len() - 1) as f64 * share).round() as usize;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

/// Sorts and takes the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile(&sorted, 0.5)
}

/// A histogram of seconds, one line per bucket.
pub(crate) fn histogram(seconds: &[f64]) -> String {
    const EDGES: [f64; 9] = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];
    let mut text = String::new();
    let mut from = 0.0;
    for to in EDGES.into_iter().chain([f64::INFINITY]) {
        let count = seconds.iter().filter(|value| (from..to).contains(*value)).count();
        if count > 0 {
            let _ = writeln!(text, "  {from:>5} s to {to:>5} s: {count}");
        }
        from = to;
    }
    text
}

/// Prints a line of the report: the only output of the program.
#[expect(clippy::print_stdout, reason = "the report goes to standard output")]
pub(crate) fn say(line: &str) {
    println!("{line}");
}
