//! One volume from one store to another, checked against its name on the way.
//!
//! A small volume goes through memory, a large one through a spool file, in pieces, so that many at a time cost little.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::error::Error;
use crate::error::Result;
use crate::hash::Sha256Stream;
use crate::hash::sha256;
use crate::id::VolumeName;
use crate::spool;
use crate::store::ByteRange;
use crate::store::ObjectName;
use crate::store::Source;
use crate::store::Store;
use crate::watch::Watch;

/// What one request fetches into memory.
const PIECE_BYTES: u64 = 4 << 20;

/// A volume whose bytes match its name.
pub(crate) enum Verified {
    /// In memory.
    Held(Vec<u8>),
    /// In a file.
    Spooled(File, u64),
}

impl Verified {
    /// For a PUT.
    pub fn source(&self) -> Source<'_> {
        match self {
            Verified::Held(bytes) => Source::Bytes(bytes),
            Verified::Spooled(file, bytes) => Source::File { file, bytes: *bytes },
        }
    }
}

/// Fetches a volume of `bytes` bytes. [`Error::Corrupt`] if it does not match its name.
pub(crate) fn fetch_volume(
    store: &dyn Store,
    object: &ObjectName,
    name: VolumeName,
    bytes: u64,
    spool_dir: &Path,
    watch: &Watch,
) -> Result<Verified> {
    let count = |bytes: u64| {
        watch.bytes.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
    };
    let changed = || Error::corrupt(object, format!("its bytes do not match its name, in {}", store.address()));
    if bytes <= PIECE_BYTES {
        let held = store.get(object, ByteRange::Whole { bytes_max: bytes })?;
        count(held.len() as u64);
        return if sha256(&held) == name.0 { Ok(Verified::Held(held)) } else { Err(changed()) };
    }
    let mut file = spool::create(spool_dir)?;
    let mut hash = Sha256Stream::new();
    let mut offset = 0;
    while offset < bytes {
        watch.check()?;
        let piece = store.get(object, ByteRange::Part { offset, bytes: PIECE_BYTES.min(bytes - offset) })?;
        file.write_all(&piece).map_err(|source| {
            let path = spool_dir.display().to_string();
            Error::Local { doing: "write a volume into the spool in", path, source }
        })?;
        hash.update(&piece);
        offset += piece.len() as u64;
        count(piece.len() as u64);
    }
    if hash.finish() == name.0 { Ok(Verified::Spooled(file, bytes)) } else { Err(changed()) }
}
