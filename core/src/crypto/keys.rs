//! The master key, and every key that is derived from it.
//!
//! Derivation is HKDF-SHA-256: salt = the repository's id, input = the master key, info = `bygone/1 ` and the purpose,
//! followed by a fixed-length name if the purpose has one. So two repositories never share a key even if they share a
//! master key, and one purpose's key reveals nothing about another's.

use std::fmt;
use std::io;
use std::sync::Arc;

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroize;
use zeroize::ZeroizeOnDrop;
use zeroize::Zeroizing;

use crate::crypto::siv::SealKey;
use crate::error::Error;
use crate::error::Result;
use crate::hash::IdKeys;
use crate::hash::IdSecrets;
use crate::hash::KeyedHash;
use crate::id::ClientId;
use crate::id::RepositoryId;
use crate::id::hex;

/// `N` bytes from the operating system's random source.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| Error::Local {
        doing: "take random bytes from",
        path: "the operating system".into(),
        source: io::Error::other(error.to_string()),
    })?;
    Ok(bytes)
}

/// The root of a repository's keys: 32 random bytes, wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MasterKey([u8; 32]);

impl MasterKey {
    /// Bytes of a master key.
    pub const BYTES: usize = 32;

    /// A new one.
    pub fn generate() -> Result<MasterKey> {
        random().map(MasterKey)
    }

    /// One that was unwrapped.
    pub fn from_bytes(bytes: [u8; 32]) -> MasterKey {
        MasterKey(bytes)
    }

    /// The secret itself, for wrapping.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(hidden)")
    }
}

/// All keys of one open repository; clones share them.
#[derive(Clone)]
pub struct Keys(Arc<Inner>);

struct Inner {
    repository: RepositoryId,
    root: Hkdf<Sha256>,
    ids: IdKeys,
    config: KeyedHash,
}

impl Keys {
    /// The keys of `repository`, derived from `master`.
    pub fn derive(master: &MasterKey, repository: RepositoryId) -> Keys {
        let root = Hkdf::new(Some(&repository.0), &master.0);
        let ids = IdKeys::new(&IdSecrets {
            block: expand(&root, &[b"bygone/1 block id"]),
            node: expand(&root, &[b"bygone/1 node id"]),
            row_check: expand(&root, &[b"bygone/1 row check"]),
            version: expand(&root, &[b"bygone/1 version id"]),
        });
        let config = KeyedHash::new(&Zeroizing::new(expand(&root, &[b"bygone/1 config mac"])));
        Keys(Arc::new(Inner { repository, root, ids, config }))
    }

    /// The repository that the keys belong to.
    pub fn repository(&self) -> RepositoryId {
        self.0.repository
    }

    /// The keyed hashes.
    pub fn ids(&self) -> &IdKeys {
        &self.0.ids
    }

    /// The key of the volume whose clear header holds `salt`.
    pub fn volume(&self, salt: &[u8; 32]) -> SealKey {
        SealKey::new(self.expand(&[b"bygone/1 volume", salt]))
    }

    /// The key of one commit in a client's chain.
    pub fn commit(&self, client: ClientId, seq: u64) -> SealKey {
        SealKey::new(self.expand(&[b"bygone/1 commit", &client.0, &seq.to_le_bytes()]))
    }

    /// Authenticates the repository's clear description.
    pub fn config_mac(&self, bytes: &[u8]) -> [u8; 32] {
        self.0.config.of(bytes)
    }

    /// The key that seals a slot's label.
    pub fn slot_info(&self) -> SealKey {
        SealKey::new(self.expand(&[b"bygone/1 slot info"]))
    }

    /// Twenty digits that let people compare the keys of two machines; they do not help to find the key.
    pub fn fingerprint(&self) -> String {
        hex(&self.expand::<10>(&[b"bygone/1 fingerprint"]))
    }

    fn expand<const N: usize>(&self, info: &[&[u8]]) -> [u8; N] {
        expand(&self.0.root, info)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys(of {}, hidden)", self.0.repository)
    }
}

