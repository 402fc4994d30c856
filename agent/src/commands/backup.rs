//! `bygone backup`: creates a snapshot.
//!
//! The order is part of the protocol that keeps a prune on another machine from deleting what we refer to: announce the
//! run, learn what other machines have committed, and only then check what is already stored.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;

use bygone_cli::clock;
use bygone_cli::exit::Exit;
use bygone_cli::exit::Failure;
use bygone_cli::exit::Result;
use bygone_cli::settings::BackupSettings;
use bygone_cli::settings::environment;
use bygone_cli::settings::units::parse_size;
use bygone_cli::terminal::output;
use bygone_cli::when::parse_instant;
use bygone_core::catalog::SnapshotRow;
use bygone_core::entry::Name;
use bygone_core::entry::Time;
use bygone_core::error::Error;
use bygone_core::facts::Facts;
use bygone_core::facts::FileCounts;
use bygone_core::facts::RunRules;
use bygone_core::limits;
use bygone_core::read::Order;
use bygone_core::read::Reader;
use bygone_core::recover;
use bygone_core::recover::Learnt;
use bygone_core::repo::LockedRepository;
use bygone_core::repo::Repository;
use bygone_core::snapshot::Snapshot;
use bygone_core::survey;
use bygone_core::survey::Finding;
use bygone_core::watch::Watch;
use bygone_core::write;
use bygone_core::write::BackupOptions;
use bygone_core::write::Ended;

use crate::backup;
use crate::backup::Counts;
use crate::backup::Options;
use crate::backup::Parent;
use crate::backup::Report;
use crate::backup::Roots;
use crate::backup::Rules;
use crate::commands::Context;
use crate::commands::alarms;
use crate::commands::summary::Summary;
use crate::exclude::BadPattern;
use crate::exclude::Excludes;
use crate::exclude::pattern_lines;
use crate::select::choose;

/// How often a silent standard input is interrupted to check for cancellation.
const PATIENCE_MS: u16 = 200;

/// Back up files as a new snapshot
///
/// A PATTERN without a slash matches names at any depth; one that starts with a slash matches paths from the root;
/// `*`, `?` and `[a-z]` match within one name, and `**` matches any number of directories. A match is left out with
/// everything below it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Paths to back up (default: `paths` in the configuration file)
    #[arg(value_name = "PATH", conflicts_with = "stdin")]
    paths: Vec<PathBuf>,
    /// Add a tag to the snapshot; may be repeated
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Describe the snapshot; `snapshots` shows the text with --verbose and --json
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Host name to record in the snapshot (default: that of this machine)
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Leave out paths that match PATTERN
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<OsString>,
    /// Leave out paths that match a pattern in FILE: one pattern a line, lines starting with # are ignored
    #[arg(long, value_name = "FILE")]
    exclude_file: Vec<PathBuf>,
    /// Stay on the file systems of the given paths
    #[arg(long)]
    one_file_system: bool,
    /// Leave out the content of directories that a valid CACHEDIR.TAG marks as caches
    #[arg(long)]
    exclude_caches: bool,
    /// Leave out the content of directories that contain an entry called NAME
    #[arg(long, value_name = "NAME")]
    exclude_if_present: Vec<OsString>,
    /// Leave out files larger than SIZE
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    exclude_larger_than: Option<u64>,
    /// Back up standard input as the file NAME in the root of the snapshot
    #[arg(long, value_name = "NAME")]
    stdin: Option<OsString>,
    /// Show what would be done, and do nothing
    #[arg(long, conflicts_with = "stdin")]
    dry_run: bool,
    /// Read every file, even if it has not changed since the parent snapshot
    #[arg(long)]
    force: bool,
    /// Take a file as unchanged even if its change time differs
    #[arg(long)]
    ignore_ctime: bool,
    /// Take a file as unchanged even if its inode number differs
    #[arg(long)]
    ignore_inode: bool,
    /// Compare with this snapshot (default: the newest one of this host and these paths)
    #[arg(long, value_name = "SNAP")]
    parent: Option<String>,
    /// Time of the snapshot
    #[arg(long, value_name = "TIME", hide = true, value_parser = parse_instant)]
    time: Option<Time>,
}

