//! Runs a restore from beginning to end.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::fcntl::OFlag;
use nix::fcntl::open;
use nix::sys::stat::Mode;

use bygone_core::entry::Entry;
use bygone_core::entry::Name;
use bygone_core::entry::printable;
use bygone_core::error::Error;
use bygone_core::error::Result;
use bygone_core::read::Reader;
use bygone_core::watch::Watch;

use crate::restore::delete::walk::Deleter;
use crate::restore::directories::At;
use crate::restore::directories::Directories;
use crate::restore::directories::Place;
use crate::restore::files::build::Builder;
use crate::restore::files::build::Rest;
use crate::restore::files::build::hand_over;
use crate::restore::files::existing;
use crate::restore::files::feed;
use crate::restore::files::work;
use crate::restore::finish;
use crate::restore::job::Job;
use crate::restore::job::Verdict;
use crate::restore::options::Options;
use crate::restore::options::Subject;
use crate::restore::report::Failure;
use crate::restore::report::Reason;
use crate::restore::report::Report;
use crate::restore::report::Step;
use crate::restore::shared::Shared;
use crate::restore::walk::Walk;

/// Restores `subject` into `target`, which is created if it does not exist. A single entry is restored as `target`, unless
/// that is a directory. Calls `say` before every step, on the calling thread, with the path below the target.
pub fn restore(
    reader: &Reader,
    subject: &Subject,
    target: &Path,
    options: &Options,
    watch: &Watch,
    say: &mut dyn FnMut(Step, &[u8]),
) -> Result<Report> {
    if options.delete.is_some() && options.overwrite.is_none() {
        let what = "--delete requires --overwrite".to_owned();
        return Err(Error::Invalid { what });
    }
    let (subject, target) = &place_of(subject, target)?;
    let root = open_target(target, options)?;
    if let Some(root) = root.as_ref().filter(|root| options.overwrite.is_none() && !root.place.fresh) {
        check_free(reader, subject, target, root, options, watch)?;
    }
    let shared = Shared::new(reader, options, watch);
    let prefix = subject.prefix();
    let mut say_below = |step: Step, path: &[u8]| say(step, path.strip_prefix(prefix).unwrap_or(path));
    let done = run(&shared, subject, target, root.as_ref(), &mut say_below);
    let mut tally = shared.into_tally();
    match (tally.stopped.take(), done) {
        (None, Ok(())) => Ok(tally.finish()),
        (Some((at, failure)), _) => Err(ended_by(failure, &at, subject, target)),
        (None, Err(error)) => Err(error),
    }
}

/// What is restored into which directory: a single entry gets the last name of `target`, if that is not a directory.
fn place_of(subject: &Subject, target: &Path) -> Result<(Subject, PathBuf)> {
    let wants_directory = target.is_dir() || target.as_os_str().as_bytes().ends_with(b"/");
    let Subject::Entry { entry, parent } = subject else { return Ok((subject.clone(), target.to_owned())) };
    let (false, Some(name)) = (wants_directory, target.file_name()) else {
        return Ok((subject.clone(), target.to_owned()));
    };
    let name = Name::new(name.as_bytes()).map_err(|error| Error::Invalid { what: format!("--target: {error}") })?;
    let entry = Arc::new(Entry { name, ..Entry::clone(entry) });
    let above = target.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((Subject::Entry { entry, parent: parent.clone() }, above.to_owned()))
}

/// Fails if anything is in the place of an entry, which may be replaced only on request.
fn check_free(
    reader: &Reader,
    subject: &Subject,
    target: &Path,
    root: &Target,
    options: &Options,
    watch: &Watch,
) -> Result<()> {
    let options = Options { dry_run: true, ..options.clone() };
    let shared = Shared::new(reader, &options, watch);
    run(&shared, subject, target, Some(root), &mut |_, _| ())?;
    watch.entries.store(0, Ordering::Relaxed);
    let report = shared.into_tally().finish();
    // Not every issue is kept, so their number decides.
    if report.issues_total == report.damaged + report.withheld {
        return Ok(());
    }
    let issue = report.issues.iter().find(|issue| issue.reason == Reason::Target);
    let path = issue.map(|issue| issue.path.as_slice()).unwrap_or_default();
    let below = path.strip_prefix(subject.prefix()).unwrap_or(path);
    Err(Error::Exists {
        what: format!("{}{}", target.display(), printable(below)),
        hint: "nothing was restored: choose an empty directory, or give --overwrite always|if-changed|if-newer|never",
    })
}

/// The error for a failure that ended the restore, with the path in the target.
fn ended_by(failure: Failure, at: &At, subject: &Subject, target: &Path) -> Error {
    match failure {
        Failure::Stop(error) | Failure::Damage(error) => error,
        Failure::Target { doing, source } => {
            let below = match at {
                At::Path(path) => path.strip_prefix(subject.prefix()).unwrap_or(path),
                At::Directory(_) | At::In(..) => b"",
            };
            Error::Local { doing, path: format!("{}{}", target.display(), printable(below)), source }
        }
    }
}

/// The target, open.
struct Target {
    place: Arc<Place>,
    /// This restore created it.
    made: bool,
}

