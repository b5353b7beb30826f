//! The slim item of a host: what a beat changes, and all that a sweep needs to know.
//!
//! An item is *open* while the next beat may take the fast path ([`hb_store::fast::is_open`]): then it, and not the host's
//! document, says what was last heard. Its deadline is kept as the sum that a condition can compare, and every beat moves it
//! on with what the item itself says ([`Live::MOVE_ON`]), so that a beat reads nothing. Otherwise it is *closed*: the host's
//! document says everything, and the item only says which state it is, and when to look at it.
//!
//! | attribute | what | when |
//! |---|---|---|
//! | `r` | the host's revision | always |
//! | `c` | how often the host was decided about: ties the item to the document, together with `g` | always |
//! | `i`, `w` | interval; interval and grace (ms) | always |
//! | `n`, `x` | the nonce that the next beat spends; its end (ms) | open |
//! | `h` | who holds the key, and faults: [`crate::pack::holder`] | open |
//! | `q`, `v` | the agent's counter; readings: [`crate::pack::Readings`] | open |
//! | `d` | the deadline before any credit (ms) | open, or armed |
//! | `b` | patience with silence, if it is not `w` (ms) | up |
//! | `y` | when it was last heard, if silence does not count from there (ms) | open |
//! | `m` | the end of an announced maintenance (ms) | up |
//! | `k` | the state | closed |
//! | `z` | since when it is silent, or down (ms) | closed, up or down |
//! | `u`, `t` | what a beat adds to the time for [`TTL`]; its value (s) | armed |
//! | `g` | the region that heard it last, or decided about it: its owner | where there are regions |

use aws_sdk_dynamodb::types::AttributeValue;
use hb_core::host::{Host, Life, State, Wish};
use hb_core::ledger::Ledger;
use hb_core::policy::Policy;
use hb_core::time::Time;
use hb_store::{Beat, Result, check_at, fast};
use hb_wire::id::HostId;
use hb_wire::key::PublicKey;
use hb_wire::name::{HostName, Tags};
use hb_wire::nonce::Nonce;
use hb_wire::view::Class;

use crate::calls::{Condition, sk};
use crate::item::{Item, bytes, corrupt, need_bytes, need_number, number, set, some_number, some_time, text, time};
use crate::keys;
use crate::pack::{self, Readings};
use crate::regions::OWNER;
use crate::table::TTL;
use crate::version::Tag;

/// How long after its deadline DynamoDB may remove an item, in seconds: long enough for every sweep to have been there.
pub const TTL_SLACK_S: u64 = 3600;
/// No item is kept for longer than this after it was last written, if it is kept for a time at all: 10 years.
const TTL_S_MAX: u64 = 10 * 365 * 24 * 3600;
/// The patience with hosts whose silence is no alarm: the first that no [`Time`] reaches.
const NEVER_MS: u128 = 1 << 64;

/// One slim item.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub(crate) id: HostId,
    pub(crate) tag: Tag,
    pub(crate) interval_ms: u64,
    pub(crate) need_ms: u64,
    /// Without maintenance.
    deadline: Option<u128>,
    maintenance: Option<Time>,
    /// False: it may be away for longer than interval plus grace.
    is_always_on: bool,
    form: Form,
}

#[derive(Debug, Clone)]
enum Form {
    /// `None`: silence is no alarm.
    Open {
        silent_from: Time,
        patience: Option<u64>,
    },
    Closed {
        state: char,
        since: Option<Time>,
    },
}

impl Live {
    /// What a beat does to an open item: everything that it changes follows from itself and from the item.
    const MOVE_ON: &str = "SET n=:n, x=w+:t, d=if_not_exists(b, w)+:t, q=:q, v=:v, r=r+:one, t=u+:s";

    /// What a beat does, and the conditions under which it may: [`fast::takes`] in DynamoDB's words.
    pub(crate) fn beat(beat: &Beat, region: &str) -> (String, Condition) {
        let mut condition = Condition::new(
            "n = :spent AND i = :i AND h = :h AND q < :q AND x >= :t AND (d >= :t OR m >= :t)",
            [
                (":spent", bytes(beat.spent.0)),
                (":i", number(beat.interval_ms)),
                (":h", bytes(pack::holder(&beat.holder, beat.faults.iter().copied()))),
                (":q", number(beat.seq)),
                (":t", time(beat.now)),
                (":s", number(beat.now.0 / 1000)),
                (":n", bytes(beat.next.0)),
                (":v", bytes(Readings::of_beat(beat))),
                (":one", number(1)),
            ],
        );
        if !region.is_empty() {
            // Another region's host is decided about: then document and item change their owner together.
            condition.values.push((":g", text(region)));
            condition.expression.push_str(" AND g = :g");
        }
        (format!("{} REMOVE y", Self::MOVE_ON), condition)
    }

