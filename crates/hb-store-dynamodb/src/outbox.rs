//! Deliveries.
//!
//! A delivery is in one partition for as long as it is pending, and in another one when it is finished, each in the order of
//! storing: what has to be done is never mixed with what was done. A pointer finds it by its id, another one by its incident.

mod finished;

use std::collections::{BTreeMap, HashMap, HashSet};

use futures_util::future::try_join_all;
use hb_core::delivery::{Delivery, Status};
use hb_core::time::Time;
use hb_store::{Backlog, Listed, PAGE_MAX, Result, StoreError, Topic};
use hb_wire::id::{ChannelId, DeliveryId, EventId, IncidentId};

use crate::calls::{Condition, Query, Range, Written, sk};
use crate::item::{DOC, Item, corrupt, doc, item, json, need_text, set, some_time, text, time};
use crate::keys::{self, Key};
use crate::regions::{TAKEOVER_AFTER_MS, owner};
use crate::store::DynamoStore;
use crate::transaction::{Outcome, Role, Transaction, WRITES_MAX};

/// Claims that are tried at once.
const CLAIMS_AT_ONCE: usize = 16;
/// How often finished deliveries are counted while new ones are made: after this many positions.
const COUNT_EVERY: u64 = 512;
/// How often they are counted while old ones are finished: once in this many.
const COUNT_ONE_IN: u8 = 128;
/// Where a delivery may be.
const STATUSES: [Status; 4] = [Status::Pending, Status::Delivered, Status::Merged, Status::Dead];

/// The partition of deliveries with this status.
pub(crate) fn partition(status: Status) -> String {
    match status {
        Status::Pending => keys::all(keys::PENDING),
        Status::Delivered | Status::Merged | Status::Dead => format!("{}{}", keys::FINISHED, status.word()),
    }
}

fn is_finished(status: Status) -> bool {
    status != Status::Pending
}

/// A pending delivery, where it is.
#[derive(Debug)]
struct Pending {
    item: Item,
    delivery: Delivery,
    /// From when on it may be claimed here; none: not here.
    turn: Option<Time>,
}

fn document(delivery: &Delivery) -> Result<String> {
    json(&Delivery { leased_until: None, ..delivery.clone() })
}

fn read(item: &Item) -> Result<Delivery> {
    Ok(Delivery { leased_until: some_time(item, "l")?, ..doc(item)? })
}

fn listed(item: &Item) -> Result<Listed<Delivery>> {
    let position = sk(item).parse().map_err(|_| corrupt(item, "s"))?;
    Ok(Listed { position, value: read(item)? })
}

fn of_incident(incident: IncidentId, position: &str) -> Key {
    Key::new(keys::incident_pk(incident), format!("{}{position}", keys::DELIVERY_OF))
}

/// When a pending delivery may be claimed: due, and not leased.
fn ready_at(delivery: &Delivery) -> Time {
    delivery.next_attempt_at.max(delivery.leased_until.unwrap_or(Time::ZERO))
}

/// The lease is still the one that was seen.
fn has_lease(lease: Option<Time>) -> Condition {
    match lease {
        Some(lease) => Condition::new("l = :l", [(":l", time(lease))]),
        None => Condition::new("attribute_exists(p) AND attribute_not_exists(l)", []),
    }
}

impl DynamoStore {
    /// Makes deliveries in as many transactions as it takes; the last one marks the event as fanned out. If it ends between
    /// them, the event is still untold and it is done again: what is there already is left as it is.
    pub(crate) async fn fan_out(&self, event: EventId, deliveries: &[Delivery]) -> Result<()> {
        let Some(place) = self.place_of(event).await? else { return Ok(()) };
        let untold = self.untold_marks(event, place.sk).await?;
        if untold.is_empty() {
            // It is told already.
            return Ok(());
        }
        let mut seen = HashSet::new();
        let deliveries: Vec<&Delivery> = deliveries.iter().filter(|delivery| seen.insert(delivery.id)).collect();
        let positions = self.allocate(deliveries.len()).await?;
        let mut rest: Vec<(u64, &Delivery)> = positions.iter().zip(deliveries.iter().copied()).collect();
        loop {
            let mut transaction = Transaction::default();
            let mut taken = 0;
            for (n, (position, delivery)) in rest.iter().enumerate() {
                let writes = self.writes_of_delivery(n, delivery, &keys::position(*position))?;
                if transaction.len() + writes.len() + untold.len() > WRITES_MAX || !transaction.has_room_for(&writes) {
                    break;
                }
                transaction.append(writes);
                taken += 1;
            }
            let is_last = taken == rest.len();
            for mark in &untold {
                if is_last {
                    transaction.delete(&self.table, Role::Basis, mark, Some(Condition::exists()))?;
                } else {
                    transaction.check(&self.table, Role::Basis, mark, Condition::exists())?;
                }
            }
            match transaction.run(&self.table).await? {
                Outcome::Done if is_last => break,
                Outcome::Done => drop(rest.drain(..taken)),
                Outcome::Contended => return Err(StoreError::Overloaded),
                // It is told already.
                Outcome::Refused(refusals) if refusals.iter().any(|(role, _)| *role == Role::Basis) => return Ok(()),
                Outcome::Refused(refusals) => {
                    let known: HashSet<usize> = refusals.iter().filter_map(|(role, _)| delivery_of(*role)).collect();
                    let mut n = 0..;
                    rest.retain(|_| n.next().is_none_or(|n| !known.contains(&n)));
                }
            }
        }
        if positions.pass_multiple_of(COUNT_EVERY) {
            self.let_go_of_deliveries().await;
        }
        Ok(())
    }

