//! The numbers of a mount: counted here, handed out by the mount itself, and shown by `bygone-mount --stats`.
//!
//! They are the value of an extended attribute of the mount's root directory, as JSON. The kernel does not cache values
//! of extended attributes, so the numbers are live. The attribute is not listed, so nothing copies it.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Instant;

use nix::errno::Errno;
use serde::Deserialize;
use serde::Serialize;

use bygone_cli::exit::Failure;
use bygone_cli::terminal::output::count;
use bygone_cli::terminal::output::duration;
use bygone_cli::terminal::output::number;
use bygone_cli::terminal::output::size;
use bygone_cli::xattrs::XattrsOf;
use bygone_cli::xattrs::xattr_value;
use bygone_core::read::Reader;

use crate::tree::Tree;

/// Name of the extended attribute that holds the numbers.
pub const XATTR: &str = "user.bygone.stats";

/// The operations that the kernel requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Look up a name in a directory.
    Lookup,
    /// Get attributes.
    Getattr,
    /// Get the target of a symbolic link.
    Readlink,
    /// Open a file.
    Open,
    /// Open a directory.
    Opendir,
    /// Read bytes of a file.
    Read,
    /// List the names in a directory.
    Readdir,
    /// List the names in a directory with their attributes.
    Readdirplus,
    /// Get the size of the whole file system.
    Statfs,
    /// Get the value of an extended attribute.
    Getxattr,
    /// List the names of the extended attributes.
    Listxattr,
    /// Find where data or a hole begins.
    Lseek,
}

/// All operations, in the order of their numbers, with their names in the report.
const OPERATIONS: [(Operation, &str); 12] = [
    (Operation::Lookup, "lookup"),
    (Operation::Getattr, "getattr"),
    (Operation::Readlink, "readlink"),
    (Operation::Open, "open"),
    (Operation::Opendir, "opendir"),
    (Operation::Read, "read"),
    (Operation::Readdir, "readdir"),
    (Operation::Readdirplus, "readdirplus"),
    (Operation::Statfs, "statfs"),
    (Operation::Getxattr, "getxattr"),
    (Operation::Listxattr, "listxattr"),
    (Operation::Lseek, "lseek"),
];

/// The counters of one mount.
pub struct Stats {
    since: Instant,
    tree: Arc<Tree>,
    reader: Arc<Reader>,
    fetched_bytes_max: Option<u64>,
    requests: [AtomicU64; OPERATIONS.len()],
    answered_bytes: AtomicU64,
    waiting: AtomicU64,
    errors: AtomicU64,
}

/// A read that is not answered yet.
pub struct Waiting(Arc<Stats>);

/// The numbers at one time. Programs read them, so a field never changes its meaning.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Version of the program that serves the mount.
    pub version: String,
    /// Its process ID.
    pub pid: u32,
    /// How long it has been mounted.
    pub mounted_seconds: f64,
    /// Snapshots that it shows.
    pub snapshots: u64,
    /// Requests of the kernel by operation, without operations that were never requested.
    pub requests: BTreeMap<String, u64>,
    /// Bytes delivered to readers.
    pub answered_bytes: u64,
    /// Reads that wait for an answer.
    pub waiting: u64,
    /// Requests that failed because of damage, the store, the catalog or this program.
    pub errors: u64,
    /// Frames that were in memory when they were needed.
    pub frames_hit: u64,
    /// Frames that were fetched, opened and decompressed.
    pub frames_made: u64,
    /// Frames that could not be fetched, opened or decompressed.
    pub frames_failed: u64,
    /// Requests to the store for data.
    pub gets: u64,
    /// Bytes that the store delivered.
    pub fetched_bytes: u64,
    /// The most bytes that it may deliver (--max-fetch).
    pub fetched_bytes_max: Option<u64>,
    /// Time spent waiting for the store, all threads together.
    pub fetch_seconds: f64,
    /// Time spent opening and decompressing, all threads together.
    pub decode_seconds: f64,
}

