//! Events: stored once, in order, with everything that makes them be told.
//!
//! An event is four items: itself in the history of its host, a pointer by its id, a pointer in the timeline of all events,
//! and, as long as it has to be told, one that says so. They are written in the transaction of the decision.
//!
//! **Positions** come from one counter, moved on before the transaction: unique and growing, but with gaps where a
//! transaction was refused. Of two writers at the same instant the one with the higher position may be seen first.
//!
//! **A change that is too large for a transaction** (more than a hundred writes) keeps its promise nevertheless: the
//! transaction of the decision then holds one *staged* item with all of the events, and they are put in place right after it,
//! each idempotently. If the process dies in between, [`DynamoStore::finish_staged`] does it before anything is told.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use futures_util::future::{try_join, try_join_all};
use hb_core::delivery::Status;
use hb_core::event::{Audience, Event};
use hb_core::time::Time;
use hb_store::{EVENTS_PER_HOST_MAX, EVENTS_SLACK, EventQuery, Listed, PAGE_MAX, Result, StoreError};
use hb_wire::id::EventId;

use crate::calls::{Condition, Query, Range, Written, sk};
use crate::item::{
    DOC, Item, corrupt, from_json, item, json, need_number, need_text, number, set, some_number, text, time,
};
use crate::keys::{self, Key};
use crate::outbox;
use crate::pages;
use crate::store::DynamoStore;
use crate::transaction::{Outcome, Role, Transaction};

/// An event is stored no later than this after it was decided (ms): a day, though it is mostly the same second.
const STORED_WITHIN_MS: u64 = 24 * 3600 * 1000;

/// Events that are ready to be written.
#[derive(Debug, Default)]
pub(crate) struct Prepared(Vec<Placed>);

impl Prepared {
    /// The position of the first.
    pub(crate) fn first_position(&self) -> u64 {
        self.0.first().map_or(0, |placed| placed.position)
    }
}

/// An event with its place.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Placed {
    position: u64,
    /// Counts the events of its host: says when to let go of the oldest.
    ordinal: u64,
    /// Of its document; none: it stands in the item.
    pages: usize,
    event: Event,
}

impl Placed {
    fn history(&self) -> String {
        history_of(&self.event)
    }

    fn pages_name(&self) -> String {
        pages_name(self.position)
    }
}

fn history_of(event: &Event) -> String {
    keys::history_pk(event.subject.as_ref().map(|subject| subject.id))
}

fn pages_name(position: u64) -> String {
    format!("E{}", keys::position(position))
}

/// What became of a write with events.
#[derive(Debug)]
pub(crate) enum Wrote {
    Done,
    /// Conditions that did not hold, none of them an event's.
    Refused(Vec<(Role, Option<Item>)>),
    Contended,
}

impl DynamoStore {
    /// The first of so many positions that nobody else gets.
    pub(crate) async fn allocate(&self, count: usize) -> Result<u64> {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let more = Condition::new("", [(":n", number(count))]);
        match self.table.update(&keys::server("position"), "ADD n :n", &more).await? {
            Written::Done(now) => Ok(need_number::<u64>(&now, "n")?.saturating_sub(count).saturating_add(1)),
            Written::Refused(_) => Err(StoreError::Overloaded),
        }
    }

    /// Gives events their places.
    pub(crate) async fn prepare(&self, events: Vec<Event>) -> Result<Prepared> {
        let mut seen = HashSet::new();
        let events: Vec<Event> = events.into_iter().filter(|event| seen.insert(event.id)).collect();
        if events.is_empty() {
            return Ok(Prepared::default());
        }
        let histories: BTreeSet<String> = events.iter().map(history_of).collect();
        let last = histories.into_iter().map(|pk| self.last_ordinal(pk));
        let (first, last) = try_join(self.allocate(events.len()), try_join_all(last)).await?;
        let mut ordinals: BTreeMap<String, u64> = last.into_iter().collect();
        let mut placed = Vec::with_capacity(events.len());
        for (event, position) in events.into_iter().zip(first..) {
            let ordinal = ordinals.entry(history_of(&event)).or_default();
            *ordinal += 1;
            let pages = pages::write(&self.table, &pages_name(position), &json(&event)?).await?;
            placed.push(Placed { position, ordinal: *ordinal, pages, event });
        }
        Ok(Prepared(placed))
    }

