//! The S3 store against a faulty server: what it must refuse, what it must retry, and what it must never do.

use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use bygone_core::error::Error;
use bygone_core::store::ByteRange;
use bygone_core::store::ObjectName;
use bygone_core::store::Source;
use bygone_core::store::Store;
use bygone_core::store::link::Link;
use bygone_core::store::retry::Clock;
use bygone_core::store::retry::RetryStore;
use bygone_core::store::s3::S3Access;
use bygone_core::store::s3::S3Address;
use bygone_core::store::s3::S3Keys;
use bygone_core::store::s3::S3Store;
use bygone_core::store::s3::Trouble;
use bygone_core::store::testing::contract::contract;
use bygone_core::watch::Watch;
use bygone_tests::fake_s3::ACCESS_KEY;
use bygone_tests::fake_s3::FakeS3;
use bygone_tests::fake_s3::Fault;
use bygone_tests::fake_s3::SECRET_KEY;
use bygone_tests::fake_s3::Verb;
use bygone_tests::fake_s3::faults::BROKEN_BODIES;
use bygone_tests::fake_s3::faults::BROKEN_LISTS;
use bygone_tests::fake_s3::faults::BROKEN_RANGES;
use bygone_tests::fake_s3::faults::ENDLESS_ANSWERS;
use bygone_tests::fake_s3::faults::FAILURES;
use bygone_tests::fake_s3::faults::REFUSALS;

const WHOLE: ByteRange = ByteRange::Whole { bytes_max: 1_000 };
const PART: ByteRange = ByteRange::Part { offset: 2, bytes: 5 };
const BYTES: &[u8] = b"0123456789";

pub fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

fn access(now: fn() -> SystemTime) -> S3Access {
    let keys = || {
        Ok(S3Keys {
            access_key: ACCESS_KEY.into(),
            secret_key: SECRET_KEY.to_owned().into(),
            session_token: Some("token".to_owned().into()),
            expires: None,
        })
    };
    S3Access { keys: Arc::new(keys), region: None, endpoint: None, ca_pem: None, proxy: None, now }
}

fn open(server: &FakeS3, prefix: &str, watch: &Arc<Watch>) -> S3Store {
    open_with(server.store(prefix), watch)
}

/// The same store, which gives up on a server after a second of silence.
fn hasty(server: &FakeS3) -> S3Store {
    open_with(server.store("deep/prefix") + "&stall=1s", &Arc::new(Watch::new()))
}

pub fn open_with(address: String, watch: &Arc<Watch>) -> S3Store {
    let address = S3Address::parse(address.strip_prefix("s3:").unwrap()).unwrap();
    S3Store::new(&address, access(SystemTime::now), Arc::new(Link::default()), watch).unwrap()
}

/// A server with three objects, and the store.
pub fn stocked() -> (FakeS3, S3Store) {
    let server = FakeS3::start();
    let store = open(&server, "deep/prefix", &Arc::new(Watch::new()));
    for text in ["data/00/a", "data/00/b", "data/00/c"] {
        store.put(&name(text), Source::Bytes(BYTES)).unwrap();
    }
    server.take_asked();
    (server, store)
}

pub fn deletes(server: &FakeS3) -> usize {
    server.take_asked().iter().filter(|(verb, _)| *verb == Verb::Delete).count()
}

#[test]
fn the_contract_holds() {
    let server = FakeS3::start();
    let count = std::cell::Cell::new(0);
    contract(|| {
        count.set(count.get() + 1);
        server.set_page(if count.get() % 2 == 0 { 7 } else { 1_000 });
        Arc::new(open(&server, &format!("contract/{}", count.get()), &Arc::new(Watch::new())))
    });
}

#[test]
fn the_contract_holds_on_servers_without_conditional_puts() {
    let server = FakeS3::start();
    server.overwrite();
    let count = std::cell::Cell::new(0);
    let store = |prefix: String| Arc::new(open(&server, &prefix, &Arc::new(Watch::new())));
    contract(|| {
        count.set(count.get() + 1);
        store(format!("contract/{}", count.get()))
    });
}

#[test]
fn a_server_that_refuses_conditional_puts_gets_plain_ones() {
    let (server, store) = stocked();
    server.misbehave(Verb::Put, "", Fault::Status(501, "NotImplemented"), 1);
    store.put(&name("data/00/d"), Source::Bytes(BYTES)).unwrap();
    assert_eq!(server.hits(), 1);
    assert!(matches!(store.put(&name("data/00/d"), Source::Bytes(b"x")), Err(Error::Exists { .. })));
}

