//! One mount from mounting to unmounting.
//!
//! A mount ends in one of two ways. If it is unmounted from outside, the kernel closes the connection and the process
//! ends with success. If this process is asked to end, it unmounts. If the mount is still in use then, it names the
//! users in the log, waits, and finally detaches the mount.
//!
//! fuser's own session is never dropped. Its check for being still mounted gives the opposite of the right answer, and
//! would unmount another mount that has taken our place since. After a crash nothing unmounts automatically: an empty
//! directory in place of a backup would make a mirror delete its copy, while a dead mount makes it fail.

use std::io;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crossbeam_channel::Receiver;
use crossbeam_channel::RecvTimeoutError;
use crossbeam_channel::Sender;
use fuser::BackgroundSession;
use fuser::Config;
use fuser::MountOption;
use fuser::SessionACL;
use nix::unistd::AccessFlags;
use nix::unistd::access;
use nix::unistd::getegid;
use nix::unistd::geteuid;

use bygone_cli::clock::now;
use bygone_cli::exit::Failure;
use bygone_core::read::Order;
use bygone_core::read::Reader;
use bygone_core::repo::Repository;
use bygone_core::watch::News;
use bygone_core::watch::Watch;

use crate::data::pool::Pool;
use crate::data::push;
use crate::kernel::event::Event;
use crate::kernel::fuse::Mounted;
use crate::kernel::fuse::Reports;
use crate::kernel::log::Log;
use crate::kernel::refused_readers::RefusedReaders;
use crate::kernel::stats::Stats;
use crate::kernel::stats_file::StatsFile;
use crate::kernel::watcher::Watcher;
use crate::program::mountpoint;
use crate::program::mountpoint::FILE_SYSTEM_TYPE;
use crate::program::mountpoint::Mount;
use crate::program::mountpoint::Unmounted;
use crate::program::options::Options;
use crate::program::reading::Fetching;
use crate::tree::Tree;
use crate::tree::moments::Moments;
use crate::tree::shape::Layout;
use crate::tree::shape::Shape;

/// From this many processors on, each thread gets its own descriptor of the kernel's device.
const CLONE_FROM_CORES: usize = 8;
/// How long to wait for a busy mount.
const BUSY_MAX: Duration = Duration::from_secs(10);
/// How often to retry unmounting a busy mount.
const BUSY_PERIOD: Duration = Duration::from_millis(200);

/// How long reads may wait for a store that delivers nothing while the mount is to end.
const STALL_MAX: Duration = Duration::from_secs(1);

/// The device through which the kernel sends requests.
const DEVICE: &str = "/dev/fuse";

const GIVEN_UP: &str = "the store delivers nothing: reads that wait for it are cancelled";

const COVERED: &str = "something else is mounted over the repository: unmount that first";

/// The part of a repository that is shown.
pub struct Shown {
    /// Which snapshots, and how.
    pub shape: Shape,
    /// The processes whose reads are refused.
    pub refused_readers: RefusedReaders,
}

/// What a session talks to.
pub struct Links {
    /// Where trouble is written.
    pub log: Arc<Log>,
    /// The watch that the repository was opened with.
    pub watch: Arc<Watch>,
    /// Where the session sends its own events.
    pub sender: Sender<Event>,
    /// The other end, where the session waits for them.
    pub events: Receiver<Event>,
}

/// A mounted repository.
pub struct Session {
    mount: Mount,
    events: Receiver<Event>,
    stats: Arc<Stats>,
    stats_file: Option<StatsFile>,
    watcher: Option<Watcher>,
    log: Arc<Log>,
    watch: Arc<Watch>,
    /// Never dropped: see above.
    _background: ManuallyDrop<BackgroundSession>,
}

