//! The summary of a backup, for people and as JSON.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use bygone_cli::terminal::output::count;
use bygone_cli::terminal::output::duration;
use bygone_cli::terminal::output::insert_bytes;
use bygone_cli::terminal::output::number;
use bygone_cli::terminal::output::size;
use bygone_cli::time::utc;
use bygone_core::diagnosis::Diagnosis;
use bygone_core::recover::Learnt;
use bygone_core::snapshot::Snapshot;
use bygone_core::survey::Finding;

use crate::backup::Issue;
use crate::backup::Report;
use crate::backup::Trouble;
use crate::commands::alarms;
use crate::select::short_id;

/// A number of files.
pub(super) fn files(number: u64) -> String {
    count(number, "file", "files")
}

/// A number of directories.
pub(super) fn directories(number: u64) -> String {
    count(number, "directory", "directories")
}

/// A number of entries that are neither.
pub(super) fn others(number: u64) -> String {
    count(number, "other", "others")
}

/// Everything that the summary needs.
pub(super) struct Summary<'a> {
    /// What happened to the user's files.
    pub(super) report: &'a Report,
    /// The snapshot; `None` in a dry run.
    pub(super) snapshot: Option<&'a Snapshot>,
    /// The snapshot that it was compared with.
    pub(super) parent: Option<&'a Snapshot>,
    /// Bytes put into the store.
    pub(super) bytes_stored: u64,
    /// How long it took.
    pub(super) seconds: f64,
    /// What was learnt from the store.
    pub(super) learnt: &'a Learnt,
    /// Open alarms.
    pub(super) alarms: &'a [Finding],
}

impl Summary<'_> {
    /// For people.
    pub(super) fn lines(&self) -> Vec<String> {
        let counts = &self.report.counts;
        let what = match self.snapshot {
            Some(snapshot) => format!("snapshot {}", short_id(snapshot)),
            None => "dry run, no snapshot made".to_owned(),
        };
        let (files, directories) = (files(counts.files()), directories(counts.directories));
        let (others, bytes) = (others(counts.others), size(counts.bytes));
        let mut lines = vec![format!("{what}: {files}, {directories}, {others}, {bytes}")];
        let (new, changed) = (number(counts.files_new), number(counts.files_changed));
        let compared = match self.parent {
            Some(parent) => format!(" since {} of {}", short_id(parent), utc(parent.time)),
            None => String::new(),
        };
        let unchanged = number(counts.files_unchanged);
        let excluded = match counts.excluded {
            0 => String::new(),
            excluded => format!(", {} left out", count(excluded, "path", "paths")),
        };
        let gone = match (self.parent, counts.gone) {
            (None, _) => String::new(),
            (Some(_), gone) => format!(", {} gone", number(gone)),
        };
        lines.push(format!("files: {new} new, {changed} changed, {unchanged} unchanged{gone}{compared}{excluded}"));
        let took = duration(self.seconds);
        lines.push(match self.snapshot {
            Some(snapshot) => {
                let (new, stored) = (size(snapshot.totals.bytes_new), size(self.bytes_stored));
                format!("{new} of new content, {stored} stored, in {took}")
            }
            None => format!("{} to read, in {took}", size(counts.bytes_read)),
        });
        lines
    }

    /// Issues with single paths; with `quiet` no mere notes.
    pub(super) fn issues(&self, quiet: bool) -> Vec<String> {
        let line = |issue: &Issue| match &issue.trouble {
            Trouble::Unreadable(_) => Some(issue.to_string()),
            Trouble::Changed | Trouble::Warning(_) => Some(format!("warning: {issue}")),
            Trouble::Vanished | Trouble::Note(_) => (!quiet).then(|| format!("note: {issue}")),
        };
        let mut lines: Vec<String> = self.report.issues.iter().filter_map(line).collect();
        if self.report.issues_omitted > 0 {
            lines.push(format!("and {}, not listed", count(self.report.issues_omitted, "more issue", "more issues")));
        }
        if self.report.changed > 0 {
            lines.push(count(
                self.report.changed,
                "file changed each time it was read",
                "files changed each time they were read",
            ));
        }
        if self.report.unreadable > 0 {
            lines.push(count(
                self.report.unreadable,
                "path could not be read: the snapshot says so and lacks its content",
                "paths could not be read: the snapshot says so and lacks their content",
            ));
        }
        lines
    }

    /// For programs.
    pub(super) fn value(&self) -> Value {
        let Report { counts, issues, issues_omitted, unreadable, changed, .. } = self.report;
        json!({
            "snapshot": self.snapshot.map(|snapshot| snapshot.id.to_hex()),
            "parent": self.parent.map(|snapshot| snapshot.id.to_hex()),
            "time": self.snapshot.map(|snapshot| utc(snapshot.time)),
            "files": counts.files(),
            "files_new": counts.files_new,
            "files_changed": counts.files_changed,
            "files_unchanged": counts.files_unchanged,
            "gone": counts.gone,
            "directories": counts.directories,
            "others": counts.others,
            "excluded": counts.excluded,
            "bytes": counts.bytes,
            "bytes_read": counts.bytes_read,
            "bytes_new": self.snapshot.map_or(0, |snapshot| snapshot.totals.bytes_new),
            "bytes_stored": self.bytes_stored,
            "seconds": self.seconds,
            "unreadable": unreadable,
            "changed_while_read": changed,
            "issues": issues.iter().map(issue_value).collect::<Vec<_>>(),
            "issues_omitted": issues_omitted,
            "alarms": alarms::values(self.alarms),
            "notes": alarms::values(&self.learnt.notes),
            "unexplained": alarms::values(&self.learnt.unexplained),
            "volumes_found": self.learnt.settled,
        })
    }
}

