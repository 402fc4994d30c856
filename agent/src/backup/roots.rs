//! The requested paths, and the tree of directories that leads to them.
//!
//! A path appears in the snapshot under its absolute name. It is made absolute as text: `..` removes the component
//! before it, and a link given by name is backed up as a link. Directories on the way are in the snapshot with their
//! metadata, but with no entries beside the way. Links among them are followed, because the user chose that way. A path
//! below another requested path adds nothing.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::fcntl::open;
use nix::fcntl::openat;
use nix::sys::stat::Mode;

use bygone_core::entry::Name;
use bygone_core::entry::printable;
use bygone_core::error::Error;
use bygone_core::error::Result;
use bygone_core::limits;

use crate::backup::stat::Stat;

/// The requested paths of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    paths: Vec<Vec<Name>>,
}

/// A requested path, or a directory that leads to one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Way {
    /// True if this path is requested as a whole; then there are no children.
    pub(super) asked: bool,
    pub(super) children: BTreeMap<Name, Arc<Way>>,
}

/// The state of the paths on disk.
pub(super) struct Found {
    pub(super) way: Way,
    /// The file systems of the paths.
    pub(super) devices: HashSet<u64>,
    /// The paths that cannot be reached, and why.
    pub(super) lost: Vec<(Vec<u8>, Errno)>,
}

impl Roots {
    /// From the paths that the user typed in `directory`.
    pub fn new(directory: &Path, paths: &[PathBuf]) -> Result<Roots> {
        let mut roots = Roots { paths: Vec::new() };
        for path in paths {
            let names = absolute(directory, path)?;
            if !roots.paths.contains(&names) {
                roots.paths.push(names);
            }
        }
        let found = roots.paths.len() as u64;
        match roots.paths.len() {
            0 => Err(Error::Invalid { what: "nothing to back up: name at least one path".into() }),
            1..=limits::SNAPSHOT_PATHS_MAX => Ok(roots),
            _ => Err(Error::Limit { what: "the number of paths", found, max: limits::SNAPSHOT_PATHS_MAX as u64 }),
        }
    }

    /// The absolute paths in raw bytes, in the order given.
    pub fn paths(&self) -> Vec<Vec<u8>> {
        self.paths.iter().map(|names| joined(names)).collect()
    }

    /// Checks which paths exist; fails if none does.
    pub(super) fn look(&self) -> Result<Found> {
        let mut found = Found { way: Way::default(), devices: HashSet::new(), lost: Vec::new() };
        for names in &self.paths {
            match stat(names) {
                Ok(stat) => {
                    found.way.add(names);
                    found.devices.insert(stat.device);
                }
                Err(errno) => found.lost.push((joined(names), errno)),
            }
        }
        match found.lost.as_slice() {
            [(path, errno), ..] if found.lost.len() == self.paths.len() => {
                let path = printable(path);
                Err(match errno {
                    Errno::ENOENT | Errno::ENOTDIR => {
                        Error::NotFound { what: format!("the path {path}"), hint: "there is nothing to back up" }
                    }
                    errno => Error::Local { doing: "read", path, source: (*errno).into() },
                })
            }
            _ => Ok(found),
        }
    }
}

impl Way {
    fn add(&mut self, names: &[Name]) {
        let mut at = self;
        for name in names {
            if at.asked {
                return;
            }
            at = Arc::make_mut(at.children.entry(name.clone()).or_default());
        }
        *at = Way { asked: true, children: BTreeMap::new() };
    }
}

