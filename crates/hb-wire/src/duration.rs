//! Durations as people write them: `90s`, `1h30m`, `7d`.
//!
//! A bare number is refused: nobody remembers whether `60` was seconds or minutes, and hb-api meant milliseconds.

use crate::name::echo;

/// Longest duration: ten years of 365.25 days, in seconds.
pub const SECONDS_MAX: u64 = 315_576_000;

/// Units, the largest first, and their seconds.
const UNITS: [(char, u64); 5] = [('w', 604_800), ('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// Why a duration was refused, and how to write it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseDurationError {
    /// Nothing was given.
    #[error("the duration is empty: write for example 90s, 2m or 1h30m")]
    Empty,
    /// A number without a unit.
    #[error("{0:?} has no unit: write {0}s for seconds, {0}m for minutes, {0}h for hours")]
    NoUnit(String),
    /// Something that is neither a number nor a unit.
    #[error("\"{echo}\" is not a duration: {found:?} is not a unit (w, d, h, m, s), as in 90s, 2m or 1h30m")]
    Unit {
        /// The beginning of the input, escaped.
        echo: String,
        /// What stood in place of a unit.
        found: char,
    },
    /// A unit without a number.
    #[error("\"{echo}\" is not a duration: no number before {unit:?}, write whole numbers as in 90s, 2m or 1h30m")]
    NoNumber {
        /// The beginning of the input, escaped.
        echo: String,
        /// The unit that stands alone.
        unit: char,
    },
    /// A unit that repeats, or follows a smaller one.
    #[error("\"{echo}\" is not a duration: {unit:?} must stand once, and before any smaller unit, as in 1h30m")]
    Order {
        /// The beginning of the input, escaped.
        echo: String,
        /// The unit that is out of place.
        unit: char,
    },
    /// Longer than [`SECONDS_MAX`].
    #[error("\"{echo}\" is too long: at most 10 years (3652d)")]
    TooLong {
        /// The beginning of the input, escaped.
        echo: String,
    },
}

/// Reads `90s`, `2m`, `1h30m`, `7d`, `1w` as seconds; at most ten years.
pub fn parse_seconds(text: &str) -> Result<u64, ParseDurationError> {
    if text.is_empty() {
        return Err(ParseDurationError::Empty);
    }
    let too_long = || ParseDurationError::TooLong { echo: echo(text) };
    let mut total = 0_u64;
    let mut number: Option<u64> = None;
    let mut units_left = UNITS.iter();
    for c in text.chars() {
        if let Some(digit) = c.to_digit(10) {
            let grown = number.unwrap_or(0).checked_mul(10).and_then(|n| n.checked_add(u64::from(digit)));
            number = Some(grown.ok_or_else(too_long)?);
            continue;
        }
        if !UNITS.iter().any(|(unit, _)| *unit == c) {
            return Err(ParseDurationError::Unit { echo: echo(text), found: c });
        }
        let count = number.take().ok_or_else(|| ParseDurationError::NoNumber { echo: echo(text), unit: c })?;
        // Units are used up from the largest down, which refuses repetition and disorder at once.
        let (_, seconds) = units_left
            .find(|(unit, _)| *unit == c)
            .ok_or_else(|| ParseDurationError::Order { echo: echo(text), unit: c })?;
        total = count.checked_mul(*seconds).and_then(|s| total.checked_add(s)).ok_or_else(too_long)?;
    }
    if let Some(bare) = number {
        return Err(ParseDurationError::NoUnit(if total == 0 { echo(text) } else { bare.to_string() }));
    }
    if total > SECONDS_MAX { Err(too_long()) } else { Ok(total) }
}

/// Writes seconds as [`parse_seconds`] reads them: `1h30m`, `0s`. Days are the largest unit shown.
#[must_use]
pub fn format_seconds(seconds: u64) -> String {
    if seconds == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    let mut rest = seconds;
    for (unit, size) in UNITS.iter().skip(1) {
        let count = rest / size;
        rest %= size;
        if count > 0 {
            text.push_str(&count.to_string());
            text.push(*unit);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("90s", 90),
            ("2m", 120),
            ("1h30m", 5_400),
            ("7d", 604_800),
            ("1w", 604_800),
            ("1w2d3h4m5s", 788_645),
            ("0s", 0),
            ("007s", 7),
            ("315576000s", SECONDS_MAX),
        ] {
            assert_eq!(parse_seconds(text), Ok(seconds), "{text}");
        }
    }

    #[test]
    fn a_refused_duration_says_how_to_write_it() {
        for (text, says) in [
            ("", "the duration is empty: write for example 90s, 2m or 1h30m"),
            ("60", "\"60\" has no unit: write 60s for seconds, 60m for minutes, 60h for hours"),
            ("1h30", "\"30\" has no unit: write 30s for seconds, 30m for minutes, 30h for hours"),
            ("h", "\"h\" is not a duration: no number before 'h', write whole numbers as in 90s, 2m or 1h30m"),
            ("500ms", "\"500ms\" is not a duration: no number before 's', write whole numbers as in 90s, 2m or 1h30m"),
            ("1.5h", "\"1.5h\" is not a duration: '.' is not a unit (w, d, h, m, s), as in 90s, 2m or 1h30m"),
            ("-5s", "\"-5s\" is not a duration: '-' is not a unit (w, d, h, m, s), as in 90s, 2m or 1h30m"),
            ("1H", "\"1H\" is not a duration: 'H' is not a unit (w, d, h, m, s), as in 90s, 2m or 1h30m"),
            ("30m1h", "\"30m1h\" is not a duration: 'h' must stand once, and before any smaller unit, as in 1h30m"),
            ("1m1m", "\"1m1m\" is not a duration: 'm' must stand once, and before any smaller unit, as in 1h30m"),
            ("315576001s", "\"315576001s\" is too long: at most 10 years (3652d)"),
            ("99999999999999999999s", "\"99999999999999999999s\" is too long: at most 10 years (3652d)"),
            ("18446744073709551615w", "\"18446744073709551615w\" is too long: at most 10 years (3652d)"),
        ] {
            assert_eq!(parse_seconds(text).unwrap_err().to_string(), says, "{text}");
        }
    }

    #[test]
    fn seconds_are_shown_in_the_units_people_think_in() {
        for (seconds, text) in
            [(0, "0s"), (5, "5s"), (60, "1m"), (90, "1m30s"), (5_400, "1h30m"), (604_800, "7d"), (90_061, "1d1h1m1s")]
        {
            assert_eq!(format_seconds(seconds), text);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn what_is_written_is_read_back(seconds in 0..=SECONDS_MAX) {
            prop_assert_eq!(parse_seconds(&format_seconds(seconds)), Ok(seconds));
        }

        #[test]
        fn no_text_makes_the_parser_panic_or_exceed_its_limit(text in "[0-9wdhms.\\-+ é]{0,40}|.{0,40}") {
            if let Ok(seconds) = parse_seconds(&text) {
                prop_assert!(seconds <= SECONDS_MAX);
            }
        }
    }
}
