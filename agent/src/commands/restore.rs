//! `bygone restore`: writes files of a snapshot to a directory.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use bygone_cli::exit::Exit;
use bygone_cli::exit::Result;
use bygone_cli::terminal::output;
use bygone_cli::terminal::output::Output;
use bygone_cli::terminal::output::count;
use bygone_cli::terminal::output::duration;
use bygone_cli::terminal::output::insert_bytes;
use bygone_cli::terminal::output::number;
use bygone_cli::terminal::output::size;
use bygone_core::entry::printable;
use bygone_core::error::Error;
use bygone_core::read::Order;
use bygone_core::read::Reader;
use bygone_core::snapshot::Snapshot;

use crate::commands::Context;
use crate::commands::READ_CACHE_BYTES;
use crate::commands::summary::directories;
use crate::commands::summary::files;
use crate::commands::summary::others;
use crate::exclude::Excludes;
use crate::restore;
use crate::restore::Deletion;
use crate::restore::Issue;
use crate::restore::Options;
use crate::restore::Overwrite;
use crate::restore::Reason;
use crate::restore::Report;
use crate::restore::Selection;
use crate::restore::Step;
use crate::restore::Subject;
use crate::select::Selector;
use crate::select::short_id;

/// Restore a snapshot, or part of one, into a directory
///
/// The content of a directory becomes the content of the target: `restore latest --target T` writes T/home/..., while
/// `restore latest:/home --target T` writes the content of /home directly into T. A PATTERN is written as for
/// `bygone backup`, and matches paths in the snapshot.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Snapshot, and optionally a path in it: latest, latest:/etc, an id, or a time
    #[arg(value_name = "SNAP[:PATH]")]
    what: OsString,
    /// Directory to restore into, which is created if missing; a single file is restored as PATH unless that is a directory
    ///
    /// Without --overwrite, nothing is restored if anything in its place exists already.
    #[arg(long, value_name = "PATH")]
    target: PathBuf,
    /// Restore only paths that match PATTERN
    #[arg(long, value_name = "PATTERN")]
    include: Vec<OsString>,
    /// Leave out paths that match PATTERN
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<OsString>,
    /// Delete entries of the target that the snapshot does not have (requires --overwrite)
    ///
    /// This happens last, and only if everything that the snapshot has could be restored. Only directories at or below
    /// the paths that were backed up are touched. What the backup left out or could not read stays, and so does
    /// everything behind a mount and in the directories of bygone itself.
    #[arg(long, requires = "overwrite")]
    delete: bool,
    /// When to replace existing entries: always, if-changed (size or time differs), if-newer, never
    #[arg(long, value_name = "WHEN")]
    overwrite: Option<Overwrite>,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Read the restored files back at the end, and compare them with the repository
    #[arg(long)]
    verify: bool,
    /// Write runs of zeros as holes
    #[arg(long)]
    sparse: bool,
    /// Keep the readable parts of damaged files, under names that say so
    #[arg(long)]
    keep_damaged: bool,
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<Exit> {
    let selector = Selector::parse(&args.what)?;
    let mut options = options(args)?;
    let repository = context.open()?;
    let reader = Reader::new(&repository, READ_CACHE_BYTES, Order::Forward)?;
    let view = reader.view()?;
    let snapshot = selector.snapshot(super::snapshots_of(&view)?, context.now)?;
    if args.delete {
        options.delete = Some(Deletion::new(&snapshot, &context.settings.own_directories()?)?);
    }
    let subject = Subject::new(selector.find(&view, &snapshot)?, selector.path_bytes());
    drop(view);
    if selector.path.is_empty() && args.include.is_empty() && args.exclude.is_empty() {
        context.watch.bytes_total.store(snapshot.totals.bytes, Ordering::Relaxed);
    }
    let lists = args.dry_run || context.settings.verbose;
    // Steps on the terminal would disturb the progress line.
    let progress = (!lists).then(|| context.progress());
    let shows_kept = context.settings.verbose;
    let mut steps = Steps { lists, shows_kept, top: &args.target, count: 0, written: Ok(()) };
    steps.begin(&mut context.output);
    let output = &mut context.output;
    let mut say = |step: Step, path: &[u8]| steps.say(output, step, path);
    let restored = restore::restore(&reader, &subject, &args.target, &options, &context.watch, &mut say);
    drop(progress);
    let Steps { written, .. } = steps;
    let report = restored?;
    written?;
    finish(args, context, &snapshot, &report)?;
    let found = report.files + report.directories + report.links + report.others + report.kept;
    if !args.include.is_empty() && found == 0 && report.issues_total == 0 {
        let patterns: Vec<String> = args.include.iter().map(|pattern| printable(pattern.as_bytes())).collect();
        let at = if selector.path.is_empty() { b"/".to_vec() } else { selector.path_bytes() };
        context.warn(&format!("nothing in {} of the snapshot matches {}", printable(&at), patterns.join(" or ")));
        return Ok(Exit::Failed);
    }
    Ok(exit(&report))
}

