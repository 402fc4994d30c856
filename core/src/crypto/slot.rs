//! Key slots: the master key, wrapped so that one passphrase or one machine's key opens it.
//!
//! A slot is one object of 400 bytes in the store. Its first 96 bytes are clear, because they say how to derive the
//! wrapping key. So the store controls what an opener reads there, and every number is checked against its limits
//! before it costs memory or time. The wrapping key comes from Argon2id over the passphrase, or from HKDF over a
//! machine's 32 random bytes: 96 bytes, 64 to seal with and 32 for the commitment.
//!
//! ```text
//!   0  magic "BYGNSLOT"     12  memory in KiB, u32     56  repository id, 16     96  master key, sealed: 48
//!   8  version, u8 = 1      16  passes, u32            72  slot id, 16          144  label and time, sealed: 224
//!   9  suite, u8 = 1        20  lanes, u32             88  key epoch, u32 = 1   368  commitment, 32
//!  10  derivation, u8       24  salt, 32               92  zero, u32
//!  11  zero, u8
//! ```
//!
//! All numbers are little-endian; derivation is 1 for a passphrase and 2 for a machine's key, which has zeros at 12 to
//! 24. Both sealed parts have bytes 0 to 96 as associated data. The commitment is HMAC-SHA-256 of bytes 0 to 368 and is
//! compared, in constant time, before anything is opened: with SIV alone, an attacker could craft one ciphertext that
//! opens under many keys and so test many passphrases by watching one opener.
//!
//! Slots are never changed: a new passphrase makes a new slot, then the old one is deleted. The label is sealed under a
//! key derived from the master key, so opening the repository by any slot gives access to all labels.

use std::fmt;
use std::io;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::crypto::kdf::Derivation;
use crate::crypto::kdf::KdfCost;
use crate::crypto::kdf::SlotSecret;
use crate::crypto::kdf::WrappingKey;
use crate::crypto::keys::Keys;
use crate::crypto::keys::MasterKey;
use crate::crypto::keys::random;
use crate::crypto::siv::OpenError;
use crate::entry::Time;
use crate::error::Error;
use crate::error::Result;
use crate::id::RepositoryId;
use crate::id::SlotId;
use crate::wire::DecodeError;
use crate::wire::Decoder;
use crate::wire::Encoder;

/// Length of every slot.
pub const SLOT_BYTES: usize = 400;
/// Longest label of a slot, in bytes.
pub const SLOT_LABEL_BYTES_MAX: usize = 199;

const MAGIC: &[u8; 8] = b"BYGNSLOT";
const VERSION: u8 = 1;
const SUITE: u8 = 1;
const EPOCH: u32 = 1;
const BY_PASSPHRASE: u8 = 1;
const BY_MACHINE: u8 = 2;
const HEAD_BYTES: usize = 96;
const COMMITTED_BYTES: usize = 368;
const INFO_BYTES: usize = 208;

/// A slot's own description, readable with the master key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotInfo {
    /// The label that its maker gave it.
    pub label: String,
    /// When it was made, to the second.
    pub created: Time,
}

/// A key slot, well-formed and not opened yet.
#[derive(Clone)]
pub struct Slot {
    bytes: [u8; SLOT_BYTES],
    derivation: Derivation,
    salt: [u8; 32],
    repository: RepositoryId,
    id: SlotId,
}

impl Slot {
    /// A slot that `passphrase` (raw bytes, not empty) opens.
    pub fn create(
        master: &MasterKey,
        keys: &Keys,
        id: SlotId,
        passphrase: &[u8],
        label: &str,
        created: Time,
        cost: KdfCost,
    ) -> Result<Vec<u8>> {
        if passphrase.is_empty() {
            return Err(Error::Invalid {
                what: "the passphrase is empty: choose one, because anybody can guess an empty one".into(),
            });
        }
        cost.check_new()?;
        let head =
            Head { derivation: Derivation::Passphrase(cost), salt: random()?, repository: keys.repository(), id };
        seal_slot(&head, SlotSecret::Passphrase(passphrase), master, keys, label, created)
    }

