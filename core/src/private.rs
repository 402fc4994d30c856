//! Directories and files that only their owner may enter and read, whatever the umask.
//!
//! What bygone keeps on a machine shows names and contents of the user's files in clear, and a lock that others can open
//! is a lock that they can hold. So everything is created closed, and what an earlier bygone left open is closed when it
//! is opened. Something of another owner stays as it is: closing it is not ours to do, nor could we.

use std::fs;
use std::fs::DirBuilder;
use std::fs::File;
use std::fs::OpenOptions;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The permissions of a directory.
const DIRECTORY_MODE: u32 = 0o700;
/// The permissions of a file.
const FILE_MODE: u32 = 0o600;
/// What others than the owner may do.
const OTHERS: u32 = 0o077;

/// Makes a directory and those above it that are missing, and closes it to others if it exists.
pub fn directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        close(path);
        return Ok(());
    }
    if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty() && !above.exists()) {
        directory(above)?;
    }
    match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        // The umask may have taken something away even from the owner.
        done => done.and_then(|()| fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE))),
    }
}

/// Options that create files only for their owner. They neither create nor truncate by themselves.
pub fn file_options() -> OpenOptions {
    let mut options = File::options();
    options.read(true).write(true).mode(FILE_MODE);
    options
}

/// Opens a file for reading and writing, creates it if it is missing, and closes it to others.
pub fn file(path: &Path) -> io::Result<File> {
    let file = file_options().create(true).truncate(false).open(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o7777;
    if mode != FILE_MODE {
        // It may belong to somebody else.
        let _ = file.set_permissions(Permissions::from_mode(FILE_MODE));
    }
    Ok(file)
}

/// Closes a file or directory to others, if it is ours.
pub fn close(path: &Path) {
    let Ok(mode) = path.metadata().map(|metadata| metadata.permissions().mode()) else { return };
    if mode & OTHERS != 0 {
        // It may belong to somebody else, or the file system may be read-only.
        let _ = fs::set_permissions(path, Permissions::from_mode(mode & 0o7777 & !OTHERS));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn what_is_made_is_closed_and_what_is_open_is_closed() {
        let top = tempfile::tempdir().unwrap();
        let deep = top.path().join("a/b/c");
        directory(&deep).unwrap();
        for name in ["a", "a/b", "a/b/c"] {
            assert_eq!(mode(&top.path().join(name)), 0o700, "{name}");
        }
        fs::set_permissions(&deep, Permissions::from_mode(0o2777)).unwrap();
        directory(&deep).unwrap();
        assert_eq!(mode(&deep), 0o2700);
        let file = deep.join("file");
        drop(file_options().create(true).open(&file).unwrap());
        assert_eq!(mode(&file), 0o600);
        for (open, closed) in [(0o666, 0o600), (0o444, 0o400), (0o600, 0o600)] {
            fs::set_permissions(&file, Permissions::from_mode(open)).unwrap();
            close(&file);
            assert_eq!(mode(&file), closed);
        }
        for open in [0o666, 0o604, 0o200] {
            fs::set_permissions(&file, Permissions::from_mode(open)).unwrap();
            drop(super::file(&file).unwrap());
            assert_eq!(mode(&file), 0o600);
        }
        drop(super::file(&deep.join("new")).unwrap());
        assert_eq!(mode(&deep.join("new")), 0o600);
        close(&deep.join("absent"));
        assert!(directory(&file).is_err() && directory(&file.join("below")).is_err());
    }
}