fn options(args: &Args) -> Result<Options> {
    let patterns = |patterns: &[OsString]| {
        let read = Excludes::new(patterns.iter().map(|pattern| pattern.as_bytes()));
        read.map_err(|bad| Error::Invalid { what: bad.to_string() })
    };
    Ok(Options {
        overwrite: args.overwrite,
        dry_run: args.dry_run,
        verify: args.verify,
        sparse: args.sparse,
        keep_damaged: args.keep_damaged,
        selection: Selection { include: patterns(&args.include)?, exclude: patterns(&args.exclude)? },
        ..Options::default()
    })
}

/// Lists each step that is taken or, in a dry run, would be taken.
struct Steps<'a> {
    lists: bool,
    /// What stays as it is, is listed too.
    shows_kept: bool,
    top: &'a Path,
    count: u64,
    written: Result<()>,
}

impl Steps<'_> {
    /// In JSON, the steps are a list at the beginning of the single object that the command writes. They are written one
    /// by one, because there are too many to collect.
    fn begin(&mut self, output: &mut Output) {
        if self.lists && output.json {
            self.written = output.bytes(b"{\"steps\":[");
        }
    }

    fn say(&mut self, output: &mut Output, step: Step, path: &[u8]) {
        if !self.lists || self.written.is_err() || step == Step::Keep && !self.shows_kept {
            return;
        }
        let path = &[self.top.as_os_str().as_bytes(), path].concat();
        self.written = if output.json {
            let comma: &[u8] = if self.count == 0 { b"" } else { b",\n" };
            let mut object = Map::new();
            object.insert("step".to_owned(), json!(word(step)));
            insert_bytes(&mut object, "path", path);
            let text = Value::Object(object).to_string();
            output.bytes(comma).and_then(|()| output.bytes(text.as_bytes()))
        } else {
            output.line(&format!("{:<7} {}", word(step), printable(path)))
        };
        self.count += 1;
    }
}

fn word(step: Step) -> &'static str {
    match step {
        Step::Create => "create",
        Step::Replace => "replace",
        Step::Adjust => "adjust",
        Step::Keep => "keep",
        Step::Delete => "delete",
        Step::Spare => "spare",
    }
}

fn exit(report: &Report) -> Exit {
    match (report.damaged, report.issues_total - report.withheld, report.withheld) {
        (1.., ..) => Exit::Damaged,
        (0, 1.., _) => Exit::Failed,
        (0, 0, 1..) => Exit::Unreadable,
        (0, 0, 0) => Exit::Complete,
    }
}