    fn writes_of_delivery(&self, n: usize, delivery: &Delivery, position: &str) -> Result<Transaction> {
        let mut writes = Transaction::default();
        let pointer = item(&keys::delivery(delivery.id), [("o", text(position))]);
        writes.put(&self.table, Role::Delivery(n), pointer, Some(Condition::is_new()))?;
        writes.put(&self.table, Role::Free, self.item_of(delivery, position)?, None)?;
        if let Some(incident) = delivery.incident {
            writes.put(&self.table, Role::Free, of_incident(incident, position).attributes(), None)?;
        }
        Ok(writes)
    }

    /// A delivery's item. The lease stands beside the document: claims change nothing else.
    fn item_of(&self, delivery: &Delivery, position: &str) -> Result<Item> {
        let key = Key::new(partition(delivery.status), position);
        let mut item = item(&key, [(DOC, text(document(delivery)?)), ("f", text(delivery.event.0.to_string()))]);
        set(&mut item, "l", delivery.leased_until.map(time));
        self.regions.sign(&mut item);
        Ok(item)
    }

    /// What says that an event is to be told: one item, or where two regions stored it, one of each.
    async fn untold_marks(&self, event: EventId, place: String) -> Result<Vec<Key>> {
        if self.regions.peer().is_none() {
            return Ok(vec![Key::new(keys::all(keys::UNTOLD), place)]);
        }
        let filter = Some(Condition::new("f = :f", [(":f", text(event.0.to_string()))]));
        let marks = self.table.query(&Query { filter, ..Query::all(keys::all(keys::UNTOLD)) }).await?;
        Ok(marks.iter().filter_map(Key::of).collect())
    }

    /// All that is pending, in the order of storing.
    async fn pending(&self) -> Result<Vec<Pending>> {
        let items = self.table.query(&Query::all(partition(Status::Pending))).await?;
        let pending = items.into_iter().map(|item| {
            let delivery = read(&item)?;
            let turn = self.regions.turn_to_carry(owner(&item), delivery.created_at, ready_at(&delivery));
            Ok(Pending { item, delivery, turn })
        });
        pending.collect()
    }

    pub(crate) async fn lease(&self, now: Time, until: Time, limit: usize) -> Result<Vec<Delivery>> {
        let limit = limit.min(PAGE_MAX);
        if limit == 0 {
            return Ok(Vec::new());
        }
        let mut ready = heads(self.pending().await?, now);
        ready.retain(|pending| pending.turn.is_some_and(|turn| turn <= now));
        let mut claimed = Vec::new();
        let mut next = 0;
        // Others may be faster: then those further behind are tried.
        while claimed.len() < limit && next < ready.len() {
            let end = ready.len().min(next + CLAIMS_AT_ONCE.min(limit - claimed.len()));
            let some = ready.get(next..end).unwrap_or_default();
            let done = self.done_already(some).await?;
            let open = some.iter().filter(|pending| !done.contains(&pending.delivery.id));
            let tries = open.map(|pending| self.lease_one(&pending.item, &pending.delivery, until));
            claimed.extend(try_join_all(tries).await?.into_iter().flatten());
            next = end;
        }
        Ok(claimed)
    }

    /// Those of these that are done: another region's claim came after that here, and brought them back. They are taken away
    /// again.
    async fn done_already(&self, pending: &[Pending]) -> Result<HashSet<DeliveryId>> {
        let mut done = HashSet::new();
        if self.regions.peer().is_none() {
            return Ok(done);
        }
        let place = |held: &Pending| {
            [Status::Delivered, Status::Merged].map(|status| Key::new(partition(status), sk(&held.item)))
        };
        let found = self.table.get_many(pending.iter().flat_map(place).collect(), true).await?;
        for held in pending.iter().filter(|held| place(held).iter().any(|key| found.contains_key(key))) {
            let mut transaction = Transaction::default();
            let key = Key::of(&held.item).ok_or_else(|| corrupt(&held.item, "s"))?;
            transaction.delete(&self.table, Role::Basis, &key, Some(has_lease(held.delivery.leased_until)))?;
            // Whatever comes of it: who does not find it done the next time was faster.
            transaction.run(&self.table).await?;
            done.insert(held.delivery.id);
        }
        Ok(done)
    }

