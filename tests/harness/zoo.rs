//! The zoo: a directory with one of everything that a Linux file system can hold, and every size around the borders of
//! the format. Whatever survives here survives in a home directory.
//!
//! Only root can make devices, foreign owners, `trusted.*` attributes and capabilities; without root they are left out
//! (see [`crate::root`]). Times are set last, because making an entry changes the time of its directory.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use nix::dir::Dir;
use nix::fcntl::OFlag;
use nix::fcntl::openat;
use nix::sys::stat::Mode;
use nix::sys::stat::SFlag;
use nix::sys::stat::makedev;
use nix::sys::stat::mkdirat;
use nix::sys::stat::mknod;

use crate::root;
use crate::tool;
use crate::tree::Tree;
use crate::tree::prose;
use crate::tree::random;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Fills `top` with the whole zoo.
pub fn fill(top: &Path) -> Tree {
    let tree = Tree::new(top);
    names(&tree);
    sizes(&tree);
    holes(&tree);
    links(&tree);
    attributes(&tree);
    specials(&tree);
    depths(&tree);
    owners(&tree);
    times(&tree);
    tree
}

/// Every byte that a name may hold, alone and between others; names of full length; names that look like something
/// else.
fn names(tree: &Tree) {
    for byte in (1..=255u8).filter(|byte| *byte != b'/') {
        tree.file(Path::new("names/around").join(OsStr::from_bytes(&[b'x', byte, b'y'])), [byte]);
        if byte != b'.' {
            tree.file(Path::new("names/alone").join(OsStr::from_bytes(&[byte])), [byte]);
        }
    }
    let longest = "n".repeat(255);
    tree.file(format!("names/{longest}"), "a name of 255 bytes");
    tree.directory(format!("names/d/{}", "d".repeat(255)));
    let odd: [&[u8]; 12] = [
        b"...",
        b" ",
        b"-rf",
        b"~",
        b"new\nline",
        b"\x1b[2J\x1b]0;title\x07",
        b"\xff\xfe\xfd",
        b"caf\xc3\xa9",
        b"cafe\xcc\x81",
        b"*?[a]{b}",
        b"'\"\\$(x)`y`;&|",
        b"\xe2\x80\xae.txt",
    ];
    for name in odd {
        tree.file(Path::new("names/odd").join(OsStr::from_bytes(name)), name);
    }
    tree.file("names/Case", "upper");
    tree.file("names/case", "lower");
}

/// Empty, inline, and one byte to either side of frames, blocks, and the counts at which lists begin.
fn sizes(tree: &Tree) {
    tree.file("sizes/empty", "");
    for bytes in 1..=100 {
        tree.file(format!("sizes/tiny/{bytes}"), random(bytes as u64, bytes));
    }
    for (name, border) in [("frame", 128 * KIB), ("block", MIB), ("two-blocks", 2 * MIB), ("four-blocks", 4 * MIB)] {
        for (side, bytes) in [("below", border - 1), ("at", border), ("above", border + 1)] {
            tree.file(format!("sizes/{name}-{side}"), prose(bytes as u64, bytes));
        }
    }
    tree.file("sizes/compressible", prose(5, 5 * MIB + 12_345));
    tree.file("sizes/random", random(5, 5 * MIB + 54_321));
    tree.file("sizes/twin-a", random(6, 3 * MIB));
    tree.file("sizes/twin-b", random(6, 3 * MIB));
    tree.file("sizes/zeros", vec![0u8; 3 * MIB + 7]);
    for number in 0..300 {
        tree.file(format!("sizes/small/{number}"), prose(number * 1000, 300 + 97 * number as usize));
    }
}

/// Files with holes, and data between them.
fn holes(tree: &Tree) {
    let mib = MIB as u64;
    let some = random(7, 64 * KIB);
    tree.sparse("holes/start", 4 * mib, &[(4 * mib - 65_536, &some)]);
    tree.sparse("holes/middle", 4 * mib, &[(0, &some), (4 * mib - 65_536, &some)]);
    tree.sparse("holes/end", 4 * mib + 3, &[(0, &some)]);
    tree.sparse("holes/only", 9 * mib + 1, &[]);
    tree.sparse("holes/many", 8 * mib, &(0..16u64).map(|i| (i * mib / 2, &some[..4096])).collect::<Vec<_>>());
    tree.sparse("holes/across-blocks", 6 * mib, &[(mib - 8_192, &some[..16_384]), (3 * mib + 4_096, &some)]);
    tree.sparse("holes/one-gib", 1 << 30, &[(500 * mib, b"in the middle of nowhere"), ((1 << 30) - 5, b"end.\n")]);
}

