//! Events: stored once, in order, with everything that makes them be told.
//!
//! An event is four items: itself in the history of its host, a pointer by its id, a pointer in the timeline of all events,
//! and, as long as it has to be told, one that says so. They are written in the transaction of the decision.
//!
//! **Positions** are counted on before the transaction ([`crate::positions`]): unique and growing, but with gaps. Of two
//! writers at the same instant the one with the higher position may be seen first.
//!
//! **Two regions** may decide the same, and so store the same event at two positions, of which the pointer in the end says
//! one; the other is taken away by whoever sees that ([`DynamoStore::unite`]).
//!
//! **A change that is too large for a transaction** (more than a hundred writes) keeps its promise nevertheless: the
//! transaction of the decision then holds one *staged* item with all of the events, and they are put in place right after it,
//! each idempotently. If the process dies in between, [`DynamoStore::finish_staged`] does it before anything is told.

mod history;
mod staged;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use futures_util::future::{try_join, try_join_all};
use hb_core::event::{Audience, Event};
use hb_store::Result;

use crate::calls::{Condition, Query};
use crate::item::{DOC, Item, item, json, need_number, number, set, text, time};
use crate::keys::{self, Key};
use crate::pages;
use crate::regions::OWNER;
use crate::registry::LeftTo;
use crate::store::DynamoStore;
use crate::transaction::{Outcome, Role, Transaction};

pub(crate) use history::after;

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
    /// The region that is to tell it, if not the one that stores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    teller: Option<String>,
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
    /// Gives events their places; one may be another region's to tell.
    pub(crate) async fn prepare(&self, events: Vec<Event>, left: Option<LeftTo>) -> Result<Prepared> {
        let mut seen = HashSet::new();
        let events: Vec<Event> = events.into_iter().filter(|event| seen.insert(event.id)).collect();
        if events.is_empty() {
            return Ok(Prepared::default());
        }
        let histories: BTreeSet<String> = events.iter().map(history_of).collect();
        let last = histories.into_iter().map(|pk| self.last_ordinal(pk));
        let (positions, last) = try_join(self.allocate(events.len()), try_join_all(last)).await?;
        let mut ordinals: BTreeMap<String, u64> = last.into_iter().collect();
        let mut placed = Vec::with_capacity(events.len());
        for (event, position) in events.into_iter().zip(positions.iter()) {
            let ordinal = ordinals.entry(history_of(&event)).or_default();
            *ordinal += 1;
            let pages = pages::write(&self.table, &pages_name(position), &json(&event)?).await?;
            let teller = left.as_ref().filter(|(id, _)| *id == event.id).map(|(_, region)| region.clone());
            placed.push(Placed { position, ordinal: *ordinal, pages, teller, event });
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
                    self.let_go(&events).await;
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
            let id = text(event.id.0.to_string());
            let mut untold = item(&untold, [("a", time(event.at)), ("e", owner()), ("f", id)]);
            self.regions.sign(&mut untold);
            if let Some(teller) = &placed.teller {
                untold.insert(OWNER.to_owned(), text(teller));
            }
            writes.put(&self.table, Role::Free, untold, None)?;
        }
        Ok(writes)
    }

    async fn forget_pages(&self, events: &[Placed]) -> Result<()> {
        for placed in events.iter().filter(|placed| placed.pages > 0) {
            self.table.delete_many(pages::keys_of(&placed.pages_name(), placed.pages)).await?;
        }
        Ok(())
    }
}

fn event_of(role: Role) -> Option<usize> {
    if let Role::Event(n) = role { Some(n) } else { None }
}
