//! Keys, tokens, channels, and what the server knows of itself.

use hb_core::access::{ApiKey, Channel, Token};
use hb_core::event::Event;
use hb_core::observer::Observation;
use hb_core::time::Time;
use hb_store::{Committed, TOKEN_MEMORY_MS, Versioned};
use hb_wire::id::ChannelId;
use hb_wire::key::PublicKey;
use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension as _, Row};

use crate::events;
use crate::failure::Outcome;
use crate::number::{bytes, int, json, number, to_json, uint};

fn docs<T: serde::de::DeserializeOwned>(db: &Connection, sql: &str) -> Outcome<Vec<T>> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut docs = Vec::new();
    while let Some(row) = rows.next()? {
        docs.push(json(row, "doc")?);
    }
    Ok(docs)
}

/// Stores a new API key.
pub(crate) fn add_key(db: &Connection, key: &ApiKey) -> Outcome<bool> {
    let sql = "INSERT INTO api_keys (id, doc) VALUES (?1, ?2) ON CONFLICT (id) DO NOTHING";
    Ok(db.prepare_cached(sql)?.execute((&key.id, to_json(key)?))? == 1)
}

/// One API key.
pub(crate) fn key(db: &Connection, id: &str) -> Outcome<Option<ApiKey>> {
    let mut statement = db.prepare_cached("SELECT doc FROM api_keys WHERE id = ?1")?;
    let mut rows = statement.query([id])?;
    rows.next()?.map(|row| json(row, "doc")).transpose()
}

/// Every API key.
pub(crate) fn keys(db: &Connection) -> Outcome<Vec<ApiKey>> {
    docs(db, "SELECT doc FROM api_keys ORDER BY position")
}

/// Revokes an API key.
pub(crate) fn revoke_key(db: &Connection, id: &str, now: Time) -> Outcome<bool> {
    let Some(mut held) = key(db, id)?.filter(|key| key.revoked_at.is_none()) else { return Ok(false) };
    held.revoked_at = Some(now);
    put_key(db, &held)?;
    Ok(true)
}

/// Notes that an API key was used.
pub(crate) fn touch_key(db: &Connection, id: &str, now: Time) -> Outcome<()> {
    let Some(mut held) = key(db, id)? else { return Ok(()) };
    held.last_used_at = Some(now);
    put_key(db, &held)
}

fn put_key(db: &Connection, key: &ApiKey) -> Outcome<()> {
    db.prepare_cached("UPDATE api_keys SET doc = ?2 WHERE id = ?1")?.execute((&key.id, to_json(key)?))?;
    Ok(())
}

/// Stores a new token, and forgets those that ended long ago.
pub(crate) fn add_token(db: &Connection, token: &Token) -> Outcome<bool> {
    let rest = Token { redeemed: Vec::new(), ..token.clone() };
    let sql = "INSERT INTO tokens (id, uses_left, expires_at, revoked_at, doc) VALUES (?1, ?2, ?3, ?4, ?5) \
               ON CONFLICT (id) DO NOTHING";
    let revoked_at = token.revoked_at.map(|at| int(at.0));
    let values = (&token.id, token.uses_left, int(token.expires_at.0), revoked_at, to_json(&rest)?);
    if db.prepare_cached(sql)?.execute(values)? == 0 {
        return Ok(false);
    }
    let position = db.last_insert_rowid();
    for key in &token.redeemed {
        note_redeemed(db, position, key)?;
    }
    db.prepare_cached("DELETE FROM tokens WHERE expires_at < ?1 AND position <> ?2")?
        .execute((int(token.created_at.minus(TOKEN_MEMORY_MS).0), position))?;
    Ok(true)
}

/// The position of a token that may enrol one more host.
pub(crate) fn live_token(db: &Connection, id: &str, now: Time) -> Outcome<Option<i64>> {
    let sql = "SELECT position FROM tokens WHERE id = ?1 AND uses_left > 0 AND expires_at > ?2 AND revoked_at IS NULL";
    Ok(db.prepare_cached(sql)?.query_row((id, int(now.0)), |row| row.get(0)).optional()?)
}

/// Takes one use off a token.
pub(crate) fn redeem(db: &Connection, token: i64, key: &PublicKey) -> Outcome<()> {
    db.prepare_cached("UPDATE tokens SET uses_left = uses_left - 1 WHERE position = ?1")?.execute([token])?;
    note_redeemed(db, token, key)
}

