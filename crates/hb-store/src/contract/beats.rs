//! Beats on the fast path.

use futures_util::future::join_all;
use hb_core::host::{Holder, Host, Maintenance, State};
use hb_core::ledger::Ledger;
use hb_core::machine::{self, Heard, Moment, Verdict};
use hb_core::policy::Policy;
use hb_core::time::Time;
use hb_wire::beat::Fault;

use super::Subject;
use super::world::{Dice, at, beat_of, edit, enrol, enrol_all, event, holder, host_id, nonce, read, to, up};
use crate::{Beat, Beaten, Committed, Versioned};

/// The beat as the state machine is given it.
fn wire(beat: &Beat) -> hb_wire::beat::Beat {
    hb_wire::beat::Beat {
        boot: beat.holder.boot,
        run: beat.holder.run,
        seq: beat.seq,
        up: beat.up_s,
        v: beat.agent.clone(),
        sent_at: None,
        intent: None,
        before: None,
        gap: None,
        degraded: beat.faults.clone(),
        vitals: beat.vitals.clone(),
        pass: None,
    }
}

/// Makes one thing different from a beat that is stored.
type Bend = fn(&mut Host, &mut Beat);

pub async fn a_beat_in_time_is_stored_without_a_decision(store: Subject) {
    enrol(&store, &up(1)).await;
    let mut beat = beat_of(&up(1), at(60_000), nonce(1));
    beat.vitals = Some(Dice(3).vitals());
    assert_eq!(store.beat(beat.clone()).await.unwrap(), Beaten::Stored);
    let held = read(&store, host_id(1)).await.value;
    let life = &held.life;
    assert_eq!((life.nonce, life.nonce_at), (nonce(1), at(60_000)));
    assert_eq!((life.heard_at, life.silent_from), (Some(at(60_000)), at(60_000)));
    assert_eq!((life.seq, life.up_s, life.skew_ms), (2, 77, Some(-12)));
    assert_eq!((life.agent.as_str(), &life.vitals), ("0.1.0", &beat.vitals));
    assert_eq!((life.holder, &held.state), (up(1).life.holder, &up(1).state));
    assert!(store.untold(10).await.unwrap().is_empty());
}

