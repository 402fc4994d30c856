//! Finding the index of a volume, whatever is damaged.
//!
//! The trailer names all sections, and the second index lies before it: usually both came with the first request. Of
//! whatever stands twice, either copy serves. If the last locator is damaged, its copy is searched for, from the end
//! backwards in windows that grow. This reads more of a damaged volume than of an intact one, but never more than an
//! index and a gap can take.

use crate::crypto::Keys;
use crate::crypto::SealKey;
use crate::error::Error;
use crate::error::Result;
use crate::limits;
use crate::objects::VolumeKind;
use crate::read::volume::source::Source;
use crate::volume::HEADER_BYTES;
use crate::volume::Index;
use crate::volume::LOCATOR_BYTES;
use crate::volume::Locator;
use crate::volume::Salt;
use crate::volume::TRAILER_BYTES;
use crate::volume::open_index;
use crate::volume::parse_header;

/// Bytes of the first window of a search, and of the largest.
const WINDOW_BYTES_MIN: u64 = 64 << 10;
const WINDOW_BYTES_MAX: u64 = 1 << 20;
/// The copy of the locator begins at most this far before the trailer: itself, a gap with its padding, an index.
const SEARCH_BYTES_MAX: u64 = limits::INDEX_BYTES_MAX as u64 + (1 << 20) + LOCATOR_BYTES;

/// What opening a volume gives.
pub(super) struct Opened {
    pub salt: Salt,
    pub key: SealKey,
    pub index: Index,
    /// Where its last copy begins.
    pub index_offset: u64,
}

/// Finds and opens the index of a volume.
pub(super) fn open(source: &Source, keys: &Keys, kind: VolumeKind) -> Result<Opened> {
    let bytes = source.bytes;
    if bytes < HEADER_BYTES + TRAILER_BYTES {
        return Err(Error::corrupt(&source.object, "it is too short for a volume"));
    }
    let at_end = parse_header(&source.part(bytes - TRAILER_BYTES, HEADER_BYTES)?);
    let sealed = source.part(bytes - LOCATOR_BYTES, LOCATOR_BYTES)?;
    let last_locator = |salt: &Salt, key: &SealKey| Locator::open(key, kind, salt, bytes, &sealed);
    if let Ok(salt) = at_end {
        let key = keys.volume(&salt);
        if let Some(locator) = last_locator(&salt, &key) {
            return with_locator(source, kind, salt, key, &locator);
        }
    }
    let at_start = parse_header(&source.part(0, HEADER_BYTES)?);
    let mut salts: Vec<Salt> = [at_start, at_end].into_iter().filter_map(std::result::Result::ok).collect();
    salts.dedup();
    for salt in salts {
        let key = keys.volume(&salt);
        let locator = match last_locator(&salt, &key) {
            None => search(source, kind, &salt, &key)?,
            found => found,
        };
        if let Some(locator) = locator {
            return with_locator(source, kind, salt, key, &locator);
        }
    }
    let detail = match at_end {
        Err(error) => format!("its trailer: {error}"),
        Ok(_) => "the seal of its locator is broken".into(),
    };
    Err(Error::corrupt(&source.object, detail))
}

/// Opens the last copy of the index that opens.
fn with_locator(source: &Source, kind: VolumeKind, salt: Salt, key: SealKey, locator: &Locator) -> Result<Opened> {
    let index_offset = locator.indexes.last().map_or(0, |range| range.start);
    let mut detail = None;
    for range in locator.indexes.iter().rev() {
        let sealed = source.part(range.start, range.end - range.start)?;
        let found = match open_index(&key, kind, &salt, range.start, &sealed) {
            Ok(index) if index.frames_bytes() == locator.frames.end - locator.frames.start => {
                let index = Index { frames_at: locator.frames.start, ..index };
                return Ok(Opened { salt, key, index, index_offset });
            }
            Ok(_) => "its index: its frames are not as long as its locator says".into(),
            Err(error) => format!("its index: {error}"),
        };
        detail.get_or_insert(found);
    }
    Err(Error::corrupt(&source.object, detail.unwrap_or_default()))
}

/// Looks for a copy of the locator before the trailer.
fn search(source: &Source, kind: VolumeKind, salt: &Salt, key: &SealKey) -> Result<Option<Locator>> {
    let mut end = source.bytes - TRAILER_BYTES;
    let floor = end.saturating_sub(SEARCH_BYTES_MAX).max(HEADER_BYTES);
    let mut window_bytes = WINDOW_BYTES_MIN;
    while end >= floor + LOCATOR_BYTES {
        // What came with the first request costs nothing.
        let start = match end.checked_sub(source.held_from) {
            Some(held) if held > LOCATOR_BYTES => source.held_from,
            _ => end.saturating_sub(window_bytes),
        };
        let start = start.max(floor);
        let window = source.part(start, end - start)?;
        if let Some(locator) = Locator::find(key, kind, salt, source.bytes, start, &window) {
            return Ok(Some(locator));
        }
        if start == floor {
            break;
        }
        // A locator may lie across the border of two windows.
        end = start + LOCATOR_BYTES - 1;
        window_bytes = (window_bytes * 4).min(WINDOW_BYTES_MAX);
    }
    Ok(None)
}
