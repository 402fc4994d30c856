//! Details that programs rely on and that the zoo of `mount` does not cover: listings read in odd ways, sizes of
//! attributes, access lists, locks, memory maps, programs, space, file handles.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::fcntl::FcntlArg;
use nix::fcntl::fcntl;
use nix::unistd::Whence;
use nix::unistd::lseek;

use bygone_agent::sys::directory_entries;
use bygone_tests::program::Mounted;
use bygone_tests::program::Site;
use bygone_tests::program::wait_until;
use bygone_tests::root;
use bygone_tests::tool;
use bygone_tests::tree::Tree;
use bygone_tests::tree::prose;
use bygone_tests::tree::random;

use crate::site::new_site;

/// A machine whose tree is backed up and mounted.
fn mounted(fill: impl FnOnce(&Tree)) -> (Site, Tree, Mounted) {
    let site = new_site();
    let tree = Tree::new(&site.at("source"));
    fill(&tree);
    site.backup(tree.top());
    let mounted = site.mount("mnt", &[]);
    (site, tree, mounted)
}

/// Runs a Python program with these arguments and returns what it prints.
fn python<A: AsRef<OsStr>>(program: &str, arguments: &[A]) -> String {
    String::from_utf8(tool(Command::new("python3").args(["-c", program]).args(arguments))).unwrap()
}

/// Name, kind and next position of all entries from the current position of `folder`, read `buffer_bytes` at a time.
fn entries_of(folder: &fs::File, buffer_bytes: usize) -> Vec<(Vec<u8>, u8, i64)> {
    let mut found = Vec::new();
    let mut buffer = vec![0; buffer_bytes];
    loop {
        let length = directory_entries(folder.as_fd(), &mut buffer).unwrap();
        if length == 0 {
            return found;
        }
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let position = i64::from_ne_bytes(rest[8..16].try_into().unwrap());
            let bytes = u16::from_ne_bytes(rest[16..18].try_into().unwrap());
            let name = rest[19..].split(|byte| *byte == 0).next().unwrap();
            found.push((name.to_vec(), rest[18], position));
            rest = &rest[usize::from(bytes)..];
        }
    }
}

#[test]
fn a_listing_is_whole_however_it_is_read() {
    if !root() {
        return;
    }
    let count = 5_000;
    let (_site, tree, mounted) = mounted(|tree| {
        for n in 0..count {
            match n % 10 {
                0 => drop(tree.directory(format!("d/directory {n}"))),
                1 => drop(tree.symlink(format!("d/link {n}"), "x")),
                _ => drop(tree.file(format!("d/file {n} {}", "x".repeat(n % 200)), "")),
            }
        }
    });
    let path = mounted.latest(&tree.at("d"));
    let folder = fs::File::open(&path).unwrap();
    let all = entries_of(&folder, 32 << 10);
    let names: BTreeSet<_> = all.iter().map(|(name, _, _)| name.clone()).collect();
    assert_eq!((all.len(), names.len()), (count + 2, count + 2), "every name once, with . and ..");
    for (name, kind, _) in &all {
        let about = fs::symlink_metadata(path.join(OsStr::from_bytes(name))).unwrap();
        let expected = if about.is_dir() {
            4
        } else if about.is_symlink() {
            10
        } else {
            8
        };
        assert_eq!(*kind, expected, "{}", name.escape_ascii());
    }
    lseek(&folder, 0, Whence::SeekSet).unwrap();
    assert_eq!(entries_of(&folder, 1 << 10), all, "a kilobyte at a time");
    for at in [0, 1, 2, 203, 2_500, count, count + 1] {
        lseek(&folder, all[at].2, Whence::SeekSet).unwrap();
        assert_eq!(entries_of(&folder, 700), all[at + 1..], "from position {at} on, as seekdir does");
    }
    drop(folder);
    mounted.unmount().ok();
}

