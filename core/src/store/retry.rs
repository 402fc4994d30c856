//! Patience: retrying requests that failed for a reason that may pass.
//!
//! Names are unique and objects never change, so every request may be repeated, even if nobody knows whether the last
//! one was carried out. Waits grow from half a second to half a minute and are randomised, so that many transfers do
//! not come back at once. An outage may last as long as the user's patience; an answer that makes no sense is retried
//! only a few times. A call that got further before it failed counts as progress, and the patience starts anew. A
//! waiting call ends at once when the user stops the command.

use std::io;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use crate::error::Error;
use crate::error::Result;
use crate::store::ByteRange;
use crate::store::Listed;
use crate::store::ObjectName;
use crate::store::Source;
use crate::store::Store;
use crate::store::Stored;
use crate::watch::Watch;

/// Default of how long an outage may last.
pub const PATIENCE_DEFAULT: Duration = Duration::from_secs(15 * 60);
/// Upper bound of the first wait; the bound doubles with each further wait.
const WAIT_FIRST: Duration = Duration::from_millis(500);
const WAIT_MAX: Duration = Duration::from_secs(30);
/// How often a senseless answer is requested.
const NONSENSE_TRIES_MAX: u32 = 4;

/// How promising a retry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hope {
    /// Not at all: the answer would be the same.
    None,
    /// A little: it may have been an accident on the way.
    Little,
    /// Good: something is away and will come back.
    Good,
}

fn hope(error: &Error) -> Hope {
    use io::ErrorKind::*;
    let Error::Store { source, .. } = error else { return Hope::None };
    match source.kind() {
        TimedOut | ConnectionReset | ConnectionAborted | ConnectionRefused | BrokenPipe | NotConnected
        | HostUnreachable | NetworkUnreachable | NetworkDown | AddrNotAvailable | ResourceBusy | Interrupted
        | WouldBlock => Hope::Good,
        InvalidData => Hope::Little,
        _ => Hope::None,
    }
}

/// Whether the same request may succeed later.
pub(super) fn may_pass(error: &Error) -> bool {
    hope(error) != Hope::None
}

/// Marks an error of a call that got further than the ones before it: its trouble is a new one, with the full patience.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct WentOn(io::Error);

impl WentOn {
    /// The error, marked.
    pub fn mark(error: Error) -> Error {
        match error {
            Error::Store { doing, object, source } => {
                Error::Store { doing, object, source: io::Error::new(source.kind(), WentOn(source)) }
            }
            other => other,
        }
    }

    fn is_on(error: &Error) -> bool {
        matches!(error, Error::Store { source, .. } if source.get_ref().is_some_and(|inner| inner.is::<WentOn>()))
    }
}

/// The clock of this module. Tests have their own.
pub struct Clock {
    /// Time since some moment.
    pub now: Box<dyn Fn() -> Duration + Send + Sync>,
    /// Waits this long, or less if the user stops the command.
    pub wait: Box<dyn Fn(Duration) + Send + Sync>,
    /// Draws a number from 0 to 1.
    pub draw: Box<dyn Fn() -> f64 + Send + Sync>,
}

impl Clock {
    /// The real clock. It is made here because waiting is this module's subject; it only runs forwards and knows no
    /// date.
    pub fn real(watch: &Arc<Watch>) -> Clock {
        let began = Instant::now();
        let watch = Arc::clone(watch);
        Clock {
            now: Box::new(move || began.elapsed()),
            wait: Box::new(move |time| watch.sleep(time)),
            draw: Box::new(|| {
                crate::crypto::random::<4>().map_or(0.5, |bytes| f64::from(u32::from_le_bytes(bytes)) / 2f64.powi(32))
            }),
        }
    }
}

/// A store with patience.
pub struct RetryStore {
    inner: Arc<dyn Store>,
    patience: Duration,
    watch: Arc<Watch>,
    clock: Clock,
}

impl RetryStore {
    /// Retries requests to `inner` for up to `patience`.
    pub fn new(inner: Arc<dyn Store>, patience: Duration, watch: Arc<Watch>, clock: Clock) -> RetryStore {
        RetryStore { inner, patience, watch, clock }
    }

