//! The hot path: parse, look the key up, verify, one conditional write, answer. Everything else is off this path.
//!
//! Order of checks (DESIGN §6): size, form, key, signature, nonce, and only then the host's rate. What fails early costs little,
//! and what a stranger can send changes nothing and drains nothing.

use std::sync::{Arc, LazyLock};

use hb_core::host::{Holder, Host};
use hb_core::machine::{self, Heard, Verdict};
use hb_core::mutant::{Mutant, active};
use hb_core::time::Time;
use hb_store::{Beaten, Change, Committed, Signer, StoreError, Versioned};
use hb_wire::beat::{BEAT_BYTES_MAX, Beat, BeatAnswer, Intent};
use hb_wire::id::HostId;
use hb_wire::key::{HostKey, PublicKey, Verifier};
use hb_wire::nonce::Nonce;
use hb_wire::problem::{Code, Problem};
use hb_wire::rotation;
use hb_wire::signature::{self, Message, Signed};

use crate::app::{App, Loops, store_problem, timestamp};
use crate::keyring::{Bucket, Known};

/// The path that beats are sent to.
pub const PATH: &str = "/v1/beat";
/// Where other processes change hosts, what is known of one is read again after this long: what an operator edits is told to it
/// no later, and at once where it is decided about: where the interval is another one, or the signature not by the key.
const KNOWN_AGE_MAX_MS: u64 = hb_core::time::seconds(24 * 3600);
/// The same where a signature is not by the key that is known.
const SUSPECT_AGE_MS: u64 = hb_core::time::seconds(5);
/// Where another process observes, what it saw may be this old when a beat is decided about.
const OBSERVATION_AGE_MAX_MS: u64 = hb_core::time::seconds(30);
/// How often a decision is made anew because somebody else was faster.
const TRIES_MAX: usize = 16;

/// A request to [`PATH`], as it came in.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The `Host` header, or the authority of the request.
    pub authority: Option<&'a str>,
    /// `Content-Digest`, if there is exactly one.
    pub content_digest: Option<&'a str>,
    /// `Signature-Input`, if there is exactly one.
    pub signature_input: Option<&'a str>,
    /// `Signature`, if there is exactly one.
    pub signature: Option<&'a str>,
    /// The body.
    pub body: &'a [u8],
}

impl App {
    /// One beat. The answer leaves after the commit (rule R6).
    pub async fn beat(&self, request: &Request<'_>) -> Result<BeatAnswer, Problem> {
        let result = self.take_beat(request).await;
        self.note(&result);
        result
    }

    /// Counts what was not accepted.
    pub(crate) fn note<T>(&self, result: &Result<T, Problem>) {
        let Err(problem) = result else { return };
        match problem.code.status() {
            409 => self.metrics.beats_stale.add(),
            429 => self.metrics.beats_limited.add(),
            503 => {
                self.metrics.beats_shed.add();
                self.watch.shed(self.clock.now());
            }
            _ => self.metrics.beats_refused.add(),
        }
    }

    async fn take_beat(&self, request: &Request<'_>) -> Result<BeatAnswer, Problem> {
        if request.body.len() > BEAT_BYTES_MAX {
            return Err(Problem::new(Code::TooLarge, format!("a beat has at most {BEAT_BYTES_MAX} bytes")));
        }
        let (Some(digest), Some(input), Some(signature)) =
            (request.content_digest, request.signature_input, request.signature)
        else {
            return Err(unsigned());
        };
        let signed = signature::parse(digest, input, signature).map_err(|error| {
            Problem::new(Code::Malformed, format!("the signature headers do not follow hb/1: {error}"))
        })?;
        let beat = Beat::parse(request.body).map_err(|error| Problem::new(Code::Malformed, error.to_string()))?;
        let id: HostId = signed.params.keyid.parse().map_err(|_| bad_signature())?;
        if id == self.watch.canary_id() {
            return self.take_canary(&signed, request).await;
        }
        let mut known = self.known(id, beat.pass.as_deref()).await?;
        let mut key = self.signer(&signed, known.as_deref(), request);
        let is_doubtful = |known: &Known| !known.is_certain || self.may_be_outdated(known, SUSPECT_AGE_MS);
        if key.is_err() && known.as_deref().is_some_and(is_doubtful) {
            // Another process may have taken the host's new key. Asked no more often than a stranger's patience is worth.
            self.keyring.forget(id);
            known = self.known_for_certain(id).await?;
            key = self.signer(&signed, known.as_deref(), request);
        }
        let key = key?;
        let known = known.ok_or_else(bad_signature)?;
        if let Some(Intent::Rotate { public_key, proof }) = &beat.intent {
            self.check_rotation(id, public_key, proof).await?;
        }

        let heard = Heard { key, beat: &beat, spent: signed.params.nonce, created: signed.params.created };
        self.take_verified(id, &heard, &known).await
    }

