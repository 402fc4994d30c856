//! The error number for each failed operation.
//!
//! The matches are total, so a new kind of error does not compile until its number is decided. Damage never gives two
//! numbers: ENOENT, because a program that mirrors the mount would take it for a deletion, and ENOSYS, because the
//! kernel remembers it and never asks again.

use std::io;

use fuser::Errno;

use bygone_core::error::Error;

use crate::tree::operation_error::OperationError;

/// The error number for `error`.
pub fn errno(error: &OperationError) -> Errno {
    match error {
        OperationError::Stale => Errno::ESTALE,
        OperationError::NotDirectory => Errno::ENOTDIR,
        OperationError::NotLink | OperationError::NotFile | OperationError::Invalid => Errno::EINVAL,
        OperationError::NameTooLong => Errno::ENAMETOOLONG,
        OperationError::NoAttribute => Errno::NO_XATTR,
        OperationError::NotSupported => Errno::EOPNOTSUPP,
        OperationError::Range => Errno::ERANGE,
        OperationError::Beyond => Errno::ENXIO,
        OperationError::Withheld(_) | OperationError::Defect(_) => Errno::EIO,
        OperationError::Repository(error) => repository_errno(error),
    }
}

fn repository_errno(error: &Error) -> Errno {
    match error {
        // Damage, and a store that does not deliver: the data cannot be read now.
        Error::Corrupt { .. }
        | Error::Disagree { .. }
        | Error::Store { .. }
        | Error::Catalog { .. }
        | Error::Local { .. }
        | Error::NoRepository { .. }
        | Error::TooNew { .. }
        | Error::Newer { .. }
        | Error::Overtaken { .. }
        | Error::Limit { .. }
        | Error::WrongKey { .. }
        | Error::Exists { .. }
        | Error::Invalid { .. }
        | Error::Defect { .. } => Errno::EIO,
        // Not EINTR, because most programs would retry at once.
        Error::Cancelled => Errno::EIO,
        // The kernel still names something that has left the catalog, for example with a removed snapshot.
        Error::NotFound { .. } => Errno::ESTALE,
        Error::Locked { .. } => Errno::EBUSY,
    }
}

/// True if the log should have this error; false if it is an ordinary answer.
pub fn belongs_in_log(error: &OperationError) -> bool {
    match error {
        // Reads end in this way when the mount ends.
        OperationError::Repository(Error::Cancelled) => false,
        OperationError::Repository(_) | OperationError::Withheld(_) | OperationError::Defect(_) => true,
        _ => false,
    }
}

/// The cause of an error, which is the same for all errors that the log should report as one: all failed reads of one
/// lost volume, and all requests that are forbidden for one reason.
pub fn cause(error: &OperationError) -> String {
    let OperationError::Repository(Error::Store { object, source, .. }) = error else { return error.to_string() };
    match source.kind() {
        io::ErrorKind::PermissionDenied => source.to_string(),
        kind => format!("{}: {kind}", object.split(", bytes ").next().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bygone_core::diagnosis::Diagnosis;
    use bygone_core::entry::Withheld;

    #[test]
    fn damage_and_store_failures_are_io_errors() {
        let absent = || io::Error::from(io::ErrorKind::NotFound);
        for error in [
            Error::corrupt("data/ab", "frame 3"),
            Error::disagree(Diagnosis::RemoteMissing, "data/ab", "not listed"),
            Error::store("read", "data/ab", absent()),
            Error::Local { doing: "read", path: "spool".into(), source: absent() },
            Error::Catalog { path: "catalog.sqlite".into(), detail: "malformed".into() },
            Error::NoRepository { store: "/gone".into() },
            Error::local_corrupt("directory d", "it is gone"),
            Error::defect("a rule was broken"),
        ] {
            let error = OperationError::from(error);
            assert_eq!(errno(&error).code(), Errno::EIO.code(), "{error}");
            assert!(belongs_in_log(&error));
        }
        let withheld = OperationError::Withheld(Withheld::Unreadable(13));
        assert!(errno(&withheld).code() == Errno::EIO.code() && belongs_in_log(&withheld));
    }

    #[test]
    fn the_cause_does_not_depend_on_the_bytes_wanted() {
        let store = |object: &str, kind: io::ErrorKind, text: &str| {
            cause(&Error::store("read", object, io::Error::new(kind, text)).into())
        };
        let lost = |object: &str| store(object, io::ErrorKind::NotFound, "404");
        assert_eq!(lost("data/ab, bytes 0 to 9"), lost("data/ab, bytes 9 to 99"));
        assert_ne!(lost("data/ab, bytes 0 to 9"), lost("data/cd, bytes 0 to 9"));
        let refused = |object: &str| store(object, io::ErrorKind::PermissionDenied, "--offline forbids it");
        assert_eq!(refused("data/ab, bytes 0 to 9"), refused("data/cd, bytes 0 to 9"));
        let damaged = |frame: &str| cause(&Error::corrupt("data/ab", frame).into());
        assert_ne!(damaged("frame 1"), damaged("frame 2"));
        assert!(!belongs_in_log(&Error::Cancelled.into()));
    }

    #[test]
    fn no_error_looks_like_a_missing_name_or_operation() {
        let errors = [
            OperationError::Stale,
            OperationError::NotDirectory,
            OperationError::NotLink,
            OperationError::NotFile,
            OperationError::NameTooLong,
            OperationError::NoAttribute,
            OperationError::NotSupported,
            OperationError::Range,
            OperationError::Beyond,
            OperationError::Invalid,
            OperationError::Withheld(Withheld::Unreadable(2)),
            OperationError::Defect(String::new()),
            Error::Cancelled.into(),
            Error::NotFound { what: "snapshot".into(), hint: "" }.into(),
        ];
        for error in errors {
            let code = errno(&error).code();
            assert!(code != Errno::ENOENT.code() && code != Errno::ENOSYS.code(), "{error:?}");
        }
    }
}
