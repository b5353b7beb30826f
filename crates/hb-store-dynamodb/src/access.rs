//! Keys, tokens, channels, and what the server knows of itself.
//!
//! Of each, the document says what never changes, and attributes beside it what does: so that a change is one write that
//! needs to know nothing else.

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::future::try_join_all;
use hb_core::access::{ApiKey, Channel, Token};
use hb_core::event::Event;
use hb_core::observer::Observation;
use hb_core::time::Time;
use hb_store::{Committed, Result, StoreError, TOKEN_MEMORY_MS, Versioned};
use hb_wire::id::ChannelId;
use hb_wire::key::PublicKey;

use crate::calls::{Condition, Query, Written};
use crate::events::Wrote;
use crate::item::{DOC, Item, corrupt, doc, item, json, need_number, need_text, number, set, some_time, text, time};
use crate::keys::{self, Key};
use crate::regions::OWNER;
use crate::store::DynamoStore;
use crate::table::TTL;
use crate::transaction::{Outcome, Role, Transaction};

/// Instants beyond the year 5000 are never: DynamoDB's time to live takes seconds, and no token lives as long.
const FOREVER: Time = Time(95_617_584_000_000);

impl DynamoStore {
    /// Stores something with its place in the order of storing. `false`: there is such a one already.
    async fn add(&self, mut item: Item) -> Result<bool> {
        item.insert("o".to_owned(), number(self.allocate_one().await?));
        Ok(match self.table.put(item.clone(), &Condition::is_new()).await? {
            Written::Done(_) => true,
            // No other has this position: the answer to a first try was lost.
            Written::Refused(met) => met == Some(item),
        })
    }

    /// Revokes what is not revoked.
    async fn revoke(&self, key: &Key, now: Time) -> Result<bool> {
        let live = Condition::new("attribute_exists(p) AND attribute_not_exists(v)", [(":v", time(now))]);
        Ok(matches!(self.table.update(key, "SET v = :v", &live).await?, Written::Done(_)))
    }

    /// All of a kind, oldest first.
    async fn in_order(&self, prefix: &str) -> Result<Vec<Item>> {
        let items = self.table.query(&Query::all(keys::all(prefix))).await?;
        let mut placed = Vec::with_capacity(items.len());
        for item in items {
            placed.push((need_number::<u64>(&item, "o")?, item));
        }
        placed.sort_by_key(|(position, _)| *position);
        Ok(placed.into_iter().map(|(_, item)| item).collect())
    }

    pub(crate) async fn put_key(&self, key: &ApiKey) -> Result<bool> {
        check_length(&key.id)?;
        let document = json(&ApiKey { revoked_at: None, last_used_at: None, ..key.clone() })?;
        let mut item = item(&keys::api_key(&key.id), [(DOC, text(document))]);
        set(&mut item, "v", key.revoked_at.map(time));
        set(&mut item, "y", key.last_used_at.map(time));
        self.add(item).await
    }

    pub(crate) async fn get_key(&self, id: &str) -> Result<Option<ApiKey>> {
        if id.len() > keys::TEXT_BYTES_MAX {
            return Ok(None);
        }
        self.table.get(&keys::api_key(id), true).await?.map(|item| read_key(&item)).transpose()
    }

    pub(crate) async fn list_keys(&self) -> Result<Vec<ApiKey>> {
        self.in_order(keys::API_KEY).await?.iter().map(read_key).collect()
    }

    pub(crate) async fn end_key(&self, id: &str, now: Time) -> Result<bool> {
        Ok(id.len() <= keys::TEXT_BYTES_MAX && self.revoke(&keys::api_key(id), now).await?)
    }

    pub(crate) async fn use_key(&self, id: &str, now: Time) -> Result<()> {
        if id.len() <= keys::TEXT_BYTES_MAX {
            let mut exists = Condition::exists();
            exists.values.push((":y", time(now)));
            self.table.update(&keys::api_key(id), "SET y = :y", &exists).await?;
        }
        Ok(())
    }

    pub(crate) async fn put_token(&self, token: &Token) -> Result<bool> {
        check_length(&token.id)?;
        let document = json(&Token { revoked_at: None, ..token.clone() })?;
        let mut item = item(
            &keys::token(&token.id),
            [(DOC, text(document)), ("l", number(token.uses_left)), ("e", time(token.expires_at))],
        );
        set(&mut item, "v", token.revoked_at.map(time));
        // DynamoDB forgets it by itself.
        let forgotten = token.expires_at.plus(TOKEN_MEMORY_MS);
        set(&mut item, TTL, (forgotten < FOREVER).then(|| number(forgotten.0 / 1000 + 1)));
        self.add(item).await
    }