pub async fn a_beat_that_fails_one_condition_is_handed_back_and_writes_nothing(store: Subject) {
    let base = |n| {
        let mut host = up(n);
        host.life.faults = [Fault::DiskFull].into();
        host
    };
    let bends: &[(&str, Bend)] = &[
        ("it is new", |host, _| host.state = State::New),
        ("it is paused", |host, _| {
            host.state =
                State::Paused { since: at(0), until: None, reason: String::new(), outage: None, goodbye: None };
        }),
        ("it is retired", |host, _| host.state = State::Retired { since: at(0) }),
        ("another nonce", |_, beat| beat.spent = nonce(9)),
        ("another interval would be told", |host, beat| beat.interval_ms = host.interval_ms + 1000),
        ("the nonce is too old", |host, beat| {
            host.life.nonce_at = beat.now.minus(180_001);
            host.life.heard_at = Some(beat.now);
            host.life.silent_from = beat.now;
        }),
        ("its silence counts from later than it was heard", |host, _| host.life.silent_from = at(1)),
        ("its silence counts from an instant ahead", |host, beat| host.life.silent_from = beat.now.plus(1)),
        ("the deadline has passed", |host, beat| host.life.silent_from = beat.now.minus(180_001)),
        ("another run", |_, beat| beat.holder.run = holder(9999).run),
        ("no run", |_, beat| beat.holder.run = None),
        ("another boot", |_, beat| beat.holder.boot = holder(9999).boot),
        ("nobody was heard before", |host, _| host.life.holder = None),
        ("the holder is in quarantine", |host, beat| host.quarantine = vec![beat.holder]),
        ("the holder's run is in quarantine", |host, beat| {
            host.quarantine = vec![Holder { run: beat.holder.run, boot: holder(9999).boot }];
        }),
        ("the same counter", |host, beat| beat.seq = host.life.seq),
        ("no faults any more", |_, beat| beat.faults.clear()),
        ("one fault more", |_, beat| beat.faults.push(Fault::RootReadOnly)),
        ("another fault", |_, beat| beat.faults = vec![Fault::RootReadOnly]),
    ];
    for ((why, bend), n) in bends.iter().zip(1..) {
        let mut host = base(n);
        let mut beat = beat_of(&host, at(60_000), nonce(1));
        bend(&mut host, &mut beat);
        enrol(&store, &host).await;
        let before = read(&store, host.id).await;
        assert_eq!(store.beat(beat).await.unwrap(), Beaten::Decide(Box::new(before.clone())), "{why}");
        assert_eq!(read(&store, host.id).await, before, "{why}");
    }
    // The other side of each edge.
    let edges: &[(&str, Bend)] = &[
        ("nothing is wrong", |_, _| {}),
        ("the last millisecond", |host, beat| {
            host.life.nonce_at = beat.now.minus(180_000);
            host.life.silent_from = beat.now.minus(180_000);
        }),
        ("maintenance", |host, beat| {
            host.life.silent_from = beat.now.minus(180_001);
            host.maintenance = Some(Maintenance { until: beat.now, note: String::new() });
        }),
        ("the fault twice", |_, beat| beat.faults.push(Fault::DiskFull)),
        ("somebody else is in quarantine", |host, _| host.quarantine = vec![holder(9999)]),
        ("an agent that sends no run", |host, beat| {
            beat.holder.run = None;
            host.life.holder = Some(beat.holder);
            host.quarantine = vec![Holder { run: None, boot: holder(9999).boot }];
        }),
    ];
    for ((why, bend), n) in edges.iter().zip(100..) {
        let mut host = base(n);
        let mut beat = beat_of(&host, at(60_000), nonce(1));
        bend(&mut host, &mut beat);
        enrol(&store, &host).await;
        assert_eq!(store.beat(beat).await.unwrap(), Beaten::Stored, "{why}");
    }
}

pub async fn a_beat_of_an_unknown_host_is_unknown(store: Subject) {
    enrol(&store, &up(1)).await;
    assert_eq!(store.beat(beat_of(&up(2), at(1), nonce(1))).await.unwrap(), Beaten::Unknown);
}

pub async fn of_64_beats_that_spend_one_nonce_one_is_stored(store: Subject) {
    enrol(&store, &up(1)).await;
    let beats = (0..64).map(|n| {
        let mut beat = beat_of(&up(1), at(1000 + n), nonce(100 + n));
        beat.seq = 2 + n;
        store.beat(beat)
    });
    let outcomes: Vec<Beaten> = join_all(beats).await.into_iter().map(Result::unwrap).collect();
    let stored: Vec<usize> = (0..64).filter(|n| outcomes[*n] == Beaten::Stored).collect();
    let [only] = stored.as_slice() else { panic!("{} were stored", stored.len()) };
    let held = read(&store, host_id(1)).await.value;
    assert_eq!(held.life.nonce, nonce(100 + u64::try_from(*only).unwrap()));
}

pub async fn a_beat_that_lands_before_the_commit_wins(store: Subject) {
    enrol(&store, &up(1)).await;
    let mut decided = read(&store, host_id(1)).await;
    let at_deadline =
        Moment { now: at(180_000), ledger: &Ledger::default(), policy: &Policy::STANDARD, fresh: nonce(9) };
    let down = machine::sweep(&decided.value, machine::Grouping::Single, &at_deadline).unwrap();
    assert_eq!(store.beat(beat_of(&up(1), at(180_000), nonce(1))).await.unwrap(), Beaten::Stored);
    decided.value = down.host;
    assert_eq!(store.commit(to(decided, down.events)).await.unwrap(), Committed::Conflict);
    assert_eq!(read(&store, host_id(1)).await.value.state, up(1).state);
    assert!(store.untold(10).await.unwrap().is_empty(), "nothing is announced");
    let other = event(1, None, hb_core::event::Audience::Nobody);
    assert_eq!(store.event(other.id).await.unwrap(), None);
}

