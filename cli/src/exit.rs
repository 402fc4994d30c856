//! How a command ends. Exit codes are a contract with scripts; exhaustive matches here define all of them.
//!
//! An [`Error`] says what went wrong in the repository. A [`Failure`] adds what only the program around it can meet: an
//! invalid command line, or a file named there that cannot be read. A problem with a single file of the user is neither:
//! the backup goes on and ends with [`Exit::Unreadable`].

use std::fmt;
use std::io;

use bygone_core::diagnosis::Diagnosis;
use bygone_core::error::Error;

/// The end of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything was done.
    Complete,
    /// It failed.
    Failed,
    /// The command line is invalid.
    Usage,
    /// A snapshot was made, but some sources could not be read; or everything of a snapshot was given but what its
    /// backup could not read.
    Unreadable,
    /// There is no repository at that place.
    NoRepository,
    /// Another process holds the lock.
    Locked,
    /// The passphrase opens no key slot.
    WrongKey,
    /// The store disagrees with the catalog.
    Disagree,
    /// Damaged data was found.
    Damaged,
    /// The command was interrupted.
    Interrupted,
}

impl Exit {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Exit::Complete => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Unreadable => 3,
            Exit::NoRepository => 10,
            Exit::Locked => 11,
            Exit::WrongKey => 12,
            Exit::Disagree => 13,
            Exit::Damaged => 14,
            Exit::Interrupted => 130,
        }
    }

    /// The word for it in JSON, as stable as the code.
    pub fn word(self) -> &'static str {
        match self {
            Exit::Complete => "complete",
            Exit::Failed => "failed",
            Exit::Usage => "usage",
            Exit::Unreadable => "unreadable",
            Exit::NoRepository => "no-repository",
            Exit::Locked => "locked",
            Exit::WrongKey => "wrong-key",
            Exit::Disagree => "disagree",
            Exit::Damaged => "damaged",
            Exit::Interrupted => "interrupted",
        }
    }

    /// The exit for an error of the repository.
    pub fn of(error: &Error) -> Exit {
        match error {
            Error::NoRepository { .. } => Exit::NoRepository,
            Error::WrongKey { .. } => Exit::WrongKey,
            Error::Locked { .. } => Exit::Locked,
            Error::Disagree { diagnosis, .. } => Exit::of_diagnosis(*diagnosis),
            Error::Corrupt { .. } => Exit::Damaged,
            Error::Invalid { .. } => Exit::Usage,
            Error::Cancelled => Exit::Interrupted,
            // An object that the catalog relies on and the store does not have.
            Error::Store { .. } => error.diagnosis().map_or(Exit::Failed, Exit::of_diagnosis),
            Error::Exists { .. }
            | Error::NotFound { .. }
            | Error::Catalog { .. }
            | Error::Local { .. }
            | Error::TooNew { .. }
            | Error::Newer { .. }
            | Error::Overtaken { .. }
            | Error::Limit { .. }
            | Error::Defect { .. } => Exit::Failed,
        }
    }

    /// The exit for a finding: wrong bytes are damage, unexpected or missing objects are disagreement.
    pub fn of_diagnosis(diagnosis: Diagnosis) -> Exit {
        match diagnosis {
            Diagnosis::RemoteMissing
            | Diagnosis::RemoteTruncated
            | Diagnosis::RemoteUnknownObject
            | Diagnosis::RemoteRolledBack
            | Diagnosis::RemoteForked
            | Diagnosis::RemoteKeyBack
            | Diagnosis::WrongRepo
            | Diagnosis::LocalStale => Exit::Disagree,
            Diagnosis::RemoteCorrupt | Diagnosis::RemoteSwapped | Diagnosis::LocalCorrupt => Exit::Damaged,
            Diagnosis::SourceUnreadable | Diagnosis::SourceChanged => Exit::Unreadable,
            Diagnosis::WrongKey => Exit::WrongKey,
            Diagnosis::Locked => Exit::Locked,
            Diagnosis::Transient | Diagnosis::NoSpace | Diagnosis::SourceEmpty => Exit::Failed,
        }
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The repository: its store, its catalog, its keys.
    #[error(transparent)]
    Repository(#[from] Error),
    /// The command line is invalid.
    #[error("{0}")]
    Usage(String),
    /// A part of this machine that the command needs: a file named on the command line, the terminal, a signal.
    #[error("cannot {doing} {what}: {source}")]
    Machine {
        /// What was tried.
        doing: &'static str,
        /// The object of the attempt, printable.
        what: String,
        /// The cause.
        source: io::Error,
    },
    /// The mount point, the kernel or this machine does not allow it.
    #[error("{0}")]
    Refused(String),
}

impl Failure {
    /// For `map_err`: `doing` was tried with `what`.
    pub fn machine<E: Into<io::Error>>(doing: &'static str, what: impl fmt::Display) -> impl FnOnce(E) -> Failure {
        move |source| Failure::Machine { doing, what: what.to_string(), source: source.into() }
    }

    /// The diagnosis, if there is one.
    pub fn diagnosis(&self) -> Option<Diagnosis> {
        match self {
            Failure::Repository(error) => error.diagnosis(),
            Failure::Machine { source, .. } if source.kind() == io::ErrorKind::StorageFull => Some(Diagnosis::NoSpace),
            Failure::Usage(_) | Failure::Machine { .. } | Failure::Refused(_) => None,
        }
    }

    /// How the command ends.
    pub fn exit(&self) -> Exit {
        match self {
            Failure::Repository(error) => Exit::of(error),
            Failure::Usage(_) => Exit::Usage,
            Failure::Machine { .. } | Failure::Refused(_) => Exit::Failed,
        }
    }
}

/// The result of everything in the command lines that can fail.
pub type Result<T> = std::result::Result<T, Failure>;

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [(Exit, u8); 10] = [
        (Exit::Complete, 0),
        (Exit::Failed, 1),
        (Exit::Usage, 2),
        (Exit::Unreadable, 3),
        (Exit::NoRepository, 10),
        (Exit::Locked, 11),
        (Exit::WrongKey, 12),
        (Exit::Disagree, 13),
        (Exit::Damaged, 14),
        (Exit::Interrupted, 130),
    ];

    #[test]
    fn codes_are_those_that_scripts_rely_on_and_words_are_distinct() {
        for (exit, code) in ALL {
            assert_eq!(exit.code(), code, "{exit:?}");
        }
        let mut words: Vec<_> = ALL.iter().map(|(exit, _)| exit.word()).collect();
        words.sort();
        words.dedup();
        assert_eq!(words.len(), ALL.len());
    }

    #[test]
    fn every_kind_of_error_has_its_exit() {
        let store = || "/r".to_owned();
        let io = || io::Error::from(io::ErrorKind::StorageFull);
        let disagree = |diagnosis| Error::disagree(diagnosis, "data/x", "detail");
        let cases = [
            (Error::NoRepository { store: store() }, Exit::NoRepository),
            (Error::Exists { what: store(), hint: "" }, Exit::Failed),
            (Error::NotFound { what: store(), hint: "" }, Exit::Failed),
            (Error::WrongKey { store: store(), slots: 1 }, Exit::WrongKey),
            (Error::Locked { path: store() }, Exit::Locked),
            (disagree(Diagnosis::RemoteMissing), Exit::Disagree),
            (disagree(Diagnosis::RemoteTruncated), Exit::Disagree),
            (disagree(Diagnosis::RemoteUnknownObject), Exit::Disagree),
            (disagree(Diagnosis::RemoteRolledBack), Exit::Disagree),
            (disagree(Diagnosis::RemoteForked), Exit::Disagree),
            (disagree(Diagnosis::RemoteCorrupt), Exit::Damaged),
            (disagree(Diagnosis::RemoteSwapped), Exit::Damaged),
            (disagree(Diagnosis::LocalCorrupt), Exit::Damaged),
            (disagree(Diagnosis::LocalStale), Exit::Disagree),
            (disagree(Diagnosis::WrongRepo), Exit::Disagree),
            (disagree(Diagnosis::SourceEmpty), Exit::Failed),
            (Error::corrupt("data/x", "detail"), Exit::Damaged),
            (Error::store("write", "data/x", io()), Exit::Failed),
            (Error::store("read", "data/x", io::ErrorKind::TimedOut.into()), Exit::Failed),
            (Error::store("read", "data/x", io::ErrorKind::NotFound.into()), Exit::Disagree),
            (Error::store("read", "data/x", io::ErrorKind::UnexpectedEof.into()), Exit::Disagree),
            (Error::Catalog { path: store(), detail: String::new() }, Exit::Failed),
            (Error::Local { doing: "open", path: store(), source: io() }, Exit::Failed),
            (Error::TooNew { what: store(), found: 2, known: 1 }, Exit::Failed),
            (Error::Newer { what: store(), needs: "x".into() }, Exit::Failed),
            (Error::Limit { what: "x", found: 2, max: 1 }, Exit::Failed),
            (Error::Invalid { what: store() }, Exit::Usage),
            (Error::defect("x"), Exit::Failed),
            (Error::local_corrupt("directory x", "detail"), Exit::Damaged),
            (Error::Cancelled, Exit::Interrupted),
        ];
        for (error, exit) in cases {
            let text = error.to_string();
            assert_eq!(Failure::from(error).exit(), exit, "{text}");
        }
        assert_eq!(Failure::Usage(String::new()).exit(), Exit::Usage);
        assert_eq!(Failure::machine("read", "/x")(io()).exit(), Exit::Failed);
        let refused = Failure::Refused("not an empty directory".to_owned());
        assert_eq!((refused.exit(), refused.diagnosis()), (Exit::Failed, None));
        assert_eq!(refused.to_string(), "not an empty directory");
    }
}
