//! Two decisions about one host, in two regions that did not know of each other: what is left of both is put together again.
//!
//! The later write of an item replaced the earlier one. Either a document replaced another one that it does not follow, or of
//! a host's document and slim item each is of another decision. Nobody is told of it by DynamoDB, but the table's stream
//! shows it: the region whose document was replaced finds the other's in its replica, with its own as the old image.
//!
//! Items arrive one by one and in any order, and what is written here replaces what the other region hears meanwhile. So a
//! region puts together only what would be lost otherwise: what it heard after the other one decided, or what was decided here
//! and overwritten. It asks the other one first whether that has heard the host since. Where nothing but an end has to be told,
//! nothing else is written; and of what the other region knew, the end is that one's to tell.

use std::collections::BTreeSet;

use hb_core::event::{Event, id_of_end};
use hb_core::host::{Host, Life};
use hb_core::mend::{Pieces, mend};
use hb_core::policy::Policy;
use hb_core::time::Time;
use hb_store::{Result, StoreError};
use hb_wire::id::{EventId, HostId};
use hb_wire::name::HostName;
use uuid::Uuid;

use crate::calls::Condition;
use crate::events::Wrote;
use crate::image::Image;
use crate::item::{corrupt, doc, need_text, text};
use crate::keys::{self, Key};
use crate::registry::{self, Held};
use crate::store::DynamoStore;
use crate::transaction::{Role, Transaction};
use crate::version::{Tag, Version};

/// How often it is tried anew because the host is being written.
const TRIES_MAX: u32 = 8;

/// A document that was replaced.
struct Replaced {
    id: HostId,
    host: Host,
    version: Version,
    /// The one in its place.
    by: Version,
    /// That one did not know of it.
    is_overwritten: bool,
}

impl Replaced {
    fn read(old: &Image, new: &Image) -> Result<Self> {
        let key = Key::of(old).ok_or_else(|| corrupt(old, "s"))?;
        let id = key.pk.strip_prefix(keys::HOST).and_then(|id| Uuid::parse_str(id).ok());
        let id = HostId(id.ok_or_else(|| StoreError::Corrupt("the image is of no document".into()))?);
        let version = Version::read(old)?;
        let by = Version::read(new)?;
        let is_overwritten = !by.follows(&version);
        Ok(Self { id, host: doc(old)?, version, by, is_overwritten })
    }

    /// It, if it was overwritten, and the host as it is was not mended since.
    fn lost(&self, held: &Held) -> Option<&Self> {
        let is_mended = held.version.mended.as_ref() == Some(&self.version.tag.to_text());
        (self.is_overwritten && !is_mended).then_some(self)
    }

    /// True for the end of what began with a decision that whoever made the one that is there now knew of: it has told that end.
    /// A region's own number says nothing of that ([`Version::follows`]): then what replaced this one counts.
    fn is_ended_by(&self, version: &Version, event: &Event) -> bool {
        let knew = |by: &Tag| {
            let teller = if version.tag.owner == by.owner { &self.by } else { version };
            teller.knew(by)
        };
        let is = |begun: Option<EventId>, by: &Tag| {
            begun.is_some_and(|begun| id_of_end(begun, event.kind, Policy::STANDARD.epoch) == event.id) && knew(by)
        };
        let outage = self.host.state.outage().map(|outage| outage.event);
        let trouble = self.host.trouble.map(|trouble| EventId(trouble.0));
        is(outage, self.version.began_outage()) || is(trouble, self.version.began_trouble())
    }
}

impl DynamoStore {
    /// True when what is there of a host is not of one decision, or does not follow from the one that was there before it.
    /// `old` and `new` are the images of a record of a document.
    ///
    /// What another region wrote arrives item by item: only what is still so a moment later is to be mended.
    ///
    /// # Errors
    /// As all calls of the store, and [`StoreError::Corrupt`] for what is no document.
    pub async fn is_torn(&self, old: &Image, new: &Image) -> Result<bool> {
        let before = Replaced::read(old, new)?;
        let held = registry::glance(&self.table, before.id, self.shards).await?;
        Ok(held.is_some_and(|held| held.is_to_be_mended(self.regions.own()) || before.lost(&held).is_some()))
    }

    /// Puts a host together again, and has told what follows from that. `false`: there was nothing to mend.
    ///
    /// # Errors
    /// As [`DynamoStore::is_torn`].
    pub async fn mend(&self, old: &Image, new: &Image) -> Result<bool> {
        let before = Replaced::read(old, new)?;
        for tries in 0..TRIES_MAX {
            let Some(held) = registry::glance(&self.table, before.id, self.shards).await? else { return Ok(false) };
            let lost = before.lost(&held);
            if lost.is_none() && !held.is_to_be_mended(self.regions.own()) {
                return Ok(false);
            }
            match Box::pin(self.put_together(&held, lost)).await? {
                Some(true) => return Ok(true),
                None => return Ok(false),
                Some(false) => {}
            }
            self.table.back_off(tries).await;
        }
        Err(StoreError::Overloaded)
    }