    fn patiently<T>(&self, call: impl Fn() -> Result<T>) -> Result<T> {
        let mut outage = None;
        let mut tries = 0_u32;
        let mut troubled = false;
        let answer = loop {
            let error = match self.watch.check().and_then(|()| call()) {
                Ok(done) => break Ok(done),
                Err(error) => error,
            };
            let now = (self.clock.now)();
            if WentOn::is_on(&error) {
                if troubled {
                    self.watch.trouble_over(true);
                }
                (outage, tries, troubled) = (None, 0, false);
            }
            let lasted = now.saturating_sub(*outage.get_or_insert(now));
            let left = self.patience.saturating_sub(lasted);
            let hope = hope(&error);
            let goes_on = match hope {
                Hope::None => false,
                Hope::Little => tries + 1 < NONSENSE_TRIES_MAX && !left.is_zero(),
                Hope::Good => !left.is_zero(),
            };
            if !goes_on {
                break Err(if hope == Hope::Good { after(error, lasted) } else { error });
            }
            (tries, troubled) = (tries + 1, true);
            self.watch.trouble(tries, &error.to_string());
            let longest = WAIT_FIRST.saturating_mul(1 << (tries - 1).min(16)).min(WAIT_MAX);
            (self.clock.wait)(longest.mul_f64(0.5 + (self.clock.draw)() / 2.0).min(left));
        };
        if troubled {
            self.watch.trouble_over(answer.is_ok());
        }
        match answer {
            Err(_) if self.watch.is_cancelled() => Err(Error::Cancelled),
            other => other,
        }
    }
}

/// The error, with the time that was spent on retries.
fn after(error: Error, lasted: Duration) -> Error {
    match error {
        Error::Store { doing, object, source } if !lasted.is_zero() => {
            let text = format!("{source} (tried again for {} seconds)", lasted.as_secs());
            Error::Store { doing, object, source: io::Error::new(source.kind(), text) }
        }
        other => other,
    }
}

impl Store for RetryStore {
    fn address(&self) -> String {
        self.inner.address()
    }

    fn connections(&self) -> usize {
        self.inner.connections()
    }

    fn is_far(&self) -> bool {
        self.inner.is_far()
    }

    fn get(&self, name: &ObjectName, range: ByteRange) -> Result<Vec<u8>> {
        self.patiently(|| self.inner.get(name, range))
    }

    fn put(&self, name: &ObjectName, source: Source<'_>) -> Result<Stored> {
        self.patiently(|| self.inner.put(name, source))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        self.patiently(|| self.inner.list(prefix))
    }

