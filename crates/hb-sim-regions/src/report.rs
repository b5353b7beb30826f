//! What runs found, and what really ran.

pub use hb_sim::report::Violation;

macro_rules! tally {
    ($($(#[$doc:meta])* $field:ident: $label:literal,)*) => {
        /// What really ran.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Tally {
            $($(#[$doc])* pub $field: u64,)*
            /// From the end of a host's patience to the message, in milliseconds: while hb was well.
            pub delays: Vec<u64>,
            /// The same while a region was lost, or a link cut.
            pub troubled_delays: Vec<u64>,
        }

        impl Tally {
            /// Adds what another run did.
            pub fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
                self.delays.extend(&other.delays);
                self.troubled_delays.extend(&other.troubled_delays);
            }

            /// Everything counted, with its name.
            #[must_use]
            pub fn lines(&self) -> Vec<(&'static str, u64)> {
                vec![$(($label, self.$field),)*]
            }
        }
    };
}

tally! {
    /// Worlds.
    worlds: "worlds",
    /// Milliseconds of all hosts' lives.
    host_ms: "host-milliseconds",
    /// Attempts of agents.
    beats: "beats sent",
    /// Answered with 200.
    accepted: "beats accepted",
    /// Answered with 409.
    stale: "beats answered with a fresh nonce",
    /// Answered with anything else.
    refused: "beats refused",
    /// Accepted by the other region than the one before.
    moves: "moves of a host to the other region",
    /// Runs of sweepers.
    sweeps: "sweeps",
    /// Runs of functions that failed.
    failures: "runs of functions that failed",
    /// Records in the streams.
    writes: "writes",
    /// Of these, applied in the other region.
    replicated: "writes replicated",
    /// Of these, older than what was there.
    overtaken: "writes overtaken",
    /// Hosts that died.
    deaths: "hosts that died",
    /// Regions that were lost.
    losses: "regions lost",
    /// Replication cut.
    cuts: "links cut",
    /// Messages that arrived.
    receipts: "messages",
    /// Of these, that a host is down.
    downs: "hosts told as down",
    /// Of these, that a host is up.
    ups: "hosts told as up",
    /// Messages about many.
    masses: "messages about many hosts",
    /// Messages about hb itself.
    notices: "messages about hb itself",
    /// Messages that came twice, since an item took too long to the other region.
    duplicates: "duplicates, after a lag beyond the takeover",
    /// Hosts that were told as down although the other region heard them, since an item took too long.
    false_alarms: "false alarms, after a lag beyond a host's patience",
}

impl Tally {
    /// A death was told that long after it could have been.
    pub fn told(&mut self, delay_ms: u64, is_troubled: bool) {
        let delays = if is_troubled { &mut self.troubled_delays } else { &mut self.delays };
        delays.push(delay_ms);
    }
}

/// Half of them, 99 of 100, and the largest, in seconds.
#[must_use]
pub fn quantiles(delays: &[u64]) -> [u64; 3] {
    let mut sorted = delays.to_vec();
    sorted.sort_unstable();
    [50, 99, 100].map(|percent| {
        let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(at).copied().unwrap_or(0) / 1000
    })
}
