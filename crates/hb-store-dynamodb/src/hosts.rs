//! Beats, enrolments, decisions, and lists of hosts.

use std::collections::HashSet;

use hb_core::event::Event;
use hb_core::host::Host;
use hb_core::time::Time;
use hb_store::{
    Beat, Beaten, Change, Committed, Credential, Enrolled, HostQuery, PAGE_MAX, Result, Signer, StoreError, Versioned,
};
use hb_wire::id::HostId;
use hb_wire::key::PublicKey;
use uuid::Uuid;

use crate::calls::{Condition, Query, Range, Written, sk};
use crate::events::Wrote;
use crate::image::Image;
use crate::item::{Item, corrupt, doc, item, need_text, number, text, time};
use crate::keys::{self, Key};
use crate::live::Live;
use crate::registry::{self, Held};
use crate::store::DynamoStore;
use crate::transaction::{Role, Transaction};

impl DynamoStore {
    /// Where a host's slim item belongs, and who writes it.
    pub(crate) fn place(&self, id: HostId) -> (u16, &str) {
        (keys::shard(id, self.shards), self.regions.own())
    }

    pub(crate) async fn put_beat(&self, beat: &Beat) -> Result<Beaten> {
        let (shard, region) = self.place(beat.host);
        let (update, condition) = Live::beat(beat, region);
        let key = keys::live(keys::LIVE, shard, beat.host);
        let met = match self.table.update(&key, &update, &condition).await? {
            Written::Done(_) => return Ok(Beaten::Stored),
            Written::Refused(met) => met,
        };
        if let Some(live) = &met {
            if Live::is_left_by(live, beat) {
                return Ok(Beaten::Stored);
            }
            // What was met says what was last heard; the document, everything else.
            let document = self.table.get(&keys::host(beat.host), true).await?;
            if let Some(held) = document.map(|document| registry::join(&document, Some(live))).transpose()?.flatten() {
                return Ok(Beaten::Decide(Box::new(held.into())));
            }
        }
        let held = registry::read(&self.table, beat.host, self.shards).await?;
        Ok(held.map_or(Beaten::Unknown, |held| Beaten::Decide(Box::new(held.into()))))
    }

    pub(crate) async fn read_host(&self, id: HostId) -> Result<Option<Versioned<Host>>> {
        Ok(registry::read(&self.table, id, self.shards).await?.map(Versioned::from))
    }

    /// From the document alone, and not consistently: half a unit, where a host is two.
    pub(crate) async fn glimpse_signer(&self, id: HostId) -> Result<Option<Signer>> {
        let document = self.table.get(&keys::host(id), false).await?;
        document.map(|document| doc::<Host>(&document).map(|host| Signer::from(&host))).transpose()
    }

    pub(crate) async fn read_host_by_key(&self, key: &PublicKey) -> Result<Option<Versioned<Host>>> {
        match self.table.get(&keys::public_key(key), true).await? {
            Some(item) => self.read_host(owner(&item)?).await,
            None => Ok(None),
        }
    }

    pub(crate) async fn put_new(
        &self,
        host: &Host,
        event: &Event,
        credential: &Credential,
        now: Time,
    ) -> Result<Enrolled> {
        let mut base = Transaction::default();
        registry::move_places(&mut base, &self.table, None, host)?;
        registry::create(&mut base, &self.table, host, self.place(host.id))?;
        let stored = self.prepare(vec![event.clone()], None).await?;
        if let Credential::Token { id } = credential {
            if id.len() > keys::TEXT_BYTES_MAX {
                // Whatever else is wrong: who has no token learns nothing.
                let known = self.table.get(&keys::public_key(&host.key), true).await?;
                return known.map_or(Ok(Enrolled::TokenRefused), |item| Ok(Enrolled::KeyKnown(owner(&item)?)));
            }
            self.redeem(&mut base, id, host.key, stored.first_position(), now)?;
        }
        match self.write(&base, stored).await? {
            Wrote::Done => Ok(Enrolled::Done),
            Wrote::Contended => Err(StoreError::Overloaded),
            Wrote::Refused(refusals) => refused(&refusals),
        }
    }

    /// Takes one use off a token, and remembers for whom.
    fn redeem(&self, base: &mut Transaction, id: &str, key: PublicKey, place: u64, now: Time) -> Result<()> {
        let live = Condition::new(
            "l >= :one AND attribute_not_exists(v) AND e > :now",
            [(":one", number(1)), (":now", time(now))],
        );
        base.update(&self.table, Role::Token, &keys::token(id), "SET l = l - :one", live)?;
        let redeemed = Key::new(keys::redeemed_pk(id), keys::position(place));
        base.put(&self.table, Role::Free, item(&redeemed, [("k", text(key.to_string()))]), None)
    }

