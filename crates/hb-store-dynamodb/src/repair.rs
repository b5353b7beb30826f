//! Two decisions about one host, in two regions that did not know of each other: what is left of both is put together again.
//!
//! The later write of an item replaced the earlier one. Either a document replaced another one that it does not follow, or of
//! a host's document and slim item each is of another decision. Nobody is told of it by DynamoDB, but the table's stream
//! shows it: the region whose document was replaced finds the other's in its replica, with its own as the old image. What it
//! makes of them is written as a decision like any other, which then goes to the other region. Where both regions mend at
//! once, they make the same, and go on until one of them was last.

use std::collections::BTreeSet;

use hb_core::host::Host;
use hb_core::mend::{Pieces, mend};
use hb_store::{Result, StoreError};
use hb_wire::id::HostId;
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
use crate::version::Version;

/// How often it is tried anew because the host is being written.
const TRIES_MAX: u32 = 8;

/// A document that was replaced.
struct Replaced {
    id: HostId,
    host: Host,
    version: Version,
    /// The one in its place did not know of it.
    is_overwritten: bool,
}

impl Replaced {
    fn read(old: &Image, new: &Image) -> Result<Self> {
        let key = Key::of(old).ok_or_else(|| corrupt(old, "s"))?;
        let id = key.pk.strip_prefix(keys::HOST).and_then(|id| Uuid::parse_str(id).ok());
        let id = HostId(id.ok_or_else(|| StoreError::Corrupt("the image is of no document".into()))?);
        let version = Version::read(old)?;
        let is_overwritten = !Version::read(new)?.follows(&version);
        Ok(Self { id, host: doc(old)?, version, is_overwritten })
    }

    /// It, if it was overwritten, and the host as it is was not mended since.
    fn lost(&self, held: &Held) -> Option<&Self> {
        let is_mended = held.version.mended.as_ref() == Some(&self.version.tag.to_text());
        (self.is_overwritten && !is_mended).then_some(self)
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
            if Box::pin(self.put_together(&held, lost)).await? {
                return Ok(true);
            }
            self.table.back_off(tries).await;
        }
        Err(StoreError::Overloaded)
    }

    async fn put_together(&self, held: &Held, lost: Option<&Replaced>) -> Result<bool> {
        let pieces = Pieces {
            kept: held.placed(),
            lost: lost.map(|lost| &lost.host),
            lost_is_edited: lost.is_some_and(|lost| lost.version.edits > held.version.edits),
            heard: held.heard.as_ref(),
        };
        let mut mended = mend(&pieces);
        let id = mended.host.id;
        if self.is_anothers(&keys::name(mended.host.name.as_str()), id).await? {
            // Two hosts got one name in two regions: this one keeps as much of it as it can.
            let name = format!("{}-{}", mended.host.name, &id.0.simple().to_string()[20..]);
            mended.host.name = HostName::parse(&name).unwrap_or(mended.host.name);
        }
        let mut version = held.version.next(
            self.regions.own(),
            held.generation().max(lost.map_or(0, |lost| lost.version.tag.generation)),
            0,
        );
        if let Some(lost) = lost {
            version.join(&lost.version);
        }
        let mut base = Transaction::default();
        self.set_places(&mut base, &pieces, &mended.host).await?;
        let (shard, _) = self.place(id);
        registry::put_both(&mut base, &self.table, held, &mended.host, (shard, &version))?;
        let events = self.prepare(mended.events).await?;
        Ok(matches!(self.write(&base, events).await?, Wrote::Done))
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
