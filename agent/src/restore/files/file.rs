//! Regular files: content first, then metadata. A file is created under its name if nothing is there, or else beside
//! the existing entry and renamed over it. A file that cannot be completed is removed, so a file with the right name is
//! complete.
//!
//! A big file is cut into parts that several workers write at once; see `big`.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use nix::fcntl::OFlag;
use nix::fcntl::openat;
use nix::sys::stat::FileStat;
use nix::sys::stat::Mode;
use nix::sys::stat::fstat;

use bygone_core::entry::Content;
use bygone_core::entry::Meta;
use bygone_core::entry::printable;
use bygone_core::error::Error;
use bygone_core::read::FileMap;
use bygone_core::read::Verify;
use bygone_core::read::View;

use crate::restore::directories::drop_inherited_acls;
use crate::restore::files::partial::Partial;
use crate::restore::job::Job;
use crate::restore::meta;
use crate::restore::report::Failure;
use crate::restore::report::target;
use crate::restore::shared::Shared;
use crate::restore::shared::Trouble;
use crate::restore::sys::Handle;

/// Several workers write a file longer than this, in parts of about this length.
pub(in crate::restore) const PART_BYTES: u64 = 16 << 20;
/// Fewest bytes that are read and written at a time.
const PIECE_BYTES_MIN: u64 = 1 << 20;
/// Bytes read at a time to salvage the rest of a damaged piece.
const SALVAGE_BYTES: u64 = 64 << 10;
/// Length of the blocks in which zeros are searched, because file systems make holes of such blocks.
const ZEROS_BYTES: u64 = 4 << 10;

/// A file that is open for writing and incomplete.
pub(in crate::restore) struct Draft {
    partial: Partial,
    pub(in crate::restore) file: File,
    stat: FileStat,
}

impl Draft {
    pub(in crate::restore) fn create(shared: &Shared<'_>, job: &Job) -> Result<Draft, Failure> {
        let mut partial = Partial::new(shared, job);
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let fd = openat(&*job.place, partial.name(), flags, mode).map_err(target("create"))?;
        partial.made();
        if job.place.inherits {
            drop_inherited_acls(Handle::Open(fd.as_fd()));
        }
        let stat = fstat(&fd).map_err(target("inspect"))?;
        Ok(Draft { partial, file: File::from(fd), stat })
    }

    /// Sets the metadata, the right name and the flags; `damage` says what its content lacks.
    pub(in crate::restore) fn finish(
        &mut self,
        shared: &Shared<'_>,
        job: &Job,
        damage: Option<Error>,
    ) -> Result<(), Failure> {
        if let Some(error) = damage {
            return Err(Failure::Damage(self.finish_damaged(shared, job, error)?));
        }
        let mut trouble = Trouble::default();
        let handle = Handle::Open(self.file.as_fd());
        let meta = &job.entry.meta;
        meta::apply(shared, handle, &self.stat, meta, true, &mut trouble)?;
        self.partial.complete(job)?;
        if !(job.entry.is_hard_linked() && meta::flags_pin(meta)) {
            meta::apply_flags(shared, handle, meta, &mut trouble);
        }
        trouble.report(shared, &job.at());
        shared.count(|report| {
            report.files += 1;
            report.bytes += meta.size;
        });
        Ok(())
    }

    fn finish_damaged(&mut self, shared: &Shared<'_>, job: &Job, error: Error) -> Result<Error, Failure> {
        if !shared.options.keep_damaged {
            return Ok(error);
        }
        // It stays private, as created: the part that it lacks may be what made it safe to show.
        let kept = self.partial.keep_as_damaged(job.entry.name.as_bytes())?;
        let detail = format!("the readable part is in {}", printable(&kept));
        Ok(Error::corrupt(error, detail))
    }
}

/// Restores a file that one worker writes as a whole.
pub(in crate::restore) fn restore(
    shared: &Shared<'_>,
    view: &View,
    job: &Job,
    content: &Content,
) -> Result<(), Failure> {
    let map = open_map(view, &job.entry.meta, content)?;
    let mut draft = Draft::create(shared, job)?;
    let size = job.entry.meta.size;
    let mut written = Written::default();
    for stretch in data(shared, &map)? {
        write(shared, &map, &draft.file, stretch, &mut written)?;
    }
    if written.end < size {
        draft.file.set_len(size).map_err(target("write"))?;
    }
    draft.finish(shared, job, written.damage)
}

/// Finds the blocks of a file.
pub(in crate::restore) fn open_map(view: &View, meta: &Meta, content: &Content) -> Result<FileMap, Failure> {
    let map = view.file(content)?;
    if map.length() != meta.size {
        let detail = format!("its blocks hold {} bytes, but its entry says {}", map.length(), meta.size);
        return Err(Failure::Damage(Error::corrupt("a file of the snapshot", detail)));
    }
    Ok(map)
}

