//! Backs up a stream as a snapshot of one file, so the output of a program needs no copy on disk.

use std::io::Read;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::unistd::getegid;
use nix::unistd::geteuid;

use bygone_core::attributes::Attributes;
use bygone_core::entry::Meta;
use bygone_core::entry::Name;
use bygone_core::entry::Time;
use bygone_core::error::Error;
use bygone_core::error::Result;
use bygone_core::watch::Watch;
use bygone_core::write::Cutter;
use bygone_core::write::Piece;
use bygone_core::write::Writer;

use crate::backup::deliver::count;
use crate::backup::folder::Folder;
use crate::backup::metadata::Describer;
use crate::backup::metadata::Owners;
use crate::backup::plan::End;
use crate::backup::report::Counts;
use crate::backup::report::Issues;
use crate::backup::report::Report;
use crate::backup::report::Trouble;
use crate::backup::sink::Sink;

/// Permissions of the file: the stream may hold secrets, and no other readers are known.
const MODE: u16 = 0o600;

/// A stream to back up.
pub struct Stream<'a> {
    /// What gives it, for messages.
    pub source: &'a str,
    /// Its bytes.
    pub content: &'a mut dyn Read,
}

/// Backs up all of `stream` as the file `name` in the root directory, with `now` as its time. A stream that fails is
/// an error, because half of a dump is useless.
pub fn backup_stream(
    writer: &mut Writer<'_>,
    name: &Name,
    stream: Stream<'_>,
    now: Time,
    watch: &Watch,
) -> Result<Report> {
    let cutter = writer.cutter();
    store(&mut Sink::Writer(writer), &cutter, name, stream, now, watch)
}

pub(super) fn store(
    sink: &mut Sink<'_, '_>,
    cutter: &Cutter,
    name: &Name,
    stream: Stream<'_>,
    now: Time,
    watch: &Watch,
) -> Result<Report> {
    let Stream { source, content } = stream;
    let (owners, issues) = (Owners::default(), Issues::default());
    let failed = |path: &str, source| Error::Local { doing: "read", path: path.into(), source };
    let root = root_meta(Describer { owners: &owners, issues: &issues });
    let root = root.map_err(|errno| failed("/", errno.into()))?;
    sink.directory_begin()?;
    let mut size = 0;
    loop {
        watch.check()?;
        let mut bytes = Vec::new();
        let most = cutter.block_bytes() as u64;
        content.take(most).read_to_end(&mut bytes).map_err(|error| failed(source, error))?;
        if bytes.is_empty() {
            break;
        }
        size += bytes.len() as u64;
        count(&watch.bytes, bytes.len() as u64);
        sink.file_piece(Piece::Block(cutter.block(bytes)))?;
    }
    if size == 0 {
        let path = [b"/", name.as_bytes()].concat();
        issues.add(path, Trouble::Warning(format!("{source} had nothing in it, so this file is empty")));
    }
    let owner = owners.get(geteuid().as_raw(), getegid().as_raw());
    let meta = Meta { mode: MODE, owner, mtime: now, ctime: now, size, ..Meta::unknown() };
    sink.file_end(name.clone(), meta)?;
    sink.directory_end(End { name: None, meta: root, attributes: Attributes::default(), known: None })?;
    count(&watch.entries, 2);
    count(&watch.files_new, 1);
    Ok(issues.into_report(Counts { files_new: 1, directories: 1, bytes: size, bytes_read: size, ..Counts::default() }))
}

fn root_meta(describe: Describer<'_>) -> std::result::Result<Meta, Errno> {
    let (root, stat) = Folder::root()?;
    let fd = root.fd()?;
    Ok(describe.opened(fd.as_fd(), &stat, &root, b""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::tests::Call;
    use crate::backup::tests::Recorder;
    use crate::backup::tests::content;
    use crate::backup::tests::cutter;
    use std::io;
    use std::path::Path;

    /// Gives a few bytes at a time, as pipes do, and may fail at the end.
    struct Drip(usize, Option<io::ErrorKind>);

    impl Read for Drip {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.0.min(buffer.len()).min(7_001);
            buffer[..length].fill(9);
            self.0 -= length;
            match self.1 {
                Some(kind) if length == 0 => Err(kind.into()),
                _ => Ok(length),
            }
        }
    }

    fn record(mut stream: Drip) -> Result<(Recorder, Report)> {
        let mut recorder = Recorder::default();
        let (name, now) = (Name::new(b"dump.sql").unwrap(), Time { secs: 7, nanos: 8 });
        let stream = Stream { source: "a test", content: &mut stream };
        let report = store(&mut Sink::Record(&mut recorder), &cutter(), &name, stream, now, &Watch::new())?;
        Ok((recorder, report))
    }

    #[test]
    fn a_stream_is_one_file_in_the_root() {
        for size in [0, 1, 65_536, 200_000] {
            let (recorder, report) = record(Drip(size, None)).unwrap();
            let Call::File(_, meta, pieces) = recorder.find(Path::new("/"), "dump.sql") else { panic!("a file") };
            assert_eq!((content(pieces), meta.size), (vec![9; size], size as u64));
            assert_eq!(pieces.len(), size.div_ceil(65_536), "short reads make no short blocks");
            assert_eq!((meta.mtime.secs, report.counts.bytes), (7, size as u64));
            let warned = matches!(report.issues.as_slice(), [issue] if matches!(issue.trouble, Trouble::Warning(_)));
            assert_eq!(warned, size == 0, "nothing at all is a warning");
        }
    }

    #[test]
    fn a_stream_that_fails_is_an_error() {
        let error = record(Drip(100_000, Some(io::ErrorKind::BrokenPipe))).unwrap_err();
        assert!(matches!(error, Error::Local { doing: "read", .. }));
    }
}
