//! From a slot's secret to the key that wraps the master key: Argon2id for a passphrase, HKDF for the 32 random bytes
//! of a machine.
//!
//! A slot is read before it can be authenticated, so the store controls its parameters: they are checked against limits
//! before any memory is taken. Argon2's memory is a single allocation, released once the key is derived.

use argon2::Algorithm;
use argon2::Argon2;
use argon2::Params;
use argon2::Version;
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::crypto::keys::expand;
use crate::crypto::siv::OpenError;
use crate::crypto::siv::SealKey;
use crate::error::Error;
use crate::error::Result;
use crate::hash::KeyedHash;
use crate::wire::DecodeError;

/// The cost of deriving a key from a passphrase, which a guesser pays for every guess.
///
/// The default is the second recommendation of RFC 9106, 64 MiB, and not the 256 MiB that a desktop could spare: every
/// command opens a slot, and every command must fit into 250 MB on a small machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfCost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes, which may be computed side by side.
    pub lanes: u32,
}

impl Default for KdfCost {
    fn default() -> KdfCost {
        KdfCost { memory_kib: 64 << 10, passes: 3, lanes: 4 }
    }
}

impl KdfCost {
    /// No new slot is made with less memory.
    pub const NEW_MEMORY_KIB_MIN: u32 = 19 << 10;
    /// A slot that asks for less memory is not opened. The limit is lower than that for new slots, so that the slots of
    /// tests open.
    pub const MEMORY_KIB_MIN: u32 = 8 << 10;
    /// A slot that asks for more memory is not opened: the store must not be able to exhaust the machine.
    pub const MEMORY_KIB_MAX: u32 = 1 << 20;
    /// A slot that asks for more passes is not opened.
    pub const PASSES_MAX: u32 = 16;
    /// A slot that asks for more lanes is not opened.
    pub const LANES_MAX: u32 = 16;

    /// The only cost below [`KdfCost::NEW_MEMORY_KIB_MIN`] that new slots may have. It takes milliseconds and protects
    /// no passphrase worth the name. For tests only.
    pub fn for_tests() -> KdfCost {
        KdfCost { memory_kib: KdfCost::MEMORY_KIB_MIN, passes: 1, lanes: 1 }
    }

    /// Fails if a slot of this cost must not be opened.
    pub(crate) fn check(self) -> std::result::Result<(), DecodeError> {
        let memory = KdfCost::MEMORY_KIB_MIN..=KdfCost::MEMORY_KIB_MAX;
        if !memory.contains(&self.memory_kib) {
            return Err(DecodeError::Limit("the memory for deriving its key"));
        }
        if !(1..=KdfCost::PASSES_MAX).contains(&self.passes) || !(1..=KdfCost::LANES_MAX).contains(&self.lanes) {
            return Err(DecodeError::Limit("the time for deriving its key"));
        }
        Ok(())
    }

    /// Fails if no new slot may have this cost.
    pub(crate) fn check_new(self) -> Result<()> {
        let weak = self.memory_kib < KdfCost::NEW_MEMORY_KIB_MIN && self != KdfCost::for_tests();
        if weak || self.check().is_err() {
            let KdfCost { memory_kib, passes, lanes } = self;
            let what = format!(
                "a key slot cannot cost {memory_kib} KiB, {passes} passes and {lanes} lanes: use {} to {} KiB, 1 to {} \
                 passes and 1 to {} lanes",
                KdfCost::NEW_MEMORY_KIB_MIN,
                KdfCost::MEMORY_KIB_MAX,
                KdfCost::PASSES_MAX,
                KdfCost::LANES_MAX
            );
            return Err(Error::Invalid { what });
        }
        Ok(())
    }
}

/// How a slot's wrapping key is derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Derivation {
    Passphrase(KdfCost),
    Machine,
}

/// The secret that a slot is opened with.
#[derive(Clone, Copy)]
pub(crate) enum SlotSecret<'a> {
    Passphrase(&'a [u8]),
    Machine(&'a [u8; 32]),
}

/// The key derived from a slot's secret.
pub(crate) struct WrappingKey {
    pub(crate) seal: SealKey,
    pub(crate) commit: KeyedHash,
}

impl WrappingKey {
    pub(crate) fn derive(
        derivation: Derivation,
        salt: &[u8; 32],
        secret: SlotSecret<'_>,
    ) -> std::result::Result<WrappingKey, OpenError> {
        let mut bytes = Zeroizing::new([0; 96]);
        match (derivation, secret) {
            (Derivation::Passphrase(cost), SlotSecret::Passphrase(passphrase)) => {
                let KdfCost { memory_kib, passes, lanes } = cost;
                let params =
                    Params::new(memory_kib, passes, lanes, Some(bytes.len())).map_err(|_| OpenError::Refused)?;
                let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
                argon2.hash_password_into(passphrase, salt, &mut *bytes).map_err(|error| match error {
                    argon2::Error::OutOfMemory => OpenError::Memory(memory_kib),
                    _ => OpenError::Refused,
                })?;
            }
            (Derivation::Machine, SlotSecret::Machine(key)) => {
                *bytes = expand(&Hkdf::<Sha256>::new(Some(salt), key), &[b"bygone/1 machine slot"]);
            }
            _ => return Err(OpenError::Refused),
        }
        let (mut seal, mut commit) = (Zeroizing::new([0; 64]), Zeroizing::new([0; 32]));
        seal.copy_from_slice(&bytes[..64]);
        commit.copy_from_slice(&bytes[64..]);
        Ok(WrappingKey { seal: SealKey::new(*seal), commit: KeyedHash::new(&commit) })
    }
}