    async fn lease_one(&self, item: &Item, held: &Delivery, until: Time) -> Result<Option<Delivery>> {
        let mut unchanged = has_lease(held.leased_until);
        unchanged.expression.push_str(" AND j = :j");
        unchanged.values.push((":j", text(need_text(item, DOC)?)));
        unchanged.values.push((":until", time(until)));
        let key = Key::of(item).ok_or_else(|| corrupt(item, "s"))?;
        Ok(match self.table.update(&key, "SET l = :until", &unchanged).await? {
            Written::Done(_) => Some(Delivery { leased_until: Some(until), ..held.clone() }),
            Written::Refused(_) => None,
        })
    }

    pub(crate) async fn next_work(&self) -> Result<Option<Time>> {
        self.finish_staged().await?;
        if !self.untold_here(1).await?.is_empty() {
            return Ok(Some(Time::ZERO));
        }
        Ok(heads(self.pending().await?, Time::MAX).iter().filter_map(|pending| pending.turn).min())
    }

    /// Whether anything waits to be told or carried, here or in another region, as far as can be seen at half the price: what
    /// was written a moment ago may be missed. For whoever looks now and then only to see whether there is anything to do.
    ///
    /// # Errors
    /// As all calls of the store.
    pub async fn may_have_work(&self) -> Result<bool> {
        for pk in [keys::all(keys::STAGED), keys::all(keys::UNTOLD), partition(Status::Pending)] {
            let query = Query { consistent: false, only: Some("p"), ..Query::all(pk) };
            if !self.table.first(&query, 1).await?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(crate) async fn finish_delivery(&self, delivery: &Delivery, lease: Time) -> Result<bool> {
        let Some(position) = self.position_of_leased(delivery, lease).await? else { return Ok(false) };
        if !self.move_delivery(delivery, Status::Pending, Some(lease), &position).await? {
            return Ok(false);
        }
        self.note(delivery).await;
        if is_finished(delivery.status) && delivery.id.0.as_bytes()[15].is_multiple_of(COUNT_ONE_IN) {
            self.let_go_of_deliveries().await;
        }
        Ok(true)
    }

    /// Replaces a delivery that has that status and that lease. `false`: it has not.
    async fn move_delivery(
        &self,
        delivery: &Delivery,
        from: Status,
        lease: Option<Time>,
        position: &str,
    ) -> Result<bool> {
        let place = Key::new(partition(from), position);
        if from == delivery.status {
            return Ok(matches!(
                self.table.put(self.item_of(delivery, position)?, &has_lease(lease)).await?,
                Written::Done(_)
            ));
        }
        let mut transaction = Transaction::default();
        transaction.delete(&self.table, Role::Basis, &place, Some(has_lease(lease)))?;
        // It may be there: another region was faster, and its claim came after that here.
        transaction.put(&self.table, Role::Basis, self.item_of(delivery, position)?, None)?;
        match transaction.run(&self.table).await? {
            Outcome::Done => Ok(true),
            Outcome::Refused(_) => Ok(false),
            Outcome::Contended => Err(StoreError::Overloaded),
        }
    }

    /// Notes on the channel what became of a delivery. The delivery is settled, whether this succeeds or not: a note that is
    /// lost is made again by the next delivery, an error would have this one done twice.
    async fn note(&self, delivery: &Delivery) {
        let mut condition = Condition::exists();
        let update = match (delivery.status, delivery.delivered_at, &delivery.last_error) {
            (Status::Merged, _, _) => return,
            (Status::Delivered, Some(at), _) => {
                condition.values.push((":y", time(at)));
                "SET y = :y REMOVE e"
            }
            (Status::Delivered, None, _) => "REMOVE y, e",
            (Status::Pending | Status::Dead, _, Some(error)) => {
                condition.values.push((":e", text(error)));
                "SET e = :e"
            }
            (Status::Pending | Status::Dead, _, None) => "REMOVE e",
        };
        if let Err(error) = self.table.update(&keys::channel(delivery.channel), update, &condition).await {
            tracing::warn!("what became of a delivery is not noted on its channel: {error}");
        }
    }

    /// Where a delivery is that was claimed. Where two regions made it, the pointer says where one of both has it.
    async fn position_of_leased(&self, delivery: &Delivery, lease: Time) -> Result<Option<String>> {
        if self.regions.peer().is_none() {
            return self.position_of(delivery.id).await;
        }
        let pending = self.pending().await?;
        let is_it = |held: &Delivery| held.id == delivery.id && held.leased_until == Some(lease);
        Ok(pending.iter().find(|held| is_it(&held.delivery)).map(|held| sk(&held.item).to_owned()))
    }

    async fn position_of(&self, id: DeliveryId) -> Result<Option<String>> {
        let pointer = self.table.get(&keys::delivery(id), true).await?;
        pointer.map(|pointer| need_text(&pointer, "o").map(str::to_owned)).transpose()
    }

    /// Deliveries at these positions, whatever became of them.
    async fn at(&self, positions: &[String]) -> Result<Vec<Delivery>> {
        let place = |position: &String| STATUSES.map(|status| Key::new(partition(status), position.clone()));
        let found: HashMap<Key, Item> = self.table.get_many(positions.iter().flat_map(place).collect(), true).await?;
        let items = positions.iter().filter_map(|position| place(position).iter().find_map(|key| found.get(key)));
        items.map(read).collect()
    }

    pub(crate) async fn list_of_incident(&self, incident: IncidentId) -> Result<Vec<Delivery>> {
        let range = Range::Prefix(keys::DELIVERY_OF.to_owned());
        let pointers = self.table.query(&Query { range, ..Query::all(keys::incident_pk(incident)) }).await?;
        let positions = pointers.iter().filter_map(|item| sk(item).strip_prefix(keys::DELIVERY_OF).map(str::to_owned));
        self.at(&positions.collect::<Vec<_>>()).await
    }

    pub(crate) async fn get_delivery(&self, id: DeliveryId) -> Result<Option<Delivery>> {
        match self.position_of(id).await? {
            Some(position) => Ok(self.at(&[position]).await?.pop()),
            None => Ok(None),
        }
    }

    pub(crate) async fn try_revive(&self, revived: &Delivery) -> Result<bool> {
        let Some(position) = self.position_of(revived.id).await? else { return Ok(false) };
        // The likelier one first.
        for status in [Status::Dead, Status::Pending] {
            if self.move_delivery(revived, status, None, &position).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(crate) async fn count_backlog(&self) -> Result<Backlog> {
        let untold = self.table.count(&Query::all(keys::all(keys::UNTOLD))).await?;
        let pending = self.pending().await?;
        let failing = pending.iter().filter(|pending| pending.delivery.attempts > 0).count();
        Ok(Backlog {
            failing: u64::try_from(failing).unwrap_or(u64::MAX),
            pending: u64::try_from(pending.len()).unwrap_or(u64::MAX).saturating_add(untold),
            dead: self.count_lost().await?,
        })
    }

    /// Removes what waits for a channel.
    pub(crate) async fn forget_pending(&self, channel: ChannelId) -> Result<()> {
        for Pending { item, delivery, .. } in self.pending().await? {
            if delivery.channel != channel {
                continue;
            }
            let mut transaction = Transaction::default();
            let key = Key::of(&item).ok_or_else(|| corrupt(&item, "s"))?;
            transaction.delete(&self.table, Role::Basis, &key, Some(Condition::exists()))?;
            transaction.delete(&self.table, Role::Free, &keys::delivery(delivery.id), None)?;
            if let Some(incident) = delivery.incident {
                transaction.delete(&self.table, Role::Free, &of_incident(incident, &key.sk), None)?;
            }
            // Refused: it was settled at this moment, and is history.
            match transaction.run(&self.table).await? {
                Outcome::Done | Outcome::Refused(_) => {}
                Outcome::Contended => return Err(StoreError::Overloaded),
            }
        }
        Ok(())
    }
}

/// The oldest pending delivery of each queue, in the order of storing.
///
/// What another region has to carry goes first there as well, so that what is said of a host arrives in order; but not for
/// ever: what is left lying holds nothing up.
fn heads(mut heads: Vec<Pending>, now: Time) -> Vec<Pending> {
    let mut seen: BTreeMap<ChannelId, HashSet<Topic>> = BTreeMap::new();
    let is_left = |held: &Pending| held.turn.is_none() && ready_at(&held.delivery).plus(TAKEOVER_AFTER_MS) <= now;
    heads.retain(|held| {
        !is_left(held) && seen.entry(held.delivery.channel).or_default().insert(Topic::of(&held.delivery))
    });
    heads
}

fn delivery_of(role: Role) -> Option<usize> {
    if let Role::Delivery(n) = role { Some(n) } else { None }
}
