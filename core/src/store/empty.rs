//! An empty place: what a dry run compares with if its target does not exist yet.
//!
//! It answers every question as an empty store does. It keeps nothing, so a PUT is a defect of the caller.

use std::io;

use crate::error::Error;
use crate::error::Result;
use crate::store::ByteRange;
use crate::store::Listed;
use crate::store::ObjectName;
use crate::store::Source;
use crate::store::Store;
use crate::store::Stored;
use crate::store::check_prefix;

/// A store without objects.
pub struct EmptyStore;

impl Store for EmptyStore {
    fn address(&self) -> String {
        "nowhere".into()
    }

    fn connections(&self) -> usize {
        1
    }

    fn is_far(&self) -> bool {
        false
    }

    fn get(&self, name: &ObjectName, range: ByteRange) -> Result<Vec<u8>> {
        range.check()?;
        Err(Error::store("read", name, io::ErrorKind::NotFound.into()))
    }

    fn put(&self, name: &ObjectName, _source: Source<'_>) -> Result<Stored> {
        Err(Error::defect(format!("{name} was put where nothing can be kept")))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        check_prefix(prefix).map(|()| Vec::new())
    }

    fn delete(&self, _name: &ObjectName) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_empty_and_stays_so() {
        let name = ObjectName::new("data/one").unwrap();
        assert!(EmptyStore.get(&name, ByteRange::Whole { bytes_max: 1 }).unwrap_err().is_absent());
        assert!(EmptyStore.put(&name, Source::Bytes(b"x")).is_err());
        assert_eq!(EmptyStore.list("").unwrap(), []);
        assert!(EmptyStore.list("data").is_err());
        EmptyStore.delete(&name).unwrap();
    }
}
