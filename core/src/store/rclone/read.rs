//! Reading from rclone: exactly the requested bytes, or an error.

use std::io;
use std::io::Read;

use ureq::Body;
use ureq::http::Response;
use ureq::http::StatusCode;
use ureq::http::header::CONTENT_RANGE;

use crate::error::Error;
use crate::error::Result;
use crate::store::ByteRange;
use crate::store::ObjectName;
use crate::store::Source;
use crate::store::rclone::RcloneStore;
use crate::store::rclone::client::Refused;

/// Existing objects are compared in pieces of this size.
const COMPARE_BYTES: u64 = 1 << 20;

impl RcloneStore {
    /// Opens an object for reading, or reports it as absent.
    fn open_object(&self, name: &ObjectName, range: ByteRange) -> io::Result<Response<Body>> {
        match self.ask(|client| client.read(name, range)) {
            Ok(answer) => Ok(answer),
            // In a bucket, rclone also reports bytes beyond the object's end as absent.
            Err(Refused::Absent) => match self.size(name)? {
                None => Err(io::ErrorKind::NotFound.into()),
                // Or the object was stored just now, after the request.
                Some(bytes) => self.ask(|client| client.read(name, range)).map_err(|refused| match refused {
                    Refused::Absent => {
                        let cause = format!("rclone did not return the requested bytes; the object has {bytes}");
                        io::Error::new(io::ErrorKind::UnexpectedEof, cause)
                    }
                    Refused::Failed(cause) => cause,
                }),
            },
            // A directory of that name, or a file above it, is reported as a failure.
            Err(Refused::Failed(cause)) => match self.size(name)? {
                None => Err(io::ErrorKind::NotFound.into()),
                Some(_) => Err(cause),
            },
        }
    }

    pub(super) fn get_whole(&self, name: &ObjectName, bytes_max: u64) -> Result<Vec<u8>> {
        let failed = |cause| Error::store("read", name, cause);
        let answer = self.open_object(name, ByteRange::Whole { bytes_max }).map_err(failed)?;
        let body = answer.into_body();
        let object_bytes = match body.content_length() {
            Some(bytes) => bytes,
            // For an empty object it does not.
            None => self.size(name).map_err(failed)?.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?,
        };
        let wanted = ByteRange::Whole { bytes_max }.within(name, object_bytes)?;
        self.read_exactly(body, wanted.end).map_err(failed)
    }

    pub(super) fn get_part(&self, name: &ObjectName, offset: u64, bytes: u64) -> Result<Vec<u8>> {
        let failed = |cause| Error::store("read", name, cause);
        let short = |why: String| failed(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        let range = ByteRange::Part { offset, bytes };
        if offset.checked_add(bytes).is_none_or(|end| i64::try_from(end).is_err()) {
            // No object is that long, and rclone cannot be asked for such bytes.
            let size = self.size(name).map_err(failed)?.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
            return range.within(name, size).map(|_| Vec::new());
        }
        let answer = self.open_object(name, range).map_err(failed)?;
        let content_range = answer
            .headers()
            .get(CONTENT_RANGE)
            .and_then(|content_range| content_range.to_str().ok())
            .unwrap_or_default();
        let wanted = format!("bytes {offset}-{}/", offset + bytes - 1);
        if answer.status() != StatusCode::PARTIAL_CONTENT || !content_range.starts_with(&wanted) {
            let status = answer.status().as_u16();
            return Err(short(format!(
                "a range of {bytes} from {offset} was requested, rclone returned {content_range:?} (status {status})"
            )));
        }
        let body = answer.into_body();
        if body.content_length() != Some(bytes) {
            return Err(short(format!("a length of {bytes} was requested, rclone sends {:?}", body.content_length())));
        }
        self.read_exactly(body, bytes).map_err(failed)
    }

    fn read_exactly(&self, body: Body, bytes: u64) -> io::Result<Vec<u8>> {
        let length = usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mut all = Vec::new();
        all.try_reserve_exact(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mut reader = body.into_reader();
        while (all.len() as u64) < bytes {
            let granted = self.link.download.grant(bytes - all.len() as u64);
            let read = reader.by_ref().take(granted).read_to_end(&mut all)?;
            if (read as u64) < granted {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(all)
    }

    /// True if the object holds exactly these bytes.
    pub(super) fn is_same(&self, name: &ObjectName, source: Source<'_>) -> io::Result<bool> {
        if self.size(name)? != Some(source.bytes()) {
            return Ok(false);
        }
        let answer = self.open_object(name, ByteRange::Whole { bytes_max: source.bytes() })?;
        let mut reader = answer.into_body().into_reader();
        let (mut old, mut new) = (Vec::new(), Vec::new());
        let mut at = 0;
        while at < source.bytes() {
            let length = self.link.download.grant(COMPARE_BYTES.min(source.bytes() - at));
            old.resize(usize::try_from(length).unwrap_or(0), 0);
            new.resize(old.len(), 0);
            reader.read_exact(&mut old)?;
            source.read_exact_at(&mut new, at)?;
            if old != new {
                return Ok(false);
            }
            at += length;
        }
        Ok(true)
    }
}