#[test]
fn every_lie_of_a_get_is_an_error_and_never_absence() {
    let (server, store) = stocked();
    let hasty = hasty(&server);
    let at = name("data/00/a");
    let faults = [REFUSALS, FAILURES, BROKEN_BODIES, ENDLESS_ANSWERS, BROKEN_RANGES, &[Fault::NoEtag]].concat();
    for fault in faults {
        server.misbehave(Verb::Get, "", fault, usize::MAX);
        let is_about_ranges = BROKEN_RANGES.contains(&fault);
        let asked = if fault.is_silence() { &hasty } else { &store };
        for range in [WHOLE, PART] {
            match asked.get(&at, range) {
                Ok(bytes) => assert!(is_about_ranges && range == WHOLE && bytes == BYTES, "{fault:?} {range:?}"),
                Err(error) => assert!(!error.is_absent(), "{fault:?}: {error}"),
            }
        }
        server.behave();
        assert_eq!(store.get(&at, PART).unwrap(), b"23456", "after {fault:?} the next answer is right");
    }
    assert_eq!(deletes(&server), 0);
}

#[test]
fn every_lie_of_a_list_is_an_error_and_never_a_shorter_list() {
    let (server, store) = stocked();
    let hasty = hasty(&server);
    server.set_page(2);
    let faults = [REFUSALS, FAILURES, BROKEN_BODIES, BROKEN_LISTS, &[Fault::Status(404, "NoSuchKey")]].concat();
    for fault in faults {
        server.misbehave(Verb::List, "", fault, usize::MAX);
        let asked = if fault.is_silence() { &hasty } else { &store };
        let error = asked.list("data/").unwrap_err();
        assert!(!error.is_absent(), "{fault:?}: {error}");
        server.behave();
        assert_eq!(store.list("data/").unwrap().len(), 3, "{fault:?}");
    }
    server.misbehave(Verb::List, "", Fault::EndlessPages, usize::MAX);
    let error = store.list("data/").unwrap_err().to_string();
    assert!(error.contains("does not end"), "{error}");
    assert_eq!(deletes(&server), 0);
}

#[test]
fn every_lie_of_a_put_is_an_error_and_can_be_retried() {
    let (server, store) = stocked();
    let hasty = hasty(&server);
    let others = [Fault::Status(403, "QuotaExceeded"), Fault::ResetWithin, Fault::NoEtag, Fault::Redirect];
    for (number, fault) in [FAILURES, &others].concat().into_iter().enumerate() {
        let (at, bytes) = (name(&format!("data/01/{number}")), vec![7; 300_000]);
        server.misbehave(Verb::Put, "", fault, 1);
        let asked = if fault.is_silence() { &hasty } else { &store };
        let refused = asked.put(&at, Source::Bytes(&bytes));
        assert!(refused.is_err(), "{fault:?}: {refused:?}");
        store.put(&at, Source::Bytes(&bytes)).unwrap();
        assert_eq!(store.get(&at, ByteRange::Whole { bytes_max: 300_000 }).unwrap(), bytes, "{fault:?}");
    }
    assert_eq!(deletes(&server), 0);
}

#[test]
fn a_delete_of_nothing_succeeds_and_one_that_is_refused_fails() {
    let (server, store) = stocked();
    let lies = [Fault::Status(500, ""), Fault::Status(404, ""), Fault::Status(404, "NoSuchBucket"), Fault::Redirect];
    for fault in lies.into_iter().chain([Fault::Html, Fault::ErrorWith200]) {
        server.misbehave(Verb::Delete, "", fault, 1);
        assert!(store.delete(&name("data/00/a")).is_err(), "{fault:?}");
    }
    server.misbehave(Verb::Delete, "", Fault::Status(404, "NoSuchKey"), 1);
    store.delete(&name("data/00/a")).unwrap();
    assert_eq!(server.objects().len(), 3, "a 404 did nothing, as it says");
}

#[test]
fn errors_with_a_remedy_name_it() {
    let (server, store) = stocked();
    let trouble = |status, code| {
        server.misbehave(Verb::Get, "", Fault::Status(status, code), 1);
        let error = store.get(&name("data/00/a"), WHOLE).unwrap_err();
        (Trouble::within(&error).cloned(), error.to_string())
    };
    assert!(matches!(trouble(403, "QuotaExceeded").0, Some(Trouble::Full { .. })));
    assert!(matches!(trouble(403, "AccessDenied").0, Some(Trouble::Denied { .. })));
    assert!(matches!(trouble(403, "RequestTimeTooSkewed").0, Some(Trouble::ClockSkew { .. })));
    assert!(matches!(trouble(404, "NoSuchBucket").0, Some(Trouble::NoBucket)));
    assert!(matches!(trouble(301, "PermanentRedirect").0, Some(Trouble::Redirected { .. })));
    let (_, message) = trouble(403, "AccessDenied");
    assert!(message.contains("data/00/a") && message.contains("check the keys"), "{message}");
}

