//! Selects a snapshot and a path in it: `SNAP` and `SNAP:PATH` on the command line.
//!
//! SNAP is the first digits of an id (at least four), `latest`, `latest~N`, or a time, which selects the newest snapshot
//! that is not later. A time may contain colons, so the path follows the first `:/`. If there is no `:/` and the whole
//! text is no time, the path follows the first colon.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use bygone_cli::exit::Failure;
use bygone_cli::exit::Result;
use bygone_cli::terminal::output::count;
use bygone_cli::time::utc;
use bygone_cli::when::parse_moment;
use bygone_core::diagnosis::Diagnosis;
use bygone_core::entry::Entry;
use bygone_core::entry::Meta;
use bygone_core::entry::Name;
use bygone_core::entry::Time;
use bygone_core::entry::printable;
use bygone_core::error::Error;
use bygone_core::id::NodeId;
use bygone_core::read::View;
use bygone_core::snapshot::Snapshot;

/// With fewer digits, a typing error would too easily match an id.
const ID_DIGITS_MIN: usize = 4;
/// Candidates that are listed if the digits match several ids.
const CANDIDATES_MAX: usize = 8;

/// A selector of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// Which snapshot, as given.
    pub snapshot: String,
    /// Which path in it, name by name; empty for the root.
    pub path: Vec<Name>,
}

impl Selector {
    /// Reads `SNAP` or `SNAP:PATH`.
    pub fn parse(text: &OsStr) -> Result<Selector> {
        let bytes = text.as_bytes();
        let first = bytes.windows(2).position(|pair| pair == b":/");
        let is_time = || text.to_str().is_some_and(|text| parse_moment(text, Time::default()).is_some());
        let colon = first.or_else(|| bytes.iter().position(|byte| *byte == b':').filter(|_| !is_time()));
        let (snapshot, path) = match colon {
            Some(colon) => (bytes.get(..colon), bytes.get(colon + 1..)),
            None => (Some(bytes), None),
        };
        let snapshot = snapshot.and_then(|snapshot| std::str::from_utf8(snapshot).ok()).filter(|text| !text.is_empty());
        let snapshot = snapshot.ok_or_else(|| {
            Failure::Usage(format!("{}: name a snapshot, such as latest or latest:/etc", printable(bytes)))
        })?;
        Ok(Selector { snapshot: snapshot.to_owned(), path: names(path.unwrap_or_default())? })
    }

    /// The path as raw bytes, each name after a slash; empty for the root.
    pub fn path_bytes(&self) -> Vec<u8> {
        self.path.iter().flat_map(|name| [b"/", name.as_bytes()].concat()).collect()
    }

    /// The selected snapshot among `all`, which has the oldest first.
    pub fn snapshot(&self, all: Vec<Snapshot>, now: Time) -> Result<Snapshot> {
        choose(&self.snapshot, all, now)
    }

    /// What is at the path in this snapshot.
    pub fn find(&self, view: &View, snapshot: &Snapshot) -> Result<Found> {
        let Some((last, above)) = self.path.split_last() else {
            let (node, meta) = (snapshot.root, Box::new(snapshot.root_meta.clone()));
            let may_lack_entries = snapshot.root_entry().is_some_and(|root| root.may_lack_entries());
            return Ok(Found::Directory { node, meta, may_lack_entries });
        };
        let mut node = snapshot.root;
        for name in above {
            let above = entry(view, node, name)?.ok_or_else(|| self.absent(snapshot))?;
            // Nobody knows what is below a directory that could not be read.
            check_given(&above, || printable(&self.path_bytes()))?;
            node = above.directory().ok_or_else(|| self.absent(snapshot))?;
        }
        let entry = entry(view, node, last)?.ok_or_else(|| self.absent(snapshot))?;
        Ok(match entry.directory() {
            Some(node) => {
                let may_lack_entries = entry.may_lack_entries();
                Found::Directory { node, meta: Box::new(entry.meta.clone()), may_lack_entries }
            }
            None => Found::Entry(entry),
        })
    }

    fn absent(&self, snapshot: &Snapshot) -> Failure {
        let path = printable(&self.path_bytes());
        let what = format!("{path} in snapshot {} of {}", short_id(snapshot), utc(snapshot.time));
        Error::NotFound { what, hint: "list the snapshot with `bygone ls`" }.into()
    }
}

/// What is at a path.
#[derive(Debug, Clone)]
pub enum Found {
    /// A directory.
    Directory {
        /// Its root node.
        node: NodeId,
        /// Its metadata.
        meta: Box<Meta>,
        /// Its listing broke off when it was backed up.
        may_lack_entries: bool,
    },
    /// Anything else.
    Entry(Arc<Entry>),
}

