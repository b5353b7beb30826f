//! Times and spans as people read them. Programs get RFC 3339 in UTC from `--json` instead.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A span in its two largest units: `45s`, `4m 10s`, `3h 12m`, `12d 4h`.
pub fn span(seconds: i64) -> String {
    const UNITS: [(i64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let seconds = seconds.max(0);
    let first = UNITS.iter().position(|&(size, _)| seconds >= size).unwrap_or(UNITS.len() - 1);
    let (size, unit) = UNITS[first];
    let whole = format!("{}{unit}", seconds / size);
    match UNITS.get(first + 1).map(|&(next, unit)| (seconds % size / next, unit)) {
        Some((rest, unit)) if rest > 0 => format!("{whole} {rest}{unit}"),
        _ => whole,
    }
}

/// How far a clock is from the server's: `730 days behind the server's`, `0.3 s ahead of the server's`.
pub fn skew(seconds: f64) -> String {
    let direction = if seconds > 0.0 { "ahead of" } else { "behind" };
    let seconds = seconds.abs();
    let whole = |size: f64| (seconds / size).floor();
    let span = match seconds {
        ..120.0 => format!("{} s", format!("{seconds:.1}").trim_end_matches(".0")),
        ..7_200.0 => format!("{:.0} min", whole(60.0)),
        ..172_800.0 => format!("{:.0} h", whole(3_600.0)),
        _ => format!("{:.0} days", whole(86_400.0)),
    };
    format!("{span} {direction} the server's")
}

/// The span from `from` to `to`, in seconds; negative when `to` came first.
pub fn seconds_between(from: Timestamp, to: Timestamp) -> i64 {
    to.as_second() - from.as_second()
}

/// How long ago `at` was: `4m 10s ago`.
pub fn ago(now: Timestamp, at: Timestamp) -> String {
    match seconds_between(at, now) {
        ..=0 => "now".to_owned(),
        seconds => format!("{} ago", span(seconds)),
    }
}

/// A moment in full: `2026-11-23 03:12:05 CET`.
pub fn moment(zone: &TimeZone, at: Timestamp) -> String {
    at.to_zoned_datetime(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

/// A moment seen from `now`: without the date on the same day, `03:12:05 CET`.
pub fn near_moment(zone: &TimeZone, now: Timestamp, at: Timestamp) -> String {
    if day(zone, now) == day(zone, at) {
        at.to_zoned_datetime(zone.clone()).strftime("%H:%M:%S %Z").to_string()
    } else {
        moment(zone, at)
    }
}

/// The day of a moment as a heading: `Mon 2026-11-23`.
pub fn day(zone: &TimeZone, at: Timestamp) -> String {
    at.to_zoned_datetime(zone.clone()).strftime("%a %Y-%m-%d").to_string()
}

/// The time of day under such a heading: `03:12:05`.
pub fn time_of_day(zone: &TimeZone, at: Timestamp) -> String {
    at.to_zoned_datetime(zone.clone()).strftime("%H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_shows_its_two_largest_units() {
        let check = |seconds, expected: &str| assert_eq!(span(seconds), expected);
        check(-5, "0s");
        check(0, "0s");
        check(59, "59s");
        check(60, "1m");
        check(250, "4m 10s");
        check(3_600, "1h");
        check(3_605, "1h");
        check(11_520, "3h 12m");
        check(1_051_200, "12d 4h");
    }

    #[test]
    fn a_skew_is_said_in_the_unit_that_fits_with_its_direction() {
        let check = |seconds, expected: &str| assert_eq!(skew(seconds), expected);
        check(-7.0, "7 s behind the server's");
        check(0.25, "0.2 s ahead of the server's");
        check(600.0, "10 min ahead of the server's");
        check(-86_400.0, "24 h behind the server's");
        check(-63_072_000.0, "730 days behind the server's");
    }

    #[test]
    fn a_moment_shows_the_local_time_and_its_zone() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let at: Timestamp = "2026-11-23T02:12:05Z".parse().unwrap();
        let check = |now: &str, expected: &str| assert_eq!(near_moment(&zone, now.parse().unwrap(), at), expected);
        assert_eq!(moment(&zone, at), "2026-11-23 03:12:05 CET");
        check("2026-11-23T22:00:00Z", "03:12:05 CET");
        check("2026-11-23T23:00:00Z", "2026-11-23 03:12:05 CET");
        assert_eq!(day(&zone, at), "Mon 2026-11-23");
        assert_eq!(time_of_day(&zone, at), "03:12:05");
    }

    #[test]
    fn what_lies_ahead_by_a_skewed_clock_counts_as_now() {
        let at: Timestamp = "2026-11-23T02:12:05Z".parse().unwrap();
        assert_eq!(ago(at, at), "now");
        assert_eq!(ago("2026-11-23T02:12:00Z".parse().unwrap(), at), "now");
        assert_eq!(ago("2026-11-23T02:16:15Z".parse().unwrap(), at), "4m 10s ago");
    }
}
