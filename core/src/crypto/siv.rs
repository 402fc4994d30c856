//! Sealing: AES-256-SIV (RFC 5297) over one associated-data string, the tag first.
//!
//! The crate's `siv::Aes256Siv` is used directly: its AEAD wrapper adds a nonce string of its own to the associated
//! data and keeps an unwiped copy of the key. A sealed message is the 16-byte synthetic IV, which is the tag, then the
//! ciphertext, as long as the plaintext. The associated data is always exactly one string, also when it is empty,
//! because for S2V no string and one empty string are different inputs.
//!
//! The key is expanded at each call: a microsecond, against hundreds for a frame.

use std::fmt;

use aes_siv::KeyInit;
use aes_siv::Tag;
use aes_siv::siv::Aes256Siv;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes that sealing adds.
pub const TAG_BYTES: usize = 16;

/// Why something did not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It was not sealed by this key for this purpose, or it is damaged.
    #[error("it does not authenticate: its bytes have changed, or the key is not the one it was sealed with")]
    Refused,
    /// There is not enough memory to derive the key from a passphrase.
    #[error("deriving the key takes {0} KiB of memory, which the system does not give")]
    Memory(u32),
}

/// A key that seals and opens: 32 bytes for the tag, 32 for encryption. Wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SealKey([u8; 64]);

impl SealKey {
    /// From 64 secret bytes.
    pub fn new(bytes: [u8; 64]) -> SealKey {
        SealKey(bytes)
    }

    /// Seals `plain` so that it opens only with the same `ad`. Equal input gives equal output.
    pub fn seal(&self, ad: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(TAG_BYTES + plain.len());
        sealed.extend_from_slice(&[0; TAG_BYTES]);
        sealed.extend_from_slice(plain);
        let (tag_place, body) = sealed.split_at_mut(TAG_BYTES);
        // The only failure is more than 126 strings of associated data, and here is one.
        #[allow(clippy::expect_used)]
        let tag = self.cipher().encrypt_inout_detached([ad], body.into()).expect("one string of associated data");
        tag_place.copy_from_slice(&tag);
        sealed
    }

    /// The plaintext of `sealed`, if it was sealed by this key with this `ad` and not a bit has changed since.
    pub fn open(&self, ad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        let (tag, body) = sealed.split_first_chunk::<TAG_BYTES>().ok_or(OpenError::Refused)?;
        let tag: &Tag = tag.into();
        let mut plain = body.to_vec();
        match self.cipher().decrypt_inout_detached([ad], plain.as_mut_slice().into(), tag) {
            Ok(()) => Ok(plain),
            Err(_) => Err(OpenError::Refused),
        }
    }

    fn cipher(&self) -> Aes256Siv {
        Aes256Siv::new((&self.0).into())
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::hash::sha256;
    use crate::id::hex;
    use aes_siv::siv::Aes128Siv;
    use proptest::prelude::*;

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
            assert_eq!(
                SealKey::new(bytes).open(b"frame 3", &sealed),
                Err(OpenError::Refused),
                "byte {half} of the key"
            );
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
}
