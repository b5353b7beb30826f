//! Events that are read, and those that are let go of.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::AttributeValue;
use hb_core::delivery::Status;
use hb_core::event::Event;
use hb_core::time::Time;
use hb_store::{EVENTS_PER_HOST_MAX, EVENTS_SLACK, EventQuery, Listed, PAGE_MAX, Result};
use hb_wire::id::EventId;

use super::{Placed, pages_name};
use crate::calls::{Condition, Query, Range, sk};
use crate::image::Image;
use crate::item::{Item, corrupt, doc, from_json, need_number, need_text, some_number, time};
use crate::keys::{self, Key};
use crate::outbox;
use crate::pages;
use crate::store::DynamoStore;

/// An event is stored no later than this after it was decided (ms): a day, though it is mostly the same second.
const STORED_WITHIN_MS: u64 = 24 * 3600 * 1000;

impl DynamoStore {
    /// Lets go of the oldest events of the hosts whose count of events just passed a multiple of the slack.
    ///
    /// What these events belong to is written already, and must not be told to have failed: what is not let go of now, is at
    /// the next multiple.
    pub(super) async fn let_go(&self, events: &[Placed]) {
        let slack = u64::try_from(EVENTS_SLACK).unwrap_or(1).max(1);
        let full = events.iter().filter(|placed| placed.ordinal.is_multiple_of(slack)).map(Placed::history);
        for pk in full.collect::<BTreeSet<_>>() {
            if let Err(error) = self.prune_events(pk).await {
                tracing::warn!("old events are not let go of yet: {error}");
            }
        }
    }

    async fn prune_events(&self, pk: String) -> Result<()> {
        let all = Query { only: Some("p, s, f, b, u"), ..Query::all(pk) };
        let held = self.table.query(&all).await?;
        let surplus = held.len().saturating_sub(EVENTS_PER_HOST_MAX);
        let old = held.get(..surplus).unwrap_or_default();
        if old.is_empty() {
            return Ok(());
        }
        let waiting = self.waiting(old).await?;
        let mut first = Vec::new();
        let mut last = Vec::new();
        for event in old {
            let (id, place) = (need_text(event, "f")?, sk(event));
            if waiting.contains(id) {
                continue;
            }
            first.push(Key::new(keys::all(keys::TIMELINE), place));
            first.push(Key::new(format!("{}{id}", keys::EVENT), "V"));
            last.extend(Key::of(event));
            let position = place.parse().map_err(|_| corrupt(event, "s"))?;
            last.extend(pages::keys_of(&pages_name(position), some_number(event, "b")?.unwrap_or(0)));
        }
        // The event itself goes last: as long as it is there, whoever comes next does what was left undone.
        self.table.delete_many(first).await?;
        self.table.delete_many(last).await
    }

    /// Those of these events that are still to be told, or whose deliveries are not settled.
    async fn waiting(&self, events: &[Item]) -> Result<BTreeSet<String>> {
        let audible: Vec<&Item> = events.iter().filter(|event| event.contains_key("u")).collect();
        let mut waiting = BTreeSet::new();
        if audible.is_empty() {
            return Ok(waiting);
        }
        let untold = |event: &Item| Key::new(keys::all(keys::UNTOLD), sk(event));
        let found = self.table.get_many(audible.iter().map(|event| untold(event)).collect(), true).await?;
        for event in audible.iter().filter(|event| found.contains_key(&untold(event))) {
            waiting.insert(need_text(event, "f")?.to_owned());
        }
        for status in [Status::Pending, Status::Dead] {
            let unsettled = Query { only: Some("f"), ..Query::all(outbox::partition(status)) };
            for delivery in self.table.query(&unsettled).await? {
                waiting.insert(need_text(&delivery, "f")?.to_owned());
            }
        }
        Ok(waiting)
    }

    /// The event that an item of a history holds.
    async fn read_event(&self, item: &Item) -> Result<Event> {
        match some_number(item, "b")? {
            None => doc(item),
            Some(pages) => {
                let position = sk(item).parse().map_err(|_| corrupt(item, "s"))?;
                from_json(&pages::read(&self.table, &pages_name(position), pages).await?)
            }
        }
    }

    /// Where an event is: its history, and its position.
    pub(crate) async fn place_of(&self, id: EventId) -> Result<Option<Key>> {
        let Some(pointer) = self.table.get(&keys::event(id), true).await? else { return Ok(None) };
        let position: u64 = need_number(&pointer, "o")?;
        Ok(Some(Key::new(need_text(&pointer, "e")?.to_owned(), keys::position(position))))
    }

    pub(crate) async fn get_event(&self, id: EventId) -> Result<Option<Event>> {
        let Some(place) = self.place_of(id).await? else { return Ok(None) };
        match self.table.get(&place, true).await? {
            Some(item) => self.read_event(&item).await.map(Some),
            None => Ok(None),
        }
    }

    pub(crate) async fn list_events(&self, query: &EventQuery) -> Result<Vec<Listed<Event>>> {
        let limit = query.limit.min(PAGE_MAX);
        let pk = query.host.map_or_else(|| keys::all(keys::TIMELINE), |host| keys::history_pk(Some(host)));
        let mut place = query.after;
        if let (true, None, Some(since)) = (query.ascending, place, query.since) {
            place = self.before(&pk, since).await?;
        }
        let asked = Query { ascending: query.ascending, range: after(place, query.ascending), ..Query::all(pk) };
        let mut listed = Vec::new();
        let mut seen = BTreeSet::new();
        let mut start = None;
        while listed.len() < limit {
            let wanted = if query.since.is_some() { PAGE_MAX } else { limit - listed.len() };
            let (items, next) = self.table.page(&asked, start, Some(wanted)).await?;
            let (wanted, is_over) = recent(items, query)?;
            for item in self.itself(wanted).await? {
                let position = sk(&item).parse().map_err(|_| corrupt(&item, "s"))?;
                // Two regions may have stored it.
                if listed.len() < limit && seen.insert(need_text(&item, "f")?.to_owned()) {
                    listed.push(Listed { position, value: self.read_event(&item).await? });
                }
            }
            if is_over || next.is_none() {
                break;
            }
            start = next;
        }
        Ok(listed)
    }

