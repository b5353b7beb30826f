//! A host's document, and everything else that follows from it: the places under which a host is found.
//!
//! Every write of a host goes through [`places`]: what the host was is compared with what it becomes, and only the
//! differences are written, in the same transaction.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::AttributeValue;
use hb_core::event::{Event, Kind, Subject, id_of_end};
use hb_core::host::{Host, Life, State};
use hb_core::mend::{Pieces, mend};
use hb_core::policy::Policy;
use hb_core::time::Time;
use hb_store::{Result, Versioned};
use hb_wire::id::{EventId, HostId};
use sha2::{Digest as _, Sha256};

use crate::calls::{Condition, Table};
use crate::item::{DOC, Item, corrupt, doc, item, json, need_number, number, text};
use crate::keys::{self, Key};
use crate::live::Live;
use crate::transaction::{Role, Transaction};
use crate::version::{Tag, Version};

/// A slim item that is gone (its time to live ended, and nobody put it back) had an unknown number of beats. What is based
/// on its absence gets a revision beyond all of them.
const GONE: u64 = 1 << 40;
/// Bits of what callers know as the revision that say which decisions it belongs to.
const OWNER_BITS: u32 = 12;
/// How often a host is read whose two items do not belong together, because it is being written: then they are taken as they
/// are.
const READS_MAX: u32 = 6;

/// One slim item of a host.
#[derive(Debug, Clone)]
pub(crate) struct Slim {
    key: Key,
    rev: u64,
    tag: Tag,
    /// What it says was last heard, if it is open.
    heard_at: Option<Time>,
}

impl Slim {
    fn read(item: &Item, life: Option<&Life>) -> Result<Self> {
        let key = Key::of(item).ok_or_else(|| corrupt(item, "s"))?;
        let heard_at = life.and_then(|life| life.heard_at);
        Ok(Self { key, rev: need_number(item, "r")?, tag: Tag::read(item)?, heard_at })
    }

    /// It is still as it was read.
    fn unchanged(&self) -> Condition {
        let mut condition = self.tag.condition();
        condition.expression.push_str(" AND r = :r");
        condition.values.push((":r", number(self.rev)));
        condition
    }
}

/// A host as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) host: Host,
    rev: u64,
    /// The document's.
    pub(crate) version: Version,
    /// Its slim items: one. None: it is gone. More, or one of another decision: two regions decided at the same time.
    slims: Vec<Slim>,
    /// The document's host, where the pieces do not belong together: what is found of the host stands where that one says.
    torn: Option<Box<Host>>,
    /// What was heard, by a slim item that does not belong to the document.
    pub(crate) heard: Option<Life>,
    /// What has to be told, where the pieces do not belong together, by whoever writes the host next.
    pub(crate) endings: Vec<Event>,
}

/// An event, and the region that has told it already, as far as can be seen here: it is that one's to tell, and whoever stands in
/// for it finds it.
pub(crate) type LeftTo = (EventId, String);

impl Held {
    /// Changes with every write of the host, by whatever region.
    pub(crate) fn token(&self) -> u64 {
        let mut tags = vec![&self.version.tag];
        tags.extend(self.slims.iter().map(|slim| &slim.tag));
        if tags.iter().all(|tag| tag.owner.is_none()) {
            return self.rev;
        }
        let mut hash = Sha256::new();
        for tag in tags {
            hash.update(tag.generation.to_be_bytes());
            hash.update(tag.owner.as_deref().unwrap_or_default());
        }
        let hash = hash.finalize();
        // Two regions may give the same number: behind it stands whose it is.
        (self.rev << OWNER_BITS) | (u64::from(u16::from_be_bytes([hash[0], hash[1]])) >> (16 - OWNER_BITS))
    }

    /// The host by which it is found.
    pub(crate) fn placed(&self) -> &Host {
        self.torn.as_deref().unwrap_or(&self.host)
    }

    /// True when the pieces do not belong together.
    pub(crate) fn is_torn(&self) -> bool {
        self.torn.is_some()
    }