#[test]
fn errors_name_the_host_that_could_not_be_reached() {
    let server = FakeS3::start();
    let address = server.store("prefix");
    let running = address.split_once("endpoint=").unwrap().1.split('&').next().unwrap();
    // No server is ever given this port, so no other test's server can answer there.
    let endpoint = "http://127.0.0.1:1";
    let store = open_with(address.replace(running, endpoint), &Arc::new(Watch::new()));
    let message = store.list("").unwrap_err().to_string();
    assert!(message.contains(&format!("no connection to {endpoint}: ")), "{message}");
}

#[test]
fn a_connection_serves_many_requests() {
    let (server, store) = stocked();
    for _ in 0..20 {
        store.get(&name("data/00/a"), WHOLE).unwrap();
        assert!(store.get(&name("absent"), WHOLE).unwrap_err().is_absent());
        store.list("").unwrap();
    }
    assert!(server.connections() <= 2, "{} connections", server.connections());
}

#[test]
fn an_object_named_by_its_hash_costs_one_request_and_others_two() {
    let (server, store) = stocked();
    let hash = bygone_core::id::hex(&bygone_core::hash::sha256(BYTES));
    store.put(&name(&format!("data/00/{hash}")), Source::Bytes(BYTES)).unwrap();
    let verbs = || server.take_asked().into_iter().map(|(verb, _)| verb).collect::<Vec<_>>();
    assert_eq!(verbs(), [Verb::Put]);
    store.put(&name("commits/x"), Source::Bytes(BYTES)).unwrap();
    assert_eq!(verbs(), [Verb::Head, Verb::Put]);
    let (key, _) = server.objects().into_iter().find(|(key, _)| key.ends_with("commits/x")).unwrap();
    assert_eq!(key, "deep/prefix/commits/x");
}

#[test]
fn a_lost_answer_neither_fails_a_put_nor_resends_its_bytes() {
    let (server, store) = stocked();
    let store = patient(store);
    let before = server.bytes_in();
    server.misbehave(Verb::Put, "", Fault::ResetAfter, 1);
    let stored = store.put(&name("commits/x"), Source::Bytes(BYTES)).unwrap();
    assert_eq!(stored.etag, store.list("commits/").unwrap()[0].etag);
    assert_eq!(server.bytes_in() - before, BYTES.len() as u64);
}

/// A store that retries without waiting.
pub fn patient(store: S3Store) -> RetryStore {
    let clock = Clock { now: Box::new(|| Duration::ZERO), wait: Box::new(|_| {}), draw: Box::new(|| 0.5) };
    RetryStore::new(Arc::new(store), Duration::from_secs(900), Arc::new(Watch::new()), clock)
}

#[test]
fn every_verb_survives_transient_faults() {
    let (server, _) = stocked();
    let store = patient(hasty(&server));
    let passing = FAILURES.iter().copied().filter(|fault| !matches!(fault, Fault::Nothing | Fault::ErrorWith200));
    for fault in passing.chain([Fault::Status(400, "RequestTimeout"), Fault::ShortBody]) {
        for verb in [Verb::Get, Verb::Put, Verb::List, Verb::Delete] {
            server.misbehave(verb, "", fault, 2);
        }
        let at = name("data/02/x");
        store.put(&at, Source::Bytes(BYTES)).unwrap();
        assert_eq!(store.get(&at, WHOLE).unwrap(), BYTES);
        assert_eq!(store.list("data/02/").unwrap().len(), 1);
        store.delete(&at).unwrap();
        assert_eq!(store.list("data/02/").unwrap(), []);
        server.behave();
    }
}

#[test]
fn cancelling_does_not_wait_for_an_answer() {
    let server = FakeS3::start();
    let watch = Arc::new(Watch::new());
    let store = open_with(server.store("x") + "&stall=3600s", &watch);
    server.misbehave(Verb::Get, "", Fault::Silence, 1);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| store.get(&name("x"), WHOLE));
        while server.hits() == 0 {
            std::thread::yield_now();
        }
        watch.cancel();
        assert!(matches!(asked.join().unwrap(), Err(Error::Cancelled)));
    });
}

#[test]
fn a_secret_never_shows() {
    let keys = (access(SystemTime::now).keys)().unwrap();
    let shown = format!("{keys:?}");
    assert!(shown.contains(ACCESS_KEY) && !shown.contains("secret\"") && !shown.contains("token\""), "{shown}");
}
