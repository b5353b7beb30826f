//! What a beat says in as few bytes as will do: these are read again by every sweep, for every host.

use std::collections::{BTreeMap, BTreeSet};

use hb_core::host::{Holder, Life};
use hb_store::Beat;
use hb_wire::beat::{Fault, Vitals};
use hb_wire::id::{BootId, RunId};
use uuid::Uuid;

/// Holder and faults: what must be the same for a beat to take the fast path, so that one comparison says so. The boot,
/// the run if there is one, and a byte of faults if there are any: its length tells these apart.
pub(crate) fn holder(holder: &Holder, faults: impl IntoIterator<Item = Fault>) -> Vec<u8> {
    let mut packed = holder.boot.0.as_bytes().to_vec();
    if let Some(run) = holder.run {
        packed.extend_from_slice(run.0.as_bytes());
    }
    let mask = faults.into_iter().fold(0, |mask, fault| mask | bit(fault));
    if mask != 0 {
        packed.push(mask);
    }
    packed
}

/// What [`holder`] packed.
pub(crate) fn read_holder(packed: &[u8]) -> Option<(Holder, BTreeSet<Fault>)> {
    let (ids, mask) = match packed.len() {
        16 | 32 => (packed, 0),
        17 | 33 => packed.split_last().map(|(mask, ids)| (ids, *mask))?,
        _ => return None,
    };
    let (boot, run) = ids.split_at_checked(16)?;
    let run = if run.is_empty() { None } else { Some(RunId(Uuid::from_slice(run).ok()?)) };
    let boot = BootId(Uuid::from_slice(boot).ok()?);
    let faults = FAULTS.into_iter().filter(|fault| mask & bit(*fault) != 0).collect();
    Some((Holder { run, boot }, faults))
}

const FAULTS: [Fault; 3] = [Fault::StateUnwritable, Fault::DiskFull, Fault::RootReadOnly];

/// A fault's bit; a stored one must never change.
fn bit(fault: Fault) -> u8 {
    match fault {
        Fault::StateUnwritable => 1,
        Fault::DiskFull => 2,
        Fault::RootReadOnly => 4,
    }
}

/// What a beat says about its host besides who sends it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Readings {
    pub(crate) up_s: u64,
    pub(crate) skew_ms: Option<i64>,
    pub(crate) agent: String,
    pub(crate) vitals: Option<Vitals>,
}

impl Readings {
    pub(crate) fn of(life: &Life) -> Vec<u8> {
        pack(life.up_s, life.skew_ms, &life.agent, life.vitals.as_ref())
    }

    pub(crate) fn of_beat(beat: &Beat) -> Vec<u8> {
        pack(beat.up_s, beat.skew_ms, &beat.agent, beat.vitals.as_ref())
    }

    pub(crate) fn read(packed: &[u8]) -> Option<Self> {
        let mut rest = packed;
        let flags = byte(&mut rest)?;
        let up_s = varint(&mut rest)?;
        let skew_ms = if flags & SKEW != 0 { Some(unzigzag(varint(&mut rest)?)) } else { None };
        let length = usize::try_from(varint(&mut rest)?).ok()?;
        let agent = String::from_utf8(take(&mut rest, length)?.to_vec()).ok()?;
        let vitals = if flags & VITALS != 0 { Some(read_vitals(&mut rest)?) } else { None };
        rest.is_empty().then_some(Self { up_s, skew_ms, agent, vitals })
    }
}

const SKEW: u8 = 1;
const VITALS: u8 = 2;

fn pack(up_s: u64, skew_ms: Option<i64>, agent: &str, vitals: Option<&Vitals>) -> Vec<u8> {
    let mut packed = vec![flag(skew_ms.is_some(), SKEW) | flag(vitals.is_some(), VITALS)];
    put_varint(&mut packed, up_s);
    if let Some(skew) = skew_ms {
        put_varint(&mut packed, zigzag(skew));
    }
    put_varint(&mut packed, u64::try_from(agent.len()).unwrap_or(0));
    packed.extend_from_slice(agent.as_bytes());
    if let Some(vitals) = vitals {
        pack_vitals(&mut packed, vitals);
    }
    packed
}

fn flag(is: bool, bit: u8) -> u8 {
    if is { bit } else { 0 }
}

const LOAD: u8 = 1;
const CPUS: u8 = 2;
const MEM_USED: u8 = 4;
const MEM_TOTAL: u8 = 8;
const DISK_FREE: u8 = 16;
const DISK_TOTAL: u8 = 32;
const MORE: u8 = 64;