    fn clear(&self, names: &[ObjectName]) -> Result<()> {
        self.patiently(|| self.inner.clear(names))
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.patiently(|| self.inner.delete(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::contract::contract;
    use crate::store::testing::faulty::Fault;
    use crate::store::testing::faulty::FaultyStore;
    use crate::store::testing::memory::MemoryStore;
    use std::sync::Mutex;

    const WHOLE: ByteRange = ByteRange::Whole { bytes_max: 100 };

    /// Time that passes only by waiting.
    fn still(waits: &Arc<Mutex<Vec<Duration>>>, draw: f64) -> Clock {
        let (now, wait) = (Arc::clone(waits), Arc::clone(waits));
        Clock {
            now: Box::new(move || now.lock().unwrap().iter().sum()),
            wait: Box::new(move |time| wait.lock().unwrap().push(time)),
            draw: Box::new(move || draw),
        }
    }

    type Waits = Arc<Mutex<Vec<Duration>>>;

    fn patient(patience: u64, draw: f64) -> (Arc<FaultyStore>, RetryStore, Waits, Arc<Watch>) {
        let faulty = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
        let (waits, watch) = (Waits::default(), Arc::new(Watch::new()));
        let clock = still(&waits, draw);
        let store = RetryStore::new(faulty.clone(), Duration::from_secs(patience), Arc::clone(&watch), clock);
        (faulty, store, waits, watch)
    }

    fn name() -> ObjectName {
        ObjectName::new("data/one").unwrap()
    }

    #[test]
    fn the_contract_holds_although_every_third_call_fails() {
        contract(|| {
            let (faulty, store, ..) = patient(900, 0.5);
            faulty.fail_at_random(11, 333, &[Fault::Before, Fault::After]);
            Arc::new(store)
        });
    }

    #[test]
    fn every_verb_is_tried_again_with_waits_that_grow() {
        let (faulty, store, waits, watch) = patient(900, 1.0);
        for at in [1, 2, 4, 5, 7, 8, 10, 11] {
            faulty.fail_call(at, if at % 2 == 0 { Fault::Before } else { Fault::After });
        }
        store.put(&name(), Source::Bytes(b"x")).unwrap();
        assert_eq!(store.get(&name(), WHOLE).unwrap(), b"x");
        assert_eq!(store.list("").unwrap().len(), 1);
        store.delete(&name()).unwrap();
        let millis: Vec<u128> = waits.lock().unwrap().iter().map(Duration::as_millis).collect();
        assert_eq!(millis, [500, 1000].repeat(4));
        assert_eq!(watch.trouble_now(), None);
    }

    #[test]
    fn patience_ends_and_the_error_says_for_how_long_it_was_tried() {
        for draw in [0.0, 1.0] {
            let (faulty, store, waits, _) = patient(900, draw);
            faulty.die_at_call(1, Fault::Before);
            let error = store.get(&name(), WHOLE).unwrap_err().to_string();
            assert!(error.contains("900 seconds"), "{error}");
            let waits = waits.lock().unwrap();
            assert_eq!(waits.iter().sum::<Duration>(), Duration::from_secs(900));
            assert!(waits.iter().all(|wait| *wait <= WAIT_MAX), "no wait is longer than half a minute");
            assert!(waits.len() < 70, "{} tries", waits.len());
        }
    }

    #[test]
    fn a_call_that_gets_further_each_time_is_never_given_up() {
        struct Steps(MemoryStore, std::sync::atomic::AtomicU32);
        impl Store for Steps {
            fn address(&self) -> String {
                self.0.address()
            }
            fn connections(&self) -> usize {
                1
            }
            fn is_far(&self) -> bool {
                true
            }
            fn get(&self, name: &ObjectName, range: ByteRange) -> Result<Vec<u8>> {
                self.0.get(name, range)
            }
            fn put(&self, name: &ObjectName, source: Source<'_>) -> Result<Stored> {
                // Two failures for each step, the first of which got further.
                let call = self.1.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let broken = Error::store("write", name, io::ErrorKind::ConnectionReset.into());
                match call {
                    20.. => self.0.put(name, source),
                    _ if call.is_multiple_of(2) => Err(WentOn::mark(broken)),
                    _ => Err(broken),
                }
            }
            fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
                self.0.list(prefix)
            }
            fn delete(&self, name: &ObjectName) -> Result<()> {
                self.0.delete(name)
            }
        }
        let steps = Arc::new(Steps(MemoryStore::new(), Default::default()));
        let waits = Waits::default();
        let (patience, watch) = (Duration::from_secs(2), Arc::new(Watch::new()));
        let store = RetryStore::new(steps, patience, Arc::clone(&watch), still(&waits, 1.0));
        store.put(&name(), Source::Bytes(b"x")).unwrap();
        assert!(waits.lock().unwrap().iter().sum::<Duration>() > patience, "it took longer than one outage may last");
        assert_eq!(watch.trouble_now(), None);
    }

    #[test]
    fn what_will_not_pass_is_not_tried_again() {
        let (faulty, store, waits, _) = patient(900, 0.5);
        assert!(store.get(&name(), WHOLE).unwrap_err().is_absent());
        store.put(&name(), Source::Bytes(b"x")).unwrap();
        assert!(matches!(store.put(&name(), Source::Bytes(b"y")), Err(Error::Exists { .. })));
        assert!(store.list("bad").is_err());
        assert_eq!((waits.lock().unwrap().len(), faulty.calls().len()), (0, 4));
    }

    #[test]
    fn nonsense_is_asked_for_a_few_times_only() {
        struct Nonsense(MemoryStore, std::sync::atomic::AtomicU32);
        impl Store for Nonsense {
            fn address(&self) -> String {
                self.0.address()
            }
            fn connections(&self) -> usize {
                1
            }
            fn is_far(&self) -> bool {
                true
            }
            fn get(&self, name: &ObjectName, _: ByteRange) -> Result<Vec<u8>> {
                self.1.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                Err(Error::store("read", name, io::ErrorKind::InvalidData.into()))
            }
            fn put(&self, name: &ObjectName, source: Source<'_>) -> Result<Stored> {
                self.0.put(name, source)
            }
            fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
                self.0.list(prefix)
            }
            fn delete(&self, name: &ObjectName) -> Result<()> {
                self.0.delete(name)
            }
        }
        let nonsense = Arc::new(Nonsense(MemoryStore::new(), Default::default()));
        let clock = still(&Waits::default(), 0.5);
        let store = RetryStore::new(nonsense.clone(), PATIENCE_DEFAULT, Arc::new(Watch::new()), clock);
        assert!(store.get(&name(), WHOLE).is_err());
        assert_eq!(nonsense.1.load(std::sync::atomic::Ordering::SeqCst), NONSENSE_TRIES_MAX);
    }

    #[test]
    fn who_wants_to_end_does_not_wait() {
        let (faulty, store, waits, watch) = patient(900, 0.5);
        faulty.die_at_call(1, Fault::Before);
        let clock = still(&waits, 0.5);
        let cancelled = Arc::clone(&watch);
        let store = RetryStore { clock: Clock { wait: Box::new(move |_| cancelled.cancel()), ..clock }, ..store };
        assert!(matches!(store.get(&name(), WHOLE), Err(Error::Cancelled)));
        assert_eq!(faulty.calls().len(), 1);
    }
}
