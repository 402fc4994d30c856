//! `bygone backup`: creates a snapshot.
//!
//! The order is part of the protocol that keeps a prune on another machine from deleting what we refer to: announce the
//! run, learn what other machines have committed, and only then check what is already stored.

use std::sync::atomic::Ordering;

use bygone_cli::clock;
use bygone_cli::exit::Exit;
use bygone_cli::exit::Result;
use bygone_cli::settings::environment;
use bygone_cli::terminal::output;
use bygone_cli::time::utc;
use bygone_core::catalog::SnapshotRow;
use bygone_core::entry::Time;
use bygone_core::entry::printable;
use bygone_core::error::Error;
use bygone_core::facts::Facts;
use bygone_core::facts::FileCounts;
use bygone_core::read::Order;
use bygone_core::read::Reader;
use bygone_core::recover;
use bygone_core::recover::Learnt;
use bygone_core::repo::LockedRepository;
use bygone_core::repo::Repository;
use bygone_core::snapshot::Snapshot;
use bygone_core::survey;
use bygone_core::survey::Finding;
use bygone_core::write;
use bygone_core::write::BackupOptions;
use bygone_core::write::Ended;

use crate::backup;
use crate::backup::Counts;
use crate::backup::Options;
use crate::backup::Parent;
use crate::backup::Report;
use crate::backup::Roots;
use crate::backup::Stream;
use crate::commands::Context;
use crate::commands::alarms;
use crate::commands::sources::Args;
use crate::commands::sources::What;
use crate::commands::sources::check_labels;
use crate::commands::sources::check_mounts;
use crate::commands::sources::what;
use crate::commands::stream;
use crate::commands::stream::Program;
use crate::commands::stream::Stdin;
use crate::commands::summary::Summary;
use crate::select::choose;
use crate::select::short_id;
use crate::sys;

/// Clocks of two machines may differ by so much before it is worth a word.
const CLOCKS_DIFFER_SECONDS: i64 = 5 * 60;

pub(super) fn run(args: &Args, context: &mut Context) -> Result<Exit> {
    check_labels(args)?;
    let (what, facts) = what(args, context)?;
    if matches!(what, What::Files(..)) {
        check_mounts(&context.settings.backup.require_mount)?;
    }
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
    check_not_emptied(args, roots, compared.as_ref())?;
    let report = backup::dry_run(compared, roots, options, &context.watch);
    drop(progress);
    let learnt = Learnt::default();
    let made = Made {
        report: report?,
        snapshot: None,
        parent,
        newest: None,
        is_empty_stream: false,
        learnt,
        open: Vec::new(),
    };
    finish(context, &made)
}

fn backup(args: &Args, context: &mut Context, repository: Repository, what: &What, facts: Facts) -> Result<Exit> {
    let mut locked = context.lock(repository)?;
    write::announce(&locked)?;
    // This records damaged volumes as lost, so the new snapshot never refers to them.
    let progress = context.progress();
    let learnt = recover::sync(&mut locked, &context.watch);
    drop(progress);
    let learnt = learnt?;
    alarms::show(context, &learnt);
    let progress = context.progress();
    let made = snapshot(args, context, &mut locked, what, facts);
    drop(progress);
    let (report, snapshot, Before { parent, newest }) = made?;
    let open = survey::alarms_open(&mut locked)?;
    let is_empty_stream = is_empty_stream(what, &report);
    finish(context, &Made { report, snapshot: Some(snapshot), parent, newest, is_empty_stream, learnt, open })
}

/// Snapshots that were there before.
struct Before {
    /// The one that was compared with.
    parent: Option<Snapshot>,
    /// The newest one of all machines.
    newest: Option<Snapshot>,
}

/// The outcome of a backup.
struct Made {
    report: Report,
    snapshot: Option<Snapshot>,
    parent: Option<Snapshot>,
    newest: Option<Snapshot>,
    /// A stream was backed up in which nothing arrived.
    is_empty_stream: bool,
    learnt: Learnt,
    open: Vec<Finding>,
}

