//! Compression is undone exactly, never believed, and safe against any bytes.

use super::*;

const ALL: [Compression; 4] = [Compression::None, Compression::Lz4, Compression::Zstd(1), Compression::Zstd(19)];

/// Bytes without any structure, from a fixed seed.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

#[test]
fn what_repeats_shrinks_and_what_does_not_is_raw() {
    let text = b"the data comes back > it is right > it is simple > it is fast\n".repeat(2114);
    for compression in ALL {
        let mut compressor = Compressor::new(compression);
        let (codec, bytes) = compressor.compress(&text);
        let expected = match compression {
            Compression::None => Codec::Raw,
            Compression::Lz4 => Codec::Lz4,
            Compression::Zstd(_) => Codec::Zstd,
        };
        assert_eq!(codec, expected);
        assert!(codec == Codec::Raw || bytes.len() < text.len() / 50, "{compression}: {} bytes", bytes.len());
        assert_eq!(Decompressor::new().decompress(codec, &bytes, text.len()), Ok(text.clone()));
        let hopeless = noise(128 << 10);
        assert_eq!(compressor.compress(&hopeless), (Codec::Raw, hopeless), "{compression}");
        assert_eq!(compressor.mismatches(), 0);
    }
}
