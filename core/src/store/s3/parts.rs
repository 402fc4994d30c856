//! Long objects go in parts, so that a broken connection costs a part and not the object.
//!
//! S3 joins the parts when it is told that they are complete; until then a LIST shows nothing. When a PUT fails, the
//! parts that have arrived are remembered, and a retry of the same PUT continues with them. Each part carries its MD5
//! and SHA-256 like a whole object, and the service must answer with its ETag; after joining, the whole object is
//! checked for its size. Only objects named by their hash go in parts, so concurrent uploads of one name are identical.
//!
//! An unfinished upload takes up room that no LIST shows. One that fails for good is aborted at once. Those of a killed
//! process are aborted by the next run of the same machine, which knows the names ([`Store::clear`]); if no run
//! follows, a rule of the bucket can do it (docs/STORES.md). An abort names an upload and cannot affect an object.
//!
//!
//! [`Store::clear`]: crate::store::Store::clear

use std::collections::HashMap;
use std::collections::HashSet;
use std::io;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;

use serde::Deserialize;
use ureq::http::HeaderName;
use ureq::http::Method;

use crate::error::Error;
use crate::error::Result;
use crate::lock::lock;
use crate::store::ObjectName;
use crate::store::Source;
use crate::store::Stored;
use crate::store::retry::WentOn;
use crate::store::retry::may_pass;
use crate::store::s3::ERROR_BYTES_MAX;
use crate::store::s3::S3Store;
use crate::store::s3::client::Answer;
use crate::store::s3::client::Call;
use crate::store::s3::client::Payload;
use crate::store::s3::hashes::Hashes;
use crate::store::s3::hashes::hash;
use crate::store::s3::listing::PAGE_BYTES_MAX;
use crate::store::s3::listing::unescaped;
use crate::store::s3::put::CONDITION;
use crate::store::s3::put::taken_in;
use crate::store::s3::trouble::Refusal;
use crate::store::s3::trouble::Trouble;
use crate::store::s3::xml::root;

/// Most pages of unfinished uploads that are examined, of a thousand uploads each.
const PAGES_MAX: usize = 100;
/// Longest id that a service may give to an upload.
const ID_BYTES_MAX: usize = 2_048;

/// Uploads whose last attempt failed, by key.
#[derive(Default)]
pub(super) struct Uploads(Mutex<HashMap<String, Upload>>);

/// An upload in parts.
struct Upload {
    /// The service's id for it.
    id: String,
    /// The ETags of the parts that have arrived, from the first on.
    etags: Vec<String>,
}

impl Uploads {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Upload>> {
        lock(&self.0)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Begun {
    upload_id: String,
}

#[derive(Deserialize)]
struct Completed {
    #[serde(rename = "ETag")]
    etag: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    is_truncated: bool,
    encoding_type: Option<String>,
    next_key_marker: Option<String>,
    next_upload_id_marker: Option<String>,
    #[serde(default)]
    upload: Vec<Unfinished>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Unfinished {
    key: String,
    upload_id: String,
}

impl S3Store {
    /// Stores an object in parts, or finds it there. `None` if the service does not support parts.
    pub(super) fn put_in_parts(
        &self,
        name: &ObjectName,
        source: Source<'_>,
        hashes: &Hashes,
    ) -> Result<Option<Stored>> {
        let key = self.key(name);
        let earlier = self.uploads.lock().remove(&key);
        let begun = match earlier {
            Some(upload) => Some(upload),
            None => self.begin(name)?,
        };
        let Some(mut upload) = begun else { return Ok(None) };
        let before = upload.etags.len();
        let sent = self.send_parts(name, source, hashes, &mut upload);
        let error = match sent.and_then(|()| self.complete(name, source, hashes, &upload)) {
            Ok(stored) => return Ok(Some(stored)),
            Err(error) => error,
        };
        if is_forgotten(&error) {
            return Err(error);
        }
        if !may_pass(&error) {
            // The result does not matter: the first error is the one to report.
            drop(self.abort(&key, &upload.id));
            return Err(error);
        }
        let went_on = upload.etags.len() > before;
        if let Some(other) = self.uploads.lock().insert(key.clone(), upload) {
            // Another thread was uploading the same object.
            drop(self.abort(&key, &other.id));
        }
        Err(if went_on { WentOn::mark(error) } else { error })
    }

