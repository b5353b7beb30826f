//! Enrolment: a key becomes a host.
//!
//! The request is signed with the key that it enrols (proof of possession), and comes with a credential: an API key with
//! the scope `register`, or an enrolment token. A key that is enrolled already needs no credential: its proof is enough to
//! get its id and a nonce again, because the first answer was lost, or because the host wishes something else by now.

use std::sync::Arc;

use hb_core::access::Token;
use hb_core::host::{Host, Wish};
use hb_core::machine;
use hb_core::policy::{GRACE_S, INTERVAL_DEFAULT_S, INTERVAL_S};
use hb_core::time::Time;
use hb_store::{Credential, Enrolled, StoreError, Versioned};
use hb_wire::api_key::{Secret, SecretKind, hash_eq};
use hb_wire::id::HostId;
use hb_wire::key::PublicKey;
use hb_wire::name::{HostName, Tags};
use hb_wire::problem::{Code, Problem};
use hb_wire::signature::{self, Message};
use hb_wire::view::{EnrolRequest, Enrolment, Scope};

use crate::app::{App, store_problem, timestamp};
use crate::auth::{Presented, forbidden, unauthorized};
use crate::hosts::{MAX_AWAY_S, alive, bad_text, bounded, may_be_away, name_taken};

/// The path that enrolments are sent to.
pub const PATH: &str = "/v1/hosts";
/// How often an enrolment is begun anew because somebody else was faster.
const TRIES_MAX: usize = 16;

/// A request to [`PATH`], as it came in.
#[derive(Debug)]
pub struct Request<'a> {
    /// The credential.
    pub presented: Presented,
    /// The authority that the client called.
    pub authority: Option<&'a str>,
    /// `Content-Digest`, if there is exactly one.
    pub content_digest: Option<&'a str>,
    /// `Signature-Input`, if there is exactly one.
    pub signature_input: Option<&'a str>,
    /// `Signature`, if there is exactly one.
    pub signature: Option<&'a str>,
    /// The body, byte for byte.
    pub body: &'a [u8],
    /// The body, as far as it could be read.
    pub read: Result<EnrolRequest, Problem>,
}

/// What an enrolment came to.
#[derive(Debug)]
pub struct Outcome {
    /// The answer.
    pub enrolment: Enrolment,
    /// True for a host that did not exist before.
    pub created: bool,
}

/// A credential that is good.
#[derive(Debug)]
enum Pass {
    /// An API key that may enrol.
    Key,
    /// A token. It may be spent: that is for the store to say, and does not matter to a host that it enrolled.
    Token(Arc<Token>),
}

impl Pass {
    fn credential(&self) -> Credential {
        match self {
            Self::Key => Credential::Trusted,
            Self::Token(token) => Credential::Token { id: token.id.clone() },
        }
    }
}

impl App {
    /// Enrols a host.
    pub async fn enrol(&self, request: Request<'_>) -> Result<Outcome, Problem> {
        let pass = self.pass(&request.presented).await;
        // A stranger learns nothing but that a credential is needed, whatever else is wrong.
        let proven = self.proven(&request);
        let (key, wanted) = match (proven, &pass) {
            (Ok(proven), _) => proven,
            (Err(problem), Ok(_)) => return Err(problem),
            (Err(_), Err(refusal)) => return Err(refusal.clone()),
        };
        let tags = match &pass {
            Ok(Pass::Token(token)) => Some(token.tags.clone()),
            Ok(Pass::Key) | Err(_) => None,
        };
        for _ in 0..TRIES_MAX {
            let known = self.store.host_by_key(&key).await.map_err(|error| store_problem(&error))?;
            let outcome = match (known, &pass) {
                (Some(known), _) => self.enrol_again(&known, &wanted, tags.as_ref()).await?,
                (None, Ok(pass)) => self.enrol_new(key, &wanted, tags.as_ref(), &pass.credential()).await?,
                (None, Err(refusal)) => return Err(refusal.clone()),
            };
            if let Some(outcome) = outcome {
                return Ok(outcome);
            }
            self.metrics.conflicts.add();
        }
        Err(store_problem(&StoreError::Overloaded))
    }

