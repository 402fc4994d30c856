//! Storing an object: whether it exists already, the PUT of a whole object, and the check of the answer.

use std::io;
use std::sync::atomic::Ordering;

use ureq::http::HeaderName;
use ureq::http::Method;
use ureq::http::header;

use crate::error::Error;
use crate::error::Result;
use crate::lock::lock;
use crate::store::ObjectName;
use crate::store::Source;
use crate::store::Stored;
use crate::store::already_there;
use crate::store::s3::ERROR_BYTES_MAX;
use crate::store::s3::S3Store;
use crate::store::s3::client::Answer;
use crate::store::s3::client::Call;
use crate::store::s3::client::Payload;
use crate::store::s3::hashes::Hashes;
use crate::store::s3::hashes::PartHashes;
use crate::store::s3::hashes::hash;
use crate::store::s3::trouble::Trouble;

/// Existing objects are compared in pieces of this size.
const PIECE_BYTES: u64 = 1 << 20;
/// "Only if nothing is there."
pub(super) const CONDITION: &[(HeaderName, &str)] = &[(header::IF_NONE_MATCH, "*")];

/// An object as HEAD shows it.
pub(super) struct Head {
    pub bytes: Option<u64>,
    pub etag: Option<String>,
}

impl S3Store {
    /// Stores an object, or finds it there.
    pub(super) fn put_once(&self, name: &ObjectName, source: Source<'_>) -> Result<Stored> {
        let failed = |cause| Error::store("write", name, cause);
        let part_bytes = if self.knows_parts.load(Ordering::Relaxed) { self.address.part_bytes } else { 0 };
        let mut hashes = hash(source, part_bytes).map_err(failed)?;
        let is_named_by_hash = name.split().1 == hashes.sha256_hex;
        if is_named_by_hash && hashes.parts.len() > 1 {
            if let Some(stored) = self.put_in_parts(name, source, &hashes)? {
                return Ok(stored);
            }
            self.knows_parts.store(false, Ordering::Relaxed);
        }
        if hashes.parts.len() > 1 {
            hashes = hash(source, 0).map_err(failed)?;
        }
        let _alone = (!is_named_by_hash).then(|| lock(&self.writer));
        if !is_named_by_hash && let Some(stored) = self.already_there(name, source, &hashes)? {
            return Ok(stored);
        }
        if let Some(stored) = self.put_whole(name, source, &hashes)? {
            return Ok(stored);
        }
        self.already_there(name, source, &hashes)?.ok_or_else(|| {
            let cause = "the service reports that the object exists, and then that it does not";
            self.client.failed("write", name.as_str(), io::Error::new(io::ErrorKind::ResourceBusy, cause))
        })
    }

    pub(super) fn head(&self, name: &ObjectName) -> Result<Option<Head>> {
        let answer = self.client.send(&Call::new(Method::HEAD, "look for", name.as_str(), &self.key(name)))?;
        match answer.status {
            200 => Ok(Some(Head { bytes: answer.body_bytes(), etag: answer.etag() })),
            // Also if the bucket does not exist, which HEAD cannot tell: the request that follows will.
            404 => Ok(None),
            _ => Err(self.refused("look for", name.as_str(), answer)),
        }
    }

    /// The existing object, if it has exactly these bytes; an error if it has others; `None` if nothing exists.
    pub(super) fn already_there(
        &self,
        name: &ObjectName,
        source: Source<'_>,
        hashes: &Hashes,
    ) -> Result<Option<Stored>> {
        let Some(head) = self.head(name)? else { return Ok(None) };
        if head.bytes != Some(source.bytes()) {
            return Err(already_there(name));
        }
        let is_same_by_etag = head.etag == Some(hashes.etag());
        if !is_same_by_etag && !self.is_same(name, source)? {
            return Err(already_there(name));
        }
        Ok(Some(Stored { etag: head.etag }))
    }

    fn is_same(&self, name: &ObjectName, source: Source<'_>) -> Result<bool> {
        let mut at = 0;
        while at < source.bytes() {
            let bytes = PIECE_BYTES.min(source.bytes() - at);
            let there = self.get_part(name, at, bytes)?;
            let mut here = vec![0; there.len()];
            source.read_exact_at(&mut here, at).map_err(|cause| Error::store("write", name, cause))?;
            if here != there {
                return Ok(false);
            }
            at += bytes;
        }
        Ok(true)
    }

    /// Puts the object in one request if nothing is there. `None` if something is.
    fn put_whole(&self, name: &ObjectName, source: Source<'_>, hashes: &Hashes) -> Result<Option<Stored>> {
        let is_conditional = self.conditional.load(Ordering::Relaxed);
        let md5_base64 = hashes.parts.first().map(PartHashes::md5_base64).unwrap_or_default();
        let mut answer = self.client.send(&Call {
            headers: if is_conditional { CONDITION } else { &[] },
            payload: Some(Payload {
                source,
                offset: 0,
                bytes: source.bytes(),
                sha256_hex: &hashes.sha256_hex,
                md5_base64: &md5_base64,
            }),
            ..Call::new(Method::PUT, "write", name.as_str(), &self.key(name))
        })?;
        match answer.status {
            200 => {}
            412 if is_conditional => return Ok(None),
            501 if is_conditional => {
                self.conditional.store(false, Ordering::Relaxed);
                return self.put_whole(name, source, hashes);
            }
            _ => return Err(self.refused("write", name.as_str(), answer)),
        }
        let taken = taken_in(&mut answer, &hashes.etag());
        let etag = taken.map_err(|cause| self.client.failed("write", name.as_str(), cause))?;
        Ok(Some(Stored { etag: Some(etag) }))
    }
}

/// The ETag of the stored bytes, from an answer with status 200.
pub(super) fn taken_in(answer: &mut Answer<'_>, md5_hex: &str) -> io::Result<String> {
    let body = answer.read_at_most(ERROR_BYTES_MAX)?;
    if !body.iter().all(u8::is_ascii_whitespace) {
        return Err(Trouble::nonsense("a PUT is answered with a body"));
    }
    let etag = answer.etag().ok_or_else(|| Trouble::nonsense("a PUT is answered without an ETag"))?;
    let is_encrypted = answer.header("x-amz-server-side-encryption").is_some_and(|how| how != "AES256");
    if is_md5(&etag) && !is_encrypted && etag != md5_hex {
        let cause = format!("the service has other bytes: their MD5 is {etag}, not {md5_hex}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, cause));
    }
    Ok(etag)
}

/// True if an ETag has the form of an MD5; those of objects uploaded in parts do not.
fn is_md5(etag: &str) -> bool {
    etag.len() == 32 && etag.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_of_parts_is_no_md5() {
        assert!(is_md5("900150983cd24fb0d6963f7d28e17f72") && !is_md5("900150983cd24fb0d6963f7d28e17f72-3"));
    }
}