    async fn last_ordinal(&self, pk: String) -> Result<(String, u64)> {
        let newest = Query { ascending: false, only: Some("k"), ..Query::all(pk.clone()) };
        let found = self.table.first(&newest, 1).await?;
        Ok((pk, found.first().map(|item| need_number(item, "k")).transpose()?.unwrap_or(0)))
    }

    /// Writes what was decided together with its events, whole or not at all. An event that is stored already is left as it
    /// is.
    pub(crate) async fn write(&self, base: &Transaction, events: Prepared) -> Result<Wrote> {
        let mut transaction = base.clone();
        for (n, placed) in events.0.iter().enumerate() {
            let more = self.writes_of(n, placed)?;
            if !transaction.has_room_for(&more) {
                return self.write_staged(base, events.0).await;
            }
            transaction.append(more);
        }
        self.write_at_once(base, events.0).await
    }

    async fn write_at_once(&self, base: &Transaction, mut events: Vec<Placed>) -> Result<Wrote> {
        loop {
            let mut transaction = base.clone();
            for (n, placed) in events.iter().enumerate() {
                transaction.append(self.writes_of(n, placed)?);
            }
            let refusals = match transaction.run(&self.table).await? {
                Outcome::Done => {
                    self.let_go(&events).await?;
                    return Ok(Wrote::Done);
                }
                Outcome::Contended => {
                    self.forget_pages(&events).await?;
                    return Ok(Wrote::Contended);
                }
                Outcome::Refused(refusals) => refusals,
            };
            let known: BTreeSet<usize> = refusals.iter().filter_map(|(role, _)| event_of(*role)).collect();
            if known.len() < refusals.len() {
                self.forget_pages(&events).await?;
                return Ok(Wrote::Refused(refusals));
            }
            // What is stored already is left as it is; the rest is written.
            let mut n = 0..;
            let (stored, rest): (Vec<Placed>, Vec<Placed>) =
                events.into_iter().partition(|_| n.next().is_some_and(|n| known.contains(&n)));
            self.forget_pages(&stored).await?;
            events = rest;
        }
    }

    /// The four items of an event.
    fn writes_of(&self, n: usize, placed: &Placed) -> Result<Transaction> {
        let (event, place) = (&placed.event, keys::position(placed.position));
        let history = Key::new(placed.history(), place.clone());
        let told = event.audience != Audience::Nobody;
        let mut itself =
            item(&history, [("a", time(event.at)), ("k", number(placed.ordinal)), ("f", text(event.id.0.to_string()))]);
        if placed.pages == 0 {
            itself.insert(DOC.to_owned(), text(json(event)?));
        } else {
            itself.insert("b".to_owned(), number(placed.pages));
        }
        set(&mut itself, "u", told.then(|| number(1)));
        let owner = || text(history.pk.clone());
        let pointer = item(&keys::event(event.id), [("o", number(placed.position)), ("e", owner())]);
        let timeline = Key::new(keys::all(keys::TIMELINE), place.clone());
        let mut writes = Transaction::default();
        writes.put(&self.table, Role::Event(n), pointer, Some(Condition::is_new()))?;
        writes.put(&self.table, Role::Free, itself, None)?;
        writes.put(&self.table, Role::Free, item(&timeline, [("a", time(event.at)), ("e", owner())]), None)?;
        if told {
            let untold = Key::new(keys::all(keys::UNTOLD), place);
            writes.put(&self.table, Role::Free, item(&untold, [("e", owner())]), None)?;
        }
        Ok(writes)
    }

    async fn write_staged(&self, base: &Transaction, events: Vec<Placed>) -> Result<Wrote> {
        let first = events.first().map_or(0, |placed| placed.position);
        let key = Key::new(keys::all(keys::STAGED), keys::position(first));
        let document = json(&events)?;
        let pages = pages::write(&self.table, &staged_name(&key), &document).await?;
        let staged = match pages {
            0 => item(&key, [(DOC, text(document))]),
            pages => item(&key, [("b", number(pages))]),
        };
        let mut transaction = base.clone();
        transaction.put(&self.table, Role::Free, staged.clone(), None)?;
        match transaction.run(&self.table).await? {
            Outcome::Done => {
                self.finish(&staged).await?;
                Ok(Wrote::Done)
            }
            outcome @ (Outcome::Refused(_) | Outcome::Contended) => {
                self.table.delete_many(pages::keys_of(&staged_name(&key), pages)).await?;
                self.forget_pages(&events).await?;
                Ok(match outcome {
                    Outcome::Refused(refusals) => Wrote::Refused(refusals),
                    Outcome::Done | Outcome::Contended => Wrote::Contended,
                })
            }
        }
    }

