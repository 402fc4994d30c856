//! What could not be read is there and has no content, which is another thing than deleted: in every command and view.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use nix::errno::Errno;
use serde_json::Value;

use bygone_tests::failing::FailingMount;
use bygone_tests::program::Mounted;
use bygone_tests::program::Ran;
use bygone_tests::program::Site;
use bygone_tests::root;
use bygone_tests::tree::Tree;

use crate::site::new_site;
use crate::site::restored;

/// A machine whose source is a file system with a snapshot of its healthy state, and one of its sick state beside a
/// file that was deleted in between.
struct Sick {
    // Unmounted before the directory of the site is removed.
    failing: FailingMount,
    site: Site,
    tree: Tree,
    second: Ran,
}

impl Sick {
    fn new() -> Sick {
        let site = new_site();
        let tree = Tree::new(&site.at("source"));
        tree.file("folder/deleted", "gone by then");
        let failing = FailingMount::new(&tree.directory("disk"));
        site.backup(tree.top());
        failing.set_sick(true);
        fs::remove_dir_all(tree.at("folder")).unwrap();
        let second = site.bygone(["--json", "backup", tree.top().to_str().unwrap()]).ended_with(3);
        Sick { failing, site, tree, second }
    }

    /// The path of the disk's entry `name` in the snapshot `which`, as commands take it.
    fn what(&self, which: &str, name: &str) -> String {
        format!("{which}:{}", self.tree.at("disk").join(name).display())
    }

    /// What `ls` says of each entry of the disk in the snapshot `which`, by its path there.
    fn listed(&self, which: &str) -> BTreeMap<String, Value> {
        let disk = self.tree.at("disk").display().to_string();
        let listed = self.site.bygone(["--json", "ls", "-R", &format!("{which}:{disk}")]).ok().json();
        let listed = listed.as_array().unwrap().clone();
        let path =
            |entry: &Value| entry["path"].as_str().unwrap().strip_prefix(&format!("{disk}/")).unwrap().to_owned();
        listed.into_iter().map(|entry| (path(&entry), entry)).collect()
    }
}

#[test]
fn what_cannot_be_read_is_an_entry_that_says_so() {
    if !root() {
        return;
    }
    let sick = Sick::new();
    let report = sick.second.json();
    assert_eq!((&report["unreadable"], &report["gone"]), (&4.into(), &2.into()), "{report}");
    let listed = sick.listed("latest");
    let names: Vec<&str> = listed.keys().map(String::as_str).collect();
    assert_eq!(names, ["broken", "broken/first", "broken/second", "closed", "fine", "unknown", "unreadable"]);
    for (name, was) in [("broken/second", "file"), ("closed", "directory"), ("unknown", "file"), ("unreadable", "file")]
    {
        let entry = &listed[name];
        assert_eq!((&entry["kind"], &entry["was"], &entry["errno"]), (&"unreadable".into(), &was.into(), &5.into()));
        let (size, mode) = if was == "file" { (base(name).len(), "0644") } else { (0, "0755") };
        assert_eq!((&entry["size"], &entry["mode"]), (&size.into(), &mode.into()), "{name}");
    }
    assert!(listed["broken"]["note"].as_str().unwrap().contains("may lack entries"));
    assert_eq!((&listed["broken/first"]["kind"], &listed["fine"]["kind"]), (&"file".into(), &"file".into()));
    let site = &sick.site;
    site.bygone(["cat", &sick.what("latest", "unreadable")]).ended_with(3).complains_of(&["Input/output error"]);
    site.bygone(["ls", &sick.what("latest", "closed/inside")]).ended_with(3).complains_of(&["Input/output error"]);
    let shown = site.bygone(["ls", "-l", &sick.what("latest", "")]).ok();
    assert_eq!(shown.text().matches("(it could not be read when it was backed up: Input/output error").count(), 3);
    site.bygone(["check", "--read-data"]).ok();
    site.bygone(["recover", "--force"]).ok();
    let snapshots = site.bygone(["--json", "snapshots"]).ok().json();
    let last = &snapshots[1];
    assert_eq!((&last["unreadable"], &last["exit"], &last["gone"]), (&4.into(), &3.into(), &2.into()));
    assert_eq!((&last["protected"], last["zone_offset"].is_i64()), (&false.into(), true));
    assert_eq!((&snapshots[0]["exit"], &snapshots[0]["gone"]), (&0.into(), &Value::Null));
}

#[test]
fn a_restore_says_what_it_lacks_and_never_deletes_it() {
    if !root() {
        return;
    }
    let sick = Sick::new();
    let site = &sick.site;
    let target = site.at("target");
    site.restore("latest~1", &target);
    let disk = restored(&target, &sick.tree.at("disk"));
    fs::write(disk.join("other"), "in no snapshot").unwrap();
    fs::write(disk.join("closed/other"), "in no snapshot").unwrap();
    fs::write(disk.join("broken/third"), "listed by nobody").unwrap();
    let target_text = target.to_str().unwrap();
    let again = ["restore", "latest", "--overwrite", "always", "--delete", "--target", target_text];
    let lacking = ["broken/second", "closed", "unknown", "unreadable"];
    site.bygone(again)
        .ended_with(3)
        .complains_of(&lacking)
        .complains_of(&["may lack entries", "nothing there was deleted"]);
    assert!(!restored(&target, &sick.tree.at("folder")).exists() && !disk.join("other").exists());
    for name in ["broken/first", "broken/second", "closed/inside", "fine", "unknown", "unreadable"] {
        let content = fs::read_to_string(disk.join(name)).unwrap();
        assert_eq!(content, base(name));
    }
    assert!(disk.join("closed/other").exists() && disk.join("broken/third").exists());
    let fresh = site.at("fresh");
    site.bygone(["restore", "latest", "--target", fresh.to_str().unwrap()]).ended_with(3);
    let disk = restored(&fresh, &sick.tree.at("disk"));
    assert!(lacking.iter().all(|name| !disk.join(name).exists()), "nothing is made up");
    assert_eq!(fs::read_to_string(disk.join("fine")).unwrap(), "fine");
    site.bygone(["restore", &sick.what("latest", "closed"), "--target", site.at("one").to_str().unwrap()])
        .ended_with(3);
}

