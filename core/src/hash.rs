//! Hashes: plain SHA-256 for names that anyone may check, HMAC-SHA-256 for names that reveal nothing to the store.
//!
//! A keyed hash starts by hashing its key, which for short input costs as much as the input itself. [`IdKeys`] does
//! that once and clones the state for every call. Each purpose has its own key, so that equal bytes have unrelated
//! names as a block, as a node and as a row.

use std::fmt;

use hmac::Hmac;
use hmac::KeyInit;
use hmac::Mac;
use sha2::Digest;
use sha2::Sha256;
use zeroize::Zeroize;
use zeroize::ZeroizeOnDrop;
use zeroize::Zeroizing;

use crate::id::BlockId;
use crate::id::NodeId;

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// HMAC-SHA-256 of `bytes` under a key that is used once.
pub fn hmac_sha256(key: &[u8], bytes: &[u8]) -> [u8; 32] {
    let keyed = Hmac::<Sha256>::new_from_slice(key).map(|hmac| hmac.chain_update(bytes).finalize().into_bytes().into());
    // HMAC takes keys of any length.
    keyed.unwrap_or_default()
}

/// SHA-256 of bytes that come in pieces.
#[derive(Debug, Clone, Default)]
pub struct Sha256Stream(Sha256);

impl Sha256Stream {
    /// Nothing hashed yet.
    pub fn new() -> Sha256Stream {
        Sha256Stream::default()
    }

    /// Takes the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all pieces.
    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// HMAC-SHA-256 with its key already hashed in.
#[derive(Clone)]
pub(crate) struct KeyedHash(Hmac<Sha256>);

impl KeyedHash {
    pub(crate) fn new(key: &[u8; 32]) -> KeyedHash {
        // HMAC pads a key with zeros to the hash's block size; padding it here fixes the length in the type.
        let mut padded = Zeroizing::new([0; 64]);
        padded[..32].copy_from_slice(key);
        KeyedHash(Hmac::new((&*padded).into()))
    }

    pub(crate) fn of(&self, bytes: &[u8]) -> [u8; 32] {
        let mut state = self.0.clone();
        state.update(bytes);
        state.finalize().into_bytes().into()
    }
}

/// The keys that [`IdKeys`] is made from.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct IdSecrets {
    pub(crate) block: [u8; 32],
    pub(crate) node: [u8; 32],
    pub(crate) row_check: [u8; 32],
    pub(crate) version: [u8; 32],
}

/// The keyed hashes of one repository: cheap to clone, usable from many threads at once.
#[derive(Clone)]
pub struct IdKeys {
    block: KeyedHash,
    node: KeyedHash,
    row_check: KeyedHash,
    version: KeyedHash,
}

impl IdKeys {
    pub(crate) fn new(secrets: &IdSecrets) -> IdKeys {
        IdKeys {
            block: KeyedHash::new(&secrets.block),
            node: KeyedHash::new(&secrets.node),
            row_check: KeyedHash::new(&secrets.row_check),
            version: KeyedHash::new(&secrets.version),
        }
    }

    /// The name of a block of file content.
    pub fn block(&self, bytes: &[u8]) -> BlockId {
        BlockId(self.block.of(bytes))
    }

    /// The name of an encoded tree node.
    pub fn node(&self, bytes: &[u8]) -> NodeId {
        NodeId(self.node.of(bytes))
    }

    /// Proof that a row of the catalog was written with the key. 64 bits are enough: a forger has one try per row.
    pub fn row_check(&self, bytes: &[u8]) -> [u8; 8] {
        first(self.row_check.of(bytes))
    }

    /// The identity of a file version (encoded metadata and content). 128 bits: an accidental collision needs 2^64
    /// versions, a deliberate one needs the key.
    pub fn version(&self, bytes: &[u8]) -> [u8; 16] {
        first(self.version.of(bytes))
    }
}

impl fmt::Debug for IdKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdKeys(hidden)")
    }
}

/// The first `N` (at most 32) bytes of a hash.
fn first<const N: usize>(hash: [u8; 32]) -> [u8; N] {
    const { assert!(N <= 32) }
    std::array::from_fn(|i| hash[i])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::hex;
    use proptest::prelude::*;

    fn keys() -> IdKeys {
        IdKeys::new(&IdSecrets { block: [1; 32], node: [2; 32], row_check: [3; 32], version: [4; 32] })
    }

    #[test]
    fn sha256_is_the_standard_one() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex(&sha256(b"abc")), abc, "FIPS 180-4's example");
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex(&Sha256Stream::new().finish()), empty);
    }

    #[test]
    fn the_keyed_hash_is_hmac_sha256() {
        // RFC 4231 has no 32-byte key; its second case has a short one, which zero padding leaves as it is.
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex(&KeyedHash::new(&key).of(b"what do ya want for nothing?")), expected);
    }

    #[test]
    fn each_purpose_has_its_own_key() {
        let (keys, bytes) = (keys(), b"the same bytes");
        let names = [keys.block(bytes).0, keys.node(bytes).0, keys.row_check.of(bytes), keys.version.of(bytes)];
        for (i, a) in names.iter().enumerate() {
            for b in &names[..i] {
                assert_ne!(a[..8], b[..8], "a block's name must not show that a node is equal");
            }
        }
        assert_eq!(keys.row_check(bytes), names[2][..8]);
        assert_eq!(keys.version(bytes), names[3][..16]);
    }

    #[test]
    fn keys_do_not_show_in_debug_output() {
        assert_eq!(format!("{:?}", keys()), "IdKeys(hidden)");
    }

    proptest! {
        #[test]
        fn pieces_hash_as_the_whole(bytes in prop::collection::vec(any::<u8>(), 0..500), cut in 0usize..500) {
            let (head, tail) = bytes.split_at(cut.min(bytes.len()));
            let mut stream = Sha256Stream::new();
            stream.update(head);
            stream.update(tail);
            prop_assert_eq!(stream.finish(), sha256(&bytes));
        }

        #[test]
        fn a_clone_gives_the_same_names(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let keys = keys();
            let before = keys.block(&bytes);
            keys.block(b"another");
            prop_assert_eq!(keys.clone().block(&bytes), before, "a call leaves no state behind");
        }
    }
}