/// The components from the root of `path`, which was typed in `directory`.
fn absolute(directory: &Path, path: &Path) -> Result<Vec<Name>> {
    let (directory, path) = (directory.as_os_str().as_bytes(), path.as_os_str().as_bytes());
    if path.is_empty() {
        return Err(Error::Invalid { what: "a path to back up is empty: write `.` for the current directory".into() });
    }
    let start = if path.first() == Some(&b'/') { &b""[..] } else { directory };
    let mut names = Vec::new();
    for component in start.split(|b| *b == b'/').chain(path.split(|b| *b == b'/')) {
        match component {
            b"" | b"." => {}
            b".." => {
                names.pop();
            }
            component => names.push(Name::new(component).map_err(|_| Error::Invalid {
                what: format!("{} has a component that is longer than 255 bytes", printable(path)),
            })?),
        }
    }
    let bytes = names.iter().map(|name| name.as_bytes().len() as u64 + 1).sum();
    if bytes > limits::PATH_BYTES_MAX as u64 {
        let max = limits::PATH_BYTES_MAX as u64;
        return Err(Error::Limit { what: "the length of a path to back up", found: bytes, max });
    }
    Ok(names)
}

fn joined(names: &[Name]) -> Vec<u8> {
    if names.is_empty() {
        return b"/".to_vec();
    }
    names.iter().flat_map(|name| [b"/", name.as_bytes()].concat()).collect()
}

/// What is at a path of any length.
fn stat(names: &[Name]) -> std::result::Result<Stat, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut at: OwnedFd = open("/", flags, Mode::empty())?;
    let Some((last, way)) = names.split_last() else { return Stat::of_fd(at.as_fd()) };
    for name in way {
        at = openat(at.as_fd(), name.as_bytes(), flags, Mode::empty())?;
    }
    Stat::of_child(at.as_fd(), last.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots(paths: &[&str]) -> Roots {
        let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
        Roots::new(Path::new("/home/me"), &paths).unwrap()
    }

    fn drawn(way: &Way) -> String {
        let children = way.children.iter().map(|(name, way)| printable(name.as_bytes()) + &drawn(way));
        let children: Vec<String> = children.collect();
        if way.asked { "!".into() } else { format!("({})", children.join(" ")) }
    }

    fn way(paths: &[&str]) -> String {
        let mut way = Way::default();
        roots(paths).paths.iter().for_each(|names| way.add(names));
        drawn(&way)
    }

    #[test]
    fn paths_become_absolute_by_their_letters() {
        let table = [
            ("x", "/home/me/x"),
            (".", "/home/me"),
            ("../you/./y/", "/home/you/y"),
            ("/a//b/../c", "/a/c"),
            ("/../..", "/"),
            ("../../../..", "/"),
        ];
        for (typed, expected) in table {
            assert_eq!(roots(&[typed]).paths(), [expected.as_bytes()], "{typed}");
        }
    }

    #[test]
    fn overlapping_paths_merge_in_any_order() {
        assert_eq!(way(&["/a", "/a/b"]), "(a!)");
        assert_eq!(way(&["/a/b", "/a"]), "(a!)");
        assert_eq!(way(&["/a/b/c", "/a/b", "/d", "/a/e"]), "(a(b! e!) d!)");
        assert_eq!(way(&["/a/b", "/"]), "!");
        assert_eq!(way(&["/", "/a/b"]), "!");
        assert_eq!(way(&["/ab", "/a"]), "(a! ab!)", "a common prefix of names is no common directory");
        assert_eq!(roots(&["x", "/home/me/x"]).paths().len(), 1, "the same path twice is one path");
    }

    #[test]
    fn nonsense_is_refused_before_anything_happens() {
        assert!(Roots::new(Path::new("/"), &[]).is_err());
        assert!(Roots::new(Path::new("/"), &[PathBuf::new()]).is_err());
        assert!(Roots::new(Path::new("/"), &["x".repeat(256).into()]).is_err());
        assert!(Roots::new(Path::new("/"), &["x/".repeat(40_000).into()]).is_err());
    }

    #[test]
    fn a_missing_path_is_lost_and_only_missing_paths_are_an_error() {
        let found = roots(&["/nowhere/at/all", "/"]).look().unwrap();
        assert_eq!(found.lost, [(b"/nowhere/at/all".to_vec(), Errno::ENOENT)]);
        assert_eq!(drawn(&found.way), "!");
        assert!(matches!(roots(&["/nowhere", "/dev/null/x"]).look(), Err(Error::NotFound { .. })));
    }
}
