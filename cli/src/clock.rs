//! The clock of this machine: the one place where the date is read.
//!
//! Other modules get the date as an argument, or are on the list of callers in `tests/tidy.rs`.

use std::time::SystemTime;

use bygone_core::entry::Time;

/// Now.
pub fn now() -> Time {
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => Time { secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos() },
        // A clock that shows a time before 1970 was never set.
        Err(_) => Time::default(),
    }
}
