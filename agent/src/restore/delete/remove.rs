//! Deletes one entry that the snapshot does not have, with everything below it that the rules do not keep.
//!
//! There is no recursion, directories are held by descriptors, and no symbolic link is followed. A directory in which
//! something stays, stays as well.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::UnlinkatFlags;
use nix::unistd::unlinkat;

use bygone_core::entry::Name;

use crate::exclude::PathState;
use crate::restore::delete::border;
use crate::restore::delete::rules::Deletion;
use crate::restore::directories::Place;
use crate::restore::directories::ROOT;
use crate::restore::directories::Trail;
use crate::restore::files::existing;
use crate::restore::report::Failure;
use crate::restore::report::Step;
use crate::restore::report::target;
use crate::restore::selection::Select;
use crate::restore::selection::Standing;
use crate::restore::shared::Shared;

/// The patterns that count in one directory: of the backup, and of this restore.
#[derive(Debug, Clone)]
pub(super) struct Around {
    pub(super) patterns: PathState,
    pub(super) standing: Standing,
}

/// What was deleted, or would be.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Swept {
    pub(super) deleted: u64,
    pub(super) spared: u64,
}

/// How to delete.
pub(super) struct Sweep<'a> {
    pub(super) shared: &'a Shared<'a>,
    pub(super) deletion: &'a Deletion,
    /// False to look only.
    pub(super) really: bool,
}

/// A directory that is being emptied. The first one is not deleted itself.
struct Level {
    own_name: Option<Name>,
    left: Vec<CString>,
    around: Around,
    path_bytes: usize,
    spared: bool,
}

enum Fate {
    Gone,
    Spared,
    Leaf,
    Directory(Name, Place, Vec<CString>),
}

impl Sweep<'_> {
    /// Deletes `name` in `place`, whose path is `path`. Says so, and names each entry that stays.
    pub(super) fn run(
        &self,
        place: &Arc<Place>,
        name: &CString,
        around: Around,
        path: &[u8],
        say: &mut dyn FnMut(Step, &[u8]),
    ) -> Result<Swept, Failure> {
        let mut swept = Swept::default();
        let mut path = path.to_vec();
        let mut trail = Trail::new(Arc::clone(place));
        let first = Level { own_name: None, left: vec![name.clone()], around, path_bytes: path.len(), spared: false };
        let mut levels = vec![first];
        while let Some(level) = levels.last_mut() {
            self.shared.watch.check().map_err(Failure::Stop)?;
            path.truncate(level.path_bytes);
            let Some(name) = level.left.pop() else {
                self.leave(&mut levels, &mut trail, &mut swept)?;
                continue;
            };
            path.push(b'/');
            path.extend_from_slice(name.to_bytes());
            let here = Arc::clone(trail.here().1);
            let fate = self.judge(&here, &name, &level.around)?;
            if level.own_name.is_none() && matches!(fate, Fate::Leaf | Fate::Directory(..)) {
                say(Step::Delete, &path);
            }
            let spared = match fate {
                Fate::Gone => false,
                Fate::Spared => true,
                Fate::Leaf => !self.unlink(&here, &name, &mut swept)?,
                Fate::Directory(name, inner, left) => {
                    let around = self.below(&level.around, &name);
                    trail.enter(ROOT, Arc::new(inner));
                    let path_bytes = path.len();
                    levels.push(Level { own_name: Some(name), left, around, path_bytes, spared: false });
                    continue;
                }
            };
            if spared {
                level.spared = true;
                swept.spared += 1;
                say(Step::Spare, &path);
            }
        }
        Ok(swept)
    }

    fn below(&self, around: &Around, name: &Name) -> Around {
        let Around { patterns, standing } = around;
        let selection = &self.shared.options.selection;
        Around {
            patterns: self.deletion.descend_patterns(patterns, name.as_bytes()),
            standing: selection.descend(standing, name.as_bytes(), standing.taken),
        }
    }

    fn judge(&self, place: &Place, name: &CString, around: &Around) -> Result<Fate, Failure> {
        let bytes = name.to_bytes();
        let Some(stat) = existing::look(place, bytes).map_err(target("inspect"))? else { return Ok(Fate::Gone) };
        let is_directory = existing::is_directory(&stat);
        let selection = &self.shared.options.selection;
        // A backup takes no longer name than the format knows, so the snapshot cannot have it.
        let Ok(name) = Name::new(bytes) else { return Ok(Fate::Spared) };
        if self.deletion.leaves_out(&around.patterns, bytes)
            || selection.judge(&around.standing, bytes, is_directory) == Select::Skip
        {
            return Ok(Fate::Spared);
        }
        if !is_directory {
            let is_file = stat.st_mode & libc::S_IFMT == libc::S_IFREG;
            let is_large = u64::try_from(stat.st_size).is_ok_and(|bytes| self.deletion.leaves_out_size(bytes));
            return Ok(if is_file && is_large { Fate::Spared } else { Fate::Leaf });
        }
        let (inner, is_border) = border::open(place, &name).map_err(target("enter"))?;
        if is_border {
            return Ok(Fate::Spared);
        }
        let names = existing::names(&inner).map_err(target("list"))?;
        if self.deletion.keeps_directory(&inner, &names) {
            return Ok(Fate::Spared);
        }
        Ok(Fate::Directory(name, inner, names))
    }

    /// Returns false if it stays.
    fn unlink(&self, place: &Place, name: &CString, swept: &mut Swept) -> Result<bool, Failure> {
        let done =
            if self.really { unlinkat(place.as_fd(), name.as_c_str(), UnlinkatFlags::NoRemoveDir) } else { Ok(()) };
        match done {
            Ok(()) => swept.deleted += 1,
            Err(Errno::ENOENT) => {}
            // Something is mounted over it.
            Err(Errno::EBUSY) => return Ok(false),
            Err(errno) => return Err(target("delete")(errno)),
        }
        Ok(true)
    }

    /// Leaves the last level, and deletes its directory if nothing in it stays.
    fn leave(&self, levels: &mut Vec<Level>, trail: &mut Trail, swept: &mut Swept) -> Result<(), Failure> {
        let Some(Level { own_name: Some(own_name), mut spared, .. }) = levels.pop() else { return Ok(()) };
        trail.leave().map_err(target("leave"))?;
        if !spared && self.really {
            match unlinkat(trail.here().1.as_fd(), own_name.as_bytes(), UnlinkatFlags::RemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                // Somebody has put something into it meanwhile, or mounted something over it.
                Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::EBUSY) => spared = true,
                Err(errno) => return Err(target("delete")(errno)),
            }
        }
        match levels.last_mut() {
            Some(above) if spared => above.spared = true,
            _ => swept.deleted += 1,
        }
        Ok(())
    }
}