impl Session {
    /// Mounts `repository` at `point`, which [`mountpoint::check`] returned, and returns at once.
    pub fn mount(
        repository: &Repository,
        point: &Path,
        options: Options,
        shown: Shown,
        reading: Fetching,
        links: Links,
    ) -> Result<Session, Failure> {
        let Links { log, watch, sender, events } = links;
        let layout = shown.shape.layout;
        let cores = thread::available_parallelism().map_or(2, usize::from);
        let Fetching { cache_bytes_max, options: fetch_options } = reading;
        let fetched_bytes_max = Some(fetch_options.fetched_bytes_max).filter(|bytes| *bytes < u64::MAX);
        let reader = Arc::new(Reader::fetching(repository, cache_bytes_max, Order::Any, fetch_options)?);
        // One for each thread that serves the kernel, one for the pusher, and one for messages.
        let count = serving_threads(cores) + 2;
        let moments = Moments::new(Arc::clone(&reader), repository.catalog_path(), shown.shape, count, now())?;
        let owner = (geteuid().as_raw(), getegid().as_raw());
        let tree = Arc::new(Tree::new(moments, owner));
        let stats = Arc::new(Stats::new(Arc::clone(&tree), Arc::clone(&reader), fetched_bytes_max));
        log_outages(&watch, &log, &stats);
        let pool = Pool::new(reader, workers(cores, repository), cache_bytes_max).map_err(no_thread)?;
        let pool = Arc::new(pool);
        let (hints, hinted) = push::hints();
        let mounted = Mounted::new(
            Arc::clone(&tree),
            Arc::clone(&pool),
            hints,
            Reports { log: Arc::clone(&log), stats: Arc::clone(&stats) },
            shown.refused_readers,
            generation(repository)?,
            sender,
        );
        // httm recognises a restic mount by this word in its source.
        let prefix = if layout == Layout::Restic { "restic:" } else { "" };
        let config = config(&format!("{prefix}{}", repository.store().address()), options, cores);
        let session = fuser::Session::new(mounted, point, &config).map_err(|error| refused(point, &error))?;
        let mount = mountpoint::top(point)?.ok_or_else(|| {
            let text = format!("{} is not in /proc/self/mountinfo after it was mounted", point.display());
            Failure::Refused(text)
        })?;
        mount.widen_readahead();
        let background = ManuallyDrop::new(session.spawn().map_err(no_thread)?);
        let notifier = background.notifier();
        let mut session = Session {
            mount,
            events,
            stats,
            stats_file: None,
            watcher: None,
            log: Arc::clone(&log),
            watch,
            _background: background,
        };
        let watch = || {
            let view = tree.moments().open_view()?;
            push::start(Arc::clone(&tree), pool, notifier.clone(), hinted).map_err(no_thread)?;
            Watcher::start(tree, view, notifier, log).map_err(no_thread)
        };
        match watch() {
            Ok(watcher) => {
                session.watcher = Some(watcher);
                Ok(session)
            }
            Err(failure) => session.unmount().and(Err(failure)),
        }
    }

    /// Keeps the numbers of this mount up to date in the file `path` (absolute) from now on.
    pub fn keep_stats_file(&mut self, path: PathBuf) -> io::Result<()> {
        self.stats_file = Some(StatsFile::start(Arc::clone(&self.stats), path, Arc::clone(&self.log))?);
        Ok(())
    }

    /// Waits until the mount is gone or this process is asked to end. Then calls `stopping`, and in the second case
    /// unmounts.
    pub fn wait(mut self, stopping: impl FnOnce()) -> Result<(), Failure> {
        let event = self.events.recv();
        stopping();
        match event {
            Ok(Event::Signal) => self.leave(),
            Ok(Event::Ended) | Err(_) => {
                self.watcher = None;
                self.watch.cancel();
                Ok(())
            }
        }
    }

    /// Unmounts.
    pub fn unmount(mut self) -> Result<(), Failure> {
        self.leave()
    }

    fn leave(&mut self) -> Result<(), Failure> {
        // The watcher could keep the mount busy for a moment with its calls to the kernel.
        self.watcher = None;
        let begun = Instant::now();
        let mut is_logged = false;
        let mut lazily = false;
        let mut stall = Stall::begin(&self.stats);
        loop {
            let state = self.mount.unmount(lazily)?;
            match state {
                Unmounted::Gone => {
                    self.watch.cancel();
                    return self.drain();
                }
                // Serving goes on below the mount that covers ours, because ending now would leave a dead mount there.
                Unmounted::Covered if lazily => return Err(Failure::Refused(COVERED.to_owned())),
                Unmounted::Covered | Unmounted::Busy => {}
            }
            if !is_logged {
                self.log.line(&match state {
                    Unmounted::Covered => COVERED.to_owned(),
                    Unmounted::Gone | Unmounted::Busy => self.held(),
                });
                is_logged = true;
            }
            match self.events.recv_timeout(BUSY_PERIOD) {
                Ok(Event::Ended) => return Ok(()),
                Ok(Event::Signal) | Err(RecvTimeoutError::Disconnected) => lazily = true,
                Err(RecvTimeoutError::Timeout) => {
                    lazily = state == Unmounted::Busy && begun.elapsed() > BUSY_MAX;
                }
            }
            // A covered mount goes on serving until it is uncovered.
            let gives_up = state == Unmounted::Busy && (lazily || stall.is_long(&self.stats));
            if gives_up && !self.watch.is_cancelled() {
                if stall.reads_wait(&self.stats) {
                    self.log.line(GIVEN_UP);
                }
                self.watch.cancel();
            }
        }
    }

