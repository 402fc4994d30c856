//! The requested paths, and the tree of directories that leads to them.
//!
//! A path appears in the snapshot under its absolute name. It is made absolute as text: `..` removes the component
//! before it. A link given by name is backed up as a link, and with a slash at its end as the directory that it leads to.
//! Directories on the way are in the snapshot with their metadata, but with no entries beside the way. Links among them
//! are followed, because the user chose that way.
//!
//! A path below another requested path is walked to, whatever the rules leave out on the way. But links are not followed
//! there: the snapshot has the link. So a path that leads through one is stored under its real name, if the other path
//! does not have it anyway ([`Roots::settle`]).

use std::collections::BTreeMap;
use std::ffi::CString;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::fcntl::open;
use nix::fcntl::openat;
use nix::sys::stat::Mode;

use bygone_core::diagnosis::Diagnosis;
use bygone_core::entry::FileType;
use bygone_core::entry::Name;
use bygone_core::entry::printable;
use bygone_core::error::Error;
use bygone_core::error::Result;
use bygone_core::limits;

use crate::backup::before::LOST_AND_FOUND;
use crate::backup::before::Parent;
use crate::backup::stat::Stat;

/// The requested paths of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    roots: Vec<Root>,
    /// What the user should know about some of the paths.
    notes: Vec<(Vec<u8>, String)>,
}

/// A requested path.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Root {
    names: Vec<Name>,
    /// A link in its place means the directory that it leads to.
    follow: bool,
}

/// A requested path, or a directory that leads to one, or both.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Way {
    /// True if this path is requested as a whole.
    pub(super) asked: bool,
    /// A link in its place means the directory that it leads to.
    pub(super) follow: bool,
    /// Other requested paths below it, and what leads to them.
    pub(super) children: BTreeMap<Name, Arc<Way>>,
}

/// The state of the paths on disk.
pub(super) struct Found {
    pub(super) way: Way,
    /// The paths that cannot be reached, and why.
    pub(super) lost: Vec<(Vec<u8>, Errno)>,
    /// What the user should know about some of the paths.
    pub(super) notes: Vec<(Vec<u8>, String)>,
}

impl Roots {
    /// From the paths that the user typed in `directory`.
    pub fn new(directory: &Path, paths: &[PathBuf]) -> Result<Roots> {
        let mut roots = Roots { roots: Vec::new(), notes: Vec::new() };
        for path in paths {
            let names = absolute(directory, path)?;
            let typed = path.as_os_str().as_bytes();
            roots.add(Root { names, follow: typed.ends_with(b"/") || typed.ends_with(b"/.") });
        }
        let found = roots.roots.len() as u64;
        match roots.roots.len() {
            0 => Err(Error::Invalid { what: "nothing to back up: name at least one path".into() }),
            1..=limits::SNAPSHOT_PATHS_MAX => Ok(roots),
            _ => Err(Error::Limit { what: "the number of paths", found, max: limits::SNAPSHOT_PATHS_MAX as u64 }),
        }
    }

    fn add(&mut self, new: Root) {
        match self.roots.iter_mut().find(|root| root.names == new.names) {
            Some(root) => root.follow |= new.follow,
            None => self.roots.push(new),
        }
    }

    /// The absolute paths in raw bytes, in the order given.
    pub fn paths(&self) -> Vec<Vec<u8>> {
        self.roots.iter().map(|root| joined(&root.names)).collect()
    }

    /// Gives a path its real name if another requested path has a link where this one goes on.
    pub fn settle(self) -> Roots {
        let (diverted, straight): (Vec<Root>, Vec<Root>) =
            self.roots.iter().cloned().partition(|root| self.roots.iter().any(|other| other.diverts(root)));
        let mut settled = Roots { roots: straight, notes: self.notes };
        for root in diverted {
            // If it cannot be found, it is reported as any path that is missing.
            let Some(real) = root.real() else {
                settled.add(root);
                continue;
            };
            let named = joined(&root.names);
            let above = settled.roots.iter().find(|other| other.real().is_some_and(|other| real.starts_with(&other)));
            let note = match above {
                Some(above) => {
                    format!("this leads through a link and is stored with {}", printable(&joined(&above.names)))
                }
                None => format!("this leads through a link and is stored as {}", printable(&joined(&real))),
            };
            if above.is_none() {
                settled.add(Root { names: real, follow: false });
            }
            settled.notes.push((named, note));
        }
        settled
    }

