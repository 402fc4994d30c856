//! Issues and counts of a backup, which are returned and never only logged.
//!
//! A problem with the user's files is not an error of the repository: the backup goes on, and the caller decides by
//! [`Report::unreadable`] whether the snapshot is complete. The list of issues is bounded, but the counts are exact.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use nix::errno::Errno;

use bygone_core::entry::printable;
use bygone_core::lock::into_inner;
use bygone_core::lock::lock;

use crate::backup::folder::Folder;

/// Most issues that are kept with their path; the others are only counted.
const ISSUES_MAX: usize = 1_000;
/// Most bytes of paths that are kept, because deep trees have paths of megabytes.
const ISSUE_PATH_BYTES_MAX: usize = 4 << 20;

/// Something that the user should know about one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// The path inside the snapshot, raw bytes.
    pub path: Vec<u8>,
    /// What happened.
    pub trouble: Trouble,
}

/// What happened to a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// It exists but could not be read, wholly or in part; the snapshot says so in its place.
    Unreadable(String),
    /// It was removed after its directory had been listed.
    Vanished,
    /// It changed during each of several readings; the snapshot has the result of the last one.
    Changed,
    /// Nothing went wrong, but the result may surprise the user.
    Note(String),
    /// As [`Trouble::Note`], but probably not what the user wanted.
    Warning(String),
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = printable(&self.path);
        match &self.trouble {
            Trouble::Unreadable(why) => write!(f, "cannot read {path}: {why}"),
            Trouble::Vanished => write!(f, "{path} vanished before it was read"),
            Trouble::Changed => write!(
                f,
                "{path} changed each time it was read, so its copy may be torn: stop what writes to it, or back up a dump of \
                 it or a snapshot of its file system"
            ),
            Trouble::Note(note) | Trouble::Warning(note) => write!(f, "{path}: {note}"),
        }
    }
}

/// Counts of entries by what happened to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Files whose path is not in the parent snapshot.
    pub files_new: u64,
    /// Files that the parent snapshot has and that were read, because they differ or because everything is read.
    pub files_changed: u64,
    /// Files taken from the parent snapshot without reading them.
    pub files_unchanged: u64,
    /// Directories, including those on the way to the requested paths.
    pub directories: u64,
    /// Symbolic links, devices, pipes and sockets.
    pub others: u64,
    /// Entries of the parent snapshot that this one lacks, although it covers their place.
    pub gone: u64,
    /// Paths left out by the user's rules, not counting what is below them.
    pub excluded: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes of the files that were read.
    pub bytes_read: u64,
}

impl Counts {
    /// Regular files.
    pub fn files(&self) -> u64 {
        self.files_new + self.files_changed + self.files_unchanged
    }
}

/// The outcome of a walk through the user's files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// The first issues, in byte order of their paths.
    pub issues: Vec<Issue>,
    /// Number of issues that are not listed.
    pub issues_omitted: u64,
    /// Paths that exist and could not be read; if not 0, the exit code is 3.
    pub unreadable: u64,
    /// Files that vanished or changed while they were read.
    pub unsettled: u64,
    /// Those of them that changed.
    pub changed: u64,
    /// Counts of entries.
    pub counts: Counts,
}

/// Collects the issues of all threads of a backup.
#[derive(Debug, Default)]
pub(super) struct Issues {
    kept: Mutex<Kept>,
    pub(super) excluded: AtomicU64,
}

#[derive(Debug, Default)]
struct Kept {
    issues: Vec<Issue>,
    path_bytes: usize,
    omitted: u64,
    unreadable: u64,
    unsettled: u64,
    changed: u64,
}

impl Issues {
    pub(super) fn add(&self, path: Vec<u8>, trouble: Trouble) {
        let mut kept = lock(&self.kept);
        match trouble {
            Trouble::Unreadable(_) => kept.unreadable += 1,
            Trouble::Vanished => kept.unsettled += 1,
            Trouble::Changed => {
                kept.unsettled += 1;
                kept.changed += 1;
            }
            Trouble::Note(_) | Trouble::Warning(_) => {}
        }
        kept.path_bytes = kept.path_bytes.saturating_add(path.len());
        if kept.issues.len() < ISSUES_MAX && kept.path_bytes <= ISSUE_PATH_BYTES_MAX {
            kept.issues.push(Issue { path, trouble });
        } else {
            kept.omitted += 1;
        }
    }

    /// Reports that `name` in `folder` cannot be read or is gone.
    pub(super) fn lost(&self, folder: &Folder, name: &[u8], errno: Errno) {
        let trouble = match errno {
            Errno::ENOENT => Trouble::Vanished,
            errno => Trouble::Unreadable(errno.desc().into()),
        };
        self.add(folder.path(name), trouble);
    }

    pub(super) fn exclude(&self, paths: u64) {
        self.excluded.fetch_add(paths, Ordering::Relaxed);
    }

    /// Sorts the issues of all threads, so that two runs over the same tree give the same report.
    pub(super) fn into_report(self, counts: Counts) -> Report {
        let mut kept = into_inner(self.kept);
        kept.issues.sort_by(|a, b| a.path.cmp(&b.path));
        Report {
            issues: kept.issues,
            issues_omitted: kept.omitted,
            unreadable: kept.unreadable,
            unsettled: kept.unsettled,
            changed: kept.changed,
            counts: Counts { excluded: self.excluded.into_inner(), ..counts },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_bounded_but_the_counts_are_exact() {
        let issues = Issues::default();
        for i in 0..ISSUES_MAX + 5 {
            issues.add(i.to_string().into_bytes(), Trouble::Vanished);
        }
        issues.add(vec![b'x'; ISSUE_PATH_BYTES_MAX], Trouble::Unreadable("EIO".into()));
        issues.add(b"changed".to_vec(), Trouble::Changed);
        let report = issues.into_report(Counts::default());
        assert_eq!((report.issues.len(), report.issues_omitted), (ISSUES_MAX, 7));
        assert_eq!((report.unsettled, report.changed, report.unreadable), (ISSUES_MAX as u64 + 6, 1, 1));
        assert!(report.issues.is_sorted_by(|a, b| a.path <= b.path));
    }

    #[test]
    fn an_issue_cannot_control_the_terminal() {
        let issue = Issue { path: b"/a\x1b[2J".to_vec(), trouble: Trouble::Unreadable("Permission denied".into()) };
        assert_eq!(issue.to_string(), "cannot read /a\\x1b[2J: Permission denied");
    }
}