    /// True when the pieces do not belong together, and it is this region that is to put them together: it has heard the host
    /// since what the document was decided from, and whoever decided did not know of that.
    ///
    /// Otherwise what is missing is on its way here, or the other region is to do it. Whoever heard nothing new would replace
    /// what the other one hears meanwhile by something older.
    pub(crate) fn is_to_be_mended(&self, own: &str) -> bool {
        let known = self.placed().life.heard_at;
        let is_news = |slim: &Slim| slim.tag.owner.as_deref() == Some(own) && slim.heard_at > known;
        self.is_torn() && self.slims.iter().any(is_news)
    }

    /// The end of the document's outage, if the region that began it has opened the slim item since: that one knew of what it had
    /// begun, and so has told its end. Only that has not arrived here.
    pub(crate) fn told_there(&self) -> Option<LeftTo> {
        let begun = self.version.began_outage();
        let end = id_of_end(self.placed().state.outage()?.event, Kind::Up, Policy::STANDARD.epoch);
        let is_open = self.slims.iter().any(|slim| slim.heard_at.is_some() && slim.tag.is_after(begun));
        Some((end, begun.owner.clone().filter(|_| is_open)?))
    }

    /// The highest number that a piece of it has.
    pub(crate) fn generation(&self) -> u64 {
        let slims = self.slims.iter().map(|slim| slim.tag.generation);
        slims.max().unwrap_or(0).max(self.version.tag.generation)
    }
}

impl From<Held> for Versioned<Host> {
    fn from(held: Held) -> Self {
        let rev = held.token();
        Self { value: held.host, rev }
    }
}

/// The document's item.
pub(crate) fn document(host: &Host, shard: u16, rev: u64, version: &Version) -> Result<Item> {
    let is_retired = matches!(host.state, State::Retired { .. });
    let mut document = item(
        &keys::host(host.id),
        [(DOC, text(json(host)?)), ("r", number(rev)), ("h", number(shard)), ("z", AttributeValue::Bool(is_retired))],
    );
    version.write(&mut document);
    Ok(document)
}

/// Where the slim item of a host is, by its document.
pub(crate) fn live_key(id: HostId, document: &Item) -> Result<Key> {
    let is_retired = document.get("z").and_then(|value| value.as_bool().ok()).ok_or_else(|| corrupt(document, "z"))?;
    let prefix = if *is_retired { keys::RETIRED } else { keys::LIVE };
    Ok(keys::live(prefix, need_number(document, "h")?, id))
}

/// The host that a document and a slim item make; none: they do not belong together.
pub(crate) fn join(document: &Item, live: Option<&Item>) -> Result<Option<Held>> {
    let version = Version::read(document)?;
    let mut host: Host = doc(document)?;
    let mut rev: u64 = need_number(document, "r")?;
    let mut slims = Vec::new();
    match live {
        None => rev = rev.saturating_add(GONE),
        Some(item) => {
            let heard = Live::life(item)?;
            let slim = Slim::read(item, heard.as_ref())?;
            if !version.tag.fits(&slim.tag) {
                return Ok(None);
            }
            if let Some(heard) = heard {
                host.life = heard;
            }
            rev = slim.rev;
            slims.push(slim);
        }
    }
    Ok(Some(Held { host, rev, version, slims, torn: None, heard: None, endings: Vec::new() }))
}

/// The host that pieces make which do not belong together: two regions decided at the same time, or only a part of what one
/// of them wrote has arrived here.
fn join_torn(document: &Item, lives: &[Item]) -> Result<Held> {
    let kept: Host = doc(document)?;
    let mut rev: u64 = need_number(document, "r")?;
    let mut slims = Vec::new();
    let mut heard: Option<Life> = None;
    for live in lives {
        let life = Live::life(live)?;
        let slim = Slim::read(live, life.as_ref())?;
        rev = rev.max(slim.rev);
        slims.push(slim);
        heard = heard.into_iter().chain(life).max_by_key(|life| life.heard_at);
    }
    let pieces = Pieces { kept: &kept, lost: None, lost_is_edited: false, heard: heard.as_ref() };
    let mended = mend(&pieces);
    let version = Version::read(document)?;
    let torn = Some(Box::new(kept));
    Ok(Held { host: mended.host, rev, version, slims, torn, heard, endings: mended.events })
}

