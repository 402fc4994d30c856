//! The codes of what can be wrong, stable for scripts.

use std::fmt;

/// A stable code for a kind of trouble, which scripts may match. docs/ARCHITECTURE.md says where each is raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Diagnosis {
    /// The store could not be reached or asked to be called later: trying again may work.
    Transient,
    /// The catalog or the commits name the object, but the store does not have it.
    RemoteMissing,
    /// The object is shorter or longer than it was stored.
    RemoteTruncated,
    /// The object's bytes are not the ones that were stored.
    RemoteCorrupt,
    /// The object's bytes are those of another object of this repository.
    RemoteSwapped,
    /// The store holds an object that neither catalog nor commits explain.
    RemoteUnknownObject,
    /// The store has forgotten commits that this machine has seen.
    RemoteRolledBack,
    /// The store shows another commit where this machine has seen one.
    RemoteForked,
    /// A key slot that was removed is in the store again.
    RemoteKeyBack,
    /// The object, key slot or catalog belongs to another repository.
    WrongRepo,
    /// No key slot opens with the secret given.
    WrongKey,
    /// The catalog is older than the chain of commits that it writes.
    LocalStale,
    /// The catalog contradicts itself or its keys.
    LocalCorrupt,
    /// A file of the user's could not be read.
    SourceUnreadable,
    /// A file of the user's changed while it was read.
    SourceChanged,
    /// A path to back up has nothing in it although it had before, or is no mount point although it should be one.
    SourceEmpty,
    /// The store, or a disk of this machine, is full; the message says which.
    NoSpace,
    /// Another process is working.
    Locked,
}

impl Diagnosis {
    /// All of them.
    pub const ALL: [Diagnosis; 18] = [
        Diagnosis::Transient,
        Diagnosis::RemoteMissing,
        Diagnosis::RemoteTruncated,
        Diagnosis::RemoteCorrupt,
        Diagnosis::RemoteSwapped,
        Diagnosis::RemoteUnknownObject,
        Diagnosis::RemoteRolledBack,
        Diagnosis::RemoteForked,
        Diagnosis::RemoteKeyBack,
        Diagnosis::WrongRepo,
        Diagnosis::WrongKey,
        Diagnosis::LocalStale,
        Diagnosis::LocalCorrupt,
        Diagnosis::SourceUnreadable,
        Diagnosis::SourceChanged,
        Diagnosis::SourceEmpty,
        Diagnosis::NoSpace,
        Diagnosis::Locked,
    ];

    /// The stable code, in capitals.
    pub fn code(self) -> &'static str {
        match self {
            Diagnosis::Transient => "TRANSIENT",
            Diagnosis::RemoteMissing => "REMOTE_MISSING",
            Diagnosis::RemoteTruncated => "REMOTE_TRUNCATED",
            Diagnosis::RemoteCorrupt => "REMOTE_CORRUPT",
            Diagnosis::RemoteSwapped => "REMOTE_SWAPPED",
            Diagnosis::RemoteUnknownObject => "REMOTE_UNKNOWN_OBJECT",
            Diagnosis::RemoteRolledBack => "REMOTE_ROLLED_BACK",
            Diagnosis::RemoteForked => "REMOTE_FORKED",
            Diagnosis::RemoteKeyBack => "REMOTE_KEY_BACK",
            Diagnosis::WrongRepo => "WRONG_REPO",
            Diagnosis::WrongKey => "WRONG_KEY",
            Diagnosis::LocalStale => "LOCAL_STALE",
            Diagnosis::LocalCorrupt => "LOCAL_CORRUPT",
            Diagnosis::SourceUnreadable => "SOURCE_UNREADABLE",
            Diagnosis::SourceChanged => "SOURCE_CHANGED",
            Diagnosis::SourceEmpty => "SOURCE_EMPTY",
            Diagnosis::NoSpace => "NO_SPACE",
            Diagnosis::Locked => "LOCKED",
        }
    }

    /// Advice for a person.
    pub fn advice(self) -> &'static str {
        match self {
            Diagnosis::Transient => "check the connection to the store and try again; nothing is lost",
            Diagnosis::RemoteMissing | Diagnosis::RemoteTruncated | Diagnosis::RemoteSwapped => {
                "restore it from the store's own versions or from a copy, or let the next backup store again what the \
                 source still has; `bygone check` shows what is affected, `bygone accept-loss` ends the alarm"
            }
            Diagnosis::RemoteCorrupt => {
                "the disk or service that holds it cannot be trusted: have it checked; the next backup stores again \
                 what the source still has, `bygone check` shows what is affected, `bygone accept-loss` ends the alarm"
            }
            Diagnosis::RemoteUnknownObject => {
                "nothing: it belongs to a backup that is running elsewhere or was interrupted (`bygone recover` takes \
                 it in), or to another program; bygone never deletes it"
            }
            Diagnosis::RemoteRolledBack | Diagnosis::RemoteForked => {
                "restore the store to its former state, from its own versions or from a copy; give up what cannot be \
                 restored with `bygone accept-loss`; until then nothing is written"
            }
            Diagnosis::RemoteKeyBack => {
                "find out how it came back: with its passphrase, other programs can open the repository, although bygone \
                 does not use it; `bygone key remove` deletes it again"
            }
            Diagnosis::WrongRepo => "check the address, and that the right disk is mounted",
            Diagnosis::WrongKey => "check the passphrase, and that the address is that of the right repository",
            Diagnosis::LocalStale => {
                "nothing, it has caught up; if this machine was cloned, run `bygone recover --force` on one of the two"
            }
            Diagnosis::LocalCorrupt => "run `bygone recover --force`, which rebuilds the catalog from the store",
            Diagnosis::SourceUnreadable => "check the file's permissions and its disk",
            Diagnosis::SourceChanged => "back up again while nothing writes to it, or from a file system snapshot",
            Diagnosis::SourceEmpty => "mount its disk and back up again",
            Diagnosis::NoSpace => "free some space and run the command again; nothing is lost",
            Diagnosis::Locked => "wait for the other process to end, or run with --wait-lock 1h",
        }
    }

    /// The diagnosis with this code.
    pub fn from_code(code: &str) -> Option<Diagnosis> {
        Diagnosis::ALL.into_iter().find(|diagnosis| diagnosis.code() == code)
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}
