//! An S3 server on loopback that keeps objects in memory, records its requests, and misbehaves on command, always in
//! the same way.
//!
//! Like a real server it checks that a request names the one key it knows, and that a body has the announced hashes. It
//! does not check the signature: Garage does, in `scripts/s3-matrix`.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::io::BufReader;
use std::io::Read;
use std::net::Ipv4Addr;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::thread;

use list::list;
use parts::Upload;
use wire::Request;
use wire::Response;
use wire::etag;
use wire::get;
use wire::page;
use wire::read_head;
use wire::send;
use wire::verb;
use wire::wait_for_client;

use bygone_core::hash::sha256;
use bygone_core::id::hex;

pub mod faults;
mod list;
mod parts;
mod wire;

pub use faults::Fault;
pub use faults::Verb;

/// The key that it knows.
pub const ACCESS_KEY: &str = "AKIDTESTER";
/// The secret that clients sign with. The server does not check it.
pub const SECRET_KEY: &str = "secret";
/// The bucket that it has.
pub const BUCKET: &str = "bucket";

struct Rule {
    verb: Verb,
    /// A part of the key.
    within: &'static str,
    fault: Fault,
    left: usize,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Vec<u8>>,
    /// Marks of objects that were sent in parts.
    marks: BTreeMap<String, String>,
    uploads: BTreeMap<String, Upload>,
    begun: usize,
    /// What a lagging list shows.
    list_before: Option<BTreeSet<String>>,
    rules: Vec<Rule>,
    asked: Vec<(Verb, String)>,
    hits: usize,
    connections: usize,
    bytes_in: u64,
    /// Whether `If-None-Match` is ignored.
    overwrites: bool,
    page_objects: usize,
    /// The number of requests before one is held for good, and the fault that holds it.
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
                // An error of a connection concerns its client only.
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

    /// From now on, the next `times` requests of this kind whose key or prefix contains `within` suffer `fault`.
    pub fn misbehave(&self, verb: Verb, within: &'static str, fault: Fault, times: usize) {
        self.state().rules.push(Rule { verb, within, fault, left: times });
    }

    /// No faults from now on.
    pub fn behave(&self) {
        let mut state = self.state();
        state.rules.clear();
        state.hold = None;
    }

    /// After `requests` more requests, the next one of any kind suffers `fault`.
    pub fn hold_after(&self, requests: usize, fault: Fault) {
        let mut state = self.state();
        (state.hold, state.is_held) = (Some((requests, fault)), false);
    }

    /// Whether that request has arrived.
    pub fn is_held(&self) -> bool {
        self.state().is_held
    }

    /// The number of faults so far.
    pub fn hits(&self) -> usize {
        self.state().hits
    }

    /// The requests since the last call, each with its key, prefix or page.
    pub fn take_asked(&self) -> Vec<(Verb, String)> {
        std::mem::take(&mut self.state().asked)
    }

    /// The number of connections so far.
    pub fn connections(&self) -> usize {
        self.state().connections
    }

    /// Bytes of request bodies so far.
    pub fn bytes_in(&self) -> u64 {
        self.state().bytes_in
    }

    /// All objects.
    pub fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        self.state().objects.clone()
    }

    /// Replaces all objects.
    pub fn set_objects(&self, objects: BTreeMap<String, Vec<u8>>) {
        self.state().objects = objects;
    }

    /// From now on, a lagging list shows only these of the existing keys.
    pub fn remember_list(&self, keys: BTreeSet<String>) {
        self.state().list_before = Some(keys);
    }

    /// The marks of the objects that were sent in parts.
    pub fn marks(&self) -> BTreeMap<String, String> {
        self.state().marks.clone()
    }

    /// Replaces all marks.
    pub fn set_marks(&self, marks: BTreeMap<String, String>) {
        self.state().marks = marks;
    }

    /// The keys of unfinished uploads.
    pub fn unfinished(&self) -> Vec<String> {
        self.state().uploads.values().map(|upload| upload.key.clone()).collect()
    }

    /// Forgets all unfinished uploads.
    pub fn forget_uploads(&self) {
        self.state().uploads.clear();
    }

    /// Sets the number of objects in a page of a list.
    pub fn set_page(&self, objects: usize) {
        self.state().page_objects = objects;
    }

    /// From now on `If-None-Match` is ignored.
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
            if fault == Some(Fault::Late) {
                wait_for_client(&client)?;
                self.wait_for_another(&request);
                drop(self.answer(&request, None));
                return Ok(());
            }
            if fault == Some(Fault::Twice) {
                drop(self.answer(&request, None));
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

    /// Waits until the same request arrives once more, or the server ends.
    fn wait_for_another(&self, request: &Request) {
        let what = (verb(request), subject(request));
        let count = |state: &State| state.asked.iter().filter(|asked| **asked == what).count();
        let before = count(&lock(&self.state));
        loop {
            let state = lock(&self.state);
            if state.is_ended || count(&state) != before {
                return;
            }
            drop(state);
            thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Notes that the request that was to be held has arrived.
    fn hold(&self) {
        lock(&self.state).is_held = true;
    }

    fn fault(&self, verb: Verb, request: &Request) -> Option<Fault> {
        let mut state = lock(&self.state);
        let what = subject(request);
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
                Some(object) => {
                    let mark = state.marks.get(&request.key).cloned().unwrap_or_else(|| etag(object));
                    get(object, mark, request.headers.get("range"), fault)
                }
            },
            Verb::Put => {
                let is_new = !state.objects.contains_key(&request.key);
                if !is_new
                    && !state.overwrites
                    && request.headers.get("if-none-match").is_some_and(|value| value == "*")
                {
                    return Response::error(412, "PreconditionFailed");
                }
                state.marks.remove(&request.key);
                state.objects.insert(request.key.clone(), request.body.clone());
                let mark = (fault != Some(Fault::NoEtag)).then(|| ("ETag", etag(&request.body)));
                Response { status: 200, headers: mark.into_iter().collect(), body: Vec::new() }
            }
            Verb::Delete => {
                state.objects.remove(&request.key);
                state.marks.remove(&request.key);
                Response { status: 204, ..Response::default() }
            }
            Verb::Begin => state.begin(request),
            Verb::Part => state.part(request, fault),
            Verb::Complete => state.complete(request, fault),
            Verb::Abort => state.abort(request),
            Verb::Uploads => state.unfinished(request),
        }
    }
}

/// What a request is about: a key, the prefix of a list, or a key and the number of a part.
fn subject(request: &Request) -> String {
    match verb(request) {
        Verb::List | Verb::Uploads => request.query.get("prefix").cloned().unwrap_or_default(),
        Verb::Part => {
            format!("{}#{}", request.key, request.query.get("partNumber").map(String::as_str).unwrap_or_default())
        }
        _ => request.key.clone(),
    }
}