/// Hard links within and across directories, and symbolic links of every shape.
fn links(tree: &Tree) {
    for folder in ["links/a", "links/b/c", "links/symbolic"] {
        tree.directory(folder);
    }
    tree.file("links/a/one", prose(8, 200 * KIB));
    tree.hard_link("links/b/two", "links/a/one");
    tree.hard_link("links/b/c/three", "links/a/one");
    tree.file("links/a/tiny", "tiny and twice");
    tree.hard_link("links/a/tiny-again", "links/a/tiny");
    tree.file("links/empty", "");
    tree.hard_link("links/empty-again", "links/empty");
    tree.symlink("links/symbolic/relative", "../a/one");
    tree.symlink("links/symbolic/dangling", "no/such/thing");
    tree.symlink("links/symbolic/absolute", "/etc/passwd");
    tree.symlink("links/symbolic/up", "../../../../../..");
    tree.symlink("links/symbolic/itself", "itself");
    tree.symlink("links/symbolic/to-directory", "../b");
    tree.symlink("links/symbolic/odd", OsStr::from_bytes(b"\xff\n\x1b[m"));
    tree.symlink("links/symbolic/longest", format!("{}e", "t/".repeat(2047)));
    tree.hard_link("links/symbolic/second-name", "links/symbolic/dangling");
}

/// Permissions, extended attributes and access lists.
fn attributes(tree: &Tree) {
    let unreadable = if root() { 0o000 } else { 0o400 };
    for mode in [unreadable, 0o440, 0o644, 0o777, 0o4755, 0o2755, 0o1644, 0o6711, 0o7777] {
        tree.file(format!("attributes/mode/{mode:o}"), format!("{mode:o}"));
        tree.mode(format!("attributes/mode/{mode:o}"), mode);
        tree.directory(format!("attributes/mode/directory-{mode:o}"));
        tree.mode(format!("attributes/mode/directory-{mode:o}"), mode | 0o500);
    }
    tree.file("attributes/user", "x");
    tree.xattr("attributes/user", "user.comment", b"a comment");
    tree.xattr("attributes/user", "user.empty", b"");
    tree.xattr("attributes/user", "user.bytes", &(0..=255).collect::<Vec<u8>>());
    tree.xattr("attributes/user", &format!("user.{}", "k".repeat(250)), &random(9, 1000));
    tree.directory("attributes/directory");
    tree.xattr("attributes/directory", "user.on.a.directory", b"yes");
    tree.file("attributes/acl", "access list");
    tree.acl("attributes/acl", "u:12345:rw,g:23456:r,m::rw");
    tree.directory("attributes/acl-default");
    tree.acl("attributes/acl-default", "u:12345:rwx,d:u:12345:rwx,d:g:23456:rx,d:o::-");
    tree.file("attributes/acl-default/inherited", "inherits");
    if root() {
        tree.xattr("attributes/user", "trusted.secret", b"\x00\x01\xff");
        tree.symlink("attributes/symbolic", "nowhere");
        tree.xattr("attributes/symbolic", "trusted.on.a.link", b"yes");
        let capable = tree.file("attributes/capable", "#!/bin/true\n");
        tool(Command::new("setcap").arg("cap_net_raw,cap_net_admin+ep").arg(capable));
    }
}

/// Pipes, sockets and devices.
fn specials(tree: &Tree) {
    tree.directory("specials");
    let all = Mode::from_bits_truncate(0o640);
    mknod(&tree.at("specials/fifo"), SFlag::S_IFIFO, all, 0).unwrap();
    drop(std::os::unix::net::UnixListener::bind(short(&tree.at("specials/socket"))).unwrap());
    if root() {
        let devices =
            [("null", SFlag::S_IFCHR, 1, 3), ("loop", SFlag::S_IFBLK, 7, 77), ("big", SFlag::S_IFCHR, 511, 70_000)];
        for (name, kind, major, minor) in devices {
            mknod(&tree.at("specials").join(name), kind, all, makedev(major, minor)).unwrap_or_else(|e| {
                panic!("cannot make a device node ({e}): run as real root, not in a user namespace")
            });
        }
        tree.hard_link("specials/null-again", "specials/null");
    }
}

