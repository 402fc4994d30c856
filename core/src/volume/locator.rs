//! The locator of a volume: the list of its sections, sealed, always of the same length.
//!
//! It ends the object, and a copy lies between the two copies of the index. Nothing in clear says where the copy is,
//! because that would tell the storage how long the index is. So a reader whose last locator is damaged searches: it
//! tries the seal at every place, from the end backwards. A seal opens only in its own place, because the place is part
//! of what is sealed.
//!
//! A section of an unknown kind is skipped: a later format may add some, for example parity.

use std::ops::Range;
use std::ops::RangeInclusive;

use crate::compress::Compression;
use crate::crypto::Message;
use crate::crypto::SealKey;
use crate::frame::SEAL_BYTES;
use crate::limits;
use crate::objects::VolumeKind;
use crate::volume::HEADER_BYTES;
use crate::volume::Salt;
use crate::volume::header;
use crate::wire::DecodeError;
use crate::wire::Decoder;
use crate::wire::Encoder;

/// Length of a sealed locator.
pub const LOCATOR_BYTES: u64 = PLAIN_BYTES as u64 + SEAL_BYTES as u64;
/// Length of what ends the object: the second copy of the header and the last locator.
pub const TRAILER_BYTES: u64 = HEADER_BYTES + LOCATOR_BYTES;

/// Length of the plaintext, whatever it lists.
const PLAIN_BYTES: usize = 112;
/// Places that are tried together: as many as the cipher processes at once.
const TRIED_TOGETHER: usize = 16;

/// The frames; the only section of its kind.
const FRAMES: u64 = 1;
/// A copy of the index; one or two.
const INDEX: u64 = 2;
/// A copy of the locator.
const COPY: u64 = 3;
/// Bytes that mean nothing.
const GAP: u64 = 4;

/// Bytes of a sealed index.
const INDEX_BYTES: RangeInclusive<u64> = SEAL_BYTES as u64 + 1..=limits::INDEX_BYTES_MAX as u64;

/// Where the parts of a volume lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locator {
    /// Where the frames lie.
    pub frames: Range<u64>,
    /// Where the copies of the index lie, in order: one or two.
    pub indexes: Vec<Range<u64>>,
}

/// Where the first copy of the index lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstIndex {
    /// Before the frames, which then keep the two copies apart: for a volume whose frames can wait for its index.
    BeforeFrames,
    /// Between the frames and a gap that keeps the two copies apart.
    AfterFrames,
}

impl FirstIndex {
    /// Where it lies in a volume whose frames begin at `frames_at`.
    pub fn given_by(frames_at: u64) -> FirstIndex {
        if frames_at > HEADER_BYTES { FirstIndex::BeforeFrames } else { FirstIndex::AfterFrames }
    }

    /// How the frames of a volume of this form are compressed, where the repository says `compression`. A small volume
    /// is compressed densely even then: it has so few bytes.
    pub fn compression(self, compression: Compression) -> Compression {
        match (self, compression) {
            (FirstIndex::BeforeFrames, Compression::Lz4) => Compression::Zstd(Compression::ZSTD_LEVEL_DEFAULT),
            (FirstIndex::BeforeFrames | FirstIndex::AfterFrames, as_set) => as_set,
        }
    }
}

/// The lengths of all sections, and their order.
pub(super) struct Layout {
    pub first_index: FirstIndex,
    pub frames_bytes: u64,
    pub index_bytes: u64,
    pub gap_bytes: u64,
}

impl Layout {
    /// The plaintext of the locator.
    fn encode(&self) -> Vec<u8> {
        let Layout { first_index, frames_bytes, index_bytes, gap_bytes } = *self;
        let (frames, index, copy) = ((FRAMES, frames_bytes), (INDEX, index_bytes), (COPY, LOCATOR_BYTES));
        let first = match first_index {
            FirstIndex::BeforeFrames => [index, copy, frames],
            FirstIndex::AfterFrames => [frames, index, copy],
        };
        encode(&[first.as_slice(), &[(GAP, gap_bytes), index]].concat())
    }

