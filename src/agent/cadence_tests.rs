use super::*;

const ACCEPTED: Outcome = Outcome::Accepted { interval_s: None, next_in_s: None };
const I_MS: u64 = 60_000;

/// A small generator: tests must repeat.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn host(n: u64) -> HostId {
    HostId::mint(1_795_444_000_000 + n, [u8::try_from(n % 251).unwrap(); 10])
}

/// Waits until the next send and returns when it happens and what it is.
fn next_send(cadence: &mut Cadence, now_ms: u64) -> (u64, usize, bool) {
    let mut now_ms = now_ms;
    loop {
        match cadence.next(now_ms) {
            Action::Wait { until_ms } => {
                assert!(until_ms > now_ms, "a wait must end later than it begins");
                now_ms = until_ms;
            }
            Action::Send { endpoint, fresh, timeout_ms } => {
                assert!(timeout_ms <= cadence.interval_ms() / 2);
                return (now_ms, endpoint, fresh);
            }
        }
    }
}

#[test]
fn an_accepted_beat_is_followed_by_the_next_within_the_interval_and_not_at_once() {
    let mut dice = Dice(1);
    for n in 0..200 {
        let mut cadence = Cadence::new(host(n), 60, 1, 0);
        let (mut now, _, fresh) = next_send(&mut cadence, 0);
        assert!(fresh && now <= FIRST_BEAT_MS_MAX);
        for beat in 0..50 {
            let answered = now + 80;
            cadence.on_result(ACCEPTED, answered, dice.roll());
            let (at, _, fresh) = next_send(&mut cadence, answered);
            assert!(fresh);
            assert!(at - now < I_MS - 80, "host {n} beat {beat}: {} ms", at - now);
            assert!(beat == 0 || at - now > I_MS * 90 / 100, "host {n} beat {beat}: {} ms", at - now);
            now = at;
        }
    }
}

#[test]
fn a_fleet_that_boots_together_does_not_beat_in_step() {
    let mut seconds = [0_u32; 57];
    let mut dice = Dice(2);
    for n in 0..5_700 {
        let mut cadence = Cadence::new(host(n * 7919), 60, 1, 0);
        let mut now = 0;
        for _ in 0..3 {
            (now, _, _) = next_send(&mut cadence, now);
            cadence.on_result(ACCEPTED, now, dice.roll());
        }
        seconds[usize::try_from((now % 57_000) / 1000).unwrap()] += 1;
    }
    let (least, most) = (seconds.iter().min().unwrap(), seconds.iter().max().unwrap());
    assert!(*least > 50 && *most < 150, "beats per second of the period, 100 expected: {least} to {most}");
}

#[test]
fn a_beat_that_is_held_comes_at_the_end_of_the_hold_and_the_grid_goes_on() {
    let mut cadence = Cadence::new(host(1), 10, 1, 0);
    let (now, _, _) = next_send(&mut cadence, 0);
    cadence.on_result(ACCEPTED, now, 7);
    cadence.hold(30_000, now);
    assert_eq!(cadence.next(now + 29_999), Action::Wait { until_ms: now + 30_000 });
    assert!(matches!(cadence.next(now + 30_000), Action::Send { fresh: true, .. }));
    cadence.on_result(ACCEPTED, now + 30_000, 7);
    let due = cadence.due_ms();
    // What is further away already is left where it is.
    cadence.hold(1, now + 30_000);
    assert_eq!(cadence.due_ms(), due);
}

#[test]
fn the_server_may_say_when_it_wants_the_next_beat_within_the_interval() {
    for (wish, expected_ms) in [(5, 5_000), (0, 1_000), (u64::MAX, I_MS)] {
        let mut cadence = Cadence::new(host(1), 60, 1, 0);
        let (now, _, _) = next_send(&mut cadence, 0);
        cadence.on_result(Outcome::Accepted { interval_s: Some(60), next_in_s: Some(wish) }, now, 7);
        assert_eq!(next_send(&mut cadence, now).0, now + expected_ms);
    }
}

#[test]
fn the_interval_follows_the_server_within_bounds() {
    let mut cadence = Cadence::new(host(1), 60, 1, 0);
    for (said, expected_ms) in [(0, 1_000), (10, 10_000), (u64::MAX, INTERVAL_S_MAX * 1000)] {
        cadence.on_result(Outcome::Accepted { interval_s: Some(said), next_in_s: None }, 0, 0);
        assert_eq!(cadence.interval_ms(), expected_ms);
    }
}

