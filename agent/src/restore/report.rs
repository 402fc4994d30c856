//! The outcome of a restore: counts, and everything that went wrong.
//!
//! A problem with one entry is an [`Issue`], and the restore goes on. A problem with the whole target (a full disk, for
//! example) or with the catalog ends it. Worker threads know directories by index, not by path; paths are assembled at
//! the end, for the issues that are kept.

use std::io;

use nix::libc;

use bygone_cli::terminal::output::count;
use bygone_core::error::Error;

use crate::restore::directories::At;

/// Most issues whose text is kept; the others are only counted.
const ISSUES_KEPT_MAX: usize = 1_000;

/// An entry that differs from the snapshot, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// Its path in the snapshot, raw bytes.
    pub path: Vec<u8>,
    /// What is wrong.
    pub text: String,
    /// Where the reason lies.
    pub reason: Reason,
}

/// Where the reason lies that an entry differs from the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The target refused the entry.
    Target,
    /// The data is damaged.
    Damage,
    /// The snapshot does not have the content, or not in a form that this program knows.
    Snapshot,
}

/// What a restore did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Regular files written.
    pub files: u64,
    /// Directories created, or given the metadata of the snapshot.
    pub directories: u64,
    /// Hard links created.
    pub links: u64,
    /// Symbolic links, devices, pipes and sockets created.
    pub others: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Existing entries that were kept.
    pub kept: u64,
    /// Entries that were deleted because the snapshot does not have them.
    pub deleted: u64,
    /// Entries that the snapshot does not have and that stay, because the backup leaves them out, another file system
    /// begins there, or they belong to bygone.
    pub spared: u64,
    /// Nothing was deleted, because there were issues.
    pub deletion_skipped: bool,
    /// Files that were read again and are right.
    pub verified: u64,
    /// The first issues.
    pub issues: Vec<Issue>,
    /// Number of all issues.
    pub issues_total: u64,
    /// Number of issues that are damage, in the repository or in what was written.
    pub damaged: u64,
    /// Number of issues that are entries whose content the snapshot does not have for this program.
    pub withheld: u64,
    /// Entries that did not get their owner, because only root may set it.
    pub owners_refused: u64,
    /// Extended attributes that only root may set.
    pub xattrs_refused: u64,
    /// Entries whose inode flags the target refused.
    pub flags_refused: u64,
}

impl Report {
    /// One line for each kind of expected problem, which are only counted.
    pub fn warnings(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut add = |number: u64, one: &str, many: &str| {
            if number > 0 {
                lines.push(count(number, one, many));
            }
        };
        add(
            self.owners_refused,
            "entry belongs to you and not to its owner: only root can restore owners",
            "entries belong to you and not to their owners: only root can restore owners",
        );
        add(
            self.xattrs_refused,
            "extended attribute was left out: only root can restore it",
            "extended attributes were left out: only root can restore them",
        );
        add(
            self.flags_refused,
            "entry lacks its inode flags: the target does not support them",
            "entries lack their inode flags: the target does not support them",
        );
        if self.deletion_skipped {
            lines.push("nothing was deleted, because not everything could be restored".to_owned());
        }
        lines
    }
}

/// What a restore does, or in a dry run would do, with one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is missing: create it.
    Create,
    /// It exists: replace it with that of the snapshot.
    Replace,
    /// It exists and its content is right: set its metadata.
    Adjust,
    /// It exists: keep it.
    Keep,
    /// It exists but is not in the snapshot: delete it.
    Delete,
    /// It exists but is not in the snapshot, and stays: the backup leaves it out, or it is not to be touched.
    Spare,
}

/// Why an entry could not be restored.
#[derive(Debug)]
pub(super) enum Failure {
    /// An operation on the target failed.
    Target { doing: &'static str, source: io::Error },
    /// The repository does not have all of its data.
    Damage(Error),
    /// The restore must end.
    Stop(Error),
}

/// For `map_err`: the operation `doing` failed on the target.
pub(super) fn target<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> Failure {
    move |source| Failure::Target { doing, source: source.into() }
}

impl From<Error> for Failure {
    /// Sorts errors of reading: damage concerns one entry, anything else ends the restore.
    fn from(error: Error) -> Failure {
        match error {
            Error::Corrupt { .. }
            | Error::Store { .. }
            | Error::Disagree { .. }
            | Error::NotFound { .. }
            | Error::TooNew { .. }
            | Error::Newer { .. }
            | Error::Limit { .. } => Failure::Damage(error),
            Error::NoRepository { .. }
            | Error::Exists { .. }
            | Error::WrongKey { .. }
            | Error::Locked { .. }
            | Error::Overtaken { .. }
            | Error::Catalog { .. }
            | Error::Local { .. }
            | Error::Invalid { .. }
            | Error::Defect { .. }
            | Error::Cancelled => Failure::Stop(error),
        }
    }
}

/// True if the same error awaits all other entries: the target is full or read-only, or a resource is exhausted.
pub(super) fn is_hopeless(error: &io::Error) -> bool {
    let hopeless = [libc::ENOSPC, libc::EDQUOT, libc::EROFS, libc::EMFILE, libc::ENFILE, libc::ENOMEM];
    error.raw_os_error().is_some_and(|code| hopeless.contains(&code))
}

/// Counts and issues of a restore in progress.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) report: Report,
    issues: Vec<(At, String, Reason)>,
    /// The first failure that ended the restore, and its entry.
    pub(super) stopped: Option<(At, Failure)>,
}

impl Tally {
    /// Adds an issue.
    pub(super) fn issue(&mut self, at: At, text: String, reason: Reason) {
        self.report.issues_total += 1;
        match reason {
            Reason::Target => {}
            Reason::Damage => self.report.damaged += 1,
            Reason::Snapshot => self.report.withheld += 1,
        }
        if self.issues.len() < ISSUES_KEPT_MAX {
            self.issues.push((at, text, reason));
        }
    }

    /// Assembles the paths, while the directories are still known.
    pub(super) fn resolve(&mut self, path: impl Fn(&At) -> Vec<u8>) {
        let unresolved = self.issues.iter_mut().map(|(at, ..)| at).chain(self.stopped.iter_mut().map(|(at, _)| at));
        for at in unresolved {
            *at = At::Path(path(at));
        }
    }

    /// Everything, once resolved.
    pub(super) fn finish(self) -> Report {
        let Tally { mut report, issues, .. } = self;
        let issue = |(at, text, reason)| match at {
            At::Path(path) => Issue { path, text, reason },
            At::Directory(_) | At::In(..) => Issue { path: Vec::new(), text, reason },
        };
        report.issues = issues.into_iter().map(issue).collect();
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_issues_are_counted_and_the_first_are_kept() {
        let mut tally = Tally::default();
        for number in 0..1_500 {
            let reason = if number % 3 == 0 { Reason::Damage } else { Reason::Target };
            tally.issue(At::Directory(number), number.to_string(), reason);
        }
        tally.resolve(|at| format!("{at:?}").into_bytes());
        let report = tally.finish();
        assert_eq!((report.issues_total, report.damaged, report.issues.len()), (1_500, 500, ISSUES_KEPT_MAX));
        assert_eq!(report.issues.last().map(|issue| issue.text.as_str()), Some("999"));
    }
}
