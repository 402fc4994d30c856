//! Pieces of volumes on a disk of this machine, sealed as they are in the store.
//!
//! Each volume is one sparse file of its own length. A piece is present if its bytes are not a hole. So the file system
//! itself is the table of contents: there is none that a crash could make wrong, and several mounts share one directory
//! without knowing of each other. They write the same bytes to the same places, because a volume never changes.
//!
//! Nothing is synced and nothing is checksummed. A piece that a crash tore or a disk damaged does not open, because
//! every frame is authenticated; then it is punched out and fetched again.
//!
//! The directory is kept below a size, and the disk above a share of free space, by punching holes into the least
//! recently used volumes. If nothing can be written, nothing is kept, and reading goes on.

use std::collections::HashMap;
use std::fs;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::fcntl::FallocateFlags;
use nix::fcntl::fallocate;
use nix::sys::stat::futimens;
use nix::sys::statvfs::fstatvfs;
use nix::sys::time::TimeSpec;
use nix::unistd::Whence;
use nix::unistd::lseek;

use crate::id::VolumeName;
use crate::lock::lock;
use crate::private;
use crate::read::fetch::pieces::Object;
use crate::read::fetch::pieces::PIECE_BYTES;

/// Files that are kept open.
const OPEN_MAX: usize = 64;
/// Locked by everybody who uses the directory.
const LOCK_FILE: &str = "lock";
/// One part in this many of the cache is emptied beyond need.
const MARGIN_SHARE: u64 = 16;
/// The unit in which file systems report the space of a file.
const SECTOR_BYTES: u64 = 512;

/// Location and limits of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheOptions {
    /// The directory, made if missing. Bygone owns all files in it.
    pub dir: PathBuf,
    /// Most bytes in it.
    pub bytes_max: u64,
    /// The share of its file system, in percent, that is left free.
    pub free_percent_min: u8,
}

impl CacheOptions {
    /// How much can lie in the cache without pushing out parts of itself.
    pub fn lasting_bytes_max(&self) -> u64 {
        self.bytes_max - self.margin_bytes()
    }

    /// The `bytes_max` of a cache that can hold `lasting_bytes`.
    pub fn bytes_max_for(lasting_bytes: u64) -> u64 {
        lasting_bytes.div_ceil(MARGIN_SHARE - 1).saturating_mul(MARGIN_SHARE)
    }

    /// How much is emptied beyond need, so that the next piece does not trigger another count.
    fn margin_bytes(&self) -> u64 {
        self.bytes_max / MARGIN_SHARE
    }
}

/// The directory.
#[derive(Debug)]
pub(super) struct Disk {
    options: CacheOptions,
    directory: File,
    open: Mutex<HashMap<i64, Arc<File>>>,
    /// About how many bytes the directory takes; other processes write there too.
    used: AtomicU64,
    /// Bytes written by this process since the last count.
    uncounted: AtomicU64,
    /// Held while counting and emptying.
    sweeping: Mutex<()>,
    /// A shared lock, held while the cache is in use.
    _lock: File,
}

impl Disk {
    /// Opens the directory, or explains why it is unusable.
    pub fn open(options: CacheOptions) -> io::Result<Disk> {
        private::directory(&options.dir)?;
        let lock = private::file(&options.dir.join(LOCK_FILE))?;
        if lock.try_lock().is_ok() {
            remove_empty(&options.dir);
        }
        lock.lock_shared()?;
        probe(&options.dir)?;
        let used = AtomicU64::new(bytes_in(&options.dir)?);
        let directory = File::open(&options.dir)?;
        let (open, sweeping) = (Mutex::default(), Mutex::default());
        Ok(Disk { options, directory, open, used, uncounted: AtomicU64::new(0), sweeping, _lock: lock })
    }

    /// True if all of these bytes, which are whole pieces, are present.
    pub fn has(&self, object: &Object, span: &Range<u64>) -> bool {
        self.file(object, false).is_ok_and(|file| is_data(&file, span))
    }

    /// These bytes, if present.
    pub fn read(&self, object: &Object, span: &Range<u64>) -> Option<Vec<u8>> {
        let file = self.file(object, false).ok()?;
        let pieces = object.span(&object.pieces(span));
        if !is_data(&file, &pieces) {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(span.end - span.start).ok()?];
        file.read_exact_at(&mut bytes, span.start).ok()?;
        // Another process may have emptied them between the look and the read.
        is_data(&file, &pieces).then_some(bytes)
    }

