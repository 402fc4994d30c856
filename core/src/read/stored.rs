//! The space that the content of a file takes in the store.

use std::collections::BTreeMap;

use crate::catalog::VolumeRow;
use crate::entry::Content;
use crate::error::Error;
use crate::error::Result;
use crate::read::map::FileMap;
use crate::read::view::View;
use crate::volume::frame_plain_bytes;

/// The space that the content of a file takes in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredContent {
    /// Names of the volumes that hold its blocks, sorted.
    pub volumes: Vec<String>,
    /// Bytes, in proportion to the file's part of each frame. A block that occurs twice counts twice.
    pub bytes: u64,
}

impl View {
    /// The space that `content` takes in the store; none if it is inline.
    pub fn stored(&self, content: &Content) -> Result<StoredContent> {
        let catalog = self.catalog();
        let file = FileMap::new(catalog, content)?;
        let mut volumes: BTreeMap<i64, VolumeRow> = BTreeMap::new();
        let mut bytes = 0;
        let mut at = 0;
        while file.inline().is_none() && at < file.length() {
            let page = match file.loaded_page(at) {
                Some(page) => page,
                None => file.load_page(catalog, at)?,
            };
            for segment in page.segments_from(at) {
                at = segment.end();
                for (frame, part) in segment.place(0..segment.length).into_iter().flatten() {
                    let row = match volumes.get(&frame.volume) {
                        Some(row) => row,
                        None => {
                            let row = catalog.volume(frame.volume)?.ok_or_else(|| unknown(frame.volume))?;
                            volumes.entry(frame.volume).or_insert(row)
                        }
                    };
                    let (_, info) = row.frames.get(frame.ordinal as usize).ok_or_else(|| unknown(frame.volume))?;
                    let plain = u64::from(frame_plain_bytes(row.plain_bytes, frame.ordinal)).max(1);
                    bytes += (u64::from(info.stored_bytes) * part.len() as u64).div_ceil(plain);
                }
            }
        }
        let mut volumes: Vec<String> = volumes.into_values().map(|row| row.name.to_hex()).collect();
        volumes.sort();
        Ok(StoredContent { volumes, bytes })
    }
}

fn unknown(volume: i64) -> Error {
    Error::local_corrupt(format!("volume number {volume}"), "a file uses more of it than the catalog describes")
}