fn entry(view: &View, node: NodeId, name: &Name) -> Result<Option<Arc<Entry>>> {
    Ok(view.directory(node)?.find(view, name.as_bytes())?.map(|item| item.entry))
}

/// Fails if the snapshot has this entry without its content; `path` names it, or something below it.
pub fn check_given(entry: &Entry, path: impl FnOnce() -> String) -> Result<()> {
    match entry.withheld() {
        None => Ok(()),
        Some(withheld) => Err(match withheld.needs() {
            Some(needs) => Error::Newer { what: path(), needs },
            None => Error::disagree(
                Diagnosis::SourceUnreadable,
                path(),
                format!("{withheld}; an earlier snapshot may have it"),
            ),
        }
        .into()),
    }
}

/// The names of a path. `.` and repeated slashes are ignored. `..` is refused, because on a disk with symbolic links it
/// would mean something else.
fn names(path: &[u8]) -> Result<Vec<Name>> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .map(|name| Name::new(name).map_err(|e| Failure::Usage(format!("{}: {e}", printable(path)))))
        .collect()
}

/// The first digits of a snapshot's id, which are enough for people.
pub fn short_id(snapshot: &Snapshot) -> String {
    snapshot.id.to_hex().chars().take(8).collect()
}

/// The snapshot that `text` selects, which this program can read.
pub fn choose(text: &str, all: Vec<Snapshot>, now: Time) -> Result<Snapshot> {
    let chosen = select(text, all, now)?;
    chosen.check_readable()?;
    Ok(chosen)
}

fn select(text: &str, mut all: Vec<Snapshot>, now: Time) -> Result<Snapshot> {
    if all.is_empty() {
        return Err(Error::NotFound { what: "a snapshot".into(), hint: "make one with `bygone backup`" }.into());
    }
    if let Some(back) = latest(text) {
        if all.iter().any(|snapshot| !snapshot.is_from_the_future(now)) {
            all.retain(|snapshot| !snapshot.is_from_the_future(now));
        }
        let total = all.len();
        let place = usize::try_from(back).ok().and_then(|back| total.checked_sub(back)?.checked_sub(1));
        return match place {
            Some(place) => Ok(all.swap_remove(place)),
            None => Err(not_found(format!("{text} of {}", count(total as u64, "snapshot", "snapshots")))),
        };
    }
    let is_id = text.len() >= ID_DIGITS_MIN && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id {
        let digits = text.to_ascii_lowercase();
        let fits = |snapshot: &Snapshot| snapshot.id.to_hex().starts_with(&digits);
        let mut fitting: Vec<Snapshot> = all.iter().filter(|snapshot| fits(snapshot)).cloned().collect();
        match fitting.len() {
            0 => {}
            1 => return Ok(fitting.swap_remove(0)),
            _ => return Err(ambiguous(text, &fitting)),
        }
    }
    match parse_moment(text, now) {
        Some(moment) => {
            let newest =
                all.into_iter().filter(|snapshot| snapshot.time <= moment).max_by_key(|snapshot| snapshot.time);
            newest.ok_or_else(|| not_found(format!("a snapshot from {} or earlier", utc(moment))))
        }
        None if is_id => Err(not_found(format!("a snapshot whose id begins with {text}"))),
        None => Err(Failure::Usage(format!(
            "{} is not a snapshot: give at least {ID_DIGITS_MIN} digits of its id, latest, latest~N, a time such as \
             2026-03-01 or 2026-03-01T10:20, or an age such as 3d",
            printable(text.as_bytes())
        ))),
    }
}

/// How many snapshots before the newest, if `text` is of that form.
fn latest(text: &str) -> Option<u64> {
    match text.strip_prefix("latest")? {
        "" => Some(0),
        rest => rest.strip_prefix('~').filter(|n| n.bytes().all(|b| b.is_ascii_digit())).and_then(|n| n.parse().ok()),
    }
}

fn not_found(what: String) -> Failure {
    Error::NotFound { what, hint: "list snapshots with `bygone snapshots`" }.into()
}

