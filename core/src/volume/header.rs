//! The clear header of a volume. It stands at the start and near the end, and either copy serves: the salt in it is the
//! only thing that a reader needs before it can open a seal.

use crate::limits;
use crate::wire::DecodeError;
use crate::wire::Decoder;
use crate::wire::Encoder;

/// Length of the clear header.
pub const HEADER_BYTES: u64 = 48;

const MAGIC: &[u8; 8] = b"BYGNVOLU";
const SUITE_AES_256_SIV: u8 = 1;
const KEY_MODE_MASTER: u8 = 1;

/// The random bytes from which a volume's key is derived.
pub type Salt = [u8; 32];

/// The clear header of a volume.
pub fn header(salt: &Salt) -> Vec<u8> {
    let mut out = Encoder::new();
    out.raw(MAGIC);
    out.raw(&[limits::FORMAT_VERSION, SUITE_AES_256_SIV, KEY_MODE_MASTER, 0]);
    out.raw(&0u32.to_le_bytes());
    out.raw(salt);
    out.finish()
}

/// Reads a clear header.
pub fn parse_header(bytes: &[u8]) -> Result<Salt, DecodeError> {
    let mut input = Decoder::new(bytes);
    if input.array::<8>()? != *MAGIC {
        return Err(DecodeError::Invalid("the magic number"));
    }
    let [version, suite, key_mode, zero] = input.array()?;
    if version > limits::FORMAT_VERSION {
        return Err(DecodeError::TooNew(version));
    }
    if (version, suite, key_mode, zero) != (limits::FORMAT_VERSION, SUITE_AES_256_SIV, KEY_MODE_MASTER, 0) {
        return Err(DecodeError::Invalid("the header"));
    }
    if input.array::<4>()? != [0; 4] {
        return Err(DecodeError::Invalid("the reserved field"));
    }
    let salt = input.array()?;
    input.end()?;
    Ok(salt)
}
