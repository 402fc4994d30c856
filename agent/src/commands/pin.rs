//! `bygone pin`: fetches paths from a far store into the cache, so that a mount reads them without the store.
//!
//! It first counts how much they occupy. If the cache cannot hold all of it, nothing is fetched, because the end would
//! push out the beginning. Finally it checks that everything is there, because other processes use the cache too.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::Receiver;
use crossbeam_channel::bounded;
use serde_json::json;

use bygone_cli::caching::Caching;
use bygone_cli::exit::Exit;
use bygone_cli::exit::Failure;
use bygone_cli::exit::Result;
use bygone_cli::terminal::output;
use bygone_cli::terminal::output::count;
use bygone_cli::terminal::output::size;
use bygone_core::entry::Entry;
use bygone_core::entry::Kind;
use bygone_core::read::CacheOptions;
use bygone_core::read::FetchOptions;
use bygone_core::read::FileMap;
use bygone_core::read::Footprint;
use bygone_core::read::FrameAt;
use bygone_core::read::Order;
use bygone_core::read::Reader;
use bygone_core::read::View;

use crate::commands::Context;
use crate::select::Found;
use crate::select::Selector;

/// Amount of content that is requested together.
const BATCH_BYTES: u64 = 16 << 20;

/// Fetch files, or everything below directories, into this machine's cache
///
/// Mounts read cached content without asking the store, even with --offline. It stays until the cache needs the room for
/// something newer. A store on this machine needs no cache.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Snapshot and path in it: latest:/home/me/films; a path alone is one in the latest snapshot: /home/me
    #[arg(value_name = "SNAP[:PATH]", required = true)]
    what: Vec<OsString>,
    #[command(flatten)]
    caching: Caching,
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<Exit> {
    let selectors = args.what.iter().map(|what| selector(what)).collect::<Result<Vec<_>>>()?;
    let repository = context.open()?;
    let cache = args.caching.options(super::cache::dir(context, &repository)?);
    let room_bytes = cache.lasting_bytes_max();
    let json = context.settings.json;
    let options = FetchOptions {
        cache: Some(cache),
        // The store has its own patience: --retry-for.
        deadline: Duration::MAX,
        reads_ahead: false,
        say: Arc::new(move |text| output::warn(json, text)),
        ..FetchOptions::default()
    };
    let reader = Reader::fetching(&repository, 0, Order::Any, options)?;
    let view = reader.view()?;
    let snapshots = super::snapshots_of(&view)?;
    let find = |selector: &Selector| selector.find(&view, &selector.snapshot(snapshots.clone(), context.now)?);
    let pinning = Pinning { reader: &reader, view: &view, found: selectors.iter().map(find).collect::<Result<_>>()? };
    let progress = context.progress();
    let counted = pinning.count(context)?;
    if counted.footprint.bytes() > room_bytes {
        return Err(too_little_room(counted.footprint.bytes(), args.caching.cache_size, room_bytes));
    }
    context.watch.bytes_total.store(counted.bytes, Ordering::Relaxed);
    pinning.bring(context)?;
    pinning.confirm(context)?;
    drop(progress);
    let fetched = reader.frames().counters().counts().fetched_bytes;
    if json {
        let taken = counted.footprint.bytes();
        let value = json!({
            "files": counted.files, "bytes": counted.bytes, "cached_bytes": taken, "fetched_bytes": fetched,
            "seconds": context.seconds(),
        });
        context.output.value(&value)?;
    } else if reader.frames().is_far() {
        let (files, bytes) = (count(counted.files, "file", "files"), size(counted.bytes));
        context.say(&format!("{files} ({bytes}) cached, {} fetched", size(fetched)))?;
    } else {
        context.say("the store is on this machine: there is nothing to fetch")?;
    }
    Ok(Exit::Complete)
}

/// A path alone refers to the latest snapshot.
fn selector(what: &OsStr) -> Result<Selector> {
    if what.as_bytes().starts_with(b"/") {
        let latest = [b"latest:", what.as_bytes()].concat();
        return Selector::parse(OsStr::from_bytes(&latest));
    }
    Selector::parse(what)
}

/// What to pin.
struct Pinning<'a> {
    reader: &'a Reader,
    view: &'a View,
    found: Vec<Found>,
}

/// How much there is to pin.
struct Counted {
    files: u64,
    bytes: u64,
    footprint: Footprint,
}

