//! The hashes of a PUT, in one part or in several: the service must compute the same ones.

use std::io;

use crate::hash::Sha256Stream;
use crate::id::hex;
use crate::store::Source;

/// Objects are hashed in pieces of this size.
const PIECE_BYTES: u64 = 1 << 20;

/// The hashes of an object that is to be stored in one part or in several.
pub(super) struct Hashes {
    pub sha256_hex: String,
    pub parts: Vec<PartHashes>,
}

/// The hashes of a part; a single part is the whole object.
pub(super) struct PartHashes {
    pub bytes: u64,
    pub sha256_hex: String,
    md5: [u8; 16],
}

impl PartHashes {
    /// The ETag that S3 gives to these bytes.
    pub fn md5_hex(&self) -> String {
        hex(&self.md5)
    }

    /// As `Content-MD5` wants it.
    pub fn md5_base64(&self) -> String {
        base64(&self.md5)
    }
}

impl Hashes {
    /// The object's ETag in S3: for an object in several parts, the MD5 of their MD5s and their number.
    pub fn etag(&self) -> String {
        match self.parts.as_slice() {
            [whole] => whole.md5_hex(),
            parts => {
                let all: Vec<u8> = parts.iter().flat_map(|part| part.md5).collect();
                format!("{}-{}", hex(&md5::compute(all).0), parts.len())
            }
        }
    }
}

/// Reads the object once, piece by piece. An object longer than two parts is cut into parts of `part_bytes`; 0 means
/// never.
pub(super) fn hash(source: Source<'_>, part_bytes: u64) -> io::Result<Hashes> {
    let is_cut = part_bytes > 0 && source.bytes() > part_bytes.saturating_mul(2);
    let part_bytes = if is_cut { part_bytes } else { source.bytes() };
    let (mut whole, mut parts) = (Sha256Stream::new(), Vec::new());
    let (mut at, mut piece) = (0, Vec::new());
    loop {
        let end = at + part_bytes.min(source.bytes() - at);
        let (begin, mut sha256, mut md5) = (at, Sha256Stream::new(), md5::Context::new());
        while at < end {
            let bytes = PIECE_BYTES.min(end - at);
            piece.resize(usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?, 0);
            source.read_exact_at(&mut piece, at)?;
            sha256.update(&piece);
            md5.consume(&piece);
            if is_cut {
                whole.update(&piece);
            }
            at += bytes;
        }
        parts.push(PartHashes { bytes: end - begin, sha256_hex: hex(&sha256.finish()), md5: md5.finalize().0 });
        if at >= source.bytes() {
            break;
        }
    }
    let sha256_hex = match parts.as_slice() {
        [only] => only.sha256_hex.clone(),
        _ => hex(&whole.finish()),
    };
    Ok(Hashes { sha256_hex, parts })
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
        for part_bytes in [0, 2, 3] {
            let hashes = hash(Source::Bytes(b"abc"), part_bytes).unwrap();
            assert_eq!((hashes.etag().as_str(), hashes.parts.len()), ("900150983cd24fb0d6963f7d28e17f72", 1));
            assert!(hashes.sha256_hex.starts_with("ba7816bf8f01cfea"));
        }
        let empty = hash(Source::Bytes(b""), 1).unwrap();
        assert_eq!((empty.parts.len(), empty.etag().as_str()), (1, "d41d8cd98f00b204e9800998ecf8427e"));
    }

    #[test]
    fn a_long_object_has_part_hashes_and_the_etag_of_s3() {
        let hashes = hash(Source::Bytes(b"abcabcab"), 3).unwrap();
        assert!(hashes.sha256_hex == hex(&crate::hash::sha256(b"abcabcab")));
        let parts: Vec<_> = hashes.parts.iter().map(|part| (part.bytes, part.sha256_hex.get(..16).unwrap())).collect();
        assert_eq!(parts, [(3, "ba7816bf8f01cfea"), (3, "ba7816bf8f01cfea"), (2, "fb8e20fc2e4c3f24")]);
        let md5s = [&md5::compute(b"abc").0[..], &md5::compute(b"abc").0, &md5::compute(b"ab").0].concat();
        assert_eq!(hashes.etag(), format!("{}-3", hex(&md5::compute(md5s).0)));
    }
}
