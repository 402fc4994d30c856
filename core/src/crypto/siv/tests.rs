//! Sealing tested with published vectors, with another implementation, and with damage.

use aes_siv::siv::Aes128Siv;
use aes_siv::siv::Aes256Siv;
use proptest::prelude::*;

use super::*;
use crate::hash::sha256;
use crate::id::hex;
use crate::noise::noise;

/// What crate aes-siv makes of the same.
fn by_the_crate(key: [u8; 64], ad: &[u8], plain: &[u8]) -> Vec<u8> {
    Aes256Siv::new((&key).into()).encrypt([ad], plain).unwrap()
}

/// All of `plain` sealed as one batch.
fn seal_together(key: &SealKey, ads: &[Vec<u8>], plain: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut bytes: Vec<Vec<u8>> = plain.iter().map(|plain| [&[0xa5; TAG_BYTES], plain.as_slice()].concat()).collect();
    key.seal_all(ads.iter().zip(&mut bytes).map(|(ad, bytes)| Message { ad, bytes }).collect());
    bytes
}

type Opened = Result<Vec<u8>, OpenError>;

/// All of `sealed` opened as one batch, and what lies in their place afterwards.
fn open_together(key: &SealKey, ads: &[Vec<u8>], sealed: &[Vec<u8>]) -> (Vec<Opened>, Vec<Vec<u8>>) {
    let mut bytes = sealed.to_vec();
    let messages = ads.iter().zip(&mut bytes).map(|(ad, bytes)| Message { ad, bytes });
    let opened = key.open_all(messages.collect()).into_iter().map(|plain| plain.map(<[u8]>::to_vec)).collect();
    (opened, bytes)
}

fn counting(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i * 7 + 3) as u8).collect()
}

#[test]
fn sealing_agrees_with_another_implementation() {
    // Key 0 to 63, plaintext 3, 10, 17 ..., by Python's `cryptography` (OpenSSL); the empty plaintext, which that
    // refuses, by S2V written out over its CMAC. They never change. Beyond 32 bytes: SHA-256 of what is sealed.
    let key = SealKey::new(std::array::from_fn(|i| i as u8));
    for (ad, bytes, expected) in [
        ("", 0, "6ff5b8ef53fc365606cd3ea047374885"),
        ("", 1, "ee6e39167e07f8ec89533cf0e2e67e051a"),
        ("", 15, "d0ec35db22d40fea18c02b994a9dfb65e06acc1e18500f71432cc449521d48"),
        ("", 16, "26e088290513185b600cf123ded8b26e241e8471ce28ff2d72b394f702a0ee08"),
        ("", 17, "e27423ab644824f3ed994820932e666f76e41551265b1cadc968b5f66efeaf53f6"),
        ("", 4096, "0436765afb69755ba03a08c650eba0f5d69693cab46c758c3eaceec0e1e61c17"),
        ("bygone test", 0, "79e9259d2213decabfcdf92eb7c9725f"),
        ("bygone test", 1, "8b0c3110fe966a701a8ccaab6086eb5028"),
        ("bygone test", 15, "b7071d863d5219dcb3588d03a843efe6bc1bb09fe6744568f7668ff0e5a4cf"),
        ("bygone test", 16, "0cbafe8a0930277b6c64db79158e245c2b0f6fc92b42acd0f584310a5ee4d54f"),
        ("bygone test", 17, "dca5970e11c57ca8215645d0cc7603fe8f11b90a7fa566a468e4da3dee90b7e0b7"),
        ("bygone test", 4096, "85b04c05e73803b247407bde8fdcca9bfee28c62a98182432376a43720270005"),
    ] {
        let sealed = key.seal(ad.as_bytes(), &counting(bytes));
        assert_eq!(sealed.len(), TAG_BYTES + bytes);
        let shown = if bytes > 17 { hex(&sha256(&sealed)) } else { hex(&sealed) };
        assert_eq!(shown, expected, "{bytes} bytes with {ad:?}");
        assert_eq!(key.open(ad.as_bytes(), &sealed), Ok(counting(bytes)));
    }
}

