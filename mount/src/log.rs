//! Where the mount says what went wrong while nobody looks at it: standard error, or a file.
//!
//! One damaged volume can fail ten thousand reads. Each cause is written once; the number of causes remembered is
//! bounded, and when it is reached the log says that it stops.

use std::collections::HashSet;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;

use bygone_agent::output::one_line;
use bygone_agent::settings::now;
use bygone_agent::time::utc;

use crate::lock::lock;

/// Most causes that are told apart.
const CAUSES_MAX: usize = 4_096;

/// The log of one mount.
pub struct Log {
    file: Option<File>,
    causes: Mutex<HashSet<String>>,
}

impl Log {
    /// Writes to standard error.
    pub fn to_stderr() -> Log {
        Log { file: None, causes: Mutex::new(HashSet::new()) }
    }

    /// Appends to the file `path`, which only its owner may read: it names files of the backup.
    pub fn to_file(path: &Path) -> io::Result<Log> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        Ok(Log { file: Some(file), ..Log::to_stderr() })
    }

    /// Writes `text` as one line with the time.
    pub fn line(&self, text: &str) {
        let line = format!("{} bygone-mount: {}\n", utc(now()), one_line(text));
        // There is nobody left to tell that the log cannot be written.
        let _ = match &self.file {
            Some(file) => (&*file).write_all(line.as_bytes()),
            None => io::stderr().write_all(line.as_bytes()),
        };
    }

    /// Writes what `text` gives unless this `cause` was written before.
    pub fn once(&self, cause: &str, text: impl FnOnce() -> String) {
        let mut causes = lock(&self.causes);
        if causes.len() >= CAUSES_MAX || !causes.insert(cause.to_owned()) {
            return;
        }
        let full = causes.len() == CAUSES_MAX;
        drop(causes);
        self.line(&text());
        if full {
            self.line("too many different errors: no further one is written until the next mount");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_written_once_and_causes_are_bounded() {
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
}
