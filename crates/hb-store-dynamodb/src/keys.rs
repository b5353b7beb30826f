//! Where things are: every key of the table is made here.
//!
//! The key prefixes are public so that the permissions of the functions on AWS (`dynamodb:LeadingKeys`) can be compared
//! with them. No other module writes one down.

use hb_wire::id::{ChannelId, DeliveryId, EventId, HostId, IncidentId};
use hb_wire::key::PublicKey;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::item::{Item, text};
use crate::table::{PK, SK};

/// What a beat writes, and nothing else of the table: `L#<shard>`, one slim item for each host that is not retired.
pub const LIVE: &str = "L#";
/// The slim items of retired hosts, which no sweep reads: `Z#<shard>`.
pub const RETIRED: &str = "Z#";
/// Hosts as they were last decided about: `H#<host>`.
pub const HOST: &str = "H#";
/// Whose a public key is: `P#<key>`.
pub const PUBLIC_KEY: &str = "P#";
/// Whose a name is, among hosts that are not retired: `M#<name>`.
pub const NAME: &str = "M#";
/// Hosts in the order of their names: `N#live`, `N#retired`.
pub const NAMES: &str = "N#";
/// Hosts that have a tag: `G#<key>=<value>`.
pub const TAG: &str = "G#";
/// Hosts whose open outage belongs to an incident: `X#<incident>`.
pub const OUTAGE: &str = "X#";
/// A host's events in the order of storing: `E#<host>`; `E#-` are the server's.
pub const HISTORY: &str = "E#";
/// Where an event is: `V#<event>`.
pub const EVENT: &str = "V#";
/// All events in the order of storing: `T#all`.
pub const TIMELINE: &str = "T#";
/// Events whose deliveries are not made yet: `U#all`.
pub const UNTOLD: &str = "U#";
/// Events of a change that was too large for one transaction: `W#all`.
pub const STAGED: &str = "W#";
/// Documents that are too large for the item they belong to, in pages: `B#<what>`.
pub const PAGES: &str = "B#";
/// An incident, its members, and pointers to its deliveries: `I#<incident>`.
pub const INCIDENT: &str = "I#";
/// Incidents that are not closed: `O#all`.
pub const OPEN: &str = "O#";
/// Pending deliveries in the order of storing: `Q#all`.
pub const PENDING: &str = "Q#";
/// Finished deliveries in the order of storing: `F#delivered`, `F#merged`, `F#dead`.
pub const FINISHED: &str = "F#";
/// Where a delivery is: `D#<delivery>`.
pub const DELIVERY: &str = "D#";
/// API keys: `A#all`.
pub const API_KEY: &str = "A#";
/// Enrolment tokens: `C#all`.
pub const TOKEN: &str = "C#";
/// The keys that a token enrolled: `R#<token>`.
pub const REDEEMED: &str = "R#";
/// Channels: `Y#all`, and their names: `Y#names`.
pub const CHANNEL: &str = "Y#";
/// What the store and the server know of themselves: `S#all`.
pub const SERVER: &str = "S#";

/// Every prefix. No two begin alike, so that a pattern of one never matches another.
pub const ALL: [&str; 24] = [
    LIVE, RETIRED, HOST, PUBLIC_KEY, NAME, NAMES, TAG, OUTAGE, HISTORY, EVENT, TIMELINE, UNTOLD, STAGED, PAGES,
    INCIDENT, OPEN, PENDING, FINISHED, DELIVERY, API_KEY, TOKEN, REDEEMED, CHANNEL, SERVER,
];

/// Longest text from outside that may become part of a key, in bytes: sort keys end at 1024.
pub(crate) const TEXT_BYTES_MAX: usize = 900;

/// One item's key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) pk: String,
    pub(crate) sk: String,
}

impl Key {
    pub(crate) fn new(pk: String, sk: impl Into<String>) -> Self {
        Self { pk, sk: sk.into() }
    }

    /// As attributes.
    pub(crate) fn attributes(&self) -> Item {
        Item::from([(PK.to_owned(), text(&self.pk)), (SK.to_owned(), text(&self.sk))])
    }

    /// The key of an item.
    pub(crate) fn of(item: &Item) -> Option<Self> {
        let pk = item.get(PK)?.as_s().ok()?.clone();
        let sk = item.get(SK)?.as_s().ok()?.clone();
        Some(Self { pk, sk })
    }
}

/// The only partition of a kind that has one.
pub(crate) fn all(prefix: &str) -> String {
    format!("{prefix}all")
}

/// The shard of a host among so many.
pub(crate) fn shard(id: HostId, shards: u16) -> u16 {
    // The random part of the id would do; but who chooses ids must not choose shards.
    let hash = Sha256::digest(id.0.as_bytes());
    u16::from_be_bytes([hash[0], hash[1]]) % shards.max(1)
}

pub(crate) fn shard_pk(prefix: &str, shard: u16) -> String {
    format!("{prefix}{shard:02}")
}

pub(crate) fn live(prefix: &str, shard: u16, id: HostId) -> Key {
    Key::new(shard_pk(prefix, shard), short(id.0))
}

pub(crate) fn host(id: HostId) -> Key {
    Key::new(format!("{HOST}{}", id.0), "H")
}

pub(crate) fn public_key(key: &PublicKey) -> Key {
    Key::new(format!("{PUBLIC_KEY}{key}"), "P")
}

pub(crate) fn name(name: &str) -> Key {
    Key::new(format!("{NAME}{name}"), "M")
}

/// `is_retired` hosts are listed apart, so that they cost nothing where nobody asks for them.
pub(crate) fn names_pk(is_retired: bool) -> String {
    format!("{NAMES}{}", if is_retired { "retired" } else { "live" })
}

