//! A mount of a far store: what it fetches, what it caches, and how it behaves on a slow or dead link.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::thread;

use bygone_core::hash::sha256;
use bygone_core::id::hex;
use bygone_tests::compare;
use bygone_tests::fake_s3::FakeS3;
use bygone_tests::fake_s3::Fault;
use bygone_tests::fake_s3::Verb;
use bygone_tests::program::Mounted;
use bygone_tests::program::Site;
use bygone_tests::program::unmount;
use bygone_tests::program::wait_until;
use bygone_tests::root;
use bygone_tests::tool;
use bygone_tests::tree::Tree;
use bygone_tests::tree::prose;
use bygone_tests::tree::random;

use crate::site::programs;
use crate::site::restored;

/// A machine whose repository is in a bucket.
pub struct Far {
    pub site: Site,
    pub server: FakeS3,
    pub tree: Tree,
}

impl Far {
    pub fn new(fill: impl FnOnce(&Tree)) -> Far {
        let (site, server) = (Site::new(&programs()), FakeS3::start());
        site.set_bucket(&(server.store("repository") + "&stall=1s"));
        site.bygone(["init", "--kdf-memory", "8MiB", "--volume-size", "4MiB"]).ok();
        let tree = Tree::new(&site.at("source"));
        fill(&tree);
        site.backup(tree.top());
        Far { site, server, tree }
    }

    pub fn mount(&self, options: &[&str]) -> Mounted {
        // The cache must not depend on how full the disk of this machine is.
        let mounted = self.site.mount("mnt", &[&["--cache-free", "0"], options].concat());
        // Forgets the requests of opening: the tests count those of reading.
        self.server.take_asked();
        mounted
    }

    /// The number of requests for content since the last call. The tree is in the catalog, so all that is read of
    /// volumes is content.
    pub fn gets(&self) -> usize {
        let asked = self.server.take_asked();
        asked
            .iter()
            .filter(|(verb, name)| *verb == Verb::Get && (name.contains("data/") || name.contains("meta/")))
            .count()
    }

    /// The files of the cache.
    fn kept(&self) -> Vec<PathBuf> {
        let base = fs::read_dir(self.site.at("cache/bygone")).unwrap();
        let repository = base.map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).expect("a cache");
        let files = fs::read_dir(repository).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.file_name().unwrap().len() == 64).collect()
    }
}

/// Small and long files, about 12 MB that do not compress.
pub fn mixed(tree: &Tree) {
    (0..300).for_each(|n| drop(tree.file(format!("small/{:02}/{n}", n % 10), random(n, 10_000))));
    tree.file("long", random(1_000, 6_000_000));
    tree.file("medium", random(1_001, 3_000_000));
    tree.file("text", prose(1, 100_000));
}

#[track_caller]
fn read_all(mounted: &Mounted, source: &Path) {
    compare::assert_same(source, &mounted.latest(source));
}

/// A read that has just failed may go on failing for a few seconds.
fn read_all_at_last(mounted: &Mounted, source: &Path) {
    let compare = || Command::new("diff").arg("-r").args([source, &mounted.latest(source)]).output().unwrap();
    wait_until("all can be read", || compare().status.success());
}

#[test]
fn looking_around_asks_the_store_for_nothing() {
    if !root() {
        return;
    }
    let far = Far::new(mixed);
    let mounted = far.mount(&[]);
    for program in [&["find"][..], &["ls", "-lR"], &["du", "-s"], &["stat", "-f"]] {
        tool(Command::new(program[0]).args(&program[1..]).arg(mounted.latest(far.tree.top())).stdout(Stdio::null()));
    }
    assert_eq!(far.gets(), 0);
    mounted.unmount();
}

#[test]
fn everything_is_fetched_once_and_kept_for_the_next_mount() {
    if !root() {
        return;
    }
    let far = Far::new(mixed);
    let mounted = far.mount(&[]);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| assert!(fs::read(mounted.latest(&far.tree.at("long"))).unwrap().len() == 6_000_000));
        }
    });
    read_all(&mounted, far.tree.top());
    let stats = mounted.stats(&far.site);
    let stored: usize = far.server.objects().iter().filter(|(name, _)| name.contains("data/")).map(|o| o.1.len()).sum();
    let fetched = stats["fetched_bytes"].as_u64().unwrap();
    assert!(fetched <= stored as u64, "{fetched} bytes of {stored} were fetched: some twice");
    mounted.unmount();
    let mounted = far.mount(&["--offline"]);
    read_all(&mounted, far.tree.top());
    assert_eq!(far.gets(), 0);
    mounted.unmount();
}

