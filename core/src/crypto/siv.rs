//! Sealing: AES-256-SIV (RFC 5297) over one associated-data string, the tag first.
//!
//! A sealed message is the 16-byte synthetic IV, which is the tag, followed by the ciphertext, as long as the
//! plaintext. The associated data is always exactly one string, even if it is empty, because S2V treats no string and
//! one empty string as different inputs.
//!
//! The tag is a CMAC, which is slow on its own, so `lanes` processes many messages together; a single message is a
//! batch of one. The bytes are those of crate aes-siv and of every other implementation, as the tests prove; messages
//! of a batch do not affect each other. The key is expanded once, when it is made.

use std::fmt;

use aes::Aes256Enc;
use aes::cipher::BlockCipherEncrypt;
use aes::cipher::InnerIvInit;
use aes::cipher::KeyInit;
use aes::cipher::StreamCipherCore;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;
use zeroize::ZeroizeOnDrop;
use zeroize::Zeroizing;

use crate::crypto::lanes::Bytes16;
use crate::crypto::lanes::Chain;
use crate::crypto::lanes::last_states;
use crate::crypto::lanes::xor;

/// Bytes that sealing adds.
pub const TAG_BYTES: usize = 16;

/// Messages that pass through the lanes together: enough that all lanes end together, few enough for the processor's
/// cache.
const BATCH: usize = 16;

/// Counter mode as RFC 5297 has it.
type Ctr<'a> = ctr::CtrCore<&'a Aes256Enc, ctr::flavors::Ctr128BE>;

/// Why something does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is damaged, or was sealed by another key or for another purpose.
    #[error("it does not authenticate: its bytes have changed, or the key is not the one it was sealed with")]
    Refused,
    /// There is not enough memory to derive the key from a passphrase.
    #[error("deriving the key needs {0} KiB of memory, which the system does not provide")]
    Memory(u32),
}

/// A key that seals and opens: 32 bytes for the tag, 32 for encryption. Wiped when dropped.
pub struct SealKey {
    mac: Aes256Enc,
    encryption: Aes256Enc,
    subkeys: Subkeys,
}

/// Values that depend on the key alone.
#[derive(Zeroize, ZeroizeOnDrop)]
struct Subkeys {
    /// Masks the last block of a CMAC if it is complete.
    whole: Bytes16,
    /// Masks the last block of a CMAC if it was padded.
    filled: Bytes16,
    /// The state of S2V before it takes in the associated data.
    start: Bytes16,
}

/// A message that is sealed or opened in place.
pub struct Message<'a> {
    /// Its associated data.
    pub ad: &'a [u8],
    /// The tag, or [`TAG_BYTES`] bytes of room for it, then the ciphertext or the plaintext.
    pub bytes: &'a mut [u8],
}

/// A message split up: associated data, tag (or room for it), body. A message too short for a tag has neither tag nor
/// body.
type Parts<'a> = (&'a [u8], Option<&'a mut Bytes16>, &'a mut [u8]);

impl<'a> Message<'a> {
    fn parts(self) -> Parts<'a> {
        match self.bytes.split_first_chunk_mut() {
            Some((tag, body)) => (self.ad, Some(tag), body),
            None => (self.ad, None, Default::default()),
        }
    }
}

impl SealKey {
    /// From 64 secret bytes.
    pub fn new(bytes: [u8; 64]) -> SealKey {
        let bytes = Zeroizing::new(bytes);
        let (mac, encryption) = bytes.split_at(32);
        #[allow(clippy::expect_used)]
        let cipher = |key| Aes256Enc::new_from_slice(key).expect("32 bytes are a key");
        let mac = cipher(mac);
        let encrypt = |block: Bytes16| {
            let mut block = block.into();
            mac.encrypt_block(&mut block);
            block.into()
        };
        let whole = doubled(encrypt([0; 16]));
        let subkeys = Subkeys { whole, filled: doubled(whole), start: doubled(encrypt(whole)) };
        SealKey { encryption: cipher(encryption), mac, subkeys }
    }

    /// Seals `plain` so that it opens only with the same `ad`. Equal inputs give equal outputs.
    pub fn seal(&self, ad: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(TAG_BYTES + plain.len());
        bytes.extend_from_slice(&[0; TAG_BYTES]);
        bytes.extend_from_slice(plain);
        self.seal_all(vec![Message { ad, bytes: &mut bytes }]);
        bytes
    }

    /// Seals all messages in place. A message without room for a tag is left as it is and never opens.
    pub fn seal_all(&self, messages: Vec<Message<'_>>) {
        let mut messages: Vec<Parts<'_>> = messages.into_iter().map(Message::parts).collect();
        for batch in messages.chunks_mut(BATCH) {
            let tags = self.tags(batch);
            for ((_, place, body), tag) in batch.iter_mut().zip(tags.iter()) {
                if let Some(place) = place {
                    **place = *tag;
                    self.apply_keystream(tag, body);
                }
            }
        }
    }

