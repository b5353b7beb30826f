//! API keys: made, listed, revoked.

use std::collections::BTreeSet;

use hb_core::access::ApiKey;
use hb_core::time::seconds;
use hb_wire::api_key::{Secret, SecretKind};
use hb_wire::name::clean_text;
use hb_wire::problem::{Code, Problem};
use hb_wire::view::{KeyRequest, KeyView, Scope};

use crate::app::{App, store_problem, timestamp};
use crate::hosts::{bad_text, bounded, invalid};

/// Longest name of a key, token or channel, in characters.
pub const NAME_CHARS_MAX: usize = 100;
/// Longest life of a key that ends, in seconds: ten years.
pub const LIFE_S: core::ops::RangeInclusive<u64> = 60..=10 * 366 * 86_400;
/// Most keys, revoked ones included.
pub const KEYS_MAX: usize = 10_000;
/// How often a new id is drawn because the last one is taken; 62⁸ ids make even one more draw a rarity.
const DRAWS_MAX: usize = 4;

/// What no name may hold: pages and mails are made of names, and as in a host's name nothing in one may be taken for markup,
/// by whatever shows it.
const MARKUP: [char; 5] = ['<', '>', '&', '"', '`'];

/// A name for people: clean, not empty, and no markup.
pub fn label(text: &str) -> Result<String, Problem> {
    let name = clean_text(text, NAME_CHARS_MAX).map_err(|error| bad_text("name", &error))?;
    if name.is_empty() {
        return Err(invalid("name: it is empty"));
    }
    match name.chars().find(|char| MARKUP.contains(char)) {
        Some(found) => Err(invalid(format!("name: it must not hold {found:?}"))
            .hint("letters, digits, blanks and marks like - _ . , : / @ are fine")),
        None => Ok(name),
    }
}

/// A problem for a list that is full.
pub(crate) fn full(what: &str, max: usize) -> Problem {
    Problem::new(Code::Conflict, format!("there are {max} {what} already, and no room for more"))
}

impl App {
    /// A new secret.
    pub(crate) fn mint(&self, kind: SecretKind) -> Secret {
        let mut random = [0; 48];
        self.entropy.fill(&mut random);
        Secret::mint(kind, random)
    }

    /// Makes an API key. Its secret stands in this answer and nowhere else.
    pub async fn create_key(&self, request: &KeyRequest) -> Result<KeyView, Problem> {
        let name = label(&request.name)?;
        let scopes: BTreeSet<_> = request.scopes.iter().copied().collect();
        if scopes.is_empty() {
            return Err(invalid("scopes: at least one is needed"));
        }
        let expires_in_s = request.expires_in_s.map(|life| bounded("expires_in_s", life, &LIFE_S)).transpose()?;
        if self.store.keys().await.map_err(|error| store_problem(&error))?.len() >= KEYS_MAX {
            return Err(full("API keys", KEYS_MAX));
        }
        let now = self.clock.now();
        for _ in 0..DRAWS_MAX {
            let secret = self.mint(SecretKind::ApiKey);
            let key = ApiKey {
                id: secret.id().to_owned(),
                hash: secret.hash(),
                name: name.clone(),
                scopes: scopes.clone(),
                created_at: now,
                expires_at: expires_in_s.map(|life| now.plus(seconds(life))),
                revoked_at: None,
                last_used_at: None,
            };
            if self.store.add_key(&key).await.map_err(|error| store_problem(&error))? {
                return Ok(KeyView { secret: Some(secret.expose().to_owned()), ..key_view(&key) });
            }
        }
        Err(Problem::new(Code::Internal, "no free id was found for the key"))
    }

    /// Every API key.
    pub async fn list_keys(&self) -> Result<Vec<KeyView>, Problem> {
        let keys = self.store.keys().await.map_err(|error| store_problem(&error))?;
        Ok(keys.iter().map(key_view).collect())
    }

    /// Revokes an API key, effective with the next request. Doing it again changes nothing. The last one that may make others
    /// stays: without it nobody could ever manage this server again.
    pub async fn revoke_key(&self, id: &str) -> Result<(), Problem> {
        let now = self.clock.now();
        let keys = self.store.keys().await.map_err(|error| store_problem(&error))?;
        let works = |key: &&ApiKey| key.revoked_at.is_none() && key.expires_at.is_none_or(|end| end > now);
        let (last, others): (Vec<_>, Vec<_>) =
            keys.iter().filter(works).filter(|key| key.allows(Scope::Admin)).partition(|key| key.id == id);
        if !last.is_empty() && others.is_empty() {
            return Err(Problem::new(Code::Conflict, "it is the last working key with the scope admin")
                .hint("make another one first: hb keys create --name NAME --scope admin"));
        }
        let revoked = self.store.revoke_key(id, self.clock.now()).await;
        // Also when it failed: whether it was done is unknown then.
        self.doorman.forget(id);
        if revoked.map_err(|error| store_problem(&error))? {
            return Ok(());
        }
        match self.store.key(id).await.map_err(|error| store_problem(&error))? {
            Some(_) => Ok(()),
            None => {
                Err(Problem::new(Code::NotFound, "there is no such API key").hint("`hb keys list` shows their ids"))
            }
        }
    }
}

fn key_view(key: &ApiKey) -> KeyView {
    KeyView {
        id: key.id.clone(),
        name: key.name.clone(),
        scopes: key.scopes.iter().copied().collect(),
        created_at: timestamp(key.created_at),
        expires_at: key.expires_at.map(timestamp),
        last_used_at: key.last_used_at.map(timestamp),
        revoked: key.revoked_at.is_some(),
        secret: None,
    }
}
