//! Requests to a running rclone, and the reading of its answers.
//!
//! There are three forms of request: a command with JSON (`operations/...`), an object or a part of it (`--rc-serve`),
//! and an upload. rclone reports absence with status 404, but also with status 500 for unusual reasons; the store above
//! handles those.

use std::io;
use std::io::BufReader;
use std::io::Read;

use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::Agent;
use ureq::Body;
use ureq::SendBody;
use ureq::http::Response;
use ureq::http::StatusCode;

use crate::store::ByteRange;
use crate::store::ObjectName;
use crate::store::Source;
use crate::store::TRANSFERS_MAX;
use crate::store::link::Pace;
use crate::store::rclone::process::PLACE;

/// Longest accepted answer: a list of some ten million objects.
const ANSWER_BYTES_MAX: u64 = 4 << 30;
/// Longest explanation that is read.
const ERROR_BYTES_MAX: u64 = 64 << 10;
/// Longest explanation that is shown.
const ERROR_CHARS_MAX: usize = 500;
/// The multipart boundary; every upload has just one part.
const BOUNDARY: &str = "bygone-object-boundary-5b1f0c7e";

/// Why rclone refused a request.
#[derive(Debug)]
pub(super) enum Refused {
    /// It reports absence.
    Absent,
    /// Everything else, in rclone's words. Never of the kind `NotFound`.
    Failed(io::Error),
}

impl Refused {
    /// As an error, where absence is one.
    pub(super) fn failure(self) -> io::Error {
        match self {
            Refused::Absent => io::Error::other("rclone reports that it does not exist"),
            Refused::Failed(cause) => cause,
        }
    }
}

impl From<io::Error> for Refused {
    fn from(cause: io::Error) -> Refused {
        Refused::Failed(never_not_found(cause))
    }
}

/// One item of a list, as far as it matters.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Item {
    /// Its path below the place.
    pub(super) path: String,
    /// Its size, negative if unknown.
    pub(super) size: i64,
    #[serde(default)]
    is_dir: bool,
}

/// Requests to one rclone.
pub(super) struct Client {
    agent: Agent,
    url: String,
}

#[derive(Serialize)]
struct ListOptions {
    recurse: bool,
    #[serde(rename = "filesOnly")]
    files_only: bool,
    #[serde(rename = "noModTime")]
    no_mod_time: bool,
    #[serde(rename = "noMimeType")]
    no_mime_type: bool,
}

impl Client {
    /// `url` ends with a slash.
    pub(super) fn new(url: String) -> Client {
        let config = Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .max_idle_connections(TRANSFERS_MAX)
            .max_idle_connections_per_host(TRANSFERS_MAX)
            .build();
        Client { agent: config.into(), url }
    }

    /// The size of an object; `None` if no file has that name.
    pub(super) fn size(&self, name: &str) -> Result<Option<u64>, Refused> {
        #[derive(Deserialize)]
        struct Found {
            item: Option<Item>,
        }
        let options = ListOptions { recurse: false, files_only: true, no_mod_time: true, no_mime_type: true };
        let found: Found = match self.call("operations/stat", &Asked { opt: Some(options), ..Asked::at(name) }) {
            Err(Refused::Absent) => return Ok(None),
            other => other?,
        };
        found.item.filter(|item| !item.is_dir).map(|item| size_of(&item)).transpose()
    }

    /// Everything below a directory, at any depth, in any order.
    pub(super) fn list(&self, directory: &str) -> Result<Vec<Item>, Refused> {
        #[derive(Deserialize)]
        struct Found {
            list: Option<Vec<Item>>,
        }
        let options = ListOptions { recurse: true, files_only: true, no_mod_time: true, no_mime_type: true };
        let found: Found = self.call("operations/list", &Asked { opt: Some(options), ..Asked::at(directory) })?;
        Ok(found.list.unwrap_or_default())
    }

    /// Makes the directory of the store.
    pub(super) fn make_place(&self) -> Result<(), Refused> {
        self.call::<Nothing>("operations/mkdir", &Asked::at("")).map(drop)
    }

    /// Removes a file.
    pub(super) fn delete(&self, path: &str) -> Result<(), Refused> {
        self.call::<Nothing>("operations/deletefile", &Asked::at(path)).map(drop)
    }

