//! Uploads in parts in the fake S3 server: no object exists until the parts are put together.

use std::collections::BTreeMap;

use bygone_core::id::hex;

use super::Fault;
use super::State;
use super::wire::Request;
use super::wire::Response;
use super::wire::etag;

/// An unfinished upload.
#[derive(Default)]
pub(super) struct Upload {
    pub key: String,
    parts: BTreeMap<usize, Vec<u8>>,
}

fn xml(body: &str) -> Response {
    let text = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{body}");
    Response { status: 200, body: text.into(), ..Response::default() }
}

fn id(request: &Request) -> String {
    request.query.get("uploadId").cloned().unwrap_or_default()
}

impl State {
    pub fn begin(&mut self, request: &Request) -> Response {
        self.begun += 1;
        let id = format!("upload/{}+", self.begun);
        self.uploads.insert(id.clone(), Upload { key: request.key.clone(), parts: BTreeMap::new() });
        xml(&format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"))
    }

    pub fn part(&mut self, request: &Request, fault: Option<Fault>) -> Response {
        let number = request.query.get("partNumber").and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
        match self.uploads.get_mut(&id(request)).filter(|upload| upload.key == request.key) {
            None => Response::error(404, "NoSuchUpload"),
            Some(upload) => {
                upload.parts.insert(number, request.body.clone());
                let mark = (fault != Some(Fault::NoEtag)).then(|| ("ETag", etag(&request.body)));
                Response { status: 200, headers: mark.into_iter().collect(), body: Vec::new() }
            }
        }
    }

    pub fn complete(&mut self, request: &Request, fault: Option<Fault>) -> Response {
        let id = id(request);
        let Some(upload) = self.uploads.get(&id).filter(|upload| upload.key == request.key) else {
            return Response::error(404, "NoSuchUpload");
        };
        let is_there = self.objects.contains_key(&request.key);
        if is_there && !self.overwrites && request.headers.get("if-none-match").is_some_and(|value| value == "*") {
            return Response::error(412, "PreconditionFailed");
        }
        let text = String::from_utf8_lossy(&request.body);
        let named = text.matches("<PartNumber>").count();
        let in_order = upload.parts.keys().copied().eq(1..=named);
        if !in_order || upload.parts.values().any(|part| !text.contains(&format!("<ETag>{}</ETag>", etag(part)))) {
            return Response::error(400, "InvalidPart");
        }
        let md5s: Vec<u8> = upload.parts.values().flat_map(|part| md5::compute(part).0).collect();
        let mark = format!("\"{}-{named}\"", hex(&md5::compute(md5s).0));
        let mut object: Vec<u8> = upload.parts.values().flatten().copied().collect();
        if fault == Some(Fault::Missing) {
            object.pop();
        }
        self.uploads.remove(&id);
        self.objects.insert(request.key.clone(), object);
        self.marks.insert(request.key.clone(), mark.clone());
        let mark = if fault == Some(Fault::NoEtag) { String::new() } else { format!("<ETag>{mark}</ETag>") };
        // Real services send blanks while they put parts together.
        let mut answer = xml(&format!("<CompleteMultipartUploadResult>{mark}</CompleteMultipartUploadResult>"));
        answer.body.splice(..0, *b"  \n");
        answer
    }

    pub fn abort(&mut self, request: &Request) -> Response {
        match self.uploads.remove(&id(request)) {
            None => Response::error(404, "NoSuchUpload"),
            Some(_) => Response { status: 204, ..Response::default() },
        }
    }

    /// One upload in a page, so that paging is exercised.
    pub fn unfinished(&self, request: &Request) -> Response {
        let after = |name: &str| request.query.get(name).cloned().unwrap_or_default();
        let prefix = after("prefix");
        let mut all: Vec<_> = self.uploads.iter().map(|(id, upload)| (upload.key.clone(), id.clone())).collect();
        all.sort();
        all.retain(|place| place.0.starts_with(&prefix) && *place > (after("key-marker"), after("upload-id-marker")));
        let next = all.first().filter(|_| all.len() > 1).map(|(key, id)| {
            format!("<NextKeyMarker>{key}</NextKeyMarker><NextUploadIdMarker>{id}</NextUploadIdMarker>")
        });
        let shown = all.first().map(|(key, id)| format!("<Upload><Key>{key}</Key><UploadId>{id}</UploadId></Upload>"));
        xml(&format!(
            "<ListMultipartUploadsResult><IsTruncated>{}</IsTruncated>{}{}</ListMultipartUploadsResult>",
            next.is_some(),
            next.unwrap_or_default(),
            shown.unwrap_or_default()
        ))
    }
}
