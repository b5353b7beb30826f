//! What a run found, and what really ran.

use core::fmt;

/// One broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// When, in milliseconds of virtual time.
    pub at: u64,
    /// Which invariant of TRUST.md.
    pub invariant: &'static str,
    /// What happened, to what.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.at / 1000;
        write!(
            f,
            "{:>3}:{:02}:{:02}.{:03} {} {}",
            s / 3600,
            s / 60 % 60,
            s % 60,
            self.at % 1000,
            self.invariant,
            self.what
        )
    }
}

macro_rules! tally {
    ($($(#[$doc:meta])* $field:ident: $label:literal,)*) => {
        /// What really ran.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Tally {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl Tally {
            /// Adds what another run did.
            pub fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
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
    /// Milliseconds of all hosts' enrolled lives.
    host_ms: "host-milliseconds",
    /// Beats sent by agents.
    beats_sent: "beats sent",
    /// Beats accepted by the server.
    beats_accepted: "beats accepted",
    /// Beats answered 409 or another refusal.
    beats_refused: "beats refused",
    /// Beats answered 503.
    beats_shed: "beats shed",
    /// `down` events of single hosts.
    downs: "DOWN decisions",
    /// Of these, members of a mass silence.
    downs_grouped: "DOWN decisions inside a mass silence",
    /// Incidents of many hosts.
    incidents: "mass silences",
    /// Events stored.
    events: "events",
    /// Messages that arrived at channels.
    receipts: "messages received",
    /// Of these, repeats under the same key.
    repeats: "messages repeated",
    /// Hosts that crashed.
    crashes: "host crashes",
    /// Hosts that rebooted cleanly.
    reboots: "clean reboots",
    /// Agents killed.
    agent_kills: "agents killed",
    /// Hosts that slept.
    sleeps: "host suspensions",
    /// Hosts' links cut.
    link_losses: "host link losses",
    /// Sites that lost power.
    site_losses: "site power losses",
    /// Copies of hosts that were started.
    clones: "clones started",
    /// Agents that lost their state.
    states_lost: "agent states lost",
    /// Servers killed.
    server_kills: "server kills",
    /// Of these, in the middle of a write.
    kills_in_write: "server kills inside a write",
    /// Servers stopped for a while.
    server_pauses: "server pauses",
    /// The server's uplink cut.
    uplink_losses: "uplink losses",
    /// Spans of overload.
    overloads: "overloads",
    /// Spans of a failing store.
    store_failures: "store failures",
    /// Store calls that failed.
    store_faults: "store calls failed",
    /// Steps of the wall clock.
    wall_steps: "wall clock steps",
    /// Backups restored.
    restores: "backups restored",
    /// Channels that got into trouble.
    channel_troubles: "channel troubles",
    /// Requests lost.
    lost: "requests or answers lost",
    /// Requests delayed beyond their time-out.
    delayed: "requests delayed 40 to 60 s",
    /// Requests that arrived twice.
    duplicated: "requests duplicated",
    /// Captured requests sent again.
    replays: "replays",
    /// Requests kept back by the attacker.
    withheld: "requests withheld",
    /// Requests forged or tampered with.
    forgeries: "forgeries",
    /// Operators' pauses.
    pauses: "pauses",
    /// Operators' edits.
    edits: "edits",
    /// Announced maintenances.
    maintenances: "maintenances",
    /// Goodbyes accepted.
    goodbyes: "goodbyes",
}

/// What became of one world.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// What broke.
    pub violations: Vec<Violation>,
    /// What ran.
    pub tally: Tally,
    /// A number that two runs of the same seed share.
    pub trace: u64,
}

impl Tally {
    /// Hours of all hosts' enrolled lives.
    #[must_use]
    pub fn host_hours(&self) -> u64 {
        self.host_ms / 3_600_000
    }
}

/// Tells what happens, for people who look for the reason.
#[expect(clippy::print_stderr, reason = "asked for with --verbose, and nothing else writes there")]
pub fn say(now: u64, text: &str) {
    let s = now / 1000;
    eprintln!("{:>3}:{:02}:{:02}.{:03} {text}", s / 3600, s / 60 % 60, s % 60, now % 1000);
}
