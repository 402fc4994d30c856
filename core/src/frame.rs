//! A frame: 128 KiB of consecutive new blocks, compressed and sealed as a unit.
//!
//! The frame is the smallest unit of fetching and opening: one flipped bit loses one frame, a mount opens 128 KiB
//! instead of 64 MiB, and threads open frames in parallel. The seal binds a frame to its volume (by the key), to its
//! kind and place (by the associated data) and to its plaintext length, so no frame can stand in for another.

use crate::compress::Codec;
use crate::compress::DecompressError;
use crate::compress::Decompressor;
use crate::crypto::Message;
use crate::crypto::OpenError;
use crate::crypto::SealKey;
use crate::objects::VolumeKind;

/// Bytes that sealing adds: the synthetic IV.
pub const SEAL_BYTES: u32 = 16;

/// Why a frame has no plaintext.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The seal is broken: the bytes are not those that were stored here.
    #[error("its seal is broken")]
    Seal(#[from] OpenError),
    /// The seal is intact, but the content does not decompress.
    #[error("it does not decompress: {0}")]
    Decompress(#[from] DecompressError),
}

fn associated_data(kind: VolumeKind, ordinal: u32, plain_bytes: u32) -> [u8; 23] {
    let mut ad = *b"bygone/1 frame\0........";
    let fields = [kind.code()].into_iter().chain(ordinal.to_le_bytes()).chain(plain_bytes.to_le_bytes());
    ad.iter_mut().skip(14).zip(fields).for_each(|(to, from)| *to = from);
    ad
}

/// A compressed frame, to be sealed in place.
pub struct Unsealed<'a> {
    /// Its number in its volume.
    pub ordinal: u32,
    /// Length of its plaintext.
    pub plain_bytes: u32,
    /// [`SEAL_BYTES`] bytes of room, then the compressed bytes.
    pub bytes: &'a mut [u8],
}

/// Seals frames of one volume. Together they take a fraction of the time that single calls would.
pub fn seal_all(key: &SealKey, kind: VolumeKind, frames: Vec<Unsealed<'_>>) {
    let ads: Vec<_> = frames.iter().map(|frame| associated_data(kind, frame.ordinal, frame.plain_bytes)).collect();
    let messages = frames.into_iter().zip(&ads).map(|(frame, ad)| Message { ad, bytes: frame.bytes });
    key.seal_all(messages.collect());
}

/// A frame as it lies in its volume.
pub struct Stored<'a> {
    /// Its number in its volume.
    pub ordinal: u32,
    /// Length of its plaintext.
    pub plain_bytes: u32,
    /// How it is compressed.
    pub codec: Codec,
    /// Its sealed bytes; it is opened in place.
    pub bytes: &'a mut [u8],
}

/// Opens frames of one volume, and decompresses each into exactly its `plain_bytes` bytes.
pub fn open_all(
    key: &SealKey,
    kind: VolumeKind,
    frames: Vec<Stored<'_>>,
    decompressor: &mut Decompressor,
) -> Vec<Result<Vec<u8>, FrameError>> {
    let forms: Vec<_> = frames.iter().map(|frame| (frame.codec, frame.plain_bytes)).collect();
    let ads: Vec<_> = frames.iter().map(|frame| associated_data(kind, frame.ordinal, frame.plain_bytes)).collect();
    let sealed = frames.into_iter().zip(&ads).map(|(frame, ad)| Message { ad, bytes: frame.bytes });
    let opened = key.open_all(sealed.collect()).into_iter().zip(forms);
    let plain = opened.map(|(compressed, (codec, plain_bytes))| {
        Ok(decompressor.decompress(codec, compressed?, plain_bytes as usize)?)
    });
    plain.collect()
}
