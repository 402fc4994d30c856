//! Long objects go to S3 in parts: no fault turns half of one into an object, and parts that arrived are not sent
//! again.

use std::sync::Arc;

use bygone_core::store::ByteRange;
use bygone_core::store::ObjectName;
use bygone_core::store::Source;
use bygone_core::store::Store;
use bygone_core::store::s3::S3Store;
use bygone_core::store::s3::Trouble;
use bygone_core::store::testing::contract::contract;
use bygone_core::watch::Watch;
use bygone_tests::fake_s3::FakeS3;
use bygone_tests::fake_s3::Fault;
use bygone_tests::fake_s3::Verb;
use bygone_tests::fake_s3::faults::FAILURES;

use crate::s3_store::deletes;
use crate::s3_store::name;
use crate::s3_store::open_with;
use crate::s3_store::patient;
use crate::s3_store::stocked;

/// An object that goes in five parts, and its name, which is its hash.
fn long(seed: u64) -> (ObjectName, Vec<u8>) {
    let bytes = bygone_tests::tree::random(seed, 300_000);
    let hash = bygone_core::id::hex(&bygone_core::hash::sha256(&bytes));
    (name(&format!("data/{}/{hash}", &hash[..2])), bytes)
}

const LONG: ByteRange = ByteRange::Whole { bytes_max: 300_000 };

/// The same store in parts of 64 KiB.
fn in_parts(server: &FakeS3, stall: &str) -> S3Store {
    open_with(server.store("deep/prefix") + "&part=64k&stall=" + stall, &Arc::new(Watch::new()))
}

/// The mark that a list shows.
fn mark(store: &dyn Store, at: &ObjectName) -> Option<String> {
    store.list("").unwrap().into_iter().find(|listed| listed.name == *at).unwrap().etag
}

fn verbs(server: &FakeS3) -> Vec<Verb> {
    server.take_asked().into_iter().map(|(verb, _)| verb).collect()
}

#[test]
fn a_long_object_goes_in_parts_and_has_the_listed_mark() {
    let (server, _) = stocked();
    let store = in_parts(&server, "60s");
    let (at, bytes) = long(1);
    let stored = store.put(&at, Source::Bytes(&bytes)).unwrap();
    use Verb::Begin;
    use Verb::Complete;
    use Verb::Head;
    use Verb::Part;
    assert_eq!(verbs(&server), [Begin, Part, Part, Part, Part, Part, Complete, Head]);
    assert_eq!(store.get(&at, LONG).unwrap(), bytes);
    assert_eq!(mark(&store, &at), stored.etag);
    // A store that does not know the object sends it again, and reads nothing back to compare.
    server.take_asked();
    assert_eq!(in_parts(&server, "60s").put(&at, Source::Bytes(&bytes)).unwrap(), stored);
    assert_eq!(verbs(&server).last(), Some(&Head));
    assert_eq!(server.unfinished(), [""; 0], "unfinished uploads are cleared away");
    // An object not named by its hash goes whole, because two writers might send different bytes.
    server.take_asked();
    store.put(&name("commits/x"), Source::Bytes(&bytes)).unwrap();
    assert_eq!(verbs(&server), [Head, Verb::Put]);
}

#[test]
fn lies_about_parts_are_errors_and_arrived_parts_are_not_resent() {
    let (server, _) = stocked();
    let (store, hasty) = (in_parts(&server, "60s"), in_parts(&server, "1s"));
    let others = [
        Fault::StallInBody,
        Fault::ShortBody,
        Fault::ResetWithin,
        Fault::NoEtag,
        Fault::Redirect,
        Fault::Status(404, "NoSuchUpload"),
        Fault::Missing,
    ];
    let faults = [FAILURES, &others].concat();
    let mut seed = 100;
    for verb in [Verb::Begin, Verb::Part, Verb::Complete] {
        for fault in faults.iter().copied() {
            let is_senseless =
                matches!((verb, fault), (Verb::Begin | Verb::Part, Fault::Missing) | (Verb::Begin, Fault::NoEtag));
            if is_senseless {
                continue;
            }
            seed += 1;
            let (at, bytes) = long(seed);
            let within = if verb == Verb::Part { "#4" } else { "" };
            server.misbehave(verb, within, fault, 1);
            let asked = if fault.is_silence() { &hasty } else { &store };
            // The answer to a part needs no body, only its mark.
            let first = asked.put(&at, Source::Bytes(&bytes));
            assert!(
                first.is_err() || matches!((verb, fault), (Verb::Part, Fault::StallInBody | Fault::ShortBody)),
                "{verb:?} {fault:?}"
            );
            server.behave();
            let before = server.bytes_in();
            if fault != Fault::Missing {
                asked.put(&at, Source::Bytes(&bytes)).unwrap();
                assert_eq!(asked.get(&at, LONG).unwrap(), bytes, "{verb:?} {fault:?}");
            }
            let again = server.bytes_in() - before;
            let begins_anew = matches!(fault, Fault::Status(404, _) | Fault::Redirect) || verb == Verb::Begin;
            assert!(begins_anew || again < 2 * 65_536 + 1_000, "{verb:?} {fault:?}: {again} bytes sent again");
        }
    }
    let asked = server.take_asked();
    assert!(asked.iter().all(|(verb, _)| *verb != Verb::Delete), "no object is deleted");
}