    /// Renames a file. If the new name is taken, both files stay as they are.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), Refused> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Move<'a> {
            src_fs: &'a str,
            src_remote: &'a str,
            dst_fs: &'a str,
            dst_remote: &'a str,
            #[serde(rename = "_config")]
            config: Config,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Config {
            ignore_existing: bool,
        }
        let config = Config { ignore_existing: true };
        let asked = Move { src_fs: PLACE, src_remote: from, dst_fs: PLACE, dst_remote: to, config };
        self.call::<Nothing>("operations/movefile", &asked).map(drop)
    }

    /// True if a file can be renamed without copying it.
    pub(super) fn can_rename(&self) -> Result<bool, Refused> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Info {
            features: Features,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Features {
            r#move: bool,
        }
        let info: Info = self.call("operations/fsinfo", &Asked::at(""))?;
        Ok(info.features.r#move)
    }

    /// Stores all of `source` as `directory/leaf`, replacing what is there.
    pub(super) fn upload(&self, directory: &str, leaf: &str, source: Source<'_>, pace: &Pace) -> Result<(), Refused> {
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{leaf}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        let tail = format!("\r\n--{BOUNDARY}--\r\n");
        let bytes = head.len() as u64 + source.bytes() + tail.len() as u64;
        let mut paced = Paced { source, at: 0, pace, failed: None };
        let mut body = head.as_bytes().chain(&mut paced).chain(tail.as_bytes());
        let url = format!("{}operations/uploadfile?fs={PLACE}&remote={directory}", self.url);
        let request = self.agent.post(&url).header("content-type", format!("multipart/form-data; boundary={BOUNDARY}"));
        let sent = request.header("content-length", bytes.to_string()).send(SendBody::from_reader(&mut body));
        match (paced.failed, sent) {
            (Some(cause), _) => Err(cause.into()),
            (None, sent) => answered(sent).map(drop),
        }
    }

    /// Opens an object for reading.
    pub(super) fn read(&self, name: &ObjectName, range: ByteRange) -> Result<Response<Body>, Refused> {
        let place = PLACE.trim_end_matches(':');
        let request = self.agent.get(format!("{}%5B{place}%3A%5D/{name}", self.url));
        let request = match range {
            ByteRange::Whole { .. } => request,
            ByteRange::Part { offset, bytes } => {
                request.header("range", format!("bytes={offset}-{}", offset.saturating_add(bytes - 1)))
            }
        };
        answered(request.call())
    }

    fn call<T: DeserializeOwned>(&self, command: &str, asked: &impl Serialize) -> Result<T, Refused> {
        let asked = serde_json::to_vec(asked).map_err(|error| Refused::Failed(error.into()))?;
        let request = self.agent.post(format!("{}{command}", self.url)).header("content-type", "application/json");
        let answer = answered(request.send(&asked[..]))?;
        let reader = BufReader::new(answer.into_body().into_reader().take(ANSWER_BYTES_MAX));
        let odd = |error| io::Error::other(format!("rclone's answer to {command} makes no sense: {error}"));
        serde_json::from_reader(reader).map_err(|error| odd(error).into())
    }
}

/// A command's usual arguments.
#[derive(Serialize)]
struct Asked<'a> {
    fs: &'a str,
    remote: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    opt: Option<ListOptions>,
}

impl Asked<'_> {
    fn at(path: &str) -> Asked<'_> {
        Asked { fs: PLACE, remote: path, opt: None }
    }
}

/// An answer whose content does not matter.
#[derive(Deserialize)]
struct Nothing {}

/// The size of an item, which must be known.
pub(super) fn size_of(item: &Item) -> Result<u64, Refused> {
    u64::try_from(item.size).map_err(|_| {
        let text = format!("the storage does not report the length of {}: it cannot hold a repository", item.path);
        Refused::Failed(io::Error::other(text))
    })
}