fn ambiguous(text: &str, fitting: &[Snapshot]) -> Failure {
    // As many digits as distinguish them, so that one of them can be copied.
    let ids: Vec<String> = fitting.iter().map(|snapshot| snapshot.id.to_hex()).collect();
    let length = (text.len()..32).find(|length| {
        let mut starts: Vec<_> = ids.iter().filter_map(|id| id.get(..*length)).collect();
        starts.sort();
        starts.dedup();
        starts.len() == ids.len()
    });
    let length = length.unwrap_or(32).max(8);
    let shown = ids.iter().zip(fitting).take(CANDIDATES_MAX);
    let shown = shown.map(|(id, snapshot)| format!("{} of {}", id.get(..length).unwrap_or(id), utc(snapshot.time)));
    let mut list = shown.collect::<Vec<_>>().join(", ");
    if ids.len() > CANDIDATES_MAX {
        list.push_str(&format!(" and {} more", ids.len() - CANDIDATES_MAX));
    }
    Failure::Usage(format!("{text} matches several snapshots: give more digits of the id: {list}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::snapshot;

    fn parse(text: &str) -> (String, String) {
        let selector = Selector::parse(OsStr::new(text)).unwrap();
        let path = String::from_utf8(selector.path_bytes()).unwrap();
        (selector.snapshot, path)
    }

    #[test]
    fn a_path_begins_after_the_colon_that_is_not_of_a_time() {
        let cases = [
            ("latest", "latest", ""),
            ("latest:", "latest", ""),
            ("latest:/", "latest", ""),
            ("latest:/etc//./x/", "latest", "/etc/x"),
            ("latest:etc", "latest", "/etc"),
            ("latest~2:/a:/b", "latest~2", "/a:/b"),
            ("2026-03-01T10:20", "2026-03-01T10:20", ""),
            ("2026-03-01T10:20:30:/etc", "2026-03-01T10:20:30", "/etc"),
            ("2026-03-01:etc", "2026-03-01", "/etc"),
        ];
        for (text, snapshot, path) in cases {
            assert_eq!(parse(text), (snapshot.to_owned(), path.to_owned()), "{text}");
        }
        let raw = Selector::parse(OsStr::from_bytes(b"latest:/\xff")).unwrap();
        assert_eq!(raw.path_bytes(), b"/\xff", "paths are bytes");
        for bad in [&b""[..], b":/etc", b"\xff:/etc", b"latest:/a/../b"] {
            assert!(matches!(Selector::parse(OsStr::from_bytes(bad)), Err(Failure::Usage(_))), "{bad:?}");
        }
    }

    fn all() -> Vec<Snapshot> {
        let id = |start: [u8; 3]| {
            let mut id = [0; 16];
            id[..3].copy_from_slice(&start);
            id
        };
        vec![
            snapshot(id([0xab, 0xcd, 0x01]), 86_400, "h", &["/a"]),
            snapshot(id([0xab, 0xcd, 0x02]), 2 * 86_400, "h", &["/a"]),
            snapshot(id([0x20, 0x26, 0x00]), 3 * 86_400, "h", &["/a"]),
        ]
    }

    fn chosen(text: &str) -> Result<i64> {
        choose(text, all(), Time { secs: 5 * 86_400, nanos: 0 }).map(|snapshot| snapshot.time.secs / 86_400)
    }

    #[test]
    fn ids_latest_times_and_ages_choose_a_snapshot() {
        let cases = [
            ("latest", 3),
            ("latest~0", 3),
            ("latest~2", 1),
            ("abcd01", 1),
            ("ABCD02", 2),
            ("2026", 3),
            ("1970-01-03", 2),
            ("1970-01-03T00:00", 2),
            ("1970-01-02T23:59:59Z", 1),
            ("2026-01-01", 3),
            ("3d", 2),
            ("50h", 2),
        ];
        for (text, day) in cases {
            assert_eq!(chosen(text).unwrap(), day, "{text}");
        }
    }

    #[test]
    fn latest_passes_over_snapshots_from_the_future() {
        let latest = |text: &str, day: i64| {
            let now = Time { secs: day * 86_400, nanos: 0 };
            choose(text, all(), now).map(|snapshot| snapshot.time.secs / 86_400)
        };
        assert_eq!((latest("latest", 2).unwrap(), latest("latest", 1).unwrap()), (3, 2), "a day is no future");
        assert_eq!((latest("latest", 0).unwrap(), latest("latest~1", 1).unwrap()), (1, 1));
        assert_eq!(latest("latest", -1).unwrap(), 3, "unless there is no other");
        assert_eq!(latest("2026", -1).unwrap(), 3, "an id names one wherever it is");
    }

    #[test]
    fn an_ambiguous_id_lists_the_candidates() {
        let error = chosen("abcd").unwrap_err().to_string();
        assert!(error.contains("abcd0100 of 1970-01-02") && error.contains("abcd0200 of 1970-01-03"), "{error}");
    }

    #[test]
    fn a_missing_snapshot_is_not_found_and_nonsense_is_usage() {
        for text in ["latest~3", "latest~99999999999", "1969-12-31", "1970-01-01", "ffff", "10d"] {
            let error = chosen(text).unwrap_err();
            assert!(matches!(error, Failure::Repository(Error::NotFound { .. })), "{text}: {error}");
        }
        for text in ["abc", "latest~", "latest~x", "newest", "2026-13-01"] {
            let error = chosen(text).unwrap_err();
            assert!(matches!(error, Failure::Usage(_)), "{text}: {error}");
        }
        assert!(choose("latest", Vec::new(), Time::default()).is_err());
    }
}
