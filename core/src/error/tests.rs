//! Codes, causes, and whose fault an error is.

use super::*;

#[test]
fn an_error_given_again_is_the_same() {
    let store = |source| Error::store("read", "data/x", source);
    let (what, path) = (|| "w".to_owned(), || "/p".to_owned());
    let errors = [
        Error::NoRepository { store: path() },
        Error::Exists { what: what(), hint: "h" },
        Error::NotFound { what: what(), hint: "h" },
        Error::WrongKey { store: path(), slots: 2 },
        Error::Locked { path: path() },
        Error::disagree(Diagnosis::RemoteForked, "o", "d"),
        Error::local_corrupt("o", "d"),
        Error::corrupt("o", "d"),
        store(io::Error::from_raw_os_error(5)),
        store(io::ErrorKind::UnexpectedEof.into()),
        store(io::Error::new(io::ErrorKind::TimedOut, "t")),
        Error::Catalog { path: path(), detail: what() },
        Error::Local { doing: "open", path: path(), source: io::ErrorKind::StorageFull.into() },
        Error::TooNew { what: what(), found: 2, known: 1 },
        Error::Newer { what: what(), needs: "n".into() },
        Error::Overtaken { object: what() },
        Error::Limit { what: "w", found: 2, max: 1 },
        Error::Invalid { what: what() },
        Error::defect("d"),
        Error::Cancelled,
    ];
    for error in errors {
        let again = error.again();
        assert_eq!(std::mem::discriminant(&again), std::mem::discriminant(&error), "{error}");
        assert_eq!((again.to_string(), again.diagnosis()), (error.to_string(), error.diagnosis()));
        let facts = |error: &Error| (error.is_absent(), error.is_short(), error.is_bad_sector(), error.is_outage());
        assert_eq!(facts(&again), facts(&error), "{error}");
    }
}

#[test]
fn an_error_says_whose_fault_it_is() {
    assert_eq!(Error::defect("x").to_string(), "a bug in bygone: x: please report it");
    assert_eq!(Error::defect("x").diagnosis(), None);
    let local = Error::local_corrupt("directory d", "it is gone");
    assert_eq!(local.diagnosis(), Some(Diagnosis::LocalCorrupt));
    assert!(local.to_string().starts_with("LOCAL_CORRUPT: directory d: it is gone: run `bygone recover --force`"));
}

#[test]
fn codes_are_distinct_and_go_there_and_back() {
    for diagnosis in Diagnosis::ALL {
        assert_eq!(Diagnosis::from_code(diagnosis.code()), Some(diagnosis));
        assert!(!diagnosis.advice().is_empty());
    }
    assert_eq!(Diagnosis::from_code("REMOTE"), None);
}

#[test]
fn a_failure_of_the_store_is_told_by_its_cause() {
    let cases = [
        (io::ErrorKind::StorageFull, Some(Diagnosis::NoSpace)),
        (io::ErrorKind::QuotaExceeded, Some(Diagnosis::NoSpace)),
        (io::ErrorKind::ConnectionReset, Some(Diagnosis::Transient)),
        (io::ErrorKind::TimedOut, Some(Diagnosis::Transient)),
        (io::ErrorKind::NotFound, Some(Diagnosis::RemoteMissing)),
        (io::ErrorKind::UnexpectedEof, Some(Diagnosis::RemoteTruncated)),
        (io::ErrorKind::PermissionDenied, None),
    ];
    for (kind, diagnosis) in cases {
        assert_eq!(Error::store("read", "data/x", kind.into()).diagnosis(), diagnosis, "{kind:?}");
    }
    let full = Error::Local { doing: "write", path: "/x".into(), source: io::ErrorKind::StorageFull.into() };
    assert_eq!(full.diagnosis(), Some(Diagnosis::NoSpace));
    let is_outage = |kind: io::ErrorKind| Error::store("read", "data/x", kind.into()).is_outage();
    assert!(is_outage(io::ErrorKind::TimedOut) && is_outage(io::ErrorKind::Other));
    assert!(!is_outage(io::ErrorKind::NotFound) && !is_outage(io::ErrorKind::PermissionDenied));
    assert!(!is_outage(io::Error::from_raw_os_error(5).kind()), "one bad sector is no outage");
    assert_eq!(Error::WrongKey { store: "/r".into(), slots: 1 }.diagnosis(), Some(Diagnosis::WrongKey));
    assert_eq!(Error::Locked { path: "/l".into() }.diagnosis(), Some(Diagnosis::Locked));
    assert_eq!(Error::corrupt("data/x", "d").diagnosis(), Some(Diagnosis::RemoteCorrupt));
    assert_eq!(Error::Cancelled.diagnosis(), None);
}