    /// True when this is what that very beat left: an answer was lost, and the beat asked again.
    pub(crate) fn is_left_by(item: &Item, beat: &Beat) -> bool {
        beat.spent != beat.next
            && item.get("n") == Some(&bytes(beat.next.0))
            && item.get("q") == Some(&number(beat.seq))
            && item.get("v") == Some(&bytes(Readings::of_beat(beat)))
    }

    /// The slim item of a host.
    pub(crate) fn write(host: &Host, shard: u16, rev: u64, tag: &Tag) -> Item {
        let is_retired = matches!(host.state, State::Retired { .. });
        let prefix = if is_retired { keys::RETIRED } else { keys::LIVE };
        let mut item = keys::live(prefix, shard, host.id).attributes();
        let mut put = |name: &str, value: AttributeValue| item.insert(name.to_owned(), value);
        put("r", number(rev));
        put("c", number(tag.generation));
        put("i", number(host.interval_ms));
        put("w", number(host.need_ms()));
        if let (Some(holder), true) = (host.life.holder, fast::is_open(host)) {
            let life = &host.life;
            let need = u128::from(host.need_ms());
            let patience = host.patience_ms().map_or(NEVER_MS, u128::from);
            put("n", bytes(life.nonce.0));
            put("x", number(u128::from(life.nonce_at.0) + need));
            put("d", number(u128::from(life.silent_from.0) + patience));
            put("h", bytes(pack::holder(&holder, life.faults.iter().copied())));
            put("q", number(life.seq));
            put("v", bytes(Readings::of(life)));
            if patience != need {
                put("b", number(patience));
            }
            if life.heard_at != Some(life.silent_from) {
                put("y", life.heard_at.map_or(AttributeValue::Null(true), time));
            }
            let until = host.maintenance.as_ref().map(|maintenance| maintenance.until);
            let lasts_s = keep_s(host, until);
            put("u", number(lasts_s));
            put(TTL, number((life.silent_from.0 / 1000).saturating_add(lasts_s)));
            set(&mut item, "m", until.map(time));
        } else {
            let since = match &host.state {
                State::Up { .. } => Some(host.life.silent_from),
                State::Down(outage) => Some(outage.since),
                State::New | State::Stopped { .. } | State::Paused { .. } | State::Retired { .. } => None,
            };
            put("k", text(letter(host).to_string()));
            let floor = check_at(host);
            set(&mut item, "z", since.map(time));
            if matches!(host.state, State::Up { .. }) {
                let patience = (!host.is_always_on()).then(|| host.patience_ms().map_or(NEVER_MS, u128::from));
                set(&mut item, "b", patience.map(number));
                set(&mut item, "m", host.maintenance.as_ref().map(|maintenance| time(maintenance.until)));
            }
            set(&mut item, "d", floor.map(time));
            set(&mut item, TTL, floor.map(|floor| number((floor.0 / 1000).saturating_add(TTL_SLACK_S))));
        }
        set(&mut item, OWNER, tag.owner.as_ref().map(text));
        item
    }

    pub(crate) fn read(item: &Item) -> Result<Self> {
        let id = keys::from_short(sk(item)).map(HostId).ok_or_else(|| corrupt(item, "s"))?;
        let need_ms = need_number(item, "w")?;
        let deadline: Option<u128> = some_number(item, "d")?;
        let form = if let Some(state) = item.get("k") {
            let state = state.as_s().ok().and_then(|state| state.chars().next());
            Form::Closed { state: state.ok_or_else(|| corrupt(item, "k"))?, since: some_time(item, "z")? }
        } else {
            let patience: u128 = some_number(item, "b")?.unwrap_or(u128::from(need_ms));
            let from = deadline.and_then(|deadline| u64::try_from(deadline.checked_sub(patience)?).ok());
            let silent_from = from.map(Time).ok_or_else(|| corrupt(item, "d"))?;
            Form::Open { silent_from, patience: u64::try_from(patience).ok() }
        };
        Ok(Self {
            id,
            tag: Tag::read(item)?,
            interval_ms: need_number(item, "i")?,
            need_ms,
            deadline,
            maintenance: some_time(item, "m")?,
            is_always_on: !item.contains_key("b"),
            form,
        })
    }

    /// What was last heard, if the item is what says so.
    pub(crate) fn life(item: &Item) -> Result<Option<Life>> {
        let live = Self::read(item)?;
        let Form::Open { silent_from, .. } = live.form else { return Ok(None) };
        let (holder, faults) = pack::read_holder(need_bytes(item, "h")?).ok_or_else(|| corrupt(item, "h"))?;
        let readings = Readings::read(need_bytes(item, "v")?).ok_or_else(|| corrupt(item, "v"))?;
        let nonce = need_bytes(item, "n")?.try_into().map_err(|_| corrupt(item, "n"))?;
        let end: u128 = need_number(item, "x")?;
        let issued = end.checked_sub(u128::from(live.need_ms)).and_then(|issued| u64::try_from(issued).ok());
        let heard_at = match item.get("y") {
            None => Some(silent_from),
            Some(AttributeValue::Null(_)) => None,
            Some(_) => some_time(item, "y")?,
        };
        Ok(Some(Life {
            nonce: Nonce(nonce),
            nonce_at: Time(issued.ok_or_else(|| corrupt(item, "x"))?),
            heard_at,
            silent_from,
            holder: Some(holder),
            seq: need_number(item, "q")?,
            up_s: readings.up_s,
            skew_ms: readings.skew_ms,
            agent: readings.agent,
            faults,
            vitals: readings.vitals,
        }))
    }

