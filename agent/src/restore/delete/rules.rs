//! What `--delete` must leave where it is, as the snapshot tells.

use std::ffi::CString;
use std::fs::metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use bygone_core::error::Error;
use bygone_core::error::Result;
use bygone_core::facts::RunRules;
use bygone_core::snapshot::Snapshot;

use crate::exclude::Excludes;
use crate::exclude::PathState;
use crate::restore::directories::Identity;
use crate::restore::directories::Place;

/// The file that marks a cache. A backup looks into it; here its name is enough, because keeping too much does no harm.
const CACHE_TAG: &[u8] = b"CACHEDIR.TAG";
/// The object that every repository has at its top.
const REPOSITORY_MARK: &[u8] = b"bygone.json";

/// What a restore may delete: below the paths of a backup, without what that backup left out.
#[derive(Debug, Clone)]
pub struct Deletion {
    /// The paths that were backed up, as paths in the snapshot; empty for the root.
    sources: Vec<Vec<u8>>,
    excludes: Excludes,
    rules: RunRules,
    own: Vec<Identity>,
}

/// How far the rules reach in one directory of the snapshot.
#[derive(Debug, Clone)]
pub(super) struct Reach {
    pub(super) patterns: PathState,
    /// The directory was backed up whole, so what it lacks may be deleted.
    pub(super) is_whole: bool,
    /// It is a directory of bygone itself or below one, where nothing is ever deleted.
    is_own: bool,
}

impl Reach {
    /// True if what the snapshot lacks may be deleted here.
    pub(super) fn may_delete(&self) -> bool {
        self.is_whole && !self.is_own
    }
}

impl Deletion {
    /// By what `snapshot` says of its backup. `own_directories` belong to bygone. Fails if the snapshot does not tell what
    /// it lacks.
    pub fn new(snapshot: &Snapshot, own_directories: &[PathBuf]) -> Result<Deletion> {
        let refuse = |why: &str| {
            let what = format!("snapshot {}: {why}: restore without --delete", snapshot.id);
            Err(Error::Invalid { what })
        };
        let facts = snapshot.facts();
        let (Some(patterns), Some(rules)) = (facts.excludes, facts.rules) else {
            return refuse("it does not say what its backup left out, and --delete would delete that");
        };
        let excludes = match Excludes::new(patterns.iter().map(Vec::as_slice)) {
            Ok(excludes) => excludes,
            Err(bad) => return refuse(&format!("this bygone does not understand what it leaves out ({bad})")),
        };
        let sources = snapshot.paths.iter().map(|path| if path == b"/" { Vec::new() } else { path.clone() }).collect();
        let own = own_directories.iter().filter_map(|path| metadata(path).ok());
        let own = own.map(|found| Identity { device: found.dev(), inode: found.ino() }).collect();
        Ok(Deletion { sources, excludes, rules, own })
    }

    /// The reach in the directory `path` of the snapshot, which becomes `target`.
    pub(super) fn begin(&self, path: &[u8], target: &Path) -> Reach {
        let above = target.canonicalize().unwrap_or_else(|_| target.to_owned());
        let is_own = above.ancestors().filter_map(|path| metadata(path).ok()).any(|found| {
            let identity = Identity { device: found.dev(), inode: found.ino() };
            self.own.contains(&identity)
        });
        let mut reach = Reach { patterns: self.excludes.root(), is_whole: self.is_source(b""), is_own };
        let mut at = Vec::new();
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            at.push(b'/');
            at.extend_from_slice(name);
            reach = self.descend(&reach, name, &at, true);
        }
        reach
    }

    /// The reach in the directory `name`, whose path in the snapshot is `path`. It is not `joined` to its parent if only
    /// its name was backed up, or if a file system begins there in the target.
    pub(super) fn descend(&self, reach: &Reach, name: &[u8], path: &[u8], joined: bool) -> Reach {
        let is_source = self.is_source(path);
        let is_excluded = self.excludes.excludes(&reach.patterns, name);
        let descend = if is_source { Excludes::descend_wanted } else { Excludes::descend };
        Reach {
            patterns: descend(&self.excludes, &reach.patterns, name),
            is_whole: is_source || joined && reach.is_whole && !is_excluded,
            is_own: reach.is_own,
        }
    }

    /// Ends the reach if this is a directory of bygone itself.
    pub(super) fn note_own(&self, reach: &mut Reach, place: &Place) {
        reach.is_own |= self.own.contains(&place.identity);
    }

    /// True if the backup leaves out `name` in a directory with these `patterns`.
    pub(super) fn leaves_out(&self, patterns: &PathState, name: &[u8]) -> bool {
        self.excludes.excludes(patterns, name)
    }

    pub(super) fn descend_patterns(&self, patterns: &PathState, name: &[u8]) -> PathState {
        self.excludes.descend(patterns, name)
    }

    /// True if the backup leaves out a file of this size.
    pub(super) fn leaves_out_size(&self, bytes: u64) -> bool {
        self.rules.larger_than.is_some_and(|most| bytes > most)
    }

    /// True if the backup may have left out what is in a directory of the snapshot, because a file system began there:
    /// one on which the backup did not go, or one whose files the kernel makes up.
    pub(super) fn ends_at_device(&self, is_empty: bool) -> bool {
        self.rules.one_file_system || is_empty
    }

    /// True if a directory that the snapshot does not have stays, with everything in it.
    pub(super) fn keeps_directory(&self, place: &Place, names: &[CString]) -> bool {
        let is_repository = names.iter().any(|name| name.to_bytes() == REPOSITORY_MARK);
        is_repository || self.own.contains(&place.identity) || self.is_tagged(names)
    }

    /// Names that mark a directory whose content the backup leaves out.
    pub(super) fn tags(&self) -> impl Iterator<Item = &[u8]> {
        let caches = self.rules.caches.then_some(CACHE_TAG);
        self.rules.if_present.iter().map(Vec::as_slice).chain(caches)
    }

    /// True if the backup leaves out the content of a directory with these names.
    pub(super) fn is_tagged(&self, names: &[CString]) -> bool {
        self.tags().any(|tag| names.iter().any(|name| name.to_bytes() == tag))
    }

    fn is_source(&self, path: &[u8]) -> bool {
        self.sources.iter().any(|source| source == path)
    }
}