fn note_redeemed(db: &Connection, token: i64, key: &PublicKey) -> Outcome<()> {
    let sql = "INSERT INTO redeemed (token, nth, key) \
               VALUES (?1, (SELECT coalesce(max(nth), 0) + 1 FROM redeemed WHERE token = ?1), ?2)";
    db.prepare_cached(sql)?.execute((token, key.0))?;
    Ok(())
}

/// One token.
pub(crate) fn token(db: &Connection, id: &str) -> Outcome<Option<Token>> {
    Ok(read_tokens(db, "id = ?1", &id)?.into_iter().next())
}

/// Every token that did not end long ago.
pub(crate) fn tokens(db: &Connection, now: Time) -> Outcome<Vec<Token>> {
    read_tokens(db, "expires_at >= ?1", &int(now.minus(TOKEN_MEMORY_MS).0))
}

fn read_tokens(db: &Connection, which: &str, value: &dyn ToSql) -> Outcome<Vec<Token>> {
    let sql = format!("SELECT position, uses_left, revoked_at, doc FROM tokens WHERE {which} ORDER BY position");
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query([value])?;
    let mut tokens = Vec::new();
    while let Some(row) = rows.next()? {
        tokens.push(read_token(db, row)?);
    }
    Ok(tokens)
}

fn read_token(db: &Connection, row: &Row<'_>) -> Outcome<Token> {
    let mut token: Token = json(row, "doc")?;
    token.uses_left = u32::try_from(number(row, "uses_left")?).unwrap_or(u32::MAX);
    token.revoked_at = row.get::<_, Option<i64>>("revoked_at")?.map(|at| Time(uint(at)));
    let mut statement = db.prepare_cached("SELECT key FROM redeemed WHERE token = ?1 ORDER BY nth")?;
    let mut keys = statement.query([row.get::<_, i64>("position")?])?;
    while let Some(row) = keys.next()? {
        token.redeemed.push(PublicKey(bytes(row, "key")?));
    }
    Ok(token)
}

/// Revokes a token.
pub(crate) fn revoke_token(db: &Connection, id: &str, now: Time) -> Outcome<bool> {
    let sql = "UPDATE tokens SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL";
    Ok(db.prepare_cached(sql)?.execute((id, int(now.0)))? == 1)
}

/// Stores a new channel.
pub(crate) fn add_channel(db: &Connection, channel: &Channel) -> Outcome<bool> {
    let sql = "INSERT INTO channels (id, name, doc) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
    Ok(db.prepare_cached(sql)?.execute((channel.id.0.as_bytes(), &channel.name, to_json(channel)?))? == 1)
}

/// Every channel.
pub(crate) fn channels(db: &Connection) -> Outcome<Vec<Channel>> {
    docs(db, "SELECT doc FROM channels ORDER BY position")
}

/// Removes a channel and what waits for it.
pub(crate) fn remove_channel(db: &Connection, id: ChannelId) -> Outcome<bool> {
    if db.prepare_cached("DELETE FROM channels WHERE id = ?1")?.execute([id.0.as_bytes()])? == 0 {
        return Ok(false);
    }
    db.prepare_cached("DELETE FROM deliveries WHERE channel = ?1 AND status = 'pending'")?
        .execute([id.0.as_bytes()])?;
    Ok(true)
}

/// What the server last knew of its own observing.
pub(crate) fn observation(db: &Connection) -> Outcome<Option<Versioned<Observation>>> {
    let mut statement = db.prepare_cached("SELECT rev, doc FROM observation")?;
    let mut rows = statement.query([])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some(Versioned { value: json(row, "doc")?, rev: number(row, "rev")? }))
}

/// Stores it, if it is still at that revision.
pub(crate) fn observe(db: &Connection, observation: &Versioned<Observation>, events: &[Event]) -> Outcome<Committed> {
    let doc = to_json(&observation.value)?;
    let written = if observation.rev == 0 {
        let sql = "INSERT INTO observation (one, rev, doc) VALUES (1, 1, ?1) ON CONFLICT (one) DO NOTHING";
        db.prepare_cached(sql)?.execute([doc])?
    } else {
        let sql = "UPDATE observation SET rev = rev + 1, doc = ?1 WHERE rev = ?2";
        db.prepare_cached(sql)?.execute((doc, int(observation.rev)))?
    };
    if written == 0 {
        return Ok(Committed::Conflict);
    }
    events::put(db, events)?;
    Ok(Committed::Done)
}
