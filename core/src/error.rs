//! Everything that can go wrong, sorted by what the caller can do about it.
//!
//! Pure floors (codecs, crypto, compression) return small errors of their own, without object names, because they know
//! none. The floor that knows the object wraps them once, here. `bygone` maps an [`Error`] to an exit code and
//! `bygone-mount` maps it to an errno, each in one total `match`, so a new variant does not compile until both handle
//! it. Trouble with the user's own files has a separate type in the agent, so a full store can never be mistaken for an
//! unreadable file.

use std::fmt;
use std::io;

use crate::diagnosis::Diagnosis;

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the repository: what failed, where, and (in its text) what to do next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The place does not hold a repository.
    #[error("there is no bygone repository at {store}: check the address, or make one with `bygone -r {store} init`")]
    NoRepository {
        /// The store's address.
        store: String,
    },
    /// The place for something new is taken.
    #[error("{what} already exists: {hint}")]
    Exists {
        /// The thing that occupies it.
        what: String,
        /// What to do.
        hint: &'static str,
    },
    /// The snapshot, path or object does not exist.
    #[error("{what} was not found{}{hint}", if .hint.is_empty() { "" } else { ": " })]
    NotFound {
        /// What was asked for.
        what: String,
        /// What to do, or empty.
        hint: &'static str,
    },
    /// No key slot opens with the secret given.
    #[error("wrong passphrase: it opens none of {} of {store}", counted(*.slots as u64, "key slot", "key slots"))]
    WrongKey {
        /// The store's address.
        store: String,
        /// How many slots were tried.
        slots: usize,
    },
    /// Another process is at work here.
    #[error("another bygone is using {path}: wait for it to end, for example with --wait-lock 1h")]
    Locked {
        /// The lock's path.
        path: String,
    },
    /// Store and catalog contradict each other.
    #[error("{diagnosis}: {object}: {detail}")]
    Disagree {
        /// The kind of contradiction.
        diagnosis: Diagnosis,
        /// The object concerned.
        object: String,
        /// What is known, and what to do.
        detail: String,
    },
    /// An object's bytes fail authentication or decoding.
    #[error("damaged data in {object}: {detail}")]
    Corrupt {
        /// The object concerned.
        object: String,
        /// What failed.
        detail: String,
    },
    /// The store failed a request.
    #[error("the store failed to {doing} {object}: {source}")]
    Store {
        /// The request in words: read, write, list, delete.
        doing: &'static str,
        /// The object's name, or the store's address.
        object: String,
        /// The cause.
        source: io::Error,
    },
    /// The local catalog failed.
    #[error("the catalog {path} failed: {detail}")]
    Catalog {
        /// The database file.
        path: String,
        /// The cause, and what to do.
        detail: String,
    },
    /// A local file that bygone itself keeps (spool, lock, cache) failed.
    #[error("cannot {doing} {path}: {source}")]
    Local {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// Written by a later version of bygone.
    #[error("{what} has format version {found}, this bygone knows versions up to {known}: install a newer bygone")]
    TooNew {
        /// The object or file.
        what: String,
        /// Its version.
        found: u32,
        /// The latest version that this program knows.
        known: u32,
    },
    /// Made by a later bygone, with something that this one does not know.
    #[error("{what} was made by a newer bygone: it needs {needs}; get a newer bygone")]
    Newer {
        /// The repository, or the part of it that this program cannot use.
        what: String,
        /// The name of what is unknown.
        needs: String,
    },
    /// The number of this machine's next commit was taken, by a program that deletes volumes.
    #[error(
        "the number of {object} was taken, because another machine deletes volumes and must know what is referred to: \
         nothing is lost; run the command again, it reuses what was stored"
    )]
    Overtaken {
        /// The commit that was to be put.
        object: String,
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
    /// The request makes no sense: a mistake of the user.
    #[error("{what}")]
    Invalid {
        /// What is wrong with it, and what would be right.
        what: String,
    },
    /// This program broke a rule of its own. No input is to blame, and nothing wrong was stored.
    #[error("a bug in bygone: {what}: please report it")]
    Defect {
        /// The rule.
        what: String,
    },
    /// The command was asked to stop.
    #[error("interrupted")]
    Cancelled,
}

impl Error {
    /// A store's failure to `doing` `object`.
    pub fn store(doing: &'static str, object: impl fmt::Display, source: io::Error) -> Error {
        Error::Store { doing, object: object.to_string(), source }
    }

    /// Damage in `object`.
    pub fn corrupt(object: impl fmt::Display, detail: impl fmt::Display) -> Error {
        Error::Corrupt { object: object.to_string(), detail: detail.to_string() }
    }

    /// A contradiction between store and catalog.
    pub fn disagree(diagnosis: Diagnosis, object: impl fmt::Display, detail: impl fmt::Display) -> Error {
        Error::Disagree { diagnosis, object: object.to_string(), detail: detail.to_string() }
    }

    /// The catalog contradicts itself about `object`, or lacks what it must have of it.
    pub fn local_corrupt(object: impl fmt::Display, detail: impl fmt::Display) -> Error {
        let detail = format!("{detail}: run `bygone recover --force`, which rebuilds the catalog from the store");
        Error::disagree(Diagnosis::LocalCorrupt, object, detail)
    }

