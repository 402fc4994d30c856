//! The hashes that go with a PUT: the service must find the same ones.

use std::io;

use crate::hash::Sha256Stream;
use crate::id::hex;
use crate::store::Source;

/// Objects to be are read in pieces of this size.
const PIECE_BYTES: u64 = 1 << 20;

/// The hashes of an object to be.
pub(super) struct Hashes {
    pub sha256_hex: String,
    pub md5_hex: String,
    pub md5_base64: String,
}

/// Reads the object once, piece by piece.
pub(super) fn hash(source: Source<'_>) -> io::Result<Hashes> {
    let (mut sha256, mut md5) = (Sha256Stream::new(), md5::Context::new());
    let (mut at, mut piece) = (0, Vec::new());
    while at < source.bytes() {
        let bytes = PIECE_BYTES.min(source.bytes() - at);
        piece.resize(usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?, 0);
        source.read_exact_at(&mut piece, at)?;
        sha256.update(&piece);
        md5.consume(&piece);
        at += bytes;
    }
    let md5 = md5.finalize();
    Ok(Hashes { sha256_hex: hex(&sha256.finish()), md5_hex: hex(&md5.0), md5_base64: base64(&md5.0) })
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let value = group.iter().fold(0_u32, |value, byte| value << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for digit in 0..4 {
            let index = (value >> (18 - 6 * digit)) & 63;
            let letter = DIGITS.get(index as usize).copied().unwrap_or(b'=');
            text.push(if digit <= group.len() { letter.into() } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE=")];
        for (plain, text) in cases {
            assert_eq!(base64(plain.as_bytes()), text);
        }
    }

    #[test]
    fn the_hashes_are_those_of_all_bytes() {
        let hashes = hash(Source::Bytes(b"abc")).unwrap();
        assert_eq!(hashes.md5_hex, "900150983cd24fb0d6963f7d28e17f72");
        assert!(hashes.sha256_hex.starts_with("ba7816bf8f01cfea"));
    }
}
