//! HTTP to an S3 service: shared persistent connections, signed requests, and nothing taken on trust.
//!
//! rust-s3 signs (`s3::signing`); ureq carries. rust-s3's own transports follow redirects, limit the total time of a
//! request and return short bodies; none of that may happen here. So redirects are never followed, and a request may
//! take as long as it likes while bytes keep moving: a stall timer ends it, not a total.
//!
//! This module reads a clock that only runs forwards, for the stall timer; the time of day for signatures comes from
//! [`S3Access::now`].

use std::io;
use std::io::Read;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use s3::Region;
use s3::signing;
use time::OffsetDateTime;
use ureq::Agent;
use ureq::Body;
use ureq::Proxy;
use ureq::SendBody;
use ureq::http::HeaderMap;
use ureq::http::HeaderName;
use ureq::http::HeaderValue;
use ureq::http::Method;
use ureq::http::Request;
use ureq::http::header;
use ureq::tls::PemItem;
use ureq::tls::RootCerts;
use ureq::tls::TlsConfig;
use url::Url;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::error::Result;
use crate::lock::lock;
use crate::store::Source;
use crate::store::link::Link;
use crate::store::s3::access::S3Access;
use crate::store::s3::access::S3Keys;
use crate::store::s3::address::S3Address;
use crate::store::s3::address::Style;
use crate::store::s3::trouble::Trouble;
use crate::watch::Watch;

/// SHA-256 of nothing.
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// Temporary keys are renewed when less than this is left.
const KEYS_LEFT_MIN: Duration = Duration::from_secs(300);
const CONNECT_MAX: Duration = Duration::from_secs(20);
/// A body that moves fewer bytes than this within the stall time counts as stalled.
const MOVING_BYTES_MIN: usize = 1 << 10;
/// Longest time from the last byte of a request to the last byte of the answer's header, in stall times: a service may
/// think about a large PUT, but a trickling header must end.
const HEADER_STALLS_MAX: u32 = 3;
const HEADER_BYTES_MAX: usize = 64 << 10;
const BUFFER_BYTES: usize = 128 << 10;
const CONNECTIONS_MAX: usize = 32;
/// Services close idle connections, and a request on one that is just closing would fail.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// One request.
pub(super) struct Call<'a> {
    /// What it does, for errors.
    pub doing: &'static str,
    /// The object, for errors.
    pub object: &'a str,
    pub method: Method,
    /// The key, or empty for the bucket.
    pub key: &'a str,
    pub query: &'a [(&'a str, &'a str)],
    pub headers: &'a [(HeaderName, &'a str)],
    pub payload: Option<Payload<'a>>,
}

impl<'a> Call<'a> {
    /// A request without body and conditions.
    pub fn new(method: Method, doing: &'static str, object: &'a str, key: &'a str) -> Call<'a> {
        Call { doing, object, method, key, query: &[], headers: &[], payload: None }
    }
}

/// What a PUT or POST carries.
#[derive(Clone, Copy)]
pub(super) struct Payload<'a> {
    pub source: Source<'a>,
    /// Where in the source it starts.
    pub offset: u64,
    pub bytes: u64,
    pub sha256_hex: &'a str,
    pub md5_base64: &'a str,
}

/// The client of one service.
pub(super) struct Client {
    agent: Agent,
    /// URL of the bucket, ending with a slash.
    bucket: Url,
    region: Region,
    access: S3Access,
    keys: Mutex<Option<S3Keys>>,
    stall: Duration,
    link: Arc<Link>,
    watch: Arc<Watch>,
}

