//! Reads the restored files again and compares them with the repository, byte by byte, after everything is on disk.
//!
//! The walk and the selection are those of the restore. Entries with a reported failure are skipped. With
//! `--overwrite never` or `if-newer`, a file with another size or time was meant to stay, so it is skipped too.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::fcntl::PosixFadviseAdvice;
use nix::fcntl::openat;
use nix::fcntl::posix_fadvise;
use nix::libc;
use nix::sys::stat::FileStat;
use nix::sys::stat::Mode;
use nix::sys::stat::fstat;
use nix::unistd::Whence;
use nix::unistd::lseek;

use bygone_core::entry::Content;
use bygone_core::entry::Entry;
use bygone_core::entry::Kind;
use bygone_core::error::Error;
use bygone_core::read::FileMap;
use bygone_core::read::View;

use crate::restore::directories::Place;
use crate::restore::files::file::data;
use crate::restore::files::file::open_map;
use crate::restore::files::file::piece_bytes;
use crate::restore::files::file::read;
use crate::restore::job::Job;
use crate::restore::options::Overwrite;
use crate::restore::report::Failure;
use crate::restore::report::target;
use crate::restore::shared::Shared;

/// Bytes read at a time where there should be a hole.
const HOLE_PIECE_BYTES: u64 = 1 << 20;

/// A stretch of a big file to compare.
pub(in crate::restore) struct Stretch {
    map: Arc<FileMap>,
    pub(in crate::restore) range: Range<u64>,
    is_data: bool,
}

/// All stretches of a file, data and holes.
pub(in crate::restore) fn stretches(
    shared: &Shared<'_>,
    view: &View,
    entry: &Entry,
    content: &Content,
) -> Result<Vec<Stretch>, Failure> {
    let map = Arc::new(open_map(view, &entry.meta, content)?);
    let mut all = Vec::new();
    let mut offset = 0;
    let mut add = |range: Range<u64>, is_data| {
        if !range.is_empty() {
            all.push(Stretch { map: Arc::clone(&map), range, is_data });
        }
    };
    for range in data(shared, &map)? {
        let end = range.end;
        add(offset..range.start, false);
        add(range, true);
        offset = end;
    }
    add(offset..entry.meta.size, false);
    Ok(all)
}

/// Compares a file, or a stretch of it.
pub(in crate::restore) fn check(shared: &Shared<'_>, view: &View, job: &Job, stretch: Option<Stretch>) {
    let last = stretch.as_ref().is_none_or(|stretch| stretch.range.end == job.entry.meta.size);
    match compare(shared, view, job, stretch) {
        Ok(true) if last => shared.tally().report.verified += 1,
        Ok(_) => {}
        Err(failure) => shared.fail(job.at(), failure),
    }
}

/// Returns false if the file was meant to stay.
fn compare(shared: &Shared<'_>, view: &View, job: &Job, stretch: Option<Stretch>) -> Result<bool, Failure> {
    let meta = &job.entry.meta;
    let Kind::File(content) = &job.entry.kind else { return Ok(false) };
    let keeping = matches!(shared.options.overwrite, Some(Overwrite::Never | Overwrite::IfNewer));
    let (file, stat) = match open(&job.place, &job.entry) {
        Ok(opened) => opened,
        Err(error) if keeping && is_no_file(&error) => return Ok(false),
        Err(error) => return Err(target("verify")(error)),
    };
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let same_time = (stat.st_mtime, stat.st_mtime_nsec) == (meta.mtime.secs, meta.mtime.nanos.into());
    if keeping && (size != meta.size || !same_time) {
        return Ok(false);
    }
    if size != meta.size {
        return Err(differs(format!("its size is {size} instead of {}", meta.size)));
    }
    let stretches = match stretch {
        Some(stretch) => vec![stretch],
        None => stretches(shared, view, &job.entry, content)?,
    };
    for Stretch { map, range, is_data } in stretches {
        if is_data {
            compare_data(shared, &map, &file, range)?;
        } else {
            compare_hole(shared, &file, range)?;
        }
    }
    Ok(true)
}

fn compare_data(shared: &Shared<'_>, map: &FileMap, file: &File, range: Range<u64>) -> Result<(), Failure> {
    let piece = piece_bytes(shared);
    let mut from = range.start;
    while from < range.end {
        shared.watch.check()?;
        let next = range.end.min((from / piece + 1) * piece);
        let expected = read(shared, map, from..next)?;
        let mut found = vec![0u8; expected.len()];
        file.read_exact_at(&mut found, from).map_err(target("verify"))?;
        if expected != found {
            let same = expected.iter().zip(&found).take_while(|(expected, found)| expected == found).count();
            return Err(differs(format!("the byte at offset {} differs from the snapshot", from + same as u64)));
        }
        from = next;
    }
    Ok(())
}

/// A hole of the snapshot must be a hole or zeros.
fn compare_hole(shared: &Shared<'_>, file: &File, range: Range<u64>) -> Result<(), Failure> {
    let mut offset = range.start;
    while let Some(from) = data_from(file, offset).map_err(target("verify"))?.filter(|from| *from < range.end) {
        shared.watch.check()?;
        let next = range.end.min(from + HOLE_PIECE_BYTES);
        let mut bytes = vec![0u8; usize::try_from(next - from).unwrap_or(0)];
        file.read_exact_at(&mut bytes, from).map_err(target("verify"))?;
        if bytes.iter().any(|byte| *byte != 0) {
            return Err(differs(format!("there is data from offset {from} to {next}, where the snapshot has a hole")));
        }
        offset = next;
    }
    Ok(())
}

/// The first offset at or after `offset` where the file may hold anything but zeros.
fn data_from(file: &File, offset: u64) -> io::Result<Option<u64>> {
    let start = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    match lseek(file.as_fd(), start, Whence::SeekData) {
        Ok(data) => Ok(u64::try_from(data).ok()),
        Err(Errno::ENXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn differs(detail: String) -> Failure {
    Failure::Damage(Error::corrupt("the restored file", detail))
}

/// True if the file could not be opened because its name belongs to another kind of entry: a symbolic link, a socket, a
/// device without a driver, a directory or a pipe.
fn is_no_file(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO | libc::ENODEV | libc::EISDIR))
}

/// Opens a restored file so that its bytes come from the disk, as far as the system allows.
fn open(place: &Place, entry: &Entry) -> io::Result<(File, FileStat)> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let fd: OwnedFd = openat(place, entry.name.as_bytes(), flags, Mode::empty())?;
    let stat = fstat(&fd)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(Errno::EISDIR.into());
    }
    let _ = posix_fadvise(&fd, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    Ok((File::from(fd), stat))
}