    /// Starts an upload. `None` if the service does not support uploads in parts.
    fn begin(&self, name: &ObjectName) -> Result<Option<Upload>> {
        let mut answer = self.post(name, &[("uploads", "")], &[], b"")?;
        match answer.status {
            200 => {}
            405 | 501 => return Ok(None),
            _ => return Err(self.refused("write", name.as_str(), answer)),
        }
        let begun = self.read_answer::<Begun>(name, &mut answer, "InitiateMultipartUploadResult")?;
        if begun.upload_id.is_empty() || begun.upload_id.len() > ID_BYTES_MAX {
            let cause = Trouble::nonsense("an upload was started without an id");
            return Err(self.client.failed("write", name.as_str(), cause));
        }
        Ok(Some(Upload { id: begun.upload_id, etags: Vec::new() }))
    }

    /// Sends the missing parts.
    fn send_parts(&self, name: &ObjectName, source: Source<'_>, hashes: &Hashes, upload: &mut Upload) -> Result<()> {
        let mut offset = 0;
        for (index, part) in hashes.parts.iter().enumerate() {
            if index >= upload.etags.len() {
                let number = (index + 1).to_string();
                let mut answer = self.client.send(&Call {
                    query: &[("partNumber", &number), ("uploadId", &upload.id)],
                    payload: Some(Payload {
                        source,
                        offset,
                        bytes: part.bytes,
                        sha256_hex: &part.sha256_hex,
                        md5_base64: &part.md5_base64(),
                    }),
                    ..Call::new(Method::PUT, "write", name.as_str(), &self.key(name))
                })?;
                if answer.status != 200 {
                    return Err(self.refused("write", name.as_str(), answer));
                }
                let taken = taken_in(&mut answer, &part.md5_hex());
                upload.etags.push(taken.map_err(|cause| self.client.failed("write", name.as_str(), cause))?);
            }
            offset += part.bytes;
        }
        Ok(())
    }

    /// Has the parts joined, unless the object already exists.
    fn complete(&self, name: &ObjectName, source: Source<'_>, hashes: &Hashes, upload: &Upload) -> Result<Stored> {
        let is_conditional = self.conditional.load(Ordering::Relaxed);
        let parts = upload.etags.iter().zip(1..).map(|(etag, number)| {
            let etag = quick_xml::escape::escape(etag.as_str());
            format!("<Part><PartNumber>{number}</PartNumber><ETag>\"{etag}\"</ETag></Part>")
        });
        let parts = parts.collect::<String>();
        let body = format!(
            "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{parts}\
             </CompleteMultipartUpload>"
        );
        let headers = if is_conditional { CONDITION } else { &[] };
        let mut answer = self.post(name, &[("uploadId", &upload.id)], headers, body.as_bytes())?;
        match answer.status {
            200 => {}
            412 if is_conditional => {
                drop(self.abort(&self.key(name), &upload.id));
                return self.found(name, source, hashes);
            }
            501 if is_conditional => {
                self.conditional.store(false, Ordering::Relaxed);
                return self.complete(name, source, hashes, upload);
            }
            _ => {
                let error = self.refused("write", name.as_str(), answer);
                // An earlier attempt may have succeeded without its answer arriving.
                return if is_forgotten(&error) { self.found(name, source, hashes) } else { Err(error) };
            }
        }
        let etag = self.read_answer::<Completed>(name, &mut answer, "CompleteMultipartUploadResult")?.etag;
        let etag = etag.trim().trim_matches('"').to_owned();
        let head = self.head(name)?;
        let shown = head.map(|head| (head.bytes, head.etag));
        if shown != Some((Some(source.bytes()), Some(etag.clone()))) {
            let cause = Trouble::nonsense("an object was joined from its parts, but is not there as expected");
            return Err(self.client.failed("write", name.as_str(), cause));
        }
        Ok(Stored { etag: Some(etag) })
    }

    /// The object, if an earlier attempt has joined it. Otherwise the upload starts anew.
    fn found(&self, name: &ObjectName, source: Source<'_>, hashes: &Hashes) -> Result<Stored> {
        self.already_there(name, source, hashes)?.ok_or_else(|| {
            let cause = io::Error::new(io::ErrorKind::ResourceBusy, Trouble::NoUpload);
            self.client.failed("write", name.as_str(), cause)
        })
    }

    /// Aborts an upload. An upload that no longer exists is fine too.
    fn abort(&self, key: &str, id: &str) -> Result<()> {
        let answer = self
            .client
            .send(&Call { query: &[("uploadId", id)], ..Call::new(Method::DELETE, "clear away", key, key) })?;
        match answer.status {
            204 => Ok(()),
            _ => match self.refused("clear away", key, answer) {
                error if is_forgotten(&error) => Ok(()),
                error => Err(error),
            },
        }
    }