impl Client {
    pub fn new(address: &S3Address, access: S3Access, link: Arc<Link>, watch: &Arc<Watch>) -> Result<Client> {
        let invalid = |what: String| Error::Invalid { what };
        let mut address = address.clone();
        address.endpoint = address.endpoint.or_else(|| access.endpoint.clone());
        let region = address.region.clone().or_else(|| access.region.clone()).unwrap_or_else(|| "us-east-1".into());
        if !super::address::is_region(&region) {
            return Err(invalid(format!("{region:?} is not the name of a region, such as eu-central-1")));
        }
        let service = address.service(&region);
        let bucket = match (address.style(), service.split_once("://")) {
            (Style::Host, Some((scheme, host))) => format!("{scheme}://{}.{host}/", address.bucket),
            _ => format!("{service}/{}/", address.bucket),
        };
        let bucket = Url::parse(&bucket).map_err(|cause| invalid(format!("{bucket} is no URL: {cause}")))?;
        let agent = Agent::new_with_config(config(&access, address.stall)?);
        // Requests in progress end at once when the user stops the command.
        let interrupted = agent.clone();
        watch.when_cancelled(move || interrupted.clone().shutdown());
        Ok(Client {
            agent,
            bucket,
            region: Region::Custom { region, endpoint: service },
            access,
            keys: Mutex::new(None),
            stall: address.stall,
            link,
            watch: Arc::clone(watch),
        })
    }

    /// Number of concurrent requests.
    pub fn transfers(&self) -> usize {
        self.link.transfers(super::TRANSFERS_USUAL)
    }

    /// The time of day.
    pub fn now(&self) -> SystemTime {
        (self.access.now)()
    }

    /// Sends one request and returns the answer, whatever its status.
    pub fn send(&self, call: &Call<'_>) -> Result<Answer<'_>> {
        let failed = |cause: io::Error| self.failed(call.doing, call.object, cause);
        let mut url = self.bucket.clone();
        url.set_path(&format!("{}{}", url.path(), call.key));
        if !call.query.is_empty() {
            let encode = |text: &str| signing::uri_encode(text, true);
            let pairs = call.query.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value)));
            url.set_query(Some(&pairs.collect::<Vec<_>>().join("&")));
        }
        let signed = self.sign(call, &url)?;
        let mut request = Request::builder().method(call.method.clone()).uri(url.as_str());
        for (name, value) in &signed {
            request = request.header(name, value);
        }
        for (name, value) in call.headers {
            request = request.header(name, *value);
        }
        if let Some(payload) = &call.payload {
            request = request.header(header::CONTENT_LENGTH, payload.bytes);
        }
        let unusable = |cause| failed(io::Error::new(io::ErrorKind::InvalidInput, cause));
        let mut sent = None;
        let answer = match call.payload {
            Some(payload) => {
                let body = sent.insert(Sent::of(&payload, &self.link));
                self.agent.run(request.body(SendBody::from_reader(body)).map_err(unusable)?)
            }
            None => self.agent.run(request.body(()).map_err(unusable)?),
        };
        let answer = answer.map_err(|cause| failed(self.with_place(Trouble::of_transport(cause))))?;
        let (head, body) = answer.into_parts();
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body, client: self })
    }

    /// The error for this failure; a request that was interrupted because the user stopped the command is not a
    /// failure.
    pub fn failed(&self, doing: &'static str, object: &str, cause: io::Error) -> Error {
        if self.watch.is_cancelled() { Error::Cancelled } else { Error::store(doing, object, cause) }
    }

    /// Adds the host that could not be reached, which the cause alone does not name.
    fn with_place(&self, cause: io::Error) -> io::Error {
        use io::ErrorKind::*;
        match cause.kind() {
            ConnectionRefused | HostUnreachable | NetworkUnreachable | NetworkDown | AddrNotAvailable => {
                let through = if self.access.proxy.is_some() { " through the proxy" } else { "" };
                io::Error::new(cause.kind(), format!("no connection to {}{through}: {cause}", self.region.endpoint()))
            }
            _ => cause,
        }
    }

    /// The headers of the signature, including the signature itself.
    fn sign(&self, call: &Call<'_>, url: &Url) -> Result<HeaderMap> {
        let keys = self.keys()?;
        let seconds = self.now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let time = i64::try_from(seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
        let time = time
            .ok_or_else(|| Error::Invalid { what: "this machine's clock is far in the future: set it right".into() })?;
        let (date, clock) = (time.date(), time.time());
        let stamp = format!(
            "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
            date.year(),
            u8::from(date.month()),
            date.day(),
            clock.hour(),
            clock.minute(),
            clock.second()
        );
        let sha256 = call.payload.map_or(EMPTY_SHA256, |payload| payload.sha256_hex);
        let host = match url.port() {
            Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
            None => url.host_str().unwrap_or_default().to_owned(),
        };
        let mut headers = HeaderMap::new();
        let mut add = |name: &'static str, value: &str| {
            let value = HeaderValue::from_str(value);
            let value = value
                .map_err(|_| Error::Invalid { what: format!("the header {name} cannot be sent: check the keys") })?;
            headers.insert(HeaderName::from_static(name), value);
            Ok::<_, Error>(())
        };
        add("host", &host)?;
        add("x-amz-content-sha256", sha256)?;
        add("x-amz-date", &stamp)?;
        if let Some(token) = &keys.session_token {
            add("x-amz-security-token", token)?;
        }
        if let Some(payload) = &call.payload {
            add("content-md5", payload.md5_base64)?;
        }
        let unsigned = |cause| Error::defect(format!("a request cannot be signed: {cause}"));
        let canonical = signing::canonical_request(call.method.as_str(), url, &headers, sha256).map_err(unsigned)?;
        let to_sign = signing::string_to_sign(&time, &self.region, &canonical).map_err(unsigned)?;
        let key = Zeroizing::new(signing::signing_key(&time, &keys.secret_key, &self.region, "s3").map_err(unsigned)?);
        let signature = crate::hash::hmac_sha256(&key, to_sign.as_bytes());
        let names = signing::signed_header_string(&headers);
        let signature = crate::id::hex(&signature);
        let value = signing::authorization_header(&keys.access_key, &time, &self.region, &names, &signature);
        let value = HeaderValue::from_str(&value.map_err(unsigned)?);
        let value = value.map_err(|_| Error::Invalid { what: "the access key cannot be sent: check it".into() })?;
        headers.insert(header::AUTHORIZATION, value);
        Ok(headers)
    }

    fn keys(&self) -> Result<S3Keys> {
        let mut known = lock(&self.keys);
        let now = self.now();
        let lasts =
            |keys: &S3Keys, left| keys.expires.is_none_or(|end| end.duration_since(now).is_ok_and(|rest| rest > left));
        if let Some(keys) = known.as_ref().filter(|keys| lasts(keys, KEYS_LEFT_MIN)) {
            return Ok(keys.clone());
        }
        match (known.as_ref(), (self.access.keys)()) {
            (_, Ok(fresh)) => Ok(known.insert(fresh).clone()),
            // The source of keys may be away for a moment, and the old keys are still valid.
            (Some(keys), Err(_)) if lasts(keys, Duration::ZERO) => Ok(keys.clone()),
            (_, Err(error)) => Err(error),
        }
    }
}

