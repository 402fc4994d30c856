//! A slow and unreliable link to a server: a proxy on loopback that delays, throttles, cuts and counts connections.
//!
//! - **Bandwidth** is shared by all connections of a direction: each piece waits for its turn and occupies the link for
//!   as long as its bytes take.
//! - **Latency** is then added to every piece, in each direction; a round trip takes twice as long.
//! - **Resets** happen when the link has carried certain numbers of bytes towards the server, which a seed decides: the
//!   connection that carried the last byte is cut at both ends, and whatever was under way on it is lost.
//!
//! Buffers are small, so a sender is never far ahead of what the link has carried.

use std::collections::BTreeSet;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::SyncSender;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::thread::sleep;
use std::time::Duration;
use std::time::Instant;

use nix::libc::linger;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt;

/// Bytes carried as one piece.
const PIECE_BYTES: usize = 8 << 10;
/// How much lateness a sender on a busy machine may make up for.
const LATE_MAX: Duration = Duration::from_millis(100);
/// A read that takes less than this found bytes waiting: the link was late, not idle. Idle time is never made up for.
const AT_ONCE: Duration = Duration::from_millis(1);
/// Pieces of a connection that may be under way at once.
const UNDER_WAY_MAX: usize = 256;
/// Bytes of a connection that the kernel may buffer.
const BUFFER_BYTES: usize = 32 << 10;
/// Marks the end of the first line of a request.
const REQUEST_MARK: &[u8] = b" HTTP/1.1\r\n";

/// How slow, and how unreliable.
#[derive(Debug, Clone, Default)]
pub struct Shape {
    /// Added in each direction: half a round trip.
    pub latency: Duration,
    /// Bytes a second in each direction, if limited.
    pub bytes_per_second: Option<u64>,
    /// The total numbers of bytes towards the server at which a connection is cut.
    pub resets: BTreeSet<u64>,
}

impl Shape {
    /// Adds `count` resets within the first `bytes` bytes, at places chosen by `seed`.
    pub fn with_resets(mut self, seed: u64, count: usize, bytes: u64) -> Shape {
        let mut state = seed;
        while self.resets.len() < count {
            // The step of splitmix64.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            self.resets.insert((mixed ^ (mixed >> 31)) % bytes);
        }
        self
    }
}

/// Counts of what the link has carried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were made.
    pub connections: u64,
    /// Connections that were cut.
    pub resets: u64,
    /// HTTP requests.
    pub requests: u64,
    /// Bytes towards the server.
    pub bytes_up: u64,
    /// Bytes from the server.
    pub bytes_down: u64,
}

/// A proxy that serves until it is dropped.
pub struct SlowLink {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    server: SocketAddr,
    shape: Shape,
    up: Direction,
    down: Direction,
    connections: AtomicU64,
    resets: AtomicU64,
    requests: AtomicU64,
    resets_left: Mutex<BTreeSet<u64>>,
    ended: AtomicBool,
}

#[derive(Default)]
struct Direction {
    bytes: AtomicU64,
    /// When the link is free again.
    free: Mutex<Option<Instant>>,
}

impl SlowLink {
    /// Opens a link of this shape to `server`.
    pub fn to(server: SocketAddr, shape: Shape) -> io::Result<SlowLink> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        // Connections inherit the size; set later, it would not make the window smaller.
        setsockopt(&listener, sockopt::RcvBuf, &BUFFER_BYTES)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            server,
            resets_left: Mutex::new(shape.resets.clone()),
            shape,
            up: Direction::default(),
            down: Direction::default(),
            connections: AtomicU64::new(0),
            resets: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        });
        let link = SlowLink { address, shared: Arc::clone(&shared) };
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.ended.load(Ordering::SeqCst) {
                    break;
                }
                let shared = Arc::clone(&shared);
                // A client that cannot be served sees its connection closed.
                thread::spawn(move || drop(shared.connect(client)));
            }
        });
        Ok(link)
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        let shared = &self.shared;
        Counts {
            connections: shared.connections.load(Ordering::SeqCst),
            resets: shared.resets.load(Ordering::SeqCst),
            requests: shared.requests.load(Ordering::SeqCst),
            bytes_up: shared.up.bytes.load(Ordering::SeqCst),
            bytes_down: shared.down.bytes.load(Ordering::SeqCst),
        }
    }
}

