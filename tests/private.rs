//! What bygone keeps on a machine is closed to other users, whatever the umask, and what was open is closed.

use std::fs;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use bygone_tests::program::Site;
use bygone_tests::root;
use bygone_tests::tree::Tree;

use crate::site::new_site;
use crate::site::programs;

/// All directories and files below `top`, and `top` itself.
fn all(top: &Path) -> Vec<PathBuf> {
    let mut found = vec![top.to_path_buf()];
    let mut at = 0;
    while let Some(path) = found.get(at).cloned() {
        at += 1;
        if path.is_dir() {
            found.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

fn assert_closed(top: &Path) {
    let found = all(top);
    assert!(found.len() > 2, "only {found:?}");
    for path in found {
        assert_eq!(mode(&path) & 0o077, 0, "{}: {:o}", path.display(), mode(&path));
    }
}

/// `bygone ARGUMENTS` under a umask.
fn under(site: &Site, umask: &str, arguments: &[&str]) {
    let program = programs().bygone;
    let script = format!("umask {umask}; exec \"$0\" \"$@\"");
    let words = [&["-c", &script, program.to_str().unwrap()], arguments].concat();
    site.run(site.command(Path::new("/bin/sh"), words)).ok();
}

#[test]
fn catalog_and_lock_are_closed_under_any_umask() {
    for umask in ["000", "022", "277"] {
        let site = Site::new(&programs());
        fs::remove_dir_all(site.at("state")).unwrap();
        under(&site, umask, &["init", "--kdf-memory", "8MiB"]);
        let tree = Tree::new(&site.at("source"));
        tree.file("secret", "password");
        under(&site, umask, &["backup", tree.top().to_str().unwrap()]);
        assert_closed(&site.catalogs());
        under(&site, umask, &["snapshots"]);
        under(&site, umask, &["check"]);
        assert_closed(&site.catalogs());
    }
}

#[test]
fn what_an_earlier_program_left_open_is_closed() {
    let site = new_site();
    let tree = Tree::new(&site.at("source"));
    tree.file("secret", "password");
    site.backup(tree.top());
    let repository = fs::read_dir(site.catalogs()).unwrap().next().unwrap().unwrap().path();
    let open = || {
        for path in all(&repository) {
            let mode = if path.is_dir() { 0o755 } else { 0o644 };
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
    };
    open();
    site.bygone(["ls", "latest"]).ok();
    assert_eq!((mode(&repository), mode(&repository.join("catalog.sqlite"))), (0o700, 0o600), "a reader closes it");
    open();
    site.backup(tree.top());
    assert_closed(&repository);
}

#[test]
fn another_user_can_neither_read_the_catalog_nor_hold_its_lock() {
    if !root() {
        return;
    }
    let site = new_site();
    let tree = Tree::new(&site.at("source"));
    tree.file("secret", "password");
    site.backup(tree.top());
    let repository = fs::read_dir(site.catalogs()).unwrap().next().unwrap().unwrap().path();
    // Everything above is open, so only what bygone makes keeps others out.
    for above in repository.parent().unwrap().ancestors().take(3) {
        fs::set_permissions(above, Permissions::from_mode(0o755)).unwrap();
    }
    for name in ["catalog.sqlite", "lock"] {
        let mut command = Command::new("cat");
        command.arg(repository.join(name)).uid(65_534).gid(65_534);
        assert!(!command.output().unwrap().status.success(), "{name}");
    }
}