#[test]
fn attributes_keep_to_the_buffer_and_name_their_absence() {
    if !root() {
        return;
    }
    let (_site, tree, mounted) = mounted(|tree| {
        tree.file("f", "x");
        tree.xattr("f", "user.ten", b"ten bytes!");
        tree.xattr("f", "user.large", &random(3, 3_000));
        tree.file("capable", "x");
        tool(Command::new("setcap").arg("cap_net_raw+ep").arg(tree.at("capable")));
    });
    let ask = "import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def get(name, size):
    buffer = ctypes.create_string_buffer(max(size, 1))
    got = libc.getxattr(sys.argv[1].encode(), name.encode(), buffer, size)
    return got if got >= 0 else os.strerror(ctypes.get_errno()).split()[0]
def names(size):
    got = libc.listxattr(sys.argv[1].encode(), ctypes.create_string_buffer(max(size, 1)), size)
    return got if got >= 0 else os.strerror(ctypes.get_errno()).split()[0]
print(get('user.ten', 0), get('user.ten', 1), get('user.ten', 9), get('user.ten', 10), get('user.ten', 4096))
print(get('user.large', 0), get('user.large', 2999), get('user.large', 3000))
print(get('user.none', 100), get('trusted.none', 100), get('security.selinux', 100))
print(names(0), names(5), names(100))";
    let outcome = python(ask, &[mounted.latest(&tree.at("f"))]);
    let expected = "10 Numerical Numerical 10 10\n3000 Numerical 3000\nNo No Operation\n20 Numerical 20\n";
    assert_eq!(outcome, expected);
    let getcap = |path: &Path| {
        let outcome = String::from_utf8(tool(Command::new("getcap").arg(path))).unwrap();
        outcome.replace(path.to_str().unwrap(), "")
    };
    assert_eq!(getcap(&mounted.latest(&tree.at("capable"))), getcap(&tree.at("capable")));
    mounted.unmount().ok();
}

/// Runs `cat` as another user.
fn cat(path: &Path, uid: u32, gid: u32) -> Option<Vec<u8>> {
    let ran = Command::new("cat").arg(path).uid(uid).gid(gid).output().unwrap();
    ran.status.success().then_some(ran.stdout)
}

