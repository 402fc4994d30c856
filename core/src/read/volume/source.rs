//! The bytes of a volume: those at its end, which are read first and kept, and the others, which are asked for.

use std::sync::Arc;

use crate::error::Error;
use crate::error::Result;
use crate::store::ByteRange;
use crate::store::ObjectName;
use crate::store::Store;

/// Fewest sealed bytes that one request of a pass asks for, in a near store.
const RUN_BYTES: u64 = 1 << 20;
/// The same in a far store, where waiting should be short compared with the transfer, unless so many parallel requests
/// take too much memory.
const RUN_BYTES_FAR: u64 = 4 << 20;
/// Memory for the runs of all connections of a far store together.
const RUNS_BYTES_FAR: u64 = 32 << 20;

/// Where the bytes of a volume come from.
pub(super) struct Source {
    store: Arc<dyn Store>,
    pub object: ObjectName,
    /// Length of the object.
    pub bytes: u64,
    /// What lies from `held_from` up to its end.
    held: Vec<u8>,
    pub held_from: u64,
}

impl Source {
    /// Reads the last `tail_bytes` of an object of `bytes` bytes, by one request, and keeps them.
    pub fn open(store: &Arc<dyn Store>, object: ObjectName, bytes: u64, tail_bytes: u64) -> Result<Source> {
        let held_from = bytes.saturating_sub(tail_bytes);
        let range = match held_from {
            // A longer object is noticed too.
            0 => ByteRange::Whole { bytes_max: bytes },
            offset => ByteRange::Part { offset, bytes: bytes - offset },
        };
        let other = |found: String| Error::corrupt(&object, format!("its length is {found} instead of {bytes} bytes"));
        let held = match store.get(&object, range) {
            Err(Error::Limit { found, .. }) => return Err(other(found.to_string())),
            held => held?,
        };
        if held_from == 0 && held.len() as u64 != bytes {
            return Err(other(held.len().to_string()));
        }
        Ok(Source { store: Arc::clone(store), object, bytes, held, held_from })
    }

    /// Forgets the bytes that were read first.
    pub fn release(&mut self) {
        self.held = Vec::new();
        self.held_from = self.bytes;
    }

    /// Fewest sealed bytes that one request of a pass asks for.
    pub fn run_bytes(&self) -> u64 {
        if self.held_from > 0 && self.store.is_far() {
            return (RUNS_BYTES_FAR / self.store.connections().max(1) as u64).clamp(RUN_BYTES, RUN_BYTES_FAR);
        }
        RUN_BYTES
    }

    /// Some of its bytes: no request if they are held.
    pub fn part(&self, offset: u64, bytes: u64) -> Result<Vec<u8>> {
        let Some(start) = offset.checked_sub(self.held_from) else {
            return self.store.get(&self.object, ByteRange::Part { offset, bytes });
        };
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let end = start.saturating_add(usize::try_from(bytes).unwrap_or(usize::MAX));
        let part = self.held.get(start..end).map(<[u8]>::to_vec);
        part.ok_or_else(|| Error::corrupt(&self.object, "it is too short"))
    }
}