/// The pieces of a host: its document, and the slim items where one should be.
async fn pieces(table: &Table, id: HostId, shards: u16) -> Result<Option<(Item, Vec<Item>)>> {
    let document_key = keys::host(id);
    let likely = keys::live(keys::LIVE, keys::shard(id, shards), id);
    let mut found = table.get_many(vec![document_key.clone(), likely.clone()], true).await?;
    let Some(document) = found.remove(&document_key) else { return Ok(None) };
    let mut lives: Vec<Item> = found.remove(&likely).into_iter().collect();
    let place = live_key(id, &document)?;
    if place != likely {
        // There first, if it is there: that is where it belongs.
        lives.splice(0..0, table.get(&place, true).await?);
    }
    Ok(Some((document, lives)))
}

/// A host as its pieces make it, whether they belong together or not.
fn assemble(document: &Item, lives: &[Item]) -> Result<Held> {
    // More than one slim item belong to no decision.
    if lives.len() <= 1
        && let Some(held) = join(document, lives.first())?
    {
        return Ok(held);
    }
    join_torn(document, lives)
}

/// One host, as it is at this instant.
pub(crate) async fn glance(table: &Table, id: HostId, shards: u16) -> Result<Option<Held>> {
    let pieces = pieces(table, id, shards).await?;
    pieces.map(|(document, lives)| assemble(&document, &lives)).transpose()
}

/// One host, as it is now.
pub(crate) async fn read(table: &Table, id: HostId, shards: u16) -> Result<Option<Held>> {
    let mut tries = 0;
    loop {
        let Some(held) = glance(table, id, shards).await? else { return Ok(None) };
        tries += 1;
        if !held.is_torn() || tries >= READS_MAX {
            return Ok(Some(held));
        }
        table.back_off(tries).await;
    }
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
            Some(held) if consistent || !held.slims.is_empty() => Some(held),
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
pub(crate) struct Place {
    pub(crate) role: Role,
    pub(crate) item: Item,
}

/// Where a host is found.
pub(crate) fn places(host: &Host) -> Result<BTreeMap<Key, Place>> {
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
    let edits = u64::from(is_edited(held.placed(), host));
    let mut version = held.version.next(region, held.generation(), edits);
    version.note(host, &[(held.placed(), &held.version)]);
    put_both(transaction, table, held, host, (shard, &version))
}

/// The same with a version that says what it follows from.
pub(crate) fn put_both(
    transaction: &mut Transaction,
    table: &Table,
    held: &Held,
    host: &Host,
    (shard, version): (u16, &Version),
) -> Result<()> {
    let rev = held.rev.saturating_add(1);
    let live = Live::write(host, shard, rev, &version.tag);
    let place = Key::of(&live);
    let mut condition = Condition::is_new();
    for slim in &held.slims {
        if Some(&slim.key) == place.as_ref() {
            condition = slim.unchanged();
        } else {
            transaction.delete(table, Role::Basis, &slim.key, Some(slim.unchanged()))?;
        }
    }
    transaction.put(table, Role::Basis, live, Some(condition))?;
    let decided = held.version.tag.condition();
    transaction.put(table, Role::Basis, document(host, shard, rev, version)?, Some(decided))
}

/// True when an operator had a part in what changed: of two decisions that did not know of each other, the settings of the
/// one that changed them count.
fn is_edited(before: &Host, after: &Host) -> bool {
    let settings = |host: &Host| {
        let held = matches!(host.state, State::Paused { .. } | State::Retired { .. }).then(|| host.state.word());
        (
            (host.name.clone(), host.tags.clone(), host.class, host.key, host.next_key),
            (host.interval_ms, host.grace_ms, host.max_away_ms),
            held,
        )
    };
    settings(before) != settings(after)
}

/// Adds to a transaction the two items of a host that is new.
pub(crate) fn create(
    transaction: &mut Transaction,
    table: &Table,
    host: &Host,
    (shard, region): (u16, &str),
) -> Result<()> {
    let version = Version::first(region);
    let live = Live::write(host, shard, 1, &version.tag);
    transaction.put(table, Role::Basis, live, Some(Condition::is_new()))?;
    transaction.put(table, Role::Basis, document(host, shard, 1, &version)?, Some(Condition::is_new()))
}