    pub(crate) async fn get_token(&self, id: &str) -> Result<Option<Token>> {
        if id.len() > keys::TEXT_BYTES_MAX {
            return Ok(None);
        }
        match self.table.get(&keys::token(id), true).await? {
            Some(item) => self.read_token(&item).await.map(Some),
            None => Ok(None),
        }
    }

    pub(crate) async fn list_tokens(&self, now: Time) -> Result<Vec<Token>> {
        let items = self.in_order(keys::TOKEN).await?;
        let mut tokens = try_join_all(items.iter().map(|item| self.read_token(item))).await?;
        tokens.retain(|token| token.expires_at.plus(TOKEN_MEMORY_MS) >= now);
        Ok(tokens)
    }

    async fn read_token(&self, item: &Item) -> Result<Token> {
        let token: Token = doc(item)?;
        let uses_left = need_number(item, "l")?;
        let mut redeemed = token.redeemed;
        if uses_left < token.uses_left {
            for item in self.table.query(&Query::all(keys::redeemed_pk(&token.id))).await? {
                redeemed.push(PublicKey::parse(need_text(&item, "k")?).map_err(|_| corrupt(&item, "k"))?);
            }
        }
        Ok(Token { uses_left, redeemed, revoked_at: some_time(item, "v")?, ..token })
    }

    pub(crate) async fn end_token(&self, id: &str, now: Time) -> Result<bool> {
        Ok(id.len() <= keys::TEXT_BYTES_MAX && self.revoke(&keys::token(id), now).await?)
    }

    pub(crate) async fn put_channel(&self, channel: &Channel) -> Result<bool> {
        check_length(&channel.name)?;
        let document = json(&Channel { last_delivered_at: None, last_error: None, ..channel.clone() })?;
        let mut itself = item(
            &keys::channel(channel.id),
            [(DOC, text(document)), ("n", text(&channel.name)), ("o", number(self.allocate_one().await?))],
        );
        set(&mut itself, "y", channel.last_delivered_at.map(time));
        set(&mut itself, "e", channel.last_error.as_ref().map(text));
        let mut transaction = Transaction::default();
        transaction.put(&self.table, Role::Basis, itself, Some(Condition::is_new()))?;
        let name = keys::channel_name(&channel.name).attributes();
        transaction.put(&self.table, Role::Name, name, Some(Condition::is_new()))?;
        done(&transaction.run(&self.table).await?)
    }

    pub(crate) async fn list_channels(&self) -> Result<Vec<Channel>> {
        self.in_order(keys::CHANNEL).await?.iter().map(read_channel).collect()
    }

    /// What waits for it goes first: if it ends in between, the channel is still there, and the removal is asked for again.
    pub(crate) async fn drop_channel(&self, id: ChannelId) -> Result<bool> {
        let key = keys::channel(id);
        let Some(item) = self.table.get(&key, true).await? else { return Ok(false) };
        self.forget_pending(id).await?;
        let mut transaction = Transaction::default();
        transaction.delete(&self.table, Role::Basis, &key, Some(Condition::exists()))?;
        transaction.delete(&self.table, Role::Free, &keys::channel_name(need_text(&item, "n")?), None)?;
        let is_removed = done(&transaction.run(&self.table).await?)?;
        // What was made for it meanwhile.
        self.forget_pending(id).await?;
        Ok(is_removed)
    }

    /// Each region observes for itself.
    fn observation_key(&self) -> Key {
        keys::server(&keys::of_region(OBSERVATION, self.regions.own()))
    }

