//! The mount point: whether a directory is suitable, what the kernel has mounted there, and how to unmount exactly
//! that.
//!
//! A mount is identified by its number in `/proc/self/mountinfo` and by its device, and not by its path: it may be
//! unmounted, covered by another mount, or reached through a renamed directory, and mounts of others must never be
//! unmounted. The number alone is not enough, because the kernel gives it to another mount when ours is gone. The
//! device is ours as long as we serve it.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use nix::errno::Errno;
use nix::mount::MntFlags;
use nix::mount::umount2;

use bygone_cli::exit::Failure;

/// The kernel's name for our type of file system.
pub const FILE_SYSTEM_TYPE: &str = "fuse.bygone";

/// The most processes that are named as users of a mount.
const HOLDERS_MAX: usize = 5;

/// A mount, as described in `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    id: u64,
    /// `major:minor` of its device.
    pub device: String,
    point: PathBuf,
    kind: String,
}

/// How an attempt to unmount ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Unmounted {
    /// The mount is gone.
    Gone,
    /// The mount is in use.
    Busy,
    /// Another mount covers it.
    Covered,
}

/// Checks that `path` is an empty directory, and that it neither contains nor lies in one of `apart`: the repository
/// and its other directories, because a mount that had to read itself would wait for itself. Returns the full path.
pub fn check(path: &Path, apart: &[PathBuf]) -> Result<PathBuf, Failure> {
    let shown = path.display();
    let fail = |text: String| Err(Failure::Refused(text));
    let point = match fs::canonicalize(path).and_then(|point| fs::metadata(&point).map(|about| (point, about))) {
        Ok((point, about)) if about.is_dir() => point,
        Ok(_) => return fail(format!("the mount point {shown} is not a directory")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return fail(format!("the mount point {shown} does not exist: make it with `mkdir -p {shown}`"));
        }
        Err(error) if is_dead(&error) => return fail(died(path)),
        Err(error) => return fail(format!("cannot look at the mount point {shown}: {error}")),
    };
    if top(&point)?.is_some_and(|mount| mount.kind == FILE_SYSTEM_TYPE) {
        // The kernel may still open a dead mount from its caches.
        return fail(match fs::read_dir(&point).and_then(|mut entries| entries.next().transpose()) {
            Err(error) if is_dead(&error) => died(path),
            _ => format!("a repository is already mounted at {shown}: unmount it with `umount {shown}`"),
        });
    }
    for other in apart.iter().filter_map(|other| fs::canonicalize(other).ok()) {
        if point.starts_with(&other) || other.starts_with(&point) {
            let other = other.display();
            return fail(format!(
                "the mount point {shown} and the repository's {other} overlap: choose another directory"
            ));
        }
    }
    match fs::read_dir(&point).map(|mut entries| entries.next().is_some()) {
        Ok(false) => Ok(point),
        Ok(true) => fail(format!("the mount point {shown} is not empty: choose an empty directory")),
        Err(error) => fail(format!("cannot read the mount point {shown}: {error}")),
    }
}

/// True for the kernel's answer when the process that served a mount has died.
fn is_dead(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ENOTCONN as i32)
}

fn died(path: &Path) -> String {
    let path = path.display();
    format!("the process of the mount at {path} has died: remove the mount with `umount {path}`")
}

/// The visible mount at `point`, which covers all others there.
pub fn top(point: &Path) -> Result<Option<Mount>, Failure> {
    Ok(all()?.into_iter().rfind(|mount| mount.point == point))
}