    /// Keeps bytes that are whole pieces. False if they could not be kept, which is not an error.
    pub fn write(&self, object: &Object, offset: u64, bytes: &[u8]) -> io::Result<bool> {
        self.make_room(bytes.len() as u64)?;
        if self.lacks_space(bytes.len() as u64)? {
            return Ok(false);
        }
        let file = self.file(object, true)?;
        let written = file.write_all_at(bytes, offset);
        self.used.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if let Err(error) = written {
            self.punch(object, &(offset..offset + bytes.len() as u64));
            return Err(error);
        }
        Ok(true)
    }

    /// Forgets these bytes.
    pub fn punch(&self, object: &Object, span: &Range<u64>) {
        // If even this fails, the bytes are read and rejected again each time: slow, but never wrong.
        let _ = self.file(object, false).map(|file| punch(&file, span));
    }

    /// The file of a volume. Its modification time is its last use, as precisely as [`OPEN_MAX`] allows.
    fn file(&self, object: &Object, create: bool) -> io::Result<Arc<File>> {
        let mut open = lock(&self.open);
        if let Some(file) = open.get(&object.volume) {
            return Ok(Arc::clone(file));
        }
        let name = object.name.as_str().rsplit('/').next().unwrap_or_default();
        let file = Arc::new(file_options().create(create).open(self.options.dir.join(name))?);
        // A failure to note the use is harmless.
        let _ = futimens(&*file, &TimeSpec::UTIME_OMIT, &TimeSpec::UTIME_NOW);
        if open.len() >= OPEN_MAX {
            open.clear();
        }
        open.insert(object.volume, Arc::clone(&file));
        Ok(file)
    }

    /// Empties the least recently used volumes until `bytes` more may be written.
    fn make_room(&self, bytes: u64) -> io::Result<()> {
        // Other processes write here too, so the directory is counted from time to time.
        if self.uncounted.fetch_add(bytes, Ordering::Relaxed) + bytes > self.options.margin_bytes() {
            let _sweeping = lock(&self.sweeping);
            self.uncounted.store(0, Ordering::Relaxed);
            self.used.store(bytes_in(&self.options.dir)?, Ordering::Relaxed);
        }
        let is_full = || self.used.load(Ordering::Relaxed) + bytes > self.options.bytes_max;
        if !is_full() && !self.lacks_space(bytes)? {
            return Ok(());
        }
        let _sweeping = lock(&self.sweeping);
        let mut files = files(&self.options.dir)?;
        files.sort_by_key(|file| file.used_at);
        let mut used: u64 = files.iter().map(|file| file.bytes).sum();
        let goal = self.options.lasting_bytes_max().saturating_sub(bytes);
        for old in files.iter().filter(|file| file.bytes > 0) {
            if used <= goal && !self.lacks_space(bytes)? {
                break;
            }
            let Ok(file) = file_options().open(&old.path) else { continue };
            let excess = if used > goal { used - goal } else { old.bytes };
            punch_first(&file, excess)?;
            // Hitting a hole would gain nothing, so the rest of this file goes before younger files.
            let used_at = TimeSpec::new(old.used_at.0, old.used_at.1);
            let _ = futimens(&file, &TimeSpec::UTIME_OMIT, &used_at);
            used = used.saturating_sub(old.bytes) + file.metadata()?.blocks() * SECTOR_BYTES;
        }
        self.used.store(used, Ordering::Relaxed);
        Ok(())
    }

    fn lacks_space(&self, bytes: u64) -> io::Result<bool> {
        let space = fstatvfs(&self.directory)?;
        let unit = space.fragment_size();
        let floor = space.blocks() / 100 * u64::from(self.options.free_percent_min);
        Ok(space.blocks_available().saturating_mul(unit) < floor.saturating_mul(unit).saturating_add(bytes))
    }
}

/// The content of a cache directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheUsage {
    /// Volumes with at least one piece.
    pub volumes: u64,
    /// Bytes that are kept.
    pub bytes: u64,
}

/// The content of the cache directory `dir`; empty if the directory does not exist.
pub fn cache_usage(dir: &Path) -> io::Result<CacheUsage> {
    let files = match files(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        files => files?,
    };
    let kept = files.iter().filter(|file| file.bytes > 0);
    Ok(kept.fold(CacheUsage::default(), |sum, file| CacheUsage {
        volumes: sum.volumes + 1,
        bytes: sum.bytes + file.bytes,
    }))
}

/// Empties the cache directory `dir`, even while mounts use it, and returns what was there.
pub fn cache_clear(dir: &Path) -> io::Result<CacheUsage> {
    let usage = cache_usage(dir)?;
    if usage.volumes > 0 {
        for file in files(dir)? {
            file_options().open(&file.path)?.set_len(0)?;
        }
    }
    if let Ok(lock) = file_options().open(dir.join(LOCK_FILE))
        && lock.try_lock().is_ok()
    {
        remove_empty(dir);
    }
    Ok(usage)
}

