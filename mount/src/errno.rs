//! What the kernel is told when something fails.
//!
//! One total `match`, so that a new kind of error does not compile before somebody has decided. Two answers are never
//! given for damage: ENOENT, because a program that mirrors the mount would take it for a deletion, and ENOSYS, because
//! the kernel remembers it and stops asking for good.

use bygone_core::error::Error;
use fuser::Errno;

use crate::failure::Failure;

/// The error number for `failure`.
pub fn errno(failure: &Failure) -> Errno {
    match failure {
        Failure::Stale => Errno::ESTALE,
        Failure::NotDirectory => Errno::ENOTDIR,
        Failure::NotLink | Failure::NotFile | Failure::Invalid => Errno::EINVAL,
        Failure::NameTooLong => Errno::ENAMETOOLONG,
        Failure::NoAttribute => Errno::NO_XATTR,
        Failure::NotSupported => Errno::EOPNOTSUPP,
        Failure::Range => Errno::ERANGE,
        Failure::Beyond => Errno::ENXIO,
        Failure::Defect(_) => Errno::EIO,
        Failure::Repository(error) => repository_errno(error),
    }
}

fn repository_errno(error: &Error) -> Errno {
    match error {
        // Damage, and a store that does not give what it holds: the data is not there to be had now.
        Error::Corrupt { .. }
        | Error::Disagree { .. }
        | Error::Store { .. }
        | Error::Catalog { .. }
        | Error::Local { .. }
        | Error::NoRepository { .. }
        | Error::TooNew { .. }
        | Error::Limit { .. }
        | Error::WrongKey { .. }
        | Error::Exists { .. }
        | Error::Invalid { .. } => Errno::EIO,
        // What the kernel still names is not in the catalog any more, as after a removed snapshot.
        Error::NotFound { .. } => Errno::ESTALE,
        Error::Locked { .. } => Errno::EBUSY,
        Error::Cancelled => Errno::EINTR,
    }
}

/// True if the failure is trouble that the log should name, not an answer like any other.
pub fn is_trouble(failure: &Failure) -> bool {
    matches!(failure, Failure::Repository(_) | Failure::Defect(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bygone_core::error::Diagnosis;
    use std::io;

    #[test]
    fn damage_and_a_failing_store_are_io_errors_whatever_they_look_like() {
        let absent = || io::Error::from(io::ErrorKind::NotFound);
        for error in [
            Error::corrupt("data/ab", "frame 3"),
            Error::disagree(Diagnosis::RemoteMissing, "data/ab", "not listed"),
            Error::store("read", "data/ab", absent()),
            Error::Local { doing: "read", path: "spool".into(), source: absent() },
            Error::Catalog { path: "catalog.sqlite".into(), detail: "malformed".into() },
            Error::NoRepository { store: "/gone".into() },
        ] {
            let failure = Failure::from(error);
            assert_eq!(errno(&failure).code(), Errno::EIO.code(), "{failure}");
            assert!(is_trouble(&failure));
        }
    }

    #[test]
    fn no_failure_looks_like_a_missing_name_or_a_missing_operation() {
        let failures = [
            Failure::Stale,
            Failure::NotDirectory,
            Failure::NotLink,
            Failure::NotFile,
            Failure::NameTooLong,
            Failure::NoAttribute,
            Failure::NotSupported,
            Failure::Range,
            Failure::Beyond,
            Failure::Invalid,
            Failure::Defect(String::new()),
            Error::Cancelled.into(),
            Error::NotFound { what: "snapshot".into(), hint: "" }.into(),
        ];
        for failure in failures {
            let code = errno(&failure).code();
            assert!(code != Errno::ENOENT.code() && code != Errno::ENOSYS.code(), "{failure:?}");
        }
    }
}
