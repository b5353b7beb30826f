//! Incidents of many hosts. Their members are items of their own: an incident that a host joins is not written whole again,
//! and no number of members makes an item too large.
//!
//! The head of an incident counts; its *list* holds subjects in the order in which they joined, in one item for each joining.
//! Of the list, the first [`Kept::members`] were named in a message, and those from [`Kept::from`] to [`Kept::to`] are still
//! to be named. A head and what it newly counts are written in one transaction. A list that is too large for that is written
//! before its head, under a number that no other list has: nobody looks there before the head says so.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hb_core::event::Subject;
use hb_core::host::Host;
use hb_core::incident::{Incident, MEMBERS_MAX};
use hb_store::{PAGE_MAX, Result, StoreError, Versioned};
use hb_wire::id::{HostId, IncidentId};

use crate::calls::{Condition, Query, Range, sk};
use crate::item::{DOC, Item, doc, item, json, need_number, number, text};
use crate::keys::{self, Key};
use crate::pages::INLINE_BYTES_MAX;
use crate::registry;
use crate::store::DynamoStore;
use crate::transaction::{Role, Transaction};

/// Most incidents that are remembered.
const KEPT_MAX: usize = 64;

/// An incident as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    value: Incident,
    rev: u64,
    list: u64,
    from: usize,
    to: usize,
}

impl Kept {
    fn members(&self) -> usize {
        self.value.members.len()
    }
}

/// Open incidents as they were last seen: each host that dies in an incident looks at it, and mostly it is as it was. An
/// entry is used only for the revision that the table says.
#[derive(Debug, Default)]
pub(crate) struct Incidents(Mutex<HashMap<IncidentId, Kept>>);

impl Incidents {
    fn lock(&self) -> MutexGuard<'_, HashMap<IncidentId, Kept>> {
        // Whoever panicked left a whole entry or none.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn keep(&self, kept: Kept) {
        let mut known = self.lock();
        if known.len() >= KEPT_MAX {
            known.clear();
        }
        if kept.value.closed_at.is_some() {
            known.remove(&kept.value.id);
        } else {
            known.insert(kept.value.id, kept);
        }
    }

    fn at(&self, id: IncidentId, rev: u64) -> Option<Kept> {
        self.lock().get(&id).filter(|kept| kept.rev == rev).cloned()
    }
}

impl DynamoStore {
    pub(crate) async fn list_open(&self) -> Result<Vec<Versioned<Incident>>> {
        let mut open = self.table.query(&Query::all(keys::all(keys::OPEN))).await?;
        // Whoever opened an incident goes on with it.
        open.retain(|item| self.regions.deals_with(item));
        let ids = open.iter().filter_map(|item| uuid::Uuid::parse_str(sk(item)).ok().map(IncidentId));
        let heads: Vec<Key> = ids.map(keys::incident).collect();
        let found = self.table.get_many(heads.clone(), true).await?;
        let mut incidents = Vec::with_capacity(heads.len());
        for head in heads.iter().filter_map(|key| found.get(key)) {
            let kept = self.read_incident(head).await?;
            incidents.push(Versioned { value: kept.value, rev: kept.rev });
        }
        Ok(incidents)
    }

    /// At half the price of [`DynamoStore::list_open`], and a moment late.
    pub(crate) async fn may_be_open(&self) -> Result<bool> {
        let query = Query { consistent: false, ..Query::all(keys::all(keys::OPEN)) };
        Ok(!self.table.first(&query, 1).await?.is_empty())
    }

    async fn read_incident(&self, head: &Item) -> Result<Kept> {
        let (mut value, rev): (Incident, u64) = (doc(head)?, need_number(head, "r")?);
        let (list, members): (u64, usize) = (need_number(head, "l")?, need_number(head, "m")?);
        // Two regions may give the same revision, but never the same list.
        if let Some(kept) = self.incidents.at(value.id, rev).filter(|kept| kept.list == list) {
            return Ok(kept);
        }
        let (from, to): (usize, usize) = (need_number(head, "a")?, need_number(head, "b")?);
        let range = Range::Prefix(keys::members(list));
        let query = Query { range, ..Query::all(keys::incident_pk(value.id)) };
        let mut subjects: Vec<Subject> = Vec::new();
        for joined in self.table.query(&query).await? {
            subjects.extend(doc::<Vec<Subject>>(&joined)?);
        }
        let part = |from: usize, to: usize| {
            let part = subjects.get(from..to).map(<[Subject]>::to_vec);
            part.ok_or_else(|| StoreError::Corrupt(format!("members of incident {} are missing", value.id.0)))
        };
        (value.members, value.untold) = (part(0, members)?, part(from, to)?);
        let kept = Kept { value, rev, list, from, to };
        self.incidents.keep(kept.clone());
        Ok(kept)
    }