    /// The state in a word.
    pub(crate) fn word(&self) -> &'static str {
        match self.form {
            Form::Open { .. } => "up",
            Form::Closed { state, .. } => match state {
                'n' => "new",
                'u' => "up",
                'd' | 'g' => "down",
                's' => "stopped",
                'p' => "paused",
                _ => "retired",
            },
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.word() == "up"
    }

    /// Up, always on, and in no maintenance: [`Host::is_expected`].
    pub(crate) fn is_expected(&self, now: Time) -> bool {
        self.is_up() && self.is_always_on && self.maintenance.is_none_or(|until| until <= now)
    }

    /// Expected, and past its interval.
    pub(crate) fn is_missed(&self, now: Time) -> bool {
        self.is_expected(now) && self.is_late(now)
    }

    /// Up, and past its interval.
    pub(crate) fn is_late(&self, now: Time) -> bool {
        self.silent_from().is_some_and(|from| from.plus(self.interval_ms) < now)
    }

    /// From when silence counts, of a host that is up.
    pub(crate) fn silent_from(&self) -> Option<Time> {
        match self.form {
            Form::Open { silent_from, .. } => Some(silent_from),
            Form::Closed { state: 'u', since } => since,
            Form::Closed { .. } => None,
        }
    }

    /// Declared down on its own, no longer than an interval ago.
    pub(crate) fn fell_alone(&self, now: Time) -> bool {
        let Form::Closed { state: 'd', since: Some(since) } = self.form else { return false };
        now.since(since) <= self.interval_ms
    }

    /// The earliest instant at which there could be something to decide: never later than the alarm.
    pub(crate) fn floor(&self) -> Option<Time> {
        if let Form::Open { patience: None, .. } = self.form {
            return None;
        }
        let deadline = self.deadline?;
        let deadline = Time(u64::try_from(deadline).unwrap_or(u64::MAX));
        Some(self.maintenance.map_or(deadline, |until| deadline.max(until)))
    }

    /// True when the item itself says when there is something to decide; of a closed one only the document knows.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.form, Form::Open { .. })
    }

    /// When there is something to decide, for an open item.
    pub(crate) fn alarm(&self, ledger: &Ledger, policy: &Policy) -> Option<Time> {
        let Form::Open { silent_from, patience } = self.form else { return None };
        let mut host = likeness()?;
        host.interval_ms = self.interval_ms;
        host.grace_ms = self.need_ms.saturating_sub(self.interval_ms);
        if patience != Some(self.need_ms) {
            host.class = Class::Intermittent;
            host.max_away_ms = patience;
        }
        host.life.silent_from = silent_from;
        host.state = State::Up { since: silent_from };
        let note = String::new();
        host.maintenance = self.maintenance.map(|until| hb_core::host::Maintenance { until, note });
        host.alarm_at(ledger, policy)
    }

    /// Which region looks after this host.
    pub(crate) fn owner(&self) -> Option<&str> {
        self.tag.owner.as_deref()
    }
}

/// A host to fill in: so that [`Host::alarm_at`] stays the only definition of a deadline.
fn likeness() -> Option<Host> {
    let wish = Wish {
        name: HostName::parse("x").ok()?,
        tags: Tags::default(),
        class: Class::Server,
        interval_s: 0,
        grace_s: 0,
        max_away_s: None,
    };
    Some(wish.enrol(HostId(uuid::Uuid::nil()), PublicKey([0; 32]), Nonce::NONE, Time::ZERO))
}

/// For how many seconds after a beat an item is kept.
fn keep_s(host: &Host, maintenance: Option<Time>) -> u64 {
    let patience = host.patience_ms().unwrap_or(u64::MAX);
    let patience = patience.max(maintenance.map_or(0, |until| until.since(host.life.silent_from)));
    patience.div_ceil(1000).saturating_add(TTL_SLACK_S).min(TTL_S_MAX)
}

/// The state of a closed item.
fn letter(host: &Host) -> char {
    match &host.state {
        State::New => 'n',
        State::Up { .. } => 'u',
        State::Down(outage) if outage.grouped => 'g',
        State::Down(_) => 'd',
        State::Stopped { .. } => 's',
        State::Paused { .. } => 'p',
        State::Retired { .. } => 'z',
    }
}
