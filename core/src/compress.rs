//! Compression of one frame, trusted only after a test decompression.
//!
//! Encoders have lost data in other programs, and a sealed frame that does not decompress is lost for ever. So every
//! compressed frame is decompressed again and compared; if it differs, the frame is stored raw and the mismatch is
//! counted. A frame that shrinks by less than a thirty-second part (3 %) is stored raw too, because it would cost time
//! at each read.
//!
//! Hopeless data (media, archives, ciphertext) needs no special care in general: on noise, LZ4 runs at 9 GB/s and zstd
//! at 7 to 0.5 GB/s up to level 12, faster than either compresses text, while probing a sample first would cost
//! repositories of small compressed files 3 % of their size. Only from level 13 on is zstd slow on noise (0.02 to 0.05
//! GB/s). There, a frame is skipped if LZ4 does not shorten it and its bytes are evenly spread. Both must hold: base64
//! has no repetitions, but its bytes are uneven.
//!
//! A compressed frame is always shorter than its plaintext, and the decoder checks that before it allocates.

use std::fmt;
use std::str::FromStr;

use lz4_flex::block::CompressTable;
use lz4_flex::block::compress_into_with_table;
use lz4_flex::block::decompress_into;
use lz4_flex::block::get_maximum_output_size;
use zstd::bulk::Compressor as ZstdCompressor;
use zstd::bulk::Decompressor as ZstdDecompressor;

/// From this level on, zstd is slow on incompressible data.
const ZSTD_LEVEL_SLOW_ON_NOISE: i32 = 13;

/// How new frames are to be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Not at all.
    None,
    /// LZ4 block format: fast.
    #[default]
    Lz4,
    /// Zstandard at a level from 1 to 19: smaller.
    Zstd(i32),
}

impl Compression {
    /// Lowest zstd level.
    pub const ZSTD_LEVEL_MIN: i32 = 1;
    /// Highest zstd level; beyond it memory grows and sizes hardly shrink.
    pub const ZSTD_LEVEL_MAX: i32 = 19;
    /// The level of plain `zstd`.
    pub const ZSTD_LEVEL_DEFAULT: i32 = 3;
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Compression::None => f.write_str("none"),
            Compression::Lz4 => f.write_str("lz4"),
            Compression::Zstd(level) => write!(f, "zstd:{level}"),
        }
    }
}

/// A text that names no compression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a compression: use none, lz4, zstd, or zstd:1 to zstd:19")]
pub struct UnknownCompression(String);

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(text: &str) -> Result<Compression, UnknownCompression> {
        let unknown = || UnknownCompression(text.to_owned());
        match text {
            "none" => Ok(Compression::None),
            "lz4" => Ok(Compression::Lz4),
            "zstd" => Ok(Compression::Zstd(Compression::ZSTD_LEVEL_DEFAULT)),
            _ => {
                let digits = text.strip_prefix("zstd:").ok_or_else(unknown)?;
                let level: i32 = digits.parse().map_err(|_| unknown())?;
                let known = (Compression::ZSTD_LEVEL_MIN..=Compression::ZSTD_LEVEL_MAX).contains(&level);
                // One level has one spelling: no sign, no leading zero.
                if known && level.to_string() == digits { Ok(Compression::Zstd(level)) } else { Err(unknown()) }
            }
        }
    }
}

/// How the bytes of one stored frame are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// As they are.
    Raw = 0,
    /// LZ4 block format, without a length in front.
    Lz4 = 1,
    /// One Zstandard frame.
    Zstd = 2,
}

impl Codec {
    /// The codec of this number, if there is one.
    pub fn from_u8(number: u8) -> Option<Codec> {
        match number {
            0 => Some(Codec::Raw),
            1 => Some(Codec::Lz4),
            2 => Some(Codec::Zstd),
            _ => None,
        }
    }

    /// Its number.
    pub fn to_u8(self) -> u8 {
        self as u8
    }
}