    /// Adds an incident to what is written, on the condition that it is still as it was read. None: it is not.
    pub(crate) async fn put_incident(
        &self,
        base: &mut Transaction,
        decided: &Versioned<Incident>,
    ) -> Result<Option<Kept>> {
        let id = decided.value.id;
        let before = if decided.rev == 0 {
            None
        } else if let Some(kept) = self.incidents.at(id, decided.rev) {
            Some(kept)
        } else {
            let Some(head) = self.table.get(&keys::incident(id), true).await? else { return Ok(None) };
            if need_number::<u64>(&head, "r")? != decided.rev {
                return Ok(None);
            }
            Some(self.read_incident(&head).await?)
        };
        let next = self.put_list(base, before.as_ref(), decided).await?;
        let head = Incident { members: Vec::new(), untold: Vec::new(), ..decided.value.clone() };
        let mut head = item(
            &keys::incident(id),
            [
                (DOC, text(json(&head)?)),
                ("r", number(next.rev)),
                ("l", number(next.list)),
                ("m", number(next.members())),
                ("a", number(next.from)),
                ("b", number(next.to)),
            ],
        );
        self.regions.sign(&mut head);
        let mut unchanged = Condition::new("r = :r", [(":r", number(decided.rev))]);
        if let Some(before) = &before {
            unchanged.expression.push_str(" AND l = :l");
            unchanged.values.push((":l", number(before.list)));
        }
        let condition = if decided.rev == 0 { Condition::is_new() } else { unchanged };
        base.put(&self.table, Role::Basis, head, Some(condition))?;
        let key = Key::new(keys::all(keys::OPEN), id.0.to_string());
        let mut open = key.attributes();
        self.regions.sign(&mut open);
        let was_open = before.as_ref().is_some_and(|before| before.value.closed_at.is_none());
        match (was_open, decided.value.closed_at.is_none()) {
            (false, true) => base.put(&self.table, Role::Free, open, None)?,
            (true, false) => base.delete(&self.table, Role::Free, &key, None)?,
            // It is another region's, and is taken over.
            (true, true) if self.regions.stands_in() => base.put(&self.table, Role::Free, open, None)?,
            (true, true) | (false, false) => {}
        }
        Ok(Some(next))
    }

    /// Adds to the list what is new in it.
    async fn put_list(
        &self,
        base: &mut Transaction,
        before: Option<&Kept>,
        decided: &Versioned<Incident>,
    ) -> Result<Kept> {
        let value = &decided.value;
        let rev = decided.rev.saturating_add(1);
        if let Some(before) = before
            && let Some((from, to, joined)) = grown(before, value)
        {
            let segments = segments(value.id, before.list, before.to, joined)?;
            if segments.len() <= 1 {
                for segment in segments {
                    base.put(&self.table, Role::Free, segment, None)?;
                }
                return Ok(Kept { value: value.clone(), rev, list: before.list, from, to });
            }
        }
        let list = self.allocate_one().await?;
        let subjects: Vec<Subject> = value.members.iter().chain(&value.untold).cloned().collect();
        let mut segments = segments(value.id, list, 0, &subjects)?;
        if segments.len() > 1 {
            self.table.put_many(segments).await?;
        } else if let Some(segment) = segments.pop() {
            base.put(&self.table, Role::Free, segment, None)?;
        }
        let (from, to) = (value.members.len(), subjects.len());
        Ok(Kept { value: value.clone(), rev, list, from, to })
    }

    /// Hosts whose open outage belongs to the incident, by name.
    pub(crate) async fn members_down(&self, incident: IncidentId, limit: usize) -> Result<Vec<Subject>> {
        let items = self.table.first(&Query::all(keys::outage_pk(incident)), limit.min(PAGE_MAX)).await?;
        let mut listed: Vec<Subject> = items.iter().map(doc).collect::<Result<_>>()?;
        if self.regions.peer().is_some() {
            // What the other region took off the list may arrive before what it put there: then that stays. Each host knows.
            let ids: Vec<HostId> = listed.iter().map(|subject| subject.id).collect();
            let hosts = registry::read_many(&self.table, &ids, self.shards, false).await?;
            let is_down = |host: &Host| host.state.outage().is_some_and(|outage| outage.incident == incident);
            let down: HashSet<HostId> =
                hosts.into_iter().filter(|held| is_down(&held.value)).map(|held| held.value.id).collect();
            listed.retain(|subject| down.contains(&subject.id));
        }
        Ok(listed)
    }
}