fn pack_vitals(packed: &mut Vec<u8>, vitals: &Vitals) {
    let numbers = [
        (CPUS, vitals.cpus.map(u64::from)),
        (MEM_USED, vitals.mem_used_bytes),
        (MEM_TOTAL, vitals.mem_total_bytes),
        (DISK_FREE, vitals.disk_free_bytes),
        (DISK_TOTAL, vitals.disk_total_bytes),
    ];
    let mut mask = flag(vitals.load1.is_some(), LOAD) | flag(!vitals.more.is_empty(), MORE);
    for (bit, number) in numbers {
        mask |= flag(number.is_some(), bit);
    }
    packed.push(mask);
    if let Some(load) = vitals.load1 {
        packed.extend_from_slice(&load.to_bits().to_be_bytes());
    }
    for number in numbers.into_iter().filter_map(|(_, number)| number) {
        put_varint(packed, number);
    }
    if !vitals.more.is_empty() {
        // Every key is a text, and every value came from JSON.
        packed.extend(serde_json::to_vec(&vitals.more).unwrap_or_default());
    }
}

fn read_vitals(rest: &mut &[u8]) -> Option<Vitals> {
    let mask = byte(rest)?;
    let mut vitals = Vitals::default();
    if mask & LOAD != 0 {
        vitals.load1 = Some(f64::from_bits(u64::from_be_bytes(take(rest, 8)?.try_into().ok()?)));
    }
    let mut number = |bit| if mask & bit != 0 { varint(rest).map(Some) } else { Some(None) };
    let cpus = number(CPUS)?;
    vitals.mem_used_bytes = number(MEM_USED)?;
    vitals.mem_total_bytes = number(MEM_TOTAL)?;
    vitals.disk_free_bytes = number(DISK_FREE)?;
    vitals.disk_total_bytes = number(DISK_TOTAL)?;
    vitals.cpus = cpus.map(u32::try_from).transpose().ok()?;
    if mask & MORE != 0 {
        let more: BTreeMap<String, serde_json::Value> = serde_json::from_slice(rest).ok()?;
        vitals.more = more;
        *rest = &[];
    }
    Some(vitals)
}

fn byte(rest: &mut &[u8]) -> Option<u8> {
    let (first, after) = rest.split_first()?;
    *rest = after;
    Some(*first)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}

/// Seven bits to a byte, the lowest first; the highest bit says that more follow.
fn put_varint(packed: &mut Vec<u8>, mut number: u64) {
    loop {
        let low = u8::try_from(number & 127).unwrap_or(0);
        number >>= 7;
        packed.push(if number == 0 { low } else { low | 128 });
        if number == 0 {
            return;
        }
    }
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for place in 0..10 {
        let next = byte(rest)?;
        number |= u64::from(next & 127).checked_shl(7 * place)?;
        if next & 128 == 0 {
            return Some(number);
        }
    }
    None
}

/// Small numbers stay small whatever their sign.
fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_read_back_to_the_last_bit() {
        let mut full = Vitals {
            load1: Some(0.1 + 0.2),
            cpus: Some(u32::MAX),
            mem_used_bytes: Some(u64::MAX),
            mem_total_bytes: Some(0),
            disk_free_bytes: Some(127),
            disk_total_bytes: Some(128),
            ..Vitals::default()
        };
        full.more.insert("température".into(), serde_json::json!(1.0 / 3.0));
        let some = Vitals { disk_free_bytes: Some(1 << 40), ..Vitals::default() };
        for vitals in [None, Some(Vitals::default()), Some(some), Some(full)] {
            for skew_ms in [None, Some(0), Some(-1), Some(i64::MIN), Some(i64::MAX)] {
                for (up_s, agent) in [(0, ""), (u64::MAX, "9.9-β")] {
                    let readings = Readings { up_s, skew_ms, agent: agent.to_owned(), vitals: vitals.clone() };
                    let packed = pack(up_s, skew_ms, agent, vitals.as_ref());
                    assert_eq!(Readings::read(&packed), Some(readings));
                    assert_eq!(Readings::read(&packed[..packed.len() - 1]), None, "cut short");
                }
            }
        }
    }

    #[test]
    fn holder_and_faults_are_read_back_in_every_combination() {
        let id = Uuid::from_u128(7);
        for run in [None, Some(RunId(id))] {
            for mask in 0..8_u8 {
                let faults: BTreeSet<Fault> = FAULTS.into_iter().filter(|fault| mask & bit(*fault) != 0).collect();
                let held = Holder { run, boot: BootId(Uuid::from_u128(9)) };
                let twice = faults.iter().chain(&faults).copied();
                assert_eq!(read_holder(&holder(&held, twice)), Some((held, faults)));
            }
        }
        assert_eq!(read_holder(&[0; 15]), None);
    }
}
