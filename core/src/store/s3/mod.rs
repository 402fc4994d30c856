//! A store in a bucket of an S3 service: Amazon's, or one of the many that speak its language.
//!
//! An object is stored as an object of the bucket; its key is the prefix followed by the object's name. The service is
//! not trusted:
//!
//! - **GET** requires status 206 and exactly the requested bytes, by `Content-Range`, by length, and by what arrives.
//! - **PUT** sends the MD5 and the SHA-256 of the bytes, which the service must check, and requires status 200 and an
//!   ETag, which must be the MD5 unless the service states that it encrypts. Long objects go in parts (see `parts`).
//! - **LIST** is paged here and accepted only if it can be whole (see `listing`).
//! - **404** means absence only if the service says `NoSuchKey`; redirects are not followed; any other answer is an
//!   error.
//!
//! Nothing is retried here: see [`super::retry`].
//!
//! **Never overwritten**, as far as possible. Every PUT has `If-None-Match: *`, which today's services (Amazon, MinIO,
//! Ceph, R2, ...) obey by refusing to replace anything. Others ignore it and would overwrite. So before a PUT of an
//! object whose name is not the SHA-256 of its bytes, we check whether the name is taken, and in this process the
//! writers of such names take turns. On services that ignore the header, two *processes* that write one name *at the
//! same moment* may still overwrite each other. Bygone writes different bytes under one name only if a machine was
//! cloned with its catalog, which the chain of commits reveals. An object whose name is its hash can only be
//! overwritten by the same bytes.

mod access;
mod address;
mod client;
mod hashes;
mod listing;
mod parts;
mod put;
mod trouble;
mod xml;

use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use client::Answer;
use client::Call;
use client::Client;
use listing::PAGE_BYTES_MAX;
use listing::Pages;
use parts::Uploads;
use trouble::Refusal;
use ureq::http::Method;
use ureq::http::header;

use crate::error::Error;
use crate::error::Result;
use crate::store::ByteRange;
use crate::store::Listed;
use crate::store::ObjectName;
use crate::store::Source;
use crate::store::Store;
use crate::store::Stored;
use crate::store::link::Link;
use crate::watch::Watch;

pub use access::KeySource;
pub use access::S3Access;
pub use access::S3Keys;
pub use address::S3Address;
pub use address::Style;
pub use trouble::Trouble;

/// Default number of concurrent requests.
const TRANSFERS_USUAL: usize = 4;
/// Longest error body that is read.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// A bucket, or the part of it under a prefix.
pub struct S3Store {
    address: S3Address,
    client: Client,
    /// False once the service has turned out not to know `If-None-Match`.
    conditional: AtomicBool,
    /// Held while writing under a name that is not the hash of the bytes: such objects are few and small.
    writer: Mutex<()>,
    /// False once the service has turned out not to accept parts.
    knows_parts: AtomicBool,
    /// Unfinished uploads in parts.
    uploads: Uploads,
}

impl S3Store {
    /// The store at this address. No request is made: the first GET shows whether there is a repository.
    pub fn new(address: &S3Address, access: S3Access, link: Arc<Link>, watch: &Arc<Watch>) -> Result<S3Store> {
        let client = Client::new(address, access, link, watch)?;
        Ok(S3Store {
            address: address.clone(),
            client,
            conditional: AtomicBool::new(true),
            writer: Mutex::new(()),
            knows_parts: AtomicBool::new(true),
            uploads: Uploads::default(),
        })
    }

    fn key(&self, name: &ObjectName) -> String {
        format!("{}{name}", self.address.prefix)
    }

    /// The error for an unexpected answer.
    fn refused(&self, doing: &'static str, object: &str, mut answer: Answer<'_>) -> Error {
        // If the body cannot be read, the status alone must do.
        let body = answer.read_at_most(ERROR_BYTES_MAX).unwrap_or_default();
        let region = answer.header("x-amz-bucket-region");
        let refusal = Refusal { status: answer.status, body: &body, region, date: answer.header(header::DATE) };
        self.client.failed(doing, object, Trouble::of_refusal(&refusal, self.client.now()))
    }

    fn get_part(&self, name: &ObjectName, offset: u64, bytes: u64) -> Result<Vec<u8>> {
        let failed = |cause| self.client.failed("read", name.as_str(), cause);
        let beyond = || io::Error::new(io::ErrorKind::UnexpectedEof, "no object can have the requested bytes");
        let last =
            bytes.checked_sub(1).and_then(|bytes| offset.checked_add(bytes)).ok_or_else(beyond).map_err(failed)?;
        let range = format!("bytes={offset}-{last}");
        let answer = self.client.send(&Call {
            headers: &[(header::RANGE, &range)],
            ..Call::new(Method::GET, "read", name.as_str(), &self.key(name))
        })?;
        match answer.status {
            206 => {}
            200 => return Err(failed(Trouble::nonsense("a part was requested but the whole was sent"))),
            _ => return Err(self.refused("read", name.as_str(), answer)),
        }
        let served = answer.header(header::CONTENT_RANGE).and_then(parse_content_range);
        match served {
            Some((from, to, _)) if (from, to) == (offset, last) => {}
            Some((from, _, Some(whole))) if from == offset && whole <= last => return Err(failed(beyond())),
            _ => return Err(failed(Trouble::nonsense("other bytes were sent than requested"))),
        }
        let length = usize::try_from(bytes).map_err(|_| failed(io::ErrorKind::OutOfMemory.into()))?;
        self.body(&answer, Some(bytes)).map_err(failed)?;
        answer.read_exactly(length).map_err(failed)
    }