    /// Fails if a requested directory has nothing in it now, although `parent` has something in it: its disk may not be
    /// mounted.
    pub fn check_not_emptied(&self, parent: &Parent) -> Result<()> {
        for root in &self.roots {
            if root.is_empty_directory() && parent.had_entries(&root.names)? {
                let detail = "it has nothing in it, and the snapshot before has: mount its disk, or back it up as it is \
                              with --allow-empty; no snapshot was made";
                return Err(Error::disagree(Diagnosis::SourceEmpty, printable(&joined(&root.names)), detail));
            }
        }
        Ok(())
    }

    /// Checks which paths exist; fails if none does.
    pub(super) fn look(&self) -> Result<Found> {
        let mut found = Found { way: Way::default(), lost: Vec::new(), notes: self.notes.clone() };
        for root in &self.roots {
            let path = joined(&root.names);
            match root.stat() {
                Ok(stat) => {
                    found.way.add(root);
                    if stat.file_type() == FileType::Symlink {
                        let note = format!(
                            "this is a symbolic link, and only the link is stored: write {}/ for the directory that it \
                             leads to",
                            printable(&path)
                        );
                        found.notes.push((path, note));
                    }
                }
                Err(errno) => found.lost.push((path, errno)),
            }
        }
        match found.lost.as_slice() {
            [(path, errno), ..] if found.lost.len() == self.roots.len() => {
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
    /// True if a link in its place is followed. `device` is that of the requested path that it is in, if it is in one:
    /// there the snapshot has the link.
    pub(super) fn follows(&self, device: Option<u64>) -> bool {
        if self.asked { self.follow } else { device.is_none() }
    }

    fn add(&mut self, root: &Root) {
        let mut at = self;
        for name in &root.names {
            at = Arc::make_mut(at.children.entry(name.clone()).or_default());
        }
        (at.asked, at.follow) = (true, root.follow);
    }
}

impl Root {
    /// True if the walk of this path does not come to `other`, although `other` is below it by its letters: the walk
    /// stores a link where `other` means the directory that the link leads to.
    fn diverts(&self, other: &Root) -> bool {
        if self.names.len() >= other.names.len() || !other.names.starts_with(&self.names) {
            return false;
        }
        let first = self.names.len() + usize::from(self.follow || self.names.is_empty());
        let last = other.names.len() - usize::from(!other.follow);
        let is_link = |length: usize| {
            let above = Root { names: other.names.iter().take(length).cloned().collect(), follow: false };
            above.stat().is_ok_and(|stat| stat.file_type() == FileType::Symlink)
        };
        (first..=last).any(is_link)
    }

    /// The same path without any link on the way.
    fn real(&self) -> Option<Vec<Name>> {
        let split = if self.follow { self.names.len() } else { self.names.len().saturating_sub(1) };
        let (way, last) = self.names.split_at_checked(split)?;
        let way = Path::new(OsStr::from_bytes(&joined(way))).canonicalize().ok()?;
        let names = absolute(Path::new("/"), &way).ok()?;
        Some(names.into_iter().chain(last.iter().cloned()).collect())
    }

    /// True for a directory that can be listed and has nothing in it.
    fn is_empty_directory(&self) -> bool {
        let Ok(names) = self.listed() else { return false };
        names.iter().all(|name| matches!(name.to_bytes(), b"." | b".." | LOST_AND_FOUND))
    }

    fn listed(&self) -> std::result::Result<Vec<CString>, Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let last = if self.follow { flags } else { flags | OFlag::O_NOFOLLOW };
        let mut at: OwnedFd = open("/", flags, Mode::empty())?;
        for (number, name) in (1..).zip(&self.names) {
            let flags = if number == self.names.len() { last } else { flags };
            at = openat(at.as_fd(), name.as_bytes(), flags, Mode::empty())?;
        }
        // Four names are enough to tell.
        Dir::from_fd(at)?.iter().take(4).map(|item| item.map(|item| item.file_name().to_owned())).collect()
    }

    /// What is at a path of any length.
    fn stat(&self) -> std::result::Result<Stat, Errno> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut at: OwnedFd = open("/", flags, Mode::empty())?;
        let Some((last, way)) = self.names.split_last() else { return Stat::of_fd(at.as_fd()) };
        for name in way {
            at = openat(at.as_fd(), name.as_bytes(), flags, Mode::empty())?;
        }
        if !self.follow {
            return Stat::of_child(at.as_fd(), last.as_bytes());
        }
        let stat = Stat::of_child_followed(at.as_fd(), last.as_bytes())?;
        if stat.file_type() == FileType::Directory { Ok(stat) } else { Err(Errno::ENOTDIR) }
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
        let mark = if way.asked { "!" } else { "" };
        if children.is_empty() { mark.into() } else { format!("{mark}({})", children.join(" ")) }
    }

    fn way(paths: &[&str]) -> String {
        let mut way = Way::default();
        roots(paths).roots.iter().for_each(|root| way.add(root));
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
        assert_eq!(way(&["/a", "/a/b"]), "(a!(b!))");
        assert_eq!(way(&["/a/b", "/a"]), "(a!(b!))");
        assert_eq!(way(&["/a/b/c", "/a/b", "/d", "/a/e"]), "(a(b!(c!) e!) d!)");
        assert_eq!(way(&["/a/b", "/"]), "!(a(b!))");
        assert_eq!(way(&["/", "/a/b"]), "!(a(b!))");
        assert_eq!(way(&["/ab", "/a"]), "(a! ab!)", "a common prefix of names is no common directory");
        assert_eq!(roots(&["x", "/home/me/x"]).paths().len(), 1, "the same path twice is one path");
    }

    #[test]
    fn a_path_behind_a_link_gets_its_real_name() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().canonicalize().unwrap();
        for name in ["home/data/work", "away/work"] {
            std::fs::create_dir_all(top.join(name)).unwrap();
        }
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(top.join(to), top.join(name)).unwrap();
        link("home/data", "home/inner");
        link("away", "home/outer");
        link("home", "way");
        let settled = |paths: &[&str]| {
            let paths: Vec<PathBuf> = paths.iter().map(|path| top.join(path)).collect();
            let settled = Roots::new(&top, &paths).unwrap().settle();
            let below = settled.paths().into_iter().map(|path| String::from_utf8(path).unwrap());
            let top = format!("{}/", top.display());
            (below.map(|path| path.strip_prefix(&top).unwrap().to_owned()).collect::<Vec<_>>(), settled.notes.len())
        };
        let of = |paths: &[&str], notes| (paths.iter().map(ToString::to_string).collect::<Vec<_>>(), notes);
        assert_eq!(settled(&["home", "home/inner/work"]), of(&["home"], 1), "the walk comes to home/data/work");
        assert_eq!(settled(&["home/outer/work", "home"]), of(&["home", "away/work"], 1));
        assert_eq!(settled(&["home", "home/outer/"]), of(&["home", "away"], 1));
        assert_eq!(settled(&["home", "home/outer"]), of(&["home", "home/outer"], 0), "the link itself");
        assert_eq!(settled(&["way", "way/data"]), of(&["way", "home/data"], 1), "a link as a path has nothing in it");
        assert_eq!(settled(&["way/", "way/data"]), of(&["way", "way/data"], 0));
        assert_eq!(settled(&["way/data", "home/data"]), of(&["way/data", "home/data"], 0));
        assert_eq!(settled(&["home/outer/work"]), of(&["home/outer/work"], 0), "the user chose this way");
        assert_eq!(settled(&["home", "home/outer/none"]), of(&["home", "away/none"], 1));
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
