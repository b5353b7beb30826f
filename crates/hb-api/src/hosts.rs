//! What operators do with hosts. Each change is decided by the state machine from what was just read, and written only if
//! that still holds.

use std::collections::BTreeMap;

use hb_core::host::{Host, State, Wish};
use hb_core::machine::{self, Moment, Transition};
use hb_core::policy::{GRACE_S, INTERVAL_S};
use hb_core::time::seconds;
use hb_store::{Change, Committed, HostQuery, StoreError, Versioned};
use hb_wire::duration::format_seconds;
use hb_wire::id::HostId;
use hb_wire::name::{HostName, NameError, Tags, clean_text};
use hb_wire::problem::{Code, Problem};
use hb_wire::view::{Class, HostPatch, HostState, PauseRequest};

use crate::app::{App, store_problem};

/// How often a decision is made anew because somebody else was faster.
const TRIES_MAX: usize = 16;
/// Longest pause, in seconds; a longer one is a host to be retired.
pub const PAUSE_S: core::ops::RangeInclusive<u64> = 1..=366 * 86_400;
/// Longest absence of an intermittent host, in seconds.
pub const MAX_AWAY_S: core::ops::RangeInclusive<u64> = 1..=366 * 86_400;
/// Longest reason, in characters.
pub const REASON_CHARS_MAX: usize = 200;
/// Hosts that one request looks through for those in the states asked for; the cursor goes on from there.
pub const SCAN_MAX: usize = 20_000;

/// A value that parsed, but is not acceptable.
#[must_use]
pub fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(Code::Invalid, detail)
}

/// A name, tag or text that is not acceptable.
#[must_use]
pub fn bad_text(field: &str, error: &NameError) -> Problem {
    invalid(format!("{field}: {error}"))
}

/// The same for whatever is not there.
#[must_use]
pub fn no_host(id: HostId) -> Problem {
    Problem::new(Code::NotFound, format!("there is no host {id}")).hint("`hb hosts list` names them all")
}

/// Checks a number against its bounds.
pub fn bounded(field: &str, value: u64, bounds: &core::ops::RangeInclusive<u64>) -> Result<u64, Problem> {
    if bounds.contains(&value) {
        Ok(value)
    } else {
        let [value, least, most] = [value, *bounds.start(), *bounds.end()].map(format_seconds);
        Err(invalid(format!("{field}: {value} is not between {least} and {most}")))
    }
}

/// The name is taken by another host that lives.
#[must_use]
pub fn name_taken(name: &HostName) -> Problem {
    Problem::new(Code::NameTaken, format!("another host that is not retired is called {name}"))
        .hint("choose another name, or retire that host first: `hb hosts retire`")
}

/// Hosts that fit, and where to go on.
#[derive(Debug)]
pub struct Found {
    /// What was found, by name.
    pub hosts: Vec<Host>,
    /// The last host looked at, when there may be more after it.
    pub more_after: Option<(String, HostId)>,
}

impl App {
    /// One host.
    pub async fn host(&self, id: HostId) -> Result<Versioned<Host>, Problem> {
        self.store.host(id).await.map_err(|error| store_problem(&error))?.ok_or_else(|| no_host(id))
    }

    /// Hosts by name. `states` are shown states, any when empty; retired ones only when asked for.
    pub async fn find_hosts(&self, mut query: HostQuery, states: &[HostState]) -> Result<Found, Problem> {
        let wanted = query.limit;
        let lens = self.lens();
        let mut hosts = Vec::new();
        let mut looked_at = 0;
        loop {
            // One more than wanted, to know whether there is a next page.
            query.limit =
                if states.is_empty() { wanted - hosts.len() + 1 } else { hb_store::PAGE_MAX }.min(hb_store::PAGE_MAX);
            let page = self.store.hosts(&query).await.map_err(|error| store_problem(&error))?;
            let full = page.len() >= query.limit;
            for host in page {
                let host = host.value;
                if hosts.len() >= wanted {
                    return Ok(Found { hosts, more_after: query.after });
                }
                query.after = Some((host.name.to_string(), host.id));
                looked_at += 1;
                if states.is_empty() || states.contains(&lens.state(&host)) {
                    hosts.push(host);
                }
            }
            if !full {
                return Ok(Found { hosts, more_after: None });
            }
            if looked_at >= SCAN_MAX {
                return Ok(Found { hosts, more_after: query.after });
            }
        }
    }

    /// Pauses a host.
    pub async fn pause(&self, id: HostId, request: &PauseRequest) -> Result<Host, Problem> {
        let for_s = request.for_s.map(|for_s| bounded("for_s", for_s, &PAUSE_S)).transpose()?;
        let reason = clean_text(request.reason.as_deref().unwrap_or_default(), REASON_CHARS_MAX)
            .map_err(|error| bad_text("reason", &error))?;
        self.change_host(id, |host, moment| {
            let until = for_s.map(|for_s| moment.now.plus(seconds(for_s)));
            Some(machine::pause(host, until, &reason, moment))
        })
        .await
    }

    /// Ends a pause, or releases clones of a host that is not paused from quarantine. Nothing to end: nothing changes.
    pub async fn resume(&self, id: HostId) -> Result<Host, Problem> {
        self.change_host(id, |host, moment| {
            let something = matches!(host.state, State::Paused { .. }) || !host.quarantine.is_empty();
            something.then(|| machine::resume(host, moment))
        })
        .await
    }

    /// Takes a host out of service. Doing it again changes nothing.
    pub async fn retire(&self, id: HostId) -> Result<(), Problem> {
        match self.change_host(id, |host, moment| Some(machine::retire(host, moment))).await {
            Err(problem) if problem.code == Code::Retired => Ok(()),
            other => other.map(drop),
        }
    }