    pub(crate) async fn apply(&self, change: Change) -> Result<Committed> {
        let mut base = Transaction::default();
        let (mut events, mut told_there) = (Vec::new(), None);
        if let Some(decided) = &change.host {
            let held = registry::read(&self.table, decided.value.id, self.shards).await?;
            let Some(held) = held.filter(|held| held.token() == decided.rev) else { return Ok(Committed::Conflict) };
            self.put_decided(&mut base, &held, &decided.value)?;
            told_there = held.told_there();
            events.extend(held.endings);
        }
        let mut written = None;
        if let Some(incident) = &change.incident {
            match self.put_incident(&mut base, incident).await? {
                Some(next) => written = Some(next),
                None => return Ok(Committed::Conflict),
            }
        }
        let is_conditional = !base.is_empty();
        events.extend(change.events);
        let stored = self.prepare(events, told_there).await?;
        match self.write(&base, stored).await? {
            Wrote::Done => {
                if let Some(written) = written {
                    self.incidents.keep(written);
                }
                Ok(Committed::Done)
            }
            // Whoever keeps writing the same is faster.
            Wrote::Refused(_) => Ok(Committed::Conflict),
            Wrote::Contended if is_conditional => Ok(Committed::Conflict),
            Wrote::Contended => Err(StoreError::Overloaded),
        }
    }

    fn put_decided(&self, base: &mut Transaction, held: &Held, host: &Host) -> Result<()> {
        registry::move_places(base, &self.table, Some(held.placed()), host)?;
        registry::replace(base, &self.table, held, host, self.place(host.id))
    }

    /// Whose slim item an image is.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for what is no slim item.
    pub fn id_of(&self, image: &Image) -> Result<HostId> {
        Ok(Live::read(image)?.id)
    }

    /// Puts a slim item back that DynamoDB removed because its time had come, just as it was. `false`: that host was decided
    /// about since, or is there, and nothing was written. Anything but a slim item is left alone.
    ///
    /// Who reads the table's stream gives it the old image ([`crate::image::from_json`]) of each removal by the time to live, and then lets the host be
    /// judged: it is there again, and due.
    ///
    /// # Errors
    /// As all calls of the store.
    pub async fn put_back(&self, old_image: Image) -> Result<bool> {
        if !sk_is_live(&old_image) {
            return Ok(false);
        }
        let live = Live::read(&old_image)?;
        let mut transaction = Transaction::default();
        transaction.check(&self.table, Role::Basis, &keys::host(live.id), live.tag.condition())?;
        transaction.put(&self.table, Role::Basis, old_image, Some(Condition::is_new()))?;
        match transaction.run(&self.table).await? {
            crate::transaction::Outcome::Done => Ok(true),
            crate::transaction::Outcome::Refused(_) => Ok(false),
            crate::transaction::Outcome::Contended => Err(StoreError::Overloaded),
        }
    }

    pub(crate) async fn list_hosts(&self, query: &HostQuery) -> Result<Vec<Versioned<Host>>> {
        let limit = query.limit.min(PAGE_MAX);
        let having = self.ids_having(&query.tags).await?;
        let mut walks = vec![Walk::new(names(false, query))];
        if query.retired {
            walks.push(Walk::new(names(true, query)));
        }
        let mut hosts = Vec::new();
        while hosts.len() < limit {
            let ids = self.next_ids(&mut walks, limit - hosts.len(), having.as_ref()).await?;
            if ids.is_empty() {
                break;
            }
            for held in registry::read_many(&self.table, &ids, self.shards, true).await? {
                if fits(&held.value, query) {
                    hosts.push(held);
                }
            }
        }
        Ok(hosts)
    }