fn snapshot(
    args: &Args,
    context: &Context,
    locked: &mut LockedRepository,
    what: &What,
    facts: Facts,
) -> Result<(Report, Snapshot, Before)> {
    let view = Reader::new(locked.repository(), 0, Order::Any)?.view()?;
    let newest = view.snapshots()?.pop().map(|row| row.snapshot);
    let (paths, parent) = match what {
        What::Files(roots, _) => {
            let paths = roots.paths();
            let parent = parent(args, context, view.snapshots()?, &paths)?;
            (paths, parent)
        }
        What::Stdin(name) | What::Program(name, _) => (vec![[b"/", name.as_bytes()].concat()], None),
    };
    let options = BackupOptions {
        time: began(args, context),
        host: host(args, context).to_owned(),
        user: environment::user(),
        paths,
        tags: args.tag.clone(),
        parent: parent.as_ref().map(|snapshot| snapshot.id),
        program: concat!("bygone ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let now = options.time;
    let has_alarms = !survey::alarms_open(locked)?.is_empty();
    let compared = parent.as_ref().map(|snapshot| Parent::new(view, snapshot));
    if let What::Files(roots, _) = what {
        check_not_emptied(args, roots, compared.as_ref())?;
    }
    let watch = &context.watch;
    let mut program = match what {
        What::Program(_, words) => Some(Program::start(words, watch)?),
        What::Files(..) | What::Stdin(_) => None,
    };
    let made = write::backup(locked, options, watch, |writer| {
        let report = match what {
            What::Files(roots, options) => backup::backup_tree(writer, compared, roots, options, watch)?,
            What::Stdin(name) => {
                let stream = Stream { source: "the standard input", content: &mut Stdin { watch } };
                backup::backup_stream(writer, name, stream, now, watch)?
            }
            What::Program(name, words) => {
                let Some(content) = &mut program else { return Err(Error::defect("the program was not started")) };
                let stream = Stream { source: &stream::output_of(words), content };
                backup::backup_stream(writer, name, stream, now, watch)?
            }
        };
        let facts = Facts { zone_offset: sys::zone_offset(now.secs), ..facts };
        let exit = exit(&report, has_alarms, is_empty_stream(what, &report));
        let ended = ended(args, &report, facts, exit, parent.is_some());
        Ok((report, ended))
    });
    // After cancellation, every failure is a consequence of it.
    let (report, snapshot) = made.map_err(|error| if watch.is_cancelled() { Error::Cancelled } else { error })?;
    Ok((report, snapshot, Before { parent, newest }))
}

/// True if a stream was backed up in which nothing arrived.
fn is_empty_stream(what: &What, report: &Report) -> bool {
    !matches!(what, What::Files(..)) && report.counts.bytes == 0
}

/// What is known once everything has been read.
fn ended(args: &Args, report: &Report, facts: Facts, exit: Exit, is_compared: bool) -> Ended {
    let Counts { files_new, files_changed, files_unchanged, gone, .. } = report.counts;
    let facts = Facts {
        // Not after a beginning that was made up.
        end: args.time.is_none().then(clock::now),
        files: Some(FileCounts { new: files_new, changed: files_changed, unchanged: files_unchanged }),
        changed_while_read: Some(report.changed),
        exit: Some(exit.code()),
        gone: is_compared.then_some(gone),
        ..facts
    };
    Ended { unreadable: report.unreadable, facts }
}

/// Name of this machine in the snapshot.
fn host<'a>(args: &'a Args, context: &'a Context) -> &'a str {
    args.host.as_deref().unwrap_or(&context.settings.environment.host)
}

fn parent(args: &Args, context: &Context, all: Vec<SnapshotRow>, paths: &[Vec<u8>]) -> Result<Option<Snapshot>> {
    match &args.parent {
        Some(text) => choose(text, all.into_iter().map(|row| row.snapshot).collect(), context.now).map(Some),
        None => Ok(Parent::choose(&all, host(args, context), paths, began(args, context)).cloned()),
    }
}

fn finish(context: &mut Context, made: &Made) -> Result<Exit> {
    let Made { report, snapshot, parent, newest, is_empty_stream, learnt, open } = made;
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
    clock_warnings(snapshot, parent, newest.as_ref()).iter().for_each(|warning| context.warn(warning));
    Ok(exit(report, !open.is_empty(), *is_empty_stream))
}

fn exit(report: &Report, has_alarms: bool, is_empty_stream: bool) -> Exit {
    match (has_alarms, report.unreadable, is_empty_stream) {
        // An unreliable store concerns all snapshots, an unreadable file only this one.
        (true, ..) => Exit::Disagree,
        (false, 1.., _) | (false, 0, true) => Exit::Unreadable,
        (false, 0, false) => Exit::Complete,
    }
}

/// What the times of snapshots say about clocks. `newest` is the newest snapshot before this run, of any machine.
fn clock_warnings(made: Option<&Snapshot>, parent: Option<&Snapshot>, newest: Option<&Snapshot>) -> Vec<String> {
    let Some(made) = made else { return Vec::new() };
    let told = |one: &Snapshot| format!("snapshot {} of {}", short_id(one), utc(one.time));
    let of_newest = newest.filter(|newest| newest.time.secs > made.time.secs.saturating_add(CLOCKS_DIFFER_SECONDS));
    let of_parent =
        parent.filter(|parent| parent.time > made.time && of_newest.map(|newest| newest.id) != Some(parent.id));
    let mut warnings = Vec::new();
    if let Some(newest) = of_newest {
        let (what, host) = (told(newest), printable(newest.host.as_bytes()));
        warnings.push(format!(
            "{what}, made on {host}, is later than this one: check the clocks of both machines; `latest` passes over \
             what is more than a day ahead"
        ));
    }
    if let Some(parent) = of_parent {
        warnings.push(format!("{}, with which this one was compared, is later: check the clock", told(parent)));
    }
    warnings
}

/// When the snapshot begins, by what the user says or by the clock.
fn began(args: &Args, context: &Context) -> Time {
    args.time.unwrap_or(context.now)
}

fn check_not_emptied(args: &Args, roots: &Roots, parent: Option<&Parent>) -> Result<()> {
    match parent {
        Some(parent) if !args.allow_empty => Ok(roots.check_not_emptied(parent)?),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::snapshot;

    #[test]
    fn a_wrong_clock_is_noticed_by_the_times_of_snapshots() {
        let at = |id: u8, secs| snapshot([id; 16], secs, "h", &["/"]);
        let warned = |made: i64, parent: Option<i64>, newest: Option<i64>| {
            let (made, parent, newest) = (at(1, made), parent.map(|secs| at(2, secs)), newest.map(|secs| at(3, secs)));
            clock_warnings(Some(&made), parent.as_ref(), newest.as_ref()).len()
        };
        assert_eq!((warned(1_000, Some(999), Some(1_300)), warned(1_000, None, None)), (0, 0));
        assert_eq!((warned(1_000, Some(1_001), None), warned(1_000, Some(1_001), Some(1_301))), (1, 2));
        let future = at(4, 90_000);
        assert_eq!(
            clock_warnings(Some(&at(1, 5)), Some(&future), Some(&future)).len(),
            1,
            "one warning for one snapshot"
        );
    }
}