/// Sorts as (name, id) does: `!` comes before everything that a name may hold.
pub(crate) fn by_name(name: &str, id: HostId) -> String {
    format!("{name}!{}", id.0)
}

/// The id in a sort key made by [`by_name`].
pub(crate) fn id_by_name(sk: &str) -> Option<HostId> {
    Uuid::parse_str(sk.rsplit_once('!')?.1).ok().map(HostId)
}

pub(crate) fn tag_pk(key: &str, value: &str) -> String {
    format!("{TAG}{key}={value}")
}

pub(crate) fn outage_pk(incident: IncidentId) -> String {
    format!("{OUTAGE}{}", incident.0)
}

/// The partition of a host's events; without a host, of the server's.
pub(crate) fn history_pk(host: Option<HostId>) -> String {
    host.map_or_else(|| format!("{HISTORY}-"), |host| format!("{HISTORY}{}", host.0))
}

pub(crate) fn event(id: EventId) -> Key {
    Key::new(format!("{EVENT}{}", id.0), "V")
}

pub(crate) fn incident_pk(id: IncidentId) -> String {
    format!("{INCIDENT}{}", id.0)
}

pub(crate) fn incident(id: IncidentId) -> Key {
    Key::new(incident_pk(id), "H")
}

/// What members of an incident begin with that belong to one writing of its list.
pub(crate) fn members(list: u64) -> String {
    format!("M#{}#", position(list))
}

/// What pointers to an incident's deliveries begin with.
pub(crate) const DELIVERY_OF: &str = "D#";

pub(crate) fn delivery(id: DeliveryId) -> Key {
    Key::new(format!("{DELIVERY}{}", id.0), "D")
}

pub(crate) fn api_key(id: &str) -> Key {
    Key::new(all(API_KEY), format!("k:{id}"))
}

pub(crate) fn token(id: &str) -> Key {
    Key::new(all(TOKEN), format!("t:{id}"))
}

pub(crate) fn redeemed_pk(id: &str) -> String {
    format!("{REDEEMED}{id}")
}

pub(crate) fn channel(id: ChannelId) -> Key {
    Key::new(all(CHANNEL), id.0.to_string())
}

pub(crate) fn channel_name(name: &str) -> Key {
    Key::new(format!("{CHANNEL}names"), format!("n:{name}"))
}

pub(crate) fn server(what: &str) -> Key {
    Key::new(all(SERVER), what)
}

/// What a region has for itself; without regions there is only one.
pub(crate) fn of_region(what: &str, region: &str) -> String {
    if region.is_empty() { what.to_owned() } else { format!("{what}@{region}") }
}

/// A position as a sort key: sorts as the number does.
pub(crate) fn position(position: u64) -> String {
    format!("{position:020}")
}

/// An id in 22 characters that sort as its bytes do; a UUID as people write it would make every slim item 14 bytes longer.
#[must_use]
pub fn short(id: Uuid) -> String {
    let number = id.as_u128();
    // The first character holds the 2 bits that are left over, so that all others hold 6.
    (0..22_u32).rev().map(|place| char::from(ALPHABET[usize::from(digit(number, place))])).collect()
}

fn digit(number: u128, place: u32) -> u8 {
    u8::try_from((number >> (6 * place)) & 63).unwrap_or(0)
}

/// The id that [`short`] wrote.
pub(crate) fn from_short(text: &str) -> Option<Uuid> {
    if text.len() != 22 {
        return None;
    }
    let mut number = 0_u128;
    for (byte, place) in text.bytes().zip(0..) {
        let digit = u128::try_from(ALPHABET.iter().position(|known| *known == byte)?).ok()?;
        if place == 0 && digit > 3 {
            return None;
        }
        number = (number << 6) | digit;
    }
    Some(Uuid::from_u128(number))
}

/// In the order of ASCII.
const ALPHABET: &[u8; 64] = b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_prefix_begins_with_another() {
        for (n, one) in ALL.iter().enumerate() {
            assert!(ALL.iter().skip(n + 1).all(|other| !one.starts_with(other) && !other.starts_with(one)), "{one}");
        }
    }

    #[test]
    fn short_ids_are_read_back_and_sort_as_their_bytes_do() {
        let ids = [0, 1, 63, 64, u128::MAX, u128::MAX - 1, 1 << 127, 0x0190_0000_0000_7000_8000_0000_0000_0000];
        for one in ids {
            let (one, text) = (Uuid::from_u128(one), short(Uuid::from_u128(one)));
            assert_eq!((text.len(), from_short(&text)), (22, Some(one)));
            for other in ids.map(Uuid::from_u128) {
                assert_eq!(text.cmp(&short(other)), one.cmp(&other));
            }
        }
        for bad in ["", "short", "~~~~~~~~~~~~~~~~~~~~~~", "zzzzzzzzzzzzzzzzzzzzzz"] {
            assert_eq!(from_short(bad), None, "{bad}");
        }
    }

    #[test]
    fn shards_are_even_and_do_not_follow_the_time_in_an_id() {
        let mut hosts = [0; 16];
        for n in 0..16_000_u64 {
            let mut random = [0; 10];
            random[2..].copy_from_slice(&n.to_be_bytes());
            hosts[usize::from(shard(HostId::mint(n, random), 16))] += 1;
        }
        assert!(hosts.iter().all(|held| (850..1150).contains(held)), "{hosts:?}");
        assert_eq!(shard(HostId::mint(1, [1; 10]), 0), 0, "no shards are one");
    }
}
