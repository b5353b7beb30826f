//! Why a host is shown as it is: the numbers that were used, in the order in which they were used.

use hb_core::delivery::Delivery;
use hb_core::event::{Event, Kind};
use hb_core::host::{Host, Outage, State};
use hb_core::time::Time;
use hb_store::EventQuery;
use hb_wire::duration::format_seconds;
use hb_wire::id::HostId;
use hb_wire::problem::Problem;
use hb_wire::view::{Class, HostState, WhyView};

use crate::app::{App, store_problem, timestamp};
use crate::view::{Lens, delivery_view, since, state_word, stop_word};

/// Events that are looked through for the last transition.
const LOOK_BACK: usize = 50;
/// Deliveries that are shown.
const DELIVERIES_MAX: usize = 100;

impl App {
    /// Explains a host.
    pub async fn why(&self, id: HostId) -> Result<WhyView, Problem> {
        let host = self.host(id).await?.value;
        let lens = self.lens();
        let event = self.last_transition(&host).await?;
        let deliveries = match &event {
            Some(event) => self.told_of(event).await?,
            None => Vec::new(),
        };
        let channels = self.store.channels().await.map_err(|error| store_problem(&error))?;
        let mut steps = steps(&host, &lens);
        steps.extend(event.as_ref().map(decided));
        steps.push(told(event.as_ref(), &deliveries, channels.len()));
        Ok(WhyView {
            host: lens.host(&host),
            because: because(&host, &lens),
            steps,
            event: event.as_ref().map(|event| self.event_view(event)),
            deliveries: deliveries
                .iter()
                .map(|delivery| delivery_view(delivery, &channels, core::slice::from_ref(&host)))
                .collect(),
        })
    }

    async fn last_transition(&self, host: &Host) -> Result<Option<Event>, Problem> {
        if let State::Down(Outage { event, .. }) = &host.state {
            let event = self.store.event(*event).await.map_err(|error| store_problem(&error))?;
            if event.is_some() {
                return Ok(event);
            }
        }
        let query = EventQuery { host: Some(host.id), limit: LOOK_BACK, ..EventQuery::default() };
        let events = self.store.events(&query).await.map_err(|error| store_problem(&error))?;
        Ok(events.into_iter().map(|listed| listed.value).find(|event| leads_to(event.kind, &host.state)))
    }

    /// The deliveries that told of an event: its own, or those of the incident that spoke for it.
    async fn told_of(&self, event: &Event) -> Result<Vec<Delivery>, Problem> {
        let Some(incident) = event.incident else { return Ok(Vec::new()) };
        let mut all = self.store.deliveries_of(incident).await.map_err(|error| store_problem(&error))?;
        let own = all.iter().any(|delivery| delivery.event == event.id);
        all.retain(|delivery| {
            if own { delivery.event == event.id } else { delivery.kind == event.kind && delivery.host.is_none() }
        });
        all.truncate(DELIVERIES_MAX);
        Ok(all)
    }
}

/// True when an event of this kind puts a host into this state.
fn leads_to(kind: Kind, state: &State) -> bool {
    match state {
        State::New => matches!(kind, Kind::Registered | Kind::Resumed),
        State::Up { .. } => {
            matches!(kind, Kind::Up | Kind::ReturnedLate | Kind::Rebooted | Kind::Restarted | Kind::Resumed)
        }
        State::Down(_) => matches!(kind, Kind::Down),
        State::Stopped { .. } => matches!(kind, Kind::Stopped | Kind::Resumed),
        State::Paused { .. } => matches!(kind, Kind::Paused),
        State::Retired { .. } => matches!(kind, Kind::Retired),
    }
}

/// A duration for people: in milliseconds, shown in seconds.
fn lasting(ms: u64) -> String {
    format_seconds(ms / 1000)
}

fn at(time: Time) -> String {
    timestamp(time).to_string()
}

/// One sentence that explains the state.
fn because(host: &Host, lens: &Lens) -> String {
    let name = &host.name;
    let silence = lasting(lens.now.since(host.life.silent_from));
    let need = lasting(host.need_ms());
    match (&host.state, lens.state(host)) {
        (State::New, _) => format!("{name} was enrolled {silence} ago and has not been heard yet"),
        (State::Up { .. }, HostState::Unknown) => {
            format!(
                "{name} has not been heard for {silence}, but the server was not observing all that time, so it does not judge yet"
            )
        }
        (State::Up { .. }, HostState::Late) => format!(
            "{name} has not been heard for {silence}, longer than its interval of {}; {}",
            lasting(host.interval_ms),
            lens.deadline(host).map_or_else(
                || "its silence raises no alarm".to_owned(),
                |deadline| format!("it is down if nothing comes before {}", at(deadline))
            )
        ),
        (State::Up { .. }, _) => format!(
            "{name} is up: it was last heard {silence} ago, within its interval of {}",
            lasting(host.interval_ms)
        ),
        (State::Down(outage), _) => match host.life.heard_at {
            None => format!("{name} is down: it was enrolled, but never heard within {need}"),
            Some(heard) => format!(
                "{name} is down since {}: it was last heard at {}, and had to be heard within {}",
                at(outage.since),
                at(heard),
                lasting(host.patience_ms().unwrap_or(host.need_ms()))
            ),
        },
        (State::Stopped { back_by, reason, .. }, _) => {
            format!("{name} said goodbye ({}), and is expected back by {}", stop_word(*reason), at(*back_by))
        }
        (State::Paused { until, reason, .. }, _) => {
            let end = until.map_or_else(|| "until it is resumed".to_owned(), |until| format!("until {}", at(until)));
            let why = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
            format!("{name} is paused {end}{why}: its silence raises no alarm")
        }
        (State::Retired { since }, _) => format!("{name} was retired at {}", at(*since)),
    }
}