fn config(access: &S3Access, stall: Duration) -> Result<ureq::config::Config> {
    let mut tls = TlsConfig::builder();
    if let Some(pem) = &access.ca_pem {
        let mut certificates = Vec::new();
        for item in ureq::tls::parse_pem(pem) {
            match item {
                Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
                Ok(_) => {}
                Err(cause) => {
                    return Err(Error::Invalid { what: format!("the certificate file is damaged: {cause}") });
                }
            }
        }
        if certificates.is_empty() {
            return Err(Error::Invalid { what: "the certificate file has no certificate in PEM form".into() });
        }
        tls = tls.root_certs(RootCerts::new_with_certs(&certificates));
    }
    let proxy = match &access.proxy {
        None => None,
        Some(url) => {
            let what = "the proxy in the environment is not a valid URL of a proxy";
            Some(Proxy::new(url).map_err(|_| Error::Invalid { what: what.into() })?)
        }
    };
    let config = Agent::config_builder()
        .tls_config(tls.build())
        .proxy(proxy)
        .user_agent(concat!("bygone/", env!("CARGO_PKG_VERSION")))
        .accept_encoding("")
        .accept("*/*")
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_resolve(Some(CONNECT_MAX))
        .timeout_connect(Some(CONNECT_MAX))
        .timeout_send_request(Some(stall))
        .timeout_per_read(Some(stall))
        .timeout_per_write(Some(stall))
        .timeout_recv_response(Some(stall * HEADER_STALLS_MAX))
        .max_response_header_size(HEADER_BYTES_MAX)
        .input_buffer_size(BUFFER_BYTES)
        .output_buffer_size(BUFFER_BYTES)
        .max_idle_connections(CONNECTIONS_MAX)
        .max_idle_connections_per_host(CONNECTIONS_MAX)
        .max_idle_age(IDLE_MAX);
    Ok(config.build())
}

