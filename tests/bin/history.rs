//! Makes a repository with a long history of many files, without the files, and measures its recovery over a long link.
//!
//! ```text
//! bygone-history make REPOSITORY FILES SNAPSHOTS CHANGED VOLUME_MIB      each snapshot but the first changes CHANGED files
//! bygone-history recover REPOSITORY LATENCY_MS MBIT_PER_SECOND CONNECTIONS
//! ```
//!
//! Each directory holds a hundred files, and each directory above a hundred directories. A file has 200 bytes of noise,
//! so it has a block of its own. Changes come in runs of ten neighbours, as they do where people work. The second form
//! prints one line of JSON. The link is simulated by waits: each request costs the latency, and all bytes share the
//! bandwidth.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a tool for measuring: it fails by panicking and prints a line"
)]

use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::Duration;
use std::time::Instant;

use bygone_core::compress::Compression;
use bygone_core::crypto::KdfCost;
use bygone_core::entry::Content;
use bygone_core::entry::Entry;
use bygone_core::entry::Extent;
use bygone_core::entry::Kind;
use bygone_core::entry::Meta;
use bygone_core::entry::Name;
use bygone_core::entry::Time;
use bygone_core::error::Result;
use bygone_core::hash::IdKeys;
use bygone_core::recover;
use bygone_core::recover::Told;
use bygone_core::repo::InitOptions;
use bygone_core::repo::LockedRepository;
use bygone_core::repo::Place;
use bygone_core::repo::Repository;
use bygone_core::repo::Secret;
use bygone_core::store::ByteRange;
use bygone_core::store::Listed;
use bygone_core::store::ObjectName;
use bygone_core::store::Source;
use bygone_core::store::Store;
use bygone_core::store::Stored;
use bygone_core::store::local::LocalStore;
use bygone_core::watch::Watch;
use bygone_core::write;
use bygone_core::write::BackupOptions;
use bygone_core::write::Piece;
use bygone_core::write::Writer;
use bygone_tests::tree::random;

const FAN: u64 = 100;
const FILE_BYTES: usize = 200;
const RUN: u64 = 10;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().unwrap();
    match words.as_slice() {
        ["make", repository, files, snapshots, changed, volume_mib] => {
            let volume_bytes = number(volume_mib) << 20;
            make(Path::new(repository), number(files), number(snapshots), number(changed), volume_bytes);
        }
        ["recover", repository, latency, mbit, connections] => {
            let latency = Duration::from_millis(number(latency));
            measure(Path::new(repository), latency, number(mbit), number(connections) as usize);
        }
        _ => {
            panic!("usage: make REPOSITORY FILES SNAPSHOTS CHANGED VOLUME_MIB | recover REPOSITORY MS MBIT CONNECTIONS")
        }
    }
}

fn secret() -> Secret {
    let passphrase = std::env::var("BYGONE_PASSPHRASE").unwrap_or_else(|_| "history".into());
    Secret::new(passphrase.into_bytes())
}

fn kdf() -> KdfCost {
    KdfCost { memory_kib: 19_456, passes: 1, lanes: 1 }
}

fn make(repository: &Path, files: u64, snapshots: u64, changed: u64, volume_bytes: u64) {
    let catalogs = tempfile::tempdir().unwrap();
    let place =
        Place { store: Arc::new(LocalStore::create(repository).unwrap()), catalog_base: catalogs.path().to_path_buf() };
    let options = InitOptions {
        block_bytes: 1 << 20,
        volume_bytes,
        compression: Compression::Lz4,
        kdf: kdf(),
        label: "history".into(),
        time: Time::default(),
    };
    let mut locked = Repository::init(&place, &secret(), &options).unwrap().lock().unwrap();
    let (versions, stored) = (vec![0; files as usize], vec![None; files as usize]);
    let mut history = History { versions, stored, ids: None, state: 1 };
    for snapshot in 0..snapshots {
        if snapshot > 0 {
            history.change(changed);
        }
        history.ids = Some(locked.repository().keys().ids().clone());
        let since = Instant::now();
        let id = history.backup(&mut locked, snapshot).unwrap();
        eprintln!("{id}: snapshot {} of {snapshots} in {:.1} s", snapshot + 1, since.elapsed().as_secs_f64());
    }
}

/// The files: how often each has changed, and which version was backed up last.
struct History {
    versions: Vec<u8>,
    stored: Vec<Option<u8>>,
    ids: Option<IdKeys>,
    state: u64,
}

impl History {
    fn change(&mut self, count: u64) {
        let files = self.versions.len() as u64;
        for _ in 0..count.div_ceil(RUN) {
            self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let first = (self.state >> 33) % files;
            for file in first..files.min(first + RUN) {
                self.versions[file as usize] = self.versions[file as usize].wrapping_add(1);
            }
        }
    }

