//! Points in time as people read them, in UTC: a name or a line means the same on every machine.
//!
//! The conversion is written here because a calendar library is far more than the one function needed. Every
//! representable time has a text, even years before 0 and after 9999, because a repository may hold any time.

use bygone_core::entry::Time;

/// A point in time in the Gregorian calendar, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Civil {
    /// Astronomical year: 0 is 1 BC.
    pub year: i64,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59: there are no leap seconds.
    pub second: u8,
}

/// Splits `time` into its calendar fields.
pub fn civil(time: Time) -> Civil {
    // Years are counted from March, so the leap day is the last day of its year, and in eras of 400 years, each of
    // which has 146,097 days.
    let days = time.secs.div_euclid(86_400) + 719_468;
    let second_of_day = time.secs.rem_euclid(86_400);
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let small = |value: i64| u8::try_from(value).unwrap_or(u8::MAX); // each is below 60 by construction
    Civil {
        year,
        month: small(month),
        day: small(day),
        hour: small(second_of_day / 3_600),
        minute: small(second_of_day / 60 % 60),
        second: small(second_of_day % 60),
    }
}

/// `time` in RFC 3339 format, in whole seconds: `2026-11-22T23:50:01Z`.
pub fn utc(time: Time) -> String {
    let c = civil(time);
    format!("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", c.year, c.month, c.day, c.hour, c.minute, c.second)
}

/// `time` in RFC 3339 format, to the nanosecond.
pub fn utc_exact(time: Time) -> String {
    utc(time).replace('Z', &format!(".{:09}Z", time.nanos))
}

/// `time` as a file name that needs no quoting anywhere: `2026-11-22T23-50-01Z`. Names sort in the order of time.
pub fn utc_name(time: Time) -> String {
    utc(time).replace(':', "-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(secs: i64) -> String {
        utc(Time { secs, nanos: 0 })
    }

    #[test]
    fn known_moments_have_known_texts() {
        // Each checked with `date -u -d @N`.
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(-1), "1969-12-31T23:59:59Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_795_391_401), "2026-11-22T23:50:01Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(at(-62_135_596_800), "0001-01-01T00:00:00Z");
        assert_eq!(at(253_402_300_800), "10000-01-01T00:00:00Z");
        assert_eq!(utc_name(Time { secs: 1_795_391_401, nanos: 9 }), "2026-11-22T23-50-01Z");
    }

    #[test]
    fn the_ends_of_time_have_a_text() {
        assert_eq!(at(i64::MAX), "292277026596-12-04T15:30:07Z");
        assert_eq!(at(i64::MIN), "-292277022657-01-27T08:29:52Z");
    }

    proptest! {
        #[test]
        fn a_day_later_is_the_next_date(secs in -1i64 << 40..1 << 40) {
            let (today, tomorrow) = (civil(Time { secs, nanos: 0 }), civil(Time { secs: secs + 86_400, nanos: 0 }));
            let date = |c: Civil| (c.year, c.month, c.day);
            prop_assert!(date(today) < date(tomorrow), "dates advance with time");
            prop_assert_eq!((today.hour, today.minute, today.second), (tomorrow.hour, tomorrow.minute, tomorrow.second));
            let next_day = tomorrow.day == today.day + 1 || tomorrow.day == 1 && (28..=31).contains(&today.day);
            prop_assert!(next_day, "the day of the month advances by one or starts again");
        }
    }
}