#[test]
fn no_more_is_fetched_than_is_allowed() {
    if !root() {
        return;
    }
    let far = Far::new(mixed);
    let mounted = far.mount(&["--max-fetch", "1MiB"]);
    let read = |name: &str| fs::read(mounted.latest(&far.tree.at(name)));
    let errno = |name: &str| read(name).err().and_then(|error| error.raw_os_error()).map(nix::errno::Errno::from_raw);
    assert_eq!(errno("long"), Some(nix::errno::Errno::EIO));
    let stats = mounted.stats(&far.site);
    assert!(stats["fetched_bytes"].as_u64() <= Some(1 << 20), "{stats}");
    assert_eq!(stats["fetched_bytes_max"].as_u64(), Some(1 << 20));
    far.gets();
    assert_eq!(errno("medium"), Some(nix::errno::Errno::EIO));
    assert_eq!(far.gets(), 0);
    let log = mounted.complaint();
    assert_eq!(log.matches("what is not in the cache cannot be read any more").count(), 1, "{log}");
    mounted.unmount();
}

#[test]
fn a_damaged_cache_is_never_shown() {
    if !root() {
        return;
    }
    let far = Far::new(mixed);
    let mounted = far.mount(&[]);
    read_all(&mounted, far.tree.top());
    // Like a crash: the mount cannot clean up.
    mounted.signal("KILL");
    drop(mounted.end());
    unmount(&far.site.at("mnt"));
    for (number, path) in far.kept().iter().enumerate() {
        let file = fs::File::options().write(true).open(path).unwrap();
        let length = file.metadata().unwrap().len();
        match number % 3 {
            0 => file.set_len(length / 2).unwrap(),
            1 => file.write_all_at(&[0; 100_000], length / 3).unwrap(),
            _ => (0..20).for_each(|n| file.write_all_at(b"x", length / 20 * n + 9).unwrap()),
        }
    }
    let mounted = far.mount(&[]);
    read_all(&mounted, far.tree.top());
    let log = mounted.complaint();
    assert!(log.contains("damaged in the cache"), "{log}");
    mounted.unmount();
}

#[test]
fn a_dead_link_stalls_only_reads_that_need_it() {
    if !root() {
        return;
    }
    let far = Far::new(mixed);
    let mounted = far.mount(&[]);
    let (long, text) = (mounted.latest(&far.tree.at("long")), mounted.latest(&far.tree.at("medium")));
    fs::read(&text).unwrap();
    mounted.unmount();
    // The bytes read so far are on disk and no longer in memory.
    let mounted = far.mount(&[]);
    far.server.misbehave(Verb::Get, "data/", Fault::Silence, usize::MAX);
    let read_from = |offset: u64| {
        let mut tail = Command::new("tail");
        tail.arg(format!("-c+{offset}")).arg(&long).stdout(Stdio::null()).spawn().unwrap()
    };
    let mut stalled: Vec<_> = (0..40).map(|number| read_from(number * 140_000 + 1)).collect();
    assert!(fs::read(&text).unwrap() == fs::read(far.tree.at("medium")).unwrap());
    tool(Command::new("ls").arg("-lR").arg(mounted.point().join("latest")).stdout(Stdio::null()));
    for child in &mut stalled {
        assert!(child.try_wait().unwrap().is_none(), "it does not wait for the dead link: the test shows nothing");
        tool(Command::new("kill").arg("-INT").arg(child.id().to_string()));
        child.wait().unwrap();
    }
    far.server.behave();
    wait_until("the link is alive again", || fs::read(&long).is_ok());
    read_all(&mounted, far.tree.top());
    mounted.unmount();
}

