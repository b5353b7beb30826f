//! A host's document, and everything else that follows from it: the places under which a host is found.
//!
//! Every write of a host goes through [`places`]: what the host was is compared with what it becomes, and only the
//! differences are written, in the same transaction.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::AttributeValue;
use hb_core::event::Subject;
use hb_core::host::{Host, State};
use hb_store::{Result, StoreError, Versioned};
use hb_wire::id::HostId;

use crate::calls::{Condition, Table};
use crate::item::{DOC, Item, corrupt, doc, item, json, need_number, number, text};
use crate::keys::{self, Key};
use crate::live::Live;
use crate::transaction::{Role, Transaction};

/// A slim item that is gone (its time to live ended, and nobody put it back) had an unknown number of beats. What is based
/// on its absence gets a revision beyond all of them.
const GONE: u64 = 1 << 40;
/// How often a host is read again whose two items do not belong together, because it is being written.
const READS_MAX: u32 = 6;

/// A host as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) host: Host,
    pub(crate) rev: u64,
    /// How often it was decided about.
    pub(crate) generation: u64,
    /// Where its slim item is; none: it is gone.
    pub(crate) live: Option<Key>,
}

impl From<Held> for Versioned<Host> {
    fn from(held: Held) -> Self {
        Self { value: held.host, rev: held.rev }
    }
}

/// The document's item.
pub(crate) fn document(host: &Host, shard: u16, rev: u64, generation: u64) -> Result<Item> {
    let is_retired = matches!(host.state, State::Retired { .. });
    Ok(item(
        &keys::host(host.id),
        [
            (DOC, text(json(host)?)),
            ("r", number(rev)),
            ("c", number(generation)),
            ("h", number(shard)),
            ("z", AttributeValue::Bool(is_retired)),
        ],
    ))
}

/// Where the slim item of a host is, by its document.
pub(crate) fn live_key(id: HostId, document: &Item) -> Result<Key> {
    let is_retired = document.get("z").and_then(|value| value.as_bool().ok()).ok_or_else(|| corrupt(document, "z"))?;
    let prefix = if *is_retired { keys::RETIRED } else { keys::LIVE };
    Ok(keys::live(prefix, need_number(document, "h")?, id))
}

/// The host that a document and a slim item make; none: they do not belong together.
pub(crate) fn join(document: &Item, live: Option<&Item>) -> Result<Option<Held>> {
    let generation: u64 = need_number(document, "c")?;
    let mut host: Host = doc(document)?;
    let Some(live) = live else {
        let rev = need_number::<u64>(document, "r")?.saturating_add(GONE);
        return Ok(Some(Held { host, rev, generation, live: None }));
    };
    if need_number::<u64>(live, "c")? != generation {
        return Ok(None);
    }
    if let Some(life) = Live::life(live)? {
        host.life = life;
    }
    Ok(Some(Held { host, rev: need_number(live, "r")?, generation, live: Key::of(live) }))
}

/// One host, as it is now.
pub(crate) async fn read(table: &Table, id: HostId, shards: u16) -> Result<Option<Held>> {
    let document_key = keys::host(id);
    let likely = keys::live(keys::LIVE, keys::shard(id, shards), id);
    for _ in 0..READS_MAX {
        let mut found = table.get_many(vec![document_key.clone(), likely.clone()], true).await?;
        let Some(document) = found.remove(&document_key) else { return Ok(None) };
        let mut live = found.remove(&likely);
        let place = live_key(id, &document)?;
        if live.is_none() && place != likely {
            live = table.get(&place, true).await?;
        }
        if let Some(held) = join(&document, live.as_ref())? {
            return Ok(Some(held));
        }
    }
    Err(StoreError::Overloaded)
}

/// Those of these hosts that exist, in this order. Whoever is being written at the moment is read again on its own.
pub(crate) async fn read_many(
    table: &Table,
    ids: &[HostId],
    shards: u16,
    consistent: bool,
) -> Result<Vec<Versioned<Host>>> {
    let likely = |id: HostId| keys::live(keys::LIVE, keys::shard(id, shards), id);
    let wanted = ids.iter().flat_map(|id| [keys::host(*id), likely(*id)]).collect();
    let found = table.get_many(wanted, consistent).await?;
    // Not where they were looked for: retired, or in the shard of another number of shards.
    let moved = ids.iter().filter_map(|id| {
        let document = found.get(&keys::host(*id)).filter(|_| !found.contains_key(&likely(*id)))?;
        live_key(*id, document).ok()
    });
    let elsewhere = table.get_many(moved.collect(), consistent).await?;
    let mut hosts = Vec::with_capacity(ids.len());
    for id in ids {
        let Some(document) = found.get(&keys::host(*id)) else { continue };
        let live = found.get(&likely(*id)).or_else(|| elsewhere.get(&live_key(*id, document).ok()?));
        let held = match join(document, live)? {
            // Without consistency an item that is missing may merely not have arrived.
            Some(held) if consistent || held.live.is_some() => Some(held),
            Some(_) | None => read(table, *id, shards).await?,
        };
        hosts.extend(held.map(Versioned::from));
    }
    Ok(hosts)
}