impl Drop for SlowLink {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
    }
}

/// A piece and when it arrives.
type Piece = (Instant, Vec<u8>);

impl Shared {
    fn connect(self: &Arc<Shared>, client: TcpStream) -> io::Result<()> {
        let server = TcpStream::connect(self.server)?;
        self.connections.fetch_add(1, Ordering::SeqCst);
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
            setsockopt(stream, sockopt::SndBuf, &BUFFER_BYTES)?;
        }
        let pairs = [(&client, &server, true), (&server, &client, false)];
        for (from, to, is_up) in pairs {
            let (sender, receiver) = sync_channel(UNDER_WAY_MAX);
            let (from, to) = (from.try_clone()?, to.try_clone()?);
            let [cut_client, cut_server] = [client.try_clone()?, server.try_clone()?];
            let shared = Arc::clone(self);
            let cut = move || [&cut_client, &cut_server].into_iter().for_each(reset);
            thread::spawn(move || shared.carry(from, &sender, is_up, cut));
            thread::spawn(move || deliver(to, &receiver));
        }
        Ok(())
    }

    /// Reads from one end and gives each piece the time of its arrival.
    fn carry(&self, mut from: TcpStream, pieces: &SyncSender<Piece>, is_up: bool, cut: impl Fn()) {
        let direction = if is_up { &self.up } else { &self.down };
        let mut buffer = vec![0; PIECE_BYTES];
        let mut requests = Requests::default();
        loop {
            let asked = Instant::now();
            let Ok(read @ 1..) = from.read(&mut buffer) else { return };
            let late_max = if asked.elapsed() < AT_ONCE { LATE_MAX } else { Duration::ZERO };
            let piece = buffer.get(..read).unwrap_or_default().to_vec();
            let sent = self.occupy(direction, read, late_max);
            let bytes = direction.bytes.fetch_add(read as u64, Ordering::SeqCst) + read as u64;
            if is_up {
                self.requests.fetch_add(requests.count(&piece), Ordering::SeqCst);
                if self.is_cut(bytes) {
                    self.resets.fetch_add(1, Ordering::SeqCst);
                    return cut();
                }
            }
            if pieces.send((sent + self.shape.latency, piece)).is_err() {
                return;
            }
        }
    }

    /// Waits until the link has carried this many more bytes, and returns when that was.
    fn occupy(&self, direction: &Direction, bytes: usize, late_max: Duration) -> Instant {
        let now = Instant::now();
        let Some(rate) = self.shape.bytes_per_second else { return now };
        let takes = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let sent = {
            let mut free = direction.free.lock().unwrap();
            let sent = free.map_or(now, |free| free.max(now - late_max)) + takes;
            *free = Some(sent);
            sent
        };
        sleep(sent.saturating_duration_since(now));
        sent
    }

    fn is_cut(&self, bytes: u64) -> bool {
        let mut left = self.resets_left.lock().unwrap();
        match left.first() {
            Some(first) if *first <= bytes => left.pop_first().is_some(),
            _ => false,
        }
    }
}

/// Writes each piece at its time of arrival, then closes this direction.
fn deliver(mut to: TcpStream, pieces: &Receiver<Piece>) {
    for (arrives, piece) in pieces {
        sleep(arrives.saturating_duration_since(Instant::now()));
        if to.write_all(&piece).is_err() {
            return;
        }
    }
    drop(to.shutdown(Shutdown::Write));
}

/// Cuts a connection: nothing more arrives, and further sends are answered by a reset. It is closed when the last of
/// its threads has noticed.
fn reset(stream: &TcpStream) {
    let at_once = linger { l_onoff: 1, l_linger: 0 };
    let _ = setsockopt(&stream.as_fd(), sockopt::Linger, &at_once);
    let _ = stream.shutdown(Shutdown::Both);
}