/// Reads the cache of mounts without being one: nothing is made, changed or marked as used.
pub struct CacheReader {
    dir: PathBuf,
    /// The last requested volume, and its file if it has one.
    last: Mutex<Option<(VolumeName, Option<File>)>>,
}

impl CacheReader {
    /// Reads the directory `dir`, which need not exist.
    pub fn new(dir: PathBuf) -> CacheReader {
        CacheReader { dir, last: Mutex::default() }
    }

    /// Sealed bytes of a volume, if all of them are present. They may be damaged, because nothing is checked here.
    pub fn read(&self, name: VolumeName, range: &Range<u64>) -> Option<Vec<u8>> {
        let mut last = lock(&self.last);
        if last.as_ref().is_none_or(|(last, _)| *last != name) {
            let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
            let file = File::options().read(true).custom_flags(flags).open(self.dir.join(name.to_hex()));
            *last = Some((name, file.ok()));
        }
        let file = last.as_ref()?.1.as_ref()?;
        // Neither a hole nor a file that ends too soon is worth allocating for.
        if file.metadata().ok()?.len() < range.end || !is_data(file, range) {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(range.end.checked_sub(range.start)?).ok()?];
        file.read_exact_at(&mut bytes, range.start).ok()?;
        Some(bytes)
    }
}

struct Kept {
    path: PathBuf,
    bytes: u64,
    used_at: (i64, i64),
}

/// Bytes that all files take.
fn bytes_in(dir: &Path) -> io::Result<u64> {
    Ok(files(dir)?.iter().map(|file| file.bytes).sum())
}

/// The files of volumes in `dir`.
fn files(dir: &Path) -> io::Result<Vec<Kept>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let is_volume = entry.file_name().len() == 64;
        let Ok(meta) = entry.metadata() else { continue };
        if is_volume && meta.is_file() {
            let used_at = (meta.mtime(), meta.mtime_nsec());
            files.push(Kept { path: entry.path(), bytes: meta.blocks() * SECTOR_BYTES, used_at });
        }
    }
    Ok(files)
}

/// Removes the files that hold nothing. Safe only while nobody else uses the directory and could have one open.
fn remove_empty(dir: &Path) {
    let empty = files(dir).unwrap_or_default().into_iter().filter(|file| file.bytes == 0);
    // A file that cannot be removed is empty.
    empty.for_each(|file| _ = fs::remove_file(file.path));
}

fn file_options() -> fs::OpenOptions {
    let mut options = private::file_options();
    options.truncate(false).create(false);
    options
}

/// Fails on a file system without holes.
fn probe(dir: &Path) -> io::Result<()> {
    let path = dir.join(format!("probe-{}", std::process::id()));
    let file = file_options().create(true).open(&path)?;
    // Another cache of this process may have removed it.
    let _ = fs::remove_file(&path);
    let bytes = [1; 64 << 10];
    file.write_all_at(&bytes, 2 * PIECE_BYTES)?;
    let data = 2 * PIECE_BYTES..2 * PIECE_BYTES + bytes.len() as u64;
    let knows_holes = is_data(&file, &data) && !is_data(&file, &(0..PIECE_BYTES)) && {
        punch(&file, &data)?;
        !is_data(&file, &data)
    };
    if knows_holes {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::Unsupported, "its file system does not support holes"))
    }
}

/// True if no byte of `span` lies in a hole or beyond the end.
fn is_data(file: &File, span: &Range<u64>) -> bool {
    let Ok(start) = i64::try_from(span.start) else { return false };
    lseek(file, start, Whence::SeekHole).is_ok_and(|hole| u64::try_from(hole).is_ok_and(|hole| hole >= span.end))
}

fn punch(file: &File, span: &Range<u64>) -> io::Result<()> {
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let (Ok(start), Ok(length)) = (i64::try_from(span.start), i64::try_from(span.end - span.start)) else {
        return Ok(());
    };
    Ok(fallocate(file, flags, start, length)?)
}

/// Punches out about the first `bytes` present bytes, in whole pieces.
fn punch_first(file: &File, bytes: u64) -> io::Result<()> {
    let (mut at, mut left) = (0, bytes);
    while left > 0 {
        let data = match lseek(file, at, Whence::SeekData) {
            Ok(data) => u64::try_from(data).unwrap_or(0),
            Err(Errno::ENXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let start = data / PIECE_BYTES * PIECE_BYTES;
        punch(file, &(start..start + PIECE_BYTES))?;
        left = left.saturating_sub(PIECE_BYTES);
        at = i64::try_from(start + PIECE_BYTES).unwrap_or(i64::MAX);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
