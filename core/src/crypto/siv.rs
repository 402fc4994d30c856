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
}
