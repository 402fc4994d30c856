//! An S3 server on loopback that is right unless it is told to be wrong: it keeps objects in memory, counts what it is asked,
//! and misbehaves by a script, always in the same way.
//!
//! It checks what a real one checks: that a request is signed with the one key there is, and that a body has the hashes that
//! the request names. It does not check the signature itself: Garage does, with `scripts/s3-matrix`.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

mod wire;

use bygone_core::hash::sha256;
use bygone_core::id::hex;

use wire::{Request, Response, etag, get, page, read_head, send, verb, wait_for_client};

/// The key that it knows.
pub const ACCESS_KEY: &str = "AKIDTESTER";
/// The bucket that it has.
pub const BUCKET: &str = "bucket";

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// An object, or a part of it.
    Get,
    /// What is known of an object.
    Head,
    /// To make an object.
    Put,
    /// A page of a list.
    List,
    /// To remove an object.
    Delete,
}

/// What it does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This status, with an error of this code; an empty code is an empty body.
    Status(u16, &'static str),
    /// 200 and a web page.
    Html,
    /// 200 and nothing.
    Nothing,
    /// 200 and an error's XML.
    ErrorWith200,
    /// No answer, for as long as the client holds on.
    Silence,
    /// No answer, and nothing is done.
    SilenceBefore,
    /// Half of the request is taken, and then no more of it.
    SilenceWithin,
    /// Half of the answer, and then nothing more.
    StallInBody,
    /// The connection is closed before anything is done.
    ResetBefore,
    /// The connection is closed while the request is still coming.
    ResetWithin,
    /// It is done, and the connection is closed instead of an answer.
    ResetAfter,
    /// Half of the body, and the connection is closed.
    ShortBody,
    /// Half of the body in a chunk, and the connection is closed.
    ShortChunked,
    /// The whole object, though a part was asked for.
    RangeIgnored,
    /// Another part of the same length.
    WrongRange,
    /// The ETag is missing.
    NoEtag,
    /// Another object has the bytes: 301.
    Redirect,
    /// An answer without an end, slower than a byte a second.
    Trickle,
    /// Header lines without an end.
    EndlessHeader,
    /// A list that says that there is more, and not how to get it.
    TruncatedWithoutToken,
    /// The same page with the same token again and again.
    SamePage,
    /// Pages without end, each with another token and other names.
    EndlessPages,
    /// Every name twice.
    Duplicates,
    /// Names in the wrong order.
    Unsorted,
    /// The list without the first of its objects, as if it were all.
    Missing,
    /// A list of nothing.
    Empty,
}

impl Fault {
    /// Whether only a stall timer finds it out: a test with it should have a short one.
    pub fn is_silence(self) -> bool {
        use Fault::{Silence, SilenceBefore, SilenceWithin, StallInBody, Trickle};
        matches!(self, Silence | SilenceBefore | SilenceWithin | StallInBody | Trickle)
    }
}

struct Rule {
    verb: Verb,
    /// What the key has in it.
    within: &'static str,
    fault: Fault,
    left: usize,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Vec<u8>>,
    rules: Vec<Rule>,
    asked: Vec<(Verb, String)>,
    hits: usize,
    connections: usize,
    bytes_in: u64,
    /// Whether `If-None-Match` is ignored.
    overwrites: bool,
    page_objects: usize,
    /// After how many requests one is held for good, and how.
    hold: Option<(usize, Fault)>,
    is_held: bool,
    is_ended: bool,
    open: Vec<TcpStream>,
}

