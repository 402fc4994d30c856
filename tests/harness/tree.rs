//! Makes files for tests, each in one line, and bytes that compress or do not, the same in every run.

use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::UtimensatFlags;
use nix::sys::stat::utimensat;
use nix::sys::time::TimeSpec;

use crate::tool;

/// A directory that is being filled. All paths are relative to it.
pub struct Tree {
    top: PathBuf,
}

impl Tree {
    /// Works in `top`, which is made if it does not exist.
    pub fn new(top: &Path) -> Tree {
        fs::create_dir_all(top).unwrap();
        Tree { top: top.to_path_buf() }
    }

    /// The directory itself.
    pub fn top(&self) -> &Path {
        &self.top
    }

    /// The absolute path of `name`.
    pub fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.top.join(name)
    }

    /// Makes a file and the directories above it.
    pub fn file(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Makes a directory and those above it.
    pub fn directory(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.at(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Makes a symbolic link.
    pub fn symlink(&self, name: impl AsRef<Path>, target: impl AsRef<Path>) -> PathBuf {
        let path = self.at(name);
        std::os::unix::fs::symlink(target, &path).unwrap();
        path
    }

    /// Makes a second name for a file.
    pub fn hard_link(&self, name: impl AsRef<Path>, of: impl AsRef<Path>) {
        fs::hard_link(self.at(of), self.at(name)).unwrap();
    }

    /// Makes a file of `bytes` bytes that is a hole except for what `written` puts into it.
    pub fn sparse(&self, name: impl AsRef<Path>, bytes: u64, written: &[(u64, &[u8])]) -> PathBuf {
        let path = self.file(name, "");
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(bytes).unwrap();
        for (offset, content) in written {
            file.write_all_at(content, *offset).unwrap();
        }
        path
    }

    /// Sets the permission bits, including set-uid, set-gid and sticky.
    pub fn mode(&self, name: impl AsRef<Path>, mode: u32) {
        fs::set_permissions(self.at(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Sets owner and group of the entry itself, even of a symbolic link. Needs root.
    pub fn owner(&self, name: impl AsRef<Path>, uid: u32, gid: u32) {
        std::os::unix::fs::lchown(self.at(name), Some(uid), Some(gid)).unwrap();
    }

    /// Sets the modification time of the entry itself, even of a symbolic link.
    pub fn mtime(&self, name: impl AsRef<Path>, secs: i64, nanos: i64) {
        let time = TimeSpec::new(secs, nanos);
        utimensat(AT_FDCWD, &self.at(name), &time, &time, UtimensatFlags::NoFollowSymlink).unwrap();
    }

    /// Sets an extended attribute of the entry itself.
    pub fn xattr(&self, name: impl AsRef<Path>, key: &str, value: &[u8]) {
        let digits: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
        tool(Command::new("setfattr").args(["-h", "-n", key, "-v", &format!("0x{digits}")]).arg(self.at(name)));
    }

    /// Adds entries to an access list, as `setfacl -m` takes them.
    pub fn acl(&self, name: impl AsRef<Path>, entries: &str) {
        tool(Command::new("setfacl").args(["-m", entries]).arg(self.at(name)));
    }
}

/// `bytes` bytes that no compressor shrinks, the same for the same seed.
pub fn random(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
    };
    let mut made: Vec<u8> = std::iter::repeat_with(&mut next).take(bytes.div_ceil(8)).flatten().collect();
    made.truncate(bytes);
    made
}

/// `bytes` bytes of distinct lines that compress well.
pub fn prose(seed: u64, bytes: usize) -> Vec<u8> {
    let mut made = Vec::with_capacity(bytes + 64);
    let mut line = seed;
    while made.len() < bytes {
        line = line.wrapping_add(1);
        made.extend_from_slice(format!("line {line} of a text that says nothing new\n").as_bytes());
    }
    made.truncate(bytes);
    made
}