/// Separates answers from refusals.
fn answered(answer: Result<Response<Body>, ureq::Error>) -> Result<Response<Body>, Refused> {
    #[derive(Deserialize)]
    struct Explained {
        error: String,
    }
    let answer = answer.map_err(|error| match error {
        ureq::Error::Io(cause) => cause,
        other => io::Error::other(other),
    })?;
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    if status == StatusCode::NOT_FOUND {
        return Err(Refused::Absent);
    }
    let mut text = Vec::new();
    answer.into_body().into_reader().take(ERROR_BYTES_MAX).read_to_end(&mut text)?;
    let message = serde_json::from_slice::<Explained>(&text).map(|explained| explained.error);
    let message = message.unwrap_or_else(|_| format!("status {status}: {}", String::from_utf8_lossy(&text).trim()));
    let message: String = message.chars().take(ERROR_CHARS_MAX).collect();
    Err(Refused::Failed(io::Error::new(kind_of(&message), format!("rclone says: {message}"))))
}

/// Phrases for passing trouble, in rclone's words and in those of Go's network library.
const MAY_PASS: &[(&str, io::ErrorKind)] = &[
    ("connection refused", io::ErrorKind::ConnectionRefused),
    ("connection reset", io::ErrorKind::ConnectionReset),
    ("broken pipe", io::ErrorKind::BrokenPipe),
    ("unexpected EOF", io::ErrorKind::ConnectionAborted),
    ("no such host", io::ErrorKind::HostUnreachable),
    ("no route to host", io::ErrorKind::HostUnreachable),
    ("network is unreachable", io::ErrorKind::NetworkUnreachable),
    ("timeout", io::ErrorKind::TimedOut),
    ("timed out", io::ErrorKind::TimedOut),
    ("too many requests", io::ErrorKind::ResourceBusy),
    ("rate limit", io::ErrorKind::ResourceBusy),
    ("service unavailable", io::ErrorKind::ResourceBusy),
    ("bad gateway", io::ErrorKind::ResourceBusy),
    ("gateway time", io::ErrorKind::ResourceBusy),
    ("internal server error", io::ErrorKind::ResourceBusy),
    ("internal error", io::ErrorKind::ResourceBusy),
];

/// The kind of an error that rclone reports; [`io::ErrorKind::Other`] if it is not known to pass.
fn kind_of(message: &str) -> io::ErrorKind {
    let message = message.to_ascii_lowercase();
    let found = MAY_PASS.iter().find(|(words, _)| message.contains(&words.to_ascii_lowercase()));
    found.map_or(io::ErrorKind::Other, |(_, kind)| *kind)
}

/// Only [`Refused::Absent`] may report absence.
fn never_not_found(cause: io::Error) -> io::Error {
    if cause.kind() == io::ErrorKind::NotFound { io::Error::other(cause) } else { cause }
}

/// The bytes of an upload, at the pace of the link.
struct Paced<'a> {
    source: Source<'a>,
    at: u64,
    pace: &'a Pace,
    /// Our own error, because the HTTP library does not return it unchanged.
    failed: Option<io::Error>,
}

impl Read for Paced<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = (buffer.len() as u64).min(self.source.bytes() - self.at);
        if wanted == 0 {
            return Ok(0);
        }
        let granted = self.pace.grant(wanted);
        let length = usize::try_from(granted).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let piece = buffer.get_mut(..length).ok_or(io::ErrorKind::OutOfMemory)?;
        match self.source.read_exact_at(piece, self.at) {
            Ok(()) => {
                self.at += granted;
                Ok(length)
            }
            Err(cause) => {
                self.failed = Some(cause);
                Err(io::ErrorKind::UnexpectedEof.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_that_may_pass_is_told_from_trouble_that_stays() {
        let cases = [
            (
                "Head \"http://127.0.0.1:1/x\": dial tcp 127.0.0.1:1: connect: connection refused",
                io::ErrorKind::ConnectionRefused,
            ),
            ("read: connection reset by peer", io::ErrorKind::ConnectionReset),
            ("dial tcp: lookup nas: no such host", io::ErrorKind::HostUnreachable),
            ("net/http: TLS handshake timeout", io::ErrorKind::TimedOut),
            ("googleapi: Error 429: Too Many Requests", io::ErrorKind::ResourceBusy),
            ("didn't find section in config file", io::ErrorKind::Other),
            ("AccessDenied: Access Denied. status code: 403", io::ErrorKind::Other),
        ];
        for (message, kind) in cases {
            assert_eq!(kind_of(message), kind, "{message}");
        }
    }
}
