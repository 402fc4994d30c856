//! Sizes, rates, times and counts as people write them on a command line and in the configuration file.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::Deserializer;
use serde::de::Unexpected;
use serde::de::Visitor;

use bygone_core::store::TRANSFERS_MAX;

/// Reads a number of bytes: `123`, `64K`, `64KiB` (powers of 1,024) or `64KB` (powers of 1,000), likewise M, G and T.
pub fn parse_size(text: &str) -> std::result::Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let letter = unit.chars().next().map(|letter| letter.to_ascii_uppercase());
    let power = match letter {
        None | Some('B') => 0,
        Some('K') => 1,
        Some('M') => 2,
        Some('G') => 3,
        Some('T') => 4,
        _ => 5,
    };
    let base = match (power, unit.get(1..).unwrap_or_default()) {
        (0, "") => Some(1u64),
        (1..=4, "" | "iB" | "ib" | "i") => Some(1_024),
        (1..=4, "B" | "b") => Some(1_000),
        _ => None,
    };
    let bytes = base.zip(digits.parse::<u64>().ok());
    let bytes = bytes.and_then(|(base, count)| count.checked_mul(base.checked_pow(power)?));
    bytes.ok_or_else(|| format!("{text:?} is not a size: write 123, 64K, 1MiB or 2G"))
}

/// Bytes a second, or `None` for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(pub Option<u64>);

/// Reads a rate: `500k`, `2M`, `2MiB/s` or `none`.
pub fn parse_rate(text: &str) -> std::result::Result<Rate, String> {
    if text == "none" {
        return Ok(Rate(None));
    }
    let wrong =
        || format!("{text:?} is not a rate: write bytes a second as in 500k, 2M or 800KB/s, or none for no limit");
    match parse_size(text.strip_suffix("/s").unwrap_or(text)) {
        Ok(0) => Err("a transfer at 0 bytes a second would never end: write none for no limit".to_owned()),
        Ok(bytes) => Ok(Rate(Some(bytes))),
        Err(_) => Err(wrong()),
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Rate, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Rate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes a second, as in \"500k\" or \"2M\", or \"none\"")
            }

            fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> std::result::Result<Rate, E> {
                let rate = u64::try_from(bytes).ok().filter(|bytes| *bytes > 0);
                rate.map(|rate| Rate(Some(rate))).ok_or_else(|| E::invalid_value(Unexpected::Signed(bytes), &self))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<Rate, E> {
                parse_rate(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Text)
    }
}

/// Number of transfers at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "usize")]
pub struct Parallel(pub usize);

impl TryFrom<usize> for Parallel {
    type Error = String;

    fn try_from(count: usize) -> std::result::Result<Parallel, String> {
        if (1..=TRANSFERS_MAX).contains(&count) {
            return Ok(Parallel(count));
        }
        Err(format!("the number of transfers at a time must be 1 to {TRANSFERS_MAX}, not {count}"))
    }
}

/// How long an outage of the store may last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Patience(pub Duration);

impl TryFrom<String> for Patience {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Patience, String> {
        parse_patience(&text).map(Patience)
    }
}

/// Reads a number of transfers.
pub fn parse_parallel(text: &str) -> std::result::Result<Parallel, String> {
    let count = text.parse::<usize>().map_err(|_| format!("{text:?} is not a number from 1 to {TRANSFERS_MAX}"))?;
    Parallel::try_from(count)
}

/// Reads how long an outage may last: `90s`, `15m`, `2h` or `0`.
pub fn parse_patience(text: &str) -> std::result::Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, unit) = text.split_at(digits);
    let seconds = match unit {
        "" if digits == "0" => Some(0_u64),
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3_600),
        _ => None,
    };
    let time = seconds.zip(digits.parse::<u64>().ok()).and_then(|(unit, count)| unit.checked_mul(count));
    let time = time.filter(|seconds| *seconds <= 366 * 24 * 3_600).map(Duration::from_secs);
    time.ok_or_else(|| format!("{text:?} is not a time: write 90s, 15m, 2h or 0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        let good = [
            ("0", 0),
            ("123", 123),
            ("5B", 5),
            ("64K", 65_536),
            ("64k", 65_536),
            ("1MiB", 1 << 20),
            ("1 MiB", 1 << 20),
            ("2G", 2 << 30),
            ("3T", 3 << 40),
            ("500MB", 500_000_000),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, bytes) in good {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in
            ["", "K", "-1", "1.5G", "1P", "1KiBs", "1Bx", "18446744073709551616", "99999999999T", "1 2", "\u{e9}"]
        {
            assert!(parse_size(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_time_is_read_with_its_unit() {
        for (text, seconds) in [("0", 0), ("90s", 90), ("15m", 900), ("2h", 7_200)] {
            assert_eq!(parse_patience(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "15", "m", "-1s", "1d", "1.5h", "99999999999999999999s", "9999999h"] {
            assert!(parse_patience(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn rates_are_bytes_a_second() {
        let good =
            [("500k", Some(512_000)), ("2M", Some(2 << 20)), ("2MiB/s", Some(2 << 20)), ("1MB/s", Some(1_000_000))];
        for (text, rate) in good.into_iter().chain([("none", None), ("7", Some(7))]) {
            assert_eq!(parse_rate(text), Ok(Rate(rate)), "{text}");
        }
        for bad in ["", "0", "0k", "fast", "-1", "1/s/s", "1.5M"] {
            assert!(parse_rate(bad).is_err(), "{bad:?}");
        }
    }
}