/// A path to the same place that fits into a socket's address (108 bytes), through this process's descriptor table.
fn short(path: &Path) -> PathBuf {
    use std::os::fd::IntoRawFd;
    let parent = fs::File::open(path.parent().unwrap()).unwrap().into_raw_fd(); // open until the test ends
    PathBuf::from(format!("/proc/self/fd/{parent}")).join(path.file_name().unwrap())
}

/// Deep directories, the longest path that one system call takes, wide directories and empty ones.
fn depths(tree: &Tree) {
    tree.file(format!("depths/deep/{}bottom", "d/".repeat(200)), "200 levels down");
    long_path(&tree.directory("depths/long"));
    for number in 0..3_000 {
        tree.file(format!("depths/wide/entry number {number}"), number.to_string());
    }
    tree.directory("depths/empty");
    tree.directory("depths/nest/of/empty/directories");
}

/// 19 directories of 200 bytes and a file of 100: even with the path of the zoo this stays below 4,096.
fn long_path(top: &Path) {
    let mut folder = Dir::open(top, OFlag::O_DIRECTORY | OFlag::O_RDONLY, Mode::empty()).unwrap();
    for _ in 0..19 {
        let name = "p".repeat(200);
        mkdirat(&folder, name.as_str(), Mode::from_bits_truncate(0o755)).unwrap();
        folder = Dir::openat(&folder, name.as_str(), OFlag::O_DIRECTORY | OFlag::O_RDONLY, Mode::empty()).unwrap();
    }
    let file =
        openat(&folder, "f".repeat(100).as_str(), OFlag::O_CREAT | OFlag::O_WRONLY, Mode::from_bits_truncate(0o644));
    nix::unistd::write(file.unwrap(), b"at the end of a long path").unwrap();
}

/// Owners that this machine does not know.
fn owners(tree: &Tree) {
    tree.file("owners/mine", "mine");
    if !root() {
        return;
    }
    for (name, uid, gid) in
        [("nobody", 65_534, 65_534), ("odd", 123_456, 654_321), ("largest", u32::MAX - 1, u32::MAX - 1)]
    {
        tree.file(format!("owners/{name}"), name);
        tree.owner(format!("owners/{name}"), uid, gid);
        tree.symlink(format!("owners/{name}-link"), "nowhere");
        tree.owner(format!("owners/{name}-link"), uid, gid);
        tree.file(format!("owners/{name}-suid"), name);
        tree.owner(format!("owners/{name}-suid"), uid, gid);
        tree.mode(format!("owners/{name}-suid"), 0o6755);
    }
    tree.directory("owners/directory");
    tree.owner("owners/directory", 1, 2);
}

/// Times before 1970, beyond 2038, and with every nanosecond.
fn times(tree: &Tree) {
    let times = [
        ("before-1970", -86_400 * 3, 123_456_789),
        ("just-before", -1, 999_999_999),
        ("zero", 0, 0),
        ("one-ns", 1_700_000_000, 1),
        ("last-ns", 1_700_000_000, 999_999_999),
        ("year-2200", 7_258_118_400, 500_000_001),
        ("year-1930", -1_262_304_000, 7),
    ];
    for (name, secs, nanos) in times {
        tree.file(format!("times/{name}"), name);
        tree.mtime(format!("times/{name}"), secs, nanos);
        tree.symlink(format!("times/{name}-link"), "nowhere");
        tree.mtime(format!("times/{name}-link"), secs, nanos);
        tree.directory(format!("times/{name}-directory"));
        tree.mtime(format!("times/{name}-directory"), secs, nanos);
    }
    tree.mtime("specials/fifo", 1_000_000_000, 5);
    tree.mtime("links/a/one", 1_000_000_001, 6);
    tree.mtime("links", 1_000_000_002, 7);
    tree.mtime("times", 1_000_000_003, 8);
    tree.mtime("", -5, 5);
}
