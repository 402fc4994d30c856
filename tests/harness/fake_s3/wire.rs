//! The HTTP of the fake S3 server, correct or faulty.

use std::collections::BTreeMap;
use std::io;
use std::io::BufRead;
use std::io::Write;
use std::net::TcpStream;
use std::thread;

use bygone_core::id::hex;

use super::BUCKET;
use super::Fault;
use super::Verb;

pub(super) struct Request {
    pub method: String,
    pub key: String,
    pub query: BTreeMap<String, String>,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

#[derive(Default)]
pub(super) struct Response {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn error(status: u16, code: &str) -> Response {
        let body = match code {
            "" => Vec::new(),
            _ => {
                format!("<?xml version=\"1.0\"?>\n<Error><Code>{code}</Code><Message>so it is</Message></Error>").into()
            }
        };
        Response { status, body, ..Response::default() }
    }

    fn write(&self, client: &mut TcpStream, is_head: bool) -> io::Result<()> {
        let mut text = format!("HTTP/1.1 {} X\r\nDate: Tue, 24 Nov 2026 21:30:00 GMT\r\n", self.status);
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        if !self.headers.iter().any(|(name, _)| *name == "Content-Length") && self.status != 204 {
            text += &format!("Content-Length: {}\r\n", self.body.len());
        }
        client.write_all(text.as_bytes())?;
        client.write_all(b"\r\n")?;
        if is_head { Ok(()) } else { client.write_all(&self.body) }
    }
}

pub(super) fn page(text: &str) -> Response {
    Response { status: 200, headers: vec![("Content-Type", "text/html".to_owned())], body: text.into() }
}

/// Sends an answer, spoilt as the fault demands. False if the connection is to be closed.
pub(super) fn send(
    client: &mut TcpStream,
    response: Response,
    fault: Option<Fault>,
    is_head: bool,
) -> io::Result<bool> {
    let half = response.body.len() / 2;
    let head_of = |client: &mut TcpStream, length: Option<usize>| {
        let mut headers = response.headers.clone();
        match length {
            Some(bytes) => headers.push(("Content-Length", bytes.to_string())),
            None => headers.extend([("Transfer-Encoding", "chunked".to_owned()), ("Content-Length", String::new())]),
        }
        let mut text = format!("HTTP/1.1 {} X\r\n", response.status);
        headers.retain(|(name, value)| *name != "Content-Length" || !value.is_empty());
        headers.iter().for_each(|(name, value)| text += &format!("{name}: {value}\r\n"));
        client.write_all(format!("{text}\r\n").as_bytes())
    };
    match fault {
        Some(Fault::ResetAfter) => return Ok(false),
        Some(Fault::Silence) => wait_for_client(client)?,
        Some(Fault::StallInBody) => {
            head_of(client, Some(response.body.len().max(2)))?;
            client.write_all(&response.body[..half])?;
            wait_for_client(client)?;
        }
        Some(Fault::ShortBody) => {
            head_of(client, Some(response.body.len().max(2)))?;
            client.write_all(&response.body[..half])?;
        }
        Some(Fault::ShortChunked) => {
            head_of(client, None)?;
            client.write_all(format!("{:x}\r\n", response.body.len().max(2)).as_bytes())?;
            client.write_all(&response.body[..half])?;
        }
        Some(Fault::Trickle) => {
            head_of(client, Some(response.body.len().max(100)))?;
            while client.write_all(b"x").is_ok() {
                thread::sleep(std::time::Duration::from_millis(300));
            }
        }
        Some(Fault::EndlessHeader) => {
            client.write_all(b"HTTP/1.1 200 OK\r\n")?;
            while client.write_all(&[b"X-More: ", &[b'x'; 1000][..], b"\r\n"].concat()).is_ok() {}
        }
        _ => {
            response.write(client, is_head)?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Waits until the client closes the connection, or the server ends.
pub(super) fn wait_for_client(mut client: &TcpStream) -> io::Result<()> {
    io::copy(&mut client, &mut io::sink()).map(|_| ())
}

pub(super) fn verb(request: &Request) -> Verb {
    let asks = |name: &str| request.query.contains_key(name);
    match (request.method.as_str(), request.key.is_empty()) {
        ("GET", true) if asks("uploads") => Verb::Uploads,
        ("POST", false) if asks("uploads") => Verb::Begin,
        ("POST", false) if asks("uploadId") => Verb::Complete,
        ("PUT", false) if asks("uploadId") => Verb::Part,
        ("DELETE", false) if asks("uploadId") => Verb::Abort,
        ("GET", true) => Verb::List,
        ("GET", false) => Verb::Get,
        ("HEAD", _) => Verb::Head,
        ("PUT", _) => Verb::Put,
        _ => Verb::Delete,
    }
}

pub(super) fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", hex(&md5::compute(bytes).0))
}

pub(super) fn get(object: &[u8], mark: String, range: Option<&String>, fault: Option<Fault>) -> Response {
    let mark = (fault != Some(Fault::NoEtag)).then_some(("ETag", mark));
    let mut headers: Vec<_> = mark.into_iter().collect();
    let range = range.filter(|_| fault != Some(Fault::RangeIgnored)).map(|range| {
        let (first, last) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')).unwrap();
        (first.parse::<usize>().unwrap(), last.parse::<usize>().unwrap())
    });
    let Some((first, last)) = range else { return Response { status: 200, headers, body: object.to_vec() } };
    let last = last.min(object.len().saturating_sub(1));
    if first >= object.len() {
        return Response::error(416, "InvalidRange");
    }
    let shift = usize::from(fault == Some(Fault::WrongRange) && first > 0);
    let (first, last) = (first - shift, last - shift);
    headers.push(("Content-Range", format!("bytes {first}-{last}/{}", object.len())));
    Response { status: 206, headers, body: object[first..=last].to_vec() }
}

/// Reads the head of a request; `None` if the client has closed the connection.
pub(super) fn read_head(reader: &mut impl BufRead) -> io::Result<Option<(Request, u64)>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let key = decoded(path).trim_start_matches('/').to_owned();
    let key = key.strip_prefix(BUCKET).map_or(key.clone(), |key| key.trim_start_matches('/').to_owned());
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let query = pairs.map(|(name, value)| (decoded(name), decoded(value))).collect();
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let body_bytes = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    Ok(Some((Request { method, key, query, headers, body: Vec::new() }, body_bytes)))
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).unwrap()
}
