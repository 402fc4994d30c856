//! A rebuilt volume is kept in a file of its own while the damaged object is deleted and the new one is put. What was
//! salvaged from the damaged object exists nowhere else in the meantime, and a dead link or a kill must not destroy it.

use std::fs;
use std::fs::File;
use std::io;
use std::io::Seek;
use std::path::Path;
use std::path::PathBuf;

use crate::error::Error;
use crate::error::Result;
use crate::hash::Sha256Stream;
use crate::id::VolumeName;
use crate::private;

/// Name of the folder in the catalog directory.
const FOLDER: &str = "rescued";

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.display().to_string();
    move |source| Error::Local { doing, path, source }
}

fn path(dir: &Path, name: VolumeName) -> PathBuf {
    dir.join(FOLDER).join(name.to_hex())
}

/// Keeps the rebuilt volume; it is durable when this returns.
pub(super) fn keep(dir: &Path, name: VolumeName, volume: &File) -> Result<()> {
    let folder = dir.join(FOLDER);
    let path = path(dir, name);
    private::directory(&folder).map_err(failed("make the folder", &folder))?;
    let copy = || {
        let mut volume = volume.try_clone()?;
        volume.rewind()?;
        let mut file = private::file_options().create(true).truncate(true).open(&path)?;
        io::copy(&mut volume, &mut file)?;
        file.sync_all()?;
        File::open(&folder)?.sync_all()
    };
    copy().map_err(failed("keep the rebuilt volume in", &path))
}

/// A rebuilt volume that was kept but not put, if there is one and it is intact.
pub(super) fn find(dir: &Path, name: VolumeName) -> Result<Option<(File, u64)>> {
    let path = path(dir, name);
    let mut file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed("open", &path))?,
    };
    let mut hash = Sha256Stream::new();
    let bytes = io::copy(&mut file, &mut Hashing(&mut hash)).map_err(failed("read", &path))?;
    Ok((hash.finish() == name.0).then_some((file, bytes)))
}

/// Removes the kept volume once the store has it.
pub(super) fn remove(dir: &Path, name: VolumeName) -> Result<()> {
    let path = path(dir, name);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path)(error)),
        _ => Ok(()),
    }
}

struct Hashing<'a>(&'a mut Sha256Stream);

impl io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
