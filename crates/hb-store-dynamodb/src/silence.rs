//! The fleet as the slim items show it: who is due, who is late, how many there are.
//!
//! All of it is a walk along the shards. What it costs is the size of the items: about 22 units for a thousand hosts,
//! whatever the number of those that are due.

use std::collections::{HashMap, HashSet};

use futures_util::future::try_join_all;
use hb_core::event::Subject;
use hb_core::host::Host;
use hb_core::incident::Group;
use hb_core::ledger::Ledger;
use hb_core::policy::Policy;
use hb_core::time::Time;
use hb_store::{Fleet, PAGE_MAX, Result, Versioned};
use hb_wire::id::HostId;
use hb_wire::name::Tags;

use crate::calls::{Condition, Query};
use crate::item::{Item, time};
use crate::keys;
use crate::live::Live;
use crate::registry;
use crate::store::DynamoStore;

/// Shards that are read at once.
const SHARDS_AT_ONCE: usize = 16;

impl DynamoStore {
    /// The slim items of all hosts that are not retired, or of those that a filter leaves.
    ///
    /// Not consistent, at half the price: whatever is decided from it is decided again from what is read then.
    async fn live_items(&self, filter: Option<&Condition>) -> Result<Vec<Item>> {
        let shards: Vec<u16> = (0..self.shards_in_use).collect();
        let mut items = Vec::new();
        for some in shards.chunks(SHARDS_AT_ONCE) {
            let queries: Vec<Query> = some
                .iter()
                .map(|shard| Query {
                    filter: filter.cloned(),
                    consistent: false,
                    ..Query::all(keys::shard_pk(keys::LIVE, *shard))
                })
                .collect();
            let found = try_join_all(queries.iter().map(|query| self.table.query(query))).await?;
            items.extend(found.into_iter().flatten());
        }
        Ok(items)
    }

    async fn lives(&self) -> Result<Vec<Live>> {
        self.live_items(None).await?.iter().map(Live::read).collect()
    }

    /// Those that this region judges: of another one's hosts it may merely not see the beats.
    pub(crate) async fn judged(&self) -> Result<Vec<Live>> {
        let mut lives = self.lives().await?;
        lives.retain(|live| self.turn(live, Time::ZERO).is_some() && !self.regions.is_heard_there(live.id));
        Ok(lives)
    }

    /// From when on this region decides about a host that is due at `alarm`; none: it does not.
    fn turn(&self, live: &Live, alarm: Time) -> Option<Time> {
        self.regions.turn_to_judge(live.owner(), alarm, live.need_ms)
    }

    pub(crate) async fn find_due(
        &self,
        now: Time,
        ledger: &Ledger,
        policy: &Policy,
        limit: usize,
    ) -> Result<Vec<Versioned<Host>>> {
        let limit = limit.min(PAGE_MAX);
        if limit == 0 {
            return Ok(Vec::new());
        }
        let passed = Condition::new("d <= :now AND (attribute_not_exists(m) OR m <= :now)", [(":now", time(now))]);
        let items = self.live_items(Some(&passed)).await?;
        let mut candidates: HashMap<HostId, (Live, &Item)> = HashMap::with_capacity(items.len());
        for item in &items {
            let live = Live::read(item)?;
            if self.turn(&live, Time::ZERO).is_some() {
                candidates.insert(live.id, (live, item));
            }
        }
        let is_mine = |alarm: Time, id: HostId| {
            let turn = candidates.get(&id).and_then(|(live, _)| self.turn(live, alarm));
            turn.is_some_and(|turn| turn <= now)
        };
        // Of an open item the alarm is known; of a closed one it stands in the document.
        let (open, closed): (Vec<_>, Vec<_>) = candidates.values().partition(|(live, _)| live.is_open());
        let closed: Vec<(HostId, &Item)> = closed.into_iter().map(|(live, item)| (live.id, *item)).collect();
        let mut read: HashMap<HostId, Versioned<Host>> = HashMap::new();
        for held in registry::complete(&self.table, &closed, self.shards).await? {
            read.insert(held.value.id, held);
        }
        let mut alarms: Vec<(Time, HostId)> = open
            .into_iter()
            .filter_map(|(live, _)| Some((live.alarm(ledger, policy)?, live.id)))
            .chain(read.values().filter_map(|held| Some((held.value.alarm_at(ledger, policy)?, held.value.id))))
            .filter(|(alarm, id)| is_mine(*alarm, *id))
            .collect();
        alarms.sort_unstable();
        alarms.truncate(limit);
        let unread = alarms.iter().filter(|(_, id)| !read.contains_key(id));
        let unread: Vec<(HostId, &Item)> = unread.filter_map(|(_, id)| Some((*id, candidates.get(id)?.1))).collect();
        for held in registry::complete(&self.table, &unread, self.shards).await? {
            read.insert(held.value.id, held);
        }
        let mut due: Vec<(Time, Versioned<Host>)> = Vec::with_capacity(alarms.len());
        for (_, id) in alarms {
            let Some(held) = read.remove(&id) else { continue };
            // It may have been heard since the walk.
            let alarm = held.value.alarm_at(ledger, policy).filter(|alarm| is_mine(*alarm, id));
            due.extend(alarm.map(|alarm| (alarm, held)));
        }
        due.sort_by_key(|(alarm, held)| (*alarm, held.value.id));
        let silent: Vec<(HostId, Time)> =
            due.iter().map(|(_, held)| (held.value.id, held.value.life.silent_from)).collect();
        self.ask_about(&silent, now).await?;
        due.retain(|(_, held)| !self.regions.is_heard_there(held.value.id));
        Ok(due.into_iter().map(|(_, held)| held).collect())
    }