/// Why a frame could not be decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecompressError {
    /// The compressed length is impossible for this codec and plaintext length.
    #[error("a compressed frame has an impossible length")]
    Length,
    /// The compressed bytes do not decode.
    #[error("a compressed frame does not decompress")]
    Invalid,
    /// They decompress to another length.
    #[error("a compressed frame decompresses to another length than its index says")]
    OtherLength,
}

enum Engine {
    Raw,
    Lz4,
    Zstd(ZstdCompressor<'static>),
}

/// Compresses frames; one a thread, as it keeps its tables between calls.
pub struct Compressor {
    engine: Engine,
    is_slow_on_noise: bool,
    lz4_table: CompressTable,
    decompressor: Decompressor,
    packed: Vec<u8>,
    unpacked: Vec<u8>,
    mismatches: u64,
}

impl Compressor {
    /// Makes ready. A zstd level out of range is brought into it.
    pub fn new(compression: Compression) -> Compressor {
        let mut is_slow_on_noise = false;
        let engine = match compression {
            Compression::None => Engine::Raw,
            Compression::Lz4 => Engine::Lz4,
            Compression::Zstd(level) => {
                let level = level.clamp(Compression::ZSTD_LEVEL_MIN, Compression::ZSTD_LEVEL_MAX);
                is_slow_on_noise = level >= ZSTD_LEVEL_SLOW_ON_NOISE;
                // Without an encoder the frames are stored raw: larger, but safe.
                ZstdCompressor::new(level).map_or(Engine::Raw, Engine::Zstd)
            }
        };
        Compressor {
            engine,
            is_slow_on_noise,
            lz4_table: CompressTable::large(),
            decompressor: Decompressor::new(),
            packed: Vec::new(),
            unpacked: Vec::new(),
            mismatches: 0,
        }
    }

    /// The shortest form of `plain` that pays, after `room_bytes` zeros, and its codec.
    pub fn compress(&mut self, plain: &[u8], room_bytes: usize) -> (Codec, Vec<u8>) {
        let (codec, bytes) = match self.pack(plain) {
            Some((codec, packed_bytes)) if self.undoes(codec, packed_bytes, plain) => {
                (codec, &self.packed[..packed_bytes])
            }
            _ => (Codec::Raw, plain),
        };
        let mut out = Vec::with_capacity(room_bytes + bytes.len());
        out.resize(room_bytes, 0);
        out.extend_from_slice(bytes);
        (codec, out)
    }

    /// Frames that were stored raw because their compressed form did not decompress to the plaintext. Any number but 0
    /// means a broken encoder, memory or processor, and should be reported to the user.
    pub fn mismatches(&self) -> u64 {
        self.mismatches
    }

    /// Compresses into `self.packed`; `None` if that does not pay.
    fn pack(&mut self, plain: &[u8]) -> Option<(Codec, usize)> {
        if self.is_slow_on_noise && self.is_hopeless(plain) {
            return None;
        }
        let (codec, packed_bytes) = match &mut self.engine {
            Engine::Raw => return None,
            Engine::Lz4 => (Codec::Lz4, lz4(plain, &mut self.packed, &mut self.lz4_table)?),
            Engine::Zstd(engine) => {
                reserve(&mut self.packed, zstd::zstd_safe::compress_bound(plain.len()));
                (Codec::Zstd, engine.compress_to_buffer(plain, self.packed.as_mut_slice()).ok()?)
            }
        };
        let pays = packed_bytes < plain.len() && packed_bytes <= plain.len() - plain.len() / 32;
        pays.then_some((codec, packed_bytes))
    }

    /// True if `plain` has no repetitions and its byte values are equally frequent.
    fn is_hopeless(&mut self, plain: &[u8]) -> bool {
        let lz4_bytes = lz4(plain, &mut self.packed, &mut self.lz4_table);
        lz4_bytes.is_none_or(|bytes| bytes >= plain.len()) && is_evenly_spread(plain)
    }

