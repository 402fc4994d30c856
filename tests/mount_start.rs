//! Ways to start a mount: `mount`, fstab, a service manager, an unprivileged user; and how the mount reports what it
//! does.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use bygone_tests::compare;
use bygone_tests::program::PASSPHRASE;
use bygone_tests::program::Site;
use bygone_tests::program::is_mounted;
use bygone_tests::program::wait_until;
use bygone_tests::root;
use bygone_tests::tool;
use bygone_tests::tree::Tree;
use bygone_tests::tree::random;

use crate::site::new_site;
use crate::site::programs;

/// A machine with one snapshot of a small tree.
fn with_snapshot() -> (Site, Tree) {
    let site = new_site();
    let tree = Tree::new(&site.at("source"));
    tree.file("file", "content");
    tree.file("big", random(1, 3 << 20));
    tree.xattr("file", "user.comment", b"a comment");
    site.backup(tree.top());
    (site, tree)
}

/// Runs `script` (bash) in a mount namespace of its own, with our program linked as `/sbin/mount.fuse.bygone`, and
/// returns its output. `$point` is a mount point, `$source` the tree, `$options` the options for fstab.
fn as_mount_finds_us(site: &Site, tree: &Tree, script: &str) -> String {
    fs::create_dir_all(site.at("mnt")).unwrap();
    fs::create_dir_all(site.at("sbin")).unwrap();
    fs::write(site.at("passphrase"), PASSPHRASE).unwrap();
    fs::set_permissions(site.at("passphrase"), fs::Permissions::from_mode(0o600)).unwrap();
    // Links to everything in /sbin, plus our program.
    let prepared = "set -euo pipefail; sbin=$(readlink -f /sbin)
        mount --bind $sbin $site/sbin; mount -t tmpfs none $sbin; cp -as $site/sbin/. $sbin/
        ln -s $program $sbin/mount.fuse.bygone
        point=$site/mnt options=passphrase-file=$site/passphrase,catalog_dir=$site/state/bygone,noauto,_netdev";
    let mut command = Command::new("unshare");
    command.args(["--mount", "bash", "-c", &format!("{prepared}\n{script}")]).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("source", tree.top());
    command
        .env("site", site.at("home").parent().unwrap())
        .env("repository", site.repository())
        .env("program", programs().mount);
    String::from_utf8(tool(&mut command)).unwrap()
}

#[test]
fn mount_and_fstab_mount_it() {
    if !root() {
        return;
    }
    let (site, tree) = with_snapshot();
    let by_mount = "mount -t fuse.bygone -o $options $repository $point
        cat $point/latest$source/file; grep \" $point \" /proc/self/mountinfo | grep -c ' fuse.bygone '; umount $point";
    assert_eq!(as_mount_finds_us(&site, &tree, by_mount), "content1\n", "and nothing else is printed");
    let by_fstab = "echo $repository $point fuse.bygone $options,x-systemd.automount 0 0 > $site/fstab
        mount --fstab $site/fstab $point; cat $point/latest$source/file; umount $point";
    assert_eq!(as_mount_finds_us(&site, &tree, by_fstab), "content");
    let refused = "mount -t fuse.bygone -o $options,passphrase-file=$site/none $repository $point || echo $?
        mount -t fuse.bygone -o $options,uid=5 $repository $point || echo $?
        mount -t fuse.bygone -o $options $site/nowhere $point || echo $?";
    assert_eq!(as_mount_finds_us(&site, &tree, refused), "1\n1\n32\n", "as mount(8) counts");
}

