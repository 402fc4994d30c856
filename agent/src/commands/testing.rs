//! Entries and snapshots for the tests of commands.

use bygone_core::attributes::Attributes;
use bygone_core::entry::Content;
use bygone_core::entry::Entry;
use bygone_core::entry::Kind;
use bygone_core::entry::Meta;
use bygone_core::entry::Name;
use bygone_core::entry::Time;
use bygone_core::id::NodeId;
use bygone_core::id::SnapshotId;
use bygone_core::snapshot::Snapshot;
use bygone_core::snapshot::Totals;

/// Metadata of a plain entry.
pub(crate) fn meta(mode: u16, size: u64) -> Meta {
    Meta { mode, mtime: Time { secs: 0, nanos: 7 }, size, ..Meta::unknown() }
}

/// An entry of this kind.
pub(crate) fn entry(name: &str, kind: Kind) -> Entry {
    let size = match &kind {
        Kind::File(Content::Inline(bytes)) | Kind::Symlink(bytes) => bytes.len() as u64,
        _ => 0,
    };
    Entry::new(Name::new(name.as_bytes()).unwrap(), meta(0o644, size), kind)
}

/// A snapshot with this id, made at this second.
pub(crate) fn snapshot(id: [u8; 16], secs: i64, host: &str, paths: &[&str]) -> Snapshot {
    Snapshot {
        id: SnapshotId(id),
        time: Time { secs, nanos: 0 },
        host: host.into(),
        user: "u".into(),
        paths: paths.iter().map(|path| path.as_bytes().to_vec()).collect(),
        tags: vec!["daily".into()],
        parent: None,
        program: "bygone 0".into(),
        root_meta: meta(0o755, 0),
        root: NodeId([0; 32]),
        root_attributes: Attributes::default(),
        totals: Totals { files: 1_234, bytes: 5 << 20, ..Totals::default() },
        attributes: Attributes::default(),
    }
}
