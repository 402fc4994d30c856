//! The names of things: fixed-size byte strings, each with its own type so that none can be used as another.
//!
//! As text (object names, messages, JSON) they are lower-case hexadecimal, written and read only here.

use std::fmt;

/// Lower-case hexadecimal of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(*DIGITS.get(usize::from(nibble)).unwrap_or(&b'?'));
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The bytes of lower-case hexadecimal `text`; `None` for anything else, upper case included, because one thing has one
/// name.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let nibble = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| match pair {
            [high, low] => Some(nibble(*high)? << 4 | nibble(*low)?),
            _ => None,
        })
        .collect()
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            /// Length in bytes.
            pub const BYTES: usize = $bytes;

            /// From exactly the right number of bytes.
            pub fn from_bytes(bytes: &[u8]) -> Option<$name> {
                bytes.try_into().ok().map($name)
            }

            /// From exactly the right number of lower-case hexadecimal digits.
            pub fn from_hex(text: &str) -> Option<$name> {
                $name::from_bytes(&unhex(text)?)
            }

            /// Lower-case hexadecimal.
            pub fn to_hex(&self) -> String {
                hex(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

id_type!(
    /// Names a block of file content: HMAC-SHA-256 of its bytes under the block-id key.
    BlockId,
    32
);
id_type!(
    /// Names a tree node (directory or block list): HMAC-SHA-256 of its bytes under the node-id key.
    NodeId,
    32
);
id_type!(
    /// Names a volume: SHA-256 of the stored object's bytes.
    VolumeName,
    32
);
id_type!(
    /// SHA-256 of a commit object's bytes; the next commit of the chain names it.
    CommitHash,
    32
);
id_type!(
    /// Names a repository: random, made once.
    RepositoryId,
    16
);
id_type!(
    /// Names one catalog on one machine, the owner of one chain of commits: random.
    ClientId,
    16
);
id_type!(
    /// Names a snapshot: random.
    SnapshotId,
    16
);
id_type!(
    /// Names one run that refers to stored blocks, such as a backup: random.
    RunId,
    16
);
id_type!(
    /// Names a key slot: random.
    SlotId,
    16
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_goes_there_and_back_and_refuses_all_else() {
        let id = SlotId(*b"0123456789abcdef");
        assert_eq!(SlotId::from_hex(&id.to_hex()), Some(id));
        for bad in ["", "0", "zz", &"AB".repeat(16), &"ab".repeat(15), &"ab".repeat(17)] {
            assert_eq!(SlotId::from_hex(bad), None, "{bad:?} is not a slot id");
        }
    }
}
