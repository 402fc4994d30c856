//! A new `bygone.json` for a repository of which no copy of the old one is left.
//!
//! Nothing in it is needed to read: the repository's id stands in each key slot, and everything else guides writers. The
//! block size is taken from the volumes all the same, because files cut at other places would share no block with those
//! that are stored. The indexes give a rolling checksum to full-size blocks only, so one such block tells the size. The
//! other settings start from their defaults.
//!
//! Features that were named in the lost description are lost with it. Whatever rests on a feature that this program
//! does not know still fails to open by itself.

use std::sync::Arc;

use crate::compress::Compression;
use crate::config::Config;
use crate::crypto::Keys;
use crate::error::Result;
use crate::features::Features;
use crate::id::RepositoryId;
use crate::limits;
use crate::objects::ObjectKind;
use crate::objects::VolumeKind;
use crate::read::VolumeFile;
use crate::store::Store;

/// Volumes whose indexes are read in search of a full-size block. Only a repository of nothing but small files has none
/// in so many, and no block size suits it better than another.
const VOLUMES_READ_MAX: usize = 100;

/// The description that fits what the store holds.
pub(super) fn from_volumes(store: &Arc<dyn Store>, keys: &Keys, repository: RepositoryId) -> Result<Config> {
    let block_bytes = block_bytes(store, keys)?.unwrap_or(limits::BLOCK_BYTES_DEFAULT);
    let config = Config {
        repository,
        block_bytes,
        volume_bytes: limits::VOLUME_BYTES_DEFAULT,
        compression: Compression::default(),
        features: Features::default(),
    };
    config.validate()?;
    Ok(config)
}

fn block_bytes(store: &Arc<dyn Store>, keys: &Keys) -> Result<Option<u32>> {
    // Both kinds, because the blocks of a small backup lie beside its nodes.
    for kind in VolumeKind::ALL {
        for listed in store.list(kind.folder())?.iter().take(VOLUMES_READ_MAX) {
            let Some(ObjectKind::Volume(_, name)) = listed.name.kind() else { continue };
            let file = match VolumeFile::open(store, keys, kind, name, listed.bytes) {
                Ok(file) => file,
                Err(error) if error.is_object_fault() => continue,
                Err(error) => return Err(error),
            };
            let full = file.index().blocks.iter().find(|block| block.checksum.is_some()).map(|block| block.length);
            if let Some(length) = full.filter(|length| is_block_size(*length)) {
                return Ok(Some(length));
            }
        }
    }
    Ok(None)
}

fn is_block_size(length: u32) -> bool {
    length.is_power_of_two() && (limits::BLOCK_BYTES_MIN..=limits::BLOCK_BYTES_MAX).contains(&length)
}
