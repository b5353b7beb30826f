//! Heartbeats as hosts sent them to hb-api: unsigned, vouched for by an API key with the scope `ping`.
//!
//! Only the entrance is another one. A heartbeat becomes a beat that spends the host's nonce, as every beat does, and from
//! there on takes the very path of signed ones, so that rate, recovery, pause and all the rest are decided once.
//!
//! Who is meant must follow from the `hostId` alone, and must never be a host that an agent enrolled. So such a host has a
//! key like any other, derived from the `hostId`, but one that has no private half: see [`stand_in`].

use hb_core::host::{Host, State};
use hb_core::machine::{self, Heard, Transition};
use hb_core::policy::INTERVAL_S;
use hb_store::{Credential, StoreError, Versioned};
use hb_wire::beat::Beat;
use hb_wire::id::{BootId, HostId};
use hb_wire::key::{PublicKey, WeakKey};
use hb_wire::name::{HOST_NAME_BYTES_MAX, HostName, Tags};
use hb_wire::problem::{Code, Problem};
use hb_wire::view::EnrolRequest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use crate::app::{App, store_problem};
use crate::enrol::wish;
use crate::hosts::{bad_text, invalid};

/// The interval of a heartbeat that names none: hb-api's own.
pub const INTERVAL_DEFAULT_MS: u64 = 10 * 60 * 1000;
/// The longest `hostId` that is not a host name as it stands, in characters: hb-api took no longer ones.
pub const HOST_ID_CHARS_MAX: usize = 100;
/// Longest body, in bytes.
pub const HEARTBEAT_BYTES_MAX: usize = 16 * 1024;
/// The longest grace that such a host gets, in seconds. hb-api knew no grace, and told of a silence up to a minute after
/// it was due: with this one people hear as soon as they did, and cron may be late by as much.
pub const GRACE_MAX_S: u64 = 60;
/// The label that marks the hosts which were made by their heartbeat.
pub const VIA: (&str, &str) = ("via", "hb-api");
/// The label with the `hostId`, where the name is another one.
pub const HOST_ID_TAG: &str = "host-id";
/// How often a heartbeat is tried anew because somebody else was faster.
const TRIES_MAX: usize = 16;

/// What a host sent to hb-api.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Heartbeat {
    /// The host: a host name, or up to 100 letters and digits of any script.
    pub host_id: String,
    /// Milliseconds until the next heartbeat at the latest: 1000 to 2678400000. Absent: ten minutes.
    #[serde(default)]
    pub interval_ms: Option<u64>,
}

/// What hb-api answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Message {
    /// `OK`.
    pub message: String,
}

impl Message {
    /// The heartbeat is stored.
    #[must_use]
    pub fn ok() -> Self {
        Self { message: "OK".to_owned() }
    }
}

/// A heartbeat that is understood.
#[derive(Debug)]
struct Asked {
    name: HostName,
    tags: Tags,
    key: PublicKey,
    interval_s: u64,
}

impl Asked {
    fn read(heartbeat: &Heartbeat) -> Result<Self, Problem> {
        let Heartbeat { host_id, interval_ms } = heartbeat;
        let name = name(host_id)?;
        let mut tags = std::collections::BTreeMap::from([(VIA.0.to_owned(), VIA.1.to_owned())]);
        if name.as_str() != host_id {
            tags.insert(HOST_ID_TAG.to_owned(), host_id.clone());
        }
        let ms = interval_ms.unwrap_or(INTERVAL_DEFAULT_MS);
        let (least, most) = (INTERVAL_S.start() * 1000, INTERVAL_S.end() * 1000);
        if !(least..=most).contains(&ms) {
            return Err(invalid(format!("intervalMs: {ms} is not between {least} and {most} milliseconds")));
        }
        let tags = Tags::parse(tags).map_err(|error| bad_text("hostId", &error))?;
        // Up to whole seconds: never sooner than asked for.
        Ok(Self { name, tags, key: stand_in(host_id), interval_s: ms.div_ceil(1000) })
    }

    fn enrolment(&self) -> EnrolRequest {
        EnrolRequest {
            name: self.name.to_string(),
            public_key: self.key.to_string(),
            interval_s: Some(self.interval_s),
            grace_s: Some(self.grace_s()),
            tags: self.tags.as_map().clone(),
            class: None,
            max_away_s: None,
        }
    }

    fn grace_s(&self) -> u64 {
        self.interval_s.min(GRACE_MAX_S)
    }
}