    /// The next hosts in the order of (name, id).
    async fn next_ids(
        &self,
        walks: &mut [Walk],
        limit: usize,
        having: Option<&HashSet<HostId>>,
    ) -> Result<Vec<HostId>> {
        let mut ids = Vec::new();
        while ids.len() < limit {
            for walk in &mut *walks {
                while walk.is_empty() && !walk.is_over {
                    let (items, next) = self.table.page(&walk.query, walk.start.take(), Some(PAGE_MAX)).await?;
                    walk.rest = items.into_iter().map(|item| sk(&item).to_owned()).rev().collect();
                    walk.is_over = next.is_none();
                    walk.start = next;
                }
            }
            let first =
                walks.iter_mut().filter(|walk| !walk.is_empty()).min_by(|a, b| a.rest.last().cmp(&b.rest.last()));
            let Some(place) = first.and_then(|walk| walk.rest.pop()) else { break };
            let Some(id) = keys::id_by_name(&place) else { continue };
            if having.is_none_or(|having| having.contains(&id)) {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    /// The hosts that have all of these tags; none: no tag is asked for.
    async fn ids_having(&self, tags: &[(String, String)]) -> Result<Option<HashSet<HostId>>> {
        let mut having: Option<HashSet<HostId>> = None;
        for (key, value) in tags {
            let ids = self.ids_with_tag(key, value).await?;
            having = Some(match having {
                Some(before) => before.intersection(&ids).copied().collect(),
                None => ids,
            });
        }
        Ok(having)
    }

    /// The hosts that have a tag.
    pub(crate) async fn ids_with_tag(&self, key: &str, value: &str) -> Result<HashSet<HostId>> {
        // No host has such a tag, and no key may be as long.
        if key.len() + value.len() > keys::TEXT_BYTES_MAX {
            return Ok(HashSet::new());
        }
        let items = self.table.query(&Query::all(keys::tag_pk(key, value))).await?;
        Ok(items.iter().filter_map(|item| keys::from_short(sk(item)).map(HostId)).collect())
    }

    /// The first of these hosts in the order of (name, id), read as they are.
    pub(crate) async fn first_by_name(&self, wanted: HashSet<HostId>, limit: usize) -> Result<Vec<Host>> {
        let ids = if wanted.len() <= limit {
            wanted.into_iter().collect()
        } else {
            let mut walks = [Walk::new(names(false, &HostQuery::default()))];
            self.next_ids(&mut walks, limit, Some(&wanted)).await?
        };
        let held = registry::read_many(&self.table, &ids, self.shards, false).await?;
        let mut hosts: Vec<Host> = held.into_iter().map(|held| held.value).collect();
        hosts.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        Ok(hosts)
    }
}

/// Hosts in the order of (name, id), from where the query goes on.
fn names(is_retired: bool, query: &HostQuery) -> Query {
    // Longer than any name: cut off, it is still at the same place among them.
    let after = query.after.as_ref().map(|(name, id)| {
        let end = name.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= 512).last();
        keys::by_name(name.get(..end.unwrap_or(0)).unwrap_or_default(), *id)
    });
    let prefix = query.name.as_ref().map(|name| format!("{name}!"));
    let range = match (prefix, after) {
        (None, None) => Range::All,
        (None, Some(after)) => Range::After(after),
        (Some(prefix), Some(after)) if after > prefix => Range::PrefixAfter(prefix, after),
        (Some(prefix), _) => Range::Prefix(prefix),
    };
    Query { range, only: Some("p, s"), ..Query::all(keys::names_pk(is_retired)) }
}

/// A walk along a list of names.
#[derive(Debug)]
struct Walk {
    query: Query,
    /// What was read and not yet given, the next one last.
    rest: Vec<String>,
    start: Option<Item>,
    is_over: bool,
}

impl Walk {
    fn new(query: Query) -> Self {
        Self { query, rest: Vec::new(), start: None, is_over: false }
    }

    fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

fn fits(host: &Host, query: &HostQuery) -> bool {
    let is_retired = matches!(host.state, hb_core::host::State::Retired { .. });
    let is_after = query.after.as_ref().is_none_or(|(name, id)| (host.name.as_str(), host.id) > (name.as_str(), *id));
    is_after
        && (query.retired || !is_retired)
        && query.name.as_ref().is_none_or(|name| *name == host.name)
        && query.tags.iter().all(|(key, value)| host.tags.get(key) == Some(value.as_str()))
}

/// True for the item of a host that may be removed by its time to live.
fn sk_is_live(item: &Item) -> bool {
    Key::of(item).is_some_and(|key| key.pk.starts_with(keys::LIVE))
}

/// The host that owns a key or a name.
fn owner(item: &Item) -> Result<HostId> {
    Uuid::parse_str(need_text(item, "o")?).map(HostId).map_err(|_| corrupt(item, "o"))
}

/// Why an enrolment was refused: in the order in which it has to be said.
fn refused(refusals: &[(Role, Option<Item>)]) -> Result<Enrolled> {
    let of = |wanted: Role| refusals.iter().find(|(role, _)| *role == wanted);
    if let Some((_, met)) = of(Role::PublicKey) {
        let met = met.as_ref().ok_or_else(|| StoreError::Corrupt("a key without an owner".into()))?;
        return Ok(Enrolled::KeyKnown(owner(met)?));
    }
    Ok(if of(Role::Token).is_some() { Enrolled::TokenRefused } else { Enrolled::NameTaken })
}