    /// One beat whose signature was checked already: what remains of [`App::beat`] behind the cryptography. The simulator
    /// comes in here when it runs through millions of host-hours.
    pub async fn verified_beat(&self, id: HostId, heard: &Heard<'_>) -> Result<BeatAnswer, Problem> {
        let known = self.known(id, heard.beat.pass.as_deref()).await;
        let result = match known {
            Ok(Some(known)) => self.take_verified(id, heard, &known).await,
            Ok(None) => Err(bad_signature()),
            Err(problem) => Err(problem),
        };
        self.note(&result);
        result
    }

    pub(crate) async fn take_verified(
        &self,
        id: HostId,
        heard: &Heard<'_>,
        known: &Known,
    ) -> Result<BeatAnswer, Problem> {
        let wait_ms = known.wait_ms(self.settings.beats_per_interval, self.clock.now());
        let admission = Admission {
            wait_ms,
            refuse: self.refuses_good_nonce(),
            rotating: known.next.is_some(),
            told_ms: known.interval_ms,
        };
        let next = self.store_beat(id, heard, admission).await?;
        known.drain();
        self.watch.heard(self.clock.now());
        let pass = match &next.signer {
            Some(decided) => self.renewed_pass(id, heard, decided, self.clock.now()),
            None => self.renewed_pass(id, heard, &known.signer(), known.read_at),
        };
        Ok(BeatAnswer {
            next: next.nonce.to_string(),
            now: timestamp(self.clock.now()),
            interval_s: next.signer.map_or(known.interval_ms, |decided| decided.interval_ms) / 1000,
            next_in_s: None,
            marks: next.marks,
            pass,
        })
    }

    /// A pass for the next beats, unless the host has a good one. None while a key is on its way: then each beat is decided about.
    fn renewed_pass(&self, id: HostId, heard: &Heard<'_>, signer: &Signer, read_at: Time) -> Option<String> {
        let ids = self.settings.id_key.as_ref().filter(|_| signer.next_key.is_none())?;
        let held = heard.beat.pass.as_deref().and_then(|pass| ids.read_pass(id, pass));
        let is_good = held.is_some_and(|(said, at)| said == *signer && self.clock.now().since(at) <= KNOWN_AGE_MAX_MS);
        (!is_good).then(|| ids.pass(id, signer, read_at))
    }

