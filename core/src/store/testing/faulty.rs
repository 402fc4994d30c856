//! A store that fails on purpose, for tests: at chosen calls, at random from a seed, or for ever from some point on,
//! which for a writer is the same as being killed there.
//!
//! The fault of a call depends only on its number, counted from 1 in the order in which calls begin. With several
//! calling threads, the scheduler decides that order; [`FaultyStore::with_connections`] lets a test ask for one thread.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;

use crate::error::Error;
use crate::error::Result;
use crate::lock::lock;
use crate::noise::scramble;
use crate::store::ByteRange;
use crate::store::Listed;
use crate::store::ObjectName;
use crate::store::Source;
use crate::store::Store;
use crate::store::Stored;

/// The text of each injected error.
const INJECTED: &str = "injected fault";

/// The four calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// [`Store::get`]
    Get,
    /// [`Store::put`]
    Put,
    /// [`Store::list`]
    List,
    /// [`Store::delete`]
    Delete,
}

/// Kinds of faults. The last two are lies, which the contract forbids: readers must detect them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An error, and nothing was done.
    Before,
    /// An error, although the call was carried out: a lost answer.
    After,
    /// A GET returns the first half of the bytes, a LIST the first half of the objects. Other calls succeed.
    Short,
    /// A GET returns one flipped bit. Other calls succeed.
    Flip,
}

/// One call that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Which.
    pub verb: Verb,
    /// The object's name, or the prefix of a LIST.
    pub object: String,
    /// The bytes that a GET asked for.
    pub range: Option<ByteRange>,
    /// The fault that it suffered.
    pub fault: Option<Fault>,
}

#[derive(Default)]
struct State {
    calls: Vec<Call>,
    puts_begun: u64,
    planned: BTreeMap<u64, Fault>,
    random: Option<(u64, u32, Vec<Fault>)>,
    puts_until_death: Option<u64>,
    death: Option<(u64, Fault)>,
    dead: bool,
}

/// A store with faults in front of another store.
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    connections: usize,
    is_far: bool,
    gate: Gate,
    state: Mutex<State>,
}

/// Blocks GETs while it is closed: a stalled link, or one that waits for several requests.
#[derive(Default)]
struct Gate {
    closed: Mutex<Option<Closed>>,
    changed: Condvar,
}

struct Closed {
    /// Names with this beginning are blocked.
    beginning: String,
    /// How many GETs are blocked, and at how many the gate opens by itself.
    held: usize,
    enough: usize,
}

impl Gate {
    fn pass(&self, name: &ObjectName) {
        let mut closed = lock(&self.closed);
        let holds = |closed: &&mut Closed| name.as_str().starts_with(&closed.beginning);
        let Some(gate) = closed.as_mut().filter(holds) else { return };
        gate.held += 1;
        if gate.held >= gate.enough {
            *closed = None;
            self.changed.notify_all();
        }
        drop(self.changed.wait_while(closed, |closed| closed.as_mut().is_some_and(|gate| holds(&gate))));
    }

    fn set(&self, closed: Option<Closed>) {
        *lock(&self.closed) = closed;
        self.changed.notify_all();
    }
}

/// A request to the store.
#[derive(Clone, Copy)]
struct Request<'a> {
    verb: Verb,
    /// Name, or prefix for a LIST.
    object: &'a str,
    /// The range of a GET.
    range: Option<ByteRange>,
}

impl FaultyStore {
    /// No faults yet.
    pub fn new(inner: Arc<dyn Store>) -> FaultyStore {
        let (connections, is_far) = (inner.connections(), inner.is_far());
        FaultyStore { inner, connections, is_far, gate: Gate::default(), state: Mutex::default() }
    }

    /// Claims to be best served by this many requests at a time; with one, all calls of a writer come in a fixed order.
    pub fn with_connections(self, connections: usize) -> FaultyStore {
        FaultyStore { connections, ..self }
    }

    /// Claims to be far away.
    pub fn far(self) -> FaultyStore {
        FaultyStore { is_far: true, ..self }
    }

    /// Blocks GETs of names with this beginning until [`FaultyStore::go_on`].
    pub fn stall(&self, beginning: &str) {
        self.gate.set(Some(Closed { beginning: beginning.to_owned(), held: 0, enough: usize::MAX }));
    }

    /// Blocks GETs of names with this beginning until `enough` of them wait at once; then all continue.
    pub fn gather(&self, beginning: &str, enough: usize) {
        self.gate.set(Some(Closed { beginning: beginning.to_owned(), held: 0, enough }));
    }

    /// True while GETs are blocked.
    pub fn is_closed(&self) -> bool {
        lock(&self.gate.closed).is_some()
    }

    /// Ends a stall.
    pub fn go_on(&self) {
        self.gate.set(None);
    }

    /// The `number`-th call (from 1, since the store was made or its calls were forgotten) suffers `fault`.
    pub fn fail_call(&self, number: u64, fault: Fault) {
        self.state().planned.insert(number, fault);
    }