    fn backup(&mut self, locked: &mut LockedRepository, snapshot: u64) -> Result<String> {
        let options = BackupOptions {
            time: Time { secs: 1_700_000_000 + snapshot as i64 * 86_400, nanos: 0 },
            host: "host".into(),
            user: "user".into(),
            paths: vec![b"/tree".to_vec()],
            tags: vec![],
            parent: None,
            program: "history".into(),
        };
        let body = |writer: &mut Writer<'_>| {
            writer.directory_begin()?;
            writer.directory_begin()?;
            let files = self.versions.len() as u64;
            for upper in 0..files.div_ceil(FAN * FAN) {
                writer.directory_begin()?;
                for lower in upper * FAN..files.div_ceil(FAN).min((upper + 1) * FAN) {
                    writer.directory_begin()?;
                    for file in lower * FAN..files.min((lower + 1) * FAN) {
                        self.file(writer, file)?;
                    }
                    writer.directory_end(Some(name(lower)), meta(lower, 0, 0))?;
                }
                writer.directory_end(Some(name(upper)), meta(upper, 0, 0))?;
            }
            writer.directory_end(Some(Name::new(b"tree").unwrap()), meta(0, 0, 0))?;
            writer.directory_end(None, meta(0, 0, 0))?;
            Ok(((), 0))
        };
        let id = write::backup(locked, options, &Watch::new(), body).map(|(_, snapshot)| snapshot.id.to_hex())?;
        self.stored = self.versions.iter().copied().map(Some).collect();
        Ok(id)
    }

    fn file(&self, writer: &mut Writer<'_>, file: u64) -> Result<()> {
        let version = u64::from(self.versions[file as usize]);
        let content = random(file << 8 | version, FILE_BYTES);
        if self.stored[file as usize] == Some(self.versions[file as usize]) {
            let id = self.ids.as_ref().unwrap().block(&content);
            let content = Content::Extents(vec![Extent::Block { id, length: FILE_BYTES as u32 }]);
            let entry = Entry::new(name(file), meta(file, version, FILE_BYTES as u64), Kind::File(content));
            assert!(writer.unchanged(&entry)?);
            return Ok(());
        }
        let block = writer.cutter().block(content);
        writer.file_piece(Piece::Block(block))?;
        writer.file_end(name(file), meta(file, version, FILE_BYTES as u64))
    }
}

fn name(number: u64) -> Name {
    Name::new(format!("entry-{number:08}.text").as_bytes()).unwrap()
}

fn meta(inode: u64, version: u64, size: u64) -> Meta {
    let nanos = (inode.wrapping_mul(7_919) % 1_000_000_000) as u32;
    let time = Time { secs: 1_600_000_000 + (inode % 10_000_000) as i64 + version as i64, nanos };
    let mode = if size == 0 { 0o755 } else { 0o644 };
    Meta { mode, mtime: time, ctime: time, size, device: 1, inode, ..Meta::unknown() }
}

/// Recovers with an empty catalog and prints the cost.
fn measure(repository: &Path, latency: Duration, mbit: u64, connections: usize) {
    let catalogs = tempfile::tempdir().unwrap();
    let far = Arc::new(FarStore {
        inner: LocalStore::open(repository).unwrap(),
        latency,
        bytes_per_second: mbit * 1_000_000 / 8,
        connections,
        free_at: Mutex::new(Instant::now()),
        requests: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        data_bytes: AtomicU64::new(0),
    });
    let begun = Instant::now();
    let place = Place { store: far.clone(), catalog_base: catalogs.path().to_path_buf() };
    let mut locked = Repository::open(&place, &secret()).unwrap().lock().unwrap();
    let plan = recover::plan(&mut locked).unwrap();
    let (work, planned) = (plan.work(), begun.elapsed());
    let mut first = None;
    let learnt = plan
        .carry_out(&mut locked, &Watch::new(), &mut |told| {
            if let Told::Shown(_) = told {
                first.get_or_insert_with(|| begun.elapsed());
            }
        })
        .unwrap();
    let whole = begun.elapsed();
    let catalog = locked.repository().catalog_path();
    let catalog_bytes = std::fs::metadata(catalog).unwrap().len();
    println!(
        "{{\"snapshots\":{},\"volumes\":{},\"nodes\":{},\"bytes_planned\":{},\"requests\":{},\"bytes\":{},\
         \"data_bytes\":{},\"planned_s\":{:.1},\"first_s\":{:.1},\"whole_s\":{:.1},\"catalog_bytes\":{}}}",
        learnt.snapshots,
        work.volumes,
        learnt.nodes,
        work.bytes,
        far.requests.load(Ordering::Relaxed),
        far.bytes.load(Ordering::Relaxed),
        far.data_bytes.load(Ordering::Relaxed),
        planned.as_secs_f64(),
        first.map_or(-1.0, |first| first.as_secs_f64()),
        whole.as_secs_f64(),
        catalog_bytes,
    );
}

/// A directory at the end of a slow link.
struct FarStore {
    inner: LocalStore,
    latency: Duration,
    bytes_per_second: u64,
    connections: usize,
    /// When the link will have carried everything requested so far.
    free_at: Mutex<Instant>,
    requests: AtomicU64,
    bytes: AtomicU64,
    data_bytes: AtomicU64,
}

impl FarStore {
    fn carry(&self, bytes: u64) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let arrives = {
            let mut free_at = self.free_at.lock().unwrap();
            *free_at = (*free_at).max(Instant::now() + self.latency) + takes;
            *free_at
        };
        sleep(arrives.saturating_duration_since(Instant::now()));
    }
}

impl Store for FarStore {
    fn address(&self) -> String {
        self.inner.address()
    }

    fn is_far(&self) -> bool {
        true
    }

    fn connections(&self) -> usize {
        self.connections
    }

    fn get(&self, name: &ObjectName, range: ByteRange) -> Result<Vec<u8>> {
        let bytes = self.inner.get(name, range)?;
        if name.as_str().starts_with("data/") {
            self.data_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        self.carry(bytes.len() as u64);
        Ok(bytes)
    }

    fn put(&self, name: &ObjectName, source: Source<'_>) -> Result<Stored> {
        self.carry(source.bytes());
        self.inner.put(name, source)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        let listed = self.inner.list(prefix)?;
        // About the size of a listing in XML, with a thousand objects in each request.
        for part in listed.chunks(1_000).chain(std::iter::once(&[][..]).take(usize::from(listed.is_empty()))) {
            self.carry(part.len() as u64 * 350);
        }
        Ok(listed)
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.carry(0);
        self.inner.delete(name)
    }
}