    /// Puts the events of changes in place that were too large for one transaction, and whose writers did not get to it.
    pub(crate) async fn finish_staged(&self) -> Result<()> {
        for staged in self.table.query(&Query::all(keys::all(keys::STAGED))).await? {
            self.finish(&staged).await?;
        }
        Ok(())
    }

    async fn finish(&self, staged: &Item) -> Result<()> {
        let key = Key::of(staged).ok_or_else(|| corrupt(staged, "s"))?;
        let pages = some_number(staged, "b")?.unwrap_or(0);
        let document = match pages {
            0 => need_text(staged, DOC)?.to_owned(),
            pages => match pages::read(&self.table, &staged_name(&key), pages).await {
                Ok(document) => document,
                // Somebody else finished it meanwhile.
                Err(_) if self.table.get(&key, true).await?.is_none() => return Ok(()),
                Err(error) => return Err(error),
            },
        };
        let events: Vec<Placed> = from_json(&document)?;
        let mut base = Transaction::default();
        // Whoever is late must not bring events back that were told and forgotten since.
        base.check(&self.table, Role::Basis, &key, Condition::exists())?;
        let mut some: (Transaction, Vec<Placed>) = (base.clone(), Vec::new());
        for placed in events {
            let writes = self.writes_of(0, &placed)?;
            if !some.0.has_room_for(&writes) {
                let (_, full) = core::mem::replace(&mut some, (base.clone(), Vec::new()));
                if !self.is_written(&base, full).await? {
                    return Ok(());
                }
            }
            some.0.append(writes);
            some.1.push(placed);
        }
        if self.is_written(&base, some.1).await? {
            self.table.delete_many([key.clone()]).await?;
            self.table.delete_many(pages::keys_of(&staged_name(&key), pages)).await?;
        }
        Ok(())
    }

    /// `false`: somebody else finished it meanwhile.
    async fn is_written(&self, base: &Transaction, events: Vec<Placed>) -> Result<bool> {
        match self.write_at_once(base, events).await? {
            Wrote::Done => Ok(true),
            Wrote::Refused(_) => Ok(false),
            Wrote::Contended => Err(StoreError::Overloaded),
        }
    }

    async fn forget_pages(&self, events: &[Placed]) -> Result<()> {
        for placed in events.iter().filter(|placed| placed.pages > 0) {
            self.table.delete_many(pages::keys_of(&placed.pages_name(), placed.pages)).await?;
        }
        Ok(())
    }

    /// Lets go of the oldest events of the hosts whose count of events just passed a multiple of the slack.
    async fn let_go(&self, events: &[Placed]) -> Result<()> {
        let slack = u64::try_from(EVENTS_SLACK).unwrap_or(1).max(1);
        let full = events.iter().filter(|placed| placed.ordinal.is_multiple_of(slack)).map(Placed::history);
        for pk in full.collect::<BTreeSet<_>>() {
            self.prune_events(pk).await?;
        }
        Ok(())
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
            None => crate::item::doc(item),
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
        let mut start = None;
        while listed.len() < limit {
            let wanted = if query.since.is_some() { PAGE_MAX } else { limit - listed.len() };
            let (items, next) = self.table.page(&asked, start, Some(wanted)).await?;
            let (wanted, is_over) = recent(items, query)?;
            for item in self.itself(wanted).await? {
                let position = sk(&item).parse().map_err(|_| corrupt(&item, "s"))?;
                if listed.len() < limit {
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
        let limit = limit.min(PAGE_MAX);
        let untold = self.table.first(&Query::all(keys::all(keys::UNTOLD)), limit).await?;
        let mut events = Vec::with_capacity(untold.len());
        for item in self.itself(untold).await? {
            events.push(self.read_event(&item).await?);
        }
        Ok(events)
    }
}

/// What a staged item's pages are called.
fn staged_name(key: &Key) -> String {
    format!("W{}", key.sk)
}

fn event_of(role: Role) -> Option<usize> {
    if let Role::Event(n) = role { Some(n) } else { None }
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
