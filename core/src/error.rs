//! What can go wrong, told by what the caller can do about it.
//!
//! Pure floors (codecs, crypto, compression) return small errors of their own, without names, because they know none.
//! The floor that knows the object wraps them once, here. `bygone` turns an [`Error`] into an exit code and
//! `bygone-mount` turns it into an errno, each by one total `match`: a new variant does not compile until both answered.
//! Trouble with the user's own files is not in here: it is a different type in the agent, so that a full store can
//! never pass for an unreadable file.

use std::fmt;
use std::io;

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What the comparison of store and catalog found. The names are stable: scripts may match them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Diagnosis {
    /// The catalog knows the object, the store does not list it.
    RemoteMissing,
    /// The object is shorter or longer than the catalog says.
    RemoteTruncated,
    /// The object's bytes are not the ones that were stored.
    RemoteCorrupt,
    /// The store holds an object that neither catalog nor commits explain.
    RemoteUnknownObject,
    /// The store has forgotten commits that this machine has seen.
    RemoteRolledBack,
    /// The store shows another commit where this machine has seen one.
    RemoteForked,
    /// The catalog contradicts itself or its own keys.
    LocalCorrupt,
}

impl Diagnosis {
    /// The stable code, in capitals.
    pub fn code(self) -> &'static str {
        match self {
            Diagnosis::RemoteMissing => "REMOTE_MISSING",
            Diagnosis::RemoteTruncated => "REMOTE_TRUNCATED",
            Diagnosis::RemoteCorrupt => "REMOTE_CORRUPT",
            Diagnosis::RemoteUnknownObject => "REMOTE_UNKNOWN_OBJECT",
            Diagnosis::RemoteRolledBack => "REMOTE_ROLLED_BACK",
            Diagnosis::RemoteForked => "REMOTE_FORKED",
            Diagnosis::LocalCorrupt => "LOCAL_CORRUPT",
        }
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// An error of the repository: what, where, and (in its text) what to do next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing at this place says that it is a repository.
    #[error("there is no bygone repository at {store}: check the address, or make one with `bygone -r {store} init`")]
    NoRepository {
        /// The store's address.
        store: String,
    },
    /// Something is already where a new thing should be made.
    #[error("{what} already exists: {hint}")]
    Exists {
        /// The thing that is in the way.
        what: String,
        /// What to do.
        hint: &'static str,
    },
    /// A snapshot, path or object that was asked for is not there.
    #[error("{what} was not found{}{hint}", if .hint.is_empty() { "" } else { ": " })]
    NotFound {
        /// What was asked for.
        what: String,
        /// What to do, or empty.
        hint: &'static str,
    },
    /// No key slot opens with the secret given.
    #[error("wrong passphrase: none of the {slots} key slots of {store} opens with it")]
    WrongKey {
        /// The store's address.
        store: String,
        /// How many slots were tried.
        slots: usize,
    },
    /// Another process is at work here.
    #[error("another bygone is using {path}: wait for it to end, or choose another --catalog-dir")]
    Locked {
        /// The lock's path.
        path: String,
    },
    /// Store and catalog tell different stories.
    #[error("{diagnosis}: {object}: {detail}")]
    Disagree {
        /// Which kind of difference.
        diagnosis: Diagnosis,
        /// The object concerned.
        object: String,
        /// What is known, and what to do.
        detail: String,
    },
    /// An object's bytes do not authenticate or do not decode.
    #[error("damaged data in {object}: {detail}")]
    Corrupt {
        /// The object concerned.
        object: String,
        /// What failed.
        detail: String,
    },
    /// The store could not do what it was asked to do.
    #[error("the store failed to {doing} {object}: {source}")]
    Store {
        /// GET, PUT, LIST or DELETE, in words.
        doing: &'static str,
        /// The object's name, or the store's address.
        object: String,
        /// The cause.
        source: io::Error,
    },
    /// The local catalog could not do what it was asked to do.
    #[error("the catalog {path} failed: {detail}")]
    Catalog {
        /// The database file.
        path: String,
        /// The cause, and what to do.
        detail: String,
    },
    /// A file of this machine that bygone itself keeps (spool, lock, cache) failed.
    #[error("cannot {doing} {path}: {source}")]
    Local {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// Written by a later bygone than this one.
    #[error("{what} has format version {found}, this bygone knows versions up to {known}: install a newer bygone")]
    TooNew {
        /// The object or file.
        what: String,
        /// Its version.
        found: u32,
        /// The last version that this program knows.
        known: u32,
    },
    /// Beyond a limit of the format.
    #[error("{what} is {found}, the limit is {max}")]
    Limit {
        /// What is limited.
        what: &'static str,
        /// What was found.
        found: u64,
        /// The most that is allowed.
        max: u64,
    },
    /// The caller asked for something that makes no sense.
    #[error("{what}")]
    Invalid {
        /// What is wrong with it, and what would be right.
        what: String,
    },
    /// The caller asked to stop.
    #[error("interrupted")]
    Cancelled,
}

impl Error {
    /// A store's failure to do `doing` with `object`.
    pub fn store(doing: &'static str, object: impl fmt::Display, source: io::Error) -> Error {
        Error::Store { doing, object: object.to_string(), source }
    }

    /// Damage in `object`.
    pub fn corrupt(object: impl fmt::Display, detail: impl fmt::Display) -> Error {
        Error::Corrupt { object: object.to_string(), detail: detail.to_string() }
    }

    /// A difference between store and catalog.
    pub fn disagree(diagnosis: Diagnosis, object: impl fmt::Display, detail: impl fmt::Display) -> Error {
        Error::Disagree { diagnosis, object: object.to_string(), detail: detail.to_string() }
    }

    /// True if the object that was asked for is simply not in the store.
    pub fn is_absent(&self) -> bool {
        matches!(self, Error::Store { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}