#[test]
fn the_crate_is_rfc_5297() {
    // The RFC's own examples, A.1 and A.2, are for AES-128.
    let seal = |key: &str, ads: &[&str], plain: &str| {
        let bytes = |text| crate::id::unhex(text).unwrap();
        let ads: Vec<Vec<u8>> = ads.iter().map(|ad| bytes(ad)).collect();
        let key: [u8; 32] = bytes(key).try_into().unwrap();
        hex(&Aes128Siv::new((&key).into()).encrypt(ads, &bytes(plain)).unwrap())
    };
    let a1 = seal(
        "fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
        &["101112131415161718191a1b1c1d1e1f2021222324252627"],
        "112233445566778899aabbccddee",
    );
    assert_eq!(a1, "85632d07c6e8f37f950acd320a2ecc9340c02b9690c4dc04daef7f6afe5c");
    let a2 = seal(
        "7f7e7d7c7b7a79787776757473727170404142434445464748494a4b4c4d4e4f",
        &[
            "00112233445566778899aabbccddeeffdeaddadadeaddadaffeeddccbbaa99887766554433221100",
            "102030405060708090a0",
            "09f911029d74e35bd84156c5635688c0",
        ],
        "7468697320697320736f6d6520706c61696e7465787420746f20656e6372797074207573696e67205349562d414553",
    );
    assert_eq!(
        a2,
        "7bdb6e3b432667eb06f4d14bff2fbd0fcb900f2fddbe404326601965c889bf17dba77ceb094fa663b7a3f748ba8af829\
         ea64ad544a272e9c485b62a3fd5c0d"
    );
}

#[test]
fn wycheproof_agrees() {
    let bytes = |text: &str| if text == "-" { Vec::new() } else { crate::id::unhex(text).unwrap() };
    let mut results = [0, 0];
    for line in include_str!("wycheproof.txt").lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(' ').collect();
        let [number, result, key, ad, plain, sealed] = fields.as_slice() else { panic!("{line}") };
        let (ad, plain, sealed) = (bytes(ad), bytes(plain), bytes(sealed));
        let key = SealKey::new(bytes(key).try_into().unwrap());
        let is_valid = *result == "valid";
        results[usize::from(is_valid)] += 1;
        assert_eq!(
            key.open(&ad, &sealed),
            if is_valid { Ok(plain.clone()) } else { Err(OpenError::Refused) },
            "{number}"
        );
        assert_eq!(key.seal(&ad, &plain) == sealed, is_valid, "{number}");
    }
    assert_eq!(results, [108, 39], "invalid and valid tests");
}

#[test]
fn bytes_equal_the_crates_around_every_block_edge() {
    // One batch of all lengths around the edges: the lanes take in and let go at every step.
    let lengths: Vec<usize> = (0..70).chain([127, 128, 129, 255, 256, 257, 4_095, 4_096, 4_097]).collect();
    let bytes: [u8; 64] = std::array::from_fn(|i| (i * 3) as u8);
    let key = SealKey::new(bytes);
    let plain: Vec<Vec<u8>> = lengths.iter().map(|length| noise(*length as u64, *length)).collect();
    let ads: Vec<Vec<u8>> = lengths.iter().map(|length| noise(1, length % 67)).collect();
    let sealed = seal_together(&key, &ads, &plain);
    for ((ad, plain), sealed) in ads.iter().zip(&plain).zip(&sealed) {
        assert_eq!(*sealed, by_the_crate(bytes, ad, plain), "{} bytes with {}", plain.len(), ad.len());
    }
    assert_eq!(open_together(&key, &ads, &sealed).0, plain.into_iter().map(Ok).collect::<Vec<_>>());
    key.seal_all(Vec::new());
    assert!(key.open_all(Vec::new()).is_empty());
    let mut short = [1; TAG_BYTES - 1];
    key.seal_all(vec![Message { ad: b"", bytes: &mut short }]);
    assert_eq!(key.open(b"", &short), Err(OpenError::Refused), "there was no room for a tag");
}

