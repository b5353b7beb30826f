//! Many hosts that beat, from a few threads with one connection each.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::{Client, Host};

/// An attempt to beat that gets no answer for this long has failed.
const ATTEMPT: Duration = Duration::from_secs(2);
/// After a failed attempt, a host tries again this much later.
const AGAIN: Duration = Duration::from_millis(100);

/// When a host beats, and when it falls silent.
#[derive(Clone, Copy, Default)]
pub(crate) struct Plan {
    /// Between two beats, instead of the host's interval.
    pub(crate) every: Option<Duration>,
    /// Silent from then on, counted from the start of the fleet.
    pub(crate) dies_at: Option<Duration>,
    /// Beats again from then on.
    pub(crate) returns_at: Option<Duration>,
}

pub(crate) struct Fleet {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Host>>>,
    counts: Arc<Counts>,
}

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) acknowledged: AtomicU64,
    pub(crate) failed: AtomicU64,
    /// Statuses other than 200.
    pub(crate) refused: Mutex<Vec<u16>>,
    /// Microseconds that the slowest acknowledged beat took.
    pub(crate) slowest_us: AtomicU64,
}

impl Fleet {
    /// Lets every host beat by its plan, from `threads` threads.
    pub(crate) fn start(address: SocketAddr, hosts: Vec<(Host, Plan)>, threads: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let counts = Arc::new(Counts::default());
        let mut shares: Vec<Vec<(Host, Plan)>> = vec![Vec::new(); threads];
        for (n, host) in hosts.into_iter().enumerate() {
            shares[n % threads].push(host);
        }
        let begun = Instant::now();
        let threads = shares
            .into_iter()
            .map(|share| {
                let (stop, counts) = (Arc::clone(&stop), Arc::clone(&counts));
                std::thread::spawn(move || drive(address, share, begun, &stop, &counts))
            })
            .collect();
        Self { stop, threads, counts }
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Every host falls silent; as they are at the end.
    pub(crate) fn stop(self) -> Vec<Host> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    }
}

fn drive(
    address: SocketAddr,
    mut share: Vec<(Host, Plan)>,
    begun: Instant,
    stop: &AtomicBool,
    counts: &Counts,
) -> Vec<Host> {
    let mut client = Client::plain(address).with_timeout(ATTEMPT);
    let mut next: BinaryHeap<Reverse<(Duration, usize)>> = share
        .iter()
        .enumerate()
        .map(|(n, (host, plan))| {
            // Spread over the interval, as agents do.
            let phase = f64::from(u32::from_le_bytes(hb_server::entropy::random())) / f64::from(u32::MAX);
            Reverse((plan.every.unwrap_or(host.interval).mul_f64(phase), n))
        })
        .collect();
    while let Some(Reverse((at, n))) = next.pop() {
        while begun.elapsed() < at && !stop.load(Ordering::Relaxed) {
            std::thread::sleep((at.saturating_sub(begun.elapsed())).min(Duration::from_millis(20)));
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (host, plan) = &mut share[n];
        if plan.dies_at.is_some_and(|dies_at| at >= dies_at) && plan.returns_at.is_none_or(|returns| at < returns) {
            if let Some(returns) = plan.returns_at {
                next.push(Reverse((returns, n)));
            }
            continue;
        }
        let asked = Instant::now();
        let again = match host.beat(&mut client) {
            Ok(200) => {
                counts.acknowledged.fetch_add(1, Ordering::Relaxed);
                let took = u64::try_from(asked.elapsed().as_micros()).unwrap();
                counts.slowest_us.fetch_max(took, Ordering::Relaxed);
                plan.every.unwrap_or(host.interval)
            }
            Ok(status) => {
                counts.refused.lock().unwrap().push(status);
                AGAIN
            }
            Err(_) => {
                counts.failed.fetch_add(1, Ordering::Relaxed);
                AGAIN
            }
        };
        // A host that is behind does not catch up.
        next.push(Reverse(((at + again).max(begun.elapsed().saturating_sub(again)), n)));
    }
    share.into_iter().map(|(host, _)| host).collect()
}