    /// The plaintext of `sealed`, if this key sealed it with this `ad` and no bit has changed since.
    pub fn open(&self, ad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        let mut bytes = sealed.to_vec();
        self.open_all(vec![Message { ad, bytes: &mut bytes }]).pop().unwrap_or(Err(OpenError::Refused))?;
        bytes.drain(..TAG_BYTES);
        Ok(bytes)
    }

    /// Opens all messages in place and returns their plaintexts. What does not open is wiped.
    pub fn open_all<'a>(&self, messages: Vec<Message<'a>>) -> Vec<Result<&'a [u8], OpenError>> {
        let mut opened = Vec::with_capacity(messages.len());
        let mut messages = messages.into_iter().map(Message::parts).peekable();
        while messages.peek().is_some() {
            let mut batch: Vec<Parts<'a>> = messages.by_ref().take(BATCH).collect();
            for (_, tag, body) in &mut batch {
                if let Some(tag) = tag {
                    self.apply_keystream(tag, body);
                }
            }
            let tags = self.tags(&batch);
            opened.extend(batch.into_iter().zip(tags.iter()).map(|((_, tag, body), found)| {
                if tag.is_some_and(|tag| bool::from(tag.ct_eq(found))) {
                    return Ok(&*body);
                }
                body.zeroize();
                Err(OpenError::Refused)
            }));
        }
        opened
    }

    /// The synthetic IV of each message, whose body is the plaintext: S2V of RFC 5297.
    fn tags(&self, messages: &[Parts<'_>]) -> Zeroizing<Vec<Bytes16>> {
        let ads: Vec<Chain<'_>> = messages.iter().map(|(ad, ..)| self.chain(ad)).collect();
        let starts = last_states(&self.mac, &ads);
        let starts = starts.iter().map(|state| xor(&self.subkeys.start, state));
        let plain = messages.iter().zip(starts).map(|((.., plain), start)| self.last_chain(start, plain));
        last_states(&self.mac, &plain.collect::<Vec<_>>())
    }

    /// CMAC of `bytes`.
    fn chain<'a>(&self, bytes: &'a [u8]) -> Chain<'a> {
        let (blocks, last) = bytes.split_at(bytes.len().saturating_sub(1) / 16 * 16);
        Chain { blocks: blocks.as_chunks().0, end: ([self.last_block(last), [0; 16]], 1) }
    }

    /// CMAC of `plain` after `start` was added to its last 16 bytes, or to its padded form if it is shorter.
    fn last_chain<'a>(&self, start: Bytes16, plain: &'a [u8]) -> Chain<'a> {
        let Some((before, last)) = plain.split_last_chunk::<16>() else {
            let block = xor(&doubled(start), &filled_up(plain));
            return Chain { blocks: &[], end: ([self.last_block(&block), [0; 16]], 1) };
        };
        // The last 16 bytes seldom form a block: they and the remainder before them are copied.
        let (blocks, left) = before.as_chunks::<16>();
        let last = xor(&start, last);
        if left.is_empty() {
            return Chain { blocks, end: ([self.last_block(&last), [0; 16]], 1) };
        }
        let mut block = filled_up(left);
        let (head, rest) = last.split_at(16 - left.len());
        block[left.len()..].copy_from_slice(head);
        Chain { blocks, end: ([block, self.last_block(rest)], 2) }
    }

    /// The last block of a CMAC over up to 16 bytes.
    fn last_block(&self, bytes: &[u8]) -> Bytes16 {
        match bytes.try_into() {
            Ok(block) => xor(&self.subkeys.whole, block),
            Err(_) => xor(&self.subkeys.filled, &filled_up(bytes)),
        }
    }

    fn apply_keystream(&self, tag: &Bytes16, body: &mut [u8]) {
        // Clears two bits, so that other implementations may count in 32-bit or 64-bit words.
        let mut iv = *tag;
        iv[8] &= 0x7f;
        iv[12] &= 0x7f;
        Ctr::inner_iv_init(&self.encryption, &iv.into()).apply_keystream_partial(body.into());
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(hidden)")
    }
}

/// Fewer than 16 bytes, padded with a one-bit and zeros.
fn filled_up(bytes: &[u8]) -> Bytes16 {
    let mut block = [0; 16];
    block[..bytes.len()].copy_from_slice(bytes);
    block[bytes.len()] = 0x80;
    block
}

/// Multiplication by x in the field of 2^128 elements, in constant time.
fn doubled(block: Bytes16) -> Bytes16 {
    let number = u128::from_be_bytes(block);
    let carry = (number >> 127) * 0x87;
    ((number << 1) ^ carry).to_be_bytes()
}

#[cfg(test)]
mod tests;