impl App {
    /// One heartbeat of a host that has no key of its own. The caller is known to have the scope `ping`.
    ///
    /// The first one makes the host. Making it, the beat and a new interval are a write each: when the store fails in
    /// between, what is written is whole in itself, the answer is 503, and the next heartbeat does the rest.
    pub async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<(), Problem> {
        let asked = Asked::read(heartbeat)?;
        for _ in 0..TRIES_MAX {
            let known = self.store.host_by_key(&asked.key).await.map_err(|error| store_problem(&error))?;
            let Some(Versioned { value: host, rev: _ }) = known else {
                self.make(&asked).await?;
                continue;
            };
            match self.take_heartbeat(&host, &asked).await {
                // Another heartbeat of this host was faster, or its nonce had grown old and was renewed just now.
                Err(problem) if problem.code == Code::StaleNonce => self.metrics.conflicts.add(),
                Err(problem) => return Err(problem),
                Ok(()) if host.interval_ms / 1000 == asked.interval_s => return Ok(()),
                Ok(()) => return self.follow(host.id, &asked).await,
            }
        }
        Err(store_problem(&StoreError::Overloaded))
    }

    async fn make(&self, asked: &Asked) -> Result<(), Problem> {
        match self.enrol_new(asked.key, &asked.enrolment(), None, &Credential::Trusted).await {
            Err(problem) if problem.code == Code::NameTaken => Err(foreign(&asked.name)),
            made => made.map(drop),
        }
    }

    /// The beat that the host would have sent, had it an agent.
    async fn take_heartbeat(&self, host: &Host, asked: &Asked) -> Result<(), Problem> {
        if let State::Retired { .. } = host.state {
            return Err(retired(&host.name));
        }
        // Nothing is known of its boots and runs: one for ever, so that none is ever told.
        let boot = BootId::mint(0, [0; 10]);
        let seq = host.life.seq.saturating_add(1);
        let beat = Beat { seq, v: VIA.1.to_owned(), ..Beat::bare(boot, None) };
        let created = i64::try_from(self.clock.now().0 / 1000).unwrap_or(i64::MAX);
        let heard = Heard { key: asked.key, beat: &beat, spent: host.life.nonce, created };
        let Some(known) = self.known(host.id, None).await? else { return Err(store_problem(&StoreError::Overloaded)) };
        self.take_verified(host.id, &heard, &known).await.map(drop)
    }

    /// The host asks for another interval than it had. Whatever else an operator changed stays.
    async fn follow(&self, id: HostId, asked: &Asked) -> Result<(), Problem> {
        for _ in 0..TRIES_MAX {
            let read = self.living(id).await?;
            let host = &read.value;
            let wanted = EnrolRequest {
                name: host.name.to_string(),
                class: Some(host.class),
                tags: std::collections::BTreeMap::new(),
                ..asked.enrolment()
            };
            let wish = wish(&wanted, None, Some(host))?;
            let edit = |host: &Host, wish, moment: &machine::Moment<'_>| Transition {
                host: machine::edit(host, wish, moment),
                events: Vec::new(),
            };
            if self.rewish(&read, wish, edit).await?.is_some() {
                return Ok(());
            }
        }
        Err(store_problem(&StoreError::Overloaded))
    }
}

/// What the host is called. A `hostId` that is a host name in lower case is its own; every other one that hb-api took is
/// spelt in what names may hold, and carries a mark of its own, so that `Web1` and `web1` are two.
///
/// The name says nothing about who is meant: that is for [`stand_in`]. Should two ever get the same name, the second is
/// refused.
fn name(host_id: &str) -> Result<HostName, Problem> {
    let plain = HostName::parse(host_id);
    match &plain {
        Ok(name) if name.as_str() == host_id => return plain.map_err(|error| bad_text("hostId", &error)),
        Ok(_) => {}
        Err(_) if !host_id.is_empty() && host_id.chars().all(char::is_alphanumeric) => {}
        Err(error) => return Err(bad_text("hostId", error)),
    }
    let chars = host_id.chars().count();
    if chars > HOST_ID_CHARS_MAX {
        return Err(invalid(format!(
            "hostId: {chars} characters, at most {HOST_ID_CHARS_MAX} are allowed unless it is a host name in lower case"
        )));
    }
    let mut spelt = String::new();
    for char in host_id.chars() {
        match char.to_ascii_lowercase() {
            kept if kept.is_ascii_alphanumeric() || matches!(kept, '.' | '-' | '_') => spelt.push(kept),
            _ if spelt.ends_with('-') || spelt.is_empty() => {}
            _ => spelt.push('-'),
        }
    }
    let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(host_id).into();
    let spelt = Some(spelt.trim_end_matches(['-', '.', '_'])).filter(|spelt| !spelt.is_empty()).unwrap_or("host");
    let marked = format!("{spelt}-{a:02x}{b:02x}{c:02x}{d:02x}");
    HostName::parse(&marked).map_err(|error| bad_text("hostId", &error))
}