/// Opens the target, and creates it if it does not exist. In a dry run, returns `None` instead.
fn open_target(target: &Path, options: &Options) -> Result<Option<Target>> {
    let trouble = |doing: &'static str| {
        move |source: io::Error| Error::Local { doing, path: target.display().to_string(), source }
    };
    let made = match std::fs::metadata(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(trouble("inspect the target")(error)),
        Ok(_) => false,
    };
    if made && options.dry_run {
        return Ok(None);
    }
    if made {
        let parent = target.parent().unwrap_or(target);
        std::fs::create_dir_all(parent).map_err(trouble("create the directories above"))?;
        DirBuilder::new().mode(0o700).create(target).map_err(trouble("create the target"))?;
    }
    // The user chose the path of the target: here, and only here, symbolic links are followed.
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let fd =
        open(target, flags, Mode::empty()).map_err(io::Error::from).map_err(trouble("open the target directory"))?;
    let place = if made { Place::made(fd, true) } else { Place::existing(fd) };
    let mut place = place.map_err(trouble("inspect the target"))?;
    if options.overwrite.is_none() && !made {
        place.fresh = existing::is_empty(&place).map_err(trouble("list the target"))?;
    }
    Ok(Some(Target { place: Arc::new(place), made }))
}

/// All phases, in the order that the module `restore` describes.
fn run(
    shared: &Shared<'_>,
    subject: &Subject,
    path: &Path,
    target: Option<&Target>,
    say: &mut dyn FnMut(Step, &[u8]),
) -> Result<()> {
    let view = shared.reader.view()?;
    let mut rest = Rest::new(first_directory(shared, subject, target)?);
    let walk = subject.walk(&view, shared.options, shared.watch);
    let root = target.map(|target| &target.place);
    let builder = Builder::new(shared, walk, root.cloned(), &mut rest, say);
    let mut done = work::run(shared, |feeder| builder.run(feeder));
    if let Some(root) = root {
        done = done.and_then(|()| link(shared, root, &mut rest));
        let walk = subject.walk(&view, shared.options, shared.watch);
        done = done.and_then(|()| delete(shared, subject, path, root, walk, &mut rest, say));
    }
    let root = root.filter(|_| !shared.options.dry_run);
    if let Some(root) = root {
        done = done.and_then(|()| complete(shared, root, &mut rest));
    }
    resolve(shared, subject, &rest.directories);
    let (Some(root), true) = (root, shared.options.verify && done.is_ok()) else { return done };
    let mut directories = Directories::new(root, false, None);
    let walk = subject.walk(&view, shared.options, shared.watch);
    done = work::run(shared, |feeder| feed::verify_all(shared, &view, walk, root, &mut directories, feeder));
    resolve(shared, subject, &directories);
    done
}

/// The target as the first directory, with the metadata that it gets.
fn first_directory(shared: &Shared<'_>, subject: &Subject, target: Option<&Target>) -> Result<Directories> {
    let Some(Target { place, made }) = target else { return Ok(Directories::none()) };
    let Subject::Directory { meta, path, .. } = subject else { return Ok(Directories::new(place, *made, None)) };
    let yields = existing::target_yields(place, meta, shared.options).map_err(|source| Error::Local {
        doing: "inspect the target for",
        path: printable(path),
        source,
    })?;
    Ok(Directories::new(place, *made, (*made || yields).then(|| meta.clone())))
}

/// The hard links to files that are complete.
fn link(shared: &Shared<'_>, root: &Arc<Place>, rest: &mut Rest) -> Result<()> {
    let impossible = finish::link_all(shared, root, &rest.directories, std::mem::take(&mut rest.links))?;
    if impossible.is_empty() {
        return Ok(());
    }
    let view = shared.reader.view()?;
    work::run(shared, |feeder| finish::copy_all(shared, &view, root, &rest.directories, impossible, feeder))
}

/// Deletes what only the target has, and restores what that makes room for.
fn delete(
    shared: &Shared<'_>,
    subject: &Subject,
    path: &Path,
    root: &Arc<Place>,
    walk: Walk<'_>,
    rest: &mut Rest,
    say: &mut dyn FnMut(Step, &[u8]),
) -> Result<()> {
    let (Some(deletion), Subject::Directory { meta, .. }) = (&shared.options.delete, subject) else { return Ok(()) };
    let view = walk.view();
    let freed = Deleter::new(shared, deletion, walk, root, say).run(path, meta.device, rest)?;
    if freed.is_empty() {
        return Ok(());
    }
    work::run(shared, |feeder| {
        freed
            .into_iter()
            .try_for_each(|job| hand_over(shared, view, rest, feeder, Job { verdict: Verdict::Create, ..job }))
    })?;
    link(shared, root, rest)
}

/// All phases after the content of files.
fn complete(shared: &Shared<'_>, root: &Arc<Place>, rest: &mut Rest) -> Result<()> {
    finish::pin_all(shared, root, &rest.directories, &rest.pinned)?;
    finish::complete_directories(shared, root, &mut rest.directories)?;
    finish::sync(shared, root, &rest.directories)
}

fn resolve(shared: &Shared<'_>, subject: &Subject, directories: &Directories) {
    shared.tally().resolve(|at| directories.path_of(subject.prefix(), at));
}