    /// Secrets that all functions of a server share, 64 bytes from `fresh` if there are none yet: whoever comes first makes
    /// them, and no one is ever shown them. The table is that region's from then on, and that of the region beside it.
    ///
    /// # Errors
    /// As all calls of the store, when the table is another region's, and when the other region has yet to make them.
    pub async fn secrets(&self, fresh: [u8; 64]) -> Result<[u8; 64]> {
        let key = keys::server("secrets");
        let mut kept = self.table.get(&key, true).await?;
        if kept.is_none() {
            let own = self.regions.own();
            // Two replicas would each take their own, and one of both be lost.
            if let Some(peer) = self.regions.peer().filter(|peer| *peer < own) {
                return Err(StoreError::Unavailable(format!(
                    "there are no secrets yet, and the functions in {peer} are to make them: they have to run first"
                )));
            }
            let new = item(&key, [("x", AttributeValue::B(Blob::new(fresh))), (OWNER, text(own))]);
            if matches!(self.table.put(new, &Condition::is_new()).await?, Written::Done(_)) {
                return Ok(fresh);
            }
            // Somebody came first.
            kept = self.table.get(&key, true).await?;
        }
        let kept = kept.ok_or_else(|| StoreError::Unavailable("the secrets are gone".into()))?;
        // Whoever does not know of the other region would do what is that one's, as if it were alone.
        let region = need_text(&kept, OWNER)?;
        if region != self.regions.own() && Some(region) != self.regions.peer() {
            return Err(StoreError::Unavailable(format!(
                "the table is looked after by the functions in {region}, and these here are not told of them"
            )));
        }
        let bytes = kept.get("x").and_then(|bytes| bytes.as_b().ok());
        bytes
            .and_then(|bytes| bytes.as_ref().try_into().ok())
            .ok_or_else(|| StoreError::Corrupt("the secrets are no 64 bytes".into()))
    }

    /// What is seen here of what the other region last stored of its observing; none: nothing yet, or there is no other.
    ///
    /// # Errors
    /// As all calls of the store.
    pub async fn observation_of_peer(&self) -> Result<Option<Observation>> {
        let Some(peer) = self.regions.peer() else { return Ok(None) };
        let item = self.table.get(&keys::server(&keys::of_region(OBSERVATION, peer)), false).await?;
        item.map(|item| doc(&item)).transpose()
    }

    pub(crate) async fn get_observation(&self) -> Result<Option<Versioned<Observation>>> {
        let item = self.table.get(&self.observation_key(), true).await?;
        item.map(|item| Ok(Versioned { value: doc(&item)?, rev: need_number(&item, "r")? })).transpose()
    }

    pub(crate) async fn put_observation(
        &self,
        observation: &Versioned<Observation>,
        events: Vec<Event>,
    ) -> Result<Committed> {
        let rev = observation.rev;
        let document = text(json(&observation.value)?);
        let item = item(&self.observation_key(), [(DOC, document), ("r", number(rev.saturating_add(1)))]);
        let unchanged = Condition::new("r = :r", [(":r", number(rev))]);
        let condition = if rev == 0 { Condition::is_new() } else { unchanged };
        self.put_with(item, condition, events).await
    }

    /// Stores an item on a condition, and with it what people are to be told.
    pub(crate) async fn put_with(&self, item: Item, condition: Condition, events: Vec<Event>) -> Result<Committed> {
        if events.is_empty() {
            // Each tick comes by here: without events, half the price of a transaction.
            let written = self.table.put(item, &condition).await?;
            return Ok(if matches!(written, Written::Done(_)) { Committed::Done } else { Committed::Conflict });
        }
        let mut base = Transaction::default();
        base.put(&self.table, Role::Basis, item, Some(condition))?;
        let events = self.prepare(events, None).await?;
        Ok(match self.write(&base, events).await? {
            Wrote::Done => Committed::Done,
            Wrote::Refused(_) | Wrote::Contended => Committed::Conflict,
        })
    }
}

const OBSERVATION: &str = "observation";

fn read_key(item: &Item) -> Result<ApiKey> {
    Ok(ApiKey { revoked_at: some_time(item, "v")?, last_used_at: some_time(item, "y")?, ..doc(item)? })
}

fn read_channel(item: &Item) -> Result<Channel> {
    let last_error = item.get("e").map(|_| need_text(item, "e").map(str::to_owned)).transpose()?;
    Ok(Channel { last_delivered_at: some_time(item, "y")?, last_error, ..doc(item)? })
}

fn done(outcome: &Outcome) -> Result<bool> {
    match outcome {
        Outcome::Done => Ok(true),
        Outcome::Refused(_) => Ok(false),
        Outcome::Contended => Err(StoreError::Overloaded),
    }
}

/// What becomes part of a key has to fit into one.
fn check_length(text: &str) -> Result<()> {
    if text.len() <= keys::TEXT_BYTES_MAX {
        return Ok(());
    }
    Err(StoreError::Unavailable(format!(
        "a name or an id has {} bytes, {} at most fit",
        text.len(),
        keys::TEXT_BYTES_MAX
    )))
}