#[test]
fn a_repair_takes_lost_volumes_from_the_cache_of_a_mount() {
    if !root() {
        return;
    }
    let far = Far::new(mixed);
    let mounted = far.mount(&[]);
    read_all(&mounted, far.tree.top());
    mounted.unmount();
    let sound = far.server.objects();
    let (lost, left): (BTreeMap<_, _>, BTreeMap<_, _>) =
        sound.clone().into_iter().partition(|(name, _)| name.contains("data/"));
    // The cache is the only place that still has them.
    fs::remove_dir_all(far.tree.top()).unwrap();
    far.server.set_objects(left.clone());
    let ran = far.site.bygone(["check", "--repair", "--json"]).ok();
    let put_back = ran.json()["repaired"]["restored"].as_array().unwrap().clone();
    assert_eq!(put_back.len(), lost.len(), "{ran}");
    assert!(put_back.iter().all(|one| one["from"] == "rebuilt, partly from the cache of a mount"), "{ran}");
    let now = far.server.objects();
    assert!(lost.iter().all(|(name, bytes)| now.get(name) == Some(bytes)), "they are back to the byte");
    far.site.bygone(["check", "--read-data"]).ok();
    // Damaged pieces of the cache are not used, and the others still are.
    for path in far.kept() {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.write_all_at(&[0xa5; 1_000], 200_000).unwrap();
    }
    far.server.set_objects(left);
    let ran = far.site.bygone(["check", "--repair"]);
    assert_eq!(ran.code, 14, "{ran}");
    assert!(String::from_utf8_lossy(&ran.out).contains("stored again in new volumes"), "{ran}");
    let now = far.server.objects();
    let data: Vec<_> = now.iter().filter(|(name, _)| name.contains("data/")).collect();
    assert!(!data.is_empty());
    for (name, bytes) in data {
        assert!(name.ends_with(&hex(&sha256(bytes))), "{name} is not what its name says");
    }
    let target = far.site.at("target");
    let ran = far.site.bygone(["restore", "latest", "--target", target.to_str().unwrap()]);
    assert_ne!(ran.code, 0, "{ran}");
    let small = restored(&target, far.tree.top()).join("small");
    let read = |n: u64| Some((n, fs::read(small.join(format!("{:02}/{n}", n % 10))).ok()?));
    let arrived: Vec<_> = (0..300).filter_map(read).collect();
    assert!((200..300).contains(&arrived.len()), "{} of 300 files came back", arrived.len());
    assert!(arrived.iter().all(|(n, bytes)| *bytes == random(*n, 10_000)));
}

#[test]
fn a_mount_of_a_dead_store_ends_on_request() {
    if !root() {
        return;
    }
    let far = Far::new(mixed);
    // Longer than any test runs.
    far.site.set("BYGONE_REPO", &(far.server.store("repository") + "&stall=600s"));
    let mounted = far.mount(&["--read-timeout", "1h"]);
    let point = mounted.point().to_path_buf();
    far.server.misbehave(Verb::Get, "data/", Fault::Silence, usize::MAX);
    let long = mounted.latest(&far.tree.at("long"));
    let reader = Command::new("cat").arg(&long).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("it waits for the store", || mounted.stats(&far.site)["waiting"].as_u64() > Some(0));
    mounted.signal("TERM");
    let outcome = reader.wait_with_output().unwrap();
    // The error must come from the mount, not from its disappearance.
    let printed = String::from_utf8_lossy(&outcome.stderr);
    assert!(printed.contains("Input/output error"), "{printed}");
    mounted.end().ok().complains_of(&["reads that wait for it are cancelled"]);
    assert!(!bygone_tests::program::is_mounted(&point));
}

#[test]
fn an_outage_is_one_line_in_the_log_and_its_end_another() {
    if !root() {
        return;
    }
    let far = Far::new(mixed);
    let mounted = far.mount(&["--read-timeout", "2s"]);
    far.server.misbehave(Verb::Get, "data/", Fault::Silence, usize::MAX);
    for name in ["long", "medium", "small/00/0", "small/05/5"] {
        assert!(fs::read(mounted.latest(&far.tree.at(name))).is_err());
    }
    let log = mounted.complaint();
    assert_eq!(log.matches("the store failed to").count(), 1, "{log}");
    assert_eq!(log.matches("the store answers again").count(), 0, "{log}");
    far.server.behave();
    wait_until("the store is used again", || fs::read(mounted.latest(&far.tree.at("long"))).is_ok());
    read_all_at_last(&mounted, far.tree.top());
    // On a busy machine a read may wait too long once more, which is an outage of its own.
    let log = mounted.complaint();
    let outages = log.matches("the store failed to").count();
    assert!(outages >= 1 && log.matches("the store answers again").count() == outages, "{log}");
    mounted.unmount();
}