/// The hosts that these slim items belong to: only their documents are read, and not consistently.
pub(crate) async fn complete(table: &Table, lives: &[(HostId, &Item)], shards: u16) -> Result<Vec<Versioned<Host>>> {
    let documents = table.get_many(lives.iter().map(|(id, _)| keys::host(*id)).collect(), false).await?;
    let mut hosts = Vec::with_capacity(lives.len());
    for (id, live) in lives {
        let joined = documents.get(&keys::host(*id)).map(|document| join(document, Some(live))).transpose()?;
        let held = match joined.flatten() {
            Some(held) => Some(held),
            // One of the two is older than the other.
            None => read(table, *id, shards).await?,
        };
        hosts.extend(held.map(Versioned::from));
    }
    Ok(hosts)
}

/// What is written for a host besides its two items.
#[derive(Debug, Clone, PartialEq)]
struct Place {
    role: Role,
    item: Item,
}

/// Where a host is found.
fn places(host: &Host) -> Result<BTreeMap<Key, Place>> {
    let is_retired = matches!(host.state, State::Retired { .. });
    let (id, name) = (host.id, host.name.as_str());
    let mut places = BTreeMap::new();
    let mut add = |key: Key, role, attribute: Option<(&str, AttributeValue)>| {
        let mut item = key.attributes();
        item.extend(attribute.map(|(name, value)| (name.to_owned(), value)));
        places.insert(key, Place { role, item });
    };
    let owner = || Some(("o", text(id.0.to_string())));
    add(keys::public_key(&host.key), Role::PublicKey, owner());
    if !is_retired {
        add(keys::name(name), Role::Name, owner());
    }
    add(Key::new(keys::names_pk(is_retired), keys::by_name(name, id)), Role::Free, None);
    for (key, value) in host.tags.as_map() {
        add(Key::new(keys::tag_pk(key, value), keys::short(id.0)), Role::Free, None);
    }
    if let Some(outage) = host.state.outage() {
        let about = json(&Subject::of(host))?;
        let key = Key::new(keys::outage_pk(outage.incident), keys::by_name(name, id));
        add(key, Role::Free, Some((DOC, text(about))));
    }
    Ok(places)
}

/// Adds to a transaction what has to change in the places of a host.
pub(crate) fn move_places(
    transaction: &mut Transaction,
    table: &Table,
    before: Option<&Host>,
    after: &Host,
) -> Result<()> {
    let before = before.map(places).transpose()?.unwrap_or_default();
    let after = places(after)?;
    for key in before.keys().filter(|key| !after.contains_key(key)) {
        transaction.delete(table, Role::Free, key, None)?;
    }
    for (key, place) in &after {
        if before.get(key) == Some(place) {
            continue;
        }
        // Names and keys have one owner.
        let condition = (place.role != Role::Free).then(Condition::is_new);
        transaction.put(table, place.role, place.item.clone(), condition)?;
    }
    Ok(())
}

/// Adds to a transaction the two items of a host, on the condition that they are still as they were read.
pub(crate) fn replace(
    transaction: &mut Transaction,
    table: &Table,
    held: &Held,
    host: &Host,
    (shard, region): (u16, &str),
) -> Result<()> {
    let (rev, generation) = (held.rev.saturating_add(1), held.generation.saturating_add(1));
    let live = Live::write(host, shard, rev, generation, region);
    let unchanged = Condition::new("r = :r", [(":r", number(held.rev))]);
    let place = Key::of(&live);
    let condition = match &held.live {
        Some(before) if Some(before) == place.as_ref() => unchanged,
        Some(before) => {
            transaction.delete(table, Role::Basis, before, Some(unchanged))?;
            Condition::is_new()
        }
        None => Condition::is_new(),
    };
    transaction.put(table, Role::Basis, live, Some(condition))?;
    let decided = Condition::new("c = :c", [(":c", number(held.generation))]);
    transaction.put(table, Role::Basis, document(host, shard, rev, generation)?, Some(decided))
}

/// Adds to a transaction the two items of a host that is new.
pub(crate) fn create(
    transaction: &mut Transaction,
    table: &Table,
    host: &Host,
    (shard, region): (u16, &str),
) -> Result<()> {
    let live = Live::write(host, shard, 1, 1, region);
    transaction.put(table, Role::Basis, live, Some(Condition::is_new()))?;
    transaction.put(table, Role::Basis, document(host, shard, 1, 1)?, Some(Condition::is_new()))
}