#[test]
fn a_put_in_parts_survives_transient_faults() {
    let (server, _) = stocked();
    let store = patient(in_parts(&server, "1s"));
    let faults =
        [Fault::Status(500, "InternalError"), Fault::ResetWithin, Fault::ResetAfter, Fault::Silence, Fault::Html];
    for (seed, fault) in (200..).zip(faults) {
        for verb in [Verb::Begin, Verb::Part, Verb::Complete, Verb::Head] {
            // Answers that are no S3 at all are retried less often.
            server.misbehave(verb, "", fault, if fault == Fault::Html { 1 } else { 2 });
        }
        let (at, bytes) = long(seed);
        let before = server.bytes_in();
        let stored = store.put(&at, Source::Bytes(&bytes)).unwrap();
        assert_eq!(store.get(&at, LONG).unwrap(), bytes, "{fault:?}");
        assert_eq!(mark(&store, &at), stored.etag);
        let sent = server.bytes_in() - before;
        assert!(sent < 300_000 + 3 * 65_536 + 10_000, "{fault:?}: {sent} bytes for 300,000");
        server.behave();
    }
}

#[test]
fn a_forgotten_upload_restarts_and_a_hopeless_one_is_aborted() {
    let (server, _) = stocked();
    let store = in_parts(&server, "60s");
    let (at, bytes) = long(1);
    server.misbehave(Verb::Complete, "", Fault::Status(503, "SlowDown"), 1);
    store.put(&at, Source::Bytes(&bytes)).unwrap_err();
    assert_eq!(server.unfinished().len(), 1);
    server.forget_uploads();
    patient(store).put(&at, Source::Bytes(&bytes)).unwrap();
    let store = in_parts(&server, "60s");
    let (at, bytes) = long(2);
    server.misbehave(Verb::Part, "", Fault::Status(403, "QuotaExceeded"), 1);
    let error = store.put(&at, Source::Bytes(&bytes)).unwrap_err();
    assert!(matches!(Trouble::within(&error), Some(Trouble::Full { .. })), "{error}");
    assert_eq!(server.unfinished(), [""; 0], "it takes up no room in a full bucket");
}

#[test]
fn a_server_that_takes_no_parts_is_sent_whole_objects() {
    let (server, _) = stocked();
    let store = in_parts(&server, "60s");
    server.misbehave(Verb::Begin, "", Fault::Status(501, "NotImplemented"), usize::MAX);
    for seed in [1, 2] {
        let (at, bytes) = long(seed);
        store.put(&at, Source::Bytes(&bytes)).unwrap();
        assert_eq!(store.get(&at, LONG).unwrap(), bytes);
    }
    use Verb::Begin;
    use Verb::Get;
    use Verb::Put;
    assert_eq!(verbs(&server), [Begin, Put, Get, Put, Get]);
}

#[test]
fn only_uploads_of_the_given_names_are_cleared_away() {
    let (server, _) = stocked();
    let store = in_parts(&server, "60s");
    let mut names = Vec::new();
    for seed in 0..4 {
        let (at, bytes) = long(seed);
        server.misbehave(Verb::Part, "", Fault::ResetWithin, 1);
        store.put(&at, Source::Bytes(&bytes)).unwrap_err();
        names.push(at);
    }
    let fresh = in_parts(&server, "60s");
    fresh.clear(&names[..2]).unwrap();
    let left: Vec<_> = server.unfinished();
    assert!(left.len() == 2 && names[2..].iter().all(|name| left.contains(&format!("deep/prefix/{name}"))), "{left:?}");
    for fault in [Fault::Status(501, "NotImplemented"), Fault::Status(403, "AccessDenied"), Fault::Html, Fault::Empty] {
        server.misbehave(Verb::Uploads, "", fault, 1);
        fresh.clear(&names).unwrap();
    }
    server.misbehave(Verb::Uploads, "", Fault::ResetBefore, 1);
    fresh.clear(&names).unwrap_err();
    fresh.clear(&names).unwrap();
    assert_eq!(server.unfinished(), [""; 0]);
    assert_eq!(deletes(&server), 0);
    assert_eq!(server.objects().len(), 3);
}

#[test]
fn the_contract_holds_where_objects_go_in_parts() {
    for overwrites in [false, true] {
        let server = FakeS3::start();
        if overwrites {
            server.overwrite();
        }
        let count = std::cell::Cell::new(0);
        contract(|| {
            count.set(count.get() + 1);
            Arc::new(open_with(server.store(&format!("contract/{}", count.get())) + "&part=64k", &Arc::default()))
        });
        assert_eq!(server.unfinished(), [""; 0]);
    }
}
