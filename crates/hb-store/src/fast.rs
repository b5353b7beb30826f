//! The fast path of a beat, in plain code: what every store's conditional write must agree with.

use hb_core::host::{Host, State};
use hb_core::policy::Policy;

use crate::Beat;

/// True while a host's next beat may take the fast path at all: it is `up`, its holder is not in quarantine, and its silence
/// counts from when it was heard. Where an operator moved that on, even to an instant ahead, the next beat may bring the alarm
/// forward: then it has to be decided about, so that a store that indexes alarms hears of it.
///
/// Nothing that a beat on the fast path writes changes it, so that a store may keep it in a column.
#[must_use]
pub fn is_open(host: &Host) -> bool {
    let Some(holder) = host.life.holder else { return false };
    // A clone may share the run of the live holder (a memory image that was started twice): the machine refuses both.
    let quarantined =
        host.quarantine.iter().any(|clone| *clone == holder || (clone.run.is_some() && clone.run == holder.run));
    let counts_from_beat = host.life.heard_at.is_some_and(|heard_at| host.life.silent_from <= heard_at);
    matches!(host.state, State::Up { .. }) && counts_from_beat && !quarantined
}

/// True when every condition of [`crate::Store::beat`] holds.
#[must_use]
pub fn takes(host: &Host, beat: &Beat) -> bool {
    let life = &host.life;
    is_open(host)
        && life.nonce == beat.spent
        && host.interval_ms == beat.interval_ms
        && beat.now.since(life.nonce_at) <= host.need_ms()
        // For a host that is up, no number of the policy has a part in its deadline before credit.
        && host.alarm_floor(&Policy::STANDARD).is_none_or(|deadline| beat.now <= deadline)
        && life.holder == Some(beat.holder)
        && beat.seq > life.seq
        && beat.faults.len() >= life.faults.len()
        && beat.faults.iter().all(|fault| life.faults.contains(fault))
        && life.faults.iter().all(|fault| beat.faults.contains(fault))
}

/// Writes what a beat on the fast path changes.
pub fn apply(host: &mut Host, beat: Beat) {
    let life = &mut host.life;
    life.nonce = beat.next;
    life.nonce_at = beat.now;
    life.heard_at = Some(beat.now);
    life.silent_from = beat.now;
    life.seq = beat.seq;
    life.up_s = beat.up_s;
    life.skew_ms = beat.skew_ms;
    life.agent = beat.agent;
    life.vitals = beat.vitals;
}