/// The numbers, one line each.
fn steps(host: &Host, lens: &Lens) -> Vec<String> {
    let life = &host.life;
    let mut steps = vec![format!(
        "shown as {}, stored as {} since {}",
        state_word(lens.state(host)),
        host.state.word(),
        at(since(host))
    )];
    steps.push(match life.heard_at {
        Some(heard) => {
            format!("last accepted beat: {} (seq {}, {} ago)", at(heard), life.seq, lasting(lens.now.since(heard)))
        }
        None => format!("no beat was ever accepted; enrolled at {}", at(host.enrolled_at)),
    });
    if life.heard_at.is_some_and(|heard| heard != life.silent_from) {
        let why = if life.silent_from > lens.now {
            "its interval was shortened, and its next beat, which is due by then, tells it so"
        } else {
            "the host was resumed or changed then"
        };
        steps.push(format!("silence counts from {}: {why}", at(life.silent_from)));
    }
    steps.push(format!(
        "interval {} + grace {} = {} of observed silence before an alarm",
        lasting(host.interval_ms),
        lasting(host.grace_ms),
        lasting(host.need_ms())
    ));
    steps.extend(patience(host));
    steps.push(credit(host, lens));
    steps.extend(hold_off(host, lens));
    if let Some(maintenance) = &host.maintenance {
        let over = if host.in_maintenance(lens.now) { "no alarm before that" } else { "over" };
        let note = if maintenance.note.is_empty() { String::new() } else { format!(" ({})", maintenance.note) };
        steps.push(format!("announced maintenance until {}{note}: {over}", at(maintenance.until)));
    }
    steps.push(match lens.deadline(host) {
        Some(deadline) if lens.now < deadline => {
            format!("deadline: {}, in {}", at(deadline), lasting(deadline.since(lens.now)))
        }
        Some(deadline) => {
            format!("deadline: {}, {} ago; the next sweep decides", at(deadline), lasting(lens.now.since(deadline)))
        }
        None => format!("no deadline is armed while the host is {}", host.state.word()),
    });
    if !host.quarantine.is_empty() {
        steps.push(format!(
            "{} other holder(s) of its key are in quarantine; `hb resume {}` releases them",
            host.quarantine.len(),
            host.name
        ));
    }
    steps
}

fn patience(host: &Host) -> Option<String> {
    match (host.class, host.max_away_ms) {
        (Class::Server, _) => None,
        (Class::Ephemeral, _) => Some("ephemeral: retires itself after a goodbye, or a day of being down".to_owned()),
        (Class::Intermittent, None) => Some("intermittent: its silence is shown, but never an alarm".to_owned()),
        (Class::Intermittent, Some(away)) => {
            Some(format!("intermittent: an alarm only after {} of absence", lasting(away)))
        }
    }
}

fn credit(host: &Host, lens: &Lens) -> String {
    let unobserved = lens.ledger.unobserved_ms(host.life.silent_from, lens.now);
    if unobserved == 0 {
        "credit: none, the server has observed all of that time".to_owned()
    } else {
        let blind = lens.blind_since.map_or(String::new(), |since| format!("; it is blind since {}", at(since)));
        format!("credit: {} in which the server did not observe{blind}", lasting(unobserved))
    }
}

/// What the hold-offs after gaps add to need and credit.
fn hold_off(host: &Host, lens: &Lens) -> Option<String> {
    if !matches!(host.state, State::New | State::Up { .. }) {
        return None;
    }
    let (from, need) = (host.life.silent_from, host.patience_ms()?);
    let plain = lens.ledger.due_at(from, need, 0, &lens.policy);
    let held = lens.ledger.due_at(from, need, lens.policy.hold_ms(host.interval_ms), &lens.policy);
    (held > plain)
        .then(|| format!("hold-off: {} more, so that a retry can arrive after the gap", lasting(held.since(plain))))
}

fn decided(event: &Event) -> String {
    let deadline = event.deadline.map_or(String::new(), |deadline| format!(", deadline {}", at(deadline)));
    let cause = event.cause.map_or(String::new(), |cause| format!(", cause {}", cause.word()));
    let incident = event.incident.map_or(String::new(), |incident| format!(", incident {incident}"));
    format!("decided at {}: {}{cause}{deadline}{incident}", at(event.at), event.kind)
}

fn told(event: Option<&Event>, deliveries: &[Delivery], channels: usize) -> String {
    use hb_core::delivery::Status;
    let count = |status| deliveries.iter().filter(|delivery| delivery.status == status).count();
    match event {
        None => "told: nobody, nothing was decided yet".to_owned(),
        Some(_) if deliveries.is_empty() && channels == 0 => {
            "told: nobody, no channel is configured (`hb channels add`)".to_owned()
        }
        Some(event) if deliveries.is_empty() => {
            format!("told: nobody, {} is history only or waits to be told", event.kind)
        }
        Some(_) => format!(
            "told: {} delivered, {} waiting, {} merged into a later message, {} given up",
            count(Status::Delivered),
            count(Status::Pending),
            count(Status::Merged),
            count(Status::Dead)
        ),
    }
}
