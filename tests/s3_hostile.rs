//! Every command against a faulty S3 server: it ends with the right code, never shows anything false, and deletes
//! nothing. Once the server works again, so does the repository.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;

use bygone_tests::compare;
use bygone_tests::fake_s3::FakeS3;
use bygone_tests::fake_s3::Fault;
use bygone_tests::fake_s3::Verb;
use bygone_tests::fake_s3::faults::BROKEN_BODIES;
use bygone_tests::fake_s3::faults::BROKEN_LISTS;
use bygone_tests::fake_s3::faults::BROKEN_RANGES;
use bygone_tests::fake_s3::faults::ENDLESS_ANSWERS;
use bygone_tests::fake_s3::faults::FAILURES;
use bygone_tests::fake_s3::faults::REFUSALS;
use bygone_tests::program::Ran;
use bygone_tests::program::Site;
use bygone_tests::program::unmount;
use bygone_tests::tool;
use bygone_tests::tree::Tree;
use bygone_tests::tree::prose;
use bygone_tests::tree::random;

use crate::site::programs;
use crate::site::restored;

const THREADS: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Backup,
    Snapshots,
    Ls,
    Restore,
    Check,
    CheckData,
    Recover,
    Mount,
}

const TASKS: [Task; 8] =
    [Task::Backup, Task::Snapshots, Task::Ls, Task::Restore, Task::Check, Task::CheckData, Task::Recover, Task::Mount];