fn issue_value(issue: &Issue) -> Value {
    let mut object = Map::new();
    insert_bytes(&mut object, "path", &issue.path);
    let kind = match issue.trouble {
        Trouble::Unreadable(_) => "unreadable",
        Trouble::Vanished => "vanished",
        Trouble::Changed => "changed",
        Trouble::Note(_) => "note",
        Trouble::Warning(_) => "warning",
    };
    let code = match issue.trouble {
        Trouble::Unreadable(_) => Some(Diagnosis::SourceUnreadable),
        Trouble::Vanished | Trouble::Changed => Some(Diagnosis::SourceChanged),
        Trouble::Note(_) | Trouble::Warning(_) => None,
    };
    object.insert("kind".to_owned(), json!(kind));
    object.insert("code".to_owned(), json!(code.map(Diagnosis::code)));
    object.insert("message".to_owned(), json!(issue.to_string()));
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::Counts;
    use crate::commands::testing::snapshot;

    fn report() -> Report {
        let counts = Counts {
            files_new: 1_200,
            files_unchanged: 34,
            directories: 5,
            bytes: 5 << 20,
            gone: 6,
            ..Counts::default()
        };
        let issues = vec![
            Issue { path: b"/a\xff".to_vec(), trouble: Trouble::Unreadable("Permission denied".into()) },
            Issue { path: b"/b".to_vec(), trouble: Trouble::Changed },
        ];
        Report { issues, issues_omitted: 0, unreadable: 1, unsettled: 1, changed: 1, counts }
    }

    #[test]
    fn people_see_what_was_made_and_what_is_missing() {
        let (report, made, parent) =
            (report(), snapshot([0xab; 16], 0, "h", &["/"]), snapshot([1; 16], 60, "h", &["/"]));
        let summary = Summary {
            report: &report,
            snapshot: Some(&made),
            parent: Some(&parent),
            bytes_stored: 1 << 20,
            seconds: 1.5,
            learnt: &Learnt::default(),
            alarms: &[],
        };
        assert_eq!(
            summary.lines(),
            [
                "snapshot abababab: 1,234 files, 5 directories, 0 others, 5.0 MiB",
                "files: 1,200 new, 0 changed, 34 unchanged, 6 gone since 01010101 of 1970-01-01T00:01:00Z",
                "0 B of new content, 1.0 MiB stored, in 1.5 s",
            ]
        );
        let shown = summary.issues(false);
        assert_eq!(shown.first().map(String::as_str), Some("cannot read /a\\xff: Permission denied"));
        assert!(
            shown.iter().any(|line| line.starts_with("warning: /b changed each time it was read, so")),
            "{shown:?}"
        );
        assert_eq!(
            shown.last().map(String::as_str),
            Some("1 path could not be read: the snapshot says so and lacks its content")
        );
        assert_eq!((summary.issues(true), shown.len()), (shown, 4), "quiet still shows what is lost or torn");
    }

    #[test]
    fn programs_get_full_ids_exact_paths_and_kinds() {
        let (report, made) = (report(), snapshot([0xab; 16], 0, "h", &["/"]));
        let learnt = Learnt::default();
        let (object, detail) = ("data/aa/x".into(), "gone".into());
        let alarms = [Finding { diagnosis: Diagnosis::RemoteMissing, object, detail }];
        let (snapshot, learnt, alarms) = (Some(&made), &learnt, alarms.as_slice());
        let summary =
            Summary { report: &report, snapshot, parent: None, bytes_stored: 7, seconds: 1.5, learnt, alarms };
        let value = summary.value();
        assert_eq!((&value["snapshot"], &value["parent"]), (&json!("ab".repeat(16)), &Value::Null));
        assert_eq!((&value["files"], &value["bytes_stored"]), (&json!(1_234), &json!(7)));
        let issue = &value["issues"][0];
        assert_eq!((&issue["path_hex"], &issue["kind"]), (&json!("2f61ff"), &json!("unreadable")));
        assert_eq!(
            (&issue["code"], &value["issues"][1]["code"]),
            (&json!("SOURCE_UNREADABLE"), &json!("SOURCE_CHANGED"))
        );
        assert_eq!(value["alarms"][0]["diagnosis"], "REMOTE_MISSING");
        let dry = Summary { snapshot: None, ..summary };
        assert_eq!(dry.value()["snapshot"], Value::Null, "nothing was made");
        assert!(dry.lines()[0].starts_with("dry run"));
    }
}