    async fn pass(&self, presented: &Presented) -> Result<Pass, Problem> {
        let Presented::Secret(secret) = presented else { return Err(unauthorized()) };
        match secret.kind() {
            SecretKind::ApiKey => {
                let key = self.recognize(secret).await?;
                if key.allows(Scope::Register) { Ok(Pass::Key) } else { Err(forbidden()) }
            }
            SecretKind::Token => self.token(secret).await.map(Pass::Token),
        }
    }

    async fn token(&self, secret: &Secret) -> Result<Arc<Token>, Problem> {
        let token = self.store.token(secret.id()).await.map_err(|error| store_problem(&error))?;
        let token = token.filter(|token| hash_eq(&token.hash, &secret.hash())).ok_or_else(unauthorized)?;
        let over = token.revoked_at.is_some() || token.expires_at <= self.clock.now();
        if over { Err(unauthorized()) } else { Ok(Arc::new(token)) }
    }

    /// The key, proven to be in the hands of whoever asks, and what is wished for it.
    fn proven(&self, request: &Request<'_>) -> Result<(PublicKey, EnrolRequest), Problem> {
        let (Some(digest), Some(input), Some(signature)) =
            (request.content_digest, request.signature_input, request.signature)
        else {
            return Err(bad_proof(
                "an enrolment carries exactly one Content-Digest, Signature-Input and Signature header",
            ));
        };
        let signed = signature::parse(digest, input, signature).map_err(|error| {
            Problem::new(Code::Malformed, format!("the signature headers do not follow hb/1: {error}"))
        })?;
        let wanted = request.read.clone()?;
        let key = PublicKey::parse(&wanted.public_key)
            .map_err(|error| Problem::new(Code::Invalid, format!("public_key: {error}")))?;
        let verifier = key.vetted().map_err(|error| Problem::new(Code::Invalid, format!("public_key: {error}")))?;
        if signed.params.keyid != wanted.public_key || !signed.params.nonce.is_none() {
            return Err(bad_proof(
                "an enrolment is signed by the key it enrols: keyid is that key, the nonce 22 times \"A\"",
            ));
        }
        let authority = self.authority(request.authority);
        let message = Message { method: "POST", authority, path: PATH, body: request.body };
        signed
            .verify(&verifier, &message)
            .map_err(|_| bad_proof("the signature is not that of the key in the body over this request"))?;
        Ok((key, wanted))
    }

    /// A host that did not exist. None: the key was enrolled meanwhile, by somebody who was faster.
    pub(crate) async fn enrol_new(
        &self,
        key: PublicKey,
        wanted: &EnrolRequest,
        tags: Option<&Tags>,
        credential: &Credential,
    ) -> Result<Option<Outcome>, Problem> {
        let wish = wish(wanted, tags, None)?;
        let now = self.clock.now();
        let mut random = [0; 10];
        self.entropy.fill(&mut random);
        let id = match &self.settings.id_key {
            Some(key) => key.mint(now.0, random),
            None => HostId::mint(now.0, random),
        };
        let (host, event) = self.decide(|moment| {
            let host = wish.enrol(id, key, moment.fresh, moment.now);
            let event = machine::registered(&host, moment);
            (host, event)
        });
        match self.store.enrol(&host, &event, credential, now).await.map_err(|error| store_problem(&error))? {
            Enrolled::Done => {
                // Events that concern nobody are history; but the worker may have been waiting for this one's turn.
                self.to_deliver.notify_one();
                Ok(Some(Outcome { enrolment: self.enrolment(&host), created: true }))
            }
            Enrolled::NameTaken => Err(name_taken(&host.name)),
            Enrolled::TokenRefused => Err(unauthorized()),
            // Two requests of one host, or one that was sent twice: the first one enrolled it.
            Enrolled::KeyKnown(_) => Ok(None),
        }
    }

