//! The record of a snapshot, as a commit holds it and the catalog keeps it.

use crate::attributes::Attributes;
use crate::entry::Entry;
use crate::entry::Kind;
use crate::entry::Time;
use crate::id::NodeId;
use crate::id::SnapshotId;
use crate::limits;
use crate::snapshot::Snapshot;
use crate::snapshot::Totals;
use crate::tree::decode_leaf;
use crate::tree::encode_leaf;
use crate::wire::DecodeError;
use crate::wire::Decoder;
use crate::wire::Encoder;

/// The number of the kind of a directory.
const ROOT_KIND: u8 = 3;

fn encode_snapshot(out: &mut Encoder, snapshot: &Snapshot) {
    out.raw(&snapshot.id.0);
    encode_time(out, snapshot.time);
    out.string(snapshot.host.as_bytes());
    out.string(snapshot.user.as_bytes());
    out.varint(snapshot.paths.len() as u64);
    snapshot.paths.iter().for_each(|path| out.string(path));
    out.varint(snapshot.tags.len() as u64);
    snapshot.tags.iter().for_each(|tag| out.string(tag.as_bytes()));
    out.string(snapshot.parent.as_ref().map_or(&[], |id| id.0.as_slice()));
    out.string(snapshot.program.as_bytes());
    // The root directory has metadata like any other, so it is written as a leaf of one entry.
    out.string(&encode_leaf(snapshot.root_entry().as_slice()));
    let totals = &snapshot.totals;
    [totals.files, totals.directories, totals.others, totals.bytes, totals.bytes_new, totals.unreadable]
        .into_iter()
        .for_each(|count| out.varint(count));
    snapshot.attributes.encode(out);
}

fn decode_snapshot(input: &mut Decoder<'_>) -> Result<Snapshot, DecodeError> {
    let id = SnapshotId(input.array()?);
    let time = decode_time(input)?;
    let (host, user) = (label(input)?, label(input)?);
    let path = |input: &mut Decoder<'_>| Ok(input.string(limits::PATH_BYTES_MAX, "a path")?.to_vec());
    let count = input.count(limits::SNAPSHOT_PATHS_MAX, "the number of paths")?;
    let paths = (0..count).map(|_| path(input)).collect::<Result<_, DecodeError>>()?;
    let count = input.count(limits::SNAPSHOT_PATHS_MAX, "the number of tags")?;
    let tags = (0..count).map(|_| label(input)).collect::<Result<_, _>>()?;
    let parent = match input.string(SnapshotId::BYTES, "the parent")? {
        [] => None,
        id => Some(SnapshotId::from_bytes(id).ok_or(DecodeError::Invalid("the parent"))?),
    };
    let program = label(input)?;
    let leaf = decode_leaf(input.string(limits::NODE_BYTES_MAX, "the root")?)?;
    let [Entry { kind, meta: root_meta, attributes: root_attributes, .. }] = leaf.as_slice() else {
        return Err(DecodeError::Invalid("the root"));
    };
    let root = match kind {
        Kind::Directory(root) => Some(*root),
        // A critical attribute withholds the tree, which costs this snapshot and not the commit.
        Kind::Newer { code: ROOT_KIND, body } => <[u8; 32]>::try_from(body.as_slice()).ok().map(NodeId),
        _ => None,
    };
    let root = root.ok_or(DecodeError::Invalid("the root"))?;
    let (root_meta, root_attributes) = (root_meta.clone(), root_attributes.clone());
    let totals = Totals {
        files: input.varint()?,
        directories: input.varint()?,
        others: input.varint()?,
        bytes: input.varint()?,
        bytes_new: input.varint()?,
        unreadable: input.varint()?,
    };
    let attributes = Attributes::decode(input)?;
    Ok(Snapshot {
        id,
        time,
        host,
        user,
        paths,
        tags,
        parent,
        program,
        root_meta,
        root,
        root_attributes,
        totals,
        attributes,
    })
}

/// A snapshot's record on its own, as a commit holds it; the catalog keeps it in this form.
pub fn encode_snapshot_record(snapshot: &Snapshot) -> Vec<u8> {
    let mut out = Encoder::new();
    encode_snapshot(&mut out, snapshot);
    out.finish()
}

/// Reads what [`encode_snapshot_record`] wrote.
pub fn decode_snapshot_record(bytes: &[u8]) -> Result<Snapshot, DecodeError> {
    let mut input = Decoder::new(bytes);
    let snapshot = decode_snapshot(&mut input)?;
    input.end()?;
    Ok(snapshot)
}

pub(super) fn encode_time(out: &mut Encoder, time: Time) {
    out.signed(time.secs);
    out.varint(u64::from(time.nanos));
}

pub(super) fn decode_time(input: &mut Decoder<'_>) -> Result<Time, DecodeError> {
    let (secs, nanos) = (input.signed()?, input.varint32("a time")?);
    if nanos < 1_000_000_000 { Ok(Time { secs, nanos }) } else { Err(DecodeError::Invalid("a time")) }
}

pub(super) fn label(input: &mut Decoder<'_>) -> Result<String, DecodeError> {
    let bytes = input.string(limits::LABEL_BYTES_MAX, "a label")?;
    String::from_utf8(bytes.to_vec()).map_err(|_| DecodeError::Invalid("a label"))
}