/// The server; it ends when it is dropped.
pub struct FakeS3 {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl FakeS3 {
    /// Starts one with an empty bucket.
    pub fn start() -> FakeS3 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { page_objects: 1_000, ..State::default() }));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let mut state = lock(&shared);
                if state.is_ended {
                    break;
                }
                state.connections += 1;
                state.open.extend(client.try_clone());
                drop(state);
                let shared = Arc::clone(&shared);
                // A client that goes away in the middle is its own matter.
                thread::spawn(move || drop(Connection { state: shared }.serve(client)));
            }
        });
        FakeS3 { address, state }
    }

    /// Its URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A store's address in its bucket.
    pub fn store(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}?endpoint={}&region=eu-test-1", self.endpoint())
    }

    /// From now on, requests of this kind whose key or prefix has `within` in it suffer `fault`, `times` times.
    pub fn misbehave(&self, verb: Verb, within: &'static str, fault: Fault, times: usize) {
        self.state().rules.push(Rule { verb, within, fault, left: times });
    }

    /// No faults from now on.
    pub fn behave(&self) {
        let mut state = self.state();
        state.rules.clear();
        state.hold = None;
    }

    /// The request after the next `requests` suffers `fault`, whatever it is.
    pub fn hold_after(&self, requests: usize, fault: Fault) {
        let mut state = self.state();
        (state.hold, state.is_held) = (Some((requests, fault)), false);
    }

    /// Whether that request has come.
    pub fn is_held(&self) -> bool {
        self.state().is_held
    }

    /// How many faults there were.
    pub fn hits(&self) -> usize {
        self.state().hits
    }

    /// Everything that it was asked for since the last call: what, and the key, prefix, or page.
    pub fn take_asked(&self) -> Vec<(Verb, String)> {
        std::mem::take(&mut self.state().asked)
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        self.state().connections
    }

    /// Bytes of bodies that were sent to it.
    pub fn bytes_in(&self) -> u64 {
        self.state().bytes_in
    }

    /// All objects.
    pub fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        self.state().objects.clone()
    }

    /// Puts these objects in the place of all.
    pub fn set_objects(&self, objects: BTreeMap<String, Vec<u8>>) {
        self.state().objects = objects;
    }

    /// So many objects in a page.
    pub fn set_page(&self, objects: usize) {
        self.state().page_objects = objects;
    }

    /// From now on it does not know `If-None-Match`.
    pub fn overwrite(&self) {
        self.state().overwrites = true;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for FakeS3 {
    fn drop(&mut self) {
        let mut state = self.state();
        state.is_ended = true;
        state.open.drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
        drop(state);
        drop(TcpStream::connect(self.address));
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap()
}

struct Connection {
    state: Arc<Mutex<State>>,
}

impl Connection {
    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let mut reader = BufReader::new(client.try_clone()?);
        while let Some((mut request, body_bytes)) = read_head(&mut reader)? {
            let verb = verb(&request);
            let fault = self.fault(verb, &request);
            if matches!(fault, Some(Fault::ResetWithin | Fault::SilenceWithin)) {
                let taken = io::copy(&mut (&mut reader).take(body_bytes / 2), &mut io::sink())?;
                lock(&self.state).bytes_in += taken;
                if fault == Some(Fault::SilenceWithin) {
                    self.hold();
                    wait_for_client(&client)?;
                }
                return client.shutdown(Shutdown::Both);
            }
            (&mut reader).take(body_bytes).read_to_end(&mut request.body)?;
            lock(&self.state).bytes_in += request.body.len() as u64;
            if fault == Some(Fault::ResetBefore) {
                return client.shutdown(Shutdown::Both);
            }
            if fault == Some(Fault::SilenceBefore) {
                self.hold();
                return wait_for_client(&client);
            }
            let response = match fault {
                Some(Fault::Status(status, code)) => Response::error(status, code),
                Some(Fault::Html) => page("<html><body>Welcome to the hotel</body></html>"),
                Some(Fault::Nothing) => page(""),
                Some(Fault::ErrorWith200) => Response { status: 200, ..Response::error(200, "InternalError") },
                Some(Fault::Redirect) => {
                    let place = ("Location", "http://127.0.0.1:9/elsewhere".to_owned());
                    Response { headers: vec![place], ..Response::error(301, "PermanentRedirect") }
                }
                _ => self.answer(&request, fault),
            };
            if fault == Some(Fault::Silence) {
                self.hold();
            }
            if !send(&mut client, response, fault, request.method == "HEAD")? {
                return client.shutdown(Shutdown::Both);
            }
        }
        Ok(())
    }

    /// Says that the request which was to be held is held.
    fn hold(&self) {
        lock(&self.state).is_held = true;
    }

    fn fault(&self, verb: Verb, request: &Request) -> Option<Fault> {
        let mut state = lock(&self.state);
        let what = match verb {
            Verb::List => request.query.get("prefix").cloned().unwrap_or_default(),
            _ => request.key.clone(),
        };
        let fits = |rule: &&mut Rule| rule.verb == verb && rule.left > 0 && what.contains(rule.within);
        let fault = state.rules.iter_mut().find(fits).map(|rule| {
            rule.left -= 1;
            rule.fault
        });
        let fault = match state.hold.take() {
            Some((0, fault)) => Some(fault),
            Some((left, fault)) => {
                state.hold = Some((left - 1, fault));
                None
            }
            None => None,
        }
        .or(fault);
        state.asked.push((verb, what));
        state.hits += usize::from(fault.is_some());
        fault
    }

    fn answer(&self, request: &Request, fault: Option<Fault>) -> Response {
        let authorization = request.headers.get("authorization").cloned().unwrap_or_default();
        let is_signed = authorization.starts_with(&format!("AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/"))
            && authorization.contains("/eu-test-1/s3/aws4_request")
            && request.headers.contains_key("x-amz-date");
        if !is_signed {
            return Response::error(403, "InvalidAccessKeyId");
        }
        if request.headers.get("x-amz-content-sha256") != Some(&hex(&sha256(&request.body))) {
            return Response::error(400, "XAmzContentSHA256Mismatch");
        }
        let mut state = lock(&self.state);
        match verb(request) {
            Verb::List => list(&state, request, fault),
            Verb::Get | Verb::Head => match state.objects.get(&request.key) {
                None => Response::error(404, "NoSuchKey"),
                Some(object) => get(object, request.headers.get("range"), fault),
            },
            Verb::Put => {
                let is_new = !state.objects.contains_key(&request.key);
                if !is_new
                    && !state.overwrites
                    && request.headers.get("if-none-match").is_some_and(|value| value == "*")
                {
                    return Response::error(412, "PreconditionFailed");
                }
                state.objects.insert(request.key.clone(), request.body.clone());
                let mark = (fault != Some(Fault::NoEtag)).then(|| ("ETag", etag(&request.body)));
                Response { status: 200, headers: mark.into_iter().collect(), body: Vec::new() }
            }
            Verb::Delete => {
                state.objects.remove(&request.key);
                Response { status: 204, ..Response::default() }
            }
        }
    }
}

fn list(state: &State, request: &Request, fault: Option<Fault>) -> Response {
    let prefix = request.query.get("prefix").cloned().unwrap_or_default();
    let token = request.query.get("continuation-token").cloned();
    let matching = state.objects.iter().filter(|(key, _)| key.starts_with(&prefix));
    let after = token.clone().unwrap_or_default();
    let mut objects: Vec<_> = matching.filter(|(key, _)| **key > after).collect();
    match fault {
        Some(Fault::Missing) => drop(objects.drain(..objects.len().min(1))),
        Some(Fault::Empty) => objects.clear(),
        Some(Fault::Unsorted) => objects.reverse(),
        Some(Fault::Duplicates) => objects = objects.iter().flat_map(|object| [*object, *object]).collect(),
        _ => {}
    }
    let mut next = (objects.len() > state.page_objects).then(|| objects[state.page_objects - 1].0.clone());
    objects.truncate(state.page_objects);
    let mut is_truncated = next.is_some();
    let number = token.as_deref().and_then(|token| token.strip_prefix("page-")).and_then(|n| n.parse::<u32>().ok());
    let endless = format!("{prefix}x{:09}", number.unwrap_or(0));
    match fault {
        Some(Fault::TruncatedWithoutToken) => (is_truncated, next) = (true, None),
        Some(Fault::SamePage) => (is_truncated, next) = (true, Some("again".into())),
        Some(Fault::EndlessPages) => {
            (is_truncated, next) = (true, Some(format!("page-{}", number.unwrap_or(0) + 1)));
        }
        _ => {}
    }
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
         <Name>{BUCKET}</Name><Prefix>{prefix}</Prefix><EncodingType>url</EncodingType><IsTruncated>{is_truncated}</IsTruncated>"
    );
    if let Some(next) = next {
        text += &format!("<NextContinuationToken>{next}</NextContinuationToken>");
    }
    if fault == Some(Fault::EndlessPages) {
        objects.clear();
        text += &format!("<Contents><Key>{endless}</Key><ETag>\"x\"</ETag><Size>1</Size></Contents>");
    }
    for (key, bytes) in objects {
        let mark = etag(bytes).replace('"', "&quot;");
        text += &format!("<Contents><Key>{key}</Key><ETag>{mark}</ETag><Size>{}</Size></Contents>", bytes.len());
    }
    Response { status: 200, body: (text + "</ListBucketResult>").into(), ..Response::default() }
}