/// What to back up.
enum What {
    Files(Roots, Box<Options>),
    Stdin(Name),
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<Exit> {
    check_labels(args)?;
    let (what, facts) = what(args, context)?;
    let repository = context.open()?;
    match &what {
        What::Files(roots, options) if args.dry_run => dry_run(args, context, &repository, roots, options),
        _ => backup(args, context, repository, &what, facts),
    }
}

fn dry_run(
    args: &Args,
    context: &mut Context,
    repository: &Repository,
    roots: &Roots,
    options: &Options,
) -> Result<Exit> {
    let view = Reader::new(repository, 0, Order::Any)?.view()?;
    let parent = parent(args, context, view.snapshots()?, &roots.paths())?;
    let progress = context.progress();
    let compared = parent.as_ref().map(|snapshot| Parent::new(view, snapshot));
    let report = backup::dry_run(compared, roots, options, &context.watch);
    drop(progress);
    finish(context, &Made { report: report?, snapshot: None, parent, learnt: Learnt::default(), open: Vec::new() })
}

fn backup(args: &Args, context: &mut Context, repository: Repository, what: &What, facts: Facts) -> Result<Exit> {
    let mut locked = context.lock(repository)?;
    write::announce(&mut locked)?;
    // This records damaged volumes as lost, so the new snapshot never refers to them.
    let progress = context.progress();
    let learnt = recover::sync(&mut locked, &context.watch);
    drop(progress);
    let learnt = learnt?;
    alarms::show(context, &learnt);
    let progress = context.progress();
    let made = snapshot(args, context, &mut locked, what, facts);
    drop(progress);
    let (report, snapshot, parent) = made?;
    let open = survey::alarms_open(&mut locked)?;
    finish(context, &Made { report, snapshot: Some(snapshot), parent, learnt, open })
}

/// The outcome of a backup.
struct Made {
    report: Report,
    snapshot: Option<Snapshot>,
    parent: Option<Snapshot>,
    learnt: Learnt,
    open: Vec<Finding>,
}

fn snapshot(
    args: &Args,
    context: &Context,
    locked: &mut LockedRepository,
    what: &What,
    facts: Facts,
) -> Result<(Report, Snapshot, Option<Snapshot>)> {
    let view = Reader::new(locked.repository(), 0, Order::Any)?.view()?;
    let (paths, parent) = match what {
        What::Files(roots, _) => {
            let paths = roots.paths();
            let parent = parent(args, context, view.snapshots()?, &paths)?;
            (paths, parent)
        }
        What::Stdin(name) => (vec![[b"/", name.as_bytes()].concat()], None),
    };
    let options = BackupOptions {
        time: args.time.unwrap_or(context.now),
        host: host(args, context).to_owned(),
        user: environment::user(),
        paths,
        tags: args.tag.clone(),
        parent: parent.as_ref().map(|snapshot| snapshot.id),
        program: concat!("bygone ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let now = options.time;
    let compared = parent.as_ref().map(|snapshot| Parent::new(view, snapshot));
    let watch = &context.watch;
    let made = write::backup(locked, options, watch, |writer| {
        let report = match what {
            What::Files(roots, options) => backup::backup_tree(writer, compared, roots, options, watch)?,
            What::Stdin(name) => backup::backup_stdin(writer, name, &mut Stdin { watch }, now, watch)?,
        };
        let ended = ended(args, &report, facts);
        Ok((report, ended))
    });
    // After cancellation, every failure is a consequence of it.
    let (report, snapshot) = made.map_err(|error| if watch.is_cancelled() { Error::Cancelled } else { error })?;
    Ok((report, snapshot, parent))
}

/// What is known once everything has been read.
fn ended(args: &Args, report: &Report, facts: Facts) -> Ended {
    let Counts { files_new, files_changed, files_unchanged, .. } = report.counts;
    let facts = Facts {
        // Not after a beginning that was made up.
        end: args.time.is_none().then(clock::now),
        files: Some(FileCounts { new: files_new, changed: files_changed, unchanged: files_unchanged }),
        changed_while_read: Some(report.changed),
        ..facts
    };
    Ended { unreadable: report.unreadable, facts }
}

/// Standard input that stays cancellable, even if nothing ever arrives.
struct Stdin<'a> {
    watch: &'a Watch,
}

impl Read for Stdin<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stdin = io::stdin();
        loop {
            let mut ready = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
            match poll(&mut ready, PollTimeout::from(PATIENCE_MS)) {
                Err(Errno::EINTR) | Ok(0) => self.watch.check().map_err(io::Error::other)?,
                Err(errno) => return Err(errno.into()),
                // Not through `Stdin`, because poll does not see its buffer.
                Ok(_) => return Ok(nix::unistd::read(&stdin, buffer)?),
            }
        }
    }
}

/// Name of this machine in the snapshot.
fn host<'a>(args: &'a Args, context: &'a Context) -> &'a str {
    args.host.as_deref().unwrap_or(&context.settings.environment.host)
}

fn parent(args: &Args, context: &Context, all: Vec<SnapshotRow>, paths: &[Vec<u8>]) -> Result<Option<Snapshot>> {
    match &args.parent {
        Some(text) => choose(text, all.into_iter().map(|row| row.snapshot).collect(), context.now).map(Some),
        None => Ok(Parent::choose(&all, host(args, context), paths).cloned()),
    }
}