    /// True if the first `packed_bytes` of `self.packed` decompress to `plain`; counts a mismatch otherwise.
    fn undoes(&mut self, codec: Codec, packed_bytes: usize, plain: &[u8]) -> bool {
        reserve(&mut self.unpacked, plain.len());
        let unpacked = &mut self.unpacked[..plain.len()];
        let packed = &self.packed[..packed_bytes];
        let same = self.decompressor.decompress_into(codec, packed, unpacked).is_ok() && unpacked == plain;
        self.mismatches += u64::from(!same);
        same
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").field("mismatches", &self.mismatches).finish_non_exhaustive()
    }
}

/// Decompresses frames; one a thread, as it keeps its tables between calls.
#[derive(Default)]
pub struct Decompressor {
    zstd: Option<ZstdDecompressor<'static>>,
}

impl Decompressor {
    /// Makes ready.
    pub fn new() -> Decompressor {
        Decompressor::default()
    }

    /// The plaintext of a frame, exactly `plain_bytes` long. Whatever the frame holds, no more than that is allocated;
    /// the caller has checked `plain_bytes` against its limit.
    pub fn decompress(&mut self, codec: Codec, bytes: &[u8], plain_bytes: usize) -> Result<Vec<u8>, DecompressError> {
        check_length(codec, bytes, plain_bytes)?;
        if codec == Codec::Raw {
            return Ok(bytes.to_vec());
        }
        let mut plain = vec![0; plain_bytes];
        self.decompress_into(codec, bytes, &mut plain)?;
        Ok(plain)
    }

    /// As [`Decompressor::decompress`], filling `plain` exactly. After an error its content is undefined.
    pub fn decompress_into(&mut self, codec: Codec, bytes: &[u8], plain: &mut [u8]) -> Result<(), DecompressError> {
        check_length(codec, bytes, plain.len())?;
        let filled_bytes = match codec {
            Codec::Raw => {
                plain.copy_from_slice(bytes);
                plain.len()
            }
            Codec::Lz4 => decompress_into(bytes, plain).map_err(|_| DecompressError::Invalid)?,
            Codec::Zstd => self
                .zstd
                .get_or_insert_default()
                .decompress_to_buffer(bytes, plain)
                .map_err(|_| DecompressError::Invalid)?,
        };
        if filled_bytes == plain.len() { Ok(()) } else { Err(DecompressError::OtherLength) }
    }
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decompressor")
    }
}

fn check_length(codec: Codec, bytes: &[u8], plain_bytes: usize) -> Result<(), DecompressError> {
    let possible = if codec == Codec::Raw { bytes.len() == plain_bytes } else { bytes.len() < plain_bytes };
    if possible { Ok(()) } else { Err(DecompressError::Length) }
}

/// LZ4 of `plain` into `packed`; its length.
fn lz4(plain: &[u8], packed: &mut Vec<u8>, table: &mut CompressTable) -> Option<usize> {
    reserve(packed, get_maximum_output_size(plain.len()));
    compress_into_with_table(plain, packed, table).ok()
}

/// Grows `buffer` to at least `bytes`; it never shrinks, so the next frame can reuse it.
fn reserve(buffer: &mut Vec<u8>, bytes: usize) {
    if buffer.len() < bytes {
        buffer.resize(bytes, 0);
    }
}

/// True if an ideal entropy coder would save less than 1.5 % of `bytes`, half of what makes compression pay.
///
/// The sum of the squared counts of `n` bytes is `n^2 / 256` if all are equally frequent, `n` more by chance if they
/// are random, and about `n^2 / 256 * 2 ln(2) * b` more if a coder saves `b` bits a byte; 1.5 % is 0.12 bits, which
/// makes a sixth.
fn is_evenly_spread(bytes: &[u8]) -> bool {
    let mut counts = [0u64; 256];
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
    let squares: u64 = counts.iter().map(|count| count * count).sum();
    let n = bytes.len() as u64;
    squares * 256 <= n * n + n * n / 6 + n * 256
}

#[cfg(test)]
mod tests;