    /// Each call suffers one of `faults` with a probability of `per_mille` / 1000; the seed decides which.
    pub fn fail_at_random(&self, seed: u64, per_mille: u32, faults: &[Fault]) {
        self.state().random = Some((seed, per_mille, faults.to_vec()));
    }

    /// The `number`-th call suffers `fault` ([`Fault::Before`] or [`Fault::After`]), and every later one fails.
    pub fn die_at_call(&self, number: u64, fault: Fault) {
        self.state().death = Some((number, fault));
    }

    /// Carries out the next `puts` PUTs and no PUT after them; once they are done, every call fails.
    pub fn die_after_puts(&self, puts: u64) {
        let mut state = self.state();
        state.puts_until_death = Some(puts + state.puts_begun);
        state.dead = puts == 0;
    }

    /// No faults from now on.
    pub fn heal(&self) {
        let mut state = self.state();
        let (calls, puts_begun) = (std::mem::take(&mut state.calls), state.puts_begun);
        *state = State { calls, puts_begun, ..State::default() };
    }

    /// All calls so far, in the order in which they began.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// Numbers the calls from 1 again.
    pub fn forget_calls(&self) {
        self.state().calls.clear();
    }

    /// True if `error` was injected here and does not come from the inner store.
    pub fn is_injected(error: &Error) -> bool {
        matches!(error, Error::Store { source, .. } if source.to_string() == INJECTED)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Carries out one call with the fault that is due; `lie` applies the two lies to its answer.
    fn call<T>(
        &self,
        request: Request<'_>,
        work: impl FnOnce() -> Result<T>,
        lie: impl FnOnce(Fault, u64, &mut T),
    ) -> Result<T> {
        let Request { verb, object, .. } = request;
        let (number, fault, last_put) = self.begin(request);
        let doing = match verb {
            Verb::Get => "read",
            Verb::Put => "write",
            Verb::List => "list",
            Verb::Delete => "delete",
        };
        let injected = || Error::store(doing, object, io::Error::new(io::ErrorKind::ConnectionReset, INJECTED));
        if fault == Some(Fault::Before) {
            return Err(injected());
        }
        let mut done = work();
        if last_put {
            self.state().dead = true;
        }
        match (fault, &mut done) {
            (Some(Fault::After), _) => return Err(injected()),
            (Some(fault), Ok(answer)) => lie(fault, number, answer),
            _ => {}
        }
        done
    }

    /// Records the call, and returns its number, its fault, and whether it is the last PUT before death.
    fn begin(&self, request: Request<'_>) -> (u64, Option<Fault>, bool) {
        let Request { verb, object, range } = request;
        let mut state = self.state();
        let number = state.calls.len() as u64 + 1;
        let mut fault = state.planned.remove(&number).or_else(|| state.random_fault(number));
        if let Some((at, last)) = state.death
            && number >= at
        {
            fault = Some(if number == at { last } else { Fault::Before });
        }
        let mut last_put = false;
        if verb == Verb::Put {
            state.puts_begun += 1;
            last_put = state.puts_until_death == Some(state.puts_begun);
        }
        let put_too_many = verb == Verb::Put && state.puts_until_death.is_some_and(|last| state.puts_begun > last);
        if state.dead || put_too_many {
            fault = Some(Fault::Before);
        }
        state.calls.push(Call { verb, object: object.to_owned(), range, fault });
        (number, fault, last_put)
    }
}

impl State {
    fn random_fault(&self, number: u64) -> Option<Fault> {
        let (seed, per_mille, faults) = self.random.as_ref()?;
        let drawn = scramble(seed ^ scramble(number));
        let kind = usize::try_from(scramble(drawn)).unwrap_or(0).checked_rem(faults.len())?;
        if drawn % 1000 < u64::from(*per_mille) { faults.get(kind).copied() } else { None }
    }
}

impl Store for FaultyStore {
    fn address(&self) -> String {
        self.inner.address()
    }

    fn connections(&self) -> usize {
        self.connections
    }

    fn is_far(&self) -> bool {
        self.is_far
    }

    fn get(&self, name: &ObjectName, range: ByteRange) -> Result<Vec<u8>> {
        self.gate.pass(name);
        let lie = |fault, number, bytes: &mut Vec<u8>| match fault {
            Fault::Flip => flip(bytes, number),
            _ => bytes.truncate(bytes.len() / 2),
        };
        self.call(
            Request { verb: Verb::Get, object: name.as_str(), range: Some(range) },
            || self.inner.get(name, range),
            lie,
        )
    }