/// Counts the first lines of HTTP requests, even if a line is split between two pieces.
#[derive(Default)]
struct Requests {
    before: Vec<u8>,
}

impl Requests {
    fn count(&mut self, piece: &[u8]) -> u64 {
        let text = [&self.before[..], piece].concat();
        let found = text.windows(REQUEST_MARK.len()).filter(|window| *window == REQUEST_MARK).count();
        let kept = text.len().saturating_sub(REQUEST_MARK.len() - 1);
        self.before = text.get(kept..).unwrap_or_default().to_vec();
        found as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that echoes its input.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || io::copy(&mut &stream, &mut &stream).map(|_| stream.shutdown(Shutdown::Write)));
            }
        });
        address
    }

    fn there_and_back(link: &SlowLink, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let stream = TcpStream::connect(link.address())?;
        thread::scope(|scope| {
            scope.spawn(|| {
                let sent = (&stream).write_all(bytes);
                drop(stream.shutdown(Shutdown::Write));
                sent
            });
            let mut back = Vec::new();
            (&stream).read_to_end(&mut back).map(|_| back)
        })
    }

    #[test]
    fn bytes_arrive_as_they_are_and_are_counted() {
        let shape = Shape { latency: Duration::from_millis(1), bytes_per_second: Some(100 << 20), ..Shape::default() };
        let link = SlowLink::to(echo(), shape).unwrap();
        let bytes = crate::tree::random(1, 1 << 20);
        assert!(there_and_back(&link, &bytes).unwrap() == bytes);
        let counts = link.counts();
        assert_eq!((counts.connections, counts.bytes_up, counts.bytes_down), (1, 1 << 20, 1 << 20));
    }

    #[test]
    fn a_link_takes_the_time_that_its_bytes_take() {
        let shape = Shape { latency: Duration::from_millis(20), bytes_per_second: Some(1_000_000), ..Shape::default() };
        let link = SlowLink::to(echo(), shape).unwrap();
        let begun = Instant::now();
        there_and_back(&link, &[0; 200_000]).unwrap();
        // At least, because a busy machine may take longer.
        assert!(begun.elapsed() >= Duration::from_millis(240));
    }

    #[test]
    fn a_link_that_was_idle_is_as_slow_as_before() {
        let shape = Shape { latency: Duration::from_millis(20), bytes_per_second: Some(1_000_000), ..Shape::default() };
        let link = SlowLink::to(echo(), shape).unwrap();
        let mut stream = TcpStream::connect(link.address()).unwrap();
        for _ in 0..3 {
            sleep(2 * LATE_MAX);
            let begun = Instant::now();
            stream.write_all(&[0; 10_000]).unwrap();
            stream.read_exact(&mut [0; 10_000]).unwrap();
            // The first piece returns while the second is on its way, so this takes less than twice the time of both.
            assert!(begun.elapsed() >= Duration::from_millis(50), "{:?}", begun.elapsed());
        }
    }

    #[test]
    fn resets_come_where_the_seed_wants_them() {
        let shape = Shape::default().with_resets(7, 3, 100_000);
        assert_eq!(shape.resets, Shape::default().with_resets(7, 3, 100_000).resets);
        assert_eq!(shape.resets.len(), 3);
        let link = SlowLink::to(echo(), shape).unwrap();
        let mut failed = 0;
        while there_and_back(&link, &[1; 200_000]).map_or(true, |back| back.len() < 200_000) {
            failed += 1;
            assert!(failed <= 3, "no more than three are cut");
        }
        assert_eq!((failed, link.counts().resets), (3, 3));
    }

    #[test]
    fn requests_are_counted_across_pieces() {
        let mut requests = Requests::default();
        let text = b"GET / HTTP/1.1\r\nHost: x\r\n\r\nPUT /a HTTP/1.1\r\n\r\n";
        for size in 1..text.len() {
            let found: u64 = text.chunks(size).map(|piece| requests.count(piece)).sum();
            assert_eq!(found, 2, "in pieces of {size}");
        }
    }
}