impl Pinning<'_> {
    /// Calls `each` once for every file: hard links are one file, and paths may overlap.
    fn for_files(&self, context: &Context, mut each: impl FnMut(&FileMap) -> Result<()>) -> Result<()> {
        let (mut seen_files, mut seen_nodes) = (HashSet::new(), HashSet::new());
        let mut file = |entry: &Entry, version: u64| match &entry.kind {
            // A file named on the command line has no version here. Meeting it again costs no more than a lookup.
            Kind::File(content) if version == 0 || seen_files.insert(version) => each(&self.view.file(content)?),
            _ => Ok(()),
        };
        for found in &self.found {
            let mut stack = match found {
                Found::Entry(entry) => {
                    file(entry, 0)?;
                    continue;
                }
                Found::Directory { node, .. } => vec![*node],
            };
            while let Some(node) = stack.pop() {
                context.watch.check()?;
                if !seen_nodes.insert(node) {
                    continue;
                }
                for item in self.view.directory(node)?.from(self.view, 0, usize::MAX)? {
                    file(&item.entry, item.version)?;
                    stack.extend(item.entry.directory());
                }
            }
        }
        Ok(())
    }

    /// The frames of a file, in groups, each with the bytes of content in it.
    fn for_frames(&self, file: &FileMap, mut each: impl FnMut(Vec<FrameAt>, u64) -> Result<()>) -> Result<()> {
        let mut at = 0;
        while at < file.length() {
            let until = file.length().min(at.saturating_add(BATCH_BYTES));
            each(self.reader.frames_of(file, at..until)?, until - at)?;
            at = until;
        }
        Ok(())
    }

    fn count(&self, context: &Context) -> Result<Counted> {
        let mut counted = Counted { files: 0, bytes: 0, footprint: Footprint::default() };
        self.for_files(context, |file| {
            counted.files += 1;
            counted.bytes += file.length();
            self.for_frames(file, |frames, _| Ok(self.reader.frames().add_to(&mut counted.footprint, &frames)?))
        })?;
        Ok(counted)
    }

    /// Fetches everything in batches, and requests each batch while the previous one arrives.
    fn bring(&self, context: &Context) -> Result<()> {
        let mut before: Option<Batch> = None;
        let mut batch = Batch::default();
        self.for_files(context, |file| {
            self.for_frames(file, |frames, bytes| {
                batch.frames.extend(frames);
                batch.bytes += bytes;
                if batch.bytes < BATCH_BYTES {
                    return Ok(());
                }
                let asked = std::mem::take(&mut batch).ask(self.reader);
                before.replace(asked).map_or(Ok(()), |before| before.wait(self.reader, context))
            })
        })?;
        let last = batch.ask(self.reader);
        before.into_iter().chain([last]).try_for_each(|batch| batch.wait(self.reader, context))
    }

    /// Checks that all of it is in the cache: a mount, or a lack of space, may have pushed out what was fetched first.
    fn confirm(&self, context: &Context) -> Result<()> {
        let mut missing = 0;
        self.for_files(context, |file| {
            self.for_frames(file, |frames, bytes| {
                missing += if self.reader.frames().is_kept(&frames)? { 0 } else { bytes };
                Ok(())
            })
        })?;
        if missing == 0 { Ok(()) } else { Err(no_room(missing)) }
    }
}

/// Frames that are fetched together.
#[derive(Default)]
struct Batch {
    frames: Vec<FrameAt>,
    bytes: u64,
    /// Closed when the frames have arrived.
    arrived: Option<Receiver<()>>,
}

impl Batch {
    fn ask(mut self, reader: &Reader) -> Batch {
        let (here, arrived) = bounded::<()>(0);
        reader.frames().bring(&self.frames, move || drop(here));
        self.arrived = Some(arrived);
        self
    }

    fn wait(self, reader: &Reader, context: &Context) -> Result<()> {
        // Nothing is ever sent: the sender is dropped on success and on failure.
        let _ = self.arrived.map(|arrived| arrived.recv());
        context.watch.check()?;
        let frames = reader.frames();
        if !frames.is_kept(&self.frames)? {
            // Reading a missing frame gives the reason. If it can be read, it arrived and was not kept.
            for frame in self.frames.iter().filter(|frame| !frames.is_at_hand(&[**frame])) {
                frames.get(*frame)?;
            }
            return Err(no_room(self.bytes));
        }
        context.watch.bytes.fetch_add(self.bytes, Ordering::Relaxed);
        Ok(())
    }
}

fn too_little_room(taken: u64, size_max: u64, room_bytes: u64) -> Failure {
    let needed = CacheOptions::bytes_max_for(taken).div_ceil(1 << 20);
    no_space(
        taken,
        format!(
            "a --cache-size of {} keeps only {}, so nothing was fetched: give --cache-size {needed}MiB or more, here and \
             to the mount",
            size(size_max),
            size(room_bytes),
        ),
    )
}

fn no_room(missing: u64) -> Failure {
    let text = "its disk is too full, or something else fills it: make room, allow more with --cache-size or --cache-free, \
                or choose another disk with --cache-dir";
    no_space(missing, text.to_owned())
}

fn no_space(bytes: u64, why: String) -> Failure {
    let what = format!("{} in the cache", size(bytes));
    Failure::machine("keep", what)(io::Error::new(io::ErrorKind::StorageFull, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_alone_is_one_in_the_latest_snapshot() {
        let text = |what: &str| {
            let selector = selector(OsStr::new(what)).unwrap();
            (selector.snapshot.clone(), String::from_utf8(selector.path_bytes()).unwrap())
        };
        assert_eq!(text("/home/me"), ("latest".into(), "/home/me".into()));
        assert_eq!(text("latest~2:/home"), ("latest~2".into(), "/home".into()));
        assert_eq!(text("/"), ("latest".into(), String::new()));
        assert!(selector(OsStr::new("")).is_err());
    }
}