#[test]
fn a_mount_reports_when_it_is_ready_and_when_it_ends() {
    if !root() {
        return;
    }
    let (site, _tree) = with_snapshot();
    let (point, pid_file, ready) = (site.at("mnt"), site.at("run.pid"), site.at("ready"));
    fs::create_dir(&point).unwrap();
    let systemd = UnixDatagram::bind(site.at("notify")).unwrap();
    let heard = || {
        let mut buffer = [0; 4_096];
        let length = systemd.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    for foreground in [true, false] {
        let line = "exec 3>$READY; exec $PROGRAM --ready-fd 3 --pid-file run.pid $FOREGROUND mnt";
        let mut command = site.command(Path::new("/bin/sh"), ["-c", line]);
        command.env("READY", &ready).env("PROGRAM", programs().mount).env("NOTIFY_SOCKET", site.at("notify"));
        command.env("FOREGROUND", if foreground { "--foreground" } else { "--quiet" });
        let started = site.start(command);
        let outcome = heard();
        let lines: Vec<_> = outcome.lines().collect();
        assert_eq!(lines[0], "READY=1");
        assert!(is_mounted(&point), "it is there when it says so");
        let pid = fs::read_to_string(&pid_file).unwrap();
        assert_eq!(lines[1], format!("MAINPID={}", pid.trim()));
        assert!(!foreground || pid.trim() == started.child.id().to_string());
        assert!(fs::read_to_string(&ready).unwrap().starts_with("mounted "));
        tool(Command::new("kill").arg(pid.trim()));
        assert!(heard().starts_with("STOPPING=1\n"));
        started.end().ok();
        wait_until("the file with the process number is gone", || !pid_file.exists());
        wait_until("it is unmounted", || !is_mounted(&point));
    }
    let refused = site.bygone_mount([OsStr::new("--ready-fd"), OsStr::new("99"), point.as_os_str()]);
    refused.ended_with(2).complains_of(&["99"]);
    let refused = site.bygone_mount([OsStr::new("--pid-file"), OsStr::new("no/pid"), point.as_os_str()]);
    refused.ended_with(1).complains_of(&["no/pid"]);
    assert!(!is_mounted(&point), "a mount that cannot do all that was asked for is not left behind");
}

#[test]
fn a_live_mount_reports_its_statistics() {
    if !root() {
        return;
    }
    let (site, tree) = with_snapshot();
    let stats_file = site.at("stats.json");
    let mounted = site.mount("mnt", &["--stats-file", stats_file.to_str().unwrap()]);
    let inside = mounted.latest(tree.top());
    fs::read(inside.join("big")).unwrap();
    let stats = mounted.stats(&site);
    assert!(stats["requests"]["lookup"].as_u64() > Some(0), "{stats}");
    assert!(stats["gets"].as_u64() > Some(0) && stats["frames_made"].as_u64() >= Some(24), "{stats}");
    assert_eq!((&stats["errors"], &stats["snapshots"]), (&0.into(), &1.into()), "{stats}");
    assert_eq!(stats["pid"], mounted.pid());
    let for_people = site.bygone_mount([OsStr::new("--stats"), mounted.point().as_os_str()]).ok();
    assert!(for_people.text().contains("\nfetched "), "{for_people}");
    wait_until("the file has the numbers too", || {
        let now: serde_json::Value = serde_json::from_slice(&fs::read(&stats_file).unwrap()).unwrap();
        now["gets"] == stats["gets"]
    });
    let listed = compare::by_getfattr(mounted.point());
    assert!(!String::from_utf8_lossy(&listed.concat()).contains("user.bygone"), "what copies attributes copies it");
    site.bygone_mount([OsStr::new("--stats"), tree.top().as_os_str()]).ended_with(1).complains_of(&["no repository"]);
    mounted.unmount().ok();
    site.bygone_mount([OsStr::new("--stats"), site.at("mnt").as_os_str()]).ended_with(1).complains_of(&["mnt"]);
}

#[test]
fn looking_around_asks_the_store_for_nothing() {
    if !root() {
        return;
    }
    let (site, tree) = with_snapshot();
    let mounted = site.mount("mnt", &[]);
    let inside = mounted.latest(tree.top());
    for tool_line in [&["find"][..], &["ls", "-lR"], &["du", "-a"], &["stat", "-f"], &["getfattr", "-Rd"]] {
        tool(Command::new(tool_line[0]).args(&tool_line[1..]).arg(&inside));
    }
    assert_eq!(mounted.stats(&site)["gets"], 0);
    mounted.unmount().ok();
}

#[test]
fn many_readers_of_one_file_fetch_it_once() {
    if !root() {
        return;
    }
    let (site, tree) = with_snapshot();
    let mounted = site.mount("mnt", &[]);
    let path = mounted.latest(&tree.at("big"));
    let wanted = fs::read(tree.at("big")).unwrap();
    std::thread::scope(|scope| {
        (0..16).for_each(|_| drop(scope.spawn(|| assert!(fs::read(&path).unwrap() == wanted))));
    });
    let stats = mounted.stats(&site);
    let stored: u64 = ["data", "meta"].iter().flat_map(|folder| site.objects(folder).into_values()).sum();
    assert!(stats["fetched_bytes"].as_u64().unwrap() <= stored, "{stats}: more than the {stored} that there are");
    mounted.unmount().ok();
}

#[test]
fn a_user_without_rights_mounts_and_unmounts() {
    if !root() {
        return;
    }
    let (site, tree) = with_snapshot();
    fs::create_dir(site.at("mnt")).unwrap();
    // The build may be readable by root only, and so may /dev/fuse.
    fs::copy(programs().mount, site.at("bygone-mount")).unwrap();
    tool(Command::new("mknod").arg(site.at("fuse")).args(["c", "10", "229"]));
    tool(Command::new("chown").args(["-R", "65534:65534"]).arg(site.at("")));
    let script = "set -euo pipefail; mount --bind fuse /dev/fuse
        as_nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups \"$@\"; }
        as_nobody ./bygone-mount --quiet --pid-file pid mnt
        as_nobody cat mnt/latest$source/file
        if cat mnt/latest$source/file 2>/dev/null; then echo 'not even root may look'; fi
        kill $(cat pid); while [[ -e pid ]]; do sleep 0.1; done
        if grep -q \" $PWD/mnt \" /proc/self/mountinfo; then echo 'it is still mounted'; fi";
    let run = || {
        let mut command = site.command(Path::new("unshare"), ["--mount", "bash", "-c", script]);
        command.env("source", tree.top());
        site.run(command)
    };
    assert_eq!(run().ok().text(), "content");
    tool(Command::new("chmod").arg("600").arg(site.at("fuse")));
    tool(Command::new("chown").arg("root").arg(site.at("fuse")));
    run().ended_with(1).complains_of(&["/dev/fuse is closed to this user"]);
}