    /// Aborts all uploads of these names. A service that cannot list or abort uploads keeps them.
    pub(super) fn abort_uploads_of(&self, names: &[ObjectName]) -> Result<()> {
        let keys: HashSet<String> = names.iter().map(|name| self.key(name)).collect();
        let (mut key_marker, mut id_marker) = (String::new(), String::new());
        for _ in 0..PAGES_MAX {
            let query = [
                ("encoding-type", "url"),
                ("key-marker", &key_marker),
                ("prefix", &self.address.prefix),
                ("upload-id-marker", &id_marker),
                ("uploads", ""),
            ];
            let query: Vec<_> =
                query.into_iter().filter(|(name, value)| !name.ends_with("-marker") || !value.is_empty()).collect();
            let page = match self.unfinished(&query) {
                Ok(page) => page,
                Err(error) => {
                    let Error::Store { source, .. } = &error else { return Err(error) };
                    // A senseless answer means that the service does not know the request.
                    let is_no_use = source.kind() == io::ErrorKind::InvalidData || !may_pass(&error);
                    return if is_no_use { Ok(()) } else { Err(error) };
                }
            };
            let is_escaped = page.encoding_type.as_deref() == Some("url");
            for Unfinished { key, upload_id } in &page.upload {
                let Ok(key) = unescaped(key, is_escaped) else { continue };
                if keys.contains(&*key) && !upload_id.is_empty() {
                    drop(self.abort(&key, upload_id));
                }
            }
            let next = page.next_key_marker.unwrap_or_default();
            let next_id = page.next_upload_id_marker.unwrap_or_default();
            let next = unescaped(&next, is_escaped).map(|next| next.into_owned()).unwrap_or_default();
            if !page.is_truncated || (&next, &next_id) <= (&key_marker, &id_marker) {
                return Ok(());
            }
            (key_marker, id_marker) = (next, next_id);
        }
        Ok(())
    }

    fn unfinished(&self, query: &[(&str, &str)]) -> Result<Page> {
        const WHAT: &str = "what interrupted runs have left";
        let mut answer = self.client.send(&Call { query, ..Call::new(Method::GET, "list", WHAT, "") })?;
        if answer.status != 200 {
            return Err(self.refused("list", WHAT, answer));
        }
        let failed = |cause| self.client.failed("list", WHAT, cause);
        let body = answer.read_at_most(PAGE_BYTES_MAX).map_err(failed)?;
        parsed(&body, "ListMultipartUploadsResult").map_err(failed)
    }

    fn post(
        &self,
        name: &ObjectName,
        query: &[(&str, &str)],
        headers: &[(HeaderName, &str)],
        body: &[u8],
    ) -> Result<Answer<'_>> {
        let failed = |cause| self.client.failed("write", name.as_str(), cause);
        let hashes = hash(Source::Bytes(body), 0).map_err(failed)?;
        let md5_base64 = hashes.parts.first().map(|part| part.md5_base64()).unwrap_or_default();
        self.client.send(&Call {
            query,
            headers,
            payload: Some(Payload {
                source: Source::Bytes(body),
                offset: 0,
                bytes: body.len() as u64,
                sha256_hex: &hashes.sha256_hex,
                md5_base64: &md5_base64,
            }),
            ..Call::new(Method::POST, "write", name.as_str(), &self.key(name))
        })
    }

    /// Parses an answer with status 200, which services also send with an error in it.
    fn read_answer<T: for<'de> Deserialize<'de>>(
        &self,
        name: &ObjectName,
        answer: &mut Answer<'_>,
        element: &str,
    ) -> Result<T> {
        let failed = |cause| self.client.failed("write", name.as_str(), cause);
        let body = answer.read_at_most(ERROR_BYTES_MAX).map_err(failed)?;
        parsed(&body, element).map_err(|nonsense| {
            let text = std::str::from_utf8(&body).unwrap_or_default();
            let refusal = Refusal { status: answer.status, body: &body, region: None, date: None };
            failed(match root(text).as_deref() {
                Some("Error") => Trouble::of_refusal(&refusal, self.client.now()),
                _ => nonsense,
            })
        })
    }
}

fn parsed<T: for<'de> Deserialize<'de>>(body: &[u8], element: &str) -> io::Result<T> {
    let text = std::str::from_utf8(body).unwrap_or_default().trim();
    if root(text).as_deref() != Some(element) {
        return Err(Trouble::nonsense("the answer does not belong to an upload in parts"));
    }
    quick_xml::de::from_str(text)
        .map_err(|cause| Trouble::nonsense(&format!("the answer to an upload in parts is incomplete ({cause})")))
}

fn is_forgotten(error: &Error) -> bool {
    Trouble::within(error) == Some(&Trouble::NoUpload)
}