    async fn enrol_again(
        &self,
        known: &Versioned<Host>,
        wanted: &EnrolRequest,
        tags: Option<&Tags>,
    ) -> Result<Option<Outcome>, Problem> {
        let host = alive(&known.value)?;
        if !host.quarantine.is_empty() {
            // Whoever of the two asks: a key that two machines hold is not to be confirmed.
            return Err(Problem::new(Code::Cloned, format!("two machines hold the key of {}", host.name)).hint(
                "give the copy a key of its own (`hb identity reset`, then `hb register`); then, for the original, \
                 `hb resume` the host",
            ));
        }
        let wish = wish(wanted, tags, Some(host))?;
        let answer = |host: &Host| Outcome { enrolment: self.enrolment(host), created: false };
        if is_wished(host, &wish) && !wants_new_nonce(host, self.clock.now()) {
            return Ok(Some(answer(host)));
        }
        let written = self.rewish(known, wish, machine::enrol_again).await?;
        Ok(written.as_ref().map(answer))
    }

    fn enrolment(&self, host: &Host) -> Enrolment {
        Enrolment {
            id: host.id,
            name: host.name.to_string(),
            next: host.life.nonce.to_string(),
            now: timestamp(self.clock.now()),
            interval_s: host.interval_ms / 1000,
            grace_s: host.grace_ms / 1000,
            beat_urls: self.settings.beat_urls.clone(),
        }
    }
}

/// As for beats: a nonce past half its life is renewed, so that what the host gets lives long enough to be used.
fn wants_new_nonce(host: &Host, now: Time) -> bool {
    now.since(host.life.nonce_at) > host.need_ms() / 2
}

fn is_wished(host: &Host, wish: &Wish) -> bool {
    let as_it_is = Wish {
        name: host.name.clone(),
        tags: host.tags.clone(),
        class: host.class,
        interval_s: host.interval_ms / 1000,
        grace_s: host.grace_ms / 1000,
        max_away_s: host.max_away_ms.map(|ms| ms / 1000),
    };
    as_it_is == *wish
}

/// What is asked for, within bounds. For a host that is known, what is absent stays, and its labels are added to or
/// replaced, never taken away. A token's labels win.
pub(crate) fn wish(wanted: &EnrolRequest, token: Option<&Tags>, known: Option<&Host>) -> Result<Wish, Problem> {
    let name = HostName::parse(&wanted.name).map_err(|error| bad_text("name", &error))?;
    let interval_s = match (wanted.interval_s, known) {
        (Some(interval_s), _) => bounded("interval_s", interval_s, &INTERVAL_S)?,
        (None, Some(host)) => host.interval_ms / 1000,
        (None, None) => INTERVAL_DEFAULT_S,
    };
    let grace_s = match (wanted.grace_s, known) {
        (Some(grace_s), _) => bounded("grace_s", grace_s, &GRACE_S)?,
        (None, Some(host)) if wanted.interval_s.is_none() => host.grace_ms / 1000,
        (None, Some(host)) if host.interval_ms / 1000 == interval_s => host.grace_ms / 1000,
        (None, Some(_) | None) => interval_s.saturating_mul(2).clamp(*GRACE_S.start(), *GRACE_S.end()),
    };
    let max_away_s = wanted.max_away_s.map(|away| bounded("max_away_s", away, &MAX_AWAY_S)).transpose()?;
    let class = wanted.class.or(known.map(|host| host.class)).unwrap_or_default();
    may_be_away(wanted.max_away_s, class)?;
    let mut tags = known.map(|host| host.tags.as_map().clone()).unwrap_or_default();
    tags.extend(wanted.tags.clone());
    tags.extend(token.map(|tags| tags.as_map().clone()).unwrap_or_default());
    Ok(Wish {
        name,
        tags: Tags::parse(tags).map_err(|error| bad_text("tags", &error))?,
        class,
        interval_s,
        grace_s,
        max_away_s: max_away_s.or(known.and_then(|host| host.max_away_ms).map(|ms| ms / 1000)),
    })
}

fn bad_proof(detail: &str) -> Problem {
    Problem::new(Code::BadSignature, detail).hint("compare the server's public URL with the one that was signed")
}
