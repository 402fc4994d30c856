//! The counters that a running command shares with whoever shows its progress, and the flag by which it is stopped.
//!
//! Everything is an atomic that many threads may touch without a lock. The counts are for people: nothing is decided
//! by them, so relaxed order is enough. A command that is told to stop ends at its next [`Watch::check`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::Error;
use crate::error::Result;

/// Progress and cancellation of one command.
#[derive(Debug, Default)]
pub struct Watch {
    cancelled: AtomicBool,
    /// Entries finished, whatever their kind.
    pub entries: AtomicU64,
    /// Files whose content was read, as they were new or had changed.
    pub files_new: AtomicU64,
    /// Bytes of source or target processed, including those that did not have to be read.
    pub bytes: AtomicU64,
    /// What `bytes` will be at the end, as far as is known by now; 0 while unknown.
    pub bytes_total: AtomicU64,
    /// Bytes of content that the repository did not have yet, before compression.
    pub bytes_new: AtomicU64,
    /// Bytes put into the store.
    pub bytes_stored: AtomicU64,
    /// Objects put, or checked.
    pub objects: AtomicU64,
}

impl Watch {
    /// A command that has just begun.
    pub fn new() -> Watch {
        Watch::default()
    }

    /// Asks the command to stop; safe in a signal handler.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// True once the command was asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Fails once the command was asked to stop.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_lets_work_go_on_until_it_is_cancelled_and_never_after() {
        let watch = Watch::new();
        assert!(watch.check().is_ok(), "nobody has cancelled yet");
        std::thread::scope(|scope| {
            scope.spawn(|| watch.cancel());
        });
        assert!(watch.is_cancelled());
        assert!(matches!(watch.check(), Err(Error::Cancelled)), "cancelled by another thread");
        watch.cancel();
        assert!(watch.is_cancelled(), "cancelling twice is cancelling");
    }
}