#[test]
fn the_kernel_enforces_the_access_lists_that_were_backed_up() {
    if !root() {
        return;
    }
    let site = new_site();
    fs::set_permissions(site.at(""), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let tree = Tree::new(&site.at("source"));
    tree.file("plain", "for all");
    site.backup(tree.top());
    let early = site.mount("early", &[]);
    tree.file("listed", "for some");
    tree.owner("listed", 0, 2_001);
    tree.mode("listed", 0o600);
    tree.acl("listed", "u:3001:r,g:4001:r,g::-,o::-");
    site.backup(tree.top());
    let mounted = site.mount("mnt", &[]);
    for top in [tree.top().to_path_buf(), mounted.latest(tree.top())] {
        let listed = top.join("listed");
        assert_eq!(fs::metadata(&listed).unwrap().mode() & 0o777, 0o640, "the mask stands where the group's bits are");
        for (uid, gid, may) in [(3_001, 1, true), (5_001, 4_001, true), (5_001, 2_001, false), (5_001, 1, false)] {
            let read = cat(&listed, uid, gid);
            assert_eq!(read.is_some(), may, "{top:?}: user {uid}, group {gid}");
        }
        assert_eq!(cat(&top.join("plain"), 5_001, 1).unwrap(), b"for all");
    }
    wait_until("a mount from before the first list says what it does not do", || {
        early.complaint().contains("access lists")
    });
    early.unmount().ok();
    mounted.unmount().ok();
}

#[test]
fn nothing_about_a_file_can_be_written_either() {
    if !root() {
        return;
    }
    let (_site, tree, mounted) = mounted(|tree| {
        tree.file("f", "content");
        tree.xattr("f", "user.comment", b"a comment");
    });
    let inside = mounted.latest(tree.top());
    let refused = [
        "setfattr -n user.new -v x f",
        "setfattr -x user.comment f",
        "setfacl -m u:1:r f",
        "setcap cap_net_raw+ep f",
        "touch -d 2000-01-01 f",
        "touch -h -d 2000-01-01 f",
        "mkfifo new",
        "mknod new c 1 3",
        "truncate -s 0 f",
        "chattr +i f",
        "chgrp 1 f",
    ];
    for line in refused {
        let ran = Command::new("sh").args(["-c", line]).current_dir(&inside).output().unwrap();
        let printed = String::from_utf8_lossy(&ran.stderr);
        assert!(!ran.status.success(), "{line}");
        let known = ["Read-only file system", "Operation not supported", "Inappropriate ioctl", "not implemented"];
        assert!(known.iter().any(|text| printed.contains(text)), "{line}: {printed}");
        assert!(printed.contains(known[0]) || line.starts_with("chattr"), "{line}: {printed}");
    }
    assert_eq!(fs::read_to_string(inside.join("f")).unwrap(), "content");
    mounted.unmount().ok();
}

#[test]
fn programs_run_and_memory_maps_hold_the_bytes() {
    if !root() {
        return;
    }
    let large = [prose(1, 3 << 20), random(2, 2 << 20)].concat();
    let (site, tree, mounted) = mounted(|tree| {
        tree.file("large", &large);
        fs::copy(fs::canonicalize("/bin/echo").unwrap(), tree.at("program")).unwrap();
        tree.file("script", "#!/bin/sh\necho \"from a script: $1\"\n");
        tree.mode("script", 0o755);
        tool(Command::new("mknod").arg(tree.at("zero")).args(["c", "1", "5"]));
    });
    let inside = mounted.latest(tree.top());
    assert_eq!(tool(Command::new(inside.join("program")).arg("it runs")), b"it runs\n");
    assert_eq!(tool(Command::new(inside.join("script")).arg("hello")), b"from a script: hello\n");
    assert!(fs::read(inside.join("zero")).is_err(), "a device is only shown");
    let compare = "import mmap, sys
with open(sys.argv[1], 'rb') as a, open(sys.argv[2], 'rb') as b:
    m = mmap.mmap(a.fileno(), 0, prot=mmap.PROT_READ)
    want = b.read()
    assert m[-100:] == want[-100:] and m[4_000_000:4_500_000] == want[4_000_000:4_500_000] and m[:] == want
    print(len(m))";
    assert_eq!(python(compare, &[inside.join("large"), tree.at("large")]), format!("{}\n", large.len()));
    let mut dd = Command::new("dd");
    dd.arg(format!("if={}", inside.join("large").display())).args(["iflag=direct", "bs=1M", "status=none"]);
    assert!(tool(&mut dd) == large, "past the page cache, too");
    mounted.unmount().ok();

    let strict = site.mount("mnt", &["-o", "noexec"]);
    let refused = Command::new(strict.latest(&tree.at("program"))).output().unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    strict.unmount().ok();
}

#[test]
fn locks_are_kept_among_the_programs_of_this_machine() {
    if !root() {
        return;
    }
    let (_site, tree, mounted) = mounted(|tree| drop(tree.file("f", "x")));
    let path = mounted.latest(&tree.at("f"));
    let (one, two) = (fs::File::open(&path).unwrap(), fs::File::open(&path).unwrap());
    one.lock().unwrap();
    assert!(two.try_lock().is_err(), "flock");
    one.unlock().unwrap();
    two.try_lock_shared().unwrap();
    let shared = nix::libc::flock {
        l_type: nix::libc::F_RDLCK as i16,
        l_whence: nix::libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&one, FcntlArg::F_SETLK(&shared)).unwrap();
    drop((one, two));
    mounted.unmount().ok();
}

#[test]
fn df_shows_what_is_stored_and_nothing_free() {
    if !root() {
        return;
    }
    let (site, _tree, mounted) = mounted(|tree| drop(tree.file("f", random(1, 3 << 20))));
    let outcome = tool(Command::new("stat").args(["-f", "-c", "%b %f %a %s %S %l %d %c"]).arg(mounted.point()));
    let outcome = String::from_utf8(outcome).unwrap();
    let numbers: Vec<u64> = outcome.split_whitespace().map(|number| number.parse().unwrap()).collect();
    let [blocks, free, available, size, unit, name_bytes, files_free, files] = numbers[..] else { panic!("{outcome}") };
    let stored: u64 = site.objects("data").values().chain(site.objects("meta").values()).sum();
    assert_eq!((blocks, size, unit), (stored.div_ceil(4_096), 4_096, 4_096));
    assert_eq!((free, available, files_free, name_bytes), (0, 0, 0, 255));
    assert!(files >= 1);
    assert!(String::from_utf8(tool(Command::new("df").arg(mounted.point()))).unwrap().contains("100%"));
    mounted.unmount().ok();
}

#[test]
fn a_sparse_file_is_copied_as_one_without_reading_its_holes() {
    if !root() {
        return;
    }
    let (site, tree, mounted) =
        mounted(|tree| drop(tree.sparse("f", 128 << 20, &[(40 << 20, &random(1, 100_000)), (90 << 20, b"end")])));
    let copy = site.at("copy");
    tool(Command::new("cp").arg("--sparse=auto").arg(mounted.latest(&tree.at("f"))).arg(&copy));
    let about = fs::metadata(&copy).unwrap();
    assert_eq!(about.len(), 128 << 20);
    assert!(about.blocks() * 512 <= 3 << 20, "{} bytes on disk", about.blocks() * 512);
    tool(Command::new("cmp").arg(&copy).arg(tree.at("f")));
    let stats = mounted.stats(&site);
    assert!(stats["answered_bytes"].as_u64().unwrap() <= 4 << 20, "{stats}");
    mounted.unmount().ok();
}

/// Saves file handles, as an NFS server does, or opens saved ones.
const HANDLES: &str = r#"
import ctypes, errno, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("handle", ctypes.c_ubyte * 128)]
def check(result):
    if result < 0:
        print(errno.errorcode[ctypes.get_errno()])
        sys.exit()
    return result