    /// The position after which everything is that was decided at or after `since`: found from the newest backwards, since
    /// what is asked for is mostly young.
    async fn before(&self, pk: &str, since: Time) -> Result<Option<u64>> {
        let newest = Query { ascending: false, only: Some("s, a"), ..Query::all(pk.to_owned()) };
        let mut start = None;
        loop {
            let (items, next) = self.table.page(&newest, start, Some(PAGE_MAX)).await?;
            for item in &items {
                if is_long_before(item, since)? {
                    return sk(item).parse().map(Some).map_err(|_| corrupt(item, "s"));
                }
            }
            if next.is_none() {
                return Ok(None);
            }
            start = next;
        }
    }

    /// The events that pointers of the timeline, or of what is untold, point at; events themselves stay as they are.
    async fn itself(&self, items: Vec<Item>) -> Result<Vec<Item>> {
        let place = |item: &Item| Some(Key::new(item.get("e")?.as_s().ok()?.clone(), sk(item)));
        let places: Vec<Key> = items.iter().filter_map(place).collect();
        if places.is_empty() {
            return Ok(items);
        }
        let mut found = self.table.get_many(places.clone(), true).await?;
        Ok(places.iter().filter_map(|place| found.remove(place)).collect())
    }

    pub(crate) async fn list_untold(&self, limit: usize) -> Result<Vec<Event>> {
        self.finish_staged().await?;
        let untold = self.untold_here(limit.min(PAGE_MAX)).await?;
        let mut events: Vec<Event> = Vec::with_capacity(untold.len());
        for item in self.itself(untold).await? {
            let event = self.read_event(&item).await?;
            if events.iter().all(|known| known.id != event.id) {
                events.push(event);
            }
        }
        Ok(events)
    }

    /// What says that an event is to be told here, oldest first.
    pub(crate) async fn untold_here(&self, limit: usize) -> Result<Vec<Item>> {
        let filter = self.regions.peer().and(self.regions.mark()).map(|own| self.untold_by(own));
        self.table.first(&Query { filter, ..Query::all(keys::all(keys::UNTOLD)) }, limit).await
    }

    fn untold_by(&self, own: AttributeValue) -> Condition {
        let mut filter = Condition::new("attribute_not_exists(g) OR g = :g", [(":g", own)]);
        if let Some(before) = self.regions.tells_before() {
            filter.expression.push_str(" OR a <= :a");
            filter.values.push((":a", time(before)));
        }
        filter
    }

    /// Takes one of two events away that are the same: two regions stored it at two positions, and the pointer was
    /// overwritten. `old` and `new` are the images of the pointer; `false`: it is not so, and nothing was done.
    ///
    /// Who reads the table's stream gives it each change of a pointer: there is no other reason for one to change. Of the two
    /// regions, only the one whose pointer was overwritten sees it.
    ///
    /// # Errors
    /// As all calls of the store.
    pub async fn unite(&self, old: &Image, new: &Image) -> Result<bool> {
        let is_pointer = Key::of(old).is_some_and(|key| key.pk.starts_with(keys::EVENT));
        let (lost, kept): (u64, u64) = (need_number(old, "o")?, need_number(new, "o")?);
        if !is_pointer || lost == kept {
            return Ok(false);
        }
        let place = keys::position(lost);
        let itself = Key::new(need_text(old, "e")?.to_owned(), place.clone());
        let Some(event) = self.table.get(&itself, true).await? else { return Ok(false) };
        if Some(need_text(&event, "f")?) != Key::of(old).as_ref().and_then(|key| key.pk.strip_prefix(keys::EVENT)) {
            return Ok(false);
        }
        let mut gone =
            vec![Key::new(keys::all(keys::TIMELINE), place.clone()), Key::new(keys::all(keys::UNTOLD), place)];
        gone.extend(pages::keys_of(&pages_name(lost), some_number(&event, "b")?.unwrap_or(0)));
        self.table.delete_many(gone).await?;
        // As long as the event itself is there, whoever comes next does what was left undone.
        self.table.delete_many([itself]).await?;
        Ok(true)
    }
}

/// Those of these items that were decided at or after what is asked for; true when all that follow were decided before.
fn recent(items: Vec<Item>, query: &EventQuery) -> Result<(Vec<Item>, bool)> {
    let Some(since) = query.since else { return Ok((items, false)) };
    let mut recent = Vec::with_capacity(items.len());
    for item in items {
        if !query.ascending && is_long_before(&item, since)? {
            return Ok((recent, true));
        }
        if need_number::<u64>(&item, "a")? >= since.0 {
            recent.push(item);
        }
    }
    Ok((recent, false))
}

/// True for an event so old that whatever was stored before it was decided before `since` too.
fn is_long_before(item: &Item, since: Time) -> Result<bool> {
    Ok(need_number::<u64>(item, "a")? < since.0.saturating_sub(STORED_WITHIN_MS))
}

/// Positions after this one, in that direction.
pub(crate) fn after(place: Option<u64>, ascending: bool) -> Range {
    match place.map(keys::position) {
        None => Range::All,
        Some(place) if ascending => Range::After(place),
        Some(place) => Range::Before(place),
    }
}