    /// A slot that the 32 random bytes of `machine_key` open, at negligible cost.
    pub fn create_machine(
        master: &MasterKey,
        keys: &Keys,
        id: SlotId,
        machine_key: &[u8; 32],
        label: &str,
        created: Time,
    ) -> Result<Vec<u8>> {
        let head = Head { derivation: Derivation::Machine, salt: random()?, repository: keys.repository(), id };
        seal_slot(&head, SlotSecret::Machine(machine_key), master, keys, label, created)
    }

    /// Parses the clear part of a slot. Nothing in it may be trusted before the slot is opened, but its demands are
    /// within the limits.
    pub fn parse(bytes: &[u8]) -> std::result::Result<Slot, DecodeError> {
        let mut input = Decoder::new(bytes);
        if input.array()? != *MAGIC {
            return Err(DecodeError::Invalid("a key slot's magic"));
        }
        match input.u8()? {
            VERSION => {}
            0 => return Err(DecodeError::Invalid("a key slot's version")),
            later => return Err(DecodeError::TooNew(later)),
        }
        let whole: [u8; SLOT_BYTES] = match bytes.len() {
            0..SLOT_BYTES => return Err(DecodeError::Short),
            _ => bytes.try_into().map_err(|_| DecodeError::Trailing)?,
        };
        let head = Head::decode_rest(&mut input)?;
        Ok(Slot {
            bytes: whole,
            derivation: head.derivation,
            salt: head.salt,
            repository: head.repository,
            id: head.id,
        })
    }

    /// The object's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The slot's name; the object's name must match it.
    pub fn id(&self) -> SlotId {
        self.id
    }

    /// The repository that it claims to belong to.
    pub fn repository(&self) -> RepositoryId {
        self.repository
    }

    /// The cost of opening it by passphrase; `None` for a machine's slot.
    pub fn cost(&self) -> Option<KdfCost> {
        match self.derivation {
            Derivation::Passphrase(cost) => Some(cost),
            Derivation::Machine => None,
        }
    }

    /// The master key, if `passphrase` is right. The memory is released before this returns. The lanes run in threads
    /// that stay alive, so a process that forks must fork before it opens its first slot.
    pub fn open(&self, passphrase: &[u8]) -> std::result::Result<MasterKey, OpenError> {
        self.open_by(SlotSecret::Passphrase(passphrase))
    }

    /// The master key, if `machine_key` is right.
    pub fn open_machine(&self, machine_key: &[u8; 32]) -> std::result::Result<MasterKey, OpenError> {
        self.open_by(SlotSecret::Machine(machine_key))
    }

    /// What the slot says about itself.
    pub fn info(&self, keys: &Keys) -> Result<SlotInfo> {
        let corrupt = |detail: &dyn fmt::Display| Error::corrupt(format_args!("key slot {}", self.id), detail);
        let (head, sealed) = (&self.bytes[..HEAD_BYTES], &self.bytes[144..COMMITTED_BYTES]);
        let plain = keys.slot_info().open(head, sealed).map_err(|error| corrupt(&error))?;
        decode_info(&plain).map_err(|error| corrupt(&error))
    }

    fn open_by(&self, secret: SlotSecret<'_>) -> std::result::Result<MasterKey, OpenError> {
        let wrap = WrappingKey::derive(self.derivation, &self.salt, secret)?;
        let (committed, commitment) = self.bytes.split_at(COMMITTED_BYTES);
        if !bool::from(wrap.commit.of(committed).ct_eq(commitment)) {
            return Err(OpenError::Refused);
        }
        let master = Zeroizing::new(wrap.seal.open(&self.bytes[..HEAD_BYTES], &self.bytes[HEAD_BYTES..144])?);
        let master: [u8; MasterKey::BYTES] = master.as_slice().try_into().map_err(|_| OpenError::Refused)?;
        Ok(MasterKey::from_bytes(master))
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("id", &self.id).field("derivation", &self.derivation).finish_non_exhaustive()
    }
}

/// A slot's clear part.
struct Head {
    derivation: Derivation,
    salt: [u8; 32],
    repository: RepositoryId,
    id: SlotId,
}