    /// Waits a moment for the threads that serve the kernel. They end by themselves when the mount is gone, unless a
    /// file was open when it was detached.
    fn drain(&self) -> Result<(), Failure> {
        let until = Instant::now() + Duration::from_secs(1);
        while !matches!(self.events.recv_deadline(until), Ok(Event::Ended) | Err(_)) {}
        Ok(())
    }

    fn held(&self) -> String {
        let holders = self.mount.holders();
        let users = if holders.is_empty() { "something".to_owned() } else { holders.join(", ") };
        let patience = BUSY_MAX.as_secs();
        format!("in use by {users}: waiting {patience} s, a second signal detaches the mount at once")
    }
}

/// Logs each outage of the store and its end, rather than every read that fails.
fn log_outages(watch: &Watch, log: &Arc<Log>, stats: &Arc<Stats>) {
    let (log, stats) = (Arc::clone(log), Arc::clone(stats));
    watch.tell_trouble(move |news| match news {
        News::Trouble(_) => log.store_is_away(stats.fetched_bytes(), || news.to_string()),
        News::Over => log.store_is_back(Instant::now()),
    });
}

/// How long waiting reads have been getting nothing.
struct Stall {
    delivered: (u64, u64),
    since: Instant,
}

impl Stall {
    fn begin(stats: &Stats) -> Stall {
        Stall { delivered: (stats.fetched_bytes(), stats.progress().0), since: Instant::now() }
    }

    fn reads_wait(&self, stats: &Stats) -> bool {
        stats.progress().1 > 0
    }

    fn is_long(&mut self, stats: &Stats) -> bool {
        let now = Stall::begin(stats);
        if now.delivered != self.delivered || !self.reads_wait(stats) {
            *self = now;
        }
        self.since.elapsed() > STALL_MAX
    }
}

/// How many threads take requests from the kernel. Few are enough, because none of them ever waits.
fn serving_threads(cores: usize) -> usize {
    (cores / 2).clamp(2, 8)
}

/// How many threads decode: one per processor, or more if the store answers several requests at once and these threads
/// make the requests.
fn workers(cores: usize, repository: &Repository) -> usize {
    let asking = if repository.store().is_far() { 0 } else { repository.store().connections() };
    cores.max(asking).clamp(2, 64)
}

/// A number that differs for each catalog, because each numbers file versions in its own order: a file handle that NFS
/// kept from before a rebuild must not lead to another file.
fn generation(repository: &Repository) -> Result<u64, Failure> {
    let (_, client) = repository.catalog()?.identity()?;
    // The kernel keeps 32 bits of it.
    Ok(client.0.iter().take(4).fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn config(address: &str, options: Options, cores: usize) -> Config {
    let mut config = Config::default();
    // If a helper program mounts for us, a comma would end the name.
    let name: String = address.chars().map(|c| if c == ',' || c.is_control() { '_' } else { c }).collect();
    let kind = FILE_SYSTEM_TYPE.trim_start_matches("fuse.");
    config.mount_options = vec![
        MountOption::RO,
        MountOption::NoAtime,
        MountOption::DefaultPermissions,
        MountOption::FSName(name),
        MountOption::CUSTOM(format!("subtype={kind}")),
    ];
    if options.noexec {
        config.mount_options.push(MountOption::NoExec);
    }
    // The kernel checks permissions as in the original, so root can give others access.
    let others = options.allow_other || geteuid().is_root();
    config.acl = if others { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(serving_threads(cores));
    config.clone_fd = cores >= CLONE_FROM_CORES;
    config
}

fn refused(point: &Path, error: &io::Error) -> Failure {
    let point = point.display();
    Failure::Refused(match error.kind() {
        io::ErrorKind::NotFound => {
            format!("cannot mount at {point}: /dev/fuse or the program fusermount3 is missing (Debian: package fuse3)")
        }
        io::ErrorKind::PermissionDenied if access(DEVICE, AccessFlags::R_OK | AccessFlags::W_OK).is_err() => {
            format!(
                "cannot mount at {point}: {DEVICE} is closed to this user: root can open it with `chmod 666 {DEVICE}`"
            )
        }
        io::ErrorKind::PermissionDenied if error.to_string().contains("user_allow_other") => {
            format!("cannot mount at {point} for others: add the line `user_allow_other` to /etc/fuse.conf")
        }
        _ => format!("cannot mount at {point}: {}", error.to_string().trim()),
    })
}

fn no_thread(error: io::Error) -> Failure {
    Failure::Refused(format!("cannot start a thread: {error}"))
}