fn finish(args: &Args, context: &mut Context, snapshot: &Snapshot, report: &Report) -> Result<()> {
    let seconds = context.seconds();
    if context.settings.json {
        let text = value(args, snapshot, report, seconds).to_string();
        let lists = args.dry_run || context.settings.verbose;
        // If steps were listed, the object is already open.
        let (before, rest) = if lists { ("],", text.get(1..).unwrap_or_default()) } else { ("", text.as_str()) };
        return context.output.line(&format!("{before}{rest}"));
    }
    for line in lines(args, snapshot, report, seconds) {
        context.say(&line)?;
    }
    context.output.flush()?;
    for issue in &report.issues {
        output::message(&format!("{}: {}", printable(&issue.path), issue.text));
    }
    let omitted = report.issues_total.saturating_sub(report.issues.len() as u64);
    if omitted > 0 {
        output::message(&format!("and {}, not listed", count(omitted, "more issue", "more issues")));
    }
    let differing = report.issues_total - report.withheld;
    if differing > 0 {
        let entries = count(differing, "entry differs", "entries differ");
        output::message(&format!("{entries} from the snapshot"));
    }
    if report.withheld > 0 {
        let entries =
            count(report.withheld, "entry was not restored, or not wholly", "entries were not restored, or not wholly");
        output::message(&format!("{entries}: the snapshot does not have their content, and nothing there was deleted"));
    }
    report.warnings().iter().for_each(|warning| context.warn(warning));
    Ok(())
}

fn lines(args: &Args, snapshot: &Snapshot, report: &Report, seconds: f64) -> Vec<String> {
    let verb = if args.dry_run { "would restore" } else { "restored" };
    let mut text = format!(
        "{verb} {}, {}, {} and {} ({}) of snapshot {} in {}",
        files(report.files),
        directories(report.directories),
        count(report.links, "hard link", "hard links"),
        others(report.others),
        size(report.bytes),
        short_id(snapshot),
        duration(seconds),
    );
    let mut add = |count: u64, what: &str| {
        if count > 0 {
            text.push_str(&format!(", {what} {}", number(count)));
        }
    };
    let dry_or = |dry: &'static str, done| if args.dry_run { dry } else { done };
    add(report.kept, dry_or("keep", "kept"));
    add(report.deleted, dry_or("delete", "deleted"));
    add(report.spared, dry_or("spare", "spared"));
    add(report.verified, "verified");
    vec![text]
}

fn value(args: &Args, snapshot: &Snapshot, report: &Report, seconds: f64) -> Value {
    let issue = |issue: &Issue| {
        let mut object = Map::new();
        insert_bytes(&mut object, "path", &issue.path);
        let kind = match issue.reason {
            Reason::Target => "target",
            Reason::Damage => "damage",
            Reason::Snapshot => "snapshot",
        };
        object.insert("kind".to_owned(), json!(kind));
        object.insert("message".to_owned(), json!(issue.text));
        Value::Object(object)
    };
    json!({
        "snapshot": snapshot.id.to_hex(),
        "target": args.target.to_string_lossy(),
        "dry_run": args.dry_run,
        "files": report.files,
        "directories": report.directories,
        "links": report.links,
        "others": report.others,
        "bytes": report.bytes,
        "kept": report.kept,
        "deleted": report.deleted,
        "spared": report.spared,
        "deletion_skipped": report.deletion_skipped,
        "verified": report.verified,
        "damaged": report.damaged,
        "withheld": report.withheld,
        "owners_refused": report.owners_refused,
        "xattrs_refused": report.xattrs_refused,
        "flags_refused": report.flags_refused,
        "seconds": seconds,
        "issues": report.issues.iter().map(issue).collect::<Vec<_>>(),
        "issues_total": report.issues_total,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_outranks_failures_of_the_target() {
        let report = |damaged, withheld, issues_total| Report { damaged, withheld, issues_total, ..Report::default() };
        assert_eq!(exit(&report(0, 0, 0)), Exit::Complete);
        assert_eq!(exit(&report(0, 2, 2)), Exit::Unreadable);
        assert_eq!(exit(&report(0, 1, 2)), Exit::Failed);
        assert_eq!(exit(&report(1, 1, 2)), Exit::Damaged);
    }
}