/// All mounts, in the order in which they were made.
fn all() -> Result<Vec<Mount>, Failure> {
    let failed = |error: io::Error| Failure::Refused(format!("cannot read /proc/self/mountinfo: {error}"));
    let text = fs::read("/proc/self/mountinfo").map_err(failed)?;
    Ok(text.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

impl Mount {
    /// Unmounts this mount. If `lazily`, it is detached at once even while in use.
    pub fn unmount(&self, lazily: bool) -> Result<Unmounted, Failure> {
        let mounts = all()?;
        let Some(now) = mounts.iter().find(|mount| self.is_same(mount)) else { return Ok(Unmounted::Gone) };
        if mounts.iter().rfind(|mount| mount.point == now.point) != Some(now) {
            return Ok(Unmounted::Covered);
        }
        let detach = if lazily { MntFlags::MNT_DETACH } else { MntFlags::empty() };
        match umount2(&now.point, detach | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(Errno::EINVAL) => Ok(Unmounted::Gone),
            Err(Errno::EBUSY) => Ok(Unmounted::Busy),
            Err(Errno::EPERM) => now.fusermount(lazily),
            Err(errno) => Err(Failure::Refused(format!("cannot unmount {}: {errno}", now.point.display()))),
        }
    }

    /// True if both are the same mount, even if its path has changed.
    fn is_same(&self, other: &Mount) -> bool {
        (self.id, &self.device, &self.kind) == (other.id, &other.device, &other.kind)
    }

    /// Unmounts through the helper program that works for ordinary users.
    fn fusermount(&self, lazily: bool) -> Result<Unmounted, Failure> {
        let mut command = Command::new("fusermount3");
        command.arg("-u").args(lazily.then_some("-z")).arg("--").arg(&self.point).stdin(Stdio::null());
        let failed = |text: String| Failure::Refused(format!("cannot unmount {}: {text}", self.point.display()));
        let output = command.output().map_err(|error| failed(format!("fusermount3: {error}")))?;
        let text = String::from_utf8_lossy(&output.stderr);
        match output.status.success() {
            true => Ok(Unmounted::Gone),
            false if text.contains("busy") => Ok(Unmounted::Busy),
            false => Err(failed(text.trim().to_owned())),
        }
    }

    /// Lets the kernel read ahead up to 1 MiB at once, if we may set that. Its default is 128 KiB.
    pub fn widen_readahead(&self) {
        // This only affects speed, so a failure is not reported.
        let _ = fs::write(format!("/sys/class/bdi/{}/read_ahead_kb", self.device), "1024");
    }

    /// The processes that use this mount, as far as we may see them, as `name (pid)`.
    pub fn holders(&self) -> Vec<String> {
        let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
        let mounts = all().unwrap_or_default();
        let now = mounts.iter().find(|mount| self.is_same(mount)).unwrap_or(self);
        let own = std::process::id().to_string();
        let mut holders = Vec::new();
        for process in processes.flatten() {
            let pid = process.file_name().to_string_lossy().into_owned();
            if pid == own || !pid.bytes().all(|byte| byte.is_ascii_digit()) || !now.is_held_by(&process.path()) {
                continue;
            }
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            holders.push(format!("{} ({pid})", name.trim()));
            if holders.len() == HOLDERS_MAX {
                break;
            }
        }
        holders
    }

    fn is_held_by(&self, process: &Path) -> bool {
        let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten().map(|file| file.path());
        let maps = fs::read_dir(process.join("map_files")).into_iter().flatten().flatten().map(|map| map.path());
        let places = ["cwd", "root"].into_iter().map(|place| process.join(place));
        places.chain(files).chain(maps).any(|link| fs::read_link(link).is_ok_and(|to| to.starts_with(&self.point)))
    }
}

/// One line: `id parent major:minor root point options... - type source options`.
fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    let id = text(fields.next()?).parse().ok()?;
    let device = text(fields.nth(1)?);
    let point = PathBuf::from(std::ffi::OsStr::from_bytes(&unescape(fields.nth(1)?)));
    let kind = text(fields.skip_while(|field| *field != b"-").nth(1)?);
    Some(Mount { id, device, point, kind })
}

/// Undoes the kernel's octal escapes, such as `\040` for a space.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = (byte == b'\\').then(|| after.get(..3)).flatten();
        let code = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        plain.push(code.unwrap_or(byte));
        rest = if code.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &Path, apart: &[PathBuf]) -> String {
        check(path, apart).unwrap_err().to_string()
    }

    #[test]
    fn the_mount_point_is_empty_and_outside_the_repository() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(&path).unwrap();
            path
        };
        let (empty, repo) = (make("empty"), make("repo/data"));
        assert_eq!(check(&empty, std::slice::from_ref(&repo)).unwrap(), fs::canonicalize(&empty).unwrap());
        assert!(refusal(&dir.path().join("absent"), &[]).contains("mkdir -p"));
        assert!(refusal(dir.path(), &[]).contains("not empty"));
        assert!(refusal(&make("repo/data/inside"), std::slice::from_ref(&repo)).contains("overlap"));
        assert!(refusal(&dir.path().join("repo"), &[repo]).contains("overlap"));
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(refusal(&dir.path().join("file"), &[]).contains("not a directory"));
    }

    #[test]
    fn mounts_are_read_as_the_kernel_writes_them() {
        let line = br"36 35 0:52 / /mnt/a\040b\134 ro,nosuid,nodev master:1 shared:2 - fuse.bygone /srv/r ro,user_id=0";
        let mount = parse(line).unwrap();
        assert_eq!((mount.id, mount.device.as_str(), mount.kind.as_str()), (36, "0:52", FILE_SYSTEM_TYPE));
        assert_eq!(mount.point, Path::new("/mnt/a b\\"));
        assert_eq!(parse(b"36 35 98:0 / /mnt rw - ext3 /dev/root rw").unwrap().kind, "ext3");
        assert_eq!(parse(b"garbage"), None);
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn a_mount_that_reuses_our_number_is_not_ours() {
        let ours = parse(b"36 35 0:52 / /mnt ro - fuse.bygone /srv/r ro").unwrap();
        let moved = parse(b"36 35 0:52 / /else ro - fuse.bygone /srv/r ro").unwrap();
        assert!(ours.is_same(&ours) && ours.is_same(&moved));
        for other in [&b"36 35 0:53 / /mnt rw - tmpfs other rw"[..], b"37 35 0:52 / /mnt ro - fuse.bygone /srv/r ro"] {
            assert!(!ours.is_same(&parse(other).unwrap()));
        }
    }

    #[test]
    fn the_root_is_a_mount_and_a_fresh_directory_is_not() {
        assert!(top(Path::new("/")).unwrap().is_some());
        assert_eq!(top(tempfile::tempdir().unwrap().path()).unwrap(), None);
    }
}
