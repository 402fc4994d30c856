//! State that the threads of one restore share: options, counts, and whether to stop.

use std::collections::HashMap;
use std::collections::HashSet;
use std::io;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use nix::unistd::Group;
use nix::unistd::User;
use nix::unistd::geteuid;

use bygone_core::entry::Name;
use bygone_core::entry::Owner;
use bygone_core::lock::into_inner;
use bygone_core::lock::lock;
use bygone_core::read::Reader;
use bygone_core::watch::Watch;

use crate::restore::directories::At;
use crate::restore::directories::Identity;
use crate::restore::directories::Place;
use crate::restore::job::Job;
use crate::restore::options::Options;
use crate::restore::options::OwnerBy;
use crate::restore::report::Failure;
use crate::restore::report::Reason;
use crate::restore::report::Report;
use crate::restore::report::Tally;
use crate::restore::report::is_hopeless;

/// One restore.
pub(super) struct Shared<'a> {
    pub(super) reader: &'a Reader,
    pub(super) options: &'a Options,
    pub(super) watch: &'a Watch,
    /// True if this process is root, which may set all metadata.
    pub(super) root: bool,
    tally: Mutex<Tally>,
    stop: AtomicBool,
    failed: Mutex<HashSet<(Identity, Name)>>,
    accounts: Mutex<Accounts>,
    temporary_names: AtomicU64,
}

#[derive(Default)]
struct Accounts {
    users: HashMap<Vec<u8>, Option<u32>>,
    groups: HashMap<Vec<u8>, Option<u32>>,
}

impl<'a> Shared<'a> {
    pub(super) fn new(reader: &'a Reader, options: &'a Options, watch: &'a Watch) -> Shared<'a> {
        Shared {
            reader,
            options,
            watch,
            root: geteuid().is_root(),
            tally: Mutex::default(),
            stop: AtomicBool::new(false),
            failed: Mutex::default(),
            accounts: Mutex::default(),
            temporary_names: AtomicU64::new(0),
        }
    }

    /// The counts. Every change is a single step, so they are consistent even if a thread has panicked.
    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        lock(&self.tally)
    }

    /// The counts, when all threads are done.
    pub(super) fn into_tally(self) -> Tally {
        into_inner(self.tally)
    }

    /// True once the restore cannot go on.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Records that an entry was not restored. Ends the restore if the others would fail too.
    pub(super) fn fail(&self, at: At, failure: Failure) {
        match failure {
            Failure::Target { ref source, .. } if is_hopeless(source) => self.stop(at, failure),
            Failure::Target { doing, source } => {
                self.tally().issue(at, format!("cannot {doing} it: {source}"), Reason::Target);
            }
            Failure::Damage(error) => self.tally().issue(at, error.to_string(), Reason::Damage),
            Failure::Stop(_) => self.stop(at, failure),
        }
    }

    /// Ends the restore. Only the first failure is reported.
    pub(super) fn stop(&self, at: At, failure: Failure) {
        self.tally().stopped.get_or_insert((at, failure));
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Ends the restore for a reason that is reported elsewhere.
    pub(super) fn halt(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Counts a finished entry.
    pub(super) fn count(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.tally().report);
        self.watch.entries.fetch_add(1, Ordering::Relaxed);
    }

    /// [`Self::fail`] for an entry on which others may depend.
    pub(super) fn fail_entry(&self, job: &Job, failure: Failure) {
        if job.entry.is_hard_linked() {
            self.remember_failed(&job.place, &job.entry.name);
        }
        self.fail_at(&job.place, &job.entry.name, job.at(), failure);
    }

    /// [`Self::fail`] for `name` in `place`.
    pub(super) fn fail_at(&self, place: &Place, name: &Name, at: At, failure: Failure) {
        if self.options.verify {
            self.remember_failed(place, name);
        }
        self.watch.entries.fetch_add(1, Ordering::Relaxed);
        self.fail(at, failure);
    }

    /// Remembers a reported failure, for other names of the file and for verifying.
    fn remember_failed(&self, place: &Place, name: &Name) {
        lock(&self.failed).insert((place.identity, name.clone()));
    }

    /// True if a failure of `name` in `place` has been reported.
    pub(super) fn has_failed(&self, place: &Place, name: &Name) -> bool {
        let failed = lock(&self.failed);
        !failed.is_empty() && failed.contains(&(place.identity, name.clone()))
    }

    /// An unmistakable name for an incomplete entry.
    pub(super) fn temporary_name(&self) -> Vec<u8> {
        let number = self.temporary_names.fetch_add(1, Ordering::Relaxed);
        format!(".bygone-restore-{}-{number}", std::process::id()).into_bytes()
    }

    /// The user and group that an entry of `owner` gets on this machine.
    pub(super) fn owner_here(&self, owner: &Owner) -> (u32, u32) {
        if self.options.owner_by == OwnerBy::Number {
            return (owner.uid, owner.gid);
        }
        let mut accounts = lock(&self.accounts);
        let user = |name: &str| Some(User::from_name(name).ok()??.uid.as_raw());
        let group = |name: &str| Some(Group::from_name(name).ok()??.gid.as_raw());
        let uid = look_up(&mut accounts.users, &owner.user, user).unwrap_or(owner.uid);
        let gid = look_up(&mut accounts.groups, &owner.group, group).unwrap_or(owner.gid);
        (uid, gid)
    }
}

/// The number of account `name`, looked up once; `None` if this machine has no such account.
fn look_up(
    known: &mut HashMap<Vec<u8>, Option<u32>>,
    name: &[u8],
    ask: impl FnOnce(&str) -> Option<u32>,
) -> Option<u32> {
    if let Some(number) = known.get(name) {
        return *number;
    }
    let number = std::str::from_utf8(name).ok().filter(|name| !name.is_empty()).and_then(ask);
    known.insert(name.to_vec(), number);
    number
}

/// Problems with the metadata of an entry that is restored anyway.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    pub(super) owner_refused: bool,
    pub(super) xattrs_refused: u64,
    pub(super) flags_refused: bool,
    pub(super) texts: Vec<String>,
}

impl Trouble {
    /// Notes that `doing` failed, unless the reason ends the restore.
    pub(super) fn note(&mut self, doing: &'static str, what: &str, source: io::Error) -> Result<(), Failure> {
        if is_hopeless(&source) {
            return Err(Failure::Target { doing, source });
        }
        self.texts.push(format!("cannot {doing} it{what}: {source}"));
        Ok(())
    }

    /// Adds everything to the counts.
    pub(super) fn report(self, shared: &Shared<'_>, at: &At) {
        if !self.owner_refused && self.xattrs_refused == 0 && !self.flags_refused && self.texts.is_empty() {
            return;
        }
        let mut tally = shared.tally();
        tally.report.owners_refused += u64::from(self.owner_refused);
        tally.report.xattrs_refused += self.xattrs_refused;
        tally.report.flags_refused += u64::from(self.flags_refused);
        self.texts.into_iter().for_each(|text| tally.issue(at.clone(), text, Reason::Target));
    }
}