/// Stored means: the machine accepts it, without an event, with the same host as the result. And the other way round, as long
/// as no credit is needed and the counter grows.
pub async fn the_fast_path_decides_what_the_state_machine_decides(store: Subject) {
    let mut dice = Dice(42);
    let now = at(1_000_000);
    let hosts: Vec<Host> = (0..2000).map(|n| dice.host(n, now)).collect();
    enrol_all(&store, &hosts).await;
    let (mut stored, mut accepted) = (0, 0);
    for host in &hosts {
        let beat = random_beat(&mut dice, host, now);
        let before = read(&store, host.id).await;
        let ledger = dice.ledger(now);
        let decided = decide(host, &beat, &ledger);
        let outcome = store.beat(beat.clone()).await.unwrap();
        let after = read(&store, host.id).await;
        if outcome == Beaten::Stored {
            stored += 1;
            assert_eq!(decided, Some(after.value), "{host:?}\n{beat:?}");
            continue;
        }
        assert_eq!(outcome, Beaten::Decide(Box::new(before.clone())));
        assert_eq!(after, before);
        let quietly = decide(host, &beat, &Ledger::default()).is_some();
        accepted += u32::from(quietly);
        let steady = host.life.holder == Some(beat.holder)
            && host.interval_ms == beat.interval_ms
            && host.life.heard_at.is_some_and(|heard_at| host.life.silent_from <= heard_at)
            && matches!(host.state, State::Up { .. })
            && host.life.faults == beat.faults.iter().copied().collect()
            && beat.seq > host.life.seq;
        assert!(!(quietly && steady), "it could have been stored at once: {host:?}\n{beat:?}");
    }
    assert!(stored > 50 && accepted > 10, "too few cases to prove anything: {stored}, {accepted}");
}

fn random_beat(dice: &mut Dice, host: &Host, now: Time) -> Beat {
    let mut beat = beat_of(host, now, nonce(500));
    beat.skew_ms = None;
    if dice.one_in(5) {
        beat.spent = nonce(dice.below(3));
    }
    if dice.one_in(5) {
        beat.seq = dice.below(5);
    }
    if dice.one_in(5) {
        beat.faults = dice.faults();
    }
    if dice.one_in(5) {
        beat.holder.run = dice.pick(&[None, holder(0).run, holder(1).run]);
    }
    if dice.one_in(8) {
        beat.holder.boot = holder(dice.below(3)).boot;
    }
    beat.vitals = dice.one_in(2).then(|| dice.vitals());
    beat
}

/// The host after the machine accepted the beat without an event.
fn decide(host: &Host, beat: &Beat, ledger: &Ledger) -> Option<Host> {
    let wire = wire(beat);
    let heard = Heard { key: host.key, beat: &wire, spent: beat.spent, created: 0 };
    let moment = Moment { now: beat.now, ledger, policy: &Policy::STANDARD, fresh: beat.next };
    match machine::beat(host, &heard, &moment) {
        Verdict::Accepted(transition) if transition.events.is_empty() => Some(transition.host),
        Verdict::Accepted(_) | Verdict::Stale(_) | Verdict::Cloned | Verdict::Retired | Verdict::Foreign => None,
    }
}

/// Keeps the helpers honest: the host that most clauses beat is one whose beats are stored.
pub async fn beats_follow_each_other(store: Subject) {
    enrol(&store, &up(1)).await;
    for n in 1..=100 {
        let Versioned { value, .. } = read(&store, host_id(1)).await;
        assert_eq!(store.beat(beat_of(&value, at(60_000 * n), nonce(n))).await.unwrap(), Beaten::Stored);
    }
    edit(&store, host_id(1), |host| host.transitions = 5).await;
    let held = read(&store, host_id(1)).await.value;
    assert_eq!((held.life.seq, held.life.silent_from), (101, at(6_000_000)));
}