    /// Where the frames begin.
    pub fn frames_at(&self) -> u64 {
        match self.first_index {
            FirstIndex::BeforeFrames => HEADER_BYTES + self.index_bytes + LOCATOR_BYTES,
            FirstIndex::AfterFrames => HEADER_BYTES,
        }
    }

    /// Where the first copy of the index begins.
    pub fn first_index_offset(&self) -> u64 {
        match self.first_index {
            FirstIndex::BeforeFrames => HEADER_BYTES,
            FirstIndex::AfterFrames => HEADER_BYTES + self.frames_bytes,
        }
    }

    /// Where the second copy of the index begins.
    pub fn second_index_offset(&self) -> u64 {
        HEADER_BYTES + self.frames_bytes + self.index_bytes + LOCATOR_BYTES + self.gap_bytes
    }

    /// Length of the whole object.
    pub fn object_bytes(&self) -> u64 {
        self.second_index_offset() + self.index_bytes + TRAILER_BYTES
    }

    /// The sealed locator for the place `offset`.
    pub fn seal(&self, key: &SealKey, kind: VolumeKind, header: &[u8], offset: u64) -> Vec<u8> {
        key.seal(&associated_data(kind, header, self.object_bytes(), offset), &self.encode())
    }
}

pub(super) fn encode(sections: &[(u64, u64)]) -> Vec<u8> {
    let mut out = Encoder::new();
    out.varint(sections.len() as u64);
    for (kind, bytes) in sections {
        out.varint(*kind);
        out.varint(*bytes);
    }
    let mut plain = out.finish();
    plain.resize(PLAIN_BYTES, 0);
    plain
}

impl Locator {
    /// Opens the locator that ends an object of `object_bytes` bytes, given its last [`LOCATOR_BYTES`]. `None` if its
    /// seal is broken or its content is impossible.
    pub fn open(key: &SealKey, kind: VolumeKind, salt: &Salt, object_bytes: u64, sealed: &[u8]) -> Option<Locator> {
        let offset = object_bytes.checked_sub(LOCATOR_BYTES)?;
        let plain = key.open(&associated_data(kind, &header(salt), object_bytes, offset), sealed).ok()?;
        Locator::decode(&plain, object_bytes).ok()
    }

    /// Looks for a locator in `window`, the bytes of the object from `offset` on: the last one, if there are several.
    pub fn find(
        key: &SealKey,
        kind: VolumeKind,
        salt: &Salt,
        object_bytes: u64,
        offset: u64,
        window: &[u8],
    ) -> Option<Locator> {
        let header = header(salt);
        let length = LOCATOR_BYTES as usize;
        let mut end = (window.len() + 1).saturating_sub(length);
        while end > 0 {
            let places = end.saturating_sub(TRIED_TOGETHER)..end;
            end = places.start;
            let ads: Vec<Vec<u8>> = places
                .clone()
                .map(|place| associated_data(kind, &header, object_bytes, offset + place as u64))
                .collect();
            let mut copies: Vec<Vec<u8>> =
                places.filter_map(|place| Some(window.get(place..place + length)?.to_vec())).collect();
            let messages = copies.iter_mut().zip(&ads).map(|(bytes, ad)| Message { ad, bytes });
            let opened = key.open_all(messages.collect());
            let found = opened.into_iter().rev().flatten().find_map(|plain| Locator::decode(plain, object_bytes).ok());
            if found.is_some() {
                return found;
            }
        }
        None
    }