/// The part of the list that is still to be named, and who joined it, if the list only grew: as it does while an incident
/// lasts.
fn grown<'a>(before: &Kept, value: &'a Incident) -> Option<(usize, usize, &'a [Subject])> {
    let old = &before.value;
    if value.members == old.members {
        // Somebody joined, or nobody did.
        if let Some(joined) = value.untold.strip_prefix(old.untold.as_slice()) {
            return Some((before.from, before.to + joined.len(), joined));
        }
        // All were named, and the list of names was full.
        return value.untold.is_empty().then_some((before.to, before.to, &[]));
    }
    // Who was to be named is named: the part moves up to the members.
    let moved = old.members.iter().chain(&old.untold).take(MEMBERS_MAX);
    let is_moved = before.from == before.members() && value.untold.is_empty() && value.members.iter().eq(moved);
    is_moved.then_some((before.to, before.to, &[]))
}

/// Items for these subjects, the first of which is at that place of the list.
fn segments(id: IncidentId, list: u64, first: usize, subjects: &[Subject]) -> Result<Vec<Item>> {
    let mut segments = Vec::new();
    let mut place = first;
    let mut documents: Vec<String> = Vec::new();
    let mut bytes = 0;
    let mut close = |place: &mut usize, documents: &mut Vec<String>| {
        if documents.is_empty() {
            return;
        }
        let key = Key::new(keys::incident_pk(id), format!("{}{:010}", keys::members(list), *place));
        segments.push(item(&key, [(DOC, text(format!("[{}]", documents.join(","))))]));
        *place += documents.len();
        documents.clear();
    };
    for subject in subjects {
        let document = json(subject)?;
        if bytes + document.len() > INLINE_BYTES_MAX {
            close(&mut place, &mut documents);
            bytes = 0;
        }
        bytes += document.len();
        documents.push(document);
    }
    close(&mut place, &mut documents);
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use hb_core::time::Time;
    use hb_wire::id::HostId;
    use hb_wire::name::{HostName, Tags};

    use super::*;

    fn subjects(names: &str) -> Vec<Subject> {
        let subject = |name: char| Subject {
            id: HostId(uuid::Uuid::from_u128(u128::from(u32::from(name)))),
            name: HostName::parse(&name.to_string()).expect("a letter is a name"),
            tags: Tags::default(),
        };
        names.chars().map(subject).collect()
    }

    fn incident(members: &str, untold: &str) -> Incident {
        Incident {
            id: IncidentId(uuid::Uuid::nil()),
            opened_at: Time(1),
            tag: None,
            expected: 9,
            silent: 9,
            singly: 0,
            members: subjects(members),
            untold: subjects(untold),
            told_at: Time(1),
            first_back_at: None,
            told_back: 0,
            closed_at: None,
        }
    }

    /// The list holds `abc`; `members` were named, and what is `from` a place on is still to be.
    fn check(before: (&str, &str, usize), after: (&str, &str), wanted: Option<(usize, usize, &str)>) {
        let (members, untold, from) = before;
        let to = from + untold.len();
        let kept = Kept { value: incident(members, untold), rev: 1, list: 1, from, to };
        let value = incident(after.0, after.1);
        let grown = grown(&kept, &value).map(|(from, to, joined)| (from, to, joined.to_vec()));
        assert_eq!(grown, wanted.map(|(from, to, joined)| (from, to, subjects(joined))), "{before:?} {after:?}");
    }

    #[test]
    fn a_list_grows_or_its_part_moves_and_all_else_is_written_anew() {
        check(("a", "b", 1), ("a", "b"), Some((1, 2, "")));
        check(("a", "b", 1), ("a", "bcd"), Some((1, 4, "cd")));
        check(("a", "bc", 1), ("abc", ""), Some((3, 3, "")));
        // The names were full: whoever was to be named is, but not kept.
        check(("a", "b", 7), ("a", ""), Some((8, 8, "")));
        check(("a", "b", 7), ("a", "bc"), Some((7, 9, "c")));
        check(("a", "b", 7), ("ab", ""), None);
        check(("a", "b", 1), ("ab", "c"), None);
        check(("a", "b", 1), ("ac", ""), None);
        check(("a", "b", 1), ("a", "c"), None);
        check(("a", "b", 1), ("", ""), None);
    }
}
