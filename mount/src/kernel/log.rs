//! The log of a mount: errors, written to standard error or to a file.
//!
//! One damaged volume can fail ten thousand reads, so each cause is written once. The number of remembered causes is
//! bounded; when the bound is reached, the log says that it stops. An outage of the store fails all reads that need it:
//! the log has one line when it begins and one when it ends.

use std::collections::HashSet;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use bygone_cli::clock::now;
use bygone_cli::terminal::output::one_line;
use bygone_cli::time::utc;
use bygone_core::lock::lock;
use bygone_core::watch::News;

/// The most causes that are told apart.
const CAUSES_MAX: usize = 4_096;

/// The log of one mount.
pub struct Log {
    file: Option<File>,
    causes: Mutex<HashSet<String>>,
    /// The bytes that the store had delivered when an outage was last noticed, or [`IS_THERE`].
    away_since_bytes: AtomicU64,
    back_at: Mutex<Option<Instant>>,
}

/// How long after an outage reads that failed in it may fail again without a new request to the store.
const AFTERMATH: Duration = Duration::from_secs(15);

/// There is no outage.
const IS_THERE: u64 = u64::MAX;

impl Log {
    /// Writes to standard error.
    pub fn to_stderr() -> Log {
        let (causes, back_at) = Default::default();
        Log { file: None, causes, away_since_bytes: AtomicU64::new(IS_THERE), back_at }
    }

    /// Appends to the file `path`. Only its owner may read it, because it names files of the backup.
    pub fn to_file(path: &Path) -> io::Result<Log> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        Ok(Log { file: Some(file), ..Log::to_stderr() })
    }

    /// Writes `text` as one line with the time.
    pub fn line(&self, text: &str) {
        let line = format!("{} bygone-mount: {}\n", utc(now()), one_line(text));
        // If the log cannot be written, there is nowhere to report it.
        let _ = match &self.file {
            Some(file) => (&*file).write_all(line.as_bytes()),
            None => io::stderr().write_all(line.as_bytes()),
        };
    }

    /// Writes `text`, unless this `cause` was written before.
    pub fn once(&self, cause: &str, text: impl FnOnce() -> String) {
        let mut causes = lock(&self.causes);
        if causes.len() >= CAUSES_MAX || !causes.insert(cause.to_owned()) {
            return;
        }
        let full = causes.len() == CAUSES_MAX;
        drop(causes);
        self.line(&text());
        if full {
            self.line("too many different errors: no new ones are logged until the next mount");
        }
    }

    /// Notes that a read failed in an outage, when the store had delivered `bytes`. Writes `text` if that is news.
    pub fn store_fails(&self, bytes: u64, now: Instant, text: impl FnOnce() -> String) {
        if !lock(&self.back_at).is_some_and(|back_at| now.duration_since(back_at) < AFTERMATH) {
            self.store_is_away(bytes, text);
        }
    }

    /// Notes that the store, which has delivered `bytes` so far, does not answer. Writes `text` if that is news.
    pub fn store_is_away(&self, bytes: u64, text: impl FnOnce() -> String) {
        let later = |before: u64| Some(if before == IS_THERE { bytes } else { before.max(bytes) });
        let before = self.away_since_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
        if before == Ok(IS_THERE) {
            self.line(&text());
        }
    }

    /// Notes that the store has delivered `bytes` so far. If it had delivered less when an outage was noticed, that is
    /// over.
    pub fn store_has_given(&self, bytes: u64, now: impl FnOnce() -> Instant) {
        let before = self.away_since_bytes.load(Ordering::Relaxed);
        if before < bytes {
            self.store_is_back(now());
        }
    }

    /// Notes that the store answers, and writes a line if that ends an outage.
    pub fn store_is_back(&self, now: Instant) {
        if self.away_since_bytes.swap(IS_THERE, Ordering::Relaxed) != IS_THERE {
            *lock(&self.back_at) = Some(now);
            self.line(&News::Over.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_logged_once_and_causes_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = Log::to_file(&path).unwrap();
        for number in 0..2 * CAUSES_MAX {
            for _ in 0..2 {
                log.once(&number.to_string(), || format!("cause {number}"));
            }
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), CAUSES_MAX + 1);
        assert_eq!(text.lines().filter(|line| line.ends_with("cause 7")).count(), 1);
        assert!(text.ends_with("until the next mount\n"));
    }

    #[test]
    fn an_outage_and_its_end_are_two_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = Log::to_file(&path).unwrap();
        let mut now = Instant::now();
        log.store_has_given(7, Instant::now);
        log.store_is_back(now);
        for round in ["first", "second"] {
            for bytes in [10, 10, 20, 15] {
                log.store_fails(bytes, now, || format!("{round} outage"));
                log.store_has_given(10, || now);
            }
            (19..23).for_each(|bytes| log.store_has_given(bytes, || now));
            log.store_fails(22, now + AFTERMATH / 2, || "an echo".to_owned());
            now += AFTERMATH;
        }
        log.store_is_away(30, || "third outage".to_owned());
        (0..3).for_each(|_| log.store_is_back(now));
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().map(|line| line.rsplit(": ").next().unwrap()).collect();
        let back = "the store answers again";
        assert_eq!(lines, ["first outage", back, "second outage", back, "third outage", back]);
    }
}