    pub(crate) async fn first_floor(&self) -> Result<Option<Time>> {
        Ok(self.lives().await?.iter().filter_map(Live::floor).min())
    }

    pub(crate) async fn count_fleet(&self, now: Time) -> Result<Fleet> {
        let mut fleet = Fleet::default();
        for live in self.lives().await? {
            fleet.hosts += 1;
            *fleet.states.entry(live.word().to_owned()).or_default() += 1;
            fleet.late += u64::from(live.is_late(now));
            fleet.shortest_need_ms = Some(fleet.shortest_need_ms.unwrap_or(u64::MAX).min(live.need_ms));
        }
        let retired: Vec<Query> = (0..self.shards_in_use)
            .map(|shard| Query { consistent: false, ..Query::all(keys::shard_pk(keys::RETIRED, shard)) })
            .collect();
        let counted = try_join_all(retired.iter().map(|query| self.table.count(query))).await?;
        let retired: u64 = counted.iter().sum();
        if retired > 0 {
            fleet.states.insert("retired".to_owned(), retired);
        }
        Ok(fleet)
    }

    pub(crate) async fn count_silence(&self, now: Time, tags: &Tags) -> Result<Vec<Group>> {
        let lives = self.judged().await?;
        let mut groups = vec![group(None, lives.iter(), now)];
        let with_tag = tags.as_map().iter().map(|(key, value)| self.ids_with_tag(key, value));
        let members: Vec<HashSet<HostId>> = try_join_all(with_tag).await?;
        for ((key, value), ids) in tags.as_map().iter().zip(members) {
            let sharing = lives.iter().filter(|live| ids.contains(&live.id));
            groups.push(group(Some((key.clone(), value.clone())), sharing, now));
        }
        Ok(groups)
    }

    pub(crate) async fn find_silent(
        &self,
        now: Time,
        tag: Option<&(String, String)>,
        limit: usize,
    ) -> Result<Vec<Subject>> {
        let limit = limit.min(PAGE_MAX);
        if limit == 0 {
            return Ok(Vec::new());
        }
        let mut late: HashSet<HostId> =
            self.judged().await?.iter().filter(|live| live.is_missed(now)).map(|live| live.id).collect();
        if let Some((key, value)) = tag.filter(|_| !late.is_empty()) {
            let ids = self.ids_with_tag(key, value).await?;
            late.retain(|id| ids.contains(id));
        }
        let hosts = self.first_by_name(late, limit).await?;
        Ok(hosts.iter().map(Subject::of).collect())
    }
}

fn group<'a>(tag: Option<(String, String)>, lives: impl Iterator<Item = &'a Live>, now: Time) -> Group {
    let mut group = Group { tag, expected: 0, silent: 0, down: 0 };
    for live in lives {
        let fell = live.fell_alone(now);
        group.expected += u64::from(fell || live.is_expected(now));
        group.silent += u64::from(fell || live.is_missed(now));
        group.down += u64::from(fell);
    }
    group
}
