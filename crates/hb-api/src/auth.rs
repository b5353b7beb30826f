//! Who asks, and whether they may: API keys.
//!
//! A key is read offline first (form and checksum), then looked up by its public part, compared by hash in constant time,
//! and only then asked whether it lives and what it may do. Every failure before the last is the same answer: which part
//! was right is nobody's business.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use core::sync::atomic::{AtomicU64, Ordering};

use hb_core::access::ApiKey;
use hb_core::time::{Time, seconds};
use hb_wire::api_key::{Secret, SecretKind, hash_eq};
use hb_wire::problem::{Code, Problem};
use hb_wire::view::Scope;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::app::{App, store_problem};

/// Keys that are remembered. Beyond that the memory starts anew; a read then costs what it costs.
pub const REMEMBERED_MAX: usize = 4096;
/// A remembered key is read again after this long: the longest that another process's revocation goes unnoticed here.
pub const REMEMBERED_MS: u64 = seconds(5);
/// That a key was used is noted at most this often.
pub const TOUCH_EVERY_MS: u64 = seconds(60);
/// The other header that may carry an API key.
pub const API_KEY_HEADER: &str = "x-api-key";

/// API keys as they were read last: saves a read per request. Never the truth for longer than [`REMEMBERED_MS`].
#[derive(Debug, Default)]
pub struct Doorman {
    keys: RwLock<HashMap<String, Remembered>>,
    /// Counts the revocations: a key that was read before one must not be remembered after it.
    revocations: AtomicU64,
}

#[derive(Debug, Clone)]
struct Remembered {
    key: Arc<ApiKey>,
    read_at: Time,
}

impl Doorman {
    /// A key was revoked in this process: effective with the next request.
    pub fn forget(&self, id: &str) {
        self.revocations.fetch_add(1, Ordering::SeqCst);
        self.keys.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    fn get(&self, id: &str, now: Time) -> Option<Arc<ApiKey>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.get(id).filter(|held| now.since(held.read_at) < REMEMBERED_MS).map(|held| Arc::clone(&held.key))
    }

    fn put(&self, key: Arc<ApiKey>, read_at: Time, revocations: u64) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        // Under the lock that `forget` takes after it counted: either we see the count, or it removes what we put.
        if self.revocations.load(Ordering::SeqCst) != revocations {
            return;
        }
        if keys.len() >= REMEMBERED_MAX {
            keys.clear();
        }
        keys.insert(key.id.clone(), Remembered { key, read_at });
    }
}

/// A credential as presented: parsed, not yet believed.
#[derive(Debug)]
pub enum Presented {
    /// None at all.
    Nothing,
    /// Several, or one that cannot be any.
    Garbage,
    /// An API key or an enrolment token.
    Secret(Secret),
}

/// Reads the credential of a request: `Authorization: Bearer …` or `x-api-key: …`, exactly one of them.
#[must_use]
pub fn presented(headers: &HeaderMap) -> Presented {
    let mut found = headers.get_all(AUTHORIZATION).iter().map(|value| (true, value));
    let mut others = headers.get_all(API_KEY_HEADER).iter().map(|value| (false, value));
    let Some((is_bearer, value)) = found.next().or_else(|| others.next()) else { return Presented::Nothing };
    if found.next().is_some() || others.next().is_some() {
        return Presented::Garbage;
    }
    let Ok(text) = value.to_str() else { return Presented::Garbage };
    let text = if is_bearer { bearer(text) } else { Some(text.trim()) };
    text.and_then(|text| Secret::parse(text).ok()).map_or(Presented::Garbage, Presented::Secret)
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, secret) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
}

/// The one answer to everybody who could not be recognised.
#[must_use]
pub fn unauthorized() -> Problem {
    Problem::new(
        Code::Unauthorized,
        "an API key that works here is needed: `Authorization: Bearer hbk_…` or `x-api-key`",
    )
    .hint("check the key with `hb login`, or ask an admin for one (`hb keys create`)")
}

/// The one answer to a good key that may not do this.
#[must_use]
pub fn forbidden() -> Problem {
    Problem::new(Code::Forbidden, "this API key may not do that")
        .hint("ask an admin for a key with the scope that the route needs (see /v1/openapi.json)")
}