/// The stretches of a file that hold data, no longer than a part and cut at the ends of pieces.
pub(in crate::restore) fn data(shared: &Shared<'_>, map: &FileMap) -> Result<Vec<Range<u64>>, Failure> {
    let piece = piece_bytes(shared);
    let part = PART_BYTES.div_ceil(piece) * piece;
    let mut stretches = Vec::new();
    let mut offset = 0;
    while let Some(from) = shared.reader.data_from(map, offset)? {
        let end = shared.reader.hole_from(map, from)?.unwrap_or(map.length());
        offset = from;
        while offset < end {
            let next = end.min((offset / part + 1) * part);
            stretches.push(offset..next);
            offset = next;
        }
    }
    Ok(stretches)
}

/// Bytes read at a time, starting at a multiple of it. They are whole blocks, because only a whole block can be checked
/// against its name.
pub(in crate::restore) fn piece_bytes(shared: &Shared<'_>) -> u64 {
    let block = u64::from(shared.reader.block_bytes()).max(1);
    PIECE_BYTES_MIN.div_ceil(block) * block
}

/// What has been written of a file.
#[derive(Default)]
pub(in crate::restore) struct Written {
    /// Where the last byte written ends.
    end: u64,
    /// Why it is incomplete.
    pub(in crate::restore) damage: Option<Error>,
}

/// Writes a stretch of data. At damage in the repository, goes on only with --keep-damaged.
pub(in crate::restore) fn write(
    shared: &Shared<'_>,
    map: &FileMap,
    file: &File,
    range: Range<u64>,
    written: &mut Written,
) -> Result<(), Failure> {
    let piece = piece_bytes(shared);
    let mut from = range.start;
    while from < range.end && (written.damage.is_none() || shared.options.keep_damaged) {
        shared.watch.check()?;
        let next = range.end.min((from / piece + 1) * piece);
        match read(shared, map, from..next) {
            Ok(bytes) => put(shared, file, from, &bytes, written)?,
            Err(Failure::Damage(error)) => {
                written.damage.get_or_insert(error);
                salvage(shared, map, file, from..next, written)?;
            }
            Err(failure) => return Err(failure),
        }
        from = next;
    }
    Ok(())
}

/// Reads a stretch, and checks that it is complete.
pub(in crate::restore) fn read(shared: &Shared<'_>, map: &FileMap, range: Range<u64>) -> Result<Vec<u8>, Failure> {
    // A range is never longer than a piece.
    let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    let bytes = shared.reader.read(map, range.start, length, Verify::Blocks)?;
    if bytes.len() != length {
        let detail = format!("{length} bytes were requested at offset {}, but {} arrived", range.start, bytes.len());
        return Err(Failure::Damage(Error::corrupt("a file of the snapshot", detail)));
    }
    Ok(bytes)
}

/// With --keep-damaged, writes the readable parts of a damaged piece.
fn salvage(
    shared: &Shared<'_>,
    map: &FileMap,
    file: &File,
    range: Range<u64>,
    written: &mut Written,
) -> Result<(), Failure> {
    let mut from = range.start;
    while from < range.end && shared.options.keep_damaged {
        let next = range.end.min((from / SALVAGE_BYTES + 1) * SALVAGE_BYTES);
        match read(shared, map, from..next) {
            Ok(bytes) => put(shared, file, from, &bytes, written)?,
            Err(Failure::Damage(_)) => {}
            Err(failure) => return Err(failure),
        }
        from = next;
    }
    Ok(())
}

fn put(shared: &Shared<'_>, file: &File, offset: u64, bytes: &[u8], written: &mut Written) -> Result<(), Failure> {
    if shared.options.sparse {
        put_sparse(file, offset, bytes, written).map_err(target("write"))?;
    } else {
        file.write_all_at(bytes, offset).map_err(target("write"))?;
        written.end = offset + bytes.len() as u64;
    }
    shared.watch.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    Ok(())
}

/// Writes everything except aligned blocks of zeros.
fn put_sparse(file: &File, offset: u64, bytes: &[u8], written: &mut Written) -> io::Result<()> {
    let mut rest = bytes;
    let mut at = offset;
    // The next bytes to write, with their offset.
    let mut pending: (u64, &[u8]) = (at, &[]);
    while !rest.is_empty() {
        let length = usize::try_from(ZEROS_BYTES - at % ZEROS_BYTES).unwrap_or(rest.len()).min(rest.len());
        let (block, after) = rest.split_at(length);
        if length as u64 == ZEROS_BYTES && block.iter().all(|byte| *byte == 0) {
            flush(file, pending, written)?;
            pending = (at + ZEROS_BYTES, &[]);
        } else {
            let from = usize::try_from(pending.0 - offset).unwrap_or(usize::MAX);
            pending.1 = bytes.get(from..from + pending.1.len() + length).unwrap_or(block);
        }
        at += length as u64;
        rest = after;
    }
    flush(file, pending, written)
}

fn flush(file: &File, (offset, bytes): (u64, &[u8]), written: &mut Written) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    file.write_all_at(bytes, offset)?;
    written.end = offset + bytes.len() as u64;
    Ok(())
}