impl Head {
    fn encode(&self) -> Vec<u8> {
        let (number, memory_kib, passes, lanes) = match self.derivation {
            Derivation::Passphrase(cost) => (BY_PASSPHRASE, cost.memory_kib, cost.passes, cost.lanes),
            Derivation::Machine => (BY_MACHINE, 0, 0, 0),
        };
        let mut out = Encoder::new();
        out.raw(MAGIC);
        out.raw(&[VERSION, SUITE, number, 0]);
        for value in [memory_kib, passes, lanes] {
            out.raw(&value.to_le_bytes());
        }
        out.raw(&self.salt);
        out.raw(&self.repository.0);
        out.raw(&self.id.0);
        out.raw(&EPOCH.to_le_bytes());
        out.raw(&0u32.to_le_bytes());
        out.finish()
    }

    /// Reads what follows the version.
    fn decode_rest(input: &mut Decoder<'_>) -> std::result::Result<Head, DecodeError> {
        let [suite, number, zero] = input.array()?;
        let memory_kib = u32::from_le_bytes(input.array()?);
        let passes = u32::from_le_bytes(input.array()?);
        let lanes = u32::from_le_bytes(input.array()?);
        let salt = input.array()?;
        let repository = RepositoryId(input.array()?);
        let id = SlotId(input.array()?);
        let epoch = u32::from_le_bytes(input.array()?);
        let zeros = u32::from_le_bytes(input.array()?);
        if suite != SUITE {
            return Err(DecodeError::Invalid("a key slot's suite"));
        }
        if zero != 0 || epoch != EPOCH || zeros != 0 {
            return Err(DecodeError::Invalid("a key slot's reserved field"));
        }
        let derivation = match (number, memory_kib, passes, lanes) {
            (BY_PASSPHRASE, ..) => {
                let cost = KdfCost { memory_kib, passes, lanes };
                cost.check()?;
                Derivation::Passphrase(cost)
            }
            (BY_MACHINE, 0, 0, 0) => Derivation::Machine,
            _ => return Err(DecodeError::Invalid("a key slot's key derivation")),
        };
        Ok(Head { derivation, salt, repository, id })
    }
}

fn seal_slot(
    head: &Head,
    secret: SlotSecret<'_>,
    master: &MasterKey,
    keys: &Keys,
    label: &str,
    created: Time,
) -> Result<Vec<u8>> {
    let info = encode_info(label, created)?;
    let wrap = WrappingKey::derive(head.derivation, &head.salt, secret).map_err(|error| Error::Local {
        doing: "derive the key of",
        path: format!("key slot {}", head.id),
        source: io::Error::other(error),
    })?;
    let mut slot = head.encode();
    let wrapped = wrap.seal.seal(&slot, master.expose());
    let described = keys.slot_info().seal(&slot, &info);
    slot.extend_from_slice(&wrapped);
    slot.extend_from_slice(&described);
    slot.extend_from_slice(&wrap.commit.of(&slot));
    Ok(slot)
}

fn encode_info(label: &str, created: Time) -> Result<Vec<u8>> {
    let (found, max) = (label.len() as u64, SLOT_LABEL_BYTES_MAX as u64);
    let length = u8::try_from(label.len()).ok().filter(|length| usize::from(*length) <= SLOT_LABEL_BYTES_MAX);
    let length = length.ok_or(Error::Limit { what: "the length of a key slot's label in bytes", found, max })?;
    let mut out = Encoder::new();
    // A clock before 1970 is wrong; nothing depends on this time.
    out.u64(u64::try_from(created.secs).unwrap_or(0));
    out.u8(length);
    out.raw(label.as_bytes());
    let mut info = out.finish();
    info.resize(INFO_BYTES, 0);
    Ok(info)
}

fn decode_info(plain: &[u8]) -> std::result::Result<SlotInfo, DecodeError> {
    let mut input = Decoder::new(plain);
    let secs = i64::try_from(input.u64()?).map_err(|_| DecodeError::Limit("a key slot's time"))?;
    let length = usize::from(input.u8()?);
    let label = std::str::from_utf8(input.raw(length)?).map_err(|_| DecodeError::Invalid("a key slot's label"))?;
    if input.raw(input.remaining())?.iter().any(|byte| *byte != 0) {
        return Err(DecodeError::Invalid("a key slot's padding"));
    }
    Ok(SlotInfo { label: label.to_owned(), created: Time { secs, nanos: 0 } })
}

#[cfg(test)]
mod tests;