impl App {
    /// The API key of a request, if it lives and carries the scope.
    pub async fn authorize(&self, headers: &HeaderMap, scope: Scope) -> Result<Arc<ApiKey>, Problem> {
        let Presented::Secret(secret) = presented(headers) else { return Err(unauthorized()) };
        let key = self.recognize(&secret).await?;
        if key.allows(scope) { Ok(key) } else { Err(forbidden()) }
    }

    /// The live API key that this secret is.
    pub async fn recognize(&self, secret: &Secret) -> Result<Arc<ApiKey>, Problem> {
        if secret.kind() != SecretKind::ApiKey {
            return Err(unauthorized());
        }
        let now = self.clock.now();
        let key = match self.doorman.get(secret.id(), now) {
            Some(key) => key,
            None => self.read_key(secret.id(), now).await?.ok_or_else(unauthorized)?,
        };
        if !hash_eq(&key.hash, &secret.hash()) || !key.is_live(now) {
            return Err(unauthorized());
        }
        if key.last_used_at.is_none_or(|used| now.since(used) >= TOUCH_EVERY_MS) {
            self.touch(&key, now).await;
        }
        Ok(key)
    }

    async fn read_key(&self, id: &str, now: Time) -> Result<Option<Arc<ApiKey>>, Problem> {
        let revocations = self.doorman.revocations.load(Ordering::SeqCst);
        let Some(key) = self.store.key(id).await.map_err(|error| store_problem(&error))? else { return Ok(None) };
        let key = Arc::new(key);
        self.doorman.put(Arc::clone(&key), now, revocations);
        Ok(Some(key))
    }

    /// Notes that the key was used. Whoever comes to look why nothing can be stored must not be turned away because this
    /// cannot be stored either.
    async fn touch(&self, key: &Arc<ApiKey>, now: Time) {
        let revocations = self.doorman.revocations.load(Ordering::SeqCst);
        if self.store.touch_key(&key.id, now).await.is_ok() {
            let touched = ApiKey { last_used_at: Some(now), ..ApiKey::clone(key) };
            self.doorman.put(Arc::new(touched), now, revocations);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn secret() -> Secret {
        Secret::mint(SecretKind::ApiKey, [5; 48])
    }

    fn check(pairs: &[(&'static str, String)], expected: &str) {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let found = match presented(&headers) {
            Presented::Nothing => "nothing",
            Presented::Garbage => "garbage",
            Presented::Secret(_) => "secret",
        };
        assert_eq!(found, expected, "{pairs:?}");
    }

    #[test]
    fn exactly_one_credential_in_one_of_two_headers_is_read() {
        let key = secret().expose().to_owned();
        check(&[], "nothing");
        check(&[("authorization", format!("Bearer {key}"))], "secret");
        check(&[("authorization", format!("bearer  {key} "))], "secret");
        check(&[("x-api-key", key.clone())], "secret");
        check(&[("authorization", key.clone())], "garbage");
        check(&[("authorization", format!("Basic {key}"))], "garbage");
        check(&[("authorization", format!("Bearer {key}x"))], "garbage");
        check(&[("authorization", format!("Bearer {key}")), ("authorization", format!("Bearer {key}"))], "garbage");
        check(&[("authorization", format!("Bearer {key}")), ("x-api-key", key.clone())], "garbage");
        check(&[("x-api-key", key.clone()), ("x-api-key", key)], "garbage");
    }

    #[test]
    fn a_key_read_before_a_revocation_is_not_remembered_after_it() {
        let doorman = Doorman::default();
        let key = Arc::new(ApiKey {
            id: "abc".into(),
            hash: [0; 32],
            name: String::new(),
            scopes: std::collections::BTreeSet::new(),
            created_at: Time(0),
            expires_at: None,
            revoked_at: None,
            last_used_at: None,
        });
        let before = doorman.revocations.load(Ordering::SeqCst);
        doorman.forget("abc");
        doorman.put(Arc::clone(&key), Time(0), before);
        assert!(doorman.get("abc", Time(0)).is_none());
        doorman.put(key, Time(0), before + 1);
        assert!(doorman.get("abc", Time(0)).is_some());
        assert!(doorman.get("abc", Time(REMEMBERED_MS)).is_none(), "read again after a while");
    }
}