#[test]
fn a_named_path_is_stored_though_its_directory_cannot_be_listed() {
    if !root() {
        return;
    }
    let sick = Sick::new();
    let (site, inside) = (&sick.site, sick.tree.at("disk/closed/inside"));
    site.bygone(["backup", sick.tree.top().to_str().unwrap(), inside.to_str().unwrap()])
        .ended_with(3)
        .complains_of(&["closed", "its listing broke off"]);
    let listed = sick.listed("latest");
    assert_eq!((&listed["closed"]["kind"], &listed["closed/inside"]["kind"]), (&"directory".into(), &"file".into()));
    assert!(listed["closed"]["note"].as_str().unwrap().contains("may lack entries"));
    assert_eq!(site.bygone(["cat", &sick.what("latest", "closed/inside")]).ok().text(), "inside");
}

/// The last name of a path.
fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}

/// The place of the source's `path` in a view.
fn inside(mounted: &Mounted, view: &str, path: &Path) -> PathBuf {
    mounted.point().join(view).join(path.strip_prefix("/").unwrap())
}

fn names(directory: &Path) -> io::Result<BTreeSet<String>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().into_string().unwrap())).collect()
}

fn is_io_error<T>(result: io::Result<T>) -> bool {
    result.is_err_and(|error| error.raw_os_error() == Some(Errno::EIO as i32))
}

#[test]
fn a_mount_lists_the_unreadable_and_calls_nothing_deleted() {
    if !root() {
        return;
    }
    let sick = Sick::new();
    let disk = sick.tree.at("disk");
    let mounted = sick.site.mount("mnt", &[]);
    let latest = mounted.latest(&disk);
    let all = ["broken", "closed", "fine", "unknown", "unreadable"].map(str::to_owned);
    assert_eq!(names(&latest).unwrap(), BTreeSet::from(all));
    assert_eq!(names(&latest.join("broken")).unwrap().len(), 2);
    let unreadable = fs::metadata(latest.join("unreadable")).unwrap();
    assert!(unreadable.is_file() && unreadable.len() == 10);
    assert!(fs::metadata(latest.join("closed")).unwrap().is_dir());
    for name in ["unreadable", "unknown", "broken/second"] {
        assert!(is_io_error(fs::read(latest.join(name))), "{name}");
        let line = format!("{name}: it could not be read when it was backed up: Input/output error");
        assert!(mounted.complaint().contains(&line), "{}", mounted.complaint());
    }
    assert!(is_io_error(names(&latest.join("closed"))) && is_io_error(fs::metadata(latest.join("closed/inside"))));
    assert!(mounted.complaint().contains("closed: it could not be read"), "{}", mounted.complaint());
    assert_eq!(fs::read_to_string(latest.join("fine")).unwrap(), "fine");
    let deleted = names(&inside(&mounted, "deleted", sick.tree.top())).unwrap();
    assert_eq!(deleted, BTreeSet::from(["folder".to_owned()]), "what was deleted and nothing else");
    for name in ["unreadable", "broken/second", "closed/inside"] {
        let versions = inside(&mounted, "versions", &disk.join(name));
        let [version] = names(&versions).unwrap().into_iter().collect::<Vec<_>>().try_into().unwrap();
        let content = fs::read_to_string(versions.join::<String>(version)).unwrap();
        assert_eq!(content, base(name));
    }
    let snapshots: Vec<String> = names(&mounted.point().join("snapshots")).unwrap().into_iter().collect();
    for change in ["added", "modified", "deleted"] {
        let changed = inside(&mounted, &format!("changes/{}/{change}", snapshots[1]), &disk);
        assert!(!changed.exists(), "{change} shows what could not be read");
    }
    mounted.unmount().ok();
}

#[test]
fn what_can_be_read_again_is_read_again() {
    if !root() {
        return;
    }
    let sick = Sick::new();
    let site = &sick.site;
    sick.failing.set_sick(false);
    // Nothing about any file has changed.
    let third = site.bygone([OsStr::new("--json"), OsStr::new("backup"), sick.tree.top().as_os_str()]).ok().json();
    assert_eq!((&third["unreadable"], &third["gone"]), (&0.into(), &0.into()));
    let target = site.at("target");
    site.restore("latest", &target);
    let disk = restored(&target, &sick.tree.at("disk"));
    for name in ["broken/first", "broken/second", "closed/inside", "fine", "unknown", "unreadable"] {
        assert_eq!(fs::read_to_string(disk.join(name)).unwrap(), base(name));
    }
    assert!(sick.listed("latest").values().all(|entry| entry.get("note").is_none()));
    let mounted = site.mount("mnt", &[]);
    let deleted = names(&inside(&mounted, "deleted", sick.tree.top())).unwrap();
    assert_eq!(deleted, BTreeSet::from(["folder".to_owned()]));
    mounted.unmount().ok();
}