    fn get_whole(&self, name: &ObjectName, bytes_max: u64) -> Result<Vec<u8>> {
        let failed = |cause| self.client.failed("read", name.as_str(), cause);
        let answer = self.client.send(&Call::new(Method::GET, "read", name.as_str(), &self.key(name)))?;
        match answer.status {
            200 => {}
            206 => return Err(failed(Trouble::nonsense("the whole was requested but a part was sent"))),
            _ => return Err(self.refused("read", name.as_str(), answer)),
        }
        let bytes = self.body(&answer, None).map_err(failed)?;
        if bytes > bytes_max {
            return Err(Error::Limit { what: "the size of a stored object", found: bytes, max: bytes_max });
        }
        let length = usize::try_from(bytes).map_err(|_| failed(io::ErrorKind::OutOfMemory.into()))?;
        answer.read_exactly(length).map_err(failed)
    }

    /// Length of the answer's body: the answer must state it, and must have the ETag that every object has.
    fn body(&self, answer: &Answer<'_>, expected: Option<u64>) -> io::Result<u64> {
        if answer.etag().is_none() {
            return Err(Trouble::nonsense("an object was sent without an ETag"));
        }
        match answer.body_bytes() {
            Some(bytes) if expected.is_none_or(|expected| expected == bytes) => Ok(bytes),
            Some(_) => Err(Trouble::nonsense("another number of bytes was sent than requested")),
            None => Err(Trouble::nonsense("an object was sent without its length")),
        }
    }
}

impl Store for S3Store {
    fn address(&self) -> String {
        self.address.to_string()
    }

    fn connections(&self) -> usize {
        self.client.transfers()
    }

    fn is_far(&self) -> bool {
        true
    }

    fn get(&self, name: &ObjectName, range: ByteRange) -> Result<Vec<u8>> {
        range.check()?;
        match range {
            ByteRange::Whole { bytes_max } => self.get_whole(name, bytes_max),
            ByteRange::Part { offset, bytes } => self.get_part(name, offset, bytes),
        }
    }

    fn put(&self, name: &ObjectName, source: Source<'_>) -> Result<Stored> {
        self.put_once(name, source)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        super::check_prefix(prefix)?;
        let shown = format!(
            "{}/{prefix}",
            self.address.to_string().split('?').next().unwrap_or_default().trim_end_matches('/')
        );
        let failed = |cause| self.client.failed("list", &shown, cause);
        let whole_prefix = format!("{}{prefix}", self.address.prefix);
        let mut listed = Vec::new();
        let mut pages = Pages::new(&whole_prefix);
        loop {
            let token = pages.token().unwrap_or_default();
            let all = [
                ("continuation-token", token),
                ("encoding-type", "url"),
                ("list-type", "2"),
                ("prefix", &whole_prefix),
            ];
            let query = if token.is_empty() { all.get(1..).unwrap_or_default() } else { &all };
            let mut answer = self.client.send(&Call { query, ..Call::new(Method::GET, "list", &shown, "") })?;
            if answer.status != 200 {
                return Err(match self.refused("list", &shown, answer) {
                    // An empty list is empty; a list that does not exist is an error.
                    Error::Store { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                        failed(Trouble::nonsense("a list is reported as a missing object"))
                    }
                    other => other,
                });
            }
            let body = answer.read_at_most(PAGE_BYTES_MAX).map_err(failed)?;
            let (items, goes_on) = pages.take(&body).map_err(failed)?;
            listed.extend(items.into_iter().filter_map(|item| {
                let name = ObjectName::new(item.key.strip_prefix(&self.address.prefix)?)?;
                Some(Listed { name, bytes: item.bytes, etag: item.etag })
            }));
            if !goes_on {
                return Ok(listed);
            }
        }
    }

    fn clear(&self, names: &[ObjectName]) -> Result<()> {
        self.abort_uploads_of(names)
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        let mut answer = self.client.send(&Call::new(Method::DELETE, "delete", name.as_str(), &self.key(name)))?;
        match answer.status {
            204 => Ok(()),
            200 => {
                let failed = |cause| self.client.failed("delete", name.as_str(), cause);
                let body = answer.read_at_most(ERROR_BYTES_MAX).map_err(failed)?;
                if body.is_empty() {
                    Ok(())
                } else {
                    Err(failed(Trouble::nonsense("a DELETE is answered with a body")))
                }
            }
            _ => match self.refused("delete", name.as_str(), answer) {
                error if error.is_absent() => Ok(()),
                error => Err(error),
            },
        }
    }
}

/// Parses `bytes 0-4/10` or `bytes 0-4/*`: first, last, and total.
fn parse_content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, whole) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let whole = if whole == "*" { None } else { Some(whole.parse().ok()?) };
    Some((first.parse().ok()?, last.parse().ok()?, whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_is_read_or_refused() {
        assert_eq!(parse_content_range("bytes 0-4/10"), Some((0, 4, Some(10))));
        assert_eq!(parse_content_range("bytes 5-9/*"), Some((5, 9, None)));
        for bad in ["", "bytes", "bytes */10", "0-4/10", "bytes 0-4", "bytes a-4/10"] {
            assert_eq!(parse_content_range(bad), None, "{bad}");
        }
    }
}