/// The body of a PUT: read piece by piece at the pace of the link, so that no volume is held in memory.
struct Sent<'a> {
    source: Source<'a>,
    at: u64,
    end: u64,
    link: &'a Link,
}

impl<'a> Sent<'a> {
    fn of(payload: &Payload<'a>, link: &'a Link) -> Sent<'a> {
        let end = payload.offset.saturating_add(payload.bytes);
        Sent { source: payload.source, at: payload.offset, end, link }
    }
}

impl Read for Sent<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.end.saturating_sub(self.at).min(buffer.len() as u64);
        if left == 0 {
            return Ok(0);
        }
        let granted = usize::try_from(self.link.upload.grant(left)).unwrap_or(0);
        let piece = buffer.get_mut(..granted).ok_or(io::ErrorKind::InvalidInput)?;
        self.source.read_exact_at(piece, self.at)?;
        self.at += granted as u64;
        Ok(granted)
    }
}

/// An answer whose body has not been read yet.
pub(super) struct Answer<'c> {
    pub status: u16,
    headers: HeaderMap,
    body: Body,
    client: &'c Client,
}

impl Answer<'_> {
    /// A header, if present and valid text.
    pub fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Length of the body, if the header states it.
    pub fn body_bytes(&self) -> Option<u64> {
        self.header(header::CONTENT_LENGTH).and_then(|text| text.parse().ok())
    }

    /// The mark of the object's bytes, unquoted.
    pub fn etag(&self) -> Option<String> {
        let text = self.header(header::ETAG)?.trim().trim_matches('"');
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// Exactly `bytes` bytes, or an error.
    pub fn read_exactly(mut self, bytes: usize) -> io::Result<Vec<u8>> {
        let mut all = vec![0; bytes];
        let read = self.fill(&mut all)?;
        if read < bytes {
            let cause = format!("the connection ended after {read} of {bytes} bytes");
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, cause));
        }
        // Reading to the end of the body returns the connection to the pool.
        match self.fill(&mut [0])? {
            0 => Ok(all),
            _ => Err(Trouble::nonsense("the answer is longer than it says")),
        }
    }

    /// All of a short body, or an error if it is longer than `bytes_max`.
    pub fn read_at_most(&mut self, bytes_max: usize) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let at = all.len();
            all.resize((at + BUFFER_BYTES).min(bytes_max + 1), 0);
            let read = self.fill(all.get_mut(at..).unwrap_or_default())?;
            all.truncate(at + read);
            if all.len() > bytes_max {
                return Err(Trouble::nonsense("the answer is far too long"));
            }
            if read == 0 {
                return Ok(all);
            }
        }
    }

    /// Reads until the buffer is full or the body ends.
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut reader = self.body.as_reader();
        let mut done = 0;
        let mut since = (Instant::now(), 0);
        while done < buffer.len() {
            let granted = self.client.link.download.grant((buffer.len() - done) as u64);
            let end = done + usize::try_from(granted).unwrap_or(0);
            let read = match reader.read(buffer.get_mut(done..end).unwrap_or_default()) {
                Ok(read) => read,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
                Err(cause) => return Err(Trouble::of_body(cause)),
            };
            if read == 0 {
                break;
            }
            done += read;
            if since.0.elapsed() > self.client.stall {
                if done - since.1 < MOVING_BYTES_MIN {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "the answer has almost stalled"));
                }
                since = (Instant::now(), done);
            }
        }
        Ok(done)
    }
}