#[test]
fn retries_are_jittered_bounded_by_a_doubling_wait_and_never_by_more_than_half_the_interval() {
    for interval_s in [2, 10, 60, 3600] {
        let mut cadence = Cadence::new(host(3), interval_s, 1, 0);
        let (mut now, _, _) = next_send(&mut cadence, 0);
        let mut dice = Dice(3);
        let cap = RETRY_MS_MAX.min(interval_s * 500);
        for failure in 0..40_u32 {
            cadence.on_result(Outcome::Failed, now, dice.roll());
            let (at, _, _) = next_send(&mut cadence, now);
            let bound = (1000_u64 << failure.min(20)).min(cap) + RETRY_MS_MIN;
            assert!(at - now >= RETRY_MS_MIN && at - now <= bound, "{interval_s} s, failure {failure}: {}", at - now);
            now = at;
        }
    }
}

#[test]
fn attempts_of_one_slot_are_one_beat_and_the_next_slot_is_a_new_one() {
    let mut cadence = Cadence::new(host(4), 60, 1, 0);
    let mut dice = Dice(4);
    let (mut now, _, fresh) = next_send(&mut cadence, 0);
    assert!(fresh);
    let mut fresh_beats = 0;
    while now < 600_000 {
        cadence.on_result(Outcome::Failed, now, dice.roll());
        let (at, _, fresh) = next_send(&mut cadence, now);
        fresh_beats += u32::from(fresh);
        now = at;
    }
    assert!((9..=12).contains(&fresh_beats), "ten minutes of failure: {fresh_beats} beats");
}

#[test]
fn a_stale_nonce_is_retried_at_once_but_never_for_ever() {
    let mut cadence = Cadence::new(host(5), 60, 1, 0);
    let (now, _, _) = next_send(&mut cadence, 0);
    for _ in 0..STALE_MAX {
        cadence.on_result(Outcome::Stale, now, 0xffff_ffff);
        assert_eq!(next_send(&mut cadence, now).0, now);
    }
    cadence.on_result(Outcome::Stale, now, 0xffff_ffff);
    assert!(next_send(&mut cadence, now).0 > now);
}

#[test]
fn a_thousand_stale_answers_in_a_minute_cost_few_requests() {
    let mut cadence = Cadence::new(host(5), 60, 1, 0);
    let mut dice = Dice(5);
    let (mut now, mut sent) = (0, 0);
    while now < 600_000 {
        (now, _, _) = next_send(&mut cadence, now);
        sent += 1;
        cadence.on_result(Outcome::Stale, now, dice.roll());
    }
    assert!(sent < 400, "{sent} requests in ten minutes");
}

#[test]
fn patience_is_kept_and_spread() {
    let mut dice = Dice(6);
    let mut waits = Vec::new();
    for n in 0..100 {
        let mut cadence = Cadence::new(host(n), 60, 1, 0);
        let (now, _, _) = next_send(&mut cadence, 0);
        cadence.on_result(Outcome::Busy { retry_after_s: Some(40) }, now, dice.roll());
        waits.push(next_send(&mut cadence, now).0 - now);
    }
    let (least, most) = (*waits.iter().min().unwrap(), *waits.iter().max().unwrap());
    assert!(least >= 40_000 && most <= 50_001 && most - least > 5_000, "{least} to {most}");
    let mut cadence = Cadence::new(host(1), 60, 1, 0);
    cadence.on_result(Outcome::Busy { retry_after_s: Some(u64::MAX) }, 0, u64::MAX);
    assert!(next_send(&mut cadence, 0).0 <= PATIENCE_MS_MAX * 5 / 4);
}

#[test]
fn a_refused_host_asks_quickly_at_first_then_every_few_minutes() {
    let mut cadence = Cadence::new(host(7), 60, 1, 0);
    let mut dice = Dice(7);
    let (mut now, _, _) = next_send(&mut cadence, 0);
    let started = now;
    let mut waits = Vec::new();
    for _ in 0..20 {
        cadence.on_result(Outcome::Refused, now, dice.roll());
        let (at, _, _) = next_send(&mut cadence, now);
        waits.push(at - now);
        now = at;
    }
    assert!(waits[0] <= 1_000 && waits[4] <= 16_000, "{waits:?}");
    assert!(waits[10..].iter().all(|wait| (150_000..=300_000).contains(wait)), "{waits:?}");
    assert!(now - started > 1_800_000);
}

