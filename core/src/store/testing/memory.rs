//! A store in memory, for tests: it counts requests, so that a test can state the cost of a command, and it can be
//! damaged behind the back of its user.

use std::collections::BTreeMap;
use std::hash::DefaultHasher;
use std::hash::Hasher;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;

use crate::error::Error;
use crate::error::Result;
use crate::lock::lock;
use crate::store::ByteRange;
use crate::store::Listed;
use crate::store::ObjectName;
use crate::store::Source;
use crate::store::Store;
use crate::store::Stored;

/// Requests to a [`MemoryStore`] since it was made or since [`MemoryStore::forget_counts`]. Failed calls are counted,
/// their bytes are not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls of GET.
    pub gets: u64,
    /// Calls of PUT.
    pub puts: u64,
    /// Calls of LIST.
    pub lists: u64,
    /// Calls of DELETE.
    pub deletes: u64,
    /// Bytes that GETs have returned.
    pub bytes_got: u64,
    /// Bytes that PUTs have stored, without those of existing objects.
    pub bytes_put: u64,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<ObjectName, Arc<[u8]>>,
    counts: Counts,
    deleted: Vec<ObjectName>,
}

/// Objects in memory.
#[derive(Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// An independent store with the same objects: keeping one makes a rolled-back or forked store.
    pub fn fork(&self) -> MemoryStore {
        let objects = self.state().objects.clone();
        MemoryStore { state: Mutex::new(State { objects, ..State::default() }) }
    }

    /// The requests so far.
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Restarts the counts and the list of deleted names.
    pub fn forget_counts(&self) {
        let mut state = self.state();
        state.counts = Counts::default();
        state.deleted.clear();
    }

    /// The names of all DELETEs, in order, even if they did not exist.
    pub fn deleted(&self) -> Vec<ObjectName> {
        self.state().deleted.clone()
    }

    /// All objects, without counting.
    pub fn objects(&self) -> BTreeMap<ObjectName, Arc<[u8]>> {
        self.state().objects.clone()
    }

    /// Replaces or removes an object without counting: damage.
    pub fn tamper(&self, name: &ObjectName, bytes: Option<Vec<u8>>) {
        let mut state = self.state();
        match bytes {
            Some(bytes) => state.objects.insert(name.clone(), bytes.into()),
            None => state.objects.remove(name),
        };
    }

    /// Taken even after a panic in another thread: each change is one insertion or one removal.
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Store for MemoryStore {
    fn address(&self) -> String {
        "memory".into()
    }

    fn connections(&self) -> usize {
        4
    }

    fn is_far(&self) -> bool {
        false
    }

    fn get(&self, name: &ObjectName, range: ByteRange) -> Result<Vec<u8>> {
        let mut state = self.state();
        state.counts.gets += 1;
        range.check()?;
        let absent = || Error::store("read", name, io::ErrorKind::NotFound.into());
        let object = state.objects.get(name).cloned().ok_or_else(absent)?;
        let wanted = range.within(name, object.len() as u64)?;
        let part = usize::try_from(wanted.start).ok().zip(usize::try_from(wanted.end).ok());
        let part = part.and_then(|(start, end)| object.get(start..end)).ok_or_else(absent)?.to_vec();
        state.counts.bytes_got += part.len() as u64;
        Ok(part)
    }

    fn put(&self, name: &ObjectName, source: Source<'_>) -> Result<Stored> {
        let read = source.to_vec();
        let mut state = self.state();
        state.counts.puts += 1;
        let bytes = read.map_err(|cause| Error::store("write", name, cause))?;
        let stored = Stored { etag: Some(etag(&bytes)) };
        match state.objects.get(name) {
            Some(there) if **there == *bytes => {}
            Some(_) => return Err(crate::store::already_there(name)),
            None => {
                state.counts.bytes_put += bytes.len() as u64;
                state.objects.insert(name.clone(), bytes.into());
            }
        }
        Ok(stored)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        let mut state = self.state();
        state.counts.lists += 1;
        crate::store::check_prefix(prefix)?;
        let within = state.objects.iter().filter(|(name, _)| name.as_str().starts_with(prefix));
        let listed = |(name, bytes): (&ObjectName, &Arc<[u8]>)| Listed {
            name: name.clone(),
            bytes: bytes.len() as u64,
            etag: Some(etag(bytes)),
        };
        Ok(within.map(listed).collect())
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        let mut state = self.state();
        state.counts.deletes += 1;
        state.deleted.push(name.clone());
        state.objects.remove(name);
        Ok(())
    }
}

/// Some stores mark the bytes of each object; this one does too, so that tests see such marks.
fn etag(bytes: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::super::contract::contract;
    use super::*;

    fn name(text: &str) -> ObjectName {
        ObjectName::new(text).unwrap()
    }

    #[test]
    fn the_contract_holds() {
        contract(|| Arc::new(MemoryStore::new()));
    }

    #[test]
    fn requests_are_counted_and_deletes_remembered() {
        let store = MemoryStore::new();
        for _ in 0..2 {
            store.put(&name("a"), Source::Bytes(b"four")).unwrap();
        }
        store.get(&name("a"), ByteRange::Part { offset: 1, bytes: 2 }).unwrap();
        store.get(&name("b"), ByteRange::Whole { bytes_max: 9 }).unwrap_err();
        store.list("").unwrap();
        store.delete(&name("b")).unwrap();
        let expected = Counts { gets: 2, puts: 2, lists: 1, deletes: 1, bytes_got: 2, bytes_put: 4 };
        assert_eq!(store.counts(), expected);
        assert_eq!(store.deleted(), [name("b")]);
        store.forget_counts();
        assert_eq!((store.counts(), store.deleted()), (Counts::default(), vec![]));
    }

    #[test]
    fn a_fork_goes_its_own_way_and_damage_is_not_counted() {
        let store = MemoryStore::new();
        store.put(&name("a"), Source::Bytes(b"old")).unwrap();
        let fork = store.fork();
        store.tamper(&name("a"), Some(b"new".to_vec()));
        store.tamper(&name("b"), None);
        assert_eq!(fork.get(&name("a"), ByteRange::Whole { bytes_max: 9 }).unwrap(), b"old");
        assert_eq!(store.get(&name("a"), ByteRange::Whole { bytes_max: 9 }).unwrap(), b"new");
        assert_eq!((store.counts().puts, fork.counts().gets), (1, 1));
    }
}
