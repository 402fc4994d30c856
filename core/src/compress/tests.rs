//! What was compressed comes back exactly or is stored raw, and no bytes whatever harm the decoder.

use proptest::prelude::*;

use super::*;
use crate::noise::noise;

const ALL: [Compression; 5] =
    [Compression::None, Compression::Lz4, Compression::Zstd(1), Compression::Zstd(3), Compression::Zstd(19)];
const CODECS: [Codec; 3] = [Codec::Raw, Codec::Lz4, Codec::Zstd];

fn text(bytes: usize) -> Vec<u8> {
    b"the data comes back > it is right > it is simple > it is fast\n".iter().copied().cycle().take(bytes).collect()
}

fn own_codec(compression: Compression) -> Codec {
    match compression {
        Compression::None => Codec::Raw,
        Compression::Lz4 => Codec::Lz4,
        Compression::Zstd(_) => Codec::Zstd,
    }
}

/// Compresses, decompresses, compares; the codec and the stored length.
fn there_and_back(compressor: &mut Compressor, plain: &[u8]) -> (Codec, usize) {
    let (codec, bytes) = compressor.compress(plain, 0);
    assert_eq!(compressor.compress(plain, 3), (codec, [&[0; 3], bytes.as_slice()].concat()));
    let mut decompressor = Decompressor::new();
    assert_eq!(decompressor.decompress(codec, &bytes, plain.len()).as_deref(), Ok(plain));
    assert_eq!(compressor.mismatches(), 0);
    (codec, bytes.len())
}

#[test]
fn what_repeats_shrinks_and_noise_is_raw() {
    for compression in ALL {
        let mut compressor = Compressor::new(compression);
        let (codec, stored_bytes) = there_and_back(&mut compressor, &text(128 << 10));
        assert_eq!(codec, own_codec(compression));
        assert!(codec == Codec::Raw || stored_bytes < 2000, "{compression}: {stored_bytes} bytes");
        for bytes in [0, 1, 12, 13, 4096, 16_383, 16_384, 128 << 10] {
            assert_eq!(there_and_back(&mut compressor, &noise(1, bytes)), (Codec::Raw, bytes), "{compression}");
        }
        assert_eq!(there_and_back(&mut compressor, &[]), (Codec::Raw, 0));
        assert_eq!(there_and_back(&mut compressor, &vec![0; 16 << 20]).0, codec, "a frame far longer than usual");
    }
}

#[test]
fn a_frame_must_shrink_by_a_thirty_second_part() {
    // Noise, then a run of zeros of a few hundredths of the whole.
    for compression in [Compression::Lz4, Compression::Zstd(1)] {
        let mut compressor = Compressor::new(compression);
        for (zeros, expected) in [(320, Codec::Raw), (960, own_codec(compression))] {
            let mut plain = noise(1, 15_000 - zeros);
            plain.resize(15_000, 0);
            assert_eq!(there_and_back(&mut compressor, &plain).0, expected, "{compression}: {zeros} zeros of 15000");
        }
    }
}

#[test]
fn a_slow_encoder_is_spared_noise_and_nothing_else() {
    let mut compressor = Compressor::new(Compression::Zstd(19));
    assert!(compressor.is_hopeless(&noise(1, 128 << 10)));
    assert!(!compressor.is_hopeless(&text(128 << 10)));
    let base64: Vec<u8> = noise(1, 128 << 10).iter().map(|byte| b'0' + byte % 64).collect();
    assert!(!compressor.is_hopeless(&base64), "without repetitions, but entropy coding saves a quarter");
    let mut slanted = noise(1, 128 << 10);
    slanted.iter_mut().step_by(2).for_each(|byte| *byte &= 0x7f);
    assert!(!compressor.is_hopeless(&slanted), "half of the bytes are ASCII: entropy coding saves 2.4 %");
    let archives = noise(1, 20 << 10).repeat(2);
    assert!(!compressor.is_hopeless(&archives), "noise that comes twice");
    assert_eq!(there_and_back(&mut compressor, &archives).0, Codec::Zstd);
    assert_eq!(there_and_back(&mut compressor, &noise(1, 128 << 10)).0, Codec::Raw);
    let zstd = there_and_back(&mut Compressor::new(Compression::Zstd(1)), &base64);
    assert!(zstd.0 == Codec::Zstd && zstd.1 < base64.len() * 4 / 5, "{zstd:?}");
}

#[test]
fn a_broken_encoder_costs_space_and_is_counted() {
    for compression in [Compression::Lz4, Compression::Zstd(1)] {
        let plain = text(5000);
        let mut compressor = Compressor::new(compression);
        let (codec, packed_bytes) = compressor.pack(&plain).unwrap();
        assert!(compressor.undoes(codec, packed_bytes, &plain), "before anything is broken");
        assert!(!compressor.undoes(codec, packed_bytes - 1, &plain), "the last byte is missing");
        let mut other = plain.clone();
        other[4321] ^= 1;
        assert!(!compressor.undoes(codec, packed_bytes, &other), "it is another plaintext");
        assert!(!compressor.undoes(codec, packed_bytes, &plain[1..]), "of another length");
        assert_eq!(compressor.mismatches(), 3);
    }
}

