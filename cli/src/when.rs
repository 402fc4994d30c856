//! Points in time as people write them, in UTC.
//!
//! A text without its smaller units means the whole span: `2026-03-01` is that day, and "not later than 2026-03-01" means
//! not later than its last moment. So a person who knows the day finds the snapshot of that day.

use bygone_core::entry::Time;

use crate::time::civil;

const NANOS_LAST: u32 = 999_999_999;

/// Start of a day in seconds since 1970; `None` if the calendar has no such day.
fn day_start(year: i64, month: u8, day: u8) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || !(0..=9_999).contains(&year) {
        return None;
    }
    // As in `time`: years from March, eras of 400 years.
    let from_march = if month > 2 { i64::from(month) - 3 } else { i64::from(month) + 9 };
    let year_from_march = if month > 2 { year } else { year - 1 };
    let (era, year_of_era) = (year_from_march.div_euclid(400), year_from_march.rem_euclid(400));
    let day_of_year = (153 * from_march + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let secs = (era * 146_097 + day_of_era - 719_468) * 86_400;
    // February 30 would become a day of March.
    let back = civil(Time { secs, nanos: 0 });
    ((back.year, back.month, back.day) == (year, month, day)).then_some(secs)
}

/// The value of `text`, which must be exactly `count` digits.
fn digits(text: &str, count: usize) -> Option<u8> {
    (text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

fn date(text: &str) -> Option<i64> {
    let (year, rest) = text.split_once('-')?;
    let (month, day) = rest.split_once('-')?;
    if year.len() != 4 || !year.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    day_start(year.parse().ok()?, digits(month, 2)?, digits(day, 2)?)
}

/// The second of the day, and whether seconds were given.
fn clock(text: &str) -> Option<(i64, bool)> {
    // Times in file names are written without colons.
    let separator = if text.contains(':') { ':' } else { '-' };
    let (hour, rest) = text.split_once(separator)?;
    let (minute, second) = rest.split_once(separator).map_or((rest, None), |(minute, second)| (minute, Some(second)));
    let (hour, minute) = (digits(hour, 2)?, digits(minute, 2)?);
    let value = second.map_or(Some(0), |second| digits(second, 2))?;
    let fits = hour < 24 && minute < 60 && value < 60;
    fits.then_some((i64::from(hour) * 3_600 + i64::from(minute) * 60 + i64::from(value), second.is_some()))
}

/// Reads RFC 3339 (`2026-03-01T10:20:30Z`, also with a fraction or an offset) or `@SECONDS`.
pub fn parse_instant(text: &str) -> Result<Time, String> {
    let instant = match text.strip_prefix('@') {
        Some(secs) => secs.parse().ok().map(|secs| Time { secs, nanos: 0 }),
        None => rfc3339(text),
    };
    instant.ok_or_else(|| format!("{text:?} is not a time: write 2026-03-01T10:20:30Z or @SECONDS"))
}

fn rfc3339(text: &str) -> Option<Time> {
    let (day, rest) = text.split_once(['T', 't'])?;
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (clock_text, zone) = rest.split_at(zone_at);
    let (clock_text, fraction) = clock_text.split_once('.').unwrap_or((clock_text, "0"));
    let (second, has_seconds) = clock(clock_text)?;
    let ahead = match zone {
        "Z" | "z" => 0,
        zone => {
            let (sign, time) = zone.split_at(1);
            clock(time)?.0 * if sign == "+" { 1 } else { -1 }
        }
    };
    let plain = (1..=9).contains(&fraction.len()) && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let nanos = format!("{fraction:0<9}").parse().ok().filter(|_| plain && has_seconds)?;
    Some(Time { secs: date(day)? + second - ahead, nanos })
}

/// The last moment that `text` can mean: a date, a date with a clock time, or an age such as `3d` before `now`.
/// Also accepts `now`, `today`, `yesterday`, and the names of snapshots in a mount. `None` if `text` is none of these.
pub fn parse_moment(text: &str, now: Time) -> Option<Time> {
    word(text, now).or_else(|| age(text, now)).or_else(|| {
        let text = text.strip_suffix(['Z', 'z']).filter(|text| text.len() > 10).unwrap_or(text);
        let (day, rest) = match text.split_once(['T', 't', ' ']) {
            Some((day, rest)) => (day, Some(rest)),
            None => (text, None),
        };
        let start = date(day)?;
        let span = match rest.map(clock) {
            None => 86_400,
            Some(time) => {
                let (second, has_seconds) = time?;
                return Some(Time { secs: start + second + if has_seconds { 0 } else { 59 }, nanos: NANOS_LAST });
            }
        };
        Some(Time { secs: start + span - 1, nanos: NANOS_LAST })
    })
}

fn word(text: &str, now: Time) -> Option<Time> {
    let today = now.secs.div_euclid(86_400) * 86_400;
    match text {
        "now" => Some(now),
        "today" => Some(Time { secs: today + 86_399, nanos: NANOS_LAST }),
        "yesterday" => Some(Time { secs: today - 1, nanos: NANOS_LAST }),
        _ => None,
    }
}

fn age(text: &str, now: Time) -> Option<Time> {
    let unit = text.chars().next_back()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        'y' => 365 * 86_400,
        _ => return None,
    };
    let count = text.get(..text.len() - 1).filter(|count| count.bytes().all(|byte| byte.is_ascii_digit()))?;
    let secs = now.secs.checked_sub(count.parse::<i64>().ok()?.checked_mul(seconds)?)?;
    Some(Time { secs, nanos: now.nanos })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::utc;
    use proptest::prelude::*;

    const NOW: Time = Time { secs: 1_795_391_401, nanos: 5 };

    fn last(text: &str) -> Option<String> {
        parse_moment(text, NOW).map(utc)
    }

    #[test]
    fn a_missing_unit_means_its_whole_span() {
        assert_eq!(last("2026-03-01").as_deref(), Some("2026-03-01T23:59:59Z"));
        assert_eq!(last("2026-03-01T10:20").as_deref(), Some("2026-03-01T10:20:59Z"));
        assert_eq!(last("2026-03-01 10:20:30Z").as_deref(), Some("2026-03-01T10:20:30Z"));
        assert_eq!(last("2024-02-29T00:00Z").as_deref(), Some("2024-02-29T00:00:59Z"));
        assert_eq!(parse_moment("1970-01-01", NOW), Some(Time { secs: 86_399, nanos: NANOS_LAST }));
    }

    #[test]
    fn an_age_counts_back_from_now() {
        for (text, seconds) in [("0s", 0), ("90m", 5_400), ("2h", 7_200), ("3d", 259_200), ("1w", 604_800)] {
            assert_eq!(parse_moment(text, NOW), Some(Time { secs: NOW.secs - seconds, nanos: 5 }), "{text}");
        }
    }

    #[test]
    fn words_and_names_of_snapshots_are_times() {
        assert_eq!(last("yesterday").as_deref(), Some("2026-11-21T23:59:59Z"));
        assert_eq!(last("today").as_deref(), Some("2026-11-22T23:59:59Z"));
        assert_eq!(parse_moment("now", NOW), Some(NOW));
        assert_eq!(last("2026-03-01T10-20-30Z").as_deref(), Some("2026-03-01T10:20:30Z"));
    }

    #[test]
    fn text_that_is_no_time_is_none() {
        let bad = "2026-02-30|2026-13-01|2026-00-01|2026-1-1|26-01-01|2026-01-01T|2026-01-01T24:00|2026-01-01T1:00|d|3|\
                   3x|-3d|+3d|99999999999999999999d|2026-01-01T10|2026-01-01Z10|latest||\u{e9}|2026-01-01T10:20:30.5Z";
        for text in bad.split('|') {
            assert_eq!(parse_moment(text, NOW), None, "{text:?}");
        }
    }

    #[test]
    fn instants_are_read_exactly() {
        let good = [
            ("@0", 0, 0),
            ("@-5", -5, 0),
            ("1970-01-01T00:00:00Z", 0, 0),
            ("1970-01-01T01:00:00+01:00", 0, 0),
            ("1969-12-31T23:30:00.25-00:30", 0, 250_000_000),
            ("2026-11-22T23:50:01z", 1_795_391_401, 0),
        ];
        for (text, secs, nanos) in good {
            assert_eq!(parse_instant(text), Ok(Time { secs, nanos }), "{text}");
        }
        for bad in ["", "@", "@x", "2026-01-01", "2026-01-01T00:00:00", "2026-01-01T00:00Z", "1970-01-01T00:00:00.Z"] {
            assert!(parse_instant(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn every_time_that_is_shown_is_read_back(secs in -62_167_219_200i64..253_402_300_800) {
            prop_assert_eq!(parse_instant(&utc(Time { secs, nanos: 0 })), Ok(Time { secs, nanos: 0 }));
        }
    }
}