if sys.argv[1] == "save":
    saved = []
    for path in sys.argv[3:]:
        handle, mount = Handle(bytes=128), ctypes.c_int()
        check(libc.name_to_handle_at(-100, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount), 0))
        saved.append([handle.bytes, handle.type, bytes(handle.handle).hex()])
    json.dump(saved, open(sys.argv[2], "w"))
else:
    point = os.open(sys.argv[3], os.O_RDONLY)
    for length, kind, text in json.load(open(sys.argv[2])):
        handle = Handle(bytes=length, type=kind, handle=(ctypes.c_ubyte * 128).from_buffer_copy(bytes.fromhex(text)))
        fd = check(libc.open_by_handle_at(point, ctypes.byref(handle), os.O_RDONLY))
        about = os.fstat(fd)
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            above = os.stat("..", dir_fd=fd)
            print("directory", about.st_ino, above.st_ino, ",".join(sorted(os.listdir(fd))))
            print(os.readlink(f"/proc/self/fd/{fd}").removeprefix(sys.argv[3]))
        else:
            print("file", about.st_ino, os.read(fd, 100).decode())
"#;

#[test]
fn file_handles_open_the_same_after_a_remount() {
    if !root() {
        return;
    }
    let (site, tree, mounted) = mounted(|tree| {
        tree.file("a/b/c/file", "in the depth");
        tree.file("a/b/other", "x");
    });
    let saved = site.at("handles");
    let run = |mode: &str, paths: &[&Path]| {
        let mut command = Command::new("python3");
        command.args(["-c", HANDLES, mode]).arg(&saved).args(paths);
        String::from_utf8(tool(&mut command)).unwrap()
    };
    let snapshot = fs::read_dir(mounted.point().join("snapshots")).unwrap().next().unwrap().unwrap().path();
    let inside = |name: &str| snapshot.join(tree.at(name).strip_prefix("/").unwrap());
    let (file, folder) = (inside("a/b/c/file"), inside("a/b"));
    run("save", &[&file, &folder, &snapshot, &mounted.point().join("snapshots"), mounted.point()]);
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    let name = snapshot.file_name().unwrap().to_str().unwrap();
    let expected = [
        format!("file {} in the depth", inode(&file)),
        format!("directory {} {} c,other", inode(&folder), inode(&inside("a"))),
        format!("/snapshots/{name}{}", tree.at("a/b").display()),
        format!("directory {} {} {}", inode(&snapshot), inode(&mounted.point().join("snapshots")), top_name(&tree)),
        format!("/snapshots/{name}"),
        format!("directory {} {} {name}", inode(&mounted.point().join("snapshots")), inode(mounted.point())),
        "/snapshots".to_owned(),
    ];
    mounted.unmount().ok();

    let again = site.mount("mnt", &[]);
    let outcome = run("open", &[again.point()]);
    let lines: Vec<_> = outcome.lines().collect();
    assert_eq!(lines[..expected.len()], expected, "the mount is as fresh as before any access");
    again.unmount().ok();

    // A rebuilt catalog numbers everything anew: an old handle must not lead to another file.
    fs::remove_dir_all(site.catalogs()).unwrap();
    site.bygone(["recover"]).ok();
    let rebuilt = site.mount("mnt", &[]);
    assert_eq!(run("open", &[rebuilt.point()]), "ESTALE\n");
    rebuilt.unmount().ok();
}

/// The first component of the tree's path: what is in the root of its snapshot.
fn top_name(tree: &Tree) -> String {
    tree.top().components().nth(1).unwrap().as_os_str().to_str().unwrap().to_owned()
}
