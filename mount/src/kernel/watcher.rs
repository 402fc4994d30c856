//! Brings new snapshots into a live mount.
//!
//! One thread checks every half second whether the catalog changed. If so, it renews the views, publishes the new
//! listing, and calls back what the kernel keeps about the mount's own directories: their attributes and listings, and
//! each name that appeared or vanished (the kernel also remembers that a name is absent).
//!
//! Only this thread calls back. Such a call can wait for a lock that is held until a request is answered, so a thread
//! that answers requests could wait for itself.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Receiver;
use crossbeam_channel::RecvTimeoutError;
use crossbeam_channel::Sender;
use crossbeam_channel::bounded;
use fuser::INodeNo;
use fuser::Notifier;

use bygone_cli::clock::now;
use bygone_core::read::View;

use crate::kernel::log::Log;
use crate::tree::Tree;
use crate::tree::inode::Inode;
use crate::tree::listing::Listing;
use crate::tree::moments::Moment;
use crate::tree::operation_error::OperationError;
use crate::tree::synthetic;

/// How often the catalog is checked.
const PERIOD: Duration = Duration::from_millis(500);
/// Logged when a new snapshot is the first to have access lists.
const UNENFORCED: &str = "a new snapshot is the first with access lists: until this is mounted again, only permission \
                          bits restrict other users";

/// The watching thread. It ends when this is dropped.
pub struct Watcher {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Watches the catalog through `view`.
    pub fn start(tree: Arc<Tree>, view: View, notifier: Notifier, log: Arc<Log>) -> io::Result<Watcher> {
        let (stop, stopped) = bounded(0);
        let thread = thread::Builder::new().name("watcher".to_owned());
        let thread = thread.spawn(move || watch(&tree, view, &notifier, &log, &stopped))?;
        Ok(Watcher { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It catches its panics, so its result says nothing.
            let _ = thread.join();
        }
    }
}

fn watch(tree: &Tree, mut view: View, notifier: &Notifier, log: &Log, stopped: &Receiver<()>) {
    let mut seen = None;
    while stopped.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
        let looked = catch_unwind(AssertUnwindSafe(|| look(tree, &mut view, seen)));
        match looked.unwrap_or_else(|panic| Err(OperationError::defect(&*panic))) {
            Ok((version, before)) => {
                seen = Some(version);
                if tree.ignores_access_lists() {
                    log.once(UNENFORCED, || UNENFORCED.to_owned());
                }
                if let Some(before) = before {
                    call_back(notifier, &before.listing, &tree.moments().moment().listing);
                }
            }
            Err(error) => log.once(&error.to_string(), || format!("cannot look for new snapshots: {error}")),
        }
    }
}

/// Checks the catalog. Returns its version, and the previous moment if it changed.
fn look(tree: &Tree, view: &mut View, seen: Option<i64>) -> Result<(i64, Option<Arc<Moment>>), OperationError> {
    tree.moments().check_catalog()?;
    // While a read transaction is held, the version stays as it was, like everything else.
    view.renew()?;
    let version = view.data_version()?;
    let changed = seen != Some(version);
    let before = if changed { Some(tree.moments().advance(view, now())?) } else { None };
    // Even if nothing changed, because a view that is never renewed keeps the write-ahead log from shrinking.
    tree.moments().renew_idle()?;
    Ok((version, before))
}

/// Calls back what the kernel keeps of the mount's own directories where `after` differs from `before`.
fn call_back(notifier: &Notifier, before: &Listing, after: &Listing) {
    // If a call fails, what the kernel keeps expires by itself some seconds later.
    for (parent, name) in changed_names(before, after) {
        if let Ok(number) = parent.number() {
            let _ = notifier.inval_entry(INodeNo(number), OsStr::new(&name));
            let _ = notifier.inval_inode(INodeNo(number), 0, 0);
        }
    }
}

/// Every name that appeared, vanished or leads elsewhere now, with its directory.
fn changed_names(before: &Listing, after: &Listing) -> Vec<(Inode, String)> {
    let tops =
        [Inode::Root, Inode::Snapshots, Inode::Hosts, Inode::Tags, Inode::Changes, Inode::Ids, Inode::ZfsSnapshots];
    let groups = [before, after].into_iter().flat_map(|listing| listing.hosts.iter().chain(&listing.tags));
    let directories: HashSet<Inode> = tops.into_iter().chain(groups.map(|group| group.inode)).collect();
    let mut names = Vec::new();
    for directory in directories {
        let children = |listing| synthetic::children(listing, directory).unwrap_or_default();
        let (old, new): (HashSet<_>, HashSet<_>) =
            (children(before).into_iter().collect(), children(after).into_iter().collect());
        names.extend(old.symmetric_difference(&new).map(|child| (directory, child.name.to_string())));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::snapshot_row;
    use crate::tree::shape::Shape;
    use bygone_core::entry::Time;

    #[test]
    fn only_names_that_a_new_snapshot_changes_are_called_back() {
        let first = || snapshot_row(1, 10, "a", &["x"]);
        let listing = |rows| Listing::new(rows, &Shape::default(), Time { secs: i64::MAX, nanos: 0 }).unwrap();
        let before = listing(vec![first()]);
        assert_eq!(changed_names(&before, &listing(vec![first()])), []);
        let after = listing(vec![first(), snapshot_row(2, 20, "b", &["x"])]);
        let mut names: Vec<(String, String)> =
            changed_names(&before, &after).into_iter().map(|(parent, name)| (format!("{parent:?}"), name)).collect();
        names.sort();
        names.dedup();
        let (host, tag) = (after.hosts[1].inode, after.tags[0].inode);
        let mut expected = vec![
            ("Changes".to_owned(), "1970-01-01T00-00-20Z".to_owned()),
            ("Hosts".to_owned(), "b".to_owned()),
            ("Ids".to_owned(), "02020202".to_owned()),
            ("Root".to_owned(), "latest".to_owned()),
            ("Snapshots".to_owned(), "1970-01-01T00-00-20Z".to_owned()),
            ("ZfsSnapshots".to_owned(), "1970-01-01T00-00-20Z".to_owned()),
            (format!("{host:?}"), "1970-01-01T00-00-20Z".to_owned()),
            (format!("{host:?}"), "latest".to_owned()),
            (format!("{tag:?}"), "latest".to_owned()),
            (format!("{tag:?}"), "1970-01-01T00-00-20Z".to_owned()),
        ];
        expected.sort();
        assert_eq!(names, expected);
    }
}