/// `N` bytes for the purpose named by the concatenated strings of `info`.
pub(crate) fn expand<const N: usize>(root: &Hkdf<Sha256>, info: &[&[u8]]) -> [u8; N] {
    const { assert!(N <= 255 * 32, "HKDF-SHA-256 gives no more") }
    let mut bytes = [0; N];
    #[allow(clippy::expect_used)]
    root.expand_multi_info(info, &mut bytes).expect("the length was checked when this was compiled");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting<const N: usize>(from: u8) -> [u8; N] {
        std::array::from_fn(|i| from + i as u8)
    }

    #[test]
    fn derivation_agrees_with_another_implementation() {
        // Master key 0 to 31, repository 0x10 to 0x1f, by Python's `cryptography`; each key is used once on "abc".
        // They never change: a repository that was written with other keys cannot be read.
        let keys = Keys::derive(&MasterKey::from_bytes(counting(0)), RepositoryId(counting(0x10)));
        let ids = keys.ids();
        assert_eq!(ids.block(b"abc").to_hex(), "382e67191a3f352009f5d902c12d828c2fe67475a64b1a736c101b39ca22801d");
        assert_eq!(ids.node(b"abc").to_hex(), "613bfde30507599428e92192f362561dac0b0498efdc13881ac4cef040ba8ed1");
        assert_eq!(hex(&ids.row_check(b"abc")), "c352b944c67d9522");
        assert_eq!(hex(&ids.version(b"abc")), "64765581abf4a24b205cada79422a3d5");
        let config = "a4bdcd912a87ed9f811b1a09cea4d29a2eba4e672528f2eddf7cc9a508c835dd";
        assert_eq!(hex(&keys.config_mac(b"abc")), config);
        let volume = keys.volume(&counting(0x40)).seal(b"", b"abc");
        assert_eq!(hex(&volume), "4cc29666e4397e859d285dc53de184374f5e83");
        let commit = keys.commit(ClientId(counting(0x60)), 0x0102_0304_0506_0708).seal(b"", b"abc");
        assert_eq!(hex(&commit), "c4c880b278f8644f065f01eeb064245a44e93b");
        assert_eq!(hex(&keys.slot_info().seal(b"", b"abc")), "960da3d90eec81eab234eb7862bcec7ffb0f19");
        assert_eq!(keys.fingerprint(), "3eaf2f7af37fbdd0dfc0");
        assert_eq!(keys.repository(), RepositoryId(counting(0x10)));
    }

    #[test]
    fn another_repository_volume_client_or_number_has_another_key() {
        let master = MasterKey::from_bytes([3; 32]);
        let (one, two) = (RepositoryId([1; 16]), RepositoryId([2; 16]));
        let (keys, others) = (Keys::derive(&master, one), Keys::derive(&master, two));
        assert_ne!(keys.ids().block(b"x"), others.ids().block(b"x"), "the same block in two repositories");
        assert_ne!(keys.fingerprint(), others.fingerprint());
        let sealed = keys.volume(&[0; 32]).seal(b"", b"x");
        assert!(keys.clone().volume(&[0; 32]).open(b"", &sealed).is_ok());
        assert!(keys.volume(&[1; 32]).open(b"", &sealed).is_err());
        assert!(others.volume(&[0; 32]).open(b"", &sealed).is_err());
        let sealed = keys.commit(ClientId([1; 16]), 7).seal(b"", b"x");
        assert!(keys.commit(ClientId([1; 16]), 7).open(b"", &sealed).is_ok());
        assert!(keys.commit(ClientId([1; 16]), 8).open(b"", &sealed).is_err());
        assert!(keys.commit(ClientId([2; 16]), 7).open(b"", &sealed).is_err());
    }

    #[test]
    fn random_bytes_are_not_the_same_twice() {
        assert_ne!(random::<32>().unwrap(), random::<32>().unwrap());
        assert_ne!(MasterKey::generate().unwrap().expose(), MasterKey::generate().unwrap().expose());
    }

    #[test]
    fn keys_are_hidden_from_debug_output() {
        let master = MasterKey::from_bytes([0x5a; 32]);
        let keys = Keys::derive(&master, RepositoryId([1; 16]));
        let shown = format!("{master:?} {keys:?} {:?} {:?}", keys.volume(&[0; 32]), keys.ids());
        assert!(!shown.contains("5a") && !shown.contains("90"), "{shown}");
    }
}