#[test]
fn lengths_that_lie_are_refused_before_anything_is_allocated() {
    let (codec, bytes) = Compressor::new(Compression::Lz4).compress(&text(1000), 0);
    let mut decompressor = Decompressor::new();
    assert_eq!(decompressor.decompress(codec, &bytes, 1001), Err(DecompressError::OtherLength));
    assert_eq!(decompressor.decompress(codec, &bytes, 999), Err(DecompressError::Invalid), "the rest has no place");
    for codec in CODECS {
        let got = decompressor.decompress(codec, &[0; 10], 9);
        assert_eq!(got, Err(DecompressError::Length), "{codec:?}: longer than its plaintext");
    }
    assert_eq!(decompressor.decompress(Codec::Raw, &[0; 10], 1 << 40), Err(DecompressError::Length));
    for codec in [Codec::Lz4, Codec::Zstd] {
        assert_eq!(decompressor.decompress(codec, &[], 0), Err(DecompressError::Length), "nothing is stored raw");
    }
}

#[test]
fn a_bomb_does_not_go_off() {
    // A quarter of a gigabyte of zeros in some kilobytes of zstd, presented as a frame of 128 KiB.
    let bomb = zstd::bulk::compress(&vec![0; 256 << 20], 1).unwrap();
    assert!(bomb.len() < 128 << 10);
    let got = Decompressor::new().decompress(Codec::Zstd, &bomb, 128 << 10);
    assert_eq!(got, Err(DecompressError::Invalid));
}

#[test]
fn the_names_of_compressions_are_exact() {
    for (text, compression, canonical) in [
        ("none", Compression::None, "none"),
        ("lz4", Compression::Lz4, "lz4"),
        ("zstd", Compression::Zstd(3), "zstd:3"),
        ("zstd:1", Compression::Zstd(1), "zstd:1"),
        ("zstd:19", Compression::Zstd(19), "zstd:19"),
    ] {
        assert_eq!(text.parse(), Ok(compression));
        assert_eq!(compression.to_string(), canonical);
    }
    for bad in ["", "LZ4", "lz4:1", "zstd:", "zstd:0", "zstd:20", "zstd:-1", "zstd:+3", "zstd:03", "zstd:3 ", " zstd"] {
        let error = bad.parse::<Compression>().unwrap_err().to_string();
        assert!(error.contains("is not a compression: use none, lz4"), "{bad:?}: {error}");
    }
    let clamped = Compressor::new(Compression::Zstd(i32::MAX)).compress(&text(5000), 0);
    assert_eq!(clamped, Compressor::new(Compression::Zstd(19)).compress(&text(5000), 0));
}

#[test]
fn the_numbers_of_codecs_are_fixed() {
    for (number, codec) in [(0, Codec::Raw), (1, Codec::Lz4), (2, Codec::Zstd)] {
        assert_eq!((Codec::from_u8(number), codec.to_u8()), (Some(codec), number));
    }
    assert!((3..=255).all(|number| Codec::from_u8(number).is_none()));
}

/// Bytes as files have them: runs, repetitions and noise.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        (any::<u8>(), 0usize..3000).prop_map(|(byte, count)| vec![byte; count]),
        prop::collection::vec(any::<u8>(), 0..600),
        (prop::collection::vec(any::<u8>(), 1..40), 0usize..90).prop_map(|(word, count)| word.repeat(count)),
        (0usize..20_000).prop_map(|length| noise(1, length)),
    ];
    prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn content_comes_back_and_never_grows(frames in prop::collection::vec(content(), 1..4), which in 0..ALL.len()) {
        // One compressor for all frames: what it keeps between calls must not show.
        let mut compressor = Compressor::new(ALL[which]);
        for plain in &frames {
            let (codec, stored_bytes) = there_and_back(&mut compressor, plain);
            prop_assert!(codec == Codec::Raw || stored_bytes <= plain.len() - plain.len() / 32);
            prop_assert!(codec != Codec::Raw || stored_bytes == plain.len());
            prop_assert_eq!(compressor.compress(plain, 0), Compressor::new(ALL[which]).compress(plain, 0));
        }
    }

    #[test]
    fn any_bytes_decompress_to_the_length_asked_for_or_not_at_all(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        plain_bytes in 0usize..5000,
        which in 0..CODECS.len(),
    ) {
        let mut decompressor = Decompressor::new();
        if let Ok(plain) = decompressor.decompress(CODECS[which], &bytes, plain_bytes) {
            prop_assert_eq!(plain.len(), plain_bytes);
        }
        // A decoder that has just failed still works.
        let (codec, good) = Compressor::new(Compression::Zstd(1)).compress(&text(900), 0);
        prop_assert_eq!(decompressor.decompress(codec, &good, 900), Ok(text(900)));
    }

    #[test]
    fn damaged_frames_decompress_to_their_length_or_not_at_all(
        plain in content(),
        which in 1..ALL.len(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        cut in any::<prop::sample::Index>(),
    ) {
        let (codec, mut bytes) = Compressor::new(ALL[which]).compress(&plain, 0);
        prop_assume!(!bytes.is_empty());
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
            if let Ok(got) = Decompressor::new().decompress(codec, bytes, plain.len()) {
                prop_assert_eq!(got.len(), plain.len());
            }
        }
    }
}