/// The expected outcome of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The fault is transient: every command succeeds.
    Well,
    /// The fault is permanent: a command that meets it fails with one of these codes.
    Fails(&'static [i32]),
    /// The fault is permanent, and only these commands can notice it and must. The others must still be right.
    SeenBy(&'static [Task], i32),
}

struct Row {
    verb: Verb,
    within: &'static str,
    fault: Fault,
    end: End,
}

/// The fault matrix: each fault once, where a retry can help, and for good.
fn rows() -> Vec<Row> {
    use Fault::*;
    use Verb::*;
    let mut rows = Vec::new();
    let mut add = |verb, within, fault, end| rows.push(Row { verb, within, fault, end });
    let passing =
        [Status(500, "InternalError"), Status(503, "SlowDown"), Html, Silence, ResetBefore, ResetAfter, Redirect];
    for fault in passing {
        let end = if fault == Redirect { End::Fails(&[1]) } else { End::Well };
        for verb in [Get, Put, List] {
            add(verb, "", fault, end);
        }
    }
    for verb in [Get, Put, Delete, List] {
        for fault in [Twice, Late] {
            add(verb, "", fault, End::Well);
        }
    }
    // Objects that the catalog knows are asked for by name, which proves the list wrong.
    add(List, "", Lag, End::SeenBy(&[Task::Backup, Task::Check], 1));
    // A machine without a catalog takes a listed object that is absent for a loss.
    add(List, "", Ghosts, End::Fails(&[0, 14]));
    for fault in [BROKEN_BODIES, BROKEN_RANGES, &[NoEtag]].concat() {
        add(Get, "data/", fault, End::Well);
    }
    add(Put, "", ResetWithin, End::Well);
    add(Put, "", NoEtag, End::Well);
    add(Put, "", ErrorWith200, End::Well);
    add(Put, "", Status(403, "QuotaExceeded"), End::Fails(&[1]));
    for fault in REFUSALS {
        add(List, "", *fault, End::Fails(&[1]));
        add(Get, "", *fault, End::Fails(&[1]));
    }
    for fault in [FAILURES, BROKEN_BODIES, BROKEN_LISTS, &[EndlessPages]].concat() {
        // A list of one object is always sorted.
        let within = if fault == Unsorted { "data/" } else { "" };
        add(List, within, fault, End::Fails(&[1, 14]));
    }
    add(List, "", Empty, End::Fails(&[13, 14]));
    add(List, "data/", Empty, End::SeenBy(&[Task::Backup, Task::Check], 13));
    add(List, "data/", Missing, End::SeenBy(&[Task::Backup, Task::Check], 13));
    add(List, "commits/", Empty, End::SeenBy(&[Task::Backup, Task::Check], 13));
    for fault in [FAILURES, ENDLESS_ANSWERS, &[ShortBody, NoEtag]].concat() {
        add(Get, "", fault, End::Fails(&[1]));
    }
    for fault in [BROKEN_BODIES, &[Status(500, "")]].concat() {
        add(Get, "data/", fault, End::Fails(&[1, 13, 14]));
    }
    for fault in BROKEN_RANGES {
        // A request for a whole object is answered with it.
        add(Get, "data/", *fault, End::Fails(&[0, 1, 13, 14]));
    }
    // A put that is carried out and not answered is found by the next try.
    let unfinished = FAILURES.iter().copied().filter(|fault| *fault != ResetAfter);
    for fault in unfinished.chain([ResetWithin]) {
        add(Put, "", fault, End::Fails(&[1]));
    }
    rows.extend(rows_of_parts());
    rows
}

/// The same for long objects, which are sent in parts.
fn rows_of_parts() -> Vec<Row> {
    use Fault::*;
    use Verb::*;
    let mut rows = Vec::new();
    let mut add = |verb, fault, end| rows.push(Row { verb, within: "", fault, end });
    for verb in [Begin, Part, Complete] {
        for fault in
            [Status(503, "SlowDown"), Html, Silence, ResetBefore, ResetWithin, ResetAfter, ErrorWith200, Twice, Late]
        {
            add(verb, fault, End::Well);
        }
        for fault in [Status(500, "InternalError"), Nothing, ErrorWith200, Silence, ResetAfter] {
            add(verb, fault, End::Fails(&[1]));
        }
        add(verb, Status(403, "QuotaExceeded"), End::Fails(&[1]));
        add(verb, Status(404, "NoSuchUpload"), End::Well);
    }
    add(Begin, Status(501, "NotImplemented"), End::Well);
    add(Complete, Missing, End::Fails(&[1]));
    // The retry finds the object there.
    add(Complete, NoEtag, End::Well);
    rows
}

/// A repository in a bucket, kept so that every case starts from the same state.
struct Master {
    catalogs: PathBuf,
    objects: BTreeMap<String, Vec<u8>>,
    marks: BTreeMap<String, String>,
    /// The keys before the last backup.
    keys_before: BTreeSet<String>,
    source: PathBuf,
    content: Vec<u8>,
    snapshots: Vec<u8>,
    listing: Vec<u8>,
}

/// A machine that knows the repository of a server.
fn machine(server: &FakeS3, patience: &str, stall: &str) -> Site {
    let site = Site::new(&programs());
    site.set_bucket(&format!("{}&stall={stall}&part=256k", server.store("backups")));
    site.set("BYGONE_RETRY_FOR", patience);
    site
}

impl Master {
    /// Made on `site`, whose server is `server`.
    fn new(server: &FakeS3, site: &Site) -> Master {
        site.bygone(["init", "--kdf-memory", "8MiB", "--volume-size", "1MiB"]).ok();
        let tree = Tree::new(&site.at("source"));
        let content = random(7, 2_500_000);
        tree.file("prose", prose(8, 400_000));
        site.backup(tree.top());
        let keys_before = server.objects().into_keys().collect();
        tree.file("noise", &content);
        site.backup(tree.top()).ok();
        let snapshots = site.bygone(["snapshots", "--json"]).ok().out;
        let listing = site.bygone(["ls", "latest", "-R"]).ok().out;
        let source = tree.top().to_owned();
        let (objects, marks, catalogs) = (server.objects(), server.marks(), site.catalogs());
        assert!(!marks.is_empty(), "a volume went in parts");
        Master { objects, marks, keys_before, source, content, snapshots, listing, catalogs }
    }

    /// Runs one row with one command, on a machine of its own.
    fn run(&self, row: &Row, task: Task) {
        let what = format!("{:?} {:?} of {:?}, {task:?}", row.fault, row.verb, row.within);
        let server = FakeS3::start();
        server.set_objects(self.objects.clone());
        server.set_marks(self.marks.clone());
        server.remember_list(self.keys_before.clone());
        // A server that is merely slow, as on a busy machine, must not count as silent: hence two tries.
        let (patience, times) = match row.end {
            End::Well => ("120s", 1),
            _ if row.fault.is_silence() => ("3s", usize::MAX),
            _ => ("1s", usize::MAX),
        };
        let site = machine(&server, patience, if row.fault.is_silence() { "2s" } else { "60s" });
        if task != Task::Recover {
            tool(Command::new("cp").arg("-a").arg(&self.catalogs).arg(site.at("state")));
        }
        server.misbehave(row.verb, row.within, row.fault, times);
        // A new file, so that a backup makes every kind of request.
        let fresh = site.at("fresh");
        fs::write(&fresh, random(99, 1_500_000)).unwrap();
        let code = self.perform(&site, task, &fresh, &what);
        let hits = server.hits();
        match row.end {
            _ if hits == 0 => assert_eq!(code, 0, "{what}: nothing went wrong"),
            End::Well => assert_eq!(code, 0, "{what}: it passes"),
            End::Fails(_) if task == Task::Mount && code == 0 => {}
            End::Fails(codes) => assert!(codes.contains(&code), "{what}: ended with {code}"),
            End::SeenBy(tasks, seen) if tasks.contains(&task) => assert_eq!(code, seen, "{what}"),
            End::SeenBy(..) => {}
        }
        let asked = server.take_asked();
        let deleted: Vec<_> = asked.iter().filter(|(verb, _)| *verb == Verb::Delete).collect();
        assert!(deleted.iter().all(|(_, key)| key.starts_with("backups/running/")), "{what}: {deleted:?}");
        for (key, bytes) in &self.objects {
            assert!(server.objects().get(key) == Some(bytes), "{what}: {key} is as it was");
        }
        if task == Task::Backup {
            server.behave();
            site.bygone([OsStr::new("backup"), self.source.as_os_str(), fresh.as_os_str()]).ok();
            site.bygone(["check", "--read-data"]).ok();
        }
    }

    /// Runs the task, checks its output, and returns its exit code.
    fn perform(&self, site: &Site, task: Task, fresh: &Path, what: &str) -> i32 {
        let run = |arguments: &[&OsStr]| site.bygone(arguments);
        let text = |arguments: &[&str]| site.bygone(arguments);
        let shown = |ran: Ran, expected: &[u8]| {
            assert!(ran.code != 0 || ran.out == expected, "{what}: {ran}");
            ran.code
        };
        match task {
            Task::Backup => run(&["backup".as_ref(), self.source.as_os_str(), fresh.as_os_str()]).code,
            Task::Snapshots => shown(text(&["snapshots", "--json"]), &self.snapshots),
            Task::Ls => shown(text(&["ls", "latest", "-R"]), &self.listing),
            Task::Check => text(&["check"]).code,
            Task::CheckData => text(&["check", "--read-data"]).code,
            Task::Recover => match text(&["recover"]).code {
                0 => shown(text(&["snapshots", "--json"]), &self.snapshots),
                code => code,
            },
            Task::Restore => {
                let target = site.at("target");
                let code = run(&["restore".as_ref(), "latest".as_ref(), "--target".as_ref(), target.as_os_str()]).code;
                let restored = restored(&target, &self.source);
                if code == 0 {
                    compare::assert_same(&self.source, &restored);
                } else if let Ok(bytes) = fs::read(restored.join("noise")) {
                    assert!(bytes == self.content, "{what}: what is restored is right");
                }
                code
            }
            Task::Mount => self.mount(site, what),
        }
    }

    fn mount(&self, site: &Site, what: &str) -> i32 {
        let point = site.at("mnt");
        fs::create_dir(&point).unwrap();
        let mounted = site.bygone_mount([point.as_os_str()]);
        if mounted.code != 0 {
            return mounted.code;
        }
        let at = point.join("latest").join(self.source.strip_prefix("/").unwrap()).join("noise");
        let read = fs::read(&at);
        unmount(&point);
        match read {
            Ok(bytes) => assert!(bytes == self.content, "{what}: what is read is right"),
            Err(error) => assert_eq!(error.raw_os_error(), Some(nix::libc::EIO), "{what}: {error}"),
        }
        0
    }
}

#[test]
fn server_faults_never_cause_hangs_wrong_output_or_deletes() {
    if !bygone_tests::root() {
        return;
    }
    let server = FakeS3::start();
    let site = machine(&server, "60s", "60s");
    let master = Master::new(&server, &site);
    let rows = rows();
    // Only a backup stores long objects, and readers store nothing. A machine without a catalog cannot know that a list
    // is old.
    let is_senseless = |row: &Row, task: Task| match row.verb {
        Verb::Begin | Verb::Part | Verb::Complete => task != Task::Backup,
        Verb::Put | Verb::Delete => matches!(task, Task::Snapshots | Task::Ls | Task::Restore | Task::Mount),
        _ => row.fault == Fault::Lag && task == Task::Recover,
    };
    let cases: Vec<(&Row, Task)> = rows.iter().flat_map(|row| TASKS.map(|task| (row, task))).collect();
    let cases: Vec<_> = cases.into_iter().filter(|(row, task)| !is_senseless(row, *task)).collect();
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some((row, task)) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let run = std::panic::AssertUnwindSafe(|| master.run(row, *task));
                    if let Err(panic) = std::panic::catch_unwind(run) {
                        let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                        failed.lock().unwrap().push(text);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {} failed:\n{}", failed.len(), cases.len(), failed.join("\n"));
}

#[test]
fn an_unchanged_backup_costs_ten_requests_at_most() {
    let server = FakeS3::start();
    let site = machine(&server, "60s", "60s");
    site.bygone(["init", "--kdf-memory", "8MiB"]).ok();
    let tree = Tree::new(&site.at("source"));
    for number in 0..200 {
        tree.file(format!("{number}"), prose(number, 3_000));
    }
    site.backup(tree.top());
    server.take_asked();
    site.backup(tree.top());
    let asked = server.take_asked();
    eprintln!("{} requests", asked.len());
    assert!(asked.len() <= 10, "{} requests: {asked:?}", asked.len());
}