const _: () = assert!(HOST_ID_CHARS_MAX + "-01234567".len() <= HOST_NAME_BYTES_MAX, "a marked name is not too long");

/// The key of a host that has none: found by hashing the `hostId`, so that the store finds the host by it as it finds
/// every host by its key, and two heartbeats at once cannot make two hosts.
///
/// Nobody has its private half, and nobody can: whoever hashes does not choose the point. Of the points it takes one with
/// a component of small order. No key made from a seed has that, and enrolment refuses it: no agent's host ever has such
/// a key, and no such host ever gets an agent.
fn stand_in(host_id: &str) -> PublicKey {
    let mut number = 0_u32;
    loop {
        let mut hash = Sha256::new_with_prefix(b"hb: the host of an hb-api heartbeat\0");
        hash.update(number.to_be_bytes());
        hash.update(host_id);
        let key = PublicKey(hash.finalize().into());
        if matches!(key.vetted(), Err(WeakKey::MixedOrder)) {
            return key;
        }
        // Less than half of all tries find one: there is always a next.
        number = number.wrapping_add(1);
    }
}

/// The name belongs to a host that an agent enrolled, or to another `hostId`.
fn foreign(name: &HostName) -> Problem {
    Problem::new(
        Code::NameTaken,
        format!("another host is called {name}, and it does not beat by this route: nothing was changed"),
    )
    .hint("if this machine runs an agent, remove its heartbeat from cron; else choose another hostId")
}

fn retired(name: &HostName) -> Problem {
    Problem::new(Code::Retired, format!("the host {name} was retired"))
        .hint("remove its heartbeat from cron; to watch it again, choose another hostId or `hb register` an agent")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host_id: &str, expected: &str) {
        assert_eq!(name(host_id).unwrap().as_str(), expected, "{host_id:?}");
    }

    #[test]
    fn a_host_name_stays_and_what_else_hb_api_took_is_spelt_and_marked() {
        check("web1", "web1");
        check("web-01", "web-01");
        check("db1.example.com", "db1.example.com");
        check("Web1", "web1-fbb6f4c5");
        check("WEB1", "web1-afbd2cd5");
        check("größe", "gr-e-d353a267");
        check("日本", "host-cf2abf0c");
        check("İ", "host-a65018cf");
    }

    #[test]
    fn what_neither_took_is_refused_with_the_reason() {
        for (host_id, part) in [
            ("", "empty"),
            ("web 1", "' ' (character 4)"),
            ("web/1", "'/'"),
            ("-web", "begin"),
            ("web1.", "end"),
            ("a\nb", "character 2"),
            ("größe-1", "'ö'"),
            (&"A".repeat(101), "101 characters"),
            (&"a".repeat(254), "254 characters"),
        ] {
            let problem = name(host_id).unwrap_err();
            assert_eq!(problem.code.status(), 400, "{host_id:?}");
            assert!(problem.detail.starts_with("hostId: ") && problem.detail.contains(part), "{problem:?}");
        }
    }

    #[test]
    fn a_stand_in_verifies_beats_of_nobody_and_is_never_enrolled() {
        let mut seen = std::collections::HashSet::new();
        for number in 0..200 {
            let key = stand_in(&format!("web{number}"));
            assert_eq!(key, stand_in(&format!("web{number}")));
            assert!(seen.insert(key));
            // The hot path must be able to read it, and enrolment must not take it.
            assert!(key.verifying().is_ok());
            assert!(matches!(key.vetted(), Err(WeakKey::MixedOrder)));
        }
        assert_ne!(stand_in("web1"), stand_in("Web1"));
    }

    #[test]
    fn the_interval_is_rounded_up_and_bounded() {
        let read = |interval_ms| Asked::read(&Heartbeat { host_id: "web1".to_owned(), interval_ms });
        for (interval_ms, interval_s, grace_s) in
            [(None, 600, 60), (Some(1000), 1, 1), (Some(1001), 2, 2), (Some(43_200_000), 43_200, 60)]
        {
            let asked = read(interval_ms).unwrap();
            assert_eq!((asked.interval_s, asked.grace_s()), (interval_s, grace_s), "{interval_ms:?}");
        }
        assert_eq!(read(Some(2_678_400_000)).unwrap().interval_s, 31 * 86_400);
        for interval_ms in [0, 999, 2_678_400_001, u64::MAX] {
            let problem = read(Some(interval_ms)).unwrap_err();
            assert!(problem.detail.contains("between 1000 and 2678400000 milliseconds"), "{problem:?}");
        }
    }
}
