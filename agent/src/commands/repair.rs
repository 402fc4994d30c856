//! `bygone check --repair`: puts back what the store has lost, then shows what is still lost.

use std::fs::File;
use std::fs::OpenOptions;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc;
use serde_json::Value;
use serde_json::json;

use bygone_cli::exit::Result;
use bygone_cli::terminal::output::count;
use bygone_cli::terminal::output::one_line;
use bygone_cli::terminal::output::size;
use bygone_cli::terminal::passphrase::Purpose;
use bygone_core::check;
use bygone_core::check::ReadData;
use bygone_core::check::Report;
use bygone_core::read::CacheReader;
use bygone_core::recover;
use bygone_core::repair;
use bygone_core::repair::Repaired;
use bygone_core::repair::Sources;
use bygone_core::repo::LockedRepository;
use bygone_core::store::Store;
use bygone_core::survey;

use crate::commands::Context;
use crate::commands::copy::open_second;

/// Opens the repository, even if it lacks its description or key slots, and repairs it. Returns what a check finds
/// afterwards.
pub(super) fn repair(
    context: &mut Context,
    from: Option<&str>,
    read_data: impl FnOnce(&mut LockedRepository) -> Result<ReadData>,
) -> Result<(Report, Repaired)> {
    let second = from.map(|from| open_second(from, context)).transpose()?;
    let second: Option<&dyn Store> = second.as_deref();
    let place = context.settings.place_to_repair(&context.watch)?;
    let secret = context.settings.passphrase(Purpose::Open, &context.watch)?;
    let mut repaired = Repaired::default();
    let opened = repair::open(&place, &secret, second, &mut repaired)?;
    let mut locked = context.lock(opened.repository)?;
    let progress = context.progress();
    repair::repair_commits(&mut locked, second, &mut repaired)?;
    recover::sync_as_found(&mut locked, &context.watch)?;
    repair::repair_slots(&mut locked, &opened.slots, &mut repaired)?;
    let read_data = read_data(&mut locked)?;
    let watch = &context.watch;
    let found = check::check(&mut locked, read_data, watch)?;
    let mut files = SourceFiles::default();
    let mut read_file = |path: &[u8], offset: u64, length: u32| files.read(path, offset, length);
    // A mount of this repository caches in a directory with the name of the catalog.
    let cache_base = context.settings.locations()?.cache_base;
    let id = locked.repository().catalog_dir().file_name().unwrap_or_default();
    let cache = CacheReader::new(cache_base.join(id));
    let read_cache = |name, range: Range<u64>| cache.read(name, &range);
    let mut sources = Sources { second, read_file: &mut read_file, read_cache: &read_cache };
    repair::repair_volumes(&mut locked, &found.changed, &mut sources, context.now, watch, &mut repaired)?;
    let mut report = check::check(&mut locked, ReadData::No, watch)?;
    if !report.healed.is_empty() {
        // Other volumes now hold everything in these, so they are no loss.
        survey::accept_loss(&mut locked, context.now, watch, |alarm| report.healed.contains(&alarm.object))?;
        report = check::check(&mut locked, ReadData::No, watch)?;
    }
    drop(progress);
    (report.volumes_read, report.bytes_read) = (found.volumes_read, found.bytes_read);
    Ok((report, repaired))
}

/// The files of this machine, at the paths where they were backed up.
#[derive(Default)]
struct SourceFiles {
    /// The last file read: its other blocks are likely to be needed next.
    last: Option<(Vec<u8>, Option<File>)>,
}

impl SourceFiles {
    fn read(&mut self, path: &[u8], offset: u64, length: u32) -> Option<Vec<u8>> {
        if self.last.as_ref().is_none_or(|(last, _)| last != path) {
            self.last = Some((path.to_vec(), open_file(path)));
        }
        let file = self.last.as_ref()?.1.as_ref()?;
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, offset).ok()?;
        Some(bytes)
    }
}

/// Opens a regular file. The path may have become anything since, even a pipe, so opening must not wait.
fn open_file(path: &[u8]) -> Option<File> {
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    file.metadata().ok()?.is_file().then_some(file)
}

/// What was done, for people.
pub(super) fn lines(repaired: &Repaired) -> Vec<String> {
    let mut lines = Vec::new();
    for (object, from) in &repaired.restored {
        lines.push(one_line(&format!("repaired: {object}: {from}")));
    }
    if repaired.blocks > 0 {
        let blocks = count(repaired.blocks, "block", "blocks");
        lines.push(format!("repaired: {blocks} ({}) stored again in new volumes", size(repaired.bytes)));
    }
    for (object, reason) in &repaired.left {
        lines.push(one_line(&format!("not repaired: {object}: {reason}")));
    }
    if lines.is_empty() {
        lines.push("nothing needed repair".to_owned());
    }
    lines
}

/// What was done, for programs.
pub(super) fn value(repaired: &Repaired) -> Value {
    let list = |pairs: Vec<(&str, &str)>, key: &str| {
        pairs.into_iter().map(|(object, text)| json!({ "object": object, key: text })).collect::<Vec<_>>()
    };
    let restored = repaired.restored.iter().map(|(object, from)| (object.as_str(), *from)).collect();
    let left = repaired.left.iter().map(|(object, reason)| (object.as_str(), reason.as_str())).collect();
    json!({
        "restored": list(restored, "from"),
        "blocks": repaired.blocks,
        "bytes": repaired.bytes,
        "left": list(left, "reason"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_regular_files_are_read_and_only_whole_stretches() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).into_os_string().into_encoded_bytes();
        fs::write(dir.path().join("file"), b"0123456789").unwrap();
        std::os::unix::fs::symlink("file", dir.path().join("link")).unwrap();
        nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut files = SourceFiles::default();
        assert_eq!(files.read(&at("file"), 2, 3).as_deref(), Some(&b"234"[..]));
        assert_eq!(files.read(&at("file"), 8, 3), None, "it ends too soon");
        for name in ["link", "pipe", "absent", ""] {
            assert_eq!(files.read(&at(name), 0, 1), None, "{name}");
        }
    }

    #[test]
    fn repaired_and_unrepaired_objects_are_listed() {
        assert_eq!(lines(&Repaired::default()), ["nothing needed repair"]);
        let repaired = Repaired {
            restored: vec![("data/x".into(), "rebuilt")],
            blocks: 2,
            bytes: 2_048,
            left: vec![("data/y".into(), "gone".into())],
        };
        let lines = lines(&repaired);
        assert_eq!(lines[0], "repaired: data/x: rebuilt");
        assert_eq!(lines[1], "repaired: 2 blocks (2.0 KiB) stored again in new volumes");
        assert_eq!(lines[2], "not repaired: data/y: gone");
        assert_eq!(value(&repaired)["restored"][0], json!({ "object": "data/x", "from": "rebuilt" }));
    }
}