    /// A defect of this program.
    pub fn defect(what: impl fmt::Display) -> Error {
        Error::Defect { what: what.to_string() }
    }

    /// A copy of the error, for when one failure reaches several readers.
    pub fn again(&self) -> Error {
        match self {
            Error::NoRepository { store } => Error::NoRepository { store: store.clone() },
            Error::Exists { what, hint } => Error::Exists { what: what.clone(), hint },
            Error::NotFound { what, hint } => Error::NotFound { what: what.clone(), hint },
            Error::WrongKey { store, slots } => Error::WrongKey { store: store.clone(), slots: *slots },
            Error::Locked { path } => Error::Locked { path: path.clone() },
            Error::Disagree { diagnosis, object, detail } => Error::disagree(*diagnosis, object, detail),
            Error::Corrupt { object, detail } => Error::corrupt(object, detail),
            Error::Store { doing, object, source } => Error::store(doing, object, cause_again(source)),
            Error::Catalog { path, detail } => Error::Catalog { path: path.clone(), detail: detail.clone() },
            Error::Local { doing, path, source } => {
                Error::Local { doing, path: path.clone(), source: cause_again(source) }
            }
            Error::TooNew { what, found, known } => Error::TooNew { what: what.clone(), found: *found, known: *known },
            Error::Newer { what, needs } => Error::Newer { what: what.clone(), needs: needs.clone() },
            Error::Overtaken { object } => Error::Overtaken { object: object.clone() },
            Error::Limit { what, found, max } => Error::Limit { what, found: *found, max: *max },
            Error::Invalid { what } => Error::Invalid { what: what.clone() },
            Error::Defect { what } => Error::defect(what),
            Error::Cancelled => Error::Cancelled,
        }
    }

    /// The stable code, if the error has one.
    pub fn diagnosis(&self) -> Option<Diagnosis> {
        match self {
            Error::Disagree { diagnosis, .. } => Some(*diagnosis),
            Error::Corrupt { .. } => Some(Diagnosis::RemoteCorrupt),
            Error::WrongKey { .. } => Some(Diagnosis::WrongKey),
            Error::Locked { .. } => Some(Diagnosis::Locked),
            Error::Store { source, .. } => of_store(source),
            Error::Local { source, .. } => is_full(source).then_some(Diagnosis::NoSpace),
            Error::NoRepository { .. }
            | Error::Exists { .. }
            | Error::NotFound { .. }
            | Error::Catalog { .. }
            | Error::TooNew { .. }
            | Error::Newer { .. }
            | Error::Overtaken { .. }
            | Error::Limit { .. }
            | Error::Invalid { .. }
            | Error::Defect { .. }
            | Error::Cancelled => None,
        }
    }

    /// True if the store as a whole failed, whichever object was asked for.
    pub fn is_outage(&self) -> bool {
        let Error::Store { source, .. } = self else { return false };
        matches!(self.diagnosis(), Some(Diagnosis::Transient)) || source.kind() == io::ErrorKind::Other
    }

    /// True if the store's disk cannot read the object's sectors; other objects may be fine.
    pub fn is_bad_sector(&self) -> bool {
        const EIO: i32 = 5;
        matches!(self, Error::Store { source, .. } if source.raw_os_error() == Some(EIO))
    }

    /// True if the object ends before the bytes that were asked for.
    pub fn is_short(&self) -> bool {
        matches!(self, Error::Store { source, .. } if source.kind() == io::ErrorKind::UnexpectedEof)
    }

    /// True if the object is at fault and not the store: it is absent, damaged, longer than allowed, or lies on bad
    /// sectors. If the store itself is in trouble, stopping is better than declaring every object lost.
    pub fn is_object_fault(&self) -> bool {
        self.is_absent() || self.is_bad_sector() || matches!(self, Error::Corrupt { .. } | Error::Limit { .. })
    }

    /// True if the object is not in the store.
    pub fn is_absent(&self) -> bool {
        matches!(self, Error::Store { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// `number` things in words: "1 block", "2 blocks".
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// A copy of the cause: its number or kind, and its text.
fn cause_again(source: &io::Error) -> io::Error {
    match source.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::new(source.kind(), source.to_string()),
    }
}

/// The code of a store's failure, as far as its cause tells.
fn of_store(source: &io::Error) -> Option<Diagnosis> {
    use io::ErrorKind;
    match source.kind() {
        _ if is_full(source) => Some(Diagnosis::NoSpace),
        ErrorKind::NotFound => Some(Diagnosis::RemoteMissing),
        ErrorKind::UnexpectedEof => Some(Diagnosis::RemoteTruncated),
        ErrorKind::TimedOut
        | ErrorKind::Interrupted
        | ErrorKind::ConnectionRefused
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::NotConnected
        | ErrorKind::BrokenPipe
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::NetworkDown
        | ErrorKind::ResourceBusy => Some(Diagnosis::Transient),
        _ => None,
    }
}

fn is_full(source: &io::Error) -> bool {
    matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests;
