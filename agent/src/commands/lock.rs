//! The lock on this machine's catalog: one process writes, others wait or end.

use std::thread::sleep;
use std::time::Duration;

use bygone_cli::exit::Result;
use bygone_core::error::Error;
use bygone_core::repo::LockedRepository;
use bygone_core::repo::Repository;

use crate::commands::Context;

/// How often to try the lock and check for cancellation.
const PAUSE: Duration = Duration::from_millis(100);

impl Context {
    /// Takes the lock, and waits for it as long as --wait-lock allows.
    pub(super) fn lock(&self, repository: Repository) -> Result<LockedRepository> {
        Ok(repository.lock_waiting(self.patience())?)
    }

    /// As [`Context::lock`], but for a command that writes to the catalog and not to the store.
    pub(super) fn lock_catalog(&self, repository: Repository) -> Result<LockedRepository> {
        Ok(repository.lock_catalog_waiting(self.patience())?)
    }

    /// Takes the lock and discards the catalog.
    pub(super) fn lock_anew(&self, repository: Repository) -> Result<LockedRepository> {
        Ok(repository.lock_anew(self.patience())?)
    }

    /// What to do each time another process holds the lock.
    fn patience(&self) -> impl FnMut(Error) -> bygone_core::error::Result<()> {
        let mut left = self.wait_lock;
        let mut has_warned = false;
        move |error| {
            self.watch.check()?;
            if left.is_zero() {
                return Err(error);
            }
            if !has_warned {
                self.warn("another bygone is using this machine's catalog: waiting for it to end");
                has_warned = true;
            }
            let pause = PAUSE.min(left);
            left -= pause;
            sleep(pause);
            Ok(())
        }
    }
}

/// Reads `90`, `90s`, `10m`, `2h` or `1d`.
pub(super) fn parse_wait(text: &str) -> std::result::Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..) {
        Some("" | "s") => Some(1),
        Some("m") => Some(60),
        Some("h") => Some(3_600),
        Some("d") => Some(86_400),
        _ => None,
    };
    let secs = unit.zip(digits.parse::<u64>().ok()).and_then(|(unit, count)| count.checked_mul(unit));
    let wait = secs.filter(|_| !digits.starts_with('+')).map(Duration::from_secs);
    wait.ok_or_else(|| format!("{text:?} is not a duration: write 90s, 10m, 2h or 1d"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_units() {
        let good = [("0", 0), ("90", 90), ("90s", 90), ("10m", 600), ("2h", 7_200), ("1d", 86_400)];
        for (text, secs) in good {
            assert_eq!(parse_wait(text), Ok(Duration::from_secs(secs)), "{text}");
        }
        for bad in ["", "s", "-1", "+1", "1.5h", "1w", "1 h", "1hh", "99999999999999999999", "999999999999999999d"] {
            assert!(parse_wait(bad).is_err(), "{bad:?}");
        }
    }
}
