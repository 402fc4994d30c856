//! Keys, and sealing with them.
//!
//! One random master key is the root of everything. Slots wrap it for people ([`slot`], [`kdf`]), HKDF derives every
//! other key from it ([`keys`]), and everything that leaves the machine is sealed by AES-256-SIV ([`siv`]), many pieces
//! at a time (module `lanes`). SIV needs no nonce: two machines that share a key, a cloned virtual machine, or a retry
//! can at worst reveal that two pieces are equal.

pub mod kdf;
pub mod keys;
mod lanes;
pub mod siv;
pub mod slot;

pub use kdf::KdfCost;
pub use keys::Keys;
pub use keys::MasterKey;
pub use keys::random;
pub use siv::Message;
pub use siv::OpenError;
pub use siv::SealKey;
pub use siv::TAG_BYTES;
pub use slot::Slot;
pub use slot::SlotInfo;