    fn decode(plain: &[u8], object_bytes: u64) -> Result<Locator, DecodeError> {
        let impossible = DecodeError::Invalid("the list of sections");
        let mut input = Decoder::new(plain);
        let (mut frames, mut indexes) = (None, Vec::new());
        let mut offset = HEADER_BYTES;
        for _ in 0..input.count(limits::VOLUME_SECTIONS_MAX, "the number of sections")? {
            let (kind, bytes) = (input.varint()?, input.varint()?);
            let end = offset.checked_add(bytes).ok_or(impossible)?;
            match kind {
                FRAMES if frames.is_some() => return Err(impossible),
                FRAMES => frames = Some(offset..end),
                INDEX if !INDEX_BYTES.contains(&bytes) => return Err(impossible),
                INDEX => indexes.push(offset..end),
                COPY if bytes != LOCATOR_BYTES => return Err(impossible),
                _ => {}
            }
            offset = end;
        }
        if input.raw(input.remaining())?.iter().any(|byte| *byte != 0) {
            return Err(DecodeError::Trailing);
        }
        let is_possible = Some(offset) == object_bytes.checked_sub(TRAILER_BYTES) && (1..=2).contains(&indexes.len());
        match frames.filter(|_| is_possible) {
            Some(frames) => Ok(Locator { frames, indexes }),
            None => Err(impossible),
        }
    }
}

fn associated_data(kind: VolumeKind, header: &[u8], object_bytes: u64, offset: u64) -> Vec<u8> {
    let (object_bytes, offset) = (object_bytes.to_le_bytes(), offset.to_le_bytes());
    [b"bygone/1 locator".as_slice(), &[kind.code()], header, &object_bytes, &offset].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: u64 = 10_000;
    /// Bytes of all sections.
    const END: u64 = OBJECT - TRAILER_BYTES - HEADER_BYTES;

    fn decode(sections: &[(u64, u64)]) -> Option<Locator> {
        Locator::decode(&encode(sections), OBJECT).ok()
    }

    #[test]
    fn sections_of_unknown_kinds_are_skipped() {
        let locator = decode(&[(FRAMES, 100), (99, 50), (INDEX, 30), (1 << 40, 0), (GAP, END - 180)]).unwrap();
        assert_eq!(locator.frames, 48..148);
        assert!(locator.indexes.iter().eq([&(198..228)]));
        let locator = decode(&[(99, 50), (INDEX, 30), (FRAMES, 100), (INDEX, END - 180)]).unwrap();
        assert_eq!(locator, Locator { frames: 128..228, indexes: vec![98..128, 228..48 + END] });
    }

    #[test]
    fn impossible_lists_of_sections_are_refused() {
        assert!(decode(&[(FRAMES, 100), (INDEX, END - 100)]).is_some());
        for sections in [
            &[][..],
            &[(INDEX, END)],
            &[(FRAMES, END)],
            &[(FRAMES, 100), (FRAMES, 100), (INDEX, END - 200)],
            &[(FRAMES, 100), (INDEX, END - 101)],
            &[(FRAMES, 100), (INDEX, END - 99)],
            &[(FRAMES, u64::MAX), (INDEX, END)],
            &[(FRAMES, 100), (INDEX, 20), (INDEX, 20), (INDEX, END - 140)],
            &[(FRAMES, 100), (INDEX, 16), (GAP, END - 116)],
            &[(FRAMES, 100), (INDEX, 20), (COPY, 10), (GAP, END - 130)],
            &[(FRAMES, 1), (GAP, 1), (GAP, 1), (GAP, 1), (GAP, 1), (GAP, 1), (GAP, 1), (GAP, 1), (INDEX, END - 8)],
        ] {
            assert_eq!(decode(sections), None, "{sections:?}");
        }
        let mut plain = encode(&[(FRAMES, 100), (INDEX, END - 100)]);
        *plain.last_mut().unwrap() = 1;
        assert_eq!(Locator::decode(&plain, OBJECT), Err(DecodeError::Trailing));
        let is_refused = |object_bytes| Locator::decode(&encode(&[(FRAMES, 0), (INDEX, 17)]), object_bytes).is_err();
        assert!(is_refused(7) && is_refused(64 + TRAILER_BYTES) && !is_refused(65 + TRAILER_BYTES));
    }
}