fn finish(context: &mut Context, made: &Made) -> Result<Exit> {
    let Made { report, snapshot, parent, learnt, open } = made;
    let bytes_stored = context.watch.bytes_stored.load(Ordering::Relaxed);
    let (snapshot, parent, seconds) = (snapshot.as_ref(), parent.as_ref(), context.seconds());
    let summary = Summary { report, snapshot, parent, bytes_stored, seconds, learnt, alarms: open };
    if context.settings.json {
        context.output.value(&summary.value())?;
    } else {
        for line in summary.lines() {
            context.say(&line)?;
        }
        // Buffered output must not appear after the issues.
        context.output.flush()?;
        summary.issues(context.settings.quiet).iter().for_each(|issue| output::message(issue));
        alarms::remind(context, open);
    }
    Ok(match (open.is_empty(), report.unreadable) {
        // An unreliable store concerns all snapshots, an unreadable file only this one.
        (false, _) => Exit::Disagree,
        (true, 1..) => Exit::Unreadable,
        (true, 0) => Exit::Complete,
    })
}

/// Refuses labels that the format would refuse at the end, before anything is read.
fn check_labels(args: &Args) -> Result<()> {
    let too_long = args.tag.iter().chain(&args.host).find(|label| label.len() > limits::LABEL_BYTES_MAX);
    if let Some(label) = too_long {
        let max = limits::LABEL_BYTES_MAX;
        return Err(Failure::Usage(format!(
            "{}...: a tag or host name has at most {max} bytes",
            label.escape_debug().take(20).collect::<String>()
        )));
    }
    let max = limits::DESCRIPTION_BYTES_MAX;
    if args.description.as_ref().is_some_and(|text| text.len() > max) {
        return Err(Failure::Usage(format!("a description has at most {max} bytes")));
    }
    if args.tag.len() > limits::SNAPSHOT_PATHS_MAX {
        return Err(Failure::Usage(format!("a snapshot has at most {} tags", limits::SNAPSHOT_PATHS_MAX)));
    }
    Ok(())
}

fn what(args: &Args, context: &Context) -> Result<(What, Facts)> {
    if let Some(name) = &args.stdin {
        let refused = |e| Failure::Usage(format!("--stdin {}: {e}", name.to_string_lossy()));
        let facts = Facts { description: args.description.clone(), ..Facts::default() };
        return Ok((What::Stdin(Name::new(name.as_bytes()).map_err(refused)?), facts));
    }
    let setting = &context.settings.backup;
    let paths = if args.paths.is_empty() { &setting.paths } else { &args.paths };
    if paths.is_empty() {
        let text = "nothing to back up: name a PATH, or set `paths` in the configuration file (see --profile)";
        return Err(Failure::Usage(text.to_owned()));
    }
    let patterns = patterns(args, setting)?;
    let bad = |bad: BadPattern| Error::Invalid { what: bad.to_string() };
    let options = Options {
        rules: Rules {
            excludes: Excludes::new(patterns.iter().map(Vec::as_slice)).map_err(bad)?,
            caches: args.exclude_caches || setting.exclude_caches,
            if_present: args.exclude_if_present.iter().map(|name| name.clone().into_vec()).collect(),
            larger_than: args.exclude_larger_than,
            one_file_system: args.one_file_system || setting.one_file_system,
        },
        force: args.force,
        ignore_ctime: args.ignore_ctime,
        ignore_inode: args.ignore_inode,
        own_directories: context.settings.locations()?.directories(),
    };
    let facts = Facts {
        sources: Some(paths.iter().map(|path| path.as_os_str().as_bytes().to_vec()).collect()),
        excludes: Some(patterns),
        rules: Some(run_rules(&options)),
        description: args.description.clone(),
        ..Facts::default()
    };
    Ok((What::Files(Roots::new(context.settings.current_directory()?, paths)?, Box::new(options)), facts))
}

/// The rules without the patterns, for the snapshot to say.
fn run_rules(options: &Options) -> RunRules {
    let Options { rules, force, ignore_ctime, ignore_inode, own_directories: _ } = options;
    let Rules { excludes: _, caches, if_present, larger_than, one_file_system } = rules;
    RunRules {
        caches: *caches,
        one_file_system: *one_file_system,
        force: *force,
        ignore_ctime: *ignore_ctime,
        ignore_inode: *ignore_inode,
        if_present: if_present.clone(),
        larger_than: *larger_than,
    }
}

/// The patterns of the configuration and of the command line, which adds to those that always apply.
fn patterns(args: &Args, setting: &BackupSettings) -> Result<Vec<Vec<u8>>> {
    let mut patterns: Vec<Vec<u8>> = setting.exclude.iter().map(|pattern| pattern.clone().into_bytes()).collect();
    patterns.extend(args.exclude.iter().map(|pattern| pattern.clone().into_vec()));
    for path in setting.exclude_file.iter().chain(&args.exclude_file) {
        let text = fs::read(path).map_err(Failure::machine("read the exclude file", path.display()))?;
        patterns.extend(pattern_lines(&text).map(<[u8]>::to_vec));
    }
    Ok(patterns)
}