    fn put(&self, name: &ObjectName, source: Source<'_>) -> Result<Stored> {
        self.call(
            Request { verb: Verb::Put, object: name.as_str(), range: None },
            || self.inner.put(name, source),
            |_, _, _| {},
        )
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        let lie = |fault, _, listed: &mut Vec<Listed>| {
            if fault == Fault::Short {
                listed.truncate(listed.len() / 2);
            }
        };
        self.call(Request { verb: Verb::List, object: prefix, range: None }, || self.inner.list(prefix), lie)
    }

    fn clear(&self, names: &[ObjectName]) -> Result<()> {
        self.inner.clear(names)
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.call(
            Request { verb: Verb::Delete, object: name.as_str(), range: None },
            || self.inner.delete(name),
            |_, _, _| {},
        )
    }
}

/// Flips a bit chosen by `number`.
fn flip(bytes: &mut [u8], number: u64) {
    let drawn = scramble(number);
    let Some(at) = (drawn >> 3).checked_rem(bytes.len() as u64) else { return };
    if let Some(byte) = usize::try_from(at).ok().and_then(|at| bytes.get_mut(at)) {
        *byte ^= 1 << (drawn & 7);
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract::contract;
    use super::super::memory::MemoryStore;
    use super::*;

    const WHOLE: ByteRange = ByteRange::Whole { bytes_max: 100 };

    fn name(number: u64) -> ObjectName {
        ObjectName::new(&format!("data/{number}")).unwrap()
    }

    fn store() -> (Arc<MemoryStore>, FaultyStore) {
        let memory = Arc::new(MemoryStore::new());
        (memory.clone(), FaultyStore::new(memory))
    }

    fn put(store: &FaultyStore, number: u64) -> Result<Stored> {
        store.put(&name(number), Source::Bytes(&number.to_le_bytes()))
    }

    #[test]
    fn without_faults_the_contract_holds() {
        contract(|| Arc::new(FaultyStore::new(Arc::new(MemoryStore::new()))));
    }

    #[test]
    fn a_chosen_call_fails_before_or_after_its_effect() {
        let (memory, faulty) = store();
        faulty.fail_call(1, Fault::Before);
        faulty.fail_call(3, Fault::After);
        assert!(FaultyStore::is_injected(&put(&faulty, 1).unwrap_err()));
        put(&faulty, 2).unwrap();
        let lost = put(&faulty, 3).unwrap_err();
        assert!(FaultyStore::is_injected(&lost) && !lost.is_absent());
        let stored: Vec<_> = memory.objects().into_keys().collect();
        assert_eq!(stored, [name(2), name(3)], "before: nothing was done; after: it was done");
        put(&faulty, 3).unwrap();
        let faults: Vec<_> = faulty.calls().into_iter().map(|call| call.fault).collect();
        assert_eq!(faults, [Some(Fault::Before), None, Some(Fault::After), None]);
    }

    #[test]
    fn lies_shorten_and_flip() {
        let (_, faulty) = store();
        (1..=4).for_each(|number| assert!(put(&faulty, number).is_ok()));
        faulty.fail_call(5, Fault::Short);
        assert_eq!(faulty.get(&name(1), WHOLE).unwrap(), [1, 0, 0, 0]);
        faulty.fail_call(6, Fault::Short);
        assert_eq!(faulty.list("").unwrap().len(), 2);
        faulty.fail_call(7, Fault::Flip);
        let flipped = u64::from_le_bytes(faulty.get(&name(1), WHOLE).unwrap().try_into().unwrap());
        assert_eq!((flipped ^ 1).count_ones(), 1, "one bit and no more is flipped");
        assert_eq!(faulty.get(&name(1), WHOLE).unwrap(), 1_u64.to_le_bytes());
    }

    #[test]
    fn the_dead_do_nothing_until_they_are_healed() {
        let (memory, faulty) = store();
        faulty.die_after_puts(2);
        assert!(faulty.list("").is_ok());
        let done: Vec<bool> = (1..=4).map(|number| put(&faulty, number).is_ok()).collect();
        assert_eq!(done, [true, true, false, false]);
        assert!(faulty.list("").is_err() && faulty.get(&name(1), WHOLE).is_err() && faulty.delete(&name(1)).is_err());
        assert_eq!(memory.objects().len(), 2);
        faulty.heal();
        faulty.forget_calls();
        faulty.die_at_call(2, Fault::After);
        let done: Vec<bool> = (3..=5).map(|number| put(&faulty, number).is_ok()).collect();
        assert_eq!(done, [true, false, false]);
        assert_eq!(memory.objects().len(), 4, "the call that dies after its effect has its effect");
    }

    #[test]
    fn random_faults_follow_from_the_seed() {
        let run = |seed| {
            let (_, faulty) = store();
            faulty.fail_at_random(seed, 200, &[Fault::Before, Fault::After]);
            (0..1000).map(|number| put(&faulty, number).is_err()).collect::<Vec<bool>>()
        };
        let failed = run(7).iter().filter(|failed| **failed).count();
        assert!((120..280).contains(&failed), "{failed} of 1000 calls failed, about 200 should");
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }
}