    /// Changes what was wished at enrolment; what is absent stays.
    pub async fn patch(&self, id: HostId, patch: &HostPatch) -> Result<Host, Problem> {
        let name = patch.name.as_deref().map(HostName::parse).transpose().map_err(|error| bad_text("name", &error))?;
        let bound = |field, value: Option<u64>, bounds| value.map(|value| bounded(field, value, bounds)).transpose();
        bound("interval_s", patch.interval_s, &INTERVAL_S)?;
        bound("grace_s", patch.grace_s, &GRACE_S)?;
        bound("max_away_s", patch.max_away_s, &MAX_AWAY_S)?;
        for _ in 0..TRIES_MAX {
            let read = self.living(id).await?;
            let wish = patched(&read.value, name.clone(), patch)?;
            if let Some(host) = self
                .rewish(&read, wish, |host, wish, moment| Transition {
                    host: machine::edit(host, wish, moment),
                    events: Vec::new(),
                })
                .await?
            {
                return Ok(host);
            }
        }
        Err(store_problem(&StoreError::Overloaded))
    }

    /// Writes a new wish, unless it is what the host has anyway. None: somebody was faster.
    pub(crate) async fn rewish(
        &self,
        read: &Versioned<Host>,
        wish: Wish,
        decide: impl FnOnce(&Host, Wish, &Moment<'_>) -> Transition,
    ) -> Result<Option<Host>, Problem> {
        let host = &read.value;
        if wish.name != host.name && self.is_name_taken(&wish.name, host.id).await? {
            return Err(name_taken(&wish.name));
        }
        let transition = self.decide(|moment| decide(host, wish, moment));
        self.write_host(read, transition).await
    }

    async fn is_name_taken(&self, name: &HostName, by_other_than: HostId) -> Result<bool, Problem> {
        let query = HostQuery { name: Some(name.clone()), limit: 2, ..HostQuery::default() };
        let named = self.store.hosts(&query).await.map_err(|error| store_problem(&error))?;
        Ok(named.iter().any(|host| host.value.id != by_other_than))
    }

    /// A host that is not retired.
    pub(crate) async fn living(&self, id: HostId) -> Result<Versioned<Host>, Problem> {
        let read = self.host(id).await?;
        alive(&read.value)?;
        Ok(read)
    }

    /// Reads, decides, writes; anew when somebody was faster. `None` decides that nothing changes.
    async fn change_host(
        &self,
        id: HostId,
        decide: impl Fn(&Host, &Moment<'_>) -> Option<Transition> + Send + Sync,
    ) -> Result<Host, Problem> {
        for _ in 0..TRIES_MAX {
            let read = self.living(id).await?;
            let Some(transition) = self.decide(|moment| decide(&read.value, moment)) else { return Ok(read.value) };
            if let Some(host) = self.write_host(&read, transition).await? {
                return Ok(host);
            }
        }
        Err(store_problem(&StoreError::Overloaded))
    }

    async fn write_host(&self, read: &Versioned<Host>, transition: Transition) -> Result<Option<Host>, Problem> {
        let host = transition.host;
        if host == read.value && transition.events.is_empty() {
            return Ok(Some(host));
        }
        let change = Change {
            host: Some(Versioned { value: host.clone(), rev: read.rev }),
            events: transition.events,
            incident: None,
        };
        let _forgetting = self.keyring.forgetting(host.id);
        match self.store.commit(change).await.map_err(|error| store_problem(&error))? {
            Committed::Done => {
                self.to_deliver.notify_one();
                Ok(Some(host))
            }
            Committed::Conflict => {
                self.metrics.conflicts.add();
                Ok(None)
            }
        }
    }
}

/// Refuses a host that was retired.
pub(crate) fn alive(host: &Host) -> Result<&Host, Problem> {
    match host.state {
        State::Retired { .. } => Err(Problem::new(Code::Retired, format!("the host {} was retired", host.name))
            .hint("enrol it again with a new key: `hb identity reset`, then `hb register`")),
        State::New | State::Up { .. } | State::Down(_) | State::Stopped { .. } | State::Paused { .. } => Ok(host),
    }
}

/// Refuses a longest absence for a host that is never away by itself: nothing would look at it.
pub(crate) fn may_be_away(max_away_s: Option<u64>, class: Class) -> Result<(), Problem> {
    if max_away_s.is_some() && class != Class::Intermittent {
        return Err(invalid("max_away_s: only an intermittent host may be away: set its class to that as well"));
    }
    Ok(())
}

/// What a host wishes after the patch.
fn patched(host: &Host, name: Option<HostName>, patch: &HostPatch) -> Result<Wish, Problem> {
    let mut tags: BTreeMap<String, String> = host.tags.as_map().clone();
    for (key, value) in &patch.tags {
        match value {
            Some(value) => tags.insert(key.clone(), value.clone()),
            None => tags.remove(key),
        };
    }
    let class = patch.class.unwrap_or(host.class);
    may_be_away(patch.max_away_s, class)?;
    Ok(Wish {
        name: name.unwrap_or_else(|| host.name.clone()),
        tags: Tags::parse(tags).map_err(|error| bad_text("tags", &error))?,
        class,
        interval_s: patch.interval_s.unwrap_or(host.interval_ms / 1000),
        grace_s: patch.grace_s.unwrap_or(host.grace_ms / 1000),
        max_away_s: patch.max_away_s.or(host.max_away_ms.map(|ms| ms / 1000)),
    })
}