    /// The new key is in the host's hands, and nobody else's.
    async fn check_rotation(&self, id: HostId, key: &PublicKey, proof: &str) -> Result<(), Problem> {
        if !rotation::is_proven(proof, key, id) {
            return Err(Problem::new(Code::Invalid, "intent.proof is not that of the new key for this host"));
        }
        match self.store.host_by_key(key).await.map_err(|error| store_problem(&error))? {
            Some(owner) if owner.value.id != id => {
                Err(Problem::new(Code::Conflict, "the new key is enrolled already, as another host"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The host's key that signed the request: the one it has, or the one it gets.
    fn signer(&self, signed: &Signed, known: Option<&Known>, request: &Request<'_>) -> Result<PublicKey, Problem> {
        let judged = self.verify(signed, known.map(|known| &known.verifier), request);
        match (judged, known) {
            (Ok(()), Some(known)) => Ok(known.verifier.public()),
            (Err(problem), Some(Known { next: Some(next), .. })) => {
                self.verify(signed, Some(next), request).map(|()| next.public()).map_err(|_| problem)
            }
            (judged, _) => Err(judged.err().unwrap_or_else(bad_signature)),
        }
    }

    fn verify(&self, signed: &Signed, verifier: Option<&Verifier>, request: &Request<'_>) -> Result<(), Problem> {
        // An unknown host costs a stranger as much time as a known one, so that ids cannot be found out.
        static NOBODY: LazyLock<Option<Verifier>> =
            LazyLock::new(|| HostKey::from_seed([7; 32]).public().verifying().ok());
        let authority = self.authority(request.authority);
        let message = Message { method: "POST", authority, path: PATH, body: request.body };
        let judge = verifier.or(NOBODY.as_ref()).ok_or_else(bad_signature)?;
        signed.verify(judge, &message).map_err(|_| bad_signature())
    }

    /// The authority that a request must have been signed for: the one that was called, if it is one of ours; else, since a
    /// proxy may have rewritten it, the first.
    pub(crate) fn authority<'a>(&'a self, called: Option<&'a str>) -> &'a str {
        let authorities = &self.settings.authorities;
        if authorities.is_empty() {
            return called.unwrap_or_default();
        }
        authorities
            .iter()
            .find(|authority| called.is_some_and(|called| called.eq_ignore_ascii_case(authority)))
            .or_else(|| authorities.first())
            .map_or("", String::as_str)
    }

    /// True when another process may have changed the host since it was read here, more than `age_ms` ago.
    fn may_be_outdated(&self, known: &Known, age_ms: u64) -> bool {
        self.settings.loops == Loops::Elsewhere && self.clock.now().since(known.read_at) > age_ms
    }

    pub(crate) async fn known(&self, id: HostId, pass: Option<&str>) -> Result<Option<Arc<Known>>, Problem> {
        match self.keyring.get(id) {
            Some(known) if self.may_be_outdated(&known, KNOWN_AGE_MAX_MS) => self.keyring.forget(id),
            Some(known) => return Ok(Some(known)),
            None => {}
        }
        let age = self.keyring.age();
        if let Some(ids) = &self.settings.id_key {
            if !ids.made(id) {
                return Ok(None);
            }
            let said = pass.and_then(|pass| ids.read_pass(id, pass));
            if let Some((signer, read_at)) = said.filter(|(_, at)| self.clock.now().since(*at) <= KNOWN_AGE_MAX_MS) {
                return Ok(self.remember(id, &signer, Read::Glimpsed(read_at), age));
            }
        }
        match self.store.signer(id).await.map_err(|error| store_problem(&error))? {
            Some(signer) => Ok(self.remember(id, &signer, Read::Glimpsed(self.clock.now()), age)),
            None => self.known_for_certain(id).await,
        }
    }

    async fn known_for_certain(&self, id: HostId) -> Result<Option<Arc<Known>>, Problem> {
        let age = self.keyring.age();
        let host = self.store.host(id).await.map_err(|error| store_problem(&error))?;
        Ok(host.and_then(|host| self.remember(id, &Signer::from(&host.value), Read::Certain, age)))
    }

    fn remember(&self, id: HostId, signer: &Signer, read: Read, age: u64) -> Option<Arc<Known>> {
        let verifier = signer.key.verifying().ok()?;
        let next = signer.next_key.and_then(|key| key.verifying().ok());
        let now = self.clock.now();
        let bucket = self.keyring.bucket(id).unwrap_or_else(|| Bucket::full(self.settings.beats_per_interval, now));
        let mut known = Known::new(verifier, next, signer.interval_ms, bucket, now);
        if let Read::Glimpsed(at) = read {
            known.is_certain = false;
            known.read_at = at;
        }
        let known = Arc::new(known);
        self.keyring.put(id, Arc::clone(&known), age);
        Some(known)
    }

    async fn take_canary(&self, signed: &Signed, request: &Request<'_>) -> Result<BeatAnswer, Problem> {
        let verifier = self.watch.canary_key().public().verifying().map_err(|_| bad_signature())?;
        self.verify(signed, Some(&verifier), request)?;
        let next = self.fresh_nonce();
        if !self.watch.spend_canary(signed.params.nonce, next) {
            return Err(Problem::new(Code::StaleNonce, "the canary's nonce was spent"));
        }
        self.flush().await.map_err(|error| store_problem(&error))?;
        let now = self.clock.now();
        self.watch.heard(now);
        Ok(BeatAnswer {
            next: next.to_string(),
            now: timestamp(now),
            interval_s: 10,
            next_in_s: None,
            marks: Vec::new(),
            pass: None,
        })
    }

    async fn store_beat(&self, id: HostId, heard: &Heard<'_>, admission: Admission) -> Result<Next, Problem> {
        let nonce = self.fresh_nonce();
        let mut read = if admission.refuse || admission.rotating || admission.wait_ms > 0 || !is_plain(heard.beat) {
            None
        } else {
            match self
                .store
                .beat(fast(id, heard, nonce, self.beat_time(), admission.told_ms))
                .await
                .map_err(|error| store_problem(&error))?
            {
                Beaten::Stored => {
                    self.metrics.beats_fast.add();
                    return Ok(Next { nonce, signer: None, marks: Vec::new() });
                }
                Beaten::Decide(host) => Some(*host),
                Beaten::Unknown => return Err(self.lost(id)),
            }
        };
        let is_changed = read.as_ref().is_some_and(|host| host.value.interval_ms != admission.told_ms);
        if self.settings.loops == Loops::Elsewhere || is_changed {
            // Something is not as the fast path wants it: perhaps since another process changed it.
            self.keyring.forget(id);
        }
        // What is decided here depends on what was not observed.
        self.catch_up(OBSERVATION_AGE_MAX_MS).await.map_err(|error| store_problem(&error))?;
        for _ in 0..TRIES_MAX {
            let host = match read.take() {
                Some(host) => host,
                None => match self.store.host(id).await.map_err(|error| store_problem(&error))? {
                    Some(host) => host,
                    None => return Err(self.lost(id)),
                },
            };
            if let Some(next) = self.decide_beat(&host, heard, admission).await? {
                return Ok(next);
            }
            self.metrics.conflicts.add();
        }
        Err(store_problem(&StoreError::Overloaded))
    }

    /// None: somebody was faster, decide anew.
    async fn decide_beat(
        &self,
        read: &Versioned<Host>,
        heard: &Heard<'_>,
        admission: Admission,
    ) -> Result<Option<Next>, Problem> {
        let verdict = self
            .decide(|moment| machine::beat(&read.value, heard, &machine::Moment { now: self.beat_time(), ..*moment }));
        match verdict {
            Verdict::Retired => Err(Problem::new(Code::Retired, "this host was retired")
                .hint("stop the agent, or enrol the host again with `hb register`")),
            Verdict::Cloned => Err(Problem::new(
                Code::Cloned,
                "another machine is alive with this host's key, and was here first; this one is in quarantine",
            )
            .hint("give this machine a key of its own: `hb identity reset`, then `hb register`")),
            Verdict::Foreign => Err(bad_signature()),
            Verdict::Stale(None) => Err(stale(read.value.life.nonce, self.clock.now())),
            Verdict::Stale(Some(renewed)) => {
                let nonce = renewed.life.nonce;
                let change = Change { host: Some(Versioned { value: renewed, rev: read.rev }), ..Change::default() };
                match self.store.commit(change).await.map_err(|error| store_problem(&error))? {
                    Committed::Done => Err(stale(nonce, self.clock.now())),
                    Committed::Conflict => Ok(None),
                }
            }
            Verdict::Accepted(_) if admission.wait_ms > 0 => Err(Problem {
                retry_after_s: Some(admission.wait_ms.div_ceil(1000)),
                ..Problem::new(Code::TooManyRequests, "this host beats more often than its interval asks for")
            }),
            Verdict::Accepted(_) if admission.refuse => Err(stale(read.value.life.nonce, self.clock.now())),
            Verdict::Accepted(transition) => {
                let host = transition.host;
                let next = Next {
                    nonce: host.life.nonce,
                    signer: Some(Signer::from(&host)),
                    marks: marks(&host, self.clock.now()),
                };
                let told = !transition.events.is_empty();
                let keys = (host.key, host.next_key) != (read.value.key, read.value.next_key);
                let _forgetting = keys.then(|| self.keyring.forgetting(host.id));
                let change = Change {
                    host: Some(Versioned { value: host, rev: read.rev }),
                    events: transition.events,
                    incident: None,
                };
                match self.store.commit(change).await.map_err(|error| store_problem(&error))? {
                    Committed::Conflict => Ok(None),
                    Committed::Done => {
                        self.metrics.beats_slow.add();
                        if told {
                            self.to_deliver.notify_one();
                        }
                        Ok(Some(next))
                    }
                }
            }
        }
    }

    fn beat_time(&self) -> Time {
        if active(Mutant::StaleDeadline) { self.watch.shown().observed_until } else { self.clock.now() }
    }

    fn refuses_good_nonce(&self) -> bool {
        let percent = u64::from(self.settings.refuse_nonces_percent);
        percent > 0 && self.random() % 100 < percent
    }

    fn lost(&self, id: HostId) -> Problem {
        self.keyring.forget(id);
        bad_signature()
    }
}

/// What speaks against a beat although it is good.
#[derive(Debug, Clone, Copy)]
struct Admission {
    /// Milliseconds until the host's rate allows another one.
    wait_ms: u64,
    /// A test server refuses this good nonce.
    refuse: bool,
    /// The host has two good keys: which one is still good is decided together with the beat.
    rotating: bool,
    /// The interval that the answer tells where nothing has to be decided.
    told_ms: u64,
}

struct Next {
    nonce: Nonce,
    /// What the host is known by from now on, where that was decided about.
    signer: Option<Signer>,
    marks: Vec<String>,
}

/// How something came to be known of a host.
#[derive(Debug, Clone, Copy)]
enum Read {
    /// It was so when it was read.
    Certain,
    /// It was so at about this instant.
    Glimpsed(Time),
}

/// True when nothing in the beat needs the state machine, as far as the beat itself tells.
fn is_plain(beat: &Beat) -> bool {
    let mutated = active(Mutant::SeqNoResync) || active(Mutant::CreatedWindow);
    beat.intent.is_none() && beat.before.is_none() && beat.gap.is_none() && !mutated
}

fn fast(host: HostId, heard: &Heard<'_>, next: Nonce, now: Time, interval_ms: u64) -> hb_store::Beat {
    let beat = heard.beat;
    let server_ms = i64::try_from(now.0).unwrap_or(i64::MAX);
    hb_store::Beat {
        host,
        spent: heard.spent,
        next,
        now,
        interval_ms,
        holder: Holder { run: beat.run, boot: beat.boot },
        seq: beat.seq,
        up_s: beat.up,
        skew_ms: beat.sent_at.map(|sent| sent.as_millisecond().saturating_sub(server_ms)),
        agent: beat.v.clone(),
        faults: beat.degraded.clone(),
        vitals: beat.vitals.clone(),
    }
}

/// The marks of a host.
#[must_use]
pub fn marks(host: &Host, now: Time) -> Vec<String> {
    let mut marks = Vec::new();
    if !host.life.faults.is_empty() {
        marks.push("degraded".to_owned());
    }
    if !host.quarantine.is_empty() {
        marks.push("cloned".to_owned());
    }
    if host.in_maintenance(now) {
        marks.push("maintenance".to_owned());
    }
    // Also the host's proof that this server knows of new keys: one that does not passes the intent over.
    if host.next_key.is_some() {
        marks.push("rotating".to_owned());
    }
    marks
}

fn stale(nonce: Nonce, now: Time) -> Problem {
    Problem {
        next: Some(nonce.to_string()),
        now: Some(timestamp(now)),
        ..Problem::new(Code::StaleNonce, "the nonce was spent or is too old; sign again with the one in `next`")
    }
}

fn unsigned() -> Problem {
    Problem::new(Code::BadSignature, "a beat carries exactly one Content-Digest, Signature-Input and Signature header")
}

/// The same for an unknown host, a wrong key and a wrong signature: which part was right is nobody's business.
fn bad_signature() -> Problem {
    Problem::new(Code::BadSignature, "unknown host, or wrong signature").hint("run `hb doctor` on the host")
}