#[test]
fn every_flipped_bit_and_every_lost_byte_is_noticed() {
    let (key, ad) = (SealKey::new([7; 64]), b"frame 3 of volume 9");
    let plain: Vec<u8> = (0..57).collect();
    let sealed = key.seal(ad, &plain);
    assert_eq!(key.open(ad, &sealed), Ok(plain));
    for bit in 0..sealed.len() * 8 {
        let mut damaged = sealed.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(key.open(ad, &damaged), Err(OpenError::Refused), "bit {bit} was flipped");
    }
    for length in 0..sealed.len() {
        assert_eq!(key.open(ad, &sealed[..length]), Err(OpenError::Refused), "cut to {length} bytes");
    }
    let mut longer = sealed.clone();
    longer.push(0);
    assert_eq!(key.open(ad, &longer), Err(OpenError::Refused), "a byte was appended");
}

#[test]
fn associated_data_and_key_are_part_of_what_is_sealed() {
    let key = SealKey::new([7; 64]);
    let sealed = key.seal(b"frame 3", b"plain");
    for ad in [&b""[..], b"frame 4", b"frame 3\0", b"frame"] {
        assert_eq!(key.open(ad, &sealed), Err(OpenError::Refused), "{ad:?}");
    }
    for half in [0, 32] {
        let mut bytes = [7; 64];
        bytes[half] = 6;
        assert_eq!(SealKey::new(bytes).open(b"frame 3", &sealed), Err(OpenError::Refused), "byte {half} of the key");
    }
    assert_eq!(format!("{key:?}"), "SealKey(hidden)");
}

proptest! {
    #[test]
    fn what_was_sealed_opens(
        plain in prop::collection::vec(any::<u8>(), 0..600),
        ad in prop::collection::vec(any::<u8>(), 0..40),
        byte: u8,
    ) {
        let key = SealKey::new([byte; 64]);
        let sealed = key.seal(&ad, &plain);
        prop_assert_eq!(&sealed, &key.seal(&ad, &plain), "sealing is deterministic");
        prop_assert_eq!(key.open(&ad, &sealed), Ok(plain));
    }

    #[test]
    fn what_was_not_sealed_does_not_open(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(SealKey::new([1; 64]).open(b"", &bytes), Err(OpenError::Refused));
    }
}

proptest! {
    // A case seals megabytes.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_batch_equals_single_seals_and_damage_stays_alone(
        // A batch has short and long messages, and one or all lanes.
        lengths in prop::collection::vec(prop_oneof![0..40usize, 0..5_000usize, 0..300usize << 10], 1..21),
        seed: u64,
        damaged in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        cut: bool,
    ) {
        let bytes: [u8; 64] = noise(seed, 64).try_into().unwrap();
        let key = SealKey::new(bytes);
        let plain: Vec<Vec<u8>> = lengths.iter().zip(seed..).map(|(length, seed)| noise(seed, *length)).collect();
        let ads: Vec<Vec<u8>> = lengths.iter().map(|length| noise(seed ^ 1, length % 50)).collect();
        let mut sealed = seal_together(&key, &ads, &plain);
        for ((ad, plain), sealed) in ads.iter().zip(&plain).zip(&sealed) {
            prop_assert!(*sealed == by_the_crate(bytes, ad, plain), "{} bytes with {}", plain.len(), ad.len());
        }
        let damaged: Vec<usize> = damaged.iter().map(|which| which.index(lengths.len())).collect();
        for (nth, which) in damaged.iter().enumerate() {
            let bytes = &mut sealed[*which];
            match cut {
                true => bytes.truncate((seed >> nth) as usize % (TAG_BYTES + 2)),
                false => {
                    let place = (seed >> nth) as usize % bytes.len();
                    bytes[place] ^= 1 << (nth + 1);
                }
            }
        }
        let (opened, left) = open_together(&key, &ads, &sealed);
        for (which, opened) in opened.into_iter().enumerate() {
            if sealed[which] == by_the_crate(bytes, &ads[which], &plain[which]) {
                prop_assert!(opened.as_ref() == Ok(&plain[which]), "number {which} of {:?}", lengths);
            } else {
                prop_assert!(opened == Err(OpenError::Refused), "number {which} of {:?}", lengths);
                let body = left[which].get(TAG_BYTES..).unwrap_or_default();
                prop_assert!(body.iter().all(|byte| *byte == 0), "what does not open is wiped");
            }
        }
    }
}