#[test]
fn a_refusal_that_ends_is_noticed_by_the_next_attempt() {
    let mut cadence = Cadence::new(host(7), 60, 1, 0);
    let (now, _, _) = next_send(&mut cadence, 0);
    cadence.on_result(Outcome::Refused, now, 0);
    let (now, _, _) = next_send(&mut cadence, now);
    cadence.on_result(ACCEPTED, now, 0);
    assert!(next_send(&mut cadence, now).0 - now < I_MS);
}

#[test]
fn it_fails_over_in_seconds_sticks_and_asks_the_primary_again_ever_less_often() {
    let mut cadence = Cadence::new(host(8), 60, 2, 0);
    let mut dice = Dice(8);
    let mut now = 0;
    let mut probes = Vec::new();
    let mut last_fallback_ms = 0;
    while now < 12 * 3_600_000 {
        let (at, endpoint, fresh) = next_send(&mut cadence, now);
        now = at;
        if endpoint == 0 {
            probes.push(now);
            cadence.on_result(Outcome::Failed, now, dice.roll());
        } else {
            if !fresh {
                last_fallback_ms = last_fallback_ms.max(now - probes.last().unwrap());
            }
            cadence.on_result(ACCEPTED, now, dice.roll());
        }
    }
    assert!(last_fallback_ms <= 1_100, "falling back took {last_fallback_ms} ms");
    assert!((10..=22).contains(&probes.len()), "{} probes of the dead primary in 12 h", probes.len());
    // And back, once it answers.
    while next_send(&mut cadence, now).1 != 0 {
        (now, _, _) = next_send(&mut cadence, now);
        cadence.on_result(ACCEPTED, now, dice.roll());
    }
    cadence.on_result(ACCEPTED, now, dice.roll());
    for _ in 0..10 {
        let (at, endpoint, _) = next_send(&mut cadence, now);
        assert_eq!(endpoint, 0);
        now = at;
        cadence.on_result(ACCEPTED, now, dice.roll());
    }
}

#[test]
fn a_beat_lands_in_every_interval_and_grace_although_one_attempt_in_ten_times_out() {
    let mut dice = Dice(9);
    let mut longest = 0;
    for n in 0..50 {
        let mut cadence = Cadence::new(host(n), 60, 1, 0);
        let (mut now, mut landed) = (0, 0);
        while now < 48 * 3_600_000 {
            let (at, _, _) = next_send(&mut cadence, now);
            // A lost request costs its whole timeout.
            let lost = dice.roll().is_multiple_of(10);
            now = at + if lost { cadence.timeout_ms() } else { 50 };
            if !lost {
                longest = longest.max(now - landed);
                landed = now;
            }
            cadence.on_result(if lost { Outcome::Failed } else { ACCEPTED }, now, dice.roll());
        }
    }
    assert!(longest < 180_000, "longest silence: {longest} ms");
}

#[test]
fn the_primary_is_not_asked_while_the_host_is_suspended_and_one_beat_follows_at_once() {
    let mut cadence = Cadence::new(host(10), 60, 1, 0);
    let (now, _, _) = next_send(&mut cadence, 0);
    cadence.on_result(ACCEPTED, now, 1);
    let woken = now + 8 * 3_600_000;
    assert!(matches!(cadence.next(woken), Action::Send { fresh: true, .. }));
    cadence.on_result(ACCEPTED, woken, 1);
    assert!(matches!(cadence.next(woken), Action::Wait { .. }), "what was missed is not made up for");
}

#[test]
fn no_time_and_no_chance_makes_it_panic_or_stand_still() {
    let mut dice = Dice(11);
    for n in 0..2_000 {
        let start = [0, 1, u64::MAX / 2, u64::MAX - 1, u64::MAX][usize::try_from(n % 5).unwrap()];
        let mut cadence = Cadence::new(host(n), dice.roll() >> (dice.roll() % 64), 1 + usize::from(n % 2 == 0), start);
        let mut now = start;
        for _ in 0..20 {
            if let Action::Wait { until_ms } = cadence.next(now) {
                now = until_ms;
                continue;
            }
            let outcome = match dice.roll() % 5 {
                0 => Outcome::Accepted { interval_s: Some(dice.roll() >> 3), next_in_s: Some(dice.roll() >> 5) },
                1 => Outcome::Stale,
                2 => Outcome::Refused,
                3 => Outcome::Busy { retry_after_s: Some(dice.roll()) },
                _ => Outcome::Failed,
            };
            cadence.on_result(outcome, now, dice.roll());
        }
    }
}