impl Stats {
    /// Counters at zero for a mount that shows `tree` and reads through `reader`, which may fetch `fetched_bytes_max`.
    pub fn new(tree: Arc<Tree>, reader: Arc<Reader>, fetched_bytes_max: Option<u64>) -> Stats {
        let (requests, [answered_bytes, waiting, errors]) = Default::default();
        let since = Instant::now();
        Stats { since, tree, reader, fetched_bytes_max, requests, answered_bytes, waiting, errors }
    }

    /// Counts a request of the kernel.
    pub fn count(&self, operation: Operation) {
        if let Some(counter) = self.requests.get(operation as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a read, which is waiting until the returned value is dropped.
    pub fn begin_read(self: &Arc<Stats>) -> Waiting {
        self.count(Operation::Read);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(Arc::clone(self))
    }

    /// Counts a failed request.
    pub fn failed(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes that the store has delivered.
    pub fn fetched_bytes(&self) -> u64 {
        self.reader.frames().counters().counts().fetched_bytes
    }

    /// Bytes delivered to readers, and the number of reads that wait.
    pub fn progress(&self) -> (u64, u64) {
        (self.answered_bytes.load(Ordering::Relaxed), self.waiting.load(Ordering::Relaxed))
    }

    /// The numbers now.
    pub fn report(&self) -> Report {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let requests =
            OPERATIONS.iter().zip(&self.requests).map(|((_, name), counter)| ((*name).to_owned(), value(counter)));
        let frames = self.reader.frames().counters().counts();
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            mounted_seconds: seconds(self.since.elapsed().as_secs_f64()),
            snapshots: self.tree.moments().moment().listing.snapshots.len() as u64,
            requests: requests.filter(|(_, count)| *count > 0).collect(),
            answered_bytes: value(&self.answered_bytes),
            waiting: value(&self.waiting),
            errors: value(&self.errors),
            frames_hit: frames.frames_hit,
            frames_made: frames.frames_made,
            frames_failed: frames.frames_failed,
            gets: frames.gets,
            fetched_bytes: frames.fetched_bytes,
            fetched_bytes_max: self.fetched_bytes_max,
            fetch_seconds: seconds(frames.fetch_time.as_secs_f64()),
            decode_seconds: seconds(frames.decode_time.as_secs_f64()),
        }
    }

    /// The value of the attribute [`XATTR`].
    pub fn value(&self) -> Vec<u8> {
        // Every report can be written as JSON.
        serde_json::to_vec(&self.report()).unwrap_or_default()
    }
}

impl Waiting {
    /// Notes that it is answered, with this many bytes.
    pub fn answered(self, bytes: usize) {
        self.0.answered_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Rounded to microseconds, because more digits only make the report hard to read.
fn seconds(exact: f64) -> f64 {
    (exact * 1e6).round() / 1e6
}

impl Report {
    /// True if both are equal apart from the time since mounting.
    pub fn counts_as(&self, other: &Report) -> bool {
        Report { mounted_seconds: other.mounted_seconds, ..self.clone() } == *other
    }

    /// The report of the mount at `point`.
    pub fn of(point: &Path) -> Result<Report, Failure> {
        let shown = point.display();
        let failed = |error: io::Error| Failure::Refused(format!("cannot ask the mount at {shown}: {error}"));
        let none = || Failure::Refused(format!("no repository is mounted at {shown}"));
        let path = fs::canonicalize(point).map_err(failed)?;
        let invalid = |_| failed(io::ErrorKind::InvalidInput.into());
        let path = CString::new(path.as_os_str().as_bytes()).map_err(invalid)?;
        let name = CString::new(XATTR).map_err(invalid)?;
        let value = xattr_value(XattrsOf::Path(&path), &name).map_err(|errno| match errno {
            Errno::ENODATA | Errno::EOPNOTSUPP => none(),
            errno => failed(errno.into()),
        })?;
        serde_json::from_slice(&value).map_err(|_| none())
    }

    /// The report as lines for people.
    pub fn lines(&self) -> Vec<String> {
        let mut requests: Vec<_> = self.requests.iter().collect();
        requests.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let all = requests.iter().map(|(_, count)| **count).sum();
        let kinds = requests.iter().map(|(name, count)| format!("{} {name}", number(**count)));
        let kinds =
            if requests.is_empty() { String::new() } else { format!(": {}", kinds.collect::<Vec<_>>().join(", ")) };
        let mut frames = format!("{} in memory, {} made", number(self.frames_hit), number(self.frames_made));
        if self.frames_failed > 0 {
            frames.push_str(&format!(", {} failed", number(self.frames_failed)));
        }
        let mounted = duration(self.mounted_seconds);
        [
            ("mounted", format!("{mounted}, by process {} (bygone-mount {})", self.pid, self.version)),
            ("snapshots", number(self.snapshots)),
            ("requests", format!("{}{kinds}", number(all))),
            ("read", format!("{}, {} waiting", size(self.answered_bytes), number(self.waiting))),
            ("errors", number(self.errors)),
            ("frames", frames),
            (
                "fetched",
                format!(
                    "{}{} in {}, {}",
                    size(self.fetched_bytes),
                    self.fetched_bytes_max.map_or_else(String::new, |max| format!(" of at most {}", size(max))),
                    count(self.gets, "request", "requests"),
                    duration(self.fetch_seconds)
                ),
            ),
            ("decoding", duration(self.decode_seconds)),
        ]
        .into_iter()
        .map(|(what, text)| format!("{what:<11}{text}"))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Node;
    use crate::testing::Sample;

    #[test]
    fn requests_are_counted_by_their_kind() {
        for (position, (operation, _)) in OPERATIONS.iter().enumerate() {
            assert_eq!(*operation as usize, position);
        }
        let sample = Sample::new();
        sample.backup(1, &[], vec![("file".to_owned(), Node::File(vec![1]))]);
        let stats = Arc::new(Stats::new(Arc::new(sample.tree()), sample.reader(), None));
        let before = stats.report();
        stats.count(Operation::Lookup);
        let (first, second) = (stats.begin_read(), stats.begin_read());
        first.answered(10);
        stats.failed();
        let report: Report = serde_json::from_slice(&stats.value()).unwrap();
        assert_eq!(report.requests, BTreeMap::from([("lookup".to_owned(), 1), ("read".to_owned(), 2)]));
        assert_eq!((report.waiting, report.answered_bytes, report.errors, report.snapshots), (1, 10, 1, 1));
        drop(second);
        assert_eq!(stats.report().waiting, 0);
        assert!(!before.counts_as(&report) && report.counts_as(&Report { mounted_seconds: 1e9, ..report.clone() }));
    }

    #[test]
    fn reports_of_other_versions_are_readable() {
        let text = r#"{"pid":7,"requests":{"read":1200,"lookup":5},"gets":1,"fetched_bytes":2048,"later":[]}"#;
        let report: Report = serde_json::from_str(text).unwrap();
        let lines = report.lines();
        assert!(lines.contains(&"requests   1,205: 1,200 read, 5 lookup".to_owned()), "{lines:?}");
        assert!(lines.contains(&"fetched    2.0 KiB in 1 request, 0.0 s".to_owned()), "{lines:?}");
        let limited = Report { fetched_bytes_max: Some(4_096), ..report };
        assert!(limited.lines().contains(&"fetched    2.0 KiB of at most 4.0 KiB in 1 request, 0.0 s".to_owned()));
    }

    #[test]
    fn a_directory_that_is_not_a_mount_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = Report::of(dir.path()).unwrap_err().to_string();
        assert!(error.contains("no repository is mounted at"), "{error}");
    }
}