    /// `None`: there was nothing to do after all. `false`: the host is being written.
    async fn put_together(&self, held: &Held, lost: Option<&Replaced>) -> Result<Option<bool>> {
        let mut pieces = Pieces {
            kept: held.placed(),
            lost: lost.map(|lost| &lost.host),
            lost_is_edited: lost.is_some_and(|lost| lost.version.edits > held.version.edits),
            heard: held.heard.as_ref(),
        };
        let mut mended = mend(&pieces);
        let (id, here) = (mended.host.id, mended.host.life.heard_at);
        let there = self.heard_there_since(id, here).await;
        let is_news = there.is_none() && here > heard_at(&pieces);
        let moved_on;
        if let Some(at) = there {
            moved_on = Life { heard_at: Some(at), silent_from: at, ..mended.host.life };
            pieces.heard = Some(&moved_on);
            mended = mend(&pieces);
        }
        if self.is_anothers(&keys::name(mended.host.name.as_str()), id).await? {
            // Two hosts got one name in two regions: this one keeps as much of it as it can.
            let name = format!("{}-{}", mended.host.name, &id.0.simple().to_string()[20..]);
            mended.host.name = HostName::parse(&name).unwrap_or(mended.host.name);
        }
        if let Some(lost) = lost {
            mended.events.retain(|event| !lost.is_ended_by(&held.version, event));
        }
        let mut base = Transaction::default();
        self.set_places(&mut base, &pieces, &mended.host).await?;
        // What this region writes replaces what the other one hears meanwhile: it writes only what would be lost otherwise.
        if is_news || held.is_to_be_mended(self.regions.own()) && there.is_none() || is_changed(&pieces, &mended.host) {
            let least = held.generation().max(lost.map_or(0, |lost| lost.version.tag.generation));
            let mut version = held.version.next(self.regions.own(), least, 0);
            let mut followed = vec![(pieces.kept, &held.version)];
            if let Some(lost) = lost {
                version.join(&lost.version);
                followed.push((&lost.host, &lost.version));
            }
            version.note(&mended.host, &followed);
            registry::put_both(&mut base, &self.table, held, &mended.host, (self.place(id).0, &version))?;
        } else if mended.events.is_empty() {
            return Ok(None);
        }
        let events = self.prepare(mended.events, held.told_there()).await?;
        Ok(Some(matches!(self.write(&base, events).await?, Wrote::Done)))
    }

    /// Puts every place of a host, whatever is there already, and takes those away that only one of its pieces had.
    async fn set_places(&self, base: &mut Transaction, pieces: &Pieces<'_>, after: &Host) -> Result<()> {
        let kept = registry::places(after)?;
        let mut gone = BTreeSet::new();
        for piece in [Some(pieces.kept), pieces.lost].into_iter().flatten() {
            gone.extend(registry::places(piece)?.into_keys().filter(|key| !kept.contains_key(key)));
        }
        for key in gone {
            let is_owned = key.pk.starts_with(keys::NAME) || key.pk.starts_with(keys::PUBLIC_KEY);
            if !is_owned || !self.is_anothers(&key, after.id).await? {
                base.delete(&self.table, Role::Free, &key, None)?;
            }
        }
        for place in kept.into_values() {
            let own = || Condition::new("attribute_not_exists(p) OR o = :o", [(":o", text(after.id.0.to_string()))]);
            let condition = (place.role != Role::Free).then(own);
            base.put(&self.table, place.role, place.item, condition)?;
        }
        Ok(())
    }

    /// True for a name or a key that another host has.
    async fn is_anothers(&self, key: &Key, id: HostId) -> Result<bool> {
        let Some(item) = self.table.get(key, true).await? else { return Ok(false) };
        Ok(need_text(&item, "o")? != id.0.to_string())
    }
}

/// When the host was heard last, by what is stored of it.
fn heard_at(pieces: &Pieces<'_>) -> Option<Time> {
    pieces.kept.life.heard_at.max(pieces.heard.and_then(|life| life.heard_at))
}

/// True when more than what was heard last tells a host apart from the one that is stored.
fn is_changed(pieces: &Pieces<'_>, mended: &Host) -> bool {
    let before = pieces.kept;
    *before != Host { life: before.life.clone(), transitions: before.transitions, ..mended.clone() }
}
